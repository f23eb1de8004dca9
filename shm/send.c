/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's producer: the short path, large and long records, reservations, and what happens when there is no space. */
#include "shm/wake.h"
#include "util/copy.h"
#include "util/err.h"

#define MAX_RECORD 8192u /* bytes of one record in the ring at most: longer ones go to the bulk area, or in parts, whose two copies overlap */
#define BULK_MIN 1024u     /* bytes of a part of a long message that is worth a place in the bulk area */
#define GROW_AFTER 16u   /* full rings before a larger one is made */

void pli_shm_want_space(struct pli_shm *s, bool on)
{
    if (s->wants == on)
        return;
    s->wants = on;
    /* relaxed: the consumer looks at it in every empty poll and after its barrier; our own barrier comes with parking */
    atomic_store_explicit(&s->own->want_space, on, memory_order_relaxed);
}

/* No space as of the cached limit: read the cursor again. Not an upcall from send: a bad cursor is reported by the next poll. */
static void starve(struct pli_shm *s)
{
    /* what is held back would never be read, and the space never come back */
    pli_ring_tx_flush(&s->tx);
    wake_peer(s);
    s->starved = true;
    pli_shm_want_space(s, true);
}

static __attribute__((noinline)) struct pli_shm_slot *room_refresh(struct pli_shm *s, uint32_t k)
{
    struct pli_shm_slot *slot;

    if (!s->tx.reserved && k > s->need)
        s->need = k;
    if (s->tx.reserved || s->starved) /* starved: poll looks at the cursor, and says when there is space */
        return NULL;
    if (s->switch_due)
        pli_shm_grow_finish(s);
    if (pli_ring_tx_refresh(&s->tx)) {
        slot = pli_ring_tx_room_slow(&s->tx, k);
        if (slot)
            return slot;
    }
    if (++s->full_count >= GROW_AFTER)
        pli_shm_grow_start(s);
    starve(s);
    return NULL;
}

static inline struct pli_shm_slot *room(struct pli_shm *s, uint32_t k)
{
    struct pli_shm_slot *slot = pli_ring_tx_room(&s->tx, k);

    return __builtin_expect(slot != NULL, 1) ? slot : room_refresh(s, k);
}

/* Of a record in the ring. */
static inline uint32_t ring_max(const struct pli_shm *s)
{
    uint32_t part = s->tx.nslots * 3 / 8 * PLI_SHM_SLOT; /* the most that always fits: see pli_shm_space_back(). A page and more in the first ring */

    if (part < PLI_SHM_SLOT)
        part = PLI_SHM_SLOT;
    return (part < MAX_RECORD ? part : MAX_RECORD) - PLI_REC_HEAD;
}

uint32_t pli_shm_max_payload(const struct pli_tr *tr)
{
    const struct pli_shm *s = (const struct pli_shm *)tr;

    return s->bulk.up ? PLI_SHM_BULK_MAX : ring_max(s);
}

static __attribute__((noinline, cold)) int send_refused(struct pli_shm *s, uint64_t payload)
{
    if (s->tx.reserved)
        return pli_fail(PLAIT_E_BUSY, "a reservation is open on this link: commit or abandon it first");
    if (payload > pli_shm_max_payload(&s->tr))
        return pli_fail(PLAIT_E_TOOBIG, "a record of %llu bytes is over the transport's %u", (unsigned long long)payload, pli_shm_max_payload(&s->tr));
    return pli_fail_const(PLAIT_E_AGAIN, "the shared memory ring to the peer is full");
}

static inline void fill_large(uint8_t *to, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr)
{
    uint32_t hdr_len = pli_meta_hdr_len(meta);

    if (meta & PLI_RF_COOKIE << 8) {
        memcpy(to, &cookie, 8);
        to += 8;
    }
    if (hdr_len)
        memcpy(to, hdr, hdr_len);
    if (pli_w1_len(w1))
        pli_copy(to + hdr_len, data, pli_w1_len(w1));
}

/* A slot in the ring and len bytes in the bulk area. */
static struct pli_shm_slot *bulk_room(struct pli_shm *s, uint64_t len, void **place)
{
    struct pli_shm_slot *slot;

    if (!s->bulk.up || len > PLI_SHM_BULK_MAX || s->tx.reserved)
        return NULL;
    slot = room(s, 1);
    if (!slot)
        return NULL;
    *place = pli_shm_bulk_place(s, (uint32_t)len);
    if (!*place && !s->starved && pli_shm_bulk_refresh(s)) /* a bad cursor is reported by the next poll */
        *place = pli_shm_bulk_place(s, (uint32_t)len);
    if (*place)
        return slot;
    if (len > s->bulk.want)
        s->bulk.want = (uint32_t)len;
    starve(s);
    return NULL;
}

