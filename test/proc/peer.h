/* SPDX-License-Identifier: BSD-3-Clause */
/* What the programs that play the other process of a test have in common: they live until their standard input ends. */
#ifndef PLI_TEST_PROC_PEER_H
#define PLI_TEST_PROC_PEER_H

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <plait/plait.h>

static struct plait_ctx *ctx;

static inline int fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, plait_error_text());
    return 1;
}

/* A line for the test. */
static inline void say(const char *text)
{
    printf("%s\n", text);
    fflush(stdout);
}

static inline void peer_on_stdin(int fd, uint32_t events, void *arg)
{
    (void)fd;
    (void)events;
    (void)arg;
    plait_ctx_stop(ctx);
}

/* 0 when standard input has ended. */
static inline int peer_run(void)
{
    struct plait_watch *watch;

    if (plait_watch_create(&watch, ctx, STDIN_FILENO, EPOLLIN, peer_on_stdin, NULL) < 0)
        return fail("watching standard input");
    if (plait_ctx_run(ctx, -1) < 0)
        return fail("running");
    return 0;
}

#endif
