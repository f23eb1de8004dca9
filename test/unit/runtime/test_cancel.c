/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that their sender gives up, in every phase. Both sides are polled by one thread, so that each phase is met exactly. */
#include "test/unit/runtime/cancel_util.h"

TestSuite(cancel, .timeout = 120);

static uint64_t copies_begun(void)
{
    struct plait_ctx_stats st = ctx_stats(t.w->ctx[0]);

    return st.offers_copied + st.offers_cma;
}

/* The server has begun to copy it, and is not done. */
static void begin_copy(uint32_t id)
{
    uint64_t before = copies_begun();

    send_long(id);
    poll_server();
    cr_assert_eq(copies_begun(), before + 1);
    cr_assert_eq(t.seen[id], 0, "nothing is left to be interrupted");
}

/* ---- long messages, by phase ---- */

ALL(not_polled, cancel, INTO, CMA_INTO)
{
    if (!begin()) {
        finish();
        return;
    }
    send_long(1);
    cancel(1);
    wait_done(1, PLAIT_E_CANCELED);
    check_gone(1);
    goes_on();
}

ALL(request_not_polled, cancel, INTO, CMA_INTO)
{
    if (!begin()) {
        finish();
        return;
    }
    request_long(1);
    cancel(1);
    wait_done(1, PLAIT_E_CANCELED);
    check_gone(1);
    goes_on();
}

ALL(being_copied, cancel, INTO, CMA_INTO)
{
    for (unsigned slices = 1; begin(); slices += 7) {
        begin_copy(1);
        for (unsigned i = 1; i < slices; i++)
            poll_server();
        if (t.seen[1]) {
            cr_assert_gt(slices, 20);
            break;
        }
        cancel(1);
        wait_done(1, PLAIT_E_CANCELED);
        check_gone(1);
        goes_on();
    }
    finish();
}

ALL(request_being_copied, cancel, INTO, CMA_INTO)
{
    if (!begin()) {
        finish();
        return;
    }
    request_long(1);
    poll_server();
    cr_assert(t.offered[1] && !t.seen[1]);
    cancel(1);
    wait_done(1, PLAIT_E_CANCELED);
    check_gone(1);
    goes_on();
}

/* Some parts are with the server, the rest is queued here. */
ALL(half_sent, cancel, RING, RING_SENT)
{
    for (unsigned polls = 0; polls < 4; polls++) {
        begin();
        if (polls & 1)
            send_long(1);
        else
            request_long(1);
        cr_assert_eq(conn_info(t.c).queued, 1);
        for (unsigned i = 0; i < polls; i++)
            poll_server();
        cancel(1);
        wait_done(1, PLAIT_E_CANCELED);
        check_gone(1);
        cr_assert_eq(t.offered[1], 1);
        goes_on();
    }
}

/* All of it is on its way, or has come. */
ALL(held, cancel, INTO, RING_SENT)
{
    if (!begin()) {
        finish();
        return;
    }
    t.hold = true;
    send_long(1);
    WAIT(t.w, t.seen[1], 1);
    cancel(1);
    settle(t.w);
    cr_assert_eq(t.done[1].n, 0);
    cr_assert(msg_has(t.srv->held[0], LEN, 1));
    plait_msg_release(t.srv->held[0]);
    wait_done(1, 0);
    goes_on();
}

ALL(request_held, cancel, INTO, RING_SENT)
{
    bool offered = t.way < RING;

    if (!begin()) {
        finish();
        return;
    }
    t.hold = true;
    request_long(1);
    WAIT(t.w, t.seen[1], 1);
    cancel(1);
    if (!offered) {
        poll_client();
        cr_assert_eq(t.done[1].n, 1);
    }
    settle(t.w);
    cr_assert_eq(t.done[1].n, offered ? 0 : 1);
    FAILS(plait_reply(t.srv->held[0], "late", 4, 0), 0);
    plait_msg_release(t.srv->held[0]);
    wait_done(1, offered ? 0 : PLAIT_E_CANCELED);
    goes_on();
}

/* ---- behind a copy ---- */

enum { LONG = 2, SHORT, REQUEST, PARTS, LAST };

/* From memory that the peer cannot know: in parts. */
static void send_parts(uint32_t id, uint8_t *p)
{
    struct plait_out out = nocopy(p, LEN, &t.done[id]);

    fill_bytes(p, LEN, id);
    out.hdr = &id;
    out.hdr_len = sizeof id;
    FAILS(plait_sendx(t.c, &out), 0);
}

