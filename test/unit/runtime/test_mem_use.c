/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions in use: registered memory, look-up, references, threads, fork. */
#include "mem_util.h"

#include <pthread.h>

TestSuite(mem_use, .timeout = 60);

static struct plait_mem *alloc(size_t len)
{
    struct plait_mem *m;

    OK(plait_mem_alloc(&m, len, NULL));
    return m;
}

/* Is exactly this range in region m (NULL: in none)? */
static void found(const void *addr, size_t len, struct plait_mem *m)
{
    struct plait_mem *got = pli_mem_find(addr, len);

    cr_assert_eq(got, m);
    if (got)
        pli_mem_put(got);
}

/* ---- registered memory ---- */

Test(mem_use, registered)
{
    static char mine[100];
    struct plait_mem_info info;
    struct plait_mem *m;

    OK(plait_mem_register(&m, mine + 3, 50));
    info = info_of(m);
    cr_assert_eq(info.kind, PLAIT_MEM_REGISTERED);
    cr_assert_eq(info.addr, mine + 3);
    cr_assert_eq(info.len, 50);
    cr_assert_eq(info.reserved, 0);
    cr_assert_eq(info.page_size, 0);
    cr_assert_eq(info.node, PLAIT_MEM_NODE_ANY);
    cr_assert_eq(m->fd, -1);
    found(mine + 3, 50, m);
    found(mine + 2, 1, NULL);
    found(mine + 53, 1, NULL);
    OK(plait_mem_release(m));
    mine[3] = 1; /* the caller's all the time */
    found(mine + 3, 50, NULL);
}

Test(mem_use, cannot_be_registered)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct plait_mem *m = (void *)1;

    cr_assert_neq(p, MAP_FAILED);
    munmap(p + page, page);
    FAILS(plait_mem_register(&m, NULL, 1), PLAIT_E_INVAL, "address");
    cr_assert_null(m);
    FAILS(plait_mem_register(&m, p, 0), PLAIT_E_INVAL, "0 bytes");
    FAILS(plait_mem_register(&m, p, SIZE_MAX), PLAIT_E_INVAL, "bytes");
    FAILS(plait_mem_register(&m, p + 5, 2 * page), PLAIT_E_INVAL, "not all of it is mapped");
    OK(plait_mem_register(&m, p + 5, page - 5));
    OK(plait_mem_release(m));
    munmap(p, 3 * page);
}

Test(mem_use, no_overlap)
{
    static char mine[100];
    struct plait_mem *a, *b, *c;

    OK(plait_mem_register(&a, mine + 40, 20));
    FAILS(plait_mem_register(&b, mine + 59, 1), PLAIT_E_BUSY, "'registered'");
    FAILS(plait_mem_register(&b, mine + 39, 2), PLAIT_E_BUSY, "of 20 bytes");
    FAILS(plait_mem_register(&b, mine, 100), PLAIT_E_BUSY, "overlap");
    FAILS(plait_mem_register(&b, mine + 45, 2), PLAIT_E_BUSY, "overlap");
    OK(plait_mem_register(&b, mine + 60, 1));
    OK(plait_mem_register(&c, mine + 39, 1));
    found(mine + 39, 1, c);
    found(mine + 39, 2, NULL); /* two regions, and one behind the other is not one */
    found(mine + 40, 20, a);
    found(mine + 60, 1, b);
    OK(plait_mem_release(a));
    OK(plait_mem_register(&a, mine + 40, 20));
    OK(plait_mem_release(a));
    OK(plait_mem_release(b));
    OK(plait_mem_release(c));
    a = alloc(4096);
    FAILS(plait_mem_register(&b, a->addr + 1, 1), PLAIT_E_BUSY, "'mem'");
    OK(plait_mem_release(a));
}

/* ---- look-up ---- */

Test(mem_use, the_edges_of_a_region)
{
    struct plait_mem *m = alloc(5000);

    found(m->addr, 1, m);
    found(m->addr, 5000, m);
    found(m->addr, 5001, NULL); /* the rest of the page is nobody's */
    found(m->addr + 4999, 1, m);
    found(m->addr + 5000, 0, NULL);
    found(m->addr + 4999, 0, m);
    found(m->addr - 1, 1, NULL);
    found(m->addr + 10, SIZE_MAX, NULL);
    found(m->addr + 10, SIZE_MAX - 8, NULL);
    found(NULL, 1, NULL);
    found((void *)UINTPTR_MAX, 1, NULL);
    OK(plait_mem_release(m));
    found(m, 1, NULL);
}

/* Against a plain table, in a random order. */
Test(mem_use, many_regions)
{
    enum { SLOTS = 500, STEP = 16 };
    static char mine[SLOTS * STEP];
    static struct plait_mem *m[SLOTS];
    unsigned x = 12345;

    for (int round = 0; round < 5000; round++) {
        unsigned i = (x = x * 1103515245 + 12345) >> 16 & 0x7fff;

        i %= SLOTS;
        if (m[i]) {
            OK(plait_mem_release(m[i]));
            m[i] = NULL;
        } else {
            OK(plait_mem_register(&m[i], mine + i * STEP, STEP - i % 3));
        }
        i = (x >> 3) % SLOTS;
        found(mine + i * STEP + 5, 3, m[i]);
        found(mine + i * STEP + STEP - 1, 1, i % 3 ? NULL : m[i]);
    }
    for (int i = 0; i < SLOTS; i++)
        OK(plait_mem_release(m[i]));
}

/* ---- references ---- */

