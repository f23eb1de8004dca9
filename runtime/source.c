/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors in the context's epoll. */
#include "runtime/loop_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "util/err.h"

#define BATCH_MAX 64

struct batch {
    int next, n; /* being dispatched: [next, n) */
    struct epoll_event ev[BATCH_MAX];
};

static int fail_add(const struct plait_ctx *ctx, int fd)
{
    switch (errno) {
    case EPERM:
        return pli_fail(
            PLAIT_E_INVAL,
            "context '%s': descriptor %d cannot be watched: a regular file or directory is always ready",
            ctx->name, fd);
    case EBADF:
        return pli_fail(PLAIT_E_INVAL, "context '%s': %d is not an open descriptor", ctx->name, fd);
    case EEXIST:
        return pli_fail(PLAIT_E_INVAL, "context '%s': descriptor %d is watched already; watch a dup() of it",
                        ctx->name, fd);
    case EINVAL:
        return pli_fail(PLAIT_E_INVAL, "context '%s': descriptor %d cannot be watched with these events",
                        ctx->name, fd);
    case ENOSPC:
        return pli_fail(PLAIT_E_SYSTEM,
                        "context '%s': descriptor %d: the user's limit on watched descriptors is reached; "
                        "raise /proc/sys/fs/epoll/max_user_watches",
                        ctx->name, fd);
    default:
        return pli_fail_errno("context '%s': epoll_ctl(%d)", ctx->name, fd);
    }
}

static int add(struct plait_ctx *ctx, struct pli_src *src, uint32_t events, bool keep_fd)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};

    if (epoll_ctl(ctx->epfd, EPOLL_CTL_ADD, src->fd, &ev) < 0)
        return fail_add(ctx, src->fd);
    src->keep_fd = keep_fd;
    pli_registry_lock();
    pli_list_push_back(&ctx->srcs, &src->node);
    pli_registry_unlock();
    return 0;
}

int pli_src_add(struct plait_ctx *ctx, struct pli_src *src, uint32_t events)
{
    src->tr = NULL;
    return add(ctx, src, events, false);
}

int pli_src_add_foreign(struct plait_ctx *ctx, struct pli_src *src, uint32_t events)
{
    return add(ctx, src, events, true);
}

int pli_src_mod(struct plait_ctx *ctx, struct pli_src *src, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};

    if (epoll_ctl(ctx->epfd, EPOLL_CTL_MOD, src->fd, &ev) < 0)
        return fail_add(ctx, src->fd);
    return 0;
}

/* Events of the present batch must not reach a source that is gone. */
static void forget_fetched(struct plait_ctx *ctx, const struct pli_src *src)
{
    struct batch *b = ctx->events;
    int i;

    for (i = b->next; i < b->n; i++) {
        if (b->ev[i].data.ptr == src)
            b->ev[i].data.ptr = NULL;
    }
}

void pli_src_del(struct plait_ctx *ctx, struct pli_src *src)
{
    if (!src->node.next)
        return;
    pli_registry_lock();
    pli_list_remove(&src->node);
    pli_registry_unlock();
    src->node.next = NULL;
    forget_fetched(ctx, src);
    /* the epoll is shared with the parent of a fork; the child has closed its descriptor of it */
    if (!ctx->forked)
        epoll_ctl(ctx->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

int pli_src_fetch(struct plait_ctx *ctx, int timeout)
{
    struct batch *b = ctx->events;
    int n = epoll_wait(ctx->epfd, b->ev, BATCH_MAX, timeout);

    ctx->last_epoll = ctx->now;
    b->next = 0;
    b->n = n > 0 ? n : 0; /* EINTR: somebody's signal, look again later */
    return b->n;
}

int pli_src_run(struct plait_ctx *ctx, int n)
{
    struct batch *b = ctx->events;
    int called = 0;

    (void)n;
    while (b->next < b->n && !ctx->forked) {
        const struct epoll_event *ev = &b->ev[b->next++];
        struct pli_src *src = ev->data.ptr;

        if (!src)
            continue;
        if (src->tr) {
            pli_ctx_tr_heat(ctx, src->tr);
        } else if (src == &ctx->timer_src) {
            ctx->timerfd_at = 0; /* it has fired: to be set again, even for the same time */
        } else if (src != &ctx->wake_src) {
            src->fn(src, ev->events);
            called++;
        }
    }
    b->next = b->n = 0;
    return called;
}

/* The context's own descriptors are edge-triggered and never read, which saves a system call for each
 * wake-up. */
static int open_own(struct plait_ctx *ctx)
{
    int rc;

    ctx->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ctx->wakefd < 0)
        return pli_fail_errno("context '%s': eventfd", ctx->name);
    ctx->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (ctx->timerfd < 0)
        return pli_fail_errno("context '%s': timerfd_create", ctx->name);
    ctx->wake_src.fd = ctx->wakefd;
    rc = pli_src_add(ctx, &ctx->wake_src, EPOLLIN | EPOLLET);
    if (rc < 0)
        return rc;
    ctx->timer_src.fd = ctx->timerfd;
    return pli_src_add(ctx, &ctx->timer_src, EPOLLIN | EPOLLET);
}

int pli_src_init(struct plait_ctx *ctx)
{
    int rc;

    ctx->events = calloc(1, sizeof(struct batch));
    if (!ctx->events)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory for its events", ctx->name);
    ctx->epfd = epoll_create1(EPOLL_CLOEXEC);
    rc = ctx->epfd < 0 ? pli_fail_errno("context '%s': epoll_create1", ctx->name) : open_own(ctx);
    if (rc < 0)
        pli_src_fini(ctx);
    return rc;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void pli_src_fini(struct plait_ctx *ctx)
{
    pli_src_del(ctx, &ctx->timer_src);
    pli_src_del(ctx, &ctx->wake_src);
    close_fd(&ctx->timerfd);
    close_fd(&ctx->wakefd);
    close_fd(&ctx->epfd);
    free(ctx->events);
    ctx->events = NULL;
}

void pli_src_forked(struct plait_ctx *ctx)
{
    struct pli_list *node;

    pli_list_foreach(node, &ctx->srcs)
    {
        struct pli_src *src = pli_container_of(node, struct pli_src, node);

        if (!src->keep_fd)
            close_fd(&src->fd);
    }
    ctx->wakefd = ctx->timerfd = -1; /* closed as sources */
    close_fd(&ctx->epfd);
}
