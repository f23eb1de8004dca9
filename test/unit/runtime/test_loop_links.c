/* SPDX-License-Identifier: BSD-3-Clause */
/* Links in the loop: polling, parking, waking, removal in callbacks. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "fake_tr.h"
#include "loop_util.h"

/* Polls, with the fake clock moving, until so much fake time has passed. */
static void poll_for(struct plait_ctx *ctx, uint64_t ns)
{
    uint64_t end = pli_clock_now() + ns;

    while (pli_clock_now() < end) {
        plait_ctx_poll(ctx);
        pli_clock_fake_advance(10 * PLI_NS_PER_US);
    }
}

Test(links, records_are_events)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f;
    int i, n;

    fake_open(&f, ctx);
    for (i = 0; i < 100; i++)
        fake_send(&f);
    n = plait_ctx_poll(ctx);
    cr_assert_gt(n, 0);
    cr_assert_lt(n, 100, "the work of a pass is bounded");
    while (f.received < 100)
        plait_ctx_poll(ctx);
    cr_assert_eq(stats_of(ctx).events, 100);
    cr_assert_eq(stats_of(ctx).links, 1);
    cr_assert_eq(stats_of(ctx).links_active, 1);
    fake_close(&f, ctx);
    cr_assert_eq(stats_of(ctx).links, 0);
    plait_ctx_destroy(ctx);
}

Test(links, idle_ones_beside_a_busy_one_are_parked)
{
    enum { IDLE = 1000 };
    struct fake *idle = calloc(IDLE, sizeof *idle), busy;
    unsigned long polls = 0, passes;
    struct rlimit rl;
    struct plait_ctx *ctx;
    unsigned i, n = IDLE;

    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    if (rl.rlim_cur < IDLE + 64)
        n = (unsigned)rl.rlim_cur - 64;
    pli_clock_fake_start(1000 * PLI_NS_PER_S);
    ctx = new_ctx(0, 0);
    for (i = 0; i < n; i++)
        fake_open(&idle[i], ctx);
    fake_open(&busy, ctx);
    for (i = 0; i < 500; i++) {
        fake_send(&busy);
        poll_for(ctx, 10 * PLI_NS_PER_US);
    }
    cr_assert_eq(stats_of(ctx).links, n + 1);
    cr_assert_eq(stats_of(ctx).links_active, 1);
    for (i = 0; i < n; i++)
        idle[i].polls = 0;
    passes = stats_of(ctx).polls;
    busy.polls = 0;
    for (i = 0; i < 100; i++) {
        fake_send(&busy);
        plait_ctx_poll(ctx);
    }
    for (i = 0; i < n; i++)
        polls += idle[i].polls;
    cr_assert_eq(polls, 0, "a pass costs what is active, not what exists");
    cr_assert_eq(busy.polls, stats_of(ctx).polls - passes);
    /* a kick makes one of them hot again */
    fake_send(&idle[n / 2]);
    poll_for(ctx, 900 * PLI_NS_PER_US);
    cr_assert_eq(idle[n / 2].received, 1);
    cr_assert_eq(stats_of(ctx).links_active, 2);
    for (i = 0; i < n; i++)
        fake_close(&idle[i], ctx);
    fake_close(&busy, ctx);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    free(idle);
}

Test(links, the_last_hot_link_is_not_parked_alone)
{
    struct plait_ctx *ctx;
    struct fake f;

    pli_clock_fake_start(1000 * PLI_NS_PER_S);
    ctx = new_ctx(0, 0);
    fake_open(&f, ctx);
    poll_for(ctx, 20 * PLI_NS_PER_MS);
    cr_assert_eq(f.parks, 0);
    cr_assert_eq(stats_of(ctx).links_active, 1);
    fake_close(&f, ctx);
    plait_ctx_destroy(ctx);
}

static void late_record(struct fake *f)
{
    atomic_fetch_add(&f->sent, 1); /* published before the peer could see the flag: it does not kick */
}

Test(links, the_recheck_finds_what_came_while_parking)
{
    struct plait_ctx *ctx;
    struct fake busy, late;
    int i;

    pli_clock_fake_start(1000 * PLI_NS_PER_S);
    ctx = new_ctx(0, 0);
    fake_open(&busy, ctx);
    fake_open(&late, ctx);
    late.on_park = late_record;
    for (i = 0; i < 200 && !late.parks; i++) {
        fake_send(&busy);
        poll_for(ctx, 20 * PLI_NS_PER_US);
    }
    cr_assert_eq(late.parks, 1);
    cr_assert_eq(late.unparks, 1);
    cr_assert_eq(stats_of(ctx).links_active, 2);
    cr_assert_eq(late.received, 1);
    fake_close(&busy, ctx);
    fake_close(&late, ctx);
    plait_ctx_destroy(ctx);
}

Test(links, sleeping_is_averted_by_a_late_record)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f;

    fake_open(&f, ctx);
    f.on_park = late_record;
    cr_assert_eq(plait_ctx_arm(ctx), 1);
    cr_assert_eq(stats_of(ctx).parks_averted, 1);
    cr_assert_eq(stats_of(ctx).parks, 0);
    cr_assert_eq(atomic_load(&f.parked), 0);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    fake_close(&f, ctx);
    plait_ctx_destroy(ctx);
}

