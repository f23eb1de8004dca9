/* SPDX-License-Identifier: BSD-3-Clause */
/* Starts and ends the peer process. */
#include "perf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 20000
#define END_MS   3000
#define DEATH_MS 200

static void __attribute__((noreturn)) be_peer(int in, int out, char *cpu)
{
    static char name[] = "plait", perf[] = "perf", serve[] = "--serve", uri[] = "plait://127.0.0.1:0/perf",
                cpus[] = "--cpus", peer[] = "--peer";
    char *argv[] = { name, perf, serve, uri, peer, cpu ? cpus : NULL, cpu, NULL };

    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        _exit(126);
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* Waits for its end; returns its status. */
static int reap(struct perf_peer *p)
{
    int st = 0;

    while (waitpid(p->pid, &st, 0) < 0 && errno == EINTR)
        ;
    p->pid = 0;
    return st;
}

static int ended(struct perf_peer *p)
{
    int st = reap(p);

    if (WIFSIGNALED(st))
        return cli_error("the peer process was killed by signal %d before it listened", WTERMSIG(st));
    if (WIFEXITED(st) && WEXITSTATUS(st) >= 126)
        return cli_error("the peer process could not be started from /proc/self/exe; is /proc mounted?");
    return cli_error("the peer process ended before it listened (exit status %d)", WEXITSTATUS(st));
}

/* The first line of its output is where it listens. */
static int read_uri(struct perf_peer *p)
{
    struct pollfd pfd = { .fd = p->out, .events = POLLIN };
    size_t len = 0;

    for (;;) {
        ssize_t n;
        int rc = poll(&pfd, 1, START_MS);

        if (rc == 0)
            return cli_error("the peer process has not begun to listen within %d s", START_MS / 1000);
        n = rc < 0 ? -1 : read(p->out, p->uri + len, sizeof(p->uri) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ended(p);
        len += (size_t)n;
        p->uri[len] = '\0';
        if (p->uri[len - 1] == '\n') {
            p->uri[len - 1] = '\0';
            return CLI_OK;
        }
    }
}

int perf_peer_start(struct perf_peer *p, int cpu)
{
    char text[16];
    int in[2], out[2];

    memset(p, 0, sizeof(*p));
    p->in = p->out = -1;
    if (pipe2(in, O_CLOEXEC))
        return cli_error("pipe: %s", strerror(errno));
    if (pipe2(out, O_CLOEXEC)) {
        close(in[0]);
        close(in[1]);
        return cli_error("pipe: %s", strerror(errno));
    }
    snprintf(text, sizeof(text), "%d", cpu);
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0)
        be_peer(in[0], out[1], cpu >= 0 ? text : NULL);
    close(in[0]);
    close(out[1]);
    p->in = in[1];
    p->out = out[0];
    if (p->pid < 0) {
        p->pid = 0;
        return cli_error("the peer process: fork: %s", strerror(errno));
    }
    return read_uri(p);
}

const char *perf_peer_death(struct perf_peer *p)
{
    struct pollfd pfd = { .fd = -1, .events = POLLIN };
    static char text[100];
    int st;

    if (p->pid <= 0)
        return "";
    pfd.fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (pfd.fd < 0 || poll(&pfd, 1, DEATH_MS) != 1) {
        if (pfd.fd >= 0)
            close(pfd.fd);
        return "";
    }
    close(pfd.fd);
    st = reap(p);
    if (WIFSIGNALED(st))
        snprintf(text, sizeof(text), "the peer process was killed by signal %d: ", WTERMSIG(st));
    else
        snprintf(text, sizeof(text), "the peer process ended with exit status %d: ", WEXITSTATUS(st));
    return text;
}

void perf_peer_stop(struct perf_peer *p)
{
    struct pollfd pfd = { .fd = p->out, .events = POLLIN };

    if (p->in >= 0)
        close(p->in);
    if (p->pid > 0) {
        /* its output ends when it ends */
        if (poll(&pfd, 1, END_MS) == 0)
            kill(p->pid, SIGKILL);
        reap(p);
    }
    if (p->out >= 0)
        close(p->out);
    p->pid = 0;
    p->in = p->out = -1;
}
