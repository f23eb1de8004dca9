/* SPDX-License-Identifier: BSD-3-Clause */
/* What a peer says of its fabric endpoint, with every field wrong: connect() refuses it, or the connection fails soon, and in both cases a
 * sentence says why. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include "ofi_util.h"

TestSuite(ofi_desc, .timeout = 120);

static struct side a, b;
static struct pli_ofi_desc d; /* of b, which listens */
static int fds_before;

static void set_up(void)
{
    fds_before = count_fds();
    side_create(&a, NULL);
    side_create(&b, NULL);
    d = side_describe(&b);
}

static void close_a(void)
{
    side_destroy(&a);
    side_close_hub(&a);
}

static void tear_down(void)
{
    close_a();
    for (unsigned i = 0; i < 20; i++) /* libfabric 1.17 forgets a request that is half read when it is closed */
        side_poll(&b);
    side_destroy(&b);
    side_close_hub(&b);
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* connect() refuses, with a sentence that has the word in it. */
static void refused(int code, const char *word)
{
    int rc = side_connect(&a, &d);

    cr_assert_lt(rc, 0);
    cr_assert(rc == code || code == 0, "%d %s", rc, plait_error_text());
    cr_assert_not_null(strstr(plait_error_text(), word), "'%s' does not say '%s'", plait_error_text(), word);
    cr_assert_eq(a.failed, 0);
    side_poll(&a);
    side_poll(&b);
    cr_assert_eq(b.failed, 0);
    tear_down();
}

#define REFUSED(name, change, code, word)                                                  \
    static void name(void)                                                                 \
    {                                                                                      \
        set_up();                                                                          \
        change;                                                                            \
        refused(code, word);                                                               \
    }

REFUSED(magic, d.magic++, PLAIT_E_BADPEER, "magic")
REFUSED(version, d.version++, PLAIT_E_BADPEER, "version")
REFUSED(no_kind, d.kind = 0, PLAIT_E_BADPEER, "kind")
REFUSED(datagrams, d.kind = PLI_OFI_RDM, 0, "datagrams")
REFUSED(unknown_kind, d.kind = 3, PLAIT_E_BADPEER, "kind")
REFUSED(any_kind, d.kind = 0xffff, PLAIT_E_BADPEER, "kind")
REFUSED(no_window, d.window = 0, PLAIT_E_BADPEER, "buffers")
REFUSED(small_window, d.window = 3, PLAIT_E_BADPEER, "buffers")
REFUSED(large_window, d.window = 1025, PLAIT_E_BADPEER, "buffers")
REFUSED(largest_window, d.window = UINT32_MAX, PLAIT_E_BADPEER, "buffers")
REFUSED(no_provider, memset(d.provider, 0, sizeof d.provider), PLAIT_E_BADPEER, "provider")
REFUSED(endless_provider, memset(d.provider, 'x', sizeof d.provider), PLAIT_E_BADPEER, "provider")
REFUSED(unknown_provider, strcpy(d.provider, "nonsense"), 0, "nonsense")
REFUSED(absent_provider, strcpy(d.provider, "verbs"), 0, "verbs")
REFUSED(a_provider_of_datagrams, strcpy(d.provider, "udp"), 0, "udp")
REFUSED(a_provider_of_another_kind, strcpy(d.provider, "shm"), 0, "shm")
REFUSED(a_list_of_providers, strcpy(d.provider, "tcp;ofi_rxm"), 0, "tcp;ofi_rxm")
REFUSED(all_providers_but_one, strcpy(d.provider, "^verbs"), PLAIT_E_BADPEER, "provider")
REFUSED(control_characters, strcpy(d.provider, "t\n\x1b[2J"), PLAIT_E_BADPEER, "provider")
REFUSED(long_address, d.addr_len = 65, PLAIT_E_BADPEER, "address")
REFUSED(longest_address, d.addr_len = 0xffff, PLAIT_E_BADPEER, "address")
REFUSED(short_address, d.addr_len = 2, PLAIT_E_BADPEER, "address")
REFUSED(shortest_address, d.addr_len = 1, PLAIT_E_BADPEER, "address")
REFUSED(no_address, d.addr_len = 0, PLAIT_E_BADPEER, "connect")
REFUSED(no_format, d.addr_format = 0, PLAIT_E_BADPEER, "address")
REFUSED(format_of_text, d.addr_format = FI_ADDR_STR, PLAIT_E_BADPEER, "address")
REFUSED(format_of_another_size, d.addr_format = FI_SOCKADDR_IN6, PLAIT_E_BADPEER, "address")
REFUSED(any_format, d.addr_format = 0xffff, PLAIT_E_BADPEER, "address")
REFUSED(small_packets, d.small--, PLAIT_E_BADPEER, "another build")
REFUSED(big_packets, d.big = 0, PLAIT_E_BADPEER, "another build")
REFUSED(another_family, d.addr[0] = 0x7f, PLAIT_E_BADPEER, "address")
REFUSED(no_family, memset(d.addr, 0, sizeof d.addr), PLAIT_E_BADPEER, "address")

/* One program for all: each first use of libfabric takes a third of a second. */
Test(ofi_desc, each_field)
{
    static void (*const all[])(void) = {
        magic, version, no_kind, datagrams, unknown_kind, any_kind, no_window, small_window,
        large_window, largest_window, no_provider, endless_provider, unknown_provider, absent_provider,
        a_provider_of_datagrams, a_provider_of_another_kind, a_list_of_providers, all_providers_but_one,
        control_characters, long_address, longest_address, short_address, shortest_address, no_address,
        no_format, format_of_text, format_of_another_size, any_format, another_family, no_family, small_packets, big_packets,
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]();
}

Test(ofi_desc, any_other_length)
{
    static uint8_t blob[PLI_TR_BLOB_MAX];

    for (size_t len = 0; len <= sizeof blob; len++) {
        uint8_t *exact;

        if (len == sizeof d)
            continue;
        set_up();
        memcpy(blob, &d, sizeof d);
        exact = malloc(len ? len : 1); /* a sanitizer sees who reads beyond */
        memcpy(exact, blob, len);
        cr_assert_eq(pli_ofi_ops.connect(a.tr, exact, len, NULL, 0), PLAIT_E_BADPEER);
        cr_assert_not_null(strstr(plait_error_text(), "bytes"), "%s", plait_error_text());
        free(exact);
        tear_down();
        len += len % 16 ? 0 : 14;
    }
}

Test(ofi_desc, descriptors_with_it)
{
    int fds[2];

    set_up();
    fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(pli_ofi_ops.connect(a.tr, &d, sizeof d, fds, 2), PLAIT_E_BADPEER);
    cr_assert_not_null(strstr(plait_error_text(), "descriptors"), "%s", plait_error_text());
    tear_down();
}

Test(ofi_desc, twice)
{
    set_up();
    cr_assert_eq(side_connect(&a, &d), 0, "%s", plait_error_text());
    refused(PLAIT_E_BADPEER, "twice");
}

Test(ofi_desc, both_listen)
{
    set_up();
    (void)side_describe(&a);
    refused(PLAIT_E_BADPEER, "listen");
}

Test(ofi_desc, a_control_message)
{
    int fd;

    set_up();
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(pli_ofi_ops.control(a.tr, "x", 1, &fd, 1), PLAIT_E_PROTO);
    tear_down();
}

/* ---- what only the connection shows ---- */

/* connect() or the connection fails. */
static void fails(void)
{
    uint64_t start = pli_clock_now();
    int rc = side_connect(&a, &d);
    char text[512];

    if (rc == 0) {
        SIDES_UNTIL(&a, &b, a.failed);
        rc = a.code;
        snprintf(text, sizeof text, "%s", a.text);
    } else {
        snprintf(text, sizeof text, "%s", plait_error_text());
    }
    cr_assert(rc == PLAIT_E_PEERDIED || rc == PLAIT_E_UNREACHABLE || rc == PLAIT_E_SYSTEM || rc == PLAIT_E_UNSUPPORTED || rc == PLAIT_E_BADPEER,
              "%d %s", rc, text);
    cr_assert_not_null(strstr(text, "tcp"), "%s", text);
    cr_assert_leq(pli_clock_now() - start, 8 * PLI_NS_PER_S);
    cr_assert_eq(b.failed, 0);
    tear_down();
}

static struct sockaddr_in *in4(void)
{
    return (struct sockaddr_in *)(void *)d.addr;
}

Test(ofi_desc, nobody_listens_there)
{
    socklen_t len = sizeof(struct sockaddr_in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_up();
    in4()->sin_port = 0;
    cr_assert_eq(bind(fd, (const struct sockaddr *)(void *)d.addr, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)(void *)d.addr, &len), 0);
    fails();
    close(fd);
}

Test(ofi_desc, no_port)
{
    set_up();
    in4()->sin_port = 0;
    fails();
}

Test(ofi_desc, an_address_of_nobody)
{
    set_up();
    in4()->sin_addr.s_addr = htonl(0xf0000001); /* 240.0.0.1: reserved */
    fails();
}

Test(ofi_desc, a_multicast_address)
{
    set_up();
    in4()->sin_addr.s_addr = htonl(0xe0000001);
    fails();
}

/* Somebody listens there who does not speak libfabric's protocol, nor any other. */
Test(ofi_desc, a_silent_listener)
{
    socklen_t len = sizeof(struct sockaddr_in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_up();
    in4()->sin_port = 0;
    cr_assert_eq(bind(fd, (const struct sockaddr *)(void *)d.addr, len), 0);
    cr_assert_eq(listen(fd, 5), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)(void *)d.addr, &len), 0);
    pli_clock_fake_start(pli_clock_now());
    cr_assert_eq(side_connect(&a, &d), 0, "%s", plait_error_text());
    pli_clock_fake_advance(4 * PLI_NS_PER_S);
    for (unsigned i = 0; i < 20; i++)
        side_poll(&a);
    cr_assert_eq(a.failed, 0, "%s", a.text);
    pli_clock_fake_advance(2 * PLI_NS_PER_S);
    side_poll(&a);
    cr_assert_eq(a.failed, 1);
    cr_assert_eq(a.code, PLAIT_E_UNREACHABLE);
    cr_assert_not_null(strstr(a.text, "within 5 s"), "%s", a.text);
    tear_down();
    pli_clock_fake_stop();
    close(fd);
}

