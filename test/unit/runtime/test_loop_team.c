/* SPDX-License-Identifier: BSD-3-Clause */
/* Placement of contexts, teams, and what the library says about itself. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop_util.h"
#include "runtime/loop_priv.h"
#include "runtime/place.h"

static int cpus_allowed(cpu_set_t *set)
{
    cr_assert_eq(sched_getaffinity(0, sizeof *set, set), 0);
    return CPU_COUNT(set);
}

Test(place, auto_pins_and_destroy_gives_the_mask_back)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    cpu_set_t before, now;
    struct plait_ctx *ctx;

    cpus_allowed(&before);
    opts.cpu = PLAIT_CPU_AUTO;
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    cr_assert_geq(plait_ctx_cpu(ctx), 0);
    cr_assert_eq(cpus_allowed(&now), 1);
    cr_assert(CPU_ISSET((unsigned)plait_ctx_cpu(ctx), &now));
    cr_assert_geq(plait_ctx_node(ctx), 0);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cpus_allowed(&now);
    cr_assert(CPU_EQUAL(&before, &now));
}

static void *create_auto(void *arg)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx **ctx = arg;

    opts.cpu = PLAIT_CPU_AUTO;
    cr_assert_eq(plait_ctx_create(ctx, &opts), 0, "%s", plait_error_text());
    return NULL;
}

Test(place, contexts_of_a_process_get_cores_of_their_own)
{
    struct plait_ctx *a, *b;
    pthread_t t;
    int cores = pli_place_count(false);

    cr_assert_geq(cores, 1, "%s", plait_error_text());
    create_auto(&a);
    cr_assert_eq(pthread_create(&t, NULL, create_auto, &b), 0);
    pthread_join(t, NULL);
    if (cores > 1)
        cr_assert_neq(plait_ctx_cpu(a), plait_ctx_cpu(b));
    plait_ctx_destroy(a);
#ifndef PLAIT_DEBUG /* its owner has ended; only a debug build minds */
    plait_ctx_destroy(b);
#endif
}

Test(place, a_cpu_that_is_not_there)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;

    opts.cpu = 8000;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_TOPOLOGY, "8000");
}

Test(place, a_topology_that_is_not_there)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;

    setenv("HWLOC_XMLFILE", "/nowhere/machine.xml", 1);
    opts.cpu = PLAIT_CPU_AUTO;
    assert_code(plait_ctx_create(&ctx, &opts), PLAIT_E_TOPOLOGY, "/nowhere/machine.xml");
    opts.cpu = PLAIT_CPU_NONE;
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    plait_ctx_destroy(ctx);
}

Test(place, somebody_elses_topology_pins_nothing)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    cpu_set_t before, now;
    struct plait_ctx *ctx;

    setenv("HWLOC_SYNTHETIC", "numa:4 core:8 pu:2", 1);
    cpus_allowed(&before);
    opts.cpu = PLAIT_CPU_AUTO;
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    cpus_allowed(&now);
    cr_assert(CPU_EQUAL(&before, &now));
    cr_assert_eq(plait_ctx_cpu(ctx), -1);
    cr_assert_eq(pli_place_count(false), 32);
    cr_assert_eq(pli_place_count(true), 64);
    plait_ctx_destroy(ctx);
}

Test(place, more_contexts_than_cpus_is_noticed)
{
    struct plait_ctx *ctx[65];
    unsigned i, n;

    ctx[0] = new_ctx(PLAIT_SPIN_AUTO, 0);
    n = pli_registry_cpus();
    if (n > 64)
        cr_skip_test("too many CPUs");
    for (i = 1; i <= n; i++) {
        cr_assert_not(pli_registry_crowded());
        ctx[i] = new_ctx(PLAIT_SPIN_AUTO, 0);
    }
    cr_assert(pli_registry_crowded());
    cr_assert_eq(plait_ctx_run(ctx[0], 100), 0);
    cr_assert_leq(stats_of(ctx[0]).spins, 2 * stats_of(ctx[0]).parks + 2, "it parks and does not spin");
    plait_ctx_destroy(ctx[n]);
    cr_assert_not(pli_registry_crowded());
    for (i = 0; i < n; i++)
        plait_ctx_destroy(ctx[i]);
}

/* ---- teams ---- */

struct team_log {
    _Atomic int started, stopped, posted;
    _Atomic int cpus[64];
    _Atomic bool pinned;
};

