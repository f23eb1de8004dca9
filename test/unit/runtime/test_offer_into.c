/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the receiver wants the data: on_offer, and into for replies; and replies that are offered. */
#include "test/unit/runtime/offer_util.h"

TestSuite(offer_into, .timeout = 120);

enum where { NOWHERE, INTO_ONE, INTO_MANY, INTO_LARGER, COPY, POOL, ABORT, HOW_MANY };

/* What the server's on_offer does, and what it was told. */
static struct {
    enum where where;
    unsigned offers;
    struct plait_offer last;
    uint8_t *to;
    size_t size;
    struct plait_pool *pool;
    bool hold;
} want;

static void on_offer(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct log *log = arg;
    struct iovec iov[10];
    size_t part = offer->len / 10 + 1;

    log->misuse += offer->conn != c || !log->conn_open[plait_conn_index(c)];
    want.offers++;
    want.last = *offer;
    for (unsigned i = 0; i < 10; i++)
        iov[i] = (struct iovec){ want.to + i * (part + 3), part };
    switch (want.where) {
    case NOWHERE:
        break;
    case INTO_ONE:
        iov[0].iov_len = offer->len - 1;
        FAILS(plait_offer_into(offer, iov, 1), PLAIT_E_INVAL);
        FAILS(plait_offer_into(offer, iov, 0), PLAIT_E_INVAL);
        FAILS(plait_offer_into(offer, iov, PLAIT_IOV_MAX + 1), PLAIT_E_INVAL);
        iov[0].iov_len = offer->len;
        FAILS(plait_offer_into(offer, iov, 1), 0);
        FAILS(plait_offer_into(offer, iov, 1), PLAIT_E_BUSY);
        FAILS(plait_offer_copy(offer, NULL), PLAIT_E_BUSY);
        break;
    case INTO_MANY:
        iov[5].iov_len = 0;
        iov[9].iov_len = 2 * part;
        FAILS(plait_offer_into(offer, iov, 10), 0);
        break;
    case INTO_LARGER:
        iov[0].iov_len = offer->len + 100;
        FAILS(plait_offer_into(offer, iov, 1), 0);
        break;
    case COPY:
        FAILS(plait_offer_copy(offer, NULL), 0);
        FAILS(plait_offer_copy(offer, NULL), PLAIT_E_BUSY);
        break;
    case POOL:
        FAILS(plait_offer_copy(offer, want.pool), 0);
        break;
    default:
        FAILS(plait_conn_close(c), 0);
    }
}

