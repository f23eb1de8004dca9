/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows, full rings, batches, messages written in place. */
#include <poll.h>
#include "test/unit/runtime/session_util.h"

TestSuite(session_flow, .timeout = 120);

static struct log *open_with(struct world *w, struct log *cli, uint32_t server_window)
{
    w->accept.window = server_window;
    return open_session(w, cli, NULL);
}

/* Sends from on_writable, so that every AGAIN must be followed by one. */
struct stream {
    uint32_t next, end;
    size_t len;
};

static void stream_on(struct log *log, struct plait_conn *c)
{
    struct stream *st = log->user;
    uint8_t data[8192];
    int rc = 0;

    while (st->next < st->end && rc == 0) {
        fill_bytes(data, st->len, st->next);
        rc = plait_send(c, data, st->len, 0);
        if (rc == 0)
            st->next++;
    }
    cr_assert(rc == 0 || rc == PLAIT_E_AGAIN, "%s", plait_error_text());
}

static unsigned wrong;

static void check_stream(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    wrong += !has_bytes(msg->data, msg->len, log->msgs - 1);
}

static void run_stream(struct world *w, struct log *cli, struct log *srv, uint32_t n, size_t len)
{
    struct stream st = { 0, n, len };
    unsigned before = srv->msgs;

    cr_assert_eq(before, 0);
    srv->on_msg = check_stream;
    cli->user = &st;
    cli->on_writable = stream_on;
    stream_on(cli, cli->conn[0]);
    WAIT(w, srv->msgs, n);
    cr_assert_eq(wrong, 0);
}

Test(session_flow, every_again_is_followed_by_writable)
{
    static const struct {
        uint32_t window;
        size_t len;
    } cases[] = { { 1, 8 }, { 2, 100 }, { 3, 1000 }, { 7, 8 }, { 1024, 8 }, { 16384, 8 }, { 1024, 4000 }, { 16384, 8000 } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world *w = listening_world();
        struct log cli, *srv = open_with(w, &cli, cases[i].window);

        cr_assert_eq(conn_info(cli.conn[0]).window, cases[i].window);
        run_stream(w, &cli, srv, 5000, cases[i].len);
        cr_assert_eq(cli.misuse, 0);
        end_session(w, &cli);
        end_world(w);
    }
}

Test(session_flow, the_window_is_exact)
{
    enum { WINDOW = 5 };
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_with(w, &cli, WINDOW);
    for (int i = 0; i < WINDOW; i++)
        FAILS(plait_send(cli.conn[0], "x", 1, 0), 0);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_AGAIN);
    cr_assert_not_null(strstr(plait_error_text(), "window"), "%s", plait_error_text());
    WAIT(w, srv->nheld, WINDOW);
    settle(w);
    cr_assert_eq(cli.writable, 0);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_AGAIN);
    cr_assert_eq(conn_info(cli.conn[0]).unreleased, WINDOW);
    /* each single release opens it again, whichever message it is */
    for (unsigned i = 0; i < 20; i++) {
        unsigned at = (i * 3) % WINDOW, held = srv->nheld;

        plait_msg_release(srv->held[at]);
        WAIT(w, cli.writable, i + 1);
        FAILS(plait_send(cli.conn[0], "x", 1, 0), 0);
        FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_AGAIN);
        WAIT(w, srv->nheld, held + 1);
        srv->held[at] = srv->held[held];
        srv->nheld = held;
    }
    for (int i = 0; i < WINDOW; i++)
        plait_msg_release(srv->held[i]);
    cr_assert_eq(ctx_stats(w->ctx[1]).again, 22);
    end_session(w, &cli);
    end_world(w);
}

static void hold_all_but_the_first(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (log->msgs > 1)
        hold_all(log, c, msg);
}

/* The receiver tells what it has released now and then only; but never so late that the sender waits for nothing. */
Test(session_flow, a_released_message_counts_while_the_others_are_held)
{
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_all_but_the_first;
    srv = open_with(w, &cli, 8);
    for (int i = 0; i < 8; i++)
        FAILS(plait_send(cli.conn[0], "x", 1, 0), 0);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_AGAIN);
    WAIT(w, cli.writable, 1);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), 0);
    WAIT(w, srv->nheld, 8);
    for (int i = 0; i < 8; i++)
        plait_msg_release(srv->held[i]);
    end_session(w, &cli);
    end_world(w);
}

