/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loop of a context, for the other files of runtime/: sources, timers, posts, links to poll,
 * waiting.
 *
 * Called by the context's owner thread unless it says otherwise; nothing blocks but pli_ctx_wait(). What
 * is embedded (sources, timers, posts, deferred work, objects) belongs to its user all the time; the
 * loop only links it. Embedded structures start as zero bytes (calloc) before their first use. */
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

/* A descriptor in the context's epoll. May be removed and freed from any callback.
 *
 * fd is the only copy of its number: after fork() the child closes the descriptors of all sources at
 * once and sets fd to -1, because a control channel that lives on in a child would hide our death from
 * the peer. */
struct pli_src {
    int fd;
    void (*fn)(struct pli_src *src, uint32_t events);
    /* the loop's own */
    struct pli_list node; /* plait_ctx.srcs; next is NULL while the source is not in */
    struct pli_tr *tr;    /* the link that this wakes, or NULL */
    bool keep_fd;         /* the descriptor is not the runtime's: the child of a fork leaves it alone */
};

/* A timer: one shot, absolute time. fn may restart or free it. */
struct pli_timer {
    struct pli_heap_node node;
    void (*fn)(struct pli_timer *t);
    bool armed;
};

/* Work posted by another thread. Embedded, so posting cannot fail; may be freed by its fn. An item may
 * be posted again only after its fn has started. plait_ctx_destroy() calls drop for what has not run. */
struct pli_post {
    struct pli_mpsc_node node;
    void (*fn)(struct pli_post *post);
    void (*drop)(struct pli_post *post); /* instead of fn when the context is destroyed first; may be NULL */
};

/* Work at the end of the present pass (or of the next, outside one): flushes, deferred frees. */
struct pli_defer {
    struct pli_list node; /* self-linked when not queued */
    void (*fn)(struct pli_defer *d);
};

/* An object that plait_ctx_destroy() must end: listeners, links, sessions, timers, watches. Destroyed in
 * reverse order of registration; it is taken off the list before destroy() is called, and destroy()
 * frees it. forked: in a child process, free private memory only; the descriptors of sources are closed
 * already (fd is -1). */
struct pli_ctx_obj {
    struct pli_list node;
    void (*destroy)(struct pli_ctx_obj *obj, bool forked);
};

/* Work at the end of every pass, one item a pass, for as long as there is any: what takes long is done in slices so that
 * messages pass between them. A context with such work does not sleep. */
struct pli_work {
    struct pli_list node; /* self-linked when not queued */
    void (*fn)(struct pli_work *w);
};

/* How large the slices are (pace.h). */
struct pli_pace {
    uint32_t switches;   /* so often another connection of a link than the last had a record */
    uint32_t seen;       /* of these, as of the last look */
    uint32_t pass_bytes; /* copied in this pass without a slice of its own */
    uint32_t fine;       /* bytes of a small slice */
    uint64_t fine_until; /* ns, 0: not now */
    uint64_t next;       /* ns: no small slice before */
    struct pli_work end; /* resets pass_bytes */
};

/* What is polled for all links of a transport that share it (transport.h). */
struct pli_hub {
    struct pli_tr *tr;   /* NULL: there is none yet */
    struct pli_src src;
    unsigned users;      /* links */
};

struct pli_pinned;
struct pli_ctx_lock; /* the lock and hand-over of shared contexts (runtime/handover.c) */

struct plait_ctx {
    /* ---- the owner's, hot ---- */
    struct pli_tr **hot;      /* links polled in every pass */
    unsigned nhot, hot_cap;
    unsigned slow_in;         /* passes until the next look at epoll, timers and idle links */
    unsigned slow_every;      /* slow_in starts from this: adapted so that a look comes every 10 to 40 us */
    bool polling;             /* inside a pass or callback */
    bool forked;              /* set in the child by the fork handler */
    bool shared;              /* PLAIT_CTX_SHARED */
    bool armed;               /* all links are parked, 'sleeping' is set: asleep, or about to be */
    struct pli_list deferred;
    struct pli_list work;     /* struct pli_work */
    int pass_events;          /* of this pass, while work at its end runs; else 0 */
    struct plait_ctx_stats st;
    struct pli_pace pace;
    void *spare;              /* a large buffer of the last long message, for the next one (recv.c) */

    /* ---- the owner's, colder ---- */
    struct pli_heap timers;
    uint64_t now;             /* ns, as of the last slow look */
    uint64_t last_epoll;      /* ns */
    uint64_t last_idle;       /* ns, the last look for idle links */
    uint64_t sleep_deadline;  /* ns, what the present or last sleep was limited to */
    uint64_t spin_ns;
    bool spin_auto;           /* PLAIT_SPIN_AUTO: no spinning while there are more contexts than cores */
    int epfd, timerfd, wakefd;
    uint64_t timerfd_at;      /* what timerfd is set to, 0: off */
    unsigned ntr;             /* links of this context that are polled, hot or parked: hot_cap is at least this */
    struct pli_hub hub;       /* of the links over the fabric */
    bool woke;                /* awake again and nothing was found yet: is it a spurious wake-up? */
    struct pli_src wake_src, timer_src;
    struct pli_list srcs;     /* struct pli_src; changed under the registry's mutex, for the fork handler */
    struct pli_list objs;     /* struct pli_ctx_obj */
    struct pli_list registry; /* all contexts of the process, for the fork handler */
    uint32_t id;              /* unique in the process, from 1 */
    uint32_t peer_timeout_ms; /* how long another host may be silent */
    int cpu, node;
    pthread_t owner;
    int owner_tid;
    struct pli_pinned *pin;   /* the owner's affinity before it was changed, or NULL (place.c) */
    char name[32];
    struct pli_ctx_lock *lock;/* shared contexts only */
    struct pli_list links;    /* link.c's */
    struct pli_list listeners;/* listener.c's */
    void *events;             /* the batch being dispatched (source.c) */