bool pli_shm_behind(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);

    if (!s->bulk.up || !pli_shm_bulk_refresh(s)) /* a bad cursor is reported by the next poll */
        return false;
    return s->bulk.tail != s->bulk.head;
}

/* Publishes what has been written into the bulk area. */
static void put_reference(struct pli_shm *s, struct pli_shm_slot *slot, uint32_t meta, uint64_t w1, const void *place)
{
    struct pli_shm_bulk_ref ref = { .meta = meta, .offset = (uint64_t)((const char *)place - (const char *)s->bulk.seg.addr) };

    slot->word1 = w1;
    memcpy(slot->payload, &ref, sizeof ref);
    pli_shm_bulk_took(s, place, (uint32_t)pli_rec_payload(meta, w1), s->tr.room.pos);
    pli_ring_tx_publish(&s->tx, slot, 1, pli_rec_meta(PLI_SHM_BULK, 0, 0));
}

/* A record with a header part, or of several slots. */
static __attribute__((noinline)) int send_large(struct pli_shm *s, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data,
                                                const void *hdr, bool more)
{
    uint64_t payload = pli_rec_payload(meta, w1);
    uint32_t k = pli_ring_slots_for(payload);
    struct pli_shm_slot *slot;
    void *place;

    bool part = pli_meta_type(meta) == PLI_REC_FRAG || meta & PLI_RF_FRAG << 8;

    if (part)
        pli_shm_bulk_wanted(s);
    /* short parts, too, are meant for there: what has been read of them is known at once (pli_shm_behind()) */
    if (payload > ring_max(s) || (part && s->bulk.up && payload >= BULK_MIN)) {
        slot = bulk_room(s, payload, &place);
        if (!slot)
            return send_refused(s, payload);
        fill_large(place, meta, w1, cookie, data, hdr);
        put_reference(s, slot, meta, w1, place);
    } else {
        slot = room(s, k);
        if (!slot)
            return send_refused(s, payload);
        slot->word1 = w1;
        fill_large(slot->payload, meta, w1, cookie, data, hdr);
        pli_ring_tx_publish(&s->tx, slot, k, meta);
        s->long_slots = k;
    }
    if (!more)
        wake_peer(s);
    return 0;
}

/* The cold end of the short path, called last. */
static __attribute__((noinline, cold)) int wake_after_fence(struct pli_shm *s)
{
    wake_peer(s);
    return 0;
}

/* wake_peer(), without a stack. */
static inline int wake_after(struct pli_shm *s)
{
    if (__builtin_expect(s->fence, 0))
        return wake_after_fence(s);
    /* the compiler keeps the order; the processor need not: the sleeper's barrier does (wake_peer()) */
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(&s->peer->parked, memory_order_relaxed) & 1, 0))
        return wake_after_fence(s);
    return 0;
}

/* With 'more': the first of a slot, and unlike those in the last. */
static __attribute__((noinline)) int open_shared(struct pli_shm *s, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    if (pli_ring_tx_open_shared(&s->tx, meta, w1, cookie, data))
        wake_peer(s);
    return 0;
}

/* Without 'more', but what waits is of another kind. */
static __attribute__((noinline)) int send_after_shared(struct pli_shm *s, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    pli_ring_tx_flush(&s->tx);
    return pli_shm_send_small(&s->tr, meta, w1, cookie, data, 0);
}

/* With 'more', or a slot is open. */
static __attribute__((noinline)) int send_shared(struct pli_shm *s, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data,
                                                 unsigned more)
{
    if (__builtin_expect(!pli_ring_tx_alike(&s->tx, meta, w1) || s->tx.pack_max < 2, 0))
        return more ? open_shared(s, meta, w1, cookie, data) : send_after_shared(s, meta, w1, cookie, data);
    if (s->tx.pack)
        return pli_ring_tx_share(&s->tx, meta, w1, cookie, data, more) ? wake_after(s) : 0;
    pli_ring_tx_open_alike(&s->tx, meta, w1, cookie, data);
    return 0;
}

/* The short path: one slot, no header part, room for it is known. A message of 8 bytes takes four stores, three of them into the line
 * that moves to the peer. */