Test(links, after_arm_only_the_kicked_link_is_hot)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f[3];
    int i;

    for (i = 0; i < 3; i++)
        fake_open(&f[i], ctx);
    cr_assert_eq(plait_ctx_arm(ctx), 0);
    cr_assert_eq(stats_of(ctx).links_active, 0);
    fake_send(&f[1]);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(f[1].received, 1);
    cr_assert_eq(stats_of(ctx).links_active, 1);
    cr_assert_eq(atomic_load(&f[0].parked), 1);
    cr_assert_eq(atomic_load(&f[1].parked), 0);
    cr_assert_eq(stats_of(ctx).wakeups, 1);
    cr_assert_eq(stats_of(ctx).spurious_wakeups, 0);
    /* a kick for nothing */
    cr_assert_eq(plait_ctx_arm(ctx), 0);
    fake_kick(&f[2]);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    cr_assert_eq(stats_of(ctx).wakeups, 2);
    cr_assert_eq(stats_of(ctx).spurious_wakeups, 1);
    for (i = 0; i < 3; i++)
        fake_close(&f[i], ctx);
    plait_ctx_destroy(ctx);
}

Test(links, heating_a_parked_link_by_hand)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f;

    fake_open(&f, ctx);
    cr_assert_eq(plait_ctx_arm(ctx), 0);
    cr_assert_eq(f.tr.hot_index, -1);
    pli_ctx_tr_heat(ctx, &f.tr);
    pli_ctx_tr_heat(ctx, &f.tr);
    cr_assert_eq(f.tr.hot_index, 0);
    cr_assert_eq(f.unparks, 1);
    fake_close(&f, ctx);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    plait_ctx_destroy(ctx);
}

/* ---- removal while links are polled ---- */

enum { MANY = 20 };

struct crowd {
    struct plait_ctx *ctx;
    struct fake f[MANY];
    bool gone[MANY];
    unsigned removed;
};

/* Each record removes this link and some of the others. */
static void remove_some(struct fake *f)
{
    struct crowd *c = f->user;
    int self = (int)(f - c->f), i;

    for (i = self; i < MANY && i < self + 3; i++) {
        if (!c->gone[i]) {
            c->gone[i] = true;
            pli_ctx_tr_del(c->ctx, &c->f[i].tr, &c->f[i].src);
            c->removed++;
        }
    }
}

Test(links, removed_in_callbacks_of_the_same_pass)
{
    struct crowd c = { .ctx = new_ctx(0, 0) };
    int i;

    for (i = 0; i < MANY; i++) {
        fake_open(&c.f[i], c.ctx);
        c.f[i].rx = remove_some;
        c.f[i].user = &c;
    }
    for (i = 0; i < MANY; i += 2)
        fake_send(&c.f[i]);
    plait_ctx_poll(c.ctx);
    plait_ctx_poll(c.ctx);
    cr_assert_eq(c.removed, MANY);
    cr_assert_eq(stats_of(c.ctx).links_active, 0);
    cr_assert_eq(plait_ctx_destroy(c.ctx), 0);
    for (i = 0; i < MANY; i++)
        close(c.f[i].wakefd);
}

static struct fake added;

static void add_one(struct fake *f)
{
    fake_open(&added, f->user);
    fake_send(&added);
}

Test(links, added_in_a_callback)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fake f;

    fake_open(&f, ctx);
    f.rx = add_one;
    f.user = ctx;
    fake_send(&f);
    cr_assert_geq(plait_ctx_poll(ctx), 1);
    plait_ctx_poll(ctx);
    cr_assert_eq(added.received, 1);
    fake_close(&f, ctx);
    fake_close(&added, ctx);
    plait_ctx_destroy(ctx);
}

/* ---- sleeping and waking for good ---- */

enum { ROUNDS = 2000 };

struct ping {
    struct plait_ctx *ctx;
    struct fake f;
    _Atomic unsigned answered;
};

static void answer(struct fake *f)
{
    struct ping *p = f->user;

    if (atomic_fetch_add(&p->answered, 1) + 1 == ROUNDS)
        plait_ctx_stop(p->ctx);
}

static void *ping_it(void *arg)
{
    struct ping *p = arg;
    unsigned i, k;

    for (i = 0; i < ROUNDS; i++) {
        fake_send(&p->f);
        while (atomic_load(&p->answered) <= i)
            sched_yield();
        for (k = i % 50; k > 0; k--) /* so that each record meets another moment of going to sleep */
            sched_yield();
    }
    return NULL;
}

static void ping_a_runner(uint32_t spin_us)
{
    struct ping p = { .ctx = new_ctx(spin_us, 0) };
    struct plait_ctx_stats st;
    pthread_t t;

    fake_open(&p.f, p.ctx);
    p.f.rx = answer;
    p.f.user = &p;
    cr_assert_eq(pthread_create(&t, NULL, ping_it, &p), 0);
    cr_assert_eq(plait_ctx_run(p.ctx, -1), 1);
    pthread_join(t, NULL);
    st = stats_of(p.ctx);
    cr_assert_eq(st.events, ROUNDS);
    cr_assert_eq(st.parks, st.wakeups);
    fake_close(&p.f, p.ctx);
    plait_ctx_destroy(p.ctx);
}

Test(links, no_wakeup_is_lost_without_spinning)
{
    ping_a_runner(0);
}

Test(links, no_wakeup_is_lost_with_a_short_spin)
{
    ping_a_runner(3);
}

Test(links, no_wakeup_is_lost_without_membarrier)
{
    setenv("PLAIT_NO_MEMBARRIER", "1", 1);
    ping_a_runner(0);
    cr_assert_not(pli_membarrier_available());
}
