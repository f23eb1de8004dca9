/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the event loop share among themselves. Owner thread; nothing blocks, unless it says
 * otherwise. */
#ifndef PLI_RUNTIME_LOOP_PRIV_H
#define PLI_RUNTIME_LOOP_PRIV_H

#include "runtime/loop.h"

/* Puts the context to sleep: tells every hot link that a wake-up is needed and looks once more. 1: there
 * is something (all is as before), 0: armed. done may be NULL. The timer is set for the earlier of the
 * first timer and deadline. */
int pli_loop_arm(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline);

/* Awake again: nobody needs to kick. Sets ctx->now. */
void pli_loop_awake(struct plait_ctx *ctx);

/* The state of a loop that spins, then sleeps. */
struct pli_spin {
    uint64_t since;     /* ns: no event since then, 0: not yet looked */
    unsigned empty;     /* passes without an event since the last look at the clock */
};

enum pli_spin_next { PLI_SPIN_GO_ON, PLI_SPIN_SLEEP, PLI_SPIN_TIMEOUT };

/* After a pass that handled n events: what to do next. */
enum pli_spin_next pli_spin_step(struct plait_ctx *ctx, struct pli_spin *spin, int n, uint64_t deadline);

/* ---- source.c ---- */

int pli_src_init(struct plait_ctx *ctx);
void pli_src_fini(struct plait_ctx *ctx);
/* As pli_src_add for a descriptor that is not the runtime's to close. */
int pli_src_add_foreign(struct plait_ctx *ctx, struct pli_src *src, uint32_t events);
/* Fetches at most one batch of events, waiting as epoll_wait() does (-1: blocks). Returns how many. */
int pli_src_fetch(struct plait_ctx *ctx, int timeout);
/* Runs the callbacks of that batch; links that were woken become hot. Returns the number of callbacks of
 * sources. */
int pli_src_run(struct plait_ctx *ctx, int n);
/* In the child of a fork: closes what belongs to the context. Async-signal-safe. */
void pli_src_forked(struct plait_ctx *ctx);

/* ---- timer.c ---- */

/* Runs what is due at ctx->now. Returns how many. */
int pli_timers_run(struct plait_ctx *ctx);
/* When the first timer is due, or PLI_CLOCK_NEVER. */
uint64_t pli_timers_next(const struct plait_ctx *ctx);
/* Lets timerfd become readable at this time (PLI_CLOCK_NEVER: never). A system call only if that is a
 * change. */
void pli_timerfd_set(struct plait_ctx *ctx, uint64_t at);

/* ---- post.c ---- */

/* Runs posted work, a bounded amount. Returns how many. */
int pli_posts_run(struct plait_ctx *ctx);
/* Frees public posts that have not run. */
void pli_posts_drop(struct plait_ctx *ctx);

/* ---- fork.c: the registry of all contexts ---- */

/* Sets the fork handlers up, once in a process. PLAIT_E_NOMEM. Any thread. */
int pli_fork_init(void);
/* Enters the context, gives it its id. PLAIT_E_NOMEM, SYSTEM (the fork handler could not be set up). Any
 * thread. */
int pli_registry_add(struct plait_ctx *ctx);
void pli_registry_del(struct plait_ctx *ctx);
/* Does the process have more contexts than it may use CPUs? Any thread; one load. */
bool pli_registry_crowded(void);
/* The context with this number, or NULL. With the lock held: it lives as long as that. */
struct plait_ctx *pli_registry_find(uint32_t id);
/* How many CPUs it may use, as of the first context. Any thread, while a context exists. */
unsigned pli_registry_cpus(void);
/* Serialises changes of the contexts' lists of sources against fork(). Any thread; blocks for a moment. */
void pli_registry_lock(void);
void pli_registry_unlock(void);

/* ---- membarrier.c ---- */

/* In the child of a fork: the registration must be made again. */
void pli_membarrier_forked(void);

#endif
