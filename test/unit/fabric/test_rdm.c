/* SPDX-License-Identifier: BSD-3-Clause */
/* Endpoints of reliable datagrams: one endpoint serves all links of a device. A stranger's packet is dropped, a wrong one of a peer ends that
 * peer's link, packets may come in any order, and the shared buffers are always as many as peers have been promised. */
#include "ofi_util.h"

#define PROVIDER "tcp;ofi_rxm"

TestSuite(ofi_rdm, .timeout = 120);

/* victim and other share a hub, and so an endpoint. */
static struct side victim, other, friend, foe;
static int fds_before;

static void set_up(void)
{
    setenv("PLAIT_PROVIDER", PROVIDER, 1);
    fds_before = count_fds();
    side_create(&victim, NULL);
    side_create(&other, &victim);
    side_create(&friend, NULL);
    side_create(&foe, NULL);
    sides_meet(&friend, &other);
    sides_meet(&foe, &victim);
    sides_talk(&friend, &other);
    sides_talk(&foe, &victim);
}

static struct pli_ofi_dev *dev(void)
{
    return side_link(&other)->dev;
}

/* Each packet that may come has a buffer. */
static void check_buffers(void)
{
    struct pli_list *node;
    uint32_t promised = 0;

    pli_list_foreach(node, &dev()->hub->links) {
        const struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        promised += l->ep ? l->rx_posted - l->rx_arrived : 0;
    }
    cr_assert_eq(dev()->rx_promised, promised);
    cr_assert_geq(dev()->rx_posted, promised);
    cr_assert_leq(promised, dev()->rx_windows);
}

static void tear_down(void)
{
    sides_talk(&friend, &other); /* unharmed */
    check_buffers();
    side_destroy(&victim);
    sides_talk(&friend, &other);
    check_buffers();
    side_destroy(&other);
    side_destroy(&friend);
    side_destroy(&foe);
    side_close_hub(&victim);
    side_close_hub(&friend);
    side_close_hub(&foe);
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* A packet of the foe with one record, to be spoiled. */
static struct raw {
    struct pli_ofi_head h;
    uint64_t words[3], tail;
} raw;

static void make(void)
{
    const struct pli_ofi_link *l = side_link(&foe);

    memset(&raw, 0, sizeof raw);
    raw.h = (struct pli_ofi_head){
        .magic = PLI_OFI_MAGIC, .records = 1, .tag = l->peer_tag, .link = l->peer_id, .grant = l->rx_posted,
        .big_from = l->rx_big_from, .number = l->tx_next, .len = sizeof raw,
    };
    raw.words[0] = (uint64_t)pli_rec_meta(PLI_REC_ONEWAY, 0, 0) << 32;
    raw.words[1] = pli_rec_w1(8, 0, 0);
    raw.tail = pli_ofi_tail(raw.h.tag, raw.h.number);
}

/* Hands these bytes to the provider as a packet to the victim. They stay with it. */
static void send_bytes(const void *bytes, size_t len)
{
    static struct pli_ofi_buf own[1000]; /* free ones, whose completions are passed over */
    static unsigned next;
    struct pli_ofi_link *l = side_link(&foe);
    struct pli_ofi_buf *b = &own[next++ % 1000];
    uint64_t until = pli_clock_now() + SOON_NS;
    ssize_t rc;

    do {
        side_poll(&foe);
        side_poll(&victim);
        rc = len <= l->dev->info->tx_attr->inject_size ? fi_inject(l->ep, bytes, len, l->peer_addr)
                                                       : fi_send(l->ep, bytes, len, NULL, l->peer_addr, &b->ctx);
    } while (rc == -FI_EAGAIN && pli_clock_now() < until);
    cr_assert_eq(rc, 0, "%s", pli_fi_lib()->strerror((int)-rc));
}

static void send_raw(void)
{
    static struct raw sent[256]; /* injected or not, it stays as it is */
    static unsigned next;

    sent[next % 256] = raw;
    send_bytes(&sent[next++ % 256], sizeof raw);
}

/* ---- packets that are for nobody ---- */

/* Nothing ends, and what goes to the victim properly still comes. */
static void is_dropped(uint64_t packets)
{
    uint64_t before = dev()->strangers;

    if (packets) {
        SIDES_UNTIL(&foe, &victim, dev()->strangers >= packets);
        before = dev()->strangers;
    }
    sides_talk(&foe, &victim);
    cr_assert_eq(dev()->strangers, before);
    check_buffers();
}

#define DROPPED(name, change)                                                              \
    static void name(void)                                                                 \
    {                                                                                      \
        uint64_t before = dev()->strangers;                                                \
        make();                                                                            \
        change;                                                                            \
        send_raw();                                                                        \
        is_dropped(before + 1);                                                            \
    }

DROPPED(wrong_magic, raw.h.magic++)
DROPPED(wrong_tag, raw.h.tag++)
DROPPED(no_tag, raw.h.tag = 0)
DROPPED(wrong_link, raw.h.link++)
DROPPED(link_of_another, raw.h.link = side_link(&other)->id)
DROPPED(tag_of_another, raw.h.tag = side_link(&other)->tag)

Test(ofi_rdm, packets_for_nobody)
{
    static uint8_t noise[PLI_OFI_SMALL];
    uint64_t before;

    set_up();
    wrong_magic();
    wrong_tag();
    no_tag();
    wrong_link();
    link_of_another();
    tag_of_another();
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * 37 >> 3);
    for (size_t len = 0; len <= sizeof noise; len += len < 50 ? 1 : 353) { /* more of them than there are buffers */
        before = dev()->strangers;
        send_bytes(noise, len);
        is_dropped(before + 1);
    }
    tear_down();
}

