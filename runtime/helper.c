/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/helper.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/peeraddr.h"
#include "runtime/place.h"
#include "util/err.h"
#include "util/log.h"

#define IDLE_NS (100 * PLI_NS_PER_MS)
#define STACK_BYTES (512u * 1024u) /* name services bring their own libraries, some hungry */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct pli_list queue;   /* tasks that no thread has yet */
    struct pli_list running; /* for the fork handler */
    unsigned queued, threads, idle, blocked;
    bool pinned; /* a context that uses the pool has pinned its thread */
} pool;

static pthread_once_t pool_once = PTHREAD_ONCE_INIT;

/* ---- the pool and fork ---- */

static void reset_pool(void)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&pool.lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool.work, &attr);
    pthread_condattr_destroy(&attr);
    pli_list_init(&pool.queue);
    pli_list_init(&pool.running);
    pool.queued = pool.threads = pool.idle = pool.blocked = 0;
}

static void before_fork(void)
{
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&pool.lock);
}

/* No helper thread lives in the child: what they had is over, and is freed when its context is destroyed
 * there. */
static void after_fork_child(void)
{
    struct pli_list *node;

    pli_list_splice_back(&pool.queue, &pool.running);
    while ((node = pli_list_pop_front(&pool.queue)) != NULL)
        pli_container_of(node, struct pli_task, node)->state = PLI_TASK_OVER;
    reset_pool();
}

static void init_pool(void)
{
    reset_pool();
    if (pthread_atfork(before_fork, after_fork_parent, after_fork_child) != 0)
        pli_warn("no memory for a fork handler: forked children must not use plait");
}

/* ---- threads ---- */

/* Contexts pin their threads, and a thread inherits that; helpers must not sit on the core of a context that
 * spins. So they get what the process was allowed when its topology was read. */
static void leave_core(void)
{
    const struct pli_topo *topo = pli_place_topo();
    const struct pli_topo_pu *pu;
    cpu_set_t *set;
    size_t size;
    int max = 0;

    if (!topo || !pli_topo_info(topo)->this_system)
        return;
    for (int i = 0; (pu = pli_topo_pu(topo, i)) != NULL; i++)
        max = pu->os > max ? pu->os : max;
    set = CPU_ALLOC(max + 1);
    if (!set)
        return;
    size = CPU_ALLOC_SIZE(max + 1);
    CPU_ZERO_S(size, set);
    for (int i = 0; (pu = pli_topo_pu(topo, i)) != NULL; i++)
        if (pu->allowed)
            CPU_SET_S(pu->os, size, set);
    if (sched_setaffinity(0, size, set) < 0)
        pli_debug("a helper thread keeps the affinity of its creator: %s", strerror(errno));
    CPU_FREE(set);
}

static void *worker(void *arg);

static int start_thread(void)
{
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_t thread;
    int err;

    err = pthread_attr_init(&attr);
    if (err)
        return err;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* the program's signals are for its own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&thread, &attr, worker, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (err)
        return err;
    pool.threads++;
    pool.idle++; /* until it runs, so that it is not started twice for one task */
    return 0;
}

/* With the lock. Returns an errno value if a thread was needed and could not be started. */
static int start_threads(void)
{
    int err = 0;

    while (!err && pool.queued > pool.idle && pool.threads - pool.blocked < PLI_HELPERS &&
           pool.threads < PLI_HELPERS_MAX)
        err = start_thread();
    return err;
}

static void block_locked(void)
{
    pool.blocked++;
    start_threads(); /* if it fails, what is queued waits longer */
}

static void posted(void *arg);

/* With the lock, which a context that is being destroyed takes to cancel its tasks. */
static void finish(struct pli_task *t)
{
    struct timespec pause = {0, 10 * 1000 * 1000};

    while (!pli_task_cancelled(t)) {
        if (plait_ctx_post(t->ctx, posted, t) == 0) {
            t->state = PLI_TASK_POSTED;
            break;
        }
        /* no memory for 32 bytes: nothing can be told to anybody now */
        pthread_mutex_unlock(&pool.lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&pool.lock);
    }
    pli_list_remove(&t->node);
    if (t->state == PLI_TASK_POSTED)
        return;
    t->state = PLI_TASK_OVER;
    pthread_mutex_unlock(&pool.lock);
    t->free(t);
    pthread_mutex_lock(&pool.lock);
}

static void run_task(struct pli_task *t)
{
    pool.queued--;
    t->state = PLI_TASK_RUNNING;
    pli_list_push_back(&pool.running, &t->node);
    if (t->slow)
        block_locked();
    pthread_mutex_unlock(&pool.lock);
    t->work(t);
    pthread_mutex_lock(&pool.lock);
    if (t->slow)
        pool.blocked--;
    finish(t);
}

/* With the lock. False: nothing came for a while. */
static bool wait_for_work(void)
{
    struct timespec until;
    uint64_t ns;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    ns = (uint64_t)until.tv_nsec + IDLE_NS;
    until.tv_sec += (time_t)(ns / PLI_NS_PER_S);
    until.tv_nsec = (long)(ns % PLI_NS_PER_S);
    pool.idle++;
    while (rc == 0 && pli_list_is_empty(&pool.queue))
        rc = pthread_cond_timedwait(&pool.work, &pool.lock, &until);
    pool.idle--;
    return !pli_list_is_empty(&pool.queue);
}

