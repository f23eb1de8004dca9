/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of regions and pools have in common. */
#ifndef PLI_TEST_MEM_UTIL_H
#define PLI_TEST_MEM_UTIL_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plait/plait.h"
#include "runtime/mem.h"
#include "child.h"
#include "fds.h"
#include "test/unit/catch_log.h"

#define OK(call) cr_assert_eq((call), 0, "%s", plait_error_text())

/* The call fails with this code, and its sentence has this word. */
#define FAILS(call, code, word)                                                                              \
    do {                                                                                                     \
        int fails_rc = (call);                                                                               \
        cr_assert_eq(fails_rc, (code), "%s: %s", plait_status_name(fails_rc), plait_error_text());           \
        cr_assert_not_null(strstr(plait_error_text(), (word)), "no '%s' in: %s", (word),                     \
                           plait_error_text());                                                              \
    } while (0)

static inline struct rlimit set_limit(int what, rlim_t value)
{
    struct rlimit old, rl;

    cr_assert_eq(getrlimit(what, &old), 0);
    rl = old;
    rl.rlim_cur = value;
    cr_assert_eq(setrlimit(what, &rl), 0);
    return old;
}

static inline struct plait_mem_info info_of(const struct plait_mem *m)
{
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;

    OK(plait_mem_get_info(m, &info));
    return info;
}

/* This machine, with a NUMA node 1 that only the topology believes in. Before the first use of the topology.
 */
static inline void pretend_two_nodes(void)
{
    if (access("/sys/devices/system/node/node1", F_OK) == 0)
        cr_skip_test("this machine has a NUMA node 1");
    setenv("HWLOC_THISSYSTEM", "1", 1);
    setenv("HWLOC_SYNTHETIC", "numa:2 core:64 pu:1", 1);
}

/* Is anything mapped there? Asks the kernel instead of touching it. */
static inline int is_mapped(void *addr)
{
    return msync(addr, 1, MS_ASYNC) == 0;
}

#endif
