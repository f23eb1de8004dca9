/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <string.h>

#include "util/hash.h"

#define N 1000

static struct pli_hash_table table;
static struct pli_hash_node nodes[N];

static void setup(void)
{
    pli_hash_table_init(&table);
}

static void teardown(void)
{
    pli_hash_table_fini(&table);
}

TestSuite(hash, .init = setup, .fini = teardown);

Test(hash, bytes)
{
    /* FNV-1a 64 of "" and "a" are published; the mixing is a bijection on top */
    cr_assert_eq(pli_hash_bytes("", 0), pli_hash_u64(0xcbf29ce484222325ull));
    cr_assert_eq(pli_hash_bytes("a", 1), pli_hash_u64(0xaf63dc4c8601ec8cull));
    cr_assert_eq(pli_hash_string("foobar"), pli_hash_u64(0x85944171f73967e8ull));
    cr_assert_neq(pli_hash_bytes("a\0", 2), pli_hash_bytes("a", 1));
}

Test(hash, numbers)
{
    cr_assert_eq(pli_hash_u64(0), 0);
    /* the first output of SplitMix64 with seed 0 is published; its state then is the golden gamma */
    cr_assert_eq(pli_hash_u64(0x9e3779b97f4a7c15ull), 0xe220a8397b1dcdafull);
}

Test(hash, many)
{
    static char seen[N];
    struct pli_hash_node *node;
    size_t i;

    cr_assert_null(pli_hash_table_find(&table, 5));
    cr_assert_null(pli_hash_table_next(&table, NULL));
    for (i = 0; i < N; i++)
        pli_hash_table_insert(&table, &nodes[i], pli_hash_u64(i));
    cr_assert_eq(table.count, N);
    cr_assert_geq(table.nbuckets, N / 2);
    for (i = 0; i < N; i++)
        cr_assert_eq(pli_hash_table_find(&table, pli_hash_u64(i)), &nodes[i]);
    cr_assert_null(pli_hash_table_find(&table, pli_hash_u64(N)));
    for (node = NULL; (node = pli_hash_table_next(&table, node));) {
        cr_assert(!seen[node - nodes]);
        seen[node - nodes] = 1;
    }
    cr_assert_null(memchr(seen, 0, N));
    for (i = 0; i < N; i += 2)
        cr_assert(pli_hash_table_remove(&table, &nodes[i]));
    for (i = 0; i < N; i++)
        cr_assert_eq(pli_hash_table_find(&table, pli_hash_u64(i)), i % 2 ? &nodes[i] : NULL);
    while ((node = pli_hash_table_next(&table, NULL)))
        cr_assert(pli_hash_table_remove(&table, node));
    cr_assert_eq(table.count, 0);
}

Test(hash, equal_hashes)
{
    struct pli_hash_node *a, *b;
    int i;

    for (i = 0; i < 3; i++)
        pli_hash_table_insert(&table, &nodes[i], i == 1 ? 15 : 7); /* 7 and 15 share a bucket of 8 */
    a = pli_hash_table_find(&table, 7);
    b = pli_hash_table_find_next(a);
    cr_assert((a == &nodes[0] && b == &nodes[2]) || (a == &nodes[2] && b == &nodes[0]));
    cr_assert_null(pli_hash_table_find_next(b));
    cr_assert_eq(pli_hash_table_find(&table, 15), &nodes[1]);
    cr_assert(pli_hash_table_remove(&table, a));
    cr_assert(!pli_hash_table_remove(&table, a));
    cr_assert_eq(pli_hash_table_find(&table, 7), b);
}