static void on_start(struct plait_ctx *ctx, unsigned index, void *arg)
{
    struct team_log *log = arg;
    cpu_set_t set;

    atomic_fetch_add(&log->started, 1);
    atomic_store(&log->cpus[index], plait_ctx_cpu(ctx));
    if (cpus_allowed(&set) > 1)
        atomic_store(&log->pinned, false);
}

static void on_stop(struct plait_ctx *ctx, unsigned index, void *arg)
{
    struct team_log *log = arg;

    (void)ctx;
    (void)index;
    atomic_fetch_add(&log->stopped, 1);
}

static void on_post(void *arg)
{
    struct team_log *log = arg;

    atomic_fetch_add(&log->posted, 1);
}

Test(team, one_per_core_pinned)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct team_log log = { .pinned = true };
    struct plait_team *team;
    unsigned i, j, n;

    opts.on_start = on_start;
    opts.on_stop = on_stop;
    opts.arg = &log;
    cr_assert_eq(plait_team_create(&team, &opts), 0, "%s", plait_error_text());
    n = plait_team_size(team);
    cr_assert_eq(n, (unsigned)pli_place_count(false));
    cr_assert_eq(log.started, (int)n);
    cr_assert(log.pinned);
    for (i = 0; i < n; i++) {
        cr_assert_eq(log.cpus[i], plait_ctx_cpu(plait_team_ctx(team, i)));
        for (j = 0; j < i; j++)
            cr_assert_neq(log.cpus[i], log.cpus[j]);
        cr_assert_eq(plait_ctx_post(plait_team_ctx(team, i), on_post, &log), 0);
        /* a worker runs until the team is destroyed, whoever stops it */
        plait_ctx_stop(plait_team_ctx(team, i));
    }
    cr_assert_null(plait_team_ctx(team, n));
    while (log.posted < (int)n)
        sched_yield();
    cr_assert_eq(log.stopped, 0);
    cr_assert_eq(plait_team_destroy(team), 0);
    cr_assert_eq(log.stopped, (int)n);
}

Test(team, more_workers_than_cores)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct team_log log = { .pinned = true };
    struct plait_team *team;
    unsigned i;

    opts.count = 9;
    opts.on_start = on_start;
    opts.arg = &log;
    cr_assert_eq(plait_team_create(&team, &opts), 0, "%s", plait_error_text());
    cr_assert_eq(plait_team_size(team), 9);
    for (i = 0; i < 9; i++)
        cr_assert_eq(plait_ctx_post(plait_team_ctx(team, i), on_post, &log), 0);
    while (log.posted < 9)
        sched_yield();
    cr_assert_eq(plait_team_destroy(team), 0);
}

Test(team, unpinned_workers_do_not_inherit_a_pin)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct plait_ctx_opts ctx_opts = PLAIT_CTX_OPTS_INIT;
    struct team_log log = { .pinned = true };
    struct plait_team *team;
    struct plait_ctx *ctx;
    cpu_set_t set;
    int before = cpus_allowed(&set);

    ctx_opts.cpu = PLAIT_CPU_AUTO;
    cr_assert_eq(plait_ctx_create(&ctx, &ctx_opts), 0);
    opts.count = 2;
    opts.pin = 0;
    opts.on_start = on_start;
    opts.arg = &log;
    cr_assert_eq(plait_team_create(&team, &opts), 0, "%s", plait_error_text());
    cr_assert_eq(log.pinned, before == 1);
    cr_assert_eq(plait_ctx_cpu(plait_team_ctx(team, 1)), -1);
    plait_team_destroy(team);
    plait_ctx_destroy(ctx);
}

Test(team, a_worker_that_cannot_start_is_the_teams_error)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct team_log log = { .started = 0 };
    struct plait_team *team;
    struct rlimit old, rl;
    int rc, fd = dup(0);

    cr_assert_geq(fd, 0);
    close(fd);
    pli_place_count(false); /* reading the topology needs descriptors, too */
    opts.count = 4;
    opts.on_start = on_start;
    opts.on_stop = on_stop;
    opts.arg = &log;
    getrlimit(RLIMIT_NOFILE, &old);
    rl = old;
    rl.rlim_cur = (rlim_t)fd + 8; /* enough for two of the four */
    setrlimit(RLIMIT_NOFILE, &rl);
    rc = plait_team_create(&team, &opts);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_code(rc, PLAIT_E_NOFILE, "worker");
    cr_assert_null(team);
    cr_assert_eq(log.started, log.stopped);
}

Test(team, bad_options)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct plait_team *team;

    opts.count = 100000;
    assert_code(plait_team_create(&team, &opts), PLAIT_E_INVAL, "100000");
    opts.size = 1;
    assert_code(plait_team_create(&team, &opts), PLAIT_E_INVAL, "size");
    cr_assert_eq(plait_team_destroy(NULL), 0);
}

