/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions: the public calls, and their life. */
#include "runtime/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "runtime/loop_priv.h"
#include "runtime/place.h"
#include "runtime/share.h"
#include "runtime/rma.h"
#include "topo/topo.h"
#include "util/err.h"

/* ---- references ---- */

void pli_mem_hold(struct plait_mem *m)
{
    /* relaxed: who holds it has it already, or found it under the lock of the index */
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
}

void pli_mem_put(struct plait_mem *m)
{
    /* release: our accesses come before the unmapping; acquire, in whoever is last: it comes after all of
     * them */
    if (atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    pli_mem_index_forget(m);
    if (m->kind == PLAIT_MEM_ALLOCATED)
        pli_mem_unreserve(m);
    free(m);
}

/* ---- making ---- */

static struct plait_mem *new_region(enum plait_mem_kind kind, const char *name)
{
    static _Atomic uint64_t last_id;
    struct plait_mem *m = calloc(1, sizeof(*m));

    if (!m) {
        pli_fail(PLAIT_E_NOMEM, "no memory to describe a region (%zu bytes)", sizeof(*m));
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->kind = kind;
    m->fd = -1;
    m->node = PLAIT_MEM_NODE_ANY;
    m->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1; /* only has to differ */
    strcpy(m->name, name);                                                    /* the callers measured it */
    pli_list_init(&m->all);
    pli_list_init(&m->shares);
    pli_list_init(&m->exports);
    return m;
}

static int check_opts(const struct plait_mem_opts *given, struct plait_mem_opts *opts)
{
    const struct plait_mem_opts defaults = PLAIT_MEM_OPTS_INIT;
    size_t normal = (size_t)sysconf(_SC_PAGESIZE);

    *opts = defaults;
    if (given) {
        if (given->size < sizeof(size_t) || given->size > sizeof *opts)
            return pli_fail(
                PLAIT_E_INVAL,
                "plait_mem_opts.size is %zu, this library knows up to %zu: start from PLAIT_MEM_OPTS_INIT",
                given->size, sizeof *opts);
        memcpy(opts, given, given->size);
    }
    if (opts->page_size == PLAIT_MEM_PAGE_NORMAL)
        opts->page_size = normal;
    if (opts->page_size != normal && opts->page_size != PLAIT_MEM_PAGE_2M &&
        opts->page_size != PLAIT_MEM_PAGE_1G)
        return pli_fail(PLAIT_E_INVAL,
                        "pages of %zu bytes: only PLAIT_MEM_PAGE_NORMAL, _2M and _1G are known",
                        opts->page_size);
    if (opts->node < PLAIT_MEM_NODE_ANY)
        return pli_fail(PLAIT_E_INVAL, "NUMA node %d: a node's number, or PLAIT_MEM_NODE_ANY", opts->node);
    if (opts->flags & ~PLAIT_MEM_WRITABLE)
        return pli_fail(PLAIT_E_INVAL, "plait_mem_opts.flags is 0x%x: only PLAIT_MEM_WRITABLE (0x%x) is defined", opts->flags,
                        PLAIT_MEM_WRITABLE);
    if (!opts->name)
        opts->name = "mem";
    if (strlen(opts->name) >= PLI_MEM_NAME_MAX)
        return pli_fail(PLAIT_E_INVAL, "plait_mem_opts.name '%s' is too long: at most %d characters",
                        opts->name, PLI_MEM_NAME_MAX - 1);
    return 0;
}

/* The topology, if a node is asked for and exists. */
static int find_topo(int node, const char *name, const struct pli_topo **topo)
{
    *topo = NULL;
    if (node < 0)
        return 0;
    *topo = pli_place_topo();
    if (!*topo) /* the text names the reason */
        return pli_fail_prefix(PLAIT_E_TOPOLOGY, "memory '%s' cannot be put on NUMA node %d", name, node);
    if (pli_topo_mem_node(*topo, node) < 0)
        return pli_fail(PLAIT_E_INVAL,
                        "memory '%s' cannot be put on NUMA node %d: there is no such node; see 'plait info'",
                        name, node);
    return 0;
}

int pli_mem_check_opts(const struct plait_mem_opts *given, struct plait_mem_opts *opts,
                       const struct pli_topo **topo)
{
    int rc = check_opts(given, opts);

    return rc < 0 ? rc : find_topo(opts->node, opts->name, topo);
}

int plait_mem_alloc(struct plait_mem **mem, size_t len, const struct plait_mem_opts *opts)
{
    const struct pli_topo *topo;
    struct plait_mem_opts o;
    struct plait_mem *m;
    int rc;

    *mem = NULL;
    rc = pli_mem_check_opts(opts, &o, &topo);
    if (rc < 0)
        return rc;
    if (len == 0)
        return pli_fail(PLAIT_E_INVAL, "memory '%s' of 0 bytes: ask for at least one", o.name);
    rc = pli_fork_init();
    if (rc < 0)
        return rc;
    m = new_region(PLAIT_MEM_ALLOCATED, o.name);
    if (!m)
        return PLAIT_E_NOMEM;
    m->writable = o.flags & PLAIT_MEM_WRITABLE;
    rc = pli_mem_reserve(m, len, o.page_size, topo, o.node);
    if (rc < 0)
        goto err_free;
    rc = pli_mem_index_add(m);
    if (rc < 0)
        goto err_unreserve;
    *mem = m;
    return 0;

err_unreserve:
    pli_mem_unreserve(m);
err_free:
    free(m);
    return rc;
}

/* Writes nothing anywhere: for what is mapped MS_ASYNC does nothing, for what is not it says so. */
static int is_mapped(char *addr, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t before = (uintptr_t)addr % page;

    return msync(addr - before, len + before, MS_ASYNC) == 0;
}

int plait_mem_register(struct plait_mem **mem, void *addr, size_t len)
{
    struct plait_mem *m;
    int rc;

    *mem = NULL;
    if (!addr || len == 0 || len > UINTPTR_MAX - (uintptr_t)addr)
        return pli_fail(PLAIT_E_INVAL,
                        "memory of %zu bytes at %p cannot be registered: it needs an address and a length",
                        len, addr);
    if (!is_mapped(addr, len))
        return pli_fail(PLAIT_E_INVAL,
                        "memory of %zu bytes at %p cannot be registered: not all of it is mapped", len, addr);
    rc = pli_fork_init();
    if (rc < 0)
        return rc;
    m = new_region(PLAIT_MEM_REGISTERED, "registered");
    if (!m)
        return PLAIT_E_NOMEM;
    m->addr = addr;
    m->len = len;
    rc = pli_mem_index_add(m);
    if (rc < 0) {
        free(m);
        return rc;
    }
    *mem = m;
    return 0;
}

/* ---- using ---- */

int plait_mem_release(struct plait_mem *mem)
{
    if (!mem)
        return 0;
    pli_mem_index_del(mem);
    pli_shares_released(mem);
    pli_rma_mem_released(mem);
    pli_mem_put(mem);
    return 0;
}

void *plait_mem_addr(const struct plait_mem *mem)
{
    return mem->addr;
}

int plait_mem_get_info(const struct plait_mem *mem, struct plait_mem_info *info)
{
    struct plait_mem_info now = PLAIT_MEM_INFO_INIT;

    if (!info || info->size < sizeof(size_t) || info->size > sizeof now)
        return pli_fail(
            PLAIT_E_INVAL,
            "plait_mem_info.size is %zu, this library knows up to %zu: start from PLAIT_MEM_INFO_INIT",
            info ? info->size : 0, sizeof now);
    if (mem->forked)
        return pli_fail(PLAIT_E_FORKED,
                        "memory '%s' belongs to the parent process: allocate it again after fork()",
                        mem->name);
    now.size = info->size;
    now.kind = mem->kind;
    now.addr = mem->addr;
    now.len = mem->len;
    now.reserved = mem->mapped;
    now.page_size = mem->page_size;
    now.page_size_asked = mem->page_size_asked;
    now.node = mem->node;
    now.node_verified = mem->node_verified;
    now.in_use = atomic_load_explicit(&mem->refs, memory_order_relaxed) - 1; /* less the user's own */
    now.name = mem->name;
    memcpy(info, &now, info->size);
    return 0;
}
