/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of sessions: a server and a client in one thread, whose contexts are polled in turn, so that every run goes the
 * same way. What the library tells is written into logs, and its order is checked while it comes. */
#ifndef PLI_TEST_SESSION_UTIL_H
#define PLI_TEST_SESSION_UTIL_H

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plait/plait.h"
#include "runtime/link.h"
#include "test/unit/runtime/fds.h"
#include "util/clock.h"

/* Of the listener's URI; some of the tests are also built with "?transport=ofi". */
#ifndef TRANSPORT
#define TRANSPORT ""
#else
#include "test/unit/fabric/forgotten.h"
#endif

#define MAX_CTXS 8
#define MAX_LOGS 64
#define PATIENCE_NS (30 * PLI_NS_PER_S)

struct world;

/* Everything that a session of one side was told. */
struct log {
    struct world *w;
    struct plait_session *s;
    struct plait_conn *conn[PLAIT_MAX_CONNS];
    unsigned opened, closed;             /* session */
    unsigned c_opened, c_closed;         /* connections */
    bool conn_open[PLAIT_MAX_CONNS], conn_closed[PLAIT_MAX_CONNS];
    unsigned writable, msgs;
    unsigned misuse;                     /* events in a wrong order, or twice */
    bool lead_gone;                      /* the lead context is destroyed: connections of others may end later */
    int code, c_code;
    char text[512], c_text[512];
    uint8_t data[PLAIT_MAX_PRIVATE];
    unsigned data_len;
    void (*on_msg)(struct log *log, struct plait_conn *conn, struct plait_msg *msg);
    void (*on_writable)(struct log *log, struct plait_conn *conn);
    void (*on_closed)(struct log *log, struct plait_conn *conn);
    struct plait_msg *held[4096];
    unsigned nheld;
    void *user;
};

struct world {
    struct plait_ctx *ctx[MAX_CTXS]; /* 0: the server's, 1: the client's, then further ones */
    unsigned nctx;
    struct plait_listener *listener;
    char uri[256];
    /* the server */
    struct log srv[MAX_LOGS];
    unsigned nsrv;                   /* sessions that asked */
    void (*on_session)(struct world *w, struct log *log, const struct plait_session_request *req);
    void (*on_msg)(struct log *log, struct plait_conn *conn, struct plait_msg *msg);
    struct plait_session_opts accept; /* options to accept with */
    struct plait_session_request req; /* the last one; strings and data below */
    char resource[256];
    uint8_t data[PLAIT_MAX_PRIVATE];
};

/* ---- callbacks ---- */

static inline void log_conn_open(struct plait_conn *c, void *arg)
{
    struct log *log = arg;
    unsigned i = plait_conn_index(c);

    log->misuse += log->conn_open[i] || log->conn_closed[i] || log->closed || !plait_conn_is_open(c);
    log->conn_open[i] = true;
    log->conn[i] = c;
    log->c_opened++;
}

static inline void log_conn_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct log *log = arg;
    unsigned i = plait_conn_index(c);

    log->misuse += log->conn_closed[i] || (log->closed && !log->lead_gone) || plait_conn_is_open(c) || !why->text;
    log->conn_closed[i] = true;
    log->conn[i] = c;
    log->c_closed++;
    log->c_code = why->code;
    snprintf(log->c_text, sizeof log->c_text, "%s", why->text);
    if (log->on_closed)
        log->on_closed(log, c);
}

static inline void log_message(struct plait_conn *c, struct plait_msg *msg, void *arg)
{
    struct log *log = arg;
    unsigned i = plait_conn_index(c);

    log->misuse += !log->conn_open[i] || log->conn_closed[i] || log->closed || msg->conn != c;
    log->misuse += (msg->len == 0) != (msg->data == NULL) || (msg->hdr_len == 0) != (msg->hdr == NULL);
    log->misuse += ((uintptr_t)msg->hdr & 7) != 0 || (!msg->hdr && ((uintptr_t)msg->data & 7) != 0);
    log->msgs++;
    if (log->on_msg)
        log->on_msg(log, c, msg);
}

static inline void log_writable(struct plait_conn *c, void *arg)
{
    struct log *log = arg;
    unsigned i = plait_conn_index(c);

    log->misuse += !log->conn_open[i] || log->conn_closed[i];
    log->writable++;
    if (log->on_writable)
        log->on_writable(log, c);
}

static inline void log_open(struct plait_session *s, const void *data, size_t len, void *arg)
{
    struct log *log = arg;

    log->misuse += log->opened || log->closed || s != log->s || log->c_opened != plait_session_conn_count(s);
    log->opened++;
    if (len)
        memcpy(log->data, data, len);
    log->data_len = (unsigned)len;
}

