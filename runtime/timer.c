/* SPDX-License-Identifier: BSD-3-Clause */
/* Timers: the internal ones, and plait_timer on top of them. */
#include "runtime/loop_priv.h"

#include <stdlib.h>
#include <sys/timerfd.h>
#include "util/err.h"

void pli_timer_init(struct pli_timer *t, void (*fn)(struct pli_timer *t))
{
    pli_heap_node_init(&t->node);
    t->fn = fn;
    t->armed = false;
}

void pli_timer_start(struct plait_ctx *ctx, struct pli_timer *t, uint64_t at_ns)
{
    pli_heap_insert(&ctx->timers, &t->node, at_ns);
    t->armed = true;
}

void pli_timer_stop(struct plait_ctx *ctx, struct pli_timer *t)
{
    (void)ctx;
    pli_heap_remove(&t->node);
    t->armed = false;
}

uint64_t pli_timers_next(const struct plait_ctx *ctx)
{
    const struct pli_heap_node *first = pli_heap_min(&ctx->timers);

    return first ? first->key : PLI_CLOCK_NEVER;
}

int pli_timers_run(struct plait_ctx *ctx)
{
    uint64_t now = ctx->now;
    /* a timer that is restarted for a time in the past waits for the next look */
    size_t budget = ctx->timers.count;
    int n = 0;

    while (budget-- > 0 && pli_timers_next(ctx) <= now && !ctx->forked) {
        struct pli_timer *t = pli_container_of(pli_heap_min(&ctx->timers), struct pli_timer, node);

        pli_timer_stop(ctx, t);
        t->fn(t);
        n++;
    }
    return n;
}

void pli_timerfd_set(struct plait_ctx *ctx, uint64_t at)
{
    struct itimerspec its = { { 0, 0 }, { 0, 0 } };

    if (at == PLI_CLOCK_NEVER)
        at = 0;
    if (at == ctx->timerfd_at)
        return;
    its.it_value.tv_sec = (time_t)(at / PLI_NS_PER_S);
    its.it_value.tv_nsec = (long)(at % PLI_NS_PER_S);
    /* cannot fail: the descriptor is ours and the value is valid */
    timerfd_settime(ctx->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
    ctx->timerfd_at = at;
}

/* ---- plait_timer ---- */

struct plait_timer {
    struct pli_timer t;
    struct pli_ctx_obj obj;
    struct plait_ctx *ctx;
    uint64_t at;     /* ns, when it is due */
    uint64_t period; /* ns, 0: once */
    void (*fn)(void *arg);
    void *arg;
};

static void fire(struct pli_timer *t)
{
    struct plait_timer *timer = pli_container_of(t, struct plait_timer, t);
    struct plait_ctx *ctx = timer->ctx;

    if (timer->period) {
        timer->at = pli_clock_after(timer->at, timer->period);
        /* it keeps its phase; periods that were missed are not made up for */
        if (timer->at <= ctx->now)
            timer->at += (ctx->now - timer->at) / timer->period * timer->period + timer->period;
        pli_timer_start(ctx, t, timer->at);
    }
    timer->fn(timer->arg); /* the last thing: it may free the timer */
}

static void destroy_timer(struct pli_ctx_obj *obj, bool forked)
{
    struct plait_timer *timer = pli_container_of(obj, struct plait_timer, obj);

    (void)forked;
    pli_timer_stop(timer->ctx, &timer->t);
    free(timer);
}

int plait_timer_create(struct plait_timer **t, struct plait_ctx *ctx, void (*fn)(void *arg), void *arg)
{
    struct plait_timer *timer;
    int rc = pli_ctx_check(ctx);

    if (rc < 0)
        return rc;
    if (!fn)
        return pli_fail(PLAIT_E_INVAL, "context '%s': a timer without a function", ctx->name);
    timer = calloc(1, sizeof *timer);
    if (!timer)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory for a timer", ctx->name);
    pli_timer_init(&timer->t, fire);
    timer->ctx = ctx;
    timer->fn = fn;
    timer->arg = arg;
    pli_ctx_obj_add(ctx, &timer->obj, destroy_timer);
    *t = timer;
    return 0;
}

void plait_timer_start(struct plait_timer *t, uint64_t delay_us, uint64_t period_us)
{
    uint64_t delay;

    if (pli_ctx_check(t->ctx) < 0)
        return;
    delay = delay_us > PLI_CLOCK_NEVER / PLI_NS_PER_US ? PLI_CLOCK_NEVER : delay_us * PLI_NS_PER_US;
    t->period = period_us > PLI_CLOCK_NEVER / PLI_NS_PER_US ? PLI_CLOCK_NEVER : period_us * PLI_NS_PER_US;
    t->at = pli_clock_after(pli_clock_now(), delay);
    pli_timer_start(t->ctx, &t->t, t->at);
}

void plait_timer_stop(struct plait_timer *t)
{
    if (pli_ctx_check(t->ctx) < 0)
        return;
    t->period = 0;
    pli_timer_stop(t->ctx, &t->t);
}

void plait_timer_free(struct plait_timer *t)
{
    if (!t)
        return;
    pli_ctx_obj_del(&t->obj);
    destroy_timer(&t->obj, t->ctx->forked);
}
