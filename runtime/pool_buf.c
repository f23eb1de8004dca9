/* SPDX-License-Identifier: BSD-3-Clause */
/* Buffers of a pool: the short paths. */
#include "runtime/pool.h"

#include "runtime/pagemap.h"
#include "util/err.h"

/* ---- counters: one writer each, so no locked instruction; others read them ---- */

static void add_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* ---- alloc ---- */

static int too_long(const struct plait_pool *pool, size_t len)
{
    return pli_fail(PLAIT_E_INVAL, "pool '%s' has no class for %zu bytes: its largest buffers have %zu",
                    pool->name, len, pool->cls[pool->nclasses - 1].size);
}

static int forked(const struct plait_pool *pool)
{
    return pli_fail(PLAIT_E_FORKED, "pool '%s' belongs to the parent process: create a new one after fork()",
                    pool->name);
}

int plait_pool_alloc(struct plait_pool *pool, size_t len, void **ptr)
{
    struct pli_pool_cache *cache;
    struct pli_cache_class *c;
    struct pli_block *b;
    unsigned cls = 0;
    int rc;

    *ptr = NULL;
    if (pool->forked)
        return forked(pool);
    while (cls < pool->nclasses && pool->cls[cls].size < len)
        cls++;
    if (cls == pool->nclasses)
        return too_long(pool, len);
    cache = pli_cache_get(pool);
    if (!cache)
        return pli_fail(PLAIT_E_NOMEM, "pool '%s': no memory for a cache of this thread", pool->name);
    if (!cache->cls[cls].head)
        pli_cache_collect(pool, cache);
    if (!cache->cls[cls].head) {
        rc = pli_pool_refill(pool, cache, &cls);
        if (rc < 0)
            return rc;
    }
    c = &cache->cls[cls];
    b = c->head;
    c->head = b->next;
    c->n--;
    b->owner = cache;
    /* relaxed: whoever frees it got the pointer from us, in an order of its own making */
    atomic_store_explicit(&b->state, PLI_BLOCK_USED, memory_order_relaxed);
    add_one(&c->allocs);
    *ptr = b->slab->base + (size_t)(b - b->slab->block) * b->slab->stride;
    return 0;
}

/* ---- free ---- */

/* The block that begins at ptr; NULL (with a text): there is none. */
static struct pli_block *block_of(void *ptr)
{
    struct pli_slab *slab = pli_pagemap_get(ptr);
    size_t offset, i;

    if (!slab) {
        pli_fail(PLAIT_E_INVAL, "%p is not a buffer of a pool", ptr);
        return NULL;
    }
    offset = (size_t)((char *)ptr - slab->base);
    i = offset / slab->stride;
    if (i >= slab->n || i * slab->stride != offset) {
        pli_fail(PLAIT_E_INVAL,
                 "%p is not the beginning of a buffer: it lies %zu bytes behind that of one of %zu bytes in "
                 "pool '%s'",
                 ptr, offset - i * slab->stride, slab->pool->cls[slab->cls].size, slab->pool->name);
        return NULL;
    }
    return &slab->block[i];
}

/* From in use to free; false: it is not in use. */
static bool mark_free(struct pli_block *b)
{
#ifdef PLAIT_DEBUG /* one of two threads that do it at once is told */
    return atomic_exchange_explicit(&b->state, PLI_BLOCK_FREE, memory_order_relaxed) == PLI_BLOCK_USED;
#else
    if (atomic_load_explicit(&b->state, memory_order_relaxed) != PLI_BLOCK_USED)
        return false;
    atomic_store_explicit(&b->state, PLI_BLOCK_FREE, memory_order_relaxed);
    return true;
#endif
}

/* See pool.h for the order. */
static void push_remote(struct pli_pool_cache *owner, struct pli_block *b)
{
    struct pli_block *head = atomic_load_explicit(&owner->remote, memory_order_relaxed);

    do
        b->next = head;
    while (!atomic_compare_exchange_weak_explicit(&owner->remote, &head, b, memory_order_release,
                                                  memory_order_relaxed));
}

int plait_pool_free(void *ptr)
{
    struct pli_pool_cache *cache, *owner;
    struct plait_pool *pool;
    struct pli_block *b;
    unsigned cls;

    if (!ptr)
        return 0;
    b = block_of(ptr);
    if (!b)
        return PLAIT_E_INVAL;
    pool = b->slab->pool;
    cls = b->slab->cls;
    if (pool->forked)
        return forked(pool);
    if (!mark_free(b))
        return pli_fail(PLAIT_E_INVAL,
                        "the buffer of %zu bytes at %p in pool '%s' is free already: it was freed twice, or "
                        "never allocated",
                        pool->cls[cls].size, ptr, pool->name);
    cache = pli_cache_find(pool);
    owner = b->owner;
    if (cache)
        add_one(&cache->cls[cls].frees);
    else
        atomic_fetch_add_explicit(&pool->cls[cls].foreign_frees, 1, memory_order_relaxed);
    if (cache != owner) {
        push_remote(owner, b);
        return 0;
    }
    b->next = cache->cls[cls].head;
    cache->cls[cls].head = b;
    if (++cache->cls[cls].n > pool->cls[cls].keep)
        pli_pool_flush(pool, cache, cls, pool->cls[cls].keep / 2);
    return 0;
}
