/* SPDX-License-Identifier: BSD-3-Clause */
/* What the two sides of the process tests of one-sided operations agree on: how the region looks, and how one gets its key. */
#ifndef RMA_LOAD_H
#define RMA_LOAD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plait/plait.h"

enum {
    RMA_ADD_AT = 0,       /* everybody adds here */
    RMA_CAS_AT = 64,      /* everybody counts up by compare and swap here */
    RMA_BLOCKS = 4096,    /* each has a block of its own from here on */
    RMA_BLOCK = 128 << 10,
    RMA_LEN = RMA_BLOCKS + 4 * RMA_BLOCK,
};

/* The owner: a request is answered with a key of its region for this session; 'w': all keys are withdrawn first. */
struct rma_owner {
    struct plait_mem *mem;
    struct plait_key key;
    unsigned sessions, closed, gone;
    int gone_status;
};

static inline void rma_gone(int status, void *arg)
{
    struct rma_owner *o = arg;

    o->gone++;
    o->gone_status = status;
}

static inline void rma_owner_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct rma_owner *o = arg;

    if (m->len && *(const char *)m->data == 'w') {
        plait_mem_withdraw(&o->key, rma_gone, o);
        plait_reply(m, NULL, 0, 0);
    } else if (plait_mem_export(o->mem, c, PLAIT_ACCESS_READ | PLAIT_ACCESS_WRITE, &o->key) == 0) {
        plait_reply(m, &o->key, sizeof o->key, 0);
    }
}

static inline void rma_owner_open(struct plait_conn *c, void *arg)
{
    (void)c;
    ((struct rma_owner *)arg)->sessions++;
}

static inline void rma_owner_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    (void)c;
    (void)why;
    ((struct rma_owner *)arg)->closed++;
}

static inline int rma_owner_start(struct rma_owner *o, struct plait_ctx *ctx, const char *uri, struct plait_listener **l)
{
    static const struct plait_conn_ops ops = { .on_open = rma_owner_open, .on_message = rma_owner_message, .on_closed = rma_owner_closed };
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_mem_opts mo = PLAIT_MEM_OPTS_INIT;
    int rc;

    memset(o, 0, sizeof *o);
    mo.flags = PLAIT_MEM_WRITABLE;
    rc = plait_mem_alloc(&o->mem, RMA_LEN, &mo);
    if (rc < 0)
        return rc;
    lo.session.conn_ops = &ops;
    lo.session.arg = o;
    return plait_listen(l, ctx, uri, &lo);
}

/* The user. */
struct rma_user {
    struct plait_ctx *ctx;
    struct plait_session *s;
    struct plait_conn *conn;
    struct plait_key key;
    unsigned closed;
    int code;
};

static inline void rma_user_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct rma_user *u = arg;

    (void)c;
    u->closed++;
    u->code = why->code;
}

static inline int rma_user_open(struct rma_user *u, struct plait_ctx *ctx, const char *uri)
{
    static const struct plait_conn_ops ops = { .on_closed = rma_user_closed };
    struct plait_session_opts so = PLAIT_SESSION_OPTS_INIT;
    int rc;

    memset(u, 0, sizeof *u);
    u->ctx = ctx;
    so.conn_ops = &ops;
    so.arg = u;
    rc = plait_session_open(&u->s, ctx, uri, &so);
    if (rc == 0)
        rc = plait_session_wait(u->s, -1);
    u->conn = rc == 0 ? plait_session_conn(u->s, 0) : NULL;
    return rc;
}

static inline int rma_user_ask(struct rma_user *u)
{
    struct plait_msg *reply = NULL;
    int rc = plait_call(u->conn, "k", 1, &reply, -1);

    if (rc < 0)
        return rc;
    if (reply->len == sizeof u->key)
        memcpy(&u->key, reply->data, sizeof u->key);
    else
        rc = PLAIT_E_PROTO;
    plait_msg_release(reply);
    return rc;
}

static inline void rma_set(int status, void *arg)
{
    *(int *)arg = status == 0 ? 1 : status;
}

/* Waits for one completion. */
static inline int rma_wait(struct rma_user *u, const int *done)
{
    while (*done == 0)
        if (plait_ctx_poll(u->ctx) < 0)
            return -1;
    return *done == 1 ? 0 : *done;
}

static inline int rma_flush(struct rma_user *u)
{
    int done = 0, rc = plait_rma_flush(u->conn, rma_set, &done);

    return rc < 0 ? rc : rma_wait(u, &done);
}

/* Counts up by one, whatever others do. */
static inline int rma_count_up(struct rma_user *u, uint64_t *guess)
{
    for (;;) {
        uint64_t old = 0;
        int done = 0, rc = plait_atomic_cas(u->conn, &u->key, RMA_CAS_AT, *guess, *guess + 1, &old, rma_set, &done);

        if (rc == 0)
            rc = rma_wait(u, &done);
        if (rc < 0)
            return rc;
        if (old == *guess)
            return 0;
        *guess = old;
    }
}

/* One round of everything on the own block. 1: what came back is not what was put. */
static inline int rma_round(struct rma_user *u, unsigned id, uint32_t seed, uint64_t *guess)
{
    static uint8_t out[RMA_BLOCK], in[RMA_BLOCK];
    uint64_t at = RMA_BLOCKS + (uint64_t)id * RMA_BLOCK, sum = 0, back = 0;
    size_t len = 1 + (seed * 2654435761u >> 8) % (RMA_BLOCK - 8);
    int rc;

    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(seed + i * 7 + i / 251);
        sum = sum * 31 + out[i];
    }
    rc = plait_put(u->conn, &u->key, at, out, len, NULL, NULL);
    if (rc == 0)
        rc = plait_atomic_add(u->conn, &u->key, RMA_ADD_AT, 1, NULL, NULL, NULL);
    if (rc == 0)
        rc = plait_get(u->conn, &u->key, at, in, len, NULL, NULL);
    if (rc == 0)
        rc = rma_flush(u);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < len; i++)
        back = back * 31 + in[i];
    if (back != sum)
        return 1;
    return rma_count_up(u, guess);
}

#endif
