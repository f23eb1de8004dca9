/* SPDX-License-Identifier: BSD-3-Clause */
/* Packets and descriptions as bytes: the layout that both sides agree on, and the record parser at its corners. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "fabric/packet.h"
#include "util/rand.h"

TestSuite(packet, .timeout = 60);

#define AT ((uint32_t)sizeof(struct pli_ofi_head))

/* The whole packet in memory of exactly its length: a sanitizer sees who reads beyond. */
static int parse(uint32_t len, uint32_t at, uint32_t meta, uint64_t w1, uint32_t *next)
{
    uint8_t *p = calloc(1, len ? len : 1);
    uint64_t w0 = (uint64_t)meta << 32, w1_out = 0;
    uint32_t meta_out = 0;
    int ok;

    if (at <= len && len - at >= 16) {
        memcpy(p + at, &w0, 8);
        memcpy(p + at + 8, &w1, 8);
    }
    ok = pli_ofi_rec_parse(p, len, at, &meta_out, &w1_out, next);
    if (ok) {
        cr_assert_eq(meta_out, meta);
        cr_assert_eq(w1_out, w1);
    }
    free(p);
    return ok;
}

static uint32_t plain(void)
{
    return pli_rec_meta(PLI_REC_ONEWAY, 0, 0);
}

Test(packet, layout)
{
    struct pli_ofi_head h = { 0x1122, 0x3344, 0x55667788, 0x99aabbcc, 0x01020304, 0x05060708, 0x0a0b0c0d, 0x0e0f1011, 0 };
    static const uint8_t bytes[32] = { 0x22, 0x11, 0x44, 0x33, 0x88, 0x77, 0x66, 0x55, 0xcc, 0xbb, 0xaa, 0x99, 4, 3, 2, 1, 8, 7, 6, 5,
                                       0x0d, 0x0c, 0x0b, 0x0a, 0x11, 0x10, 0x0f, 0x0e };

    cr_assert_eq(memcmp(&h, bytes, sizeof bytes), 0);
    cr_assert_eq(pli_ofi_tail(0x11223344, 0x55667788), UINT64_C(0x1122334455667788));
    cr_assert_eq(offsetof(struct pli_ofi_desc, link), 8);
    cr_assert_eq(offsetof(struct pli_ofi_desc, token), 16);
    cr_assert_eq(offsetof(struct pli_ofi_desc, provider), 40);
    cr_assert_eq(offsetof(struct pli_ofi_desc, small), 136);
}

Test(packet, a_record_of_the_largest_payload_fills_a_packet)
{
    static const uint32_t sizes[] = { PLI_OFI_SMALL, PLI_OFI_BIG };

    for (unsigned i = 0; i < 2; i++) {
        uint32_t size = sizes[i], max = pli_ofi_payload_max(sizes[i]), end = size - PLI_OFI_TAIL, next;

        cr_assert_eq(AT + pli_ofi_rec_size(max) + PLI_OFI_TAIL, size);
        cr_assert(parse(end, AT, plain(), pli_rec_w1(max, 1, 2), &next));
        cr_assert_eq(next, end);
        cr_assert_not(parse(end, AT, plain(), pli_rec_w1(max + 1, 1, 2), &next));
    }
}

Test(packet, sizes_are_multiples_of_8)
{
    cr_assert_eq(pli_ofi_rec_size(0), 16);
    cr_assert_eq(pli_ofi_rec_size(1), 24);
    cr_assert_eq(pli_ofi_rec_size(8), 24);
    cr_assert_eq(pli_ofi_rec_size(9), 32);
    cr_assert_eq(pli_ofi_rec_size(UINT32_MAX), (UINT64_C(1) << 32) + 16);
}

Test(packet, a_record_ends_with_its_packet_or_before)
{
    uint32_t next;

    for (uint32_t payload = 0; payload < 40; payload++) {
        uint32_t size = (uint32_t)pli_ofi_rec_size(payload);

        for (uint32_t len = AT; len < AT + size + 20; len++) {
            int ok = parse(len, AT, plain(), pli_rec_w1(payload, 0, 0), &next);

            cr_assert_eq(ok, len >= AT + size, "%u bytes in a packet of %u", payload, len);
            if (ok)
                cr_assert_eq(next, AT + size);
        }
    }
}

Test(packet, the_cookie_and_the_header_part_count)
{
    uint32_t next, meta = pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 200);

    cr_assert(parse(AT + 16 + 8 + 200 + 16, AT, meta, pli_rec_w1(9, 0, 0), &next));
    cr_assert_eq(next, AT + 16 + 224);
    cr_assert_not(parse(AT + 16 + 8 + 200 + 8, AT, meta, pli_rec_w1(9, 0, 0), &next));
}

Test(packet, an_offset_beyond_the_packet_is_refused)
{
    uint32_t next;

    cr_assert_not(parse(100, 101, plain(), 0, &next));
    cr_assert_not(parse(100, UINT32_MAX, plain(), 0, &next));
    cr_assert_not(parse(100, 85, plain(), 0, &next));
    cr_assert(parse(100, 84, plain(), pli_rec_w1(0, 0, 0), &next));
    cr_assert_not(parse(0, 0, plain(), 0, &next));
}

/* Nothing that the two words may say leads out of the packet. */
Test(packet, any_words)
{
    struct pli_rand rnd;

    pli_rand_seed(&rnd, 1);
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t len = (uint32_t)pli_rand_below(&rnd, 5000), at = (uint32_t)pli_rand_below(&rnd, 5100), next = 0;
        uint32_t meta = (uint32_t)pli_rand_next(&rnd);
        uint64_t w1 = pli_rand_next(&rnd);

        if (i % 2)
            w1 = pli_rec_w1((uint32_t)pli_rand_below(&rnd, 5000), 0, 0);
        if (parse(len, at, meta, w1, &next)) {
            cr_assert_leq(next, len);
            cr_assert_geq(next, at + 16);
            cr_assert_geq((uint64_t)next - at - 16, pli_rec_payload(meta, w1));
        }
    }
}
