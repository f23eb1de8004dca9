/* SPDX-License-Identifier: BSD-3-Clause */
/* Which core a context gets, and pinning its thread. Any thread; the first call that needs the topology
 * reads it (10-40 ms). */
#ifndef PLI_RUNTIME_PLACE_H
#define PLI_RUNTIME_PLACE_H

#include "runtime/loop.h"
#include "topo/topo.h"

/* The topology of this process, read once and kept; NULL: it cannot be read (text as of pli_topo_load). */
const struct pli_topo *pli_place_topo(void);

/* Chooses count PUs (OS numbers), those with the fewest contexts of this process first, and counts a
 * context on each. use_smt: hardware threads count as cores. PLAIT_E_TOPOLOGY, PLAIT_E_NOMEM. */
int pli_place_take(int *pus, unsigned count, bool use_smt);
void pli_place_give(const int *pus, unsigned count);
/* How many places there are: cores, or PUs with use_smt. */
int pli_place_count(bool use_smt);

/* Pins the calling thread for a context: cpu is an OS number, or PLAIT_CPU_AUTO. Fills ctx->cpu, node
 * and pin; with a topology that is not this machine's nothing is pinned. PLAIT_E_TOPOLOGY, NOMEM,
 * SYSTEM. */
int pli_place_pin(struct plait_ctx *ctx, int cpu);
/* Ends that; the thread gets its old affinity if it is the context's owner. */
void pli_place_unpin(struct plait_ctx *ctx);

/* Around fork(): the child must not find the list of used cores half changed. */
void pli_place_lock(void);
void pli_place_unlock(void);

/* Remembers the calling thread's affinity as the process's; returns its number of CPUs. Once, before
 * plait pins a thread. */
unsigned pli_place_note_mask(void);
/* Gives the calling thread that affinity: a new thread inherits the one core that its creator is pinned
 * to, and would fight with a context that spins there. */
void pli_place_free_thread(void);

#endif
