/* SPDX-License-Identifier: BSD-3-Clause */
/* Page table entries for peers' regions that have just been mapped, so that whoever reads them first has no page faults.
 *
 * The pages are there already, but the kernel enters them into a new mapping at the first touch, 16 around each, at 4 to 7 us. Entering them in
 * advance takes as long: about 100 us for 1 MiB, 7 ms for 64 MiB (measured on Linux 6.18, two virtual cores). Too long for one piece of work in
 * a context, so it is done in steps of 64 KiB, a few in each pass, and not beyond the first 64 MiB of a region: of a larger one nobody knows
 * that it will be read.
 *
 * Owner thread of the link's context. A region is here only while the link's tables (share.c, rma_import.c) hold it. */
#ifndef PLI_RUNTIME_FILL_H
#define PLI_RUNTIME_FILL_H

#include "runtime/loop.h"
#include "runtime/peermem.h"

#define PLI_FILL_STEP ((size_t)64 << 10)
#define PLI_FILL_MAX ((size_t)64 << 20)

/* Of a link. */
struct pli_fill {
    struct plait_ctx *ctx;
    struct pli_list regions; /* pli_peermem.fill; those that are not done */
    struct pli_defer defer;
};

void pli_fill_init(struct pli_fill *f, struct plait_ctx *ctx);
/* The caller has mapped it and goes on holding it until pli_fill_put(). Does not block. */
void pli_fill_add(struct pli_fill *f, struct pli_peermem *pm);
/* As pli_peermem_put(), for one that was added. NULL is allowed. */
void pli_fill_put(struct pli_peermem *pm);
/* Nothing more is done; idempotent. */
void pli_fill_end(struct pli_fill *f);

#endif
