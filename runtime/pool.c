/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools: creation, counters, end. */
#include "runtime/pool.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/mem.h"
#include "util/err.h"
#include "util/log.h"

#define ALIGN_DEFAULT 64
#define CACHE_DEFAULT 32
#define STEP_BYTES ((size_t)256 << 10)

static const struct plait_pool_class default_classes[] = {
    {(size_t)4 << 10, 0, 0, 0},   {(size_t)16 << 10, 0, 0, 0}, {(size_t)64 << 10, 0, 0, 0},
    {(size_t)256 << 10, 0, 0, 0}, {(size_t)1 << 20, 0, 0, 0},
};

/* ---- options ---- */

static int check_class(const struct plait_pool_opts *o, unsigned i)
{
    const struct plait_pool_class *c = &o->classes[i];

    if (c->size == 0 || c->size > PTRDIFF_MAX)
        return pli_fail(PLAIT_E_INVAL, "pool '%s': class %u has buffers of %zu bytes", o->name, i, c->size);
    if (i > 0 && c->size <= o->classes[i - 1].size)
        return pli_fail(PLAIT_E_INVAL,
                        "pool '%s': class %u of %zu bytes is not larger than the one before it, of %zu bytes",
                        o->name, i, c->size, o->classes[i - 1].size);
    if (c->max && c->min > c->max)
        return pli_fail(PLAIT_E_INVAL,
                        "pool '%s': class %u of %zu bytes has a min of %zu buffers above its max of %zu",
                        o->name, i, c->size, c->min, c->max);
    return 0;
}

static int check_memory(struct plait_pool_opts *o)
{
    struct plait_mem_opts mem = PLAIT_MEM_OPTS_INIT, checked;
    const struct pli_topo *topo;
    int rc;

    mem.page_size = o->page_size;
    mem.node = o->node;
    mem.name = o->name;
    rc = pli_mem_check_opts(&mem, &checked, &topo);
    if (rc < 0)
        return pli_fail_prefix(rc, "pool '%s'", o->name);
    o->page_size = checked.page_size;
    return 0;
}

static int check_opts(const struct plait_pool_opts *given, struct plait_pool_opts *o)
{
    const struct plait_pool_opts defaults = PLAIT_POOL_OPTS_INIT;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned i;
    int rc;

    *o = defaults;
    if (given) {
        if (given->size < sizeof(size_t) || given->size > sizeof *o)
            return pli_fail(PLAIT_E_INVAL,
                            "plait_pool_opts.size is %zu, this library knows up to %zu: start from "
                            "PLAIT_POOL_OPTS_INIT",
                            given->size, sizeof *o);
        memcpy(o, given, given->size);
    }
    if (!o->name)
        o->name = "pool";
    if (strlen(o->name) >= PLI_POOL_NAME_MAX)
        return pli_fail(PLAIT_E_INVAL, "plait_pool_opts.name '%s' is too long: at most %d characters",
                        o->name, PLI_POOL_NAME_MAX - 1);
    if (!o->classes && o->nclasses == 0) {
        o->classes = default_classes;
        o->nclasses = sizeof default_classes / sizeof default_classes[0];
    }
    if (!o->classes || o->nclasses == 0 || o->nclasses > PLAIT_POOL_CLASSES_MAX)
        return pli_fail(PLAIT_E_INVAL, "pool '%s': %u classes at %p: 1 to %d are possible", o->name,
                        o->nclasses, (const void *)o->classes, PLAIT_POOL_CLASSES_MAX);
    for (i = 0; i < o->nclasses; i++) {
        rc = check_class(o, i);
        if (rc < 0)
            return rc;
    }
    if (o->align == 0)
        o->align = ALIGN_DEFAULT;
    if (o->align > page || (o->align & (o->align - 1)))
        return pli_fail(PLAIT_E_INVAL,
                        "pool '%s': an alignment of %zu bytes: a power of two up to %zu is possible", o->name,
                        o->align, page);
    if (o->flags & ~PLAIT_POOL_EXACT)
        return pli_fail(PLAIT_E_INVAL, "plait_pool_opts.flags is 0x%x: only PLAIT_POOL_EXACT is known",
                        o->flags);
    return check_memory(o);
}

/* ---- create ---- */

static void init_class(struct pli_pool_class *c, const struct plait_pool_class *given,
                       const struct plait_pool_opts *o)
{
    c->size = given->size;
    c->max = given->max;
    c->stride = (given->size + o->align - 1) & ~(o->align - 1);
    c->step = given->step ? given->step : STEP_BYTES / c->stride;
    if (c->step == 0)
        c->step = 1;
    c->keep = o->cache;
    if (o->cache == PLAIT_POOL_CACHE_AUTO)
        c->keep = c->max && c->max / 8 < CACHE_DEFAULT ? c->max / 8 : CACHE_DEFAULT;
}

static struct plait_pool *new_pool(const struct plait_pool_opts *o)
{
    struct plait_pool *pool = calloc(1, sizeof(*pool) + o->nclasses * sizeof(pool->cls[0]));
    unsigned i;

