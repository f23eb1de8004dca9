/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring: single producer, single consumer, 64-byte slots, in memory that only the producer may write; the
 * consumer's cursor is in memory that only the consumer may write. No system calls and no waiting here.
 *
 * Slots are numbered by absolute 64-bit positions; slot p lies at index p mod slots. A record takes k slots in a row
 * and never wraps (a PAD record fills the end). Its word0 carries the low 32 bits of its position and is stored last,
 * with release, so one cache line moves for a record of one slot; the consumer's acquire load of word0 pairs with it.
 *
 * A payload is arbitrary, so the bytes where the next header is expected must never pass for one. The producer knows
 * which slots hold payload bytes at their start (dirty) and, before it publishes a record, overwrites the first word of
 * the slot behind it if that one is dirty. Hence a record needs one free slot behind it, too. Old headers need nothing:
 * their sequence is a lap behind. (Sequence in the slot: Vyukov's bounded queue, FastForward; lazy, cached cursors:
 * Lee et al. "MCRingBuffer"; the invalidated next header is in the blueprint.) */
#ifndef PLI_SHM_RING_H
#define PLI_SHM_RING_H

#include <stdbool.h>
#include <string.h>
#include "runtime/transport.h"
#include "shm/layout.h"

/* Records that are sent with 'more' share a slot, if they have the same meta, length and channel and two or more of them fit: word1 is that
 * of the last (the newest credit), the payloads lie one behind the other, each 8-byte aligned. Bits 12..14 of meta, flags that no record
 * has, count the records after the first; with none it is an ordinary record. So one line moves for up to six messages of 8 bytes, which
 * is what bounds a stream: each side waits for every line that the other has touched (doc/memory-model.md). */
#define PLI_RING_PACK_SHIFT 12
#define PLI_RING_PACK_MASK (7u << PLI_RING_PACK_SHIFT)
#define PLI_RING_PACK_MAX 6u
_Static_assert(PLI_RING_PACK_MAX * 8 == PLI_SHM_SLOT - PLI_REC_HEAD, "six words are a slot's payload");
_Static_assert((PLI_RING_PACK_MASK >> 8 & PLI_RF_ALL) == 0, "the counter's bits are no record's flags");
#define PLI_RING_HOLDS 32u /* records held in place at once at most */

struct pli_ring_tx {
    /* pos: where the next record goes. A record of k slots needs pos + k <= limit: that is one less than the first position that may not
     * be written yet, as of the cursor last read, since the slot behind a record must be free, too. */
    struct pli_tr_room *at;
    struct pli_shm_slot *slots;
    uint32_t nslots, mask;
    uint8_t *dirty;          /* one byte a slot: it may begin with payload */
    struct pli_shm_slot *pack; /* a slot that is shared and has space left: the payloads are in it; NULL: none. pos is behind it */
    uint64_t pack_word0, pack_w1; /* its two words, so far; with no such slot those of the last one */
    uint32_t pack_stride, pack_max; /* bytes from one record to the next; records that fit */
    uint32_t reserved;       /* slots of an open reservation, 0: none */
    const _Atomic uint64_t *peer_cursor;
    uint64_t base;           /* positions below were in an earlier ring */
    uint64_t seen_cursor;    /* greatest valid cursor read; the peer's may only grow, up to pos */
};

struct pli_ring_hold {
    uint64_t pos;
    uint32_t slots;
    bool released;
};

struct pli_ring_rx {
    const struct pli_shm_slot *slots;
    uint64_t pos;            /* the record expected next */
    uint32_t nslots, mask;
    uint64_t published;      /* the cursor as the producer may see it */
    _Atomic uint64_t *cursor;/* in the own segment */
    uint32_t cur_slots;      /* of the record being delivered; 0: it cannot be held in place */
    /* holds: a queue in order of position */
    struct pli_ring_hold holds[PLI_RING_HOLDS];
    uint32_t hold_head, hold_tail; /* free-running; tail - head entries */
    uint32_t held_slots;
};

static inline uint32_t pli_ring_slots_for(uint64_t payload)
{
    return (uint32_t)((PLI_REC_HEAD + payload + PLI_SHM_SLOT - 1) / PLI_SHM_SLOT);
}

/* start: both sides' first position (0 in use, anything in tests of wrap-around). dirty: nslots bytes, zeroed. at: where pos and limit are kept. */
void pli_ring_tx_init(struct pli_ring_tx *tx, struct pli_tr_room *at, void *slots, uint32_t nslots, uint8_t *dirty,
                      const _Atomic uint64_t *peer_cursor, uint64_t start);
void pli_ring_rx_init(struct pli_ring_rx *rx, const void *slots, uint32_t nslots, _Atomic uint64_t *cursor,
                      uint64_t start);

