/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools: classes, growth, limits, counters, wrong pointers, fork. */
#include "mem_util.h"

#include <pthread.h>
#include <stdio.h>

TestSuite(pool, .timeout = 60);

static struct plait_pool *new_pool(const struct plait_pool_class *classes, unsigned n, unsigned flags)
{
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool;

    o.classes = classes;
    o.nclasses = n;
    o.flags = flags;
    o.name = "p";
    OK(plait_pool_create(&pool, &o));
    return pool;
}

static struct plait_pool_stats stats_of(struct plait_pool *pool, unsigned i)
{
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;

    OK(plait_pool_get_stats(pool, i, &st));
    return st;
}

static char *get(struct plait_pool *pool, size_t len)
{
    void *p;

    OK(plait_pool_alloc(pool, len, &p));
    return p;
}

/* ---- sizes ---- */

Test(pool, the_defaults)
{
    static const size_t sizes[] = {0, 1, 4096, 4097, 65536, 100000, 1 << 20};
    enum { N = sizeof sizes / sizeof sizes[0] };
    struct plait_pool *pool;
    char *p[N];

    OK(plait_pool_create(&pool, NULL));
    for (int i = 0; i < N; i++) {
        p[i] = get(pool, sizes[i]);
        cr_assert_eq((uintptr_t)p[i] % 64, 0);
        memset(p[i], i, sizes[i]);
    }
    for (int i = 0; i < N; i++)
        cr_assert(sizes[i] == 0 || (p[i][0] == i && p[i][sizes[i] - 1] == i));
    cr_assert_eq(stats_of(pool, 0).in_use, 3);
    cr_assert_eq(stats_of(pool, 1).in_use, 1);
    cr_assert_eq(stats_of(pool, 2).in_use, 1);
    cr_assert_eq(stats_of(pool, 3).in_use, 1);
    cr_assert_eq(stats_of(pool, 4).in_use, 1);
    cr_assert_eq(stats_of(pool, 4).buf_size, 1 << 20);
    for (int i = 0; i < N; i++)
        OK(plait_pool_free(p[i]));
    OK(plait_pool_destroy(pool));
}

/* Every buffer has all of its bytes to itself, at its alignment. */
static void check_alignment(size_t size, size_t align)
{
    struct plait_pool_class c = {size, 0, 0, 7};
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool;
    unsigned char *p[50];

    o.classes = &c;
    o.nclasses = 1;
    o.align = align;
    OK(plait_pool_create(&pool, &o));
    for (int i = 0; i < 50; i++) {
        p[i] = (unsigned char *)get(pool, size);
        cr_assert_eq((uintptr_t)p[i] % align, 0);
        memset(p[i], i, size);
    }
    for (int i = 0; i < 50; i++) {
        for (size_t k = 0; k < size; k++)
            cr_assert_eq(p[i][k], i);
        OK(plait_pool_free(p[i]));
    }
    OK(plait_pool_destroy(pool));
}

Test(pool, alignments)
{
    static const size_t sizes[] = {1, 63, 64, 100, 4095, 4096, 5000, 70000};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t align = 1; align <= 4096; align *= 8)
            check_alignment(sizes[i], align);
}

Test(pool, too_long)
{
    struct plait_pool_class c = {100, 0, 0, 0};
    struct plait_pool *pool = new_pool(&c, 1, 0);
    void *p = pool;

    FAILS(plait_pool_alloc(pool, 101, &p), PLAIT_E_INVAL, "largest buffers have 100");
    cr_assert_null(p);
    FAILS(plait_pool_alloc(pool, SIZE_MAX, &p), PLAIT_E_INVAL, "pool 'p'");
    OK(plait_pool_destroy(pool));
}

