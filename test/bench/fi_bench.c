/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The peer program for libfabric, over the provider shm or another one (--provider): FI_EP_RDM endpoints, FI_MSG,
 * small messages by fi_inject, longer ones by fi_send, which takes the provider's own path for them; receive buffers posted ahead and
 * reposted as they are used.
 *   lat   ping-pong;  rate  one way, an acknowledgement now and then;  rpc  `window` requests in flight
 *   bw    a window of messages, then an acknowledgement; one buffer on each side
 */
#include "peer.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 512 /* receive buffers */
#define SLOT_SIZE 4096 /* of messages that are not longer */
#define LONG_SLOTS 32
#define ACK_EVERY 128
#define ACKS_OPEN 2
#define BURST 32
#define WARM_UP_S 0.02

enum { GO_ON, LAST }; /* the first byte of a message */

static struct fi_info *info;
static struct fid_fabric *fabric;
static struct fid_domain *domain;
static struct fid_av *av;
static struct fid_cq *cq;
static struct fid_ep *ep;
static fi_addr_t peer;
static char *slots; /* of bw all are one */
static char *out;
static size_t slot_size;
static long sent_done; /* completions of fi_send */
static struct peer_samples samples;
static long received;
static int seen_last;
static long pending; /* received while something was sent */

static void check(ssize_t rc, const char *what)
{
    if (rc < 0)
        peer_die("%s: %s", what, fi_strerror((int)-rc));
}

static void post(void *buf)
{
    check(fi_recv(ep, buf, slot_size, NULL, FI_ADDR_UNSPEC, buf), "fi_recv");
}

/* Handles what has come: counts it, notes LAST, gives the buffers back. Returns how many. */
static int poll_cq(void)
{
    struct fi_cq_entry e[BURST];
    ssize_t n = fi_cq_read(cq, e, BURST);

    if (n == -FI_EAGAIN)
        return 0;
    check(n, "fi_cq_read");
    ssize_t all = n;

    for (ssize_t i = 0; i < all; i++) {
        if (e[i].op_context == &sent_done) {
            sent_done++;
            n--;
            continue;
        }
        if (*(char *)e[i].op_context == LAST)
            seen_last = 1;
        post(e[i].op_context);
    }
    received += n;
    return (int)n;
}

/* fi_send() from `out`, which stays as it is until sent_done counts it. */
static void send_from(int size)
{
    ssize_t rc;

    while ((rc = fi_send(ep, out, (size_t)size, NULL, peer, &sent_done)) == -FI_EAGAIN)
        poll_cq();
    check(rc, "fi_send");
}

/* Waits for the completion of a long message: two in flight would have one first byte. */
static __attribute__((noinline)) int send_long(int size)
{
    long before = sent_done;
    int n = 0;

    send_from(size);
    while (sent_done == before)
        n += poll_cq();
    return n;
}

static void send_one(int size, int kind)
{
    ssize_t rc;

    out[0] = (char)kind;
    if ((size_t)size > info->tx_attr->inject_size) {
        pending += send_long(size);
        return;
    }
    while ((rc = fi_inject(ep, out, (size_t)size, peer)) == -FI_EAGAIN)
        pending += poll_cq();
    check(rc, "fi_inject");
}

static void post_all(int is_bw, int size)
{
    size_t n = is_bw ? (size_t)peer_bw_window(size) : size > SLOT_SIZE ? LONG_SLOTS : SLOTS;

    slot_size = size > SLOT_SIZE ? (size_t)size : SLOT_SIZE;
    slots = peer_memory(is_bw ? slot_size : n * slot_size);
    out = peer_memory(slot_size);
    received = sent_done = 0;
    for (size_t i = 0; i < n; i++)
        post(is_bw ? slots : slots + i * slot_size);
}

