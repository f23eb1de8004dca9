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
#include "util/list.h"

/* Bytes that are mapped of one peer, whoever holds them: it lives until the last of them is unmapped. Any thread; nothing blocks. */
struct pli_mapped {
    _Atomic unsigned refs;
    _Atomic uint64_t bytes;
};

/* One reference for the caller; NULL: no memory. */
struct pli_mapped *pli_mapped_new(void);
/* NULL is allowed. */
void pli_mapped_put(struct pli_mapped *mapped);
/* Counts bytes more, unless that would be over max: false. */
bool pli_mapped_add(struct pli_mapped *mapped, uint64_t bytes, uint64_t max);
void pli_mapped_sub(struct pli_mapped *mapped, uint64_t bytes);

struct pli_peermem {
    _Atomic unsigned refs;
    pid_t owner; /* the process that mapped it: a child of fork has no mapping */
    char *addr;
    size_t size;
    size_t filled;        /* bytes whose page table entries are there: fill.c */
    struct pli_list fill; /* pli_fill.regions */
    struct pli_mapped *mapped; /* where its bytes are counted, or NULL */
};

/* Maps size bytes of fd, which it takes over, read-only, or writable. Checks that it is a memfd of that size (whole pages), reserved as a
 * whole, sealed so that it cannot shrink, and if it is to be read-only sealed so that this process could not write either, or opened for
 * reading only (pli_mem_open_readonly()).
 * One reference for the caller. PLAIT_E_BADPEER (the sentence names what is wrong), NOMEM (names the limit), SYSTEM. Any thread; does not
 * block for long. */
int pli_peermem_attach(struct pli_peermem **pm, int fd, uint64_t size, bool writable);

/* Its bytes have been counted there: the last pli_peermem_put() takes them off again. Before anybody else has a reference. */
void pli_peermem_account(struct pli_peermem *pm, struct pli_mapped *mapped);

/* One more, one less; the last one unmaps. Any thread; never block for long. put: NULL is allowed. */
void pli_peermem_hold(struct pli_peermem *pm);
void pli_peermem_put(struct pli_peermem *pm);

#endif
