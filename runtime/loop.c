/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop itself: the pass over the links, the slow look, parking, sleeping. */
#include "runtime/loop_priv.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include "runtime/handover.h"
#include "util/err.h"
#include "util/spin.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
    PASS_BUDGET = 64,     /* records of one link in one pass */
    SLOW_EVERY_MAX = 128, /* passes between two slow looks, at most */
    CLOCK_EVERY = 64,     /* empty passes between two looks at the clock while spinning */
    DEFER_ROUNDS = 4,     /* deferred work may defer more: so often it still runs in the same pass */
    IDLE_ROUNDS = 4,      /* looks without a record that make a link idle: 1 ms */
    IDLE_KEEP = 8,        /* while no link is busy, so many idle ones stay hot */
};
#define SLOW_MIN_NS   (10 * PLI_NS_PER_US)
#define SLOW_MAX_NS   (40 * PLI_NS_PER_US)
#define EPOLL_NS      (20 * PLI_NS_PER_US)
#define IDLE_LOOK_NS  (250 * PLI_NS_PER_US)

/* ---- deferred work ---- */

void pli_defer_init(struct pli_defer *d, void (*fn)(struct pli_defer *d))
{
    pli_list_init(&d->node);
    d->fn = fn;
}

void pli_ctx_defer(struct plait_ctx *ctx, struct pli_defer *d)
{
    if (!pli_list_is_on(&d->node))
        pli_list_push_back(&ctx->deferred, &d->node);
}

void pli_defer_cancel(struct pli_defer *d)
{
    pli_list_remove(&d->node);
}

static void run_deferred(struct plait_ctx *ctx)
{
    struct pli_list batch, *node;
    int round;

    for (round = 0; round < DEFER_ROUNDS && !pli_list_is_empty(&ctx->deferred); round++) {
        pli_list_init(&batch);
        pli_list_splice_back(&batch, &ctx->deferred);
        while (!ctx->forked && (node = pli_list_pop_front(&batch)) != NULL) {
            struct pli_defer *d = pli_container_of(node, struct pli_defer, node);

            d->fn(d);
        }
        if (unlikely(ctx->forked)) { /* the child of a fork in a callback: nothing more runs */
            pli_list_splice_back(&ctx->deferred, &batch);
            return;
        }
    }
}

/* ---- work in slices ---- */

void pli_work_init(struct pli_work *w, void (*fn)(struct pli_work *w))
{
    pli_list_init(&w->node);
    w->fn = fn;
}

void pli_ctx_work(struct plait_ctx *ctx, struct pli_work *w)
{
    if (!pli_list_is_on(&w->node))
        pli_list_push_back(&ctx->work, &w->node);
}

void pli_work_cancel(struct pli_work *w)
{
    pli_list_remove(&w->node);
}

static __attribute__((noinline)) int run_work(struct plait_ctx *ctx, int events)
{
    struct pli_work *w = pli_container_of(pli_list_pop_front(&ctx->work), struct pli_work, node);

    ctx->pass_events = events;
    w->fn(w);
    ctx->pass_events = 0;
    return 1;
}

/* ---- links ---- */

static void hot_add(struct plait_ctx *ctx, struct pli_tr *tr)
{
    tr->hot_index = (int)ctx->nhot;
    tr->idle_rounds = 0;
    ctx->hot[ctx->nhot++] = tr;
}

static void hot_remove(struct plait_ctx *ctx, struct pli_tr *tr)
{
    struct pli_tr *last = ctx->hot[--ctx->nhot];

    ctx->hot[tr->hot_index] = last;
    last->hot_index = tr->hot_index;
    tr->hot_index = -1;
}

/* There is a place for every link, so that making a parked link hot again cannot fail. */
static int reserve_hot(struct plait_ctx *ctx)
{
    unsigned cap = ctx->hot_cap ? 2 * ctx->hot_cap : 8;
    struct pli_tr **hot;

    if (ctx->ntr < ctx->hot_cap)
        return 0;
    hot = realloc(ctx->hot, cap * sizeof *hot);
    if (!hot)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory for link %u", ctx->name, ctx->ntr + 1);
    ctx->hot = hot;
    ctx->hot_cap = cap;
    return 0;
}

