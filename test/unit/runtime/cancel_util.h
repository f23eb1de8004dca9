/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of plait_cancel(): a client that sends long messages to a server, each way that there is, and what both were told. */
#ifndef PLI_TEST_CANCEL_UTIL_H
#define PLI_TEST_CANCEL_UTIL_H

#include <sys/mman.h>
#include "test/unit/runtime/offer_util.h"

#ifndef LEN
#define LEN (4096u * KIB)
#endif
#define IDS 1024u
#define WINDOW 64u

enum way {
    INTO,      /* from a region, into the receiver's own memory */
    COPIED,    /* from a region, plait_offer_copy() */
    TAKE_COPY, /* from a region, into memory of plait's */
    CMA,
    CMA_INTO,
    PLACE,     /* from a region, in place */
    RING,      /* from memory that stays with its sender */
    RING_INTO,
    RING_SENT, /* copied when it is sent */
    WAYS,
};

static struct {
    enum way way;
    struct world *w;
    struct log cli, *srv;
    struct plait_conn *c;          /* the client's */
    struct plait_mem *mem;
    uint8_t *src;                  /* three messages */
    unsigned nsrc;
    uint8_t *into[IDS];
    struct outcome done[IDS];
    bool on, hold;                 /* the test proper has begun; the server holds what comes */
    unsigned order[IDS], n;        /* what came */
    unsigned seen[IDS], offered[IDS], gone[IDS];
    void (*on_gone)(struct plait_conn *c);
    void (*on_request)(struct plait_msg *msg); /* instead of a short reply */
} t;

#define ALL(name, suite, from, to)                                    \
    static void name(void);                                           \
    Test(suite, name)                                                 \
    {                                                                 \
        for (t.way = (from); t.way <= (enum way)(to); t.way++)        \
            name();                                                   \
    }                                                                 \
    static void name(void)

/* ---- the receiver ---- */

static inline uint32_t long_id(const void *hdr, uint32_t hdr_len)
{
    uint32_t id = IDS;

    cr_assert_eq(hdr_len, sizeof id);
    memcpy(&id, hdr, sizeof id);
    cr_assert_lt(id, IDS);
    return id;
}

static inline bool has_into(void)
{
    return t.way == INTO || t.way == CMA_INTO || t.way == RING_INTO;
}

static inline void arrived(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    uint32_t id, word[2];

    if (!t.on)
        return;
    if (msg->len >= PLAIT_OFFER_MIN) {
        id = long_id(msg->hdr, msg->hdr_len);
        cr_assert(msg_has(msg, LEN, id), "message %u has other bytes", id);
        cr_assert(!t.into[id] || msg->data == t.into[id]);
    } else {
        cr_assert_eq(msg->len, sizeof word);
        memcpy(word, msg->data, sizeof word);
        cr_assert_eq(word[1], ~word[0]);
        id = word[0];
    }
    cr_assert_eq(++t.seen[id], 1, "message %u came twice", id);
    cr_assert_eq(t.gone[id], 0);
    t.order[t.n++] = id;
    if (t.hold)
        hold_all(log, c, msg);
    else if (msg->kind == PLAIT_REQUEST && t.on_request)
        t.on_request(msg);
    else if (msg->kind == PLAIT_REQUEST)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

static inline void on_offer(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct iovec iov;
    uint32_t id;

    (void)c;
    (void)arg;
    if (!t.on || offer->len != LEN)
        return;
    id = long_id(offer->hdr, offer->hdr_len);
    cr_assert_eq(++t.offered[id], 1);
    if (has_into()) {
        t.into[id] = calloc(1, LEN);
        iov = (struct iovec){ t.into[id], LEN };
        FAILS(plait_offer_into(offer, &iov, 1), 0);
    } else if (t.way == COPIED) {
        FAILS(plait_offer_copy(offer, NULL), 0);
    }
}

static inline void on_offer_canceled(struct plait_conn *c, const struct plait_offer *offer, void *arg)
{
    uint32_t id;

    cr_assert(arg == t.srv && offer->conn == c);
    cr_assert_eq(offer->len, LEN);
    id = long_id(offer->hdr, offer->hdr_len);
    cr_assert(t.offered[id] == 1 && ++t.gone[id] == 1 && !t.seen[id]);
    if (t.into[id]) /* it is the user's again: from here on nothing may be written there */
        memset(t.into[id], 0x5a, LEN);
    if (t.on_gone)
        t.on_gone(c);
}

/* Nothing was written after it was given back. */
static inline void check_gone(uint32_t id)
{
    settle(t.w);
    cr_assert_eq(t.seen[id], 0);
    cr_assert_eq(t.gone[id], t.offered[id]);
    for (size_t i = 0; t.into[id] && i < LEN; i++)
        cr_assert_eq(t.into[id][i], 0x5a, "message %u: written after it was given up", id);
}

/* ---- the sender ---- */

static inline struct plait_out long_out(const uint32_t *id)
{
    uint8_t *p = t.src + (size_t)t.nsrc++ * LEN;
    struct plait_out out = nocopy(p, LEN, &t.done[*id]);

    cr_assert_leq(t.nsrc, 3);
    fill_bytes(p, LEN, *id);
    out.hdr = id;
    out.hdr_len = sizeof *id;
    if (t.way == RING_SENT)
        out.flags = 0;
    return out;
}

static inline void send_long(uint32_t id)
{
    struct plait_out out = long_out(&id);

    FAILS(plait_sendx(t.c, &out), 0);
}

static inline void request_long(uint32_t id)
{
    struct plait_out out = long_out(&id);

    out.on_done = NULL;
    out.on_reply = on_reply;
    FAILS(plait_sendx(t.c, &out), 0);
}

/* Polls until it is accepted. */
static inline void send_small(uint32_t id, bool receipt, bool request)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;
    struct plait_out out = PLAIT_OUT_INIT;
    uint32_t word[2] = { id, ~id };
    int rc;

    out.data = word;
    out.len = sizeof word;
    out.arg = &t.done[id];
    if (receipt)
        out.on_done = on_done;
    if (request)
        out.on_reply = on_reply;
    while ((rc = plait_sendx(t.c, &out)) == PLAIT_E_AGAIN && pli_clock_now() < end)
        poll_all(t.w);
    cr_assert_eq(rc, 0, "%s", plait_error_text());
}

