/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file ctx.h
 * @brief Contexts: one event loop, one owner thread, pinned to one core.
 *
 * The thread that creates a context owns it, and only that thread may call functions on the context and
 * on what lives in it, unless a function says "any thread". A context with PLAIT_CTX_SHARED has no single
 * owner: whoever holds its lock (plait_ctx_lock()) owns it for that time, and plait_call() takes the lock
 * by itself. Built with --enable-debug, plait checks the owner and returns PLAIT_E_THREAD.
 *
 * Callbacks run on the owner thread, from inside plait_ctx_poll(), plait_ctx_run() or a blocking call. They
 * may call everything that is not marked "not from callbacks".
 *
 * After fork() every call on a context of the parent returns PLAIT_E_FORKED in the child; the parent goes on.
 */
#ifndef PLAIT_CTX_H
#define PLAIT_CTX_H

#include <stddef.h>
#include <stdint.h>
#include <plait/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct plait_ctx;
struct plait_team;
struct plait_timer;
struct plait_watch;

#define PLAIT_CPU_AUTO (-1) /**< plait places the context: a core of its own among those allowed */
#define PLAIT_CPU_NONE (-2) /**< do not pin the owner thread */

#define PLAIT_SPIN_AUTO UINT32_MAX /**< 50 us; 0 where there are more contexts than cores */

#define PLAIT_PEER_TIMEOUT_MIN 1000u    /**< milliseconds, the least of peer_timeout_ms */
#define PLAIT_PEER_TIMEOUT_MAX 3600000u /**< and the most */

#define PLAIT_CTX_SHARED 0x1u /**< several threads use it, one at a time, under plait_ctx_lock() */

/** Options of a context; start from PLAIT_CTX_OPTS_INIT. */
struct plait_ctx_opts {
    size_t size;      /**< sizeof(struct plait_ctx_opts), for versioning */
    int cpu;          /**< operating system's number of a CPU, PLAIT_CPU_AUTO or PLAIT_CPU_NONE (default NONE) */
    uint32_t spin_us; /**< microseconds of polling without an event before the context sleeps; PLAIT_SPIN_AUTO */
    unsigned flags;   /**< PLAIT_CTX_... */
    const char *name; /**< for messages and counters; copied; NULL: "ctxN" */
    uint32_t peer_timeout_ms; /**< how long the other host of a link may be silent before it counts as dead: PLAIT_PEER_TIMEOUT_MIN to
                                   PLAIT_PEER_TIMEOUT_MAX (10000); on an idle link rounded up to seconds, and 2 at least. PLAIT_PEER_TIMEOUT in
                                   the environment, in milliseconds, overrides what the program says */
};
#define PLAIT_CTX_OPTS_INIT { sizeof(struct plait_ctx_opts), PLAIT_CPU_NONE, PLAIT_SPIN_AUTO, 0, NULL, 10000 }

/**
 * Creates a context owned by the calling thread, and pins that thread if opts say so.
 * @param[out] ctx   the new context; the caller owns it and destroys it.
 * @param opts       options, or NULL for the defaults; not kept.
 * @return 0, or PLAIT_E_INVAL (options), PLAIT_E_NOMEM, PLAIT_E_NOFILE, PLAIT_E_TOPOLOGY (cpu AUTO, or a cpu
 *         that is not allowed), PLAIT_E_SYSTEM. Does not block. Not from callbacks of the same context.
 */
PLAIT_API int plait_ctx_create(struct plait_ctx **ctx, const struct plait_ctx_opts *opts);

/**
 * Destroys a context. Open connections are aborted first (their on_closed is called, from inside this call),
 * listeners are closed, timers and watches are freed, posted work that has not run is dropped.
 * @return 0; PLAIT_E_BUSY from inside a callback of this context; PLAIT_E_THREAD (debug builds).
 *         In a child after fork it frees what the child has, and touches nothing that is shared.
 *         Does not block on peers. Owner thread.
 */
PLAIT_API int plait_ctx_destroy(struct plait_ctx *ctx);

/**
 * Handles what is there, once, and returns. Bounded work: a busy peer cannot keep it.
 * @return the number of events handled (0: nothing was there), or PLAIT_E_WOULDBLOCK from inside a callback,
 *         PLAIT_E_THREAD, PLAIT_E_FORKED. Never blocks. Owner thread; not from callbacks.
 */
PLAIT_API int plait_ctx_poll(struct plait_ctx *ctx);

/**
 * Runs until plait_ctx_stop() or until the time has passed: polls for the spin budget, then sleeps.
 * @param timeout_us  microseconds; negative: no limit; 0: like one poll.
 * @return 1 if it was stopped, 0 if the time has passed, or a negative code as plait_ctx_poll(). Blocks.
 *         Owner thread; not from callbacks.
 */