static inline void log_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct log *log = arg;

    log->misuse += log->closed || s != log->s || (log->c_closed < log->c_opened && !log->lead_gone) || !why->text;
    log->closed++;
    log->code = why->code;
    snprintf(log->text, sizeof log->text, "%s", why->text);
    if (why->data_len)
        memcpy(log->data, why->data, why->data_len);
    log->data_len = why->data_len;
}

static const struct plait_conn_ops log_conn_ops = {
    .on_open = log_conn_open,
    .on_message = log_message,
    .on_writable = log_writable,
    .on_closed = log_conn_closed,
};

static const struct plait_session_ops log_session_ops = { .on_open = log_open, .on_closed = log_closed };

/* ---- running ---- */

static inline void poll_all(struct world *w)
{
    int n = 0;

    for (unsigned i = 0; i < w->nctx; i++) {
        int rc;

        if (!w->ctx[i])
            continue;
        rc = plait_ctx_poll(w->ctx[i]);
        cr_assert_geq(rc, 0, "%s", plait_error_text());
        n += rc;
    }
    if (n == 0)
        sched_yield();
}

/* Polls until *count is at least n. */
static inline bool reached(struct world *w, const unsigned *count, unsigned n)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    for (unsigned i = 0; *count < n; i++) {
        if (i % 64 == 63 && pli_clock_now() > end)
            return false;
        poll_all(w);
    }
    return true;
}

#define WAIT(w, count, n) cr_assert(reached(w, &(count), n), "%s is %u after 30 s, not %u", #count, count, n)

/* Polls as often as it takes for whatever is under way to settle: for what must not happen. */
static inline void settle(struct world *w)
{
    for (int i = 0; i < 2000; i++)
        poll_all(w);
}

static inline struct plait_ctx_stats ctx_stats(struct plait_ctx *ctx)
{
    struct plait_ctx_stats st;

    st.size = sizeof st;
    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0, "%s", plait_error_text());
    return st;
}

static inline struct plait_conn_info conn_info(struct plait_conn *c)
{
    struct plait_conn_info info;

    info.size = sizeof info;
    cr_assert_eq(plait_conn_get_info(c, &info), 0, "%s", plait_error_text());
    return info;
}

/* ---- set-up ---- */

static inline struct plait_ctx *add_ctx(struct world *w, unsigned flags)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;

    opts.flags = flags;
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    w->ctx[w->nctx++] = ctx;
    return ctx;
}

static inline void log_init(struct log *log, struct world *w)
{
    memset(log, 0, sizeof *log);
    log->w = w;
}

static inline void accept_now(struct world *w, struct log *log, const struct plait_session_request *req)
{
    (void)req;
    cr_assert_eq(plait_session_accept(log->s, &w->accept), 0, "%s", plait_error_text());
}

/* Every session that asks gets a log of its own, which w->accept's arg is set to. */
static inline void on_session(struct plait_session *s, const struct plait_session_request *req, void *arg)
{
    struct world *w = arg;
    struct log *log = &w->srv[w->nsrv++];

    cr_assert_leq(w->nsrv, MAX_LOGS);
    log_init(log, w);
    log->s = s;
    log->on_msg = w->on_msg;
    w->req = *req;
    snprintf(w->resource, sizeof w->resource, "%s", req->resource);
    if (req->data_len)
        memcpy(w->data, req->data, req->data_len);
    w->accept.arg = log;
    plait_session_set_arg(s, log); /* for what happens before it is accepted */
    w->on_session(w, log, req);
}

static inline struct plait_session_opts session_opts(struct log *log)
{
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

    o.session_ops = &log_session_ops;
    o.conn_ops = &log_conn_ops;
    o.arg = log;
    return o;
}

static inline void world_listen(struct world *w, const struct plait_listen_opts *given)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;

    if (given)
        o = *given;
    o.on_session = on_session;
    o.session.session_ops = &log_session_ops;
    o.session.conn_ops = &log_conn_ops;
    o.session.arg = w;
    cr_assert_eq(plait_listen(&w->listener, w->ctx[0], "plait://127.0.0.1/test" TRANSPORT, &o), 0, "%s", plait_error_text());
    snprintf(w->uri, sizeof w->uri, "%s", plait_listener_uri(w->listener));
}

/* Two contexts, a listener that accepts. Big: in static memory of each test program. */
static inline struct world *new_world(void)
{
    static struct world world;
    struct world *w = &world;

    memset(w, 0, sizeof *w);
    add_ctx(w, 0);
    add_ctx(w, 0);
    w->on_session = accept_now;
    w->accept = session_opts(NULL);
    return w;
}

static inline struct world *listening_world(void)
{
    struct world *w = new_world();

    /* what is offered by its addresses must not depend on what is faster here and now */
    setenv("PLAIT_CMA_MIN", "never", 0);
    world_listen(w, NULL);
    return w;
}

