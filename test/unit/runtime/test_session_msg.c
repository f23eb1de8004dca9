/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests, replies, one-way messages, receipts, holding. */
#include "test/unit/runtime/session_util.h"

TestSuite(session_msg, .timeout = 120);

Test(session_msg, request_and_reply)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli;

    w->on_msg = echo;
    open_session(w, &cli, NULL);
    FAILS(plait_request(cli.conn[0], "hello", 5, 0, on_reply, &o), 0);
    cr_assert_eq(o.n, 0, "not from inside the call");
    cr_assert_eq(conn_info(cli.conn[0]).pending, 1);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(o.len, 5);
    cr_assert_eq(memcmp(o.data, "hello", 5), 0);
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    cr_assert_eq(conn_info(cli.conn[0]).unreleased, 0);
    cr_assert_eq(conn_info(cli.conn[0]).sent, 1);
    cr_assert_eq(conn_info(cli.conn[0]).received, 1);
    end_session(w, &cli);
    check_log(&cli);
    cr_assert_eq(o.n, 1);
    end_world(w);
}

Test(session_msg, wrong_arguments)
{
    struct world *w = listening_world();
    struct plait_out out;
    struct outcome o = { 0 };
    struct log cli;
    static char hdr[PLAIT_HDR_MAX + 1];

    open_session(w, &cli, NULL);
    FAILS(plait_send(cli.conn[0], "x", 1, PLAIT_NOCOPY), PLAIT_E_INVAL);
    FAILS(plait_send(cli.conn[0], "x", 1, 0x80), PLAIT_E_INVAL);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, NULL, NULL), PLAIT_E_INVAL);
    FAILS(plait_request(cli.conn[0], "x", 1, 0x80, on_reply, &o), PLAIT_E_INVAL);
#define BAD(init, want)                                  \
    out = (struct plait_out)PLAIT_OUT_INIT;              \
    init;                                                \
    FAILS(plait_sendx(cli.conn[0], &out), want)
    BAD(out.size = 8, PLAIT_E_INVAL);
    BAD(out.flags = 0x80, PLAIT_E_INVAL);
    BAD(out.flags = PLAIT_NOCOPY, PLAIT_E_INVAL);
    BAD(out.hdr = hdr; out.hdr_len = PLAIT_HDR_MAX + 1, PLAIT_E_TOOBIG);
    BAD(out.hdr_len = 1, PLAIT_E_INVAL);
    BAD(out.len = 1, PLAIT_E_INVAL);
    BAD(out.on_reply = on_reply; out.on_done = on_done, PLAIT_E_INVAL);
    BAD(out.timeout_us = 1, PLAIT_E_INVAL);
    BAD(out.timeout_us = 1; out.on_done = on_done, PLAIT_E_INVAL);
    settle(w);
    cr_assert_eq(o.n, 0);
    cr_assert_eq(w->srv[0].msgs, 0);
    end_session(w, &cli);
    end_world(w);
}

/* The first byte says what to do. */
static void obey(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    const char *what = msg->data;
    struct plait_out out = PLAIT_OUT_INIT;

    (void)c;
    switch (what[0]) {
    case 'e':
        FAILS(plait_reply_error(msg, PLAIT_E_NOTFOUND), 0);
        FAILS(plait_reply(msg, "x", 1, 0), PLAIT_E_REPLIED);
        break;
    case 'p':
        FAILS(plait_reply_error(msg, 0), PLAIT_E_INVAL);
        FAILS(plait_reply_error(msg, 4711), 0);
        break;
    case 't':
        FAILS(plait_reply(msg, "x", 1, 0), 0);
        FAILS(plait_reply(msg, "x", 1, 0), PLAIT_E_REPLIED);
        FAILS(plait_reply_error(msg, -1), PLAIT_E_REPLIED);
        break;
    case 'h':
        out.hdr = "head";
        out.hdr_len = 4;
        out.data = "body!";
        out.len = 5;
        FAILS(plait_replyx(msg, &out), 0);
        break;
    case 'b':
        out.size = 1;
        FAILS(plait_replyx(msg, &out), PLAIT_E_INVAL);
        out = (struct plait_out)PLAIT_OUT_INIT;
        out.len = 1;
        FAILS(plait_replyx(msg, &out), PLAIT_E_INVAL);
        out = (struct plait_out)PLAIT_OUT_INIT;
        out.hdr = "";
        out.hdr_len = PLAIT_HDR_MAX + 1;
        FAILS(plait_replyx(msg, &out), PLAIT_E_TOOBIG);
        out = (struct plait_out)PLAIT_OUT_INIT;
        out.on_reply = on_reply;
        FAILS(plait_replyx(msg, &out), PLAIT_E_INVAL);
        out = (struct plait_out)PLAIT_OUT_INIT;
        out.flags = PLAIT_NOCOPY;
        FAILS(plait_replyx(msg, &out), PLAIT_E_INVAL);
        FAILS(plait_reply(msg, NULL, 0, PLAIT_NOCOPY), PLAIT_E_INVAL);
        FAILS(plait_reply(msg, NULL, 0, 0), 0);
        break;
    case 'n': /* nothing */
        break;
    case 'o':
        cr_assert_eq(msg->kind, PLAIT_ONEWAY);
        FAILS(plait_reply(msg, "x", 1, 0), PLAIT_E_REPLIED);
        FAILS(plait_msg_refuse(msg), PLAIT_E_INVAL);
        log->nheld++;
        break;
    default:
        cr_assert_fail("%c", what[0]);
    }
}

