/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: at once where the region is mapped, else in a queue. */
#include "runtime/rma.h"

#include <stdlib.h>
#include <string.h>
#include "runtime/loop_priv.h"
#include "util/copy.h"
#include "util/err.h"

#define WAIT_NS ((uint64_t)PLAIT_RMA_WAIT_MS * PLI_NS_PER_MS)

/* ---- doing ---- */

static __attribute__((noinline, cold)) int revoked(const struct pli_import *m, uint64_t done)
{
    if (done)
        return pli_fail(PLAIT_E_REVOKED, "the key of region '%s' was withdrawn by its owner after %llu bytes had been copied", m->name,
                        (unsigned long long)done);
    return pli_fail(PLAIT_E_REVOKED, "the key of region '%s' has been withdrawn by its owner", m->name);
}

/* acquire: what we read or write next is after it */
static inline bool is_valid(const struct pli_import *m)
{
    return atomic_load_explicit(m->word, memory_order_acquire) == m->key.secret;
}

static int copy(const struct pli_import *m, char *to, const char *from, size_t len)
{
    for (size_t done = 0; done < len;) {
        size_t n = len - done < PLI_RMA_STEP ? len - done : PLI_RMA_STEP;

        if (!is_valid(m))
            return revoked(m, done);
        pli_copy(to + done, from + done, n);
        done += n;
    }
    return 0;
}

static inline void add_8(void *p, uint64_t add, uint64_t *old)
{
    uint64_t was = atomic_fetch_add_explicit((_Atomic uint64_t *)p, add, memory_order_seq_cst);

    if (old)
        *old = was;
}

static inline void cas_8(void *p, uint64_t expected, uint64_t desired, uint64_t *old)
{
    atomic_compare_exchange_strong_explicit((_Atomic uint64_t *)p, &expected, desired, memory_order_seq_cst, memory_order_seq_cst);
    if (old)
        *old = expected;
}

const unsigned char pli_rma_needs[] = {
    [PLI_RMA_PUT] = PLAIT_ACCESS_WRITE,
    [PLI_RMA_GET] = PLAIT_ACCESS_READ,
    [PLI_RMA_ADD] = PLI_RMA_ACCESS,
    [PLI_RMA_CAS] = PLI_RMA_ACCESS,
};

static __attribute__((noinline, cold)) int forbidden(const struct pli_import *m, const struct pli_rma_op *op)
{
    static const char *const names[] = { "nothing", "reading", "writing", "reading and writing" };

    if (op->offset > m->len || op->len > m->len - op->offset)
        return pli_fail(PLAIT_E_INVAL, "%zu bytes at offset %llu are outside the region '%s' of %llu bytes", op->len,
                        (unsigned long long)op->offset, m->name, (unsigned long long)m->len);
    return pli_fail(PLAIT_E_PERM, "the key of region '%s' is for %s, this operation needs %s", m->name,
                    names[m->key.access & PLI_RMA_ACCESS], names[pli_rma_needs[op->kind]]);
}

/* Counts what became of an operation; gives rc back. */
static inline int counted(struct plait_conn *c, enum pli_rma_kind kind, size_t len, int rc)
{
    struct plait_ctx_stats *st = &c->ctx->st;

    if (__builtin_expect(rc < 0, 0)) {
        st->rma_failed++;
        return rc;
    }
    st->rma_puts += kind == PLI_RMA_PUT;
    st->rma_gets += kind == PLI_RMA_GET;
    st->rma_atomics += kind == PLI_RMA_ADD || kind == PLI_RMA_CAS;
    if (kind == PLI_RMA_PUT || kind == PLI_RMA_GET)
        st->rma_bytes += len;
    return rc;
}

/* As perform(). */
static int try(struct plait_conn *c, const struct pli_rma_op *op)
{
    struct pli_import *m;
    char *p;
    int rc = pli_rma_find(c, &op->key, &m);

    if (rc)
        return rc;
    if (op->offset > m->len || op->len > m->len - op->offset || (m->key.access & pli_rma_needs[op->kind]) != pli_rma_needs[op->kind])
        return forbidden(m, op);
    if (m->remote)
        return 2;
    if (!is_valid(m))
        return revoked(m, 0);
    p = m->pm->addr + op->offset;
    switch (op->kind) {
    case PLI_RMA_PUT:
        return copy(m, p, op->from, op->len);
    case PLI_RMA_GET:
        return copy(m, op->to, p, op->len);
    case PLI_RMA_ADD:
        add_8(p, op->a, op->to);
        return 0;
    default:
        cas_8(p, op->a, op->b, op->to);
        return 0;
    }
}

