/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are offered and received in place: who has the memory when, and until when. */
#include <pthread.h>
#include <sys/wait.h>
#include "runtime/mem.h"
#include "test/unit/runtime/offer_util.h"

TestSuite(offer, .timeout = 120);

static void collect(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (log->user)
        hold_all(log, c, msg);
}

static unsigned in_use(struct plait_mem *mem)
{
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;

    cr_assert_eq(plait_mem_get_info(mem, &info), 0);
    return info.in_use;
}

Test(offer, oneway_in_place)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(256 * KIB);
    uint8_t *p = plait_mem_addr(mem);
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli, *srv;

    w->on_msg = collect;
    srv = open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 256 * KIB);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 1);
    cr_assert_geq(ctx_stats(w->ctx[1]).long_pushed, 1);
    srv->user = srv;
    fill_bytes(p + 100, 100000, 1);
    out = nocopy(p + 100, 100000, &o);
    out.hdr = "header";
    out.hdr_len = 6;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 1);
    cr_assert(msg_has(srv->held[0], 100000, 1));
    cr_assert_eq(srv->held[0]->hdr_len, 6);
    cr_assert_eq(memcmp(srv->held[0]->hdr, "header", 6), 0);
    /* the same memory */
    p[100]++;
    cr_assert_eq(*(const uint8_t *)srv->held[0]->data, p[100]);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 2);
    settle(w);
    cr_assert_eq(o.n, 0, "done before it was released");
    plait_msg_release(srv->held[0]);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(in_use(mem), 1, "of the link");
    cr_assert_eq(plait_mem_release(mem), 0);
    for (int i = 0; i < 1000 && ctx_stats(w->ctx[0]).mapped_bytes; i++)
        poll_all(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
}

static void reply_ok(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    log->nheld++;
    if (msg->kind == PLAIT_REQUEST) {
        cr_assert(msg_has(msg, 20000, 7));
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
    }
}

Test(offer, request_in_place)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * KIB);
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli;

    w->on_msg = reply_ok;
    open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    fill_bytes(plait_mem_addr(mem), 20000, 7);
    for (unsigned i = 0; i < 100; i++) {
        out = nocopy(plait_mem_addr(mem), 20000, &o);
        out.on_done = NULL;
        out.on_reply = on_reply;
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i + 1);
        cr_assert_eq(o.status, 0);
        cr_assert_eq(o.len, 2);
    }
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 101);
    /* one with a time-out gives its memory back early: it is copied */
    out.timeout_us = 10000000;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 101);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 101);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
    plait_mem_release(mem);
}

Test(offer, what_is_not_offered)
{
    static char elsewhere[20000];
    struct world *w = listening_world();
    struct plait_mem_opts opts = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *mem = new_region(64 * KIB), *registered, *writable;
    char *p = plait_mem_addr(mem);
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli;
    uint64_t before;

    open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    before = ctx_stats(w->ctx[1]).offers_sent;
    out = nocopy(elsewhere, sizeof elsewhere, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 1);
    out = nocopy(p, PLAIT_OFFER_MIN - 1, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 2);
    out = nocopy(p, 20000, &o);
    out.flags = 0;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 3);
    FAILS(plait_send(cli.conn[0], p, 20000, 0), 0);
    settle(w);
    cr_assert_eq(plait_mem_register(&registered, elsewhere, sizeof elsewhere), 0);
    out = nocopy(elsewhere, sizeof elsewhere, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 4);
    /* its descriptor would let the peer write */
    opts.flags = PLAIT_MEM_WRITABLE;
    cr_assert_eq(plait_mem_alloc(&writable, 64 * KIB, &opts), 0);
    for (unsigned i = 5; i < 10; i++) {
        out = nocopy(plait_mem_addr(writable), 20000, &o);
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i);
        settle(w);
    }
    plait_mem_release(writable);
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, before);
    out = nocopy(p, PLAIT_OFFER_MIN, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 10);
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, before + 1);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
    plait_mem_release(registered);
}

