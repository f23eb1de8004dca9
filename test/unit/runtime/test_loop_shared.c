/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared contexts: the lock, and threads that wait and receive for each other. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "fake_tr.h"
#include "loop_util.h"
#include "runtime/handover.h"

enum { THREADS_MAX = 8 };

/* A server that answers calls in the order in which they come, on its own thread, through a fake link. */
struct server {
    struct plait_ctx *ctx;
    struct fake link;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    unsigned asked, answered; /* under the mutex */
    bool end;
    struct call *queue[4096];
    unsigned head;            /* next to be completed by rx: under the context's lock */
};

struct call {
    bool done; /* under the context's lock */
};

static void complete(struct fake *f)
{
    struct server *s = f->user;

    s->queue[s->head++ % 4096]->done = true;
}

static void *serve(void *arg)
{
    struct server *s = arg;

    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (s->asked == s->answered && !s->end)
            pthread_cond_wait(&s->cond, &s->mutex);
        if (s->asked == s->answered)
            break;
        s->answered++;
        pthread_mutex_unlock(&s->mutex);
        fake_send(&s->link);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static bool call_done(void *arg)
{
    return ((struct call *)arg)->done;
}

/* A blocking call, as the library makes it. */
static int call_server(struct server *s, uint64_t deadline)
{
    struct call call = { false };
    int rc;

    pli_handover_lock(s->ctx);
    pthread_mutex_lock(&s->mutex);
    s->queue[s->asked++ % 4096] = &call;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mutex);
    rc = pli_ctx_wait(s->ctx, call_done, &call, deadline);
    pli_handover_unlock(s->ctx);
    return rc;
}

static void open_server(struct server *s, uint32_t spin_us, pthread_t *thread)
{
    memset(s, 0, sizeof *s);
    s->ctx = new_ctx(spin_us, PLAIT_CTX_SHARED);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->cond, NULL);
    pli_handover_lock(s->ctx);
    fake_open(&s->link, s->ctx);
    s->link.rx = complete;
    s->link.user = s;
    pli_handover_unlock(s->ctx);
    cr_assert_eq(pthread_create(thread, NULL, serve, s), 0);
}

static void close_server(struct server *s, pthread_t thread)
{
    pthread_mutex_lock(&s->mutex);
    s->end = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(thread, NULL);
    pli_handover_lock(s->ctx);
    fake_close(&s->link, s->ctx);
    pli_handover_unlock(s->ctx);
    cr_assert_eq(plait_ctx_destroy(s->ctx), 0, "%s", plait_error_text());
}

struct caller {
    struct server *s;
    pthread_t thread;
    unsigned calls;
};

static void *call_many(void *arg)
{
    struct caller *c = arg;
    unsigned i;

    for (i = 0; i < c->calls; i++)
        cr_assert_eq(call_server(c->s, PLI_CLOCK_NEVER), 1);
    return NULL;
}

static void callers(unsigned threads, unsigned calls, uint32_t spin_us)
{
    struct caller c[THREADS_MAX];
    struct server s;
    pthread_t server;
    unsigned i;

    open_server(&s, spin_us, &server);
    for (i = 0; i < threads; i++) {
        c[i] = (struct caller){ .s = &s, .calls = calls };
        cr_assert_eq(pthread_create(&c[i].thread, NULL, call_many, &c[i]), 0);
    }
    for (i = 0; i < threads; i++)
        pthread_join(c[i].thread, NULL);
    cr_assert_eq(s.head, threads * calls);
    close_server(&s, server);
}

Test(shared, one_thread_calls)
{
    callers(1, 300, 0);
}

Test(shared, two_threads_call)
{
    callers(2, 300, 0);
}

Test(shared, eight_threads_call_and_sleep)
{
    callers(8, 150, 0);
}

Test(shared, eight_threads_call_and_spin)
{
    callers(8, 150, 100);
}

/* ---- one thread waits for long, the others come and go ---- */

struct waiting {
    struct server *s;
    bool done; /* under the lock */
    _Atomic int rc;
};

static bool waiting_done(void *arg)
{
    return ((struct waiting *)arg)->done;
}

static void *wait_long(void *arg)
{
    struct waiting *w = arg;

    atomic_store(&w->rc, pli_ctx_wait(w->s->ctx, waiting_done, w, PLI_CLOCK_NEVER));
    return NULL;
}

