/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/peeraddr.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/sock.h"
#include "util/err.h"
#include "util/log.h"
#include "util/rand.h"

#define HELLO_TIMEOUT_MS 5000
#define MAX_PENDING 1024
#define HELLO_CAP 256 /* more than any HELLO */
#define ACCEPTS_PER_EVENT 32
#define PAUSE_NS (100 * PLI_NS_PER_MS)
#define WARNINGS 10 /* in WARNING_NS; a stranger must not fill the log */
#define WARNING_NS (10 * PLI_NS_PER_S)
#define BACKLOG 4096

/* A socket whose HELLO has not come yet. */
struct client {
    struct pli_src src; /* src.fd */
    struct pli_list node;
    struct pli_acceptor *acceptor;
    uint64_t deadline;
    bool is_unix;
    struct ucred cred;
    char who[PLI_SOCK_TEXT];
    size_t have;
    uint8_t buf[HELLO_CAP];
};

struct pli_acceptor {
    struct plait_ctx *ctx;
    struct pli_acceptor_opts opts;
    uid_t *uids;
    struct pli_src tcp, local; /* the listening sockets; local is the AF_UNIX one */
    struct pli_timer timer;    /* the oldest client's deadline */
    struct pli_timer resume;   /* out of descriptors: accept again */
    struct pli_list clients;   /* oldest first */
    unsigned pending;
    bool paused;
    uint16_t port;
    uint64_t warned_since;
    unsigned warned;
    char unix_name[PLI_WIRE_NAME_MAX];
    char where[PLI_SOCK_TEXT];
    uint8_t greeting[PLI_WIRE_HEAD + 128];
    size_t greeting_len;
};

/* ---- clients ---- */

static void set_timer(struct pli_acceptor *a)
{
    struct pli_list *first = pli_list_first(&a->clients);

    if (first)
        pli_timer_start(a->ctx, &a->timer, pli_container_of(first, struct client, node)->deadline);
    else
        pli_timer_stop(a->ctx, &a->timer);
}

/* Frees the client, and returns its socket. */
static int forget(struct client *c)
{
    struct pli_acceptor *a = c->acceptor;
    bool first = pli_list_first(&a->clients) == &c->node;
    int fd;

    pli_src_del(a->ctx, &c->src);
    fd = c->src.fd;
    pli_list_remove(&c->node);
    a->pending--;
    if (first)
        set_timer(a);
    free(c);
    return fd;
}

__attribute__((format(printf, 2, 3), cold)) static void drop(struct client *c, const char *fmt, ...)
{
    struct pli_acceptor *a = c->acceptor;
    uint64_t now = pli_clock_now();
    char what[640];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (now - a->warned_since > WARNING_NS) {
        a->warned_since = now;
        a->warned = 0;
    }
    if (a->warned++ < WARNINGS)
        pli_warn("listener %s: dropped %s: %s", a->where, c->who, what);
    else
        pli_debug("listener %s: dropped %s: %s", a->where, c->who, what);
    close(forget(c));
}

/* Tells the client why, and drops it. code, text: as in pli_err_text(). */
static void refuse(struct client *c, int code)
{
    struct pli_wire_msg msg = {.type = PLI_WIRE_REFUSE};
    uint8_t buf[PLI_WIRE_HEAD + 512], rest[512];
    char why[512];
    int len;

    snprintf(why, sizeof why, "%s", pli_err_text());
    msg.end.code = code;
    msg.end.text = (struct pli_wire_bytes){why, (uint32_t)strlen(why)};
    len = pli_wire_encode(buf, sizeof buf, &msg);
    if (len > 0 && send(c->src.fd, buf, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) == len) {
        /* what TCP has received and nobody has read would turn the close into a reset, which overtakes the
         * answer */
        while (recv(c->src.fd, rest, sizeof rest, MSG_DONTWAIT) == (ssize_t)sizeof rest)
            ;
        shutdown(c->src.fd, SHUT_WR);
    }
    drop(c, "%s", why);
}

