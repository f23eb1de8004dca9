/* SPDX-License-Identifier: BSD-3-Clause */
/* Awaited replies and receipts of a connection: a table with a free list, so that sending and completing neither allocate nor
 * search. The generation in the number on the wire catches a peer that answers twice, or something else. */
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "util/err.h"

#define FIRST_ENTRIES 16u
#define MAX_ENTRIES PLI_REQ_NONE

struct pli_req_timer {
    struct pli_timer timer;
    struct plait_conn *conn;
    uint32_t index;
};

static int grow(struct plait_conn *c)
{
    uint32_t n = c->nreqs ? c->nreqs * 2u : FIRST_ENTRIES;
    struct pli_req *reqs;

    if (n > MAX_ENTRIES)
        n = MAX_ENTRIES;
    if (n == c->nreqs)
        return pli_fail(PLAIT_E_AGAIN, "%u requests are outstanding on this connection, the most there can be", n);
    reqs = realloc(c->reqs, n * sizeof *reqs);
    if (!reqs)
        return pli_fail(PLAIT_E_NOMEM, "no memory for %u outstanding requests", n);
    memset(reqs + c->nreqs, 0, (n - c->nreqs) * sizeof *reqs);
    for (uint32_t i = c->nreqs; i < n; i++) {
        uint64_t next = i + 1 < n ? i + 1 : PLI_REQ_NONE;

        reqs[i].key = i | PLI_REQ_KEY(PLI_REQ_FREE) | next << 48;
    }
    c->req_free = (uint16_t)c->nreqs;
    c->reqs = reqs;
    c->nreqs = (uint16_t)n;
    return 0;
}

static void set_key(struct pli_req *r, uint32_t cookie, enum pli_req_kind kind)
{
    r->key = cookie | PLI_REQ_KEY(kind);
}

int pli_req_alloc(struct plait_conn *c, enum pli_req_kind kind, uint32_t *index)
{
    struct pli_req *r;

    if (__builtin_expect(c->req_free == PLI_REQ_NONE, 0)) {
        int rc = grow(c);

        if (rc < 0)
            return rc;
    }
    *index = c->req_free;
    r = &c->reqs[*index];
    c->req_free = (uint16_t)(r->key >> 48);
    set_key(r, pli_req_cookie(r), kind);
    r->timer = NULL;
    r->seq = (uint32_t)c->tx_seq;
    c->req_begun++;
    return 0;
}

static void drop_timer(struct plait_conn *c, struct pli_req *r)
{
    pli_timer_stop(c->ctx, &r->timer->timer);
    free(r->timer);
    r->timer = NULL;
}

void pli_req_free(struct plait_conn *c, uint32_t index, bool replied)
{
    struct pli_req *r = &c->reqs[index];

    if (__builtin_expect(r->timer != NULL, 0))
        drop_timer(c, r);
    set_key(r, pli_req_cookie(r) + 0x10000u, PLI_REQ_FREE);
    r->key |= (uint64_t)c->req_free << 48;
    c->req_free = (uint16_t)index;
    c->req_ended++;
    if (!replied)
        c->req_unreplied++;
}

struct pli_req *pli_req_find(struct plait_conn *c, uint32_t cookie)
{
    uint32_t index = cookie & 0xffffu;
    struct pli_req *r;

    if (index >= c->nreqs)
        return NULL;
    r = &c->reqs[index];
    return pli_req_cookie(r) == cookie && pli_req_kind(r) != PLI_REQ_FREE ? r : NULL;
}

static void timed_out(struct pli_timer *t)
{
    struct pli_req_timer *rt = pli_container_of(t, struct pli_req_timer, timer);
    struct plait_conn *c = rt->conn;
    struct pli_req *r = &c->reqs[rt->index];
    plait_reply_fn fn = r->on_reply;
    void *arg = r->arg;

    /* the reply may still come: the entry waits for it, without its user */
    r->timer = NULL;
    set_key(r, pli_req_cookie(r), PLI_REQ_FORGOTTEN);
    free(rt);
    fn(NULL, PLAIT_E_TIMEDOUT, arg);
}

int pli_req_set_timeout(struct plait_conn *c, uint32_t index, uint64_t timeout_us)
{
    struct pli_req_timer *rt = malloc(sizeof *rt);

    if (!rt)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a request's timer");
    rt->conn = c;
    rt->index = index;
    pli_timer_init(&rt->timer, timed_out);
    pli_timer_start(c->ctx, &rt->timer, pli_deadline(timeout_us > INT64_MAX ? -1 : (int64_t)timeout_us, PLI_NS_PER_US));
    c->reqs[index].timer = rt;
    c->reqs[index].key |= PLI_REQ_TIMED;
    return 0;
}

void pli_req_forget(struct plait_conn *c, const void *arg)
{
    for (uint32_t i = 0; i < c->nreqs; i++) {
        struct pli_req *r = &c->reqs[i];

        if (pli_req_kind(r) != PLI_REQ_REPLY || r->arg != arg)
            continue;
        if (r->timer)
            drop_timer(c, r);
        set_key(r, pli_req_cookie(r), PLI_REQ_FORGOTTEN);
    }
}

static int by_seq(const void *a, const void *b)
{
    const struct pli_req *x = a, *y = b;

    return (int32_t)(x->seq - y->seq) < 0 ? -1 : x->seq != y->seq;
}

/* Completes everything with code, in the order of sending. The callbacks cannot add anything: the connection is closed. */
void pli_req_fail_all(struct plait_conn *c, int code)
{
    struct pli_req *reqs = c->reqs;
    uint32_t n = c->nreqs;

    for (uint32_t i = 0; i < n; i++)
        if (reqs[i].timer)
            drop_timer(c, &reqs[i]);
    c->reqs = NULL;
    c->nreqs = 0;
    c->req_free = PLI_REQ_NONE;
    c->req_unreplied += c->req_begun - c->req_ended;
    c->req_ended = c->req_begun;
    if (n)
        qsort(reqs, n, sizeof *reqs, by_seq);
    for (uint32_t i = 0; i < n; i++) {
        if (pli_req_kind(&reqs[i]) == PLI_REQ_REPLY)
            reqs[i].on_reply(NULL, code, reqs[i].arg);
        else if (pli_req_kind(&reqs[i]) == PLI_REQ_DONE)
            reqs[i].on_done(code, reqs[i].arg);
    }
    free(reqs);
}

void pli_req_table_free(struct plait_conn *c)
{
    free(c->reqs);
    c->reqs = NULL;
}