int pli_shm_send_small(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, unsigned more)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint64_t pos = tr->room.pos;
    struct pli_shm_slot *slot = &s->tx.slots[(uint32_t)pos & s->tx.mask];

    if (__builtin_expect(more || s->tx.pack != NULL, 0))
        return send_shared(s, meta, w1, cookie, data, more);
    slot->word1 = w1;
    pli_ring_fill_small(slot->payload, meta, cookie, data, pli_w1_len(w1));
    pli_ring_tx_fence_off(&s->tx, (uint32_t)pos & s->tx.mask, 1);
    tr->room.pos = pos + 1;
    /* release: pairs with the consumer's acquire in pli_ring_rx_peek() */
    atomic_store_explicit(&slot->word0, (uint64_t)meta << 32 | (uint32_t)pos, memory_order_release);
    return wake_after(s);
}

int pli_shm_send(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr,
                    bool more)
{
    struct pli_shm *s = pli_shm_of(tr);

    if (pli_w1_len(w1) > PLI_TR_SMALL || meta >> 16)
        return send_large(s, meta, w1, cookie, data, hdr, more);
    if (tr->room.pos >= tr->room.limit && !room_refresh(s, 1))
        return send_refused(s, 0);
    return pli_shm_send_small(tr, meta, w1, cookie, data, more);
}

int pli_shm_reserve(struct pli_tr *tr, bool cookie, uint32_t len, void **data)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint64_t payload = (cookie ? 8u : 0u) + (uint64_t)len;
    struct pli_shm_slot *slot;
    uint32_t k = pli_ring_slots_for(payload);

    if (s->tx.reserved)
        return send_refused(s, payload);
    if (payload > ring_max(s)) {
        slot = bulk_room(s, payload, &s->reserved_bulk);
        k = 1;
    } else {
        if (payload == ring_max(s)) /* as parts of long messages are */
            pli_shm_bulk_wanted(s);
        slot = room(s, k);
    }
    if (!slot)
        return send_refused(s, payload);
    s->tx.reserved = k;
    s->tr.room.limit = 0; /* no send passes until commit or abandon: it finds no room */
    s->reserved_slot = slot;
    *data = (s->reserved_bulk ? (uint8_t *)s->reserved_bulk : slot->payload) + (cookie ? 8 : 0);
    return 0;
}

/* The limit as of the cursor last read, whether a reservation closes it now or not. */
uint64_t pli_shm_limit_known(const struct pli_shm *s)
{
    uint64_t floor = s->tx.seen_cursor > s->tx.base ? s->tx.seen_cursor : s->tx.base;

    return floor + s->tx.nslots - 1;
}

static void reservation_over(struct pli_shm *s)
{
    s->tx.reserved = 0;
    s->tr.room.limit = pli_shm_limit_known(s);
    s->reserved_slot = NULL;
    s->reserved_bulk = NULL;
}

void pli_shm_commit(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more)
{
    struct pli_shm *s = pli_shm_of(tr);
    struct pli_shm_slot *slot = s->reserved_slot;
    void *bulk = s->reserved_bulk;

    slot->word1 = w1;
    if (meta & PLI_RF_COOKIE << 8)
        memcpy(bulk ? bulk : slot->payload, &cookie, 8);
    /* slots beyond what is used may have been written already: payload bytes may begin them */
    memset(&s->tx.dirty[((uint32_t)s->tr.room.pos & s->tx.mask) + 1], 1, s->tx.reserved - 1);
    reservation_over(s);
    if (bulk)
        put_reference(s, slot, meta, w1, bulk);
    else
        pli_ring_tx_publish(&s->tx, slot, pli_ring_slots_for(pli_rec_payload(meta, w1)), meta);
    if (!more)
        wake_peer(s);
}

void pli_shm_abandon(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);

    if (!s->tx.reserved)
        return;
    memset(&s->tx.dirty[((uint32_t)s->tr.room.pos & s->tx.mask) + 1], 1, s->tx.reserved - 1);
    reservation_over(s);
}

void pli_shm_flush(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);

    pli_ring_tx_flush(&s->tx);
    wake_peer(s);
}

/* Is there space now for what found none? And a quarter of the ring, so that it does not come back at once. Not more: with records held in
 * place and a pad, 97 of the first ring's 256 slots can be all that ever comes back, and a record takes 96 of them at most. */
bool pli_shm_space_back(const struct pli_shm *s)
{
    uint64_t space = pli_shm_limit_known(s) - s->tr.room.pos;

    if (s->bulk.want && !pli_shm_bulk_place(s, s->bulk.want))
        return false;
    return space > s->tx.nslots / 4 && space >= s->need;
}
