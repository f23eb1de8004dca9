/* SPDX-License-Identifier: BSD-3-Clause */
/* Watches: descriptors in the event loop. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop_util.h"

struct seen {
    struct plait_watch *w, *other;
    int fd;
    uint32_t events;
    unsigned count;
};

static void saw(int fd, uint32_t events, void *arg)
{
    struct seen *s = arg;

    s->fd = fd;
    s->events = events;
    s->count++;
}

Test(watch, level_triggered_modify_free)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct seen s = { 0 };
    int fd[2];
    char c;

    cr_assert_eq(pipe(fd), 0);
    cr_assert_eq(plait_watch_create(&s.w, ctx, fd[0], EPOLLIN, saw, &s), 0);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    cr_assert_eq(write(fd[1], "x", 1), 1);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(plait_ctx_poll(ctx), 1, "not read: still there");
    cr_assert_eq(s.fd, fd[0]);
    cr_assert_eq(s.events, (uint32_t)EPOLLIN);
    cr_assert_eq(plait_watch_modify(s.w, 0), 0);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    cr_assert_eq(plait_watch_modify(s.w, EPOLLIN), 0);
    cr_assert_eq(read(fd[0], &c, 1), 1);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    close(fd[1]);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert(s.events & EPOLLHUP);
    plait_watch_free(s.w);
    plait_watch_free(NULL);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    cr_assert_eq(s.count, 3);
    close(fd[0]);
    plait_ctx_destroy(ctx);
}

Test(watch, errors_say_what)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct plait_watch *w, *w2;
    FILE *file = tmpfile();
    int fd[2];

    cr_assert_eq(pipe(fd), 0);
    assert_code(plait_watch_create(&w, ctx, fileno(file), EPOLLIN, saw, NULL), PLAIT_E_INVAL, "regular file");
    assert_code(plait_watch_create(&w, ctx, 1000000, EPOLLIN, saw, NULL), PLAIT_E_INVAL, "not an open");
    assert_code(plait_watch_create(&w, ctx, fd[0], EPOLLIN | EPOLLET, saw, NULL), PLAIT_E_INVAL, "EPOLLIN");
    assert_code(plait_watch_create(&w, ctx, fd[0], EPOLLIN, NULL, NULL), PLAIT_E_INVAL, "function");
    cr_assert_eq(plait_watch_create(&w, ctx, fd[0], EPOLLIN, saw, NULL), 0);
    assert_code(plait_watch_create(&w2, ctx, fd[0], EPOLLIN, saw, NULL), PLAIT_E_INVAL, "dup");
    plait_ctx_destroy(ctx);
    cr_assert_eq(close(fd[0]), 0, "the watch left the descriptor alone");
    close(fd[1]);
    fclose(file);
}

static void free_other(int fd, uint32_t events, void *arg)
{
    struct seen *s = arg;

    (void)fd;
    (void)events;
    s->count++;
    plait_watch_free(s->other);
    plait_watch_free(s->w);
}

/* Both are in the batch that epoll returned; whichever comes first frees the other. */
Test(watch, freed_by_a_callback_of_the_same_batch)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct seen s[2] = { { 0 } };
    int a = eventfd(1, EFD_CLOEXEC), b = eventfd(1, EFD_CLOEXEC);

    cr_assert_eq(plait_watch_create(&s[0].w, ctx, a, EPOLLIN, free_other, &s[0]), 0);
    cr_assert_eq(plait_watch_create(&s[1].w, ctx, b, EPOLLIN, free_other, &s[1]), 0);
    s[0].other = s[1].w;
    s[1].other = s[0].w;
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(s[0].count + s[1].count, 1);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    close(a);
    close(b);
    plait_ctx_destroy(ctx);
}