static inline void cancel(uint32_t id)
{
    unsigned n = t.done[id].n;

    FAILS(plait_cancel(t.c, &t.done[id]), 0);
    cr_assert_eq(t.done[id].n, n, "completed inside the call");
}

static inline void wait_done(uint32_t id, int status)
{
    WAIT(t.w, t.done[id].n, 1);
    cr_assert_eq(t.done[id].status, status, "message %u: %s", id, plait_status_name(t.done[id].status));
}

static inline void poll_server(void)
{
    cr_assert_geq(plait_ctx_poll(t.w->ctx[0]), 0, "%s", plait_error_text());
}

static inline void poll_client(void)
{
    cr_assert_geq(plait_ctx_poll(t.w->ctx[1]), 0, "%s", plait_error_text());
}

/* ---- beginning and end ---- */

static const unsigned takes[WAYS] = {
    [TAKE_COPY] = PLAIT_TAKE_COPY, [CMA] = PLAIT_TAKE_CMA, [CMA_INTO] = PLAIT_TAKE_CMA,
    [RING] = PLAIT_TAKE_RING, [RING_INTO] = PLAIT_TAKE_RING, [RING_SENT] = PLAIT_TAKE_RING,
};

/* Sends until something has been read with process_vm_readv. False: that is refused here. */
static inline bool until_read(void)
{
    static const uint8_t some[PLAIT_OFFER_MIN];
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while (ctx_stats(t.w->ctx[0]).offers_cma == 0) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(some, sizeof some, &o);

        if (ctx_stats(t.w->ctx[0]).cma_refused || ctx_stats(t.w->ctx[1]).cma_refused)
            return false;
        cr_assert_lt(pli_clock_now(), end, "nothing is read");
        FAILS(plait_sendx(t.c, &out), 0);
        WAIT(t.w, o.n, 1);
    }
    return true;
}

/* False: not possible here. */
static inline bool begin(void)
{
    static struct plait_conn_ops ops;
    struct plait_session_opts o = long_opts();
    enum way way = t.way;
    bool able = true;

    memset(&t, 0, sizeof t);
    t.way = way;
    t.w = listening_world();
    ops = log_conn_ops;
    ops.on_offer = on_offer;
    ops.on_offer_canceled = on_offer_canceled;
    t.w->on_msg = arrived;
    t.w->accept.conn_ops = &ops;
    t.w->accept.max_msg = o.max_msg;
    t.w->accept.take = o.take = takes[way];
    t.w->accept.window = o.window = WINDOW;
    t.srv = open_session(t.w, &t.cli, &o);
    t.c = t.cli.conn[0];
    t.mem = new_region(3 * LEN);
    t.src = plait_mem_addr(t.mem);
    if (way <= TAKE_COPY || way == PLACE)
        make_known(t.w, 1, t.c, t.mem);
    if (way == CMA || way == CMA_INTO)
        able = until_read();
    settle(t.w);
    t.on = true;
    return able;
}

static inline void free_source(void)
{
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;

    if (!t.mem)
        return;
    FAILS(plait_mem_get_info(t.mem, &info), 0);
    cr_assert_eq(info.in_use, 0, "%u still hold the region", info.in_use);
    FAILS(plait_mem_release(t.mem), 0);
    t.mem = NULL;
}

/* Closes in good order. */
static inline void finish(void)
{
    if (t.cli.s) {
        end_session(t.w, &t.cli);
        settle(t.w);
        check_log(&t.cli);
        cr_assert_eq(t.cli.c_code, 0, "%s", t.cli.c_text);
        cr_assert_eq(t.srv->c_code, 0, "%s", t.srv->c_text);
    }
    for (unsigned i = 0; i < IDS; i++)
        cr_assert_leq(t.done[i].n, 1, "message %u is done twice", i);
    settle(t.w);
    end_world(t.w);
    free_source();
    for (unsigned i = 0; i < IDS; i++)
        free(t.into[i]);
}

/* The connection is as it was: numbers, window, order, and it closes. */
static inline void goes_on(void)
{
    unsigned n;

    settle(t.w);
    n = t.n;
    t.hold = false;
    t.on_request = NULL;
    for (uint32_t id = 500; id < 500 + 3 * WINDOW; id++)
        send_small(id, id % 4 == 1, id % 4 == 2);
    WAIT(t.w, t.n, n + 3 * WINDOW);
    for (uint32_t i = 0; i < 3 * WINDOW; i++)
        cr_assert_eq(t.order[n + i], 500 + i);
    for (uint32_t id = 501; id < 500 + 3 * WINDOW; id += 1 + 3 * (id % 4 == 2))
        if (id % 4 == 1 || id % 4 == 2)
            wait_done(id, 0);
    settle(t.w);
    cr_assert_eq(conn_info(t.c).pending, 0);
    cr_assert_eq(conn_info(t.c).queued, 0);
    cr_assert_leq(conn_info(t.c).unreleased, WINDOW / 2);
    finish();
}

#endif
