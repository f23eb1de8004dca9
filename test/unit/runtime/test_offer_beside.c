/* SPDX-License-Identifier: BSD-3-Clause */
/* A long message that is copied while others pass it on other connections of the same link. No clock: what
 * counts is the order in which things arrive, with both sides polled in turn by one thread. */
#include <sys/mman.h>
#include "runtime/loop.h"
#include "test/unit/runtime/offer_util.h"

TestSuite(offer_beside, .timeout = 120);

#define LEN (4096u * KIB)
#define IDS 32u

/* The connections, all on one link. */
enum { SMALL, BIG, THIRD, CONNS };

/* How a long message is sent and taken. */
enum way {
    INTO,      /* from a region, into the receiver's own memory */
    COPIED,    /* from a region, plait_offer_copy() */
    TAKE_COPY, /* from a region, into memory of plait's */
    CMA, CMA_INTO,
    RING,      /* from memory that stays with its sender */
    RING_INTO,
    RING_SENT, /* copied when it is sent */
};

static struct {
    enum way way;
    struct world *w;
    struct log cli, *srv;
    struct log *tx, *rx;           /* of these, who sends long messages and who receives them */
    struct plait_mem *mem;
    uint8_t *src;                  /* two messages */
    unsigned nsrc;
    uint8_t *into[IDS];
    struct outcome done[IDS];      /* of long messages, at their sender */
    struct outcome asked;          /* the request whose reply is long */
    bool on;                       /* the test proper has begun */
    unsigned order[CONNS][IDS], n[CONNS]; /* what came on each connection */
    unsigned seen[IDS], at[IDS];   /* how often, and as the how manieth of all */
    unsigned total;
    bool behind;                   /* 2 was accepted behind the long one */
} t;

/* ---- the receiver ---- */

static void came(struct plait_conn *c, uint32_t id)
{
    unsigned i = plait_conn_index(c);

    cr_assert_lt(id, IDS);
    t.order[i][t.n[i]++] = id;
    t.at[id] = ++t.total;
    cr_assert_eq(++t.seen[id], 1, "message %u came twice", id);
}

static uint32_t long_id(const void *hdr, uint32_t hdr_len)
{
    uint32_t id = IDS;

    cr_assert_eq(hdr_len, sizeof id);
    memcpy(&id, hdr, sizeof id);
    cr_assert_lt(id, IDS);
    return id;
}

static bool has_into(void)
{
    return t.way == INTO || t.way == CMA_INTO || t.way == RING_INTO;
}

static void long_came(struct plait_msg *msg)
{
    uint32_t id = long_id(msg->hdr, msg->hdr_len);

    cr_assert(msg_has(msg, LEN, id), "message %u has other bytes", id);
    cr_assert(!has_into() || msg->data == t.into[id]);
    came(msg->conn, id);
}

static void reply_long(struct plait_msg *msg);

static void arrived(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    uint32_t word[2];

    (void)log;
    if (!t.on)
        return;
    if (msg->len == LEN) {
        long_came(msg);
        if (msg->kind == PLAIT_REQUEST)
            FAILS(plait_reply(msg, "ok", 2, 0), 0);
        return;
    }
    if (msg->kind == PLAIT_REQUEST) {
        reply_long(msg);
        return;
    }
    cr_assert_eq(msg->len, sizeof word);
    memcpy(word, msg->data, sizeof word);
    cr_assert_eq(word[1], ~word[0]);
    came(c, word[0]);
}

static void on_offer(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct iovec iov;
    uint32_t id;

    cr_assert(c == offer->conn && arg);
    if (!t.on || offer->len != LEN)
        return;
    id = long_id(offer->hdr, offer->hdr_len);
    if (has_into()) {
        t.into[id] = malloc(LEN);
        iov = (struct iovec){ t.into[id], LEN };
        FAILS(plait_offer_into(offer, &iov, 1), 0);
    } else if (t.way == COPIED) {
        FAILS(plait_offer_copy(offer, NULL), 0);
    }
}

