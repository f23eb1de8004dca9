/* SPDX-License-Identifier: BSD-3-Clause */
/* Placement: topology and constraints in, a core and a node for each context out. No system calls, no state:
 * every rank of a job computes what all ranks before it get, and so finds its own part without asking. */
#include "topo/internal.h"

#include <stdlib.h>

#include "util/err.h"

#define RANKS_MAX (1 << 20)

/* The allowed cores in the order of preference, and those taken already. */
struct pool {
    const struct pli_topo *t;
    int *core; /* index of the core */
    unsigned char *used;
    int n;
    int *group; /* room for n cores: our rank's, */
    int *spare; /* and another rank's */
};

/* Who this rank shares its mask with. */
struct share {
    int rank, size;
    int contexts;       /* as asked for, or 0 */
    int oversubscribed; /* known already */
};

enum scope { SAME_LLC, SAME_NODE, SAME_PACKAGE, ANYWHERE };

static int near(const struct pli_topo_core *a, const struct pli_topo_core *b, enum scope scope)
{
    switch (scope) {
    case SAME_LLC:
        return a->node == b->node && a->llc == b->llc && a->llc >= 0;
    case SAME_NODE:
        return a->node == b->node;
    case SAME_PACKAGE:
        return a->package == b->package;
    default:
        return 1;
    }
}

/* How far a core is from the wish in opts; 0 is nearest. */
static int far_from_wish(const struct pli_topo *t, const struct pli_place_opts *opts, int core)
{
    const struct pli_topo_pu *pu = pli_topo_find_pu(t, opts->near_pu);
    const struct pli_topo_node *node = pli_topo_find_node(t, opts->near_node);
    const struct pli_topo_core *c = &t->cores[core];
    int scope;

    if (pu) {
        if (pu->core == core)
            return 0;
        for (scope = SAME_LLC; scope < ANYWHERE; scope++)
            if (near(c, &t->cores[pu->core], (enum scope)scope))
                break;
        return 1 + scope;
    }
    if (node)
        return c->node == node->os ? 0 : c->package == node->package ? 1 : 2;
    return 0;
}

static int pool_alloc(struct pool *p)
{
    size_t n = (size_t)p->t->info.cores_allowed;

    p->core = calloc(n, sizeof *p->core);
    p->group = calloc(n, sizeof *p->group);
    p->spare = calloc(n, sizeof *p->spare);
    p->used = calloc(n, 1);
    return p->core && p->group && p->spare && p->used ? 0 : -1;
}

static void pool_free(struct pool *p)
{
    free(p->core);
    free(p->group);
    free(p->spare);
    free(p->used);
}

static void pool_fill(struct pool *p, const struct pli_place_opts *opts, int alone)
{
    const struct pli_topo *t = p->t;
    int far, i;

    for (far = 0; far <= 1 + (int)ANYWHERE; far++)
        for (i = 0; i < t->info.cores; i++)
            if (t->cores[i].pus_allowed > 0 && (alone ? far_from_wish(t, opts, i) : 0) == far)
                p->core[p->n++] = i;
}

static const struct pli_topo_core *pool_core(const struct pool *p, int i)
{
    return &p->t->cores[p->core[i]];
}

static int count_free(const struct pool *p, int like, enum scope scope)
{
    int i, n = 0;

    for (i = 0; i < p->n; i++)
        n += !p->used[i] && near(pool_core(p, i), pool_core(p, like), scope);
    return n;
}

/* the first free core that has want free ones around it; if node >= 0, only on the node of that one */
static int find_group(const struct pool *p, enum scope scope, int want, int node)
{
    int i;

    for (i = 0; i < p->n; i++)
        if (!p->used[i] && (node < 0 || near(pool_core(p, i), pool_core(p, node), SAME_NODE)) &&
            count_free(p, i, scope) >= want)
            return i;
    return -1;
}

/* Takes want cores: on one node and one cache if they fit, else in one package, else the first ones free. */
static void take(struct pool *p, int want, int *taken)
{
    enum scope scope = SAME_NODE;
    int like = find_group(p, SAME_NODE, want, -1);
    int i, n;

    if (like >= 0) {
        i = find_group(p, SAME_LLC, want, like);
        if (i >= 0) {
            scope = SAME_LLC;
            like = i;
        }
    } else {
        scope = SAME_PACKAGE;
        like = find_group(p, SAME_PACKAGE, want, -1);
        if (like < 0) {
            scope = ANYWHERE;
            like = 0;
        }
    }
    for (i = 0, n = 0; i < p->n && n < want; i++) {
        if (p->used[i] || !near(pool_core(p, i), pool_core(p, like), scope))
            continue;
        p->used[i] = 1;
        taken[n++] = p->core[i];
    }
}

