/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits of the process and the machine that plait runs into. */
#include "info.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct info_rlimit read_rlimit(int which)
{
    struct info_rlimit r = { UINT64_MAX, UINT64_MAX };
    struct rlimit l;

    if (getrlimit((__rlimit_resource_t)which, &l) == 0) {
        r.soft = l.rlim_cur == RLIM_INFINITY ? UINT64_MAX : l.rlim_cur;
        r.hard = l.rlim_max == RLIM_INFINITY ? UINT64_MAX : l.rlim_max;
    }
    return r;
}

/* ---- memory cgroups, version 2 and 1 ---- */

static int read_u64(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    int n = 0;

    if (!f)
        return -1;
    n = fscanf(f, "%" SCNu64, out); /* "max" is no number */
    fclose(f);
    return n == 1 ? 0 : -1;
}

/* This process's path in the hierarchy of the memory controller. 2, 1 for the version, or 0. */
static int cgroup_path(char *path, size_t size)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[600];
    int version = 0;

    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f)) {
        char *controllers = strchr(line, ':'), *p;

        line[strcspn(line, "\n")] = '\0';
        p = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!p)
            continue;
        *p++ = '\0';
        if (strcmp(controllers + 1, "memory") == 0) {
            snprintf(path, size, "%s", p);
            version = 1;
            break;
        }
        if (controllers[1] == '\0') {
            snprintf(path, size, "%s", p);
            version = 2;
        }
    }
    fclose(f);
    return version;
}

/* The limit nearest to exhaustion is what counts, wherever it is between here and the root. */
static void read_cgroup(struct info_limits *l)
{
    char path[512], file[1200];
    const char *root, *limit_name, *usage_name;
    int version = cgroup_path(path, sizeof(path));

    l->cgroup_limit = UINT64_MAX;
    if (version == 0)
        return;
    root = version == 2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    limit_name = version == 2 ? "memory.max" : "memory.limit_in_bytes";
    usage_name = version == 2 ? "memory.current" : "memory.usage_in_bytes";
    for (;;) {
        uint64_t limit, usage = 0;
        char *slash;

        snprintf(file, sizeof(file), "%s%s/%s", root, path, limit_name);
        /* version 1 says "no limit" with a number near the end of 63 bits */
        if (read_u64(file, &limit) == 0 && limit < UINT64_C(1) << 60 && limit < l->cgroup_limit) {
            snprintf(file, sizeof(file), "%s%s/%s", root, path, usage_name);
            read_u64(file, &usage);
            l->cgroup_limit = limit;
            l->cgroup_usage = usage;
            snprintf(l->cgroup, sizeof(l->cgroup), "%s", path[0] ? path : "/");
        }
        slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

static void read_membarrier(struct info_limits *l)
{
    const char *no = getenv("PLAIT_NO_MEMBARRIER");
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    int need = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;

    if (no && strcmp(no, "1") == 0)
        snprintf(l->membarrier_why, sizeof(l->membarrier_why), "switched off by PLAIT_NO_MEMBARRIER=1");
    else if (commands < 0)
        snprintf(l->membarrier_why, sizeof(l->membarrier_why), "the kernel says: %s", strerror(errno));
    else if ((commands & need) != need)
        snprintf(l->membarrier_why, sizeof(l->membarrier_why), "the kernel lacks the expedited global "
                 "barrier (Linux 4.16)");
    else
        l->membarrier = true;
}

void info_read_limits(struct info_limits *l)
{
    struct statvfs fs;

    memset(l, 0, sizeof(*l));
    l->memlock = read_rlimit(RLIMIT_MEMLOCK);
    l->nofile = read_rlimit(RLIMIT_NOFILE);
    l->as = read_rlimit(RLIMIT_AS);
    l->fsize = read_rlimit(RLIMIT_FSIZE);
    l->has_shm = statvfs("/dev/shm", &fs) == 0;
    if (l->has_shm) {
        l->shm_total = (uint64_t)fs.f_blocks * fs.f_frsize;
        l->shm_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    }
    read_cgroup(l);
    read_membarrier(l);
}
