/* SPDX-License-Identifier: BSD-3-Clause */
/* Intrusive queue of many producers and one consumer: work posted to a context by other threads.
 *
 * The algorithm is Dmitry Vyukov's "intrusive MPSC node-based queue" (1024cores.net). A push is one
 * atomic exchange and one store, wait-free; order is that of the exchanges. Nodes belong to the caller
 * again as soon as pop has returned them.
 *
 * Memory order, and what pairs with what:
 *   push: the exchange of 'head' is acq_rel: it orders our node's 'next = NULL' before later pushers write
 *         into it. The store of prev->next is a release: it publishes the node's contents.
 *   pop:  the load of next is an acquire and pairs with that store, so the consumer sees the contents.
 *
 * Between the exchange and the store of prev->next the queue is cut: what was pushed after that point cannot
 * be reached yet, and pop returns NULL although pli_mpsc_is_empty() says no. Whoever sleeps on the queue
 * must therefore be woken by a producer that looks at the 'parked' word AFTER pli_mpsc_push() has returned,
 * with a full fence between the two (the exchange inside comes too early to be that fence). test/model has
 * the check of this. */
#ifndef PLI_UTIL_MPSC_H
#define PLI_UTIL_MPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct pli_mpsc_node {
    struct pli_mpsc_node *_Atomic next;
};

struct pli_mpsc {
    /* written by every producer; kept on another line than the consumer's tail */
    struct pli_mpsc_node *_Atomic head __attribute__((aligned(64)));
    struct pli_mpsc_node *tail __attribute__((aligned(64)));
    struct pli_mpsc_node stub;
};

/* Makes an empty queue. Before any other thread knows it. */
static inline void pli_mpsc_init(struct pli_mpsc *q)
{
    atomic_init(&q->stub.next, NULL);
    atomic_init(&q->head, &q->stub);
    q->tail = &q->stub;
}

/* Any thread; never blocks, never fails. The node is the queue's until pop returns it. */
static inline void pli_mpsc_push(struct pli_mpsc *q, struct pli_mpsc_node *node)
{
    struct pli_mpsc_node *prev;

    atomic_store_explicit(&node->next, NULL, memory_order_relaxed);
    prev = atomic_exchange_explicit(&q->head, node, memory_order_acq_rel);
    atomic_store_explicit(&prev->next, node, memory_order_release);
}

/* Consumer only. False while a push is under way, too; the answer may be out of date when it returns. */
static inline bool pli_mpsc_is_empty(const struct pli_mpsc *q)
{
    return q->tail == &q->stub && atomic_load_explicit(&q->head, memory_order_acquire) == &q->stub;
}

/* Consumer only; never blocks. The oldest node, or NULL when there is none or its push is not complete. */
static inline struct pli_mpsc_node *pli_mpsc_pop(struct pli_mpsc *q)
{
    struct pli_mpsc_node *tail = q->tail;
    struct pli_mpsc_node *next = atomic_load_explicit(&tail->next, memory_order_acquire);

    if (tail == &q->stub) {
        if (!next)
            return NULL;
        q->tail = tail = next;
        next = atomic_load_explicit(&tail->next, memory_order_acquire);
    }
    if (!next) {
        /* tail is the last node, and 'head' points to it: put the stub behind it before it goes */
        if (atomic_load_explicit(&q->head, memory_order_acquire) != tail)
            return NULL;
        pli_mpsc_push(q, &q->stub);
        next = atomic_load_explicit(&tail->next, memory_order_acquire);
        if (!next)
            return NULL;
    }
    q->tail = next;
    return tail;
}

#endif
