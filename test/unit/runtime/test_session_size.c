/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages of every size, up to what the peer accepts and beyond. */
#include "test/unit/runtime/session_util.h"

TestSuite(session_size, .timeout = 120);

static unsigned bad_content;

static void check_oneway(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    uint32_t seed = (uint32_t)msg->len * 7 + msg->hdr_len;

    if (!has_bytes(msg->data, msg->len, seed) || !has_bytes(msg->hdr, msg->hdr_len, seed + 1))
        bad_content++;
    echo(log, c, msg);
}

struct big_reply {
    unsigned n;
    size_t len;
    uint32_t hdr_len;
    bool good;
};

static void on_big_reply(struct plait_msg *m, int status, void *arg)
{
    struct big_reply *b = arg;
    uint32_t seed;

    b->n++;
    if (status)
        return;
    seed = (uint32_t)m->len * 7 + m->hdr_len;
    b->good = m->len == b->len && m->hdr_len == b->hdr_len && has_bytes(m->data, m->len, seed) &&
              has_bytes(m->hdr, m->hdr_len, seed + 1);
}

enum { BIGGEST = 9000001 };

static void try_size(struct world *w, struct log *cli, size_t len, uint32_t hdr_len)
{
    static uint8_t data[BIGGEST], hdr[PLAIT_HDR_MAX];
    struct plait_out out = PLAIT_OUT_INIT;
    struct log *srv = &w->srv[0];
    unsigned before = srv->msgs;
    struct big_reply reply = { 0, len, hdr_len, false };
    struct outcome done = { 0 };
    int rc;

    fill_bytes(data, len, (uint32_t)len * 7 + hdr_len);
    fill_bytes(hdr, hdr_len, (uint32_t)len * 7 + hdr_len + 1);
    out.hdr = hdr;
    out.hdr_len = hdr_len;
    out.data = data;
    out.len = len;
    FAILS(plait_sendx(cli->conn[0], &out), 0);
    WAIT(w, srv->msgs, before + 1);
    out.on_reply = on_big_reply;
    out.arg = &reply;
    FAILS(plait_sendx(cli->conn[0], &out), 0);
    WAIT(w, reply.n, 1);
    cr_assert(reply.good, "the reply of %zu + %u bytes", len, hdr_len);
    out.on_reply = NULL;
    out.on_done = on_done;
    out.arg = &done;
    out.flags = len % 2 ? PLAIT_NOCOPY : 0;
    FAILS(plait_sendx(cli->conn[0], &out), 0);
    WAIT(w, done.n, 1);
    cr_assert_eq(done.status, 0);
    if (!hdr_len) {
        reply.n = 0;
        FAILS(plait_send(cli->conn[0], data, len, 0), 0);
        while ((rc = plait_request(cli->conn[0], data, len, 0, on_big_reply, &reply)) == PLAIT_E_AGAIN)
            poll_all(w);
        FAILS(rc, 0);
        WAIT(w, reply.n, 1);
    }
    cr_assert_eq(bad_content, 0, "%zu + %u bytes", len, hdr_len);
}

static const size_t sizes[] = { 0,    1,    7,    8,    9,    15,   16,   17,    31,    32,    39,     40,
                                41,   47,   48,   49,   55,   56,   57,   63,    64,    65,    103,    104,
                                105,  111,  112,  113,  176,  1008, 1023, 1024,  4063,  4064,  4071,   4072,
                                4073, 4079, 4080, 4081, 4088, 4096, 8159, 8160,  8168,  8169,  8175,   8176,
                                8177, 8192, 8193, 16335, 16336, 16352, 16384, 24529, 65535, 65536, 65537, 131072,
                                262143, 262144 };