static void got(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    const struct iovec *iov;
    int n = plait_msg_iov(msg, &iov);

    log->misuse = 0; /* pieces are not aligned */
    if (!log->user)
        return;
    cr_assert(msg_has(msg, *(size_t *)log->user, 42));
    cr_assert_eq(msg->hdr_len, 5);
    cr_assert_eq(memcmp(msg->hdr, "hello", 5), 0);
    if (want.where == INTO_ONE || want.where == INTO_LARGER)
        cr_assert_eq(msg->data, want.to);
    if (want.where == INTO_MANY)
        cr_assert(n > 1 && iov[0].iov_base == want.to);
    if (want.where == NOWHERE || want.where == COPY || want.where == POOL)
        cr_assert_eq(n, 1);
    if (want.hold)
        hold_all(log, c, msg);
    if (msg->kind == PLAIT_REQUEST && !want.hold)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

static uint64_t pool_in_use(void)
{
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;
    uint64_t n = 0;

    for (unsigned i = 0; plait_pool_get_stats(want.pool, i, &st) == 0; i++)
        n += st.in_use;
    return n;
}

static struct plait_out one_message(const void *p, size_t len, bool request, struct outcome *o)
{
    struct plait_out out = nocopy(p, len, o);

    out.hdr = "hello";
    out.hdr_len = 5;
    if (request) {
        out.on_done = NULL;
        out.on_reply = on_reply;
    }
    return out;
}

static struct plait_conn_ops offer_ops;

static struct log *open_with_offers(struct world *w, struct log *cli)
{
    offer_ops = log_conn_ops;
    offer_ops.on_offer = on_offer;
    w->accept.conn_ops = &offer_ops;
    memset(&want, 0, sizeof want);
    want.size = 4096 * KIB;
    want.to = malloc(want.size);
    cr_assert_eq(plait_pool_create(&want.pool, NULL), 0);
    w->on_msg = got;
    return open_long(w, cli);
}

/* offered: from a region that is known; else in parts through the ring. */
static void everywhere(bool offered)
{
    static size_t lens[] = { 20000, 262144, 300001, 1000000 };
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(1024 * KIB);
    uint8_t *p = offered ? plait_mem_addr(mem) : malloc(1024 * KIB);
    struct outcome o = { 0 };
    unsigned n = 0;
    struct log cli, *srv;

    srv = open_with_offers(w, &cli);
    if (offered)
        make_known(w, 1, cli.conn[0], mem);
    want.offers = 0;
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        fill_bytes(p, lens[i], 42);
        for (unsigned how = 0; how < 4 * ABORT; how++) {
            struct plait_out out = one_message(p, lens[i], how & 1, &o);
            unsigned offers = want.offers;

            want.where = how / 4;
            want.hold = how & 2;
            srv->user = &lens[i];
            memset(want.to, 0, want.size);
            FAILS(plait_sendx(cli.conn[0], &out), 0);
            if (want.hold) {
                WAIT(w, srv->nheld, 1);
                cr_assert(msg_has(srv->held[0], lens[i], 42));
                cr_assert_eq(o.n, n);
                if (want.where == POOL)
                    cr_assert_eq(pool_in_use(), 1);
                if (srv->held[0]->kind == PLAIT_REQUEST)
                    FAILS(plait_reply(srv->held[0], "ok", 2, 0), 0);
                plait_msg_release(srv->held[--srv->nheld]);
            }
            WAIT(w, o.n, ++n);
            cr_assert_eq(o.status, 0);
            cr_assert_eq(pool_in_use(), 0);
            cr_assert_eq(want.offers, offers + 1);
            cr_assert_eq(want.last.len, lens[i]);
            cr_assert_eq(want.last.hdr_len, 5);
            cr_assert_eq(want.last.kind, how & 1 ? PLAIT_REQUEST : PLAIT_ONEWAY);
            cr_assert_eq(want.last.in_place, offered);
            cr_assert_eq(want.last.pieces, 1);
        }
    }
    if (offered)
        cr_assert_gt(ctx_stats(w->ctx[0]).offers_copied, 0);
    end_session(w, &cli);
    end_world(w);
    cr_assert_eq(plait_pool_destroy(want.pool), 0);
    plait_mem_release(mem);
    free(want.to);
    if (!offered)
        free(p);
}

Test(offer_into, of_offers)
{
    everywhere(true);
}

Test(offer_into, of_parts)
{
    everywhere(false);
}

/* A connection that is closed, or aborted, while it is told of an offer, or half of the data is there. */
static void close_in_it(bool offered, enum where where)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(8192 * KIB);
    uint8_t *p = offered ? plait_mem_addr(mem) : malloc(8192 * KIB);
    size_t len = 4000000;
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli, *srv;

    srv = open_with_offers(w, &cli);
    if (offered)
        make_known(w, 1, cli.conn[0], mem);
    want.where = where;
    want.offers = 0;
    srv->user = &len;
    fill_bytes(p, len, 42);
    out = one_message(p, len, false, &o);
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, want.offers, 1);
    if (where != ABORT)
        FAILS(plait_conn_abort(srv->conn[0]), 0);
    WAIT(w, o.n, 1);
    WAIT(w, srv->c_closed, 1);
    WAIT(w, cli.closed, 1);
    if (where == ABORT) /* in order: the message is still received */
        cr_assert_eq(o.status, 0);
    memset(want.to, 0, want.size);
    settle(w);
    for (size_t i = 0; i < want.size; i++)
        cr_assert_eq(want.to[i], 0, "written after the end");
    plait_session_release(cli.s);
    end_world(w);
    cr_assert_eq(plait_pool_destroy(want.pool), 0);
    plait_mem_release(mem);
    free(want.to);
    if (!offered)
        free(p);
}

