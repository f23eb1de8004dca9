/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of transport.h for long records, which a transport may take once a link has carried many parts of long messages. */
#include "each.h"

TestSuite(transport, .timeout = 60);

static uint8_t long_data[300000];
static uint32_t long_len, long_hdr;

static int check_long(struct end *e, uint32_t meta, uint64_t w1, const uint8_t *p)
{
    e->got++;
    if (pli_w1_len(w1) != long_len || pli_meta_hdr_len(meta) != long_hdr || (uintptr_t)p % 8)
        e->trouble = "a long record's lengths";
    if (meta & PLI_RF_COOKIE << 8) {
        if (memcmp(p, "cookie!", 8) != 0)
            e->trouble = "a long record's cookie";
        p += 8;
    }
    if (memcmp(p, long_data, long_hdr) != 0 || memcmp(p + long_hdr, long_data + 7, long_len) != 0)
        e->trouble = "a long record's content";
    return 0;
}

/* A transport may take longer records once a link has carried many parts of long messages. */
static uint32_t widen(const struct pli_tr_ops *ops)
{
    uint32_t max = ops->max_payload(a.tr), was = max;

    for (uint32_t i = 0; i < sizeof long_data; i++)
        long_data[i] = (uint8_t)(i * 31 + (i >> 8));
    b.on_rx = take_anything;
    for (int i = 0; i < 1000 && ops->max_payload(a.tr) == was; i++) {
        cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_FRAG, 0, 0), pli_rec_w1(max, 1, 2), 0, long_data, NULL, false), 0);
        arrive(&b, b.got + 1);
        drain(&a);
    }
    b.on_rx = check_long;
    return ops->max_payload(a.tr);
}

/* Long records are unread: where that is known, it is told before there is no space left, and as soon as they have been read it is no more so. */
EACH(ops, behind_while_long_ones_are_unread)
{
    uint32_t meta = pli_rec_meta(PLI_REC_FRAG, 0, 0), lens[2];
    unsigned sent;

    if (!ops->behind)
        return;
    cr_assert(!ops->behind(a.tr));
    lens[0] = widen(ops);
    lens[1] = 2048;
    b.on_rx = take_anything;
    for (int round = 0; round < 200; round++) {
        cr_assert(!ops->behind(a.tr), "all has been read");
        for (int i = 0; i < 5; i++) /* short ones do not count */
            cr_assert_eq(ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(8, 1, 2), 0, long_data, NULL, false), 0);
        cr_assert(!ops->behind(a.tr));
        for (sent = 0; !ops->behind(a.tr); sent++)
            cr_assert_eq(ops->send(a.tr, meta, pli_rec_w1(lens[round % 2], 1, 2), 0, long_data, NULL, false), 0, "no space, and nothing is behind");
        cr_assert_gt(sent, 0);
        for (unsigned i = 0; i < round % 3u; i++) /* it is a hint: they can be sent all the same */
            cr_assert_eq(ops->send(a.tr, meta, pli_rec_w1(2048, 1, 2), 0, long_data, NULL, false), 0);
        while (ops->behind(a.tr)) /* no poll of the sender's is needed */
            cr_assert_gt(ops->poll(b.tr, 1), 0, "all has been read, and it is still behind");
        drain(&b);
        drain(&a);
    }
    a.sent = b.got;
    b.on_rx = NULL;
}

static int send_one_long(const struct pli_tr_ops *ops, uint32_t len, bool cookie, uint32_t hdr_len)
{
    uint64_t word;

    memcpy(&word, "cookie!", 8);
    long_len = len;
    long_hdr = hdr_len;
    return ops->send(a.tr, pli_rec_meta(PLI_REC_ONEWAY, cookie ? PLI_RF_COOKIE : 0, hdr_len), pli_rec_w1(len, 1, 2), word, long_data + 7,
                     long_data, false);
}