Test(mem_use, lives_until_nobody_holds_it)
{
    struct plait_mem *m = alloc(4096), *held;
    char *p = m->addr;
    int fds = count_fds();

    held = pli_mem_find(p + 10, 20);
    cr_assert_eq(held, m);
    cr_assert_eq(info_of(m).in_use, 1);
    pli_mem_hold(held);
    cr_assert_eq(info_of(m).in_use, 2);
    pli_mem_put(held);
    cr_assert_eq(info_of(m).in_use, 1);
    p[10] = 42;
    OK(plait_mem_release(m));
    found(p, 1, NULL);
    cr_assert_eq(p[10], 42, "still there");
    cr_assert_eq(count_fds(), fds);
    pli_mem_put(held);
    cr_assert_not(is_mapped(p));
    cr_assert_eq(count_fds(), fds - 1);
}

/* ---- threads ---- */

static char *_Atomic shown; /* in a region that its owner is about to release */
static _Atomic int stop;

static void *make_and_release(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000; i++) {
        struct plait_mem *m;

        if (plait_mem_alloc(&m, 4096, NULL) < 0)
            return (void *)1;
        memset(m->addr, 1, 4096);
        atomic_store(&shown, m->addr);
        plait_mem_release(m);
    }
    return NULL;
}

/* What is found stays mapped as long as it is held, whatever its owner does. */
static void *look_up(void *arg)
{
    uintptr_t bad = 0;

    (void)arg;
    while (!atomic_load(&stop)) {
        char *p = atomic_load(&shown);
        struct plait_mem *m = p ? pli_mem_find(p, 100) : NULL;

        if (!m)
            continue;
        bad += m->mapped != 4096 || !is_mapped(m->addr);
        pli_mem_put(m);
    }
    return (void *)bad;
}

Test(mem_use, threads)
{
    struct plait_mem *stays = alloc(4096);
    pthread_t maker[2], reader[2];
    void *rc;

    for (int i = 0; i < 2; i++) {
        pthread_create(&maker[i], NULL, make_and_release, NULL);
        pthread_create(&reader[i], NULL, look_up, NULL);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(maker[i], &rc);
        cr_assert_null(rc);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++) {
        pthread_join(reader[i], &rc);
        cr_assert_null(rc);
    }
    found(stays->addr, 4096, stays);
    cr_assert_eq(info_of(stays).in_use, 0);
    OK(plait_mem_release(stays));
}

/* ---- fork ---- */

struct family {
    struct plait_mem *alloced, *registered, *held;
    char *addr;
    int fds;
};

static int child(void *arg)
{
    struct family *f = arg;
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
    struct plait_mem *m;

    if (count_fds() != f->fds - 2)
        return 1; /* of the two allocated ones */
    if (is_mapped(f->addr))
        return 2;
    if (plait_mem_get_info(f->alloced, &info) != PLAIT_E_FORKED ||
        plait_mem_get_info(f->registered, &info) != PLAIT_E_FORKED)
        return 3;
    if (pli_mem_find(f->addr, 1))
        return 4;
    /* its own memory, and perhaps at the very address of the parent's */
    if (plait_mem_alloc(&m, 8192, NULL) < 0 || plait_mem_get_info(m, &info) < 0)
        return 5;
    memset(info.addr, 7, 8192);
    if (plait_mem_release(f->alloced) < 0 || plait_mem_release(f->registered) < 0)
        return 6;
    pli_mem_put(f->held);
    if (((char *)info.addr)[0] != 7 || count_fds() != f->fds - 1)
        return 7;
    return plait_mem_release(m) < 0 ? 8 : 0;
}

Test(mem_use, fork)
{
    static char mine[100];
    struct family f;

    f.alloced = alloc(8192);
    f.addr = f.alloced->addr;
    OK(plait_mem_register(&f.registered, mine, sizeof mine));
    f.held = alloc(4096);
    pli_mem_hold(f.held);
    OK(plait_mem_release(f.held));
    f.addr[0] = 42;
    f.fds = count_fds();
    cr_assert_eq(in_child(child, &f), 0);
    cr_assert_eq(f.addr[0], 42);
    cr_assert_eq(count_fds(), f.fds);
    found(f.addr, 8192, f.alloced);
    OK(plait_mem_release(f.alloced));
    OK(plait_mem_release(f.registered));
    pli_mem_put(f.held);
}

static int grandchild(void *arg)
{
    struct plait_mem *m;

    (void)arg;
    if (plait_mem_alloc(&m, 4096, NULL) < 0)
        return 10;
    return plait_mem_release(m);
}

static int forks_again(void *arg)
{
    struct plait_mem *m;
    int rc;

    (void)arg;
    if (plait_mem_alloc(&m, 4096, NULL) < 0)
        return 20;
    m->addr[0] = 1;
    rc = in_child(grandchild, NULL);
    if (rc || m->addr[0] != 1)
        return rc ? rc : 21;
    return plait_mem_release(m);
}

Test(mem_use, fork_of_a_fork)
{
    struct plait_mem *m = alloc(1);

    cr_assert_eq(in_child(forks_again, NULL), 0);
    OK(plait_mem_release(m));
}

/* The lock of the index is taken by others all the time when the fork happens. */
Test(mem_use, fork_while_others_are_busy)
{
    pthread_t maker;
    void *rc;

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer's own locks do not survive this");
#endif
    pthread_create(&maker, NULL, make_and_release, NULL);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(in_child(grandchild, NULL), 0);
    pthread_join(maker, &rc);
    cr_assert_null(rc);
}
