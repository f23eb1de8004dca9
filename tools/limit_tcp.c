/* SPDX-License-Identifier: BSD-3-Clause */
/* Raw TCP over loopback: ping-pong, and streams one way and both ways. The limit of what goes between nodes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <plait/plait.h>
#include "limit_priv.h"

enum form { PING, PING_SLEEP, STREAM, DUPLEX };

#define LOOK 65536u /* small messages of a stream are received many at a time */

/* ---- the connection: made at the first order, kept until the pair ends or something fails ---- */

static int no_delay(int fd)
{
    int one = 1;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int connect_to(struct limit_pair *p, uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    p->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->tcp < 0)
        return limit_fail_errno("socket");
    if (connect(p->tcp, (struct sockaddr *)&a, sizeof(a)))
        return limit_fail_errno("connecting over TCP to 127.0.0.1");
    return no_delay(p->tcp) ? limit_fail_errno("TCP_NODELAY") : 0;
}

/* A listener on a port that the kernel chooses. */
static int listener(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return limit_fail_errno("socket");
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1) || getsockname(fd, (struct sockaddr *)&a, &len)) {
        limit_fail_errno("listening for TCP on 127.0.0.1");
        close(fd);
        return PLAIT_E_SYSTEM;
    }
    *port = a.sin_port;
    return fd;
}

static int accept_one(struct limit_pair *p)
{
    uint16_t port = 0;
    int fd = listener(&port), rc = 0;

    if (fd < 0)
        return fd;
    limit_store(&p->shm->tail, 1u + port);
    while ((p->tcp = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) < 0 && rc == 0) {
        if (errno != EAGAIN && errno != EINTR)
            rc = limit_fail_errno("accept");
        else
            rc = limit_wait_slow(p);
    }
    close(fd);
    if (rc == 0 && no_delay(p->tcp))
        rc = limit_fail_errno("TCP_NODELAY");
    return rc;
}

static int connected(struct limit_pair *p)
{
    uint64_t port;

    if (p->tcp >= 0)
        return 0;
    if (p->is_peer)
        return accept_one(p);
    if (limit_wait_reach(p, &p->shm->tail, 1, &port))
        return -1;
    return connect_to(p, (uint16_t)(port - 1));
}

/* ---- bytes: 0, a negative code with its sentence, or -1 as limit_wait_slow() ---- */

static __attribute__((cold)) int broken(ssize_t n)
{
    if (n == 0)
        return -1; /* the other end closed it: it gave up, or died */
    return limit_fail_errno("TCP over 127.0.0.1");
}

