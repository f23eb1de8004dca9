/* SPDX-License-Identifier: BSD-3-Clause */
/* A peer's region, mapped here. Whoever uses the bytes has a reference: a message in place may outlive its connection, its link and its
 * sender, and the mapping stays until the last of them is gone. */
#ifndef PLI_RUNTIME_PEERMEM_H
#define PLI_RUNTIME_PEERMEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pli_peermem {
    _Atomic unsigned refs;
    pid_t owner; /* the process that mapped it: a child of fork has no mapping */
    bool writable;
    char *addr;
    size_t size;
};

/* Maps size bytes of fd, which it takes over, read-only, or writable. Checks that it is a memfd of that size (whole pages), reserved as a
 * whole, sealed so that it cannot shrink, and if it is to be read-only sealed so that this process could not write either.
 * One reference for the caller. PLAIT_E_BADPEER (the sentence names what is wrong), NOMEM (names the limit), SYSTEM. Any thread; does not
 * block for long. */
int pli_peermem_attach(struct pli_peermem **pm, int fd, uint64_t size, bool writable);

/* One more, one less; the last one unmaps. Any thread; never block for long. put: NULL is allowed. */
void pli_peermem_hold(struct pli_peermem *pm);
void pli_peermem_put(struct pli_peermem *pm);

#endif
