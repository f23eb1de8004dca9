/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening, accepting and rejecting sessions. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "runtime/conn.h"
#include "test/unit/runtime/session_util.h"

TestSuite(session_open, .timeout = 120);

/* A program that was built before the last fields were there gets the ones that it knows. */
Test(session_open, what_an_older_program_knows_of_a_connection)
{
    struct world *w = listening_world();
    struct log cli;
    struct plait_conn_info info;

    open_session(w, &cli, NULL);
    memset(&info, 0x5a, sizeof info);
    info.size = offsetof(struct plait_conn_info, window);
    FAILS(plait_conn_get_info(cli.conn[0], &info), 0);
    cr_assert_eq(info.peer_pid, getpid());
    cr_assert_eq(info.window, 0x5a5a5a5a);
    info.size = sizeof info + 1;
    FAILS(plait_conn_get_info(cli.conn[0], &info), PLAIT_E_INVAL);
    info.size = 0;
    FAILS(plait_conn_get_info(cli.conn[0], &info), PLAIT_E_INVAL);
    FAILS(plait_conn_get_info(cli.conn[0], NULL), PLAIT_E_INVAL);
    end_session(w, &cli);
    end_world(w);
}

Test(session_open, opens_and_closes_in_order)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);
    struct plait_conn_info info = conn_info(cli.conn[0]);

    cr_assert_str_eq(info.state, "open");
    cr_assert_str_eq(info.transport, "shm");
    cr_assert_str_eq(info.wire, "shared memory; the peer is on the same host");
    cr_assert_eq(info.peer_pid, getpid());
    cr_assert_eq(info.window, 1024);
    cr_assert_eq(info.max_msg, PLAIT_EAGER_MAX);
    cr_assert_str_eq(w->resource, "test");
    cr_assert_eq(w->req.uid, geteuid());
    cr_assert_eq(w->req.pid, getpid());
    cr_assert_eq(w->req.conns, 1);
    cr_assert_eq(w->req.rank, -1);
    cr_assert_str_eq(plait_session_uri(cli.s), w->uri);
    cr_assert_str_eq(plait_session_uri(srv->s), "test");
    cr_assert_eq(plait_session_conn(cli.s, 0), cli.conn[0]);
    cr_assert_null(plait_session_conn(cli.s, 1));
    cr_assert_eq(plait_conn_session(cli.conn[0]), cli.s);
    cr_assert_eq(plait_conn_ctx(cli.conn[0]), w->ctx[1]);
    cr_assert_eq(ctx_stats(w->ctx[1]).conns, 1);
    cr_assert_eq(ctx_stats(w->ctx[0]).conns, 1);

    FAILS(plait_session_close(cli.s), 0);
    FAILS(plait_session_close(cli.s), PLAIT_E_CLOSED);
    WAIT(w, cli.closed, 1);
    WAIT(w, srv->closed, 1);
    check_log(&cli);
    check_log(srv);
    cr_assert_eq(cli.code, 0, "%s", cli.text);
    cr_assert_eq(cli.c_code, 0, "%s", cli.c_text);
    cr_assert_eq(srv->code, 0, "%s", srv->text);
    cr_assert_eq(srv->c_code, 0, "%s", srv->c_text);
    cr_assert_eq(ctx_stats(w->ctx[1]).conns, 0);
    FAILS(plait_send(cli.conn[0], "x", 1, 0), PLAIT_E_CLOSED);
    FAILS(plait_session_close(cli.s), PLAIT_E_CLOSED);
    FAILS(plait_conn_close(cli.conn[0]), PLAIT_E_CLOSED);
    FAILS(plait_conn_abort(cli.conn[0]), PLAIT_E_CLOSED);
    plait_session_release(cli.s);
    end_world(w);
}

static void accept_with_data(struct world *w, struct log *log, const struct plait_session_request *req)
{
    struct plait_session_opts o = w->accept;
    static uint8_t big[PLAIT_MAX_PRIVATE];

    fill_bytes(big, sizeof big, 7);
    cr_assert_eq(req->data_len, sizeof big);
    cr_assert(has_bytes(req->data, req->data_len, 6));
    o.data = big;
    o.data_len = sizeof big;
    FAILS(plait_session_accept(log->s, &o), 0);
    memset(big, 0, sizeof big); /* it has been copied */
    FAILS(plait_session_accept(log->s, &o), PLAIT_E_CLOSED);
    FAILS(plait_session_reject(log->s, "no", NULL, 0), PLAIT_E_CLOSED);
}