Test(shared, calls_beside_a_receiver_that_sleeps)
{
    struct server s;
    struct waiting w = { &s, false, -1 };
    pthread_t server, waiter;
    int i;

    open_server(&s, 0, &server);
    cr_assert_eq(pthread_create(&waiter, NULL, wait_long, &w), 0);
    for (i = 0; i < 200; i++)
        cr_assert_eq(call_server(&s, PLI_CLOCK_NEVER), 1);
    cr_assert_eq(atomic_load(&w.rc), -1);
    /* its wait ends by what another thread does with the lock, without any event */
    pli_handover_lock(s.ctx);
    w.done = true;
    pli_handover_unlock(s.ctx);
    pthread_join(waiter, NULL);
    cr_assert_eq(w.rc, 1);
    close_server(&s, server);
}

/* What another thread does to the context while the receiver sleeps must wake it. */
static void set_done(void *arg)
{
    struct waiting *w = arg;

    w->done = true;
}

struct defer_done {
    struct pli_defer d;
    struct waiting *w;
};

static void deferred_done(struct pli_defer *d)
{
    pli_container_of(d, struct defer_done, d)->w->done = true;
}

static void sleep_then(void (*act)(struct waiting *w))
{
    struct server s;
    struct waiting w = { &s, false, -1 };
    pthread_t server, waiter;

    open_server(&s, 0, &server);
    cr_assert_eq(pthread_create(&waiter, NULL, wait_long, &w), 0);
    while (!atomic_load(&s.ctx->sleeping))
        sched_yield();
    pli_handover_lock(s.ctx);
    act(&w);
    pli_handover_unlock(s.ctx);
    pthread_join(waiter, NULL);
    cr_assert_eq(w.rc, 1);
    close_server(&s, server);
}

static void act_timer(struct waiting *w)
{
    struct plait_timer *t;

    cr_assert_eq(plait_timer_create(&t, w->s->ctx, set_done, w), 0);
    plait_timer_start(t, 100, 0);
}

static void act_defer(struct waiting *w)
{
    static struct defer_done d;

    d.w = w;
    pli_defer_init(&d.d, deferred_done);
    pli_ctx_defer(w->s->ctx, &d.d);
}

static void act_poll(struct waiting *w)
{
    /* takes the events that the sleeper would have got, and leaves the link hot */
    fake_kick(&w->s->link);
    cr_assert_geq(plait_ctx_poll(w->s->ctx), 0);
    cr_assert_eq(plait_ctx_post(w->s->ctx, set_done, w), 0);
}

static void act_post(struct waiting *w)
{
    cr_assert_eq(plait_ctx_post(w->s->ctx, set_done, w), 0);
}

Test(shared, a_timer_set_by_another_thread_wakes_the_receiver)
{
    sleep_then(act_timer);
}

Test(shared, deferred_work_of_another_thread_wakes_the_receiver)
{
    sleep_then(act_defer);
}

Test(shared, a_poll_by_another_thread_wakes_the_receiver)
{
    sleep_then(act_poll);
}

Test(shared, a_post_wakes_the_receiver)
{
    sleep_then(act_post);
}

Test(shared, a_deadline_passes_for_receiver_and_waiter)
{
    struct server s;
    struct waiting w = { &s, false, -1 };
    struct waiting own = { &s, false, -1 };
    pthread_t server, waiter;
    uint64_t end;

    open_server(&s, 0, &server);
    end = pli_clock_now() + 5 * PLI_NS_PER_MS;
    cr_assert_eq(pli_ctx_wait(s.ctx, waiting_done, &own, end), 0);
    cr_assert_geq(pli_clock_now(), end);
    cr_assert_eq(pthread_create(&waiter, NULL, wait_long, &w), 0);
    while (!atomic_load(&s.ctx->sleeping))
        sched_yield();
    end = pli_clock_now() + 5 * PLI_NS_PER_MS;
    cr_assert_eq(pli_ctx_wait(s.ctx, waiting_done, &own, end), 0);
    cr_assert_geq(pli_clock_now(), end);
    assert_code(plait_ctx_destroy(s.ctx), PLAIT_E_BUSY, "other threads wait");
    cr_assert_eq(plait_ctx_post(s.ctx, set_done, &w), 0);
    pthread_join(waiter, NULL);
    close_server(&s, server);
}