static bool is_allowed(const struct pli_acceptor *a, uid_t uid)
{
    if (a->opts.any_uid || uid == geteuid())
        return true;
    for (unsigned i = 0; i < a->opts.nuids; i++)
        if (a->uids[i] == uid)
            return true;
    return false;
}

/* A stranger is told so only now: an answer before its HELLO could be lost in the error of its sending that.
 */
static int check_user(const struct client *c)
{
    if (!c->is_unix || is_allowed(c->acceptor, c->cred.uid))
        return 0;
    return pli_fail(PLAIT_E_PERM,
                    "user %u may not connect to this listener of user %u: by default only the same user may, "
                    "and others have to be listed in plait_listen_opts",
                    (unsigned)c->cred.uid, (unsigned)geteuid());
}

static void arrive(struct client *c, const struct pli_wire_msg *msg)
{
    struct pli_acceptor *a = c->acceptor;
    struct pli_arrival arrival = {
        .is_unix = c->is_unix,
        .peer = msg->hello.peer,
        .listener = msg->hello.listener,
        .uid = c->cred.uid,
        .gid = c->cred.gid,
        .pid = c->cred.pid,
    };

    arrival.fd = forget(c);
    a->opts.on_arrival(&arrival, a->opts.arg); /* the acceptor may be gone now */
}

/* The bytes that the first message still needs: never more, for what follows it is the arrival's. 0: garbage.
 */
static size_t missing(const struct client *c)
{
    uint32_t body;

    if (c->have < PLI_WIRE_HEAD)
        return PLI_WIRE_HEAD - c->have;
    body = c->buf[0] | (uint32_t)c->buf[1] << 8 | (uint32_t)c->buf[2] << 16 | (uint32_t)c->buf[3] << 24;
    return body <= HELLO_CAP - PLI_WIRE_HEAD ? PLI_WIRE_HEAD + body - c->have : 0;
}

static void ended(struct client *c, int err)
{
    /* a client on this host takes the greeting and comes back over AF_UNIX */
    if (!err && c->have == 0) {
        pli_debug("listener %s: %s closed the connection without HELLO", c->acceptor->where, c->who);
        close(forget(c));
    } else if (!err) {
        drop(c, "it closed the connection after %zu bytes of its HELLO", c->have);
    } else {
        drop(c, "%s", strerror(err));
    }
}

static void on_client(struct pli_src *src, uint32_t events)
{
    struct client *c = pli_container_of(src, struct client, src);
    struct pli_wire_msg msg;
    int rc = 0;

    (void)events;
    while (rc == 0) {
        size_t want = missing(c);
        ssize_t n;

        if (want == 0) {
            drop(c, "its first message, %s, is too long for a HELLO", pli_wire_type_name(msg.type));
            return;
        }
        n = recv(src->fd, c->buf + c->have, want, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            ended(c, n < 0 ? errno : 0);
            return;
        }
        c->have += (size_t)n;
        rc = pli_wire_parse(c->buf, c->have, &msg);
    }
    if (rc == PLAIT_E_VERSION && msg.type == PLI_WIRE_HELLO)
        refuse(c, rc);
    else if (rc < 0)
        drop(c, "%s", pli_err_text());
    else if (msg.type != PLI_WIRE_HELLO)
        drop(c, "its first message is %s, not HELLO", pli_wire_type_name(msg.type));
    else if ((rc = check_user(c)) < 0)
        refuse(c, rc);
    else
        arrive(c, &msg);
}

static void on_timer(struct pli_timer *t)
{
    struct pli_acceptor *a = pli_container_of(t, struct pli_acceptor, timer);
    uint64_t now = pli_clock_now();
    struct pli_list *node;

    while ((node = pli_list_first(&a->clients)) != NULL) {
        struct client *c = pli_container_of(node, struct client, node);

        if (c->deadline > now)
            break;
        drop(c, "it said nothing that makes a HELLO for %u ms (%zu bytes came)", a->opts.hello_timeout_ms,
             c->have);
    }
    set_timer(a);
}

