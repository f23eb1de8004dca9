/* SPDX-License-Identifier: BSD-3-Clause */
/* For the process tests of sessions: starting the other process, and what must not be left behind. */
#ifndef SESSION_PROC_UTIL_H
#define SESSION_PROC_UTIL_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "test/proc/session_load.h"
#include "test/unit/runtime/fds.h"
#include "util/clock.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 10 /* a bound that is part of a promise holds for what users run */
#else
#define SLOWER 1
#endif

/* Where the tests listen. The same source is also built with another transport: TRANSPORT is "?transport=..." then. */
#ifndef TRANSPORT
#define TRANSPORT ""
#define OVER_SHM 1
#else
#include "test/unit/fabric/forgotten.h"
#define OVER_SHM 0
#endif
#define LISTEN_URI "plait://127.0.0.1:0/x" TRANSPORT

extern char **environ;

struct peer {
    pid_t pid;
    int in, out; /* its standard input (closing it ends the process) and output */
};

/* args: of the program, ended by NULL; at most six. */
static inline void peer_start_args(struct peer *p, const char *program, const char *const *args)
{
    const char *top = getenv("top_builddir");
    char path[4096];
    char *argv[8] = { path };
    posix_spawn_file_actions_t fa;
    int in[2], out[2];

    snprintf(path, sizeof path, "%s/test/proc/%s", top ? top : ".", program);
    for (int i = 0; i < 6 && args[i]; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    cr_assert_eq(pipe2(in, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    setenv("SESSION_PEER_URI", LISTEN_URI, 1);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&fa, out[1], STDOUT_FILENO);
    cr_assert_eq(posix_spawn(&p->pid, path, &fa, NULL, argv, environ), 0, "%s", path);
    posix_spawn_file_actions_destroy(&fa);
    close(in[0]);
    close(out[1]);
    p->in = in[1];
    p->out = out[0];
}

static inline void peer_start(struct peer *p, const char *a, const char *b, const char *c)
{
    peer_start_args(p, "session_peer", (const char *const[]){ a, b, c, NULL });
}

/* The next line of its output, without the newline; blocks. */
static inline void peer_line(struct peer *p, char *line, size_t len)
{
    size_t n = 0;
    char c;

    while (n + 1 < len && read(p->out, &c, 1) == 1 && c != '\n')
        line[n++] = c;
    line[n] = '\0';
    cr_assert_gt(n, 0, "the other process said nothing");
}

/* Reaps it; returns its status as waitpid() does. */
static inline int peer_end(struct peer *p)
{
    int status = -1;

    close(p->in);
    waitpid(p->pid, &status, 0);
    close(p->out);
    return status;
}

/* Lines of a file of /proc/self that contain a word. */
static inline unsigned count_lines(const char *path, const char *word)
{
    char line[4096];
    unsigned n = 0;
    FILE *f = fopen(path, "re");

    while (f && fgets(line, sizeof line, f))
        n += strstr(line, word) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* Entries of a folder with "plait" in their names; those of tests (plait-test, plait-check) do not count. */
static inline unsigned count_left(const char *folder)
{
    struct dirent *e;
    unsigned n = 0;
    DIR *d = folder ? opendir(folder) : NULL;

    while (d && (e = readdir(d)) != NULL)
        n += strstr(e->d_name, "plait") && !strstr(e->d_name, "plait-test") && !strstr(e->d_name, "plait-check");
    if (d)
        closedir(d);
    return n;
}

struct traces {
    int fds;
    unsigned maps, shm, tmp, run;
};

static inline struct traces traces_now(void)
{
    return (struct traces){
        .fds = count_fds(),
        .maps = count_lines("/proc/self/maps", "memfd:plait-"),
        .shm = count_left("/dev/shm"),
        .tmp = count_left("/tmp"),
        .run = count_left(getenv("XDG_RUNTIME_DIR")),
    };
}

static inline void assert_no_traces(const struct traces *before)
{
    struct traces now = traces_now();

    cr_assert_eq(now.fds, before->fds, "%d descriptors, %d before", now.fds, before->fds);
    cr_assert_eq(now.maps, 0, "%u mappings of shared memory are left", now.maps);
    cr_assert_leq(now.shm, before->shm, "something is left in /dev/shm");
    cr_assert_leq(now.tmp, before->tmp, "something is left in /tmp");
    cr_assert_leq(now.run, before->run, "something is left in XDG_RUNTIME_DIR");
}

#endif
