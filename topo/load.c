/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the topology comes from, and what of it this process may use. */
#include "topo/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"
#include "util/log.h"

static const char *env_or_null(const char *name)
{
    const char *v = getenv(name);

    return v && *v ? v : NULL;
}

static int bad_xml(const char *file)
{
    return pli_topo_bad_xml(file, strerror(errno));
}

static int bad_synthetic(const char *text)
{
    return pli_fail(PLAIT_E_TOPOLOGY,
                    "HWLOC_SYNTHETIC=%s: not a valid description (%s); one looks like "
                    "\"numa:2 core:4 pu:2\" and ends with pu:N",
                    text, strerror(errno));
}

static int load_source(struct pli_topo *t, const char *variable, const char *value)
{
    int is_xml = variable && strcmp(variable, "HWLOC_XMLFILE") == 0;
    int n, rc;

    errno = 0;
    if (is_xml) {
        rc = pli_topo_check_xml(value);
        if (rc < 0)
            return rc;
        if (hwloc_topology_set_xml(t->hw, value) < 0)
            return bad_xml(value);
    } else if (variable) {
        if (hwloc_topology_set_synthetic(t->hw, value) < 0)
            return bad_synthetic(value);
    }
    errno = 0;
    if (hwloc_topology_load(t->hw) < 0) {
        if (variable)
            return is_xml ? bad_xml(value) : bad_synthetic(value);
        return pli_fail(PLAIT_E_TOPOLOGY,
                        "hwloc cannot read this machine's topology: %s; see /sys/devices/system "
                        "and the environment variables HWLOC_*",
                        strerror(errno));
    }
    n = variable ? asprintf(&t->source, "%s=%s", variable, value) : asprintf(&t->source, "this machine");
    if (n < 0) {
        t->source = NULL;
        return pli_fail(PLAIT_E_NOMEM, "topology: out of memory");
    }
    return 0;
}

/* What the cgroup leaves is in the topology's allowed set; what a launcher left, in the thread's mask. */
static int load_allowed(struct pli_topo *t)
{
    hwloc_bitmap_t mask;
    char *list = NULL;

    t->machine = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(t->hw));
    t->allowed = hwloc_bitmap_dup(t->machine);
    mask = hwloc_bitmap_alloc();
    if (!t->machine || !t->allowed || !mask)
        goto err_nomem;
    hwloc_bitmap_and(t->machine, t->machine, hwloc_topology_get_topology_cpuset(t->hw));
    hwloc_bitmap_copy(t->allowed, t->machine);
    if (hwloc_topology_is_thissystem(t->hw)) {
        if (hwloc_get_cpubind(t->hw, mask, HWLOC_CPUBIND_THREAD) == 0)
            hwloc_bitmap_and(t->allowed, t->allowed, mask);
        else
            pli_info(
                "topology: the affinity mask cannot be read (%s); taking every CPU of the cgroup for allowed",
                strerror(errno));
    }
    if (hwloc_bitmap_iszero(t->allowed)) {
        hwloc_bitmap_list_asprintf(&list, mask);
        pli_fail(PLAIT_E_TOPOLOGY,
                 "topology (%s): none of the CPUs that this process may run on (%s) is in it", t->source,
                 list && *list ? list : "none");
        free(list);
        hwloc_bitmap_free(mask);
        return PLAIT_E_TOPOLOGY;
    }
    hwloc_bitmap_free(mask);
    return 0;

err_nomem:
    hwloc_bitmap_free(mask);
    return pli_fail(PLAIT_E_NOMEM, "topology: out of memory");
}

int pli_topo_load(struct pli_topo **out)
{
    const char *variable = "HWLOC_SYNTHETIC", *value = env_or_null(variable);
    struct pli_topo *t;
    int rc;

    *out = NULL;
    if (!value) {
        variable = "HWLOC_XMLFILE";
        value = env_or_null(variable);
    }
    if (!value)
        variable = NULL;

    t = calloc(1, sizeof *t);
    if (!t)
        return pli_fail(PLAIT_E_NOMEM, "topology: out of memory");
    if (hwloc_topology_init(&t->hw) < 0) {
        t->hw = NULL;
        rc = pli_fail(PLAIT_E_TOPOLOGY, "hwloc_topology_init failed: %s", strerror(errno));
        goto err;
    }
    /* disallowed PUs stay in, so that `plait info` can show them and a narrowed mask can be told from a
     * cgroup's */
    hwloc_topology_set_flags(t->hw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    rc = load_source(t, variable, value);
    if (rc == 0)
        rc = load_allowed(t);
    if (rc == 0)
        rc = pli_topo_discover(t);
    if (rc == 0)
        rc = pli_topo_count_allowed(t);
    if (rc < 0)
        goto err;
    hwloc_topology_destroy(t->hw); /* megabytes on a large machine, and all that is needed is in the arrays */
    t->hw = NULL;
    *out = t;
    return 0;

err:
    pli_topo_destroy(t);
    return rc;
}

void pli_topo_destroy(struct pli_topo *t)
{
    if (!t)
        return;
    if (t->hw)
        hwloc_topology_destroy(t->hw);
    hwloc_bitmap_free(t->machine);
    hwloc_bitmap_free(t->allowed);
    free(t->pus);
    free(t->cores);
    free(t->nodes);
    free(t->caches);
    free(t->pu_by_os);
    free(t->source);
    free(t->allowed_list);
    free(t);
}

/* hwloc takes "0-3junk" and "-" for lists, so look for ourselves */
static int is_list(const char *s)
{
    return *s >= '0' && *s <= '9' && s[strspn(s, "0123456789,-")] == '\0';
}

int pli_topo_limit(struct pli_topo *t, const char *list)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc(), old = NULL;
    int rc = 0;

    if (!set)
        return pli_fail(PLAIT_E_NOMEM, "topology: out of memory");
    if (!list || !is_list(list) || hwloc_bitmap_list_sscanf(set, list) < 0) {
        rc = pli_fail(PLAIT_E_INVAL, "\"%s\" is not a list of CPUs; one looks like 0-3,8", list ? list : "");
        goto out;
    }
    hwloc_bitmap_and(set, set, t->allowed);
    if (hwloc_bitmap_iszero(set)) {
        rc = pli_fail(PLAIT_E_TOPOLOGY, "none of the CPUs %s is allowed to this process; allowed are %s",
                      list, t->info.allowed_list);
        goto out;
    }
    old = t->allowed;
    t->allowed = set;
    rc = pli_topo_count_allowed(t);
    set = old;
    if (rc < 0) {
        set = t->allowed;
        t->allowed = old;
    }
out:
    hwloc_bitmap_free(set);
    return rc;
}