/* ---- run, stop, lock ---- */

static void *run_it(void *arg)
{
    cr_assert_eq(plait_ctx_run(arg, -1), 1);
    return NULL;
}

Test(shared, each_stop_ends_one_run)
{
    struct plait_ctx *ctx = new_ctx(0, PLAIT_CTX_SHARED);
    pthread_t t[3];
    int i;

    for (i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, run_it, ctx), 0);
    for (i = 0; i < 3; i++) {
        plait_ctx_stop(ctx);
        while (atomic_load(&ctx->stop))
            sched_yield();
    }
    for (i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

struct locker {
    struct plait_ctx *ctx;
    pthread_t thread;
    unsigned *counter;
};

static void *count_locked(void *arg)
{
    struct locker *l = arg;
    int i;

    for (i = 0; i < 1000; i++) {
        cr_assert_eq(plait_ctx_lock(l->ctx), 0);
        ++*l->counter;
        if (i % 100 == 0)
            plait_ctx_poll(l->ctx);
        cr_assert_eq(plait_ctx_unlock(l->ctx), 0);
    }
    return NULL;
}

/* The receiver spins all the time, and lets others in between its passes. */
Test(shared, the_lock_excludes_and_is_not_kept_by_a_spinning_receiver)
{
    struct plait_ctx *ctx = new_ctx(10000000, PLAIT_CTX_SHARED);
    struct locker l[3];
    unsigned counter = 0;
    pthread_t runner;
    int i;

    cr_assert_eq(pthread_create(&runner, NULL, run_it, ctx), 0);
    for (i = 0; i < 3; i++) {
        l[i] = (struct locker){ .ctx = ctx, .counter = &counter };
        cr_assert_eq(pthread_create(&l[i].thread, NULL, count_locked, &l[i]), 0);
    }
    for (i = 0; i < 3; i++)
        pthread_join(l[i].thread, NULL);
    cr_assert_eq(counter, 3000);
    plait_ctx_stop(ctx);
    pthread_join(runner, NULL);
    plait_ctx_destroy(ctx);
}

Test(shared, lock_errors)
{
    struct plait_ctx *ctx = new_ctx(0, 0), *shared = new_ctx(0, PLAIT_CTX_SHARED);

    assert_code(plait_ctx_lock(ctx), PLAIT_E_INVAL, "PLAIT_CTX_SHARED");
    assert_code(plait_ctx_unlock(ctx), PLAIT_E_INVAL, "PLAIT_CTX_SHARED");
    assert_code(plait_ctx_unlock(shared), PLAIT_E_THREAD, "does not have the lock");
    cr_assert_eq(plait_ctx_lock(shared), 0);
    cr_assert_eq(plait_ctx_lock(shared), 0, "again by the same thread");
    cr_assert_eq(plait_ctx_unlock(shared), 0);
    cr_assert(pli_handover_mine(shared));
    cr_assert_eq(plait_ctx_unlock(shared), 0);
    cr_assert_not(pli_handover_mine(shared));
    plait_ctx_destroy(ctx);
    plait_ctx_destroy(shared);
}

Test(shared, foreign_loop)
{
    struct plait_ctx *ctx = new_ctx(0, PLAIT_CTX_SHARED);
    struct waiting w = { NULL, false, -1 };

    cr_assert_eq(plait_ctx_arm(ctx), 0);
    cr_assert_eq(plait_ctx_post(ctx, set_done, &w), 0);
    cr_assert_eq(plait_ctx_poll(ctx), 1);
    cr_assert(w.done);
    plait_ctx_destroy(ctx);
}

#ifdef PLAIT_DEBUG
Test(shared, debug_checks_the_lock)
{
    struct plait_ctx *ctx = new_ctx(0, PLAIT_CTX_SHARED);
    struct plait_timer *t;

    assert_code(plait_timer_create(&t, ctx, set_done, NULL), PLAIT_E_THREAD, "plait_ctx_lock");
    plait_ctx_lock(ctx);
    cr_assert_eq(plait_timer_create(&t, ctx, set_done, NULL), 0);
    plait_ctx_unlock(ctx);
    plait_ctx_destroy(ctx);
}
#endif
