/* SPDX-License-Identifier: BSD-3-Clause */
/* Which launcher the environment means, and the errors when it cannot be used. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plait/status.h"
#include "runtime/boot_priv.h"
#include "util/err.h"

/* The tests themselves may run under a launcher. */
static void clean(void)
{
    static const char *const names[] = {
        "PLAIT_JOB",
        "PMIX_RANK",
        "PMIX_NAMESPACE",
        "PMI_FD",
        "PMI_RANK",
        "PMI_SIZE",
        "PMI_PORT",
        "OMPI_COMM_WORLD_SIZE",
        "SLURM_STEP_ID",
        "SLURM_STEPID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_NTASKS",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
}

TestSuite(boot_choose, .init = clean);

static int set_socket(void)
{
    char text[16];
    int sv[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    snprintf(text, sizeof text, "%d", sv[0]);
    setenv("PMI_FD", text, 1);
    return sv[0];
}

static void expect_kind(enum pli_boot_kind want)
{
    enum pli_boot_kind kind;

    cr_assert_eq(pli_boot_choose(&kind), 0, "%s", pli_err_text());
    cr_assert_eq(kind, want, "%s was chosen", pli_boot_kind_name(kind));
}

static void expect_error(int code, const char *word)
{
    enum pli_boot_kind kind;

    cr_assert_eq(pli_boot_choose(&kind), code);
    cr_assert(strstr(pli_err_text(), word), "'%s' does not say '%s'", pli_err_text(), word);
}

Test(boot_choose, nothing)
{
    expect_kind(PLI_BOOT_NONE);
    setenv("PLAIT_JOB", "", 1);
    setenv("PMI_FD", "", 1);
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    setenv("PMI_SIZE", "1", 1);
    setenv("SLURM_NTASKS", "8", 1); /* a batch script: not a step */
    expect_kind(PLI_BOOT_NONE);
}

Test(boot_choose, launchers)
{
    setenv("PMIX_RANK", "0", 1);
    setenv("PMIX_NAMESPACE", "job", 1);
    expect_kind(PLI_BOOT_PMIX);
    /* mpirun started by a process of mpiexec: its daemon has closed the inherited descriptor */
    setenv("PMI_RANK", "0", 1);
    setenv("PMI_SIZE", "2", 1);
    setenv("PMI_FD", "999", 1);
    expect_kind(PLI_BOOT_PMIX);
    /* the other way round */
    set_socket();
    expect_kind(PLI_BOOT_PMI1);
    setenv("PLAIT_JOB", "pmix", 1);
    expect_kind(PLI_BOOT_PMIX);
    setenv("PLAIT_JOB", "pmi1", 1);
    expect_kind(PLI_BOOT_PMI1);
    setenv("PLAIT_JOB", "none", 1);
    expect_kind(PLI_BOOT_NONE);
    setenv("PLAIT_JOB", "auto", 1);
    expect_kind(PLI_BOOT_PMI1);
}

Test(boot_choose, bad_choice)
{
    setenv("PLAIT_JOB", "slurm", 1);
    expect_error(PLAIT_E_INVAL, "PLAIT_JOB=slurm");
    setenv("PLAIT_JOB", "pmix", 1);
    expect_error(PLAIT_E_LAUNCHER, "PMIX_RANK");
    setenv("PLAIT_JOB", "pmi1", 1);
    expect_error(PLAIT_E_LAUNCHER, "PMI_FD is not set");
}

Test(boot_choose, mpirun_without_pmix)
{
    setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
    expect_error(PLAIT_E_LAUNCHER, "without PMIx");
    setenv("PLAIT_JOB", "none", 1);
    expect_kind(PLI_BOOT_NONE);
}

Test(boot_choose, slurm_without_pmi)
{
    setenv("SLURM_NTASKS", "4", 1);
    setenv("SLURM_STEP_ID", "0", 1);
    expect_error(PLAIT_E_LAUNCHER, "srun --mpi=pmix");
    setenv("SLURM_STEP_NUM_TASKS", "1", 1); /* one task of a larger allocation */
    expect_kind(PLI_BOOT_NONE);
    setenv("SLURM_STEP_NUM_TASKS", "3", 1);
    expect_error(PLAIT_E_LAUNCHER, "3 processes");
}

Test(boot_choose, pmi_fd_that_is_none)
{
    int fds[2];
    char text[16];

    setenv("PMI_RANK", "0", 1);
    setenv("PMI_SIZE", "2", 1);
    expect_error(PLAIT_E_LAUNCHER, "PMI_FD is not set");
    setenv("PMI_FD", "7x", 1);
    expect_error(PLAIT_E_LAUNCHER, "not a number");
    setenv("PMI_FD", "-1", 1);
    expect_error(PLAIT_E_LAUNCHER, "not a number");
    setenv("PMI_FD", "99999", 1);
    expect_error(PLAIT_E_LAUNCHER, "not an open file descriptor");
    cr_assert_eq(pipe(fds), 0);
    snprintf(text, sizeof text, "%d", fds[0]);
    setenv("PMI_FD", text, 1);
    expect_error(PLAIT_E_LAUNCHER, "not a stream socket");
    unsetenv("PMI_SIZE");
    set_socket();
    expect_error(PLAIT_E_LAUNCHER, "PMI_RANK and PMI_SIZE");
    unsetenv("PMI_FD");
    setenv("PMI_PORT", "host:1", 1);
    expect_error(PLAIT_E_LAUNCHER, "-pmi-port");
}

Test(boot_choose, no_mpi_here)
{
    cr_assert_eq(pli_boot_mpi_state(), PLI_BOOT_MPI_ABSENT);
}
