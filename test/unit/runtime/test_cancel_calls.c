/* SPDX-License-Identifier: BSD-3-Clause */
/* plait_cancel() from callbacks, callbacks that it leads to, and replies that are given up. */
#include <sys/wait.h>
#include "test/unit/runtime/cancel_util.h"

TestSuite(cancel_calls, .timeout = 120);

/* ---- replies ---- */

static uint8_t *reply_into;

static void reply_long(struct plait_msg *msg)
{
    static const uint32_t id = 2;
    struct plait_out out = long_out(&id);

    FAILS(plait_replyx(msg, &out), 0);
}

static void replied(struct plait_msg *reply, int status, void *arg)
{
    struct outcome *o = arg;

    o->n++;
    o->status = status;
    cr_assert(!reply || msg_has(reply, LEN, 2));
    if (reply_into && status)
        memset(reply_into, 0x5a, LEN);
}

/* The reply is with the client, which copies it; in parts: some of it. */
static void half_reply(void)
{
    struct plait_out out = PLAIT_OUT_INIT;
    static struct iovec iov;
    uint32_t word[2] = { 1, ~1u };
    enum way way = t.way;

    /* who sends what is long is the server here */
    reply_into = way == INTO || way == CMA_INTO || way == RING_INTO ? calloc(1, LEN) : NULL;
    iov = (struct iovec){ reply_into, LEN };
    t.on_request = reply_long;
    out.data = word;
    out.len = sizeof word;
    out.on_reply = replied;
    out.arg = &t.done[1];
    out.into = reply_into ? &iov : NULL;
    out.ninto = reply_into != NULL;
    FAILS(plait_sendx(t.c, &out), 0);
    while (!t.nsrc)
        poll_server();
    poll_client();
    poll_client();
    cr_assert_eq(t.done[1].n, 0, "nothing is left to be interrupted");
}

static void check_reply_gone(void)
{
    settle(t.w);
    for (size_t i = 0; reply_into && i < LEN; i++)
        cr_assert_eq(reply_into[i], 0x5a, "written after it was given up");
    cr_assert_eq(conn_info(t.c).pending, 0);
    cr_assert_eq(conn_info(t.srv->conn[0]).pending, 0);
    free(reply_into);
}

/* False: not possible here. */
static bool begin_reply(void)
{
    bool able = begin();

    if (able && (t.way <= TAKE_COPY)) {
        t.on = false;
        make_known(t.w, 0, t.srv->conn[0], t.mem);
        t.on = true;
    }
    if (!able)
        finish();
    return able;
}

/* By who replies. */
ALL(reply_canceled, cancel_calls, INTO, TAKE_COPY)
{
    if (t.way == COPIED || !begin_reply())
        return;
    half_reply();
    FAILS(plait_cancel(t.srv->conn[0], &t.done[2]), 0);
    FAILS(plait_cancel(t.srv->conn[0], &t.done[2]), 0);
    wait_done(1, PLAIT_E_CANCELED);
    wait_done(2, PLAIT_E_CANCELED);
    check_reply_gone();
    goes_on();
}

/* One is being copied, the other waits behind it; both were sent with the same arg. */
Test(cancel_calls, two_replies_canceled)
{
    t.way = TAKE_COPY;
    cr_assert(begin_reply());
    half_reply();
    send_small(3, false, true);
    while (t.nsrc < 2)
        poll_server();
    FAILS(plait_cancel(t.srv->conn[0], &t.done[2]), 0);
    WAIT(t.w, t.done[2].n, 2);
    cr_assert_eq(t.done[2].status, PLAIT_E_CANCELED);
    t.done[2].n = 1;
    wait_done(1, PLAIT_E_CANCELED);
    wait_done(3, PLAIT_E_CANCELED);
    check_reply_gone();
    goes_on();
}

