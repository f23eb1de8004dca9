/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of control channels: what happens on one is written down. */
#ifndef PLI_TEST_CHANNEL_UTIL_H
#define PLI_TEST_CHANNEL_UTIL_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/channel.h"
#include "test/unit/runtime/fds.h"
#include "test/unit/runtime/wire_samples.h"
#include "util/err.h"

/* A channel and what happened on it. */
struct end {
    struct pli_channel ch; /* first */
    unsigned frames, ends;
    int code;
    char text[512];
    enum pli_wire_type types[64];
    int fds[64];
    unsigned nfds, lost;
    unsigned stop_at; /* the frame at which on_frame acts, counted from 1; 0: never */
    enum { RETURN_ERROR, CLOSE, CLOSE_AND_FREE, DETACH } action;
    int detached;
};

static struct plait_ctx *ctx;
static int fds_before;

static inline int act(struct end *e, const struct pli_wire_msg *msg)
{
    static volatile uint8_t sum;

    switch (e->action) {
    case RETURN_ERROR:
        return PLAIT_E_PROTO;
    case CLOSE:
    case CLOSE_AND_FREE:
        pli_channel_close(&e->ch);
        /* the message stays readable */
        for (uint32_t i = 0; msg->type == PLI_WIRE_TR_CONTROL && i < msg->tr.blob.len; i++)
            sum = (uint8_t)(sum + ((const uint8_t *)msg->tr.blob.p)[i]);
        if (e->action == CLOSE_AND_FREE)
            free(e);
        return PLAIT_E_PROTO;
    case DETACH:
        e->detached = pli_channel_detach(&e->ch);
        return e->detached >= 0 ? PLAIT_E_CLOSED : 0;
    }
    return 0;
}

static inline int on_frame(struct pli_channel *ch, const struct pli_wire_msg *msg, int *fds)
{
    struct end *e = (struct end *)ch;

    cr_assert_eq(e->ends, 0, "a frame after the end");
    if (e->frames < 64)
        e->types[e->frames] = msg->type;
    e->frames++;
    e->lost += msg->fds_lost;
    for (unsigned i = 0; i < msg->nfds; i++) {
        if (e->nfds < 64)
            e->fds[e->nfds++] = fds[i];
        else
            close(fds[i]);
    }
    return e->frames == e->stop_at ? act(e, msg) : 0;
}

static inline void on_end(struct pli_channel *ch, int code)
{
    struct end *e = (struct end *)ch;

    e->ends++;
    e->code = code;
    snprintf(e->text, sizeof e->text, "%s", pli_err_text());
}

static const struct pli_channel_ops ops = {on_frame, on_end};

static inline void open_ctx(void)
{
    fds_before = count_fds();
    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", pli_err_text());
}

static inline void close_ctx(void)
{
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_expect_eq(count_fds(), fds_before, "descriptors were leaked");
}

/* Lets the context do all that it can. */
static inline void settle(void)
{
    for (int i = 0, quiet = 0; i < 100000 && quiet < 200; i++)
        quiet = plait_ctx_poll(ctx) > 0 ? 0 : quiet + 1;
}

/* A channel and, at the other end, a plain socket. */
static inline struct end *open_end(int *peer)
{
    struct end *e = calloc(1, sizeof *e);
    int s[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    cr_assert_eq(pli_channel_open(&e->ch, ctx, s[0], &ops), 0, "%s", pli_err_text());
    *peer = s[1];
    return e;
}

static inline void open_pair(struct end **a, struct end **b)
{
    int peer;

    *a = open_end(&peer);
    *b = calloc(1, sizeof **b);
    cr_assert_eq(pli_channel_open(&(*b)->ch, ctx, peer, &ops), 0);
}

static inline void close_end(struct end *e)
{
    pli_channel_close(&e->ch);
    pli_channel_close(&e->ch); /* idempotent */
    for (unsigned i = 0; i < e->nfds; i++)
        close(e->fds[i]);
    free(e);
}

static inline int encode(uint8_t *buf, enum pli_wire_type type)
{
    struct pli_wire_msg m;

    sample_message(&m, type);
    return pli_wire_encode(buf, PLI_WIRE_HEAD + PLI_WIRE_MAX, &m);
}

static inline void write_all(int fd, const void *buf, size_t len)
{
    cr_assert_eq(write(fd, buf, len), (ssize_t)len);
}

/* Like the channel's own sending, with any number of descriptors. */
static inline void write_fds(int sock, const void *buf, size_t len, const int *fds, int n)
{
    char control[CMSG_SPACE(64 * sizeof(int))] = {0};
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control,
                        .msg_controllen = CMSG_SPACE((size_t)n * 4)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

    if (n == 0) {
        cr_assert_eq(sendmsg(sock, &(struct msghdr){ .msg_iov = &iov, .msg_iovlen = len > 0 }, 0), (ssize_t)len);
        return;
    }
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
    cr_assert_eq(sendmsg(sock, &mh, 0), (ssize_t)len);
}

static inline bool same_file(int a, int b)
{
    struct stat sa, sb;

    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_ino == sb.st_ino && sa.st_dev == sb.st_dev;
}

#endif
