/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools of buffers: what the files pool*.c share, and what the fork handler calls.
 *
 * Three places where a free buffer can be:
 *   the depot of its class, under the pool's lock;
 *   a cache: lists that one thread owns and uses without a lock;
 *   the remote list of a cache: what other threads have freed of the buffers that the cache's owner
 * allocated. Buffers are described beside their memory, not in it: a free buffer is not touched, and a write
 * beyond the end of one does not damage the lists. From a pointer to its slab leads the page map, without a
 * lock.
 *
 * The remote list is that of mimalloc (Leijen, Zorn, de Moura: "Mimalloc: free list sharding in action", its
 * thread_free list): pushed to with compare-and-swap, taken as a whole with one exchange. Because nobody ever
 * takes single elements there is no ABA problem, and anybody may take it: a thread that finds its class
 * exhausted does. Memory order, and what pairs with what: push: the compare-and-swap is a release: it
 * publishes block->next, and the last use of the buffer by the thread that frees it. take: the exchange is an
 * acquire and pairs with the push it reads from; the pushes before that one are in the same release sequence
 * (compare-and-swaps of one word), so all of the list is seen, and whoever writes into a buffer next does so
 * after the one who freed it. A thread that ends leaves its caches as orphans: the store is a release;
 * whoever adopts one (compare-and-swap, acquire, under the pool's lock) sees the lists as they were left. */
#ifndef PLI_RUNTIME_POOL_H
#define PLI_RUNTIME_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include "plait/mem.h"
#include "util/list.h"

#define PLI_POOL_NAME_MAX 24

struct pli_pool_cache;
struct pli_slab;

enum pli_block_state { PLI_BLOCK_FREE, PLI_BLOCK_USED };

/* Describes one buffer. */
struct pli_block {
    struct pli_block *next; /* on whichever list it is */
    struct pli_slab *slab;
    struct pli_pool_cache *owner; /* in use: that of the thread that allocated it */
    _Atomic uint32_t state;       /* enum pli_block_state; changed by whoever has the buffer */
};

/* One growth of one class: a region and its buffers. Lives as long as the pool. */
struct pli_slab {
    struct plait_pool *pool;
    struct plait_mem *mem;
    struct pli_slab *next; /* of its class */
    char *base;
    size_t stride; /* from one buffer to the next */
    size_t n;
    unsigned cls;
    struct pli_block block[];
};

struct pli_cache_class {
    struct pli_block *head;
    size_t n;
    _Atomic uint64_t allocs, frees; /* by this thread; others only read them */
};

struct pli_pool_cache {
    _Atomic(struct pli_block *) remote
        __attribute__((aligned(64))); /* other threads write here, and not to the lines below */
    struct pli_pool_cache *next __attribute__((aligned(64))); /* of the pool, under its lock */
    _Atomic bool orphan;
    struct pli_cache_class cls[];
};

struct pli_pool_class {
    size_t size, max, step, stride;
    size_t keep; /* a thread's cache has at most that many */
    struct pli_block *depot;
    size_t in_depot, made, high_water;
    struct pli_slab *slabs;
    uint64_t grown, regions, bytes, failures, spilled, fallbacks, bind_failures;
    _Atomic uint64_t foreign_frees; /* by threads without a cache */
};

struct plait_pool {
    pthread_mutex_t lock; /* everything below 'forked' and in the classes, but for their sizes */
    uint64_t id;          /* never used again: threads remember it, not the pool, which may be gone */
    struct pli_list live; /* all pools of the process, under the lock of pool_thread.c */
    unsigned nclasses, flags;
    size_t page_size;
    int node;
    char name[PLI_POOL_NAME_MAX];
    bool forked; /* set in the child of a fork */
    struct pli_pool_cache *caches;
    struct pli_pool_class cls[];
};

/* ---- pool_depot.c: under the pool's lock unless it says otherwise ---- */

/* Makes n more buffers of a class, or more where a page has room. Errors as plait_mem_alloc(), with the
 * class. Blocks. */
int pli_pool_grow(struct plait_pool *pool, unsigned cls, size_t n);
/* Puts buffers of the class that fits, or of a larger one, into the calling thread's cache. *cls: which class
 * it was. Takes the lock. PLAIT_E_NOMEM names class and limit; otherwise as pli_pool_grow(). Blocks while the
 * pool grows. */
int pli_pool_refill(struct plait_pool *pool, struct pli_pool_cache *cache, unsigned *cls);
/* Takes all but keep buffers of a class out of a cache. Takes the lock. */
void pli_pool_flush(struct plait_pool *pool, struct pli_pool_cache *cache, unsigned cls, size_t keep);
/* Frees the slabs of all classes, their regions and the caches. */
void pli_pool_free_all(struct plait_pool *pool);
/* Moves what other threads have freed into the cache's own lists; what is too much goes to the depot, under
 * the lock. The cache's owner, without the lock. */
void pli_cache_collect(struct plait_pool *pool, struct pli_pool_cache *cache);

/* ---- pool_thread.c: which cache is this thread's? Any thread, without the pool's lock ---- */

/* Makes a pool known, gives it its id. PLAIT_E_NOMEM. */
int pli_pool_enter(struct plait_pool *pool);
/* After it no thread that ends touches the pool. */
void pli_pool_leave(struct plait_pool *pool);
/* The calling thread's cache of a pool; NULL: it has none (find), or there is no memory for one (get). */
struct pli_pool_cache *pli_cache_find(const struct plait_pool *pool);
struct pli_pool_cache *pli_cache_get(struct plait_pool *pool);

/* ---- the lock of pool_thread.c: the list of pools, and the page map's writers. Nothing else is locked while
 * it is held ---- */

void pli_pools_lock(void);
void pli_pools_unlock(void);
/* In the child of a fork, with the lock held: async-signal-safe. */
void pli_pools_forked(void);

#endif