Test(pool, bad_options)
{
    struct plait_pool_class c[] = {{100, 0, 0, 0}, {200, 5, 4, 0}, {300, 0, 0, 0}};
    struct plait_pool_opts good = PLAIT_POOL_OPTS_INIT, o;
    struct plait_pool *pool = (void *)1;
    int fds = count_fds();

    good.classes = c;
    good.nclasses = 3;
    FAILS(plait_pool_create(&pool, &good), PLAIT_E_INVAL, "class 1 of 200 bytes has a min of 5");
    cr_assert_null(pool);
    c[1].min = 0;
    c[2].size = 200;
    FAILS(plait_pool_create(&pool, &good), PLAIT_E_INVAL, "class 2 of 200 bytes is not larger");
    c[2].size = 0;
    FAILS(plait_pool_create(&pool, &good), PLAIT_E_INVAL, "class 2 has buffers of 0 bytes");
    c[2].size = 300;
    o = good, o.size = 3;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "plait_pool_opts.size");
    o = good, o.nclasses = 0;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "0 classes");
    o = good, o.nclasses = 33;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "33 classes");
    o = good, o.classes = NULL;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "3 classes");
    o = good, o.align = 48;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "48");
    o = good, o.align = (size_t)1 << 30;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "alignment");
    o = good, o.flags = 4;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "0x4");
    o = good, o.name = "012345678901234567890123";
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "23 characters");
    o = good, o.page_size = 5;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "pages of 5 bytes");
    o = good, o.node = 999;
    FAILS(plait_pool_create(&pool, &o), PLAIT_E_INVAL, "NUMA node 999");
    c[2].min = SIZE_MAX / 300;
    FAILS(plait_pool_create(&pool, &good), PLAIT_E_NOMEM, "class of 300 bytes");
    c[2].min = SIZE_MAX;
    FAILS(plait_pool_create(&pool, &good), PLAIT_E_NOMEM, "class of 300 bytes");
    cr_assert_eq(count_fds(), fds);
}

/* ---- growth and maximum ---- */

Test(pool, min_step_max)
{
    struct plait_pool_class c = {5000, 4, 10, 3};
    struct plait_pool *pool = new_pool(&c, 1, 0);
    struct plait_pool_stats st = stats_of(pool, 0);
    void *p[11];

    cr_assert_eq(st.made, 4);
    cr_assert_eq(st.regions, 1);
    cr_assert_eq(st.grown, 0);
    cr_assert_eq(st.high_water, 0);
    cr_assert_geq(st.bytes, 20000);
    for (int i = 0; i < 10; i++) {
        static const unsigned made[] = {4, 4, 4, 4, 7, 7, 7, 10, 10, 10};

        p[i] = get(pool, 5000);
        st = stats_of(pool, 0);
        cr_assert_eq(st.made, made[i], "%d: %d", i, (int)st.made);
        cr_assert_eq(st.in_use, i + 1);
    }
    cr_assert_eq(st.regions, 3);
    cr_assert_eq(st.grown, 2);
    FAILS(plait_pool_alloc(pool, 5000, &p[10]), PLAIT_E_NOMEM,
          "class of 5000 bytes has its maximum of 10 buffers");
    cr_assert_null(p[10]);
    st = stats_of(pool, 0);
    cr_assert_eq(st.failures, 1);
    cr_assert_eq(st.high_water, 10);
    OK(plait_pool_free(p[3]));
    cr_assert_eq(get(pool, 1), p[3]);
    for (int i = 0; i < 10; i++)
        OK(plait_pool_free(p[i]));
    st = stats_of(pool, 0);
    cr_assert_eq(st.in_use, 0);
    cr_assert_eq(st.made, 10);
    cr_assert_eq(st.high_water, 10);
    OK(plait_pool_destroy(pool));
}

Test(pool, the_next_larger_class)
{
    struct plait_pool_class c[] = {{5000, 0, 2, 0}, {6000, 0, 1, 0}, {7000, 0, 2, 0}};
    struct plait_pool *pool = new_pool(c, 3, 0);
    void *p[6];

    for (int i = 0; i < 5; i++)
        p[i] = get(pool, 10);
    cr_assert_eq(stats_of(pool, 0).in_use, 2);
    cr_assert_eq(stats_of(pool, 1).in_use, 1);
    cr_assert_eq(stats_of(pool, 2).in_use, 2);
    cr_assert_eq(stats_of(pool, 0).spilled, 3);
    FAILS(plait_pool_alloc(pool, 10, &p[5]), PLAIT_E_NOMEM, "class of 5000 bytes has its maximum of 2");
    cr_assert_not_null(strstr(plait_error_text(), "the larger classes are exhausted, too"));
    FAILS(plait_pool_alloc(pool, 7000, &p[5]), PLAIT_E_NOMEM, "class of 7000 bytes has its maximum of 2");
    cr_assert_null(strstr(plait_error_text(), "too"));
    cr_assert_eq(stats_of(pool, 0).failures, 1);
    cr_assert_eq(stats_of(pool, 2).failures, 1);
    for (int i = 0; i < 5; i++)
        OK(plait_pool_free(p[i]));
    OK(plait_pool_destroy(pool));
}

