/* SPDX-License-Identifier: BSD-3-Clause */
/* Contexts: create, destroy, checks, counters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/handover.h"
#include "runtime/link.h"
#include "runtime/loop_priv.h"
#include "runtime/pace.h"
#include "runtime/peeraddr.h"
#include "runtime/place.h"
#include "util/env.h"
#include "util/err.h"

#define SPIN_AUTO_US 50
#define SPIN_MAX_US (1000u * 1000u * 1000u)

/* ---- who may call ---- */

#ifdef PLAIT_DEBUG
static int check_thread(const struct plait_ctx *ctx)
{
    if (ctx->shared) {
        if (pli_handover_mine(ctx))
            return 0;
        return pli_fail(PLAIT_E_THREAD,
                        "shared context '%s' is used by thread %d, which does not have its lock: call "
                        "plait_ctx_lock() first",
                        ctx->name, (int)gettid());
    }
    if (pthread_equal(pthread_self(), ctx->owner))
        return 0;
    return pli_fail(
        PLAIT_E_THREAD,
        "context '%s' belongs to thread %d and is used by thread %d: use plait_ctx_post(), or create "
        "it with PLAIT_CTX_SHARED",
        ctx->name, ctx->owner_tid, (int)gettid());
}
#endif

int pli_ctx_check_slow(const struct plait_ctx *ctx)
{
    if (ctx->forked)
        return pli_fail(PLAIT_E_FORKED,
                        "context '%s' belongs to the parent process: create a new one after fork()",
                        ctx->name);
#ifdef PLAIT_DEBUG
    return check_thread(ctx);
#else
    return 0;
#endif
}

int pli_ctx_check_blocking(const struct plait_ctx *ctx)
{
    int rc = pli_ctx_check(ctx);

    if (rc < 0)
        return rc;
    if (ctx->polling)
        return pli_fail(PLAIT_E_WOULDBLOCK,
                        "context '%s' is running: this call is not allowed in its callbacks", ctx->name);
    return 0;
}

/* ---- create ---- */

static int check_peer_timeout(const char *name, uint64_t ms)
{
    if (ms >= PLAIT_PEER_TIMEOUT_MIN && ms <= PLAIT_PEER_TIMEOUT_MAX)
        return 0;
    return pli_fail(PLAIT_E_INVAL, "%s is %llu: from %u to %u milliseconds", name, (unsigned long long)ms,
                    PLAIT_PEER_TIMEOUT_MIN, PLAIT_PEER_TIMEOUT_MAX);
}

/* The environment goes before the program: whoever runs it knows the network. */
static int get_peer_timeout(struct plait_ctx_opts *opts)
{
    uint64_t ms = opts->peer_timeout_ms;
    int rc = check_peer_timeout("plait_ctx_opts.peer_timeout_ms", ms);

    if (rc == 0)
        rc = pli_env_number(&ms, "PLAIT_PEER_TIMEOUT", "milliseconds", NULL, 0);
    if (rc == 0)
        rc = check_peer_timeout("PLAIT_PEER_TIMEOUT", ms);
    opts->peer_timeout_ms = (uint32_t)ms;
    return rc;
}