/* 0: done; 1: its region may still come; 2: its target has to do it; negative: a code with a sentence. */
static int perform(struct plait_conn *c, const struct pli_rma_op *op)
{
    int rc = try(c, op);

    return rc > 0 ? rc : counted(c, op->kind, op->len, rc);
}

/* ---- completing ---- */

static void op_free(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    r->nops--;
    if (r->nspare < PLI_RMA_OPS_KEPT) {
        pli_list_push_back(&r->spare, &op->node);
        r->nspare++;
    } else {
        free(op);
    }
}

/* op is on no list. */
static void finish(struct pli_rma_conn *r, struct pli_rma_op *op, int status)
{
    if (op->kind == PLI_RMA_FLUSH) {
        /* the copies before it, before whatever its user does next, also by means that plait does not know */
        atomic_thread_fence(memory_order_seq_cst);
        status = r->first_error;
        r->first_error = 0;
    }
    if (!op->fn) {
        if (status < 0 && r->first_error == 0)
            r->first_error = status;
        op_free(r, op);
        return;
    }
    op->status = status;
    pli_list_push_back(&r->done, &op->node);
    pli_ctx_defer(r->conn->ctx, &r->deliver);
}

/* Frees it before its function is called, which may start another. */
static void tell(struct pli_rma_conn *r, struct pli_rma_op *op, int status)
{
    plait_done_fn fn = op->fn;
    void *arg = op->arg;

    op_free(r, op);
    if (fn)
        fn(status, arg);
}

static void space_again(struct plait_conn *c)
{
    if (!c->blocked || c->state != PLI_CONN_OPEN)
        return;
    if (!pli_list_is_on(&c->blocked_on))
        pli_list_push_back(&c->link->blocked, &c->blocked_on);
    pli_ctx_defer(c->ctx, &c->link->pump);
}

static void deliver_fn(struct pli_defer *d)
{
    struct pli_rma_conn *r = pli_container_of(d, struct pli_rma_conn, deliver);
    struct plait_conn *c = r->conn;
    struct pli_list *node;
    size_t n = pli_list_count(&r->done); /* those that are added meanwhile wait for the next round */

    pli_session_ref(c->session);
    for (; n > 0 && !c->ctx->forked && (node = pli_list_pop_front(&r->done)) != NULL; n--) {
        struct pli_rma_op *op = pli_container_of(node, struct pli_rma_op, node);

        tell(r, op, op->status);
    }
    if (!c->ctx->forked) {
        if (!pli_list_is_empty(&r->done))
            pli_ctx_defer(c->ctx, &r->deliver);
        space_again(c);
        pli_conn_quiet_later(c);
    }
    pli_session_unref(c->session);
}

/* ---- waiting for regions ---- */

static void stop_waiting(struct pli_rma_conn *r)
{
    pli_list_remove(&r->waiting);
    pli_timer_stop(r->conn->ctx, &r->patience);
}

void pli_rma_op_over(struct pli_rma_conn *r, struct pli_rma_op *op, int status)
{
    finish(r, op, counted(r->conn, op->kind, op->len, status));
}

/* The first of the queue. True: it has left the queue. */
static bool pump_one(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    int rc;

    pli_timer_stop(r->conn->ctx, &r->patience);
    if (r->asking || r->nasked >= PLI_RMA_ASKED || (op->kind == PLI_RMA_FLUSH && !pli_list_is_empty(&r->sent)))
        return false; /* until there is an answer */
    rc = op->kind == PLI_RMA_FLUSH ? 0 : perform(r->conn, op);
    if (rc == 1 && pli_clock_now() >= op->deadline)
        rc = counted(r->conn, op->kind, op->len, PLAIT_E_TIMEDOUT);
    if (rc == 1) {
        pli_timer_start(r->conn->ctx, &r->patience, op->deadline);
        return false;
    }
    pli_list_remove(&op->node);
    if (rc == 2)
        pli_rma_ask(r, op);
    else
        finish(r, op, rc);
    return true;
}

/* Does what can be done, in order. */
void pli_rma_pump_conn(struct pli_rma_conn *r)
{
    struct pli_list *node;

    if (r->asking)
        pli_rma_ask_more(r);
    while ((node = pli_list_first(&r->queue)) != NULL)
        if (!pump_one(r, pli_container_of(node, struct pli_rma_op, node)))
            return;
    stop_waiting(r);
    pli_conn_quiet_later(r->conn);
    if (pli_list_is_empty(&r->done))
        space_again(r->conn);
}

static void patience_fn(struct pli_timer *t)
{
    pli_rma_pump_conn(pli_container_of(t, struct pli_rma_conn, patience));
}

void pli_rma_pump(struct pli_link *link)
{
    struct pli_list turn, *node;

    pli_list_init(&turn);
    pli_list_splice_back(&turn, &link->rma->waiting);
    while ((node = pli_list_pop_front(&turn)) != NULL) {
        pli_list_push_back(&link->rma->waiting, node);
        pli_rma_pump_conn(pli_container_of(node, struct pli_rma_conn, waiting));
    }
}

