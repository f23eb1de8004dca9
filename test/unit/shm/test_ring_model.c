/* SPDX-License-Identifier: BSD-3-Clause */
/* Records held in place, the larger ring, and the ring against a simple queue. */
#include <criterion/criterion.h>

#include "ring_util.h"

static struct ring r;
static uint8_t buf[RING_PAYLOAD_MAX], other[RING_PAYLOAD_MAX];

static void fini(void)
{
    ring_close(&r);
}

TestSuite(ring_model, .fini = fini, .timeout = 60);

static uint32_t hold_next(uint64_t v)
{
    const uint8_t *data = NULL;
    uint32_t token;

    cr_assert_eq(ring_peek(&r, &data), 8);
    cr_assert_eq(memcmp(data, &v, 8), 0);
    cr_assert_eq(pli_ring_rx_hold(&r.rx, &token), 0);
    ring_next(&r);
    return token;
}

static void put_n(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        cr_assert(ring_put(&r, &i, 8, false));
}

/* Every order of releasing four records: the cursor never passes one that is held. */
Test(ring_model, holds_in_any_order)
{
    for (int order = 0; order < 256; order++) {
        int who[4] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 };
        uint32_t token[4], held = 0xf;

        if ((1 << who[0] | 1 << who[1] | 1 << who[2] | 1 << who[3]) != 0xf)
            continue;
        ring_open(&r, 32, (UINT64_C(1) << 32) - 2);
        r.rx.hold_head = r.rx.hold_tail = (uint32_t)-2; /* the counters wrap, too */
        put_n(6);
        for (uint64_t i = 0; i < 4; i++)
            token[i] = hold_next(i);
        cr_assert(ring_get(&r, &(uint64_t){ 4 }, 8));
        for (int i = 0; i < 4; i++) {
            uint64_t floor = (UINT64_C(1) << 32) - 2;

            pli_ring_rx_publish(&r.rx);
            floor += (uint64_t)__builtin_ctz(held);
            cr_assert_eq(*r.cursor, floor, "order %x", order);
            pli_ring_rx_release(&r.rx, token[who[i]]);
            held &= ~(1u << who[i]);
        }
        pli_ring_rx_publish(&r.rx);
        cr_assert_eq(*r.cursor, r.rx.pos);
        cr_assert_eq(r.rx.held_slots, 0);
        ring_close(&r);
    }
    ring_open(&r, 2, 0);
}

Test(ring_model, holds_a_quarter_at_most)
{
    const uint8_t *data;
    uint32_t token;

    ring_open(&r, 32, 0);
    put_n(20);
    for (uint64_t i = 0; i < 8; i++)
        hold_next(i);
    cr_assert_eq(ring_peek(&r, &data), 8);
    cr_assert_lt(pli_ring_rx_hold(&r.rx, &token), 0);
    ring_next(&r);
    pli_ring_rx_publish(&r.rx);
    cr_assert_eq(*r.cursor, 0);
}

/* A record far behind the oldest held one counts with everything between. */
Test(ring_model, holds_count_the_span)
{
    const uint8_t *data;
    uint32_t first, token;

    ring_open(&r, 32, 0);
    put_n(20);
    first = hold_next(0);
    for (uint64_t i = 1; i < 8; i++)
        cr_assert(ring_get(&r, &i, 8));
    cr_assert_eq(ring_peek(&r, &data), 8);
    cr_assert_lt(pli_ring_rx_hold(&r.rx, &token), 0);
    pli_ring_rx_release(&r.rx, first);
    cr_assert_eq(pli_ring_rx_hold(&r.rx, &token), 0);
}

Test(ring_model, holds_have_a_greatest_number)
{
    const uint8_t *data;
    uint32_t token;

    ring_open(&r, 1024, 0);
    put_n(PLI_RING_HOLDS + 1);
    for (uint64_t i = 0; i < PLI_RING_HOLDS; i++)
        token = hold_next(i);
    cr_assert_eq(ring_peek(&r, &data), 8);
    cr_assert_lt(pli_ring_rx_hold(&r.rx, &(uint32_t){ 0 }), 0);
    pli_ring_rx_release(&r.rx, token); /* not the oldest: it gives no place back */
    cr_assert_lt(pli_ring_rx_hold(&r.rx, &(uint32_t){ 0 }), 0);
}

static void give_big(uint32_t n)
{
    r.big = slots_new(n);
    r.big_dirty = calloc(n, 1);
    r.big_slots = n;
}

/* A switch with k records, one of them held, in the old ring. */
Test(ring_model, switch_keeps_the_order)
{
    for (uint64_t k = 0; k < 8; k++) {
        uint32_t token = 0;
        uint64_t start = (UINT64_C(1) << 32) - 4;

        ring_open(&r, 8, start);
        give_big(32);
        put_n(k);
        if (k == 7) {
            cr_assert_not(pli_ring_tx_switch(&r.tx, r.big, 32, r.big_dirty));
            cr_assert(ring_get(&r, &(uint64_t){ 0 }, 8));
            pli_ring_rx_publish(&r.rx);
            cr_assert(pli_ring_tx_refresh(&r.tx));
        }
        cr_assert(pli_ring_tx_switch(&r.tx, r.big, 32, r.big_dirty));
        for (uint64_t v = 100; v < 131; v++)
            cr_assert(ring_put(&r, &v, 8, false), "no room for %llu", (unsigned long long)v);
        cr_assert_null(ring_room(&r, 8));
        for (uint64_t v = k == 7; v < k; v++)
            if (v == 1)
                token = hold_next(v);
            else
                cr_assert(ring_get(&r, &v, 8));
        for (uint64_t v = 100; v < 110; v++)
            cr_assert(ring_get(&r, &v, 8));
        pli_ring_rx_publish(&r.rx);
        cr_assert_eq(!!ring_room(&r, 8), k < 2, "the new ring's places are counted from its base");
        if (k >= 2)
            pli_ring_rx_release(&r.rx, token);
        pli_ring_rx_publish(&r.rx);
        cr_assert_not_null(ring_room(&r, 8));
        for (uint64_t v = 110; v < 131; v++)
            cr_assert(ring_get(&r, &v, 8));
        cr_assert(ring_empty(&r));
        ring_close(&r);
    }
    ring_open(&r, 2, 0);
}

