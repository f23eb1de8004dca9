/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PMIx. The library is opened only when a launcher offers PMIx, as it brings threads and many dependencies.
 * It is never closed again: its threads and exit handlers outlive PMIx_Finalize.
 *
 * An MPI library in the process uses the same one. PMIx_Init counts its users, but when the last one has
 * gone, the server holds the process for finished: a second start gives lost keys, failing fences, or an
 * MPI_Init that finds no ranks (seen with Open MPI 4.1 and PMIx 4.2). So plait keeps its use from the first
 * join until the process exits, and a job can be left and joined again, before, inside and after MPI.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "plait/status.h"
#include "runtime/boot_priv.h"
#include "util/err.h"

#ifdef HAVE_PMIX

#include <dlfcn.h>
#include <errno.h>
#include <pmix.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/boot_parse.h"

#ifndef PLAIT_PMIX_LIBRARY
#define PLAIT_PMIX_LIBRARY "libpmix.so.2"
#endif

#define DATA_WAIT_S 60 /* for what the launcher has already: it answers without other ranks */

static struct {
    void *handle;
    __typeof__(PMIx_Init) *init;
    __typeof__(PMIx_Finalize) *finalize;
    __typeof__(PMIx_Put) *put;
    __typeof__(PMIx_Commit) *commit;
    __typeof__(PMIx_Fence_nb) *fence_nb;
    __typeof__(PMIx_Get) *get;
    __typeof__(PMIx_Error_string) *error_string;
} lib;

/* One per process; it outlives the struct pli_boot. */
static struct {
    pmix_proc_t me;
    int pid;     /* the process that called PMIx_Init, 0: none */
    bool left;   /* joined and left in order */
    bool broken; /* a fence failed: the ranks are no longer in step */
} client;

static int load_library(void)
{
    static const char *const names[] = { "PMIx_Init",     "PMIx_Finalize", "PMIx_Put",         "PMIx_Commit",
                                         "PMIx_Fence_nb", "PMIx_Get",      "PMIx_Error_string" };
    void *slots[] = { &lib.init,     &lib.finalize, &lib.put,         &lib.commit,
                      &lib.fence_nb, &lib.get,      &lib.error_string };
    void *handle;

    if (lib.handle)
        return 0;
    handle = dlopen(PLAIT_PMIX_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "a PMIx launcher started this process, but the PMIx library cannot be loaded: %s;"
                        " install it (Debian: libpmix2)",
                        dlerror());
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *sym = dlsym(handle, names[i]);

        if (!sym) {
            dlclose(handle);
            return pli_fail(PLAIT_E_LAUNCHER, "%s lacks %s; a PMIx of version 2 or later is needed",
                            PLAIT_PMIX_LIBRARY, names[i]);
        }
        memcpy(slots[i], &sym, sizeof sym);
    }
    lib.handle = handle;
    return 0;
}

static int fail_pmix(const char *call, const char *what, pmix_status_t st)
{
    return pli_fail(st == PMIX_ERR_TIMEOUT ? PLAIT_E_TIMEDOUT : PLAIT_E_LAUNCHER,
                    "PMIx launcher, %s%s%s: %s (%d)", call, *what ? " of " : "", what, lib.error_string(st),
                    (int)st);
}

static void set_info(pmix_info_t *info, const char *key, pmix_data_type_t type)
{
    memset(info, 0, sizeof *info);
    snprintf(info->key, sizeof info->key, "%s", key);
    info->value.type = type;
}

/* A value of PMIx_Get is malloc()ed, and so is what it points to. */
static void free_value(pmix_value_t *v)
{
    if (v->type == PMIX_STRING)
        free(v->data.string);
    else if (v->type == PMIX_BYTE_OBJECT)
        free(v->data.bo.bytes);
    free(v);
}

/* ---- what the launcher says about the job ---- */

static pmix_status_t job_value(const char *key, pmix_data_type_t type, pmix_value_t **v)
{
    pmix_proc_t job = client.me;
    pmix_status_t st;

    job.rank = PMIX_RANK_WILDCARD;
    st = lib.get(&job, key, NULL, 0, v);
    if (st != PMIX_SUCCESS)
        return st;
    if ((*v)->type == type)
        return PMIX_SUCCESS;
    free_value(*v);
    return PMIX_ERR_TYPE_MISMATCH;
}

static int read_size(struct pli_boot *b)
{
    pmix_value_t *v = NULL;
    pmix_status_t st = job_value(PMIX_JOB_SIZE, PMIX_UINT32, &v);

    if (st != PMIX_SUCCESS)
        return fail_pmix("PMIx_Get", "the job's size", st);
    b->rank = client.me.rank;
    b->size = v->data.uint32;
    free_value(v);
    if (b->size == 0 || b->size > PLI_BOOT_RANKS_MAX || b->rank >= b->size)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMIx launcher: rank %u in a job of %u ranks is not possible (the limit is %u)",
                        b->rank, b->size, PLI_BOOT_RANKS_MAX);
    return 0;
}

