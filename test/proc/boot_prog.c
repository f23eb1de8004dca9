/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One rank of a job, for boot_launch.sh: joins it in the way that the first argument names, checks what it
 * is told, and exits 0 if all is well. Built without MPI, and with -DWITH_MPI by each MPI's compiler.
 *
 *   boot_prog MODE [expected size] [expected launcher: none, pmi1, pmix]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef WITH_MPI
#include <mpi.h>
#endif

#include "plait/status.h"
#include "runtime/boot.h"
#include "util/err.h"

#define WAIT_MS 60000

static const char *mode;
static struct pli_boot *boot;

static void fail(const char *what)
{
    fprintf(stderr, "boot_prog %s, process %d: %s\n", mode, (int)getpid(), what);
    exit(1);
}

static void expect(int yes, const char *what)
{
    if (!yes)
        fail(what);
}

static void ok(int rc, const char *call)
{
    char text[640];

    if (rc == 0)
        return;
    snprintf(text, sizeof text, "%s: %s: %s", call, plait_status_name(rc), pli_err_text());
    fail(text);
}

/* ---- MPI, where there is one ---- */

#ifdef WITH_MPI

static void mpi_init(void)
{
    expect(MPI_Init(NULL, NULL) == MPI_SUCCESS, "MPI_Init");
}

static void mpi_use(void)
{
    int rank, size, sum = 0;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    expect(sum == size * (size - 1) / 2, "MPI_Allreduce gave a wrong sum");
    if (boot)
        expect((int)boot->rank == rank && (int)boot->size == size, "MPI and plait disagree on rank or size");
}

static void mpi_finalize(void)
{
    expect(MPI_Finalize() == MPI_SUCCESS, "MPI_Finalize");
}

#else

static void no_mpi(void)
{
    fail("this program was built without MPI");
}

static void mpi_init(void)
{
    no_mpi();
}

static void mpi_use(void)
{
    no_mpi();
}

static void mpi_finalize(void)
{
    no_mpi();
}

#endif

/* ---- what every mode checks ---- */

static unsigned char byte_of(unsigned rank, size_t i, unsigned round)
{
    return (unsigned char)(rank * 31 + i * 7 + round);
}

static void check_gather(size_t len, unsigned round)
{
    unsigned char mine[PLI_BOOT_GATHER_MAX], *all = malloc(boot->size * len + 1);

    expect(all != NULL, "no memory");
    for (size_t i = 0; i < len; i++)
        mine[i] = byte_of(boot->rank, i, round);
    ok(pli_boot_allgather(boot, mine, len, all, WAIT_MS), "allgather");
    for (unsigned r = 0; r < boot->size; r++)
        for (size_t i = 0; i < len; i++)
            expect(all[r * len + i] == byte_of(r, i, round), "allgather gave wrong bytes");
    free(all);
}

static void check_keys(unsigned round)
{
    static unsigned char value[PLI_BOOT_VALUE_MAX], got[PLI_BOOT_VALUE_MAX];
    size_t len = (boot->rank + round) % 2 ? sizeof value : 5, got_len;
    char key[PLI_BOOT_KEY_MAX + 1], empty[PLI_BOOT_KEY_MAX + 1];

    snprintf(key, sizeof key, "address.%u", round);
    snprintf(empty, sizeof empty, "a-key-of-31-characters-here-%03u", round);
    for (size_t i = 0; i < len; i++)
        value[i] = byte_of(boot->rank, i, round);
    ok(pli_boot_put(boot, key, value, len), "put");
    ok(pli_boot_put(boot, empty, NULL, 0), "put");
    expect(pli_boot_put(boot, key, value, len) == PLAIT_E_INVAL, "a second put of a key was accepted");
    ok(pli_boot_fence(boot, WAIT_MS), "fence");
    for (unsigned r = 0; r < boot->size; r++) {
        ok(pli_boot_get(boot, r, key, got, sizeof got, &got_len, WAIT_MS), "get");
        expect(got_len == ((r + round) % 2 ? sizeof value : 5), "get gave a wrong length");
        for (size_t i = 0; i < got_len; i++)
            expect(got[i] == byte_of(r, i, round), "get gave wrong bytes");
        ok(pli_boot_get(boot, r, empty, got, 0, &got_len, WAIT_MS), "get");
        expect(got_len == 0, "an empty value has a length");
        expect(pli_boot_get(boot, r, key, got, 4, &got_len, WAIT_MS) == PLAIT_E_TOOBIG, "4 bytes were "
                                                                                        "enough");
        expect(pli_boot_get(boot, r, "nobody-put-this", got, 4, &got_len, WAIT_MS) == PLAIT_E_NOTFOUND,
               "a key that nobody has put was found");
    }
    expect(pli_boot_get(boot, boot->size, key, got, 4, NULL, WAIT_MS) == PLAIT_E_INVAL, "a rank too many");
}

