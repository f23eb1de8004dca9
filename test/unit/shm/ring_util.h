/* SPDX-License-Identifier: BSD-3-Clause */
/* A ring with both its ends in one process, and what the tests do at them. */
#ifndef PLI_TEST_RING_UTIL_H
#define PLI_TEST_RING_UTIL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "shm/ring.h"
#include "util/rand.h"

#define RING_PAYLOAD_MAX 8192u

struct ring {
    struct pli_tr_room at;
    struct pli_ring_tx tx;
    struct pli_ring_rx rx;
    _Atomic uint64_t *cursor;
    _Atomic uint64_t own_cursor; /* where cursor points, unless it is shared */
    struct pli_shm_slot *slots, *big;
    uint8_t *dirty, *big_dirty;
    uint32_t big_slots;
    uint32_t sub; /* which of the records in a shared slot comes next */
};

static inline void *slots_new(uint32_t n)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, (size_t)n * PLI_SHM_SLOT) != 0)
        abort();
    memset(p, 0, (size_t)n * PLI_SHM_SLOT);
    return p;
}

static inline void ring_open(struct ring *r, uint32_t n, uint64_t start)
{
    memset(r, 0, sizeof *r);
    r->slots = slots_new(n);
    r->dirty = calloc(n, 1);
    r->cursor = &r->own_cursor;
    pli_ring_rx_init(&r->rx, r->slots, n, r->cursor, start);
    pli_ring_tx_init(&r->tx, &r->at, r->slots, n, r->dirty, r->cursor, start);
}

static inline void ring_close(struct ring *r)
{
    free(r->slots);
    free(r->dirty);
    free(r->big);
    free(r->big_dirty);
}

/* Most payload that always fits, a quarter of the ring, or what the tests' buffers hold. */
static inline uint32_t ring_quarter(uint32_t nslots)
{
    uint32_t max = (nslots < 4 ? 1 : nslots / 4) * PLI_SHM_SLOT - PLI_REC_HEAD;

    return max < RING_PAYLOAD_MAX ? max : RING_PAYLOAD_MAX;
}

/* Room for len bytes with a fresh cursor, or NULL. A cursor that is refused is a failure of the test. */
static inline struct pli_shm_slot *ring_room(struct ring *r, uint32_t len)
{
    uint32_t k = pli_ring_slots_for(len);
    struct pli_shm_slot *slot = pli_ring_tx_room(&r->tx, k);

    if (slot)
        return slot;
    if (!pli_ring_tx_refresh(&r->tx)) {
        fprintf(stderr, "an honest cursor was refused\n");
        abort();
    }
    return pli_ring_tx_room(&r->tx, k);
}

static inline void ring_fill(struct pli_shm_slot *slot, const void *data, uint32_t len)
{
    uint8_t *to = (uint8_t *)slot + PLI_REC_HEAD;

    slot->word1 = pli_rec_w1(len, 0, 0);
    memcpy(to, data, len);
}

static inline void ring_publish(struct ring *r, struct pli_shm_slot *slot, uint32_t len)
{
    pli_ring_tx_publish(&r->tx, slot, pli_ring_slots_for(len), pli_rec_meta(PLI_REC_ONEWAY, 0, 0));
}

/* May a record of len bytes join those in the open slot? */
static inline bool ring_can_share(const struct ring *r, uint32_t len)
{
    return r->tx.pack && pli_ring_tx_alike(&r->tx, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0));
}

/* With or after 'more': the way of small records, as in pli_shm_send_small(). */
static inline bool ring_put_shared(struct ring *r, const void *data, uint32_t len, bool more)
{
    if (r->at.pos >= r->at.limit && (!pli_ring_tx_refresh(&r->tx) || r->at.pos >= r->at.limit))
        return false;
    if (!r->tx.pack && r->tx.pack_max > 1 && pli_ring_tx_alike(&r->tx, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0)))
        pli_ring_tx_open_alike(&r->tx, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0), 0, data);
    else if (ring_can_share(r, len))
        pli_ring_tx_share(&r->tx, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0), 0, data, more);
    else
        pli_ring_tx_open_shared(&r->tx, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0), 0, data);
    return true;
}

