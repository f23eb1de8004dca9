/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file topo.h
 * @brief The machine as plait sees it, and the cores that contexts would get.
 *
 * PUs (hardware threads) and NUMA nodes carry the operating system's numbers. Cores and packages are counted
 * from 0 in topology order: neighbours in number are neighbours in the machine. "Allowed" is what the
 * cgroup's cpuset and the affinity mask leave; plait never goes beyond it.
 *
 * HWLOC_SYNTHETIC="numa:4 core:2 pu:1" or HWLOC_XMLFILE=file (from `lstopo --of xml file`) show another
 * machine instead of this one.
 */
#ifndef PLAIT_TOPO_H
#define PLAIT_TOPO_H

#include <stddef.h>
#include <stdint.h>
#include <plait/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A topology that was read once and does not change. */
struct plait_topo;

/**
 * Reads the topology. What is allowed is taken from the calling thread's affinity mask, so call it from a
 * thread that is not pinned.
 * @param[out] topo  the topology; the caller owns it and closes it. NULL on failure.
 * @return 0, PLAIT_E_INVAL (topo is NULL), PLAIT_E_TOPOLOGY (the text names the environment variable, the
 *         file and the reason), PLAIT_E_NOMEM. Reads files under /sys, for 10 to 40 ms. Any thread; from
 *         callbacks it is allowed but slow.
 */
PLAIT_API int plait_topo_open(struct plait_topo **topo);

/** Frees the topology and its strings; NULL is allowed. Never blocks. Any thread, callbacks too. */
PLAIT_API void plait_topo_close(struct plait_topo *topo);

/** Summary of the machine; start from PLAIT_TOPO_INFO_INIT. */
struct plait_topo_info {
    size_t size;        /**< in: sizeof(struct plait_topo_info) */
    int packages;       /**< sockets; 0: not known */
    int cores;          /**< physical cores */
    int cores_allowed;  /**< of these, with a PU that this process may use */
    int pus;            /**< hardware threads that are online */
    int pus_allowed;    /**< of these, what this process may use */
    int pus_offline;    /**< known to the kernel, but offline */
    int nodes;          /**< NUMA nodes, with memory or without */
    int caches;         /**< kinds of caches, for plait_topo_get_cache() */
    int this_system;    /**< 0: read from HWLOC_SYNTHETIC or HWLOC_XMLFILE, nothing can be pinned by it */
    int bound;          /**< 1: a launcher (or taskset) has narrowed the affinity mask */
    uint64_t memory;    /**< bytes, all nodes together */
    const char *source; /**< "this machine", "HWLOC_XMLFILE=..."; owned by the topology */
    const char *allowed_list; /**< the PUs that this process may use, as "0-3,8"; owned by the topology */
};
#define PLAIT_TOPO_INFO_INIT { sizeof(struct plait_topo_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL }

/**
 * The summary.
 * @param[in,out] info  size is read, the rest is filled.
 * @return 0, PLAIT_E_INVAL (NULL, size). Never blocks. Any thread, callbacks too.
 */
PLAIT_API int plait_topo_get_info(const struct plait_topo *topo, struct plait_topo_info *info);

/** A hardware thread; start from PLAIT_TOPO_PU_INIT. */
struct plait_topo_pu {
    size_t size; /**< in: sizeof(struct plait_topo_pu) */
    int pu;      /**< the operating system's number */
    int core;    /**< index of its core */
    int thread;  /**< 0: the core's first hardware thread */
    int package; /**< index, -1: not known */
    int node;    /**< number of its NUMA node */
    int llc;     /**< index of its last-level cache, -1: none known */
    int allowed; /**< 1: this process may use it */
};
#define PLAIT_TOPO_PU_INIT { sizeof(struct plait_topo_pu), 0, 0, 0, 0, 0, 0, 0 }

/**
 * Hardware thread i, in topology order (the threads of a core follow each other).
 * @param i  0 ... pus - 1
 * @return 0, PLAIT_E_NOTFOUND (no such i), PLAIT_E_INVAL (NULL, size). Never blocks. Any thread, callbacks
 *         too.
 */
PLAIT_API int plait_topo_get_pu(const struct plait_topo *topo, int i, struct plait_topo_pu *pu);

