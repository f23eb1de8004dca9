/* SPDX-License-Identifier: BSD-3-Clause */
/* plait_watch: descriptors that belong to the user. */
#include "runtime/loop_priv.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include "util/err.h"

#define WATCH_EVENTS ((uint32_t)(EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP))

struct plait_watch {
    struct pli_src src;
    struct pli_ctx_obj obj;
    struct plait_ctx *ctx;
    void (*fn)(int fd, uint32_t events, void *arg);
    void *arg;
};

static void dispatch(struct pli_src *src, uint32_t events)
{
    struct plait_watch *w = pli_container_of(src, struct plait_watch, src);

    w->fn(src->fd, events, w->arg); /* the last thing: it may free the watch */
}

static void destroy_watch(struct pli_ctx_obj *obj, bool forked)
{
    struct plait_watch *w = pli_container_of(obj, struct plait_watch, obj);

    (void)forked;
    pli_src_del(w->ctx, &w->src);
    free(w);
}

static int check_events(const struct plait_ctx *ctx, int fd, uint32_t events)
{
    if (events & ~WATCH_EVENTS)
        return pli_fail(PLAIT_E_INVAL,
                        "context '%s': events 0x%x of descriptor %d: only EPOLLIN, EPOLLOUT, EPOLLPRI and "
                        "EPOLLRDHUP can be watched",
                        ctx->name, events, fd);
    return 0;
}

int plait_watch_create(struct plait_watch **w, struct plait_ctx *ctx, int fd, uint32_t events,
                       void (*fn)(int fd, uint32_t events, void *arg), void *arg)
{
    struct plait_watch *watch;
    int rc = pli_ctx_check(ctx);

    if (rc < 0)
        return rc;
    if (!fn)
        return pli_fail(PLAIT_E_INVAL, "context '%s': a watch of descriptor %d without a function", ctx->name,
                        fd);
    rc = check_events(ctx, fd, events);
    if (rc < 0)
        return rc;
    watch = calloc(1, sizeof *watch);
    if (!watch)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory for a watch of descriptor %d", ctx->name, fd);
    watch->src.fd = fd;
    watch->src.fn = dispatch;
    watch->ctx = ctx;
    watch->fn = fn;
    watch->arg = arg;
    rc = pli_src_add_foreign(ctx, &watch->src, events);
    if (rc < 0) {
        free(watch);
        return rc;
    }
    pli_ctx_obj_add(ctx, &watch->obj, destroy_watch);
    *w = watch;
    return 0;
}

int plait_watch_modify(struct plait_watch *w, uint32_t events)
{
    int rc = pli_ctx_check(w->ctx);

    if (rc < 0)
        return rc;
    rc = check_events(w->ctx, w->src.fd, events);
    return rc < 0 ? rc : pli_src_mod(w->ctx, &w->src, events);
}

void plait_watch_free(struct plait_watch *w)
{
    if (!w)
        return;
    pli_ctx_obj_del(&w->obj);
    destroy_watch(&w->obj, w->ctx->forked);
}