Test(session_open, private_data_goes_both_ways)
{
    struct world *w = listening_world();
    uint8_t big[PLAIT_MAX_PRIVATE];
    struct plait_session_opts o;
    struct log cli;

    fill_bytes(big, sizeof big, 6);
    w->on_session = accept_with_data;
    o = session_opts(&cli);
    o.data = big;
    o.data_len = sizeof big;
    open_session(w, &cli, &o);
    cr_assert_eq(cli.data_len, PLAIT_MAX_PRIVATE);
    cr_assert(has_bytes(cli.data, cli.data_len, 7));
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

static void reject_now(struct world *w, struct log *log, const struct plait_session_request *req)
{
    (void)w;
    (void)req;
    FAILS(plait_session_reject(log->s, "not today", "\1\2\3", 3), 0);
}

Test(session_open, rejection_carries_reason_and_data)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = reject_now;
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_REJECTED);
    cr_assert_str_eq(cli.text, "not today");
    cr_assert_eq(cli.data_len, 3);
    cr_assert_eq(memcmp(cli.data, "\1\2\3", 3), 0);
    cr_assert_eq(cli.opened, 0);
    cr_assert_eq(cli.c_opened, 0);
    FAILS(plait_session_wait(cli.s, 0), PLAIT_E_REJECTED);
    cr_assert_str_eq(plait_error_text(), "not today");
    plait_session_release(cli.s);
    settle(w);
    cr_assert_eq(w->srv[0].closed, 0, "who has rejected a session is not told that it ended");
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1, "the link stays in the cache");
    end_world(w);
}

static void reject_badly(struct world *w, struct log *log, const struct plait_session_request *req)
{
    static uint8_t big[PLAIT_MAX_PRIVATE + 1];
    static char text[400];

    (void)w;
    (void)req;
    FAILS(plait_session_reject(log->s, "x", big, sizeof big), PLAIT_E_INVAL);
    FAILS(plait_session_reject(log->s, "x", NULL, 4), PLAIT_E_INVAL);
    memset(text, 'a', sizeof text - 1);
    FAILS(plait_session_reject(log->s, text, big, PLAIT_MAX_PRIVATE), 0);
}

Test(session_open, a_long_rejection_is_cut)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = reject_badly;
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(strlen(cli.text), 255);
    cr_assert_eq(cli.data_len, PLAIT_MAX_PRIVATE);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, a_listener_without_callback_accepts_by_itself)
{
    struct world *w = new_world();
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct log cli;

    w->nsrv = 1;
    log_init(&w->srv[0], w);
    o.session = session_opts(&w->srv[0]);
    o.session.data = "welcome";
    o.session.data_len = 7;
    FAILS(plait_listen(&w->listener, w->ctx[0], "plait://127.0.0.1:0", &o), 0);
    snprintf(w->uri, sizeof w->uri, "%s", plait_listener_uri(w->listener));
    start_open(w, &cli, NULL);
    WAIT(w, cli.opened, 1);
    cr_assert_eq(cli.data_len, 7);
    cr_assert_eq(memcmp(cli.data, "welcome", 7), 0);
    WAIT(w, w->srv[0].c_opened, 1);
    w->srv[0].s = plait_conn_session(w->srv[0].conn[0]);
    end_session(w, &cli);
    WAIT(w, w->srv[0].closed, 1);
    end_world(w);
}

static void answer_later(struct world *w, struct log *log, const struct plait_session_request *req)
{
    (void)w;
    (void)log;
    (void)req;
}

Test(session_open, may_be_accepted_later)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = answer_later;
    start_open(w, &cli, NULL);
    WAIT(w, w->nsrv, 1);
    settle(w);
    cr_assert_eq(cli.opened, 0);
    FAILS(plait_session_wait(cli.s, 0), PLAIT_E_TIMEDOUT);
    FAILS(plait_session_accept(w->srv[0].s, &w->accept), 0);
    WAIT(w, cli.opened, 1);
    end_session(w, &cli);
    WAIT(w, w->srv[0].closed, 1);
    end_world(w);
}

