/* SPDX-License-Identifier: BSD-3-Clause */
/* How connections and sessions end. */
#include <pthread.h>
#include "test/unit/runtime/session_util.h"

TestSuite(session_close, .timeout = 120);

/* Both sides have asked the other one something and wait; one of them closes. Every question is answered first. */
static void close_with_pending(bool server_closes, bool whole_session)
{
    enum { N = 5 };
    struct world *w = listening_world();
    struct outcome mine[N], theirs[N];
    unsigned total = 0;
    struct log cli, *srv, *closer, *other;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    cli.on_msg = hold_all;
    memset(mine, 0, sizeof mine);
    memset(theirs, 0, sizeof theirs);
    for (int i = 0; i < N; i++) {
        mine[i].total = theirs[i].total = &total;
        FAILS(plait_request(cli.conn[0], "q", 1, 0, on_reply, &mine[i]), 0);
        FAILS(plait_request(srv->conn[0], "q", 1, 0, on_reply, &theirs[i]), 0);
    }
    WAIT(w, srv->nheld, N);
    WAIT(w, cli.nheld, N);
    closer = server_closes ? srv : &cli;
    other = server_closes ? &cli : srv;
    FAILS(plait_send(closer->conn[0], "last", 4, 0), 0);
    FAILS(whole_session ? plait_session_close(closer->s) : plait_conn_close(closer->conn[0]), 0);
    FAILS(plait_conn_close(closer->conn[0]), PLAIT_E_CLOSED);
    FAILS(plait_send(closer->conn[0], "x", 1, 0), PLAIT_E_CLOSED);
    FAILS(plait_request(closer->conn[0], "x", 1, 0, on_reply, &mine[0]), PLAIT_E_CLOSED);
    cr_assert_not(plait_conn_is_open(closer->conn[0]));
    cr_assert_str_eq(conn_info(closer->conn[0]).state, "closing");
    settle(w);
    cr_assert_eq(other->nheld, N + 1, "what was sent before the close arrives");
    FAILS(plait_send(other->conn[0], "x", 1, 0), PLAIT_E_CLOSED);
    cr_assert_eq(cli.c_closed + srv->c_closed, 0);
    for (int i = 0; i < N; i++) {
        FAILS(plait_reply(srv->held[i], "a", 1, 0), 0);
        plait_msg_release(srv->held[i]);
        plait_msg_release(cli.held[i]); /* without an answer */
    }
    WAIT(w, total, 2 * N);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(mine[i].status, 0);
        cr_assert_eq(theirs[i].status, PLAIT_E_NOREPLY);
    }
    cr_assert_eq(cli.code | cli.c_code | srv->code | srv->c_code, 0, "%s %s %s %s", cli.text, cli.c_text, srv->text,
                 srv->c_text);
    plait_msg_release(other->held[N]);
    plait_session_release(cli.s);
    check_log(&cli);
    cr_assert_eq(total, 2 * N);
    end_world(w);
}

Test(session_close, the_client_closes_the_session)
{
    close_with_pending(false, true);
}

Test(session_close, the_server_closes_the_session)
{
    close_with_pending(true, true);
}

Test(session_close, the_client_closes_the_connection)
{
    close_with_pending(false, false);
}

Test(session_close, the_server_closes_the_connection)
{
    close_with_pending(true, false);
}

Test(session_close, both_close_at_once)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);

    FAILS(plait_session_close(cli.s), 0);
    FAILS(plait_session_close(srv->s), 0);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(cli.code | cli.c_code | srv->code | srv->c_code, 0);
    plait_session_release(cli.s);
    end_world(w);
}

