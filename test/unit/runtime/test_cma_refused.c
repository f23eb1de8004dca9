/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that were offered by addresses when these could still be read, and are asked for because they cannot be any more. Both sides are polled
 * by one thread; the system call is answered here. */
#include "runtime/conn.h"
#include "runtime/take.h"
#include "test/unit/runtime/cancel_util.h"
#include "test/unit/runtime/refuse_reads.h"

TestSuite(cma_refused, .timeout = 120);

/* The way is CMA or CMA_INTO. */
static bool begin_reading(enum way way)
{
    allowed = UINT_MAX;
    t.way = way;
    if (begin())
        return true;
    finish();
    return false;
}

#define BOTH_WAYS(name)                                                   \
    static void name(void);                                               \
    Test(cma_refused, name)                                               \
    {                                                                     \
        for (t.way = CMA; t.way <= CMA_INTO; t.way++)                     \
            name();                                                       \
    }                                                                     \
    static void name(void)

static struct pli_take *waiting(void)
{
    struct pli_take *take = t.srv->conn[0]->taking;

    return take && take->asked ? take : NULL;
}

static void is_counted(uint64_t read)
{
    cr_assert_eq(ctx_stats(t.w->ctx[0]).cma_refused, 1);
    cr_assert_eq(ctx_stats(t.w->ctx[0]).offers_cma, read);
    cr_assert_eq(t.c->link->cma.peer_reads, PLI_CMA_NO);
}

/* ---- */

BOTH_WAYS(the_first_that_is_refused)
{
    uint64_t read, offered;

    if (!begin_reading(t.way))
        return;
    read = ctx_stats(t.w->ctx[0]).offers_cma;
    allowed = 0;
    send_long(1);
    wait_done(1, 0);
    cr_assert_eq(t.seen[1], 1);
    is_counted(read);
    /* from here on nothing is offered so; and it is not tried again, though it were possible */
    allowed = UINT_MAX;
    offered = ctx_stats(t.w->ctx[1]).offers_sent;
    t.c->take = PLAIT_TAKE_CMA;
    send_long(2);
    wait_done(2, 0);
    cr_assert_eq(ctx_stats(t.w->ctx[1]).offers_sent, offered);
    is_counted(read);
    goes_on();
}

/* Some slices have been copied. */
BOTH_WAYS(in_the_middle)
{
    enum way way = t.way;
    unsigned calls = 1;

    for (bool whole = false; !whole; calls += calls < 8 ? 1 : 100) {
        if (!begin_reading(way))
            return;
        allowed = calls;
        send_long(1);
        wait_done(1, 0);
        whole = allowed > 0;
        cr_assert_eq(t.seen[1], 1);
        cr_assert_eq(ctx_stats(t.w->ctx[0]).cma_refused, !whole);
        goes_on();
    }
    cr_assert_gt(calls, 3);
}

/* Several are on their way, with small ones between; a region goes early. */
BOTH_WAYS(in_order)
{
    if (!begin_reading(t.way))
        return;
    allowed = 2;
    for (uint32_t id = 1; id <= 3; id++) {
        send_long(3 * id);
        send_small(3 * id + 1, true, false);
        send_small(3 * id + 2, false, true);
    }
    FAILS(plait_mem_release(t.mem), 0);
    t.mem = NULL;
    for (uint32_t id = 3; id <= 11; id++) {
        wait_done(id, 0);
        cr_assert_eq(t.order[id - 3], id);
    }
    cr_assert_eq(ctx_stats(t.w->ctx[0]).cma_refused, 1);
    goes_on();
}

BOTH_WAYS(requests)
{
    if (!begin_reading(t.way))
        return;
    allowed = 1;
    for (uint32_t id = 1; id <= 3; id++)
        request_long(id);
    for (uint32_t id = 1; id <= 3; id++)
        wait_done(id, 0);
    cr_assert_eq(ctx_stats(t.w->ctx[0]).cma_refused, 1);
    goes_on();
}

/* In pieces that are nothing alike on both sides. */
static struct iovec pieces[77];