static inline bool ring_put(struct ring *r, const void *data, uint32_t len, bool more)
{
    struct pli_shm_slot *slot;

    if (len <= PLI_TR_SMALL &&
        (more || ring_can_share(r, len)))
        return ring_put_shared(r, data, len, more);
    slot = ring_room(r, len);
    if (!slot)
        return false;
    ring_fill(slot, data, len);
    ring_publish(r, slot, len);
    return true;
}

/* Records that wait in an open slot. */
static inline uint32_t ring_waiting(const struct ring *r)
{
    return r->tx.pack ? (uint32_t)(r->tx.pack_word0 >> (32 + PLI_RING_PACK_SHIFT) & 7) + 1 : 0;
}

static inline uint32_t ring_in_slot(const struct pli_shm_slot *slot)
{
    return (uint32_t)(slot->word0 >> (32 + PLI_RING_PACK_SHIFT) & 7) + 1;
}

/* The next record of a user, which stays the current one until ring_next(). -1: none. */
static inline int ring_peek(struct ring *r, const uint8_t **data)
{
    const struct pli_shm_slot *slot;
    uint64_t word0;

    while ((slot = pli_ring_rx_peek(&r->rx, &word0)) != NULL) {
        uint32_t meta = (uint32_t)(word0 >> 32), type = pli_meta_type(meta), len = pli_w1_len(slot->word1);

        if (type == PLI_SHM_PAD) {
            r->rx.pos += pli_ring_rx_contig(&r->rx);
        } else if (type == PLI_SHM_SWITCH) {
            r->rx.pos++;
            r->rx.slots = r->big;
            r->rx.nslots = r->big_slots;
            r->rx.mask = r->big_slots - 1;
        } else {
            r->rx.cur_slots = pli_ring_slots_for(len);
            *data = (const uint8_t *)slot + PLI_REC_HEAD + r->sub * pli_ring_stride(meta, slot->word1);
            if (type != PLI_REC_ONEWAY || len > RING_PAYLOAD_MAX || r->rx.cur_slots > pli_ring_rx_contig(&r->rx) ||
                (ring_in_slot(slot) > 1 && ring_in_slot(slot) * pli_ring_stride(meta, slot->word1) > 48)) {
                fprintf(stderr, "type %u, %u bytes at %llu: no record that was sent\n", type, len,
                        (unsigned long long)r->rx.pos);
                abort();
            }
            return (int)len;
        }
    }
    return -1;
}

static inline void ring_next(struct ring *r)
{
    if (++r->sub < ring_in_slot(&r->rx.slots[(uint32_t)r->rx.pos & r->rx.mask]))
        return;
    r->sub = 0;
    r->rx.pos += r->rx.cur_slots;
}

/* Is the next record exactly this? Takes it. */
static inline bool ring_get(struct ring *r, const void *want, uint32_t len)
{
    const uint8_t *data = NULL;
    int n = ring_peek(r, &data);
    bool ok = data && n == (int)len && memcmp(data, want, (size_t)n) == 0;

    if (n >= 0)
        ring_next(r);
    return ok;
}

static inline bool ring_empty(struct ring *r)
{
    const uint8_t *data;

    return ring_peek(r, &data) < 0;
}

/* A payload that seq alone determines, full of words that look like headers near pos. */
static inline void make_payload(uint8_t *buf, uint32_t len, uint64_t seq, uint64_t pos)
{
    struct pli_rand rnd;
    uint64_t word;

    pli_rand_seed(&rnd, seq * 2654435761u + len);
    for (uint32_t i = 0; i < len; i += 8) {
        word = (uint64_t)pli_rec_meta(PLI_REC_ONEWAY, 0, 0) << 32 | (uint32_t)(pos + pli_rand_below(&rnd, 1024));
        memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
    }
    memcpy(buf, &seq, len < 8 ? len : 8);
}

static inline uint32_t random_len(struct pli_rand *rnd, uint32_t max)
{
    return (uint32_t)(pli_rand_below(rnd, 2) ? pli_rand_below(rnd, max + 1) : pli_rand_below(rnd, max < 60 ? max + 1 : 60));
}

#endif
