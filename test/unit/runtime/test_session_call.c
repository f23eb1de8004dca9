/* SPDX-License-Identifier: BSD-3-Clause */
/* Blocking calls, time limits, shared contexts, threads and forks. */
#include <sys/wait.h>
#include "test/unit/runtime/session_thread.h"

TestSuite(session_call, .timeout = 120);

static void expect_reply(struct plait_conn *c, const char *ask, const char *answer)
{
    struct plait_msg *m;

    FAILS(plait_call(c, ask, strlen(ask), &m, -1), 0);
    cr_assert_not_null(m);
    cr_assert_eq(m->kind, PLAIT_REPLY);
    cr_assert_eq(m->len, strlen(answer));
    cr_assert(m->len == 0 || memcmp(m->data, answer, m->len) == 0);
    plait_msg_release(m);
}

Test(session_call, replies_and_errors)
{
    struct server_thread t = { 0 };
    struct plait_msg *m;
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, 0);
    expect_reply(cli.conn[0], "echo", "echo");
    FAILS(plait_call(cli.conn[0], "e", 1, NULL, -1), 0);
    FAILS(plait_call(cli.conn[0], "x", 1, &m, 1000000), 77);
    cr_assert_null(m);
    FAILS(plait_call(cli.conn[0], "n", 1, &m, 1000000), PLAIT_E_NOREPLY);
    cr_assert_null(m);
    FAILS(plait_call(cli.conn[0], t.uri, PLAIT_EAGER_MAX + 1, &m, 1000000), PLAIT_E_TOOBIG);
    FAILS(plait_call(cli.conn[0], "c", 1, &m, 10000000), PLAIT_E_NOREPLY);
    WAIT(w, cli.closed, 1);
    FAILS(plait_call(cli.conn[0], "e", 1, &m, -1), PLAIT_E_CLOSED);
    plait_session_release(cli.s);
    end_world(w);
    server_stop(&t);
    cr_assert_eq(t.sessions_closed, 1);
}

Test(session_call, the_connection_ends_meanwhile)
{
    struct server_thread t = { 0 };
    struct plait_msg *m;
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, 0);
    FAILS(plait_call(cli.conn[0], "k", 1, &m, 0), PLAIT_E_TIMEDOUT);
    FAILS(plait_call(cli.conn[0], "a", 1, &m, -1), PLAIT_E_NOREPLY);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_ABORTED, "%d %s", cli.code, cli.text);
    plait_session_release(cli.s);
    end_world(w);
    server_stop(&t);
}

Test(session_call, a_late_reply_is_dropped)
{
    struct server_thread t = { 0 };
    struct plait_msg *m;
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, 0);
    FAILS(plait_call(cli.conn[0], "k", 1, &m, 5000), PLAIT_E_TIMEDOUT);
    cr_assert_null(m);
    cr_assert_not_null(strstr(plait_error_text(), "5000 us"), "%s", plait_error_text());
    cr_assert_eq(conn_info(cli.conn[0]).pending, 1, "its number stays taken");
    expect_reply(cli.conn[0], "r", "");
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    expect_reply(cli.conn[0], "echo", "echo");
    end_session(w, &cli);
    end_world(w);
    server_stop(&t);
}

/* ---- time limits of requests ---- */

Test(session_call, requests_time_out)
{
    struct world *w = listening_world();
    struct plait_out out = PLAIT_OUT_INIT;
    struct outcome late = { 0 }, timely = { 0 };
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    out.data = "q";
    out.len = 1;
    out.on_reply = on_reply;
    out.arg = &timely;
    out.timeout_us = 60 * 1000 * 1000;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    out.arg = &late;
    out.timeout_us = 3000;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 2);
    WAIT(w, late.n, 1);
    cr_assert_eq(late.status, PLAIT_E_TIMEDOUT);
    FAILS(plait_reply(srv->held[1], "late", 4, 0), 0);
    FAILS(plait_reply(srv->held[0], "ok", 2, 0), 0);
    WAIT(w, timely.n, 1);
    cr_assert_eq(timely.status, 0);
    cr_assert_eq(late.n, 1);
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    plait_msg_release(srv->held[0]);
    plait_msg_release(srv->held[1]);
    /* one that has timed out, and one whose timer runs, when the connection ends */
    late.n = timely.n = 0;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, late.n, 1);
    out.arg = &timely;
    out.timeout_us = 60 * 1000 * 1000;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 4);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(late.n, 1);
    cr_assert_eq(timely.n, 1);
    cr_assert_eq(timely.status, PLAIT_E_ABORTED);
    plait_msg_release(srv->held[2]);
    plait_msg_release(srv->held[3]);
    plait_session_release(cli.s);
    end_world(w);
}

