/* SPDX-License-Identifier: BSD-3-Clause */
/* Which cache of a pool is the calling thread's. A thread remembers ids of pools, which are never used again:
 * so it never looks at a pool that is gone. */
#include "runtime/pool.h"

#include <stdlib.h>
#include <string.h>
#include "runtime/loop_priv.h"
#include "util/err.h"

struct entry {
    uint64_t pool;
    struct pli_pool_cache *cache;
};

struct thread {
    unsigned n, capacity;
    struct entry entry[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pli_list pools = PLI_LIST_INIT(pools);
static uint64_t last_id;
static pthread_key_t key;
static bool have_key;

static __thread struct thread *mine;
static __thread struct entry last; /* the pool that was used last: a thread has a favourite */

/* ---- threads that end ---- */

/* Under the lock. */
static bool is_live(uint64_t id)
{
    struct pli_list *node;

    pli_list_foreach(node, &pools)
    {
        if (pli_container_of(node, struct plait_pool, live)->id == id)
            return true;
    }
    return false;
}

static void thread_ends(void *arg)
{
    struct thread *t = arg;
    unsigned i;

    pthread_mutex_lock(&lock);
    for (i = 0; i < t->n; i++) {
        if (is_live(
                t->entry[i].pool)) /* release: pairs with obtain() below and empty_orphan() in pool_depot.c */
            atomic_store_explicit(&t->entry[i].cache->orphan, true, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    free(t);
    mine = NULL;
    last.pool = 0;
}

/* ---- pools ---- */

int pli_pool_enter(struct plait_pool *pool)
{
    int rc = pli_fork_init();

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&lock);
    if (!have_key)
        have_key = pthread_key_create(&key, thread_ends) == 0;
    if (have_key) {
        pool->id = ++last_id;
        pli_list_push_back(&pools, &pool->live);
    } else {
        rc = pli_fail(PLAIT_E_NOMEM, "pool '%s': pthread_key_create: no thread-specific keys are left",
                      pool->name);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

void pli_pool_leave(struct plait_pool *pool)
{
    pthread_mutex_lock(&lock);
    pli_list_remove(&pool->live);
    pthread_mutex_unlock(&lock);
}

void pli_pools_lock(void)
{
    pthread_mutex_lock(&lock);
}

void pli_pools_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void pli_pools_forked(void)
{
    struct pli_list *node;

    pli_list_foreach(node, &pools) pli_container_of(node, struct plait_pool, live)->forked = true;
}

/* ---- this thread's cache ---- */

struct pli_pool_cache *pli_cache_find(const struct plait_pool *pool)
{
    unsigned i;

    if (last.pool == pool->id)
        return last.cache;
    for (i = 0; mine && i < mine->n; i++) {
        if (mine->entry[i].pool == pool->id) {
            last = mine->entry[i];
            return last.cache;
        }
    }
    return NULL;
}

/* Drops what belongs to pools that are gone; then makes room for one more. */
static int make_room(void)
{
    unsigned i, n = 0, capacity = mine ? mine->capacity : 0;
    struct thread *larger;

    pthread_mutex_lock(&lock);
    for (i = 0; mine && i < mine->n; i++) {
        if (is_live(mine->entry[i].pool))
            mine->entry[n++] = mine->entry[i];
    }
    pthread_mutex_unlock(&lock);
    if (mine)
        mine->n = n;
    if (n < capacity)
        return 0;
    capacity = capacity ? 2 * capacity : 4;
    larger = realloc(mine, sizeof(*larger) + capacity * sizeof(larger->entry[0]));
    if (!larger)
        return -1;
    larger->n = n;
    larger->capacity = capacity;
    mine = larger;
    return pthread_setspecific(key, mine) == 0 ? 0 : -1;
}

/* A new cache, or one that a thread has left. Under the pool's lock. */
static struct pli_pool_cache *obtain(struct plait_pool *pool)
{
    struct pli_pool_cache *c;
    size_t size = sizeof(*c) + pool->nclasses * sizeof(c->cls[0]);

    for (c = pool->caches; c; c = c->next) {
        bool orphan = true;

        if (atomic_compare_exchange_strong_explicit(&c->orphan, &orphan, false, memory_order_acquire,
                                                    memory_order_relaxed))
            return c;
    }
    size = (size + 63) & ~(size_t)63;
    c = aligned_alloc(64, size);
    if (!c)
        return NULL;
    memset(c, 0, size);
    c->next = pool->caches;
    pool->caches = c;
    return c;
}

struct pli_pool_cache *pli_cache_get(struct plait_pool *pool)
{
    struct pli_pool_cache *c = pli_cache_find(pool);

    if (c)
        return c;
    if (make_room() < 0)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    c = obtain(pool);
    pthread_mutex_unlock(&pool->lock);
    if (!c)
        return NULL;
    last.pool = pool->id;
    last.cache = c;
    mine->entry[mine->n++] = last;
    return c;
}