Test(session_flow, requests_and_the_window)
{
    enum { WINDOW = 4 };
    struct world *w = listening_world();
    struct outcome o[2 * WINDOW];
    unsigned total = 0;
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_with(w, &cli, WINDOW);
    memset(o, 0, sizeof o);
    for (int i = 0; i < 2 * WINDOW; i++)
        o[i].total = &total;
    for (int i = 0; i < WINDOW; i++)
        FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o[i]), 0);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o[WINDOW]), PLAIT_E_AGAIN);
    WAIT(w, srv->nheld, WINDOW);
    FAILS(plait_reply(srv->held[2], "y", 1, 0), 0); /* the reply is the release */
    WAIT(w, cli.writable, 1);
    cr_assert_eq(total, 1);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o[WINDOW]), 0);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o[WINDOW + 1]), PLAIT_E_AGAIN);
    for (unsigned i = 0; i < WINDOW; i++)
        plait_msg_release(srv->held[i]);
    WAIT(w, total, WINDOW);
    WAIT(w, srv->nheld, WINDOW + 1);
    plait_msg_release(srv->held[WINDOW]);
    WAIT(w, total, WINDOW + 1);
    cr_assert_eq(o[2].status, 0);
    cr_assert_eq(o[WINDOW].status, PLAIT_E_NOREPLY);
    cr_assert_eq(conn_info(cli.conn[0]).unreleased, 0);
    end_session(w, &cli);
    end_world(w);
}

Test(session_flow, before_it_is_open)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct plait_slot slot;
    struct plait_conn *c;
    struct log cli;

    w->on_msg = echo;
    start_open(w, &cli, NULL);
    c = plait_session_conn(cli.s, 0);
    cr_assert_not(plait_conn_is_open(c));
    cr_assert_str_eq(conn_info(c).state, "opening");
    cr_assert_str_eq(conn_info(c).transport, "none");
    cr_assert_eq(plait_reserve_max(c), 0);
    FAILS(plait_flush(c), PLAIT_E_CLOSED);
    FAILS(plait_send(c, "x", 1, 0), PLAIT_E_AGAIN);
    FAILS(plait_request(c, "x", 1, 0, on_reply, &o), PLAIT_E_AGAIN);
    FAILS(plait_reserve(c, 1, &slot), PLAIT_E_AGAIN);
    WAIT(w, cli.opened, 1);
    WAIT(w, cli.writable, 1);
    settle(w);
    cr_assert_eq(cli.writable, 1);
    FAILS(plait_request(c, "x", 1, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

/* ---- MORE ---- */

Test(session_flow, more_waits_for_flush_or_the_next_poll)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);
    struct outcome o = { 0 };

    srv->on_msg = echo;
    FAILS(plait_send(cli.conn[0], "1", 1, PLAIT_MORE), 0);
    FAILS(plait_send(cli.conn[0], "2", 1, PLAIT_MORE), 0);
    for (int i = 0; i < 100; i++)
        cr_assert_geq(plait_ctx_poll(w->ctx[0]), 0);
    FAILS(plait_flush(cli.conn[0]), 0);
    for (int i = 0; i < 1000 && srv->msgs < 2; i++) /* the sender does nothing any more */
        cr_assert_geq(plait_ctx_poll(w->ctx[0]), 0);
    cr_assert_eq(srv->msgs, 2);

    FAILS(plait_send(cli.conn[0], "3", 1, PLAIT_MORE), 0);
    FAILS(plait_send(cli.conn[0], "4", 1, 0), 0);
    for (int i = 0; i < 1000 && srv->msgs < 4; i++)
        cr_assert_geq(plait_ctx_poll(w->ctx[0]), 0);
    cr_assert_eq(srv->msgs, 4);

    FAILS(plait_request(cli.conn[0], "5", 1, PLAIT_MORE, on_reply, &o), 0);
    for (int i = 0; i < 10; i++)
        cr_assert_geq(plait_ctx_poll(w->ctx[1]), 0);
    for (int i = 0; i < 1000 && srv->msgs < 5; i++)
        cr_assert_geq(plait_ctx_poll(w->ctx[0]), 0);
    cr_assert_eq(srv->msgs, 5, "the end of a poll sends what was held back");
    WAIT(w, o.n, 1);
    end_session(w, &cli);
    end_world(w);
}

static void reply_with_more(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)c;
    FAILS(plait_reply(msg, "r", 1, PLAIT_MORE), 0);
}

Test(session_flow, replies_with_more)
{
    struct world *w = listening_world();
    static struct outcome o[40];
    unsigned total = 0;
    struct log cli;

    w->on_msg = reply_with_more;
    open_session(w, &cli, NULL);
    for (unsigned n = 1; n <= 40; n++) { /* around the size of a batch */
        total = 0;
        for (unsigned i = 0; i < n; i++) {
            o[i].total = &total;
            FAILS(plait_request(cli.conn[0], "x", 1, PLAIT_MORE, on_reply, &o[i]), 0);
        }
        WAIT(w, total, n);
    }
    end_session(w, &cli);
    end_world(w);
}

