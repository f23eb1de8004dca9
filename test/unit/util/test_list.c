/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>

#include "util/list.h"

struct item {
    int value;
    struct pli_list node;
};

static struct item items[4];
static struct pli_list head;

static void setup(void)
{
    int i;

    pli_list_init(&head);
    for (i = 0; i < 4; i++) {
        items[i].value = i;
        pli_list_init(&items[i].node);
    }
}

static int value_of(struct pli_list *node)
{
    return pli_container_of(node, struct item, node)->value;
}

/* the list's values as decimal digits, after a check of the links backwards */
static int digits(struct pli_list *list)
{
    struct pli_list *node;
    int n = 0;

    pli_list_foreach(node, list) {
        cr_assert_eq(node->next->prev, node);
        cr_assert_eq(node->prev->next, node);
        n = n * 10 + value_of(node) + 1;
    }
    return n;
}

TestSuite(list, .init = setup);

Test(list, empty)
{
    cr_assert(pli_list_is_empty(&head));
    cr_assert_null(pli_list_first(&head));
    cr_assert_null(pli_list_last(&head));
    cr_assert_null(pli_list_pop_front(&head));
    cr_assert_eq(pli_list_count(&head), 0);
}

Test(list, order_of_pushes)
{
    pli_list_push_back(&head, &items[1].node);
    pli_list_push_back(&head, &items[2].node);
    pli_list_push_front(&head, &items[0].node);
    pli_list_insert_before(&items[2].node, &items[3].node);
    cr_assert_eq(digits(&head), 1243);
    cr_assert_eq(pli_list_count(&head), 4);
    cr_assert_eq(pli_list_first(&head), &items[0].node);
    cr_assert_eq(pli_list_last(&head), &items[2].node);
    cr_assert_eq(pli_list_next(&head, &items[1].node), &items[3].node);
    cr_assert_null(pli_list_next(&head, &items[2].node));
}

Test(list, remove_anywhere_and_twice)
{
    int i;

    for (i = 0; i < 4; i++)
        pli_list_push_back(&head, &items[i].node);
    pli_list_remove(&items[1].node);
    cr_assert(!pli_list_is_on(&items[1].node));
    pli_list_remove(&items[1].node);
    cr_assert_eq(digits(&head), 134);
    pli_list_remove(&items[0].node);
    pli_list_remove(&items[3].node);
    cr_assert_eq(digits(&head), 3);
    cr_assert_eq(pli_list_pop_front(&head), &items[2].node);
    cr_assert(pli_list_is_empty(&head));
    cr_assert(!pli_list_is_on(&items[2].node));
}

Test(list, loop_survives_removal)
{
    struct pli_list *node, *tmp;
    int i;

    for (i = 0; i < 4; i++)
        pli_list_push_back(&head, &items[i].node);
    pli_list_foreach_safe(node, tmp, &head) {
        if (value_of(node) % 2 == 0) {
            pli_list_remove(node);
            node->next = node->prev = NULL; /* as if freed: the loop must not look again */
        }
    }
    cr_assert_eq(digits(&head), 24);
    pli_list_foreach_safe(node, tmp, &head)
        pli_list_remove(node);
    cr_assert(pli_list_is_empty(&head));
}

Test(list, move_and_splice)
{
    struct pli_list other;
    int i;

    pli_list_init(&other);
    pli_list_splice_back(&head, &other);
    cr_assert(pli_list_is_empty(&head));
    for (i = 0; i < 4; i++)
        pli_list_push_back(i < 2 ? &head : &other, &items[i].node);
    pli_list_move_back(&other, &items[0].node);
    cr_assert_eq(digits(&head), 2);
    cr_assert_eq(digits(&other), 341);
    pli_list_splice_back(&head, &other);
    cr_assert_eq(digits(&head), 2341);
    cr_assert(pli_list_is_empty(&other));
    pli_list_splice_back(&other, &head);
    cr_assert_eq(digits(&other), 2341);
    cr_assert(pli_list_is_empty(&head));
}
