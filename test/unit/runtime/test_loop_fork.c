/* SPDX-License-Identifier: BSD-3-Clause */
/* fork(): the child's calls fail, its descriptors are closed, the parent goes on. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "child.h"
#include "fake_tr.h"
#include "loop_util.h"

static int open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void nothing(void *arg)
{
    (void)arg;
}

struct set {
    struct plait_ctx *ctx;
    struct fake link;
    struct plait_timer *timer;
    struct plait_watch *watch;
    struct pli_src control;
    int watched[2], pair[2];
    int fds_before;
    bool obj_forked;
    struct pli_ctx_obj obj;
};

static void watched(int fd, uint32_t events, void *arg)
{
    (void)fd;
    (void)events;
    (void)arg;
}

static void no_events(struct pli_src *src, uint32_t events)
{
    (void)src;
    (void)events;
}

static void obj_gone(struct pli_ctx_obj *obj, bool forked)
{
    struct set *s = pli_container_of(obj, struct set, obj);

    s->obj_forked = forked;
}

static void set_up(struct set *s, unsigned flags)
{
    memset(s, 0, sizeof *s);
    cr_assert_eq(pipe(s->watched), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s->pair), 0);
    s->fds_before = open_fds() - 1; /* without our end of the pair */
    s->ctx = new_ctx(0, flags);
    if (flags & PLAIT_CTX_SHARED)
        cr_assert_eq(plait_ctx_lock(s->ctx), 0); /* until it is destroyed */
    fake_open(&s->link, s->ctx);
    cr_assert_eq(plait_timer_create(&s->timer, s->ctx, nothing, NULL), 0);
    plait_timer_start(s->timer, 1000, 1000);
    cr_assert_eq(plait_watch_create(&s->watch, s->ctx, s->watched[0], EPOLLIN, watched, NULL), 0);
    s->control.fd = s->pair[0];
    s->control.fn = no_events;
    cr_assert_eq(pli_src_add(s->ctx, &s->control, EPOLLIN), 0);
    pli_ctx_obj_add(s->ctx, &s->obj, obj_gone);
}

static void tear_down(struct set *s)
{
    pli_src_del(s->ctx, &s->control);
    fake_close(&s->link, s->ctx);
    cr_assert_eq(plait_ctx_destroy(s->ctx), 0);
}

static int calls_fail(void *arg)
{
    struct set *s = arg;
    struct plait_timer *t;
    struct plait_watch *w;
    struct plait_ctx_stats st = { .size = sizeof st };

    if (plait_ctx_poll(s->ctx) != PLAIT_E_FORKED)
        return 1;
    if (!strstr(plait_error_text(), "fork"))
        return 2;
    if (plait_ctx_run(s->ctx, -1) != PLAIT_E_FORKED || plait_ctx_arm(s->ctx) != PLAIT_E_FORKED)
        return 3;
    if (plait_ctx_post(s->ctx, nothing, NULL) != PLAIT_E_FORKED || plait_ctx_fd(s->ctx) != PLAIT_E_FORKED)
        return 4;
    if (plait_timer_create(&t, s->ctx, nothing, NULL) != PLAIT_E_FORKED)
        return 5;
    if (plait_watch_create(&w, s->ctx, 0, EPOLLIN, watched, NULL) != PLAIT_E_FORKED)
        return 6;
    if (plait_ctx_get_stats(s->ctx, &st) != PLAIT_E_FORKED || plait_ctx_lock(s->ctx) != PLAIT_E_FORKED)
        return 7;
    plait_ctx_stop(s->ctx);
    plait_ctx_wake(s->ctx);
    plait_timer_start(s->timer, 0, 0);
    return 0;
}

static int descriptors_are_closed(void *arg)
{
    struct set *s = arg;

    if (s->control.fd != -1)
        return 1;
    /* more than before: the link's eventfd, which is the transport's */
    if (open_fds() != s->fds_before + 1)
        return 2;
    pli_src_del(s->ctx, &s->control);
    fake_close(&s->link, s->ctx);
    if (plait_ctx_destroy(s->ctx) != 0 || !s->obj_forked)
        return 3;
    return open_fds() == s->fds_before ? 0 : 4;
}

