/* SPDX-License-Identifier: BSD-3-Clause */
/* Long messages that the receiver reads out of the sender's memory. The two sides are contexts of one process, which may always read its own. */
#include "runtime/conn.h"
#include "test/unit/runtime/offer_util.h"

TestSuite(cma, .timeout = 120);

#define SIZE (2048u * KIB)

struct expect {
    size_t len;
    uint32_t seed;
    unsigned n;
    const struct iovec *into;
    unsigned ninto;
};

static void check(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    struct expect *e = log->user;

    (void)c;
    if (!e)
        return;
    cr_assert(msg_has(msg, e->len, e->seed), "%zu bytes", e->len);
    log->misuse = 0; /* pieces are not aligned */
    e->n++;
    if (msg->kind == PLAIT_REQUEST)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

/* A session whose client offers addresses as soon as the server has said that it can read them. */
static struct log *open_cma(struct world *w, struct log *cli, enum plait_take take)
{
    struct plait_session_opts o = long_opts();
    struct log *srv;

    o.take = take;
    w->accept.max_msg = 64u << 20;
    w->on_msg = check;
    srv = open_session(w, cli, &o);
    return srv;
}

static void until_read(struct world *w, struct plait_conn *c)
{
    static const uint8_t some[PLAIT_OFFER_MIN];
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while (ctx_stats(w->ctx[0]).offers_cma == 0) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(some, sizeof some, &o);

        cr_assert_lt(pli_clock_now(), end, "nothing is read");
        FAILS(plait_sendx(c, &out), 0);
        WAIT(w, o.n, 1);
        cr_assert_eq(o.status, 0);
    }
}

static const size_t sizes[] = { 8192, 8193, 20001, 65536, 270000, 1000003 };
static const unsigned counts[] = { 1, 2, 7, 64, 65, 256 };

/* len bytes in n pieces of p, some of them empty and none aligned. */
static void cut(struct iovec *iov, unsigned n, uint8_t *p, size_t len, uint32_t seed)
{
    uint8_t *all = malloc(len);
    size_t at = 0;

    fill_bytes(all, len, seed);
    for (unsigned i = 0; i < n; i++) {
        size_t part = i + 1 == n ? len - at : i % 5 == 3 ? 0 : (len - at) / (n - i);

        p += 1 + i % 7;
        memcpy(p, all + at, part);
        iov[i] = (struct iovec){ p, part };
        p += part;
        at += part;
    }
    free(all);
}

Test(cma, every_size_in_pieces)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct expect e = { 0 };
    uint8_t *p = malloc(SIZE);
    struct log cli, *srv = open_cma(w, &cli, PLAIT_TAKE_CMA);
    unsigned n = 0;
    uint64_t before;

    until_read(w, cli.conn[0]);
    before = ctx_stats(w->ctx[0]).offers_cma;
    srv->user = &e;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            struct iovec iov[PLAIT_IOV_MAX];
            struct plait_out out = nocopy(NULL, 0, &o);

            cut(iov, counts[k], p, sizes[i], n);
            out.iov = iov;
            out.niov = counts[k];
            e.len = sizes[i];
            e.seed = n++;
            FAILS(plait_sendx(cli.conn[0], &out), 0);
            WAIT(w, o.n, n);
            cr_assert_eq(o.status, 0);
            cr_assert_eq(e.n, n);
        }
    }
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_cma, before + n);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
    free(p);
}

static void put_there(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct log *log = arg;
    struct expect *e = log->user;

    (void)c;
    if (!e)
        return;
    cr_assert_eq(offer->in_place, 0);
    cr_assert_eq(offer->len, e->len);
    FAILS(plait_offer_into(offer, e->into, e->ninto), 0);
}

Test(cma, into_pieces_of_the_receiver)
{
    struct world *w = listening_world();
    struct plait_conn_ops ops;
    struct outcome o = { 0 };
    uint8_t *from = malloc(SIZE), *to = malloc(SIZE);
    struct iovec iov[100], into[77];
    struct expect e = { .len = 777777, .seed = 5, .into = into, .ninto = 77 };
    struct plait_out out = nocopy(NULL, 0, &o);
    struct log cli, *srv = open_cma(w, &cli, PLAIT_TAKE_CMA);

    until_read(w, cli.conn[0]);
    ops = *srv->conn[0]->ops;
    ops.on_offer = put_there;
    srv->conn[0]->ops = &ops;
    srv->user = &e;
    cut(iov, 100, from, e.len, e.seed);
    cut(into, 77, to, e.len, 6); /* other lengths; what lies there is overwritten */
    out.iov = iov;
    out.niov = 100;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(e.n, 1);
    end_session(w, &cli);
    end_world(w);
    free(from);
    free(to);
}