/* A message with a receipt, or one whose release is credit, is held until after the close has begun. */
static void close_with_held(bool receipt)
{
    struct world *w = listening_world();
    struct plait_out out = PLAIT_OUT_INIT;
    struct outcome done = { 0 };
    struct log cli, second, *srv, *srv2;

    w->on_msg = hold_all;
    w->accept.window = 1;
    srv = open_session(w, &cli, NULL);
    srv2 = open_session(w, &second, NULL);
    out.data = "x";
    out.len = 1;
    out.on_done = receipt ? on_done : NULL;
    out.arg = &done;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 1);
    FAILS(plait_session_close(cli.s), 0);
    if (receipt) {
        settle(w);
        cr_assert_eq(cli.closed, 0);
        cr_assert_eq(done.n, 0);
        plait_msg_release(srv->held[0]);
        WAIT(w, done.n, 1);
        cr_assert_eq(done.status, 0);
        WAIT(w, cli.closed, 1);
        WAIT(w, srv->closed, 1);
    } else {
        /* released at every point of the closing, also when the client is through with the channel */
        for (int i = 0; i < 50 && !cli.closed; i++)
            plait_ctx_poll(w->ctx[1]);
        plait_ctx_poll(w->ctx[0]);
        for (int i = 0; i < 50 && !cli.closed; i++)
            plait_ctx_poll(w->ctx[1]);
        plait_msg_release(srv->held[0]);
        WAIT(w, cli.closed, 1);
        WAIT(w, srv->closed, 1);
    }
    cr_assert_eq(cli.code, 0, "%s", cli.text);
    cr_assert_eq(srv->code, 0, "%s", srv->text);
    settle(w);
    cr_assert_eq(second.c_closed, 0, "%s", second.c_text);
    FAILS(plait_send(second.conn[0], "x", 1, 0), 0);
    WAIT(w, srv2->nheld, 1);
    plait_msg_release(srv2->held[0]);
    plait_session_release(cli.s);
    end_session(w, &second);
    end_world(w);
}

Test(session_close, waits_for_receipts)
{
    close_with_held(true);
}

Test(session_close, a_held_message_does_not_delay_it)
{
    close_with_held(false);
}

Test(session_close, linger_ends_what_does_not_answer)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct plait_session_opts opts;
    struct log cli, *srv;

    w->on_msg = hold_all;
    opts = session_opts(&cli);
    opts.linger_ms = 30;
    srv = open_session(w, &cli, &opts);
    FAILS(plait_request(cli.conn[0], "q", 1, 0, on_reply, &o), 0);
    WAIT(w, srv->nheld, 1);
    FAILS(plait_session_close(cli.s), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_TIMEDOUT);
    cr_assert_eq(cli.code, PLAIT_E_TIMEDOUT);
    cr_assert_not_null(strstr(cli.text, "linger_ms, 30"), "%s", cli.text);
    cr_assert_not_null(strstr(cli.text, "1 replies outstanding"), "%s", cli.text);
    WAIT(w, srv->closed, 1);
    FAILS(plait_reply(srv->held[0], "late", 4, 0), PLAIT_E_CLOSED);
    plait_msg_release(srv->held[0]);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_close, linger_at_the_server)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli, *srv;

    w->on_msg = hold_all;
    w->accept.linger_ms = 30;
    srv = open_session(w, &cli, NULL);
    cli.on_msg = hold_all;
    FAILS(plait_request(srv->conn[0], "q", 1, 0, on_reply, &o), 0);
    WAIT(w, cli.nheld, 1);
    FAILS(plait_session_close(srv->s), 0);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_TIMEDOUT);
    WAIT(w, cli.closed, 1);
    plait_msg_release(cli.held[0]);
    plait_session_release(cli.s);
    end_world(w);
}

/* Closing at every moment of the opening: each poll of the other side is one. */
Test(session_close, while_it_is_being_opened)
{
    for (int after = 0; after < 40; after++) {
        struct world *w = listening_world();
        struct log cli, again;

        start_open(w, &cli, NULL);
        for (int i = 0; i < after; i++) {
            plait_ctx_poll(w->ctx[after % 2]);
            plait_ctx_run(w->ctx[(after + 1) % 2], 200);
        }
        FAILS(plait_session_close(cli.s), 0);
        WAIT(w, cli.closed, 1);
        for (unsigned i = 0; i < w->nsrv; i++)
            WAIT(w, w->srv[i].closed, 1);
        check_log(&cli);
        plait_session_release(cli.s);
        /* the link is whole */
        open_session(w, &again, NULL);
        end_session(w, &again);
        end_world(w);
    }
}

static void close_in_open(struct plait_conn *c, void *arg)
{
    log_conn_open(c, arg);
    FAILS(plait_conn_close(c), 0);
}

static void abort_in_open(struct plait_conn *c, void *arg)
{
    log_conn_open(c, arg);
    FAILS(plait_conn_abort(c), 0);
}

