/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/pace.h"

#include "runtime/conn.h"

/* A record of 8 bytes takes 70 ns and more to the other core and up: a slice may add as much again to its way, and its wait is half a slice in
 * the mean. Copies out of memory are five times slower than those between caches, so the bytes follow the time. */
#define SLICE_NS 120u
#define FINE_MIN 1024u
#define FINE_MAX 8192u
#define FINE_KEEP_NS PLI_NS_PER_MS

static void pass_over(struct pli_work *w)
{
    pli_container_of(w, struct pli_pace, end)->pass_bytes = 0;
}

void pli_pace_init(struct pli_pace *pace)
{
    *pace = (struct pli_pace){ .fine = 4096 };
    pli_work_init(&pace->end, pass_over);
}

static bool fine_at(struct pli_pace *p, uint64_t now, bool talk)
{
    if (talk || p->switches != p->seen) {
        p->seen = p->switches;
        p->fine_until = pli_clock_after(now, FINE_KEEP_NS);
    } else if (now >= p->fine_until) {
        p->fine_until = 0;
    }
    return p->fine_until != 0;
}

bool pli_pace_fine(struct plait_ctx *ctx)
{
    struct pli_pace *p = &ctx->pace;

    return (p->fine_until || p->switches != p->seen) && fine_at(p, pli_clock_now(), false);
}

bool pli_pace_at_once(struct plait_ctx *ctx, uint64_t len)
{
    struct pli_pace *p = &ctx->pace;

    if (len <= PLI_PACE_TINY)
        return true;
    if (len > PLI_PACE_ONCE || p->pass_bytes + len > PLI_PACE_PASS || pli_pace_fine(ctx))
        return false;
    p->pass_bytes += (uint32_t)len;
    pli_ctx_work(ctx, &p->end);
    return true;
}

size_t pli_pace_slice(const struct plait_conn *c, uint64_t *now)
{
    struct plait_ctx *ctx = c->ctx;

    *now = pli_clock_now();
    ctx->pace.pass_bytes = 0; /* what waits behind a long copy may be short */
    /* something came, and the last of it was not for this connection */
    if (!fine_at(&ctx->pace, *now, ctx->pass_events && c->link->recent != c))
        return PLI_PACE_COARSE;
    return *now >= ctx->pace.next ? ctx->pace.fine : 0;
}

void pli_pace_took(struct plait_ctx *ctx, size_t bytes, uint64_t begun, bool again)
{
    struct pli_pace *p = &ctx->pace;
    uint64_t now, ns;

    if (!p->fine_until)
        return;
    now = pli_clock_now();
    ns = now - begun;
    /* one that could not be made short (a system call) leaves the messages as long for themselves, so that they take twice as long in the mean;
     * one that is not all, three times as long */
    if (again || ns > 2 * SLICE_NS)
        p->next = now + (again ? 3 : 1) * ns;
    if (bytes < p->fine || bytes > FINE_MAX)
        return;
    if (ns > 2 * SLICE_NS && p->fine > FINE_MIN)
        p->fine /= 2;
    else if (ns < SLICE_NS / 2 && p->fine < FINE_MAX)
        p->fine *= 2;
}

void pli_pace_gap(struct plait_ctx *ctx, uint64_t now)
{
    ctx->pace.next = now + 3 * SLICE_NS;
}