static int check_opts(const struct plait_ctx_opts *given, struct plait_ctx_opts *opts)
{
    const struct plait_ctx_opts defaults = PLAIT_CTX_OPTS_INIT;

    *opts = defaults;
    if (!given)
        return get_peer_timeout(opts);
    if (given->size < sizeof(size_t) || given->size > sizeof *opts)
        return pli_fail(
            PLAIT_E_INVAL,
            "plait_ctx_opts.size is %zu, this library knows up to %zu: start from PLAIT_CTX_OPTS_INIT",
            given->size, sizeof *opts);
    memcpy(opts, given, given->size);
    if (opts->cpu < PLAIT_CPU_NONE)
        return pli_fail(PLAIT_E_INVAL,
                        "plait_ctx_opts.cpu is %d: a CPU's number, PLAIT_CPU_AUTO or PLAIT_CPU_NONE",
                        opts->cpu);
    if (opts->spin_us > SPIN_MAX_US && opts->spin_us != PLAIT_SPIN_AUTO)
        return pli_fail(PLAIT_E_INVAL, "plait_ctx_opts.spin_us is %u: at most %u, or PLAIT_SPIN_AUTO",
                        opts->spin_us, SPIN_MAX_US);
    if (opts->flags & ~PLAIT_CTX_SHARED)
        return pli_fail(PLAIT_E_INVAL, "plait_ctx_opts.flags is 0x%x: only PLAIT_CTX_SHARED is known",
                        opts->flags);
    if (opts->name && strlen(opts->name) >= sizeof((struct plait_ctx *)0)->name)
        return pli_fail(PLAIT_E_INVAL, "plait_ctx_opts.name '%s' is too long: at most %zu characters",
                        opts->name, sizeof((struct plait_ctx *)0)->name - 1);
    return get_peer_timeout(opts);
}

static struct plait_ctx *alloc_ctx(const struct plait_ctx_opts *opts)
{
    struct plait_ctx *ctx;

    if (posix_memalign((void **)&ctx, 64, sizeof *ctx) != 0)
        return NULL;
    memset(ctx, 0, sizeof *ctx);
    ctx->slow_in = ctx->slow_every = 1;
    ctx->shared = opts->flags & PLAIT_CTX_SHARED;
    ctx->spin_auto = opts->spin_us == PLAIT_SPIN_AUTO;
    ctx->spin_ns = (ctx->spin_auto ? SPIN_AUTO_US : opts->spin_us) * PLI_NS_PER_US;
    ctx->peer_timeout_ms = opts->peer_timeout_ms;
    ctx->cpu = ctx->node = -1;
    ctx->epfd = ctx->timerfd = ctx->wakefd = -1;
    ctx->owner = pthread_self();
    ctx->owner_tid = (int)gettid();
    ctx->now = pli_clock_now();
    pli_list_init(&ctx->deferred);
    pli_list_init(&ctx->work);
    pli_pace_init(&ctx->pace);
    pli_list_init(&ctx->objs);
    pli_list_init(&ctx->links);
    pli_list_init(&ctx->listeners);
    pli_list_init(&ctx->srcs);
    pli_heap_init(&ctx->timers);
    pli_mpsc_init(&ctx->posts);
    ctx->mem_post.fn = pli_shares_post_fn;
    return ctx;
}

/* What needs the name for its error texts, and can fail. */
static int open_ctx(struct plait_ctx *ctx, int cpu)
{
    int rc = pli_src_init(ctx);

    if (rc < 0)
        return rc;
    if (ctx->shared) {
        rc = pli_handover_create(ctx);
        if (rc < 0)
            goto err_src;
    }
    if (cpu != PLAIT_CPU_NONE) {
        rc = pli_place_pin(ctx, cpu);
        if (rc < 0)
            goto err_handover;
    }
    pli_membarrier_available(); /* registers the process before its first ring exists */
    rc = pli_host_id_load();
    if (rc < 0)
        goto err_pin;
    return 0;

err_pin:
    pli_place_unpin(ctx);

err_handover:
    pli_handover_destroy(ctx, false);
err_src:
    pli_src_fini(ctx);
    return rc;
}

int plait_ctx_create(struct plait_ctx **ctx, const struct plait_ctx_opts *opts)
{
    struct plait_ctx_opts o;
    struct plait_ctx *c;
    int rc;

    *ctx = NULL;
    rc = check_opts(opts, &o);
    if (rc < 0)
        return rc;
    c = alloc_ctx(&o);
    if (!c)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a context (%zu bytes)", sizeof *c);
    rc = pli_registry_add(c);
    if (rc < 0)
        goto err_free;
    if (o.name)
        strcpy(c->name, o.name); /* check_opts() measured it */
    else
        snprintf(c->name, sizeof c->name, "ctx%u", c->id);
    rc = open_ctx(c, o.cpu);
    if (rc < 0)
        goto err_registry;
    *ctx = c;
    return 0;

err_registry:
    pli_registry_del(c);
err_free:
    free(c);
    return rc;
}

