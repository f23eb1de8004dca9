/* SPDX-License-Identifier: BSD-3-Clause */
/* plait info for people. */
#include "info.h"

#include <inttypes.h>
#include <stdio.h>
#include "cli.h"

static void transports(void)
{
    struct plait_transport_info t;

    printf("\ntransports\n");
    for (unsigned i = 0; plait_transport_info(i, &t) == 0; i++)
        printf("  %-10s%-15s%s\n", t.name, t.available ? "available" : "not available", t.why);
}

static void caches(const struct info_topo *t)
{
    char size[CLI_TEXT];

    for (int i = 0; i < t->info.caches; i++) {
        struct plait_topo_cache c = PLAIT_TOPO_CACHE_INIT;

        if (plait_topo_get_cache(t->topo, i, &c) < 0)
            continue;
        printf("%sL%d%s %s x %d", i ? ", " : "  caches    ", c.level,
               c.kind == 'd' ? "d" : c.kind == 'i' ? "i" : "", cli_bytes(size, c.bytes), c.count);
    }
    if (t->info.caches > 0)
        printf("\n");
}

static void nodes(const struct info_topo *t)
{
    char size[CLI_TEXT];

    for (int i = 0; i < t->info.nodes; i++) {
        struct plait_topo_node n = PLAIT_TOPO_NODE_INIT;

        if (plait_topo_get_node(t->topo, i, &n) < 0)
            continue;
        printf("  NUMA node %d: %s, %d cores (%d allowed)%s", n.node,
               n.memory ? cli_bytes(size, n.memory) : "no memory", n.cores, n.cores_allowed,
               n.allowed ? "" : ", its memory is not allowed");
        if (n.mem_node != n.node)
            printf(", memory comes from node %d", n.mem_node);
        printf("\n");
    }
}

static void contexts(const struct info_topo *t)
{
    printf("\ncontexts: one for each core that this process may use\n");
    for (int i = 0; i < t->nplaces; i++) {
        const struct plait_topo_place *p = &t->places[i];

        printf("  context %-4d CPU %-4d core %-4d NUMA node %d", i, p->pu, p->core, p->node);
        if (p->mem_node != p->node)
            printf(", memory from node %d", p->mem_node);
        printf("%s\n", p->oversubscribed ? ", shares its core: sleeps instead of spinning" : "");
    }
}

static void machine(const struct info_topo *t)
{
    const struct plait_topo_info *i = &t->info;
    char size[CLI_TEXT];

    if (!t->topo) {
        printf("\nmachine\n  not known: %s\n", t->why);
        return;
    }
    printf("\nmachine (%s)\n", i->source);
    printf("  cores     %d in %d package%s, %d allowed\n", i->cores, i->packages, i->packages == 1 ? "" : "s",
           i->cores_allowed);
    printf("  CPUs      %d online, %d allowed (%s)", i->pus, i->pus_allowed, i->allowed_list);
    if (i->pus_offline)
        printf(", %d offline", i->pus_offline);
    printf("%s\n", i->bound ? "; bound by a launcher or taskset" : "");
    printf("  memory    %s\n", cli_bytes(size, i->memory));
    caches(t);
    nodes(t);
    contexts(t);
    if (!i->this_system)
        printf("  this is not the machine that runs here: nothing is pinned by it\n");
}

static void rlimit(const char *name, const struct info_rlimit *r, bool bytes, const char *what)
{
    char soft[CLI_TEXT], hard[CLI_TEXT], both[2 * CLI_TEXT + 4];

    if (bytes || r->soft == UINT64_MAX)
        cli_bytes(soft, r->soft);
    else
        snprintf(soft, sizeof(soft), "%" PRIu64, r->soft);
    if (bytes || r->hard == UINT64_MAX)
        cli_bytes(hard, r->hard);
    else
        snprintf(hard, sizeof(hard), "%" PRIu64, r->hard);
    snprintf(both, sizeof(both), "%s / %s", soft, hard);
    printf("  %-26s %-24s %s\n", name, both, what);
}

static void limits(const struct info_limits *l)
{
    char a[CLI_TEXT], b[CLI_TEXT], text[3 * CLI_TEXT];

    printf("\nlimits (soft / hard)\n");
    rlimit("open files (ulimit -n)", &l->nofile, false, "each link has a few descriptors");
    rlimit("locked memory (ulimit -l)", &l->memlock, true, "for memory of a fabric; shm needs none");
    rlimit("address space (ulimit -v)", &l->as, true, "rings are mapped on both sides");
    rlimit("file size (ulimit -f)", &l->fsize, true, "counts for memfds, which rings are made of");
    if (l->cgroup[0])
        snprintf(text, sizeof(text), "%s, %s used", cli_bytes(a, l->cgroup_limit),
                 cli_bytes(b, l->cgroup_usage));
    else
        snprintf(text, sizeof(text), "none");
    printf("  %-26s %-24s rings count here%s%s\n", "memory of the cgroup", text, l->cgroup[0] ? ": " : "",
           l->cgroup);
    if (l->has_shm)
        snprintf(text, sizeof(text), "%s, %s free", cli_bytes(a, l->shm_total), cli_bytes(b, l->shm_free));
    else
        snprintf(text, sizeof(text), "missing");
    printf("  %-26s %-24s not used by plait; MPI libraries use it\n", "/dev/shm", text);
    printf("  %-26s %-24s %s\n", "membarrier", l->membarrier ? "yes" : "no",
           l->membarrier ? "messages need no fence" : l->membarrier_why);
}

static void link_memory(const struct info_link *l)
{
    char quiet[CLI_TEXT], busy[CLI_TEXT];

    printf("\nshared memory of a link, each side\n");
    if (l->why[0])
        printf("  not measured: %s\n", l->why);
    else
        printf("  quiet %s, after a stream of small messages %s\n", cli_bytes(quiet, l->quiet),
               cli_bytes(busy, l->busy));
}

void info_print_text(const struct info *i)
{
    printf("plait %s\n  built with %s\n", plait_version(), plait_build_options());
    transports();
    info_print_devices(i);
    machine(&i->topo);
    limits(&i->limits);
    link_memory(&i->link);
}
