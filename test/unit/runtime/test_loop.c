/* SPDX-License-Identifier: BSD-3-Clause */
/* Contexts without links: options, timers, running, foreign loops. */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loop_util.h"
#include "runtime/loop.h"

/* ---- options ---- */

Test(ctx, defaults_and_name)
{
    struct plait_ctx *a, *b;
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;

    cr_assert_eq(plait_ctx_create(&a, NULL), 0);
    opts.name = "storage";
    cr_assert_eq(plait_ctx_create(&b, &opts), 0);
    cr_assert_eq(strncmp(plait_ctx_name(a), "ctx", 3), 0);
    cr_assert_str_eq(plait_ctx_name(b), "storage");
    cr_assert_eq(plait_ctx_cpu(a), -1);
    cr_assert_eq(plait_ctx_node(a), -1);
    /* in the order of creation, not of a stack */
    cr_assert_eq(plait_ctx_destroy(a), 0);
    cr_assert_eq(plait_ctx_destroy(b), 0);
}

Test(ctx, bad_options)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx = NULL;

    opts.size = 4000;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "4000");
    opts.size = sizeof opts;
    opts.cpu = -3;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "-3");
    opts.cpu = PLAIT_CPU_NONE;
    opts.flags = 0x80;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "0x80");
    opts.flags = 0;
    opts.spin_us = UINT32_MAX - 1;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "spin_us");
    opts.spin_us = 0;
    opts.name = "a name that is longer than thirty-one characters";
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "too long");
    cr_assert_null(ctx);
}

Test(ctx, bad_peer_timeouts)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx = NULL;

    opts.peer_timeout_ms = PLAIT_PEER_TIMEOUT_MIN - 1;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "peer_timeout_ms is 999: from 1000 to 3600000 milliseconds");
    opts.peer_timeout_ms = PLAIT_PEER_TIMEOUT_MAX + 1;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_INVAL, "peer_timeout_ms is 3600001: from 1000 to 3600000 milliseconds");
    setenv("PLAIT_PEER_TIMEOUT", "999", 1);
    assert_code(plait_ctx_create(&ctx, NULL), PLAIT_E_INVAL, "PLAIT_PEER_TIMEOUT is 999: from 1000 to 3600000 milliseconds");
    setenv("PLAIT_PEER_TIMEOUT", "4294968296", 1);
    assert_code(plait_ctx_create(&ctx, NULL), PLAIT_E_INVAL, "PLAIT_PEER_TIMEOUT is 4294968296: from 1000");
    setenv("PLAIT_PEER_TIMEOUT", "10s", 1);
    assert_code(plait_ctx_create(&ctx, NULL), PLAIT_E_INVAL, "PLAIT_PEER_TIMEOUT is '10s': it must be a number of milliseconds");
    cr_assert_null(ctx);
}

Test(ctx, shorter_options_of_an_older_program)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;

    opts.size = offsetof(struct plait_ctx_opts, spin_us);
    opts.flags = 0xffff; /* behind the end: not read */
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

Test(ctx, no_descriptors_left)
{
    struct rlimit rl = { 0, 0 }, old;
    struct plait_ctx *ctx;
    int rc;

    getrlimit(RLIMIT_NOFILE, &old);
    rl.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    rc = plait_ctx_create(&ctx, NULL);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_code(rc, PLAIT_E_NOFILE, "ulimit -n");
}

Test(ctx, stats_size_is_checked)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct plait_ctx_stats st;

    st.size = 0;
    assert_code(plait_ctx_get_stats(ctx, &st), PLAIT_E_INVAL, "size");
    st.size = offsetof(struct plait_ctx_stats, parks);
    st.parks = 4711;
    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0);
    cr_assert_eq(st.parks, 4711);
    plait_ctx_destroy(ctx);
}

/* ---- timers ---- */

struct fired {
    struct plait_timer *t;
    struct plait_ctx *ctx;
    char *log;
    char letter;
    unsigned count, stop_at;
};

static void note(void *arg)
{
    struct fired *f = arg;

    f->count++;
    if (f->log)
        strncat(f->log, &f->letter, 1);
    if (f->count == f->stop_at)
        plait_ctx_stop(f->ctx);
}

