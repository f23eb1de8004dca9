/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine: cores, NUMA nodes and caches; where contexts go; pinning of threads, binding of memory.
 *
 * Numbers: PUs (hardware threads) and NUMA nodes carry the operating system's numbers; cores and packages
 * are counted from 0 in topology order, so that neighbours in number are neighbours in the machine.
 *
 * A loaded pli_topo is never changed (but by pli_topo_limit), so any number of threads may read it at once.
 * The topology can be somebody else's (HWLOC_XMLFILE, HWLOC_SYNTHETIC): placement works on it as on the real
 * one, while pinning and binding do nothing and say so with PLI_TOPO_NOOP. */
#ifndef PLI_TOPO_TOPO_H
#define PLI_TOPO_TOPO_H

#include <stddef.h>
#include <stdint.h>

#include "plait/status.h"

struct pli_topo;

/* Returned instead of 0 by what pins or binds when the topology is not that of this machine. */
#define PLI_TOPO_NOOP 1

struct pli_topo_info {
    int packages, cores, pus, nodes, caches; /* counts; nodes with and without memory; caches: groups */
    int cores_allowed, pus_allowed;          /* of these, what this process may run on */
    int nodes_allowed;                       /* NUMA nodes that it may have memory from */
    int cores_machine, pus_machine;          /* what every process of this cgroup may run on */
    int pus_offline;                         /* known to the kernel, not in pus */
    int this_system;                         /* 0: from HWLOC_XMLFILE or HWLOC_SYNTHETIC */
    int bound;                /* a launcher or user narrowed the affinity mask below the cgroup's */
    const char *source;       /* "this machine", "HWLOC_XMLFILE=..." */
    const char *allowed_list; /* the allowed PUs, as "0-3,8" */
};

struct pli_topo_pu {
    int os;     /* the operating system's number */
    int core;   /* index of its core */
    int thread; /* 0 for the first hardware thread of its core, then 1, ... */
    int allowed;
};

struct pli_topo_core {
    int package;  /* index, -1 unknown */
    int node;     /* OS number of the nearest NUMA node */
    int llc;      /* index among the last-level caches, -1: none */
    int first_pu; /* its PUs are pu(first_pu) ... pu(first_pu + pus - 1) */
    int pus;
    int pus_allowed;
};

struct pli_topo_node {
    int os;
    int package; /* index, -1: none or several */
    int cores, cores_allowed;
    int allowed;     /* this process may have memory from it */
    int mem_node;    /* OS number of the node that memory for this node comes from: itself, if it has any */
    uint64_t memory; /* bytes */
};

/* All caches of one kind and size. */
struct pli_topo_cache {
    int level;     /* 1 ... 5 */
    char kind;     /* 'd' data, 'i' instruction, 'u' unified */
    int count;     /* how many in the machine */
    int pus;       /* PUs that share one */
    unsigned line; /* bytes, 0 unknown */
    uint64_t size; /* bytes each */
};

/* Loads the topology: HWLOC_SYNTHETIC, else HWLOC_XMLFILE, else this machine with the affinity mask of the
 * calling thread and the cgroup's cpuset. The caller destroys *out. Takes 10-40 ms and reads /sys; any
 * thread. PLAIT_E_TOPOLOGY (the text names variable, file and reason), PLAIT_E_NOMEM. */
int pli_topo_load(struct pli_topo **out);

/* Frees it; NULL is allowed. Nobody may be using it. Never blocks. */
void pli_topo_destroy(struct pli_topo *t);

/* Narrows what this process may use to the PUs in list ("0-3,8"); what was not allowed before stays so.
 * Only before t is shared with other threads. PLAIT_E_INVAL (not a list), PLAIT_E_TOPOLOGY (nothing is left;
 * t is unchanged), PLAIT_E_NOMEM. */
int pli_topo_limit(struct pli_topo *t, const char *list);

/* What the functions below return belongs to t. Indexes are from 0; outside of the counts: NULL. */
const struct pli_topo_info *pli_topo_info(const struct pli_topo *t);
const struct pli_topo_pu *pli_topo_pu(const struct pli_topo *t, int i);
const struct pli_topo_core *pli_topo_core(const struct pli_topo *t, int i);
const struct pli_topo_node *pli_topo_node(const struct pli_topo *t, int i);
const struct pli_topo_cache *pli_topo_cache(const struct pli_topo *t, int i);
/* By the operating system's number; NULL: there is no such. */
const struct pli_topo_pu *pli_topo_find_pu(const struct pli_topo *t, int os);
const struct pli_topo_node *pli_topo_find_node(const struct pli_topo *t, int os);

/* The NUMA node nearest to a PU, -1 if there is no such PU. */
int pli_topo_node_of_pu(const struct pli_topo *t, int pu);
/* The node that memory for this node should come from: itself, or the nearest one that has memory and is
 * allowed. -1 if there is no such node. */
int pli_topo_mem_node(const struct pli_topo *t, int node);

/* A number that two processes of one machine have in common if and only if they may use the same PUs (but for
 * a hash collision). Ranks exchange it to learn who shares their cores (share_size below). Never 0. */