Test(session_open, may_be_rejected_later)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = answer_later;
    start_open(w, &cli, NULL);
    WAIT(w, w->nsrv, 1);
    FAILS(plait_session_reject(w->srv[0].s, NULL, NULL, 0), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_REJECTED);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, an_unanswered_session_ends_on_both_sides)
{
    struct world *w = new_world();
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct log cli;

    o.session.open_timeout_ms = 20;
    world_listen(w, &o);
    w->on_session = answer_later;
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_TIMEDOUT);
    WAIT(w, w->srv[0].closed, 1);
    cr_assert_eq(w->srv[0].code, PLAIT_E_TIMEDOUT);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, the_client_gives_up_after_its_own_time)
{
    struct world *w = listening_world();
    struct plait_session_opts o;
    struct log cli;

    w->on_session = answer_later;
    o = session_opts(&cli);
    o.open_timeout_ms = 50;
    start_open(w, &cli, &o);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_TIMEDOUT);
    cr_assert_not_null(strstr(cli.text, "open_timeout_ms, 50"), "%s", cli.text);
    if (w->nsrv) {
        WAIT(w, w->srv[0].closed, 1);
        cr_assert_eq(w->srv[0].code, PLAIT_E_CANCELED);
        FAILS(plait_session_wait(cli.s, 1), PLAIT_E_TIMEDOUT);
    }
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, a_client_that_closes_early_is_not_accepted)
{
    struct world *w = listening_world();
    struct log cli;

    w->on_session = answer_later;
    start_open(w, &cli, NULL);
    WAIT(w, w->nsrv, 1);
    plait_session_hold(w->srv[0].s);
    FAILS(plait_session_close(cli.s), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_CANCELED, "%s", cli.text);
    WAIT(w, w->srv[0].closed, 1);
    FAILS(plait_session_accept(w->srv[0].s, NULL), PLAIT_E_CLOSED);
    plait_session_release(w->srv[0].s);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, no_more_sessions_than_max_sessions)
{
    struct world *w = new_world();
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct log a, b, c;

    o.max_sessions = 2;
    world_listen(w, &o);
    open_session(w, &a, NULL);
    open_session(w, &b, NULL);
    start_open(w, &c, NULL);
    WAIT(w, c.closed, 1);
    cr_assert_eq(c.code, PLAIT_E_REJECTED);
    cr_assert_not_null(strstr(c.text, "max_sessions"), "%s", c.text);
    plait_session_release(c.s);
    end_session(w, &a);
    WAIT(w, w->srv[0].closed, 1);
    open_session(w, &c, NULL);
    end_session(w, &c);
    end_session(w, &b);
    WAIT(w, w->srv[2].closed, 1);
    end_world(w);
}

Test(session_open, a_closed_listener_rejects_who_waits_and_keeps_who_is_in)
{
    struct world *w = listening_world();
    struct log in, waiting, late;
    struct log *srv = open_session(w, &in, NULL);

    w->on_session = answer_later;
    start_open(w, &waiting, NULL);
    WAIT(w, w->nsrv, 2);
    plait_listener_close(w->listener);
    WAIT(w, waiting.closed, 1);
    cr_assert_eq(waiting.code, PLAIT_E_REJECTED, "%s", waiting.text);
    start_open(w, &late, NULL); /* over the link that is there already */
    WAIT(w, late.closed, 1);
    cr_assert_eq(late.code, PLAIT_E_NOLISTENER, "%s", late.text);
    FAILS(plait_send(in.conn[0], "x", 1, 0), 0);
    WAIT(w, srv->msgs, 1);
    end_session(w, &in);
    plait_session_release(waiting.s);
    plait_session_release(late.s);
    end_world(w);
}

Test(session_open, wrong_options_and_uris)
{
    struct world *w = listening_world();
    struct plait_session_opts o;
    struct plait_session *s;
    struct plait_listener *l;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    static struct plait_ctx *const none[1] = { NULL };
    struct log cli;

#define BAD(member, value)                                                    \
    o = session_opts(&cli);                                                   \
    o.member = value;                                                         \
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &o), PLAIT_E_INVAL)
    BAD(size, 3);
    BAD(window, 0);
    BAD(window, 16385);
    BAD(max_msg, 63);
    BAD(max_msg, PLAIT_MSG_MAX + 1);
    BAD(data_len, PLAIT_MAX_PRIVATE + 1);
    BAD(data_len, 1);
    BAD(nctxs, 1);
    o = session_opts(&cli);
    o.ctxs = none;
    o.nctxs = 1;
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &o), PLAIT_E_INVAL);
    o.nctxs = PLAIT_MAX_CONNS + 1;
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &o), PLAIT_E_INVAL);
    FAILS(plait_session_open(&s, w->ctx[1], "plait://", NULL), PLAIT_E_INVAL);
    FAILS(plait_session_open(&s, w->ctx[1], "plait://localhost", NULL), PLAIT_E_INVAL);
    FAILS(plait_session_open(&s, w->ctx[1], "plait://*:7", NULL), PLAIT_E_INVAL);
    FAILS(plait_session_open(&s, w->ctx[1], "http://localhost:80/", NULL), PLAIT_E_INVAL);