Test(pool, exactly_the_class_that_fits)
{
    struct plait_pool_class c[] = {{5000, 0, 1, 0}, {6000, 0, 1, 0}};
    struct plait_pool *pool = new_pool(c, 2, PLAIT_POOL_EXACT);
    void *p = get(pool, 1), *q;

    FAILS(plait_pool_alloc(pool, 1, &q), PLAIT_E_NOMEM, "class of 5000 bytes");
    cr_assert_eq(stats_of(pool, 0).spilled, 0);
    OK(plait_pool_free(p));
    OK(plait_pool_destroy(pool));
}

Test(pool, growth_meets_a_limit)
{
    struct plait_pool_class c[] = {{5000, 1, 0, 1}, {500000, 1, 0, 1}};
    struct plait_pool *pool = new_pool(c, 2, PLAIT_POOL_EXACT);
    struct rlimit old;
    void *small, *p, *q;

    p = get(pool, 500000);
    old = set_limit(RLIMIT_FSIZE, 65536);
    FAILS(plait_pool_alloc(pool, 500000, &q), PLAIT_E_NOMEM, "ulimit -f");
    cr_assert_not_null(strstr(plait_error_text(), "class of 500000 bytes cannot grow from 1 by 1 "), "%s",
                       plait_error_text());
    small = get(pool, 1);
    q = get(pool, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    OK(plait_pool_free(small));
    OK(plait_pool_free(q));
    q = get(pool, 500000);
    cr_assert_eq(stats_of(pool, 1).failures, 1);
    cr_assert_eq(stats_of(pool, 1).grown, 1);
    OK(plait_pool_free(p));
    OK(plait_pool_free(q));
    OK(plait_pool_destroy(pool));
}

/* A page is not left half empty, but a maximum is kept. */
Test(pool, pages_are_filled)
{
    struct plait_pool_class c[] = {{64, 1, 0, 1}, {128, 1, 5, 1}};
    struct plait_pool *pool = new_pool(c, 2, 0);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    cr_assert_eq(stats_of(pool, 0).made, page / 64);
    cr_assert_eq(stats_of(pool, 1).made, 5);
    OK(plait_pool_destroy(pool));
}

Test(pool, huge_pages_that_are_not_there)
{
    struct plait_pool_class c = {1000, 1, 1, 1};
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool;

    catch_log();
    o.classes = &c;
    o.nclasses = 1;
    o.page_size = PLAIT_MEM_PAGE_1G;
    OK(plait_pool_create(&pool, &o));
    if (stats_of(pool, 0).fallbacks == 0)
        cr_skip_test("there are huge pages of 1 GiB");
    cr_assert_eq(stats_of(pool, 0).fallbacks, 1);
    cr_assert_eq(count_in_log("memory 'pool/1000' of 1024 bytes has normal pages"), 1);
    OK(plait_pool_destroy(pool));
}

Test(pool, a_node_that_cannot_be_had)
{
    struct plait_pool_class c = {1000, 1, 0, 1};
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool *pool;

    pretend_two_nodes();
    catch_log();
    o.classes = &c;
    o.nclasses = 1;
    o.node = 1;
    OK(plait_pool_create(&pool, &o));
    cr_assert_eq(stats_of(pool, 0).bind_failures, 1);
    OK(plait_pool_destroy(pool));
}

/* ---- caches ---- */

static void with_cache(uint32_t cache)
{
    struct plait_pool_class c = {100, 0, 0, 100};
    struct plait_pool_opts o = PLAIT_POOL_OPTS_INIT;
    struct plait_pool_stats st;
    struct plait_pool *pool;
    void *p[200];

    o.classes = &c;
    o.nclasses = 1;
    o.cache = cache;
    OK(plait_pool_create(&pool, &o));
    for (int i = 0; i < 200; i++)
        p[i] = get(pool, 100);
    st = stats_of(pool, 0);
    cr_assert_eq(st.in_use, 200);
    cr_assert_leq(st.cached, cache);
    for (int i = 0; i < 200; i++)
        OK(plait_pool_free(p[i]));
    st = stats_of(pool, 0);
    cr_assert_eq(st.in_use, 0);
    cr_assert_leq(st.cached, cache);
    cr_assert(st.high_water >= 200 && st.high_water <= 200 + cache, "%d", (int)st.high_water);
    cr_assert_eq(st.made, 200);
    OK(plait_pool_destroy(pool));
}

Test(pool, caches)
{
    with_cache(0);
    with_cache(1);
    with_cache(2);
    with_cache(10);
    with_cache(1000);
}

/* A thread remembers the pools that it has used; those that are gone must not count, nor be mistaken for new
 * ones. */
Test(pool, many_pools)
{
    struct plait_pool_class c = {100, 0, 0, 1};
    struct plait_pool *pool[50] = {NULL};
    void *p[50];

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 50; i++) {
            if (pool[i])
                continue;
            pool[i] = new_pool(&c, 1, 0);
            p[i] = get(pool[i], 1);
        }
        for (int i = round % 3; i < 50; i += 3) {
            OK(plait_pool_free(p[i]));
            cr_assert_eq(stats_of(pool[i], 0).in_use, 0);
            OK(plait_pool_destroy(pool[i]));
            pool[i] = NULL;
        }
    }
    for (int i = 0; i < 50; i++) {
        if (!pool[i])
            continue;
        OK(plait_pool_free(p[i]));
        OK(plait_pool_destroy(pool[i]));
    }
}

