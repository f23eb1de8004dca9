/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory without a name: sealed memfds, reserved up front, mapped read-write by their maker and read-only by the peer. */
#ifndef PLI_SHM_SEGMENT_H
#define PLI_SHM_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pli_topo;

struct pli_segment {
    void *addr;
    size_t size;
    int fd; /* -1 once nobody needs it */
};

/* Makes a memfd of size bytes (whole pages), reserves its pages, maps it, binds them to a NUMA node (topo NULL or node -1: leave) and seals it against
 * shrinking, growing, further writable mappings and further seals. PLAIT_E_NOMEM names the limit that is in the way (memory cgroup, RLIMIT_AS,
 * RLIMIT_FSIZE, the system's memory); NOFILE, SYSTEM. bind_failures is incremented if the binding failed (a warning, not an error). */
int pli_segment_create(struct pli_segment *seg, const char *name, size_t size, const struct pli_topo *topo, int node,
                       uint64_t *bind_failures);

/* Maps a peer's memfd read-only after checking its type, size and seals. Takes fd over (closes it). PLAIT_E_BADPEER names what is wrong;
 * NOMEM, SYSTEM. */
int pli_segment_attach(struct pli_segment *seg, int fd, size_t size);

/* Unmaps and closes. unmapped: in a forked child, where MADV_DONTFORK has removed the mapping already. */
void pli_segment_destroy(struct pli_segment *seg, bool unmapped);

#endif