static int allowed_pu(const struct pli_topo *t, int core, int nth)
{
    const struct pli_topo_core *c = &t->cores[core];
    int i;

    for (i = c->first_pu; i < c->first_pu + c->pus; i++)
        if (t->pus[i].allowed && nth-- == 0)
            return i;
    return -1;
}

/* The PUs of some cores: the first of every core, then, with smt, the second of every core, and so on. */
static int list_pus(const struct pli_topo *t, const int *cores, int n, int smt, int *pus)
{
    int nth, i, len = 0, before;

    for (nth = 0; nth == 0 || smt; nth++) {
        before = len;
        for (i = 0; i < n; i++) {
            int pu = allowed_pu(t, cores[i], nth);

            if (pu >= 0)
                pus[len++] = pu;
        }
        if (len == before)
            break;
    }
    return len;
}

static int check_opts(const struct pli_place_opts *o)
{
    if (o->contexts < 0 || o->contexts > PLI_PLACE_MAX)
        return pli_fail(PLAIT_E_INVAL, "placement of %d contexts: the limit is %d", o->contexts,
                        PLI_PLACE_MAX);
    if (o->local_size < 0 || o->local_size > RANKS_MAX || o->local_rank < 0 ||
        o->local_rank >= (o->local_size ? o->local_size : 1))
        return pli_fail(PLAIT_E_INVAL, "placement: local rank %d of %d is not possible (at most %d)",
                        o->local_rank, o->local_size, RANKS_MAX);
    if (o->share_size < 0 || o->share_size > RANKS_MAX || o->share_rank < 0 ||
        o->share_rank >= (o->share_size ? o->share_size : 1))
        return pli_fail(PLAIT_E_INVAL, "placement: rank %d of %d in one affinity mask is not possible",
                        o->share_rank, o->share_size);
    return 0;
}

/* A launcher narrowed the mask, and nobody told who else has it. If all ranks fit in it side by side, take a
 * place of our own in it. If not, it is most likely ours alone; if even all masks together are larger than
 * the machine, some overlap, and spinning would hurt. */
static void guess_share(const struct pli_topo_info *info, const struct pli_place_opts *o, struct share *s)
{
    long long ranks = o->local_size;

    if (!s->contexts) {
        long long fair = info->cores_machine / ranks;

        s->contexts = (int)(fair < 1 ? 1 : fair < info->cores_allowed ? fair : info->cores_allowed);
        if (o->use_smt && s->contexts == info->cores_allowed)
            s->contexts = 0; /* one per PU: counted later */
    }
    if (s->contexts && ranks * s->contexts <= info->cores_allowed) {
        s->rank = o->local_rank;
        s->size = o->local_size;
        return;
    }
    s->oversubscribed = ranks * info->cores_allowed > info->cores_machine &&
                        (!o->use_smt || ranks * info->pus_allowed > info->pus_machine);
}

static struct share find_share(const struct pli_topo_info *info, const struct pli_place_opts *o)
{
    struct share s = { 0, 1, o->contexts, 0 };
    long long capacity = o->use_smt ? info->pus_machine : info->cores_machine;

    if (o->share_size > 0) {
        s.rank = o->share_rank;
        s.size = o->share_size;
    } else if (o->local_size > 1 && info->bound) {
        guess_share(info, o, &s);
    } else if (o->local_size > 1) {
        s.rank = o->local_rank;
        s.size = o->local_size;
    }
    /* even masks that do not overlap cannot help when the whole machine is too small */
    if ((long long)o->local_size * (o->contexts ? o->contexts : 1) > capacity)
        s.oversubscribed = 1;
    return s;
}

static int count_pus(const struct pool *p, const int *cores, int n)
{
    int i, pus = 0;

    for (i = 0; i < n; i++)
        pus += p->t->cores[cores[i]].pus_allowed;
    return pus;
}

