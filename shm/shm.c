/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's data path: send, poll, park. */
#include "shm/shm.h"

#include <poll.h>
#include <unistd.h>
#include "shm/turn.h"
#include "util/err.h"

#define MAX_RECORD 8192u /* bytes of one record at most: longer messages go in parts, whose two copies overlap */
#define GROW_AFTER 16u   /* full rings before a larger one is made */
#define FULL_LOOK 16     /* polls that may end after one record, in a row */
#define STREAM 6         /* slots in one poll that are a stream */
#define PREFETCH 8       /* slots ahead, while a stream is read */

/* ---- waking the peer ---- */

static __attribute__((noinline, cold)) void kick(struct pli_shm *s, uint32_t epoch)
{
    struct pollfd p = { .fd = s->peer_wake_fd, .events = POLLOUT };
    uint64_t one = 1;

    s->kicked = epoch;
    ++*s->env.kicks;
    /* O_NONBLOCK is shared with the peer, who may have cleared it: never write to a full counter; it has been told often enough then */
    if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))
        return;
    if (write(s->peer_wake_fd, &one, sizeof one) < 0)
        return;
}

/* After a publication (a record, or the cursor): does the peer sleep? The full fence that store-then-load needs is paid by the
 * sleeper (membarrier, see pli_sleeper_barrier()), or by us if its kernel has none. */
static inline void wake_peer(struct pli_shm *s)
{
    uint32_t epoch;

    if (__builtin_expect(s->fence, 0))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
    epoch = atomic_load_explicit(&s->peer->parked, memory_order_relaxed);
    if (__builtin_expect(epoch & 1, 0) && epoch != s->kicked)
        kick(s, epoch);
}

/* ---- sending ---- */

static void set_want_space(struct pli_shm *s, bool on)
{
    if (s->wants == on)
        return;
    s->wants = on;
    /* relaxed: the consumer looks at it in every empty poll and after its barrier; our own barrier comes with parking */
    atomic_store_explicit(&s->own->want_space, on, memory_order_relaxed);
}

static int peer_cursor_bad(struct pli_shm *s)
{
    s->tr.up->failed(s->tr.owner, PLAIT_E_BADPEER, "shm: the peer's receive cursor went back or beyond what was sent");
    return PLAIT_E_BADPEER;
}

/* No space as of the cached limit: read the cursor again. Not an upcall from send: a bad cursor is reported by the next poll. */
static void starve(struct pli_shm *s)
{
    /* what is held back would never be read, and the space never come back */
    pli_ring_tx_flush(&s->tx);
    wake_peer(s);
    s->starved = true;
    set_want_space(s, true);
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
    uint32_t part = s->tx.nslots * 3 / 8 * PLI_SHM_SLOT; /* the most that always fits: see space_back(). A page and more in the first ring */

    if (part < PLI_SHM_SLOT)
        part = PLI_SHM_SLOT;
    return (part < MAX_RECORD ? part : MAX_RECORD) - PLI_REC_HEAD;
}

static uint32_t shm_max_payload(const struct pli_tr *tr)
{
    const struct pli_shm *s = (const struct pli_shm *)tr;

    return s->bulk.up ? PLI_SHM_BULK_MAX : ring_max(s);
}

