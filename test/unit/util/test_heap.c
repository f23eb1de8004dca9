/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>

#include "util/heap.h"
#include "util/rand.h"

#define N 200

static struct pli_heap heap;
static struct pli_heap_node nodes[N];

static void setup(void)
{
    int i;

    pli_heap_init(&heap);
    for (i = 0; i < N; i++)
        pli_heap_node_init(&nodes[i]);
}

/* Checks order, parent links and the complete shape (place n of count) below node; returns its size. */
static size_t check(const struct pli_heap_node *node, const struct pli_heap_node *parent, size_t n)
{
    if (!node) {
        cr_assert_gt(n, heap.count);
        return 0;
    }
    cr_assert_leq(n, heap.count);
    cr_assert_eq(node->parent, parent);
    cr_assert_eq(node->heap, &heap);
    if (parent)
        cr_assert_leq(parent->key, node->key);
    return 1 + check(node->left, node, 2 * n) + check(node->right, node, 2 * n + 1);
}

static void check_all(void)
{
    cr_assert_eq(check(heap.root, NULL, 1), heap.count);
}

TestSuite(heap, .init = setup);

Test(heap, empty)
{
    cr_assert_null(pli_heap_min(&heap));
    pli_heap_remove(&nodes[0]);
    cr_assert_eq(heap.count, 0);
    cr_assert(!pli_heap_is_in(&nodes[0]));
}

Test(heap, one)
{
    pli_heap_insert(&heap, &nodes[0], UINT64_MAX);
    cr_assert_eq(pli_heap_min(&heap), &nodes[0]);
    cr_assert(pli_heap_is_in(&nodes[0]));
    check_all();
    pli_heap_remove(&nodes[0]);
    cr_assert_null(pli_heap_min(&heap));
}

Test(heap, all_removals_of_all_small_orders)
{
    /* every sequence of 5 keys of 0..3, and every node taken out first */
    int code, i, victim;

    for (code = 0; code < 4 * 4 * 4 * 4 * 4; code++) {
        for (victim = 0; victim < 5; victim++) {
            uint64_t last = 0;
            int c = code;

            setup();
            for (i = 0; i < 5; i++, c /= 4) {
                pli_heap_insert(&heap, &nodes[i], (uint64_t)(c % 4));
                check_all();
            }
            pli_heap_remove(&nodes[victim]);
            check_all();
            for (i = 0; i < 4; i++) {
                struct pli_heap_node *min = pli_heap_min(&heap);

                cr_assert_neq(min, &nodes[victim]);
                cr_assert_geq(min->key, last);
                last = min->key;
                pli_heap_remove(min);
                check_all();
            }
            cr_assert_eq(heap.count, 0);
        }
    }
}

Test(heap, random_inserts_moves_and_removals)
{
    struct pli_rand r;
    size_t in = 0;
    int i, round;

    pli_rand_seed(&r, 1);
    for (round = 0; round < 20000; round++) {
        struct pli_heap_node *node = &nodes[pli_rand_below(&r, N)];
        uint64_t key = pli_rand_below(&r, 100);

        if (pli_rand_below(&r, 5) < 3) {
            in += !pli_heap_is_in(node);
            pli_heap_insert(&heap, node, key);
            cr_assert_eq(node->key, key);
        } else {
            in -= (size_t)pli_heap_is_in(node);
            pli_heap_remove(node);
        }
        cr_assert_eq(heap.count, in);
        if (round % 16 == 0)
            check_all();
    }
    for (i = 0; heap.count; i++) {
        uint64_t key = pli_heap_min(&heap)->key;

        pli_heap_remove(pli_heap_min(&heap));
        cr_assert(!heap.root || heap.root->key >= key);
    }
    cr_assert_eq((size_t)i, in);
}