Test(cma, requests)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    uint8_t *p = malloc(SIZE);
    struct expect e = { .len = SIZE, .seed = 9 };
    struct plait_out out = nocopy(p, SIZE, &o);
    struct log cli, *srv = open_cma(w, &cli, PLAIT_TAKE_CMA);

    until_read(w, cli.conn[0]);
    srv->user = &e;
    fill_bytes(p, SIZE, 9);
    out.on_done = NULL;
    out.on_reply = on_reply;
    for (unsigned i = 1; i <= 20; i++) {
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, i);
        cr_assert_eq(o.status, 0);
        cr_assert_eq(o.len, 2);
    }
    cr_assert_geq(ctx_stats(w->ctx[0]).offers_cma, 20);
    end_session(w, &cli);
    end_world(w);
    free(p);
}

/* What was measured decides; it can be overridden. A region of plait_mem is handed over in place all the same. */
Test(cma, from_how_many_bytes_on)
{
    static const struct {
        const char *env;
        uint64_t below, above;
    } cases[] = { { "never", 0, 0 }, { "0", 1, 1 }, { "100000", 0, 1 } };
    uint8_t *p = calloc(1, SIZE);
    struct plait_mem *registered;

    FAILS(plait_mem_register(&registered, p, SIZE), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world *w = listening_world();
        struct plait_mem *mem = new_region(SIZE);
        struct outcome o = { 0 };
        struct plait_out out = nocopy(p, 99999, &o);
        struct log cli;
        uint64_t before;

        setenv("PLAIT_CMA_MIN", cases[i].env, 1);
        open_cma(w, &cli, PLAIT_TAKE_AUTO);
        FAILS(plait_sendx(cli.conn[0], &out), 0); /* asks */
        WAIT(w, o.n, 1);
        WAIT(w, cli.conn[0]->link->cma.peer_reads, PLI_CMA_YES);
        before = ctx_stats(w->ctx[0]).offers_cma;
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, 2);
        cr_assert_eq(ctx_stats(w->ctx[0]).offers_cma - before, cases[i].below, "%s", cases[i].env);
        before = ctx_stats(w->ctx[0]).offers_cma;
        out.len = 100000;
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, 3);
        cr_assert_eq(ctx_stats(w->ctx[0]).offers_cma - before, cases[i].above, "%s", cases[i].env);
        out.data = plait_mem_addr(mem);
        for (unsigned n = 4; ctx_stats(w->ctx[0]).offers_placed == 0; n++) {
            cr_assert_lt(n, 1000, "%s: nothing is placed", cases[i].env);
            FAILS(plait_sendx(cli.conn[0], &out), 0);
            WAIT(w, o.n, n);
        }
        end_session(w, &cli);
        end_world(w);
        plait_mem_release(mem);
    }
    unsetenv("PLAIT_CMA_MIN");
    plait_mem_release(registered);
    free(p);
}

/* The region is the message's until it has been read. */
Test(cma, a_region_that_is_released_early)
{
    struct world *w = listening_world();
    struct plait_mem_opts opts = PLAIT_MEM_OPTS_INIT;
    struct outcome o = { 0 };
    struct expect e = { .len = 100000, .seed = 3 };
    struct plait_out out;
    struct plait_mem *mem;
    struct log cli, *srv = open_cma(w, &cli, PLAIT_TAKE_CMA);
    uint64_t before;

    opts.flags = PLAIT_MEM_WRITABLE;
    FAILS(plait_mem_alloc(&mem, 128 * KIB, &opts), 0);
    until_read(w, cli.conn[0]);
    before = ctx_stats(w->ctx[0]).offers_cma;
    srv->user = &e;
    fill_bytes(plait_mem_addr(mem), 100000, 3);
    out = nocopy(plait_mem_addr(mem), 100000, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    FAILS(plait_mem_release(mem), 0);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(e.n, 1);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_cma, before + 1);
    end_session(w, &cli);
    end_world(w);
}

/* Without being told to, plait offers addresses of its regions only: what else a program can read, another process perhaps cannot. */
Test(cma, other_memory_goes_through_the_ring)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    uint8_t *p = calloc(1, SIZE);
    struct plait_out out = nocopy(p, 100000, &o);
    struct log cli;

    setenv("PLAIT_CMA_MIN", "0", 1);
    open_cma(w, &cli, PLAIT_TAKE_AUTO);
    FAILS(plait_sendx(cli.conn[0], &out), 0); /* asks */
    WAIT(w, o.n, 1);
    WAIT(w, cli.conn[0]->link->cma.peer_reads, PLI_CMA_YES);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, o.n, 2);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_cma, 0);
    unsetenv("PLAIT_CMA_MIN");
    end_session(w, &cli);
    end_world(w);
    free(p);
}

/* Memory that is gone when the peer reads it: that connection ends. */
Test(cma, memory_that_is_not_there)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct plait_out out = nocopy((void *)8192, 100000, &o);
    struct log cli, *srv = open_cma(w, &cli, PLAIT_TAKE_CMA);

    until_read(w, cli.conn[0]);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->c_closed, 1);
    cr_assert_eq(srv->c_code, PLAIT_E_BADPEER, "%s", srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, "offers memory that it does not have"), "%s", srv->c_text);
    WAIT(w, o.n, 1);
    cr_assert_lt(o.status, 0);
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
}