static void into_pieces(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    (void)c;
    (void)arg;
    if (t.on && offer->len == LEN)
        FAILS(plait_offer_into(offer, pieces, 77), 0);
}

Test(cma_refused, pieces)
{
    struct plait_conn_ops ops;
    uint8_t *to = calloc(1, LEN + 77 * 16), *from = malloc(LEN + 100 * 16), *p = to;
    struct iovec iov[100];
    uint32_t id = 1;
    struct plait_out out = nocopy(NULL, 0, &t.done[1]);

    if (!begin_reading(CMA))
        return;
    ops = *t.srv->conn[0]->ops;
    ops.on_offer = into_pieces;
    t.srv->conn[0]->ops = &ops;
    for (unsigned i = 0; i < 77; i++) {
        pieces[i] = (struct iovec){ p, i == 76 ? LEN - 76 * 50001 : 50001 };
        p += pieces[i].iov_len + 3;
    }
    fill_bytes(t.src, LEN, 1);
    p = from;
    for (unsigned i = 0; i < 100; i++) {
        size_t len = i == 99 ? LEN - 99 * 30011 : i % 2 ? 2 * 30011 : 0;

        if (i == 98)
            len = 30011;
        iov[i] = (struct iovec){ p, len };
        p += len + 5;
    }
    for (unsigned i = 0, at = 0; i < 100; at += (unsigned)iov[i++].iov_len)
        memcpy(iov[i].iov_base, t.src + at, iov[i].iov_len);
    cr_assert_eq(pli_iov_len(iov, 100), LEN);
    out.iov = iov;
    out.niov = 100;
    out.hdr = &id;
    out.hdr_len = sizeof id;
    allowed = 0;
    FAILS(plait_sendx(t.c, &out), 0);
    memset(iov, 0, sizeof iov); /* the array is the caller's again */
    wait_done(1, 0);
    cr_assert_eq(t.seen[1], 1);
    t.srv->misuse = 0; /* pieces are not aligned */
    goes_on();
    free(from);
    free(to);
}

/* ---- replies ---- */

static struct outcome reply_done[8];
static unsigned nreplies;
static uint8_t *reply_from;

static void reply_long(struct plait_msg *msg)
{
    struct plait_out out = nocopy(reply_from, LEN, &reply_done[nreplies]);

    cr_assert_lt(nreplies++, 8);
    FAILS(plait_replyx(msg, &out), 0);
}

static void ask_for_reply(uint32_t id, uint8_t *into)
{
    const struct iovec iov = { into, LEN };
    struct plait_out out = PLAIT_OUT_INIT;
    uint32_t word[2] = { id, ~id };

    out.data = word;
    out.len = sizeof word;
    out.on_reply = on_reply;
    out.arg = &t.done[id];
    if (into) {
        out.into = &iov;
        out.ninto = 1;
    }
    FAILS(plait_sendx(t.c, &out), 0);
}

/* The client reads what the server replies. */
static bool begin_replies(void)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    if (!begin_reading(CMA))
        return false;
    nreplies = 0;
    memset(reply_done, 0, sizeof reply_done);
    reply_from = malloc(LEN);
    fill_bytes(reply_from, LEN, 7);
    t.on_request = reply_long;
    for (uint32_t id = 100; ctx_stats(t.w->ctx[1]).offers_cma == 0; id++) {
        cr_assert_lt(pli_clock_now(), end);
        ask_for_reply(id, NULL);
        wait_done(id, 0);
        settle(t.w);
    }
    memset(reply_done, 0, sizeof reply_done);
    nreplies = 0;
    return true;
}

static void end_replies(void)
{
    settle(t.w);
    for (unsigned i = 0; i < nreplies; i++)
        cr_assert_eq(reply_done[i].n, 1);
    goes_on();
    free(reply_from);
}

