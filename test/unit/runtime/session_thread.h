/* SPDX-License-Identifier: BSD-3-Clause */
/* A server in a thread of its own, whose answer to a request depends on the request's first byte. */
#ifndef PLI_TEST_SESSION_THREAD_H
#define PLI_TEST_SESSION_THREAD_H

#include <pthread.h>
#include "test/unit/runtime/session_util.h"

struct server_thread {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool ready, stopped;
    unsigned flags;
    struct plait_ctx *ctx;
    char uri[256];
    struct plait_session_opts opts;
    struct plait_msg *kept;
    unsigned msgs, closed, sessions_closed; /* its own; read them after server_stop() */
};

/* e: echo; k: keep it, the next r answers it; x: error 77; n: no reply; c: close; a: abort; 1: one-way back */
static inline void server_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct server_thread *t = arg;
    const char *p = m->data;

    t->msgs++;
    switch (m->len ? p[0] : 'e') {
    case 'e':
        plait_reply(m, m->data, m->len, 0);
        break;
    case 'k':
        t->kept = plait_msg_hold(m);
        break;
    case 'r':
        plait_reply(t->kept, "kept", 4, 0);
        plait_msg_release(t->kept);
        t->kept = NULL;
        plait_reply(m, NULL, 0, 0);
        break;
    case 'x':
        plait_reply_error(m, 77);
        break;
    case 'c':
        plait_conn_close(c);
        break;
    case 'a':
        plait_conn_abort(c);
        break;
    case '1':
        plait_reply(m, NULL, 0, 0);
        plait_send(c, "1", 1, 0);
        break;
    default:
        break;
    }
}

static inline void server_conn_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    (void)c;
    (void)why;
    ((struct server_thread *)arg)->closed++;
}

static inline void server_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    (void)s;
    (void)why;
    ((struct server_thread *)arg)->sessions_closed++;
}

static inline void *server_main(void *arg)
{
    static const struct plait_conn_ops conn_ops = { .on_message = server_message, .on_closed = server_conn_closed };
    static const struct plait_session_ops session_ops = { .on_closed = server_session_closed };
    struct server_thread *t = arg;
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l = NULL;

    co.flags = t->flags;
    lo.session = t->opts;
    lo.session.session_ops = &session_ops;
    lo.session.conn_ops = &conn_ops;
    lo.session.arg = t;
    if (plait_ctx_create(&t->ctx, &co) == 0 && plait_listen(&l, t->ctx, "plait://127.0.0.1:0/", &lo) == 0)
        snprintf(t->uri, sizeof t->uri, "%s", plait_listener_uri(l));
    pthread_mutex_lock(&t->mutex);
    t->ready = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
    if (l)
        while (plait_ctx_run(t->ctx, -1) == 0)
            continue;
    pthread_mutex_lock(&t->mutex); /* the context lives until plait_ctx_stop() has returned */
    while (l && !t->stopped)
        pthread_cond_wait(&t->cond, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    plait_msg_release(t->kept);
    plait_ctx_destroy(t->ctx);
    return NULL;
}

static inline void server_start(struct server_thread *t)
{
    t->opts = t->opts.size ? t->opts : (struct plait_session_opts)PLAIT_SESSION_OPTS_INIT;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->cond, NULL);
    cr_assert_eq(pthread_create(&t->thread, NULL, server_main, t), 0);
    pthread_mutex_lock(&t->mutex);
    while (!t->ready)
        pthread_cond_wait(&t->cond, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    cr_assert(t->uri[0], "the server did not start");
}

static inline void server_stop(struct server_thread *t)
{
    plait_ctx_stop(t->ctx);
    pthread_mutex_lock(&t->mutex);
    t->stopped = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
}

/* A client in the calling thread, with the server in its own. */
static inline struct world *client_world(struct server_thread *t, struct log *cli, unsigned flags)
{
    static struct world world;
    struct world *w = &world;
    struct plait_session_opts o = session_opts(cli);

    memset(w, 0, sizeof *w);
    add_ctx(w, flags);
    log_init(cli, w);
    if (flags & PLAIT_CTX_SHARED)
        FAILS(plait_ctx_lock(w->ctx[0]), 0);
    FAILS(plait_session_open(&cli->s, w->ctx[0], t->uri, &o), 0);
    FAILS(plait_session_wait(cli->s, -1), 0);
    if (flags & PLAIT_CTX_SHARED)
        FAILS(plait_ctx_unlock(w->ctx[0]), 0);
    return w;
}

#endif