/* A message in place outlives its connection, its link, the sender's region and the sender's context. */
Test(offer, held_beyond_everything)
{
    enum { N = 5 };
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(1024 * KIB);
    uint8_t *p = plait_mem_addr(mem);
    struct outcome o[N] = { { 0 } };
    struct log cli, *srv;

    w->on_msg = collect;
    srv = open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    srv->user = srv;
    for (unsigned i = 0; i < N; i++) {
        struct plait_out out = nocopy(p + i * 100000, 100000, &o[i]);

        fill_bytes(p + i * 100000, 100000, i);
        FAILS(plait_sendx(cli.conn[0], &out), 0);
    }
    WAIT(w, srv->nheld, N);
    plait_msg_release(srv->held[0]);
    WAIT(w, o[0].n, 1);
    FAILS(plait_conn_abort(cli.conn[0]), 0);
    WAIT(w, o[N - 1].n, 1);
    for (unsigned i = 1; i < N; i++)
        cr_assert_eq(o[i].status, PLAIT_E_ABORTED);
    WAIT(w, srv->closed, 1);
    plait_msg_release(srv->held[1]);
    plait_mem_release(mem);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 1024 * KIB, "still held");
    cr_assert(msg_has(srv->held[2], 100000, 2));
    plait_session_release(cli.s);
    cr_assert_eq(plait_ctx_destroy(w->ctx[1]), 0);
    w->ctx[1] = NULL;
    settle(w);
    cr_assert(msg_has(srv->held[3], 100000, 3));
    plait_msg_release(srv->held[2]);
    plait_msg_release(srv->held[3]);
    cr_assert_eq(plait_ctx_destroy(w->ctx[0]), 0);
    w->ctx[0] = NULL;
    cr_assert(msg_has(srv->held[4], 100000, 4));
    plait_msg_release(srv->held[4]);
    end_world(w);
}

/* The region is released while messages in it are under way: the last release lets it go. */
Test(offer, released_while_in_flight)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(256 * KIB);
    uint8_t *p = plait_mem_addr(mem);
    struct outcome o = { 0 };
    struct log cli, *srv;

    w->on_msg = collect;
    srv = open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    srv->user = srv;
    fill_bytes(p, 200000, 9);
    for (int i = 0; i < 2; i++) {
        struct plait_out out = nocopy(p, 200000, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
    }
    plait_mem_release(mem);
    WAIT(w, srv->nheld, 2);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 256 * KIB);
    plait_msg_release(srv->held[0]);
    WAIT(w, o.n, 1);
    settle(w);
    cr_assert(msg_has(srv->held[1], 200000, 9));
    plait_msg_release(srv->held[1]);
    WAIT(w, o.n, 2);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