/* Starts to open a session from the client's context. */
static inline void start_open(struct world *w, struct log *log, const struct plait_session_opts *opts)
{
    struct plait_session_opts o = session_opts(log);

    log_init(log, w);
    if (opts)
        o = *opts;
    o.arg = log;
    cr_assert_eq(plait_session_open(&log->s, w->ctx[1], w->uri, &o), 0, "%s", plait_error_text());
}

/* Opens one and waits until both sides have every connection. Returns the server's log. */
static inline struct log *open_session(struct world *w, struct log *log, const struct plait_session_opts *opts)
{
    struct log *srv = &w->srv[w->nsrv];

    start_open(w, log, opts);
    WAIT(w, log->opened, 1);
    WAIT(w, srv->c_opened, plait_session_conn_count(log->s));
    return srv;
}

static inline void end_session(struct world *w, struct log *log)
{
    int rc = plait_session_close(log->s);

    cr_assert(rc == 0 || rc == PLAIT_E_CLOSED, "%s", plait_error_text());
    WAIT(w, log->closed, 1);
    plait_session_release(log->s);
    log->s = NULL;
}

/* Destroys the contexts (those that are left), and checks that everything was told, once. */
static inline void end_world(struct world *w)
{
    for (unsigned i = 0; i < w->nctx; i++) {
        if (w->ctx[i])
            cr_assert_eq(plait_ctx_destroy(w->ctx[i]), 0, "%s", plait_error_text());
        w->ctx[i] = NULL;
    }
    for (unsigned i = 0; i < w->nsrv; i++) {
        struct log *log = &w->srv[i];

        cr_assert_eq(log->misuse, 0, "server's session %u: events out of order", i);
        cr_assert_eq(log->c_opened, log->c_closed, "server's session %u: %u connections opened, %u closed", i,
                     log->c_opened, log->c_closed);
    }
}

/* The other context goes on until this session's connections are closed at both sides. */
static inline void check_log(const struct log *log)
{
    cr_assert_eq(log->misuse, 0, "events out of order, or twice");
    cr_assert_eq(log->closed, 1);
    cr_assert_leq(log->c_opened, log->c_closed);
}

/* ---- content ---- */

/* Bytes that tell their place and which message they are of. */
static inline void fill_bytes(void *to, size_t len, uint32_t seed)
{
    uint8_t *p = to;
    uint32_t x = seed * 2654435761u + 12345u;

    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
}

static inline bool has_bytes(const void *p, size_t len, uint32_t seed)
{
    uint8_t *want = malloc(len + 1);
    bool same;

    fill_bytes(want, len, seed);
    same = len == 0 || memcmp(p, want, len) == 0;
    free(want);
    return same;
}

/* ---- outcomes ---- */

/* What became of one request or receipt. */
struct outcome {
    unsigned n;   /* times it was completed */
    int status;
    size_t len;
    uint32_t hdr_len;
    uint8_t data[64];
    struct plait_msg *held; /* if hold was set */
    bool hold;
    unsigned *total; /* counts all, if not NULL */
};

static inline void on_reply(struct plait_msg *reply, int status, void *arg)
{
    struct outcome *o = arg;

    o->n++;
    o->status = status;
    cr_assert_eq(reply != NULL, status == 0);
    if (o->total)
        ++*o->total;
    if (!reply)
        return;
    o->len = reply->len;
    o->hdr_len = reply->hdr_len;
    if (reply->len)
        memcpy(o->data, reply->data, reply->len < sizeof o->data ? reply->len : sizeof o->data);
    if (o->hold)
        o->held = plait_msg_hold(reply);
}

static inline void on_done(int status, void *arg)
{
    struct outcome *o = arg;

    o->n++;
    o->status = status;
    if (o->total)
        ++*o->total;
}

#define FAILS(call, want)                                                                              \
    do {                                                                                               \
        int rc_ = (call);                                                                              \
        cr_assert_eq(rc_, want, "%s: %s (%s)", #call, plait_status_name(rc_), plait_error_text());     \
    } while (0)

/* Handlers of the server that many tests need. */
static inline void echo(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)log;
    (void)c;
    if (msg->kind == PLAIT_REQUEST) {
        struct plait_out out = PLAIT_OUT_INIT;

        out.hdr = msg->hdr;
        out.hdr_len = msg->hdr_len;
        out.data = msg->data;
        out.len = msg->len;
        FAILS(plait_replyx(msg, &out), 0);
    }
}

static inline void hold_all(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    (void)c;
    log->held[log->nheld] = plait_msg_hold(msg);
    cr_assert_not_null(log->held[log->nheld]);
    log->nheld++;
}

#endif