static void check_place(void)
{
    uint32_t seen = 0;

    /* the tests run on one machine */
    expect(boot->local_size == boot->size, "not all ranks share the node");
    expect(boot->local_ranks[boot->local_rank] == boot->rank, "this rank is not in its place on the node");
    for (uint32_t i = 0; i < boot->local_size; i++)
        seen += boot->local_ranks[i] == i;
    expect(seen == boot->local_size, "the ranks of the node are not 0 to size - 1");
}

static void check_job_id(void)
{
    char ids[8][sizeof boot->job_id];

    expect(boot->job_id[0] != '\0', "the job has no name");
    if (boot->size > 8)
        return;
    ok(pli_boot_allgather(boot, boot->job_id, sizeof boot->job_id, ids, WAIT_MS), "allgather");
    for (uint32_t r = 0; r < boot->size; r++)
        expect(strcmp(ids[r], boot->job_id) == 0, "ranks disagree on the job's name");
}

static void use(unsigned round)
{
    if (strcmp(mode, "nodes") != 0)
        check_place();
    ok(pli_boot_barrier(boot, WAIT_MS), "barrier");
    check_keys(round);
    check_gather(0, round);
    check_gather(8, round);
    check_gather(PLI_BOOT_GATHER_MAX, round);
    check_job_id();
    ok(pli_boot_barrier(boot, WAIT_MS), "barrier");
}

static void join(char **argv)
{
    static const char *const kinds[] = { "none", "pmi1", "pmix" };

    ok(pli_boot_init(&boot, WAIT_MS), "init");
    if (argv[2])
        expect((int)boot->size == atoi(argv[2]), "the job has a wrong size");
    if (argv[2] && argv[3])
        expect(strcmp(kinds[boot->kind], argv[3]) == 0, "another launcher was found");
}

static void leave(void)
{
    struct pli_boot *b = boot;

    boot = NULL;
    ok(pli_boot_finalize(b), "finalize");
}

/* ---- modes ---- */

static void mode_plain(char **argv)
{
    join(argv);
    expect(pli_boot_init(&(struct pli_boot *){ NULL }, WAIT_MS) == PLAIT_E_BUSY, "a second job was opened");
    use(0);
    use(1);
    leave();
}

static void mode_twice(char **argv)
{
    for (int i = 0; i < 3; i++) {
        join(argv);
        use(0);
        leave();
    }
}

static void mode_before(char **argv)
{
    join(argv);
    use(0);
    mpi_init();
    mpi_use();
    use(1);
    leave();
    mpi_use();
    mpi_finalize();
}

static void mode_after(char **argv)
{
    mpi_init();
    mpi_use();
    join(argv);
    use(0);
    mpi_use();
    use(1);
    leave();
    mpi_use();
    join(argv);
    use(0);
    leave();
    mpi_finalize();
}

/* The job is left before MPI begins. */
static void mode_first(char **argv)
{
    join(argv);
    use(0);
    leave();
    mpi_init();
    mpi_use();
    mpi_finalize();
}

/* The job is left after MPI has ended: PMI-1's connection ends with MPI, PMIx's does not. */
static void mode_around(char **argv)
{
    join(argv);
    mpi_init();
    use(0);
    mpi_use();
    mpi_finalize();
    if (boot->kind == PLI_BOOT_PMI1) {
        expect(pli_boot_barrier(boot, WAIT_MS) == PLAIT_E_LAUNCHER, "a barrier after MPI_Finalize passed");
        expect(strstr(pli_err_text(), "MPI_Finalize") != NULL, "the text does not name MPI_Finalize");
    } else {
        use(1);
    }
    leave();
}