Test(offer, released_before_it_is_known)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct log cli;

    open_session(w, &cli, NULL);
    for (unsigned i = 0; i < 50; i++) {
        struct plait_mem *mem = new_region(64 * KIB);
        struct plait_out out = nocopy(plait_mem_addr(mem), 60000, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        plait_mem_release(mem); /* its message may be queued */
        WAIT(w, o.n, i + 1);
    }
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

/* Another thread makes regions and releases them, while this one sends from them. */
#define THREADED 3000u
static _Atomic(struct plait_mem *) made, used;

static void *make_and_release(void *arg)
{
    struct plait_mem *mem;

    for (unsigned i = 0; i < THREADED; i++) {
        cr_assert_eq(plait_mem_alloc(&mem, 16 * KIB, NULL), 0);
        atomic_store(&made, mem);
        while (!(mem = atomic_exchange(&used, NULL)))
            sched_yield();
        plait_mem_release(mem);
    }
    return arg;
}

Test(offer, released_by_another_thread)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    unsigned sent = 0, accepted = 0;
    pthread_t thread;
    struct log cli;

    open_session(w, &cli, NULL);
    cr_assert_eq(pthread_create(&thread, NULL, make_and_release, NULL), 0);
    while (sent < THREADED) {
        struct plait_mem *mem = atomic_exchange(&made, NULL);

        poll_all(w);
        if (!mem)
            continue;
        for (unsigned i = 0; i < 1 + sent % 4; i++) {
            struct plait_out out = nocopy(plait_mem_addr(mem), 16 * KIB, &o);

            accepted += plait_sendx(cli.conn[0], &out) == 0;
            for (unsigned k = 0; k < sent % 3; k++)
                poll_all(w);
        }
        atomic_store(&used, mem); /* in flight, known or not */
        sent++;
    }
    pthread_join(thread, NULL);
    WAIT(w, o.n, accepted);
    for (int i = 0; i < 100 && ctx_stats(w->ctx[0]).mapped_bytes; i++)
        settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

/* In order with small messages, and across a full ring and window. */
static void in_order(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    uint32_t *next = log->user;
    uint32_t got;

    (void)c;
    if (!next)
        return;
    memcpy(&got, msg->data, sizeof got);
    cr_assert_eq(got, *next, "message %u came, not %u", got, *next);
    ++*next;
}

Test(offer, in_order_with_others)
{
    enum { N = 20000 };
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(1024 * KIB);
    uint32_t next = 0;
    struct outcome o = { 0 };
    unsigned sent = 0, offered = 0;
    struct log cli, *srv;

    w->on_msg = in_order;
    srv = open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    srv->user = &next;
    while (sent < N) {
        /* a slot of the region is used again when its message is done: 64 slots, never so many in flight */
        uint8_t *p = (uint8_t *)plait_mem_addr(mem) + offered % 64 * (16 * KIB);
        struct plait_out out = nocopy(p, 16 * KIB, &o);
        int rc;

        if (sent % 3 == 0 && offered - o.n < 64) {
            memcpy(p, &sent, sizeof sent);
            rc = plait_sendx(cli.conn[0], &out);
            offered += rc == 0;
        } else if (sent % 3 == 0) {
            rc = PLAIT_E_AGAIN;
        } else {
            rc = plait_send(cli.conn[0], &sent, sizeof sent, sent % 3 == 1 ? PLAIT_MORE : 0);
        }
        cr_assert(rc == 0 || rc == PLAIT_E_AGAIN, "%s", plait_error_text());
        if (rc == 0)
            sent++;
        else
            poll_all(w);
    }
    WAIT(w, o.n, offered);
    WAIT(w, next, N);
    cr_assert_geq(ctx_stats(w->ctx[0]).offers_placed, N / 3);
    end_session(w, &cli);
    check_log(&cli);
    end_world(w);
    plait_mem_release(mem);
}

Test(offer, many_regions_and_pools)
{
    enum { N = 40 };
    struct world *w = listening_world();
    struct plait_mem *mem[N];
    struct plait_pool *pool;
    struct outcome o = { 0 };
    struct log cli;
    uint64_t before;
    void *buf;

    open_session(w, &cli, NULL);
    for (unsigned i = 0; i < N; i++) {
        mem[i] = new_region(32 * KIB);
        make_known(w, 1, cli.conn[0], mem[i]);
    }
    before = ctx_stats(w->ctx[1]).offers_sent;
    for (unsigned i = 0; i < 1000; i++) {
        struct plait_out out = nocopy((char *)plait_mem_addr(mem[i * 7 % N]) + i % 9 * 8, 32 * KIB - 64, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i + 1);
    }
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, before + 1000);
    for (unsigned i = 0; i < N; i += 2)
        plait_mem_release(mem[i]);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, N / 2 * 32 * KIB);
    cr_assert_eq(plait_pool_create(&pool, NULL), 0);
    cr_assert_eq(plait_pool_alloc(pool, 100000, &buf), 0);
    for (unsigned i = 0; i < 10; i++) {
        struct plait_out out = nocopy(buf, 100000, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, 1001 + i);
        if (i == 0)
            settle(w);
    }
    cr_assert_geq(ctx_stats(w->ctx[1]).offers_sent, before + 1009);
    plait_pool_free(buf);
    cr_assert_eq(plait_pool_destroy(pool), 0);
    for (unsigned i = 1; i < N; i += 2)
        plait_mem_release(mem[i]);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