Test(session_msg, every_kind_of_answer)
{
    static const struct {
        const char *ask;
        int status;
        uint32_t hdr_len;
        size_t len;
    } cases[] = {
        { "e", PLAIT_E_NOTFOUND, 0, 0 }, { "p", 4711, 0, 0 },         { "t", 0, 0, 1 },
        { "h", 0, 4, 5 },                { "n", PLAIT_E_NOREPLY, 0, 0 }, { "b", 0, 0, 0 },
    };
    struct world *w = listening_world();
    struct log cli;

    w->on_msg = obey;
    open_session(w, &cli, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome o = { 0 };

        FAILS(plait_request(cli.conn[0], cases[i].ask, 1, 0, on_reply, &o), 0);
        WAIT(w, o.n, 1);
        cr_assert_eq(o.status, cases[i].status, "%s: %d", cases[i].ask, o.status);
        cr_assert_eq(o.len, cases[i].len, "%s", cases[i].ask);
        cr_assert_eq(o.hdr_len, cases[i].hdr_len, "%s", cases[i].ask);
    }
    FAILS(plait_send(cli.conn[0], "o", 1, 0), 0);
    WAIT(w, w->srv[0].nheld, 1);
    end_session(w, &cli);
    end_world(w);
}

Test(session_msg, replies_out_of_order)
{
    enum { N = 100 };
    struct world *w = listening_world();
    struct outcome o[N];
    unsigned total = 0;
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    memset(o, 0, sizeof o);
    for (int i = 0; i < N; i++) {
        o[i].total = &total;
        FAILS(plait_request(cli.conn[0], &i, sizeof i, 0, on_reply, &o[i]), 0);
    }
    WAIT(w, srv->nheld, N);
    settle(w);
    cr_assert_eq(total, 0);
    for (int i = 0; i < N; i++) {
        struct plait_msg *m = srv->held[(i * 37) % N];

        FAILS(plait_reply(m, m->data, m->len, 0), 0);
        FAILS(plait_reply(m, m->data, m->len, 0), PLAIT_E_REPLIED);
        plait_msg_release(m);
        WAIT(w, total, i + 1u);
    }
    for (int i = 0; i < N; i++) {
        cr_assert_eq(o[i].n, 1);
        cr_assert_eq(memcmp(o[i].data, &i, sizeof i), 0);
    }
    end_session(w, &cli);
    end_world(w);
}

/* ---- both directions at once ---- */

static unsigned back_total;
static struct outcome back[1000];

static void echo_and_ask_back(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    unsigned i = log->msgs - 1;

    echo(log, c, msg);
    back[i].total = &back_total;
    FAILS(plait_request(c, &i, sizeof i, 0, on_reply, &back[i]), 0);
    FAILS(plait_send(c, "oneway", 6, 0), 0);
}

Test(session_msg, both_directions_at_once)
{
    enum { N = 1000 };
    struct world *w = listening_world();
    static struct outcome o[N];
    unsigned total = 0;
    struct log cli;

    w->on_msg = echo_and_ask_back;
    open_session(w, &cli, NULL);
    cli.on_msg = echo;
    for (unsigned i = 0; i < N; i++) {
        o[i].total = &total;
        FAILS(plait_request(cli.conn[0], &i, sizeof i, 0, on_reply, &o[i]), 0);
        while (i % 16 == 15 && total + 32 < i) /* in a dialogue one message at a time is taken */
            poll_all(w);
    }
    WAIT(w, total, N);
    WAIT(w, back_total, N);
    WAIT(w, cli.msgs, 2 * N);
    for (unsigned i = 0; i < N; i++) {
        cr_assert(o[i].status == 0 && memcmp(o[i].data, &i, sizeof i) == 0, "%u", i);
        cr_assert(back[i].status == 0 && memcmp(back[i].data, &i, sizeof i) == 0, "%u", i);
    }
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

/* ---- receipts ---- */

static void refuse_odd(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    if (log->msgs % 2)
        FAILS(plait_msg_refuse(msg), 0);
}

Test(session_msg, receipts)
{
    struct world *w = listening_world();
    struct plait_out out = PLAIT_OUT_INIT;
    struct outcome a = { 0 }, b = { 0 }, c = { 0 };
    struct log cli, *srv;

    w->on_msg = refuse_odd;
    srv = open_session(w, &cli, NULL);
    out.data = "x";
    out.len = 1;
    out.on_done = on_done;
    out.arg = &a;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    out.arg = &b;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, b.n, 1);
    cr_assert_eq(a.n, 1);
    cr_assert_eq(a.status, PLAIT_E_REFUSED);
    cr_assert_eq(b.status, 0);
    srv->on_msg = hold_all;
    out.arg = &c;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 1);
    settle(w);
    cr_assert_eq(c.n, 0, "the receipt comes with the release");
    FAILS(plait_msg_refuse(srv->held[0]), 0);
    plait_msg_release(srv->held[0]);
    WAIT(w, c.n, 1);
    cr_assert_eq(c.status, PLAIT_E_REFUSED);
    end_session(w, &cli);
    end_world(w);
}

