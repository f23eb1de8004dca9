/* SPDX-License-Identifier: BSD-3-Clause */
/* Helper threads for what blocks: names, connections, launchers. The process has one pool of them; a thread
 * is started when work is queued and ends when there has been none for 100 ms, so nothing runs when nothing
 * waits. */
#ifndef PLI_RUNTIME_HELPER_H
#define PLI_RUNTIME_HELPER_H

#include <stdatomic.h>

#include "runtime/loop.h"

#define PLI_HELPERS 4      /* threads that work at once */
#define PLI_HELPERS_MAX 16 /* with those that wait inside pli_task_block() */

/* One piece of work. Embedded in its user's structure, at zero bytes before start. */
struct pli_task {
    void (*work)(struct pli_task *t); /* on a helper thread */
    void (*done)(struct pli_task *t); /* on the context's thread, after work; not after cancel */
    void (*free)(struct pli_task *t); /* nobody refers to the task any more: after done returned, or after a
                                       * cancel as soon as work is not running; any thread */
    void (*stop)(struct pli_task *t); /* or NULL: cancelled, or the context is being destroyed: end what
                                       * belongs to the context (timers); its thread, before free */
    bool slow;                        /* work as a whole waits for others: as if inside pli_task_block() */
    /* the pool's own, under its mutex */
    struct plait_ctx *ctx;
    struct pli_ctx_obj obj;
    struct pli_list node;
    enum { PLI_TASK_NEW, PLI_TASK_QUEUED, PLI_TASK_RUNNING, PLI_TASK_POSTED, PLI_TASK_OVER } state;
    _Atomic bool cancelled;
};

/* Queues it. The context, if it is destroyed first, cancels it. Owner thread; never blocks. 0; PLAIT_E_SYSTEM
 * (no thread can be started), PLAIT_E_NOMEM: the task is still the caller's. */
int pli_task_start(struct pli_task *t, struct plait_ctx *ctx);

/* For work that needed no thread: done comes with the context's next pass. As pli_task_start(). */
int pli_task_start_done(struct pli_task *t, struct plait_ctx *ctx);

/* done will not be called; the task is the pool's, which frees it. From inside done: no-op. Owner thread;
 * never blocks. */
void pli_task_cancel(struct pli_task *t);

/* Should work give up? Any thread. */
static inline bool pli_task_cancelled(const struct pli_task *t)
{
    return atomic_load_explicit(&t->cancelled, memory_order_relaxed);
}

/* Around a wait inside work: another thread may be started meanwhile, so that a slow name server delays
 * nobody else. */
void pli_task_block(void);
void pli_task_unblock(void);

/* How many helper threads there are now: for tests. Any thread. */
unsigned pli_helper_threads(void);

#endif