/* Over the peer's cap: the messages are copied, and nothing else happens. */
Test(offer, peer_maps_no_more)
{
    struct world *w = listening_world();
    struct plait_mem *a = new_region(64 * KIB), *b = new_region(64 * KIB);
    struct outcome o = { 0 };
    struct log cli;
    uint64_t before;

    setenv("PLAIT_MAPPED_MAX", "100000", 1);
    open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], a);
    before = ctx_stats(w->ctx[1]).offers_sent;
    for (unsigned i = 0; i < 20; i++) {
        struct plait_out out = nocopy(plait_mem_addr(b), 64 * KIB, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i + 1);
        cr_assert_eq(o.status, 0);
    }
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, before);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 64 * KIB);
    plait_mem_release(b);
    plait_mem_release(a);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

Test(offer, wrong_environment)
{
    struct world *w = listening_world();
    struct plait_session_opts opts;
    struct plait_session *s;
    struct log cli;

    log_init(&cli, w);
    opts = session_opts(&cli);
    setenv("PLAIT_TAKE", "gently", 1);
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &opts), PLAIT_E_INVAL);
    cr_assert_not_null(strstr(plait_error_text(), "gently"));
    unsetenv("PLAIT_TAKE");
    setenv("PLAIT_MAPPED_MAX", "-3", 1);
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &opts), PLAIT_E_INVAL);
    unsetenv("PLAIT_MAPPED_MAX");
    opts.take = 77;
    FAILS(plait_session_open(&s, w->ctx[1], w->uri, &opts), PLAIT_E_INVAL);
    end_world(w);
}

static void take_is(const char *env, enum plait_take srv_take, enum plait_take cli_take, unsigned sent, unsigned copied)
{
    struct world *w = listening_world();
    struct plait_session_opts opts = session_opts(NULL);
    struct plait_mem *mem = new_region(64 * KIB);
    struct outcome o = { 0 };
    struct log cli;

    if (env)
        setenv("PLAIT_TAKE", env, 1);
    w->accept.take = srv_take;
    opts.take = cli_take;
    open_session(w, &cli, &opts);
    for (unsigned i = 0; i < 10; i++) {
        struct plait_out out = nocopy(plait_mem_addr(mem), 50000, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i + 1);
        settle(w);
    }
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, sent);
    cr_assert_eq(ctx_stats(w->ctx[1]).long_pushed, 10 - sent);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_copied, copied);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, sent - copied);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
    unsetenv("PLAIT_TAKE");
}

Test(offer, takes)
{
    take_is(NULL, PLAIT_TAKE_AUTO, PLAIT_TAKE_AUTO, 9, 0);
    take_is(NULL, PLAIT_TAKE_COPY, PLAIT_TAKE_PLACE, 9, 9);
    take_is(NULL, PLAIT_TAKE_AUTO, PLAIT_TAKE_RING, 0, 0);
    take_is("copy", PLAIT_TAKE_AUTO, PLAIT_TAKE_RING, 9, 9);
    take_is("ring", PLAIT_TAKE_AUTO, PLAIT_TAKE_AUTO, 0, 0);
    take_is("place", PLAIT_TAKE_COPY, PLAIT_TAKE_RING, 9, 0);
}

/* A child of fork() has neither the region nor the mapping; what it frees is its own, and the parent goes on. */
Test(offer, forked)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * KIB);
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli, *srv;
    int status;
    pid_t pid;

    w->on_msg = collect;
    srv = open_session(w, &cli, NULL);
    make_known(w, 1, cli.conn[0], mem);
    srv->user = srv;
    fill_bytes(plait_mem_addr(mem), 50000, 1);
    out = nocopy(plait_mem_addr(mem), 50000, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 2);
    pid = fork();
    if (pid == 0) {
        plait_msg_release(srv->held[0]);
        plait_mem_release(mem);
        plait_ctx_destroy(w->ctx[0]);
        plait_msg_release(srv->held[1]);
        plait_ctx_destroy(w->ctx[1]);
        _exit(o.n); /* nobody is told there */
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
    settle(w);
    cr_assert_eq(o.n, 0);
    cr_assert(msg_has(srv->held[1], 50000, 1));
    plait_msg_release(srv->held[0]);
    plait_msg_release(srv->held[1]);
    WAIT(w, o.n, 2);
    cr_assert_eq(o.status, 0);
    plait_mem_release(mem);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}