Test(offer_into, the_end_meanwhile)
{
    close_in_it(true, ABORT);
    close_in_it(false, ABORT);
    close_in_it(false, INTO_ONE);
    close_in_it(false, NOWHERE);
}

/* ---- replies ---- */

/* What the server answers with. */
static struct {
    const uint8_t *p;
    size_t len;
    bool twice;
    struct outcome *done;
    int rc;
} answer;

static void answer_it(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    struct plait_out out = nocopy(answer.p, answer.len, answer.done);
    unsigned before = answer.done ? answer.done->n : 0;
    struct iovec iov[2] = { { (void *)(uintptr_t)answer.p, answer.len / 2 }, { (void *)(uintptr_t)(answer.p + answer.len / 2), answer.len - answer.len / 2 } };

    (void)log;
    (void)c;
    if (msg->kind != PLAIT_REQUEST)
        return;
    out.hdr = "hello";
    out.hdr_len = 5;
    if (answer.twice) {
        out.data = NULL;
        out.len = 0;
        out.iov = iov;
        out.niov = 2;
    }
    if (!answer.done) {
        out.on_done = NULL;
        out.flags = 0;
    }
    answer.rc = plait_replyx(msg, &out);
    cr_assert_eq(answer.rc, 0, "%s", plait_error_text());
    if (answer.done)
        cr_assert_eq(answer.done->n, before, "not from inside");
}

static struct {
    unsigned n;
    int status;
    size_t len;
    const void *into;
    bool hold;
    struct plait_msg *held;
} came;

static void on_long_reply(struct plait_msg *msg, int status, void *arg)
{
    (void)arg;
    came.n++;
    came.status = status;
    if (!msg)
        return;
    cr_assert(msg_has(msg, came.len, 42));
    cr_assert_eq(msg->hdr_len, 5);
    cr_assert_eq(memcmp(msg->hdr, "hello", 5), 0);
    if (came.into)
        cr_assert_eq(msg->data, came.into);
    if (came.hold)
        came.held = plait_msg_hold(msg);
}

static void ask(struct plait_conn *c, struct iovec *into, unsigned ninto)
{
    struct plait_out out = PLAIT_OUT_INIT;

    out.data = "please";
    out.len = 6;
    out.on_reply = on_long_reply;
    out.into = into;
    out.ninto = ninto;
    FAILS(plait_sendx(c, &out), 0);
}

/* of a region or not; with on_done or not; into or not; held or not; small and long */
Test(offer_into, replies)
{
    static const size_t lens[] = { 10, 500, 20000, 270000, 3000000 };
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(4096 * KIB);
    uint8_t *other = malloc(4096 * KIB), *into = malloc(4096 * KIB);
    struct outcome done = { 0 };
    unsigned asked = 0, dones = 0;
    struct log cli, *srv;

    w->on_msg = answer_it;
    srv = open_long(w, &cli);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        came.len = answer.len = lens[i];
        fill_bytes(other, lens[i], 42);
        fill_bytes(plait_mem_addr(mem), lens[i], 42);
        for (unsigned how = 0; how < 32; how++) {
            struct iovec place[2] = { { into, how & 16 ? 4096 * KIB : lens[i] }, { into, 0 } };

            answer.p = how & 1 ? plait_mem_addr(mem) : other;
            answer.done = how & 2 ? &done : NULL;
            answer.twice = how & 4;
            came.into = how & 8 ? into : NULL;
            came.hold = how & 16;
            memset(into, 0, lens[i]);
            ask(cli.conn[0], how & 8 ? place : NULL, how & 8 ? 2 : 0);
            WAIT(w, came.n, ++asked);
            cr_assert_eq(came.status, 0);
            if (came.hold) {
                settle(w);
                cr_assert(msg_has(came.held, lens[i], 42));
                plait_msg_release(came.held);
            }
            if (answer.done)
                WAIT(w, done.n, ++dones);
            cr_assert_eq(done.status, 0);
            cr_assert_eq(done.n, dones);
        }
    }
    cr_assert_geq(ctx_stats(w->ctx[0]).offers_sent, 2 * 8); /* the peer may hear late of the region, but before the second length */
    cr_assert_geq(ctx_stats(w->ctx[1]).offers_placed, 2 * 4);
    cr_assert_geq(ctx_stats(w->ctx[1]).offers_copied, 2 * 4);
    cr_assert_eq(conn_info(srv->conn[0]).pending, 0);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
    free(other);
    free(into);
}

