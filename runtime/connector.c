/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/peeraddr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/helper.h"
#include "runtime/sock.h"
#include "util/err.h"

#define TIMEOUT_MS 5000
#define LATE_NS                                                                                              \
    (100 * PLI_NS_PER_MS) /* by so much a thread may miss the deadline before the context gives up */
#define QUICK_MS 5        /* a wait that is no reason to start another thread */
#define SLICE_MS 50       /* how soon a cancelled attempt is noticed */
#define GREETING_CAP 512  /* more than any GREETING or REFUSE */

enum phase { QUEUED, RESOLVING, CONNECTING, LISTENING };

struct pli_connector {
    struct pli_task task;
    struct pli_timer timer; /* for a thread that is stuck in the name service, or never comes */
    void (*fn)(struct pli_met *met, void *arg);
    void *arg;
    struct pli_met met;
    uint32_t timeout_ms;
    uint64_t deadline;
    _Atomic int phase;
    char host[256];
    uint16_t port;
    char unix_name[PLI_WIRE_NAME_MAX + 1]; /* known listener of this host; "": to be asked for over TCP */
};

/* ---- outcomes ---- */

/* Of several addresses each has its own error; the user gets the one that says most. */
static int weight(int code)
{
    switch (code) {
    case PLAIT_E_UNREACHABLE:
        return 1;
    case PLAIT_E_TIMEDOUT:
        return 2;
    case PLAIT_E_NOLISTENER:
        return 3;
    default:
        return 4;
    }
}

static void note_failure(struct pli_connector *c, int code)
{
    if (c->met.code < 0 && weight(c->met.code) >= weight(code))
        return;
    c->met.code = code;
    snprintf(c->met.text, sizeof c->met.text, "%s", pli_err_text());
}

static int fail_connect(const struct pli_connector *c, const char *where, int err)
{
    switch (err) {
    case ECONNREFUSED:
        return pli_fail(PLAIT_E_NOLISTENER,
                        "nobody listens at %.200s:%u (%s refuses the connection); start the "
                        "server first, or check host and port",
                        c->host, c->port, where);
    case ETIMEDOUT:
        return pli_fail(PLAIT_E_TIMEDOUT, "%.200s:%u (%s) did not answer within %u ms", c->host, c->port,
                        where, c->timeout_ms);
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
    case EACCES:
    case EPERM:
        return pli_fail(PLAIT_E_UNREACHABLE, "%.200s:%u (%s) cannot be reached: %s", c->host, c->port, where,
                        strerror(err));
    default:
        errno = err;
        return pli_fail_errno("connecting to %.200s:%u (%s)", c->host, c->port, where);
    }
}

/* ---- waiting, on the helper thread ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* 1: ready, 0: the time has passed (or the attempt is cancelled, and nobody is interested). */
static int wait_fd(struct pli_connector *c, int fd, short events, uint64_t until)
{
    struct pollfd p = {fd, events, 0};
    int n = poll(&p, 1, QUICK_MS);

    if (n > 0)
        return 1;
    pli_task_block();
    while (n <= 0 && !pli_task_cancelled(&c->task) && pli_clock_now() < until) {
        int ms = pli_clock_poll_timeout(pli_clock_now(), until);

        n = poll(&p, 1, ms < SLICE_MS ? ms : SLICE_MS);
    }
    pli_task_unblock();
    return n > 0;
}

/* ---- AF_UNIX ---- */

/* Never blocks. The socket or -errno; EAGAIN: the listener's queue is full. */
static int connect_unix(const char *name)
{
    struct sockaddr_un addr;
    socklen_t len = pli_sock_abstract(&addr, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&addr, len) < 0) {
        int err = errno;

        close(fd);
        return -err;
    }
    return fd;
}

