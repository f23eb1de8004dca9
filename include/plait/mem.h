/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file mem.h
 * @brief Memory for messages: regions that a peer can be shown, and pools of buffers.
 *
 * A region is a range of addresses that plait knows. plait_mem_alloc() makes one of memory without a name
 * (memfd), which no limit can take away later: every page is reserved before the call returns, so a limit
 * is an error there and never SIGBUS afterwards. plait_mem_register() tells plait of memory that the program
 * has already; nothing is copied. No two regions overlap.
 *
 * A peer that gets a message in place (PLAIT_NOCOPY) maps the whole region for reading, until it is released: what a peer must not see belongs into
 * another region, or pool, or is sent with PLAIT_TAKE_RING.
 *
 * A pool cuts regions into buffers of a few sizes (classes). Each thread keeps some buffers of each pool that
 * it uses for itself, so that plait_pool_alloc() and plait_pool_free() take no lock most of the time; a
 * context's callbacks run on its owner thread, so this is a cache of each context, too. A buffer may be
 * freed by any thread.
 *
 * Regions and pools belong to the process, not to a context. After fork() the child has none of the allocated
 * memory (its addresses are not mapped there, and nothing of it is kept alive by the child), calls on its
 * regions and pools return PLAIT_E_FORKED, and releasing them is harmless; the parent goes on.
 */
#ifndef PLAIT_MEM_H
#define PLAIT_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <plait/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct plait_mem;
struct plait_pool;

#define PLAIT_MEM_NODE_ANY (-1)             /**< memory from any NUMA node */
#define PLAIT_MEM_PAGE_NORMAL ((size_t)0)   /**< the system's normal pages */
#define PLAIT_MEM_PAGE_2M ((size_t)2 << 20) /**< huge pages of 2 MiB */
#define PLAIT_MEM_PAGE_1G ((size_t)1 << 30) /**< huge pages of 1 GiB */

#define PLAIT_MEM_WRITABLE 0x1u /**< it can be exported for writing, plait_mem_export(); without, the memory itself lets no peer write.
                                     Messages from it are copied */

/* ---- regions ---- */

/** Options of a region; start from PLAIT_MEM_OPTS_INIT. */
struct plait_mem_opts {
    size_t size;      /**< sizeof(struct plait_mem_opts), for versioning */
    size_t page_size; /**< PLAIT_MEM_PAGE_...; where there are no such huge pages, normal ones are taken */
    int node;         /**< operating system's number of a NUMA node, or PLAIT_MEM_NODE_ANY */
    unsigned flags;   /**< PLAIT_MEM_WRITABLE, or 0 */
    const char *name; /**< for messages, at most 47 characters; copied; NULL: "mem" */
};
#define PLAIT_MEM_OPTS_INIT { sizeof(struct plait_mem_opts), PLAIT_MEM_PAGE_NORMAL, PLAIT_MEM_NODE_ANY, 0, \
                              NULL }

/**
 * Allocates a region of zeroed memory, and reserves all of its pages.
 * Two wishes are not errors when they cannot be met, but a warning in the log and a field of
 * plait_mem_get_info(): huge pages (normal ones are taken instead), and the NUMA node (the kernel takes
 * another one, if that node is full or binding is not allowed).
 * @param[out] mem  the region; the caller owns it and releases it. NULL on failure.
 * @param len       bytes, above 0; rounded up to whole pages for the reservation
 * @param opts      options, or NULL for the defaults; not kept.
 * @return 0; PLAIT_E_INVAL (len, options, no such node); PLAIT_E_NOMEM (the text names the limit: memory
 *         cgroup, RLIMIT_AS, RLIMIT_FSIZE, RLIMIT_MEMLOCK, the system's memory); PLAIT_E_NOFILE; PLAIT_E_TOPOLOGY (a node
 *         was asked for, and the topology could not be read); PLAIT_E_SYSTEM. Blocks for the kernel to clear
 *         the pages, for some microseconds each. Any thread, callbacks too.
 */
PLAIT_API int plait_mem_alloc(struct plait_mem **mem, size_t len, const struct plait_mem_opts *opts);

/**
 * Makes a region of memory that the program has: of any alignment, and mapped in any way. It is used where it
 * is. The memory must stay mapped until the region is released and every message that was sent from it is
 * done. What a child of fork() has of it is not changed.
 * @param[out] mem  the region; the caller owns it and releases it. NULL on failure.
 * @param addr      first byte; the memory stays the caller's.
 * @param len       bytes, above 0
 * @return 0; PLAIT_E_INVAL (addr, len, or not all of it is mapped); PLAIT_E_BUSY (it overlaps another
 *         region, which the text names); PLAIT_E_NOMEM. Does not block. Any thread, callbacks too.
 */
