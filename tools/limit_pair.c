/* SPDX-License-Identifier: BSD-3-Clause */
/* The pair of processes that the limits are measured with: start, orders, waiting, end. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <plait/plait.h>
#include "limit_priv.h"

static __thread char error_text[256] = "no error";

const char *limit_error(void)
{
    return error_text;
}

int limit_fail(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(error_text, sizeof(error_text), fmt, ap);
    va_end(ap);
    return code;
}

int limit_fail_errno(const char *what)
{
    int code = errno == ENOMEM ? PLAIT_E_NOMEM
               : errno == EMFILE || errno == ENFILE ? PLAIT_E_NOFILE : PLAIT_E_SYSTEM;

    return limit_fail(code, "measuring the machine's limits: %s: %s", what, strerror(errno));
}

uint64_t limit_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double limit_median(double *v, unsigned n)
{
    qsort(v, n, sizeof(*v), compare_doubles);
    return v[n / 2];
}

static int pin_to(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}

bool limit_is_dead(struct limit_pair *p)
{
    struct pollfd pfd = {.fd = p->sock, .events = POLLIN};

    /* the peer never sends: readable means end of file */
    if (poll(&pfd, 1, 0) > 0)
        p->dead = true;
    return p->dead;
}

int limit_wait_slow(struct limit_pair *p)
{
    if (limit_load(&p->shm->given_up) == p->token)
        return -1;
    sched_yield();
    if (++p->slow % 256)
        return 0;
    if (p->is_peer) {
        if (getppid() != p->parent)
            _exit(0);
        return 0;
    }
    return limit_is_dead(p) ? -1 : 0;
}

void limit_give_up(struct limit_pair *p)
{
    if (p->is_peer)
        snprintf(p->shm->why, sizeof(p->shm->why), "%s", limit_error());
    limit_store(&p->shm->given_up, p->token);
}

int limit_ended(struct limit_pair *p, int rc)
{
    if (rc == 0 || limit_is_dead(p)) /* limit_end() puts that in words */
        return rc ? PLAIT_E_PEERDIED : 0;
    if (rc != -1) {
        limit_give_up(p);
        return rc;
    }
    if (limit_load(&p->shm->given_up) != p->token)
        return limit_fail(PLAIT_E_PROTO, "measuring the machine's limits: the second process hung up");
    p->shm->why[sizeof(p->shm->why) - 1] = '\0';
    return limit_fail(PLAIT_E_SYSTEM, "%s", p->shm->why);
}

int limit_buffers(struct limit_pair *p, size_t len, int count)
{
    int i;

    if (len <= p->buf_len && p->buf[count - 1])
        return 0;
    if (len < p->buf_len)
        len = p->buf_len; /* one more of them */
    for (i = 0; i < 2; i++) {
        if (p->buf[i])
            munmap(p->buf[i], p->buf_len);
        p->buf[i] = NULL;
    }
    p->buf_len = 0;
    for (i = 0; i < count; i++) {
        void *m = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (m == MAP_FAILED) {
            int err = errno;

            if (i > 0)
                munmap(p->buf[0], len);
            p->buf[0] = NULL;
            return err;
        }
        memset(m, 1 + i, len); /* pages of its own, not the zero page */
        p->buf[i] = m;
    }
    p->buf_len = len;
    return 0;
}

/* ---- the peer ---- */

static void obey(struct limit_pair *p, const struct limit_cmd *cmd)
{
    int err = 0;

    p->token = cmd->token;
    limit_fabric_tidy();
    if (pin_to(cmd->cpu))
        err = errno;
    if (!err && (cmd->op == LIMIT_OP_BW || cmd->op == LIMIT_OP_DUPLEX))
        err = limit_buffers(p, cmd->size, cmd->op == LIMIT_OP_DUPLEX ? 2 : 1);
    p->shm->failed = err;
    limit_store(&p->shm->ready, cmd->token);
    if (err || limit_wait(p, &p->shm->go, cmd->token, false))
        return;
    switch (cmd->op) {
    case LIMIT_OP_LAT:
        limit_lat_peer(p, cmd);
        break;
    case LIMIT_OP_RATE:
        limit_rate_peer(p, cmd);
        break;
    case LIMIT_OP_BW:
        limit_bw_peer(p, cmd);
        break;
    case LIMIT_OP_DUPLEX:
        limit_duplex_peer(p, cmd);
        break;
    case LIMIT_OP_EVENTFD:
        limit_eventfd_peer(p, cmd);
        break;
    case LIMIT_OP_FUTEX:
        limit_futex_peer(p, cmd);
        break;
    case LIMIT_OP_TCP:
        limit_tcp_peer(p, cmd);
        break;
    case LIMIT_OP_FABRIC:
        limit_fabric_peer(p, cmd);
        break;
    }
}