/* By who asked: the replier is done as always. */
ALL(request_canceled, cancel_calls, INTO, RING_INTO)
{
    if (t.way == COPIED || t.way == CMA || t.way == CMA_INTO || t.way == PLACE || !begin_reply())
        return;
    half_reply();
    cancel(1);
    poll_client();
    cr_assert_eq(t.done[1].n, 1);
    cr_assert_eq(t.done[1].status, PLAIT_E_CANCELED);
    wait_done(2, 0);
    check_reply_gone();
    goes_on();
}

/* ---- from callbacks ---- */

static unsigned calls;

static void cancel_first(struct plait_msg *reply, int status, void *arg)
{
    on_reply(reply, status, arg);
    calls++;
    cancel(1);
}

static void request_small(uint32_t id, plait_reply_fn fn)
{
    uint32_t word[2] = { id, ~id };

    FAILS(plait_request(t.c, word, sizeof word, 0, fn, &t.done[id]), 0);
}

/* 2 is answered while 1 is held: its callback cancels 1. */
static void hold_first(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    t.hold = t.n == 0;
    arrived(log, c, msg);
}

Test(cancel_calls, in_on_reply)
{
    t.way = RING;
    begin();
    calls = 0;
    t.srv->on_msg = hold_first;
    request_small(1, on_reply);
    request_small(2, cancel_first);
    wait_done(2, 0);
    wait_done(1, PLAIT_E_CANCELED);
    plait_msg_release(t.srv->held[0]);
    t.srv->on_msg = arrived;
    goes_on();
}

/* Each callback gives up the next: 1, 20, 2, 19, ... */
static uint32_t nth(unsigned n)
{
    return n % 2 ? 20 - n / 2 : 1 + n / 2;
}

static void cancel_next(struct plait_msg *reply, int status, void *arg)
{
    on_reply(reply, status, arg);
    cr_assert_eq(status, PLAIT_E_CANCELED);
    if (++calls < 20)
        cancel(nth(calls));
}

Test(cancel_calls, in_each_other)
{
    t.way = RING;
    begin();
    t.hold = true;
    calls = 0;
    for (uint32_t id = 1; id <= 20; id++)
        request_small(id, cancel_next);
    WAIT(t.w, t.n, 20);
    cancel(1);
    WAIT(t.w, calls, 20);
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    goes_on();
}

/* The table of requests grows in the callback of a canceled one. */
static void ask_many(struct plait_msg *reply, int status, void *arg)
{
    on_reply(reply, status, arg);
    if (calls++)
        return;
    for (uint32_t id = 100; id < 140; id++)
        request_small(id, on_reply);
}

Test(cancel_calls, table_grows)
{
    t.way = RING;
    begin();
    t.hold = true;
    calls = 0;
    for (uint32_t id = 1; id <= 16; id++)
        request_small(id, ask_many);
    WAIT(t.w, t.n, 16);
    t.hold = false;
    for (uint32_t id = 1; id <= 16; id++)
        cancel(id);
    for (uint32_t id = 1; id <= 16; id++)
        wait_done(id, PLAIT_E_CANCELED);
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    for (uint32_t id = 100; id < 140; id++)
        wait_done(id, 0);
    goes_on();
}

/* ---- the end comes in a callback ---- */

static void end_it(struct plait_msg *reply, int status, void *arg)
{
    on_reply(reply, status, arg);
    if (!calls++)
        plait_session_release(t.cli.s);
}

/* Its user releases the session: nothing more is told on this side. */
Test(cancel_calls, session_released)
{
    t.way = RING;
    begin();
    t.hold = true;
    calls = 0;
    for (uint32_t id = 1; id <= 4; id++)
        request_small(id, end_it);
    WAIT(t.w, t.n, 4);
    for (uint32_t id = 1; id <= 4; id++)
        cancel(id);
    for (uint32_t id = 1; id <= 4; id++)
        wait_done(id, PLAIT_E_CANCELED);
    t.cli.s = NULL;
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    WAIT(t.w, t.srv->closed, 1);
    finish();
}

static void abort_conn(struct plait_conn *c)
{
    calls++;
    FAILS(plait_conn_abort(c), 0);
}