PLAIT_API int plait_mem_register(struct plait_mem **mem, void *addr, size_t len);

/**
 * Gives a region up. plait does not use it for new messages from here on, and all its exports are withdrawn at once
 * (plait_mem_withdraw()). Allocated memory is unmapped when no message that is sent from it is under way any more and no peer has it
 * mapped for one-sided operations, at the earliest now; the caller must not touch it after this call. A peer that knows the region unmaps
 * it when it has released every message in it.
 * @param mem  the region; NULL is allowed.
 * @return 0. In a child after fork() it frees what the child has of the region, the description.
 *         Does not block. Any thread, callbacks too.
 */
PLAIT_API int plait_mem_release(struct plait_mem *mem);

/** The first byte of a region; valid until it is released. Never blocks. Any thread, callbacks too. */
PLAIT_API void *plait_mem_addr(const struct plait_mem *mem);

/** Where the memory of a region is from. */
enum plait_mem_kind {
    PLAIT_MEM_ALLOCATED = 1,  /**< plait_mem_alloc() */
    PLAIT_MEM_REGISTERED = 2, /**< plait_mem_register() */
};

/** What is known of a region; start from PLAIT_MEM_INFO_INIT. */
struct plait_mem_info {
    size_t size;             /**< in: sizeof(struct plait_mem_info) */
    enum plait_mem_kind kind;
    void *addr;              /**< first byte */
    size_t len;              /**< bytes, as asked for */
    size_t reserved;         /**< bytes, whole pages; 0 for registered memory */
    size_t page_size;        /**< bytes of the pages that it has; 0: not known (registered memory) */
    size_t page_size_asked;  /**< bytes of the pages that were asked for; it has other ones if they differ */
    int node;                /**< NUMA node that was asked for, or PLAIT_MEM_NODE_ANY */
    int node_verified;       /**< 1: every page was found on that node, when the region was made */
    unsigned in_use;         /**< how many messages, operations and links to peers that know it hold it now */
    const char *name;        /**< valid until the region is released */
};
#define PLAIT_MEM_INFO_INIT { sizeof(struct plait_mem_info), PLAIT_MEM_ALLOCATED, NULL, 0, 0, 0, 0, \
                              PLAIT_MEM_NODE_ANY, 0, 0, NULL }

/**
 * Tells of a region.
 * @param[in,out] info  size is read, the rest is filled.
 * @return 0, PLAIT_E_INVAL (NULL, size), PLAIT_E_FORKED. Never blocks. Any thread, callbacks too.
 */
PLAIT_API int plait_mem_get_info(const struct plait_mem *mem, struct plait_mem_info *info);

/* ---- pools ---- */

#define PLAIT_POOL_CLASSES_MAX 32 /**< a pool has at most that many classes */

/** Buffers of one size in a pool. */
struct plait_pool_class {
    size_t size; /**< bytes of each buffer, above 0 */
    size_t min;  /**< buffers that are made with the pool, at least: pages are filled */
    size_t max;  /**< the most that may exist at any time; 0: as many as there is memory for */
    size_t step; /**< the same, whenever all are in use; 0: as many as make about 256 KiB */
};

#define PLAIT_POOL_CACHE_AUTO UINT32_MAX /**< 32 buffers of each class, fewer where max is below 256 */

#define PLAIT_POOL_EXACT 0x1u /**< never take a larger class's buffer when the class that fits is exhausted */

/** Options of a pool; start from PLAIT_POOL_OPTS_INIT. */
struct plait_pool_opts {
    size_t size;      /**< sizeof(struct plait_pool_opts), for versioning */
    const struct plait_pool_class *classes; /**< by ascending size; copied; NULL: 4, 16, 64, 256 KiB, 1 MiB */
    unsigned nclasses; /**< entries at classes */
    uint32_t cache;   /**< buffers of each class that a thread may keep for itself; PLAIT_POOL_CACHE_AUTO */
    size_t align;     /**< of each buffer, bytes: a power of two, at most the system's page size; 0: 64 */
    size_t page_size; /**< as in plait_mem_opts */
    int node;         /**< as in plait_mem_opts */
    unsigned flags;   /**< PLAIT_POOL_... */
    const char *name; /**< for messages, at most 23 characters; copied; NULL: "pool" */
};
#define PLAIT_POOL_OPTS_INIT { sizeof(struct plait_pool_opts), NULL, 0, PLAIT_POOL_CACHE_AUTO, 0, \
                               PLAIT_MEM_PAGE_NORMAL, PLAIT_MEM_NODE_ANY, 0, NULL }