static int fail_unix(const struct pli_connector *c, int err)
{
    if (err == ECONNREFUSED)
        return pli_fail(PLAIT_E_NOLISTENER,
                        "the listener at %.200s:%u has gone: its local socket refuses the "
                        "connection; start the server first",
                        c->host, c->port);
    if (err == EAGAIN)
        return pli_fail(PLAIT_E_TIMEDOUT,
                        "the listener at %.200s:%u did not accept a local connection within %u ms: "
                        "its process is stopped or overloaded",
                        c->host, c->port, c->timeout_ms);
    errno = err;
    return pli_fail_errno("connecting to the local socket of %.200s:%u", c->host, c->port);
}

/* Whom the socket leads to. */
static int note_peer(struct pli_connector *c, int fd)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
        close(fd);
        return pli_fail_errno("SO_PEERCRED of %.200s:%u", c->host, c->port);
    }
    c->met.fd = fd;
    c->met.is_unix = true;
    c->met.uid = cred.uid;
    c->met.gid = cred.gid;
    c->met.pid = cred.pid;
    return 0;
}

static int meet_unix(struct pli_connector *c, const char *name)
{
    struct timespec pause = {0, 2 * 1000 * 1000};
    int fd = connect_unix(name);

    if (fd == -EAGAIN) {
        pli_task_block();
        while (fd == -EAGAIN && !pli_task_cancelled(&c->task) && pli_clock_now() < c->deadline) {
            nanosleep(&pause, NULL);
            fd = connect_unix(name);
        }
        pli_task_unblock();
    }
    return fd < 0 ? fail_unix(c, -fd) : note_peer(c, fd);
}

/* ---- TCP ---- */

/* A connection from a port to itself, which TCP makes if nobody listens there and the kernel happens to
 * choose it. */
static bool is_self(int fd)
{
    struct sockaddr_storage here, there;
    socklen_t nhere = sizeof here, nthere = sizeof there;

    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    return getsockname(fd, (struct sockaddr *)&here, &nhere) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &nthere) == 0 && nhere == nthere &&
           memcmp(&here, &there, nhere) == 0;
}

/* The socket, or a code. */
static int connect_tcp(struct pli_connector *c, const struct addrinfo *ai, const char *where, uint64_t until)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = 0, code;
    socklen_t len = sizeof err;

    if (fd < 0)
        return fail_connect(c, where, errno);
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
        err = errno;
        if (err == EINPROGRESS)
            err = !wait_fd(c, fd, POLLOUT, until)                        ? ETIMEDOUT
                  : getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno
                                                                         : err;
    }
    if (!err && is_self(fd))
        err = ECONNREFUSED;
    if (!err)
        return fd;
    code = fail_connect(c, where, err);
    close(fd);
    return code;
}

static int fail_silent(const struct pli_connector *c)
{
    return pli_fail(PLAIT_E_TIMEDOUT,
                    "%.200s:%u accepted the connection but sent no greeting within %u ms; is it a "
                    "plait listener?",
                    c->host, c->port, c->timeout_ms);
}

static int fail_stranger(const struct pli_connector *c, int code)
{
    return pli_fail_prefix(code, "%.120s:%u does not greet as a plait listener", c->host, c->port);
}

/* The first message of a listener. buf stays under it. */
static int read_greeting(struct pli_connector *c, int fd, uint8_t *buf, struct pli_wire_msg *msg)
{
    size_t have = 0;
    int rc = 0;

    while (rc == 0) {
        ssize_t n;

        if (have == GREETING_CAP)
            return fail_stranger(c, pli_fail(PLAIT_E_PROTO, "control message %s of over %d bytes",
                                             pli_wire_type_name(msg->type), GREETING_CAP));
        n = recv(fd, buf + have, GREETING_CAP - have, 0);
        if (n == 0)
            return fail_stranger(c,
                                 pli_fail(PLAIT_E_PROTO, "it closed the connection after %zu bytes", have));
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return fail_stranger(c, pli_fail(PLAIT_E_PROTO, "%s", strerror(errno)));
        if (n < 0 && !wait_fd(c, fd, POLLIN, c->deadline))
            return fail_silent(c);
        if (n < 0)
            continue;
        have += (size_t)n;
        rc = pli_wire_parse(buf, have, msg);
    }
    if (rc == PLAIT_E_VERSION)
        return pli_fail_prefix(rc, "%.120s:%u", c->host, c->port);
    if (rc < 0)
        return fail_stranger(c, rc);
    if (msg->type == PLI_WIRE_REFUSE)
        return pli_fail(msg->end.code, "%.120s:%u refuses: %.*s", c->host, c->port, (int)msg->end.text.len,
                        (const char *)msg->end.text.p);
    if (msg->type != PLI_WIRE_GREETING || (size_t)rc != have)
        return fail_stranger(c, pli_fail(PLAIT_E_PROTO, "control message %s and %zu bytes more came first",
                                         pli_wire_type_name(msg->type), have - (size_t)rc));
    return 0;
}

