/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring at its corners, without threads. */
#include <criterion/criterion.h>

#include "ring_util.h"

static struct ring r;
static uint8_t buf[RING_PAYLOAD_MAX];

static const uint64_t starts[] = { 0, 1, 7, (UINT64_C(1) << 32) - 3, (UINT64_C(1) << 32) - 1, (UINT64_C(1) << 33) - 100,
                                   (UINT64_C(1) << 63) - 5, UINT64_MAX - (1u << 24) };
#define NSTARTS (sizeof starts / sizeof starts[0])

static void fini(void)
{
    ring_close(&r);
}

TestSuite(ring, .fini = fini, .timeout = 60);

static void put8(uint64_t v)
{
    cr_assert(ring_put(&r, &v, 8, false), "no room for %llu", (unsigned long long)v);
}

static void get8(uint64_t v)
{
    cr_assert(ring_get(&r, &v, 8), "%llu did not come", (unsigned long long)v);
}

Test(ring, new_is_empty)
{
    for (size_t i = 0; i < NSTARTS; i++) {
        ring_open(&r, 8, starts[i]);
        cr_assert(ring_empty(&r));
        if (i + 1 < NSTARTS)
            ring_close(&r);
    }
}

Test(ring, capacity_one)
{
    for (size_t s = 0; s < NSTARTS; s++) {
        ring_open(&r, PLI_SHM_MIN_SLOTS, starts[s]);
        for (uint64_t i = 0; i < 1000; i++) {
            put8(i);
            cr_assert_null(ring_room(&r, 8), "the slot behind a record is not free");
            get8(i);
            cr_assert(ring_empty(&r));
            cr_assert_null(ring_room(&r, 8), "the cursor is not published yet");
            pli_ring_rx_publish(&r.rx);
        }
        if (s + 1 < NSTARTS)
            ring_close(&r);
    }
}

Test(ring, fills_and_empties_at_every_offset)
{
    for (size_t s = 0; s < NSTARTS; s++) {
        ring_open(&r, 16, starts[s]);
        for (uint64_t lap = 0; lap < 100; lap++) {
            for (uint64_t i = 0; i < 15; i++)
                put8(lap * 100 + i);
            cr_assert_null(ring_room(&r, 8));
            for (uint64_t i = 0; i < 15; i++)
                get8(lap * 100 + i);
            cr_assert(ring_empty(&r));
            cr_assert_null(ring_room(&r, 8));
            pli_ring_rx_publish(&r.rx);
        }
        if (s + 1 < NSTARTS)
            ring_close(&r);
    }
}

/* The producer is stopped after everything but word0. */
Test(ring, half_published)
{
    struct pli_shm_slot *slot;

    ring_open(&r, 16, (UINT64_C(1) << 32) - 20);
    for (uint64_t lap = 0; lap < 60; lap++) {
        uint32_t len = (uint32_t)(lap * 7 % 200);

        make_payload(buf, len, lap, r.at.pos);
        slot = ring_room(&r, len);
        cr_assert_not_null(slot);
        cr_assert(ring_empty(&r));
        ring_fill(slot, buf, len);
        cr_assert(ring_empty(&r), "a record is seen before its word0");
        ring_publish(&r, slot, len);
        cr_assert(ring_get(&r, buf, len));
        cr_assert(ring_empty(&r));
        pli_ring_rx_publish(&r.rx);
    }
}

static void all_sizes(uint32_t nslots, uint64_t start)
{
    uint32_t max = ring_quarter(nslots);

    ring_open(&r, nslots, start);
    for (uint32_t len = 0; len <= max; len = len < 200 || (len + PLI_REC_HEAD + 3) % 64 < 6 ? len + 1 : len + 2) {
        make_payload(buf, len, len, r.at.pos);
        cr_assert(ring_put(&r, buf, len, false), "no room for %u bytes in an empty ring of %u slots", len, nslots);
        cr_assert(ring_get(&r, buf, len), "%u bytes came back otherwise", len);
        cr_assert(ring_empty(&r), "a ghost behind %u bytes", len);
        pli_ring_rx_publish(&r.rx);
    }
    ring_close(&r);
}