static void each_behind(unsigned which, unsigned more)
{
    bool parts = which & 1u << PARTS && t.way != CMA && t.way != CMA_INTO;
    uint8_t *plain = malloc(LEN);
    unsigned want[8], n = 0;

    if (!begin()) {
        free(plain);
        finish();
        return;
    }
    begin_copy(1);
    send_long(LONG);
    send_small(SHORT, true, false);
    send_small(REQUEST, false, true);
    if (parts) { /* what has been sent of it may make the server hurry */
        send_parts(PARTS, plain);
        cancel(PARTS);
    }
    for (unsigned i = 0; i < more; i++)
        poll_server();
    cr_assert(t.n == 0 || parts, "nothing is left to be interrupted");
    for (uint32_t id = PARTS - 1; id > 0; id--) /* the other way round the first would let the last be delivered */
        if (which & 1u << id)
            cancel(id);
    for (uint32_t id = 1; id < LAST; id++) {
        bool lost = which & 1u << id;

        if (id == PARTS && !parts)
            continue;
        wait_done(id, lost ? PLAIT_E_CANCELED : 0);
        if (!lost)
            want[n++] = id;
        else if (id != SHORT && id != REQUEST)
            check_gone(id);
    }
    settle(t.w);
    cr_assert_eq(t.n, n);
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(t.order[i], want[i]);
    free(plain);
    goes_on();
}

#define BEHIND(name, which, more) ALL(name, cancel, INTO, CMA_INTO) { each_behind(which, more); }
BEHIND(behind_long, 1u << LONG, 1)
BEHIND(behind_long_unread, 1u << LONG, 0)
BEHIND(behind_short, 1u << SHORT, 1)
BEHIND(behind_request, 1u << REQUEST, 1)
BEHIND(behind_parts, 1u << PARTS, 1)
BEHIND(behind_parts_unread, 1u << PARTS, 0)
BEHIND(behind_all_but_first, 28u, 1)
BEHIND(behind_first, 2u, 1)
BEHIND(behind_first_and_second, 6u, 1)
BEHIND(behind_all, 30u, 1)
BEHIND(behind_all_unread, 30u, 0)

/* ---- short messages ---- */

Test(cancel, request_delivered)
{
    t.way = RING;
    begin();
    t.hold = true;
    send_small(1, false, true);
    WAIT(t.w, t.seen[1], 1);
    cancel(1);
    poll_client();
    cr_assert_eq(t.done[1].n, 1);
    cr_assert_eq(t.done[1].status, PLAIT_E_CANCELED);
    cr_assert_eq(conn_info(t.c).pending, 1);
    FAILS(plait_cancel(t.c, &t.done[1]), PLAIT_E_NOTFOUND);
    FAILS(plait_reply(t.srv->held[0], "late", 4, 0), 0);
    plait_msg_release(t.srv->held[0]);
    settle(t.w);
    cr_assert_eq(conn_info(t.c).pending, 0);
    goes_on();
}

/* The reply is there already, unread. */
Test(cancel, reply_unread)
{
    t.way = RING;
    begin();
    send_small(1, false, true);
    send_small(2, true, false);
    while (t.n < 2)
        poll_server();
    cancel(1);
    cancel(2);
    WAIT(t.w, t.done[1].n, 1);
    wait_done(2, 0);
    goes_on();
}

Test(cancel, twice_and_unknown)
{
    struct outcome nobody;

    t.way = INTO;
    begin();
    FAILS(plait_cancel(t.c, &nobody), PLAIT_E_NOTFOUND);
    cr_assert_not_null(strstr(plait_error_text(), "outstanding"));
    begin_copy(1);
    FAILS(plait_cancel(t.c, &nobody), PLAIT_E_NOTFOUND);
    for (unsigned i = 0; i < 10000; i++)
        cancel(1);
    wait_done(1, PLAIT_E_CANCELED);
    FAILS(plait_cancel(t.c, &t.done[1]), PLAIT_E_NOTFOUND);
    check_gone(1);
    goes_on();
}

Test(cancel, twice_half_sent)
{
    t.way = RING;
    begin();
    send_long(1);
    for (unsigned i = 0; i < 100; i++)
        cancel(1);
    cr_assert_eq(conn_info(t.c).queued, 1);
    wait_done(1, PLAIT_E_CANCELED);
    goes_on();
}

Test(cancel, same_arg)
{
    struct plait_out out;
    uint32_t ids[3] = { 1, 2, 3 };

    t.way = INTO;
    begin();
    for (unsigned i = 0; i < 3; i++) {
        out = long_out(&ids[i]);
        out.arg = &t.done[9];
        if (i == 2) {
            out.on_done = NULL;
            out.on_reply = on_reply;
        }
        FAILS(plait_sendx(t.c, &out), 0);
    }
    send_small(4, false, false);
    poll_server();
    cr_assert_eq(t.n, 0);
    cancel(9);
    WAIT(t.w, t.done[9].n, 3);
    cr_assert_eq(t.done[9].status, PLAIT_E_CANCELED);
    t.done[9].n = 1;
    WAIT(t.w, t.seen[4], 1);
    cr_assert_eq(t.n, 1);
    goes_on();
}

Test(cancel, closed_connection)
{
    t.way = INTO;
    begin();
    begin_copy(1);
    cancel(1);
    FAILS(plait_conn_abort(t.c), 0);
    poll_client();
    wait_done(1, PLAIT_E_ABORTED);
    FAILS(plait_cancel(t.c, &t.done[1]), PLAIT_E_CLOSED);
    WAIT(t.w, t.srv->c_closed, 1);
    WAIT(t.w, t.cli.closed, 1);
    plait_session_release(t.cli.s);
    t.cli.s = NULL;
    finish();
}

