/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's consumer. */
#include "shm/turn.h"
#include "shm/wake.h"
#include "util/prefetch.h"
#include "util/err.h"

#define FULL_LOOK 16 /* polls that may end after one record, in a row */
#define STREAM 6     /* slots in one poll that are a stream */
#define PREFETCH 8   /* slots ahead, while a stream is read */

/* After a cursor has been published: wakes a producer that waits for space. */
static void space_given(struct pli_shm *s)
{
    if (__builtin_expect(s->fence, 0)) /* the cursor, then the look: as in wake_peer() */
        atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        wake_peer(s);
}

void pli_shm_publish_cursor(struct pli_shm *s)
{
    pli_ring_rx_publish(&s->rx);
    space_given(s);
}

/* A good part of the ring has been read: give it back. What is held in place may stand in the way. */
static __attribute__((noinline)) void give_back(struct pli_shm *s)
{
    pli_shm_publish_cursor(s);
    if (s->rx.pos - s->rx.published >= s->rx.nslots / 4 && s->tr.up->crowded)
        s->tr.up->crowded(s->tr.owner);
}

/* k slots have been read. */
static inline void advance(struct pli_shm *s, uint32_t k)
{
    s->rx.pos += k;
    if (__builtin_expect(s->rx.pos - s->rx.published >= s->rx.nslots / 4, 0))
        give_back(s);
}

static int bad_record(struct pli_shm *s, const char *what)
{
    s->tr.up->failed(s->tr.owner, PLAIT_E_PROTO, what);
    return -1;
}

/* A record of the transport's own. 0, or -1 when the link has failed. */
static __attribute__((noinline)) int own_record(struct pli_shm *s, uint32_t type)
{
    if (type == PLI_SHM_PAD) {
        advance(s, pli_ring_rx_contig(&s->rx));
        return 0;
    }
    if (type == PLI_SHM_SWITCH) {
        s->rx.pos++;
        if (pli_shm_grow_switch_rx(s))
            return 0;
        return bad_record(s, "shm: the peer switched to a larger ring that it never gave");
    }
    return bad_record(s, "shm: a record of unknown type in the ring");
}

static int peer_cursor_bad(struct pli_shm *s)
{
    s->tr.up->failed(s->tr.owner, PLAIT_E_BADPEER, "shm: the peer's receive cursor went back or beyond what was sent");
    return PLAIT_E_BADPEER;
}

static __attribute__((noinline)) int poll_starved(struct pli_shm *s)
{
    if (s->switch_due)
        pli_shm_grow_finish(s);
    if (!pli_ring_tx_refresh(&s->tx) || (s->bulk.want && !pli_shm_bulk_refresh(s)))
        return peer_cursor_bad(s);
    /* a reservation is in the way of everything: space is told of when it has ended */
    if (!s->starved || s->tx.reserved || !pli_shm_space_back(s))
        return 0;
    s->starved = false;
    s->need = s->bulk.want = 0;
    pli_shm_want_space(s, false);
    s->tr.up->writable(s->tr.owner);
    return 1;
}

/* The last record took many lines, and so may the next: get them while the peer reads this one, instead of one after the other when they are
 * written. The consumer has read them, as far as known. */
static void own_ahead(struct pli_shm *s)
{
    uint64_t end = s->tr.room.pos + s->long_slots;

    if (end > s->tr.room.limit)
        end = s->tr.room.limit;
    for (uint64_t at = s->tr.room.pos + 2; at < end; at++)
        pli_prefetch_write(&s->tx.slots[(uint32_t)at & s->tx.mask]);
    s->long_slots = 0;
}

/* Something has been sent since the last look. Own a line ahead for the next message. And if this is a dialogue and nobody else is polled
 * by this context, wait for the answer here, and well (turn.h). */
static __attribute__((noinline)) void before_first_look(struct pli_shm *s)
{
    if (s->tx.pack) /* sent before this poll; no answer comes before it is out */
        pli_shm_flush(&s->tr);
    s->touched = s->tr.room.pos;
    pli_ring_tx_touch(&s->tx);
    if (s->long_slots)
        own_ahead(s);
    if (s->last_n == 1 && s->tr.alone)
        pli_turn_wait(&s->turn, &s->rx);
}

