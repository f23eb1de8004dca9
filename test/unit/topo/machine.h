/* SPDX-License-Identifier: BSD-3-Clause */
/* Machines for the tests of topo: described in a line, or archived in data/ (written by lstopo and edited).
 *   offline.xml  2 packages, 8 NUMA nodes, 128 cores, SMT-2, siblings n and n + 128. Offline: cores 5, 17, 18
 *                and 19, and PU 168, the second thread of core 40. Not allowed: node 7 (cores 112-127), PUs 0
 *                and 128.
 *   onecore.xml  2 packages, 4 nodes, 16 cores, SMT-2; a cpuset of one core: PUs 9 and 25.
 *   asym.xml     package 0: node 0 with 6 cores; package 1: node 1 with 2 cores and no memory, node 2 with 4
 *                cores, node 3 with memory only. By the firmware's distances, node 0 is nearest to node 1. */
#ifndef TEST_TOPO_MACHINE_H
#define TEST_TOPO_MACHINE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "topo/topo.h"

/* 128 cores, 8 nodes, siblings n and n + 128 */
#define BIG "pack:2 numa:4 l3:2 core:8 pu:2(indexes=2*128:1*2)"

static inline struct pli_topo *load_env(const char *variable, const char *value)
{
    struct pli_topo *t = NULL;
    int rc;

    unsetenv("HWLOC_XMLFILE");
    unsetenv("HWLOC_SYNTHETIC");
    if (variable)
        setenv(variable, value, 1);
    rc = pli_topo_load(&t);
    cr_assert_eq(rc, 0, "%s", plait_error_text());
    return t;
}

static inline struct pli_topo *load_synthetic(const char *text)
{
    return load_env("HWLOC_SYNTHETIC", text);
}

static inline const char *data_file(const char *name)
{
    static char path[4096];
    const char *top = getenv("top_srcdir");

    snprintf(path, sizeof path, "%s/test/unit/topo/data/%s", top ? top : ".", name);
    return path;
}

static inline struct pli_topo *load_xml(const char *name)
{
    return load_env("HWLOC_XMLFILE", data_file(name));
}

static inline struct pli_topo *load_real(void)
{
    return load_env(NULL, NULL);
}

#endif
