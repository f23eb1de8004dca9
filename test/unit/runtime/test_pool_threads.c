/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools and threads: buffers that wander, caches of threads that have ended, frees at the same moment. */
#include "mem_util.h"

#include <pthread.h>
#include <sched.h>

TestSuite(pool_threads, .timeout = 120);

static struct plait_pool *new_pool(const struct plait_pool_class *classes, unsigned n, uint32_t cache)
{
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool;

    o.classes = classes;
    o.nclasses = n;
    o.cache = cache;
    OK(plait_pool_create(&pool, &o));
    return pool;
}

static struct plait_pool_stats stats_of(struct plait_pool *pool, unsigned i)
{
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;

    OK(plait_pool_get_stats(pool, i, &st));
    return st;
}

static void in_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    void *rc;

    cr_assert_eq(pthread_create(&t, NULL, fn, arg), 0);
    cr_assert_eq(pthread_join(t, &rc), 0);
    cr_assert_null(rc);
}

/* ---- one thread after the other ---- */

enum { MAX = 100 };

struct crate {
    struct plait_pool *pool;
    void *p[MAX];
};

static void *take_all(void *arg)
{
    struct crate *c = arg;

    for (int i = 0; i < MAX; i++)
        if (plait_pool_alloc(c->pool, 1000, &c->p[i]) < 0)
            return (void *)1;
    return NULL;
}

static void *free_all(void *arg)
{
    struct crate *c = arg;

    for (int i = 0; i < MAX; i++)
        if (plait_pool_free(c->p[i]) < 0)
            return (void *)1;
    return NULL;
}

static void *take_and_free_all(void *arg)
{
    return take_all(arg) ? (void *)1 : free_all(arg);
}

static struct crate crate_of(uint32_t cache)
{
    struct plait_pool_class c = {1000, 0, MAX, 10};

    return (struct crate){.pool = new_pool(&c, 1, cache)};
}

/* What others have freed is there again for everybody, not only for who allocated it. */
Test(pool_threads, freed_by_another_one)
{
    struct crate c = crate_of(1000);
    struct plait_pool_stats st;

    take_all(&c);
    in_thread(free_all, &c); /* it has no cache of this pool */
    st = stats_of(c.pool, 0);
    cr_assert_eq(st.in_use, 0);
    cr_assert_eq(st.cached, MAX);
    in_thread(take_all, &c); /* takes the remote list of ours */
    cr_assert_eq(stats_of(c.pool, 0).in_use, MAX);
    free_all(&c);
    take_all(&c); /* and we theirs, although that thread is gone */
    free_all(&c);
    st = stats_of(c.pool, 0);
    cr_assert_eq(st.in_use, 0);
    cr_assert_eq(st.made, MAX);
    OK(plait_pool_destroy(c.pool));
}

/* Its cache is not lost when a thread ends. */
Test(pool_threads, a_thread_ends)
{
    struct crate c = crate_of(1000);

    for (int i = 0; i < 5; i++) {
        in_thread(take_and_free_all, &c);
        cr_assert_eq(take_all(&c), NULL, "%s", plait_error_text());
        free_all(&c);
        for (int k = 0; k < MAX; k++) /* out of our own cache, which no other can take */
            cr_assert_eq(plait_pool_alloc(c.pool, 1, &c.p[k]), 0);
        in_thread(free_all, &c);
    }
    cr_assert_eq(stats_of(c.pool, 0).made, MAX);
    OK(plait_pool_destroy(c.pool));
}

/* A pool is destroyed while threads that have used it live, and end after it. */
static _Atomic int stage;

static void *outlive(void *arg)
{
    void *rc = take_and_free_all(arg);

    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2)
        sched_yield();
    return rc;
}

Test(pool_threads, a_thread_outlives_the_pool)
{
    struct crate c = crate_of(PLAIT_POOL_CACHE_AUTO);
    pthread_t t;
    void *rc;

    pthread_create(&t, NULL, outlive, &c);
    while (atomic_load(&stage) != 1)
        sched_yield();
    OK(plait_pool_destroy(c.pool));
    atomic_store(&stage, 2);
    pthread_join(t, &rc);
    cr_assert_null(rc);
}

/* ---- at the same time ---- */

enum { THREADS = 4, SLOTS = 64 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 40000
#else
#define ROUNDS 200000
#endif

static void *_Atomic slot[SLOTS]; /* where threads leave buffers for each other */
static pthread_barrier_t barrier;

struct hammer {
    struct plait_pool *pool;
    unsigned seed;
    int failed_allocs;
};

/* Every buffer begins with its address and size, and is filled with a byte of its own. */
static void mark(unsigned char *p, size_t len)
{
    memcpy(p, &p, sizeof p);
    memcpy(p + sizeof p, &len, sizeof len);
    memset(p + 16, (int)len, len - 16);
}

static int check(unsigned char *p)
{
    unsigned char *self;
    size_t len;

    memcpy(&self, p, sizeof self);
    memcpy(&len, p + sizeof self, sizeof len);
    if (self != p || len < 16 || len > 4096)
        return 0;
    for (size_t i = 16; i < len; i++)
        if (p[i] != (unsigned char)len)
            return 0;
    memset(p, 0, 16);
    return 1;
}

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    unsigned x = h->seed;

    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS; i++) {
        size_t len;
        void *p;

        x = x * 1103515245 + 12345;
        len = 16 + (x >> 16) % 300;
        if (plait_pool_alloc(h->pool, len, &p) < 0) {
            h->failed_allocs++;
            p = NULL;
        } else {
            mark(p, len);
        }
        p = atomic_exchange_explicit(&slot[(x >> 8) % SLOTS], p, memory_order_acq_rel);
        if (p && (!check(p) || plait_pool_free(p) < 0))
            return (void *)1;
    }
    return NULL;
}

