/* SPDX-License-Identifier: BSD-3-Clause */
/* Awaited replies and receipts of a connection: a table with a free list, so that sending and completing neither allocate nor
 * search. The generation in the number on the wire catches a peer that answers twice, or something else. */
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "runtime/mem.h"
#include "runtime/take.h"
#include "util/err.h"

#define FIRST_ENTRIES 16u
#define MAX_ENTRIES PLI_REQ_NONE

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
    r->more = NULL;
    r->share = 0;
    r->seq = (uint32_t)c->tx_seq;
    c->req_begun++;
    return 0;
}

static void put_mems(struct plait_mem *const *mems, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        pli_mem_put(mems[i]);
}

/* The message is completed, or its user does not wait any more: the timer, the place of the reply, the shares, the regions. */
static void drop_more(struct plait_conn *c, struct pli_req *r)
{
    struct pli_req_more *more = r->more;

    if (r->share)
        pli_share_give(c->held_link, r->share - 1);
    r->share = 0;
    r->more = NULL;
    if (!more)
        return;
    pli_timer_stop(c->ctx, &more->timer);
    pli_pieces_free(more->into);
    for (uint32_t i = 0; i < more->nshares; i++)
        pli_share_give(c->held_link, more->shares[i]);
    put_mems(more->mems, more->nmems);
    free(more->mems);
    pli_pieces_free(more->named);
    free(more);
}

void pli_req_free(struct plait_conn *c, uint32_t index, bool replied)
{
    struct pli_req *r = &c->reqs[index];

    if (__builtin_expect(r->key & PLI_REQ_ODD, 0))
        drop_more(c, r);
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

/* The reply may still come: the entry waits for it, without its user. */
void pli_req_forget_one(struct plait_conn *c, struct pli_req *r)
{
    if (r->key & PLI_REQ_ODD)
        drop_more(c, r);
    set_key(r, pli_req_cookie(r), PLI_REQ_FORGOTTEN);
    pli_conn_asm_forget(c, pli_req_cookie(r));
    pli_take_forget(c, pli_req_cookie(r));
}

static void timed_out(struct pli_timer *t)
{
    struct pli_req_more *more = pli_container_of(t, struct pli_req_more, timer);
    struct plait_conn *c = more->conn;
    struct pli_req *r = &c->reqs[more->index];
    plait_reply_fn fn = r->on_reply;
    void *arg = r->arg;

    pli_req_forget_one(c, r);
    fn(NULL, PLAIT_E_TIMEDOUT, arg);
}

/* More for the entry, with room for n shares. NULL: no memory. */
static struct pli_req_more *more_of(struct plait_conn *c, uint32_t index, uint32_t n)
{
    struct pli_req *r = &c->reqs[index];
    struct pli_req_more *more = r->more;

    if (more && n <= more->nshares)
        return more;
    if (more) /* only an entry without a timer gets shares, so that nothing points into it */
        more = realloc(more, sizeof *more + n * sizeof(more->shares[0]));
    else
        more = calloc(1, sizeof *more + n * sizeof(more->shares[0]));
    if (!more) {
        pli_fail(PLAIT_E_NOMEM, "no memory for what goes with a request");
        return NULL;
    }
    more->conn = c;
    more->index = index;
    if (!r->more)
        pli_timer_init(&more->timer, timed_out);
    r->more = more;
    r->key |= PLI_REQ_ODD;
    return more;
}

int pli_req_set_timeout(struct plait_conn *c, uint32_t index, uint64_t timeout_us)
{
    struct pli_req_more *more = more_of(c, index, 0);

    if (!more)
        return PLAIT_E_NOMEM;
    pli_timer_start(c->ctx, &more->timer, pli_deadline(timeout_us > INT64_MAX ? -1 : (int64_t)timeout_us, PLI_NS_PER_US));
    return 0;
}

int pli_req_set_into(struct plait_conn *c, uint32_t index, const struct iovec *iov, unsigned niov)
{
    struct pli_req_more *more = more_of(c, index, 0);

    if (more)
        more->into = pli_pieces_new(iov, niov, SIZE_MAX, NULL, 0);
    return more && more->into ? 0 : pli_fail(PLAIT_E_NOMEM, "no memory to remember where a reply is put");
}

struct pli_pieces *pli_req_into(const struct pli_req *r, size_t len, const void *hdr, uint32_t hdr_len, int *rc)
{
    const struct pli_pieces *into = r->key & PLI_REQ_ODD && r->more ? r->more->into : NULL;
    struct pli_pieces *place;

    *rc = 0;
    if (!into || pli_iov_len(into->iov, into->niov) < len)
        return NULL;
    place = pli_pieces_new(into->iov, into->niov, len, hdr, hdr_len);
    if (!place)
        *rc = pli_fail(PLAIT_E_NOMEM, "no memory to put a reply where it is wanted");
    return place;
}

int pli_req_set_named(struct plait_conn *c, uint32_t index, const struct iovec *iov, unsigned niov, struct plait_mem *const *mems,
                      uint32_t n)
{
    struct plait_mem **kept = malloc(n * sizeof(mems[0]) + 1);
    struct pli_pieces *named = kept ? pli_pieces_new(iov, niov, SIZE_MAX, NULL, 0) : NULL;
    struct pli_req_more *more = named ? more_of(c, index, 0) : NULL;

    if (!more) {
        pli_pieces_free(named);
        free(kept);
        put_mems(mems, n);
        return pli_fail(PLAIT_E_NOMEM, "no memory for what goes with a message");
    }
    if (n)
        memcpy(kept, mems, n * sizeof(mems[0]));
    more->named = named;
    more->mems = kept;
    more->nmems = n;
    return 0;
}

int pli_req_set_shares(struct plait_conn *c, uint32_t index, const uint16_t *slots, uint32_t n)
{
    struct pli_req *r = &c->reqs[index];
    struct pli_req_more *more;

    if (n == 1) {
        r->share = (uint16_t)(slots[0] + 1);
        r->key |= PLI_REQ_ODD;
    } else {
        more = more_of(c, index, n);
        if (!more)
            return PLAIT_E_NOMEM;
        memcpy(more->shares, slots, n * sizeof(slots[0]));
        more->nshares = n;
    }
    for (uint32_t i = 0; i < n; i++)
        pli_share_take(c->link, slots[i]);
    return 0;
}

void pli_req_forget(struct plait_conn *c, const void *arg)
{
    for (uint32_t i = 0; i < c->nreqs; i++) {
        struct pli_req *r = &c->reqs[i];

        if (pli_req_kind(r) != PLI_REQ_REPLY || r->arg != arg)
            continue;
        pli_req_forget_one(c, r);
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
        if (reqs[i].key & PLI_REQ_ODD)
            drop_more(c, &reqs[i]);
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

/* Of a connection that has ended nothing is left, but in the child of a fork, which has neither timers nor shares. */
void pli_req_table_free(struct plait_conn *c)
{
    for (uint32_t i = 0; i < c->nreqs; i++) {
        struct pli_req_more *more = c->reqs[i].key & PLI_REQ_ODD ? c->reqs[i].more : NULL;

        if (more) { /* the regions are the parent's */
            pli_pieces_free(more->into);
            pli_pieces_free(more->named);
            free(more->mems);
        }
        free(more);
    }
    free(c->reqs);
    c->reqs = NULL;
}
