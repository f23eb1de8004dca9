/* SPDX-License-Identifier: BSD-3-Clause */
/* Random operations on random sessions of several contexts, one thread, so that a seed repeats a run: PLAIT_TEST_SEED. What is checked
 * all the time: messages arrive in order, whole and once; everything accepted is completed once; events come in order. */
#include <time.h>
#include "test/unit/runtime/session_util.h"

enum { CTXS = 5, SESSIONS = 12, SIDES = 4096, HELD = 64, BIGGEST = 100000 };

/* One end of a connection. */
struct side {
    struct plait_conn *conn;
    struct side *peer;      /* known from the first message */
    uint32_t tx, rx;        /* sequence numbers */
    bool open, closed;
    unsigned writable_due;
    uint32_t max;
};

/* A request or receipt on its way. */
struct pending {
    bool busy, is_request;
    uint32_t len;
};

struct entry {
    struct plait_session *s;
    bool closed, muted;
};

static struct plait_ctx *ctxs[CTXS]; /* 0, 1: servers; the others: clients */
static struct plait_listener *listeners[2];
static struct side sides[SIDES];
static unsigned nsides;
static struct entry sessions[SESSIONS];
static struct plait_msg *held[HELD];
static unsigned nheld;
static struct pending pending[20000];
static unsigned npending_slots;
static uint64_t accepted, completed, delivered;
static uint32_t state;
static uint8_t data[BIGGEST];

static uint32_t rnd(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(state >> 4) * n) >> 28);
}

/* ---- content: sequence number, then bytes made from it ---- */

static size_t make(struct side *sd, size_t len)
{
    if (len < 4)
        len = 4;
    fill_bytes(data + 4, len - 4 < 64 ? len - 4 : 64, sd->tx);
    if (len > 68) {
        memset(data + 68, (int)(sd->tx & 0xff), len - 68);
        data[len - 1] = (uint8_t)(len * 3);
    }
    memcpy(data, &sd->tx, 4);
    return len;
}

static void check(const struct plait_msg *m, uint32_t seq)
{
    const uint8_t *p = m->data;

    cr_assert_geq(m->len, 4);
    cr_assert_eq(memcmp(p, &seq, 4), 0, "message %u came instead of %u", *(const uint32_t *)m->data, seq);
    cr_assert(has_bytes(p + 4, m->len - 4 < 64 ? m->len - 4 : 64, seq));
    if (m->len > 69) {
        cr_assert_eq(p[68], (uint8_t)seq);
        cr_assert_eq(p[m->len - 2], (uint8_t)seq);
    }
    if (m->len > 68)
        cr_assert_eq(p[m->len - 1], (uint8_t)(m->len * 3));
}

/* ---- callbacks ---- */

static void st_open(struct plait_conn *c, void *arg)
{
    struct side *sd = &sides[nsides++];

    (void)arg;
    cr_assert_leq(nsides, SIDES);
    cr_assert_null(plait_conn_user(c));
    memset(sd, 0, sizeof *sd);
    sd->conn = c;
    sd->open = true;
    sd->max = conn_info(c).max_msg;
    plait_conn_set_user(c, sd);
}

static void answer(struct plait_msg *m)
{
    static uint8_t reply[BIGGEST];
    uint32_t len = m->len < 64 ? (uint32_t)m->len : rnd(20) ? 64 : rnd(BIGGEST);
    int rc;

    if (m->kind != PLAIT_REQUEST)
        return;
    if (rnd(20) == 0) {
        rc = plait_reply_error(m, 99);
    } else {
        reply[0] = 'r';
        rc = plait_reply(m, reply, len, rnd(4) == 0 ? PLAIT_MORE : 0);
    }
    cr_assert(rc == 0 || rc == PLAIT_E_CLOSED || rc == PLAIT_E_REPLIED || rc == PLAIT_E_TOOBIG, "%s", plait_error_text());
}

static void drop_one_held(void)
{
    unsigned i = rnd(nheld);
    struct plait_msg *m = held[i];

    cr_assert_geq(m->len, 4);
    cr_assert(has_bytes((const uint8_t *)m->data + 4, m->len - 4 < 64 ? m->len - 4 : 64, *(const uint32_t *)m->data));
    held[i] = held[--nheld];
    if (rnd(3))
        answer(m);
    if (rnd(3) == 0)
        answer(m); /* twice */
    plait_msg_release(m);
}

static void some_action(struct side *sd);

static void st_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct side *sd = plait_conn_user(c);

    (void)arg;
    cr_assert(sd && sd->open && !sd->closed);
    check(m, sd->rx++);
    delivered++;
    if (rnd(4) == 0) {
        if (nheld == HELD)
            drop_one_held();
        held[nheld++] = plait_msg_hold(m);
    } else {
        if (m->kind == PLAIT_ONEWAY && rnd(5) == 0)
            plait_msg_refuse(m);
        answer(m);
    }
    if (rnd(5) == 0)
        some_action(sd);
}

