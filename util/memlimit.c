/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/memlimit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "util/err.h"

#define PATH_LEN 512
/* a limit above this is none: version 1 says "unlimited" with a number near 2^63 */
#define NO_LIMIT (UINT64_C(1) << 60)

struct cg_files { /* the names in one version of cgroups */
    const char *root, *limit, *usage;
};

static const struct cg_files v1 = { "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes" };
static const struct cg_files v2 = { "/sys/fs/cgroup", "memory.max", "memory.current" };

/* For what nobody asks for before taking it: pages of the heap and the stack, and what the kernel needs for sockets and files. Whoever asks
 * for that at the limit is killed. */
#define KEEP_FREE (1u << 20)

/* Beside page tables. Less than above: whoever may not map a region copies its messages, which takes more memory than the tables do. */
#define KEEP_FREE_TABLES (128u << 10)
#define ENTRIES 512u /* of a page table */
#define TABLE 4096u

static int read_u64(const char *dir, const char *file, uint64_t *value)
{
    char path[PATH_LEN + 64];
    FILE *f;
    int n;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    f = fopen(path, "re");
    if (!f)
        return -1;
    n = fscanf(f, "%" SCNu64, value); /* "max" gives 0 fields: no limit */
    fclose(f);
    return n == 1 ? 0 : -1;
}

/* Page cache counts as used, but the kernel gives it up first. Shared memory is not in these two. */
static uint64_t reclaimable(const char *dir)
{
    char path[PATH_LEN + 64], key[64];
    uint64_t value, sum = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/memory.stat", dir);
    f = fopen(path, "re");
    if (!f)
        return 0;
    while (fscanf(f, "%63s %" SCNu64, key, &value) == 2)
        if (strcmp(key, "inactive_file") == 0 || strcmp(key, "active_file") == 0)
            sum += value;
    fclose(f);
    return sum;
}

static uint64_t room_in(const struct cg_files *cg, const char *dir, uint64_t *limit)
{
    uint64_t max, used, cache;

    if (read_u64(dir, cg->limit, &max) < 0 || max >= NO_LIMIT || read_u64(dir, cg->usage, &used) < 0)
        return UINT64_MAX;
    *limit = max;
    cache = reclaimable(dir);
    used -= used < cache ? used : cache;
    return used < max ? max - used : 0;
}

/* The cgroup at path and every one above it: each limits. */
static uint64_t room_upwards(const struct cg_files *cg, const char *path, uint64_t *limit, char *where, size_t cap)
{
    char dir[PATH_LEN];
    uint64_t best = UINT64_MAX;
    size_t root_len = strlen(cg->root);
    char *slash;

    snprintf(dir, sizeof dir, "%s%s", cg->root, path);
    for (;;) {
        uint64_t max = 0, room = room_in(cg, dir, &max);

        if (room < best) {
            best = room;
            *limit = max;
            snprintf(where, cap, "%s", dir);
        }
        slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_len)
            return best;
        *slash = '\0';
    }
}

uint64_t pli_memlimit_cgroup_room(uint64_t *limit, char *path, size_t cap)
{
    char line[PATH_LEN];
    uint64_t best = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");

    *limit = 0;
    path[0] = '\0';
    if (!f)
        return best;
    while (fgets(line, sizeof line, f)) {
        const struct cg_files *cg = strncmp(line, "0::", 3) == 0 ? &v2 : strstr(line, ":memory:") ? &v1 : NULL;
        char *rel = cg ? strchr(strchr(line, ':') + 1, ':') + 1 : NULL;
        uint64_t room, max = 0;
        char where[PATH_LEN];

        if (!rel)
            continue;
        rel[strcspn(rel, "\n")] = '\0';
        room = room_upwards(cg, rel, &max, where, sizeof where);
        if (room < best) {
            best = room;
            *limit = max;
            snprintf(path, cap, "%s", where);
        }
    }
    fclose(f);
    return best;
}

int pli_memlimit_check_file_size(const char *what, size_t size)
{
    struct rlimit rl;

    if (getrlimit(RLIMIT_FSIZE, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY || rl.rlim_cur >= size)
        return 0;
    return pli_fail(PLAIT_E_NOMEM, "%s: %zu bytes of shared memory are over the file size limit of %llu bytes; raise it with 'ulimit -f'",
                    what, size, (unsigned long long)rl.rlim_cur);
}

int pli_memlimit_map_failed(const char *what, size_t size)
{
    struct rlimit rl;

    if (errno == ENOMEM && getrlimit(RLIMIT_AS, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY)
        return pli_fail(PLAIT_E_NOMEM, "cannot map %zu bytes of %s: the address space limit is %llu bytes; raise it with 'ulimit -v'",
                        size, what, (unsigned long long)rl.rlim_cur);
    return pli_fail_errno("cannot map %zu bytes of %s", size, what);
}

int pli_memlimit_check(const char *what, size_t size)
{
    char path[PATH_LEN];
    uint64_t limit, room;
    int rc = pli_memlimit_check_file_size(what, size);

    if (rc < 0)
        return rc;
    room = pli_memlimit_cgroup_room(&limit, path, sizeof path);
    if (room < size + KEEP_FREE)
        return pli_fail(PLAIT_E_NOMEM, "%s: %zu bytes of shared memory do not fit: the memory cgroup %s has %" PRIu64 " of its limit of %" PRIu64
                        " bytes left, and %u must stay free; raise the limit or use fewer links",
                        what, size, path, room, limit, KEEP_FREE);
    return 0;
}

int pli_memlimit_check_tables(const char *what, uint64_t pages)
{
    char path[PATH_LEN];
    /* the lowest level, whose first and last tables the mapping may share, and one table of each level above */
    uint64_t limit, room, size = (pages / ENTRIES + 2 + 3) * TABLE;

    room = pli_memlimit_cgroup_room(&limit, path, sizeof path);
    if (room >= size + KEEP_FREE_TABLES)
        return 0;
    return pli_fail(PLAIT_E_NOMEM, "%s: %" PRIu64 " bytes of page tables to map it do not fit: the memory cgroup %s has %" PRIu64
                    " bytes of its limit of %" PRIu64 " left, and %u must stay free; raise the limit",
                    what, size, path, room, limit, KEEP_FREE_TABLES);
}