/* ---- hold ---- */

static void send_pattern(struct world *w, struct log *cli, uint32_t i, size_t len)
{
    uint8_t data[4096];
    int rc;

    fill_bytes(data, len, i);
    while ((rc = plait_send(cli->conn[0], data, len, 0)) == PLAIT_E_AGAIN)
        poll_all(w);
    FAILS(rc, 0);
}

Test(session_msg, held_messages_stay_as_they_were)
{
    enum { N = 500 };
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    /* more than fit in the ring, so most of them are copied */
    for (uint32_t i = 0; i < N; i++)
        send_pattern(w, &cli, i, 1 + i % 300);
    WAIT(w, srv->nheld, N);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(srv->held[i]->len, 1 + i % 300);
        cr_assert(has_bytes(srv->held[i]->data, srv->held[i]->len, i), "message %u", i);
        cr_assert_eq(plait_msg_hold(srv->held[i]), srv->held[i]);
    }
    for (uint32_t i = 0; i < N; i++)
        plait_msg_release(srv->held[(i * 7) % N]);
    end_session(w, &cli);
    end_world(w);
}

static void hold_the_first(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (log->nheld == 0)
        hold_all(log, c, msg);
}

Test(session_msg, one_held_message_does_not_stop_the_others)
{
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_the_first;
    srv = open_session(w, &cli, NULL);
    for (uint32_t i = 0; i < 10000; i++)
        send_pattern(w, &cli, i, 100);
    WAIT(w, srv->msgs, 10000);
    cr_assert(has_bytes(srv->held[0]->data, srv->held[0]->len, 0));
    plait_msg_release(srv->held[0]);
    end_session(w, &cli);
    end_world(w);
}

Test(session_msg, a_held_reply)
{
    struct world *w = listening_world();
    struct outcome o = { .hold = true };
    struct log cli;

    w->on_msg = echo;
    open_session(w, &cli, NULL);
    FAILS(plait_request(cli.conn[0], "keep me", 7, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    for (uint32_t i = 0; i < 1000; i++)
        send_pattern(w, &cli, i, 10);
    cr_assert_eq(memcmp(o.held->data, "keep me", 7), 0);
    cr_assert_eq(o.held->kind, PLAIT_REPLY);
    plait_msg_release(o.held);
    plait_msg_release(NULL);
    end_session(w, &cli);
    end_world(w);
}

Test(session_msg, held_after_the_end_of_everything)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli, *srv;
    static uint8_t big[PLAIT_EAGER_MAX];

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    send_pattern(w, &cli, 1, 100);
    fill_bytes(big, sizeof big, 2);
    FAILS(plait_send(cli.conn[0], big, sizeof big, 0), 0);
    FAILS(plait_request(cli.conn[0], "ask", 3, 0, on_reply, &o), PLAIT_E_AGAIN);
    WAIT(w, cli.writable, 1);
    FAILS(plait_request(cli.conn[0], "ask", 3, 0, on_reply, &o), 0);
    WAIT(w, srv->nheld, 3);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_ABORTED);
    FAILS(plait_reply(srv->held[2], "late", 4, 0), PLAIT_E_CLOSED);
    cr_assert(has_bytes(srv->held[0]->data, 100, 1));
    plait_session_release(cli.s);
    end_world(w); /* their bytes outlive the context */
    cr_assert(has_bytes(srv->held[0]->data, 100, 1));
    cr_assert(has_bytes(srv->held[1]->data, sizeof big, 2));
    cr_assert_eq(memcmp(srv->held[2]->data, "ask", 3), 0);
    FAILS(plait_reply(srv->held[2], "late", 4, 0), PLAIT_E_CLOSED);
    for (int i = 0; i < 3; i++)
        plait_msg_release(srv->held[i]);
}

/* What is delivered while the context is being destroyed may be held, too. */
Test(session_msg, held_while_the_context_is_destroyed)
{
    struct world *w = listening_world();
    struct log cli, *srv;

    w->on_msg = hold_all;
    srv = open_session(w, &cli, NULL);
    for (uint32_t i = 0; i < 10; i++)
        FAILS(plait_send(cli.conn[0], "12345678", 8, 0), 0);
    FAILS(plait_ctx_destroy(w->ctx[0]), 0);
    w->ctx[0] = NULL;
    for (unsigned i = 0; i < srv->nheld; i++) {
        cr_assert_eq(memcmp(srv->held[i]->data, "12345678", 8), 0);
        plait_msg_release(srv->held[i]);
    }
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
}
