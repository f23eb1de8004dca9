/* SPDX-License-Identifier: BSD-3-Clause */
/* A peer that has a proper connection and sends what it likes on it: that link fails with a sentence that says why, another link of the same
 * context goes on, and nothing crashes, spins or leaks. */
#include "ofi_util.h"

TestSuite(ofi_hostile, .timeout = 120);

static struct side victim, other, friend, foe;
static int fds_before;

static void set_up(void)
{
    fds_before = count_fds();
    side_create(&victim, NULL);
    side_create(&other, &victim);
    side_create(&friend, NULL);
    side_create(&foe, NULL);
    sides_meet(&friend, &other);
    sides_meet(&foe, &victim);
    sides_talk(&friend, &other);
}

static void tear_down(void)
{
    sides_talk(&friend, &other); /* unharmed */
    side_destroy(&victim);
    sides_talk(&friend, &other);
    side_destroy(&other);
    side_destroy(&friend);
    side_destroy(&foe);
    side_close_hub(&victim);
    side_close_hub(&friend);
    side_close_hub(&foe);
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* A proper packet of so many records with 8 bytes each, to be spoiled. */
struct raw {
    uint8_t bytes[PLI_OFI_BIG + 1024];
    uint32_t len; /* sent */
};

static struct pli_ofi_head *head(struct raw *r)
{
    return (struct pli_ofi_head *)(void *)r->bytes;
}

static void put_tail(struct raw *r, uint32_t end)
{
    uint64_t tail = pli_ofi_tail(head(r)->tag, head(r)->number);

    memcpy(r->bytes + end - 8, &tail, 8);
}

static void make(struct raw *r, uint32_t records)
{
    const struct pli_ofi_link *l = side_link(&foe);

    memset(r, 0, sizeof *r);
    r->len = (uint32_t)sizeof(struct pli_ofi_head) + 24 * records + 8;
    *head(r) = (struct pli_ofi_head){
        .magic = PLI_OFI_MAGIC, .records = (uint16_t)records, .tag = l->peer_tag, .link = l->peer_id, .grant = l->rx_posted,
        .big_from = l->rx_big_from, .number = l->tx_next, .len = r->len,
    };
    for (uint32_t i = 0; i < records; i++) {
        uint64_t words[2] = { (uint64_t)pli_rec_meta(PLI_REC_ONEWAY, 0, 0) << 32, pli_rec_w1(8, 0, 0) };

        memcpy(r->bytes + sizeof(struct pli_ofi_head) + 24 * i, words, sizeof words);
    }
    put_tail(r, r->len);
}

/* Hands it to the provider as a packet, whatever it is. */
static void send_raw(const struct raw *r)
{
    struct pli_ofi_link *l = side_link(&foe);
    struct pli_ofi_buf *b = NULL;
    struct iovec iov;
    struct fi_msg msg = { .msg_iov = &iov, .iov_count = 1, .addr = FI_ADDR_UNSPEC };
    uint64_t until = pli_clock_now() + SOON_NS;
    ssize_t rc;

    b = pli_ofi_buf_get(l->dev, r->len <= PLI_OFI_BIG);
    cr_assert_not_null(b);
    memcpy(b->mem, r->bytes, r->len <= PLI_OFI_BIG ? r->len : PLI_OFI_SMALL);
    iov.iov_base = r->len <= PLI_OFI_BIG ? b->mem : (void *)(uintptr_t)r->bytes;
    iov.iov_len = r->len;
    msg.desc = &b->desc;
    msg.context = &b->ctx;
    b->link = l;
    b->op = PLI_OFI_TX;
    pli_list_push_back(&l->ops, &b->node);
    l->tx_flight++;
    do {
        rc = fi_sendmsg(l->ep, &msg, FI_COMPLETION);
        side_poll(&foe);
    } while (rc == -FI_EAGAIN && pli_clock_now() < until);
    cr_assert_eq(rc, 0, "%s", pli_fi_lib()->strerror((int)-rc));
    l->tx_next++;
}

static void expect(int code, const char *word)
{
    uint64_t got = victim.got;

    SIDES_UNTIL(&victim, &foe, victim.failed);
    cr_assert_eq(victim.code, code, "%d %s", victim.code, victim.text);
    cr_assert_not_null(strstr(victim.text, word), "'%s' does not say '%s'", victim.text, word);
    cr_assert_not_null(strstr(victim.text, "provider tcp"), "%s", victim.text);
    for (unsigned i = 0; i < 50; i++)
        side_poll(&victim);
    cr_assert_eq(victim.failed, 1, "it is told twice");
    cr_assert_leq(victim.got, got + 2);
}

/* Spoils a packet with one record. */
#define HEAD(name, field, value, word)                                                     \
    static void name(void)                                                                 \
    {                                                                                      \
        static struct raw r;                                                               \
        struct pli_ofi_head *h = head(&r);                                                 \
        set_up();                                                                          \
        make(&r, 1);                                                                       \
        h->field = (value);                                                                \
        put_tail(&r, r.len);                                                               \
        send_raw(&r);                                                                      \
        make(&r, 1);                                                                       \
        send_raw(&r);                                                                      \
        expect(PLAIT_E_PROTO, word);                                                       \
        tear_down();                                                                       \
    }

HEAD(wrong_magic, magic, 0x6b62, "magic")
HEAD(no_magic, magic, 0, "magic")
HEAD(wrong_tag, tag, h->tag + 1, "tag")
HEAD(no_tag, tag, 0, "tag")
HEAD(wrong_link, link, h->link + 1, "link")
HEAD(link_of_another, link, side_link(&other)->id, "link")
HEAD(number_skipped, number, h->number + 1, "number")
HEAD(number_repeated, number, h->number - 1, "number")
HEAD(grant_back, grant, h->grant - 1, "grant")
HEAD(grant_far_ahead, grant, h->grant + 2000, "grant")
HEAD(grant_zero, grant, 0, "grant")
HEAD(len_zero, len, 0, "len")
HEAD(len_tiny, len, 39, "len")
HEAD(len_less, len, h->len - 8, "len")
HEAD(len_more, len, h->len + 8, "len")
HEAD(len_more_than_a_buffer, len, PLI_OFI_SMALL + 8, "len")
HEAD(len_huge, len, UINT32_MAX, "len")
HEAD(a_record_too_few, records, 0, "record")
HEAD(a_record_too_many, records, 2, "record")
HEAD(most_records, records, UINT16_MAX, "record")

/* One program for all: each first use of libfabric takes a third of a second. */
Test(ofi_hostile, each_field)
{
    static void (*const all[])(void) = {
        wrong_magic, no_magic, wrong_tag, no_tag, wrong_link, link_of_another, number_skipped,
        number_repeated, grant_back, grant_far_ahead, grant_zero, len_zero, len_tiny, len_less, len_more,
        len_more_than_a_buffer, len_huge, a_record_too_few, a_record_too_many, most_records,
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]();
}

Test(ofi_hostile, big_from_changes)
{
    static struct raw r;

    set_up();
    make(&r, 1);
    head(&r)->big_from = 1000;
    send_raw(&r);
    SIDES_UNTIL(&victim, &foe, victim.got == 1);
    make(&r, 1);
    head(&r)->big_from = 1001;
    send_raw(&r);
    expect(PLAIT_E_PROTO, "big_from");
    tear_down();
}

/* Buffers that it says are large, and are not: it harms itself. */
Test(ofi_hostile, big_from_is_not_true)
{
    static struct raw r;

    set_up();
    make(&r, 1);
    head(&r)->big_from = side_link(&victim)->tx_next;
    send_raw(&r);
    SIDES_UNTIL(&victim, &foe, victim.got == 1);
    SIDES_UNTIL(&victim, &foe, side_send(&victim, 60000) == 0);
    SIDES_UNTIL(&victim, &foe, victim.failed && foe.failed);
    tear_down();
}

/* The record says more than there is. */
static void spoil_record(uint32_t meta, uint64_t w1, uint64_t delivered)
{
    static struct raw r;
    uint64_t words[2] = { (uint64_t)meta << 32, w1 };

    set_up();
    make(&r, 2);
    memcpy(r.bytes + sizeof(struct pli_ofi_head) + 24, words, sizeof words);
    send_raw(&r);
    expect(PLAIT_E_PROTO, "record");
    cr_assert_eq(victim.got, delivered);
    tear_down();
}

Test(ofi_hostile, a_record_longer_than_its_packet)
{
    spoil_record(pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(9, 0, 0), 1);
}

Test(ofi_hostile, a_record_longer_than_all_memory)
{
    spoil_record(pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 255), UINT64_MAX, 1);
}