static __attribute__((noinline, cold)) int send_refused(struct pli_shm *s, uint64_t payload)
{
    if (s->tx.reserved)
        return pli_fail(PLAIT_E_BUSY, "a reservation is open on this link: commit or abandon it first");
    if (payload > shm_max_payload(&s->tr))
        return pli_fail(PLAIT_E_TOOBIG, "a record of %llu bytes is over the transport's %u", (unsigned long long)payload, shm_max_payload(&s->tr));
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
        memcpy(to + hdr_len, data, pli_w1_len(w1));
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
    if (!*place && !s->starved && pli_ring_tx_refresh(&s->tx))
        *place = pli_shm_bulk_place(s, (uint32_t)len);
    pli_shm_bulk_reap(s);
    if (*place)
        return slot;
    if (len > s->bulk.want)
        s->bulk.want = (uint32_t)len;
    starve(s);
    return NULL;
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

    if (pli_meta_type(meta) == PLI_REC_FRAG || meta & PLI_RF_FRAG << 8)
        pli_shm_bulk_wanted(s);
    if (payload > ring_max(s)) {
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

/* With 'more': the first of a slot. */
static __attribute__((noinline)) int open_shared(struct pli_shm *s, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    if (pli_ring_tx_open_shared(&s->tx, meta, w1, cookie, data))
        wake_peer(s);
    return 0;
}

/* Without 'more', but what waits is of another kind. */
static __attribute__((noinline)) int send_after_shared(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    pli_ring_tx_flush(&pli_shm_of(tr)->tx);
    return pli_shm_send_small(tr, meta, w1, cookie, data, 0);
}

/* The short path: one slot, no header part, room for it is known. A message of 8 bytes takes four stores, three of them into the line
 * that moves to the peer. */
int pli_shm_send_small(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, unsigned more)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint64_t pos = tr->room.pos;
    struct pli_shm_slot *slot = &s->tx.slots[(uint32_t)pos & s->tx.mask];

    if (__builtin_expect(s->tx.pack != NULL, 0)) {
        if (!pli_ring_tx_can_share(&s->tx, meta, w1))
            return more ? open_shared(s, meta, w1, cookie, data) : send_after_shared(tr, meta, w1, cookie, data);
        return pli_ring_tx_share(&s->tx, meta, w1, cookie, data, more) ? wake_after(s) : 0;
    }
    if (__builtin_expect(more, 0))
        return open_shared(s, meta, w1, cookie, data);
    slot->word1 = w1;
    pli_ring_fill_small(slot->payload, meta, cookie, data, pli_w1_len(w1));
    pli_ring_tx_fence_off(&s->tx, (uint32_t)pos & s->tx.mask, 1);
    tr->room.pos = pos + 1;
    /* release: pairs with the consumer's acquire in pli_ring_rx_peek() */
    atomic_store_explicit(&slot->word0, (uint64_t)meta << 32 | (uint32_t)pos, memory_order_release);
    return wake_after(s);
}

static int shm_send(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr,
                    bool more)
{
    struct pli_shm *s = pli_shm_of(tr);

    if (pli_w1_len(w1) > PLI_TR_SMALL || meta >> 16)
        return send_large(s, meta, w1, cookie, data, hdr, more);
    if (tr->room.pos >= tr->room.limit && !room_refresh(s, 1))
        return send_refused(s, 0);
    return pli_shm_send_small(tr, meta, w1, cookie, data, more);
}

static int shm_reserve(struct pli_tr *tr, bool cookie, uint32_t len, void **data)
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
static uint64_t limit_known(const struct pli_shm *s)
{
    uint64_t floor = s->tx.seen_cursor > s->tx.base ? s->tx.seen_cursor : s->tx.base;

    return floor + s->tx.nslots - 1;
}

static void reservation_over(struct pli_shm *s)
{
    s->tx.reserved = 0;
    s->tr.room.limit = limit_known(s);
    s->reserved_slot = NULL;
    s->reserved_bulk = NULL;
}

static void shm_commit(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more)
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

static void shm_abandon(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);

    if (!s->tx.reserved)
        return;
    memset(&s->tx.dirty[((uint32_t)s->tr.room.pos & s->tx.mask) + 1], 1, s->tx.reserved - 1);
    reservation_over(s);
}

static void shm_flush(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);

    pli_ring_tx_flush(&s->tx);
    wake_peer(s);
}

/* ---- receiving ---- */

/* Publishes the cursor, and wakes a producer that waits for space. */
static void publish_cursor(struct pli_shm *s)
{
    pli_ring_rx_publish(&s->rx);
    if (__builtin_expect(s->fence, 0)) /* the cursor, then the look: as in wake_peer() */
        atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        wake_peer(s);
}