#ifndef HAVE_LIBFABRIC
    FAILS(plait_session_open(&s, w->ctx[1], "plait://localhost:1/?transport=ofi", NULL), PLAIT_E_NOTRANSPORT);
#endif
    lo.size = 1;
    FAILS(plait_listen(&l, w->ctx[0], w->uri, &lo), PLAIT_E_INVAL);
    FAILS(plait_listen(&l, w->ctx[0], w->uri, NULL), PLAIT_E_ADDRINUSE);
    FAILS(plait_listen(&l, w->ctx[0], "plait://[::1", NULL), PLAIT_E_INVAL);
    FAILS(plait_listen(&l, w->ctx[0], "plait://nobody.invalid", NULL), PLAIT_E_RESOLVE);
    end_world(w);
}

Test(session_open, nobody_there)
{
    struct world *w = listening_world();
    struct log cli;

    plait_listener_close(w->listener);
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_NOLISTENER, "%s", cli.text);
    plait_session_release(cli.s);
    cr_assert_eq(pli_session_open_rank(&cli.s, w->ctx[0], w->uri, NULL, 5, "node9"), 0);
    FAILS(plait_session_wait(cli.s, -1), PLAIT_E_NOLISTENER);
    cr_assert_not_null(strstr(plait_error_text(), "rank 5 on node9, 127.0.0.1:"), "%s", plait_error_text());
    plait_session_release(cli.s);
    snprintf(w->uri, sizeof w->uri, "plait://nobody.invalid:4711/");
    start_open(w, &cli, NULL);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_RESOLVE, "%s", cli.text);
    cr_assert_not_null(strstr(cli.text, "nobody.invalid"), "%s", cli.text);
    plait_session_release(cli.s);
    end_world(w);
}

Test(session_open, wait_opens)
{
    struct world *w = listening_world();
    struct plait_ctx *ctx = w->ctx[0]; /* both ends in one context: it waits for itself */
    struct plait_session_opts o;
    struct log cli;

    log_init(&cli, w);
    o = session_opts(&cli);
    FAILS(plait_session_open(&cli.s, ctx, w->uri, &o), 0);
    FAILS(plait_session_wait(cli.s, -1), 0);
    cr_assert_eq(cli.opened, 1);
    FAILS(plait_send(plait_session_conn(cli.s, 0), "hi", 2, 0), 0);
    WAIT(w, w->srv[0].msgs, 1);
    end_session(w, &cli);
    WAIT(w, w->srv[0].closed, 1);
    end_world(w);
}

Test(session_open, releasing_an_open_session_closes_it_silently)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);

    plait_session_hold(cli.s);
    plait_session_release(cli.s);
    settle(w);
    cr_assert_eq(srv->c_closed, 0, "there is a reference left");
    cr_assert(plait_conn_is_open(cli.conn[0]));
    plait_session_release(cli.s);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->code, 0, "%s", srv->text);
    cr_assert_eq(cli.closed + cli.c_closed, 0, "the session's user has gone");
    cr_assert_eq(cli.misuse, 0);
    end_world(w);
}

Test(session_open, a_server_may_hold_and_release)
{
    struct world *w = listening_world();
    struct log cli, *srv = open_session(w, &cli, NULL);

    plait_session_hold(srv->s);
    plait_session_release(srv->s);
    settle(w);
    cr_assert_eq(srv->c_closed, 0, "a server's session is not closed by a release");
    plait_session_hold(srv->s);
    end_session(w, &cli);
    WAIT(w, srv->closed, 1);
    FAILS(plait_send(plait_session_conn(srv->s, 0), "x", 1, 0), PLAIT_E_CLOSED);
    plait_session_release(srv->s);
    end_world(w);
}

Test(session_open, release_before_it_is_open)
{
    struct world *w = listening_world();
    struct log cli;

    start_open(w, &cli, NULL);
    plait_session_release(cli.s);
    settle(w);
    cr_assert_eq(cli.opened + cli.c_opened, 0);
    cr_assert_eq(cli.closed + cli.c_closed, 0);
    end_world(w);
}
