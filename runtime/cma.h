/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a peer's memory with one copy, by process_vm_readv(2) ("cross memory attach").
 *
 * Whether that is allowed is found out once for each link: the side that would offer addresses asks the other to read some of its memory
 * (PROBE), and that one tries, takes the time, and says from how many bytes on it would rather read than get the bytes through the ring
 * (PROBED). A process that may not read (another user namespace, Yama, a process that is not dumpable) says so, and gets everything
 * through the ring. If it may not any more when a message has been offered so, it asks for the bytes (NEED, see take.h), and no further
 * ones are offered. It reads only the process that the kernel says is at the other end of the control channel, and only one of its own
 * user. The block that is read first begins with bytes that the peer said it would: that guards against accidents with process numbers,
 * not against the peer. */
#ifndef PLI_RUNTIME_CMA_H
#define PLI_RUNTIME_CMA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "runtime/pieces.h"

struct pli_link;
struct pli_wire_msg;

#define PLI_CMA_NEVER UINT64_MAX

enum pli_cma_state { PLI_CMA_UNKNOWN, PLI_CMA_ASKED, PLI_CMA_YES, PLI_CMA_NO };

/* Of a link; zero bytes, and pidfd -1 (pli_cma_init()). */
struct pli_cma {
    enum pli_cma_state peer_reads; /* may the peer read here? */
    uint64_t min;                  /* bytes from which the peer would rather read; PLI_CMA_NEVER. Only with YES */
    bool asked;                    /* PROBE has come */
    bool may_read;                 /* we may read there: it has been answered with yes */
    bool refused;                  /* and the kernel has refused it since */
    int pidfd;                     /* the peer's process: a number may be used again */
};

void pli_cma_init(struct pli_cma *cma);
void pli_cma_close(struct pli_cma *cma);

/* Should a message of len bytes be offered by its addresses? always: whenever the peer can read at all. Asks the peer if it has not been asked.
 * Owner thread; does not block. */
bool pli_cma_wanted(struct pli_link *link, uint64_t len, bool always);

/* PROBE and PROBED. 0 or a negative code: the link fails. PROBE blocks for the time of some copies, below a millisecond. */
int pli_cma_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds);

/* Reads len bytes of the peer's memory at from (addresses there, checked by nobody) into into, and moves both on; both have as many.
 * PLAIT_E_BADPEER: the peer has no such memory; PLAIT_E_PERM: it may not be read any more; PLAIT_E_PEERDIED; PLAIT_E_SYSTEM. On an error some
 * bytes may have been written. Blocks for the copy. */
int pli_cma_read(struct pli_link *link, struct pli_cursor *from, struct pli_cursor *into, size_t len);
/* It was refused (PLAIT_E_PERM): counts it, and it is not to be tried again. */
void pli_cma_refused(struct pli_link *link);
/* The peer says that it may not read here any more: nothing is offered so from here on. */
void pli_cma_unread(struct pli_link *link);
/* After the last of a message's bytes: 0, or PLAIT_E_PEERDIED. A process that ended may have left its number to another one: what was
 * read is nobody's word then. */
int pli_cma_still_there(struct pli_link *link);

#endif
