/* SPDX-License-Identifier: BSD-3-Clause */
/* Random messages, both ways, short and long, offered and pushed, of which many are given up, at random moments: one thread polls both
 * sides, so that a seed (PLAIT_TEST_SEED) repeats a run, nearly: how long slices are depends on the clock. */
#include <time.h>
#include "test/unit/runtime/offer_util.h"

TestSuite(cancel_stress, .timeout = 240);

#define SLOTS 12u
#define MAX (300u * KIB)
#define SEQS 40000u

/* A message on its way, or a reply. */
struct slot {
    bool busy;
    uint32_t seq;
    uint8_t *p;
};

struct end {
    struct plait_conn *c;
    struct plait_mem *mem;
    uint8_t *plain;
    struct slot slots[2 * SLOTS]; /* the first half lies in the region */
    uint32_t sent;
    /* receiving */
    uint32_t last;
    uint8_t into[MAX];
    bool announced;
    struct plait_msg *held[64];
    unsigned nheld;
};

static struct end ends[2];
static uint8_t seen[2][SEQS], taken_back[2][SEQS];
static uint64_t canceled, delivered, lost_replies, gone;
static uint32_t state;
static bool over;

static uint32_t rnd(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(state >> 4) * n) >> 28);
}

static void fill(uint8_t *p, size_t len, uint32_t seq)
{
    memset(p, (int)(seq * 7 + 1), len);
    memcpy(p, &seq, 4);
}

static bool is_filled(const struct plait_msg *m, uint32_t seq)
{
    const struct iovec *iov;
    const uint8_t *p;

    cr_assert_eq(plait_msg_iov(m, &iov), 1);
    p = iov->iov_base;
    for (size_t i = 4; i < m->len; i += 1 + m->len / 997)
        if (p[i] != (uint8_t)(seq * 7 + 1))
            return false;
    return memcmp(p, &seq, 4) == 0 && p[m->len - 1] == (uint8_t)(seq * 7 + 1);
}

static struct end *end_of(struct plait_conn *c)
{
    return &ends[c != ends[0].c];
}

/* ---- completions ---- */

static void finished(struct slot *s)
{
    cr_assert(s->busy, "completed twice");
    s->busy = false;
}

static void on_sent(int status, void *arg)
{
    struct slot *s = arg;
    unsigned to = s < ends[1].slots;

    finished(s);
    cr_assert(status == 0 || status == PLAIT_E_CANCELED, "%s", plait_status_name(status));
    canceled += status != 0;
    cr_assert_eq(seen[to][s->seq], status == 0, "%u: %s", s->seq, plait_status_name(status));
    taken_back[to][s->seq] = status != 0;
}

/* The reply's first bytes are the request's number. */
static void on_answer(struct plait_msg *reply, int status, void *arg)
{
    struct slot *s = arg;
    unsigned to = s < ends[1].slots;

    finished(s);
    cr_assert(status == 0 || status == PLAIT_E_CANCELED, "%s", plait_status_name(status));
    canceled += status != 0;
    if (reply)
        cr_assert(seen[to][s->seq] && is_filled(reply, s->seq));
}

static void on_replied(int status, void *arg)
{
    finished(arg);
    cr_assert(status == 0 || status == PLAIT_E_CANCELED, "%s", plait_status_name(status));
    lost_replies += status != 0;
}

/* ---- sending ---- */

static struct slot *free_slot(struct end *e)
{
    uint32_t from = rnd(2 * SLOTS);

    for (uint32_t i = 0; i < 2 * SLOTS; i++)
        if (!e->slots[(from + i) % (2 * SLOTS)].busy)
            return &e->slots[(from + i) % (2 * SLOTS)];
    return NULL;
}

static size_t random_len(void)
{
    static const uint32_t most[] = { 16, 200, 20000, 100000, MAX };

    return 8 + rnd(most[rnd(5)] - 8);
}