Test(ring, every_size)
{
    for (size_t s = 0; s < NSTARTS; s++)
        for (uint32_t n = 2; n <= 512; n *= 2)
            all_sizes(n, starts[s]);
    ring_open(&r, 2, 0); /* for fini */
}

Test(ring, slots_of_sizes)
{
    ring_open(&r, 2, 0);
    cr_assert_eq(pli_ring_slots_for(0), 1);
    cr_assert_eq(pli_ring_slots_for(48), 1);
    cr_assert_eq(pli_ring_slots_for(49), 2);
    cr_assert_eq(pli_ring_slots_for(112), 2);
    cr_assert_eq(pli_ring_slots_for(113), 3);
}

/* Every word of every payload is the header that the consumer would take at that place, delta positions on. */
static void forge(uint32_t nslots, uint64_t delta)
{
    uint32_t max = ring_quarter(nslots);
    uint64_t start = (UINT64_C(1) << 32) - nslots, word;

    ring_open(&r, nslots, start);
    for (uint32_t i = 0; i < 6 * nslots; i++) {
        uint32_t len = i % 3 == 2 ? 8 : max - i % 5 * 64 % max;
        uint64_t pos = r.at.pos;

        if (((uint32_t)pos & (nslots - 1)) + pli_ring_slots_for(len) > nslots)
            pos += nslots - ((uint32_t)pos & (nslots - 1)); /* behind the pad */
        for (uint32_t at = 0; at + 8 <= len; at += 8) {
            word = (uint64_t)pli_rec_meta(PLI_REC_ONEWAY, 0, 0) << 32 | (uint32_t)(pos + (at + 16) / 64 + delta);
            memcpy(buf + at, &word, 8);
        }
        cr_assert(ring_put(&r, buf, len, false));
        cr_assert(ring_get(&r, buf, len));
        cr_assert(ring_empty(&r), "payload passes for a header %llu positions on", (unsigned long long)delta);
        pli_ring_rx_publish(&r.rx);
        if (i % 4 == 0)
            pli_ring_tx_touch(&r.tx);
        cr_assert(ring_empty(&r));
    }
    ring_close(&r);
}

Test(ring, forged_headers)
{
    for (uint32_t n = 8; n <= 64; n *= 2)
        for (uint64_t delta = 0; delta <= 3 * n; delta++)
            forge(n, delta);
    ring_open(&r, 2, 0);
}

Test(ring, pads_the_end)
{
    ring_open(&r, 16, 0);
    for (uint64_t i = 0; i < 14; i++)
        put8(i);
    for (uint64_t i = 0; i < 14; i++)
        get8(i);
    pli_ring_rx_publish(&r.rx);
    make_payload(buf, 200, 1, 0);
    cr_assert(ring_put(&r, buf, 200, false)); /* 4 slots, 2 are left */
    cr_assert_eq(r.at.pos, 20);
    cr_assert_eq(pli_meta_type((uint32_t)(r.slots[14].word0 >> 32)), PLI_SHM_PAD);
    cr_assert(ring_get(&r, buf, 200));
    cr_assert_eq(r.rx.pos, 20);
}

/* The pad may go out although the record behind it does not fit yet: it must be harmless. */
Test(ring, pad_without_room_behind_it)
{
    ring_open(&r, 16, 0);
    for (uint64_t i = 0; i < 14; i++)
        put8(i);
    get8(0);
    get8(1);
    pli_ring_rx_publish(&r.rx);
    cr_assert_null(ring_room(&r, 200));
    for (uint64_t i = 2; i < 14; i++)
        get8(i);
    cr_assert(ring_empty(&r));
    pli_ring_rx_publish(&r.rx);
    make_payload(buf, 200, 1, 0);
    cr_assert(ring_put(&r, buf, 200, false));
    cr_assert(ring_get(&r, buf, 200));
}

