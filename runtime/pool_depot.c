/* SPDX-License-Identifier: BSD-3-Clause */
/* The slow paths of a pool: its depots, growth, and taking back what lies elsewhere. */
#include "runtime/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include "runtime/mem.h"
#include "runtime/pagemap.h"
#include "util/err.h"

#define TEXT_MAX 400

/* ---- lists ---- */

static void to_depot(struct pli_pool_class *c, struct pli_block *b)
{
    b->next = c->depot;
    c->depot = b;
    c->in_depot++;
}

static void to_cache(struct pli_cache_class *c, struct pli_block *b)
{
    b->next = c->head;
    c->head = b;
    c->n++;
}

static struct pli_block *from_cache(struct pli_cache_class *c)
{
    struct pli_block *b = c->head;

    c->head = b->next;
    c->n--;
    return b;
}

static struct pli_block *take_remote(struct pli_pool_cache *cache)
{
    if (!atomic_load_explicit(&cache->remote, memory_order_relaxed))
        return NULL; /* a look does not take the line away from who pushes */
    return atomic_exchange_explicit(&cache->remote, NULL, memory_order_acquire);
}

static void flush(struct plait_pool *pool, struct pli_pool_cache *cache, unsigned cls, size_t keep)
{
    while (cache->cls[cls].n > keep)
        to_depot(&pool->cls[cls], from_cache(&cache->cls[cls]));
}

void pli_pool_flush(struct plait_pool *pool, struct pli_pool_cache *cache, unsigned cls, size_t keep)
{
    pthread_mutex_lock(&pool->lock);
    flush(pool, cache, cls, keep);
    pthread_mutex_unlock(&pool->lock);
}

void pli_cache_collect(struct plait_pool *pool, struct pli_pool_cache *cache)
{
    struct pli_block *b, *next;
    bool full = false;
    unsigned i;

    for (b = take_remote(cache); b; b = next) {
        next = b->next;
        i = b->slab->cls;
        to_cache(&cache->cls[i], b);
        full = full || cache->cls[i].n > pool->cls[i].keep;
    }
    for (i = 0; full && i < pool->nclasses; i++) {
        if (cache->cls[i].n > pool->cls[i].keep)
            pli_pool_flush(pool, cache, i, pool->cls[i].keep);
    }
}

/* ---- taking back ---- */

/* The caches of threads that have ended belong to whoever has the lock and gets the mark. */
static void empty_orphan(struct plait_pool *pool, struct pli_pool_cache *cache)
{
    bool orphan = true;
    unsigned i;

    if (!atomic_compare_exchange_strong_explicit(&cache->orphan, &orphan, false, memory_order_acquire,
                                                 memory_order_relaxed))
        return;
    for (i = 0; i < pool->nclasses; i++)
        flush(pool, cache, i, 0);
    atomic_store_explicit(&cache->orphan, true, memory_order_release);
}

/* Everything that lies about and can be had without its owner. */
static void reclaim(struct plait_pool *pool)
{
    struct pli_pool_cache *cache;
    struct pli_block *b, *next;

    for (cache = pool->caches; cache; cache = cache->next) {
        for (b = take_remote(cache); b; b = next) {
            next = b->next;
            to_depot(&pool->cls[b->slab->cls], b);
        }
        empty_orphan(pool, cache);
    }
}

/* ---- growth ---- */

static size_t count_buffers(const struct pli_pool_class *c, size_t wanted, size_t page_size)
{
    size_t fit = page_size / c->stride;
    size_t n = wanted < fit ? fit : wanted; /* no page is left half empty */

    return c->max && n > c->max - c->made ? c->max - c->made : n;
}

static int alloc_region(struct plait_mem **m, struct plait_pool *pool, const struct pli_pool_class *c,
                        size_t n)
{
    struct plait_mem_opts opts = PLAIT_MEM_OPTS_INIT;
    char name[PLI_MEM_NAME_MAX];

    if (n > SIZE_MAX / c->stride)
        return pli_fail(PLAIT_E_NOMEM, "they are more than an address space has");
    snprintf(name, sizeof name, "%s/%zu", pool->name, c->size);
    opts.page_size = pool->page_size;
    opts.node = pool->node;
    opts.name = name;
    return plait_mem_alloc(m, n * c->stride, &opts);
}

static int make_slab(struct pli_slab **out, struct plait_pool *pool, unsigned cls, size_t n,
                     struct plait_mem *m)
{
    struct pli_slab *slab = NULL;
    size_t i;
    int rc;