void pli_rma_conn_init(struct pli_rma_conn *r)
{
    pli_list_init(&r->queue);
    pli_list_init(&r->sent);
    pli_list_init(&r->done);
    pli_list_init(&r->spare);
    pli_list_init(&r->waiting);
    pli_defer_init(&r->deliver, deliver_fn);
    pli_timer_init(&r->patience, patience_fn);
}

static void fail_all(struct pli_rma_conn *r, struct pli_list *list, int code)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(list)) != NULL) {
        struct pli_rma_op *op = pli_container_of(node, struct pli_rma_op, node);

        if (op->kind != PLI_RMA_FLUSH && code < 0)
            counted(r->conn, op->kind, op->len, code);
        tell(r, op, code);
    }
}

void pli_rma_complete_all(struct pli_rma_conn *r, int code)
{
    struct pli_list *node;

    stop_waiting(r);
    pli_defer_cancel(&r->deliver);
    r->asking = NULL;
    while ((node = pli_list_pop_front(&r->done)) != NULL) {
        struct pli_rma_op *op = pli_container_of(node, struct pli_rma_op, node);

        tell(r, op, op->status);
    }
    fail_all(r, &r->sent, code);
    fail_all(r, &r->queue, code);
}

/* ---- starting ---- */

static int again(struct plait_conn *c, const char *why)
{
    c->blocked = true;
    c->ctx->st.again++;
    return pli_fail_const(PLAIT_E_AGAIN, why);
}

static inline int check(struct plait_conn *c)
{
    if (__builtin_expect(c->state != PLI_CONN_OPEN || pli_ctx_check(c->ctx) < 0, 0))
        return pli_conn_check_open(c, "operations");
    return 0;
}

/* Room for one that is told of, or waits. */
static int op_alloc(struct pli_rma_conn *r, const struct pli_rma_op *op, struct pli_rma_op **out)
{
    struct pli_list *node;

    if (r->nops >= PLAIT_RMA_OPS_MAX)
        return again(r->conn, "PLAIT_RMA_OPS_MAX one-sided operations of the connection wait or are to be told of");
    node = pli_list_pop_front(&r->spare);
    if (node)
        r->nspare--;
    *out = node ? pli_container_of(node, struct pli_rma_op, node) : malloc(sizeof **out);
    if (!*out)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a one-sided operation");
    r->nops++;
    **out = *op;
    pli_list_init(&(*out)->node);
    return 0;
}

static void enqueue(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    op->deadline = pli_clock_after(pli_clock_now(), WAIT_NS);
    if (pli_list_is_empty(&r->queue)) {
        pli_list_push_back(&r->conn->link->rma->waiting, &r->waiting);
        pli_timer_start(r->conn->ctx, &r->patience, op->deadline);
    }
    pli_list_push_back(&r->queue, &op->node);
}

/* With an on_done, or behind others, or before its region. */
static __attribute__((noinline)) int start_slow(struct plait_conn *c, const struct pli_rma_op *op)
{
    struct pli_rma_conn *r = pli_rma_conn(c);
    struct pli_rma_op *kept;
    int rc;

    if (!r || !pli_rma_link(c->link))
        return PLAIT_E_NOMEM;
    rc = op_alloc(r, op, &kept);
    if (rc < 0)
        return rc;
    rc = 1;
    if (pli_list_is_empty(&r->queue) && !r->asking) {
        if (op->kind != PLI_RMA_FLUSH)
            rc = perform(c, op);
        else if (pli_list_is_empty(&r->sent))
            rc = 0;
    }
    if (rc < 0) {
        op_free(r, kept);
        return rc;
    }
    if (rc == 2 && r->nasked < PLI_RMA_ASKED)
        pli_rma_ask(r, kept);
    else if (rc)
        enqueue(r, kept);
    else
        finish(r, kept, 0);
    return 0;
}

static inline int start(struct plait_conn *c, const struct pli_rma_op *op)
{
    int rc = check(c);

    if (rc < 0)
        return rc;
    if (op->fn || (c->rma && (!pli_list_is_empty(&c->rma->queue) || c->rma->asking)))
        return start_slow(c, op);
    rc = perform(c, op);
    return rc > 0 ? start_slow(c, op) : rc;
}

/* ---- the short way: the same region as last time, nothing waits, nobody is to be told ---- */

static inline bool same(const void *a, const void *b, size_t n)
{
    uint64_t x, y, differ = 0;

    for (size_t i = 0; i < n; i += 8) {
        memcpy(&x, (const char *)a + i, 8);
        memcpy(&y, (const char *)b + i, 8);
        differ |= x ^ y;
    }
    return differ == 0;
}

