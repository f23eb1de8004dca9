/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/handover.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "runtime/loop_priv.h"
#include "util/err.h"
#include "util/spin.h"

enum {
    LOCK_SPINS = 200,  /* tries before a thread sleeps for the lock */
    NOTICE_EVERY = 64, /* empty passes between two looks at the other waiting threads */
};

struct waiter {
    struct pli_list node; /* pli_ctx_lock.waiters */
    bool (*done)(void *arg);
    void *arg;
    _Atomic bool woken;    /* set with the lock; its own thread looks without it */
    pthread_mutex_t mutex; /* for cond: a woken thread takes the context's lock like everybody, so that the
                            * receiver sees it waiting only when it is running again */
    pthread_cond_t cond;
};

struct pli_ctx_lock {
    pthread_mutex_t mutex;
    unsigned depth; /* how often the holder has taken it */
    struct waiter *receiver;
    bool asleep; /* the receiver sleeps without the lock */
    bool kicked; /* kickfd was written since */
    int kickfd;  /* wakes the receiver: its own, because a poll by another thread takes events out of epoll */
    struct pli_list waiters;      /* threads that wait while another one receives */
    _Atomic(const void *) holder; /* my_id() of the thread that has it */
    _Atomic unsigned wanting;     /* threads that wait for the lock: the receiver then lets one in */
    _Atomic unsigned taken;       /* changes each time the lock is taken */
};

/* A number for the calling thread that costs nothing. */
static const void *my_id(void)
{
    static __thread char id;

    return &id;
}

/* ---- the lock ---- */

static void set_holder(struct pli_ctx_lock *l, unsigned depth)
{
    l->depth = depth;
    atomic_store_explicit(&l->holder, depth ? my_id() : NULL, memory_order_relaxed);
}

static bool try_some_time(struct pli_ctx_lock *l)
{
    int i;

    for (i = 0; i < LOCK_SPINS; i++) {
        if (pthread_mutex_trylock(&l->mutex) == 0)
            return true;
        pli_spin_wait();
    }
    return false;
}

static void take(struct pli_ctx_lock *l, unsigned depth)
{
    if (pthread_mutex_trylock(&l->mutex) != 0) {
        atomic_fetch_add_explicit(&l->wanting, 1, memory_order_relaxed);
        if (!try_some_time(l))
            pthread_mutex_lock(&l->mutex);
        atomic_fetch_sub_explicit(&l->wanting, 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&l->taken, 1, memory_order_relaxed);
    set_holder(l, depth);
}

/* Gives the lock up altogether; returns the depth to take it again with. */
static unsigned give_all(struct pli_ctx_lock *l)
{
    unsigned depth = l->depth;

    set_holder(l, 0);
    pthread_mutex_unlock(&l->mutex);
    return depth;
}

bool pli_handover_mine(const struct plait_ctx *ctx)
{
    /* only the thread itself can make this true or false for itself */
    return atomic_load_explicit(&ctx->lock->holder, memory_order_relaxed) == my_id();
}

void pli_handover_lock(struct plait_ctx *ctx)
{
    if (!ctx->shared)
        return;
    if (pli_handover_mine(ctx))
        ctx->lock->depth++;
    else
        take(ctx->lock, 1);
}

/* ---- who is to be woken ---- */

static void wake(struct waiter *w)
{
    pthread_mutex_lock(&w->mutex);
    atomic_store_explicit(&w->woken, true, memory_order_release);
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mutex);
}

/* Wakes the waiting threads whose wait is over. */
static void notice_done(struct pli_ctx_lock *l)
{
    struct pli_list *node;

    pli_list_foreach(node, &l->waiters)
    {
        struct waiter *w = pli_container_of(node, struct waiter, node);

        if (!atomic_load_explicit(&w->woken, memory_order_relaxed) && w->done(w->arg))
            wake(w);
    }
}

/* Has something happened to the context that the sleeping receiver must look at? */
static bool receiver_needed(const struct plait_ctx *ctx)
{
    const struct pli_ctx_lock *l = ctx->lock;
    uint64_t timer = pli_timers_next(ctx);

    if (!ctx->armed || ctx->nhot > 0 || !pli_list_is_empty(&ctx->deferred) || !pli_list_is_empty(&ctx->work))
        return true;
    if (timer != PLI_CLOCK_NEVER && (ctx->timerfd_at == 0 || timer < ctx->timerfd_at))
        return true;
    return l->receiver->done(l->receiver->arg);
}

static void kick_receiver(struct pli_ctx_lock *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->kickfd, &one, sizeof one); /* 8 bytes into an empty counter: cannot fail */

    (void)n;
    l->kicked = true;
}

