/* SPDX-License-Identifier: BSD-3-Clause */
/* Work from other threads, and waking a context that sleeps. */
#include "runtime/loop_priv.h"

#include <stdlib.h>
#include <unistd.h>
#include "util/err.h"

#define POSTS_PER_PASS 256

void pli_ctx_kick(struct plait_ctx *ctx)
{
    uint64_t one = 1;
    ssize_t n;

    /* Either this fence comes first and the sleeper's re-check sees what we stored, or the sleeper's
     * barrier comes first and we see 'sleeping' (pli_loop_arm()). */
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&ctx->sleeping, memory_order_relaxed))
        return;
    /* one of several producers is enough */
    if (!atomic_exchange_explicit(&ctx->sleeping, 0, memory_order_relaxed))
        return;
    n = write(ctx->wakefd, &one, sizeof one); /* fails only if the counter is full: readable all the same */
    (void)n;
}

void pli_ctx_post(struct plait_ctx *ctx, struct pli_post *post)
{
    pli_mpsc_push(&ctx->posts, &post->node);
    pli_ctx_kick(ctx);
}

int pli_posts_run(struct plait_ctx *ctx)
{
    struct pli_mpsc_node *node;
    int n = 0;

    while (n < POSTS_PER_PASS && !ctx->forked && (node = pli_mpsc_pop(&ctx->posts)) != NULL) {
        struct pli_post *post = pli_container_of(node, struct pli_post, node);

        post->fn(post);
        n++;
    }
    return n;
}

void plait_ctx_stop(struct plait_ctx *ctx)
{
    if (ctx->forked)
        return;
    atomic_store_explicit(&ctx->stop, 1, memory_order_release);
    pli_ctx_kick(ctx);
}

void plait_ctx_wake(struct plait_ctx *ctx)
{
    if (ctx->forked)
        return;
    atomic_store_explicit(&ctx->woken, 1, memory_order_relaxed);
    pli_ctx_kick(ctx);
}

/* ---- plait_ctx_post ---- */

struct call {
    struct pli_post post;
    void (*fn)(void *arg);
    void *arg;
};

static void run_call(struct pli_post *post)
{
    struct call *c = pli_container_of(post, struct call, post);
    void (*fn)(void *arg) = c->fn;
    void *arg = c->arg;

    free(c);
    fn(arg);
}

static void drop_call(struct pli_post *post)
{
    free(pli_container_of(post, struct call, post));
}

int plait_ctx_post(struct plait_ctx *ctx, void (*fn)(void *arg), void *arg)
{
    struct call *c;

    if (ctx->forked)
        return pli_ctx_check_slow(ctx);
    if (!fn)
        return pli_fail(PLAIT_E_INVAL, "context '%s': a post without a function", ctx->name);
    c = malloc(sizeof *c);
    if (!c)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory to post work", ctx->name);
    c->post.fn = run_call;
    c->post.drop = drop_call;
    c->fn = fn;
    c->arg = arg;
    pli_ctx_post(ctx, &c->post);
    return 0;
}

void pli_posts_drop(struct plait_ctx *ctx)
{
    struct pli_mpsc_node *node;

    while ((node = pli_mpsc_pop(&ctx->posts)) != NULL) {
        struct pli_post *post = pli_container_of(node, struct pli_post, node);

        if (post->drop)
            post->drop(post);
    }
}