/* ---- closing behind it ---- */

/* The close is asked for before anything of the cancelling has been read. */
ALL(closed_at_once, cancel, INTO, RING_SENT)
{
    for (unsigned who = 0; who < 4; who++) {
        struct log *closer;
        bool sent = t.way == PLACE;

        if (!begin()) {
            finish();
            return;
        }
        closer = who & 1 ? t.srv : &t.cli;
        if (who & 2)
            request_long(1);
        else
            send_long(1);
        poll_server();
        if (who & 2) {
            FAILS(plait_conn_close(closer->conn[0]), 0);
            cancel(1);
        } else {
            cancel(1);
            FAILS(plait_conn_close(closer->conn[0]), 0);
        }
        wait_done(1, sent ? 0 : PLAIT_E_CANCELED);
        WAIT(t.w, t.srv->c_closed, 1);
        WAIT(t.w, t.cli.closed, 1);
        cr_assert_eq(t.cli.c_code, 0, "%s", t.cli.c_text);
        cr_assert_eq(t.srv->c_code, 0, "%s", t.srv->c_text);
        if (!sent)
            check_gone(1);
        plait_session_release(t.cli.s);
        t.cli.s = NULL;
        finish();
    }
}

/* ---- with a time-out ---- */

static void request_timed(uint32_t id, bool big)
{
    struct plait_out out = PLAIT_OUT_INIT;
    uint32_t word[2] = { id, ~id };

    out.data = word;
    out.len = sizeof word;
    if (big)
        out = long_out(&id);
    out.on_done = NULL;
    out.on_reply = on_reply;
    out.arg = &t.done[id];
    out.timeout_us = 1000000;
    FAILS(plait_sendx(t.c, &out), 0);
}

/* Whichever is first, and nothing after it. */
static void timed(bool late, bool big)
{
    t.way = RING;
    begin();
    pli_clock_fake_start(pli_clock_now());
    t.hold = true;
    request_timed(1, big);
    if (!big)
        while (!t.n)
            poll_server();
    if (late)
        pli_clock_fake_advance(2000 * PLI_NS_PER_MS);
    cancel(1);
    while (!t.done[1].n)
        poll_client(), big ? poll_server() : (void)0;
    cr_assert(t.done[1].status == PLAIT_E_CANCELED || (late && t.done[1].status == PLAIT_E_TIMEDOUT), "%s",
              plait_status_name(t.done[1].status));
    pli_clock_fake_advance(2000 * PLI_NS_PER_MS);
    settle(t.w);
    pli_clock_fake_stop();
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    settle(t.w);
    cr_assert_eq(t.done[1].n, 1);
    cr_assert_eq(conn_info(t.c).pending, 0);
    goes_on();
}

Test(cancel, timed_request)
{
    timed(false, false);
    timed(true, false);
}

Test(cancel, timed_request_half_sent)
{
    timed(false, true);
    timed(true, true);
}

/* ---- the window ---- */

/* What is not accepted is not there to be given up; what has been delivered takes its place until it is released. */
Test(cancel, window_full)
{
    struct plait_out out = PLAIT_OUT_INIT;

    t.way = RING;
    begin();
    t.hold = true;
    for (uint32_t id = 1; id <= WINDOW; id++)
        send_small(id, true, false);
    WAIT(t.w, t.n, WINDOW);
    out.data = "12345678";
    out.len = 8;
    out.on_done = on_done;
    out.arg = &t.done[WINDOW + 1];
    FAILS(plait_sendx(t.c, &out), PLAIT_E_AGAIN);
    FAILS(plait_cancel(t.c, &t.done[WINDOW + 1]), PLAIT_E_NOTFOUND);
    for (uint32_t id = 1; id <= WINDOW; id++)
        cancel(id);
    settle(t.w);
    FAILS(plait_sendx(t.c, &out), PLAIT_E_AGAIN);
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    for (uint32_t id = 1; id <= WINDOW; id++)
        wait_done(id, 0);
    goes_on();
}

/* A whole window of them, twice. */
ALL(window_given_up, cancel, INTO, CMA_INTO)
{
    if (!begin()) {
        finish();
        return;
    }
    for (unsigned round = 0; round < 2; round++) {
        uint32_t first = 1 + round * WINDOW, end = first + WINDOW - conn_info(t.c).unreleased;

        cr_assert_eq(end - first, round ? WINDOW : end - first, "credit is lost");
        for (uint32_t id = first; id < end; id++) {
            t.nsrc = 0;
            if (id % 2)
                send_long(id);
            else
                request_long(id);
        }
        if (round)
            poll_server();
        for (uint32_t id = end; id-- > first;)
            cancel(id);
        for (uint32_t id = first; id < end; id++)
            wait_done(id, PLAIT_E_CANCELED);
    }
    settle(t.w);
    cr_assert_eq(t.n, 0);
    goes_on();
}
