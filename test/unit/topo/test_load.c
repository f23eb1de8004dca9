/* SPDX-License-Identifier: BSD-3-Clause */
#include "machine.h"

#include <string.h>
#include <unistd.h>

/* The load fails with PLAIT_E_TOPOLOGY, and the text has all of these words. */
static void must_fail(const char *variable, const char *value, const char *word)
{
    struct pli_topo *t = (struct pli_topo *)1;

    unsetenv("HWLOC_XMLFILE");
    unsetenv("HWLOC_SYNTHETIC");
    setenv(variable, value, 1);
    cr_assert_eq(pli_topo_load(&t), PLAIT_E_TOPOLOGY, "%s=%s", variable, value);
    cr_assert_null(t);
    cr_assert(strstr(plait_error_text(), variable), "no variable: %s", plait_error_text());
    cr_assert(strstr(plait_error_text(), value), "no value: %s", plait_error_text());
    cr_assert(strstr(plait_error_text(), word), "no '%s': %s", word, plait_error_text());
}

static void must_fail_text(const char *xml, size_t len, const char *word)
{
    char path[] = "/tmp/plait-test-XXXXXX";
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, xml, len), (ssize_t)len);
    close(fd);
    must_fail("HWLOC_XMLFILE", path, word);
    unlink(path);
}

Test(load, xml_that_does_not_exist)
{
    must_fail("HWLOC_XMLFILE", "/nonexistent/machine.xml", "No such file or directory");
}

Test(load, xml_that_is_a_directory)
{
    must_fail("HWLOC_XMLFILE", "/tmp", "not a regular file");
}

Test(load, xml_that_is_no_topology)
{
    static const char bad_object[] = "<?xml version=\"1.0\"?>\n<topology version=\"2.0\">\n"
                                     "<object type=\"Machine\" os_index=\"0\" cpuset=\"0x1\" nodeset=\"0x1\" "
                                     "complete_nodeset=\"0x1\" gp_index=\"1\"/>\n</topology>\n";

    must_fail_text("", 0, "empty");
    must_fail_text("<foo/>\n", 7, "not a complete hwloc topology");
    must_fail_text("hello\n", 6, "not a complete hwloc topology");
    must_fail_text("\0\0\0\0", 4, "not a complete hwloc topology");
    must_fail_text(bad_object, sizeof bad_object - 1, "no complete_cpuset");
}

Test(load, xml_that_is_cut_off)
{
    static char text[200000];
    FILE *f = fopen(data_file("onecore.xml"), "r");
    size_t len, cut;

    cr_assert_not_null(f, "%s", data_file("onecore.xml"));
    len = fread(text, 1, sizeof text, f);
    fclose(f);
    cr_assert_gt(len, 1000);
    for (cut = 40; cut < len - 12; cut += len / 37)
        must_fail_text(text, cut, "lstopo");
}

Test(load, synthetic_that_is_malformed)
{
    must_fail("HWLOC_SYNTHETIC", "foo", "not a valid description");
    must_fail("HWLOC_SYNTHETIC", "numa:4 core:2", "pu:N");
    must_fail("HWLOC_SYNTHETIC", "numa:4 core:0 pu:1", "not a valid description");
}

Test(load, empty_variables_are_no_variables)
{
    struct pli_topo *t;

    setenv("HWLOC_XMLFILE", "", 1);
    setenv("HWLOC_SYNTHETIC", "", 1);
    cr_assert_eq(pli_topo_load(&t), 0);
    cr_assert_eq(pli_topo_info(t)->this_system, 1);
    pli_topo_destroy(t);
}

Test(load, this_machine)
{
    struct pli_topo *t = load_real();
    const struct pli_topo_info *info = pli_topo_info(t);

    cr_assert_eq(info->this_system, 1);
    cr_assert_str_eq(info->source, "this machine");
    cr_assert_geq(info->pus, (int)sysconf(_SC_NPROCESSORS_ONLN));
    cr_assert_geq(info->cores, 1);
    cr_assert_geq(info->cores_allowed, 1);
    cr_assert_leq(info->cores_allowed, info->cores);
    cr_assert_geq(info->nodes, 1);
    cr_assert_gt(pli_topo_node(t, 0)->memory, 0);
    cr_assert_null(pli_topo_pu(t, info->pus));
    cr_assert_null(pli_topo_pu(t, -1));
    cr_assert_null(pli_topo_core(t, info->cores));
    cr_assert_null(pli_topo_node(t, info->nodes));
    cr_assert_null(pli_topo_cache(t, info->caches));
    pli_topo_destroy(t);
}

Test(load, four_nodes)
{
    struct pli_topo *t = load_synthetic("numa:4 core:2 pu:1");
    const struct pli_topo_info *info = pli_topo_info(t);
    int i;

    cr_assert_eq(info->this_system, 0);
    cr_assert_str_eq(info->source, "HWLOC_SYNTHETIC=numa:4 core:2 pu:1");
    cr_assert_eq(info->cores, 8);
    cr_assert_eq(info->cores_allowed, 8);
    cr_assert_eq(info->pus, 8);
    cr_assert_eq(info->nodes, 4);
    cr_assert_eq(info->bound, 0);
    cr_assert_str_eq(info->allowed_list, "0-7");
    for (i = 0; i < 8; i++)
        cr_assert_eq(pli_topo_node_of_pu(t, i), i / 2);
    cr_assert_eq(pli_topo_node_of_pu(t, 8), -1);
    cr_assert_eq(pli_topo_node_of_pu(t, -1), -1);
    cr_assert_eq(pli_topo_mem_node(t, 3), 3);
    cr_assert_eq(pli_topo_mem_node(t, 4), -1);
    pli_topo_destroy(t);
}

