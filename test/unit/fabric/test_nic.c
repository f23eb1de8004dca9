/* SPDX-License-Identifier: BSD-3-Clause */
/* Which NIC is taken: on machines that are made up, and here. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include "fabric/ofi.h"
#include "plait/plait.h"

TestSuite(ofi_nic, .timeout = 30);

enum { MAX = 8 };

static struct machine {
    struct fi_info info[MAX];
    struct fi_domain_attr domain[MAX];
    struct sockaddr_in addr[MAX];
    char name[MAX][16];
    int node[MAX];
    unsigned n;
} m;

static int node_of(const struct fi_info *info)
{
    return m.node[info - m.info];
}

static struct sockaddr_in ip(const char *text)
{
    struct sockaddr_in a = { .sin_family = AF_INET };

    cr_assert_eq(inet_pton(AF_INET, text, &a.sin_addr), 1);
    return a;
}

/* address NULL: not one of IP. */
static void add(const char *name, int node, const char *address)
{
    unsigned i = m.n++;

    snprintf(m.name[i], sizeof m.name[i], "%s", name);
    m.node[i] = node;
    m.domain[i].name = m.name[i];
    m.info[i] = (struct fi_info){ .domain_attr = &m.domain[i], .addr_format = address ? FI_SOCKADDR_IN : FI_ADDR_EFA };
    if (address) {
        m.addr[i] = ip(address);
        m.info[i].src_addr = &m.addr[i];
        m.info[i].src_addrlen = sizeof m.addr[i];
    }
    if (i)
        m.info[i - 1].next = &m.info[i];
}

static const char *picked(const char *local, const char *mask, int node, const char *nic)
{
    struct sockaddr_in l = ip(local ? local : "0.0.0.0"), k = ip(mask ? mask : "0.0.0.0");
    struct pli_ofi_want w = { .nic = nic, .local = local ? (const struct sockaddr *)(const void *)&l : NULL,
                              .mask = mask ? (const struct sockaddr *)(const void *)&k : NULL, .node = node, .node_of = node_of };
    const struct fi_info *i = pli_ofi_pick(m.info, &w);

    return i ? i->domain_attr->name : "none";
}

/* Two NICs in one network, each at its own NUMA node, a third one in another. */
static void two_rails(void)
{
    memset(&m, 0, sizeof m);
    add("mlx5_0", 0, "10.0.0.1");
    add("mlx5_1", 1, "10.0.0.2");
    add("mlx5_2", 1, "10.9.0.2");
}

Test(ofi_nic, the_near_one_in_the_network)
{
    two_rails();
    cr_expect_str_eq(picked("10.0.0.1", "255.255.255.0", 0, NULL), "mlx5_0");
    cr_expect_str_eq(picked("10.0.0.1", "255.255.255.0", 1, NULL), "mlx5_1");
    cr_expect_str_eq(picked("10.0.0.2", "255.255.255.0", 0, NULL), "mlx5_0");
    /* who is not known to be in the network is not known to be reached */
    cr_expect_str_eq(picked("10.0.0.1", NULL, 1, NULL), "mlx5_0");
    cr_expect_str_eq(picked("10.0.0.1", "255.255.255.255", 1, NULL), "mlx5_0");
    cr_expect_str_eq(picked("10.9.0.2", "255.255.255.0", 0, NULL), "mlx5_2");
    /* an unknown node, or a third one: that of the address */
    cr_expect_str_eq(picked("10.0.0.2", "255.255.255.0", -1, NULL), "mlx5_1");
    cr_expect_str_eq(picked("10.0.0.2", "255.255.255.0", 3, NULL), "mlx5_1");
}

Test(ofi_nic, without_an_address)
{
    two_rails();
    cr_expect_str_eq(picked(NULL, NULL, -1, NULL), "mlx5_0");
    cr_expect_str_eq(picked(NULL, NULL, 1, NULL), "mlx5_1");
    /* the control channel runs over a network that has none of them */
    cr_expect_str_eq(picked("192.168.0.5", "255.255.0.0", 1, NULL), "mlx5_1");
    cr_expect_str_eq(picked("192.168.0.5", "255.255.0.0", -1, NULL), "mlx5_0");
}

/* One whose place is not known goes before one that is known to be far. */
Test(ofi_nic, unknown_places)
{
    memset(&m, 0, sizeof m);
    add("far", 1, "10.0.0.1");
    add("somewhere", -1, "10.0.0.2");
    cr_expect_str_eq(picked("10.0.0.1", "255.0.0.0", 0, NULL), "somewhere");
    cr_expect_str_eq(picked("10.0.0.1", "255.0.0.0", 1, NULL), "far");
}

Test(ofi_nic, other_addresses)
{
    memset(&m, 0, sizeof m);
    add("rdmap0", 0, NULL);
    add("rdmap1", 1, NULL);
    cr_expect_str_eq(picked("10.0.0.1", "255.0.0.0", 1, NULL), "rdmap1");
    cr_expect_str_eq(picked(NULL, NULL, 0, NULL), "rdmap0");
    add("eth0", -1, "10.0.0.3");
    cr_expect_str_eq(picked(NULL, NULL, -1, NULL), "eth0");
}

Test(ofi_nic, the_one_that_is_wanted)
{
    char names[64], little[8];

    two_rails();
    add("mlx5_2", 1, "10.9.0.3"); /* a second address */
    cr_expect_str_eq(picked("10.0.0.1", "255.255.255.0", 0, "mlx5_2"), "mlx5_2");
    cr_expect_str_eq(picked("10.0.0.1", "255.255.255.0", 0, "mlx5"), "none");
    pli_ofi_nic_names(m.info, names, sizeof names);
    cr_expect_str_eq(names, "mlx5_0, mlx5_1, mlx5_2");
    pli_ofi_nic_names(m.info, little, sizeof little);
    cr_expect_lt(strlen(little), sizeof little);
}

Test(ofi_nic, of_the_environment)
{
    struct fi_info *info;

    setenv("PLAIT_PROVIDER", "tcp", 1);
    setenv("PLAIT_NIC", "lo", 1);
    cr_assert_eq(pli_ofi_find_local(NULL, -1, NULL, &info), 0, "%s", plait_error_text());
    cr_expect_str_eq(info->domain_attr->name, "lo");
    pli_fi_lib()->freeinfo(info);
    setenv("PLAIT_NIC", "mlx9_9", 1);
    cr_assert_lt(pli_ofi_find_local(NULL, -1, NULL, &info), 0);
    cr_expect(strstr(plait_error_text(), "mlx9_9") && strstr(plait_error_text(), "lo"), "%s", plait_error_text());
    unsetenv("PLAIT_PROVIDER");
    cr_assert_eq(pli_ofi_find_local(NULL, -1, NULL, &info), PLAIT_E_UNSUPPORTED);
    cr_expect(strstr(plait_error_text(), "mlx9_9"), "%s", plait_error_text());
}

Test(ofi_nic, netmask)
{
    struct sockaddr_in lo = ip("127.0.0.1"), nobody = ip("192.0.2.77");
    struct sockaddr_storage mask;

    cr_assert(pli_ofi_netmask((const struct sockaddr *)(const void *)&lo, &mask));
    cr_expect_eq(((const struct sockaddr_in *)(const void *)&mask)->sin_addr.s_addr, htonl(0xff000000));
    cr_expect(!pli_ofi_netmask((const struct sockaddr *)(const void *)&nobody, &mask));
}
