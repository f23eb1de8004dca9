/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "test/unit/catch_log.h"
#include "machine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGES 600 /* more than one call of move_pages takes */

static size_t page;

static char *memory(void)
{
    int fd = memfd_create("plait-test", MFD_CLOEXEC);
    char *p;

    page = (size_t)sysconf(_SC_PAGESIZE);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)(PAGES * page)), 0);
    p = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(p, MAP_FAILED);
    close(fd);
    return p;
}

/* Makes the three NUMA calls fail as they do in a container; works without privileges. */
static void refuse_numa_calls(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_move_pages, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_get_mempolicy, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
    };
    struct sock_fprog prog = { .len = sizeof code / sizeof code[0], .filter = code };

    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
        cr_skip_test("no seccomp here");
}

/* This machine, with a NUMA node 1 that only the topology believes in. */
static struct pli_topo *pretend_two_nodes(void)
{
    struct pli_topo *t = load_real();
    int nodes = pli_topo_info(t)->nodes;

    pli_topo_destroy(t);
    if (nodes > 1)
        cr_skip_test("this machine has a NUMA node 1");
    setenv("HWLOC_THISSYSTEM", "1", 1);
    t = load_synthetic("numa:2 core:64 pu:1");
    cr_assert_eq(pli_topo_info(t)->this_system, 1);
    return t;
}

Test(mem, bound_and_verified)
{
    struct pli_topo *t = load_real();
    char *p = memory();

    for (int i = 0; i < pli_topo_info(t)->nodes; i++) {
        const struct pli_topo_node *node = pli_topo_node(t, i);
        struct pli_mem_pages st;

        if (node->mem_node != node->os)
            continue;
        cr_assert_eq(pli_mem_bind(t, p, PAGES * page, node->os), 0, "%s", plait_error_text());
        cr_assert_geq(pli_mem_verify(t, p, PAGES * page, node->os, &st), 0, "%s", plait_error_text());
        memset(p, i, PAGES / 2 * page);
        cr_assert_eq(pli_mem_verify(t, p, PAGES * page, node->os, &st), 0, "%s", plait_error_text());
        cr_assert_eq(st.total, PAGES);
        cr_assert_eq(st.elsewhere, 0);
        cr_assert_eq(st.there, PAGES / 2);
        cr_assert_eq(st.absent, PAGES - PAGES / 2);
        cr_assert_eq(st.other_node, -1);
        /* the last page counts, even if only a byte of it is meant */
        cr_assert_eq(pli_mem_verify(t, p, 10 * page + 1, node->os, &st), 0);
        cr_assert_eq(st.total, 11);
    }
    cr_assert_eq(pli_mem_verify(t, p, PAGES * page, pli_topo_node(t, 0)->mem_node, NULL), 0);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

Test(mem, bad_arguments)
{
    struct pli_topo *t = load_real();
    char *p = memory();

    cr_assert_eq(pli_mem_bind(t, p + 1, page, 0), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_bind(t, p, 0, 0), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_bind(t, NULL, page, 0), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_bind(t, p, SIZE_MAX, 0), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_bind(t, p, page, 999), PLAIT_E_INVAL);
    cr_assert(strstr(plait_error_text(), "node 999"));
    cr_assert_eq(pli_mem_bind(t, p, page, -1), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_verify(t, p + 1, page, 0, NULL), PLAIT_E_INVAL);
    cr_assert_eq(pli_mem_verify(t, p, page, 999, NULL), PLAIT_E_INVAL);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

Test(mem, another_machines_nodes_are_not_bound_to)
{
    struct pli_topo *t = load_synthetic("numa:4 core:2 pu:1");
    char *p = memory();

    cr_assert_eq(pli_mem_bind(t, p, page, 3), PLI_TOPO_NOOP);
    cr_assert_eq(pli_mem_verify(t, p, page, 3, NULL), PLI_TOPO_NOOP);
    cr_assert_eq(pli_mem_bind(t, p, page, 4), PLAIT_E_INVAL);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

Test(mem, a_node_that_the_kernel_refuses_is_warned_of_once)
{
    struct pli_topo *t = pretend_two_nodes();
    char *p = memory();

    catch_log();
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pli_mem_bind(t, p, PAGES * page, 1), PLAIT_E_SYSTEM);
    cr_assert(strstr(plait_error_text(), "NUMA node 1"));
    cr_assert_eq(count_in_log("NUMA node 1"), 1);
    /* and it shows when one looks */
    memset(p, 1, 3 * page);
    for (int i = 0; i < 3; i++) {
        struct pli_mem_pages st;

        cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 1, &st), PLAIT_E_SYSTEM);
        cr_assert_eq(st.elsewhere, 3);
        cr_assert_eq(st.other_node, 0);
    }
    cr_assert_eq(count_in_log("not on node 1"), 1);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

Test(mem, untouched_memory_is_judged_by_its_policy)
{
    struct pli_topo *t = pretend_two_nodes();
    struct pli_mem_pages st;
    char *p = memory();

    catch_log();
    cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 0, &st), PLAIT_E_SYSTEM, "no policy yet");
    cr_assert_eq(st.absent, PAGES);
    cr_assert_eq(pli_mem_bind(t, p, PAGES * page, 0), 0, "%s", plait_error_text());
    cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 0, &st), 0, "%s", plait_error_text());
    cr_assert_eq(st.absent, PAGES, "looking does not touch");
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

static void container(int err)
{
    struct pli_topo *t = pretend_two_nodes();
    char *p = memory();

    catch_log();
    refuse_numa_calls(err);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pli_mem_bind(t, p, PAGES * page, 1), PLAIT_E_UNSUPPORTED);
        cr_assert(strstr(plait_error_text(), "NUMA node 1"));
        cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 1, NULL), PLAIT_E_UNSUPPORTED);
    }
    cr_assert_eq(count_in_log("mbind"), 2, "one line, which has the word twice");
    cr_assert_eq(count_in_log("move_pages"), 1);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

Test(mem, container_without_the_permission)
{
    container(EPERM);
}

Test(mem, kernel_without_numa)
{
    container(ENOSYS);
}

/* With a single node, a refusal changes nothing: no error, no warning. */
Test(mem, container_with_one_node)
{
    struct pli_topo *t = load_real();
    char *p = memory();

    if (pli_topo_info(t)->nodes > 1)
        cr_skip_test("this machine has several nodes");
    catch_log();
    refuse_numa_calls(EPERM);
    cr_assert_eq(pli_mem_bind(t, p, PAGES * page, 0), 0);
    cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 0, NULL), PLI_TOPO_NOOP);
    cr_assert_eq(count_in_log("plait"), 0);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}

/* Memory for a node without memory comes from the nearest one that has some: node 0, which is here too. */
Test(mem, node_without_memory)
{
    struct pli_topo *t;
    struct pli_mem_pages st;
    char *p;

    setenv("HWLOC_THISSYSTEM", "1", 1);
    t = load_xml("asym.xml");
    p = memory();
    cr_assert_eq(pli_mem_bind(t, p, PAGES * page, 1), 0, "%s", plait_error_text());
    memset(p, 1, PAGES * page);
    cr_assert_eq(pli_mem_verify(t, p, PAGES * page, 1, &st), 0, "%s", plait_error_text());
    cr_assert_eq(st.there, PAGES);
    munmap(p, PAGES * page);
    pli_topo_destroy(t);
}
