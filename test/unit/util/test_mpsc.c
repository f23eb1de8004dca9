/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

#include "util/mpsc.h"

#define PRODUCERS 4
#define PER_PRODUCER 20000

struct item {
    struct pli_mpsc_node node;
    int producer, number;
};

static struct pli_mpsc queue;
static struct item items[PRODUCERS][PER_PRODUCER];

static struct item *pop(void)
{
    struct pli_mpsc_node *node = pli_mpsc_pop(&queue);

    return node ? (struct item *)(void *)((char *)node - offsetof(struct item, node)) : NULL;
}

Test(mpsc, order_of_one_thread)
{
    int round, i;

    pli_mpsc_init(&queue);
    for (round = 1; round < 6; round++) {
        cr_assert(pli_mpsc_is_empty(&queue));
        cr_assert_null(pop());
        for (i = 0; i < round; i++) {
            items[0][i].number = i;
            pli_mpsc_push(&queue, &items[0][i].node);
            cr_assert(!pli_mpsc_is_empty(&queue));
        }
        for (i = 0; i < round; i++)
            cr_assert_eq(pop()->number, i);
    }
    cr_assert_null(pop());
    cr_assert(pli_mpsc_is_empty(&queue));
}

Test(mpsc, nodes_can_be_used_again_at_once)
{
    int i;

    pli_mpsc_init(&queue);
    pli_mpsc_push(&queue, &items[0][0].node);
    for (i = 0; i < 10; i++) {
        pli_mpsc_push(&queue, &items[0][(i + 1) % 2].node);
        cr_assert_eq(pop(), &items[0][i % 2]);
    }
}

/* stops a push by hand after its exchange, as a preempted producer does */
Test(mpsc, push_under_way)
{
    struct pli_mpsc_node *prev, *cut = &items[0][1].node;

    pli_mpsc_init(&queue);
    pli_mpsc_push(&queue, &items[0][0].node);
    atomic_store(&cut->next, NULL);
    prev = atomic_exchange(&queue.head, cut);
    pli_mpsc_push(&queue, &items[0][2].node);
    cr_assert_null(pop());
    cr_assert(!pli_mpsc_is_empty(&queue));
    atomic_store(&prev->next, cut);
    cr_assert_eq(pop(), &items[0][0]);
    cr_assert_eq(pop(), &items[0][1]);
    cr_assert_eq(pop(), &items[0][2]);
    cr_assert_null(pop());
    cr_assert(pli_mpsc_is_empty(&queue));
}

static void *produce(void *arg)
{
    struct item *mine = arg;
    int i;

    for (i = 0; i < PER_PRODUCER; i++) {
        mine[i].producer = (int)((struct item (*)[PER_PRODUCER])arg - items);
        mine[i].number = i;
        pli_mpsc_push(&queue, &mine[i].node);
    }
    return NULL;
}

Test(mpsc, many_producers, .timeout = 60)
{
    pthread_t threads[PRODUCERS];
    int next[PRODUCERS] = { 0 };
    int i, got = 0;

    pli_mpsc_init(&queue);
    for (i = 0; i < PRODUCERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, produce, items[i]), 0);
    while (got < PRODUCERS * PER_PRODUCER) {
        struct item *item = pop();

        if (!item) {
            sched_yield();
            continue;
        }
        if (item->number != next[item->producer])
            cr_assert_fail("producer %d: got %d, expected %d", item->producer, item->number,
                           next[item->producer]);
        next[item->producer]++;
        got++;
    }
    for (i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert(pli_mpsc_is_empty(&queue));
}