static void close_others(int a, int b, int c)
{
    int keep[3] = {a, b, c}, i, j, from = 3;

    for (i = 0; i < 3; i++)
        for (j = i + 1; j < 3; j++)
            if (keep[j] < keep[i]) {
                int t = keep[i];

                keep[i] = keep[j];
                keep[j] = t;
            }
    for (i = 0; i < 3; i++) {
        if (keep[i] > from)
            syscall(SYS_close_range, from, keep[i] - 1, 0);
        if (keep[i] >= from)
            from = keep[i] + 1;
    }
    syscall(SYS_close_range, from, ~0u, 0);
}

/* Only calls that are allowed after a fork of a program with threads. */
static void __attribute__((noreturn)) peer_main(struct limit_pair *p)
{
    struct limit_cmd cmd;
    sigset_t none;
    int s;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != p->parent)
        _exit(0);
    prctl(PR_SET_NAME, "plait-limit");
    for (s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C: the caller decides, and takes this process along */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_others(p->sock, p->event_a, p->event_b);
    p->is_peer = true;
    for (;;) {
        ssize_t n = recv(p->sock, &cmd, sizeof(cmd), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof(cmd))
            _exit(0);
        obey(p, &cmd);
    }
}

/* ---- the caller ---- */

static int died(struct limit_pair *p)
{
    p->dead = true;
    return limit_fail(PLAIT_E_PEERDIED, "measuring the machine's limits: the second process (pid %d) died; "
                      "start the measurement again", (int)p->peer);
}

int limit_begin(struct limit_pair *p)
{
    if (p->dead)
        return died(p);
    _Static_assert(sizeof(p->saved_mask) == sizeof(cpu_set_t), "the saved mask is a cpu_set_t");
    if (sched_getaffinity(0, sizeof(p->saved_mask), (cpu_set_t *)(void *)p->saved_mask))
        return limit_fail_errno("sched_getaffinity");
    if (pin_to(p->cpu_a))
        return limit_fail(PLAIT_E_INVAL, "CPU %d is not among the CPUs that this process may use; choose "
                          "another, or change the binding (taskset, cpuset)", p->cpu_a);
    return 0;
}

int limit_end(struct limit_pair *p, int rc)
{
    cpu_set_t set;

    memcpy(&set, p->saved_mask, sizeof(set));
    if (sched_setaffinity(0, sizeof(set), &set) && rc == 0)
        return limit_fail_errno("sched_setaffinity");
    return p->dead ? died(p) : rc;
}

int limit_start(struct limit_pair *p, struct limit_cmd *cmd)
{
    struct limit_shm *m = p->shm;

    cmd->token = ++p->token;
    limit_store(&m->line_a, 0);
    limit_store(&m->line_b, 0);
    limit_store(&m->line_ab, 0);
    limit_store(&m->head, 0);
    limit_store(&m->tail, 0);
    limit_store(&m->head_back, 0);
    limit_store(&m->tail_back, 0);
    if (send(p->sock, cmd, sizeof(*cmd), MSG_NOSIGNAL) != (ssize_t)sizeof(*cmd))
        return died(p);
    if (limit_wait(p, &m->ready, cmd->token, true))
        return died(p);
    if (m->failed) {
        errno = m->failed;
        return limit_fail_errno("the second process could not get ready (CPU or memory)");
    }
    limit_store(&m->go, cmd->token);
    return 0;
}