static void end_in_open(bool server, void (*fn)(struct plait_conn *c, void *arg), int code)
{
    struct world *w = listening_world();
    struct plait_conn_ops ops = log_conn_ops;
    struct plait_session_opts opts;
    struct log cli;

    opts = session_opts(&cli);
    ops.on_open = fn;
    if (server)
        w->accept.conn_ops = &ops;
    else
        opts.conn_ops = &ops;
    start_open(w, &cli, &opts);
    WAIT(w, cli.closed, 1);
    WAIT(w, w->srv[0].closed, 1);
    cr_assert_eq(cli.c_opened, 1);
    cr_assert_eq(cli.opened, 1, "its connections have all been open");
    cr_assert_eq(cli.code, code, "%s", cli.text);
    cr_assert_eq(w->srv[0].code, code, "%s", w->srv[0].text);
    check_log(&cli);
    check_log(&w->srv[0]);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_close, in_on_open)
{
    end_in_open(false, close_in_open, 0);
    end_in_open(true, close_in_open, 0);
    end_in_open(false, abort_in_open, PLAIT_E_ABORTED);
    end_in_open(true, abort_in_open, PLAIT_E_ABORTED);
}

static void close_session_now(struct world *w, struct log *log, const struct plait_session_request *req)
{
    accept_now(w, log, req);
    FAILS(plait_session_close(log->s), 0);
}

Test(session_close, the_server_closes_what_it_has_just_accepted)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = close_session_now;
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    WAIT(w, w->srv[0].closed, 1);
    cr_assert_eq(cli.opened, 0);
    cr_assert_neq(cli.code, 0);
    plait_session_release(cli.s);
    end_world(w);
}

static void close_instead(struct world *w, struct log *log, const struct plait_session_request *req)
{
    (void)w;
    (void)req;
    FAILS(plait_session_close(log->s), 0);
}

Test(session_close, closing_is_an_answer_to_who_asks)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = close_instead;
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_REJECTED);
    plait_session_release(cli.s);
    end_world(w);
}

/* ---- abort ---- */

static void close_on_message(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)msg;
    FAILS(plait_session_close(plait_conn_session(c)), 0);
    FAILS(plait_conn_abort(c), 0);
}

Test(session_close, and_abort_from_a_message)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli, *srv;

    w->on_msg = close_on_message;
    srv = open_session(w, &cli, NULL);
    FAILS(plait_request(cli.conn[0], "q", 1, 0, on_reply, &o), 0);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(o.n, 1);
    cr_assert(o.status == PLAIT_E_ABORTED || o.status == PLAIT_E_NOREPLY, "%d", o.status);
    plait_session_release(cli.s);
    end_world(w);
}

/* In the order of sending, each with the reason, before on_closed. */
static int last_failed;
static unsigned out_of_order;

static void note_failed(struct plait_msg *m, int status, void *arg)
{
    int i = (int)(intptr_t)arg;

    out_of_order += m != NULL || status != PLAIT_E_ABORTED || i != last_failed + 1;
    last_failed = i;
}

static void all_failed_before(struct log *log, struct plait_conn *c)
{
    struct outcome o;

    (void)log;
    out_of_order += last_failed != 100;
    out_of_order += plait_request(c, "x", 1, 0, on_reply, &o) != PLAIT_E_CLOSED;
}

Test(session_close, abort_completes_everything_in_order)
{
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    cli.on_closed = all_failed_before;
    for (intptr_t i = 1; i <= 100; i++)
        FAILS(plait_request(cli.conn[0], "q", 1, 0, note_failed, (void *)i), 0);
    WAIT(w, srv->nheld, 100);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(out_of_order, 0);
    cr_assert_eq(last_failed, 100);
    cr_assert_eq(cli.code, PLAIT_E_ABORTED);
    FAILS(plait_conn_abort(cli.conn[0]), PLAIT_E_CLOSED);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->code, PLAIT_E_ABORTED);
    cr_assert_not_null(strstr(srv->c_text, "peer aborted"), "%s", srv->c_text);
    while (srv->nheld)
        plait_msg_release(srv->held[--srv->nheld]);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_close, both_abort_at_once)
{
    struct world *w = listening_world();
    struct log cli, again, *srv = open_session(w, &cli, NULL);

    FAILS(plait_conn_abort(cli.conn[0]), 0);
    FAILS(plait_conn_abort(srv->conn[0]), 0);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    plait_session_release(cli.s);
    for (int i = 0; i < 20; i++) { /* the channel number is free again */
        open_session(w, &again, NULL);
        end_session(w, &again);
    }
    end_world(w);
}

static void *abort_from_elsewhere(void *arg)
{
    struct log *log = arg;

    cr_assert_eq(plait_conn_abort(plait_session_conn(log->s, 0)), 0);
    plait_session_release(log->s);
    return NULL;
}