Test(ofi_hostile, a_header_part_longer_than_its_packet)
{
    spoil_record(pli_rec_meta(PLI_REC_ONEWAY, 0, 200), pli_rec_w1(0, 0, 0), 1);
}

Test(ofi_hostile, a_cookie_too_much)
{
    spoil_record(pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 0), pli_rec_w1(8, 0, 0), 1);
}

Test(ofi_hostile, a_record_shorter_than_its_packet)
{
    spoil_record(pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(0, 0, 0), 2);
}

Test(ofi_hostile, trailing_bytes)
{
    static struct raw r;

    set_up();
    make(&r, 1);
    r.len += 16;
    head(&r)->len = r.len;
    put_tail(&r, r.len);
    send_raw(&r);
    expect(PLAIT_E_PROTO, "records");
    tear_down();
}

/* Bytes that the head does not count. */
Test(ofi_hostile, longer_than_its_head_says)
{
    static struct raw r;

    set_up();
    make(&r, 1);
    r.len += 16;
    send_raw(&r);
    SIDES_UNTIL(&victim, &foe, victim.got == 1); /* nobody looks at what is behind the tail, and it is in no record */
    tear_down();
}

Test(ofi_hostile, wrong_tail)
{
    static struct raw r;

    set_up();
    make(&r, 1);
    r.bytes[r.len - 1]++;
    send_raw(&r);
    make(&r, 1);
    send_raw(&r);
    expect(PLAIT_E_PROTO, "tail");
    tear_down();
}

