/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting a process's descriptors, and limiting them. */
#ifndef PLI_TEST_FDS_H
#define PLI_TEST_FDS_H

#include <dirent.h>
#include <sys/resource.h>

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

/* Leaves room for that many more descriptors, if the numbers in use have no gaps. */
static inline int limit_fds(int more)
{
    struct rlimit rl;

    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return -1;
    rl.rlim_cur = (rlim_t)(count_fds() + more);
    return setrlimit(RLIMIT_NOFILE, &rl);
}

#endif