/* The job is joined after MPI has ended, and the connection to the launcher with it. */
static void mode_late(char **argv)
{
    mpi_init();
    mpi_finalize();
    if (argv[2] && argv[3] && strcmp(argv[3], "none") != 0) {
        expect(pli_boot_init(&boot, WAIT_MS) == PLAIT_E_LAUNCHER, "a job was joined after MPI_Finalize");
        expect(strstr(pli_err_text(), "MPI_Finalize") != NULL, "the text does not name MPI_Finalize");
        return;
    }
    join(argv);
    use(0);
    leave();
}

/* The launcher takes the machine for several: prints which ranks it says share a node. */
static void mode_nodes(char **argv)
{
    char line[256];
    int n;

    join(argv);
    use(0);
    n = snprintf(line, sizeof line, "rank %u is with", boot->rank);
    expect(boot->local_ranks[boot->local_rank] == boot->rank, "this rank is not in its place on the node");
    for (uint32_t i = 0; i < boot->local_size && n < 200; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " %u", boot->local_ranks[i]);
    printf("%s;\n", line);
    fflush(stdout);
    leave();
}

static void mode_fork(char **argv)
{
    int status;
    pid_t child;

    join(argv);
    child = fork();
    expect(child >= 0, "fork");
    if (child == 0) {
        struct pli_boot *other;

        expect(pli_boot_barrier(boot, WAIT_MS) == PLAIT_E_FORKED, "a child used the job");
        expect(pli_boot_finalize(boot) == 0, "a child could not free the job");
        expect(pli_boot_init(&other, WAIT_MS) == PLAIT_E_FORKED, "a child joined the job");
        exit(0);
    }
    expect(waitpid(child, &status, 0) == child && status == 0, "the child failed");
    use(0);
    leave();
}

/* The last rank stays away from a barrier; the others' time runs out. They end by themselves. */
static void mode_timeout(char **argv)
{
    join(argv);
    ok(pli_boot_barrier(boot, WAIT_MS), "barrier");
    if (boot->size > 1 && boot->rank == boot->size - 1) {
        pause(); /* the launcher ends it */
        return;
    }
    expect(pli_boot_barrier(boot, 300) == (boot->size > 1 ? PLAIT_E_TIMEDOUT : 0), "the barrier did not time "
                                                                                   "out");
    if (boot->size > 1) {
        expect(pli_boot_barrier(boot, 300) == PLAIT_E_LAUNCHER, "a barrier after a time-out was tried");
        expect(pli_boot_put(boot, "key", "x", 1) == PLAIT_E_LAUNCHER, "a put after a time-out was tried");
    }
    printf("timed out as expected\n");
    fflush(stdout);
    raise(SIGKILL);
}

/* Every rank ends without leaving: the launcher must call that a failure. */
static void mode_desert(char **argv)
{
    join(argv);
    use(0);
    exit(0);
}

/* One rank fails while the others wait for ever: the launcher must end them. */
static void mode_die(char **argv)
{
    join(argv);
    use(0);
    if (boot->rank == boot->size - 1)
        exit(3);
    pli_boot_barrier(boot, -1);
    exit(4);
}

/* What PLAIT_JOB and the environment make of it: prints the code and the text. */
static void mode_error(char **argv)
{
    int rc = pli_boot_init(&boot, WAIT_MS);

    (void)argv;
    expect(rc < 0, "joined, and should not have");
    printf("%s %s\n", plait_status_name(rc), pli_err_text());
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(char **argv);
    } modes[] = {
        { "plain", mode_plain },   { "twice", mode_twice }, { "before", mode_before },
        { "after", mode_after },   { "first", mode_first }, { "around", mode_around },
        { "late", mode_late },     { "fork", mode_fork },   { "timeout", mode_timeout },
        { "desert", mode_desert }, { "die", mode_die },     { "error", mode_error },
        { "nodes", mode_nodes },
    };

    mode = argc > 1 ? argv[1] : "plain";
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(mode, modes[i].name) == 0) {
            modes[i].run(argc > 1 ? argv : (char *[]){ argv[0], "plain", NULL, NULL });
            return 0;
        }
    fail("no such mode");
}
