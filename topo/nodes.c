/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a topology, and which NUMA node memory should come from. */
#include "topo/internal.h"

#include <stdint.h>

const struct pli_topo_info *pli_topo_info(const struct pli_topo *t)
{
    return &t->info;
}

const struct pli_topo_pu *pli_topo_pu(const struct pli_topo *t, int i)
{
    return i >= 0 && i < t->info.pus ? &t->pus[i] : NULL;
}

const struct pli_topo_core *pli_topo_core(const struct pli_topo *t, int i)
{
    return i >= 0 && i < t->info.cores ? &t->cores[i] : NULL;
}

const struct pli_topo_node *pli_topo_node(const struct pli_topo *t, int i)
{
    return i >= 0 && i < t->info.nodes ? &t->nodes[i] : NULL;
}

const struct pli_topo_cache *pli_topo_cache(const struct pli_topo *t, int i)
{
    return i >= 0 && i < t->info.caches ? &t->caches[i] : NULL;
}

const struct pli_topo_pu *pli_topo_find_pu(const struct pli_topo *t, int os)
{
    return os >= 0 && os < t->pu_os_end ? pli_topo_pu(t, t->pu_by_os[os]) : NULL;
}

const struct pli_topo_node *pli_topo_find_node(const struct pli_topo *t, int os)
{
    int i;

    for (i = 0; i < t->info.nodes; i++)
        if (t->nodes[i].os == os)
            return &t->nodes[i];
    return NULL;
}

int pli_topo_node_of_pu(const struct pli_topo *t, int pu)
{
    const struct pli_topo_pu *p = pli_topo_find_pu(t, pu);

    return p ? t->cores[p->core].node : -1;
}

int pli_topo_mem_node(const struct pli_topo *t, int node)
{
    const struct pli_topo_node *n = pli_topo_find_node(t, node);

    return n ? n->mem_node : -1;
}

uint64_t pli_topo_mask_id(const struct pli_topo *t)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    const char *s;

    for (s = t->info.allowed_list; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h ? h : 1;
}

static int has_memory(const struct pli_topo_node *n)
{
    return n->allowed && n->memory > 0;
}

/* Without the firmware's distances: the same package is nearer than another, then order decides. */
static uint64_t guess_distance(const struct pli_topo_node *a, const struct pli_topo_node *b)
{
    return a->package >= 0 && a->package == b->package ? 1 : 2;
}

static uint64_t distance(const struct pli_topo *t, struct hwloc_distances_s *d, int a, int b)
{
    hwloc_obj_t oa, ob;
    int i, j;

    if (!d)
        return guess_distance(&t->nodes[a], &t->nodes[b]);
    oa = hwloc_get_obj_by_type(t->hw, HWLOC_OBJ_NUMANODE, (unsigned)a);
    ob = hwloc_get_obj_by_type(t->hw, HWLOC_OBJ_NUMANODE, (unsigned)b);
    i = hwloc_distances_obj_index(d, oa);
    j = hwloc_distances_obj_index(d, ob);
    if (i < 0 || j < 0)
        return UINT64_MAX - 1;
    return d->values[(unsigned)i * d->nbobjs + (unsigned)j];
}

static int nearest_with_memory(const struct pli_topo *t, struct hwloc_distances_s *d, int a)
{
    uint64_t best_distance = UINT64_MAX;
    int b, best = -1;

    if (has_memory(&t->nodes[a]))
        return t->nodes[a].os;
    for (b = 0; b < t->info.nodes; b++) {
        uint64_t dist;

        if (!has_memory(&t->nodes[b]))
            continue;
        dist = distance(t, d, a, b);
        if (dist < best_distance) {
            best_distance = dist;
            best = b;
        }
    }
    /* a container may hide the sizes of all nodes: then the node itself is as good as any */
    return best >= 0 ? t->nodes[best].os : t->nodes[a].os;
}

void pli_topo_find_mem_nodes(struct pli_topo *t)
{
    struct hwloc_distances_s *d = NULL;
    unsigned nr = 1;
    int a;

    if (hwloc_distances_get_by_type(t->hw, HWLOC_OBJ_NUMANODE, &nr, &d, HWLOC_DISTANCES_KIND_MEANS_LATENCY,
                                    0) < 0 ||
        nr == 0)
        d = NULL;
    for (a = 0; a < t->info.nodes; a++)
        t->nodes[a].mem_node = nearest_with_memory(t, d, a);
    if (d)
        hwloc_distances_release(t->hw, d);
}