/* Greets, or asks the kernel who it is. Returns false if the client is gone. */
static bool admit(struct client *c)
{
    socklen_t len = sizeof c->cred;

    if (!c->is_unix) {
        pli_sock_tune_tcp(c->src.fd, c->acceptor->ctx->peer_timeout_ms);
        if (send(c->src.fd, c->acceptor->greeting, c->acceptor->greeting_len, MSG_NOSIGNAL | MSG_DONTWAIT) ==
            (ssize_t)c->acceptor->greeting_len)
            return true;
        ended(c, errno);
        return false;
    }
    if (getsockopt(c->src.fd, SOL_SOCKET, SO_PEERCRED, &c->cred, &len) < 0) {
        drop(c, "SO_PEERCRED: %s", strerror(errno));
        return false;
    }
    snprintf(c->who, sizeof c->who, "process %d of user %u", (int)c->cred.pid, (unsigned)c->cred.uid);
    return true;
}

static void add_client(struct pli_acceptor *a, int fd, bool is_unix, const struct sockaddr *addr)
{
    struct client *c;

    if (a->pending >= a->opts.max_pending)
        drop(pli_container_of(pli_list_first(&a->clients), struct client, node),
             "it has not said HELLO yet, and %u others wait, which is the most that are kept", a->pending);
    c = calloc(1, sizeof *c);
    if (!c) {
        pli_warn("listener %s: no memory for one more client", a->where);
        close(fd);
        return;
    }
    c->acceptor = a;
    c->is_unix = is_unix;
    c->cred = (struct ucred){0, (uid_t)-1, (gid_t)-1};
    c->src.fd = fd;
    c->src.fn = on_client;
    c->deadline = pli_clock_after(pli_clock_now(), a->opts.hello_timeout_ms * PLI_NS_PER_MS);
    snprintf(c->who, sizeof c->who, "a client");
    if (!is_unix)
        pli_sock_text(addr, c->who, sizeof c->who);
    pli_list_init(&c->node);
    pli_list_push_back(&a->clients, &c->node);
    if (a->pending++ == 0)
        set_timer(a);
    if (!admit(c))
        return;
    if (pli_src_add(a->ctx, &c->src, EPOLLIN) < 0)
        drop(c, "%s", pli_err_text());
}

/* ---- accepting ---- */

static void on_resume(struct pli_timer *t)
{
    struct pli_acceptor *a = pli_container_of(t, struct pli_acceptor, resume);

    pli_src_mod(a->ctx, &a->tcp, EPOLLIN);
    pli_src_mod(a->ctx, &a->local, EPOLLIN);
}

/* The connection stays in the kernel's queue, so the listening socket stays readable: do not spin on it. */
static void pause_accepting(struct pli_acceptor *a, int err)
{
    if (!a->paused) {
        errno = err;
        pli_fail_errno("listener %s cannot accept", a->where);
        pli_warn("%s; clients wait", pli_err_text());
    }
    a->paused = true;
    pli_src_mod(a->ctx, &a->tcp, 0);
    pli_src_mod(a->ctx, &a->local, 0);
    pli_timer_start(a->ctx, &a->resume, pli_clock_after(pli_clock_now(), PAUSE_NS));
}

static void accept_some(struct pli_acceptor *a, struct pli_src *src)
{
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof addr;
        int fd;

        memset(&addr, 0, sizeof addr);
        fd = accept4(src->fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            a->paused = false;
            add_client(a, fd, src == &a->local, (struct sockaddr *)&addr);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            pause_accepting(a, errno);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
        /* else that connection has failed already: the next one */
    }
}

static void on_tcp(struct pli_src *src, uint32_t events)
{
    (void)events;
    accept_some(pli_container_of(src, struct pli_acceptor, tcp), src);
}