    if (!pool) {
        pli_fail(PLAIT_E_NOMEM, "no memory to describe a pool of %u classes", o->nclasses);
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pli_list_init(&pool->live);
    pool->nclasses = o->nclasses;
    pool->flags = o->flags;
    pool->page_size = o->page_size;
    pool->node = o->node;
    strcpy(pool->name, o->name); /* check_opts() measured it */
    for (i = 0; i < o->nclasses; i++)
        init_class(&pool->cls[i], &o->classes[i], o);
    return pool;
}

static void free_pool(struct plait_pool *pool)
{
    pli_pool_leave(pool);
    pli_pool_free_all(pool);
    if (!pool->forked) /* some thread of the parent may have had it */
        pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Nobody else knows the pool yet; the lock is for the rules of those who are called. */
static int make_min(struct plait_pool *pool, const struct plait_pool_opts *o)
{
    unsigned i;
    int rc = 0;

    pthread_mutex_lock(&pool->lock);
    for (i = 0; i < o->nclasses && rc == 0; i++) {
        if (o->classes[i].min)
            rc = pli_pool_grow(pool, i, o->classes[i].min);
    }
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

int plait_pool_create(struct plait_pool **pool, const struct plait_pool_opts *opts)
{
    struct plait_pool_opts o;
    struct plait_pool *p;
    int rc;

    *pool = NULL;
    rc = check_opts(opts, &o);
    if (rc < 0)
        return rc;
    p = new_pool(&o);
    if (!p)
        return PLAIT_E_NOMEM;
    rc = pli_pool_enter(p);
    if (rc == 0)
        rc = make_min(p, &o);
    if (rc < 0) {
        free_pool(p);
        return rc;
    }
    *pool = p;
    return 0;
}

/* ---- counters ---- */

/* Buffers of a class that are allocated. A thread that frees between the two loads makes the difference too
 * small, so what it has freed is read first. Under the pool's lock. */
static uint64_t count_in_use(const struct plait_pool *pool, unsigned cls)
{
    const struct pli_pool_cache *cache;
    uint64_t frees = atomic_load_explicit(&pool->cls[cls].foreign_frees, memory_order_relaxed), allocs = 0;

    for (cache = pool->caches; cache; cache = cache->next)
        frees += atomic_load_explicit(&cache->cls[cls].frees, memory_order_relaxed);
    for (cache = pool->caches; cache; cache = cache->next)
        allocs += atomic_load_explicit(&cache->cls[cls].allocs, memory_order_relaxed);
    return allocs > frees ? allocs - frees : 0;
}

static void fill_stats(const struct plait_pool *pool, unsigned i, struct plait_pool_stats *st)
{
    const struct pli_pool_class *c = &pool->cls[i];
    uint64_t away = c->made - c->in_depot, in_use = count_in_use(pool, i);

    st->buf_size = c->size;
    st->in_use = in_use < away ? in_use : away; /* the counts are read while others change them */
    st->cached = away - st->in_use;
    st->made = c->made;
    st->high_water = c->high_water;
    st->grown = c->grown;
    st->regions = c->regions;
    st->bytes = c->bytes;
    st->failures = c->failures;
    st->spilled = c->spilled;
    st->fallbacks = c->fallbacks;
    st->bind_failures = c->bind_failures;
}

int plait_pool_get_stats(struct plait_pool *pool, unsigned i, struct plait_pool_stats *st)
{
    struct plait_pool_stats now = PLAIT_POOL_STATS_INIT;

    if (!st || st->size < sizeof(size_t) || st->size > sizeof now)
        return pli_fail(PLAIT_E_INVAL,
                        "plait_pool_stats.size is %zu, this library knows up to %zu: start from "
                        "PLAIT_POOL_STATS_INIT",
                        st ? st->size : 0, sizeof now);
    if (pool->forked)
        return pli_fail(PLAIT_E_FORKED,
                        "pool '%s' belongs to the parent process: create a new one after fork()", pool->name);
    if (i >= pool->nclasses)
        return pli_fail(PLAIT_E_NOTFOUND, "pool '%s' has %u classes, and none with index %u", pool->name,
                        pool->nclasses, i);
    pthread_mutex_lock(&pool->lock);
    fill_stats(pool, i, &now);
    pthread_mutex_unlock(&pool->lock);
    now.size = st->size;
    memcpy(st, &now, st->size);
    return 0;
}

/* ---- destroy ---- */

static int count_leaks(struct plait_pool *pool)
{
    uint64_t in_use, total = 0;
    unsigned i;

    pthread_mutex_lock(&pool->lock);
    for (i = 0; i < pool->nclasses; i++) {
        in_use = count_in_use(pool, i);
        if (in_use)
            pli_warn("pool '%s' cannot be destroyed: %llu buffers of the class of %zu bytes are still in use",
                     pool->name, (unsigned long long)in_use, pool->cls[i].size);
        total += in_use;
    }
    pthread_mutex_unlock(&pool->lock);
    return total < INT32_MAX ? (int)total : INT32_MAX;
}

int plait_pool_destroy(struct plait_pool *pool)
{
    int leaks;

    if (!pool)
        return 0;
    leaks = pool->forked ? 0 : count_leaks(pool);
    if (leaks)
        return leaks;
    free_pool(pool);
    return 0;
}