/* A sleeping peer must be woken by what MORE lets out, too. */
Test(session_flow, more_wakes_a_sleeper_at_the_end_of_the_poll)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);
    struct pollfd p = { plait_ctx_fd(w->ctx[0]), POLLIN, 0 };

    for (unsigned n = 15; n <= 33; n++) {
        unsigned until = srv->msgs + n;

        while (plait_ctx_arm(w->ctx[0]) != 0)
            poll_all(w);
        for (unsigned i = 0; i < n; i++)
            FAILS(plait_send(cli.conn[0], "x", 1, PLAIT_MORE), 0);
        cr_assert_geq(plait_ctx_poll(w->ctx[1]), 0);
        while (srv->msgs < until) {
            if (plait_ctx_arm(w->ctx[0]) == 0)
                cr_assert_eq(poll(&p, 1, 0), 1, "asleep after %u of %u messages", srv->msgs + n - until, n);
            cr_assert_geq(plait_ctx_poll(w->ctx[0]), 0);
        }
        cr_assert_eq(srv->msgs, until);
    }
    end_session(w, &cli);
    end_world(w);
}

/* ---- in place ---- */

Test(session_flow, reserve_and_commit)
{
    struct world *w = listening_world();
    struct plait_slot slot, other;
    struct outcome o = { 0 };
    struct log cli, *srv;
    size_t max;

    w->on_msg = echo;
    srv = open_session(w, &cli, NULL);
    max = plait_reserve_max(cli.conn[0]);
    cr_assert_geq(max, 4000);
    FAILS(plait_reserve(cli.conn[0], max + 1, &slot), PLAIT_E_TOOBIG);
    FAILS(plait_commit(cli.conn[0], &(struct plait_slot){ 0 }, 0, 0), PLAIT_E_INVAL);

    FAILS(plait_reserve(cli.conn[0], 100, &slot), 0);
    cr_assert_eq(slot.len, 100);
    FAILS(plait_reserve(cli.conn[0], 1, &other), PLAIT_E_BUSY);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_BUSY);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o), PLAIT_E_BUSY);
    memset(slot.data, 'a', 100);
    FAILS(plait_commit(cli.conn[0], &slot, 101, 0), PLAIT_E_INVAL);
    FAILS(plait_commit(cli.conn[0], &slot, 1, PLAIT_NOCOPY), PLAIT_E_INVAL);
    FAILS(plait_commit_request(cli.conn[0], &slot, 1, 0, NULL, NULL), PLAIT_E_INVAL);
    FAILS(plait_commit_request(cli.conn[0], &slot, 40, 0, on_reply, &o), 0);
    FAILS(plait_commit(cli.conn[0], &slot, 1, 0), PLAIT_E_INVAL);
    plait_abandon(cli.conn[0], &slot);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.len, 40);
    cr_assert_eq(memcmp(o.data, "aaaaaaaaaa", 10), 0);

    FAILS(plait_reserve(cli.conn[0], 100, &slot), 0);
    memset(slot.data, 0xff, 100);
    plait_abandon(cli.conn[0], &slot);
    FAILS(plait_commit(cli.conn[0], &slot, 1, 0), PLAIT_E_INVAL);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), 0);
    WAIT(w, srv->msgs, 2);
    settle(w);
    cr_assert_eq(srv->msgs, 2);
    end_session(w, &cli);
    end_world(w);
}

Test(session_flow, a_stream_of_messages_written_in_place)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);
    uint32_t n = 0;

    srv->on_msg = check_stream;
    while (n < 20000) {
        size_t len = n * 37 % 3000, room = len + n % 5 * 50;
        struct plait_slot slot;
        int rc;

        if (room > plait_reserve_max(cli.conn[0]))
            room = len;
        rc = plait_reserve(cli.conn[0], room, &slot);
        if (rc == PLAIT_E_AGAIN) {
            poll_all(w);
            continue;
        }
        FAILS(rc, 0);
        memset(slot.data, 0xee, room); /* more than is sent: looks like anything to who reads on */
        if (n % 11 == 0) {
            plait_abandon(cli.conn[0], &slot);
            FAILS(plait_reserve(cli.conn[0], len, &slot), 0);
        }
        fill_bytes(slot.data, len, n);
        FAILS(plait_commit(cli.conn[0], &slot, len, n % 3 ? PLAIT_MORE : 0), 0);
        n++;
    }
    WAIT(w, srv->msgs, n);
    cr_assert_eq(wrong, 0);
    end_session(w, &cli);
    end_world(w);
}

/* What the reservation kept back goes out after it, in order. */
static struct plait_msg *asked;

static void keep_request(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)c;
    asked = plait_msg_hold(msg);
}

static char order[8];

static void note_order(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    order[log->msgs - 1] = *(const char *)msg->data;
}

