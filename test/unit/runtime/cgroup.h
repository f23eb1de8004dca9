/* SPDX-License-Identifier: BSD-3-Clause */
/* A memory cgroup for a test. */
#ifndef PLI_TEST_CGROUP_H
#define PLI_TEST_CGROUP_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int write_file(const char *dir, const char *file, const char *text)
{
    char path[600];
    int fd, ok;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok ? 0 : -1;
}

/* A cgroup of its own with 64 MiB, of either version; 0 and its folder, or -1. */
static inline int make_cgroup(char *dir, size_t cap)
{
    static const char *const roots[] = { "/sys/fs/cgroup/memory", "/sys/fs/cgroup" };
    static const char *const limits[] = { "memory.limit_in_bytes", "memory.max" };
    char line[512], rel[256] = "";
    FILE *f = fopen("/proc/self/cgroup", "re");

    while (f && fgets(line, sizeof line, f)) {
        char *p = strstr(line, ":memory:") ? strstr(line, ":memory:") + 8 : NULL;

        if (p)
            snprintf(rel, sizeof rel, "%.*s", (int)strcspn(p, "\n"), p);
    }
    if (f)
        fclose(f);
    for (int i = 0; i < 4; i++) {
        snprintf(dir, cap, "%s%s/plait-test-%d", roots[i / 2], i % 2 ? "" : rel, (int)getpid());
        if (mkdir(dir, 0755) == 0 && write_file(dir, limits[i / 2], "67108864") == 0)
            return 0;
        rmdir(dir);
    }
    return -1;
}

#endif