/* ---- the sender ---- */

static struct plait_out long_out(uint32_t *id)
{
    uint8_t *p = t.src + (size_t)t.nsrc++ * LEN;
    struct plait_out out = nocopy(p, LEN, &t.done[*id]);

    cr_assert_leq(t.nsrc, 2);
    fill_bytes(p, LEN, *id);
    out.hdr = id;
    out.hdr_len = sizeof *id;
    if (t.way == RING_SENT)
        out.flags = 0;
    return out;
}

/* Polls until it is accepted. */
static void send_it(unsigned conn, const struct plait_out *out)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;
    int rc;

    while ((rc = plait_sendx(t.tx->conn[conn], out)) == PLAIT_E_AGAIN && pli_clock_now() < end)
        poll_all(t.w);
    cr_assert_eq(rc, 0, "%s", plait_error_text());
}

static void send_long(unsigned conn, uint32_t id)
{
    struct plait_out out = long_out(&id);

    send_it(conn, &out);
}

static void request_long(unsigned conn, uint32_t id, uint64_t timeout_us)
{
    struct plait_out out = long_out(&id);

    out.on_done = NULL;
    out.on_reply = on_reply;
    out.timeout_us = timeout_us;
    send_it(conn, &out);
}

static void send_small(unsigned conn, uint32_t id)
{
    struct plait_out out = PLAIT_OUT_INIT;
    uint32_t word[2] = { id, ~id };

    out.data = word;
    out.len = sizeof word;
    send_it(conn, &out);
}

/* 3 beside the long one, and 2 behind it, unless what waits for the ring leaves no room. */
static void send_others(void)
{
    uint32_t word[2] = { 2, ~2u };
    int rc = plait_send(t.tx->conn[BIG], word, sizeof word, 0);

    cr_assert(rc == 0 || rc == PLAIT_E_AGAIN, "%s", plait_error_text());
    t.behind = rc == 0;
    send_small(SMALL, 3);
}

static void check_both_came(void)
{
    WAIT(t.w, t.n[BIG], 1u + t.behind);
    cr_assert_eq(t.order[BIG][0], 1);
    cr_assert(!t.behind || t.order[BIG][1] == 2);
}

static void reply_long(struct plait_msg *msg)
{
    uint32_t id = 1;
    struct plait_out out = long_out(&id);

    if (t.way == RING_SENT)
        out.on_done = NULL;
    FAILS(plait_replyx(msg, &out), 0);
}

/* ---- beginning and end ---- */

static const unsigned takes[] = {
    [TAKE_COPY] = PLAIT_TAKE_COPY, [CMA] = PLAIT_TAKE_CMA, [CMA_INTO] = PLAIT_TAKE_CMA,
    [RING] = PLAIT_TAKE_RING, [RING_INTO] = PLAIT_TAKE_RING, [RING_SENT] = PLAIT_TAKE_RING,
};

/* Sends until something has been read with process_vm_readv, or was refused. */
static void until_read(void)
{
    static const uint8_t some[PLAIT_OFFER_MIN];
    struct plait_ctx *reader = t.w->ctx[t.rx == &t.cli];
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while (ctx_stats(reader).offers_cma == 0) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(some, sizeof some, &o);

        if (ctx_stats(t.w->ctx[0]).cma_refused || ctx_stats(t.w->ctx[1]).cma_refused)
            cr_skip_test("process_vm_readv is refused here");
        cr_assert_lt(pli_clock_now(), end, "nothing is read");
        FAILS(plait_sendx(t.tx->conn[BIG], &out), 0);
        WAIT(t.w, o.n, 1);
    }
}