/**
 * Creates a pool, and each class's min buffers. Every growth is one region (plait_mem_alloc()); a page is
 * filled with as many buffers as fit and max allows.
 * @param[out] pool  the pool; the caller owns it and destroys it. NULL on failure.
 * @param opts       options, or NULL for the defaults; not kept.
 * @return 0; PLAIT_E_INVAL (options; the text names the class); otherwise as plait_mem_alloc(), and so does
 *         it block. Any thread, callbacks too.
 */
PLAIT_API int plait_pool_create(struct plait_pool **pool, const struct plait_pool_opts *opts);

/**
 * Frees a pool whose buffers are all free. If some are in use, nothing is freed: the number is returned, and
 * each class that has some is named in the log; free them and call it again. No other thread may use the pool
 * during and after this call.
 * @param pool  NULL is allowed.
 * @return 0: it is gone; above 0: how many buffers are still in use, and the pool is as it was. In a child
 *         after fork(): 0, and the child's descriptions are freed. Does not block. Any thread, callbacks too.
 */
PLAIT_API int plait_pool_destroy(struct plait_pool *pool);

/**
 * Takes a buffer from the smallest class that fits; when that is exhausted, from the next larger one that has
 * one (unless PLAIT_POOL_EXACT is set). Its contents are not defined. Most calls take it from the thread's
 * own cache without a lock; otherwise up to half a cache is fetched at once. With a maximum, buffers in other
 * threads' caches cannot be had until those threads free more or end; buffers that were freed by a thread
 * that did not allocate them can.
 * @param len       bytes; 0 is allowed
 * @param[out] ptr  the buffer; the caller owns it and frees it. NULL on failure.
 * @return 0; PLAIT_E_INVAL (len is above the largest class); PLAIT_E_NOMEM (the text names the class, and
 *         its maximum or the limit that its growth met); otherwise as plait_mem_alloc(); PLAIT_E_FORKED.
 *         Blocks while the pool grows, also for another thread. Any thread, callbacks too.
 */
PLAIT_API int plait_pool_alloc(struct plait_pool *pool, size_t len, void **ptr);

/**
 * Gives a buffer back to its pool. Freeing twice is noticed and changes nothing, as long as the buffer has
 * not been allocated again; if two threads do it at the same moment, only builds with --enable-debug are sure
 * to notice.
 * @param ptr  what plait_pool_alloc() gave; NULL is allowed.
 * @return 0; PLAIT_E_INVAL (no buffer of a pool begins there, or it was freed already), PLAIT_E_FORKED.
 *         Takes a lock only when the thread's cache is full. Any thread, callbacks too.
 */
PLAIT_API int plait_pool_free(void *ptr);

/** Counters of one class of a pool; start from PLAIT_POOL_STATS_INIT. */
struct plait_pool_stats {
    size_t size;            /**< in: sizeof(struct plait_pool_stats) */
    size_t buf_size;        /**< bytes of each buffer, as asked for */
    uint64_t in_use;        /**< buffers that are allocated now; exact while no other thread uses the pool */
    uint64_t cached;        /**< free buffers that are on their way back or in threads' caches */
    uint64_t made;          /**< buffers that exist: in use, cached, or free for every thread */
    uint64_t high_water;    /**< the most that were in use or cached at once: what max would have to be */
    uint64_t grown;         /**< times it grew after the pool's creation */
    uint64_t regions;       /**< regions that it has */
    uint64_t bytes;         /**< bytes that these have reserved */
    uint64_t failures;      /**< allocations that failed for want of a buffer of this class */
    uint64_t spilled;       /**< allocations that fit here and were given a larger class's buffer */
    uint64_t fallbacks;     /**< regions with normal pages where huge ones were asked for */
    uint64_t bind_failures; /**< regions that are not on the NUMA node that was asked for */
};
#define PLAIT_POOL_STATS_INIT { sizeof(struct plait_pool_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/**
 * The counters of class i.
 * @param i           0 ... nclasses - 1
 * @param[in,out] st  size is read, the rest is filled.
 * @return 0, PLAIT_E_NOTFOUND (no such i), PLAIT_E_INVAL (NULL, size), PLAIT_E_FORKED. Blocks while the pool
 *         grows. Any thread, callbacks too.
 */
PLAIT_API int plait_pool_get_stats(struct plait_pool *pool, unsigned i, struct plait_pool_stats *st);

#ifdef __cplusplus
}
#endif
#endif