/* ---- counters ---- */

Test(pool, stats)
{
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;
    struct plait_pool_class c = {100, 0, 0, 1};
    struct plait_pool *pool = new_pool(&c, 1, 0);

    FAILS(plait_pool_get_stats(pool, 1, &st), PLAIT_E_NOTFOUND, "index 1");
    FAILS(plait_pool_get_stats(pool, 0, NULL), PLAIT_E_INVAL, "plait_pool_stats.size");
    st.size = sizeof st + 1;
    FAILS(plait_pool_get_stats(pool, 0, &st), PLAIT_E_INVAL, "plait_pool_stats.size");
    st.size = offsetof(struct plait_pool_stats, cached);
    st.cached = 77;
    OK(plait_pool_get_stats(pool, 0, &st));
    cr_assert_eq(st.buf_size, 100);
    cr_assert_eq(st.cached, 77);
    OK(plait_pool_destroy(pool));
}

/* A buffer is in a region, which a message may hold on to. */
Test(pool, buffers_are_in_regions)
{
    struct plait_pool_class c = {1000, 0, 0, 3};
    struct plait_pool *pool = new_pool(&c, 1, 0);
    char *p = get(pool, 1000);
    struct plait_mem *m = pli_mem_find(p, 1000);

    cr_assert_not_null(m);
    cr_assert_str_eq(m->name, "p/1000");
    p[999] = 42;
    OK(plait_pool_free(p));
    OK(plait_pool_destroy(pool));
    cr_assert_eq(p[999], 42, "it lives until nobody holds it");
    cr_assert_null(pli_mem_find(p, 1));
    pli_mem_put(m);
    cr_assert_not(is_mapped(p));
}

/* ---- mistakes ---- */

Test(pool, wrong_pointers)
{
    static const uintptr_t wild[] = {1,          4095, 0x1234567890, (uintptr_t)1 << 47, (uintptr_t)1 << 48,
                                     UINTPTR_MAX};
    struct plait_pool_class c = {1000, 4, 4, 1};
    struct plait_pool *pool = new_pool(&c, 1, 0);
    struct plait_mem *m;
    char *p = get(pool, 1000), here, *heap = malloc(100);

    OK(plait_pool_free(NULL));
    for (size_t i = 0; i < sizeof wild / sizeof wild[0]; i++)
        FAILS(plait_pool_free((void *)wild[i]), PLAIT_E_INVAL, "not a buffer of a pool");
    FAILS(plait_pool_free(&here), PLAIT_E_INVAL, "not a buffer of a pool");
    FAILS(plait_pool_free(heap), PLAIT_E_INVAL, "not a buffer of a pool");
    FAILS(plait_pool_free(p + 1), PLAIT_E_INVAL, "not the beginning of a buffer: it lies 1 bytes behind");
    FAILS(plait_pool_free(p + 1023), PLAIT_E_INVAL, "one of 1000 bytes in pool 'p'");
    FAILS(plait_pool_free(p + 1024), PLAIT_E_INVAL, "free already");
    m = pli_mem_find(p, 1);
    FAILS(plait_pool_free(m->addr + 3 * 1024 + 4), PLAIT_E_INVAL, "not the beginning");
    pli_mem_put(m);
    OK(plait_mem_alloc(&m, 4096, NULL));
    FAILS(plait_pool_free(m->addr), PLAIT_E_INVAL, "not a buffer of a pool");
    OK(plait_mem_release(m));
    cr_assert_eq(stats_of(pool, 0).in_use, 1);
    OK(plait_pool_free(p));
    OK(plait_pool_destroy(pool));
    FAILS(plait_pool_free(p), PLAIT_E_INVAL, "not a buffer of a pool");
    free(heap);
}