/* Shorter than a head, down to nothing. */
Test(ofi_hostile, short_packets)
{
    static const uint32_t lens[] = { 1, 3, 24, 27, 31, 32, 39 };

    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        static struct raw r;

        set_up();
        make(&r, 0);
        r.len = lens[i];
        send_raw(&r);
        make(&r, 1);
        send_raw(&r);
        expect(PLAIT_E_PROTO, "len");
        tear_down();
    }
}

Test(ofi_hostile, a_packet_longer_than_the_buffer)
{
    static const uint32_t more[] = { 8, PLI_OFI_SMALL, PLI_OFI_BIG - PLI_OFI_SMALL, PLI_OFI_BIG - PLI_OFI_SMALL + 1000 };

    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        static struct raw r;

        set_up();
        make(&r, 1);
        r.len = PLI_OFI_SMALL + more[i];
        head(&r)->len = r.len;
        put_tail(&r, r.len);
        send_raw(&r);
        SIDES_UNTIL(&victim, &foe, victim.failed);
        cr_assert(victim.code == PLAIT_E_PROTO || victim.code == PLAIT_E_PEERDIED, "%d %s", victim.code, victim.text);
        cr_assert_not_null(strstr(victim.text, "provider tcp"), "%s", victim.text);
        tear_down();
    }
}

/* More than it may: all buffers are used up, the rest waits in the socket, and whoever reads goes on reading. */
Test(ofi_hostile, more_packets_than_granted)
{
    static struct raw r;

    set_up();
    for (unsigned i = 0; i < 200; i++) {
        make(&r, 1);
        send_raw(&r);
        if (i % 10 == 0)
            side_poll(&foe);
    }
    SIDES_UNTIL(&victim, &foe, victim.got == 200 || victim.failed);
    tear_down();
}

/* Packets without records: they are answered now and then, not each of them. */
Test(ofi_hostile, grants_without_end)
{
    static struct raw r;
    uint32_t before;

    set_up();
    before = side_link(&victim)->tx_next;
    for (unsigned i = 0; i < 100; i++) {
        make(&r, 0);
        send_raw(&r);
        SIDES_UNTIL(&victim, &foe, side_link(&victim)->rx_read == side_link(&foe)->tx_next);
    }
    cr_assert_eq(victim.failed, 0, "%s", victim.text);
    cr_assert_leq(side_link(&victim)->tx_next - before, 60);
    tear_down();
}

/* Anything at all. */
Test(ofi_hostile, noise)
{
    unsigned rounds = getenv("PLAIT_TEST_QUICK") ? 10 : 40;

    for (unsigned i = 0; i < rounds; i++) {
        static struct raw r;
        uint64_t until;

        srandom(i);
        set_up();
        for (unsigned n = 0; n < 8; n++) {
            make(&r, (uint32_t)random() % 5);
            for (unsigned k = 0; k < 1 + i % 4; k++)
                r.bytes[random() % (i % 2 ? 32 : (long)r.len)] = (uint8_t)random();
            send_raw(&r);
        }
        until = pli_clock_now() + 20 * PLI_NS_PER_MS;
        while (!victim.failed && pli_clock_now() < until) {
            side_poll(&victim);
            side_poll(&foe);
        }
        tear_down();
    }
}
