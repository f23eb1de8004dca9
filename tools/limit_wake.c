/* SPDX-License-Identifier: BSD-3-Clause */
/* Wake-ups of a sleeping process: eventfd and futex. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <plait/plait.h>
#include "limit_priv.h"

static int event_write(int fd)
{
    uint64_t one = 1;

    return write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one) ? 0 : -1;
}

static int event_read(int fd)
{
    uint64_t v;
    ssize_t n;

    do
        n = read(fd, &v, sizeof(v));
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(v) ? 0 : -1;
}

/* The caller also watches the socket, whose end-of-file is the peer's death. */
static int event_read_watched(struct limit_pair *p)
{
    struct pollfd pfd[2] = {{.fd = p->event_b, .events = POLLIN}, {.fd = p->sock, .events = POLLIN}};

    while (poll(pfd, 2, -1) < 0 && errno == EINTR)
        ;
    if (!(pfd[0].revents & POLLIN)) {
        p->dead = true;
        return -1;
    }
    return event_read(p->event_b);
}

static int futex_call(uint32_t *word, int op, uint32_t v, const struct timespec *limit)
{
    return (int)syscall(SYS_futex, word, op, v, limit, NULL, 0);
}

static void futex_post(uint32_t *word, uint32_t v)
{
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
    futex_call(word, FUTEX_WAKE, 1, NULL);
}

/* Sleeps until the word is v. The time limit only serves to notice that the other end died. */
static int futex_await(struct limit_pair *p, uint32_t *word, uint32_t v)
{
    static const struct timespec second = {.tv_sec = 1};
    uint32_t seen;
    int i;

    while ((seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != v) {
        if (futex_call(word, FUTEX_WAIT, seen, &second) == 0 || errno != ETIMEDOUT)
            continue;
        for (i = 0; i < 256; i++) /* one of so many calls checks */
            if (limit_wait_slow(p))
                return -1;
    }
    return 0;
}

void limit_eventfd_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    uint64_t i;

    for (i = 0; i < cmd->n; i++)
        if (event_read(p->event_a) || event_write(p->event_b))
            return;
}

void limit_futex_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    uint64_t i;

    for (i = 1; i <= cmd->n; i++) {
        if (futex_await(p, &p->shm->futex_a, (uint32_t)i))
            return;
        futex_post(&p->shm->futex_b, (uint32_t)i);
    }
}

static int round_trip(struct limit_pair *p, enum limit_op op, uint32_t i)
{
    if (op == LIMIT_OP_EVENTFD)
        return event_write(p->event_a) || event_read_watched(p) ? -1 : 0;
    futex_post(&p->shm->futex_a, i);
    return futex_await(p, &p->shm->futex_b, i);
}

static int run_kind(struct limit_pair *p, enum limit_op op, int cpu, unsigned iters, double *one_way_ns)
{
    struct limit_cmd cmd = {.op = op, .n = iters, .cpu = cpu};
    double *v = malloc(iters * sizeof(*v));
    uint64_t start;
    unsigned i;
    int rc;

    if (!v)
        return limit_fail(PLAIT_E_NOMEM, "no memory for %u timings", iters);
    p->shm->futex_a = p->shm->futex_b = 0;
    rc = limit_start(p, &cmd);
    for (i = 0; rc == 0 && i < iters; i++) {
        start = limit_now_ns();
        if (round_trip(p, op, i + 1))
            rc = limit_fail(PLAIT_E_SYSTEM, "measuring wake-ups: an eventfd could not be read or written");
        v[i] = (double)(limit_now_ns() - start) / 2;
    }
    if (rc == 0)
        *one_way_ns = limit_median(v, iters);
    free(v);
    return rc;
}

int limit_wake_run(struct limit_pair *p, unsigned iters, struct limit_wake *out)
{
    int rc = limit_begin(p);

    if (rc)
        return rc;
    if (iters < 10)
        iters = 10;
    rc = run_kind(p, LIMIT_OP_EVENTFD, p->cpu_b, iters, &out->eventfd_ns);
    if (rc == 0)
        rc = run_kind(p, LIMIT_OP_FUTEX, p->cpu_b, iters, &out->futex_ns);
    if (rc == 0)
        rc = run_kind(p, LIMIT_OP_EVENTFD, p->cpu_a, iters, &out->eventfd_same_ns);
    if (rc == 0)
        rc = run_kind(p, LIMIT_OP_FUTEX, p->cpu_a, iters, &out->futex_same_ns);
    return limit_end(p, rc);
}
