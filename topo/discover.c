/* SPDX-License-Identifier: BSD-3-Clause */
/* From hwloc's tree to plain arrays, which placement can read without hwloc and from any thread. */
#include "topo/internal.h"

#include <stdlib.h>
#include <string.h>

#include "util/err.h"

static int nomem(void)
{
    return pli_fail(PLAIT_E_NOMEM, "topology: out of memory");
}

/* at least one element, so that NULL means no memory */
static void *array(int n, size_t size)
{
    return calloc(n > 0 ? (size_t)n : 1, size);
}

static int package_of(const struct pli_topo *t, hwloc_obj_t obj)
{
    hwloc_obj_t p =
        obj->type == HWLOC_OBJ_PACKAGE ? obj : hwloc_get_ancestor_obj_by_type(t->hw, HWLOC_OBJ_PACKAGE, obj);

    return p ? (int)p->logical_index : -1;
}

/* Of several local nodes (memory of different kinds behind one set of cores) the first in OS order is the
 * ordinary one: firmware lists HBM and expansion memory later. One with memory is better than one without. */
static int node_of(const struct pli_topo *t, hwloc_obj_t obj)
{
    int best = -1;
    hwloc_obj_t n = NULL;

    while ((n = hwloc_get_next_obj_by_type(t->hw, HWLOC_OBJ_NUMANODE, n)) != NULL) {
        if (!hwloc_bitmap_isset(obj->nodeset, n->os_index))
            continue;
        if (n->attr->numanode.local_memory > 0)
            return (int)n->os_index;
        if (best < 0)
            best = (int)n->os_index;
    }
    return best >= 0 ? best : 0;
}

/* the last-level cache: the outermost one around the core */
static int llc_of(hwloc_obj_t obj)
{
    int llc = -1;

    for (; obj; obj = obj->parent)
        if (hwloc_obj_type_is_dcache(obj->type))
            llc = (int)obj->logical_index;
    return llc;
}

/* A machine (or container) that does not tell its cores has PUs only: each counts as a core. */
static int same_core(const struct pli_topo *t, hwloc_obj_t a, hwloc_obj_t b)
{
    hwloc_obj_t ca, cb;

    if (!a)
        return 0;
    ca = hwloc_get_ancestor_obj_by_type(t->hw, HWLOC_OBJ_CORE, a);
    cb = hwloc_get_ancestor_obj_by_type(t->hw, HWLOC_OBJ_CORE, b);
    return ca && ca == cb;
}

static void add_core(struct pli_topo *t, hwloc_obj_t pu)
{
    struct pli_topo_core *c = &t->cores[t->info.cores++];

    c->package = package_of(t, pu);
    c->node = node_of(t, pu);
    c->llc = llc_of(pu);
    c->first_pu = (int)pu->logical_index;
}

static int discover_cores(struct pli_topo *t)
{
    int i, n = hwloc_get_nbobjs_by_type(t->hw, HWLOC_OBJ_PU);
    hwloc_obj_t pu, last = NULL;

    t->pu_os_end = hwloc_bitmap_last(hwloc_topology_get_topology_cpuset(t->hw)) + 1;
    if (n <= 0 || t->pu_os_end <= 0)
        return pli_fail(PLAIT_E_TOPOLOGY, "topology (%s): there is no processor in it", t->source);
    t->pus = array(n, sizeof *t->pus);
    t->cores = array(n, sizeof *t->cores);
    t->pu_by_os = array(t->pu_os_end, sizeof *t->pu_by_os);
    if (!t->pus || !t->cores || !t->pu_by_os)
        return nomem();
    for (i = 0; i < t->pu_os_end; i++)
        t->pu_by_os[i] = -1;
    for (i = 0; i < n; i++, last = pu) {
        pu = hwloc_get_obj_by_type(t->hw, HWLOC_OBJ_PU, (unsigned)i);
        if (!same_core(t, last, pu))
            add_core(t, pu);
        t->pus[i].os = (int)pu->os_index;
        t->pus[i].core = t->info.cores - 1;
        t->pus[i].thread = t->cores[t->info.cores - 1].pus++;
        if ((int)pu->os_index < t->pu_os_end)
            t->pu_by_os[pu->os_index] = i;
    }
    t->info.pus = n;
    return 0;
}

static int discover_nodes(struct pli_topo *t)
{
    int i, n = hwloc_get_nbobjs_by_type(t->hw, HWLOC_OBJ_NUMANODE);
    hwloc_const_nodeset_t allowed = hwloc_topology_get_allowed_nodeset(t->hw);

    t->nodes = array(n, sizeof *t->nodes);
    if (!t->nodes)
        return nomem();
    for (i = 0; i < n; i++) {
        hwloc_obj_t obj = hwloc_get_obj_by_type(t->hw, HWLOC_OBJ_NUMANODE, (unsigned)i);
        struct pli_topo_node *node = &t->nodes[i];

        node->os = (int)obj->os_index;
        node->package = package_of(t, obj);
        node->memory = obj->attr->numanode.local_memory;
        node->allowed = hwloc_bitmap_isset(allowed, obj->os_index);
        t->info.nodes_allowed += node->allowed;
    }
    t->info.nodes = n;
    return 0;
}