uint64_t pli_topo_mask_id(const struct pli_topo *t);

/* ---- where a NIC is ---- */

struct pli_topo_nic {
    int node;       /* OS number, -1: not known, as of lo, of a virtual device, or on a machine that does not say */
    char cpus[256]; /* the PUs of this machine that are near, as "0-7,16-23"; "": not known */
};

/* What the kernel says of a network device ("eth0"), an RDMA device ("mlx5_0") or a PCI function ("0000:3b:00.0"). Of this machine, whatever
 * topology is loaded. sysfs: NULL, or a folder in the place of /sys. Reads a few files; any thread. */
void pli_topo_nic(const char *sysfs, const char *name, struct pli_topo_nic *nic);

/* ---- placement: pure, no system calls, the same answer for the same arguments ---- */

struct pli_place_opts {
    int contexts;   /* contexts of this rank; 0: one per core of its share (with use_smt: one per PU) */
    int use_smt;    /* when the cores are used up, go on with their further hardware threads */
    int local_rank; /* 0 ... local_size - 1, among the ranks of the job on this node */
    int local_size; /* 0 or 1: alone */
    int share_rank; /* the same, among those local ranks whose pli_topo_mask_id() equals this one's */
    int share_size; /* 0: not known; then a mask that a launcher narrowed is taken for this rank's own */
    int near_pu;    /* begin near this PU (OS number), if the rank is alone in its mask; -1: anywhere */
    int near_node;  /* the same for a NUMA node */
};
#define PLI_PLACE_OPTS_INIT { 0, 0, 0, 1, 0, 0, -1, -1 }

struct pli_place {
    int pu;             /* OS number: pin here */
    int core;           /* index of its core */
    int node;           /* OS number of the core's NUMA node */
    int mem_node;       /* OS number of the node for this context's memory; differs where node has none */
    int oversubscribed; /* more contexts than cores in the job: park, do not spin. The same in all entries */
};

#define PLI_PLACE_MAX 65536

/* Fills out with one entry for each context. Ranks that share a mask and give the same contexts and use_smt
 * get disjoint cores as long as there are enough; rank i + 1 follows rank i; the contexts of a rank have a
 * core each, on one NUMA node (one last-level cache) if they fit. out: room for cap entries; NULL (cap 0)
 * only to count. Returns the number of entries, PLAIT_E_INVAL (options out of range, or cap too small),
 * PLAIT_E_NOMEM. Never blocks; any thread. */
int pli_topo_place(const struct pli_topo *t, const struct pli_place_opts *opts, struct pli_place *out,
                   int cap);

/* ---- binding of threads ---- */

/* A thread's affinity mask from before it was pinned. */
struct pli_pin {
    int valid;
    unsigned long mask[8192 / (8 * sizeof(unsigned long))];
};

/* Pins the calling thread to a PU. *saved (may be NULL) gets the earlier mask, for pli_topo_unpin.
 * 0; PLI_TOPO_NOOP; PLAIT_E_TOPOLOGY (the PU does not exist or is not allowed: a mask is never widened);
 * PLAIT_E_SYSTEM. Texts name the PU. Does not block. */
int pli_topo_pin(const struct pli_topo *t, int pu, struct pli_pin *saved);

/* Gives the calling thread the mask in saved again, once. 0, PLI_TOPO_NOOP (nothing was saved),
 * PLAIT_E_SYSTEM. */
int pli_topo_unpin(struct pli_pin *saved);

/* The PU that the calling thread runs on now (OS number of this machine), or PLAIT_E_SYSTEM. Never blocks. */
int pli_topo_current_pu(void);

/* ---- binding of memory ---- */

/* Asks that the pages of [addr, addr + len) come from a node (from its mem_node, if it has no memory), and
 * moves those that are there already and that only this process has. addr is a multiple of the page size. The
 * node is preferred, not forced: when it is full the kernel takes another one instead of killing the process.
 * 0; PLI_TOPO_NOOP; PLAIT_E_INVAL (addr, len, no such node), PLAIT_E_UNSUPPORTED (the kernel or the container
 * does not allow it), PLAIT_E_SYSTEM. The last two are warned of once, with the node's number; the caller
 * counts them and goes on. With one node only, there is nothing to get wrong, and nothing fails. May take
 * long for pages that have to be moved; any thread. */
int pli_mem_bind(const struct pli_topo *t, void *addr, size_t len, int node);

struct pli_mem_pages {
    size_t total, there, elsewhere, absent; /* absent: not touched by this process yet */
    int other_node;                         /* where the first stray page is, -1: nowhere */
};

/* Checks where the pages are: those present must be on the node, those absent under a policy that prefers it.
 * *pages may be NULL. Touches nothing. 0; PLI_TOPO_NOOP (nothing checked); PLAIT_E_INVAL;
 * PLAIT_E_UNSUPPORTED; PLAIT_E_SYSTEM (pages or policy are elsewhere, or the call failed); warnings as in
 * pli_mem_bind. Any thread. */
int pli_mem_verify(const struct pli_topo *t, const void *addr, size_t len, int node,
                   struct pli_mem_pages *pages);

#endif