/* Without the list local_ranks stays NULL, and the ranks will tell each other. */
static int read_locals(struct pli_boot *b)
{
    pmix_value_t *v = NULL;
    uint32_t *ranks, n = 0;
    const char *why;
    int rc;

    if (job_value(PMIX_LOCAL_PEERS, PMIX_STRING, &v) != PMIX_SUCCESS || !v->data.string)
        return 0;
    ranks = malloc(b->size * sizeof *ranks);
    if (!ranks)
        rc = pli_fail(PLAIT_E_NOMEM, "no memory for the list of the ranks on this node");
    else if (pli_boot_parse_ranks(v->data.string, b->size, ranks, &n, &why) < 0)
        rc = pli_fail(PLAIT_E_LAUNCHER, "PMIx launcher: its list of local ranks cannot be read: %s", why);
    else
        rc = 0;
    free_value(v);
    if (rc == 0)
        return pli_boot_set_locals(b, ranks, n);
    free(ranks);
    return rc;
}

/* ---- fence ---- */

/* Two owners, the caller and PMIx's callback: after a time-out the callback may still come. */
struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    int owners;
    bool done;
    pmix_status_t status;
    pmix_info_t collect;
};

static struct waiter *waiter_new(void)
{
    struct waiter *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;

    if (!w)
        return NULL;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    w->owners = 2;
    return w;
}

/* Called with the lock held; gives it up. */
static void waiter_drop(struct waiter *w, int owners)
{
    bool last = (w->owners -= owners) == 0;

    pthread_mutex_unlock(&w->lock);
    if (!last)
        return;
    pthread_cond_destroy(&w->done_cond);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* On PMIx's thread. */
static void fence_done(pmix_status_t status, void *arg)
{
    struct waiter *w = arg;

    pthread_mutex_lock(&w->lock);
    w->done = true;
    w->status = status;
    pthread_cond_signal(&w->done_cond);
    waiter_drop(w, 1);
}

static pmix_status_t waiter_wait(struct waiter *w, uint64_t deadline)
{
    struct timespec ts = { (time_t)(deadline / PLI_NS_PER_S), (long)(deadline % PLI_NS_PER_S) };
    pmix_status_t st;
    int rc = 0;

    pthread_mutex_lock(&w->lock);
    while (!w->done && rc != ETIMEDOUT)
        rc = deadline == PLI_CLOCK_NEVER ? pthread_cond_wait(&w->done_cond, &w->lock)
                                         : pthread_cond_timedwait(&w->done_cond, &w->lock, &ts);
    st = w->done ? w->status : PMIX_ERR_TIMEOUT;
    waiter_drop(w, 1);
    return st;
}

static int fail_broken(const char *call)
{
    return pli_fail(PLAIT_E_LAUNCHER,
                    "PMIx launcher, %s: an earlier fence failed, so the ranks are no longer in step", call);
}

static int pmix_fence(struct pli_boot *b, bool with_data, uint64_t deadline)
{
    pmix_status_t st;
    struct waiter *w;

    (void)b;
    if (client.broken)
        return fail_broken("PMIx_Fence");
    st = with_data ? lib.commit() : PMIX_SUCCESS;
    if (st != PMIX_SUCCESS)
        return fail_pmix("PMIx_Commit", "", st);
    w = waiter_new();
    if (!w)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a fence");
    set_info(&w->collect, PMIX_COLLECT_DATA, PMIX_BOOL);
    w->collect.value.data.flag = with_data;
    st = lib.fence_nb(NULL, 0, &w->collect, 1, fence_done, w);
    if (st == PMIX_SUCCESS) {
        st = waiter_wait(w, deadline);
    } else {
        /* no callback will come; this one means that it was done at once */
        st = st == PMIX_OPERATION_SUCCEEDED ? PMIX_SUCCESS : st;
        pthread_mutex_lock(&w->lock);
        waiter_drop(w, 2);
    }
    if (st == PMIX_SUCCESS)
        return 0;
    client.broken = true;
    if (st == PMIX_ERR_TIMEOUT)
        return pli_fail(PLAIT_E_TIMEDOUT, "PMIx launcher, PMIx_Fence: no answer in the time given; has every "
                                          "rank of the job"
                                          " made this call?");
    return fail_pmix("PMIx_Fence", "", st);
}

/* ---- keys ---- */

static int pmix_put(struct pli_boot *b, const char *key, const void *data, size_t len)
{
    pmix_value_t v;
    pmix_status_t st;

    (void)b;
    if (client.broken)
        return fail_broken("PMIx_Put");
    memset(&v, 0, sizeof v);
    v.type = PMIX_BYTE_OBJECT;
    v.data.bo.bytes = (char *)data; /* PMIx_Put copies it */
    v.data.bo.size = len;
    st = lib.put(PMIX_GLOBAL, key, &v);
    return st == PMIX_SUCCESS ? 0 : fail_pmix("PMIx_Put", key, st);
}

static int take_bytes(const pmix_value_t *v, uint32_t rank, const char *key, void *buf, size_t cap,
                      size_t *len)
{
    if (v->type != PMIX_BYTE_OBJECT)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMIx launcher, PMIx_Get: key '%s' of rank %u has type %d and not bytes", key, rank,
                        (int)v->type);
    if (v->data.bo.size > cap)
        return pli_fail(PLAIT_E_TOOBIG, "key '%s' of rank %u has %zu bytes, the buffer %zu", key, rank,
                        v->data.bo.size, cap);
    if (v->data.bo.size > 0)
        memcpy(buf, v->data.bo.bytes, v->data.bo.size);
    *len = v->data.bo.size;
    return 0;
}

