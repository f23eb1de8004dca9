/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/fill.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* True: there is more to do. An older kernel (EINVAL), or whatever else does not work: the first touch finds out. */
static bool step(struct pli_peermem *pm)
{
    size_t end = pm->size < PLI_FILL_MAX ? pm->size : PLI_FILL_MAX, n = end - pm->filled;

    if (n > PLI_FILL_STEP)
        n = PLI_FILL_STEP;
    if (madvise(pm->addr + pm->filled, n, MADV_POPULATE_READ) < 0 && errno != EINTR && errno != EAGAIN)
        return false;
    pm->filled += n;
    return pm->filled < end;
}

/* One region after the other: the first one that was shown is read first. */
static void fill_fn(struct pli_defer *d)
{
    struct pli_fill *f = pli_container_of(d, struct pli_fill, defer);
    struct pli_list *node = pli_list_first(&f->regions);

    if (node && !step(pli_container_of(node, struct pli_peermem, fill)))
        pli_list_remove(node);
    if (!pli_list_is_empty(&f->regions))
        pli_ctx_defer(f->ctx, &f->defer);
}

void pli_fill_init(struct pli_fill *f, struct plait_ctx *ctx)
{
    f->ctx = ctx;
    pli_list_init(&f->regions);
    pli_defer_init(&f->defer, fill_fn);
}

void pli_fill_add(struct pli_fill *f, struct pli_peermem *pm)
{
    pli_list_push_back(&f->regions, &pm->fill);
    pli_ctx_defer(f->ctx, &f->defer);
}

void pli_fill_put(struct pli_peermem *pm)
{
    if (pm)
        pli_list_remove(&pm->fill);
    pli_peermem_put(pm);
}

void pli_fill_end(struct pli_fill *f)
{
    pli_defer_cancel(&f->defer);
}
