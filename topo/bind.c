/* SPDX-License-Identifier: BSD-3-Clause */
/* Pinning of threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "topo/topo.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "util/err.h"

#define WORD_BITS (8 * sizeof(unsigned long))

/* glibc's cpu_set_t is an array of unsigned long too, but has room for 1024 CPUs only */
static cpu_set_t *as_cpu_set(unsigned long *mask)
{
    return (cpu_set_t *)mask;
}

static int save_mask(struct pli_pin *saved)
{
    memset(saved, 0, sizeof *saved);
    if (sched_getaffinity(0, sizeof saved->mask, as_cpu_set(saved->mask)) < 0)
        return pli_fail_errno("cannot read the thread's affinity mask");
    saved->valid = 1;
    return 0;
}

int pli_topo_pin(const struct pli_topo *t, int pu, struct pli_pin *saved)
{
    const struct pli_topo_info *info = pli_topo_info(t);
    const struct pli_topo_pu *p = pli_topo_find_pu(t, pu);
    struct pli_pin want = { 0 };
    int rc;

    if (saved)
        saved->valid = 0;
    if (!p)
        return pli_fail(PLAIT_E_TOPOLOGY, "cannot pin to CPU %d: there is no such CPU (allowed are %s)", pu,
                        info->allowed_list);
    if (!p->allowed)
        return pli_fail(PLAIT_E_TOPOLOGY,
                        "cannot pin to CPU %d: this process may only use %s (its affinity mask and "
                        "cgroup; a launcher's binding is never widened)",
                        pu, info->allowed_list);
    if (!info->this_system)
        return PLI_TOPO_NOOP;
    if ((size_t)pu >= sizeof want.mask * 8)
        return pli_fail(PLAIT_E_TOPOLOGY, "cannot pin to CPU %d: plait knows CPUs up to %zu", pu,
                        sizeof want.mask * 8 - 1);
    if (saved) {
        rc = save_mask(saved);
        if (rc < 0)
            return rc;
    }
    want.mask[(size_t)pu / WORD_BITS] = 1ul << ((size_t)pu % WORD_BITS);
    if (sched_setaffinity(0, sizeof want.mask, as_cpu_set(want.mask)) < 0) {
        rc = pli_fail_errno("cannot pin to CPU %d (taken offline, or out of the cgroup's cpuset?)", pu);
        if (saved)
            saved->valid = 0;
        return rc;
    }
    return 0;
}

int pli_topo_unpin(struct pli_pin *saved)
{
    if (!saved->valid)
        return PLI_TOPO_NOOP;
    if (sched_setaffinity(0, sizeof saved->mask, as_cpu_set(saved->mask)) < 0)
        return pli_fail_errno("cannot give the thread its earlier affinity mask again");
    saved->valid = 0;
    return 0;
}

int pli_topo_current_pu(void)
{
    int cpu = sched_getcpu();

    return cpu >= 0 ? cpu : pli_fail_errno("sched_getcpu");
}