Test(session_close, abort_from_another_thread_wakes_the_owner)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);
    pthread_t t;

    (void)srv;
    plait_session_hold(cli.s);
    pthread_create(&t, NULL, abort_from_elsewhere, &cli);
    while (!cli.closed) /* sleeps without a limit */
        plait_ctx_run(w->ctx[1], 1000 * 1000);
    pthread_join(t, NULL);
    cr_assert_eq(cli.code, PLAIT_E_ABORTED);
    WAIT(w, srv->closed, 1);
    plait_session_release(cli.s);
    end_world(w);
}

/* ---- a context is destroyed ---- */

static void destroy_side(int side)
{
    struct world *w = listening_world();
    struct outcome mine = { 0 }, theirs = { 0 };
    struct log cli, *srv, *dead, *other;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    cli.on_msg = hold_all;
    FAILS(plait_request(cli.conn[0], "q", 1, 0, on_reply, &mine), 0);
    FAILS(plait_request(srv->conn[0], "q", 1, 0, on_reply, &theirs), 0);
    WAIT(w, srv->nheld, 1);
    WAIT(w, cli.nheld, 1);
    FAILS(plait_ctx_destroy(w->ctx[side]), 0);
    w->ctx[side] = NULL;
    dead = side ? &cli : srv;
    other = side ? srv : &cli;
    check_log(dead);
    cr_assert_eq(dead->code, PLAIT_E_ABORTED);
    WAIT(w, other->closed, 1);
    check_log(other);
    cr_assert_eq(other->code, PLAIT_E_ABORTED, "%s", other->text);
    cr_assert_eq(mine.n, 1);
    cr_assert_eq(theirs.n, 1);
    cr_assert_eq(mine.status, PLAIT_E_ABORTED);
    cr_assert_eq(theirs.status, PLAIT_E_ABORTED);
    plait_msg_release(srv->held[0]);
    plait_msg_release(cli.held[0]);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_CLOSED);
    FAILS(plait_conn_abort(cli.conn[0]), PLAIT_E_CLOSED);
    FAILS(plait_session_close(cli.s), PLAIT_E_CLOSED);
    FAILS(plait_session_wait(cli.s, 0), PLAIT_E_ABORTED);
    FAILS(plait_call(cli.conn[0], "x", 1, NULL, 0), PLAIT_E_CLOSED);
    FAILS(plait_flush(cli.conn[0]), PLAIT_E_CLOSED);
    cr_assert_eq(plait_reserve_max(cli.conn[0]), 0);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_close, the_servers_context_is_destroyed)
{
    destroy_side(0);
}

Test(session_close, the_clients_context_is_destroyed)
{
    destroy_side(1);
}

Test(session_close, a_session_that_the_peer_closed_outlives_its_context)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);

    FAILS(plait_session_close(srv->s), 0);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    plait_session_hold(cli.s);
    end_world(w);
    FAILS(plait_conn_abort(cli.conn[0]), PLAIT_E_CLOSED);
    FAILS(plait_session_close(cli.s), PLAIT_E_CLOSED);
    plait_session_release(cli.s);
    plait_session_release(cli.s);
}

Test(session_close, contexts_are_destroyed_while_sessions_are_being_opened)
{
    for (int after = 0; after < 40; after++) {
        struct world *w = listening_world();
        struct log a, b;

        start_open(w, &a, NULL);
        start_open(w, &b, NULL);
        for (int i = 0; i < after; i++) {
            plait_ctx_poll(w->ctx[0]);
            plait_ctx_run(w->ctx[1], 100);
        }
        FAILS(plait_ctx_destroy(w->ctx[after % 2]), 0);
        w->ctx[after % 2] = NULL;
        if (after % 2) {
            check_log(&a);
            check_log(&b);
        }
        WAIT(w, a.closed, 1);
        WAIT(w, b.closed, 1);
        plait_session_release(a.s);
        plait_session_release(b.s);
        end_world(w);
    }
}

Test(session_close, leaves_no_descriptor_behind)
{
    int fds;

    for (int i = 0; i < 20; i++) {
        struct world *w = listening_world();
        struct log cli;

        open_session(w, &cli, NULL);
        if (i % 2)
            end_session(w, &cli);
        else
            plait_session_release(cli.s);
        end_world(w);
        if (i == 3)
            fds = count_fds();
    }
    cr_assert_eq(count_fds(), fds);
}