static int same_cache(const struct pli_topo_cache *a, const struct pli_topo_cache *b)
{
    return a->level == b->level && a->kind == b->kind && a->pus == b->pus && a->line == b->line &&
           a->size == b->size;
}

static int add_cache(struct pli_topo *t, hwloc_obj_t obj)
{
    const struct hwloc_cache_attr_s *attr = &obj->attr->cache;
    struct pli_topo_cache c = {
        .level = (int)attr->depth,
        .kind = attr->type == HWLOC_OBJ_CACHE_DATA          ? 'd'
                : attr->type == HWLOC_OBJ_CACHE_INSTRUCTION ? 'i'
                                                            : 'u',
        .count = 1,
        .pus = hwloc_bitmap_weight(obj->cpuset),
        .line = attr->linesize,
        .size = attr->size,
    };
    struct pli_topo_cache *grown;
    int i;

    for (i = 0; i < t->info.caches; i++)
        if (same_cache(&t->caches[i], &c)) {
            t->caches[i].count++;
            return 0;
        }
    grown = realloc(t->caches, (size_t)(t->info.caches + 1) * sizeof *grown);
    if (!grown)
        return nomem();
    grown[t->info.caches++] = c;
    t->caches = grown;
    return 0;
}

static int discover_caches(struct pli_topo *t)
{
    int type;

    for (type = HWLOC_OBJ_L1CACHE; type <= HWLOC_OBJ_L3ICACHE; type++) {
        hwloc_obj_t obj = NULL;

        if (!hwloc_obj_type_is_cache((hwloc_obj_type_t)type))
            continue;
        while ((obj = hwloc_get_next_obj_by_type(t->hw, (hwloc_obj_type_t)type, obj)) != NULL) {
            int rc = add_cache(t, obj);

            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int pli_topo_discover(struct pli_topo *t)
{
    hwloc_obj_t root = hwloc_get_root_obj(t->hw);
    int rc;

    t->info.packages = hwloc_get_nbobjs_by_type(t->hw, HWLOC_OBJ_PACKAGE);
    if (t->info.packages < 0)
        t->info.packages = 0;
    t->info.this_system = hwloc_topology_is_thissystem(t->hw);
    t->info.pus_offline = hwloc_bitmap_weight(root->complete_cpuset) - hwloc_bitmap_weight(root->cpuset);
    t->info.source = t->source;
    rc = discover_cores(t);
    if (rc == 0)
        rc = discover_nodes(t);
    if (rc == 0)
        rc = discover_caches(t);
    if (rc == 0)
        pli_topo_find_mem_nodes(t);
    return rc;
}

static void count_core(struct pli_topo *t, struct pli_topo_core *core)
{
    struct pli_topo_node *node = NULL;
    int i, on_machine = 0;

    for (i = 0; i < t->info.nodes; i++)
        if (t->nodes[i].os == core->node)
            node = &t->nodes[i];
    core->pus_allowed = 0;
    for (i = core->first_pu; i < core->first_pu + core->pus; i++) {
        struct pli_topo_pu *pu = &t->pus[i];

        pu->allowed = hwloc_bitmap_isset(t->allowed, (unsigned)pu->os);
        core->pus_allowed += pu->allowed;
        on_machine += hwloc_bitmap_isset(t->machine, (unsigned)pu->os);
    }
    t->info.pus_allowed += core->pus_allowed;
    t->info.cores_allowed += core->pus_allowed > 0;
    t->info.pus_machine += on_machine;
    t->info.cores_machine += on_machine > 0;
    if (node) {
        node->cores++;
        node->cores_allowed += core->pus_allowed > 0;
    }
}

int pli_topo_count_allowed(struct pli_topo *t)
{
    char *list = NULL;
    int i;

    if (hwloc_bitmap_list_asprintf(&list, t->allowed) < 0)
        return nomem();
    free(t->allowed_list);
    t->allowed_list = list;
    t->info.allowed_list = list;
    t->info.cores_allowed = t->info.pus_allowed = 0;
    t->info.cores_machine = t->info.pus_machine = 0;
    for (i = 0; i < t->info.nodes; i++)
        t->nodes[i].cores = t->nodes[i].cores_allowed = 0;
    for (i = 0; i < t->info.cores; i++)
        count_core(t, &t->cores[i]);
    t->info.bound = !hwloc_bitmap_isequal(t->allowed, t->machine);
    return 0;
}