static void note_reply(struct plait_msg *m, int status, void *arg)
{
    struct log *log = arg;

    (void)m;
    cr_assert_eq(status, 0);
    order[log->msgs++] = 'r';
}

Test(session_flow, a_reply_during_a_reservation_keeps_the_order)
{
    struct world *w = listening_world();
    struct log cli, *srv;
    struct plait_slot slot;

    w->on_msg = keep_request;
    w->accept.window = 1024;
    srv = open_session(w, &cli, NULL);
    cli.on_msg = note_order;
    FAILS(plait_request(cli.conn[0], "q", 1, 0, note_reply, &cli), 0);
    for (uint64_t end = pli_clock_now() + PATIENCE_NS; !asked && pli_clock_now() < end;)
        poll_all(w);
    FAILS(plait_reserve(srv->conn[0], 8, &slot), 0);
    memset(slot.data, 'c', 8);
    FAILS(plait_reply(asked, "r", 1, 0), 0);
    plait_msg_release(asked);
    FAILS(plait_commit(srv->conn[0], &slot, 8, 0), 0);
    FAILS(plait_send(srv->conn[0], "s", 1, 0), PLAIT_E_AGAIN);
    WAIT(w, srv->writable, 1);
    FAILS(plait_send(srv->conn[0], "s", 1, 0), 0);
    WAIT(w, cli.msgs, 3);
    cr_assert_str_eq(order, "crs");
    end_session(w, &cli);
    end_world(w);
}

Test(session_flow, abort_with_an_open_reservation)
{
    struct world *w = listening_world();
    struct log cli, other, *srv, *srv2;
    struct plait_slot slot;

    srv = open_session(w, &cli, NULL);
    srv2 = open_session(w, &other, NULL);
    FAILS(plait_reserve(cli.conn[0], 100, &slot), 0);
    memset(slot.data, 1, 100);
    FAILS(plait_send(other.conn[0], "x", 1, 0), PLAIT_E_BUSY); /* the same link */
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, srv->closed, 1);
    FAILS(plait_commit(cli.conn[0], &slot, 1, 0), PLAIT_E_INVAL);
    plait_abandon(cli.conn[0], &slot);
    FAILS(plait_send(other.conn[0], "x", 1, 0), 0);
    WAIT(w, srv2->msgs, 1);
    plait_session_release(cli.s);
    end_session(w, &other);
    end_world(w);
}

/* ---- memory ---- */

Test(session_flow, a_quiet_link_is_small_and_a_busy_one_grows)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_with(w, &cli, 16384);

    cr_assert_leq(ctx_stats(w->ctx[1]).shm_bytes, 64 * 1024);
    cr_assert_gt(ctx_stats(w->ctx[1]).shm_bytes, 0);
    run_stream(w, &cli, srv, 100000, 100);
    cr_assert_gt(ctx_stats(w->ctx[1]).shm_bytes, 128 * 1024, "the ring has not grown");
    cr_assert_leq(ctx_stats(w->ctx[1]).shm_bytes, 512 * 1024);
    cr_assert_leq(ctx_stats(w->ctx[0]).shm_bytes, 64 * 1024, "the other direction is quiet");
    cr_assert_eq(plait_reserve_max(cli.conn[0]), 8192 - 16 - 8);
    end_session(w, &cli);
    end_world(w);
}

/* The ring grows in the middle of everything: long messages, batches, held ones. */
static void hold_some(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    check_stream(log, c, msg);
    if (log->msgs % 7 == 0)
        hold_all(log, c, msg);
    if (log->nheld == 20)
        while (log->nheld)
            plait_msg_release(log->held[--log->nheld]);
}

Test(session_flow, growing_in_the_middle_of_everything)
{
    struct world *w = listening_world();
    struct log cli, *srv;
    static uint8_t data[65536];
    uint32_t n = 0;

    w->on_msg = hold_some;
    srv = open_session(w, &cli, NULL);
    while (n < 20000) {
        size_t len = n % 50 == 0 ? 65536 - n % 1000 : n % 10 == 0 ? 4000 + n % 300 : n % 200;
        int rc;

        fill_bytes(data, len, n);
        rc = plait_send(cli.conn[0], data, len, n % 4 ? PLAIT_MORE : 0);
        if (rc == PLAIT_E_AGAIN)
            poll_all(w);
        else if (rc == 0)
            n++;
        else
            cr_assert_fail("%s", plait_error_text());
    }
    FAILS(plait_flush(cli.conn[0]), 0);
    WAIT(w, srv->msgs, n);
    cr_assert_eq(wrong, 0);
    cr_assert_gt(ctx_stats(w->ctx[1]).shm_bytes, 128 * 1024, "the ring has not grown");
    while (srv->nheld)
        plait_msg_release(srv->held[--srv->nheld]);
    end_session(w, &cli);
    end_world(w);
}
