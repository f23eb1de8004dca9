/* SPDX-License-Identifier: BSD-3-Clause */
/* Teams: worker threads, each with a context of its own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/loop_priv.h"
#include "runtime/place.h"
#include "util/err.h"

#define COUNT_MAX 4096

struct worker {
    struct plait_team *team;
    pthread_t thread;
    struct plait_ctx *ctx;
    int cpu;    /* to pin to, or PLAIT_CPU_NONE */
    bool ready; /* its context exists, on_start has returned */
    int rc;     /* why it does not */
    char text[256];
};

struct plait_team {
    struct plait_team_opts opts;
    unsigned count; /* workers whose thread was started */
    struct worker *workers;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    unsigned waiting; /* workers that have said ready or failed */
    _Atomic bool stopping;
};

/* ---- on the worker's thread ---- */

static void report(struct worker *w, int rc)
{
    struct plait_team *team = w->team;

    pthread_mutex_lock(&team->mutex);
    w->rc = rc;
    w->ready = rc == 0;
    if (rc < 0)
        snprintf(w->text, sizeof w->text, "%s", pli_err_text());
    team->waiting++;
    pthread_cond_signal(&team->cond);
    pthread_mutex_unlock(&team->mutex);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    const struct plait_team_opts *o = &w->team->opts;
    unsigned index = (unsigned)(w - w->team->workers);
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    char name[32];
    int rc;

    snprintf(name, sizeof name, "worker%u", index);
    if (w->cpu == PLAIT_CPU_NONE)
        pli_place_free_thread();
    opts.cpu = w->cpu;
    opts.spin_us = o->spin_us;
    opts.peer_timeout_ms = o->peer_timeout_ms;
    opts.name = name;
    rc = plait_ctx_create(&w->ctx, &opts);
    if (rc == 0 && o->on_start)
        o->on_start(w->ctx, index, o->arg);
    report(w, rc);
    if (rc < 0)
        return NULL;
    /* a callback of the user's may have stopped it: only the team ends it */
    while (!atomic_load_explicit(&w->team->stopping, memory_order_acquire))
        plait_ctx_run(w->ctx, -1);
    /* whoever stopped us may still be using the context */
    pthread_mutex_lock(&w->team->mutex);
    pthread_mutex_unlock(&w->team->mutex);
    if (o->on_stop)
        o->on_stop(w->ctx, index, o->arg);
    plait_ctx_destroy(w->ctx);
    return NULL;
}

/* ---- on the creator's ---- */

static int check_opts(const struct plait_team_opts *given, struct plait_team_opts *opts)
{
    const struct plait_team_opts defaults = PLAIT_TEAM_OPTS_INIT;

    *opts = defaults;
    if (!given)
        return 0;
    if (given->size < sizeof(size_t) || given->size > sizeof *opts)
        return pli_fail(PLAIT_E_INVAL,
                        "plait_team_opts.size is %zu, this library knows up to %zu: start from "
                        "PLAIT_TEAM_OPTS_INIT",
                        given->size, sizeof *opts);
    memcpy(opts, given, given->size);
    if (opts->count > COUNT_MAX)
        return pli_fail(PLAIT_E_INVAL, "plait_team_opts.count is %u: at most %d", opts->count, COUNT_MAX);
    return 0;
}

static int start_worker(struct plait_team *team, unsigned i, int cpu)
{
    struct worker *w = &team->workers[i];
    int err;

    w->team = team;
    w->cpu = cpu;
    err = pthread_create(&w->thread, NULL, work, w);
    if (err)
        return pli_fail(err == EAGAIN ? PLAIT_E_NOMEM : PLAIT_E_SYSTEM,
                        "worker %u: pthread_create: %s; see 'ulimit -u' and the cgroup's pids.max", i,
                        strerror(err));
    team->count++;
    return 0;
}

