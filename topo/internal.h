/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of topo/ only. */
#ifndef PLI_TOPO_INTERNAL_H
#define PLI_TOPO_INTERNAL_H

#include <hwloc.h>

#include "topo/topo.h"

struct pli_topo {
    struct pli_topo_info info;
    struct pli_topo_pu *pus;
    struct pli_topo_core *cores;
    struct pli_topo_node *nodes;
    struct pli_topo_cache *caches;
    int *pu_by_os; /* index into pus, or -1 */
    int pu_os_end; /* entries of pu_by_os */
    char *source;
    char *allowed_list;
    hwloc_topology_t hw;    /* NULL once loaded */
    hwloc_bitmap_t machine; /* PUs that the cgroup allows */
    hwloc_bitmap_t allowed; /* of these, what this process may use */
};

/* Looks at a file of HWLOC_XMLFILE before hwloc does. 0, PLAIT_E_TOPOLOGY, PLAIT_E_NOMEM. */
int pli_topo_check_xml(const char *file);

/* Returns PLAIT_E_TOPOLOGY, with a text that names the file. */
int pli_topo_bad_xml(const char *file, const char *why);

/* Fills the arrays of t from t->hw. PLAIT_E_NOMEM, PLAIT_E_TOPOLOGY. */
int pli_topo_discover(struct pli_topo *t);

/* Recomputes everything that depends on t->allowed. PLAIT_E_NOMEM. */
int pli_topo_count_allowed(struct pli_topo *t);

/* Sets nodes[i].mem_node for every node. */
void pli_topo_find_mem_nodes(struct pli_topo *t);

#endif