/* The listening side gives up, too. */
Test(ofi_desc, who_never_connects)
{
    struct pli_ofi_desc own;

    set_up();
    cr_assert_eq(side_connect(&a, &d), 0, "%s", plait_error_text());
    own = side_describe(&a);
    close_a();
    pli_clock_fake_start(pli_clock_now());
    cr_assert_eq(side_connect(&b, &own), 0, "%s", plait_error_text());
    side_poll(&b);
    cr_assert_eq(b.failed, 0);
    pli_clock_fake_advance(6 * PLI_NS_PER_S);
    for (unsigned i = 0; i < 20; i++)
        side_poll(&b);
    cr_assert_eq(b.failed, 1);
    cr_assert_not_null(strstr(b.text, "lo"), "%s", b.text);
    side_destroy(&b);
    side_close_hub(&b);
    pli_clock_fake_stop();
    cr_assert_eq(count_fds(), fds_before, "descriptors leak");
}

/* And one who answers with anything. */
Test(ofi_desc, a_listener_that_sends_noise)
{
    socklen_t len = sizeof(struct sockaddr_in);
    uint8_t noise[300];

    for (unsigned i = 0; i < 8; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c;

        srandom(i);
        set_up();
        in4()->sin_port = 0;
        cr_assert_eq(bind(fd, (const struct sockaddr *)(void *)d.addr, len), 0);
        cr_assert_eq(listen(fd, 5), 0);
        cr_assert_eq(getsockname(fd, (struct sockaddr *)(void *)d.addr, &len), 0);
        cr_assert_eq(side_connect(&a, &d), 0, "%s", plait_error_text());
        c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        cr_assert_geq(c, 0);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)random();
        side_poll(&a);
        cr_assert_gt(send(c, noise, 1 + (size_t)random() % sizeof noise, MSG_NOSIGNAL), 0);
        SIDES_UNTIL(&a, &b, a.failed);
        close(c);
        tear_down();
        close(fd);
    }
}