/* Gives every rank want cores that hang together, in turn; group gets those of our rank. 1; 0: some rank's
 * cores have fewer than min_pus (looking at all ranks lets them all come to the same verdict). */
static int take_groups(struct pool *p, const struct share *s, int want, int min_pus, int *group)
{
    int r;

    for (r = 0; r < s->size; r++) {
        int *taken = r <= s->rank ? group : p->spare;

        take(p, want, taken);
        if (count_pus(p, taken, want) < min_pus)
            return 0;
    }
    return 1;
}

static int block_start(const struct pool *p, const struct share *s, int rank)
{
    return (int)((long long)rank * p->n / s->size);
}

/* The cores cut into one block for each rank; *first and *n: ours. 1; 0: some rank has less than min_pus PUs.
 */
static int cut_blocks(const struct pool *p, const struct share *s, int min_pus, int *first, int *n)
{
    int r, start, all_fit = 1;

    for (r = 0; r < s->size; r++) {
        start = block_start(p, s, r);
        if (count_pus(p, p->core + start, block_start(p, s, r + 1) - start) < min_pus)
            all_fit = 0;
    }
    *first = block_start(p, s, s->rank);
    *n = block_start(p, s, s->rank + 1) - *first;
    return all_fit;
}

/* Lists the PUs for our rank in pus, the first context's first, *len of them to go round; *skip: where in the
 * list the rank begins. Returns how many contexts it gets. */
static int choose_pus(struct pool *p, struct share *s, int smt, int *pus, int *len, int *skip)
{
    int fair = p->n / s->size > 0 ? p->n / s->size : 1; /* cores for each rank */
    int want = s->contexts ? s->contexts : fair;
    int first, n;

    *skip = 0;
    if ((long long)s->size * want <= p->n) {
        /* a core for everybody */
        take_groups(p, s, want, 0, p->group);
        *len = list_pus(p->t, p->group, want, smt, pus);
        return s->contexts ? want : *len;
    }
    if (s->size > p->n) {
        /* more ranks than cores: go round */
        *len = list_pus(p->t, p->core, p->n, smt, pus);
        *skip = (int)((long long)s->rank * want % *len);
        s->oversubscribed |= (long long)s->size * want > *len;
        return want;
    }
    /* more contexts than cores: the ranks' cores stay apart */
    if (smt && take_groups(p, s, fair, want, p->group)) {
        *len = list_pus(p->t, p->group, fair, smt, pus);
        return want;
    }
    if (!cut_blocks(p, s, want, &first, &n) || !smt)
        s->oversubscribed = 1;
    *len = list_pus(p->t, p->core + first, n, smt, pus);
    return want;
}

static void fill(const struct pli_topo *t, struct pli_place *out, int pu, int oversubscribed)
{
    const struct pli_topo_core *c = &t->cores[t->pus[pu].core];

    out->pu = t->pus[pu].os;
    out->core = t->pus[pu].core;
    out->node = c->node;
    out->mem_node = pli_topo_mem_node(t, c->node);
    if (out->mem_node < 0)
        out->mem_node = c->node;
    out->oversubscribed = oversubscribed;
}

int pli_topo_place(const struct pli_topo *t, const struct pli_place_opts *opts, struct pli_place *out,
                   int cap)
{
    struct pool p = { .t = t };
    struct share s;
    int *pus = NULL;
    int i, rc, len = 1, skip = 0;

    rc = check_opts(opts);
    if (rc < 0)
        return rc;
    s = find_share(&t->info, opts);
    rc = pool_alloc(&p);
    pus = calloc((size_t)t->info.pus_allowed, sizeof *pus);
    if (rc < 0 || !pus) {
        rc = pli_fail(PLAIT_E_NOMEM, "placement: out of memory");
        goto out;
    }
    pool_fill(&p, opts, s.size == 1);
    rc = choose_pus(&p, &s, opts->use_smt, pus, &len, &skip);
    if (rc < 0 || !out)
        goto out;
    if (cap < rc) {
        rc = pli_fail(PLAIT_E_INVAL, "placement: %d contexts, but room for %d only", rc, cap);
        goto out;
    }
    for (i = 0; i < rc; i++)
        fill(t, &out[i], pus[(skip + i) % len], s.oversubscribed);
out:
    pool_free(&p);
    free(pus);
    return rc;
}