static void run_hammers(struct plait_pool *pool, unsigned nclasses)
{
    struct hammer h[THREADS];
    pthread_t t[THREADS];
    void *rc;

    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        h[i] = (struct hammer){.pool = pool, .seed = i * 7919 + 1};
        cr_assert_eq(pthread_create(&t[i], NULL, hammer, &h[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], &rc);
        cr_assert_null(rc, "a buffer was given to two, or not taken back: %s", plait_error_text());
        cr_assert_lt(h[i].failed_allocs, ROUNDS);
    }
    for (int i = 0; i < SLOTS; i++)
        OK(plait_pool_free(atomic_exchange(&slot[i], NULL)));
    for (unsigned i = 0; i < nclasses; i++)
        cr_assert_eq(stats_of(pool, i).in_use, 0);
    OK(plait_pool_destroy(pool));
    pthread_barrier_destroy(&barrier);
}

Test(pool_threads, hammer)
{
    struct plait_pool_class c[] = {{64, 0, 0, 10}, {128, 0, 0, 10}, {316, 0, 0, 10}};

    run_hammers(new_pool(c, 3, PLAIT_POOL_CACHE_AUTO), 3);
}

/* Always exhausted: every allocation reclaims, spills or fails. */
Test(pool_threads, hammer_exhausted)
{
    struct plait_pool_class c[] = {{64, 0, 8, 1}, {128, 0, 8, 1}, {316, 0, 20, 1}};

    run_hammers(new_pool(c, 3, 3), 3);
}

Test(pool_threads, hammer_without_caches)
{
    struct plait_pool_class c[] = {{128, 0, 0, 10}, {316, 0, 0, 10}};

    run_hammers(new_pool(c, 2, 0), 2);
}

/* Threads that come and go while others work, and somebody who reads the counters all the time. */
static _Atomic int stop;

static void *come_and_go(void *arg)
{
    struct plait_pool *pool = arg;
    void *p[5];

    for (int i = 0; i < 5; i++)
        if (plait_pool_alloc(pool, 100, &p[i]) < 0)
            return (void *)1;
    for (int i = 0; i < 5; i++)
        if (plait_pool_free(p[i]) < 0)
            return (void *)1;
    return NULL;
}

static void *watch(void *arg)
{
    struct plait_pool *pool = arg;

    while (!atomic_load(&stop)) {
        struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;

        if (plait_pool_get_stats(pool, 0, &st) < 0 || st.in_use + st.cached > st.made ||
            st.high_water > st.made)
            return (void *)1;
        sched_yield();
    }
    return NULL;
}

Test(pool_threads, threads_come_and_go)
{
    struct plait_pool_class c = {100, 0, 100, 10};
    struct plait_pool *pool = new_pool(&c, 1, 10);
    pthread_t watcher, t[THREADS];
    void *rc;

    pthread_create(&watcher, NULL, watch, pool);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < THREADS; i++)
            pthread_create(&t[i], NULL, come_and_go, pool);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(t[i], &rc);
            cr_assert_null(rc);
        }
    }
    atomic_store(&stop, 1);
    pthread_join(watcher, &rc);
    cr_assert_null(rc);
    cr_assert_eq(stats_of(pool, 0).in_use, 0);
    cr_assert_leq(stats_of(pool, 0).made, 100);
    OK(plait_pool_destroy(pool));
}

#ifdef PLAIT_DEBUG
/* Two threads free the same buffer: one is told. */
static void *contended;
static _Atomic int freed, refused;

static void *free_it(void *arg)
{
    int rc;

    (void)arg;
    pthread_barrier_wait(&barrier);
    rc = plait_pool_free(contended);
    atomic_fetch_add(rc == 0 ? &freed : &refused, 1);
    return NULL;
}

Test(pool_threads, two_free_the_same)
{
    struct crate c = crate_of(0);
    pthread_t t[2];

    pthread_barrier_init(&barrier, NULL, 2);
    for (int round = 1; round <= 300; round++) {
        OK(plait_pool_alloc(c.pool, 1, &contended));
        pthread_create(&t[0], NULL, free_it, NULL);
        pthread_create(&t[1], NULL, free_it, NULL);
        pthread_join(t[0], NULL);
        pthread_join(t[1], NULL);
        cr_assert_eq(freed, round);
        cr_assert_eq(refused, round);
    }
    OK(plait_pool_destroy(c.pool));
    pthread_barrier_destroy(&barrier);
}
#endif