static bool means_not_found(pmix_status_t st)
{
    return st == PMIX_ERR_NOT_FOUND;
}

static int get_wait(uint64_t deadline)
{
    int ms = pli_clock_poll_timeout(pli_clock_now(), deadline);

    return ms < 0 || ms > DATA_WAIT_S * 1000 ? DATA_WAIT_S : ms / 1000 + 1; /* PMIx counts in seconds */
}

static int pmix_get(struct pli_boot *b, uint32_t rank, const char *key, void *buf, size_t cap, size_t *len,
                    uint64_t deadline)
{
    pmix_proc_t proc = client.me;
    pmix_info_t info[2];
    pmix_value_t *v = NULL;
    pmix_status_t st;
    int rc;

    (void)b;
    if (client.broken)
        return fail_broken("PMIx_Get");
    proc.rank = rank;
    set_info(&info[0], PMIX_TIMEOUT, PMIX_INT);
    info[0].value.data.integer = get_wait(deadline);
    set_info(&info[1], PMIX_IMMEDIATE, PMIX_BOOL); /* a key that is missing now is an error, not a wait */
    info[1].value.data.flag = true;
    st = lib.get(&proc, key, info, 2, &v);
    if (means_not_found(st))
        return pli_fail(PLAIT_E_NOTFOUND, "PMIx launcher, PMIx_Get: rank %u has no key '%s'", rank, key);
    if (st != PMIX_SUCCESS)
        return fail_pmix("PMIx_Get", key, st);
    rc = take_bytes(v, rank, key, buf, cap, len);
    free_value(v);
    return rc;
}

/* ---- joining and leaving ---- */

/* A process that exits with its job open has failed, and the launcher finds that out by itself. */
static void finalize_at_exit(void)
{
    if (client.pid == getpid() && client.left)
        lib.finalize(NULL, 0);
}

static int start_client(void)
{
    pmix_status_t st;

    if (client.pid)
        return 0;
    if (pli_boot_mpi_state() == PLI_BOOT_MPI_FINALIZED)
        return pli_fail(PLAIT_E_LAUNCHER, "PMIx launcher: MPI_Finalize has ended this process's connection "
                                          "to it; join the"
                                          " job before MPI_Finalize");
    st = lib.init(&client.me, NULL, 0);
    if (st != PMIX_SUCCESS)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMIx launcher, PMIx_Init: %s (%d); the launcher that set PMIX_NAMESPACE cannot be"
                        " reached or refuses; PLAIT_JOB=none makes every process a job of one",
                        lib.error_string(st), (int)st);
    client.pid = getpid();
    /* registered after PMIx_Init, so it runs before the exit handlers of PMIx itself */
    atexit(finalize_at_exit);
    return 0;
}

static int pmix_leave(struct pli_boot *b)
{
    (void)b;
    client.left = true;
    return 0;
}

static const struct pli_boot_ops pmix_ops = { "PMIx", pmix_put, pmix_fence, pmix_get, pmix_leave };

int pli_boot_pmix_join(struct pli_boot *b, uint64_t deadline)
{
    int rc;

    (void)deadline; /* the daemon is on this node, and PMIx has its own limits for reaching it */
    b->ops = &pmix_ops;
    if ((rc = load_library()) < 0 || (rc = start_client()) < 0)
        return rc;
    client.left = false;
    if ((rc = read_size(b)) < 0 || (rc = read_locals(b)) < 0) {
        client.left = true;
        return rc;
    }
    snprintf(b->job_id, sizeof b->job_id, "%s", client.me.nspace);
    return 0;
}

#else

int pli_boot_pmix_join(struct pli_boot *b, uint64_t deadline)
{
    (void)b, (void)deadline;
    return pli_fail(PLAIT_E_LAUNCHER, "a PMIx launcher (mpirun, prterun, srun) started this process, but "
                                      "this plait was built"
                                      " without PMIx; rebuild it with PMIx's headers (Debian: libpmix-dev), "
                                      "or use MPICH's mpiexec;"
                                      " PLAIT_JOB=none makes every process a job of one");
}

#endif