Test(ring, shared_slot_waits_for_flush)
{
    uint64_t v;

    ring_open(&r, 64, (UINT64_C(1) << 32) - 30);
    for (uint32_t lap = 0; lap < 50; lap++) {
        uint64_t n = lap % (PLI_RING_PACK_MAX - 1) + 1, before = r.at.pos;

        for (v = 0; v < n; v++) {
            cr_assert(ring_put(&r, &v, 8, true));
            cr_assert(ring_empty(&r));
        }
        if (lap % 2) /* one that does not wait takes all the others with it */
            put8(v);
        else
            pli_ring_tx_flush(&r.tx);
        cr_assert_eq(r.at.pos, before + 1, "all in one slot");
        for (v = 0; v < n + lap % 2; v++)
            get8(v);
        cr_assert(ring_empty(&r));
        pli_ring_tx_flush(&r.tx); /* nothing */
        cr_assert(ring_empty(&r));
        pli_ring_rx_publish(&r.rx);
    }
}

Test(ring, shared_slot_goes_when_full)
{
    ring_open(&r, 64, 0);
    for (uint32_t len = 0; len <= PLI_TR_SMALL; len++) {
        uint64_t fit = len ? 48 / ((len + 7) / 8 * 8) : 6;

        for (uint64_t i = 0; i < fit; i++) {
            cr_assert(ring_empty(&r));
            make_payload(buf, len, i, 0);
            cr_assert(ring_put(&r, buf, len, true));
        }
        cr_assert_null(r.tx.pack, "%u bytes: full with %u", len, (unsigned)fit);
        for (uint64_t i = 0; i < fit; i++) {
            make_payload(buf, len, i, 0);
            cr_assert(ring_get(&r, buf, len), "%u bytes, record %u", len, (unsigned)i);
        }
        cr_assert(ring_empty(&r));
        pli_ring_rx_publish(&r.rx);
    }
}

/* What is of another kind, length or channel goes behind it, in a slot of its own; the newest credit counts for all. */
Test(ring, shared_slot_is_for_one_kind)
{
    static const struct { uint32_t type, len, chan; } other[] = {
        { PLI_REC_CREDIT, 8, 1 }, { PLI_REC_ONEWAY, 7, 1 }, { PLI_REC_ONEWAY, 8, 2 },
    };
    uint32_t oneway = pli_rec_meta(PLI_REC_ONEWAY, 0, 0);
    const struct pli_shm_slot *slot;
    uint64_t v = 1, word0, w1;
    uint32_t meta;

    for (unsigned i = 0; i < 3; i++) {
        if (i)
            ring_close(&r);
        ring_open(&r, 64, 0);
        meta = pli_rec_meta(other[i].type, 0, 0);
        w1 = pli_rec_w1(other[i].len, other[i].chan, 0);
        cr_assert_not(pli_ring_tx_open_shared(&r.tx, oneway, pli_rec_w1(8, 1, 5), 0, &v));
        cr_assert(r.tx.pack && pli_ring_tx_alike(&r.tx, oneway, pli_rec_w1(8, 1, 6)));
        cr_assert_not(pli_ring_tx_share(&r.tx, oneway, pli_rec_w1(8, 1, 6), 0, &v, true));
        cr_assert_not(r.tx.pack && pli_ring_tx_alike(&r.tx, meta, w1));
        cr_assert(pli_ring_tx_open_shared(&r.tx, meta, w1, 0, &v));
        slot = pli_ring_rx_peek(&r.rx, &word0);
        cr_assert_not_null(slot);
        cr_assert_eq(ring_in_slot(slot), 2);
        cr_assert_eq(pli_w1_credit(slot->word1), 6);
        r.rx.pos++;
        cr_assert_null(pli_ring_rx_peek(&r.rx, &word0), "the second one waits");
        pli_ring_tx_flush(&r.tx);
        slot = pli_ring_rx_peek(&r.rx, &word0);
        cr_assert_not_null(slot);
        cr_assert_eq(pli_meta_type((uint32_t)(word0 >> 32)), other[i].type);
        cr_assert_eq(slot->word1, w1);
    }
}