/* NULL: look closer. */
static inline const struct pli_import *at_hand(struct plait_conn *c, const struct plait_key *key, uint64_t offset, size_t len,
                                               unsigned need)
{
    const struct pli_import *m;

    if (c->state != PLI_CONN_OPEN || pli_ctx_check(c->ctx) < 0 || !c->link->rma || (c->rma && !pli_list_is_empty(&c->rma->queue)))
        return NULL;
    m = c->link->rma->recent;
    if (!m || !same(&m->key, key, sizeof m->key) || !same(m->sid, c->session->sid, sizeof m->sid))
        return NULL;
    if (!m->pm || offset > m->len || len > m->len - offset || (m->key.access & need) != need || !is_valid(m))
        return NULL;
    return m;
}

int plait_put(struct plait_conn *c, const struct plait_key *key, uint64_t offset, const void *data, size_t len,
              plait_done_fn on_done, void *arg)
{
    const struct pli_import *m;

    if (!key || (!data && len))
        return pli_fail(PLAIT_E_INVAL, "plait_put() without %s", key ? "data" : "a key");
    if (!on_done && (m = at_hand(c, key, offset, len, PLAIT_ACCESS_WRITE)) != NULL)
        return counted(c, PLI_RMA_PUT, len, copy(m, m->pm->addr + offset, data, len));
    return start(c, &(struct pli_rma_op){ .kind = PLI_RMA_PUT, .key = *key, .offset = offset, .len = len, .from = data, .fn = on_done,
                                          .arg = arg });
}

int plait_get(struct plait_conn *c, const struct plait_key *key, uint64_t offset, void *buf, size_t len,
              plait_done_fn on_done, void *arg)
{
    const struct pli_import *m;

    if (!key || (!buf && len))
        return pli_fail(PLAIT_E_INVAL, "plait_get() without %s", key ? "a buffer" : "a key");
    if (!on_done && (m = at_hand(c, key, offset, len, PLAIT_ACCESS_READ)) != NULL)
        return counted(c, PLI_RMA_GET, len, copy(m, buf, m->pm->addr + offset, len));
    return start(c, &(struct pli_rma_op){ .kind = PLI_RMA_GET, .key = *key, .offset = offset, .len = len, .to = buf, .fn = on_done,
                                          .arg = arg });
}

static __attribute__((noinline, cold)) int bad_atomic(const struct plait_key *key, uint64_t offset)
{
    if (!key)
        return pli_fail(PLAIT_E_INVAL, "an atomic operation without a key");
    return pli_fail(PLAIT_E_INVAL, "an atomic operation at offset %llu: it must be a multiple of 8", (unsigned long long)offset);
}

int plait_atomic_add(struct plait_conn *c, const struct plait_key *key, uint64_t offset, uint64_t add, uint64_t *old,
                     plait_done_fn on_done, void *arg)
{
    const struct pli_import *m;

    if (!key || offset % 8)
        return bad_atomic(key, offset);
    if (!on_done && (m = at_hand(c, key, offset, 8, PLI_RMA_ACCESS)) != NULL) {
        add_8(m->pm->addr + offset, add, old);
        return counted(c, PLI_RMA_ADD, 8, 0);
    }
    return start(c, &(struct pli_rma_op){ .kind = PLI_RMA_ADD, .key = *key, .offset = offset, .len = 8, .a = add, .to = old,
                                          .fn = on_done, .arg = arg });
}

int plait_atomic_cas(struct plait_conn *c, const struct plait_key *key, uint64_t offset, uint64_t expected, uint64_t desired,
                     uint64_t *old, plait_done_fn on_done, void *arg)
{
    const struct pli_import *m;

    if (!key || offset % 8)
        return bad_atomic(key, offset);
    if (!on_done && (m = at_hand(c, key, offset, 8, PLI_RMA_ACCESS)) != NULL) {
        cas_8(m->pm->addr + offset, expected, desired, old);
        return counted(c, PLI_RMA_CAS, 8, 0);
    }
    return start(c, &(struct pli_rma_op){ .kind = PLI_RMA_CAS, .key = *key, .offset = offset, .len = 8, .a = expected, .b = desired,
                                          .to = old, .fn = on_done, .arg = arg });
}

int plait_rma_flush(struct plait_conn *c, plait_done_fn on_done, void *arg)
{
    struct pli_rma_op op = { .kind = PLI_RMA_FLUSH, .fn = on_done, .arg = arg };
    int rc;

    if (!on_done)
        return pli_fail(PLAIT_E_INVAL, "plait_rma_flush() without a function to call");
    rc = check(c);
    return rc < 0 ? rc : start_slow(c, &op);
}