void pli_handover_unlock(struct plait_ctx *ctx)
{
    struct pli_ctx_lock *l = ctx->lock;

    if (!ctx->shared || ctx->forked)
        return;
    if (l->depth > 1) {
        l->depth--;
        return;
    }
    notice_done(l);
    if (l->asleep && !l->kicked && receiver_needed(ctx))
        kick_receiver(l);
    give_all(l);
}

/* ---- receiving for everybody ---- */

/* done() of anybody who waits; the receiver must not go to sleep over it. */
static bool anybody_done(void *arg)
{
    struct pli_ctx_lock *l = arg;

    notice_done(l);
    return l->receiver->done(l->receiver->arg);
}

/* Between two passes: if threads wait for the lock, one of them gets it before we take it again. */
static void let_others_in(struct pli_ctx_lock *l)
{
    unsigned before, depth;

    if (atomic_load_explicit(&l->wanting, memory_order_relaxed) == 0)
        return;
    before = atomic_load_explicit(&l->taken, memory_order_relaxed);
    depth = give_all(l);
    while (atomic_load_explicit(&l->taken, memory_order_relaxed) == before &&
           atomic_load_explicit(&l->wanting, memory_order_relaxed) > 0)
        sched_yield();
    take(l, depth);
}

static void sleep_unlocked(struct plait_ctx *ctx, uint64_t deadline)
{
    struct pli_ctx_lock *l = ctx->lock;
    struct pollfd fds[2] = {{ctx->epfd, POLLIN, 0}, {l->kickfd, POLLIN, 0}};
    uint64_t count;
    unsigned depth;

    if (pli_loop_arm(ctx, anybody_done, l, deadline))
        return;
    l->asleep = true;
    depth = give_all(l);
    /* Only look: fetched events would name sources that another thread may remove meanwhile. */
    poll(fds, 2, -1);
    take(l, depth);
    l->asleep = false;
    if (l->kicked && read(l->kickfd, &count, sizeof count) == sizeof count)
        l->kicked = false;
    ctx->slow_in = 1; /* the next pass fetches the events */
}

/* Until the own wait is over (1), or the time has passed (0). */
static int receive(struct plait_ctx *ctx, struct waiter *w, uint64_t deadline)
{
    struct pli_ctx_lock *l = ctx->lock;
    struct pli_spin spin = {0, 0};
    unsigned empty = 0;
    int rc = -1;

    l->receiver = w;
    while (rc < 0) {
        int n = pli_ctx_pass(ctx);

        if (ctx->forked)
            return 0;
        if (n > 0 || ++empty % NOTICE_EVERY == 0)
            notice_done(l);
        if (w->done(w->arg)) {
            rc = 1;
            break;
        }
        switch (pli_spin_step(ctx, &spin, n, deadline)) {
        case PLI_SPIN_GO_ON:
            let_others_in(l);
            break;
        case PLI_SPIN_SLEEP:
            sleep_unlocked(ctx, deadline);
            spin.since = 0;
            break;
        case PLI_SPIN_TIMEOUT:
            rc = 0;
            break;
        }
    }
    l->receiver = NULL;
    return rc;
}

/* ---- waiting while another thread receives ---- */

static void spin_for(struct waiter *w, uint64_t ns)
{
    uint64_t end = pli_clock_after(pli_clock_now(), ns);
    int i = 0;

    while (!atomic_load_explicit(&w->woken, memory_order_acquire)) {
        pli_spin_wait();
        if (++i % NOTICE_EVERY == 0 && pli_clock_now() >= end)
            return;
    }
}

/* False: the time has passed. */
static bool sleep_for(struct waiter *w, uint64_t deadline)
{
    struct timespec at = {(time_t)(deadline / PLI_NS_PER_S), (long)(deadline % PLI_NS_PER_S)};
    int err = 0;

    pthread_mutex_lock(&w->mutex);
    while (!atomic_load_explicit(&w->woken, memory_order_relaxed) && err != ETIMEDOUT) {
        if (deadline == PLI_CLOCK_NEVER)
            err = pthread_cond_wait(&w->cond, &w->mutex);
        else
            err = pthread_cond_timedwait(&w->cond, &w->mutex, &at);
    }
    pthread_mutex_unlock(&w->mutex);
    return err != ETIMEDOUT;
}