/* Longer than any buffer: the provider says so, or the sender waits for ever. The others' buffers are all there. */
Test(ofi_rdm, packets_that_are_too_long)
{
    static uint8_t bytes[300000];
    static const size_t lens[] = { PLI_OFI_SMALL + 1, 2 * PLI_OFI_SMALL, 16000, 20000, 100000, sizeof bytes };

    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        set_up();
        make();
        memcpy(bytes, &raw, sizeof raw);
        for (unsigned k = 0; k < 12; k++) {
            send_bytes(bytes, lens[i]);
            sides_talk(&friend, &other);
        }
        tear_down();
    }
}

/* A flood of them beside a link that is used. */
Test(ofi_rdm, a_flood_of_strangers)
{
    uint64_t before;

    set_up();
    before = dev()->strangers;
    for (unsigned i = 0; i < 200; i++) {
        make();
        raw.h.tag++;
        send_raw();
        if (i % 40 == 0)
            sides_talk(&friend, &other);
    }
    is_dropped(before + 200);
    tear_down();
}

/* ---- packets of a peer ---- */

static void ends(const char *word)
{
    SIDES_UNTIL(&victim, &foe, victim.failed);
    cr_assert_eq(victim.code, PLAIT_E_PROTO, "%d %s", victim.code, victim.text);
    cr_assert_not_null(strstr(victim.text, word), "'%s' does not say '%s'", victim.text, word);
    cr_assert_not_null(strstr(victim.text, PROVIDER), "%s", victim.text);
    for (unsigned i = 0; i < 50; i++)
        side_poll(&victim);
    cr_assert_eq(victim.failed, 1, "it is told twice");
    cr_assert_eq(other.failed, 0, "%s", other.text);
}

#define ENDS(name, change, word)                                                           \
    static void name(void)                                                                 \
    {                                                                                      \
        set_up();                                                                          \
        make();                                                                            \
        change;                                                                            \
        send_raw();                                                                        \
        ends(word);                                                                        \
        tear_down();                                                                       \
    }

ENDS(number_not_granted, raw.h.number += 1000, "number")
ENDS(number_far_behind, raw.h.number -= 1000, "number")
ENDS(number_repeated, raw.h.number--, "number")
ENDS(grant_back, raw.h.grant = side_link(&victim)->tx_grant - 1, "grant")
ENDS(grant_far_ahead, raw.h.grant += 2000, "grant")
ENDS(len_less, raw.h.len -= 8, "len")
ENDS(len_more, raw.h.len += 8, "len")
ENDS(wrong_tail, raw.tail++, "tail")
ENDS(record_too_long, raw.words[1] = pli_rec_w1(9, 0, 0), "record")
ENDS(records_too_few, raw.h.records = 0, "record")

