/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages in pieces, on both sides, through the ring and in place; and where the receiver wants them. */
#include "test/unit/runtime/offer_util.h"

TestSuite(pieces, .timeout = 120);

#define SIZE (2048u * KIB)

/* len bytes in niov pieces of p, with empty ones and unaligned ones; the pieces lie apart and backwards. */
static void cut(struct iovec *iov, unsigned niov, uint8_t *p, size_t size, size_t len, uint32_t seed)
{
    uint8_t *all = malloc(len + 1);
    size_t at = 0;
    uint8_t *end = p + size;

    fill_bytes(all, len, seed);
    for (unsigned i = 0; i < niov; i++) {
        size_t part = i + 1 == niov ? len - at : (len - at) / (niov - i) + i % 3;

        if (i % 5 == 3)
            part = 0;
        if (i + 1 == niov)
            part = len - at;
        if (part > len - at)
            part = len - at;
        end -= part + i % 4;
        cr_assert_geq(end, p);
        memcpy(end, all + at, part);
        iov[i] = (struct iovec){ end, part };
        at += part;
    }
    free(all);
}

struct expect {
    size_t len;
    uint32_t seed;
    unsigned n;
    int pieces; /* -1: as it comes */
    uint32_t hdr_len;
};

static void check(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    struct expect *e = log->user;
    const struct iovec *iov;

    (void)c;
    if (!e)
        return;
    cr_assert(msg_has(msg, e->len, e->seed), "%zu bytes", e->len);
    cr_assert_eq(msg->hdr_len, e->hdr_len);
    if (e->hdr_len)
        cr_assert(has_bytes(msg->hdr, e->hdr_len, 99));
    if (e->pieces >= 0)
        cr_assert_eq(plait_msg_iov(msg, &iov), e->pieces);
    log->misuse = 0; /* pieces are not aligned */
    e->n++;
    if (msg->kind == PLAIT_REQUEST)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

static struct plait_out gathered(const struct iovec *iov, unsigned niov, unsigned flags, struct outcome *o)
{
    struct plait_out out = PLAIT_OUT_INIT;

    out.iov = iov;
    out.niov = niov;
    out.flags = flags;
    out.on_done = on_done;
    out.arg = o;
    return out;
}

static const size_t sizes[] = { 0, 1, 8, 40, 41, 500, 512, 513, 5000, 6112, 6120, 6128, 8191, 8192, 8193, 20000, 262144, 270000, 1000000 };
static const unsigned counts[] = { 1, 2, 7, 255, 256 };

/* Of memory that the peer does not know: gathered into the ring. */
Test(pieces, gathered_into_the_ring)
{
    struct world *w = listening_world();
    struct outcome o = { 0 };
    struct expect e = { .pieces = -1 };
    uint8_t *p = malloc(SIZE);
    static uint8_t hdr[PLAIT_HDR_MAX];
    struct log cli, *srv;
    unsigned n = 0;

    fill_bytes(hdr, sizeof hdr, 99);
    w->on_msg = check;
    srv = open_long(w, &cli);
    srv->user = &e;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            for (unsigned how = 0; how < 6; how++) {
                struct iovec iov[PLAIT_IOV_MAX];
                struct plait_out out = gathered(iov, counts[k], how & 1 ? PLAIT_NOCOPY : 0, &o);
                int rc;

                e.len = sizes[i];
                e.seed = n;
                out.hdr = hdr;
                out.hdr_len = e.hdr_len = how / 2 == 0 ? 0 : how / 2 == 1 ? 13 : PLAIT_HDR_MAX;
                cut(iov, counts[k], p, SIZE, sizes[i], n);
                while ((rc = plait_sendx(cli.conn[0], &out)) == PLAIT_E_AGAIN)
                    poll_all(w);
                FAILS(rc, 0);
                if (!(how & 1)) /* it has been copied */
                    memset(p, 0, SIZE < 4 * sizes[i] ? SIZE : 4 * sizes[i]);
                memset(iov, 0, sizeof iov); /* the array is not kept */
                n++;
                WAIT(w, o.n, n);
                cr_assert_eq(o.status, 0);
                cr_assert_eq(e.n, n);
            }
        }
    }
    cr_assert_eq(ctx_stats(w->ctx[1]).offers_sent, 0);
    end_session(w, &cli);
    end_world(w);
    free(p);
}

