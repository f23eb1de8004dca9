/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting a process's descriptors, and limiting them. */
#ifndef PLI_TEST_FDS_H
#define PLI_TEST_FDS_H

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

static inline int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -3; /* ".", ".." and the directory itself */

    if (!dir)
        return -1;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Leaves room for that many more descriptors, at most 63. */
static inline int limit_fds(int more)
{
    int fds[64], n = 0, limit = -1;
    struct rlimit rl;

    /* the lowest numbers that are free: those in use may have gaps */
    while (n < 64 && n <= more && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    if (n > more)
        limit = fds[more];
    while (n > 0)
        close(fds[--n]);
    if (limit < 0 || getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return -1;
    rl.rlim_cur = (rlim_t)limit;
    return setrlimit(RLIMIT_NOFILE, &rl);
}

#endif
