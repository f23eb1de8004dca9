/* SPDX-License-Identifier: BSD-3-Clause */
/* The client's session to the peer: opening, control requests, waiting, failures. */
#include "perf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define QUIET_MAX 30 /* seconds without a message; a peer under a debugger is not dead, but useless here */

double perf_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int perf_fail(struct perf_client *c, int code, const char *fmt, ...)
{
    va_list ap;

    if (c->status)
        return c->status;
    c->status = code;
    if (fmt) {
        va_start(ap, fmt);
        vsnprintf(c->why, sizeof(c->why), fmt, ap);
        va_end(ap);
    } else {
        snprintf(c->why, sizeof(c->why), "%s", plait_error_text());
    }
    plait_ctx_stop(c->ctx);
    return code;
}

void perf_done(struct perf_client *c)
{
    c->done = true;
    if (c->park)
        plait_ctx_stop(c->ctx);
}

/* Polling is a function call for each look, but returns to us; running sleeps. */
static int wait_once(struct perf_client *c)
{
    int rc = c->park ? plait_ctx_run(c->ctx, -1) : plait_ctx_poll(c->ctx);

    if (rc < 0)
        return perf_fail(c, rc, NULL);
    return c->status;
}

int perf_wait(struct perf_client *c)
{
    c->quiet = 0;
    while (!c->done)
        if (wait_once(c) < 0)
            return c->status;
    c->done = false;
    return c->status;
}

int perf_wait_space(struct perf_client *c)
{
    c->quiet = 0;
    while (c->blocked)
        if (wait_once(c) < 0)
            return c->status;
    return c->status;
}

static void watch(void *arg)
{
    struct perf_client *c = arg;
    struct plait_ctx_stats st = { .size = sizeof(st) };

    if (plait_ctx_get_stats(c->ctx, &st) < 0)
        return;
    c->quiet = st.msgs_sent + st.msgs_received == c->seen ? c->quiet + 1 : 0;
    c->seen = st.msgs_sent + st.msgs_received;
    if (c->quiet >= QUIET_MAX)
        perf_fail(c, PLAIT_E_TIMEDOUT, "the peer has not answered for %d seconds; is it stopped?", QUIET_MAX);
}

/* ---- session ---- */

static void session_open(struct plait_session *s, const void *data, size_t len, void *arg)
{
    struct perf_client *c = arg;
    char text[64] = "";
    int cpu;

    (void)s;
    if (len < sizeof(text)) /* the rest of text is zeros */
        memcpy(text, len ? data : "", len);
    if (sscanf(text, PERF_HELLO " cpu=%d", &cpu) != 1)
        perf_fail(c, PLAIT_E_PROTO, "what listens there is no peer of plait perf of this version; start one "
                  "with plait perf --serve %s", c->uri);
    else
        c->peer_cpu = cpu;
}

static void session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct perf_client *c = arg;

    (void)s;
    c->closed = true;
    if (!c->closing && c->conn) /* else perf_client_open() tells */
        perf_fail(c, why->code < 0 ? why->code : PLAIT_E_CLOSED, "the session to the peer has ended: %s",
                  why->text);
    plait_ctx_stop(c->ctx);
}

static const struct plait_session_ops session_ops = { .on_open = session_open, .on_closed = session_closed };

int perf_client_open(struct perf_client *c, const struct plait_conn_ops *ops, unsigned window)
{
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;
    struct plait_conn_info info = { .size = sizeof(info) };
    struct plait_ctx *both[2] = { c->ctx, c->ctx }; /* the same pair of contexts: one link */
    char data[64];
    const char *why;

    c->closing = c->closed = c->done = c->blocked = false;
    c->conn = NULL;
    c->peer_cpu = -1;
    snprintf(data, sizeof(data), PERF_HELLO " window=%u take=%s", window, c->take);
    so.session_ops = &session_ops;
    so.conn_ops = ops;
    so.arg = c;
    so.data = data;
    so.data_len = strlen(data);
    so.window = window;
    so.max_msg = LIMIT_BW_MAX_SIZE;
    if (c->beside.size) {
        so.ctxs = both;
        so.nctxs = 2;
    }
    why = perf_take(&so, c->take);
    if (why)
        return perf_fail(c, PLAIT_E_INVAL, "--take %s: %s", c->take, why);
    if (plait_session_open(&c->session, c->ctx, c->uri, &so) < 0)
        return perf_fail(c, PLAIT_E_CLOSED, NULL);
    if (plait_session_wait(c->session, -1) < 0)
        return perf_fail(c, PLAIT_E_CLOSED, NULL);
    if (c->status)
        return c->status;
    c->conn = plait_session_conn(c->session, 0);
    c->beside.conn = plait_session_conn(c->session, 1); /* or NULL */
    if (plait_conn_get_info(c->conn, &info) == 0)
        snprintf(c->transport, sizeof(c->transport), "%s", info.transport);
    if (!c->watchdog && plait_timer_create(&c->watchdog, c->ctx, watch, c) < 0)
        return perf_fail(c, PLAIT_E_NOMEM, NULL);
    plait_timer_start(c->watchdog, 1000000, 1000000);
    return 0;
}

int perf_client_close(struct perf_client *c)
{
    int rc = 0;

    if (!c->session)
        return 0;
    c->closing = true;
    if (plait_session_close(c->session) == 0)
        while (!c->closed && rc >= 0)
            rc = plait_ctx_run(c->ctx, -1); /* the session's linger time ends it */
    plait_session_release(c->session);
    c->session = NULL;
    if (c->watchdog)
        plait_timer_stop(c->watchdog);
    return rc < 0 ? rc : 0;
}

/* ---- control ---- */

static void on_answer(struct plait_msg *reply, int status, void *arg)
{
    struct perf_client *c = arg;

    if (status || reply->len != sizeof(c->answer)) {
        if (!c->closing && status != PLAIT_E_PEERDIED) /* else session_closed() says it better */
            perf_fail(c, status < 0 ? status : PLAIT_E_PROTO, "the peer did not answer a control request: %s",
                      status < 0 ? plait_strerror(status) : "not in this protocol");
        return;
    }
    memcpy(&c->answer, reply->data, sizeof(c->answer));
    perf_done(c);
}

int perf_control(struct perf_client *c, enum perf_op op, enum perf_mode mode)
{
    struct perf_cmd cmd = { .op = op, .mode = mode, .spin = !c->park, .size = c->size, .n = c->n };
    struct plait_out out = PLAIT_OUT_INIT;
    int rc;

    out.hdr = &cmd;
    out.hdr_len = sizeof(cmd);
    out.on_reply = on_answer;
    out.arg = c;
    while ((rc = plait_sendx(c->conn, &out)) == PLAIT_E_AGAIN) {
        c->blocked = true;
        if (perf_wait_space(c) < 0)
            return c->status;
    }
    return rc < 0 ? perf_fail(c, rc, NULL) : perf_wait(c);
}