static int meet_address(struct pli_connector *c, const struct addrinfo *ai, uint64_t until)
{
    char where[PLI_SOCK_TEXT], name[PLI_WIRE_NAME_MAX + 1];
    uint8_t buf[GREETING_CAP];
    struct pli_wire_msg msg;
    int fd, rc;

    c->phase = CONNECTING;
    fd = connect_tcp(c, ai, pli_sock_text(ai->ai_addr, where, sizeof where), until);
    if (fd < 0)
        return fd;
    c->phase = LISTENING;
    rc = read_greeting(c, fd, buf, &msg);
    if (rc < 0)
        goto out;
    c->met.listener = msg.greeting.listener;
    if (memcmp(msg.greeting.host, pli_host_id(), PLI_HOST_LEN) != 0) {
        c->met.fd = fd;
        return 0;
    }
    memcpy(name, msg.greeting.unix_name.p, msg.greeting.unix_name.len);
    name[msg.greeting.unix_name.len] = '\0';
    rc = meet_unix(c, name);
out:
    close(fd);
    return rc;
}

static int meet_tcp(struct pli_connector *c)
{
    struct addrinfo *list, *ai;
    unsigned left = 0;
    int rc;

    c->phase = RESOLVING;
    rc = pli_sock_resolve(c->host, c->port, false, pli_task_block, pli_task_unblock, &list);
    if (rc < 0)
        return rc;
    for (ai = list; ai; ai = ai->ai_next)
        left++;
    rc = PLAIT_E_TIMEDOUT;
    for (ai = list; ai; ai = ai->ai_next, left--) {
        uint64_t now = pli_clock_now();

        if (pli_task_cancelled(&c->task) || (now >= c->deadline && c->met.code < 0))
            break;
        /* an address that swallows packets must leave time for the others */
        rc = meet_address(c, ai,
                          now < c->deadline ? earlier(c->deadline, now + (c->deadline - now) / left) : now);
        if (rc == 0)
            break;
        note_failure(c, rc);
    }
    freeaddrinfo(list);
    return rc;
}

/* ---- the attempt ---- */

static void work(struct pli_task *t)
{
    struct pli_connector *c = pli_container_of(t, struct pli_connector, task);
    int rc = c->unix_name[0] ? meet_unix(c, c->unix_name) : meet_tcp(c);

    if (rc == 0) {
        c->met.code = 0;
        c->met.text[0] = '\0';
    } else {
        note_failure(c, rc);
    }
}

static void done(struct pli_task *t)
{
    struct pli_connector *c = pli_container_of(t, struct pli_connector, task);
    struct pli_met met = c->met;

    c->met.fd = -1;
    pli_timer_stop(t->ctx, &c->timer);
    c->fn(&met, c->arg);
}

static void stop(struct pli_task *t)
{
    pli_timer_stop(t->ctx, &pli_container_of(t, struct pli_connector, task)->timer);
}

static void free_connector(struct pli_task *t)
{
    struct pli_connector *c = pli_container_of(t, struct pli_connector, task);

    if (c->met.fd >= 0)
        close(c->met.fd);
    free(c);
}