/* What is wrong only for the packets that follow. */
Test(ofi_desc, another_tag_or_link)
{
    for (int i = 0; i < 2; i++) {
        struct pli_ofi_desc own;

        set_up();
        if (i)
            d.tag++;
        else
            d.link++;
        cr_assert_eq(side_connect(&a, &d), 0);
        own = side_describe(&a);
        cr_assert_eq(side_connect(&b, &own), 0);
        SIDES_UNTIL(&a, &b, side_is_up(&a) && side_is_up(&b));
        cr_assert_eq(side_send(&a, 8), 0);
        cr_assert_eq(side_send(&a, 8), 0);
        pli_ofi_ops.flush(a.tr);
        for (int n = 0; n < 10; n++) {
            side_poll(&a);
            side_send(&a, 3000);
            pli_ofi_ops.flush(a.tr);
        }
        SIDES_UNTIL(&a, &b, b.failed);
        cr_assert_eq(b.code, PLAIT_E_PROTO, "%s", b.text);
        cr_assert_not_null(strstr(b.text, i ? "tag" : "link"), "%s", b.text);
        tear_down();
    }
}

/* Any bytes: whatever comes of it, nothing crashes. */
Test(ofi_desc, noise)
{
    unsigned rounds = getenv("PLAIT_TEST_QUICK") ? 20 : 60;

    for (unsigned i = 0; i < rounds; i++) {
        uint64_t until;

        srandom(i);
        set_up();
        for (unsigned k = 0; k < 1 + i % 6; k++)
            ((uint8_t *)&d)[(size_t)random() % sizeof d] = (uint8_t)random();
        side_connect(&a, &d);
        until = pli_clock_now() + 5 * PLI_NS_PER_MS;
        while (pli_clock_now() < until) {
            side_poll(&a);
            side_poll(&b);
        }
        tear_down();
    }
}