/* Reads the consumer's cursor anew. False: the peer wrote nonsense there (it went back, or beyond what was sent). */
bool pli_ring_tx_refresh(struct pli_ring_tx *tx);

/* Makes room for k slots in a row and one behind: pads at the end if needed. NULL: no space as of the limit. */
struct pli_shm_slot *pli_ring_tx_room_slow(struct pli_ring_tx *tx, uint32_t k);

/* Goes on in another, empty ring after a SWITCH record. False: no space for that record now. */
bool pli_ring_tx_switch(struct pli_ring_tx *tx, void *slots, uint32_t nslots, uint8_t *dirty);

/* Release: pairs with the consumer's acquire load in pli_ring_rx_peek(). */
static inline void pli_ring_tx_publish_shared(struct pli_ring_tx *tx, uint64_t word0, uint64_t w1)
{
    struct pli_shm_slot *slot = tx->pack;

    slot->word1 = w1;
    tx->pack = NULL;
    atomic_store_explicit(&slot->word0, word0, memory_order_release);
}

/* Publishes the shared slot, if there is one. */
static inline void pli_ring_tx_flush(struct pli_ring_tx *tx)
{
    if (tx->pack)
        pli_ring_tx_publish_shared(tx, tx->pack_word0, tx->pack_w1);
}

/* Room for a record of k slots, NULL if there is none as of the limit. What shares a slot goes out before it. */
static inline struct pli_shm_slot *pli_ring_tx_room(struct pli_ring_tx *tx, uint32_t k)
{
    uint32_t idx = (uint32_t)tx->at->pos & tx->mask;

    pli_ring_tx_flush(tx);
    if (__builtin_expect(tx->at->pos + k <= tx->at->limit && idx + k <= tx->nslots, 1))
        return &tx->slots[idx];
    return pli_ring_tx_room_slow(tx, k);
}

/* Bytes from one record to the next in a shared slot. 64-bit, so that hostile lengths cannot wrap. */
static inline uint64_t pli_ring_stride(uint32_t meta, uint64_t w1)
{
    uint64_t payload = pli_rec_payload(meta, w1);

    return payload ? (payload + 7) & ~UINT64_C(7) : 8;
}

/* Before the record of k slots at index idx is published: invalidates the next header if it could be payload. Relaxed: ordered before word0
 * by its release; the consumer looks there only after it saw word0. */
static inline void pli_ring_tx_fence_off(struct pli_ring_tx *tx, uint32_t idx, uint32_t k)
{
    uint32_t next = (idx + k) & tx->mask;

    if (__builtin_expect(tx->dirty[next], 0)) {
        atomic_store_explicit(&tx->slots[next].word0, 0, memory_order_relaxed);
        tx->dirty[next] = 0;
    }
}

/* Ends a record of k slots at slot (from room), and publishes it. */
static inline void pli_ring_tx_publish(struct pli_ring_tx *tx, struct pli_shm_slot *slot, uint32_t k, uint32_t meta)
{
    uint64_t word0 = (uint64_t)meta << 32 | (uint32_t)tx->at->pos;
    uint32_t idx = (uint32_t)tx->at->pos & tx->mask;

    pli_ring_tx_fence_off(tx, idx, k);
    if (__builtin_expect(k > 1, 0))
        memset(&tx->dirty[idx + 1], 1, k - 1);
    tx->at->pos += k;
    /* pairs with the consumer's acquire in pli_ring_rx_peek() */
    atomic_store_explicit(&slot->word0, word0, memory_order_release);
}

/* The payload of a small record: the cookie, if it has one, and at most PLI_TR_SMALL bytes, without a call: two moves that overlap, of a
 * size known at compile time. */
static inline void pli_ring_fill_small(uint8_t *to, uint32_t meta, uint64_t cookie, const void *data, uint32_t n)
{
    const uint8_t *f = data;

    if (meta & PLI_RF_COOKIE << 8) {
        memcpy(to, &cookie, 8);
        to += 8;
    }
    if (__builtin_expect(n == 8, 1)) {
        memcpy(to, f, 8);
    } else if (n >= 16) {
        if (n > 32)
            memcpy(to + 16, f + 16, 16);
        memcpy(to, f, 16);
        memcpy(to + n - 16, f + n - 16, 16);
    } else if (n > 8) {
        memcpy(to, f, 8);
        memcpy(to + n - 8, f + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, f, 4);
        memcpy(to + n - 4, f + n - 4, 4);
    } else {
        while (n--)
            to[n] = f[n];
    }
}

/* May this record join those in the shared slot (or the last one)? The same meta but for the count, the same word1 but for the credit. */
static inline bool pli_ring_tx_alike(const struct pli_ring_tx *tx, uint32_t meta, uint64_t w1)
{
    return ((uint32_t)(tx->pack_word0 >> 32) & ~PLI_RING_PACK_MASK) == meta && (tx->pack_w1 ^ w1) << 16 == 0;
}