static void stop_workers(struct plait_team *team)
{
    unsigned i;

    pthread_mutex_lock(&team->mutex);
    atomic_store_explicit(&team->stopping, true, memory_order_release);
    for (i = 0; i < team->count; i++) {
        if (team->workers[i].ready)
            plait_ctx_stop(team->workers[i].ctx);
    }
    pthread_mutex_unlock(&team->mutex);
    for (i = 0; i < team->count; i++)
        pthread_join(team->workers[i].thread, NULL);
}

/* Every worker that was started has then said how it went. */
static void wait_reports(struct plait_team *team)
{
    pthread_mutex_lock(&team->mutex);
    while (team->waiting < team->count)
        pthread_cond_wait(&team->cond, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static int first_failure(const struct plait_team *team)
{
    unsigned i;

    for (i = 0; i < team->count; i++) {
        if (team->workers[i].rc < 0)
            return pli_fail(team->workers[i].rc, "worker %u: %s", i, team->workers[i].text);
    }
    return 0;
}

static int start_workers(struct plait_team *team, const int *cpus, unsigned count)
{
    unsigned i;
    int rc = 0;

    for (i = 0; i < count && rc == 0; i++)
        rc = start_worker(team, i, cpus ? cpus[i] : PLAIT_CPU_NONE);
    wait_reports(team);
    if (rc == 0)
        rc = first_failure(team);
    if (rc < 0)
        stop_workers(team);
    return rc;
}

/* Chooses the workers' CPUs all at once, so that worker i and worker i + 1 are neighbours. */
static int place_and_start(struct plait_team *team, unsigned count)
{
    int *cpus = NULL;
    int rc;

    if (team->opts.pin) {
        cpus = calloc(count, sizeof *cpus);
        if (!cpus)
            return pli_fail(PLAIT_E_NOMEM, "no memory for a team of %u", count);
        rc = pli_place_take(cpus, count, team->opts.use_smt);
        if (rc < 0)
            goto out_free;
    }
    rc = start_workers(team, cpus, count);
    if (cpus)
        pli_place_give(cpus, count); /* the contexts have counted themselves */
out_free:
    free(cpus);
    return rc;
}

static void free_team(struct plait_team *team)
{
    pthread_cond_destroy(&team->cond);
    pthread_mutex_destroy(&team->mutex);
    free(team->workers);
    free(team);
}

int plait_team_create(struct plait_team **team, const struct plait_team_opts *opts)
{
    struct plait_team_opts o;
    struct plait_team *t;
    unsigned count;
    int rc;

    *team = NULL;
    rc = check_opts(opts, &o);
    if (rc < 0)
        return rc;
    rc = o.count ? (int)o.count : pli_place_count(o.use_smt);
    if (rc < 0)
        return rc;
    count = (unsigned)rc;
    t = calloc(1, sizeof *t);
    if (!t)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a team of %u", count);
    t->opts = o;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->cond, NULL);
    t->workers = calloc(count, sizeof *t->workers);
    rc =
        t->workers ? place_and_start(t, count) : pli_fail(PLAIT_E_NOMEM, "no memory for a team of %u", count);
    if (rc < 0) {
        free_team(t);
        return rc;
    }
    *team = t;
    return 0;
}

/* In the child of a fork there are no workers. */
static int destroy_forked(struct plait_team *team)
{
    unsigned i;

    for (i = 0; i < team->count; i++)
        plait_ctx_destroy(team->workers[i].ctx);
    free(team->workers);
    free(team);
    return 0;
}

int plait_team_destroy(struct plait_team *team)
{
    unsigned i;

    if (!team)
        return 0;
    if (team->workers[0].ctx->forked)
        return destroy_forked(team);
    for (i = 0; i < team->count; i++) {
        if (pthread_equal(team->workers[i].thread, pthread_self()))
            return pli_fail(PLAIT_E_BUSY, "a team cannot be destroyed by its own worker %u", i);
    }
    stop_workers(team);
    free_team(team);
    return 0;
}

unsigned plait_team_size(const struct plait_team *team)
{
    return team->count;
}

struct plait_ctx *plait_team_ctx(const struct plait_team *team, unsigned i)
{
    return i < team->count ? team->workers[i].ctx : NULL;
}
