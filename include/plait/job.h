/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file job.h
 * @brief The ranks that a launcher started together.
 *
 * plait_job_open() joins what mpirun (PMIx) or mpiexec (PMI-1) started; without a launcher it is a job of one.
 * Ranks find each other through the launcher and talk over sessions. A rank listens on the loopback if the whole job is
 * on one host; else at an address that the other nodes reach: of the interface with the default route, or of the first
 * one that is up. PLAIT_JOB_ADDR chooses another: an interface (ib0), a network (10.1.0.0/16) or an address. Every function is called by the thread that
 * owns the job's context, and not from callbacks, unless it says otherwise.
 */
#ifndef PLAIT_JOB_H
#define PLAIT_JOB_H

#include <plait/session.h>

#ifdef __cplusplus
extern "C" {
#endif

struct plait_job;

/** Options of a job; start from PLAIT_JOB_OPTS_INIT. */
struct plait_job_opts {
    size_t size;
    struct plait_session_opts session; /**< for the sessions that other ranks open to this one */
    /** As in plait_listen_opts; its arg is session.arg. NULL: accept every rank of the job. */
    void (*on_session)(struct plait_session *s, const struct plait_session_request *req, void *arg);
    uint32_t timeout_ms;               /**< for each exchange with the launcher (60000) */
};
#define PLAIT_JOB_OPTS_INIT { sizeof(struct plait_job_opts), PLAIT_SESSION_OPTS_INIT, NULL, 60000 }

/** What plait_job_place() tells before a context exists. */
struct plait_job_place {
    int rank, size, local_rank, local_size;
};

/**
 * Creates a context for this rank: placed on a core that no other rank of the node gets (unless the launcher has bound
 * the process), spinning only if every rank has a core, and joins the job with it. Collective: every rank calls it, and if
 * one cannot open it all fail, with that rank's code.
 * @param[out] job  the job; close it with plait_job_close() before plait_ctx_destroy(*ctx).
 * @param[in,out] ctx  *ctx NULL: a new context, owned by the caller; else that context is used as it is.
 * @return 0, PLAIT_E_LAUNCHER, PLAIT_E_INVAL, PLAIT_E_UNREACHABLE (no address for other nodes, or none that is as
 * PLAIT_JOB_ADDR says), or as plait_ctx_create() and plait_listen(). Blocks for the other ranks.
 */
PLAIT_API int plait_job_open(struct plait_job **job, struct plait_ctx **ctx, const struct plait_job_opts *opts);
/** Leaves the job. Sessions must have been closed or released; NULL is allowed. Collective only in that the launcher may wait for
 *  every rank to leave or end. May block for the launcher. @return 0, PLAIT_E_LAUNCHER. */
PLAIT_API int plait_job_close(struct plait_job *job);

/** This process's rank, 0..size-1. Any thread, callbacks too; the same for the four below. */
PLAIT_API int plait_job_rank(const struct plait_job *job);
PLAIT_API int plait_job_size(const struct plait_job *job);
/** This rank's number among the ranks of its node, and their count. */
PLAIT_API int plait_job_local_rank(const struct plait_job *job);
PLAIT_API int plait_job_local_size(const struct plait_job *job);
/** Nonzero if that rank runs on the same node, by what the launcher says. */
PLAIT_API int plait_job_is_local(const struct plait_job *job, int rank);
/** "pmix", "pmi1" or "none". */
PLAIT_API const char *plait_job_launcher(const struct plait_job *job);

/**
 * Opens a session to a rank (like plait_session_open(); lazy: a pair that never talks has no link). Which transport it
 * gets is a matter of the pair: shared memory if both are on one host, in one network and user namespace, else the network.
 * Failures name the rank, its host and its address.
 * @return 0, PLAIT_E_NOTFOUND (no such rank), or as plait_session_open(). Never blocks.
 */
PLAIT_API int plait_job_connect(struct plait_job *job, int rank, const struct plait_session_opts *opts,
                                struct plait_session **s);

/** Waits until every rank has called it; the context goes on meanwhile. Blocks. Collective. In a job of one
 *  rank it returns at once.
 *  @return 0, PLAIT_E_LAUNCHER, PLAIT_E_TIMEDOUT. */
PLAIT_API int plait_job_barrier(struct plait_job *job);

/**
 * Gathers len bytes (at most 4096) from every rank, through the launcher: for set-up, not for speed. Collective.
 * @param out  size * len bytes of the caller's, filled in the order of ranks.
 * @return 0, PLAIT_E_INVAL, PLAIT_E_LAUNCHER, PLAIT_E_TIMEDOUT. Blocks; the context goes on meanwhile.
 */
PLAIT_API int plait_job_allgather(struct plait_job *job, const void *in, size_t len, void *out);

#ifdef __cplusplus
}
#endif
#endif