/* A good part of the ring has been read: give it back. What is held in place may stand in the way. */
static __attribute__((noinline)) void give_back(struct pli_shm *s)
{
    publish_cursor(s);
    if (s->rx.pos - s->rx.published >= s->rx.nslots / 4 && s->tr.up->crowded)
        s->tr.up->crowded(s->tr.owner);
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
        s->rx.pos += pli_ring_rx_contig(&s->rx);
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

/* Is there space now for what found none? And a quarter of the ring, so that it does not come back at once. Not more: with records held in
 * place and a pad, 97 of the first ring's 256 slots can be all that ever comes back, and a record takes 96 of them at most. */
static bool space_back(const struct pli_shm *s)
{
    uint64_t space = limit_known(s) - s->tr.room.pos;

    if (s->bulk.want && !pli_shm_bulk_place(s, s->bulk.want))
        return false;
    return space > s->tx.nslots / 4 && space >= s->need;
}

static __attribute__((noinline)) int poll_starved(struct pli_shm *s)
{
    if (s->switch_due)
        pli_shm_grow_finish(s);
    if (!pli_ring_tx_refresh(&s->tx))
        return peer_cursor_bad(s);
    /* a reservation is in the way of everything: space is told of when it has ended */
    if (!s->starved || s->tx.reserved || !space_back(s))
        return 0;
    s->starved = false;
    s->need = s->bulk.want = 0;
    set_want_space(s, false);
    s->tr.up->writable(s->tr.owner);
    return 1;
}

/* Something has been sent since the last look. Own a line ahead for the next message. And if this is a dialogue and nobody else is polled
 * by this context, wait for the answer here, and well (turn.h). */
static __attribute__((noinline)) void before_first_look(struct pli_shm *s)
{
    if (s->tx.pack) /* sent before this poll; no answer comes before it is out */
        shm_flush(&s->tr);
    s->touched = s->tr.room.pos;
    pli_ring_tx_touch(&s->tx);
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

/* Several records in one slot; payload: bytes of one. -1 when the link has failed, else how many. */
static inline int deliver_shared(struct pli_shm *s, const struct pli_shm_slot *slot, uint32_t meta, uint64_t w1, uint64_t payload)
{
    uint32_t count = (meta >> PLI_RING_PACK_SHIFT & 7) + 1;
    uint64_t stride = payload ? (payload + 7) & ~UINT64_C(7) : 8;
    int rc;

    if (__builtin_expect(pli_meta_hdr_len(meta) || stride * count > PLI_SHM_SLOT - PLI_REC_HEAD, 0))
        return bad_record(s, "shm: the records of a shared slot run over its end");
    meta &= ~PLI_RING_PACK_MASK;
    if (__builtin_expect(s->tr.up->rx_many != NULL, 1))
        rc = s->tr.up->rx_many(s->tr.owner, meta, w1, slot->payload, (uint32_t)stride, count);
    else
        rc = rx_each(s, meta, w1, slot->payload, (uint32_t)stride, count);
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
        shm_flush(&s->tr);
    return s->tr.alone && s->tr.room.pos != s->touched && ++s->short_looks % FULL_LOOK;
}

static void poll_over(struct pli_shm *s, int n, int visited)
{
    s->last_n = n;
    if (n)
        s->burst = visited;
    if (n == 0 && s->rx.pos != s->rx.published && atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        publish_cursor(s);
    if (__builtin_expect(s->tx.pack != NULL, 0)) /* the end of the poll: what was to wait for more goes now */
        shm_flush(&s->tr);
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
    s->rx.pos++;
    publish_cursor(s); /* the sender has little space of this kind */
    return 0;
}

static int shm_poll(struct pli_tr *tr, int budget)
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
        uint64_t payload = pli_rec_payload(meta, w1);
        uint32_t k = 1;

        if (__builtin_expect(pli_meta_type(meta) == PLI_SHM_BULK, 0)) {
            if (deliver_bulk(s, slot, w1) < 0)
                return n + 1;
            if (++n == 1 && dialogue(s))
                break;
            continue;
        }
        if (__builtin_expect(pli_meta_type(meta) >= PLI_REC_TRANSPORT, 0)) {
            if (own_record(s, pli_meta_type(meta)) < 0)
                return n;
            budget--; /* a bad peer could make them as fast as they are read */
            continue;
        }
        if (__builtin_expect(payload > PLI_SHM_SLOT - PLI_REC_HEAD, 0)) {
            if (payload > (uint64_t)pli_ring_rx_contig(&s->rx) * PLI_SHM_SLOT - PLI_REC_HEAD) {
                bad_record(s, "shm: a record's length runs over the end of the ring");
                return n;
            }
            k = pli_ring_slots_for(payload);
        }
        s->rx.cur_slots = k;
        if (__builtin_expect(meta & PLI_RING_PACK_MASK, 0))
            got = deliver_shared(s, slot, meta, w1, payload);
        else
            got = tr->up->rx(tr->owner, meta, w1, slot->payload) < 0 ? -1 : 1;
        if (__builtin_expect(got < 0, 0))
            return n + 1;
        n += got;
        s->rx.pos += k;
        if (__builtin_expect(s->rx.pos - s->rx.published >= s->rx.nslots / 4, 0))
            give_back(s);
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

static int shm_hold(struct pli_tr *tr, uint32_t *token)
{
    return pli_ring_rx_hold(&pli_shm_of(tr)->rx, token) < 0 ? PLAIT_E_AGAIN : 0;
}

static void shm_release(struct pli_tr *tr, uint32_t token)
{
    struct pli_shm *s = pli_shm_of(tr);

    pli_ring_rx_release(&s->rx, token);
    if (s->rx.pos - s->rx.published >= s->rx.nslots / 4 ||
        atomic_load_explicit(&s->peer->want_space, memory_order_relaxed))
        publish_cursor(s);
}

/* ---- waiting ---- */

static void shm_park(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint32_t epoch = atomic_load_explicit(&s->own->parked, memory_order_relaxed);

    /* what waits for more must go: nobody will flush while we sleep */
    shm_flush(tr);
    /* a producer that waits for space looks at the cursor only until it sleeps, too */
    publish_cursor(s);
    if (!(epoch & 1))
        atomic_store_explicit(&s->own->parked, epoch + 1, memory_order_relaxed);
}

static bool shm_ready(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint64_t word0;

    if (pli_ring_rx_peek(&s->rx, &word0))
        return true;
    /* the cursor published before the barrier may have met a producer that set want_space after our look */
    publish_cursor(s);
    if (!s->starved) /* a switch that is due waits for the next send */
        return false;
    return !pli_ring_tx_refresh(&s->tx) || space_back(s);
}

static void shm_unpark(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint32_t epoch = atomic_load_explicit(&s->own->parked, memory_order_relaxed);

    if (epoch & 1)
        atomic_store_explicit(&s->own->parked, epoch + 1, memory_order_relaxed);
}

static int shm_wake_fd(const struct pli_tr *tr)
{
    return ((const struct pli_shm *)tr)->wake_fd;
}

static void shm_stats(const struct pli_tr *tr, struct pli_tr_stats *st)
{
    const struct pli_shm *s = (const struct pli_shm *)tr;

    st->ring_slots = s->tx.nslots;
    st->ring_used = (uint32_t)(s->tr.room.pos - s->tx.seen_cursor);
    st->grows = s->grows;
    st->held = s->rx.hold_tail - s->rx.hold_head;
}

const struct pli_tr_ops pli_shm_ops = {
    .name = "shm",
    .probe = pli_shm_probe,
    .create = pli_shm_create,
    .describe = pli_shm_describe,
    .connect = pli_shm_connect,
    .control = pli_shm_control,
    .destroy = pli_shm_destroy,
    .send = shm_send,
    .reserve = shm_reserve,
    .commit = shm_commit,
    .abandon = shm_abandon,
    .flush = shm_flush,
    .max_payload = shm_max_payload,
    .poll = shm_poll,
    .hold = shm_hold,
    .release = shm_release,
    .park = shm_park,
    .ready = shm_ready,
    .unpark = shm_unpark,
    .wake_fd = shm_wake_fd,
    .stats = shm_stats,
};
