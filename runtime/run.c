/* SPDX-License-Identifier: BSD-3-Clause */
/* Poll, run, and handing the context to another event loop. */
#include "runtime/handover.h"
#include "runtime/loop_priv.h"

int plait_ctx_poll(struct plait_ctx *ctx)
{
    int n;

    if (ctx->forked)
        return pli_ctx_check_slow(ctx);
    if (ctx->shared)
        pli_handover_lock(ctx);
    n = pli_ctx_check_blocking(ctx);
    if (n == 0) {
        if (ctx->armed)
            ctx->slow_in = 1; /* what woke us is in epoll */
        n = pli_ctx_pass(ctx);
        if (ctx->forked)
            return pli_ctx_check_slow(ctx);
    }
    if (ctx->shared)
        pli_handover_unlock(ctx);
    return n;
}

static bool is_stopped(void *arg)
{
    struct plait_ctx *ctx = arg;

    return atomic_load_explicit(&ctx->stop, memory_order_acquire);
}

static bool take_stop(struct plait_ctx *ctx)
{
    return is_stopped(ctx) && atomic_exchange_explicit(&ctx->stop, 0, memory_order_acq_rel);
}

static int run_once(struct plait_ctx *ctx)
{
    int rc;

    if (take_stop(ctx))
        return 1;
    rc = plait_ctx_poll(ctx);
    return rc < 0 ? rc : take_stop(ctx);
}

int plait_ctx_run(struct plait_ctx *ctx, int64_t timeout_us)
{
    uint64_t ns, deadline = PLI_CLOCK_NEVER;
    int rc;

    rc = ctx->forked ? pli_ctx_check_slow(ctx) : 0;
    if (rc < 0)
        return rc;
    if (timeout_us == 0)
        return run_once(ctx);
    if (timeout_us > 0) {
        ns = (uint64_t)timeout_us > PLI_CLOCK_NEVER / PLI_NS_PER_US ? PLI_CLOCK_NEVER
                                                                    : (uint64_t)timeout_us * PLI_NS_PER_US;
        deadline = pli_clock_after(pli_clock_now(), ns);
    }
    do { /* several threads may run a shared context, and one of them gets the stop */
        rc = pli_ctx_wait(ctx, is_stopped, ctx, deadline);
    } while (rc == 1 && !take_stop(ctx));
    return rc;
}

int plait_ctx_fd(struct plait_ctx *ctx)
{
    int rc = ctx->forked ? pli_ctx_check_slow(ctx) : 0;

    return rc < 0 ? rc : ctx->epfd;
}

int plait_ctx_arm(struct plait_ctx *ctx)
{
    int rc;

    if (ctx->forked)
        return pli_ctx_check_slow(ctx);
    if (ctx->shared)
        pli_handover_lock(ctx);
    rc = pli_ctx_check_blocking(ctx);
    if (rc == 0)
        rc = pli_loop_arm(ctx, NULL, NULL, PLI_CLOCK_NEVER);
    if (ctx->shared)
        pli_handover_unlock(ctx);
    return rc;
}
