/* SPDX-License-Identifier: BSD-3-Clause */
/* The public face of topo: struct plait_topo is a pli_topo that the user owns. */
#include "plait/topo.h"

#include <stdlib.h>
#include <string.h>

#include "topo/topo.h"
#include "util/err.h"

static struct plait_topo *to_public(struct pli_topo *t)
{
    return (struct plait_topo *)t;
}

static const struct pli_topo *to_internal(const struct plait_topo *t)
{
    return (const struct pli_topo *)t;
}

int plait_topo_open(struct plait_topo **topo)
{
    struct pli_topo *t;
    int rc;

    if (!topo)
        return pli_fail(PLAIT_E_INVAL, "plait_topo_open: topo is NULL");
    rc = pli_topo_load(&t);
    *topo = to_public(t);
    return rc;
}

void plait_topo_close(struct plait_topo *topo)
{
    pli_topo_destroy((struct pli_topo *)topo);
}

/* A struct that the user's older header made may be shorter than ours; a longer one keeps what we do not
 * know. */
static int give(const char *function, const void *ours, size_t ours_size, void *theirs)
{
    size_t size;

    memcpy(&size, theirs, sizeof size);
    if (size < sizeof size)
        return pli_fail(PLAIT_E_INVAL, "%s: size is %zu; start from the initialiser in plait/topo.h",
                        function, size);
    memcpy((char *)theirs + sizeof size, (const char *)ours + sizeof size,
           (size < ours_size ? size : ours_size) - sizeof size);
    return 0;
}

static int null_argument(const char *function)
{
    return pli_fail(PLAIT_E_INVAL, "%s: an argument is NULL", function);
}

static int no_such(const char *function, const char *what, int i, int count)
{
    return pli_fail(PLAIT_E_NOTFOUND, "%s: there is no %s %d: the topology has %d", function, what, i, count);
}

int plait_topo_get_info(const struct plait_topo *topo, struct plait_topo_info *info)
{
    const struct pli_topo *t = to_internal(topo);
    const struct pli_topo_info *have;
    struct plait_topo_info i = PLAIT_TOPO_INFO_INIT;
    int n;

    if (!topo || !info)
        return null_argument(__func__);
    have = pli_topo_info(t);
    i.packages = have->packages;
    i.cores = have->cores;
    i.cores_allowed = have->cores_allowed;
    i.pus = have->pus;
    i.pus_allowed = have->pus_allowed;
    i.pus_offline = have->pus_offline;
    i.nodes = have->nodes;
    i.caches = have->caches;
    i.this_system = have->this_system;
    i.bound = have->bound;
    for (n = 0; n < have->nodes; n++)
        i.memory += pli_topo_node(t, n)->memory;
    i.source = have->source;
    i.allowed_list = have->allowed_list;
    return give(__func__, &i, sizeof i, info);
}

int plait_topo_get_pu(const struct plait_topo *topo, int i, struct plait_topo_pu *pu)
{
    const struct pli_topo *t = to_internal(topo);
    struct plait_topo_pu p = PLAIT_TOPO_PU_INIT;
    const struct pli_topo_core *core;
    const struct pli_topo_pu *have;

    if (!topo || !pu)
        return null_argument(__func__);
    have = pli_topo_pu(t, i);
    if (!have)
        return no_such(__func__, "PU", i, pli_topo_info(t)->pus);
    core = pli_topo_core(t, have->core);
    p.pu = have->os;
    p.core = have->core;
    p.thread = have->thread;
    p.package = core->package;
    p.node = core->node;
    p.llc = core->llc;
    p.allowed = have->allowed;
    return give(__func__, &p, sizeof p, pu);
}

int plait_topo_get_node(const struct plait_topo *topo, int i, struct plait_topo_node *node)
{
    const struct pli_topo *t = to_internal(topo);
    struct plait_topo_node n = PLAIT_TOPO_NODE_INIT;
    const struct pli_topo_node *have;

    if (!topo || !node)
        return null_argument(__func__);
    have = pli_topo_node(t, i);
    if (!have)
        return no_such(__func__, "NUMA node", i, pli_topo_info(t)->nodes);
    n.node = have->os;
    n.package = have->package;
    n.cores = have->cores;
    n.cores_allowed = have->cores_allowed;
    n.allowed = have->allowed;
    n.mem_node = have->mem_node;
    n.memory = have->memory;
    return give(__func__, &n, sizeof n, node);
}

int plait_topo_get_cache(const struct plait_topo *topo, int i, struct plait_topo_cache *cache)
{
    const struct pli_topo *t = to_internal(topo);
    struct plait_topo_cache c = PLAIT_TOPO_CACHE_INIT;
    const struct pli_topo_cache *have;

    if (!topo || !cache)
        return null_argument(__func__);
    have = pli_topo_cache(t, i);
    if (!have)
        return no_such(__func__, "kind of caches", i, pli_topo_info(t)->caches);
    c.level = have->level;
    c.kind = have->kind;
    c.count = have->count;
    c.pus = have->pus;
    c.line_bytes = have->line;
    c.bytes = have->size;
    return give(__func__, &c, sizeof c, cache);
}

/* What opts leaves out (an older header's shorter struct) keeps its default. */
static int read_opts(const struct plait_topo_place_opts *opts, struct pli_place_opts *to)
{
    struct plait_topo_place_opts o = PLAIT_TOPO_PLACE_OPTS_INIT;
    const struct pli_place_opts defaults = PLI_PLACE_OPTS_INIT;

    if (opts) {
        if (opts->size < sizeof opts->size)
            return pli_fail(PLAIT_E_INVAL,
                            "plait_topo_get_places: opts.size is %zu; start from PLAIT_TOPO_PLACE_OPTS_INIT",
                            opts->size);
        memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    }
    *to = defaults;
    to->contexts = o.contexts;
    to->use_smt = o.use_smt;
    to->local_rank = o.local_rank;
    to->local_size = o.local_size;
    to->near_pu = o.near_pu;
    to->near_node = o.near_node;
    return 0;
}

int plait_topo_get_places(const struct plait_topo *topo, const struct plait_topo_place_opts *opts,
                          struct plait_topo_place *out, int cap)
{
    struct pli_place_opts o;
    struct pli_place *places;
    int i, n, rc;

    if (!topo || (!out && cap > 0))
        return null_argument(__func__);
    rc = read_opts(opts, &o);
    if (rc == 0)
        rc = pli_topo_place(to_internal(topo), &o, NULL, 0);
    if (rc < 0 || !out)
        return rc;
    n = rc;
    if (cap < n)
        return pli_fail(PLAIT_E_INVAL, "plait_topo_get_places: %d contexts, but room for %d only", n, cap);
    places = calloc((size_t)n, sizeof *places);
    if (!places)
        return pli_fail(PLAIT_E_NOMEM, "plait_topo_get_places: out of memory for %d contexts", n);
    rc = pli_topo_place(to_internal(topo), &o, places, n);
    for (i = 0; i < rc; i++) {
        out[i].pu = places[i].pu;
        out[i].core = places[i].core;
        out[i].node = places[i].node;
        out[i].mem_node = places[i].mem_node;
        out[i].oversubscribed = places[i].oversubscribed;
    }
    free(places);
    return rc;
}