    /* ---- written by other threads ---- */
    struct pli_mpsc posts __attribute__((aligned(64)));
    _Atomic uint32_t sleeping; /* 1 from before the re-check until awake, or until wakefd was written */
    _Atomic uint32_t stop;
    _Atomic bool mem_posted;   /* mem_post is on its way */
    struct pli_post mem_post;  /* a region was released that links of this context share (share.c) */
    _Atomic uint32_t woken;    /* plait_ctx_wake() was called: the wake-up is not a spurious one */
};

/* The check behind pli_ctx_check(). */
int pli_ctx_check_slow(const struct plait_ctx *ctx) __attribute__((cold));

/* 0, or the code (with text) why this thread may not use the context now: PLAIT_E_FORKED,
 * PLAIT_E_THREAD. The thread is checked in debug builds only. Any thread. */
static inline int pli_ctx_check(const struct plait_ctx *ctx)
{
#ifndef PLAIT_DEBUG
    if (__builtin_expect(!ctx->forked, 1))
        return 0;
#endif
    return pli_ctx_check_slow(ctx);
}

/* The same for a blocking call: PLAIT_E_WOULDBLOCK inside a callback. */
int pli_ctx_check_blocking(const struct plait_ctx *ctx);

/* ---- descriptors (source.c) ---- */

/* Puts src->fd into epoll; src->fn gets its events. PLAIT_E_INVAL (cannot be watched), NOMEM, SYSTEM. */
int pli_src_add(struct plait_ctx *ctx, struct pli_src *src, uint32_t events);
int pli_src_mod(struct plait_ctx *ctx, struct pli_src *src, uint32_t events);
/* Takes it out, before its descriptor is closed: fn is not called any more, not even for events already
 * fetched. No-op if it is not in. */
void pli_src_del(struct plait_ctx *ctx, struct pli_src *src);

/* ---- timers (timer.c) ---- */

void pli_timer_init(struct pli_timer *t, void (*fn)(struct pli_timer *t));
/* at_ns: absolute, pli_clock_now(). Moves a timer that runs already. */
void pli_timer_start(struct plait_ctx *ctx, struct pli_timer *t, uint64_t at_ns);
void pli_timer_stop(struct plait_ctx *ctx, struct pli_timer *t);

/* ---- work from other threads, and wake-up (post.c) ---- */

/* fn runs on the owner thread, in the order of posting. Any thread; never blocks. */
void pli_ctx_post(struct plait_ctx *ctx, struct pli_post *post);
/* Writes wakefd if the context sleeps. What the sleeper shall see must have been stored before. Any
 * thread. */
void pli_ctx_kick(struct plait_ctx *ctx);

/* ---- work at the end of the pass (loop.c) ---- */

void pli_defer_init(struct pli_defer *d, void (*fn)(struct pli_defer *d));
void pli_ctx_defer(struct plait_ctx *ctx, struct pli_defer *d); /* no-op if queued */
void pli_defer_cancel(struct pli_defer *d);

/* ---- work at the end of each pass (loop.c) ---- */

void pli_work_init(struct pli_work *w, void (*fn)(struct pli_work *w));
void pli_ctx_work(struct plait_ctx *ctx, struct pli_work *w); /* behind what is queued; no-op if it is. fn may queue it again */
void pli_work_cancel(struct pli_work *w);

/* ---- objects (ctx.c) ---- */

void pli_ctx_obj_add(struct plait_ctx *ctx, struct pli_ctx_obj *obj,
                     void (*destroy)(struct pli_ctx_obj *obj, bool forked));
void pli_ctx_obj_del(struct pli_ctx_obj *obj); /* no-op if it is not in */

/* ---- links (loop.c) ---- */

/* The context polls tr from now on: adds it to the hot links and its wake_fd to epoll, through src,
 * which is embedded in tr's owner; the loop fills src in. PLAIT_E_NOMEM, SYSTEM. Counts stats.links. */
int pli_ctx_tr_add(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src);
/* Ends that; no-op if it was not added. Safe in every callback, but tr itself must stay until the pass
 * is over if it may be the link that is being polled (destroy it in deferred work). */
void pli_ctx_tr_del(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src);
/* Makes a parked link hot again (its wake source does so by itself). No-op if it is hot. */
void pli_ctx_tr_heat(struct plait_ctx *ctx, struct pli_tr *tr);

/* ---- running (loop.c) ---- */

/* Runs the context until done(arg), or until deadline_ns (PLI_CLOCK_NEVER: none). 1, 0 (time has
 * passed), or a negative code (PLAIT_E_WOULDBLOCK, THREAD, FORKED). Blocks. Shared contexts: takes the
 * lock if this thread does not have it; done() is called with the lock held, maybe by another waiting
 * thread. */
int pli_ctx_wait(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline_ns);

/* One pass; the caller has checked the thread. Returns the number of events. */
int pli_ctx_pass(struct plait_ctx *ctx);

/* ---- the barrier of sleepers (membarrier.c) ---- */

/* Does the kernel have membarrier(2) GLOBAL_EXPEDITED, and is this process registered?
 * PLAIT_NO_MEMBARRIER=1 in the environment says no. Any thread. */
bool pli_membarrier_available(void);
/* Orders the parked flags before the re-check, against producers that publish, then look at the flag
 * with no fence in between: membarrier if available (about 1 us), else a full fence, for producers that
 * fence themselves. Any thread. */
void pli_sleeper_barrier(void);

#endif