Test(ofi_rdm, wrong_packets_of_a_peer)
{
    static void (*const all[])(void) = {
        number_not_granted, number_far_behind, number_repeated, grant_back, grant_far_ahead, len_less, len_more,
        wrong_tail, record_too_long, records_too_few,
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]();
}

/* Packets of one link may come in another order than that of their numbers. */
Test(ofi_rdm, in_any_order)
{
    static const uint32_t order[] = { 2, 0, 1 };
    uint64_t got;
    uint32_t number;

    set_up();
    got = victim.got;
    number = side_link(&foe)->tx_next;
    side_link(&foe)->tx_next += 3;
    for (size_t i = 0; i < 3; i++) {
        make();
        raw.h.number = number + order[i];
        raw.tail = pli_ofi_tail(raw.h.tag, raw.h.number);
        send_raw();
        for (unsigned k = 0; k < 100 && i == 0; k++)
            side_poll(&victim);
        cr_assert(i || victim.got == got, "a packet was read before one with a lower number");
    }
    SIDES_UNTIL(&victim, &foe, victim.got == got + 3);
    sides_talk(&foe, &victim);
    make();
    raw.h.number++; /* twice the same, before its turn */
    raw.tail++;
    send_raw();
    send_raw();
    ends("number");
    tear_down();
}

/* Far more than was granted: the link ends, nobody else is held up. */
Test(ofi_rdm, more_packets_than_granted)
{
    uint32_t number;

    set_up();
    number = side_link(&foe)->tx_next;
    for (unsigned i = 0; i < 200; i++) {
        make();
        raw.h.number = number + 1 + i; /* the first one is missing, so none is read */
        raw.tail = pli_ofi_tail(raw.h.tag, raw.h.number);
        send_raw();
        if (i % 40 == 0)
            sides_talk(&friend, &other);
    }
    ends("number");
    tear_down();
}

/* ---- links come and go ---- */

enum { LINKS = 256 };