Test(pieces, in_place)
{
    struct world *w = listening_world();
    struct plait_mem *a = new_region(SIZE), *b = new_region(SIZE);
    struct outcome o = { 0 };
    struct expect e = { 0 };
    struct log cli, *srv;
    unsigned n = 0;

    w->on_msg = check;
    srv = open_long(w, &cli);
    make_known(w, 1, cli.conn[0], a);
    make_known(w, 1, cli.conn[0], b);
    srv->user = &e;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            struct iovec iov[PLAIT_IOV_MAX];
            struct plait_out out = gathered(iov, counts[k], PLAIT_NOCOPY, &o);

            if (sizes[i] < PLAIT_OFFER_MIN)
                continue;
            e.len = sizes[i];
            e.seed = n;
            e.pieces = 0;
            cut(iov, counts[k], plait_mem_addr(a), SIZE, sizes[i], n);
            for (unsigned j = 0; j < counts[k]; j++) {
                e.pieces += iov[j].iov_len != 0;
                if (j % 2 && k % 2) { /* the other region's */
                    uint8_t *to = (uint8_t *)plait_mem_addr(b) + ((uint8_t *)iov[j].iov_base - (uint8_t *)plait_mem_addr(a));

                    memcpy(to, iov[j].iov_base, iov[j].iov_len);
                    iov[j].iov_base = to;
                }
            }
            FAILS(plait_sendx(cli.conn[0], &out), 0);
            WAIT(w, o.n, ++n);
            cr_assert_eq(o.status, 0);
            cr_assert_eq(e.n, n);
        }
    }
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, 2 + n);
    plait_mem_release(a);
    plait_mem_release(b);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

static void hold_one(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    log->misuse = 0;
    if (log->user)
        hold_all(log, c, msg);
}

/* Overlapping pieces are allowed, and so is the same piece many times. */
Test(pieces, held_and_overlapping)
{
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(SIZE);
    uint8_t *p = plait_mem_addr(mem);
    struct iovec iov[PLAIT_IOV_MAX];
    struct plait_out out;
    struct outcome o = { 0 };
    const struct iovec *got;
    struct log cli, *srv;

    w->on_msg = hold_one;
    srv = open_long(w, &cli);
    make_known(w, 1, cli.conn[0], mem);
    srv->user = srv;
    fill_bytes(p, 4096, 5);
    for (unsigned i = 0; i < PLAIT_IOV_MAX; i++)
        iov[i] = (struct iovec){ p, 4096 };
    out = gathered(iov, PLAIT_IOV_MAX, PLAIT_NOCOPY, &o);
    out.hdr = "abc";
    out.hdr_len = 3;
    FAILS(plait_sendx(cli.conn[0], &out), 0);
    WAIT(w, srv->nheld, 1);
    cr_assert_null(srv->held[0]->data);
    cr_assert_eq(srv->held[0]->len, 4096u * PLAIT_IOV_MAX);
    cr_assert_eq(plait_msg_iov(srv->held[0], &got), (int)PLAIT_IOV_MAX);
    for (unsigned i = 0; i < PLAIT_IOV_MAX; i++)
        cr_assert(got[i].iov_len == 4096 && has_bytes(got[i].iov_base, 4096, 5) && got[i].iov_base == got[0].iov_base);
    cr_assert_eq(memcmp(srv->held[0]->hdr, "abc", 3), 0);
    plait_msg_release(srv->held[0]);
    WAIT(w, o.n, 1);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
}

/* The ring is full: what is left of a gathered message waits, with or without a copy. */
#define QSIZE 9000000u