PLAIT_API int plait_ctx_run(struct plait_ctx *ctx, int64_t timeout_us);

/** Makes the present or the next plait_ctx_run() return 1. Never blocks. Any thread, callbacks too. */
PLAIT_API void plait_ctx_stop(struct plait_ctx *ctx);

/** Wakes the context if it sleeps; otherwise does nothing. Never blocks. Any thread, callbacks too. */
PLAIT_API void plait_ctx_wake(struct plait_ctx *ctx);

/**
 * The one file descriptor that becomes readable when an armed context has something to do, for somebody
 * else's event loop (epoll, poll, libevent). Protocol, in a loop:
 *   1. n = plait_ctx_arm(ctx);  2. if n > 0: plait_ctx_poll(ctx), and back to 1;
 *   3. n == 0: wait for the descriptor to be readable (no time-out needed, timers are in it);
 *   4. plait_ctx_poll(ctx) at least once, and back to 1.
 * Whatever the loop calls on the context or its connections between 3 and the wait (a send, a close, a timer) may leave it work: begin
 * with 1 again after it.
 * @return the descriptor (owned by the context, do not read, write or close it). Never blocks. Owner thread.
 */
PLAIT_API int plait_ctx_fd(struct plait_ctx *ctx);

/**
 * Prepares to sleep: tells every peer that a wake-up is needed, then looks once more (the re-check).
 * @return 1: something is there already, poll; 0: armed, sleep; or a negative code as plait_ctx_poll().
 *         Never blocks. Owner thread; not from callbacks.
 */
PLAIT_API int plait_ctx_arm(struct plait_ctx *ctx);

/**
 * Calls fn(arg) once on the context's owner thread, from inside its poll or run. In the order of posting.
 * @return 0; PLAIT_E_NOMEM; PLAIT_E_FORKED. Never blocks. Any thread, callbacks too. The context must live.
 */
PLAIT_API int plait_ctx_post(struct plait_ctx *ctx, void (*fn)(void *arg), void *arg);

/** Takes the lock of a PLAIT_CTX_SHARED context; blocks while another thread has it. Returns PLAIT_E_INVAL
 *  for a context without the flag. Any thread; not from callbacks (they run with it held). */
PLAIT_API int plait_ctx_lock(struct plait_ctx *ctx);
/** Gives the lock back; a thread that waits in plait_call() may then receive. */
PLAIT_API int plait_ctx_unlock(struct plait_ctx *ctx);

/** The CPU that the owner thread was pinned to, or -1. Any thread. Never blocks. */
PLAIT_API int plait_ctx_cpu(const struct plait_ctx *ctx);
/** The NUMA node of the context's memory, or -1 if unknown. Any thread. Never blocks. */
PLAIT_API int plait_ctx_node(const struct plait_ctx *ctx);
/** The name given at creation, or "ctxN". Valid as long as the context. Any thread. */
PLAIT_API const char *plait_ctx_name(const struct plait_ctx *ctx);

/** Counters since creation. They cost plain increments on the owner's own cache lines. */
struct plait_ctx_stats {
    size_t size;               /**< in: sizeof(struct plait_ctx_stats) */
    uint64_t polls;            /**< passes over the active links */
    uint64_t events;           /**< messages, timers, descriptors and posted work handled */
    uint64_t parks;            /**< times it went to sleep */
    uint64_t parks_averted;    /**< times the re-check found work after arming */
    uint64_t wakeups;          /**< times it woke because of a link, descriptor, timer or post */
    uint64_t spurious_wakeups; /**< of these, times nothing was there */
    uint64_t kicks_sent;       /**< eventfd writes to wake a sleeping peer */
    uint64_t spins;            /**< empty passes while spinning */
    uint64_t links;            /**< links now open */
    uint64_t links_active;     /**< of these, polled in every pass (the others are parked) */
    uint64_t conns;            /**< connections now open */
    uint64_t msgs_sent;        /**< requests, replies and one-way messages */
    uint64_t msgs_received;
    uint64_t again;            /**< sends refused with PLAIT_E_AGAIN */
    uint64_t shm_bytes;        /**< shared memory now reserved by this context's own side of its links */
    uint64_t bind_failures;    /**< memory that could not be bound to its NUMA node */
    uint64_t offers_sent;      /**< messages that the peer could read in place */
    uint64_t offers_placed;    /**< offered messages that were received in place */
    uint64_t offers_copied;    /**< offered messages that were copied here out of the peer's region */
    uint64_t offers_cma;       /**< offered messages that were read with process_vm_readv */
    uint64_t long_pushed;      /**< messages of offer_min bytes and more that went through the ring */
    uint64_t mapped_bytes;     /**< memory of peers' regions that is mapped here now, for the links of this context */
    uint64_t cma_refused;      /**< peers whose memory process_vm_readv may not read, or not any more */
    uint64_t rma_puts;         /**< one-sided operations of this context that were done: puts (the owner of the region counts nothing) */
    uint64_t rma_gets;         /**< gets */
    uint64_t rma_atomics;      /**< 8-byte adds and compare-swaps, those too that did not exchange */
    uint64_t rma_bytes;        /**< bytes of these puts and gets */
    uint64_t rma_failed;       /**< one-sided operations that a key or region did not allow, or that ended with another code than 0 */
    uint64_t regions_refused;  /**< regions that peers showed or exported and that could not be mapped here (limits, PLAIT_MAPPED_MAX) */
};