static void close_conn(struct plait_conn *c)
{
    calls++;
    FAILS(plait_conn_close(c), 0);
}

static void end_in_gone(void (*fn)(struct plait_conn *c))
{
    if (!begin()) {
        finish();
        return;
    }
    calls = 0;
    t.on_gone = fn;
    send_long(1);
    send_long(2);
    send_small(3, true, false);
    if (t.way < RING)
        poll_server();
    cancel(1);
    WAIT(t.w, calls, 1);
    WAIT(t.w, t.done[1].n, 1);
    if (t.way < RING)
        WAIT(t.w, t.done[2].n, 1);
    WAIT(t.w, t.srv->c_closed, 1);
    WAIT(t.w, t.cli.closed, 1);
    settle(t.w);
    plait_session_release(t.cli.s);
    t.cli.s = NULL;
    finish();
}

ALL(aborted_in_gone, cancel_calls, INTO, CMA_INTO)
{
    end_in_gone(abort_conn);
}

ALL(closed_in_gone, cancel_calls, INTO, CMA_INTO)
{
    end_in_gone(close_conn);
}

/* ---- a fork in a callback ---- */

static pid_t child;
static unsigned countdown; /* the how manieth callback forks */

static unsigned told;      /* callbacks in the child afterwards */

static void fork_now(void)
{
    told += !countdown && !child;
    if (!countdown || --countdown)
        return;
    child = fork();
    cr_assert_geq(child, 0);
}

static void fork_gone(struct plait_conn *c)
{
    (void)c;
    fork_now();
}

static void fork_msg(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (t.on)
        fork_now();
    if (child || countdown)
        arrived(log, c, msg);
}

static void fork_reply(struct plait_msg *reply, int status, void *arg)
{
    on_reply(reply, status, arg);
    fork_now();
}

/* The child gets an error, and can give everything back; nobody is told anything there. */
static void step(void)
{
    for (unsigned i = 0; i < 2; i++) {
        int rc = plait_ctx_poll(t.w->ctx[i]);

        if (child == 0 && !countdown) {
            alarm(20);
            for (unsigned k = 0; k < 2; k++)
                plait_ctx_destroy(t.w->ctx[k]);
            _exit(rc == PLAIT_E_FORKED && !told ? 0 : 3);
        }
        cr_assert_geq(rc, 0, "%s", plait_error_text());
    }
}

static void forks_at(unsigned n)
{
    int status;

    if (!begin()) {
        finish();
        return;
    }
    child = 0;
    countdown = n;
    t.on_gone = fork_gone;
    t.srv->on_msg = fork_msg;
    send_long(1);
    send_long(2);
    send_small(3, true, false);
    send_small(4, false, true);
    poll_server();
    cr_assert_eq(t.n, 0);
    cancel(1);
    for (unsigned i = 0; countdown; i++) {
        cr_assert_lt(i, 1000000u);
        step();
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
    t.srv->on_msg = arrived;
    t.on_gone = NULL;
    wait_done(1, PLAIT_E_CANCELED);
    wait_done(2, 0);
    wait_done(3, 0);
    wait_done(4, 0);
    check_gone(1);
    goes_on();
}

ALL(forks, cancel_calls, INTO, CMA_INTO)
{
    for (unsigned n = 1; n <= 4; n++)
        forks_at(n);
}

Test(cancel_calls, forks_in_on_reply)
{
    int status;

    t.way = RING;
    begin();
    t.hold = true;
    child = 0;
    countdown = 2;
    for (uint32_t id = 1; id <= 3; id++)
        request_small(id, fork_reply);
    WAIT(t.w, t.n, 3);
    for (uint32_t id = 1; id <= 3; id++)
        cancel(id);
    while (countdown)
        step();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
    countdown = 9;
    for (uint32_t id = 1; id <= 3; id++)
        wait_done(id, PLAIT_E_CANCELED);
    while (t.srv->nheld)
        plait_msg_release(t.srv->held[--t.srv->nheld]);
    goes_on();
}
