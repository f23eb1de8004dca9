/* SPDX-License-Identifier: BSD-3-Clause */
/* What a link costs in shared memory: measured with a context that talks to itself. */
#include "info.h"

#include <stdio.h>
#include <string.h>

#define BUSY_MESSAGES 20000
#define PATIENCE_US   2000000

struct probe {
    struct plait_ctx *ctx;
    struct plait_listener *listener;
    struct plait_session *session;
    unsigned long got, ended;
};

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct probe *p = arg;

    (void)conn;
    (void)msg;
    p->got++;
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct probe *p = arg;

    (void)s;
    (void)why;
    p->ended++;
}

static const struct plait_conn_ops conn_ops = { .on_message = on_message };
static const struct plait_session_ops session_ops = { .on_closed = on_closed };

static int fail(struct info_link *link, const char *text)
{
    snprintf(link->why, sizeof(link->why), "%s", text);
    return -1;
}

static int probe_open(struct probe *p, struct info_link *link)
{
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;

    co.spin_us = 0;
    lo.session.conn_ops = &conn_ops;
    lo.session.arg = p;
    lo.session.window = 4096;
    so.session_ops = &session_ops;
    so.arg = p;
    so.open_timeout_ms = PATIENCE_US / 1000;
    so.linger_ms = PATIENCE_US / 1000;
    if (plait_ctx_create(&p->ctx, &co) < 0 ||
        plait_listen(&p->listener, p->ctx, "plait://127.0.0.1:0/info", &lo) < 0 ||
        plait_session_open(&p->session, p->ctx, plait_listener_uri(p->listener), &so) < 0 ||
        plait_session_wait(p->session, -1) < 0)
        return fail(link, plait_error_text());
    return 0;
}

/* Both ends are this context's, so its counters have both sides. */
static int side_bytes(struct probe *p, uint64_t *bytes, struct info_link *link)
{
    struct plait_ctx_stats st = { .size = sizeof(st) };

    if (plait_ctx_get_stats(p->ctx, &st) < 0)
        return fail(link, plait_error_text());
    if (st.links != 2 || st.shm_bytes == 0)
        return fail(link, "the link is not over shared memory");
    *bytes = st.shm_bytes;
    return 0;
}

static int stream(struct probe *p, struct info_link *link)
{
    struct plait_conn *conn = plait_session_conn(p->session, 0);
    unsigned long sent = 0, polls = 0;

    while (p->got < BUSY_MESSAGES) {
        int rc = sent < BUSY_MESSAGES ? plait_send(conn, "info", 4, PLAIT_MORE) : PLAIT_E_AGAIN;

        if (rc == 0) {
            sent++;
            continue;
        }
        if (rc != PLAIT_E_AGAIN)
            return fail(link, plait_error_text());
        plait_flush(conn);
        if (plait_ctx_poll(p->ctx) < 0 || p->ended || ++polls > 100 * BUSY_MESSAGES)
            return fail(link, "messages to itself do not arrive");
    }
    return 0;
}

void info_measure_link(struct info_link *link)
{
    struct probe p = { 0 };
    uint64_t both = 0, after = 0;

    memset(link, 0, sizeof(*link));
    if (probe_open(&p, link) == 0 && side_bytes(&p, &both, link) == 0 && stream(&p, link) == 0 &&
        side_bytes(&p, &after, link) == 0) {
        link->quiet = both / 2;
        link->busy = after - both / 2; /* only the side that sent has grown */
    }
    if (p.session && !p.ended && plait_session_close(p.session) == 0)
        while (!p.ended && plait_ctx_run(p.ctx, 10000) >= 0)
            ;
    plait_session_release(p.session);
    plait_listener_close(p.listener);
    if (p.ctx)
        plait_ctx_destroy(p.ctx);
}