static void *worker(void *arg)
{
    struct pli_list *node;

    (void)arg;
    pthread_setname_np(pthread_self(), "plait-helper");
    pthread_mutex_lock(&pool.lock);
    pool.idle--;
    if (pool.pinned) {
        pthread_mutex_unlock(&pool.lock);
        leave_core();
        pthread_mutex_lock(&pool.lock);
    }
    do {
        while ((node = pli_list_pop_front(&pool.queue)) != NULL)
            run_task(pli_container_of(node, struct pli_task, node));
    } while (wait_for_work());
    pool.threads--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

void pli_task_block(void)
{
    pthread_mutex_lock(&pool.lock);
    block_locked();
    pthread_mutex_unlock(&pool.lock);
}

void pli_task_unblock(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.blocked--;
    pthread_mutex_unlock(&pool.lock);
}

unsigned pli_helper_threads(void)
{
    unsigned n;

    pthread_once(&pool_once, init_pool);
    pthread_mutex_lock(&pool.lock);
    n = pool.threads;
    pthread_mutex_unlock(&pool.lock);
    return n;
}

/* ---- tasks ---- */

/* The context is being destroyed. What it was still to be told is dropped by it, without a call. */
static void task_destroy(struct pli_ctx_obj *obj, bool forked)
{
    struct pli_task *t = pli_container_of(obj, struct pli_task, obj);
    bool running;

    (void)forked;
    if (t->stop)
        t->stop(t);
    pthread_mutex_lock(&pool.lock);
    running = t->state == PLI_TASK_RUNNING;
    if (t->state == PLI_TASK_QUEUED) {
        pli_list_remove(&t->node);
        pool.queued--;
    }
    atomic_store_explicit(&t->cancelled, true, memory_order_relaxed);
    if (!running)
        t->state = PLI_TASK_OVER;
    pthread_mutex_unlock(&pool.lock);
    if (!running)
        t->free(t);
}

int pli_task_start(struct pli_task *t, struct plait_ctx *ctx)
{
    int err;

    pthread_once(&pool_once, init_pool);
    t->ctx = ctx;
    pli_list_init(&t->node);
    pthread_mutex_lock(&pool.lock);
    pool.pinned |= ctx->pin != NULL;
    pli_list_push_back(&pool.queue, &t->node);
    pool.queued++;
    err = start_threads();
    if (pool.threads == 0) {
        pli_list_remove(&t->node);
        pool.queued--;
        pthread_mutex_unlock(&pool.lock);
        return pli_fail(PLAIT_E_SYSTEM,
                        "cannot start a helper thread: %s; see 'ulimit -u' and the cgroup's pids.max",
                        strerror(err));
    }
    t->state = PLI_TASK_QUEUED;
    pli_ctx_obj_add(ctx, &t->obj, task_destroy);
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    return 0;
}

int pli_task_start_done(struct pli_task *t, struct plait_ctx *ctx)
{
    int rc;

    pthread_once(&pool_once, init_pool);
    t->ctx = ctx;
    pli_list_init(&t->node);
    rc = plait_ctx_post(ctx, posted, t);
    if (rc < 0)
        return rc;
    t->state = PLI_TASK_POSTED;
    pli_ctx_obj_add(ctx, &t->obj, task_destroy);
    return 0;
}

void pli_task_cancel(struct pli_task *t)
{
    bool queued;

    pthread_mutex_lock(&pool.lock);
    if (t->state == PLI_TASK_OVER) {
        pthread_mutex_unlock(&pool.lock);
        return;
    }
    if (t->stop)
        t->stop(t);
    queued = t->state == PLI_TASK_QUEUED;
    atomic_store_explicit(&t->cancelled, true, memory_order_relaxed);
    if (queued) {
        pli_list_remove(&t->node);
        pool.queued--;
        t->state = PLI_TASK_OVER;
    }
    /* one that is posted stays with its context, which frees it in posted() or in task_destroy() */
    if (queued || t->state == PLI_TASK_RUNNING)
        pli_ctx_obj_del(&t->obj);
    pthread_mutex_unlock(&pool.lock);
    if (queued)
        t->free(t);
}

static void posted(void *arg)
{
    struct pli_task *t = arg;

    pthread_mutex_lock(&pool.lock);
    t->state = PLI_TASK_OVER;
    pthread_mutex_unlock(&pool.lock);
    pli_ctx_obj_del(&t->obj);
    if (!pli_task_cancelled(t))
        t->done(t);
    t->free(t);
}

/* ---- pli_helper_run ---- */

struct run {
    struct pli_task task;
    void (*fn)(void *arg);
    void (*done)(void *arg);
    void (*drop)(void *arg);
    void *arg;
};

static void run_work(struct pli_task *t)
{
    struct run *r = pli_container_of(t, struct run, task);

    r->fn(r->arg);
}

static void run_done(struct pli_task *t)
{
    struct run *r = pli_container_of(t, struct run, task);

    r->drop = NULL;
    r->done(r->arg);
}

static void run_free(struct pli_task *t)
{
    struct run *r = pli_container_of(t, struct run, task);

    if (r->drop)
        r->drop(r->arg);
    free(r);
}

int pli_helper_run_or_drop(struct plait_ctx *ctx, void (*fn)(void *arg), void (*done)(void *arg),
                           void (*drop)(void *arg), void *arg)
{
    struct run *r = calloc(1, sizeof *r);
    int rc;

    if (!r)
        return pli_fail(PLAIT_E_NOMEM, "no memory to run something on a helper thread");
    r->task.work = run_work;
    r->task.done = run_done;
    r->task.free = run_free;
    r->task.slow = true;
    r->fn = fn;
    r->done = done;
    r->drop = drop;
    r->arg = arg;
    rc = pli_task_start(&r->task, ctx);
    if (rc < 0)
        free(r);
    return rc;
}

int pli_helper_run(struct plait_ctx *ctx, void (*fn)(void *arg), void (*done)(void *arg), void *arg)
{
    return pli_helper_run_or_drop(ctx, fn, done, NULL, arg);
}