static inline bool again(ssize_t n)
{
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static inline int idle(struct limit_pair *p, unsigned *left)
{
    if (--*left)
        return 0;
    *left = limit_calls(p);
    return limit_wait_slow(p);
}

static int put(struct limit_pair *p, const unsigned char *b, size_t len)
{
    unsigned left = limit_calls(p);

    while (len > 0) {
        ssize_t n = send(p->tcp, b, len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (__builtin_expect(n > 0, 1)) {
            b += n;
            len -= (size_t)n;
        } else if (!again(n)) {
            return broken(n);
        } else if (idle(p, &left)) {
            return -1;
        }
    }
    return 0;
}

static int get(struct limit_pair *p, unsigned char *b, size_t len, int flags)
{
    unsigned left = limit_calls(p);

    while (len > 0) {
        ssize_t n = recv(p->tcp, b, len, flags);

        if (__builtin_expect(n > 0, 1)) {
            b += n;
            len -= (size_t)n;
        } else if (!again(n)) {
            return broken(n);
        } else if (idle(p, &left)) {
            return -1;
        }
    }
    return 0;
}

/* ---- the loops ---- */

static int ping(struct limit_pair *p, uint64_t n, size_t size, int flags)
{
    int rc = 0;

    while (n-- > 0 && rc == 0) {
        rc = put(p, p->buf[0], size);
        if (rc == 0)
            rc = get(p, p->buf[1], size, flags);
    }
    return rc;
}

static int pong(struct limit_pair *p, uint64_t n, size_t size, int flags)
{
    int rc = 0;

    while (n-- > 0 && rc == 0) {
        rc = get(p, p->buf[1], size, flags);
        if (rc == 0)
            rc = put(p, p->buf[0], size);
    }
    return rc;
}

static int stream_out(struct limit_pair *p, uint64_t n, size_t size)
{
    int rc = 0;

    while (n-- > 0 && rc == 0)
        rc = put(p, p->buf[0], size);
    return rc;
}

/* A stream is faster when its receiver looks with poll(): that does not take the lock which the sender needs. */
static int readable(struct limit_pair *p, unsigned *left)
{
    struct pollfd pfd = {.fd = p->tcp, .events = POLLIN};
    int rc = 0;

    while (poll(&pfd, 1, 0) == 0 && rc == 0)
        rc = idle(p, left);
    return rc;
}

static int stream_in(struct limit_pair *p, uint64_t bytes, size_t size)
{
    size_t look = size < LOOK ? LOOK : size;
    int rc = 0;

    while (bytes > 0 && rc == 0) {
        unsigned left = limit_calls(p);
        ssize_t n;

        while (again(n = recv(p->tcp, p->buf[1], bytes < look ? bytes : look, MSG_DONTWAIT)) && rc == 0)
            rc = readable(p, &left);
        if (n <= 0)
            return rc ? rc : broken(n);
        bytes -= (uint64_t)n;
    }
    return rc;
}

/* Each end sends and receives what it can, by turns. */
static int both_ways(struct limit_pair *p, uint64_t n, size_t size)
{
    uint64_t out = n * size, in = n * size;
    size_t at = 0;
    unsigned left = limit_calls(p);

    while (out > 0 || in > 0) {
        bool moved = false;
        ssize_t m;

        if (out > 0) {
            m = send(p->tcp, p->buf[0] + at, size - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (m <= 0 && !again(m))
                return broken(m);
            if (m > 0) {
                out -= (uint64_t)m;
                at = (at + (size_t)m) % size;
                moved = true;
            }
        }
        if (in > 0) {
            m = recv(p->tcp, p->buf[1], in < size ? in : size, MSG_DONTWAIT);
            if (m <= 0 && !again(m))
                return broken(m);
            if (m > 0) {
                in -= (uint64_t)m;
                moved = true;
            }
        }
        if (!moved && idle(p, &left))
            return -1;
    }
    return 0;
}

/* ---- an order ---- */

static int prepare(struct limit_pair *p, size_t size)
{
    int rc = connected(p);

    if (rc)
        return rc;
    errno = limit_buffers(p, size < LOOK ? LOOK : size, 2);
    return errno ? limit_fail_errno("memory for the messages") : 0;
}

static void hang_up(struct limit_pair *p)
{
    if (p->tcp >= 0)
        close(p->tcp);
    p->tcp = -1;
}

/* cmd->n: round trips, or messages of each part, which ends when the peer has them all. */
static int obey(struct limit_pair *p, const struct limit_cmd *cmd)
{
    int rc = prepare(p, cmd->size);
    uint64_t part;

    if (rc == 0 && (cmd->form == PING || cmd->form == PING_SLEEP))
        return pong(p, cmd->n, cmd->size, cmd->form == PING ? MSG_DONTWAIT : 0);
    for (part = 1; part <= LIMIT_PARTS && rc == 0; part++) {
        rc = cmd->form == STREAM ? stream_in(p, cmd->n * cmd->size, cmd->size)
                                 : both_ways(p, cmd->n, cmd->size);
        if (rc)
            break;
        limit_store(&p->shm->line_b, part);
        if (part < LIMIT_PARTS && limit_wait(p, &p->shm->line_a, part, true)) /* else the next order clears it */
            rc = -1;
    }
    return rc;
}

void limit_tcp_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    int rc = obey(p, cmd);

    if (rc < -1)
        limit_give_up(p);
    if (rc)
        hang_up(p);
}

static int begin(struct limit_pair *p, struct limit_cmd *cmd)
{
    int rc = limit_start(p, cmd);

    return rc ? rc : prepare(p, cmd->size);
}

static int end(struct limit_pair *p, int rc)
{
    rc = limit_ended(p, rc);
    if (rc)
        hang_up(p);
    return limit_end(p, rc);
}

static int check(struct limit_pair *p, size_t size)
{
    if (size < 1 || size > LIMIT_BW_MAX_SIZE)
        return limit_fail(PLAIT_E_INVAL, "the limit of TCP is measured for 1 to %u bytes, not for %zu",
                          LIMIT_BW_MAX_SIZE, size);
    return limit_begin(p);
}

int limit_tcp_lat(struct limit_pair *p, size_t size, unsigned iters, bool sleeps, double *half_rtt_ns)
{
    unsigned batch = iters / LIMIT_BATCHES ? iters / LIMIT_BATCHES : 1, warm = iters / 10 + 2, i;
    struct limit_cmd cmd = {.op = LIMIT_OP_TCP, .form = sleeps ? PING_SLEEP : PING, .cpu = p->cpu_b, .size = size};
    int rc = check(p, size), flags = sleeps ? 0 : MSG_DONTWAIT;
    double v[LIMIT_BATCHES];
    uint64_t start;

    if (rc)
        return rc;
    cmd.n = warm + (uint64_t)batch * LIMIT_BATCHES;
    rc = begin(p, &cmd);
    if (rc == 0)
        rc = ping(p, warm, size, flags);
    for (i = 0; i < LIMIT_BATCHES && rc == 0; i++) {
        start = limit_now_ns();
        rc = ping(p, batch, size, flags);
        v[i] = (double)(limit_now_ns() - start) / 2 / batch;
    }
    if (rc == 0)
        *half_rtt_ns = limit_median(v, LIMIT_BATCHES);
    return end(p, rc);
}

static int streams(struct limit_pair *p, enum form form, size_t size, unsigned long messages, double *per_s)
{
    struct limit_cmd cmd = {.op = LIMIT_OP_TCP, .form = form, .cpu = p->cpu_b, .size = size};
    int rc = check(p, size);
    double v[LIMIT_PARTS];
    uint64_t start;
    unsigned i;

    if (rc)
        return rc;
    cmd.n = messages / LIMIT_PARTS ? messages / LIMIT_PARTS : 1;
    rc = begin(p, &cmd);
    for (i = 0; i < LIMIT_PARTS && rc == 0; i++) {
        start = limit_now_ns();
        rc = form == STREAM ? stream_out(p, cmd.n, size) : both_ways(p, cmd.n, size);
        if (rc == 0)
            rc = limit_wait(p, &p->shm->line_b, i + 1, true);
        v[i] = (double)cmd.n * 1e9 / (double)(limit_now_ns() - start + 1);
        if (i + 1 < LIMIT_PARTS)
            limit_store(&p->shm->line_a, i + 1);
    }
    if (rc == 0)
        *per_s = limit_median(v, LIMIT_PARTS) * (form == DUPLEX ? 2 : 1);
    return end(p, rc);
}

int limit_tcp_stream(struct limit_pair *p, size_t size, unsigned long messages, double *per_s)
{
    return streams(p, STREAM, size, messages, per_s);
}

int limit_tcp_duplex(struct limit_pair *p, size_t size, unsigned long messages, double *per_s)
{
    return streams(p, DUPLEX, size, messages, per_s);
}
