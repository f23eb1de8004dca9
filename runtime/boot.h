/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Job bootstrap: how the processes that one launcher started learn of each other.
 *
 * Three backends with one interface:
 *   PMIx    Open MPI's mpirun, prterun, srun --mpi=pmix. libpmix is loaded only when it is chosen.
 *   PMI-1   MPICH's mpiexec (Hydra) and those that speak its text protocol over PMI_FD.
 *   none    no launcher: a job of one.
 * The environment decides; PLAIT_JOB=auto|pmix|pmi1|none overrides it.
 *
 * Every call may block, for at most timeout_ms where it takes one (negative: for ever). One thread at a
 * time, any thread. With PMI-1 the connection to the launcher is shared with MPICH's MPI library: no
 * thread may be inside a call here while another is inside MPI_Init, MPI_Finalize, MPI_Comm_spawn,
 * MPI_Comm_connect or alike. 'Collective' means: every rank calls it, in the same order, also with
 * respect to MPI_Init and MPI_Finalize.
 *
 * Errors: PLAIT_E_LAUNCHER with a text that names launcher, call and reason; PLAIT_E_TIMEDOUT; after a
 * time-out or a broken answer the launcher's state is unknown and every later call fails.
 */
#ifndef PLI_RUNTIME_BOOT_H
#define PLI_RUNTIME_BOOT_H

#include <stddef.h>
#include <stdint.h>

#define PLI_BOOT_KEY_MAX    31      /* characters in a key: letters, digits, '.', '_', '-' */
#define PLI_BOOT_VALUE_MAX  16384   /* bytes in the value of a key */
#define PLI_BOOT_GATHER_MAX 4096    /* bytes that one rank gives to an allgather */
#define PLI_BOOT_RANKS_MAX  (1u << 22)

enum pli_boot_kind { PLI_BOOT_NONE, PLI_BOOT_PMI1, PLI_BOOT_PMIX };

struct pli_boot_ops;
struct pli_boot_kv;

/* Read what stands above the line; it never changes between init and finalize. */
struct pli_boot {
    enum pli_boot_kind kind;
    uint32_t rank, size;
    uint32_t local_rank;            /* this rank's index in local_ranks */
    uint32_t local_size;            /* how many ranks of the job run on this node, this one included */
    const uint32_t *local_ranks;    /* those ranks, ascending */
    char job_id[320];               /* the launcher's name of the job (PMIx namespace, PMI kvsname): equal in
                                     * all ranks. Neither secret nor unique for sure: Open MPI's is a small
                                     * number made of host and pid */
    /* ---- */
    const struct pli_boot_ops *ops;
    struct pli_boot_kv *own;        /* what this rank has put */
    uint32_t epoch;                 /* how often the process had joined before: keeps keys apart */
    uint32_t gathers;
    int pid;
};

/* Joins the job. Collective in effect (where the launcher does not say who shares the node, the ranks
 * exchange it). At most one boot is open in a process; after finalize it may be opened again, as often in
 * every rank. May be called before MPI_Init, between MPI_Init and MPI_Finalize, or without MPI. Not for the
 * first time after MPI_Finalize, which ends the connection; under PMI-1 not at all after it.
 * *out is owned by the caller, who gives it to pli_boot_finalize().
 * Errors: PLAIT_E_LAUNCHER (also: a launcher is there whose protocol cannot be used), PLAIT_E_INVAL
 * (PLAIT_JOB), PLAIT_E_BUSY (already open), PLAIT_E_FORKED, PLAIT_E_NOMEM, PLAIT_E_TIMEDOUT. */
int pli_boot_init(struct pli_boot **out, int timeout_ms);

/* Puts a value under this rank's name. Others can get it after the next fence. A key is put once.
 * data is copied. Errors: PLAIT_E_INVAL, PLAIT_E_TOOBIG, PLAIT_E_NOMEM, PLAIT_E_LAUNCHER. */
int pli_boot_put(struct pli_boot *b, const char *key, const void *data, size_t len);

/* Collective: returns when every rank has entered; what was put before it is visible after it. */
int pli_boot_fence(struct pli_boot *b, int timeout_ms);

/* Copies what a rank has put into buf (cap bytes) and its length into *len (may be NULL).
 * Errors: PLAIT_E_NOTFOUND (no such key), PLAIT_E_TOOBIG (longer than cap), PLAIT_E_INVAL (no such rank). */
int pli_boot_get(struct pli_boot *b, uint32_t rank, const char *key, void *buf, size_t cap, size_t *len,
                 int timeout_ms);

/* Collective: the same as fence, without an exchange of data. */
int pli_boot_barrier(struct pli_boot *b, int timeout_ms);

/* Collective: rank r's len bytes arrive at all + r * len in every rank. len is the same in all ranks and
 * at most PLI_BOOT_GATHER_MAX; all has room for size * len and is the caller's, as is mine (may overlap). */
int pli_boot_allgather(struct pli_boot *b, const void *mine, size_t len, void *all, int timeout_ms);

/* Leaves the job and frees b (NULL is allowed), whatever it returns. Not a barrier. In a child after
 * fork() it only frees. The launcher is told when the process exits (in an exit handler), not before, as it
 * could not be joined again, also not by MPI_Init. A process that exits with its job open, or with _exit(),
 * therefore counts as failed for the launcher. */
int pli_boot_finalize(struct pli_boot *b);

#endif
