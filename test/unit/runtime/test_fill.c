/* SPDX-License-Identifier: BSD-3-Clause */
/* Page faults: who reads what a peer shows has none, and nobody else has any. */
#include <sys/mman.h>
#include <sys/resource.h>
#include "test/unit/runtime/offer_util.h"
#include "test/unit/runtime/rma_util.h"

TestSuite(fill, .timeout = 120);

static void collect(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    if (log->user)
        hold_all(log, c, msg);
}

static long page_faults(void)
{
    struct rusage u;

    cr_assert_eq(getrusage(RUSAGE_SELF, &u), 0);
    return u.ru_minflt;
}

/* Lets the receiver's context enter all pages of a region into its mapping. */
static void let_fill(struct world *w)
{
    long before;

    do {
        before = page_faults();
        settle(w);
    } while (page_faults() > before + 16);
}

/* Nobody touches what is handed over. */
Test(fill, hand_over_does_not_touch_the_bytes)
{
    enum { MESSAGES = 1000, PAGES = (64u << 20) / 4096 };
    struct world *w = listening_world();
    struct plait_mem *mem = new_region(64u << 20);
    struct log cli;
    uint64_t placed;
    long before;

    open_long(w, &cli);
    make_known(w, 1, cli.conn[0], mem);
    let_fill(w);
    placed = ctx_stats(w->ctx[0]).offers_placed;
    before = page_faults();
    for (unsigned k = 1; k <= MESSAGES; k++) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(plait_mem_addr(mem), 64u << 20, &o);

        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, o.n, 1);
        cr_assert_eq(o.status, 0);
    }
    cr_assert_eq(ctx_stats(w->ctx[0]).offers_placed, placed + MESSAGES);
    cr_assert_lt(page_faults() - before, PAGES / 16);
    end_session(w, &cli);
    end_world(w);
    plait_mem_release(mem);
}

/* Not by the sanitizer: its shadow memory would have page faults of its own. */
static __attribute__((noinline, no_sanitize("address", "thread", "undefined"))) unsigned read_every_page(const void *p, size_t len)
{
    unsigned sum = 0;

    for (size_t i = 0; i < len; i += 4096)
        sum += ((const volatile uint8_t *)p)[i];
    return sum;
}

static bool can_populate(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool can = madvise(p, 4096, 22 /* MADV_POPULATE_READ */) == 0;

    munmap(p, 4096);
    return can;
}

/* The receiver's mapping has its pages before anybody reads them, up to 64 MiB. */
Test(fill, reading_takes_no_page_faults)
{
    static const size_t sizes[] = { 1u << 20, 64u << 20, 80u << 20 };
    struct world *w = listening_world();
    struct log cli, *srv;

    if (!can_populate())
        cr_skip_test("the kernel is older than Linux 5.14");
    w->on_msg = collect;
    srv = open_long(w, &cli);
    for (unsigned i = 0; i < 3; i++) {
        struct plait_mem *mem = new_region(sizes[i]);
        size_t len = sizes[i] < 64u << 20 ? sizes[i] : 64u << 20;
        struct outcome o = { 0 };
        struct plait_out out = nocopy((char *)plait_mem_addr(mem) + sizes[i] - len, len, &o);
        long before, faults;

        srv->user = NULL;
        make_known(w, 1, cli.conn[0], mem);
        let_fill(w);
        srv->user = srv;
        srv->nheld = 0;
        FAILS(plait_sendx(cli.conn[0], &out), 0);
        WAIT(w, srv->nheld, 1);
        cr_assert_neq(srv->held[0]->data, out.data, "a mapping of its own");
        before = page_faults();
        cr_assert_eq(read_every_page(srv->held[0]->data, len), 0);
        faults = page_faults() - before;
        if (sizes[i] <= 64u << 20)
            cr_assert_lt(faults, 16, "%zu bytes: %ld page faults", len, faults);
        else /* the last 16 MiB of 80: 16 pages around each touch, or as many as this kernel takes */
            cr_assert_gt(faults, 0, "beyond what is entered in advance");
        plait_msg_release(srv->held[0]);
        WAIT(w, o.n, 1);
        plait_mem_release(mem);
        settle(w);
    }
    end_session(w, &cli);
    end_world(w);
}

/* Released, and its connection closed, while its pages are being entered. */
Test(fill, gone_before_its_pages_are_there)
{
    struct world *w = listening_world();

    for (unsigned i = 0; i < 40; i++) {
        struct plait_mem *mem = new_region(16u << 20);
        struct log cli;

        open_long(w, &cli);
        make_known(w, 1, cli.conn[0], mem);
        for (unsigned k = 0; k < i / 2; k++)
            poll_all(w);
        if (i % 2) {
            plait_mem_release(mem);
            for (int k = 0; k < 1000 && ctx_stats(w->ctx[0]).mapped_bytes; k++)
                poll_all(w);
            cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
        } else {
            FAILS(plait_conn_abort(cli.conn[0]), 0);
        }
        end_session(w, &cli);
        if (i % 2 == 0)
            plait_mem_release(mem);
        w->nsrv = 0;
    }
    end_world(w);
}

Test(fill, of_an_exported_region)
{
    enum { SIZE = 4 << 20 };
    static char buf[SIZE];
    struct pair *p;
    long before, faults;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("the sanitizer's shadow memory has page faults of its own");
#endif
    if (!can_populate())
        cr_skip_test("the kernel is older than Linux 5.14");
    memset(buf, 1, sizeof buf);
    p = new_pair(SIZE);
    memset(p->addr, 7, SIZE);
    FAILS(plait_get(p->user, &p->key, 0, buf, 1, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    let_fill(p->w);
    before = page_faults();
    FAILS(plait_get(p->user, &p->key, 0, buf, SIZE, NULL, NULL), 0);
    FAILS(plait_put(p->user, &p->key, 0, buf, SIZE, NULL, NULL), 0);
    faults = page_faults() - before;
    cr_assert_lt(faults, 16, "%ld page faults", faults);
    cr_assert_eq(buf[SIZE - 1], 7);
    end_pair(p);
}