static int new_context_works(void *arg)
{
    struct plait_ctx *ctx;
    int rc;

    (void)arg;
    if (plait_ctx_create(&ctx, NULL) < 0)
        return 1;
    plait_ctx_post(ctx, nothing, NULL);
    rc = plait_ctx_poll(ctx) == 1 && plait_ctx_run(ctx, 1000) == 0 ? 0 : 2;
    plait_ctx_destroy(ctx);
    return rc;
}

static void parent_goes_on(struct set *s)
{
    uint64_t ticks = stats_of(s->ctx).events;

    fake_send(&s->link);
    while (s->link.received < 1 || stats_of(s->ctx).events < ticks + 3)
        cr_assert_geq(plait_ctx_run(s->ctx, 1000), 0);
    cr_assert_eq(plait_ctx_post(s->ctx, nothing, NULL), 0);
    cr_assert_geq(plait_ctx_poll(s->ctx), 1);
}

static void fork_and_check(unsigned flags)
{
    struct set s;

    set_up(&s, flags);
    plait_ctx_poll(s.ctx);
    cr_assert_eq(in_child(calls_fail, &s), 0);
    cr_assert_eq(in_child(descriptors_are_closed, &s), 0);
    cr_assert_eq(in_child(new_context_works, &s), 0);
    parent_goes_on(&s);
    tear_down(&s);
}

Test(fork, of_a_context)
{
    fork_and_check(0);
}

Test(fork, of_a_shared_context)
{
    fork_and_check(PLAIT_CTX_SHARED);
}

Test(fork, while_armed)
{
    struct set s;

    set_up(&s, 0);
    plait_timer_stop(s.timer);
    cr_assert_eq(plait_ctx_arm(s.ctx), 0);
    cr_assert_eq(in_child(calls_fail, &s), 0);
    cr_assert_eq(in_child(descriptors_are_closed, &s), 0);
    plait_timer_start(s.timer, 0, 1000);
    parent_goes_on(&s);
    tear_down(&s);
}

/* The peer must see the end of a process although that process's child lives on. */
static int child_that_stays(void *arg)
{
    struct set *s = arg;
    char c;

    /* until the peer says so; through a descriptor that is not the context's */
    return read(s->watched[0], &c, 1) == 1 ? 0 : 1;
}

Test(fork, a_child_does_not_hide_the_end_of_the_parent)
{
    struct set s;
    int status;
    pid_t pid;
    char c;

    set_up(&s, 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(s.pair[1]);
        _exit(child_that_stays(&s));
    }
    pli_src_del(s.ctx, &s.control);
    close(s.pair[0]); /* as if this process had died */
    cr_assert_eq(read(s.pair[1], &c, 1), 0, "end of file while the child lives");
    cr_assert_eq(write(s.watched[1], "x", 1), 1);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    fake_close(&s.link, s.ctx);
    plait_ctx_destroy(s.ctx);
}

/* ---- in a callback ---- */

static int callback_status = -1;

static void fork_here(struct fake *f)
{
    struct plait_ctx *ctx = f->user;
    pid_t pid = fork();

    if (pid == 0) {
        f->user = NULL; /* the child returns into the loop */
        return;
    }
    cr_assert_not_null(ctx);
    waitpid(pid, &callback_status, 0);
}

Test(fork, in_a_callback)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f, other;
    int n;

    fake_open(&f, ctx);
    fake_open(&other, ctx);
    f.rx = fork_here;
    f.user = ctx;
    fake_send(&f);
    n = plait_ctx_run(ctx, 2000);
    if (!f.user) /* the child */
        _exit(n == PLAIT_E_FORKED && plait_ctx_destroy(ctx) == 0 ? 0 : 1);
    cr_assert_eq(callback_status, 0);
    cr_assert_eq(n, 0);
    fake_close(&f, ctx);
    fake_close(&other, ctx);
    plait_ctx_destroy(ctx);
}