static void cancel(struct end *e, struct slot *s)
{
    int rc = plait_cancel(e->c, s);

    /* a reply that was not offered is done, but its user has not been told yet */
    cr_assert(rc == 0 || rc == PLAIT_E_NOTFOUND, "%s", plait_error_text());
    cr_assert(s->busy);
}

static void send_one(struct end *e)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct slot *s = free_slot(e);
    int rc;

    if (!s || e->sent + 1 == SEQS)
        return;
    s->seq = e->sent + 1;
    out.data = s->p;
    out.len = random_len();
    out.flags = rnd(4) ? PLAIT_NOCOPY : 0;
    out.arg = s;
    if (rnd(3) == 0)
        out.on_reply = on_answer;
    else
        out.on_done = on_sent;
    fill(s->p, out.len, s->seq);
    rc = plait_sendx(e->c, &out);
    cr_assert(rc == 0 || rc == PLAIT_E_AGAIN, "%s", plait_error_text());
    if (rc < 0)
        return;
    e->sent++;
    s->busy = true;
    if (rnd(4) == 0)
        cancel(e, s);
}

static void reply_to(struct end *e, struct plait_msg *m)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct slot *s = free_slot(e);
    uint8_t small[16];
    uint32_t seq;

    memcpy(&seq, m->data, 4);
    if (!s || rnd(2)) {
        fill(small, sizeof small, seq);
        FAILS(plait_reply(m, small, sizeof small, 0), 0);
        return;
    }
    out.data = s->p;
    out.len = random_len();
    out.flags = PLAIT_NOCOPY;
    out.on_done = on_replied;
    out.arg = s;
    fill(s->p, out.len, seq);
    FAILS(plait_replyx(m, &out), 0);
    s->seq = seq;
    s->busy = true;
    if (rnd(3) == 0)
        cancel(e, s);
}

/* ---- receiving ---- */

static void arrived(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct end *e = end_of(c);
    uint32_t seq;

    (void)arg;
    memcpy(&seq, m->data, 4);
    cr_assert_gt(seq, e->last, "out of order");
    cr_assert(is_filled(m, seq), "%u has other bytes", seq);
    cr_assert_eq(m->data == e->into, e->announced);
    e->announced = false;
    e->last = seq;
    cr_assert(!seen[e - ends][seq]++ && !taken_back[e - ends][seq]);
    delivered++;
    if (m->kind == PLAIT_REQUEST && rnd(2)) {
        reply_to(e, m);
    } else if (m->data != e->into && e->nheld < 64 && rnd(2)) {
        e->held[e->nheld++] = plait_msg_hold(m);
    } else if (m->kind == PLAIT_REQUEST) {
        reply_to(e, m);
    }
    if (!over && rnd(8) == 0)
        send_one(e);
}

static void announced(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct end *e = end_of(c);
    struct iovec iov = { e->into, MAX };
    uint32_t way = rnd(3);

    (void)arg;
    cr_assert(!e->announced, "announced before the last one came, or went");
    e->announced = way == 0;
    if (way == 0)
        FAILS(plait_offer_into(offer, &iov, 1), 0);
    if (way == 1)
        FAILS(plait_offer_copy(offer, NULL), 0);
}

static void is_gone(struct plait_conn *c, const struct plait_offer *offer, void *arg)
{
    struct end *e = end_of(c);

    (void)offer;
    (void)arg;
    gone++;
    e->announced = false;
}

static void release_one(struct end *e)
{
    uint32_t i = e->nheld ? rnd(e->nheld) : 0;
    struct plait_msg *m;
    uint32_t seq;

    if (!e->nheld)
        return;
    m = e->held[i];
    e->held[i] = e->held[--e->nheld];
    memcpy(&seq, m->data, 4);
    cr_assert(is_filled(m, seq), "%u has other bytes now", seq);
    if (m->kind == PLAIT_REQUEST)
        reply_to(e, m);
    plait_msg_release(m);
}

/* ---- the run ---- */