static void st_writable(struct plait_conn *c, void *arg)
{
    struct side *sd = plait_conn_user(c);

    (void)arg;
    cr_assert(sd && sd->open && !sd->closed);
    cr_assert_gt(sd->writable_due, 0, "nobody waits to write");
    sd->writable_due = 0;
    some_action(sd);
}

static void st_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct side *sd = plait_conn_user(c);

    (void)arg;
    cr_assert_neq(why->code, PLAIT_E_PROTO, "%s", why->text);
    cr_assert_neq(why->code, PLAIT_E_PEERDIED, "%s", why->text);
    if (!sd)
        return;
    cr_assert(sd->open && !sd->closed);
    sd->closed = true;
    cr_assert_eq(conn_info(c).pending, 0);
}

static void st_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct entry *e = arg;

    (void)s;
    cr_assert_neq(why->code, PLAIT_E_PROTO, "%s", why->text);
    if (!e)
        return;
    cr_assert(!e->closed && !e->muted);
    e->closed = true;
}

static const struct plait_conn_ops conn_ops = {
    .on_open = st_open, .on_message = st_message, .on_writable = st_writable, .on_closed = st_closed,
};
static const struct plait_session_ops session_ops = { .on_closed = st_session_closed };

static struct pending *new_pending(void)
{
    for (unsigned i = 0; i < npending_slots; i++)
        if (!pending[i].busy)
            return &pending[i];
    cr_assert_lt(npending_slots, sizeof pending / sizeof pending[0]);
    return &pending[npending_slots++];
}

static void complete(struct pending *p)
{
    cr_assert(p->busy, "completed twice");
    p->busy = false;
    completed++;
}

static void st_reply(struct plait_msg *m, int status, void *arg)
{
    cr_assert_eq(m != NULL, status == 0);
    if (m && m->len)
        cr_assert_eq(*(const uint8_t *)m->data, 'r');
    complete(arg);
}

static void st_done(int status, void *arg)
{
    (void)status;
    complete(arg);
}

/* ---- operations ---- */

static int send_one(struct side *sd)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct pending *p = NULL;
    uint32_t kind = rnd(10);
    int rc;

    out.len = make(sd, rnd(30) == 0 ? rnd(BIGGEST) : rnd(6) == 0 ? rnd(5000) : rnd(150));
    out.data = data;
    out.flags = rnd(4) == 0 ? PLAIT_MORE : 0;
    if (out.len > sd->max) {
        cr_assert_lt(plait_sendx(sd->conn, &out), 0);
        return 0;
    }
    if (kind == 0) {
        struct plait_slot slot;

        if (out.len > plait_reserve_max(sd->conn))
            return 0;
        rc = plait_reserve(sd->conn, out.len, &slot);
        if (rc == 0) {
            memcpy(slot.data, data, out.len);
            if (rnd(4) == 0) {
                plait_abandon(sd->conn, &slot);
                return 0;
            }
            if (nheld && rnd(3) == 0)
                drop_one_held(); /* replies and receipts meanwhile */
            rc = plait_commit(sd->conn, &slot, out.len, out.flags);
        }
    } else if (kind < 4) {
        rc = plait_send(sd->conn, out.data, out.len, out.flags);
    } else {
        p = new_pending();
        p->busy = true;
        if (kind < 8)
            out.on_reply = st_reply;
        else
            out.on_done = st_done;
        out.arg = p;
        if (kind == 4)
            out.timeout_us = 1 + rnd(3000);
        rc = plait_sendx(sd->conn, &out);
        if (rc == 0)
            accepted++;
        else
            p->busy = false;
    }
    if (rc == 0)
        sd->tx++;
    else if (rc == PLAIT_E_AGAIN)
        sd->writable_due++;
    else
        cr_assert(rc == PLAIT_E_CLOSED || (rc == PLAIT_E_BUSY && kind), "%s", plait_error_text());
    return rc;
}

static void some_action(struct side *sd)
{
    uint32_t what = rnd(200);

    if (sd->closed)
        return;
    if (what == 0)
        plait_conn_abort(sd->conn);
    else if (what == 1)
        plait_conn_close(sd->conn);
    else if (what == 2)
        plait_session_close(plait_conn_session(sd->conn));
    else if (what < 10)
        plait_flush(sd->conn);
    else
        for (uint32_t n = rnd(rnd(20) ? 10 : 300); n > 0 && send_one(sd) == 0; n--)
            continue;
}

static void open_one(struct entry *e)
{
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct plait_ctx *used[4];
    unsigned lead = 2 + rnd(CTXS - 2);

    memset(e, 0, sizeof *e);
    used[0] = ctxs[lead];
    o.nctxs = rnd(3) ? 0 : 1 + rnd(4);
    for (unsigned i = 1; i < 4; i++)
        used[i] = ctxs[2 + rnd(CTXS - 2)];
    o.ctxs = used;
    o.session_ops = &session_ops;
    o.conn_ops = &conn_ops;
    o.arg = e;
    o.window = rnd(4) == 0 ? 1 + rnd(5) : 1024;
    o.max_msg = rnd(4) == 0 ? 64 + rnd(1000) : BIGGEST;
    o.linger_ms = rnd(2) ? 20 : 5000;
    cr_assert_eq(plait_session_open(&e->s, ctxs[lead], plait_listener_uri(listeners[rnd(2)]), &o), 0, "%s", plait_error_text());
}

