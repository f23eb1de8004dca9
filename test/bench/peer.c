/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_LIMIT_S 30 /* of a run that hangs, because its other side has gone */

void peer_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void usage(const char *prog, const char *what, const char *arg)
{
    fprintf(stderr, "%s: %s: %s\n", prog, what, arg);
    fprintf(stderr,
            "usage: %s lat|rate|rpc|bw [--size LIST] [--window LIST] [--cores A,B] [--seconds S] [--provider NAME]\n"
            "example: %s rpc --window 1,16,64 --cores 0,1 --seconds 0.2\n",
            prog, prog);
    exit(2);
}

static int parse_list(const char *text, int min, int max, struct peer_list *l)
{
    char *end;

    for (l->n = 0; l->n < PEER_LIST_MAX; text = end + 1) {
        long v = strtol(text, &end, 10);

        if (end == text || v < min || v > max)
            return -1;
        l->v[l->n++] = (int)v;
        if (!*end)
            return 0;
        if (*end != ',')
            return -1;
    }
    return -1;
}

static int parse_option(struct peer_opts *o, const char *name, const char *value)
{
    char *end;

    if (!strcmp(name, "--size"))
        return parse_list(value, 8, strcmp(o->test, "bw") ? PEER_SIZE_MAX : PEER_BW_SIZE_MAX, &o->sizes);
    if (!strcmp(name, "--window"))
        return parse_list(value, 1, 64, &o->windows);
    if (!strcmp(name, "--cores"))
        return parse_list(value, 0, CPU_SETSIZE - 1, &o->cores) || o->cores.n != 2 ? -1 : 0;
    if (!strcmp(name, "--provider")) {
        o->provider = value;
        return 0;
    }
    if (!strcmp(name, "--seconds")) {
        o->seconds = strtod(value, &end);
        return *end || !(o->seconds > 0 && o->seconds <= 10) ? -1 : 0;
    }
    return -1;
}

void peer_parse(int argc, char **argv, struct peer_opts *o)
{
    *o = (struct peer_opts){.test = argc > 1 ? argv[1] : "",
                            .sizes = {{8}, 1},
                            .windows = {{64}, 1},
                            .cores = {{0, 1}, 2},
                            .seconds = 0.2};
    if (strcmp(o->test, "lat") && strcmp(o->test, "rate") && strcmp(o->test, "rpc") && strcmp(o->test, "bw"))
        usage(argv[0], "unknown test", o->test);
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc || parse_option(o, argv[i], argv[i + 1]))
            usage(argv[0], "unknown option or bad value", argv[i]);
    }
}

void peer_pin(int core)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        peer_die("cannot pin to core %d: %s", core, strerror(errno));
}

double peer_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int peer_bw_window(int size)
{
    int n = (16 << 20) / size;

    return n < 2 ? 2 : n > 64 ? 64 : n;
}

char *peer_memory(size_t size)
{
    char *p = malloc(size);

    if (!p)
        peer_die("no memory for %zu bytes", size);
    memset(p, 1, size);
    return p;
}

int peer_add_lat(struct peer_samples *s, double batch_seconds)
{
    s->v[s->n++] = batch_seconds * 1e9 / (2 * PEER_BATCH);
    return s->n == PEER_SAMPLES;
}

int peer_add_rate(struct peer_samples *s, long count, double seconds)
{
    s->v[s->n++] = (double)count / seconds;
    return s->n == PEER_SAMPLES;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(const struct peer_samples *s, double p)
{
    return s->v[(int)(p * (s->n - 1) + 0.5)];
}

void peer_print_lat(struct peer_samples *s, const char *transport, int size)
{
    qsort(s->v, (size_t)s->n, sizeof s->v[0], by_value);
    printf("{\"test\":\"lat\",\"transport\":\"%s\",\"size\":%d,\"window\":1,\"half_rtt_ns\":"
           "{\"min\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}}\n",
           transport, size, s->v[0], percentile(s, 0.5), percentile(s, 0.9), percentile(s, 0.99),
           s->v[s->n - 1]);
    fflush(stdout);
    s->n = 0;
}

void peer_print_rate(struct peer_samples *s, const char *test, const char *field, const char *transport,
                     int size, int window)
{
    qsort(s->v, (size_t)s->n, sizeof s->v[0], by_value);
    printf("{\"test\":\"%s\",\"transport\":\"%s\",\"size\":%d,\"window\":%d,\"%s\":%.0f}\n", test, transport,
           size, window, field, percentile(s, 0.5));
    fflush(stdout);
    s->n = 0;
}

int peer_fork(const struct peer_opts *o, int *sock)
{
    int s[2];
    pid_t parent = getpid(), pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s))
        peer_die("socketpair: %s", strerror(errno));
    pid = fork();
    if (pid < 0)
        peer_die("fork: %s", strerror(errno));
    alarm(RUN_LIMIT_S); /* not inherited over fork, so each side sets its own */
    *sock = s[pid ? 0 : 1];
    close(s[pid ? 1 : 0]);
    peer_pin(o->cores.v[pid ? 0 : 1]);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            peer_die("the other side has gone");
    }
    return pid != 0;
}

size_t peer_swap(int sock, const void *mine, size_t len, void *theirs, size_t max)
{
    ssize_t n;

    if (send(sock, mine, len, MSG_NOSIGNAL) != (ssize_t)len)
        peer_die("cannot reach the other side: %s", strerror(errno));
    n = recv(sock, theirs, max, 0);
    if (n <= 0)
        peer_die("the other side has gone");
    return (size_t)n;
}

void peer_join(void)
{
    int status;

    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
        peer_die("the responder has failed");
}
