/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of the job bootstrap: what boot.c asks of a backend. See boot.h for blocking and threads. */
#ifndef PLI_RUNTIME_BOOT_PRIV_H
#define PLI_RUNTIME_BOOT_PRIV_H

#include <stdbool.h>

#include "runtime/boot.h"
#include "util/clock.h"

/* Keys that arrive here are complete ("plait-<epoch>-<key>"), values within PLI_BOOT_VALUE_MAX, ranks in
 * range and not the caller's own. deadline is on pli_clock_now()'s clock (PLI_CLOCK_NEVER: none). */
struct pli_boot_ops {
    const char *name;
    int (*put)(struct pli_boot *b, const char *key, const void *data, size_t len);
    int (*fence)(struct pli_boot *b, bool with_data, uint64_t deadline);
    int (*get)(struct pli_boot *b, uint32_t rank, const char *key, void *buf, size_t cap, size_t *len,
               uint64_t deadline);
    int (*leave)(struct pli_boot *b);
};

#define PLI_BOOT_WIRE_KEY_MAX 48 /* "plait-" epoch "-" key, without the NUL */

/* Each fills rank, size, job_id and ops, and local_* where the launcher knows (else local_ranks stays
 * NULL). On an error nothing is left to undo. */
int pli_boot_pmi1_join(struct pli_boot *b, uint64_t deadline);
int pli_boot_pmix_join(struct pli_boot *b, uint64_t deadline);

/* Which backend the environment asks for. Does not block. PLAIT_E_INVAL, PLAIT_E_LAUNCHER. */
int pli_boot_choose(enum pli_boot_kind *kind);

/* For texts: the process-wide name of PLAIT_JOB's values. */
const char *pli_boot_kind_name(enum pli_boot_kind kind);

/* Is PMI_FD an open stream socket of this process? NULL if so (*fd gets it), else the reason. */
const char *pli_boot_pmi_fd(int *fd);

/* Takes over a malloc()ed, ascending list of the ranks on this node (frees it on an error).
 * PLAIT_E_LAUNCHER if b->rank is not in it. */
int pli_boot_set_locals(struct pli_boot *b, uint32_t *ranks, uint32_t n);

/* An MPI library in this process. Cheap enough to ask each time. */
enum pli_boot_mpi { PLI_BOOT_MPI_ABSENT, PLI_BOOT_MPI_IDLE, PLI_BOOT_MPI_ACTIVE, PLI_BOOT_MPI_FINALIZED };
enum pli_boot_mpi pli_boot_mpi_state(void);

#endif