/* Three connections on one link. */
static void open_three(enum way way)
{
    static struct plait_conn_ops ops;
    struct plait_session_opts o = long_opts();
    struct plait_ctx *ctxs[CONNS];

    for (unsigned i = 0; i < CONNS; i++)
        ctxs[i] = t.w->ctx[1];
    ops = log_conn_ops;
    ops.on_offer = on_offer;
    t.w->on_msg = arrived;
    t.w->accept.conn_ops = &ops;
    t.w->accept.max_msg = o.max_msg;
    t.w->accept.take = o.take = takes[way];
    o.ctxs = ctxs;
    o.nctxs = CONNS;
    t.srv = open_session(t.w, &t.cli, &o);
    t.cli.on_msg = arrived;
    cr_assert_eq(ctx_stats(t.w->ctx[0]).links, 1);
    cr_assert_eq(ctx_stats(t.w->ctx[1]).links, 1);
}

static void begin(enum way way, bool server_sends)
{
    memset(&t, 0, sizeof t);
    t.way = way;
    t.w = listening_world();
    open_three(way);
    t.tx = server_sends ? t.srv : &t.cli;
    t.rx = server_sends ? &t.cli : t.srv;
    if (way <= TAKE_COPY) {
        t.mem = new_region(2 * LEN);
        t.src = plait_mem_addr(t.mem);
        make_known(t.w, !server_sends, t.tx->conn[BIG], t.mem);
    } else {
        t.src = mmap(NULL, 2 * LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(t.src, MAP_FAILED);
    }
    if (way == CMA || way == CMA_INTO)
        until_read();
    settle(t.w);
    t.on = true;
}

/* Every long message is done: whoever reads its memory from here on gets a fault. */
static void free_source(void)
{
    if (t.mem)
        plait_mem_release(t.mem);
    else if (t.src)
        munmap(t.src, 2 * LEN);
    t.mem = NULL;
    t.src = NULL;
}

static void leave(void)
{
    end_world(t.w);
    free_source();
    for (unsigned i = 0; i < IDS; i++)
        free(t.into[i]);
}

static void finish(void)
{
    settle(t.w);
    end_session(t.w, &t.cli);
    settle(t.w);
    check_log(&t.cli);
    for (unsigned i = 0; i < IDS; i++)
        cr_assert_leq(t.done[i].n, 1, "message %u is done twice", i);
    leave();
}

static void check_done(uint32_t id)
{
    WAIT(t.w, t.done[id].n, 1);
    cr_assert_eq(t.done[id].status, 0);
}

#define WAY(name, way) Test(offer_beside, name##_##way) { name(way); }
#define EACH_REPLY(name) WAY(name, INTO) WAY(name, TAKE_COPY) WAY(name, CMA) WAY(name, CMA_INTO) \
    WAY(name, RING) WAY(name, RING_INTO) WAY(name, RING_SENT)
#define EACH_WAY(name) EACH_REPLY(name) WAY(name, COPIED)

/* ---- who is first ---- */

/* Each is sent when the one before has come. */
static void small_first(enum way way)
{
    begin(way, false);
    send_long(BIG, 1);
    for (uint32_t id = 10; id < 14; id++) {
        send_small(SMALL, id);
        WAIT(t.w, t.seen[id], 1);
        cr_assert_eq(t.seen[1], 0, "small one %u waited for the long one", id);
    }
    check_done(1);
    finish();
}
EACH_WAY(small_first)

static void order_kept(enum way way)
{
    begin(way, false);
    send_long(BIG, 1);
    send_small(SMALL, 7);
    for (uint32_t id = 2; id < 5; id++)
        send_small(BIG, id);
    request_long(BIG, 5, 0);
    send_small(BIG, 6);
    WAIT(t.w, t.n[BIG], 6);
    WAIT(t.w, t.seen[7], 1);
    cr_assert_lt(t.at[7], t.at[1], "the small one waited for the long one");
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(t.order[BIG][i], i + 1);
    check_done(1);
    check_done(5);
    finish();
}
EACH_WAY(order_kept)

static void two_at_once(enum way way)
{
    uint32_t second = 2;
    struct plait_out out;
    int rc;

    begin(way, false);
    send_long(BIG, 1);
    out = long_out(&second);
    rc = plait_sendx(t.tx->conn[THIRD], &out);
    cr_assert(rc == 0 || rc == PLAIT_E_AGAIN, "%s", plait_error_text());
    send_small(SMALL, 5);
    if (rc == PLAIT_E_AGAIN) /* what waits for the ring leaves no room */
        send_it(THIRD, &out);
    send_small(THIRD, 3);
    send_small(BIG, 4);
    WAIT(t.w, t.n[BIG], 2);
    WAIT(t.w, t.n[THIRD], 2);
    WAIT(t.w, t.seen[5], 1);
    cr_assert_eq(t.at[5], 1, "the small one waited for a long one");
    check_done(1);
    check_done(2);
    cr_assert(t.order[BIG][0] == 1 && t.order[BIG][1] == 4);
    cr_assert(t.order[THIRD][0] == 2 && t.order[THIRD][1] == 3);
    finish();
}
EACH_WAY(two_at_once)

/* ---- its connection ends in the middle ---- */

/* 1 is on its way, with 2 behind it; 3 has passed them. */
static void half(enum way way)
{
    begin(way, false);
    send_long(BIG, 1);
    if (way == RING_SENT)
        free_source();
    send_others();
    WAIT(t.w, t.seen[3], 1);
    cr_assert_eq(t.n[BIG], 0, "nothing is left to be interrupted");
}

/* After the end: the receiver's memory is the receiver's again. */
static void nothing_more(uint32_t id)
{
    if (t.into[id])
        memset(t.into[id], 0, LEN);
    settle(t.w);
    for (size_t i = 0; t.into[id] && i < LEN; i++)
        cr_assert_eq(t.into[id][i], 0, "written after the end");
}

static void others_go_on(void)
{
    send_small(SMALL, 20);
    WAIT(t.w, t.seen[20], 1);
}

/* So many connections end on both sides. */
static void both_closed(unsigned n)
{
    WAIT(t.w, t.srv->c_closed, n);
    WAIT(t.w, t.cli.c_closed, n);
    nothing_more(1);
    if (n < CONNS)
        others_go_on();
}

static void aborted(enum way way)
{
    for (int server = 0; server < 2; server++) {
        half(way);
        FAILS(plait_conn_abort(server ? t.srv->conn[BIG] : t.cli.conn[BIG]), 0);
        WAIT(t.w, t.done[1].n, 1);
        cr_assert_neq(t.done[1].status, 0);
        free_source();
        both_closed(1);
        finish();
    }
}
EACH_WAY(aborted)

/* What was sent before is delivered. */
static void closed(enum way way)
{
    for (int who = 0; who < 4; who++) {
        struct log *closer;

        half(way);
        closer = who & 1 ? t.srv : &t.cli;
        FAILS(who & 2 ? plait_session_close(closer->s) : plait_conn_close(closer->conn[BIG]), 0);
        check_done(1);
        free_source();
        check_both_came();
        both_closed(who & 2 ? CONNS : 1);
        finish();
    }
}
EACH_WAY(closed)

/* One of the contexts is destroyed: the receiver's first, then the sender's. */
static void destroyed(enum way way)
{
    for (unsigned which = 0; which < 2; which++) {
        half(way);
        if (which)
            t.cli.lead_gone = true;
        cr_assert_eq(plait_ctx_destroy(t.w->ctx[which]), 0);
        t.w->ctx[which] = NULL;
        WAIT(t.w, t.done[1].n, 1);
        cr_assert_neq(t.done[1].status, 0);
        free_source();
        WAIT(t.w, t.srv->c_closed, CONNS);
        nothing_more(1);
        plait_session_release(t.cli.s);
        leave();
    }
}
EACH_WAY(destroyed)

/* Timers are looked at after as many passes as take some time, which stands still here: in the next one. */
static void time_out(void)
{
    pli_clock_fake_advance(1100 * PLI_NS_PER_MS);
    t.w->ctx[1]->slow_in = 1;
}

/* A request with a time-out is never offered. */
Test(offer_beside, request_times_out)
{
    begin(RING_INTO, false);
    pli_clock_fake_start(pli_clock_now());
    request_long(BIG, 1, 1000000);
    send_others();
    WAIT(t.w, t.seen[3], 1);
    cr_assert_eq(t.n[BIG], 0, "nothing is left to be interrupted");
    time_out();
    WAIT(t.w, t.done[1].n, 1);
    cr_assert_eq(t.done[1].status, PLAIT_E_TIMEDOUT);
    pli_clock_fake_stop();
    free_source();
    send_small(BIG, 4);
    WAIT(t.w, t.seen[4], 1);
    cr_assert_eq(t.seen[2], t.behind);
    settle(t.w);
    cr_assert_eq(t.done[1].n, 1);
    others_go_on();
    finish();
}

/* ---- replies ---- */

static void replied(struct plait_msg *reply, int status, void *arg)
{
    struct outcome *o = arg;

    o->n++;
    o->status = status;
    if (reply)
        long_came(reply);
}

/* The reply is on its way, with 2 behind it; 3 has passed them. */
static void half_reply(enum way way, uint64_t timeout_us)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct iovec iov;

    begin(way, true);
    if (timeout_us)
        pli_clock_fake_start(pli_clock_now());
    t.into[1] = has_into() ? malloc(LEN) : NULL;
    iov = (struct iovec){ t.into[1], LEN };
    out.data = "please";
    out.len = 6;
    out.on_reply = replied;
    out.arg = &t.asked;
    out.into = has_into() ? &iov : NULL;
    out.ninto = has_into();
    out.timeout_us = timeout_us;
    FAILS(plait_sendx(t.cli.conn[BIG], &out), 0);
    while (!t.nsrc)
        cr_assert_geq(plait_ctx_poll(t.w->ctx[0]) + plait_ctx_poll(t.w->ctx[1]), 0);
    send_others();
    WAIT(t.w, t.seen[3], 1);
    cr_assert_eq(t.n[BIG], 0, "the small one waited for the long reply");
    cr_assert_eq(t.asked.n, 0);
}