static int tr_add(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src)
{
    int rc = reserve_hot(ctx);

    if (rc < 0)
        return rc;
    src->fd = tr->ops->wake_fd(tr);
    src->fn = NULL;
    src->tr = tr;
    /* the transport closes its own descriptor, in a forked child, too */
    rc = pli_src_add_foreign(ctx, src, EPOLLIN | EPOLLET);
    if (rc < 0)
        return rc;
    ctx->ntr++;
    hot_add(ctx, tr);
    return 0;
}

static void tr_del(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src)
{
    pli_src_del(ctx, src);
    if (tr->hot_index >= 0 && !ctx->forked)
        hot_remove(ctx, tr);
    tr->hot_index = -1;
    ctx->ntr--;
}

int pli_ctx_tr_add(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src)
{
    int rc = 0;

    if (!tr->hub)
        rc = tr_add(ctx, tr, src);
    else if (ctx->hub.users == 0)
        rc = tr_add(ctx, tr->hub, &ctx->hub.src);
    if (rc < 0)
        return rc;
    if (tr->hub) {
        ctx->hub.users++;
        pli_ctx_tr_heat(ctx, tr); /* it may have something to send already */
    }
    tr->counted = true;
    ctx->st.links++;
    return 0;
}

void pli_ctx_tr_del(struct plait_ctx *ctx, struct pli_tr *tr, struct pli_src *src)
{
    if (!tr->counted)
        return;
    tr->counted = false;
    ctx->st.links--;
    if (!tr->hub)
        tr_del(ctx, tr, src);
    else if (--ctx->hub.users == 0)
        tr_del(ctx, tr->hub, &ctx->hub.src);
}

void pli_ctx_tr_heat(struct plait_ctx *ctx, struct pli_tr *tr)
{
    if (tr->hub)
        tr = tr->hub;
    if (tr->hot_index >= 0)
        return;
    tr->ops->unpark(tr);
    hot_add(ctx, tr);
}

/* ---- links that stay idle while others are busy ---- */

/* Parks the links of hot[from..nhot), which are idle, behind one barrier; what has work after all stays
 * hot. */
static void park_tail(struct plait_ctx *ctx, unsigned from)
{
    unsigned i;

    for (i = from; i < ctx->nhot; i++)
        ctx->hot[i]->ops->park(ctx->hot[i]);
    pli_sleeper_barrier();
    for (i = ctx->nhot; i-- > from;) {
        struct pli_tr *tr = ctx->hot[i];

        if (tr->ops->ready(tr)) {
            tr->ops->unpark(tr);
            tr->idle_rounds = 0;
        } else {
            hot_remove(ctx, tr);
        }
    }
}

static void look_for_idle(struct plait_ctx *ctx)
{
    unsigned i, busy = 0, keep;

    ctx->last_idle = ctx->now;
    /* the busy ones go to the front, the idle ones gather behind them */
    for (i = 0; i < ctx->nhot; i++) {
        struct pli_tr *tr = ctx->hot[i];

        if (++tr->idle_rounds > IDLE_ROUNDS)
            continue;
        ctx->hot[i] = ctx->hot[busy];
        ctx->hot[i]->hot_index = (int)i;
        ctx->hot[busy] = tr;
        tr->hot_index = (int)busy++;
    }
    /* with nobody busy, spinning on a few idle links costs nobody anything */
    keep = busy ? busy : IDLE_KEEP;
    if (ctx->nhot > keep)
        park_tail(ctx, keep);
}

/* ---- the pass ---- */

