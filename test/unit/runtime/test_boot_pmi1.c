/* SPDX-License-Identifier: BSD-3-Clause */
/* The PMI-1 client against a server made here: what works. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/unit/runtime/pmi1_server.h"

TestSuite(boot_pmi1, .init = setup, .timeout = 60);

Test(boot_pmi1, job_of_two)
{
    struct pli_boot *b;

    start_server();
    b = join();
    cr_assert_eq(b->kind, PLI_BOOT_PMI1);
    cr_assert_eq(b->rank, 0);
    cr_assert_eq(b->size, 2);
    cr_assert_str_eq(b->job_id, "kvs_test");
    cr_assert_eq(b->local_size, 2);
    cr_assert_eq(b->local_rank, 0);
    cr_assert_eq(b->local_ranks[1], 1);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0);
    cr_assert_eq(pli_boot_finalize(b), 0);
    stop_server();
    cr_assert_eq(srv.barriers, 1);
    cr_assert_eq(srv.finalizes, 0, "the launcher was told before the process ended");
}

static void put_and_get(struct pli_boot *b, size_t len)
{
    unsigned char data[PLI_BOOT_VALUE_MAX], back[PLI_BOOT_VALUE_MAX];
    char key[32];
    size_t got = 1;

    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i * 167 + len);
    snprintf(key, sizeof key, "key.%zu", len);
    cr_assert_eq(pli_boot_put(b, key, data, len), 0, "%s", pli_err_text());
    cr_assert_eq(pli_boot_fence(b, LONG_MS), 0);
    for (uint32_t rank = 0; rank < 2; rank++) {
        cr_assert_eq(pli_boot_get(b, rank, key, back, sizeof back, &got, LONG_MS), 0, "%s", pli_err_text());
        cr_assert_eq(got, len);
        cr_assert_eq(memcmp(back, data, len), 0, "rank %u, %zu bytes", rank, len);
        if (len > 0)
            cr_assert_eq(pli_boot_get(b, rank, key, back, len - 1, &got, LONG_MS), PLAIT_E_TOOBIG);
    }
}

static void check_sizes(void)
{
    static const size_t sizes[] = {
        0, 1, 2, 3, 44, 45, 46, 700, 720, 750, 765, 1023, 1024, 4096, 16383, 16384
    };
    struct pli_boot *b;
    char big[PLI_BOOT_VALUE_MAX + 1] = "";

    start_server();
    b = join();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        put_and_get(b, sizes[i]);
    cr_assert_eq(pli_boot_put(b, "big", big, sizeof big), PLAIT_E_TOOBIG);
    pli_boot_finalize(b);
    stop_server();
    cr_assert_leq(srv.longest_line, 1024, "a line had %u bytes", srv.longest_line);
    cr_assert_lt(srv.longest_value, (unsigned)atoi(srv.vallen_max));
}

Test(boot_pmi1, values_of_every_size)
{
    check_sizes();
}

Test(boot_pmi1, values_over_small_limits)
{
    srv.vallen_max = "64";
    check_sizes();
}

Test(boot_pmi1, answers_byte_by_byte)
{
    srv.dribble = true;
    check_sizes();
}

Test(boot_pmi1, allgather)
{
    struct pli_boot *b;
    char mine[PLI_BOOT_GATHER_MAX + 1], all[2 * PLI_BOOT_GATHER_MAX];

    memset(mine, 'x', sizeof mine);
    start_server();
    b = join();
    for (int round = 0; round < 3; round++) {
        memset(all, 0, sizeof all);
        cr_assert_eq(pli_boot_allgather(b, mine, PLI_BOOT_GATHER_MAX, all, LONG_MS), 0, "%s", pli_err_text());
        cr_assert_eq(memcmp(all, mine, PLI_BOOT_GATHER_MAX), 0);
        cr_assert_eq(memcmp(all + PLI_BOOT_GATHER_MAX, mine, PLI_BOOT_GATHER_MAX), 0);
        /* in place */
        memcpy(all + 3, "abc", 4);
        cr_assert_eq(pli_boot_allgather(b, all + 3, 4, all, LONG_MS), 0);
        cr_assert_str_eq(all, "abc");
        cr_assert_str_eq(all + 4, "abc");
    }
    cr_assert_eq(pli_boot_allgather(b, NULL, 0, NULL, LONG_MS), 0);
    cr_assert_eq(pli_boot_allgather(b, mine, sizeof mine, all, LONG_MS), PLAIT_E_TOOBIG);
    pli_boot_finalize(b);
    stop_server();
    cr_assert_eq(srv.barriers, 7);
}