Test(ring, shared_slot_across_the_end)
{
    ring_open(&r, 16, 13);
    make_payload(buf, 200, 9, 0);
    cr_assert(ring_put(&r, buf, 8, true));
    cr_assert(ring_empty(&r));
    cr_assert(ring_put(&r, buf, 200, true)); /* with a pad before it; takes the other with it */
    cr_assert(ring_get(&r, buf, 8));
    cr_assert(ring_get(&r, buf, 200));
    cr_assert(ring_empty(&r));
}

Test(ring, touch_destroys_nothing)
{
    for (uint32_t used = 0; used < 8; used++) {
        ring_open(&r, 8, 5);
        for (uint64_t i = 0; i < used; i++)
            put8(i);
        for (int again = 0; again < 3; again++)
            pli_ring_tx_touch(&r.tx);
        for (uint64_t i = 0; i < used; i++)
            get8(i);
        cr_assert(ring_empty(&r));
        if (used < 7)
            ring_close(&r);
    }
}

Test(ring, touch_while_reserved)
{
    ring_open(&r, 8, 0);
    r.tx.reserved = 1;
    r.at.limit = 0;
    r.slots[1].word0 = 77;
    pli_ring_tx_touch(&r.tx);
    cr_assert_eq(r.slots[1].word0, 77);
    cr_assert(pli_ring_tx_refresh(&r.tx));
    cr_assert_eq(r.at.limit, 0, "a look at the cursor lets sends pass a reservation");
}

Test(ring, dirty_map)
{
    ring_open(&r, 16, 0);
    make_payload(buf, 240, 0, 0);
    cr_assert(ring_put(&r, buf, 240, false)); /* 4 slots */
    for (uint32_t i = 0; i < 16; i++)
        cr_assert_eq(r.dirty[i], i >= 1 && i <= 3);
    cr_assert(ring_get(&r, buf, 240));
    pli_ring_rx_publish(&r.rx);
    for (uint64_t i = 0; i < 12; i++) {
        put8(i);
        get8(i);
    }
    pli_ring_rx_publish(&r.rx);
    put8(1); /* slot 0; the header behind it is made invalid */
    cr_assert_eq(r.dirty[1], 0);
    cr_assert_eq(r.slots[1].word0, 0);
    cr_assert_eq(r.dirty[2], 1);
    get8(1);
    pli_ring_tx_touch(&r.tx);
    cr_assert_eq(r.dirty[2], 0);
    cr_assert_eq(r.slots[2].word0, 0);
}

Test(ring, cursor_back_or_beyond)
{
    ring_open(&r, 8, 100);
    for (uint64_t i = 0; i < 5; i++)
        put8(i);
    for (uint64_t i = 0; i < 3; i++)
        get8(i);
    pli_ring_rx_publish(&r.rx);
    cr_assert(pli_ring_tx_refresh(&r.tx));
    cr_assert_eq(r.at.limit, 110);
    *r.cursor = 102;
    cr_assert_not(pli_ring_tx_refresh(&r.tx));
    *r.cursor = 106;
    cr_assert_not(pli_ring_tx_refresh(&r.tx));
    *r.cursor = UINT64_MAX;
    cr_assert_not(pli_ring_tx_refresh(&r.tx));
    *r.cursor = 0;
    cr_assert_not(pli_ring_tx_refresh(&r.tx));
    cr_assert_eq(r.at.limit, 110, "a bad cursor moved the limit");
    *r.cursor = 105;
    cr_assert(pli_ring_tx_refresh(&r.tx));
    cr_assert_eq(r.at.limit, 112);
}