static _Atomic int destroy_rc;

static void destroy_own_team(void *arg)
{
    atomic_store(&destroy_rc, plait_team_destroy(arg));
}

Test(team, not_destroyed_by_its_own_worker)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct plait_team *team;

    opts.count = 1;
    cr_assert_eq(plait_team_create(&team, &opts), 0);
    cr_assert_eq(plait_ctx_post(plait_team_ctx(team, 0), destroy_own_team, team), 0);
    while (atomic_load(&destroy_rc) == 0)
        sched_yield();
    cr_assert_eq(destroy_rc, PLAIT_E_BUSY);
    cr_assert_eq(plait_team_destroy(team), 0);
}

Test(team, in_the_child_of_a_fork)
{
    struct plait_team_opts opts = PLAIT_TEAM_OPTS_INIT;
    struct plait_team *team;
    int status;
    pid_t pid;

    opts.count = 2;
    cr_assert_eq(plait_team_create(&team, &opts), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        if (plait_ctx_post(plait_team_ctx(team, 1), destroy_own_team, NULL) != PLAIT_E_FORKED)
            _exit(1);
        _exit(plait_team_destroy(team) == 0 ? 0 : 2);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(plait_team_destroy(team), 0);
}

/* ---- version ---- */

Test(version, says_what_it_is)
{
    struct plait_transport_info info;

    cr_assert_str_eq(plait_version(), "0.1.0");
    cr_assert_not_null(strstr(plait_build_options(), "sanitizers"));
    cr_assert_eq(plait_transport_info(0, &info), 0);
    cr_assert_str_eq(info.name, "shm");
    cr_assert_neq(info.available, 0, "%s", info.why);
    cr_assert_eq(plait_transport_info(1, &info), 0);
    cr_assert_str_eq(info.name, "ofi");
#ifdef HAVE_LIBFABRIC
    cr_assert_neq(info.available, 0, "%s", info.why);
#else
    cr_assert_eq(info.available, 0);
    cr_assert_not_null(strstr(info.why, "host"));
#endif
    assert_code(plait_transport_info(2, &info), PLAIT_E_NOTFOUND, NULL);
}

static void check_device(const struct plait_device_info *d)
{
    cr_assert_str_eq(d->transport, "ofi");
    cr_assert_eq(strncmp(d->library, "libfabric ", 10), 0, "%s", d->library);
    cr_assert(strcmp(d->kind, "MSG") == 0 || strcmp(d->kind, "RDM") == 0, "%s", d->kind);
    cr_assert_not_null(d->why);
    cr_assert(d->usable == (d->nic != NULL), "%s", d->provider);
    cr_assert(d->usable || !d->chosen, "%s", d->provider);
}

Test(version, lists_devices)
{
    struct plait_device_info d = PLAIT_DEVICE_INFO_INIT, shorter = PLAIT_DEVICE_INFO_INIT, none = { .size = 0 };
    struct plait_transport_info ofi;
    struct plait_devices *list;
    unsigned n, chosen = 0;

    assert_code(plait_devices_open(NULL), PLAIT_E_INVAL, "NULL");
    cr_assert_eq(plait_devices_open(&list), 0);
    n = plait_devices_count(list);
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(plait_devices_get(list, i, &d), 0);
        check_device(&d);
        chosen += d.chosen != 0;
    }
    cr_assert_eq(plait_transport_info(1, &ofi), 0);
    cr_assert_eq(n > 0 && chosen > 0, ofi.available, "%u devices, %s", n, ofi.why);
    assert_code(plait_devices_get(list, n, &d), PLAIT_E_NOTFOUND, "there is no device");
    assert_code(plait_devices_get(list, 0, &none), PLAIT_E_INVAL, "size");
    assert_code(plait_devices_get(list, 0, NULL), PLAIT_E_INVAL, "NULL");
    assert_code(plait_devices_get(NULL, 0, &d), PLAIT_E_INVAL, "NULL");
    /* a program that was built with an older header has a shorter struct */
    shorter.size = offsetof(struct plait_device_info, why);
    shorter.why = "untouched";
    cr_assert(n == 0 || plait_devices_get(list, 0, &shorter) == 0);
    cr_assert_str_eq(shorter.why, "untouched");
    cr_assert_eq(shorter.size, offsetof(struct plait_device_info, why));
    plait_devices_close(list);
    plait_devices_close(NULL);
    cr_assert_eq(plait_devices_count(NULL), 0);
}