static void on_local(struct pli_src *src, uint32_t events)
{
    (void)events;
    accept_some(pli_container_of(src, struct pli_acceptor, local), src);
}

/* ---- opening ---- */

static int fail_bind(const struct pli_uri *uri, const char *where, int err)
{
    switch (err) {
    case EADDRINUSE:
        return pli_fail(PLAIT_E_ADDRINUSE,
                        "%s is in use by another process; choose another port, or port 0 for a free "
                        "one",
                        where);
    case EADDRNOTAVAIL:
        return pli_fail(PLAIT_E_UNREACHABLE,
                        "cannot listen on '%.120s': %s is not an address of this machine; use * for "
                        "every address",
                        uri->host, where);
    case EACCES:
        return pli_fail(PLAIT_E_SYSTEM,
                        "%s: ports below the limit in /proc/sys/net/ipv4/ip_unprivileged_port_start are for "
                        "root; choose a higher one",
                        where);
    default:
        errno = err;
        return pli_fail_errno("listening on %s", where);
    }
}

/* The listening socket, or a code. */
static int listen_on(const struct pli_uri *uri, const struct sockaddr *addr, socklen_t len)
{
    char where[PLI_SOCK_TEXT];
    int fd, one = 1, zero = 0, err;

    pli_sock_text(addr, where, sizeof where);
    fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EAFNOSUPPORT ? fail_bind(uri, where, EADDRNOTAVAIL)
                                     : pli_fail_errno("socket for %s", where);
    /* on Linux two listeners never share a port by this; it only ignores old connections in TIME_WAIT */
    if (uri->port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (addr->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, addr, len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    err = errno;
    close(fd);
    return fail_bind(uri, where, err);
}

static int listen_any(const struct pli_uri *uri)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(uri->port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(uri->port)};
    int fd = listen_on(uri, (struct sockaddr *)&v6, sizeof v6); /* IPv4, too */

    return fd == PLAIT_E_UNREACHABLE ? listen_on(uri, (struct sockaddr *)&v4, sizeof v4) : fd;
}

/* The first address of the host that this machine has. */
static int listen_host(const struct pli_uri *uri)
{
    struct addrinfo *list, *ai;
    int fd = PLAIT_E_RESOLVE, rc;

    if (!uri->host[0] || strcmp(uri->host, "*") == 0)
        return listen_any(uri);
    rc = pli_sock_resolve(uri->host, uri->port, true, NULL, NULL, &list);
    if (rc < 0)
        return rc;
    for (ai = list; ai; ai = ai->ai_next) {
        fd = listen_on(uri, ai->ai_addr, ai->ai_addrlen);
        if (fd != PLAIT_E_UNREACHABLE)
            break;
    }
    freeaddrinfo(list);
    return fd;
}

static int open_tcp(struct pli_acceptor *a, const struct pli_uri *uri)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    int fd = listen_host(uri);

    if (fd < 0)
        return fd;
    a->tcp.fd = fd;
    a->tcp.fn = on_tcp;
    memset(&addr, 0, sizeof addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        return pli_fail_errno("getsockname of a listening socket");
    pli_sock_text((struct sockaddr *)&addr, a->where, sizeof a->where);
    a->port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                               : ((struct sockaddr_in *)&addr)->sin_port);
    return pli_src_add(a->ctx, &a->tcp, EPOLLIN);
}

static int open_local(struct pli_acceptor *a)
{
    struct sockaddr_un addr;
    uint8_t id[PLI_ID_BYTES];
    socklen_t len;
    int n, rc;

    rc = pli_rand_id(id);
    if (rc < 0)
        return rc;
    n = snprintf(a->unix_name, sizeof a->unix_name, "plait-");
    for (int i = 0; i < PLI_ID_BYTES; i++)
        n += snprintf(a->unix_name + n, sizeof a->unix_name - (size_t)n, "%02x", id[i]);
    len = pli_sock_abstract(&addr, a->unix_name, (size_t)n);
    a->local.fn = on_local;
    a->local.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->local.fd < 0)
        return pli_fail_errno("the local socket beside %s", a->where);
    if (bind(a->local.fd, (struct sockaddr *)&addr, len) < 0 || listen(a->local.fd, BACKLOG) < 0)
        return pli_fail_errno("the local socket @%s beside %s", a->unix_name, a->where);
    return pli_src_add(a->ctx, &a->local, EPOLLIN);
}