/* Adds a record that may (pli_ring_tx_alike()). Few stores: those of a stream wait in a queue, in order, for the lines that they go to, and
 * the shorter the queue, the fewer lines are fetched at once. Returns whether the slot was published: the caller wakes the peer then. */
static inline bool pli_ring_tx_share(struct pli_ring_tx *tx, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, bool more)
{
    uint64_t word0 = tx->pack_word0 + ((uint64_t)1 << (32 + PLI_RING_PACK_SHIFT));
    uint32_t count = (uint32_t)(word0 >> (32 + PLI_RING_PACK_SHIFT)) & 7;

    pli_ring_fill_small(tx->pack->payload + count * tx->pack_stride, meta, cookie, data, pli_w1_len(w1));
    if (__builtin_expect(!more || count + 1 == tx->pack_max, 0)) {
        tx->pack_w1 = w1;
        pli_ring_tx_publish_shared(tx, word0, w1);
        return true;
    }
    tx->pack_word0 = word0;
    if (tx->pack_w1 != w1)
        tx->pack_w1 = w1;
    return false;
}

/* A record with 'more' that begins a slot; room for it is known, and no slot is open. It is like those in the last shared slot. */
static inline void pli_ring_tx_open_alike(struct pli_ring_tx *tx, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    uint64_t pos = tx->at->pos;
    uint32_t idx = (uint32_t)pos & tx->mask;
    struct pli_shm_slot *slot = &tx->slots[idx];

    pli_ring_tx_fence_off(tx, idx, 1);
    pli_ring_fill_small(slot->payload, meta, cookie, data, pli_w1_len(w1));
    tx->pack = slot;
    tx->pack_word0 = (uint64_t)meta << 32 | (uint32_t)pos;
    tx->pack_w1 = w1;
    tx->at->pos = pos + 1;
}

/* The same for a record of any kind. Returns as pli_ring_tx_share(). */
bool pli_ring_tx_open_shared(struct pli_ring_tx *tx, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data);

/* Takes ownership of the line after the next one, by a store that changes nothing: the record after the next will not have to wait for it.
 * Not in every send, but when the context begins to wait (doc/memory-model.md has the measurements: with a consumer that does not
 * look too early, this halves the trips of a message; in every send it would halve the rate of a stream). */
static inline void pli_ring_tx_touch(struct pli_ring_tx *tx)
{
    uint32_t at = ((uint32_t)tx->at->pos + 1) & tx->mask;

    if (tx->at->pos >= tx->at->limit)
        return; /* the consumer may not have read it yet */
    atomic_store_explicit(&tx->slots[at].word0, 0, memory_order_relaxed);
    tx->dirty[at] = 0;
}

/* The slot and word0 of the next record, or NULL if there is none. Acquire: pairs with the release in publish or flush, so
 * that everything else in the record can be read plainly. */
static inline const struct pli_shm_slot *pli_ring_rx_peek(const struct pli_ring_rx *rx, uint64_t *word0)
{
    const struct pli_shm_slot *slot = &rx->slots[(uint32_t)rx->pos & rx->mask];
    uint64_t w = atomic_load_explicit(&slot->word0, memory_order_acquire);

    /* a zero type is memory that was never written */
    if ((uint32_t)w != (uint32_t)rx->pos || !(w >> 32 & 0xff))
        return NULL;
    *word0 = w;
    return slot;
}

/* How many slots may still be taken before the ring ends. */
static inline uint32_t pli_ring_rx_contig(const struct pli_ring_rx *rx)
{
    return rx->nslots - ((uint32_t)rx->pos & rx->mask);
}

/* The first position that must not be overwritten yet. */
static inline uint64_t pli_ring_rx_floor(const struct pli_ring_rx *rx)
{
    return rx->hold_head == rx->hold_tail ? rx->pos : rx->holds[rx->hold_head % PLI_RING_HOLDS].pos;
}

/* Lets the producer write again what has been read. Release: the reads of the payload come before it; pairs with the
 * acquire in pli_ring_tx_refresh(). */
static inline void pli_ring_rx_publish(struct pli_ring_rx *rx)
{
    uint64_t floor = pli_ring_rx_floor(rx);

    if (floor != rx->published) {
        rx->published = floor;
        atomic_store_explicit(rx->cursor, floor, memory_order_release);
    }
}

/* Holds the record being delivered (cur_slots, at pos). Negative: hold no more in place. */
int pli_ring_rx_hold(struct pli_ring_rx *rx, uint32_t *token);
void pli_ring_rx_release(struct pli_ring_rx *rx, uint32_t token);

#endif