/* The first record after a look that found none. As many as last time may be there: fetch their lines together instead of one
 * after the other. Not more, since lines that are still being written would be taken from the writer. */
static inline void prefetch_burst(const struct pli_shm *s)
{
    uint32_t at = (uint32_t)s->rx.pos;

    for (int i = 1; i < s->burst && i < PREFETCH; i++)
        __builtin_prefetch(&s->rx.slots[(at + (uint32_t)i) & s->rx.mask]);
}

static __attribute__((noinline)) int rx_each(struct pli_shm *s, uint32_t meta, uint64_t w1, const uint8_t *payload, uint32_t stride, uint32_t count)
{
    int rc = 0;

    for (; count > 0 && rc >= 0; count--, payload += stride)
        rc = s->tr.up->rx(s->tr.owner, meta, w1, payload);
    return rc;
}

/* Records of another kind or length than those in the shared slot before: how many of them fit, and how far apart? */
static __attribute__((noinline)) void learn_shared(struct pli_shm *s, uint32_t meta, uint64_t w1)
{
    uint64_t stride = pli_ring_stride(meta, w1);

    s->like_meta = meta;
    s->like_len = pli_w1_len(w1);
    s->like_stride = stride <= PLI_SHM_SLOT ? (uint32_t)stride : PLI_SHM_SLOT;
    s->like_max = pli_meta_hdr_len(meta) ? 0 : (PLI_SHM_SLOT - PLI_REC_HEAD) / s->like_stride;
}

/* Several records in one slot. -1 when the link has failed, else how many. */
static inline int deliver_shared(struct pli_shm *s, const struct pli_shm_slot *slot, uint32_t meta, uint64_t w1)
{
    uint32_t count = (meta >> PLI_RING_PACK_SHIFT & 7) + 1;
    int rc;

    meta &= ~PLI_RING_PACK_MASK;
    if (__builtin_expect(meta != s->like_meta || pli_w1_len(w1) != s->like_len, 0))
        learn_shared(s, meta, w1);
    if (__builtin_expect(count > s->like_max, 0))
        return bad_record(s, "shm: the records of a shared slot run over its end");
    if (__builtin_expect(s->tr.up->rx_many != NULL, 1))
        rc = s->tr.up->rx_many(s->tr.owner, meta, w1, slot->payload, s->like_stride, count);
    else
        rc = rx_each(s, meta, w1, slot->payload, s->like_stride, count);
    return rc < 0 ? -1 : (int)count;
}

/* The first record after a look that found none has been delivered. In a dialogue nothing is behind it: what was to wait for more has waited
 * enough, and a look at the next line would take it from the writer. But now and then look all the same: there might be a backlog, which would
 * be worked off one record a pass. */
static inline bool dialogue(struct pli_shm *s)
{
    if (s->burst > 1)
        return false;
    if (s->tx.pack)
        pli_shm_flush(&s->tr);
    return s->tr.alone && s->tr.room.pos != s->touched && ++s->short_looks % FULL_LOOK;
}