static bool idle(void)
{
    for (unsigned k = 0; k < 2; k++) {
        if (ends[k].nheld)
            return false;
        for (unsigned i = 0; i < 2 * SLOTS; i++)
            if (ends[k].slots[i].busy)
                return false;
    }
    return true;
}

static void prepare(struct end *e, struct plait_conn *c)
{
    e->c = c;
    e->mem = new_region(SLOTS * MAX);
    e->plain = malloc(SLOTS * MAX);
    for (unsigned i = 0; i < 2 * SLOTS; i++)
        e->slots[i].p = i < SLOTS ? (uint8_t *)plait_mem_addr(e->mem) + i * MAX : e->plain + (i - SLOTS) * MAX;
}

static void run(uint32_t seed, unsigned take)
{
    static struct plait_conn_ops ops;
    struct plait_session_opts o = long_opts();
    struct world *w = listening_world();
    struct log cli, *srv;
    uint64_t end;

    state = seed;
    over = false;
    canceled = delivered = lost_replies = gone = 0;
    memset(ends, 0, sizeof ends);
    memset(seen, 0, sizeof seen);
    memset(taken_back, 0, sizeof taken_back);
    ops = log_conn_ops;
    ops.on_message = arrived;
    ops.on_offer = announced;
    ops.on_offer_canceled = is_gone;
    w->accept.conn_ops = o.conn_ops = &ops;
    w->accept.max_msg = o.max_msg;
    w->accept.take = o.take = take;
    w->accept.window = o.window = 16;
    srv = open_session(w, &cli, &o);
    prepare(&ends[0], cli.conn[0]);
    prepare(&ends[1], srv->conn[0]);
    for (unsigned i = 0; i < 30000; i++) {
        struct end *e = &ends[rnd(2)];

        switch (rnd(6)) {
        case 0:
        case 1:
            send_one(e);
            break;
        case 2: {
            struct slot *s = &e->slots[rnd(2 * SLOTS)];

            if (s->busy)
                cancel(e, s);
            break;
        }
        case 3:
            release_one(e);
            break;
        default:
            cr_assert_geq(plait_ctx_poll(w->ctx[rnd(2)]), 0);
        }
    }
    over = true;
    end = pli_clock_now() + PATIENCE_NS;
    while (!idle()) {
        cr_assert_lt(pli_clock_now(), end, "seed %u: something is never completed", seed);
        release_one(&ends[0]);
        release_one(&ends[1]);
        poll_all(w);
    }
    settle(w);
    cr_assert_eq(conn_info(ends[0].c).pending, 0, "seed %u", seed);
    cr_assert_eq(conn_info(ends[1].c).pending, 0, "seed %u", seed);
    cr_assert(canceled > 100 && delivered > 100, "seed %u: %lu canceled, %lu delivered", seed, (unsigned long)canceled,
              (unsigned long)delivered);
    end_session(w, &cli);
    settle(w);
    cr_assert(cli.c_code == 0 && srv->c_code == 0, "seed %u: %s, %s", seed, cli.c_text, srv->c_text);
    cr_assert_eq(cli.misuse, 0);
    end_world(w);
    for (unsigned k = 0; k < 2; k++) {
        FAILS(plait_mem_release(ends[k].mem), 0);
        free(ends[k].plain);
    }
}

static void runs(unsigned take)
{
    const char *given = getenv("PLAIT_TEST_SEED");
    uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 10) : (uint32_t)time(NULL) ^ (uint32_t)getpid() << 12;

    for (unsigned i = 0; i < (given ? 1u : 6u); i++) {
        fprintf(stderr, "PLAIT_TEST_SEED=%u\n", seed + i);
        run(seed + i, take);
    }
}

Test(cancel_stress, place) { runs(PLAIT_TAKE_AUTO); }
Test(cancel_stress, copy) { runs(PLAIT_TAKE_COPY); }
Test(cancel_stress, ring) { runs(PLAIT_TAKE_RING); }
Test(cancel_stress, cma) { runs(PLAIT_TAKE_CMA); }
