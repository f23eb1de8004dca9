/* SPDX-License-Identifier: BSD-3-Clause */
#include <plait/topo.h>

#include "machine.h"

#include <string.h>

static struct plait_topo *open_synthetic(const char *text)
{
    struct plait_topo *t = NULL;

    setenv("HWLOC_SYNTHETIC", text, 1);
    cr_assert_eq(plait_topo_open(&t), 0, "%s", plait_error_text());
    return t;
}

Test(public, summary)
{
    struct plait_topo *t = open_synthetic(BIG);
    struct plait_topo_info info = PLAIT_TOPO_INFO_INIT;

    cr_assert_eq(plait_topo_get_info(t, &info), 0);
    cr_assert_eq(info.size, sizeof info);
    cr_assert_eq(info.packages, 2);
    cr_assert_eq(info.cores, 128);
    cr_assert_eq(info.cores_allowed, 128);
    cr_assert_eq(info.pus, 256);
    cr_assert_eq(info.pus_allowed, 256);
    cr_assert_eq(info.pus_offline, 0);
    cr_assert_eq(info.nodes, 8);
    cr_assert_eq(info.caches, 1);
    cr_assert_eq(info.this_system, 0);
    cr_assert_eq(info.bound, 0);
    cr_assert_eq(info.memory, 8ull << 30);
    cr_assert_str_eq(info.allowed_list, "0-255");
    cr_assert(strstr(info.source, "HWLOC_SYNTHETIC"));
    plait_topo_close(t);
    plait_topo_close(NULL);
}

Test(public, listing)
{
    struct plait_topo *t = open_synthetic(BIG);
    struct plait_topo_pu pu = PLAIT_TOPO_PU_INIT;
    struct plait_topo_node node = PLAIT_TOPO_NODE_INIT;
    struct plait_topo_cache cache = PLAIT_TOPO_CACHE_INIT;

    for (int i = 0; i < 256; i++) {
        cr_assert_eq(plait_topo_get_pu(t, i, &pu), 0);
        cr_assert_eq(pu.core, i / 2);
        cr_assert_eq(pu.thread, i % 2);
        cr_assert_eq(pu.pu, i / 2 + 128 * (i % 2));
        cr_assert_eq(pu.node, i / 32);
        cr_assert_eq(pu.package, i / 128);
        cr_assert_eq(pu.allowed, 1);
    }
    cr_assert_eq(plait_topo_get_pu(t, 256, &pu), PLAIT_E_NOTFOUND);
    cr_assert_eq(plait_topo_get_pu(t, -1, &pu), PLAIT_E_NOTFOUND);
    cr_assert_eq(plait_topo_get_node(t, 7, &node), 0);
    cr_assert_eq(node.node, 7);
    cr_assert_eq(node.mem_node, 7);
    cr_assert_eq(node.cores, 16);
    cr_assert_eq(node.memory, 1ull << 30);
    cr_assert_eq(plait_topo_get_node(t, 8, &node), PLAIT_E_NOTFOUND);
    cr_assert_eq(plait_topo_get_cache(t, 0, &cache), 0);
    cr_assert_eq(cache.level, 3);
    cr_assert_eq(cache.count, 16);
    cr_assert_eq(cache.line_bytes, 64);
    cr_assert_eq(plait_topo_get_cache(t, 1, &cache), PLAIT_E_NOTFOUND);
    plait_topo_close(t);
}

Test(public, places)
{
    struct plait_topo *t = open_synthetic("numa:4 core:2 pu:2");
    struct plait_topo_place_opts opts = PLAIT_TOPO_PLACE_OPTS_INIT;
    struct plait_topo_place at[16];

    cr_assert_eq(plait_topo_get_places(t, NULL, NULL, 0), 8);
    cr_assert_eq(plait_topo_get_places(t, NULL, at, 16), 8);
    cr_assert_eq(at[7].core, 7);
    cr_assert_eq(at[7].pu, 14);
    cr_assert_eq(at[7].node, 3);
    cr_assert_eq(at[7].mem_node, 3);
    cr_assert_eq(at[7].oversubscribed, 0);
    opts.use_smt = 1;
    cr_assert_eq(plait_topo_get_places(t, &opts, at, 16), 16);
    opts.contexts = 17;
    cr_assert_eq(plait_topo_get_places(t, &opts, NULL, 0), 17);
    cr_assert_eq(plait_topo_get_places(t, &opts, at, 16), PLAIT_E_INVAL);
    cr_assert(strstr(plait_error_text(), "17 contexts"));
    opts.contexts = 1;
    opts.use_smt = 0;
    opts.local_size = 9;
    opts.local_rank = 8;
    cr_assert_eq(plait_topo_get_places(t, &opts, at, 16), 1);
    cr_assert_eq(at[0].oversubscribed, 1);
    opts.local_rank = 9;
    cr_assert_eq(plait_topo_get_places(t, &opts, at, 16), PLAIT_E_INVAL);
    plait_topo_close(t);
}

/* A program built with another version's header: shorter structs are not overrun, what is left out is the
 * default. */
Test(public, other_sizes)
{
    struct plait_topo *t = open_synthetic("numa:4 core:2 pu:2");
    struct plait_topo_place_opts opts = PLAIT_TOPO_PLACE_OPTS_INIT;
    struct plait_topo_info info;
    struct {
        struct plait_topo_info info;
        int more;
    } longer = { PLAIT_TOPO_INFO_INIT, 42 };

    memset(&info, 0x55, sizeof info);
    info.size = offsetof(struct plait_topo_info, pus);
    cr_assert_eq(plait_topo_get_info(t, &info), 0);
    cr_assert_eq(info.cores, 8);
    cr_assert_eq(info.pus, 0x55555555);
    longer.info.size = sizeof longer;
    cr_assert_eq(plait_topo_get_info(t, &longer.info), 0);
    cr_assert_eq(longer.info.size, sizeof longer);
    cr_assert_eq(longer.more, 42);
    info.size = 0;
    cr_assert_eq(plait_topo_get_info(t, &info), PLAIT_E_INVAL);
    opts.local_size = -5;
    opts.size = offsetof(struct plait_topo_place_opts, local_rank);
    cr_assert_eq(plait_topo_get_places(t, &opts, NULL, 0), 8);
    opts.size = 1;
    cr_assert_eq(plait_topo_get_places(t, &opts, NULL, 0), PLAIT_E_INVAL);
    plait_topo_close(t);
}

Test(public, null_arguments)
{
    struct plait_topo *t = open_synthetic("core:2 pu:1");

    cr_assert_eq(plait_topo_open(NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_info(t, NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_info(NULL, NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_pu(t, 0, NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_node(t, 0, NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_cache(t, 0, NULL), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_places(NULL, NULL, NULL, 0), PLAIT_E_INVAL);
    cr_assert_eq(plait_topo_get_places(t, NULL, NULL, 3), PLAIT_E_INVAL);
    plait_topo_close(t);
}

Test(public, bad_environment)
{
    struct plait_topo *t;

    setenv("HWLOC_XMLFILE", "/nonexistent.xml", 1);
    cr_assert_eq(plait_topo_open(&t), PLAIT_E_TOPOLOGY);
    cr_assert_null(t);
}