/* Until this thread is woken: its wait is over, or it is to receive. False: the time has passed. */
static bool wait_turn(struct plait_ctx *ctx, struct waiter *w, uint64_t deadline)
{
    struct pli_ctx_lock *l = ctx->lock;
    unsigned depth;
    bool spin, in_time;

    atomic_store_explicit(&w->woken, false, memory_order_relaxed);
    pli_list_push_back(&l->waiters, &w->node);
    /* a second spinning thread pays only where the receiver has a core of its own */
    spin = pli_list_count(&l->waiters) < pli_registry_cpus();
    depth = give_all(l);
    if (spin)
        spin_for(w, ctx->spin_ns);
    in_time = sleep_for(w, deadline);
    take(l, depth);
    pli_list_remove(&w->node);
    return in_time;
}

/* Somebody must receive as long as somebody waits. A waiting thread that was woken and does not run yet
 * will receive, or hand over itself when it leaves. */
static void hand_over(struct pli_ctx_lock *l)
{
    struct pli_list *node;

    if (l->receiver || pli_list_is_empty(&l->waiters))
        return;
    pli_list_foreach(node, &l->waiters) {
        if (atomic_load_explicit(&pli_container_of(node, struct waiter, node)->woken, memory_order_relaxed))
            return;
    }
    wake(pli_container_of(pli_list_first(&l->waiters), struct waiter, node));
}

static void init_waiter(struct waiter *w)
{
    pthread_condattr_t attr;

    pli_list_init(&w->node);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void fini_waiter(struct waiter *w)
{
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->mutex);
}

static int wait_locked(struct plait_ctx *ctx, struct waiter *w, uint64_t deadline)
{
    bool in_time = true;

    while (!w->done(w->arg)) {
        if (!in_time)
            return 0;
        if (ctx->lock->receiver)
            in_time = wait_turn(ctx, w, deadline);
        else
            in_time = receive(ctx, w, deadline);
        if (ctx->forked)
            return pli_ctx_check(ctx);
    }
    return 1;
}

int pli_handover_wait(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline)
{
    struct waiter w = {.done = done, .arg = arg};
    int rc;

    if (ctx->forked)
        return pli_ctx_check(ctx);
    pli_handover_lock(ctx);
    rc = pli_ctx_check_blocking(ctx);
    if (rc == 0) {
        init_waiter(&w);
        rc = wait_locked(ctx, &w, deadline);
        if (ctx->forked) /* by a callback: this is the child, and the lock's state is as good as unknown */
            return rc;
        hand_over(ctx->lock);
        fini_waiter(&w);
    }
    pli_handover_unlock(ctx);
    return rc;
}

/* ---- life ---- */

bool pli_handover_busy(const struct plait_ctx *ctx)
{
    return ctx->lock->receiver || !pli_list_is_empty(&ctx->lock->waiters);
}

int pli_handover_create(struct plait_ctx *ctx)
{
    struct pli_ctx_lock *l = calloc(1, sizeof *l);

    if (!l)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory for its lock", ctx->name);
    l->kickfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->kickfd < 0) {
        free(l);
        return pli_fail_errno("context '%s': eventfd", ctx->name);
    }
    pthread_mutex_init(&l->mutex, NULL);
    pli_list_init(&l->waiters);
    ctx->lock = l;
    return 0;
}

void pli_handover_destroy(struct plait_ctx *ctx, bool forked)
{
    struct pli_ctx_lock *l = ctx->lock;

    if (!l)
        return;
    if (!forked) { /* in the child another thread's lock may be in any state */
        if (pli_handover_mine(ctx))
            give_all(l);
        pthread_mutex_destroy(&l->mutex);
    }
    if (l->kickfd >= 0)
        close(l->kickfd);
    free(l);
    ctx->lock = NULL;
}

void pli_handover_forked(struct plait_ctx *ctx)
{
    if (!ctx->lock)
        return;
    close(ctx->lock->kickfd);
    ctx->lock->kickfd = -1;
}

int plait_ctx_lock(struct plait_ctx *ctx)
{
    if (ctx->forked)
        return pli_ctx_check_slow(ctx);
    if (!ctx->shared)
        return pli_fail(PLAIT_E_INVAL, "context '%s' has no lock: create it with PLAIT_CTX_SHARED",
                        ctx->name);
    pli_handover_lock(ctx);
    return 0;
}

int plait_ctx_unlock(struct plait_ctx *ctx)
{
    if (ctx->forked)
        return pli_ctx_check_slow(ctx);
    if (!ctx->shared)
        return pli_fail(PLAIT_E_INVAL, "context '%s' has no lock: create it with PLAIT_CTX_SHARED",
                        ctx->name);
    if (!pli_handover_mine(ctx))
        return pli_fail(PLAIT_E_THREAD,
                        "context '%s': plait_ctx_unlock() by a thread that does not have the lock",
                        ctx->name);
    pli_handover_unlock(ctx);
    return 0;
}