static void make_replies_known(struct world *w, struct log *cli, struct plait_mem *mem, struct outcome *done)
{
    w->on_msg = answer_it;
    memset(&came, 0, sizeof came);
    answer.p = plait_mem_addr(mem);
    answer.len = came.len = 20000;
    answer.done = done;
    answer.twice = false;
    fill_bytes(plait_mem_addr(mem), 20000, 42);
    open_long(w, cli);
    ask(cli->conn[0], NULL, 0);
    WAIT(w, done->n, 1);
    settle(w);
    ask(cli->conn[0], NULL, 0);
    WAIT(w, done->n, 2);
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_sent, 1);
}

/* on_done comes with the release, also if it keeps the connection from closing; or with the connection's end. */
Test(offer_into, reply_held)
{
    for (int aborted = 0; aborted < 2; aborted++) {
        struct world *w = listening_world();
        struct plait_mem *mem = new_region(64 * KIB);
        struct outcome done = { 0 };
        struct log cli, *srv = &w->srv[0];

        make_replies_known(w, &cli, mem, &done);
        came.hold = true;
        ask(cli.conn[0], NULL, 0);
        WAIT(w, came.n, 3);
        settle(w);
        cr_assert_eq(done.n, 2);
        cr_assert_eq(conn_info(srv->conn[0]).pending, 1);
        if (aborted)
            FAILS(plait_conn_abort(cli.conn[0]), 0);
        else
            FAILS(plait_session_close(cli.s), 0);
        settle(w);
        cr_assert(msg_has(came.held, 20000, 42));
        cr_assert_eq(cli.closed, (unsigned)aborted);
        if (aborted)
            WAIT(w, done.n, 3);
        plait_msg_release(came.held);
        WAIT(w, done.n, 3);
        cr_assert_eq(done.status, aborted ? PLAIT_E_ABORTED : 0);
        WAIT(w, cli.closed, 1);
        plait_session_release(cli.s);
        end_world(w);
        plait_mem_release(mem);
        memset(&came, 0, sizeof came);
    }
}

/* The region that replies come from is released while one is held. */
Test(offer_into, reply_region_released)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * KIB);
    struct outcome done = { 0 };
    struct log cli;

    make_replies_known(w, &cli, mem, &done);
    came.hold = true;
    ask(cli.conn[0], NULL, 0);
    WAIT(w, came.n, 3);
    plait_mem_release(mem);
    settle(w);
    cr_assert(msg_has(came.held, 20000, 42));
    cr_assert_eq(ctx_stats(w->ctx[1]).mapped_bytes, 64 * KIB);
    plait_msg_release(came.held);
    WAIT(w, done.n, 3);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[1]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

/* plait_msg_refuse() is for one-way messages. */
static void refuse_it(struct plait_msg *msg, int status, void *arg)
{
    struct outcome *o = arg;

    cr_assert_eq(status, 0);
    FAILS(plait_msg_refuse(msg), PLAIT_E_INVAL);
    o->n++;
}

Test(offer_into, reply_not_refused)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64 * KIB);
    struct outcome done = { 0 }, o = { 0 };
    struct log cli;

    make_replies_known(w, &cli, mem, &done);
    FAILS(plait_request(cli.conn[0], "x", 1, 0, refuse_it, &o), 0);
    WAIT(w, done.n, 3);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(done.status, 0);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
}

/* A request that has timed out: its reply is not put anywhere, and the replier is done all the same. */
static struct plait_msg *late;

static void keep(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (msg->kind != PLAIT_REQUEST || late) {
        answer_it(log, c, msg);
        return;
    }
    late = plait_msg_hold(msg);
}