Test(ofi_rdm, many_links_of_one_endpoint)
{
    static struct side here[LINKS], there[LINKS];

    setenv("PLAIT_PROVIDER", PROVIDER, 1);
    fds_before = count_fds();
    side_create(&here[0], NULL);
    side_create(&there[0], NULL);
    side_create(&other, &here[0]);
    side_create(&friend, &there[0]);
    sides_meet(&there[0], &here[0]);
    sides_meet(&friend, &other);
    for (unsigned i = 1; i < LINKS; i++) {
        side_create(&here[i], &here[0]);
        side_create(&there[i], &there[0]);
        sides_meet(&there[i], &here[i]);
    }
    cr_assert_eq(side_link(&here[0])->peer, side_link(&here[LINKS - 1])->peer);
    for (unsigned i = 0; i < LINKS; i++)
        SIDES_UNTIL(&here[i], &there[i], side_send(&there[i], 3000) == 0);
    for (unsigned i = 0; i < LINKS; i++)
        SIDES_UNTIL(&here[i], &there[i], here[i].got == 1);
    for (unsigned i = 0; i < LINKS; i++)
        sides_talk(&here[i], &there[i]);
    check_buffers();
    for (unsigned i = 0; i < LINKS; i++) {
        side_send(&there[i], 3000); /* on its way to nobody */
        side_destroy(&here[i]);
        if (i % 2)
            side_destroy(&there[i]);
        check_buffers();
        sides_talk(&friend, &other);
    }
    cr_assert_geq(dev()->rx_posted, dev()->rx_promised);
    cr_assert_eq(dev()->cq_used, side_link(&other)->window + PLI_OFI_TX_MAX);
    for (unsigned i = 0; i < LINKS; i += 2)
        side_destroy(&there[i]);
    side_destroy(&other);
    side_destroy(&friend);
    side_close_hub(&here[0]);
    side_close_hub(&there[0]);
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* A window of full packets takes more buffers, as long as there is room for them. */
Test(ofi_rdm, a_window_grows)
{
    set_up();
    for (unsigned i = 0; i < 400; i++)
        SIDES_UNTIL(&foe, &victim, side_send(&foe, 3400) == 0);
    SIDES_UNTIL(&foe, &victim, side_link(&victim)->rx_read == side_link(&foe)->tx_next);
    cr_assert_eq(side_link(&victim)->window, PLI_OFI_WINDOW_RDM);
    cr_assert_eq(side_link(&other)->window, PLI_OFI_WINDOW_MIN);
    cr_assert_eq(dev()->rx_windows, PLI_OFI_WINDOW_RDM + PLI_OFI_WINDOW_MIN);
    check_buffers();
    tear_down();
}

/* What the provider's queue has no room for is not promised. */
Test(ofi_rdm, no_room_for_a_link)
{
    struct side more;
    uint32_t was;

    set_up();
    was = dev()->rx_windows;
    dev()->rx_windows = (uint32_t)dev()->info->rx_attr->size - 3;
    cr_assert_eq(side_try_create(&more, &victim), PLAIT_E_NOMEM);
    cr_assert_not_null(strstr(plait_error_text(), "queue of receives"), "%s", plait_error_text());
    dev()->rx_windows = was;
    tear_down();
}

/* ---- descriptions ---- */

static struct pli_ofi_desc d; /* of victim, which listens */

static void refused(int code, const char *word)
{
    int rc = side_connect(&foe, &d);

    cr_assert_lt(rc, 0);
    cr_assert(rc == code || code == 0, "%d %s", rc, plait_error_text());
    cr_assert_not_null(strstr(plait_error_text(), word), "'%s' does not say '%s'", plait_error_text(), word);
    side_destroy(&foe);
    side_destroy(&victim);
    side_close_hub(&foe);
    side_close_hub(&victim);
}

#define REFUSED(name, change, code, word)                                                  \
    static void name(void)                                                                 \
    {                                                                                      \
        side_create(&victim, NULL);                                                        \
        side_create(&foe, NULL);                                                           \
        d = side_describe(&victim);                                                        \
        change;                                                                            \
        refused(code, word);                                                               \
    }

REFUSED(no_address, d.addr_len = 0, PLAIT_E_BADPEER, "no address")
REFUSED(short_address, d.addr_len = 4, PLAIT_E_BADPEER, "address")
REFUSED(another_format, d.addr_format = FI_ADDR_EFA; d.addr_len = 32, 0, PROVIDER)
REFUSED(connections, d.kind = PLI_OFI_MSG, 0, "connections")
REFUSED(connections_of_tcp, d.kind = PLI_OFI_MSG; strcpy(d.provider, "tcp"), PLAIT_E_NOTRANSPORT, "PLAIT_PROVIDER")
REFUSED(small_packets, d.small = PLI_OFI_SMALL / 2, PLAIT_E_BADPEER, "another build")
REFUSED(big_packets, d.big *= 2, PLAIT_E_BADPEER, "another build")

Test(ofi_rdm, each_field_of_a_description)
{
    static void (*const all[])(void) = {
        no_address, short_address, another_format, connections, connections_of_tcp, small_packets, big_packets,
    };

    setenv("PLAIT_PROVIDER", PROVIDER, 1);
    fds_before = count_fds();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]();
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* Nobody receives at the address that the peer has told. */
Test(ofi_rdm, nobody_is_there)
{
    uint64_t start;

    setenv("PLAIT_PROVIDER", PROVIDER, 1);
    side_create(&victim, NULL);
    side_create(&foe, NULL);
    d = side_describe(&victim);
    side_destroy(&victim);
    side_close_hub(&victim);
    start = pli_clock_now();
    cr_assert_eq(side_connect(&foe, &d), 0, "%s", plait_error_text());
    cr_assert_eq(side_send(&foe, 8), 0);
    while (!foe.failed && pli_clock_now() - start < SOON_NS)
        side_poll(&foe);
    cr_assert(foe.code == PLAIT_E_UNREACHABLE || foe.code == PLAIT_E_PEERDIED, "%d %s", foe.code, foe.text);
    cr_assert_not_null(strstr(foe.text, PROVIDER), "%s", foe.text);
    side_destroy(&foe);
    side_close_hub(&foe);
}