static inline int poll_links(struct plait_ctx *ctx)
{
    bool idle = pli_list_is_empty(&ctx->work);
    unsigned i = ctx->nhot;
    int total = 0;

    /* Backwards, because a link that a callback removes is replaced by the last one. */
    while (i > 0) {
        struct pli_tr *tr;
        int n;

        if (unlikely(i > ctx->nhot)) {
            i = ctx->nhot;
            continue;
        }
        tr = ctx->hot[--i];
        tr->alone = idle && ctx->nhot == 1;
        n = tr->ops->poll(tr, PASS_BUDGET);
        if (n > 0) {
            tr->idle_rounds = 0;
            total += n;
        }
    }
    return total;
}

/* Passes take from a few ns (nothing there) to many us (callbacks that compute, or somebody who polls
 * now and then only), so the number of passes between two looks follows the time that they took. */
static void adapt_slow_look(struct plait_ctx *ctx, uint64_t elapsed)
{
    if (elapsed > SLOW_MAX_NS)
        ctx->slow_every = ctx->slow_every > 4 ? ctx->slow_every / 4 : 1;
    else if (elapsed < SLOW_MIN_NS && ctx->slow_every < SLOW_EVERY_MAX)
        ctx->slow_every *= 2;
    ctx->slow_in = ctx->slow_every;
}

static __attribute__((noinline)) int slow_look(struct plait_ctx *ctx)
{
    bool awoken = ctx->armed;
    uint64_t now;
    int n = 0;

    if (unlikely(awoken)) /* after plait_ctx_arm() */
        pli_loop_awake(ctx);
    now = pli_clock_now();
    adapt_slow_look(ctx, now - ctx->now);
    ctx->now = now;
    if (awoken || ctx->nhot == 0 || now - ctx->last_epoll >= EPOLL_NS)
        n += pli_src_run(ctx, pli_src_fetch(ctx, 0));
    if (pli_timers_next(ctx) <= now)
        n += pli_timers_run(ctx);
    if (ctx->nhot > 1 && now - ctx->last_idle >= IDLE_LOOK_NS)
        look_for_idle(ctx);
    return n;
}

/* A wake-up without an event may still have been asked for. */
static bool wanted(struct plait_ctx *ctx)
{
    return atomic_exchange_explicit(&ctx->woken, 0, memory_order_relaxed) ||
           atomic_load_explicit(&ctx->stop, memory_order_relaxed) || ctx->now >= ctx->sleep_deadline;
}

int pli_ctx_pass(struct plait_ctx *ctx)
{
    int n = 0;

    ctx->polling = true;
    ctx->st.polls++;
    /* first, so that a link which has just been woken is polled in this pass; with no hot link there
     * is nothing else */
    if (unlikely(--ctx->slow_in == 0 || ctx->nhot == 0))
        n += slow_look(ctx);
    n += poll_links(ctx);
    if (unlikely(!pli_mpsc_is_empty(&ctx->posts)))
        n += pli_posts_run(ctx);
    if (unlikely(!pli_list_is_empty(&ctx->deferred)))
        run_deferred(ctx);
    if (unlikely(!pli_list_is_empty(&ctx->work)) && !ctx->forked)
        n += run_work(ctx, n);
    ctx->polling = false;
    ctx->st.events += (uint64_t)n;
    if (unlikely(ctx->woke)) {
        ctx->woke = false;
        ctx->st.spurious_wakeups += n == 0 && !wanted(ctx);
    }
    if (n == 0)
        pli_spin_wait();
    return n;
}

/* ---- sleeping ---- */

static bool something_there(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg)
{
    unsigned i;

    for (i = 0; i < ctx->nhot; i++) {
        if (ctx->hot[i]->ops->ready(ctx->hot[i]))
            return true;
    }
    return !pli_mpsc_is_empty(&ctx->posts) || (done && done(arg));
}

