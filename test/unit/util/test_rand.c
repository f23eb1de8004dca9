/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <string.h>

#include "util/rand.h"

Test(rand, ids_differ)
{
    uint8_t a[PLI_ID_BYTES] = { 0 }, b[PLI_ID_BYTES] = { 0 }, zero[PLI_ID_BYTES] = { 0 };

    cr_assert_eq(pli_rand_id(a), 0);
    cr_assert_eq(pli_rand_id(b), 0);
    cr_assert_neq(memcmp(a, zero, sizeof a), 0);
    cr_assert_neq(memcmp(a, b, sizeof a), 0);
}

Test(rand, seeds)
{
    struct pli_rand a, b;
    int i;

    pli_rand_seed(&a, 0);
    pli_rand_seed(&b, 0);
    for (i = 0; i < 100; i++)
        cr_assert_eq(pli_rand_next(&a), pli_rand_next(&b));
    pli_rand_seed(&b, 1);
    cr_assert_neq(pli_rand_next(&a), pli_rand_next(&b));
    /* the one seed whose mixed value is 0 */
    pli_rand_seed(&a, 0 - 0x9e3779b97f4a7c15ull);
    cr_assert_neq(pli_rand_next(&a), 0);
}

Test(rand, below_covers_its_range)
{
    int seen[7] = { 0 };
    struct pli_rand r;
    int i;

    pli_rand_seed(&r, 42);
    for (i = 0; i < 7000; i++) {
        uint64_t x = pli_rand_below(&r, 7);

        cr_assert_lt(x, 7);
        seen[x]++;
    }
    for (i = 0; i < 7; i++)
        cr_assert(seen[i] > 800 && seen[i] < 1200);
    cr_assert_eq(pli_rand_below(&r, 1), 0);
}