static void late(struct pli_timer *t)
{
    static const char *const doing[] = {
        [QUEUED] = "no helper thread was free: too many attempts wait for a name service or a silent host",
        [RESOLVING] = "the name service has not answered",
        [CONNECTING] = "it has not answered",
        [LISTENING] = "it has sent no greeting",
    };
    struct pli_connector *c = pli_container_of(t, struct pli_connector, timer);
    void (*fn)(struct pli_met * met, void *arg) = c->fn;
    void *arg = c->arg;
    struct pli_met met = {.fd = -1, .uid = (uid_t)-1, .gid = (gid_t)-1, .code = PLAIT_E_TIMEDOUT};

    snprintf(met.text, sizeof met.text, "connecting to %.200s:%u took longer than %u ms: %s", c->host,
             c->port, c->timeout_ms, doing[c->phase]);
    pli_connector_cancel(c);
    fn(&met, arg);
}

static struct pli_connector *new_connector(const char *host, uint16_t port, uint32_t timeout_ms,
                                           void (*fn)(struct pli_met *met, void *arg), void *arg)
{
    struct pli_connector *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->task.work = work;
    c->task.done = done;
    c->task.stop = stop;
    c->task.free = free_connector;
    pli_timer_init(&c->timer, late);
    c->fn = fn;
    c->arg = arg;
    c->met.fd = -1;
    c->met.uid = (uid_t)-1;
    c->met.gid = (gid_t)-1;
    c->timeout_ms = timeout_ms ? timeout_ms : TIMEOUT_MS;
    c->deadline = pli_clock_after(pli_clock_now(), c->timeout_ms * PLI_NS_PER_MS);
    snprintf(c->host, sizeof c->host, "%s", host);
    c->port = port;
    return c;
}

static int start(struct pli_connector **out, struct plait_ctx *ctx, struct pli_connector *c)
{
    int rc = pli_task_start(&c->task, ctx);

    if (rc < 0) {
        free_connector(&c->task);
        return rc;
    }
    pli_timer_start(ctx, &c->timer, pli_clock_after(c->deadline, LATE_NS));
    *out = c;
    return 0;
}

int pli_connector_start(struct pli_connector **out, struct plait_ctx *ctx, const char *host, uint16_t port,
                        uint32_t timeout_ms, void (*fn)(struct pli_met *met, void *arg), void *arg)
{
    struct pli_connector *c = new_connector(host, port, timeout_ms, fn, arg);

    if (!c)
        return pli_fail(PLAIT_E_NOMEM, "no memory to connect to %.200s:%u", host, port);
    return start(out, ctx, c);
}

int pli_connector_start_known(struct pli_connector **out, struct plait_ctx *ctx,
                              const struct pli_known *known, uint32_t timeout_ms,
                              void (*fn)(struct pli_met *met, void *arg), void *arg)
{
    bool local = memcmp(known->host_id, pli_host_id(), PLI_HOST_LEN) == 0;
    const char *host = known->host ? known->host : local ? "localhost" : "";
    struct pli_connector *c = new_connector(host, known->port, timeout_ms, fn, arg);
    int fd, rc;

    if (!c)
        return pli_fail(PLAIT_E_NOMEM, "no memory to connect to %.200s:%u", host, known->port);
    if (!local)
        return start(out, ctx, c);
    snprintf(c->unix_name, sizeof c->unix_name, "%s", known->unix_name);
    c->met.listener = known->listener;
    fd = connect_unix(c->unix_name);
    if (fd == -EAGAIN)
        return start(out, ctx, c); /* it is busy: a thread may wait for it */
    rc = fd < 0 ? fail_unix(c, -fd) : note_peer(c, fd);
    if (rc < 0)
        note_failure(c, rc);
    rc = pli_task_start_done(&c->task, ctx);
    if (rc < 0) {
        free_connector(&c->task);
        return rc;
    }
    *out = c;
    return 0;
}

void pli_connector_cancel(struct pli_connector *c)
{
    if (c)
        pli_task_cancel(&c->task);
}
