/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/place.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "util/err.h"

struct pli_pinned {
    struct pli_pin old;
    int pu;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pli_topo *topo;
static unsigned *used; /* contexts on each PU, by its index in the topology */

/* ---- the process's own affinity mask ---- */

static _Atomic(cpu_set_t *) process_mask; /* set once, by the first context; its bits do not change */
#define MASK_CPUS 8192          /* the kernel's largest */

unsigned pli_place_note_mask(void)
{
    size_t size = CPU_ALLOC_SIZE(MASK_CPUS);
    cpu_set_t *set = CPU_ALLOC(MASK_CPUS);

    if (!set || sched_getaffinity(0, size, set) < 0) {
        CPU_FREE(set);
        return UINT32_MAX; /* unknown: never crowded */
    }
    atomic_store_explicit(&process_mask, set, memory_order_release);
    return (unsigned)CPU_COUNT_S(size, set);
}

void pli_place_free_thread(void)
{
    const cpu_set_t *mask = atomic_load_explicit(&process_mask, memory_order_acquire);

    if (mask) /* a failure leaves the thread where it is, which is only slower */
        sched_setaffinity(0, CPU_ALLOC_SIZE(MASK_CPUS), mask);
}

/* ---- which cores are used ---- */

void pli_place_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void pli_place_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

/* Under the mutex. */
static int load(void)
{
    struct pli_topo *t;
    int rc;

    if (topo)
        return 0;
    rc = pli_topo_load(&t);
    if (rc < 0)
        return rc;
    used = calloc((size_t)pli_topo_info(t)->pus, sizeof *used);
    if (!used) {
        pli_topo_destroy(t);
        return pli_fail(PLAIT_E_NOMEM, "no memory for the list of CPUs");
    }
    topo = t;
    return 0;
}

const struct pli_topo *pli_place_topo(void)
{
    int rc;

    pthread_mutex_lock(&mutex);
    rc = load();
    pthread_mutex_unlock(&mutex);
    return rc < 0 ? NULL : topo;
}

/* The counter of a PU; NULL: there is no such. */
static unsigned *used_of(int pu)
{
    const struct pli_topo_pu *p;
    int i;

    for (i = 0; (p = pli_topo_pu(topo, i)) != NULL; i++) {
        if (p->os == pu)
            return &used[i];
    }
    return NULL;
}

/* All places of this process, nearest to the present CPU first. Returns how many; the caller frees *out. */
static int list_places(bool use_smt, struct pli_place **out)
{
    struct pli_place_opts opts = PLI_PLACE_OPTS_INIT;
    int n;

    opts.use_smt = use_smt;
    if (pli_topo_info(topo)->this_system)
        opts.near_pu = pli_topo_current_pu();
    if (!pli_topo_find_pu(topo, opts.near_pu))
        opts.near_pu = -1;
    *out = NULL;
    n = pli_topo_place(topo, &opts, NULL, 0);
    if (n < 0)
        return n;
    *out = calloc((size_t)n, sizeof **out);
    if (!*out)
        return pli_fail(PLAIT_E_NOMEM, "no memory to place contexts on %d cores", n);
    return pli_topo_place(topo, &opts, *out, n);
}

static int choose(const struct pli_place *places, int n)
{
    int i, best = 0;

    for (i = 1; i < n; i++) {
        if (*used_of(places[i].pu) < *used_of(places[best].pu))
            best = i;
    }
    ++*used_of(places[best].pu);
    return places[best].pu;
}

int pli_place_take(int *pus, unsigned count, bool use_smt)
{
    struct pli_place *places = NULL;
    unsigned i;
    int n;

    pthread_mutex_lock(&mutex);
    n = load();
    if (n == 0)
        n = list_places(use_smt, &places);
    for (i = 0; i < count && n > 0; i++)
        pus[i] = choose(places, n);
    pthread_mutex_unlock(&mutex);
    free(places);
    return n < 0 ? n : 0;
}

/* Adds a context to a PU or takes it away. */
static void count_on(int pu, int by)
{
    unsigned *n;

    pthread_mutex_lock(&mutex);
    n = used_of(pu);
    if (n)
        *n += (unsigned)by;
    pthread_mutex_unlock(&mutex);
}

void pli_place_give(const int *pus, unsigned count)
{
    unsigned i;

    for (i = 0; i < count; i++)
        count_on(pus[i], -1);
}

int pli_place_count(bool use_smt)
{
    struct pli_place *places = NULL;
    int n;

    pthread_mutex_lock(&mutex);
    n = load();
    if (n == 0)
        n = list_places(use_smt, &places);
    pthread_mutex_unlock(&mutex);
    free(places);
    return n;
}

int pli_place_pin(struct plait_ctx *ctx, int cpu)
{
    const struct pli_topo *t = pli_place_topo();
    struct pli_pinned *pin;
    int rc;

    if (!t) /* the text names the reason */
        return pli_fail_prefix(PLAIT_E_TOPOLOGY, "context '%s' cannot be placed", ctx->name);
    pin = calloc(1, sizeof *pin);
    if (!pin)
        return pli_fail(PLAIT_E_NOMEM, "context '%s': no memory to pin its thread", ctx->name);
    pin->pu = cpu;
    if (cpu == PLAIT_CPU_AUTO) {
        rc = pli_place_take(&pin->pu, 1, false);
        if (rc < 0)
            goto err_free;
    } else {
        count_on(cpu, 1);
    }
    rc = pli_topo_pin(t, pin->pu, &pin->old);
    if (rc < 0)
        goto err_give;
    ctx->pin = pin;
    if (rc != PLI_TOPO_NOOP) {
        ctx->cpu = pin->pu;
        ctx->node = pli_topo_mem_node(t, pli_topo_node_of_pu(t, pin->pu));
    }
    return 0;

err_give:
    count_on(pin->pu, -1);
err_free:
    free(pin);
    return pli_fail_prefix(rc, "context '%s'", ctx->name);
}

void pli_place_unpin(struct plait_ctx *ctx)
{
    if (!ctx->pin)
        return;
    count_on(ctx->pin->pu, -1);
    if (pthread_equal(pthread_self(), ctx->owner))
        pli_topo_unpin(&ctx->pin->old);
    free(ctx->pin);
    ctx->pin = NULL;
}