    if (n < (SIZE_MAX - sizeof *slab) / sizeof(slab->block[0]))
        slab = calloc(1, sizeof(*slab) + n * sizeof(slab->block[0]));
    if (!slab)
        return pli_fail(PLAIT_E_NOMEM, "no memory to describe them");
    slab->pool = pool;
    slab->mem = m;
    slab->base = m->addr;
    slab->stride = pool->cls[cls].stride;
    slab->n = n;
    slab->cls = cls;
    for (i = 0; i < n; i++)
        slab->block[i].slab = slab;
    pli_pools_lock();
    rc = pli_pagemap_set(m->addr, m->mapped, slab);
    pli_pools_unlock();
    if (rc < 0)
        free(slab);
    else
        *out = slab;
    return rc;
}

static void add_slab(struct plait_pool *pool, struct pli_pool_class *c, struct pli_slab *slab)
{
    const struct plait_mem *m = slab->mem;
    size_t i;

    slab->next = c->slabs;
    c->slabs = slab;
    c->made += slab->n;
    c->regions++;
    c->bytes += m->mapped;
    c->fallbacks += m->page_size != m->page_size_asked;
    c->bind_failures += pool->node >= 0 && m->bind_failed;
    for (i = slab->n; i > 0; i--) /* so that they are given out in the order of their addresses */
        to_depot(c, &slab->block[i - 1]);
}

int pli_pool_grow(struct plait_pool *pool, unsigned cls, size_t n)
{
    struct pli_pool_class *c = &pool->cls[cls];
    struct pli_slab *slab = NULL; /* the compiler does not see that 0 means it is set */
    struct plait_mem *m;
    int rc;

    n = count_buffers(c, n, pool->page_size);
    rc = alloc_region(&m, pool, c, n);
    if (rc < 0)
        goto err;
    rc = make_slab(&slab, pool, cls, n, m);
    if (rc < 0)
        goto err_release;
    add_slab(pool, c, slab);
    return 0;

err_release:
    plait_mem_release(m);
err:
    return pli_fail_prefix(rc, "pool '%s': the class of %zu bytes cannot grow from %zu by %zu buffers",
                           pool->name, c->size, c->made, n);
}

/* ---- refilling a cache ---- */

static int make_available(struct plait_pool *pool, unsigned cls)
{
    struct pli_pool_class *c = &pool->cls[cls];
    int rc;

    if (!c->depot)
        reclaim(pool);
    if (c->depot)
        return 0;
    if (c->max && c->made >= c->max)
        return pli_fail(PLAIT_E_NOMEM,
                        "pool '%s': the class of %zu bytes has its maximum of %zu buffers, and all are in "
                        "use or in other threads' caches: free some, or raise plait_pool_class.max",
                        pool->name, c->size, c->max);
    rc = pli_pool_grow(pool, cls, c->step);
    c->grown += rc == 0;
    return rc;
}

static void fetch(struct pli_pool_class *c, struct pli_cache_class *into)
{
    size_t n = c->keep / 2 ? c->keep / 2 : 1, away;

    for (; n > 0 && c->depot; n--) {
        struct pli_block *b = c->depot;

        c->depot = b->next;
        c->in_depot--;
        to_cache(into, b);
    }
    away = c->made - c->in_depot;
    if (away > c->high_water)
        c->high_water = away;
}

int pli_pool_refill(struct plait_pool *pool, struct pli_pool_cache *cache, unsigned *cls)
{
    unsigned want = *cls, end = pool->flags & PLAIT_POOL_EXACT ? want + 1 : pool->nclasses, k;
    char text[TEXT_MAX] = "";
    int rc = 0, first = 0;

    pthread_mutex_lock(&pool->lock);
    for (k = want; k < end && cache->cls[k].n == 0; k++) {
        rc = make_available(pool, k);
        if (rc == 0) {
            fetch(&pool->cls[k], &cache->cls[k]);
            break;
        }
        if (k == want) {
            first = rc;
            snprintf(text, sizeof text, "%s", pli_err_text());
        }
    }
    if (k < end)
        pool->cls[want].spilled += k != want;
    else
        pool->cls[want].failures++;
    pthread_mutex_unlock(&pool->lock);
    *cls = k;
    if (k < end)
        return 0;
    return pli_fail(first, "%s%s", text, end > want + 1 ? "; the larger classes are exhausted, too" : "");
}

/* ---- the end ---- */

static void free_slab(struct pli_slab *slab)
{
    pli_pools_lock();
    pli_pagemap_clear(slab->mem->addr, slab->mem->mapped, slab);
    pli_pools_unlock();
    plait_mem_release(slab->mem); /* it lives on while a message in it is held */
    free(slab);
}

void pli_pool_free_all(struct plait_pool *pool)
{
    struct pli_pool_cache *cache;
    struct pli_slab *slab;
    unsigned i;

    for (i = 0; i < pool->nclasses; i++) {
        while ((slab = pool->cls[i].slabs) != NULL) {
            pool->cls[i].slabs = slab->next;
            free_slab(slab);
        }
    }
    while ((cache = pool->caches) != NULL) {
        pool->caches = cache->next;
        free(cache);
    }
}