/* What is behind the last buffer of a region. */
Test(pool, a_pointer_behind_the_last_buffer)
{
    struct plait_pool_class c = {5000, 1, 1, 1};
    struct plait_pool *pool = new_pool(&c, 1, 0);
    char *p = get(pool, 1);

    FAILS(plait_pool_free(p + 5056), PLAIT_E_INVAL, "not the beginning");
    OK(plait_pool_free(p));
    OK(plait_pool_destroy(pool));
}

Test(pool, freed_twice)
{
    struct plait_pool *pool = new_pool(NULL, 0, 0);
    char *p = get(pool, 1000), *q = get(pool, 1000);

    OK(plait_pool_free(p));
    FAILS(plait_pool_free(p), PLAIT_E_INVAL, "freed twice");
    cr_assert_not_null(strstr(plait_error_text(), "4096 bytes"));
    OK(plait_pool_free(q));
    FAILS(plait_pool_free(p), PLAIT_E_INVAL, "freed twice");
    cr_assert_eq(stats_of(pool, 0).in_use, 0);
    OK(plait_pool_destroy(pool));
}

Test(pool, leaks_are_reported)
{
    struct plait_pool_class c[] = {{100, 0, 0, 1}, {200, 0, 0, 1}, {300, 0, 0, 1}};
    struct plait_pool *pool = new_pool(c, 3, 0);
    char *p[3];

    catch_log();
    p[0] = get(pool, 100);
    p[1] = get(pool, 100);
    p[2] = get(pool, 300);
    cr_assert_eq(plait_pool_destroy(pool), 3);
    cr_assert_eq(
        count_in_log("pool 'p' cannot be destroyed: 2 buffers of the class of 100 bytes are still in use"),
        1);
    cr_assert_eq(
        count_in_log("pool 'p' cannot be destroyed: 1 buffers of the class of 300 bytes are still in use"),
        1);
    cr_assert_eq(count_in_log("200 bytes"), 0);
    memset(p[2], 1, 300); /* it is there, and so is the pool */
    OK(plait_pool_free(get(pool, 200)));
    OK(plait_pool_free(p[0]));
    OK(plait_pool_free(p[1]));
    cr_assert_eq(plait_pool_destroy(pool), 1);
    OK(plait_pool_free(p[2]));
    OK(plait_pool_destroy(pool));
    OK(plait_pool_destroy(NULL));
}

/* ---- fork ---- */

struct family {
    struct plait_pool *pool;
    void *p;
};

static int child(void *arg)
{
    struct plait_pool_stats st = PLAIT_POOL_STATS_INIT;
    struct family *f = arg;
    struct plait_pool *pool;
    void *p, *q;

    if (plait_pool_alloc(f->pool, 1, &p) != PLAIT_E_FORKED || plait_pool_free(f->p) != PLAIT_E_FORKED ||
        plait_pool_get_stats(f->pool, 0, &st) != PLAIT_E_FORKED)
        return 1;
    /* its own pool may be given the addresses that the parent's has there */
    if (plait_pool_create(&pool, NULL) < 0 || plait_pool_alloc(pool, 1, &p) < 0 ||
        plait_pool_alloc(pool, 100000, &q) < 0)
        return 2;
    memset(q, 1, 100000);
    if (plait_pool_destroy(f->pool) != 0)
        return 3;
    if (plait_pool_free(p) < 0 || plait_pool_free(q) < 0)
        return 4;
    return plait_pool_destroy(pool) == 0 ? 0 : 5;
}

Test(pool, fork)
{
    struct family f;

    f.pool = new_pool(NULL, 0, 0);
    f.p = get(f.pool, 5000);
    memset(f.p, 42, 5000);
    cr_assert_eq(in_child(child, &f), 0);
    cr_assert_eq(*(char *)f.p, 42);
    OK(plait_pool_free(f.p));
    OK(plait_pool_destroy(f.pool));
}