static int make_greeting(struct pli_acceptor *a)
{
    struct pli_wire_msg msg = {.type = PLI_WIRE_GREETING};
    int len;

    memcpy(msg.greeting.host, pli_host_id(), PLI_HOST_LEN);
    msg.greeting.listener = a->opts.listener;
    msg.greeting.unix_name = (struct pli_wire_bytes){a->unix_name, (uint32_t)strlen(a->unix_name)};
    len = pli_wire_encode(a->greeting, sizeof a->greeting, &msg);
    if (len < 0)
        return len;
    a->greeting_len = (size_t)len;
    return 0;
}

static int copy_opts(struct pli_acceptor *a, const struct pli_acceptor_opts *opts)
{
    a->opts = *opts;
    if (!a->opts.hello_timeout_ms)
        a->opts.hello_timeout_ms = HELLO_TIMEOUT_MS;
    if (!a->opts.max_pending)
        a->opts.max_pending = MAX_PENDING;
    if (!opts->nuids)
        return 0;
    a->uids = calloc(opts->nuids, sizeof *a->uids);
    if (!a->uids)
        return pli_fail(PLAIT_E_NOMEM, "no memory for the list of %u allowed users", opts->nuids);
    memcpy(a->uids, opts->uids, opts->nuids * sizeof *a->uids);
    return 0;
}

int pli_acceptor_open(struct pli_acceptor **out, struct plait_ctx *ctx, struct pli_uri *uri,
                      const struct pli_acceptor_opts *opts)
{
    struct pli_acceptor *a = calloc(1, sizeof *a);
    int rc;

    if (!a)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a listener");
    a->ctx = ctx;
    a->tcp.fd = a->local.fd = -1;
    pli_list_init(&a->clients);
    pli_timer_init(&a->timer, on_timer);
    pli_timer_init(&a->resume, on_resume);
    rc = copy_opts(a, opts);
    if (rc == 0)
        rc = open_tcp(a, uri);
    if (rc == 0)
        rc = open_local(a);
    if (rc == 0)
        rc = make_greeting(a);
    if (rc < 0) {
        pli_acceptor_close(a, false);
        return rc;
    }
    uri->port = a->port;
    *out = a;
    return 0;
}

const char *pli_acceptor_unix_name(const struct pli_acceptor *a)
{
    return a->unix_name;
}

uint32_t pli_acceptor_listener(const struct pli_acceptor *a)
{
    return a->opts.listener;
}

uint16_t pli_acceptor_port(const struct pli_acceptor *a)
{
    return a->port;
}

unsigned pli_acceptor_pending(const struct pli_acceptor *a)
{
    return a->pending;
}

static void close_src(struct pli_acceptor *a, struct pli_src *src)
{
    pli_src_del(a->ctx, src);
    if (src->fd >= 0)
        close(src->fd);
}

void pli_acceptor_close(struct pli_acceptor *a, bool forked)
{
    struct pli_list *node;

    (void)forked; /* the sockets of sources are closed already then, and their fd is -1 */
    if (!a)
        return;
    while ((node = pli_list_first(&a->clients)) != NULL) {
        int fd = forget(pli_container_of(node, struct client, node));

        if (fd >= 0)
            close(fd);
    }
    pli_timer_stop(a->ctx, &a->timer);
    pli_timer_stop(a->ctx, &a->resume);
    close_src(a, &a->tcp);
    close_src(a, &a->local);
    free(a->uids);
    free(a);
}
