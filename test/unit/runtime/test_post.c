/* SPDX-License-Identifier: BSD-3-Clause */
/* Posts: work for a context, and wake-ups, from other threads. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "loop_util.h"
#include "runtime/loop_priv.h"

enum { POSTERS = 4, POSTS = 2000 };

struct poster {
    struct plait_ctx *ctx;
    pthread_t thread;
    unsigned next_seen;
    unsigned *total;
};

struct item {
    struct poster *p;
    unsigned number;
};

static void run_item(void *arg)
{
    struct item *it = arg;

    cr_assert_eq(it->number, it->p->next_seen, "order of a thread's posts");
    it->p->next_seen++;
    if (++*it->p->total == POSTERS * POSTS)
        plait_ctx_stop(it->p->ctx);
    free(it);
}

static void *post_many(void *arg)
{
    struct poster *p = arg;
    unsigned i;

    for (i = 0; i < POSTS; i++) {
        struct item *it = malloc(sizeof *it);

        it->p = p;
        it->number = i;
        cr_assert_eq(plait_ctx_post(p->ctx, run_item, it), 0);
        if (i % 64 == 0) /* so that the context goes to sleep now and then */
            sched_yield();
    }
    return NULL;
}

static void posts_from_threads(uint32_t spin_us)
{
    struct plait_ctx *ctx = new_ctx(spin_us, 0);
    struct poster p[POSTERS];
    unsigned i, total = 0;

    for (i = 0; i < POSTERS; i++) {
        p[i] = (struct poster){ .ctx = ctx, .total = &total };
        cr_assert_eq(pthread_create(&p[i].thread, NULL, post_many, &p[i]), 0);
    }
    cr_assert_eq(plait_ctx_run(ctx, -1), 1);
    for (i = 0; i < POSTERS; i++)
        pthread_join(p[i].thread, NULL);
    cr_assert_eq(total, POSTERS * POSTS);
    cr_assert_eq(stats_of(ctx).events, POSTERS * POSTS);
    plait_ctx_destroy(ctx);
}

Test(post, from_four_threads_to_a_sleeper)
{
    posts_from_threads(0);
}

Test(post, from_four_threads_to_a_spinner)
{
    posts_from_threads(20);
}

static void never(void *arg)
{
    (void)arg;
    cr_assert_fail("dropped work was run");
}

Test(post, not_run_is_dropped_by_destroy)
{
    struct plait_ctx *ctx = new_ctx(0, 0);

    cr_assert_eq(plait_ctx_post(ctx, never, NULL), 0);
    cr_assert_eq(plait_ctx_post(ctx, never, NULL), 0);
    assert_code(plait_ctx_post(ctx, NULL, NULL), PLAIT_E_INVAL, "function");
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

struct pair {
    struct plait_ctx *ctx;
    bool done, slept;
};

static bool slept_once(void *arg)
{
    struct pair *p = arg;

    if (atomic_load(&p->ctx->sleeping))
        return true;
    sched_yield();
    return false;
}

static void *wake_it(void *arg)
{
    struct pair *p = arg;

    while (!slept_once(p))
        ;
    plait_ctx_wake(p->ctx);
    while (atomic_load(&p->ctx->woken))
        sched_yield();
    plait_ctx_stop(p->ctx);
    return NULL;
}

Test(post, wake_and_stop_from_another_thread)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct pair p = { ctx, false, false };
    struct plait_ctx_stats st;
    pthread_t t;

    cr_assert_eq(pthread_create(&t, NULL, wake_it, &p), 0);
    cr_assert_eq(plait_ctx_run(ctx, -1), 1);
    pthread_join(t, NULL);
    st = stats_of(ctx);
    cr_assert_geq(st.wakeups, 1);
    cr_assert_eq(st.spurious_wakeups, 0, "a wake-up that was asked for is not spurious");
    cr_assert_eq(st.events, 0);
    plait_ctx_destroy(ctx);
}