static void start_noted(struct fired *f, struct plait_ctx *ctx, char *log, char letter, uint64_t delay,
                        uint64_t period)
{
    memset(f, 0, sizeof *f);
    f->ctx = ctx;
    f->log = log;
    f->letter = letter;
    cr_assert_eq(plait_timer_create(&f->t, ctx, note, f), 0);
    plait_timer_start(f->t, delay, period);
}

Test(timer, order_of_deadlines)
{
    struct fired f[4];
    struct plait_ctx *ctx;
    char log[16] = "";

    pli_clock_fake_start(1000 * PLI_NS_PER_S);
    ctx = new_ctx(0, 0);
    start_noted(&f[0], ctx, log, 'c', 300, 0);
    start_noted(&f[1], ctx, log, 'a', 100, 0);
    start_noted(&f[2], ctx, log, 'd', 400, 0);
    start_noted(&f[3], ctx, log, 'b', 200, 0);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    pli_clock_fake_advance(300 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 3);
    cr_assert_str_eq(log, "abc");
    pli_clock_fake_advance(99 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    pli_clock_fake_advance(1 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_str_eq(log, "abcd");
    cr_assert_eq(stats_of(ctx).events, 4);
    plait_ctx_destroy(ctx); /* frees the timers */
}

Test(timer, periodic_keeps_its_phase)
{
    struct plait_ctx *ctx;
    struct fired f;

    pli_clock_fake_start(1000 * PLI_NS_PER_S + 123456);
    ctx = new_ctx(0, 0);
    start_noted(&f, ctx, NULL, 0, 100, 50);
    pli_clock_fake_advance(100 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    pli_clock_fake_advance(50 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    /* three and a half periods later: one call, the next at the old phase */
    pli_clock_fake_advance(175 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    pli_clock_fake_advance(24 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    pli_clock_fake_advance(1 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    plait_timer_stop(f.t);
    pli_clock_fake_advance(PLI_NS_PER_S);
    cr_assert_eq(plait_ctx_poll(ctx), 0);
    cr_assert_eq(f.count, 4);
    plait_timer_free(f.t);
    plait_timer_free(NULL);
    plait_ctx_destroy(ctx);
}

static void restart(void *arg)
{
    struct fired *f = arg;

    f->count++;
    plait_timer_start(f->t, 0, 0);
}

Test(timer, restart_for_now_in_its_callback_does_not_hang)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fired f = { 0 };

    cr_assert_eq(plait_timer_create(&f.t, ctx, restart, &f), 0);
    plait_timer_start(f.t, 0, 0);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(f.count, 2);
    plait_ctx_destroy(ctx);
}

static void free_both(void *arg)
{
    struct fired *f = arg;

    f[0].count++;
    plait_timer_free(f[1].t);
    plait_timer_free(f[0].t);
}

Test(timer, freed_in_its_own_callback_with_another_that_is_due)
{
    struct plait_ctx *ctx;
    struct fired f[2] = { { 0 } };
    unsigned i;

    pli_clock_fake_start(1000 * PLI_NS_PER_S);
    ctx = new_ctx(0, 0);
    for (i = 0; i < 2; i++)
        cr_assert_eq(plait_timer_create(&f[i].t, ctx, i ? note : free_both, &f[i]), 0);
    plait_timer_start(f[0].t, 1, 7);
    plait_timer_start(f[1].t, 2, 7);
    pli_clock_fake_advance(2 * PLI_NS_PER_US);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert_eq(f[0].count, 1);
    cr_assert_eq(f[1].count, 0);
    plait_ctx_destroy(ctx);
}

Test(timer, wakes_a_sleeping_context_in_time)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    uint64_t begin = pli_clock_now();
    struct plait_ctx_stats st;
    struct fired f;

    start_noted(&f, ctx, NULL, 0, 3000, 2000);
    f.stop_at = 5;
    cr_assert_eq(plait_ctx_run(ctx, -1), 1);
    cr_assert_geq(pli_clock_now() - begin, 11 * PLI_NS_PER_MS);
    st = stats_of(ctx);
    cr_assert_geq(st.parks, 1);
    cr_assert_eq(st.spurious_wakeups, 0);
    cr_assert_eq(st.events, 5);
    plait_ctx_destroy(ctx);
}

/* ---- running ---- */

Test(run, timeouts)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    uint64_t begin;

    cr_assert_eq(plait_ctx_run(ctx, 0), 0);
    begin = pli_clock_now();
    cr_assert_eq(plait_ctx_run(ctx, 3000), 0);
    cr_assert_geq(pli_clock_now() - begin, 3 * PLI_NS_PER_MS);
    plait_ctx_stop(ctx);
    cr_assert_eq(plait_ctx_run(ctx, -1), 1, "a stop before the run counts");
    cr_assert_eq(plait_ctx_run(ctx, 1), 0, "once");
    plait_ctx_stop(ctx);
    cr_assert_eq(plait_ctx_run(ctx, 0), 1);
    plait_ctx_destroy(ctx);
}

Test(run, timeout_of_a_spinning_context)
{
    struct plait_ctx *ctx = new_ctx(1000000, 0);
    uint64_t begin = pli_clock_now();

    cr_assert_eq(plait_ctx_run(ctx, 3000), 0);
    cr_assert_geq(pli_clock_now() - begin, 3 * PLI_NS_PER_MS);
    cr_assert_eq(stats_of(ctx).parks, 0);
    cr_assert_gt(stats_of(ctx).spins, 0);
    plait_ctx_destroy(ctx);
}

Test(run, an_idle_context_uses_no_cpu)
{
    struct plait_ctx *ctx = new_ctx(PLAIT_SPIN_AUTO, 0);
    struct plait_ctx_stats before, after;
    long cpu = cpu_us();

    before = stats_of(ctx);
    cr_assert_eq(plait_ctx_run(ctx, 200000), 0);
    after = stats_of(ctx);
    cr_assert_lt(cpu_us() - cpu, 20000);
    cr_assert_eq(after.parks - before.parks, 1, "it slept once, to the end");
    plait_ctx_destroy(ctx);
}

static struct plait_ctx *nested_ctx;
static int nested_rc[4];

static void call_everything(void *arg)
{
    (void)arg;
    nested_rc[0] = plait_ctx_poll(nested_ctx);
    nested_rc[1] = plait_ctx_run(nested_ctx, 1000);
    nested_rc[2] = plait_ctx_arm(nested_ctx);
    nested_rc[3] = plait_ctx_destroy(nested_ctx);
}

static void check_nested(unsigned flags)
{
    nested_ctx = new_ctx(0, flags);
    cr_assert_eq(plait_ctx_post(nested_ctx, call_everything, NULL), 0);
    cr_assert_eq(plait_ctx_poll(nested_ctx), 1);
    cr_assert_eq(nested_rc[0], PLAIT_E_WOULDBLOCK);
    cr_assert_eq(nested_rc[1], PLAIT_E_WOULDBLOCK);
    cr_assert_eq(nested_rc[2], PLAIT_E_WOULDBLOCK);
    cr_assert_eq(nested_rc[3], PLAIT_E_BUSY);
    cr_assert_eq(plait_ctx_destroy(nested_ctx), 0);
}

Test(run, nested_calls_in_callbacks_are_refused)
{
    check_nested(0);
}

Test(run, nested_calls_of_a_shared_context)
{
    check_nested(PLAIT_CTX_SHARED);
}

struct dying {
    struct pli_ctx_obj obj;
    struct pli_defer defer;
    struct plait_ctx *ctx;
    struct dying *first; /* destroyed from this one's destroy */
    int rc;
    bool destroyed, deferred;
};

static void dying_later(struct pli_defer *d)
{
    pli_container_of(d, struct dying, defer)->deferred = true;
}

static void die(struct pli_ctx_obj *obj, bool forked)
{
    struct dying *d = pli_container_of(obj, struct dying, obj);

    cr_assert_not(forked);
    d->destroyed = true;
    d->rc = plait_ctx_destroy(d->ctx);
    pli_ctx_defer(d->ctx, &d->defer);
    if (d->first) {
        cr_assert_not(d->first->destroyed, "reverse order");
        pli_ctx_obj_del(&d->first->obj);
    }
}

Test(run, destroy_ends_objects_in_reverse_order)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct dying d[3] = { { .ctx = ctx }, { .ctx = ctx }, { .ctx = ctx } };
    int i;

    for (i = 0; i < 3; i++) {
        pli_defer_init(&d[i].defer, dying_later);
        pli_ctx_obj_add(ctx, &d[i].obj, die);
    }
    d[2].first = &d[1];
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_assert(d[0].destroyed && d[2].destroyed && !d[1].destroyed);
    cr_assert(d[0].deferred && d[2].deferred);
    cr_assert_eq(d[0].rc, PLAIT_E_BUSY);
}

/* ---- deferred work ---- */

struct chain {
    struct pli_defer d;
    struct plait_ctx *ctx;
    unsigned left, ran;
};

static void chain_on(struct pli_defer *d)
{
    struct chain *c = pli_container_of(d, struct chain, d);

    c->ran++;
    if (c->left-- > 1)
        pli_ctx_defer(c->ctx, d);
}

Test(defer, runs_at_the_end_of_the_pass_and_does_not_hang)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct chain c = { .ctx = ctx, .left = 100 };
    unsigned before;

    pli_defer_init(&c.d, chain_on);
    pli_ctx_defer(ctx, &c.d);
    pli_ctx_defer(ctx, &c.d); /* no-op */
    plait_ctx_poll(ctx);
    cr_assert_gt(c.ran, 0);
    cr_assert_lt(c.ran, 100, "a pass is bounded");
    cr_assert_eq(plait_ctx_arm(ctx), 1, "deferred work is something to do");
    while (c.left)
        plait_ctx_poll(ctx);
    cr_assert_eq(c.ran, 100);
    before = c.ran;
    c.left = 1;
    pli_ctx_defer(ctx, &c.d);
    pli_defer_cancel(&c.d);
    plait_ctx_poll(ctx);
    cr_assert_eq(c.ran, before);
    plait_ctx_destroy(ctx);
}

/* ---- in somebody else's event loop ---- */

static int wait_readable(int fd, int ms)
{
    struct pollfd p = { fd, POLLIN, 0 };

    return poll(&p, 1, ms);
}

Test(foreign, arm_protocol)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct fired f;
    int fd = plait_ctx_fd(ctx), rounds = 0;

    start_noted(&f, ctx, NULL, 0, 1000, 1000);
    cr_assert_eq(plait_ctx_post(ctx, note, &f), 0);
    cr_assert_eq(plait_ctx_arm(ctx), 1, "the post is there already");
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    while (f.count < 5 && rounds++ < 1000) {
        int n = plait_ctx_arm(ctx);

        cr_assert_geq(n, 0);
        if (n == 0)
            cr_assert_eq(wait_readable(fd, -1), 1);
        plait_ctx_poll(ctx);
    }
    cr_assert_eq(f.count, 5);
    plait_timer_stop(f.t);
    while (plait_ctx_arm(ctx) > 0)
        plait_ctx_poll(ctx);
    cr_assert_eq(wait_readable(fd, 20), 0, "nothing to do: the descriptor is quiet");
    cr_assert_eq(plait_ctx_post(ctx, note, &f), 0);
    cr_assert_eq(wait_readable(fd, -1), 1);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    plait_ctx_destroy(ctx);
}

struct foreign {
    struct plait_ctx *ctx;
    _Atomic int got;
};

static void count_one(void *arg)
{
    struct foreign *f = arg;

    atomic_fetch_add(&f->got, 1);
}

static void *post_one_by_one(void *arg)
{
    struct foreign *f = arg;
    int i;

    for (i = 0; i < 500; i++) {
        plait_ctx_post(f->ctx, count_one, f);
        while (atomic_load(&f->got) <= i)
            sched_yield();
    }
    return NULL;
}

/* Each post meets the context at another point between polling and sleeping; a lost wake-up would hang. */
Test(foreign, no_wakeup_is_lost)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    struct foreign f = { ctx, 0 };
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN };
    pthread_t t;

    cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, plait_ctx_fd(ctx), &ev), 0);
    cr_assert_eq(pthread_create(&t, NULL, post_one_by_one, &f), 0);
    while (atomic_load(&f.got) < 500) {
        if (plait_ctx_arm(ctx) == 0)
            cr_assert_eq(epoll_wait(ep, &ev, 1, -1), 1);
        plait_ctx_poll(ctx);
    }
    pthread_join(t, NULL);
    close(ep);
    plait_ctx_destroy(ctx);
}

#ifdef PLAIT_DEBUG
static void *use_it(void *arg)
{
    assert_code(plait_ctx_poll(arg), PLAIT_E_THREAD, "belongs to thread");
    return NULL;
}

Test(debug, another_thread_is_refused)
{
    struct plait_ctx *ctx = new_ctx(0, 0);
    pthread_t t;

    cr_assert_eq(pthread_create(&t, NULL, use_it, ctx), 0);
    pthread_join(t, NULL);
    plait_ctx_destroy(ctx);
}
#endif