/* ---- objects and destroy ---- */

void pli_ctx_obj_add(struct plait_ctx *ctx, struct pli_ctx_obj *obj,
                     void (*destroy)(struct pli_ctx_obj *obj, bool forked))
{
    obj->destroy = destroy;
    pli_list_push_back(&ctx->objs, &obj->node);
}

void pli_ctx_obj_del(struct pli_ctx_obj *obj)
{
    if (obj->node.next)
        pli_list_remove(&obj->node);
}

static void destroy_objs(struct plait_ctx *ctx)
{
    struct pli_list *node;

    while ((node = pli_list_last(&ctx->objs)) != NULL) {
        struct pli_ctx_obj *obj = pli_container_of(node, struct pli_ctx_obj, node);

        pli_list_remove(node);
        obj->destroy(obj, ctx->forked);
    }
}

/* Callbacks of dying objects may create new ones and defer work; in a child nothing is called, so
 * nothing does. */
static void empty_ctx(struct plait_ctx *ctx)
{
    struct pli_list *node;

    do {
        destroy_objs(ctx);
        while (!ctx->forked && (node = pli_list_pop_front(&ctx->deferred)) != NULL) {
            struct pli_defer *d = pli_container_of(node, struct pli_defer, node);

            d->fn(d);
        }
    } while (!pli_list_is_empty(&ctx->objs));
}

static int check_destroy(struct plait_ctx *ctx)
{
    if (!ctx->forked) {
        int rc = pli_ctx_check(ctx);

        if (rc < 0)
            return rc;
    }
    if (ctx->polling && !ctx->forked)
        return pli_fail(PLAIT_E_BUSY, "context '%s' cannot be destroyed from inside its own callbacks",
                        ctx->name);
    if (ctx->shared && !ctx->forked && pli_handover_busy(ctx))
        return pli_fail(PLAIT_E_BUSY, "context '%s' cannot be destroyed: other threads wait in it",
                        ctx->name);
    return 0;
}

int plait_ctx_destroy(struct plait_ctx *ctx)
{
    int rc;

    if (!ctx->forked)
        pli_handover_lock(ctx);
    rc = check_destroy(ctx);
    if (rc < 0) {
        pli_handover_unlock(ctx);
        return rc;
    }
    ctx->polling = true; /* callbacks of what is closed now are callbacks like others */
    empty_ctx(ctx);
    pli_registry_del(ctx); /* from here on other threads find it no more, and post nothing */
    pli_posts_drop(ctx);
    if (ctx->hub.tr)
        ctx->hub.tr->ops->destroy(ctx->hub.tr, ctx->forked);
    pli_src_fini(ctx);
    pli_place_unpin(ctx);
    pli_handover_destroy(ctx, ctx->forked);
    free(ctx->spare);
    free(ctx->hot);
    free(ctx);
    return 0;
}

/* ---- accessors ---- */

int plait_ctx_cpu(const struct plait_ctx *ctx)
{
    return ctx->cpu;
}

int plait_ctx_node(const struct plait_ctx *ctx)
{
    return ctx->node;
}

const char *plait_ctx_name(const struct plait_ctx *ctx)
{
    return ctx->name;
}

int plait_ctx_get_stats(struct plait_ctx *ctx, struct plait_ctx_stats *st)
{
    struct plait_ctx_stats now;
    size_t size = st->size;
    int rc = pli_ctx_check(ctx);

    if (rc < 0)
        return rc;
    if (size < sizeof(size_t) || size > sizeof *st)
        return pli_fail(PLAIT_E_INVAL,
                        "plait_ctx_stats.size is %zu, this library knows up to %zu: set it to sizeof", size,
                        sizeof *st);
    ctx->st.size = size;
    ctx->st.links_active = ctx->nhot;
    now = ctx->st;
    pli_links_count(ctx, &now.msgs_sent, &now.msgs_received);
    now.mapped_bytes = pli_links_mapped(ctx);
    memcpy(st, &now, size);
    return 0;
}
