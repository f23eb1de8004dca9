/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs as root in a guest with two NUMA nodes, and CPU n on node n: is memory where plait_mem and pools were
 * asked to put it? What plait says is compared with move_pages(2) and get_mempolicy(2). */
#include <limits.h>
#include <plait/plait.h>
#include <sched.h>
#include <stdlib.h>
#include "test/cluster/guest_util.h"

#define MIB ((size_t)1 << 20)

/* First touch would take memory from the CPU's node. */
static bool run_on(int cpu)
{
    cpu_set_t set;
    unsigned at = UINT_MAX, node = UINT_MAX;

    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0 && syscall(SYS_getcpu, &at, &node, NULL) == 0 &&
           at == (unsigned)cpu && node == (unsigned)cpu;
}

static struct plait_mem *get(size_t len, int node, size_t page_size, struct plait_mem_info *info)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m = NULL;

    *info = (struct plait_mem_info)PLAIT_MEM_INFO_INIT;
    o.node = node;
    o.page_size = page_size;
    if (plait_mem_alloc(&m, len, &o) < 0) {
        printf("plait_mem_alloc: %s\n", plait_error_text());
        return NULL;
    }
    if (plait_mem_get_info(m, info) < 0)
        printf("plait_mem_get_info: %s\n", plait_error_text());
    return m;
}

static void regions(int cpu)
{
    static const size_t sizes[] = { 1, 4096, 3 * MIB + 5, 32 * MIB };

    for (int node = 0; node < 2; node++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct plait_mem_info info;
            struct plait_mem *m = get(sizes[i], node, 0, &info);
            size_t off = m ? pages_elsewhere(info.addr, info.reserved, node) : 0;
            char name[80];

            snprintf(name, sizeof name, "guest_numa::region_of_%zu_bytes_on_node_%d_from_cpu_%d", sizes[i],
                     node, cpu);
            verdict(name,
                    m && info.node_verified && info.node == node && info.reserved >= sizes[i] && off == 0,
                    "verified %d, %zu pages of %zu bytes are elsewhere", info.node_verified, off,
                    info.reserved);
            plait_mem_release(m);
        }
}

static void no_such_node(void)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m = NULL;
    int rc;

    o.node = 2;
    rc = plait_mem_alloc(&m, MIB, &o);
    verdict("guest_numa::no_such_node", rc == PLAIT_E_INVAL && !m && strstr(plait_error_text(), "node 2"),
            "%d, %s", rc, plait_error_text());
}

static long node_value(int node, const char *file, const char *word)
{
    char path[128], line[256];
    long v = -1;
    FILE *f;

    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/%s", node, file);
    f = fopen(path, "re");
    while (f && v < 0 && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, word);

        if (at)
            v = strtol(at + strlen(word), NULL, 10);
    }
    if (f)
        fclose(f);
    return v;
}

/* A node that has not enough: not an error, but not called verified, and nobody is killed. */
static void full_node(void)
{
    long kib = node_value(1, "meminfo", "MemFree:");
    struct plait_mem_info info;
    struct plait_mem *m = get(((size_t)kib << 10) + 48 * MIB, 1, 0, &info);

    verdict("guest_numa::full_node_is_told", kib > 0 && m && info.node == 1 && !info.node_verified,
            "%ld KiB were free, verified %d", kib, info.node_verified);
    plait_mem_release(m);
}

static void pools(int cpu, int node)
{
    static const struct plait_pool_class classes[] = {
        { 100, 10, 0, 7 }, { 5000, 0, 0, 3 }, { MIB, 1, 0, 1 }
    };
    enum { EACH = 24 };
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool = NULL;
    uint64_t failures = 0, grown = 0;
    void *bufs[3][EACH];
    size_t off = 0, had = 0;
    char name[64];

    o.node = node;
    o.classes = classes;
    o.nclasses = 3;
    if (plait_pool_create(&pool, &o) < 0)
        printf("plait_pool_create: %s\n", plait_error_text());
    for (unsigned i = 0; pool && i < 3; i++) {
        struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;

        for (int k = 0; k < EACH && plait_pool_alloc(pool, classes[i].size, &bufs[i][k]) == 0; k++, had++)
            off += pages_elsewhere(bufs[i][k], classes[i].size, node);
        plait_pool_get_stats(pool, i, &st);
        failures += st.bind_failures;
        grown += st.grown;
    }
    snprintf(name, sizeof name, "guest_numa::pool_on_node_%d_from_cpu_%d", node, cpu);
    verdict(name, had == (size_t)3 * EACH && off == 0 && failures == 0 && grown > 2,
            "%zu of %d buffers, %zu pages are elsewhere, bind_failures %llu, grown %llu", had, 3 * EACH, off,
            (unsigned long long)failures, (unsigned long long)grown);
    if (had == (size_t)3 * EACH)
        for (int k = 0; k < 3 * EACH; k++)
            plait_pool_free(bufs[k / EACH][k % EACH]);
    plait_pool_destroy(pool);
}

