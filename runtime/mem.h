/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions (plait_mem): what the rest of the library needs of them.
 *
 * A region has one reference of its user's and one of each holder (a message in it, an operation on it). It
 * can be found as long as its user has not released it; it lives until the last reference is gone. */
#ifndef PLI_RUNTIME_MEM_H
#define PLI_RUNTIME_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include "plait/mem.h"
#include "util/list.h"

#define PLI_MEM_NAME_MAX 48

struct pli_topo;

struct plait_mem {
    _Atomic unsigned refs;
    enum plait_mem_kind kind;
    bool forked; /* set in the child of a fork: nothing is mapped here, fd is closed */
    bool node_verified;
    bool bind_failed;
    bool writable; /* PLAIT_MEM_WRITABLE: whoever gets fd can write */
    int fd; /* -1: registered memory. Sealed against resizing and, unless writable, against new writable mappings:
             * whoever gets it can map it read-only. It stays the region's. */
    int node;    /* as asked for */
    uint64_t id; /* above 0, never used again in this process: names the region to peers */
    char *addr;
    size_t len;    /* what may be used */
    size_t mapped; /* whole pages: the size of fd */
    size_t page_size, page_size_asked;
    struct pli_list all; /* for the fork handler */
    struct pli_list shares; /* struct pli_share, one for each link; with released under the lock of share.c */
    bool released;
    struct pli_list exports; /* struct pli_export, under its lock */
    char name[PLI_MEM_NAME_MAX];
};

/* The region that has all of [addr, addr + len), with a reference for the caller; NULL: there is none. Blocks
 * only while another thread makes or releases a region, for a moment. Any thread. */
struct plait_mem *pli_mem_find(const void *addr, size_t len);

/* One more reference; the caller has one. Any thread; never blocks. */
void pli_mem_hold(struct plait_mem *m);
/* One less; the last one unmaps. Any thread; takes the lock of the index for a moment. */
void pli_mem_put(struct plait_mem *m);
/* A new descriptor of an allocated region, the caller's, through which nobody can write, whatever fd allows; processes of the same user
 * can open it again through /proc. PLAIT_E_NOFILE, SYSTEM. Any thread; does not block. */
int pli_mem_open_readonly(const struct plait_mem *m);

/* ---- among mem*.c and pool*.c ---- */

/* Fills *opts from *given (another one; NULL: defaults), page_size in bytes, name not NULL; *topo: for a node
 * that is asked for, else NULL. PLAIT_E_INVAL, TOPOLOGY. Any thread; reads the topology once. */
int pli_mem_check_opts(const struct plait_mem_opts *given, struct plait_mem_opts *opts,
                       const struct pli_topo **topo);

/* Makes memory of len bytes with all pages reserved, on node if that is not -1 (topo may be NULL then): fills
 * fd, addr, len, mapped, page_size, page_size_asked, node, node_verified, bind_failed. name and writable are set already.
 * Warns of what it worked around. Errors as plait_mem_alloc(). Blocks for the kernel to clear the pages. Any
 * thread. */
int pli_mem_reserve(struct plait_mem *m, size_t len, size_t page_size, const struct pli_topo *topo, int node);
/* Undoes that. */
void pli_mem_unreserve(struct plait_mem *m);

/* Puts a region into the index. PLAIT_E_BUSY (overlap), NOMEM. */
int pli_mem_index_add(struct plait_mem *m);
/* pli_mem_find() finds it no more; no-op in the child of a fork. */
void pli_mem_index_del(struct plait_mem *m);
/* Nobody has a reference: the fork handler forgets it. */
void pli_mem_index_forget(struct plait_mem *m);

/* ---- around fork() (runtime/fork.c) ---- */

/* The innermost locks: nothing else is locked while they are held. */
void pli_mem_fork_lock(void);
void pli_mem_fork_unlock(void);
/* In the child, with the lock held: async-signal-safe. Gives the lock back. */
void pli_mem_forked(void);

#endif