Test(boot_pmi1, keys)
{
    struct pli_boot *b;
    char buf[4];

    start_server();
    b = join();
    cr_assert_eq(pli_boot_put(b, "", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a b", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a=b", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a\nb", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "12345678901234567890123456789012", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "1234567890123456789012345678901", "x", 1), 0, "%s", pli_err_text());
    cr_assert_eq(pli_boot_put(b, "1234567890123456789012345678901", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_get(b, 0, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_NOTFOUND);
    cr_assert_eq(pli_boot_get(b, 1, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_NOTFOUND);
    cr_assert_eq(pli_boot_get(b, 2, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0, "a key that is missing broke the connection");
    pli_boot_finalize(b);
    stop_server();
}

/* The server refuses a key that comes twice: a second job in the process has keys of its own. */
Test(boot_pmi1, leave_and_join_again)
{
    start_server();
    for (int i = 0; i < 3; i++) {
        struct pli_boot *b = join(), *other;
        char all[2];

        cr_assert_eq(pli_boot_init(&other, LONG_MS), PLAIT_E_BUSY);
        cr_assert_null(other);
        cr_assert_eq(pli_boot_put(b, "address", "x", 1), 0);
        cr_assert_eq(pli_boot_allgather(b, "y", 1, all, LONG_MS), 0);
        pli_boot_finalize(b);
    }
    stop_server();
}

Test(boot_pmi1, nodes_from_the_mapping)
{
    struct pli_boot *b;

    srv.mapping = "(vector,(0,2,1))";
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 1);
    cr_assert_eq(b->local_ranks[0], 0);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1, nodes_without_a_mapping)
{
    struct pli_boot *b;

    srv.mapping = NULL;
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 2);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1, other_nodes_without_a_mapping)
{
    struct pli_boot *b;

    srv.mapping = NULL;
    srv.other_host = true;
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 1);
    pli_boot_finalize(b);
    stop_server();
}

/* What a process that has ended says to the launcher: cmd=finalize if it had left its job, else nothing. */
static unsigned finalizes_of(bool leave)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        struct pli_boot *b;

        close(srv.fd);
        if (pli_boot_init(&b, LONG_MS) < 0)
            _exit(1);
        if (leave)
            pli_boot_finalize(b);
        exit(0);
    }
    start_server();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    stop_server();
    return srv.finalizes;
}

Test(boot_pmi1, exit_after_leaving)
{
    cr_assert_eq(finalizes_of(true), 1);
}

Test(boot_pmi1, exit_without_leaving)
{
    cr_assert_eq(finalizes_of(false), 0);
}

Test(boot_pmi1, fork)
{
    struct pli_boot *b;
    pid_t child;
    int status;

    start_server();
    b = join();
    fflush(NULL);
    child = fork();
    if (child == 0) {
        struct pli_boot *other;
        bool ok = pli_boot_barrier(b, LONG_MS) == PLAIT_E_FORKED &&
                  pli_boot_put(b, "k", "x", 1) == PLAIT_E_FORKED && pli_boot_finalize(b) == 0 &&
                  pli_boot_init(&other, LONG_MS) == PLAIT_E_FORKED;

        _exit(ok ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0, "%s", pli_err_text());
    pli_boot_finalize(b);
    stop_server();
}
