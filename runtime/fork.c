/* SPDX-License-Identifier: BSD-3-Clause */
/* The registry of all contexts of the process, and what happens to them in the child of a fork. */
#include "runtime/loop_priv.h"
#include "runtime/place.h"

#include <string.h>
#include "runtime/conn.h"
#include "runtime/handover.h"
#include "runtime/mem.h"
#include "runtime/pool.h"
#include "runtime/share.h"
#include "runtime/rma.h"
#include "util/err.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pli_list contexts = PLI_LIST_INIT(contexts);
static unsigned count; /* of those that are not the parent's */
static uint32_t last_id;
static _Atomic bool atfork_done; /* acquire and release: whoever sees it needs no lock */
static unsigned cpus;            /* that the process may use: asked once, before plait pins a thread */
static _Atomic bool crowded;     /* a hint: relaxed */

void pli_registry_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void pli_registry_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static void before_fork(void)
{
    pli_session_lock();
    pli_registry_lock();
    pli_place_lock();
    pli_pools_lock();
    pli_shares_lock();
    pli_rma_lock();
    pli_mem_fork_lock();
}

static void unlock_all(void)
{
    pli_shares_unlock();
    pli_rma_unlock();
    pli_pools_unlock();
    pli_place_unlock();
    pli_registry_unlock();
    pli_session_unlock();
}

static void in_parent(void)
{
    pli_mem_fork_unlock();
    unlock_all();
}

/* The child of a fork has one thread and may be short of everything: only async-signal-safe calls here.
 * The descriptors are closed now, not when (and if) the child destroys the context: a peer takes
 * end-of-file for the death of a process. */
static void in_child(void)
{
    struct pli_list *node;

    pli_list_foreach(node, &contexts) {
        struct plait_ctx *ctx = pli_container_of(node, struct plait_ctx, registry);

        if (ctx->forked)
            continue;
        ctx->forked = true;
        ctx->nhot = 0; /* shared mappings are gone: poll nothing */
        pli_links_forked(ctx);
        pli_src_forked(ctx);
        pli_handover_forked(ctx);
    }
    count = 0;
    atomic_store_explicit(&crowded, false, memory_order_relaxed);
    pli_membarrier_forked();
    pli_pools_forked();
    pli_rma_forked();
    pli_mem_forked();
    unlock_all();
}

unsigned pli_registry_cpus(void)
{
    return cpus;
}

bool pli_registry_crowded(void)
{
    return atomic_load_explicit(&crowded, memory_order_relaxed);
}

static void change_count(int by)
{
    count += (unsigned)by;
    if (!cpus)
        cpus = pli_place_note_mask();
    atomic_store_explicit(&crowded, count > cpus, memory_order_relaxed);
}

int pli_fork_init(void)
{
    int err = 0;

    if (atomic_load_explicit(&atfork_done, memory_order_acquire))
        return 0;
    pli_registry_lock();
    if (!atfork_done)
        err = pthread_atfork(before_fork, in_parent, in_child);
    if (!err)
        atomic_store_explicit(&atfork_done, true, memory_order_release);
    pli_registry_unlock();
    if (err)
        return pli_fail(PLAIT_E_NOMEM, "pthread_atfork: %s", strerror(err));
    return 0;
}

/* When the library is loaded: a fork while another thread is the first to call it would find the lock taken, and no handler to
 * give it back in the child. If it fails, the calls that need it say so. */
static void __attribute__((constructor)) load(void)
{
    pli_fork_init();
}

int pli_registry_add(struct plait_ctx *ctx)
{
    int rc = pli_fork_init();

    if (rc < 0)
        return rc;
    pli_registry_lock();
    ctx->id = ++last_id;
    change_count(1);
    pli_list_push_back(&contexts, &ctx->registry);
    pli_registry_unlock();
    return 0;
}

struct plait_ctx *pli_registry_find(uint32_t id)
{
    struct pli_list *node;

    pli_list_foreach(node, &contexts) {
        struct plait_ctx *ctx = pli_container_of(node, struct plait_ctx, registry);

        if (ctx->id == id && !ctx->forked)
            return ctx;
    }
    return NULL;
}

void pli_registry_del(struct plait_ctx *ctx)
{
    pli_registry_lock();
    if (!ctx->forked)
        change_count(-1);
    pli_list_remove(&ctx->registry);
    pli_registry_unlock();
}
