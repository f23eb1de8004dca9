/* SPDX-License-Identifier: BSD-3-Clause */
/* A job of one. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "plait/status.h"
#include "runtime/boot.h"
#include "util/err.h"

static void setup(void)
{
    setenv("PLAIT_JOB", "none", 1);
}

TestSuite(boot_none, .init = setup);

Test(boot_none, everything)
{
    struct pli_boot *b;
    char buf[8], name[sizeof b->job_id];
    size_t len;

    for (int round = 0; round < 2; round++) {
        cr_assert_eq(pli_boot_init(&b, -1), 0, "%s", pli_err_text());
        cr_assert_eq(b->kind, PLI_BOOT_NONE);
        cr_assert_eq(b->rank, 0);
        cr_assert_eq(b->size, 1);
        cr_assert_eq(b->local_size, 1);
        cr_assert_eq(b->local_ranks[0], 0);
        cr_assert(round == 0 || strcmp(b->job_id, name) != 0, "two jobs have one name");
        strcpy(name, b->job_id);
        cr_assert_eq(pli_boot_put(b, "key", "value", 6), 0);
        cr_assert_eq(pli_boot_fence(b, 0), 0);
        cr_assert_eq(pli_boot_barrier(b, -1), 0);
        cr_assert_eq(pli_boot_get(b, 0, "key", buf, sizeof buf, &len, 0), 0);
        cr_assert_eq(len, 6);
        cr_assert_str_eq(buf, "value");
        cr_assert_eq(pli_boot_get(b, 0, "key", buf, 5, &len, 0), PLAIT_E_TOOBIG);
        cr_assert_eq(pli_boot_get(b, 0, "other", buf, 5, &len, 0), PLAIT_E_NOTFOUND);
        cr_assert_eq(pli_boot_get(b, 1, "key", buf, 5, &len, 0), PLAIT_E_INVAL);
        memset(buf, 0, sizeof buf);
        cr_assert_eq(pli_boot_allgather(b, "mine", 5, buf, 0), 0);
        cr_assert_str_eq(buf, "mine");
        cr_assert_eq(pli_boot_finalize(b), 0);
    }
    cr_assert_eq(pli_boot_finalize(NULL), 0);
}

Test(boot_none, wrong_choice)
{
    struct pli_boot *b;

    setenv("PLAIT_JOB", "mpi", 1);
    cr_assert_eq(pli_boot_init(&b, -1), PLAIT_E_INVAL);
    cr_assert_null(b);
    setenv("PLAIT_JOB", "none", 1);
    cr_assert_eq(pli_boot_init(&b, -1), 0, "a failed init left something behind");
    pli_boot_finalize(b);
}
