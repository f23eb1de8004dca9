/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The peer program for ZeroMQ over TCP: two PAIR sockets, calls that wait, as its own benchmarks have them. What is
 * sent and received passes through a thread of ZeroMQ's own on each side, so nothing is pinned to one core: all
 * four threads may use both.
 *   lat   ping-pong;  rate  one way, an acknowledgement for each chunk;  rpc  `window` requests in flight
 *   bw    a window of messages, sent from one buffer without a copy, then an acknowledgement
 */
#define _GNU_SOURCE
#include "peer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define CHUNK 16384 /* messages of a rate sample */
#define CHUNKS_OPEN 2
#define WARM_UP_S 0.02

enum { GO_ON, LAST }; /* the first byte of a message */

static void *ctx, *sock;
static char *out;
static struct peer_samples samples;

static void check(int rc, const char *what)
{
    if (rc < 0)
        peer_die("%s: %s", what, zmq_strerror(zmq_errno()));
}

static void send_one(int size, int kind)
{
    out[0] = (char)kind;
    check(zmq_send(sock, out, (size_t)size, 0), "zmq_send");
}

/* Returns the first byte. */
static int receive_one(void)
{
    zmq_msg_t m;
    int kind;

    check(zmq_msg_init(&m), "zmq_msg_init");
    check(zmq_msg_recv(&m, sock, 0), "zmq_msg_recv");
    kind = *(char *)zmq_msg_data(&m);
    zmq_msg_close(&m);
    return kind;
}

static void keep(void *data, void *hint)
{
    (void)data, (void)hint;
}

static void send_in_place(int size)
{
    zmq_msg_t m;

    check(zmq_msg_init_data(&m, out, (size_t)size, keep, NULL), "zmq_msg_init_data");
    check(zmq_msg_send(&m, sock, 0), "zmq_msg_send");
}

static void lat_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;

    do {
        for (int i = 0; i < PEER_BATCH; i++) {
            send_one(size, GO_ON);
            receive_one();
        }
        t1 = peer_now();
        if (record && peer_add_lat(&samples, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    send_one(size, LAST);
}

/* Answers each message, for lat and rpc. */
static void echo(int size)
{
    while (receive_one() != LAST)
        send_one(size, GO_ON);
}

static void rate_lead(int size, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;
    long chunks = 0, acks = 0;
    int last = 0;

    while (!last) {
        t1 = peer_now();
        last = t1 - start >= seconds;
        if (record && chunks > CHUNKS_OPEN && peer_add_rate(&samples, CHUNK, t1 - t0))
            last = 1;
        t0 = t1;
        for (int i = 0; i < CHUNK; i++)
            send_one(size, last ? LAST : GO_ON);
        chunks++;
        for (; acks < chunks - (last ? 0 : CHUNKS_OPEN); acks++)
            receive_one();
    }
}

static void rate_follow(int size)
{
    int kind;

    do {
        for (int i = 0; i < CHUNK; i++)
            kind = receive_one();
        send_one(size, GO_ON);
    } while (kind != LAST);
}

static void rpc_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1;

    for (int i = 0; i < window; i++)
        send_one(size, GO_ON);
    do {
        for (int i = 0; i < PEER_SLICE; i++) {
            receive_one();
            send_one(size, GO_ON);
        }
        t1 = peer_now();
        if (record && peer_add_rate(&samples, PEER_SLICE, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    for (int i = 0; i < window; i++)
        receive_one();
    send_one(size, LAST);
}

static void bw_lead(int size, int window, double seconds, int record)
{
    double start = peer_now(), t0 = start, t1 = start;
    int last = 0;

    while (!last) {
        last = t1 - start >= seconds;
        out[0] = last ? LAST : GO_ON; /* nothing is on its way */
        for (int i = 0; i < window; i++)
            send_in_place(size);
        receive_one();
        t1 = peer_now();
        if (record && !last && peer_add_rate(&samples, (long)size * window, t1 - t0))
            seconds = 0;
        t0 = t1;
    }
}

static void bw_follow(int window)
{
    int kind;

    do {
        for (int i = 0; i < window; i++)
            kind = receive_one();
        send_one(8, GO_ON);
    } while (kind != LAST);
}

static void open_all(const struct peer_opts *o, int leader, int fd)
{
    char mine[256] = "-", theirs[256];
    size_t len = sizeof mine;
    int high = 4 * CHUNK;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(o->cores.v[0], &set);
    CPU_SET(o->cores.v[1], &set);
    if (sched_setaffinity(0, sizeof set, &set))
        peer_die("cannot use both cores");
    ctx = zmq_ctx_new();
    sock = ctx ? zmq_socket(ctx, ZMQ_PAIR) : NULL;
    if (!sock)
        peer_die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    check(zmq_setsockopt(sock, ZMQ_SNDHWM, &high, sizeof high), "ZMQ_SNDHWM");
    check(zmq_setsockopt(sock, ZMQ_RCVHWM, &high, sizeof high), "ZMQ_RCVHWM");
    if (leader) {
        check(zmq_bind(sock, "tcp://127.0.0.1:*"), "zmq_bind");
        check(zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, mine, &len), "ZMQ_LAST_ENDPOINT");
    }
    theirs[peer_swap(fd, mine, strlen(mine), theirs, sizeof theirs - 1)] = '\0';
    if (!leader)
        check(zmq_connect(sock, theirs), "zmq_connect");
}

static void phase(const struct peer_opts *o, int leader, int size, int window, int record)
{
    double seconds = record ? o->seconds : WARM_UP_S;
    int is_rate = !strcmp(o->test, "rate"), is_bw = !strcmp(o->test, "bw");

    if (!leader && is_rate)
        rate_follow(size);
    else if (!leader && is_bw)
        bw_follow(window);
    else if (!leader)
        echo(size);
    else if (is_rate)
        rate_lead(size, seconds, record);
    else if (is_bw)
        bw_lead(size, window, seconds, record);
    else if (!strcmp(o->test, "rpc"))
        rpc_lead(size, window, seconds, record);
    else
        lat_lead(size, seconds, record);
}

static void print(const struct peer_opts *o, int size, int window)
{
    if (!strcmp(o->test, "lat"))
        peer_print_lat(&samples, "zmq", size);
    else
        peer_print_rate(&samples, o->test,
                        !strcmp(o->test, "rate") ? "msgs_per_s" : !strcmp(o->test, "rpc") ? "requests_per_s"
                                                                                          : "bytes_per_s",
                        "zmq", size, window);
}

int main(int argc, char **argv)
{
    struct peer_opts o;
    int fd, leader, is_rpc, n;

    peer_parse(argc, argv, &o);
    is_rpc = !strcmp(o.test, "rpc");
    n = is_rpc ? o.windows.n : o.sizes.n;
    leader = peer_fork(&o, &fd);
    open_all(&o, leader, fd);
    for (int i = 0; i < n; i++) {
        int size = is_rpc ? o.sizes.v[0] : o.sizes.v[i];
        int window = is_rpc ? o.windows.v[i] : !strcmp(o.test, "bw") ? peer_bw_window(size) : 1;

        out = peer_memory((size_t)size);
        phase(&o, leader, size, window, 0);
        phase(&o, leader, size, window, 1);
        if (leader)
            print(&o, size, window);
        free(out);
    }
    zmq_close(sock);
    zmq_ctx_term(ctx); /* sends what is left */
    if (leader)
        peer_join();
    return 0;
}
