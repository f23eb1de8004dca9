/* SPDX-License-Identifier: BSD-3-Clause */
#include "shm/ring.h"

void pli_ring_tx_init(struct pli_ring_tx *tx, struct pli_tr_room *at, void *slots, uint32_t nslots, uint8_t *dirty,
                      const _Atomic uint64_t *peer_cursor, uint64_t start)
{
    memset(tx, 0, sizeof *tx);
    tx->at = at;
    tx->slots = slots;
    tx->nslots = nslots;
    tx->mask = nslots - 1;
    tx->dirty = dirty;
    tx->peer_cursor = peer_cursor;
    at->pos = tx->base = tx->seen_cursor = start;
    at->limit = start + nslots - 1;
}

void pli_ring_rx_init(struct pli_ring_rx *rx, const void *slots, uint32_t nslots, _Atomic uint64_t *cursor,
                      uint64_t start)
{
    memset(rx, 0, sizeof *rx);
    rx->slots = slots;
    rx->nslots = nslots;
    rx->mask = nslots - 1;
    rx->cursor = cursor;
    rx->pos = rx->published = start;
    atomic_store_explicit(cursor, start, memory_order_relaxed);
}

bool pli_ring_tx_open_shared(struct pli_ring_tx *tx, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    uint32_t stride = (uint32_t)pli_ring_stride(meta, w1);
    bool before = tx->pack != NULL;

    pli_ring_tx_flush(tx);
    pli_ring_tx_open_alike(tx, meta, w1, cookie, data);
    tx->pack_stride = stride;
    tx->pack_max = (PLI_SHM_SLOT - PLI_REC_HEAD) / stride;
    if (tx->pack_max > 1)
        return before;
    pli_ring_tx_flush(tx);
    return true;
}

bool pli_ring_tx_refresh(struct pli_ring_tx *tx)
{
    /* acquire: pairs with the consumer's release in pli_ring_rx_publish(); our writes to the slots come after its reads */
    uint64_t c = atomic_load_explicit(tx->peer_cursor, memory_order_acquire);
    uint64_t floor;

    if (c < tx->seen_cursor || c > tx->at->pos)
        return false;
    tx->seen_cursor = c;
    /* what is below base lies in an earlier ring and takes no space in this one */
    floor = c > tx->base ? c : tx->base;
    if (!tx->reserved) /* nothing may pass a reservation: commit and abandon open the limit again */
        tx->at->limit = floor + tx->nslots - 1;
    return true;
}

static void write_pad(struct pli_ring_tx *tx, uint32_t idx, uint32_t k)
{
    tx->slots[idx].word1 = 0;
    pli_ring_tx_publish(tx, &tx->slots[idx], k, PLI_SHM_PAD);
    /* nothing was written into the padded slots, so they are what they were; but calling them dirty costs nothing and is safe */
}

struct pli_shm_slot *pli_ring_tx_room_slow(struct pli_ring_tx *tx, uint32_t k)
{
    uint32_t idx = (uint32_t)tx->at->pos & tx->mask;
    uint32_t contig = tx->nslots - idx;

    if (k + 1 > tx->nslots)
        return NULL;
    if (idx + k > tx->nslots) {
        /* the pad needs the rest of the ring and the slot behind it, which is index 0 */
        if (tx->at->pos + contig > tx->at->limit)
            return NULL;
        write_pad(tx, idx, contig);
        idx = 0;
    }
    if (tx->at->pos + k > tx->at->limit)
        return NULL;
    return &tx->slots[idx];
}

bool pli_ring_tx_switch(struct pli_ring_tx *tx, void *slots, uint32_t nslots, uint8_t *dirty)
{
    struct pli_shm_slot *slot = pli_ring_tx_room(tx, 1);

    if (!slot)
        return false;
    slot->word1 = 0;
    pli_ring_tx_publish(tx, slot, 1, PLI_SHM_SWITCH);
    tx->slots = slots;
    tx->nslots = nslots;
    tx->mask = nslots - 1;
    tx->dirty = dirty;
    tx->base = tx->at->pos;
    tx->at->limit = tx->base + nslots - 1;
    return true;
}

int pli_ring_rx_hold(struct pli_ring_rx *rx, uint32_t *token)
{
    struct pli_ring_hold *h;

    if (rx->hold_tail - rx->hold_head == PLI_RING_HOLDS || rx->cur_slots == 0)
        return -1;
    /* the span from the oldest held record on is lost to the producer: a quarter of the ring at most */
    if (rx->pos + rx->cur_slots - pli_ring_rx_floor(rx) > rx->nslots / 4)
        return -1;
    h = &rx->holds[rx->hold_tail % PLI_RING_HOLDS];
    h->pos = rx->pos;
    h->slots = rx->cur_slots;
    h->released = false;
    *token = rx->hold_tail++;
    rx->held_slots += h->slots;
    return 0;
}

void pli_ring_rx_release(struct pli_ring_rx *rx, uint32_t token)
{
    struct pli_ring_hold *h = &rx->holds[token % PLI_RING_HOLDS];

    h->released = true;
    rx->held_slots -= h->slots;
    while (rx->hold_head != rx->hold_tail && rx->holds[rx->hold_head % PLI_RING_HOLDS].released)
        rx->hold_head++;
}
