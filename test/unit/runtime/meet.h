/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of connector and acceptor: raw sockets, waiting, and what was written to stderr. */
#ifndef PLI_TEST_MEET_H
#define PLI_TEST_MEET_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/peeraddr.h"
#include "runtime/sock.h"
#include "test/unit/runtime/wire_samples.h"
#include "util/err.h"

/* Runs the context until done(arg), which nothing in the context may announce, for at most 20 s. */
static inline bool run_until(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg)
{
    uint64_t end = pli_clock_now() + 20 * PLI_NS_PER_S;

    while (!done(arg)) {
        if (pli_clock_now() > end)
            return false;
        plait_ctx_run(ctx, 1000);
    }
    return true;
}

/* Runs the context until *flag is at least n. */
struct at_least {
    const unsigned *flag;
    unsigned n;
};

static inline bool is_at_least(void *arg)
{
    const struct at_least *w = arg;

    return *w->flag >= w->n;
}

static inline bool wait_for(struct plait_ctx *ctx, const unsigned *flag, unsigned n)
{
    struct at_least w = {flag, n};

    return run_until(ctx, is_at_least, &w);
}

static inline bool never(void *arg)
{
    (void)arg;
    return false;
}

static inline void run_for_ms(struct plait_ctx *ctx, unsigned ms)
{
    pli_ctx_wait(ctx, never, NULL, pli_clock_now() + ms * PLI_NS_PER_MS);
}

/* Runs the context until the socket has something to read, or its end. */
static inline bool is_readable(void *arg)
{
    struct pollfd p = {*(int *)arg, POLLIN, 0};

    return poll(&p, 1, 0) > 0;
}

static inline bool wait_readable(struct plait_ctx *ctx, int fd)
{
    return run_until(ctx, is_readable, &fd);
}

/* A blocking client. */
static inline int dial_tcp(const char *ip, uint16_t port)
{
    struct addrinfo *ai;
    int fd, rc;

    if (pli_sock_resolve(ip, port, false, NULL, NULL, &ai) < 0)
        return -1;
    fd = socket(ai->ai_family, SOCK_STREAM, 0);
    rc = connect(fd, ai->ai_addr, ai->ai_addrlen);
    freeaddrinfo(ai);
    if (rc == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

static inline int dial_unix(const char *name)
{
    struct sockaddr_un addr;
    socklen_t len = pli_sock_abstract(&addr, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&addr, len) == 0)
        return fd;
    close(fd);
    return -1;
}

static inline int encode_sample(uint8_t *buf, enum pli_wire_type type)
{
    struct pli_wire_msg m;

    sample_message(&m, type);
    return pli_wire_encode(buf, PLI_WIRE_HEAD + PLI_WIRE_MAX, &m);
}

/* Reads one frame from a blocking socket; buf has PLI_WIRE_HEAD + PLI_WIRE_MAX
 * bytes. Returns what pli_wire_parse() does, 0 for end-of-file before a whole one. */
static inline int read_frame(int fd, uint8_t *buf, struct pli_wire_msg *m)
{
    size_t have = 0;
    int rc = 0;

    while (rc == 0) {
        ssize_t n = read(fd, buf + have, 1);

        if (n <= 0)
            return 0;
        have++;
        rc = pli_wire_parse(buf, have, m);
    }
    return rc;
}

/* A bound TCP socket on 127.0.0.1; listening if backlog is > 0: else its port is taken, and connections are
 * refused. */
static inline int own_port(uint16_t *port, int backlog)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert(backlog == 0 || listen(fd, backlog) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

/* ---- stderr ---- */

static int stderr_file = -1;

static inline void catch_stderr(void)
{
    char path[] = "/tmp/plait-test-XXXXXX";

    stderr_file = mkstemp(path);
    cr_assert_geq(stderr_file, 0);
    unlink(path);
    dup2(stderr_file, STDERR_FILENO);
}

/* All that was written so far. */
static inline const char *caught(void)
{
    static char text[65536];
    ssize_t n = pread(stderr_file, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static inline unsigned count_caught(const char *what)
{
    unsigned n = 0;

    for (const char *p = caught(); (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

#endif