/** A NUMA node; start from PLAIT_TOPO_NODE_INIT. */
struct plait_topo_node {
    size_t size;       /**< in: sizeof(struct plait_topo_node) */
    int node;          /**< the operating system's number */
    int package;       /**< index, -1: none or several */
    int cores;         /**< physical cores that are nearest to this node */
    int cores_allowed; /**< of these, with a PU that this process may use */
    int allowed;       /**< 1: this process may have memory from it */
    int mem_node;    /**< where memory for its cores comes from: itself, or the nearest node that has some */
    uint64_t memory; /**< bytes, 0: none */
};
#define PLAIT_TOPO_NODE_INIT { sizeof(struct plait_topo_node), 0, 0, 0, 0, 0, 0, 0 }

/**
 * NUMA node i, in topology order.
 * @param i  0 ... nodes - 1
 * @return 0, PLAIT_E_NOTFOUND (no such i), PLAIT_E_INVAL (NULL, size). Never blocks. Any thread, callbacks
 *         too.
 */
PLAIT_API int plait_topo_get_node(const struct plait_topo *topo, int i, struct plait_topo_node *node);

/** All caches of one kind and size; start from PLAIT_TOPO_CACHE_INIT. */
struct plait_topo_cache {
    size_t size;         /**< in: sizeof(struct plait_topo_cache) */
    int level;           /**< 1 ... 5 */
    char kind;           /**< 'd' data, 'i' instructions, 'u' unified */
    int count;           /**< how many the machine has */
    int pus;             /**< hardware threads that share one */
    unsigned line_bytes; /**< cache line, bytes; 0: not known */
    uint64_t bytes;      /**< of each */
};
#define PLAIT_TOPO_CACHE_INIT { sizeof(struct plait_topo_cache), 0, 0, 0, 0, 0, 0 }

/**
 * Kind i of caches, the innermost first.
 * @param i  0 ... caches - 1
 * @return 0, PLAIT_E_NOTFOUND (no such i), PLAIT_E_INVAL (NULL, size). Never blocks. Any thread, callbacks
 *         too.
 */
PLAIT_API int plait_topo_get_cache(const struct plait_topo *topo, int i, struct plait_topo_cache *cache);

/** What is to be placed; start from PLAIT_TOPO_PLACE_OPTS_INIT. */
struct plait_topo_place_opts {
    size_t size;    /**< sizeof(struct plait_topo_place_opts) */
    int contexts;   /**< of this process; 0: one for each core of its share */
    int use_smt;    /**< nonzero: use the cores' further hardware threads when the cores are used up */
    int local_rank; /**< among the job's ranks on this node, which share the cores: 0 ... local_size - 1 */
    int local_size; /**< how many there are; 1: no job */
    int near_pu;    /**< begin near this PU, if the rank is alone; -1: anywhere */
    int near_node;  /**< the same for a NUMA node */
};
#define PLAIT_TOPO_PLACE_OPTS_INIT { sizeof(struct plait_topo_place_opts), 0, 0, 0, 1, -1, -1 }

/** Where one context goes. */
struct plait_topo_place {
    int pu;             /**< the hardware thread it is pinned to */
    int core;           /**< index of the core */
    int node;           /**< number of the core's NUMA node */
    int mem_node;       /**< number of the node that its memory comes from */
    int oversubscribed; /**< 1: more contexts than cores in the job: waiting contexts sleep, not spin */
};

/**
 * The places that contexts would get. A pure calculation: nothing is pinned, and equal arguments give equal
 * places.
 * @param opts      NULL: the defaults; not kept.
 * @param[out] out  room for cap entries, one is filled for each context; NULL with cap 0: only count.
 * @param cap       entries at out
 * @return the number of contexts, PLAIT_E_INVAL (options out of range, or cap too small: call it with NULL
 *         first), PLAIT_E_NOMEM. Never blocks. Any thread, callbacks too.
 */
PLAIT_API int plait_topo_get_places(const struct plait_topo *topo,
                                    const struct plait_topo_place_opts *opts,
                                    struct plait_topo_place *out, int cap);

#ifdef __cplusplus
}
#endif
#endif