/** Fills *st. @return 0, PLAIT_E_INVAL (size). Never blocks. Owner thread, callbacks too. */
PLAIT_API int plait_ctx_get_stats(struct plait_ctx *ctx, struct plait_ctx_stats *st);

/* ---- timers ---- */

/**
 * Creates a timer, not running.
 * @return 0 or PLAIT_E_NOMEM. Never blocks. Owner thread, callbacks too. The caller frees it with
 *         plait_timer_free(), or leaves it to plait_ctx_destroy().
 */
PLAIT_API int plait_timer_create(struct plait_timer **t, struct plait_ctx *ctx, void (*fn)(void *arg), void *arg);
/** (Re)starts it: first after delay_us, then every period_us (0: once). Owner thread, callbacks too. Never fails. */
PLAIT_API void plait_timer_start(struct plait_timer *t, uint64_t delay_us, uint64_t period_us);
/** Stops it: fn is not called after this returns. Owner thread, its own callback too. */
PLAIT_API void plait_timer_stop(struct plait_timer *t);
/** Stops and frees it; NULL is allowed. Owner thread, its own callback too. */
PLAIT_API void plait_timer_free(struct plait_timer *t);

/* ---- foreign file descriptors ---- */

/**
 * Watches a descriptor that belongs to the caller; level-triggered.
 * @param events  EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP in any combination (<sys/epoll.h>).
 * @param fn      called with the events that are there; EPOLLERR and EPOLLHUP come unasked.
 * @return 0, PLAIT_E_INVAL (descriptor cannot be watched), PLAIT_E_NOMEM, PLAIT_E_SYSTEM. Never blocks.
 *         Owner thread, callbacks too. Free the watch before the descriptor is closed.
 */
PLAIT_API int plait_watch_create(struct plait_watch **w, struct plait_ctx *ctx, int fd, uint32_t events,
                                 void (*fn)(int fd, uint32_t events, void *arg), void *arg);
/** Changes the events. @return as plait_watch_create(). */
PLAIT_API int plait_watch_modify(struct plait_watch *w, uint32_t events);
/** Ends and frees it: fn is not called after this returns. NULL is allowed. Its own callback may call it. */
PLAIT_API void plait_watch_free(struct plait_watch *w);

/* ---- teams: worker threads, one context each, one core each ---- */

/** Options of a team; start from PLAIT_TEAM_OPTS_INIT. */
struct plait_team_opts {
    size_t size;
    unsigned count;   /**< contexts; 0: one per physical core that the process may use */
    int use_smt;      /**< nonzero: hardware threads count as cores */
    int pin;          /**< nonzero (default): pin each worker to its own core */
    uint32_t spin_us; /**< as in plait_ctx_opts */
    void (*on_start)(struct plait_ctx *ctx, unsigned index, void *arg); /**< on each worker before it runs, or NULL */
    void (*on_stop)(struct plait_ctx *ctx, unsigned index, void *arg);  /**< on each worker after its last poll, or NULL */
    void *arg;
    uint32_t peer_timeout_ms; /**< as in plait_ctx_opts */
};
#define PLAIT_TEAM_OPTS_INIT { sizeof(struct plait_team_opts), 0, 0, 1, PLAIT_SPIN_AUTO, NULL, NULL, NULL, 10000 }

/**
 * Starts worker threads, each with a context that it runs until the team is destroyed. Returns when all
 * contexts exist and every on_start has returned.
 * @return 0, or as plait_ctx_create(). Blocks for the threads to start. Any thread.
 */
PLAIT_API int plait_team_create(struct plait_team **team, const struct plait_team_opts *opts);
/** Stops the workers, destroys their contexts on their own threads, joins, frees. Blocks. Not from a worker. */
PLAIT_API int plait_team_destroy(struct plait_team *team);
/** How many contexts. Any thread. */
PLAIT_API unsigned plait_team_size(const struct plait_team *team);
/** Context i, or NULL if there is none. Owned by the team. Any thread. */
PLAIT_API struct plait_ctx *plait_team_ctx(const struct plait_team *team, unsigned i);

#ifdef __cplusplus
}
#endif
#endif
