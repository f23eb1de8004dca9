/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loop of a context, for the other files of runtime/: sources, timers, posts, links to poll, waiting.
 * Owner thread unless it says otherwise; nothing blocks but pli_ctx_wait(). */
#ifndef PLI_RUNTIME_LOOP_H
#define PLI_RUNTIME_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "plait/ctx.h"
#include "runtime/transport.h"
#include "util/clock.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/mpsc.h"

/* A descriptor in the context's epoll. Embedded in its user; may be removed and freed from any callback. */
struct pli_src {
    int fd;
    void (*fn)(struct pli_src *src, uint32_t events);
};

/* A timer: one shot, absolute time. Embedded; fn may restart or free it. */
struct pli_timer {
    struct pli_heap_node node;
    void (*fn)(struct pli_timer *t);
    bool armed;
};

/* Work posted by another thread. Embedded, so posting cannot fail; may be freed by its fn. An item may be posted again
 * only after its fn has started. */
struct pli_post {
    struct pli_mpsc_node node;
    void (*fn)(struct pli_post *post);
};

/* Work at the end of the present pass (or of the next, outside one): flushes, deferred frees. Embedded. */
struct pli_defer {
    struct pli_list node; /* self-linked when not queued */
    void (*fn)(struct pli_defer *d);
};

/* An object that plait_ctx_destroy() must end: listeners, links, sessions, timers, watches. Destroyed in reverse order of registration. */
struct pli_ctx_obj {
    struct pli_list node;
    void (*destroy)(struct pli_ctx_obj *obj, bool forked);
};

struct pli_ctx_lock; /* the lock and hand-over of shared contexts (runtime/handover.c) */

struct plait_ctx {
    /* ---- the owner's, hot ---- */
    struct pli_tr **hot;      /* links polled in every pass */
    unsigned nhot, hot_cap;
    unsigned slow_in;         /* passes until the next look at epoll, timers and idle links */
    bool polling;             /* inside a pass or callback */
    bool forked;              /* set in the child by the fork handler */
    bool shared;              /* PLAIT_CTX_SHARED */
    struct pli_list deferred;
    struct plait_ctx_stats st;

    /* ---- the owner's, colder ---- */
    struct pli_heap timers;
    uint64_t now;             /* ns, as of the last slow look */
    uint64_t last_epoll;      /* ns */
    uint64_t spin_ns;
    int epfd, timerfd, wakefd;
    uint64_t timerfd_at;      /* what timerfd is set to, 0: off */
    bool armed;               /* parked flags are set (arm) */
    struct pli_src wake_src, timer_src;
    struct pli_list objs;     /* struct pli_ctx_obj */
    struct pli_list registry; /* all contexts of the process, for the fork handler */
    uint32_t id;              /* unique in the process, from 1 */
    int cpu, node;
    pthread_t owner;
    bool pinned;              /* the owner's affinity was changed; old one in saved_mask */
    void *saved_mask;
    char name[32];
    struct pli_ctx_lock *lock;/* shared contexts only */
    struct pli_list links;    /* link.c's */
    struct pli_list listeners;/* listener.c's */
    void *events;             /* the batch being dispatched */

    /* ---- written by other threads ---- */
    struct pli_mpsc posts __attribute__((aligned(64)));
    _Atomic uint32_t sleeping; /* 1 from before the re-check until awake */
    _Atomic uint32_t stop;
};

/* 0, or the code (with text) why this thread may not use the context now. The thread is checked in debug builds only. */
int pli_ctx_check(const struct plait_ctx *ctx);

int pli_src_add(struct plait_ctx *ctx, struct pli_src *src, uint32_t events); /* PLAIT_E_INVAL, NOMEM, SYSTEM */
int pli_src_mod(struct plait_ctx *ctx, struct pli_src *src, uint32_t events);
void pli_src_del(struct plait_ctx *ctx, struct pli_src *src); /* its fn is not called any more, not even for events already fetched */

void pli_timer_init(struct pli_timer *t, void (*fn)(struct pli_timer *t));
void pli_timer_start(struct plait_ctx *ctx, struct pli_timer *t, uint64_t at_ns); /* absolute, pli_clock_now() */
void pli_timer_stop(struct plait_ctx *ctx, struct pli_timer *t);

/* Any thread. */
void pli_ctx_post(struct plait_ctx *ctx, struct pli_post *post);

void pli_defer_init(struct pli_defer *d, void (*fn)(struct pli_defer *d));
void pli_ctx_defer(struct plait_ctx *ctx, struct pli_defer *d); /* no-op if queued */
void pli_defer_cancel(struct pli_defer *d);

void pli_ctx_obj_add(struct plait_ctx *ctx, struct pli_ctx_obj *obj, void (*destroy)(struct pli_ctx_obj *obj, bool forked));
void pli_ctx_obj_del(struct pli_ctx_obj *obj);

/* The context polls tr from now on: adds it to the hot links and its wake_fd (through src, embedded in tr's owner) to epoll. */
int pli_ctx_tr_add(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src);
void pli_ctx_tr_del(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src);
/* Makes a parked link hot again (its wake source does so by itself). */
void pli_ctx_tr_heat(struct plait_ctx *ctx, struct pli_tr *tr);

/* Runs the context until done(arg), or until deadline_ns (UINT64_MAX: none). 1, 0 (time has passed), or a negative code. Blocks. */
int pli_ctx_wait(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline_ns);

/* One pass; the caller has checked the thread. */
int pli_ctx_pass(struct plait_ctx *ctx);

/* Does the kernel have membarrier(2) GLOBAL_EXPEDITED, and is this process registered? Any thread. */
bool pli_membarrier_available(void);
/* The barrier of the sleeper: membarrier if available, else a full fence. */
void pli_sleeper_barrier(void);

#endif