static void reply_order(enum way way)
{
    half_reply(way, 0);
    check_both_came();
    cr_assert(t.asked.n == 1 && t.asked.status == 0);
    if (way != RING_SENT)
        check_done(1);
    cr_assert_eq(conn_info(t.cli.conn[BIG]).pending, 0);
    finish();
}
EACH_REPLY(reply_order)

static void reply_ended(enum way way)
{
    for (int who = 0; who < 4; who++) {
        struct plait_conn *c;

        half_reply(way, 0);
        c = (who & 1 ? t.srv : &t.cli)->conn[BIG];
        FAILS(who & 2 ? plait_conn_abort(c) : plait_conn_close(c), 0);
        WAIT(t.w, t.asked.n, 1);
        cr_assert_eq(t.asked.status == 0, !(who & 2));
        if (!(who & 2))
            check_both_came();
        if (way != RING_SENT)
            WAIT(t.w, t.done[1].n, 1);
        cr_assert((who & 2) || t.done[1].status == 0);
        free_source();
        both_closed(1);
        cr_assert_eq(t.asked.n, 1);
        finish();
    }
}
EACH_REPLY(reply_ended)

/* Nothing is written into the requester's memory from then on; the replier is done all the same. */
static void reply_times_out(enum way way)
{
    half_reply(way, 1000000);
    time_out();
    WAIT(t.w, t.asked.n, 1);
    pli_clock_fake_stop();
    cr_assert_eq(t.asked.status, PLAIT_E_TIMEDOUT);
    if (t.into[1])
        memset(t.into[1], 0, LEN);
    if (way != RING_SENT)
        WAIT(t.w, t.done[1].n, 1);
    free_source();
    nothing_more(1);
    cr_assert_eq(t.seen[2], t.behind);
    cr_assert(t.asked.n == 1 && t.seen[1] == 0);
    cr_assert_eq(conn_info(t.cli.conn[BIG]).pending, 0);
    others_go_on();
    finish();
}
EACH_REPLY(reply_times_out)