/* ---- inside callbacks ---- */

static int inside[4];

static void call_inside(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    struct plait_msg *m;

    (void)msg;
    inside[0] = plait_call(c, "e", 1, &m, 0);
    inside[1] = plait_session_wait(log->s, 0);
    inside[2] = plait_ctx_run(plait_conn_ctx(c), 0);
    inside[3] = plait_ctx_destroy(plait_conn_ctx(c));
}

Test(session_call, not_inside_a_callback)
{
    struct server_thread t = { 0 };
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, 0);
    cli.on_msg = call_inside;
    FAILS(plait_call(cli.conn[0], "1", 1, NULL, -1), 0);
    WAIT(w, cli.msgs, 1);
    cr_assert_eq(inside[0], PLAIT_E_WOULDBLOCK);
    cr_assert(inside[1] == 0, "it is open: nothing to wait for");
    cr_assert_eq(inside[2], PLAIT_E_WOULDBLOCK);
    cr_assert_eq(inside[3], PLAIT_E_BUSY);
    end_session(w, &cli);
    end_world(w);
    server_stop(&t);
}

/* ---- waiting for space ---- */

Test(session_call, waits_for_the_window)
{
    struct server_thread t = { 0 };
    struct outcome o = { 0 };
    struct log cli;
    struct world *w;

    t.opts = (struct plait_session_opts)PLAIT_SESSION_OPTS_INIT;
    t.opts.window = 1;
    server_start(&t);
    w = client_world(&t, &cli, 0);
    for (int i = 0; i < 100; i++) {
        o.n = 0;
        FAILS(plait_request(cli.conn[0], "e", 1, 0, on_reply, &o), 0);
        expect_reply(cli.conn[0], "echo", "echo");
        cr_assert_eq(o.n, 1);
    }
    FAILS(plait_request(cli.conn[0], "k", 1, 0, on_reply, &o), 0);
    FAILS(plait_call(cli.conn[0], "e", 1, NULL, 2000), PLAIT_E_TIMEDOUT);
    cr_assert_not_null(strstr(plait_error_text(), "could not be sent"), "%s", plait_error_text());
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
    server_stop(&t);
}

/* ---- many threads, one context ---- */

struct caller {
    pthread_t thread;
    struct plait_conn *conn;
    unsigned id, bad;
};

enum { CALLERS = 8, CALLS = 300 };

static void *call_often(void *arg)
{
    struct caller *me = arg;

    for (unsigned i = 0; i < CALLS; i++) {
        uint8_t data[600];
        size_t len = 9 + (i * 13 + me->id) % 500;
        struct plait_msg *m = NULL;
        int rc;

        data[0] = 'e';
        fill_bytes(data + 1, len - 1, me->id << 16 | i);
        rc = plait_call(me->conn, data, len, &m, -1);
        if (rc == 0 && m->len == len)
            me->bad += memcmp(m->data, data, len) != 0;
        else
            me->bad++;
        plait_msg_release(m); /* without the lock */
        if (i % 50 == 0)
            me->bad += plait_call(me->conn, "n", 1, NULL, -1) != PLAIT_E_NOREPLY;
    }
    return NULL;
}

Test(session_call, from_eight_threads_on_a_shared_context)
{
    struct server_thread t = { 0 };
    struct caller callers[CALLERS];
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, PLAIT_CTX_SHARED);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .conn = cli.conn[0], .id = i };
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        cr_assert_eq(callers[i].bad, 0, "thread %u", i);
    }
    plait_ctx_lock(w->ctx[0]);
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    plait_session_close(cli.s);
    plait_ctx_unlock(w->ctx[0]);
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
    server_stop(&t);
}

static void *call_until_closed(void *arg)
{
    struct caller *me = arg;
    int rc;

    while ((rc = plait_call(me->conn, "echo", 4, NULL, -1)) == 0)
        me->id++;
    me->bad += rc != PLAIT_E_CLOSED && rc != PLAIT_E_ABORTED && rc != PLAIT_E_PEERDIED;
    return NULL;
}

Test(session_call, an_abort_ends_the_calls_of_all_threads)
{
    struct server_thread t = { 0 };
    struct caller callers[CALLERS];
    struct log cli;
    struct world *w;

    server_start(&t);
    w = client_world(&t, &cli, PLAIT_CTX_SHARED);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .conn = cli.conn[0] };
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, call_until_closed, &callers[i]), 0);
    }
    for (int i = 0; i < 200; i++)
    FAILS(plait_call(cli.conn[0], "e", 1, NULL, -1), 0);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        cr_assert_eq(callers[i].bad, 0, "thread %u", i);
    }
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
    server_stop(&t);
}