Test(cma_refused, replies)
{
    uint8_t *into = calloc(3, LEN);

    if (!begin_replies())
        return;
    allowed = 1;
    ask_for_reply(1, into);
    send_small(2, false, false);
    ask_for_reply(3, NULL);
    ask_for_reply(4, into + LEN);
    wait_done(1, 0);
    wait_done(3, 0);
    wait_done(4, 0);
    cr_assert(has_bytes(into, LEN, 7) && has_bytes(into + LEN, LEN, 7));
    cr_assert_eq(t.done[3].len, LEN);
    cr_assert_eq(ctx_stats(t.w->ctx[1]).cma_refused, 1);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(reply_done[i].status, 0);
    end_replies();
    free(into);
}

/* Time is over while the bytes are on their way: they are not written, but those of what follows are. */
Test(cma_refused, replies_that_come_too_late)
{
    uint8_t *into = calloc(1, LEN);

    for (unsigned polls = 0;; polls++) {
        if (!begin_replies())
            return;
        allowed = 0;
        ask_for_reply(1, into);
        ask_for_reply(2, NULL);
        while (!t.c->taking || !t.c->taking->asked)
            poll_all(t.w);
        for (unsigned i = 0; i < polls; i++)
            poll_all(t.w);
        if (t.done[1].n) {
            cr_assert_gt(polls, 3);
            break;
        }
        pli_req_forget(t.c, &t.done[1]); /* as plait_call() and the timer */
        cr_assert(t.c->taking->dropped);
        memset(into, 0x5a, LEN);
        wait_done(2, 0);
        settle(t.w);
        cr_assert_eq(t.done[1].n, 0);
        for (size_t i = 0; i < LEN; i++)
            cr_assert_eq(into[i], 0x5a);
        cr_assert_eq(t.done[2].len, LEN);
        end_replies();
    }
    wait_done(2, 0);
    end_replies();
    free(into);
}

Test(cma_refused, reply_given_up)
{
    uint8_t *into = calloc(1, LEN);

    for (unsigned polls = 0;; polls++) {
        if (!begin_replies())
            return;
        allowed = 0;
        ask_for_reply(1, into);
        while (!t.c->taking || !t.c->taking->asked)
            poll_all(t.w);
        for (unsigned i = 0; i < polls; i++)
            poll_all(t.w);
        if (t.done[1].n) {
            cr_assert_gt(polls, 3);
            break;
        }
        FAILS(plait_cancel(t.srv->conn[0], &reply_done[0]), 0);
        wait_done(1, PLAIT_E_CANCELED);
        WAIT(t.w, reply_done[0].n, 1);
        cr_assert_eq(reply_done[0].status, PLAIT_E_CANCELED);
        memset(into, 0x5a, LEN);
        settle(t.w);
        for (size_t i = 0; i < LEN; i++)
            cr_assert_eq(into[i], 0x5a);
        end_replies();
    }
    end_replies();
    free(into);
}

/* ---- given up, closed, aborted ---- */

static void poll_until_asked(void)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while (!waiting()) {
        cr_assert_lt(pli_clock_now(), end);
        poll_server();
    }
}

static void poll_sides(unsigned polls)
{
    for (unsigned i = 0; i < polls; i++) {
        poll_client();
        poll_server();
    }
}

BOTH_WAYS(given_up)
{
    enum way way = t.way;

    for (unsigned polls = 0;; polls++) {
        if (!begin_reading(way))
            return;
        allowed = 0;
        if (polls % 2)
            request_long(1);
        else
            send_long(1);
        send_long(2);
        send_small(3, true, false);
        poll_until_asked();
        poll_sides(polls);
        if (t.seen[1]) {
            cr_assert_gt(polls, 3);
            break;
        }
        cancel(1);
        wait_done(1, PLAIT_E_CANCELED);
        wait_done(2, 0);
        wait_done(3, 0);
        check_gone(1);
        goes_on();
    }
    wait_done(2, 0);
    goes_on();
}

