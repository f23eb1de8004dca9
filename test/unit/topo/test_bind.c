/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "machine.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

/* any CPU that this process may use */
static int some_cpu(int nth)
{
    cpu_set_t set;

    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set) && nth-- == 0)
            return cpu;
    return -1;
}

static void narrow_to(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
}

struct worker {
    const struct pli_topo *t;
    int pu, got, ran_on, after;
    pthread_t thread;
};

static void *pin_and_look(void *arg)
{
    struct worker *w = arg;
    cpu_set_t before, after;
    struct pli_pin saved;

    sched_getaffinity(0, sizeof before, &before);
    w->got = pli_topo_pin(w->t, w->pu, &saved);
    w->ran_on = sched_getcpu();
    if (pli_topo_current_pu() != w->ran_on)
        w->ran_on = -1;
    w->after = pli_topo_unpin(&saved);
    sched_getaffinity(0, sizeof after, &after);
    if (!CPU_EQUAL(&before, &after))
        w->after = -1;
    return NULL;
}

Test(bind, every_context_is_on_its_pu)
{
    struct pli_topo *t = load_real();
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    struct pli_place at[64];
    struct worker w[64];
    int n;

    opts.contexts = pli_topo_info(t)->cores_allowed < 32 ? 2 * pli_topo_info(t)->cores_allowed : 64;
    n = pli_topo_place(t, &opts, at, 64);
    cr_assert_gt(n, 0);
    for (int i = 0; i < n; i++) {
        w[i] = (struct worker){ .t = t, .pu = at[i].pu };
        cr_assert_eq(pthread_create(&w[i].thread, NULL, pin_and_look, &w[i]), 0);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        cr_assert_eq(w[i].got, 0);
        cr_assert_eq(w[i].ran_on, at[i].pu);
        cr_assert_eq(w[i].after, 0, "the earlier mask is back");
    }
    pli_topo_destroy(t);
}

Test(bind, a_launchers_binding_is_never_widened)
{
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    int mine = some_cpu(0), other = some_cpu(1);
    struct pli_place at[4];
    struct pli_topo *t;
    char number[16];
    cpu_set_t set;

    narrow_to(mine);
    t = load_real();
    cr_assert_eq(pli_topo_info(t)->cores_allowed, 1);
    cr_assert_eq(pli_topo_info(t)->pus_allowed, 1);
    cr_assert_eq(pli_topo_info(t)->bound, pli_topo_info(t)->pus_machine > 1);
    cr_assert_eq(pli_topo_place(t, &opts, at, 4), 1);
    cr_assert_eq(at[0].pu, mine);
    cr_assert_eq(at[0].oversubscribed, 0);
    opts.contexts = 3;
    opts.use_smt = 1;
    cr_assert_eq(pli_topo_place(t, &opts, at, 4), 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(at[i].pu, mine);
    cr_assert_eq(at[0].oversubscribed, 1);
    cr_assert_eq(pli_topo_pin(t, mine, NULL), 0);
    if (other >= 0) {
        snprintf(number, sizeof number, "CPU %d", other);
        cr_assert_eq(pli_topo_pin(t, other, NULL), PLAIT_E_TOPOLOGY);
        cr_assert(strstr(plait_error_text(), number), "%s", plait_error_text());
    }
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(CPU_COUNT(&set), 1);
    cr_assert(CPU_ISSET(mine, &set));
    pli_topo_destroy(t);
}

Test(bind, no_such_pu)
{
    struct pli_topo *t = load_real();
    struct pli_pin saved;

    cr_assert_eq(pli_topo_pin(t, 8000, &saved), PLAIT_E_TOPOLOGY);
    cr_assert(strstr(plait_error_text(), "8000"));
    cr_assert_eq(pli_topo_unpin(&saved), PLI_TOPO_NOOP);
    cr_assert_eq(pli_topo_pin(t, -1, NULL), PLAIT_E_TOPOLOGY);
    pli_topo_destroy(t);
}

Test(bind, another_machines_pus_are_not_pinned_to)
{
    struct pli_topo *t = load_synthetic("numa:4 core:2 pu:1");
    cpu_set_t before, after;
    struct pli_pin saved;

    sched_getaffinity(0, sizeof before, &before);
    cr_assert_eq(pli_topo_pin(t, 0, &saved), PLI_TOPO_NOOP);
    cr_assert_eq(pli_topo_pin(t, 7, &saved), PLI_TOPO_NOOP);
    sched_getaffinity(0, sizeof after, &after);
    cr_assert(CPU_EQUAL(&before, &after));
    cr_assert_eq(pli_topo_unpin(&saved), PLI_TOPO_NOOP);
    cr_assert_eq(pli_topo_pin(t, 8, &saved), PLAIT_E_TOPOLOGY);
    pli_topo_destroy(t);
}

/* The kernel refuses: the topology (of a larger machine, said to be this one) knows a PU that is not here. */
Test(bind, pu_that_the_kernel_refuses)
{
    struct pli_topo *t;
    struct pli_pin saved;

    t = load_real();
    if (pli_topo_info(t)->pus + pli_topo_info(t)->pus_offline > 1000)
        cr_skip_test("this machine has all the CPUs of the test");
    pli_topo_destroy(t);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    t = load_synthetic("core:2000 pu:1");
    cr_assert_eq(pli_topo_info(t)->this_system, 1);
    cr_assert_leq(pli_topo_info(t)->pus_allowed, 1000, "the mask of this process still counts");
    cr_assert_eq(pli_topo_pin(t, 1999, &saved), PLAIT_E_TOPOLOGY);
    cr_assert_eq(pli_topo_pin(t, some_cpu(0), &saved), 0);
    cr_assert_eq(pli_topo_unpin(&saved), 0);
    pli_topo_destroy(t);
}

Test(bind, mask_that_changed_since)
{
    struct pli_topo *t = load_real();
    struct pli_pin saved;

    /* all the memory of a mask may be gone by the time it is given back; then the error says so */
    memset(&saved, 0, sizeof saved);
    saved.valid = 1;
    cr_assert_eq(pli_topo_unpin(&saved), PLAIT_E_SYSTEM);
    pli_topo_destroy(t);
}