/* ---- the wrong thread ---- */

#ifdef PLAIT_DEBUG
static void *intrude(void *arg)
{
    struct plait_conn *c = arg;
    struct outcome o = { 0 };
    struct plait_out out = PLAIT_OUT_INIT;
    struct plait_slot slot;
    struct plait_session *s;
    struct plait_listener *l;

    FAILS(plait_send(c, "x", 1, 0), PLAIT_E_THREAD);
    FAILS(plait_request(c, "x", 1, 0, on_reply, &o), PLAIT_E_THREAD);
    FAILS(plait_sendx(c, &out), PLAIT_E_THREAD);
    FAILS(plait_call(c, "x", 1, NULL, 0), PLAIT_E_THREAD);
    FAILS(plait_reserve(c, 1, &slot), PLAIT_E_THREAD);
    FAILS(plait_flush(c), PLAIT_E_THREAD);
    FAILS(plait_conn_close(c), PLAIT_E_THREAD);
    FAILS(plait_session_close(plait_conn_session(c)), PLAIT_E_THREAD);
    FAILS(plait_session_open(&s, plait_conn_ctx(c), "plait://localhost:1", NULL), PLAIT_E_THREAD);
    FAILS(plait_listen(&l, plait_conn_ctx(c), "plait://localhost", NULL), PLAIT_E_THREAD);
    return NULL;
}
#endif

static struct plait_msg *a_request;

static void keep_it(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)c;
    a_request = plait_msg_hold(msg);
}

#ifdef PLAIT_DEBUG
static void *reply_from_elsewhere(void *arg)
{
    FAILS(plait_reply(arg, "x", 1, 0), PLAIT_E_THREAD);
    FAILS(plait_reply_error(arg, 1), PLAIT_E_THREAD);
    return NULL;
}

Test(session_call, the_wrong_thread_is_told_in_debug_builds)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli;
    pthread_t t;

    w->on_msg = keep_it;
    open_session(w, &cli, NULL);
    pthread_create(&t, NULL, intrude, cli.conn[0]);
    pthread_join(t, NULL);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o), 0);
    WAIT(w, w->srv[0].msgs, 1);
    pthread_create(&t, NULL, reply_from_elsewhere, a_request);
    pthread_join(t, NULL);
    FAILS(plait_reply(a_request, "x", 1, 0), 0);
    plait_msg_release(a_request);
    WAIT(w, o.n, 1);
    end_session(w, &cli);
    end_world(w);
}
#endif

/* ---- fork ---- */

/* In the child: every call fails, nothing that the parent has is touched. The exit status counts what was wrong. */
static int child_calls(struct world *w, struct log *cli, struct log *srv)
{
    struct outcome o = { 0 };
    struct plait_out out = PLAIT_OUT_INIT;
    struct plait_slot slot;
    struct plait_session *s;
    struct plait_listener *l;
    struct plait_conn_info info;
    struct plait_conn *c = cli->conn[0];
    struct plait_ctx *own;
    int bad = 0;

#define CHILD(call) bad += (call) != PLAIT_E_FORKED
    CHILD(plait_send(c, "x", 1, 0));
    CHILD(plait_request(c, "x", 1, 0, on_reply, &o));
    CHILD(plait_sendx(c, &out));
    CHILD(plait_call(c, "x", 1, NULL, 0));
    CHILD(plait_reserve(c, 1, &slot));
    CHILD(plait_flush(c));
    CHILD(plait_reply(a_request, "x", 1, 0));
    CHILD(plait_conn_close(c));
    CHILD(plait_conn_abort(c));
    CHILD(plait_session_close(cli->s));
    CHILD(plait_session_wait(cli->s, 0) == 0 ? PLAIT_E_FORKED : -1); /* it is open: it did not have to wait */
    CHILD(plait_session_open(&s, w->ctx[1], w->uri, NULL));
    CHILD(plait_listen(&l, w->ctx[0], "plait://localhost", NULL));
    CHILD(plait_ctx_poll(w->ctx[0]));
    CHILD(plait_ctx_run(w->ctx[1], 0));
    info.size = sizeof info;
    plait_conn_get_info(c, &info);
    plait_msg_release(a_request);
    plait_listener_close(w->listener);
    plait_session_release(cli->s);
    bad += plait_ctx_destroy(w->ctx[1]) != 0;
    bad += plait_ctx_destroy(w->ctx[0]) != 0;
    bad += cli->c_closed || srv->c_closed || cli->closed || srv->closed || o.n; /* no callback of the parent's */
    /* and it may begin anew */
    bad += plait_ctx_create(&own, NULL) != 0 || plait_ctx_destroy(own) != 0;
    return bad;
}