static void open_all(const struct peer_opts *o, int sock, int size)
{
    struct fi_info *hints = fi_allocinfo();
    const char *provider = o->provider ? o->provider : "shm";
    /* providers over sockets would take the first network interface */
    const char *node = strcmp(provider, "shm") ? "127.0.0.1" : NULL;
    struct fi_cq_attr cq_attr = {.format = FI_CQ_FORMAT_CONTEXT, .size = 4096};
    struct fi_av_attr av_attr = {.type = FI_AV_TABLE};
    char mine[256], theirs[256];
    size_t len = sizeof mine;

    if (!hints)
        peer_die("no memory");
    hints->fabric_attr->prov_name = strdup(provider);
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_MSG;
    hints->domain_attr->threading = FI_THREAD_DOMAIN; /* one thread: spares the provider its locks */
    check(fi_getinfo(FI_VERSION(1, 17), node, NULL, node ? FI_SOURCE : 0, hints, &info), provider);
    fi_freeinfo(hints);
    check(fi_fabric(info->fabric_attr, &fabric, NULL), "fi_fabric");
    check(fi_domain(fabric, info, &domain, NULL), "fi_domain");
    check(fi_av_open(domain, &av_attr, &av, NULL), "fi_av_open");
    check(fi_cq_open(domain, &cq_attr, &cq, NULL), "fi_cq_open");
    check(fi_endpoint(domain, info, &ep, NULL), "fi_endpoint");
    check(fi_ep_bind(ep, &av->fid, 0), "fi_ep_bind to the address vector");
    check(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind to the queue");
    check(fi_enable(ep), "fi_enable");
    check(fi_getname(&ep->fid, mine, &len), "fi_getname");
    post_all(!strcmp(o->test, "bw"), size);
    peer_swap(sock, mine, len, theirs, sizeof theirs);
    if (fi_av_insert(av, theirs, 1, &peer, 0, NULL) != 1)
        peer_die("fi_av_insert failed");
}

static void close_all(int sock)
{
    char done = 1;

    peer_swap(sock, &done, 1, &done, 1);
    fi_close(&ep->fid);
    fi_close(&av->fid);
    fi_close(&cq->fid);
    fi_close(&domain->fid);
    fi_close(&fabric->fid);
    fi_freeinfo(info);
    free(slots);
    free(out);
}

static void lat_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;

    do {
        for (int i = 0; i < PEER_BATCH; i++) {
            long next = received + 1;

            send_one(size, GO_ON);
            while (received < next)
                poll_cq();
        }
        t1 = peer_now();
        if (record && peer_add_lat(&samples, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    send_one(size, LAST);
}

/* Answers each message, for lat and rpc; those, too, that come while an answer waits for space. */
static void echo(int size)
{
    for (seen_last = 0, pending = 0; !seen_last || pending > seen_last;) {
        pending += poll_cq();
        while (pending > seen_last) {
            pending--;
            send_one(size, GO_ON);
        }
    }
}

static void rate_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    long sent = 0, first = received;
    int last = 0;

    while (!last) {
        if (++sent % (8 * ACK_EVERY) == 0) {
            t1 = peer_now();
            last = t1 - start >= seconds;
            if (record && sent > 8 * ACK_EVERY && peer_add_rate(&samples, 8 * ACK_EVERY, t1 - t0))
                last = 1;
            t0 = t1;
        }
        send_one(size, last ? LAST : GO_ON);
        while (sent / ACK_EVERY - (received - first) > (last ? 0 : ACKS_OPEN))
            poll_cq();
    }
}

static void rate_follow(int size)
{
    long acked = 0, first = received;

    for (seen_last = 0; !seen_last;) {
        poll_cq();
        for (; acked < (received - first) / ACK_EVERY; acked++)
            send_one(size, GO_ON);
    }
}

static void bw_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1 = start;
    int last = 0;

    while (!last) {
        long done = sent_done, next = received + 1;

        last = t1 - start >= seconds;
        out[0] = last ? LAST : GO_ON; /* nothing is on its way */
        for (int i = 0; i < window; i++)
            send_from(size);
        while (sent_done - done < window || received < next)
            poll_cq();
        t1 = peer_now();
        if (record && !last && peer_add_rate(&samples, (long)size * window, t1 - t0))
            seconds = 0;
        t0 = t1;
    }
}

static void bw_follow(int window)
{
    long next = received;

    for (seen_last = 0; !seen_last;) {
        next += window;
        while (received < next)
            poll_cq();
        send_one(8, GO_ON);
    }
}

static void rpc_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    long sent = 0, first = received, counted = received;

    do {
        while (received - counted < PEER_SLICE) {
            for (; sent - (received - first) < window; sent++)
                send_one(size, GO_ON);
            poll_cq();
        }
        t1 = peer_now();
        if (record && peer_add_rate(&samples, received - counted, t1 - t0))
            break;
        counted = received;
        t0 = t1;
    } while (t1 - start < seconds);
    while (received - first < sent)
        poll_cq();
    send_one(size, LAST);
}

/* One phase; both sides pass through a barrier first, so that no message crosses into another phase. */
static void phase(const struct peer_opts *o, int sock, int leader, int size, int window, int record)
{
    double seconds = record ? o->seconds : WARM_UP_S;
    char token = 1;

    peer_swap(sock, &token, 1, &token, 1);
    if (!leader && !strcmp(o->test, "rate"))
        rate_follow(size);
    else if (!leader && !strcmp(o->test, "bw"))
        bw_follow(window);
    else if (leader && !strcmp(o->test, "bw"))
        bw_lead(size, window, seconds, record);
    else if (!leader)
        echo(size);
    else if (!strcmp(o->test, "rate"))
        rate_lead(size, seconds, record);
    else if (!strcmp(o->test, "rpc"))
        rpc_lead(size, window, seconds, record);
    else
        lat_lead(size, seconds, record);
}

static void run(const struct peer_opts *o, int sock, int leader)
{
    int is_rpc = !strcmp(o->test, "rpc"), is_bw = !strcmp(o->test, "bw");
    int n = is_rpc ? o->windows.n : o->sizes.n;

    for (int i = 0; i < n; i++) {
        int size = is_rpc ? o->sizes.v[0] : o->sizes.v[i];
        int window = is_rpc ? o->windows.v[i] : is_bw ? peer_bw_window(size) : 1;

        open_all(o, sock, size);
        phase(o, sock, leader, size, window, 0);
        phase(o, sock, leader, size, window, 1);
        close_all(sock);
        if (!leader)
            continue;
        if (is_rpc)
            peer_print_rate(&samples, "rpc", "requests_per_s", "fi_bench", size, window);
        else if (is_bw)
            peer_print_rate(&samples, "bw", "bytes_per_s", "fi_bench", size, window);
        else if (!strcmp(o->test, "rate"))
            peer_print_rate(&samples, "rate", "msgs_per_s", "fi_bench", size, 1);
        else
            peer_print_lat(&samples, "fi_bench", size);
    }
}

int main(int argc, char **argv)
{
    struct peer_opts o;
    int sock, leader;

    setenv("IPATH_NO_BACKTRACE", "1", 1); /* libpsm would take over SIGSEGV and write a .btr file */
    peer_parse(argc, argv, &o);
    leader = peer_fork(&o, &sock);
    run(&o, sock, leader);
    if (leader)
        peer_join();
    return 0;
}