int pli_loop_arm(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline)
{
    uint64_t timer = pli_timers_next(ctx);
    unsigned i;

    ctx->now = pli_clock_now();
    if (!pli_list_is_empty(&ctx->deferred) || !pli_list_is_empty(&ctx->work) || timer <= ctx->now || deadline <= ctx->now)
        return 1;
    for (i = 0; i < ctx->nhot; i++)
        ctx->hot[i]->ops->park(ctx->hot[i]);
    atomic_store_explicit(&ctx->sleeping, 1, memory_order_relaxed);
    /* pairs with the fence of pli_ctx_kick() and with the producers' load of their parked word */
    pli_sleeper_barrier();
    if (something_there(ctx, done, arg)) {
        for (i = 0; i < ctx->nhot; i++)
            ctx->hot[i]->ops->unpark(ctx->hot[i]);
        atomic_store_explicit(&ctx->sleeping, 0, memory_order_relaxed);
        ctx->armed = false;
        ctx->st.parks_averted++;
        return 1;
    }
    while (ctx->nhot > 0)
        ctx->hot[--ctx->nhot]->hot_index = -1;
    pli_timerfd_set(ctx, timer < deadline ? timer : deadline);
    ctx->armed = true;
    ctx->sleep_deadline = deadline;
    ctx->st.parks++;
    return 0;
}

void pli_loop_awake(struct plait_ctx *ctx)
{
    ctx->armed = false;
    atomic_store_explicit(&ctx->sleeping, 0, memory_order_relaxed);
    ctx->woke = true;
    ctx->slow_in = 1; /* timers, first thing */
    ctx->now = pli_clock_now();
    ctx->st.wakeups++;
}

static void sleep_alone(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline)
{
    int n;

    if (pli_loop_arm(ctx, done, arg, deadline))
        return;
    n = pli_src_fetch(ctx, -1);
    pli_loop_awake(ctx);
    ctx->last_epoll = ctx->now;
    ctx->polling = true;
    n = pli_src_run(ctx, n);
    ctx->polling = false;
    ctx->st.events += (uint64_t)n;
    if (n > 0)
        ctx->woke = false; /* not a spurious one */
}

/* ns to spin, as things are now. */
static uint64_t spin_budget(const struct plait_ctx *ctx)
{
    return ctx->spin_auto && pli_registry_crowded() ? 0 : ctx->spin_ns;
}

enum pli_spin_next pli_spin_step(struct plait_ctx *ctx, struct pli_spin *spin, int n, uint64_t deadline)
{
    uint64_t now, budget;

    if (n > 0) {
        spin->since = 0;
        spin->empty = 0;
        /* as of the last slow look, so that a busy context need not read the clock here */
        return unlikely(ctx->now >= deadline) ? PLI_SPIN_TIMEOUT : PLI_SPIN_GO_ON;
    }
    ctx->st.spins++;
    budget = spin_budget(ctx);
    if (++spin->empty < CLOCK_EVERY && budget)
        return PLI_SPIN_GO_ON;
    spin->empty = 0;
    now = pli_clock_now();
    if (now >= deadline)
        return PLI_SPIN_TIMEOUT;
    if (!spin->since)
        spin->since = now;
    return now - spin->since >= budget ? PLI_SPIN_SLEEP : PLI_SPIN_GO_ON;
}

static int wait_alone(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline)
{
    struct pli_spin spin = { 0, 0 };

    for (;;) {
        int n;

        if (done(arg))
            return 1;
        n = pli_ctx_pass(ctx);
        if (unlikely(ctx->forked))
            return pli_ctx_check(ctx);
        switch (pli_spin_step(ctx, &spin, n, deadline)) {
        case PLI_SPIN_GO_ON:
            break;
        case PLI_SPIN_SLEEP:
            sleep_alone(ctx, done, arg, deadline);
            spin.since = 0;
            break;
        case PLI_SPIN_TIMEOUT:
            return done(arg) ? 1 : 0;
        }
    }
}

int pli_ctx_wait(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline_ns)
{
    int rc;

    if (ctx->shared)
        return pli_handover_wait(ctx, done, arg, deadline_ns);
    rc = pli_ctx_check_blocking(ctx);
    return rc < 0 ? rc : wait_alone(ctx, done, arg, deadline_ns);
}