Test(ring_model, switch_publishes_a_batch)
{
    uint64_t v = 1;

    ring_open(&r, 8, 0);
    give_big(16);
    cr_assert(ring_put(&r, &v, 8, true));
    cr_assert(pli_ring_tx_switch(&r.tx, r.big, 16, r.big_dirty));
    cr_assert(ring_get(&r, &v, 8));
    cr_assert(ring_empty(&r));
}

/* ---- against a queue ---- */

#define QUEUE 4096u

static struct {
    uint32_t len[QUEUE];
    uint64_t pos[QUEUE]; /* what the payload was made with */
    uint64_t put, flushed, got;
} q;

static struct {
    uint32_t token;
    const uint8_t *data;
    uint64_t seq;
} held[PLI_RING_HOLDS];
static unsigned nheld;

static void model_put(struct pli_rand *rnd, uint32_t max)
{
    uint32_t len = random_len(rnd, max);
    bool more = pli_rand_below(rnd, 3) == 0;

    if (q.put - q.got == QUEUE)
        return;
    q.pos[q.put % QUEUE] = r.at.pos;
    make_payload(buf, len, q.put, r.at.pos);
    if (!ring_put(&r, buf, len, more)) {
        pli_ring_tx_flush(&r.tx);
        q.flushed = q.put;
        return;
    }
    q.len[q.put++ % QUEUE] = len;
    q.flushed = q.put - ring_waiting(&r);
}

static void check_payload(const uint8_t *data, uint64_t seq)
{
    make_payload(other, q.len[seq % QUEUE], seq, q.pos[seq % QUEUE]);
    cr_assert_eq(memcmp(data, other, q.len[seq % QUEUE]), 0, "record %llu is damaged", (unsigned long long)seq);
}

static void model_get(struct pli_rand *rnd)
{
    const uint8_t *data;
    int n = ring_peek(&r, &data);

    if (n < 0) {
        cr_assert_eq(q.got, q.flushed, "record %llu does not come", (unsigned long long)q.got);
        return;
    }
    cr_assert_lt(q.got, q.flushed, "a record that was never published");
    cr_assert_eq((uint32_t)n, q.len[q.got % QUEUE]);
    check_payload(data, q.got);
    if (pli_rand_below(rnd, 8) == 0 && q.got + QUEUE / 2 > q.put &&
        pli_ring_rx_hold(&r.rx, &held[nheld].token) == 0) {
        held[nheld].data = data;
        held[nheld++].seq = q.got;
    }
    q.got++;
    ring_next(&r);
}

static void model_release(struct pli_rand *rnd)
{
    unsigned i;

    if (!nheld)
        return;
    i = (unsigned)pli_rand_below(rnd, nheld);
    check_payload(held[i].data, held[i].seq);
    pli_ring_rx_release(&r.rx, held[i].token);
    held[i] = held[--nheld];
}

static void model_step(struct pli_rand *rnd, uint32_t max)
{
    switch (pli_rand_below(rnd, 10)) {
    case 0: case 1: case 2:
        model_put(rnd, max);
        break;
    case 3: case 4: case 5:
        model_get(rnd);
        break;
    case 6:
        pli_ring_rx_publish(&r.rx);
        break;
    case 7:
        model_release(rnd);
        break;
    case 8:
        pli_ring_tx_touch(&r.tx);
        break;
    default:
        pli_ring_tx_flush(&r.tx);
        q.flushed = q.put;
    }
}

static void model_run(uint32_t nslots, uint64_t start, uint64_t seed, int steps)
{
    uint32_t max = ring_quarter(nslots);
    struct pli_rand rnd;

    pli_rand_seed(&rnd, seed);
    memset(&q, 0, sizeof q);
    nheld = 0;
    ring_open(&r, nslots, start);
    give_big(nslots * 2);
    for (int i = 0; i < steps; i++) {
        model_step(&rnd, max);
        if (i >= steps / 2 && r.tx.slots == r.slots)
            pli_ring_tx_switch(&r.tx, r.big, nslots * 2, r.big_dirty);
        q.flushed = q.put - ring_waiting(&r);
    }
    pli_ring_tx_flush(&r.tx);
    q.flushed = q.put;
    while (q.got < q.put)
        model_get(&rnd);
    cr_assert(ring_empty(&r));
    while (nheld)
        model_release(&rnd);
    pli_ring_rx_publish(&r.rx);
    cr_assert_gt(q.put, (uint64_t)steps / 50, "the model came to a standstill");
    cr_assert(pli_ring_tx_refresh(&r.tx));
    cr_assert_eq(r.tx.seen_cursor, r.at.pos);
    ring_close(&r);
}

Test(ring_model, random)
{
    for (uint32_t n = PLI_SHM_MIN_SLOTS; n <= 1024; n *= 2) {
        model_run(n, 0, n, 15000);
        model_run(n, (UINT64_C(1) << 32) - 500, n + 1, 15000);
        model_run(n, UINT64_MAX - (1u << 24), n + 2, 5000);
    }
    ring_open(&r, 2, 0);
}