EACH(ops, long_records)
{
    uint32_t max = widen(ops), lens[] = { 4000, 6127, 6128, 6129, 8192, 65536, 100001, max / 2, max - 1100, max - 1032 };

    for (int round = 0; round < 3; round++)
        for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++)
            for (uint32_t kind = 0; kind < 4; kind++) {
                uint64_t before = b.got;

                if (lens[i] + 1032 > max || lens[i] > sizeof long_data - 7)
                    continue;
                cr_assert_eq(send_one_long(ops, lens[i], kind & 1, kind & 2 ? 1024 : 0), 0, "%u bytes: %s", lens[i], plait_error_text());
                arrive(&b, before + 1);
                cr_assert_null(b.trouble, "%s: %u bytes", b.trouble, lens[i]);
                drain(&a);
            }
    cr_assert_eq(send_one_long(ops, max, false, 0), 0);
    arrive(&b, b.got + 1);
    cr_assert_eq(send_one_long(ops, max + 1, false, 0), PLAIT_E_TOOBIG);
    cr_assert_eq(send_one_long(ops, max - 7, true, 0), PLAIT_E_TOOBIG);
    cr_assert_eq(send_one_long(ops, UINT32_MAX, true, 1024), PLAIT_E_TOOBIG);
    cr_assert_null(b.trouble, "%s", b.trouble);
    b.on_rx = NULL;
    b.got = a.sent;
}

/* Long and short ones, of every length, until nothing fits; the receiver now a step behind, now far. */
EACH(ops, long_records_fill_and_drain)
{
    uint32_t max = widen(ops), sent = 0, in_vain = 0;
    struct pli_rand rnd;

    pli_rand_seed(&rnd, 4711);
    b.on_rx = take_anything;
    b.got = 0;
    for (int round = 0; round < 400; round++) {
        uint64_t before = a.writable;

        while (send_one_long(ops, (uint32_t)pli_rand_below(&rnd, pli_rand_below(&rnd, 2) || max < 9000 ? max : 9000) + 1, false, 0) == 0) {
            sent++;
            in_vain = 0;
        }
        cr_assert_leq(++in_vain, 2, "told that there is space, but there is none");
        for (int k = 0; k < 20000 && a.writable == before; k++) {
            end_poll(&a);
            if (a.writable == before && (k || round % 3))
                ops->poll(b.tr, round % 2 ? 1 : 64);
        }
        cr_assert_eq(a.writable, before + 1, "never told that there is space");
    }
    arrive(&b, sent);
    b.on_rx = NULL;
    b.got = a.sent;
}

/* What the receiver holds in place of small records does not keep the long ones' space from the sender. */
EACH(ops, long_records_beside_a_held_one)
{
    uint32_t max = widen(ops), sent = 0;
    uint32_t token;

    b.on_rx = take_anything;
    b.got = 0;
    b.hold_next = true;
    cr_assert_eq(send_one_long(ops, 8, false, 0), 0);
    arrive(&b, 1);
    cr_assert_eq(b.hold_rc, 0);
    token = b.token;
    b.hold_next = false;
    for (int round = 0; round < 200; round++) {
        uint64_t before = a.writable;

        if (send_one_long(ops, max, false, 0) == 0) {
            sent++;
            continue;
        }
        UNTIL(a.writable > before);
        cr_assert_eq(a.writable, before + 1, "no space comes back after %u long records", sent);
    }
    cr_assert_gt(sent, 50);
    ops->release(b.tr, token);
    arrive(&b, sent + 1);
    b.on_rx = NULL;
    b.got = a.sent;
}

EACH(ops, long_reservations)
{
    uint32_t max = widen(ops);
    void *data;

    for (int round = 0; round < 50; round++) {
        uint64_t before = b.got;

        long_len = max - 8 - (uint32_t)round * 1000 % (max / 2);
        long_hdr = 0;
        cr_assert_eq(ops->reserve(a.tr, true, max - 8, &data), 0, "%s", plait_error_text());
        cr_assert_eq(send_one_long(ops, 100, false, 0), PLAIT_E_BUSY);
        if (round % 5 == 0) {
            ops->abandon(a.tr);
            drain(&b);
            cr_assert_eq(b.got, before);
            continue;
        }
        memcpy(data, long_data + 7, long_len);
        {
            uint64_t word;

            memcpy(&word, "cookie!", 8);
            ops->commit(a.tr, pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 0), pli_rec_w1(long_len, 1, 2), word, false);
        }
        arrive(&b, before + 1);
        cr_assert_null(b.trouble, "%s", b.trouble);
        drain(&a);
    }
    cr_assert_eq(ops->reserve(a.tr, true, max - 7, &data), PLAIT_E_TOOBIG);
    b.on_rx = NULL;
    b.got = a.sent;
}