Test(session_size, every_size_around_the_thresholds)
{
    static const uint32_t hdrs[] = { 0, 1, 8, 13, 40, 1024 };
    struct world *w = listening_world();
    struct log cli;

    w->on_msg = check_oneway;
    open_session(w, &cli, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t j = 0; j < sizeof hdrs / sizeof hdrs[0]; j++)
            try_size(w, &cli, sizes[i], hdrs[j]);
    for (size_t len = 0; len < 300; len++)
        try_size(w, &cli, len, (uint32_t)(len * 5 % 77));
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

/* Above the usual maximum: both sides have agreed to take them. In parts, through the ring and then the bulk area. */
Test(session_size, messages_of_megabytes)
{
    static const size_t lens[] = { 262145, 264191, 264192, 264193, 300001, 528385, 1048576, 1048577, 5000000, BIGGEST };
    struct world *w = listening_world();
    struct log cli;
    struct plait_session_opts o = session_opts(&cli);
    struct plait_out out = PLAIT_OUT_INIT;

    w->accept.max_msg = o.max_msg = BIGGEST;
    w->on_msg = check_oneway;
    open_session(w, &cli, &o);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        try_size(w, &cli, lens[i], 0);
        try_size(w, &cli, lens[i], 1024);
    }
    out.data = &o;
    out.len = BIGGEST + 1;
    FAILS(plait_sendx(cli.conn[0], &out), PLAIT_E_TOOBIG);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

Test(session_size, too_long_for_the_peer)
{
    struct world *w = listening_world();
    struct plait_session_opts o;
    struct plait_slot slot;
    static uint8_t data[PLAIT_EAGER_MAX + 1];
    struct outcome done = { 0 };
    struct log cli;

    w->on_msg = check_oneway;
    w->accept.max_msg = 5000;
    o = session_opts(&cli);
    o.max_msg = 100;
    open_session(w, &cli, &o);
    cr_assert_eq(conn_info(cli.conn[0]).max_msg, 5000);
    FAILS(plait_send(cli.conn[0], data, 5001, 0), PLAIT_E_TOOBIG);
    cr_assert_not_null(strstr(plait_error_text(), "5000"), "%s", plait_error_text());
    FAILS(plait_send(cli.conn[0], data, sizeof data, 0), PLAIT_E_TOOBIG);
    FAILS(plait_request(cli.conn[0], data, 5001, 0, on_reply, &done), PLAIT_E_TOOBIG);
    FAILS(plait_reserve(cli.conn[0], 5001, &slot), PLAIT_E_TOOBIG);
    cr_assert_eq(conn_info(cli.conn[0]).unreleased, 0);
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    FAILS(plait_send(w->srv[0].conn[0], data, 101, 0), PLAIT_E_TOOBIG);
    fill_bytes(data, 5000, 5000 * 7);
    FAILS(plait_send(cli.conn[0], data, 5000, 0), 0);
    fill_bytes(data, 100, 100 * 7);
    FAILS(plait_send(w->srv[0].conn[0], data, 100, 0), 0);
    WAIT(w, w->srv[0].msgs, 1);
    WAIT(w, cli.msgs, 1);
    cr_assert_eq(bad_content, 0);
    end_session(w, &cli);
    end_world(w);
}

static void reply_too_much(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    static uint8_t data[200];

    (void)c;
    (void)log;
    FAILS(plait_reply(msg, data, 101, 0), PLAIT_E_TOOBIG);
    FAILS(plait_reply(msg, data, 100, 0), 0);
}

Test(session_size, a_reply_that_is_too_long_can_be_replaced)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct plait_session_opts opts;
    struct log cli;

    w->on_msg = reply_too_much;
    opts = session_opts(&cli);
    opts.max_msg = 100;
    open_session(w, &cli, &opts);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.len, 100);
    end_session(w, &cli);
    end_world(w);
}

/* A message from the user's memory, while the ring is full: it must stay there until done. */
Test(session_size, nocopy_is_read_late)
{
    enum { LEN = 65536, N = 8 };
    struct world *w = listening_world();
    static uint8_t data[N][LEN];
    struct outcome done[N];
    unsigned total = 0;
    struct log cli;

    w->on_msg = check_oneway;
    open_session(w, &cli, NULL);
    memset(done, 0, sizeof done);
    for (int i = 0; i < N; i++) {
        struct plait_out out = PLAIT_OUT_INIT;
        int rc;

        fill_bytes(data[i], LEN, LEN * 7);
        out.data = data[i];
        out.len = LEN;
        out.flags = PLAIT_NOCOPY;
        out.on_done = on_done;
        done[i].total = &total;
        out.arg = &done[i];
        while ((rc = plait_sendx(cli.conn[0], &out)) == PLAIT_E_AGAIN)
            poll_all(w);
        FAILS(rc, 0);
    }
    WAIT(w, total, N);
    cr_assert_eq(bad_content, 0);
    end_session(w, &cli);
    end_world(w);
}