Test(session_call, a_forked_child_fails_and_the_parent_goes_on)
{
    struct world *w = listening_world();
    struct outcome o = { 0 }, p = { 0 };
    struct log cli, *srv;
    int status;
    pid_t pid;

    w->on_msg = keep_it;
    srv = open_session(w, &cli, NULL);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o), 0);
    WAIT(w, srv->msgs, 1);
    pid = fork();
    if (pid == 0)
        _exit(child_calls(w, &cli, srv));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "%d calls of the child were wrong", WEXITSTATUS(status));
    cr_assert_eq(o.n, 0);
    FAILS(plait_reply(a_request, "y", 1, 0), 0);
    plait_msg_release(a_request);
    WAIT(w, o.n, 1);
    srv->on_msg = echo;
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &p), 0);
    WAIT(w, p.n, 1);
    end_session(w, &cli);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->code, 0);
    end_world(w);
}

static pid_t callback_child;
static bool in_callback_child;

static void fork_in_it(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)c;
    (void)msg;
    if (callback_child == 0) {
        callback_child = fork();
        in_callback_child = callback_child == 0;
    }
}

static void ignore_done(int status, void *arg)
{
    (void)status;
    (void)arg;
}

/* The child returns from a callback into the library where a credit is due, or a receipt: neither may touch the parent's rings. */
static void fork_in_callback(unsigned window, bool receipt)
{
    struct world *w = listening_world();
    struct log cli, *srv;
    struct plait_session_opts o = session_opts(&cli);
    struct plait_out out = PLAIT_OUT_INIT;
    int status;

    o.window = window;
    callback_child = 0;
    w->on_msg = echo;
    srv = open_session(w, &cli, &o);
    cli.on_msg = fork_in_it;
    out.data = "x";
    out.len = 1;
    if (receipt)
        out.on_done = ignore_done;
    FAILS(plait_sendx(srv->conn[0], &out), 0);
    while (callback_child == 0 && !in_callback_child)
        if (plait_ctx_poll(w->ctx[0]) < 0 || plait_ctx_poll(w->ctx[1]) < 0)
            break;
    if (in_callback_child)
        _exit(plait_ctx_poll(w->ctx[0]) == PLAIT_E_FORKED ? 0 : 1);
    cr_assert_eq(waitpid(callback_child, &status, 0), callback_child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status 0x%x", status);
    end_session(w, &cli);
    end_world(w);
}

Test(session_call, a_fork_inside_a_callback)
{
    fork_in_callback(1024, false);
    fork_in_callback(1, false);
    fork_in_callback(1024, true);
}

/* A child that lives on must not keep up the appearance that the parent lives. */
Test(session_call, a_living_child_does_not_hide_the_parents_death)
{
    struct world *w = listening_world();
    struct log *srv = &w->srv[0];
    int pipefd[2], status;
    pid_t pid, grandchild = -1;

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer allows no threads after a fork");
#endif
    cr_assert_eq(pipe(pipefd), 0);
    pid = fork();
    if (pid == 0) { /* a client that forks, then dies */
        static struct world mine;
        struct log cli;
        struct plait_session_opts o = session_opts(&cli);

        log_init(&cli, &mine);
        if (plait_ctx_create(&mine.ctx[0], NULL) != 0 || plait_session_open(&cli.s, mine.ctx[0], w->uri, &o) != 0 ||
            plait_session_wait(cli.s, -1) != 0)
            _exit(1);
        grandchild = fork();
        if (grandchild == 0) {
            close(pipefd[1]);
            pause();
            _exit(0);
        }
        status = (int)write(pipefd[1], &grandchild, sizeof grandchild);
        _exit(status == sizeof grandchild ? 0 : 1);
    }
    WAIT(w, srv->c_opened, 1);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->code, PLAIT_E_PEERDIED, "%s", srv->text);
    waitpid(pid, &status, 0);
    cr_assert_eq(WEXITSTATUS(status), 0);
    cr_assert_eq(read(pipefd[0], &grandchild, sizeof grandchild), sizeof grandchild);
    cr_assert_eq(kill(grandchild, SIGKILL), 0);
    end_world(w);
}