/* The one that waits behind is given up. */
BOTH_WAYS(given_up_behind)
{
    if (!begin_reading(t.way))
        return;
    allowed = 0;
    send_long(1);
    send_long(2);
    send_small(3, true, false);
    poll_until_asked();
    cancel(2);
    wait_done(1, 0);
    wait_done(2, PLAIT_E_CANCELED);
    wait_done(3, 0);
    check_gone(2);
    goes_on();
}

BOTH_WAYS(closed)
{
    enum way way = t.way;

    for (unsigned polls = 0; polls < 12; polls += 3) {
        if (!begin_reading(way))
            return;
        allowed = 0;
        send_long(1);
        request_long(2);
        poll_until_asked();
        poll_sides(polls);
        FAILS(plait_session_close(polls % 2 ? t.srv->s : t.cli.s), 0);
        wait_done(1, 0);
        wait_done(2, 0);
        WAIT(t.w, t.cli.closed, 1);
        WAIT(t.w, t.srv->closed, 1);
        cr_assert(t.seen[1] && t.seen[2]);
        plait_session_release(t.cli.s);
        t.cli.s = NULL;
        finish();
    }
}

BOTH_WAYS(aborted)
{
    enum way way = t.way;

    for (unsigned polls = 0; polls < 12; polls++) {
        if (!begin_reading(way))
            return;
        allowed = 0;
        send_long(1);
        request_long(2);
        send_small(3, true, false);
        poll_until_asked();
        poll_sides(polls / 2);
        FAILS(plait_conn_abort(polls % 2 ? t.srv->conn[0] : t.c), 0);
        for (uint32_t id = 1; id <= 3; id++) {
            WAIT(t.w, t.done[id].n, 1);
            cr_assert(t.done[id].status < 0 || t.seen[id]);
        }
        WAIT(t.w, t.cli.closed, 1);
        WAIT(t.w, t.srv->closed, 1);
        plait_session_release(t.cli.s);
        t.cli.s = NULL;
        finish();
    }
}

/* A context goes, with all that it had. */
BOTH_WAYS(a_context_is_destroyed)
{
    enum way way = t.way;

    for (unsigned polls = 0; polls < 8; polls++) {
        unsigned victim = polls % 2;

        if (!begin_reading(way))
            return;
        allowed = 0;
        send_long(1);
        request_long(2);
        poll_until_asked();
        poll_sides(polls / 2);
        FAILS(plait_ctx_destroy(t.w->ctx[victim]), 0);
        t.w->ctx[victim] = NULL;
        WAIT(t.w, t.done[1].n, 1);
        WAIT(t.w, t.done[2].n, 1);
        WAIT(t.w, t.cli.closed, 1);
        WAIT(t.w, t.srv->closed, 1);
        plait_session_release(t.cli.s);
        t.cli.s = NULL;
        finish();
    }
}

/* ---- what comes behind ---- */

/* Both ask at the same time, and both have begun a long message through the ring, whose rest waits. */
Test(cma_refused, both_sides_behind_long_ones)
{
    struct plait_out out = PLAIT_OUT_INIT;
    size_t len = 24u << 20;
    uint8_t *p = malloc(len);
    unsigned before, came;

    if (!begin_replies())
        return;
    fill_bytes(p, len, 3);
    out.data = p;
    out.len = len;
    before = t.cli.msgs;
    came = t.srv->msgs + 3;
    ask_for_reply(1, NULL);
    while (!nreplies)
        poll_server();
    allowed = 0;
    send_long(2);
    t.on = false; /* no ids in these */
    FAILS(plait_sendx(t.c, &out), 0);
    FAILS(plait_sendx(t.srv->conn[0], &out), 0);
    wait_done(1, 0);
    wait_done(2, 0);
    WAIT(t.w, t.cli.msgs, before + 1);
    WAIT(t.w, t.srv->msgs, came);
    settle(t.w);
    cr_assert_eq(conn_info(t.c).queued, 0);
    cr_assert_eq(ctx_stats(t.w->ctx[0]).cma_refused, 1);
    cr_assert_eq(ctx_stats(t.w->ctx[1]).cma_refused, 1);
    t.on = true;
    end_replies();
    free(p);
}