static void end_one(struct entry *e)
{
    if (!e->closed && rnd(2)) {
        plait_session_close(e->s);
        if (rnd(2))
            return; /* released later */
    }
    if (e->closed || rnd(3) == 0) {
        e->muted = !e->closed && plait_session_close(e->s) == 0 ? false : e->muted;
        if (!e->closed)
            return;
        plait_session_release(e->s);
        memset(e, 0, sizeof *e);
    }
}

static void listen_all(void)
{
    for (int i = 0; i < 2; i++) {
        struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;

        o.session.conn_ops = &conn_ops;
        o.session.session_ops = &session_ops;
        o.session.ctxs = ctxs;
        o.session.nctxs = i ? 2 : 0;
        o.session.window = i ? 50 : 1024;
        o.session.max_msg = BIGGEST;
        cr_assert_eq(plait_listen(&listeners[i], ctxs[i], "plait://127.0.0.1:0", &o), 0, "%s", plait_error_text());
    }
}

static void poll_some(void)
{
    for (uint32_t n = rnd(4); n > 0; n--)
        cr_assert_geq(plait_ctx_poll(ctxs[rnd(CTXS)]), 0);
    if (rnd(200) == 0)
        plait_ctx_arm(ctxs[rnd(CTXS)]);
}

static void replace_client_context(void)
{
    unsigned i = 2 + rnd(CTXS - 2);

    cr_assert_eq(plait_ctx_destroy(ctxs[i]), 0, "%s", plait_error_text());
    cr_assert_eq(plait_ctx_create(&ctxs[i], NULL), 0);
}

static void one_step(void)
{
    struct entry *e = &sessions[rnd(SESSIONS)];
    uint32_t what = rnd(1000);

    if (!e->s)
        open_one(e);
    else if (what < 5 || e->closed)
        end_one(e);
    if (what == 999 && rnd(5) == 0)
        replace_client_context();
    if (what > 900 && nheld)
        drop_one_held();
    if (nsides) {
        unsigned from = nsides > 60 ? nsides - 60 : 0;

        some_action(&sides[from + rnd(nsides - from)]);
    }
    poll_some();
}

static bool all_over(void)
{
    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].s && !sessions[i].closed)
            return false;
    return true;
}

static void wind_up(void)
{
    uint64_t end = pli_clock_now() + 60 * PLI_NS_PER_S;

    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].s && !sessions[i].closed)
            plait_session_close(sessions[i].s);
    while (!all_over() && pli_clock_now() < end) {
        while (nheld)
            drop_one_held();
        for (int i = 0; i < CTXS; i++)
            cr_assert_geq(plait_ctx_poll(ctxs[i]), 0);
    }
    cr_assert(all_over(), "sessions do not end");
    for (int i = 0; i < SESSIONS; i++)
        plait_session_release(sessions[i].s);
    for (int i = 0; i < CTXS; i++)
        cr_assert_eq(plait_ctx_destroy(ctxs[i]), 0);
    while (nheld)
        drop_one_held();
    cr_assert_eq(accepted, completed, "%lu accepted, %lu completed", (unsigned long)accepted, (unsigned long)completed);
    for (unsigned i = 0; i < nsides; i++)
        cr_assert(sides[i].closed, "connection %u was never closed", i);
}

Test(session_stress, random_operations, .timeout = 300)
{
    const char *seed = getenv("PLAIT_TEST_SEED");
    uint32_t first = seed ? (uint32_t)strtoul(seed, NULL, 10) : (uint32_t)time(NULL) ^ (uint32_t)getpid() << 8;
    uint64_t end = pli_clock_now() + (getenv("PLAIT_TEST_QUICK") ? 2 : 4) * PLI_NS_PER_S;
    int fds = count_fds(), round;

    for (round = 0; pli_clock_now() < end; round++) {
        state = first + (uint32_t)round;
        fprintf(stderr, "PLAIT_TEST_SEED=%u\n", state);
        nsides = nheld = npending_slots = 0;
        accepted = completed = 0;
        memset(sessions, 0, sizeof sessions);
        memset(pending, 0, sizeof pending);
        for (int i = 0; i < CTXS; i++)
            cr_assert_eq(plait_ctx_create(&ctxs[i], NULL), 0);
        listen_all();
        for (int i = 0; i < 20000 && nsides < SIDES - 200; i++)
            one_step();
        wind_up();
        if (round == 0)
            fds = count_fds();
    }
    cr_assert_eq(count_fds(), fds, "descriptors are left");
    fprintf(stderr, "%d rounds, %lu messages\n", round, (unsigned long)delivered);
}