static int choose_cpus(struct limit_pair *p, int cpu_a, int cpu_b)
{
    cpu_set_t mask;
    int want[2] = {cpu_a, cpu_b}, i, cpu;

    if (sched_getaffinity(0, sizeof(mask), &mask))
        return limit_fail_errno("sched_getaffinity");
    for (i = 0; i < 2; i++) {
        if (want[i] < -1 || want[i] >= CPU_SETSIZE || (want[i] >= 0 && !CPU_ISSET(want[i], &mask)))
            return limit_fail(PLAIT_E_INVAL, "CPU %d is not among the CPUs that this process may use; choose "
                              "another, or change the binding (taskset, cpuset)", want[i]);
    }
    for (i = 0; i < 2; i++) {
        for (cpu = 0; want[i] < 0 && cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &mask) && cpu != want[!i])
                want[i] = cpu;
        if (want[i] < 0)
            want[i] = want[!i];
    }
    p->cpu_a = want[0];
    p->cpu_b = want[1];
    p->spins = 1u << 14;
    if (p->cpu_a == p->cpu_b) {
        p->spins = 1;
        snprintf(p->note, sizeof(p->note), "the limits need two cores, and both ends run on CPU %d: they "
                 "take turns, and these figures are no limits; give the command two CPUs (taskset, cpuset)",
                 p->cpu_a);
    }
    return 0;
}

static int start_peer(struct limit_pair *p)
{
    int sv[2];

    p->event_a = eventfd(0, EFD_CLOEXEC);
    p->event_b = eventfd(0, EFD_CLOEXEC);
    if (p->event_a < 0 || p->event_b < 0)
        return limit_fail_errno("eventfd");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
        return limit_fail_errno("socketpair");
    p->sock = sv[1];
    p->parent = getpid();
    p->peer = fork();
    if (p->peer == 0)
        peer_main(p);
    close(sv[1]);
    p->sock = sv[0];
    return p->peer < 0 ? limit_fail_errno("fork") : 0;
}

int limit_pair_open(struct limit_pair **out, int cpu_a, int cpu_b)
{
    struct limit_pair *p = calloc(1, sizeof(*p));
    int rc;

    *out = NULL;
    if (!p)
        return limit_fail(PLAIT_E_NOMEM, "no memory to measure the machine's limits");
    p->sock = p->event_a = p->event_b = p->tcp = -1;
    p->peer = -1;
    rc = choose_cpus(p, cpu_a, cpu_b);
    if (rc)
        goto err;
    p->shm = mmap(NULL, sizeof(*p->shm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                  -1, 0);
    if (p->shm == MAP_FAILED) {
        p->shm = NULL;
        rc = limit_fail_errno("mmap of 4 MiB of shared memory");
        goto err;
    }
    rc = start_peer(p);
    if (rc)
        goto err;
    *out = p;
    return 0;
err:
    limit_pair_close(p);
    return rc;
}

void limit_pair_close(struct limit_pair *p)
{
    int i;

    if (!p)
        return;
    if (p->sock >= 0)
        close(p->sock);
    if (p->peer > 0) {
        /* it may be in a round that was given up: it has nothing to save */
        kill(p->peer, SIGKILL);
        while (waitpid(p->peer, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (p->tcp >= 0)
        close(p->tcp);
    if (p->event_a >= 0)
        close(p->event_a);
    if (p->event_b >= 0)
        close(p->event_b);
    for (i = 0; i < 2; i++)
        if (p->buf[i])
            munmap(p->buf[i], p->buf_len);
    if (p->shm)
        munmap(p->shm, sizeof(*p->shm));
    free(p);
}

const char *limit_pair_note(const struct limit_pair *p)
{
    return p->note[0] ? p->note : NULL;
}

int limit_pair_cpu_a(const struct limit_pair *p)
{
    return p->cpu_a;
}

int limit_pair_cpu_b(const struct limit_pair *p)
{
    return p->cpu_b;
}

int limit_pair_pid(const struct limit_pair *p)
{
    return (int)p->peer;
}
