/* SPDX-License-Identifier: BSD-3-Clause */
/* Where NICs are, read from a folder that looks as /sys does. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "topo/topo.h"

static char root[64];

static void folders(const char *path)
{
    char whole[512];

    snprintf(whole, sizeof whole, "%s/%s/", root, path);
    for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(whole, 0700);
        *p = '/';
    }
}

static void file(const char *dir, const char *name, const char *text)
{
    char whole[512];
    FILE *f;

    folders(dir);
    snprintf(whole, sizeof whole, "%s/%s/%s", root, dir, name);
    f = fopen(whole, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
}

static void link_to(const char *dir, const char *name, const char *target)
{
    char from[512], to[512];

    folders(dir);
    snprintf(from, sizeof from, "%s/%s/%s", root, dir, name);
    snprintf(to, sizeof to, "%s/%s", root, target);
    cr_assert_eq(symlink(to, from), 0);
}

static void make_sysfs(void)
{
    strcpy(root, "/tmp/plait-test-XXXXXX");
    cr_assert(mkdtemp(root));
    file("devices/pci0000:00/0000:3b:00.0", "numa_node", "1\n");
    file("devices/pci0000:00/0000:3b:00.0", "local_cpulist", "8-15,24-31\n");
    folders("devices/pci0000:00/0000:3b:00.0/infiniband/mlx5_0");
    folders("devices/pci0000:00/0000:3b:00.0/net/ib0");
    file("devices/pci0000:00/0000:00:03.0", "numa_node", "-1\n");
    file("devices/pci0000:00/0000:00:03.0", "local_cpulist", "0-1\n");
    folders("devices/pci0000:00/0000:00:03.0/virtio2/net/eth0");
    folders("devices/virtual/net/lo");
    link_to("class/net/ib0", "device", "devices/pci0000:00/0000:3b:00.0");
    link_to("class/infiniband/mlx5_0", "device", "devices/pci0000:00/0000:3b:00.0");
    link_to("class/net/eth0", "device", "devices/pci0000:00/0000:00:03.0/virtio2");
    link_to("class/net", "lo", "devices/virtual/net/lo");
    link_to("bus/pci/devices", "0000:3b:00.0", "devices/pci0000:00/0000:3b:00.0");
    file("class/infiniband/rxe0", "parent", "ib0\n");
    file("class/infiniband/rxe1", "parent", "lo\n");
}

static void remove_sysfs(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", root);
    cr_expect_eq(system(command), 0);
}

TestSuite(nic, .init = make_sysfs, .fini = remove_sysfs);

static void expect(const char *name, int node, const char *cpus)
{
    struct pli_topo_nic nic;

    pli_topo_nic(root, name, &nic);
    cr_expect_eq(nic.node, node, "%s: %d", name, nic.node);
    cr_expect_str_eq(nic.cpus, cpus, "%s: %s", name, nic.cpus);
}

Test(nic, network_devices_rdma_devices_and_pci_functions_have_a_place)
{
    expect("ib0", 1, "8-15,24-31");
    expect("mlx5_0", 1, "8-15,24-31");
    expect("0000:3b:00.0", 1, "8-15,24-31");
}

Test(nic, an_rdma_device_of_software_is_where_its_network_device_is)
{
    expect("rxe0", 1, "8-15,24-31");
    expect("rxe1", -1, "");
}

Test(nic, what_the_kernel_does_not_say_is_not_known)
{
    expect("eth0", -1, "");
    expect("lo", -1, "");
    expect("no_such", -1, "");
    expect("", -1, "");
    expect("..", -1, "");
    expect("../class/net/ib0", -1, "");
}

Test(nic, a_long_list_of_cpus_ends_with_a_whole_entry)
{
    char list[2000] = "";
    struct pli_topo_nic nic;
    size_t len;

    for (int i = 0; i < 400; i += 2)
        sprintf(list + strlen(list), "%s%d", i ? "," : "", i);
    file("devices/pci0000:00/0000:3b:00.0", "local_cpulist", list);
    pli_topo_nic(root, "ib0", &nic);
    len = strlen(nic.cpus);
    cr_assert_gt(len, 240);
    cr_expect_str_eq(nic.cpus + len - 4, ",...");
    nic.cpus[len - 3] = '\0';
    cr_expect_eq(strncmp(list, nic.cpus, len - 3), 0, "%s", nic.cpus);
}

Test(nic, this_machine_has_lo)
{
    struct pli_topo_nic nic;

    pli_topo_nic(NULL, "lo", &nic);
    cr_expect_eq(nic.node, -1);
    cr_expect_str_eq(nic.cpus, "");
}