static void poll_over(struct pli_shm *s, int n, int visited)
{
    s->last_n = n;
    if (n)
        s->burst = visited;
    if (n == 0 && s->rx.pos != s->rx.published && atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        pli_shm_publish_cursor(s);
    if (__builtin_expect(s->tx.pack != NULL, 0)) /* the end of the poll: what was to wait for more goes now */
        pli_shm_flush(&s->tr);
}

/* The payload of the record before pos has been read: its space goes back. */
static void bulk_read(struct pli_shm *s)
{
    atomic_store_explicit(&s->own->bulk_cursor, s->rx.pos, memory_order_release);
    space_given(s);
}

/* A record in the bulk area. The reference lies in the peer's memory: each of its fields is read once. -1 when the link has failed. */
static __attribute__((noinline)) int deliver_bulk(struct pli_shm *s, const struct pli_shm_slot *slot, uint64_t w1)
{
    const volatile struct pli_shm_bulk_ref *ref = (const volatile struct pli_shm_bulk_ref *)slot->payload;
    uint32_t meta = ref->meta;
    const void *payload = pli_shm_bulk_find(s, ref->offset, pli_rec_payload(meta, w1));

    if (!payload)
        return bad_record(s, "shm: a record outside of the bulk area");
    if (pli_meta_type(meta) >= PLI_REC_TRANSPORT)
        return bad_record(s, "shm: a record of the transport's own in the bulk area");
    s->rx.cur_slots = 0; /* to be copied, not held in place: the space is taken back in order */
    if (s->tr.up->rx(s->tr.owner, meta, w1, payload) < 0)
        return -1;
    advance(s, 1);
    bulk_read(s);
    return 0;
}

int pli_shm_poll(struct pli_tr *tr, int budget)
{
    struct pli_shm *s = pli_shm_of(tr);
    const struct pli_shm_slot *slot;
    uint64_t word0;
    int n = 0, visited = 0, got;

    if (s->tr.room.pos != s->touched)
        before_first_look(s);
    while (n < budget && (slot = pli_ring_rx_peek(&s->rx, &word0)) != NULL) {
        if (visited++ == 0)
            prefetch_burst(s);
        else if (s->burst >= STREAM)
            __builtin_prefetch(&s->rx.slots[((uint32_t)s->rx.pos + PREFETCH) & s->rx.mask]);
        /* each field once into a local; the peer may change it meanwhile */
        uint32_t meta = (uint32_t)(word0 >> 32);
        uint64_t w1 = *(const volatile uint64_t *)&slot->word1;
        uint32_t type = pli_meta_type(meta), k = 1;

        if (__builtin_expect(type >= PLI_REC_TRANSPORT, 0)) {
            int rc = type == PLI_SHM_BULK ? deliver_bulk(s, slot, w1) : own_record(s, type);

            if (rc < 0)
                return type == PLI_SHM_BULK ? n + 1 : n;
            if (type != PLI_SHM_BULK)
                budget--; /* a bad peer could make them as fast as they are read */
            else if (++n == 1 && dialogue(s))
                break;
            continue;
        }
        if (meta & PLI_RING_PACK_MASK) {
            s->rx.cur_slots = 1;
            got = deliver_shared(s, slot, meta, w1);
        } else {
            uint64_t payload = pli_rec_payload(meta, w1);

            if (__builtin_expect(payload > PLI_SHM_SLOT - PLI_REC_HEAD, 0)) {
                if (payload > (uint64_t)pli_ring_rx_contig(&s->rx) * PLI_SHM_SLOT - PLI_REC_HEAD) {
                    bad_record(s, "shm: a record's length runs over the end of the ring");
                    return n;
                }
                k = pli_ring_slots_for(payload);
            }
            s->rx.cur_slots = k;
            got = tr->up->rx(tr->owner, meta, w1, slot->payload) < 0 ? -1 : 1;
        }
        if (__builtin_expect(got < 0, 0))
            return n + 1;
        n += got;
        advance(s, k);
        if (n == 1 && dialogue(s))
            break;
    }
    poll_over(s, n, visited);
    if (__builtin_expect(s->starved | s->switch_due, 0)) {
        int r = poll_starved(s);

        return r < 0 ? n : n + r;
    }
    return n;
}

int pli_shm_hold(struct pli_tr *tr, uint32_t *token)
{
    return pli_ring_rx_hold(&pli_shm_of(tr)->rx, token) < 0 ? PLAIT_E_AGAIN : 0;
}

void pli_shm_release(struct pli_tr *tr, uint32_t token)
{
    struct pli_shm *s = pli_shm_of(tr);

    pli_ring_rx_release(&s->rx, token);
    if (s->rx.pos - s->rx.published >= s->rx.nslots / 4 ||
        atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        pli_shm_publish_cursor(s);
}
