/* SPDX-License-Identifier: BSD-3-Clause */
#include "shm/shm.h"

#include <stdatomic.h>
#include <unistd.h>
#include "util/err.h"
#include "util/log.h"

static _Atomic uint64_t total; /* bytes of this process's areas; any thread, relaxed: a bound, not an order */

/* ---- set-up ---- */

static bool reserve_total(void)
{
    if (atomic_fetch_add_explicit(&total, PLI_SHM_BULK_SIZE, memory_order_relaxed) + PLI_SHM_BULK_SIZE <= PLI_SHM_BULK_TOTAL)
        return true;
    atomic_fetch_sub_explicit(&total, PLI_SHM_BULK_SIZE, memory_order_relaxed);
    return false;
}

void pli_shm_bulk_wanted(struct pli_shm *s)
{
    struct pli_shm_note note = { PLI_SHM_CTL_BULK, PLI_SHM_BULK_SIZE / PLI_SHM_BULK_PAGE };
    struct pli_shm_bulk *b = &s->bulk;

    if (b->asked || ++b->parts < PLI_SHM_BULK_AFTER)
        return;
    b->asked = true;
    if (!reserve_total())
        return;
    if (pli_segment_create(&b->seg, "plait-bulk", PLI_SHM_BULK_SIZE, s->env.topo, s->env.peer_node, s->env.bind_failures) < 0) {
        pli_info("long messages go through the ring: %s", pli_err_text());
        goto err_total;
    }
    if (s->tr.up->send_control(s->tr.owner, &note, sizeof note, &b->seg.fd, 1) < 0)
        goto err_segment;
    *s->env.shm_bytes += b->seg.size;
    return;

err_segment:
    pli_segment_destroy(&b->seg, false);
err_total:
    atomic_fetch_sub_explicit(&total, PLI_SHM_BULK_SIZE, memory_order_relaxed);
}

static int peer_offers(struct pli_shm *s, const struct pli_shm_note *note, int *fd)
{
    struct pli_shm_note answer = { PLI_SHM_CTL_BULK_OK, note->slots };
    int rc, taken = *fd;

    if (s->bulk.peer_seg.addr)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer gives a second bulk area");
    if (note->slots == 0 || note->slots > PLI_SHM_BULK_PEER_MAX / PLI_SHM_BULK_PAGE)
        return pli_fail(PLAIT_E_BADPEER, "shm: the peer's bulk area has %u pages", note->slots);
    if (taken < 0)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer's bulk area came without its memory");
    *fd = -1;
    rc = pli_segment_attach(&s->bulk.peer_seg, taken, (size_t)note->slots * PLI_SHM_BULK_PAGE);
    if (rc == PLAIT_E_NOMEM) { /* no answer: the peer goes on without it */
        pli_info("the peer's long messages go through the ring: %s", pli_err_text());
        return 0;
    }
    return rc < 0 ? rc : s->tr.up->send_control(s->tr.owner, &answer, sizeof answer, NULL, 0);
}

int pli_shm_bulk_control(struct pli_shm *s, const struct pli_shm_note *note, int *fd)
{
    struct pli_shm_bulk *b = &s->bulk;

    if (note->op == PLI_SHM_CTL_BULK)
        return peer_offers(s, note, fd);
    if (!b->seg.addr || b->up || note->slots != PLI_SHM_BULK_SIZE / PLI_SHM_BULK_PAGE)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer has mapped a bulk area that was not offered");
    b->up = true;
    close(b->seg.fd);
    b->seg.fd = -1;
    return 0;
}

void pli_shm_bulk_destroy(struct pli_shm *s, bool forked)
{
    struct pli_shm_bulk *b = &s->bulk;

    if (b->seg.addr) {
        *s->env.shm_bytes -= b->seg.size;
        atomic_fetch_sub_explicit(&total, PLI_SHM_BULK_SIZE, memory_order_relaxed);
    }
    pli_segment_destroy(&b->seg, forked);
    pli_segment_destroy(&b->peer_seg, forked);
}

/* ---- space ---- */

static uint32_t round_up(uint32_t len)
{
    return (len + 63) & ~63u;
}

static const struct pli_shm_bulk_rec *record(const struct pli_shm_bulk *b, uint32_t i)
{
    return &b->recs[i % PLI_SHM_BULK_RECORDS];
}

bool pli_shm_bulk_refresh(struct pli_shm *s)
{
    /* acquire: pairs with the consumer's release in bulk_read(); our writes to the area come after its reads */
    uint64_t cursor = atomic_load_explicit(&s->peer->bulk_cursor, memory_order_acquire);

    if (cursor < s->bulk.seen || cursor > s->tr.room.pos)
        return false;
    s->bulk.seen = cursor;
    while (s->bulk.head != s->bulk.tail && record(&s->bulk, s->bulk.head)->pos < cursor)
        s->bulk.head++;
    return true;
}

void *pli_shm_bulk_place(const struct pli_shm *s, uint32_t len)
{
    const struct pli_shm_bulk *b = &s->bulk;
    uint32_t begin, end;

    if (b->tail - b->head == PLI_SHM_BULK_RECORDS)
        return NULL;
    if (b->head == b->tail)
        return b->seg.addr; /* empty: any length fits */
    begin = record(b, b->head)->begin;
    end = record(b, b->tail - 1)->end;
    /* never until begin exactly: a full area would look like an empty one */
    if (end > begin) {
        if (PLI_SHM_BULK_SIZE - end >= round_up(len))
            return (char *)b->seg.addr + end;
        end = 0;
    }
    return begin > end + round_up(len) ? (char *)b->seg.addr + end : NULL;
}

void pli_shm_bulk_took(struct pli_shm *s, const void *place, uint32_t len, uint64_t pos)
{
    struct pli_shm_bulk *b = &s->bulk;
    struct pli_shm_bulk_rec *r = &b->recs[b->tail++ % PLI_SHM_BULK_RECORDS];

    r->pos = pos;
    r->begin = (uint32_t)((const char *)place - (const char *)b->seg.addr);
    r->end = r->begin + round_up(len);
}

const void *pli_shm_bulk_find(const struct pli_shm *s, uint64_t offset, uint64_t len)
{
    const struct pli_segment *seg = &s->bulk.peer_seg;

    if (!seg->addr || offset % 64 || offset > seg->size || len > seg->size - offset)
        return NULL;
    return (const char *)seg->addr + offset;
}
