/* SPDX-License-Identifier: BSD-3-Clause */
/* Strangers at the address where a context listens, with and without libfabric's own protocol: the link that waits there is unharmed,
 * and nobody makes the context wait. */
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include "ofi_util.h"

TestSuite(ofi_stranger, .timeout = 120);

static struct side victim, right;
static struct pli_ofi_desc address;

static void set_up(void)
{
    side_create(&victim, NULL);
    side_create(&right, NULL);
    address = side_describe(&victim);
}

/* The right peer connects all the same. */
static void tear_down(void)
{
    struct pli_ofi_desc d;

    cr_assert_eq(side_connect(&right, &address), 0, "%s", plait_error_text());
    d = side_describe(&right);
    cr_assert_eq(side_connect(&victim, &d), 0, "%s", plait_error_text());
    SIDES_UNTIL(&victim, &right, side_is_up(&victim) && side_is_up(&right));
    sides_talk(&victim, &right);
    side_destroy(&victim);
    side_destroy(&right);
    side_close_hub(&victim);
    side_close_hub(&right);
}

/* Polls, and measures the longest one. */
static void poll_for(uint64_t ns)
{
    for (uint64_t now = pli_clock_now(), end = now + ns; now < end;) {
        uint64_t before = now;

        side_poll(&victim);
        now = pli_clock_now();
        cr_assert_lt(now - before, PLI_NS_PER_S, "a poll took %llu ms", (unsigned long long)((now - before) / PLI_NS_PER_MS));
    }
    cr_assert_eq(victim.failed, 0, "%s", victim.text);
    cr_assert_eq(side_link(&victim)->state, PLI_OFI_LISTENING);
}

static int dial(void)
{
    struct sockaddr_in6 to;
    int fd;

    memcpy(&to, address.addr, sizeof to);
    fd = socket(to.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)(const void *)&to, address.addr_len), 0);
    return fd;
}

static void say_bytes(const void *bytes, size_t len)
{
    int fd = dial();

    cr_assert_eq(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
    poll_for(8 * PLI_NS_PER_MS);
    close(fd);
    poll_for(2 * PLI_NS_PER_MS);
}

Test(ofi_stranger, a_wrong_token)
{
    struct pli_ofi_desc d;
    struct side foe;

    set_up();
    side_create(&foe, NULL);
    d = address;
    d.token[15] ^= 1;
    cr_assert_eq(side_connect(&foe, &d), 0, "%s", plait_error_text());
    SIDES_UNTIL(&victim, &foe, foe.failed);
    cr_assert_not_null(strstr(foe.text, "provider tcp"), "%s", foe.text);
    poll_for(PLI_NS_PER_MS);
    side_destroy(&foe);
    side_close_hub(&foe);
    tear_down();
}

/* The token of a link that somebody has taken already. */
Test(ofi_stranger, a_token_twice)
{
    struct pli_ofi_desc d;
    struct side second;

    set_up();
    side_create(&second, NULL);
    cr_assert_eq(side_connect(&right, &address), 0);
    d = side_describe(&right);
    cr_assert_eq(side_connect(&victim, &d), 0);
    SIDES_UNTIL(&victim, &right, side_is_up(&victim) && side_is_up(&right));
    cr_assert_eq(side_connect(&second, &address), 0);
    SIDES_UNTIL(&victim, &second, second.failed);
    sides_talk(&victim, &right);
    side_destroy(&second);
    side_close_hub(&second);
    side_destroy(&victim);
    side_destroy(&right);
    side_close_hub(&victim);
    side_close_hub(&right);
}

Test(ofi_stranger, a_port_scanner)
{
    set_up();
    for (unsigned i = 0; i < 50; i++) {
        close(dial());
        poll_for(PLI_NS_PER_MS / 2);
    }
    tear_down();
}

Test(ofi_stranger, who_says_nothing)
{
    int fds[20];

    set_up();
    for (unsigned i = 0; i < 20; i++)
        fds[i] = dial();
    poll_for(20 * PLI_NS_PER_MS);
    for (unsigned i = 0; i < 20; i++)
        close(fds[i]);
    tear_down();
}

Test(ofi_stranger, noise)
{
    uint8_t noise[512];

    set_up();
    for (unsigned i = 0; i < 40; i++) {
        srandom(i);
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)random();
        say_bytes(noise, 1 + (size_t)random() % sizeof noise);
    }
    say_bytes("GET / HTTP/1.0\r\n\r\n", 18);
    tear_down();
}

/* The head of a request for a connection as the provider tcp sends it, and less than it announces. Read blocking, it would hold up the
 * context for as long as the stranger likes. */
Test(ofi_stranger, a_request_that_never_ends)
{
    set_up();
    for (unsigned version = 1; version < 6; version++) {
        for (unsigned type = 0; type < 5; type++) {
            uint8_t head[32] = { (uint8_t)version, (uint8_t)type, 0, 200, [24] = 1 };

            say_bytes(head, sizeof head);
            say_bytes(head, 5);
        }
    }
    tear_down();
}

/* A proper connection with private data that are not a request of a link. */
static void ask_with(const void *data, size_t len)
{
    struct pli_ofi_link *l;
    struct side foe;
    struct fid_ep *ep;
    uint32_t event;
    struct fi_eq_cm_entry e;
    struct fi_eq_err_entry err = { .err_data_size = 0 };
    struct fi_info *info;
    ssize_t rc;

    side_create(&foe, NULL);
    l = side_link(&foe);
    cr_assert_eq(pli_ofi_find_peer("tcp", PLI_OFI_MSG, address.addr_format, address.addr, address.addr_len, &info), 0);
    cr_assert_eq(fi_endpoint(l->dev->domain, info, &ep, NULL), 0);
    cr_assert_eq(fi_ep_bind(ep, &l->dev->eq->fid, 0), 0);
    cr_assert_eq(fi_ep_bind(ep, &l->dev->cq->fid, FI_TRANSMIT | FI_RECV), 0);
    cr_assert_eq(fi_enable(ep), 0);
    cr_assert_eq(fi_connect(ep, address.addr, data, len), 0);
    do {
        side_poll(&victim);
        rc = fi_eq_read(l->dev->eq, &event, &e, sizeof e, 0);
    } while (rc == -FI_EAGAIN);
    cr_assert_eq(rc, -FI_EAVAIL, "%zd", rc);
    fi_eq_readerr(l->dev->eq, &err, 0);
    cr_assert_eq(err.err, FI_ECONNREFUSED);
    fi_close(&ep->fid);
    pli_fi_lib()->freeinfo(info);
    side_destroy(&foe);
    side_close_hub(&foe);
}

Test(ofi_stranger, private_data_of_any_length)
{
    uint8_t data[64] = { 0 };
    struct pli_ofi_cm cm = { .magic = PLI_OFI_DESC_MAGIC + 1 };

    set_up();
    memcpy(cm.token, address.token, sizeof cm.token);
    ask_with(NULL, 0);
    ask_with(data, 1);
    ask_with(data, sizeof cm - 1);
    ask_with(data, sizeof cm);
    ask_with(data, sizeof data);
    ask_with(&cm, sizeof cm);
    cm.magic--;
    ask_with(&cm, sizeof cm - 1);
    poll_for(PLI_NS_PER_MS);
    tear_down();
}