Test(load, two_sockets)
{
    struct pli_topo *t = load_synthetic(BIG);
    const struct pli_topo_info *info = pli_topo_info(t);
    int i;

    cr_assert_eq(info->packages, 2);
    cr_assert_eq(info->cores, 128);
    cr_assert_eq(info->pus, 256);
    cr_assert_eq(info->nodes, 8);
    for (i = 0; i < 256; i++) {
        const struct pli_topo_pu *pu = pli_topo_find_pu(t, i);

        cr_assert_not_null(pu);
        cr_assert_eq(pu->core, i % 128);
        cr_assert_eq(pu->thread, i / 128);
        cr_assert_eq(pli_topo_core(t, pu->core)->node, i % 128 / 16);
        cr_assert_eq(pli_topo_core(t, pu->core)->llc, i % 128 / 8);
        cr_assert_eq(pli_topo_core(t, pu->core)->package, i % 128 / 64);
    }
    for (i = 0; i < 8; i++)
        cr_assert_eq(pli_topo_node(t, i)->cores, 16);
    cr_assert_eq(info->caches, 1);
    cr_assert_eq(pli_topo_cache(t, 0)->level, 3);
    cr_assert_eq(pli_topo_cache(t, 0)->kind, 'u');
    cr_assert_eq(pli_topo_cache(t, 0)->count, 16);
    cr_assert_eq(pli_topo_cache(t, 0)->pus, 16);
    pli_topo_destroy(t);
}

Test(load, offline_and_disallowed)
{
    struct pli_topo *t = load_xml("offline.xml");
    const struct pli_topo_info *info = pli_topo_info(t);

    cr_assert_eq(info->pus, 247);
    cr_assert_eq(info->pus_offline, 9);
    cr_assert_eq(info->cores, 124);
    cr_assert_eq(info->cores_allowed, 124 - 16 - 1);
    cr_assert_eq(info->pus_allowed, 247 - 32 - 2);
    cr_assert_eq(info->bound, 0, "a cgroup is not a launcher's binding");
    cr_assert_null(pli_topo_find_pu(t, 5));
    cr_assert_null(pli_topo_find_pu(t, 168));
    cr_assert_eq(pli_topo_find_pu(t, 40)->allowed, 1);
    cr_assert_eq(pli_topo_find_pu(t, 0)->allowed, 0);
    cr_assert_eq(pli_topo_find_pu(t, 112)->allowed, 0);
    cr_assert_eq(info->nodes, 8);
    cr_assert_eq(info->nodes_allowed, 7);
    cr_assert_eq(pli_topo_mem_node(t, 7), 4, "node 7 is not allowed: node 4 is in the same package");
    pli_topo_destroy(t);
}

Test(load, asymmetric_nodes)
{
    struct pli_topo *t = load_xml("asym.xml");

    cr_assert_eq(pli_topo_info(t)->nodes, 4);
    cr_assert_eq(pli_topo_find_node(t, 0)->cores, 6);
    cr_assert_eq(pli_topo_find_node(t, 1)->cores, 2);
    cr_assert_eq(pli_topo_find_node(t, 1)->memory, 0);
    cr_assert_eq(pli_topo_find_node(t, 2)->cores, 4);
    cr_assert_eq(pli_topo_find_node(t, 3)->cores, 0, "ordinary memory comes before expansion memory");
    cr_assert_eq(pli_topo_mem_node(t, 0), 0);
    cr_assert_eq(pli_topo_mem_node(t, 1), 0, "the nearest by distance, not by package");
    cr_assert_eq(pli_topo_mem_node(t, 3), 3);
    pli_topo_destroy(t);
}

Test(load, no_cores_means_every_pu_is_one)
{
    struct pli_topo *t = load_synthetic("pu:3");

    cr_assert_eq(pli_topo_info(t)->cores, 3);
    cr_assert_eq(pli_topo_info(t)->nodes, 1);
    pli_topo_destroy(t);
}

Test(load, limit)
{
    struct pli_topo *t = load_synthetic(BIG), *same = load_synthetic(BIG);
    uint64_t all = pli_topo_mask_id(t);

    cr_assert_eq(all, pli_topo_mask_id(same));
    cr_assert_neq(all, 0);
    cr_assert_eq(pli_topo_limit(t, "16-31,999"), 0);
    cr_assert_eq(pli_topo_info(t)->cores_allowed, 16);
    cr_assert_eq(pli_topo_info(t)->cores_machine, 128);
    cr_assert_eq(pli_topo_info(t)->bound, 1);
    cr_assert_str_eq(pli_topo_info(t)->allowed_list, "16-31");
    cr_assert_neq(all, pli_topo_mask_id(t));
    cr_assert_eq(pli_topo_limit(t, "0-3"), PLAIT_E_TOPOLOGY, "never widened");
    cr_assert(strstr(plait_error_text(), "16-31"));
    cr_assert_eq(pli_topo_limit(t, "0-17"), 0);
    cr_assert_str_eq(pli_topo_info(t)->allowed_list, "16-17");
    cr_assert_eq(pli_topo_limit(t, ""), PLAIT_E_INVAL);
    cr_assert_eq(pli_topo_limit(t, "a"), PLAIT_E_INVAL);
    cr_assert_eq(pli_topo_limit(t, "-"), PLAIT_E_INVAL);
    cr_assert_eq(pli_topo_limit(t, "1,x"), PLAIT_E_INVAL);
    cr_assert_eq(pli_topo_limit(t, NULL), PLAIT_E_INVAL);
    cr_assert_str_eq(pli_topo_info(t)->allowed_list, "16-17");
    pli_topo_destroy(t);
    pli_topo_destroy(same);
}
