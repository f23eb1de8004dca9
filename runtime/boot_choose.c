/* SPDX-License-Identifier: BSD-3-Clause */
/* Which launcher started this process. A launcher whose protocol cannot be used is an error: N jobs of one
 * in place of one job of N would compute nonsense without a word. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "plait/status.h"
#include "runtime/boot_parse.h"
#include "runtime/boot_priv.h"
#include "util/err.h"

#define ALONE "; PLAIT_JOB=none makes every process a job of one"

static const char *const kind_names[] = { "none", "pmi1", "pmix" };

const char *pli_boot_kind_name(enum pli_boot_kind kind)
{
    return kind_names[kind];
}

/* An empty variable counts as unset. */
static const char *env(const char *name)
{
    const char *v = getenv(name);

    return v && *v ? v : NULL;
}

static uint32_t env_count(const char *name)
{
    uint32_t n;

    return env(name) && pli_boot_parse_uint(env(name), UINT32_MAX, &n) == 0 ? n : 0;
}

const char *pli_boot_pmi_fd(int *fd)
{
    const char *v = env("PMI_FD");
    uint32_t n;
    int type;
    socklen_t len = sizeof type;

    if (!v)
        return "PMI_FD is not set";
    if (pli_boot_parse_uint(v, INT32_MAX, &n) < 0)
        return "PMI_FD is not a number";
    if (fcntl((int)n, F_GETFD) < 0)
        return "PMI_FD is not an open file descriptor";
    if (getsockopt((int)n, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
        return "PMI_FD is not a stream socket";
    *fd = (int)n;
    return NULL;
}

static int has_pmix(void)
{
    return env("PMIX_RANK") && env("PMIX_NAMESPACE");
}

static int no_pmi_fd(const char *why)
{
    if (pli_boot_mpi_state() == PLI_BOOT_MPI_FINALIZED)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "PMI-1: MPI_Finalize has ended this process's connection to the launcher (%s);"
                        " join the job before MPI_Finalize",
                        why);
    if (env("PMI_PORT"))
        return pli_fail(PLAIT_E_LAUNCHER, "PMI-1: the launcher offers PMI_PORT, which plait does not use;"
                                          " start mpiexec without -pmi-port" ALONE);
    return pli_fail(PLAIT_E_LAUNCHER,
                    "PMI-1: a launcher set PMI_RANK or PMI_SIZE, but %s; start the program directly with"
                    " MPICH's mpiexec, which passes that descriptor on" ALONE,
                    why);
}

/* Signs of a launcher that offers neither PMIx nor PMI-1. */
static int refuse_strangers(void)
{
    uint32_t n = env_count("OMPI_COMM_WORLD_SIZE");

    if (n > 1)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "Open MPI's mpirun started %u processes without PMIx (PMIX_RANK and PMIX_NAMESPACE"
                        " are not set); use an mpirun with PMIx" ALONE,
                        n);
    n = env("SLURM_STEP_NUM_TASKS")                   ? env_count("SLURM_STEP_NUM_TASKS")
        : env("SLURM_STEP_ID") || env("SLURM_STEPID") ? env_count("SLURM_NTASKS")
                                                      : 0;
    if (n > 1)
        return pli_fail(PLAIT_E_LAUNCHER,
                        "Slurm started %u processes without PMIx and PMI; use 'srun --mpi=pmix'" ALONE, n);
    return 0;
}

static int choose_auto(enum pli_boot_kind *kind)
{
    int fd;
    const char *why = pli_boot_pmi_fd(&fd);

    /* With both (one launcher started by the other) a live PMI_FD is the inner one's: Hydra passes the
     * descriptor to its own processes, while Open MPI's daemons close what they inherited. */
    if (!why && env("PMI_RANK") && env("PMI_SIZE")) {
        *kind = PLI_BOOT_PMI1;
        return 0;
    }
    if (has_pmix()) {
        *kind = PLI_BOOT_PMIX;
        return 0;
    }
    if (env("PMI_FD") || env("PMI_PORT") || env_count("PMI_SIZE") > 1)
        return no_pmi_fd(why ? why : "PMI_RANK and PMI_SIZE are not both set");
    *kind = PLI_BOOT_NONE;
    return refuse_strangers();
}

int pli_boot_choose(enum pli_boot_kind *kind)
{
    const char *want = env("PLAIT_JOB"), *why;
    int fd;

    if (!want || strcmp(want, "auto") == 0)
        return choose_auto(kind);
    for (int k = PLI_BOOT_NONE; k <= PLI_BOOT_PMIX; k++)
        if (strcmp(want, kind_names[k]) == 0) {
            *kind = (enum pli_boot_kind)k;
            why = k == PLI_BOOT_PMI1 ? pli_boot_pmi_fd(&fd) : NULL;
            if (why)
                return no_pmi_fd(why);
            if (k == PLI_BOOT_PMIX && !has_pmix())
                return pli_fail(PLAIT_E_LAUNCHER, "PLAIT_JOB=pmix, but no PMIx launcher started this process "
                                                  "(PMIX_RANK and"
                                                  " PMIX_NAMESPACE are not set); start it with Open MPI's "
                                                  "mpirun, prterun or"
                                                  " 'srun --mpi=pmix'");
            return 0;
        }
    return pli_fail(PLAIT_E_INVAL, "PLAIT_JOB=%s is not one of auto, pmix, pmi1, none", want);
}