/* ---- huge pages ---- */

static bool set_huge_pages(int node, int count)
{
    static const char file[] = "hugepages/hugepages-2048kB/nr_hugepages";
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/%s", node, file);
    f = fopen(path, "we");
    if (!f)
        return false;
    fprintf(f, "%d\n", count);
    return fclose(f) == 0 && node_value(node, file, "") == count;
}

/* Huge pages of which there are some on node `at`; asked for on node `node`. */
static void huge(const char *name, int at, int count, int node, size_t page, int verified)
{
    struct plait_mem_info info;
    bool set = set_huge_pages(at, count);
    struct plait_mem *m = get(7 * MIB, node, PLAIT_MEM_PAGE_2M, &info);
    size_t off = m ? pages_elsewhere(info.addr, info.reserved, verified ? node : at) : 1;

    verdict(name,
            set && m && info.page_size == page && info.page_size_asked == PLAIT_MEM_PAGE_2M &&
                info.node_verified == verified && info.reserved == (page > MIB ? 8 : 7) * MIB && off == 0,
            "set %d, page size %zu, reserved %zu, verified %d, %zu pages are elsewhere", set, info.page_size,
            info.reserved, info.node_verified, off);
    plait_mem_release(m);
    set_huge_pages(at, 0);
}

static void huge_pool(const char *name, int count, uint64_t fallbacks)
{
    static const struct plait_pool_class classes[] = { { MIB, 4, 0, 1 } };
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    bool set = set_huge_pages(1, count);
    struct plait_pool *pool = NULL;
    size_t off = 1;
    void *buf;

    o.node = 1;
    o.page_size = PLAIT_MEM_PAGE_2M;
    o.classes = classes;
    o.nclasses = 1;
    if (plait_pool_create(&pool, &o) == 0 && plait_pool_alloc(pool, MIB, &buf) == 0) {
        off = pages_elsewhere(buf, MIB, 1);
        plait_pool_get_stats(pool, 0, &st);
        plait_pool_free(buf);
    }
    verdict(name,
            set && st.bytes == 4 * MIB && st.fallbacks == fallbacks && st.bind_failures == 0 && off == 0,
            "set %d, bytes %llu, fallbacks %llu, bind_failures %llu, %zu pages are elsewhere", set,
            (unsigned long long)st.bytes, (unsigned long long)st.fallbacks,
            (unsigned long long)st.bind_failures, off);
    plait_pool_destroy(pool);
    set_huge_pages(1, 0);
}

int main(void)
{
    struct plait_mem_info info;
    struct plait_mem *m;

    for (int cpu = 1; cpu >= 0; cpu--) {
        char name[40];

        snprintf(name, sizeof name, "guest_numa::cpu_%d_is_on_node_%d", cpu, cpu);
        if (!verdict(name, run_on(cpu), "it is not"))
            return 1;
        pools(cpu, 0);
        pools(cpu, 1);
        regions(cpu);
    }
    no_such_node();
    huge("guest_numa::no_huge_pages_then_normal_ones", 0, 0, 1, 4096, 1);
    huge("guest_numa::huge_pages_on_node_0", 0, 4, 0, PLAIT_MEM_PAGE_2M, 1);
    huge("guest_numa::huge_pages_on_node_1", 1, 4, 1, PLAIT_MEM_PAGE_2M, 1);
    huge("guest_numa::huge_pages_on_the_other_node_are_told", 1, 4, 0, PLAIT_MEM_PAGE_2M, 0);
    huge("guest_numa::too_few_huge_pages_then_normal_ones", 1, 3, 1, 4096, 1);
    m = get(MIB, 1, PLAIT_MEM_PAGE_1G, &info);
    verdict("guest_numa::no_pages_of_1_gib_then_normal_ones",
            m && info.page_size == 4096 && info.node_verified && info.page_size_asked == PLAIT_MEM_PAGE_1G,
            "page size %zu", info.page_size);
    plait_mem_release(m);
    huge_pool("guest_numa::pool_of_huge_pages", 2, 0);
    huge_pool("guest_numa::pool_without_huge_pages_counts_it", 0, 1);
    full_node();
    return guest_failed != 0;
}