Test(offer_into, reply_too_late)
{
    for (int offered = 0; offered < 2; offered++) {
        struct world *w = listening_world();
        struct plait_mem *mem = new_region(4096 * KIB);
        struct outcome done = { 0 };
        struct plait_out out = PLAIT_OUT_INIT;
        struct iovec iov = { calloc(1, 3000000), 3000000 };
        struct log cli, *srv = &w->srv[0];

        make_replies_known(w, &cli, mem, &done);
        srv->on_msg = keep;
        late = NULL;
        fill_bytes(plait_mem_addr(mem), 3000000, 42);
        answer.len = came.len = 3000000;
        out.data = "x";
        out.len = 1;
        out.on_reply = on_long_reply;
        out.into = &iov;
        out.ninto = 1;
        out.timeout_us = 1000;
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, came.n, 3);
        cr_assert_eq(came.status, PLAIT_E_TIMEDOUT);
        for (int i = 0; i < 1000 && !late; i++)
            poll_all(w);
        answer.done = offered ? &done : NULL;
        answer_it(srv, srv->conn[0], late);
        plait_msg_release(late);
        if (offered)
            WAIT(w, done.n, 3);
        settle(w);
        for (size_t i = 0; i < iov.iov_len; i++)
            cr_assert_eq(((char *)iov.iov_base)[i], 0);
        cr_assert_eq(came.n, 3);
        end_session(w, &cli);
        end_world(w);
        plait_mem_release(mem);
        free(iov.iov_base);
    }
}

/* It times out while half of its reply is there. */
Test(offer_into, times_out_in_the_middle)
{
    struct world *w = listening_world();
    uint8_t *big = malloc(16384 * KIB);
    struct iovec iov = { calloc(1, 16384 * KIB), 16384 * KIB };
    struct plait_out out = PLAIT_OUT_INIT;
    struct log cli;
    unsigned polls = 0;

    memset(&came, 0, sizeof came);
    w->on_msg = answer_it;
    answer.p = big;
    answer.len = came.len = 16384 * KIB;
    answer.done = NULL;
    answer.twice = false;
    fill_bytes(big, answer.len, 42);
    open_long(w, &cli);
    out.data = "x";
    out.len = 1;
    out.on_reply = on_long_reply;
    out.into = &iov;
    out.ninto = 1;
    out.timeout_us = 20000;
    pli_clock_fake_start(pli_clock_now());
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    while (!((char *)iov.iov_base)[100000] && polls++ < 1000000)
        poll_all(w);
    cr_assert_eq(came.n, 0, "half of it is there");
    pli_clock_fake_advance(25 * PLI_NS_PER_MS);
    w->ctx[1]->slow_in = 1; /* timers are looked at in the next pass */
    WAIT(w, came.n, 1);
    cr_assert_eq(came.status, PLAIT_E_TIMEDOUT);
    pli_clock_fake_stop();
    memset(iov.iov_base, 0, iov.iov_len);
    settle(w);
    for (size_t i = 0; i < iov.iov_len; i++)
        cr_assert_eq(((char *)iov.iov_base)[i], 0);
    cr_assert_eq(came.n, 1);
    cr_assert_eq(conn_info(cli.conn[0]).pending, 0);
    end_session(w, &cli);
    end_world(w);
    free(iov.iov_base);
    free(big);
}

/* The blocking call, also on a shared context, where any thread may release the reply. */
Test(offer_into, called)
{
    for (int shared = 0; shared < 2; shared++) {
        struct world *w = listening_world();
        struct plait_mem *mem = new_region(64 * KIB);
        struct outcome done = { 0 };
        struct log cli;

        if (shared) {
            cr_assert_eq(plait_ctx_destroy(w->ctx[1]), 0);
            w->nctx = 1;
            add_ctx(w, PLAIT_CTX_SHARED);
            cr_assert_eq(plait_ctx_lock(w->ctx[1]), 0);
        }
        make_replies_known(w, &cli, mem, &done);
        cr_assert_eq(ctx_stats(w->ctx[1]).offers_placed, !shared);
        cr_assert_eq(ctx_stats(w->ctx[1]).offers_copied, (unsigned)shared);
        end_session(w, &cli);
        if (shared)
            cr_assert_eq(plait_ctx_unlock(w->ctx[1]), 0);
        end_world(w);
        plait_mem_release(mem);
    }
}