Test(pieces, queued)
{
    struct world *w = listening_world();
    struct expect e = { .len = 8000000, .seed = 3, .pieces = 1 };
    struct outcome o = { 0 };
    uint8_t *p = malloc(QSIZE);
    struct log cli, *srv;

    w->on_msg = check;
    srv = open_long(w, &cli);
    srv->user = &e;
    for (unsigned i = 0; i < 20; i++) {
        struct iovec iov[100];
        struct plait_out out = gathered(iov, 100, i % 2 ? PLAIT_NOCOPY : 0, &o);

        cut(iov, 100, p, QSIZE, e.len, 3);
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        cr_assert_eq(conn_info(cli.conn[0]).queued, 1, "it must not fit");
        FAILS(plait_sendx(cli.conn[0], &out), PLAIT_E_AGAIN);
        if (i % 2 == 0)
            memset(p, 0, QSIZE);
        memset(iov, 0, sizeof iov);
        WAIT(w, o.n, i + 1);
    }
    cr_assert_eq(e.n, 20);
    /* cancelled by the end */
    for (unsigned i = 0; i < 1; i++) {
        struct iovec iov[100];
        struct plait_out out = gathered(iov, 100, PLAIT_NOCOPY, &o);

        cut(iov, 100, p, QSIZE, e.len, 3);
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        FAILS(plait_conn_abort(cli.conn[0]), 0);
        WAIT(w, o.n, 21);
        cr_assert_eq(o.status, PLAIT_E_ABORTED);
    }
    WAIT(w, srv->closed, 1);
    WAIT(w, cli.closed, 1);
    plait_session_release(cli.s);
    end_world(w);
    free(p);
}

/* What waits keeps its region, which its user gives up at once. */
Test(pieces, queued_from_a_region)
{
    struct world *w = listening_world();
    struct expect e = { .len = 8000000, .seed = 3, .pieces = 1 };
    struct outcome o = { 0 };
    struct log cli, *srv;

    w->on_msg = check;
    srv = open_long(w, &cli);
    srv->user = &e;
    for (unsigned i = 0; i < 10; i++) {
        struct plait_mem *mem = new_region(QSIZE);
        struct iovec iov[100];
        struct plait_out out = gathered(iov, i % 2 ? 100 : 1, PLAIT_NOCOPY, &o);

        cut(iov, out.niov, plait_mem_addr(mem), QSIZE, e.len, 3);
        if (i % 4 < 2) {
            out.iov = NULL;
            out.niov = 0;
            cut(iov, 1, plait_mem_addr(mem), QSIZE, e.len, 3);
            out.data = iov[0].iov_base;
            out.len = iov[0].iov_len;
        }
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        cr_assert_eq(conn_info(cli.conn[0]).queued, 1, "it must not fit");
        plait_mem_release(mem);
        WAIT(w, o.n, i + 1);
        cr_assert_eq(o.status, 0);
    }
    cr_assert_eq(e.n, 10);
    settle(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
    end_session(w, &cli);
    end_world(w);
}

Test(pieces, wrong_arguments)
{
    struct world *w = listening_world();
    static struct iovec iov[PLAIT_IOV_MAX + 1];
    struct outcome o = { 0 };
    struct plait_out out;
    struct log cli;

    open_session(w, &cli, NULL);
#define BAD(change, want)                                 \
    out = gathered(iov, 2, 0, &o);                        \
    change;                                               \
    FAILS(plait_sendx(cli.conn[0], &out), want)
    BAD(out.data = "x", PLAIT_E_INVAL);
    BAD(out.len = 1; out.data = "x", PLAIT_E_INVAL);
    BAD(out.iov = NULL, PLAIT_E_INVAL);
    BAD(out.niov = 0, PLAIT_E_INVAL);
    BAD(out.niov = PLAIT_IOV_MAX + 1, PLAIT_E_INVAL);
    BAD(out.into = iov, PLAIT_E_INVAL);
    BAD(out.ninto = 1, PLAIT_E_INVAL);
    BAD(out.into = iov; out.ninto = 1, PLAIT_E_INVAL);
    BAD(out.into = iov; out.ninto = PLAIT_IOV_MAX + 1; out.on_done = NULL; out.on_reply = on_reply, PLAIT_E_INVAL);
    iov[0].iov_len = 1;
    BAD(, PLAIT_E_INVAL);
    iov[0].iov_base = iov[1].iov_base = iov;
    iov[0].iov_len = SIZE_MAX;
    iov[1].iov_len = 10;
    BAD(, PLAIT_E_TOOBIG);
    settle(w);
    cr_assert_eq(o.n, 0);
    end_session(w, &cli);
    end_world(w);
}
