/* SPDX-License-Identifier: BSD-3-Clause */
/* The tests of plait perf, the client's side: one round of each. What is between the two looks at the clock
 * is what a user's program does. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

#define LAT_BATCH 32u /* round trips between two looks at the clock */
#define ASLEEP_US 100

void perf_on_writable(struct plait_conn *conn, void *arg)
{
    struct perf_client *c = arg;

    (void)conn;
    c->blocked = false;
    if (c->park)
        plait_ctx_stop(c->ctx);
}

/* ---- lat, wake: one message each way ---- */

static void lat_send(struct perf_client *c)
{
    int rc = perf_send(c->conn, c->buf, c->size, 0);

    if (__builtin_expect(rc == 0, 1))
        return;
    if (rc == PLAIT_E_AGAIN)
        c->blocked = true; /* lat_writable() sends it */
    else
        perf_fail(c, rc, NULL);
}

void perf_lat_writable(struct plait_conn *conn, void *arg)
{
    struct perf_client *c = arg;

    perf_on_writable(conn, arg);
    if (c->left > 0)
        lat_send(c);
}

static __attribute__((noinline)) void lat_sample(struct perf_client *c)
{
    double t = perf_now();

    if (c->status) /* given up: nobody waits for it */
        return;
    c->samples[c->nsamples++] = (t - c->t0) / (2.0 * c->batch);
    c->t0 = t;
    c->batch_left = c->batch;
}

void perf_lat_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct perf_client *c = arg;

    (void)conn;
    if (__builtin_expect(msg->len != c->size, 0)) {
        perf_fail(c, PLAIT_E_PROTO, "the peer sent %zu bytes back instead of %zu", msg->len, c->size);
        return;
    }
    if (--c->batch_left == 0)
        lat_sample(c);
    if (--c->left == 0)
        perf_done(c);
    else
        lat_send(c);
}

/* As a receiver does that wants the bytes in memory of its own. */
static void lat_message_copy(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct perf_client *c = arg;

    if (__builtin_expect(msg->len == c->size, 1)) {
        memcpy(c->copy, msg->data, msg->len);
        __asm__ volatile("" : : "r"(c->copy) : "memory"); /* the copy is wanted, every time */
    }
    perf_lat_message(conn, msg, arg);
}

int perf_round_trips(struct perf_client *c, unsigned long n, unsigned batch)
{
    c->batch = c->batch_left = batch;
    c->left = n;
    c->t0 = perf_now();
    lat_send(c);
    return perf_wait(c);
}

static int ping_pong(struct perf_client *c, unsigned long n, unsigned batch, struct perf_round *out)
{
    int rc;

    if (n < batch)
        batch = (unsigned)n;
    c->samples = malloc((n / batch + 1) * sizeof(double));
    if (!c->samples)
        return perf_fail(c, PLAIT_E_NOMEM, "no memory for %lu times", n / batch);
    c->nsamples = 0;
    rc = perf_round_trips(c, n, batch);
    out->half_rtt = stats_of(c->samples, c->nsamples);
    out->value = out->half_rtt.p50;
    free(c->samples);
    c->samples = NULL;
    return rc;
}

static int lat_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    return ping_pong(c, n, LAT_BATCH, out);
}

/* Between two round trips both sides get the time to fall asleep: a message that comes while the other is
 * about to would wake nobody. */
static int wake_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    struct perf_round one = { 0 };
    double *v = malloc(n * sizeof(*v));
    int rc = 0;

    if (!v)
        return perf_fail(c, PLAIT_E_NOMEM, "no memory for %lu times", n);
    for (unsigned long i = 0; i < n && rc >= 0; i++) {
        rc = plait_ctx_run(c->ctx, ASLEEP_US);
        if (rc < 0)
            perf_fail(c, rc, NULL);
        else
            rc = ping_pong(c, 1, 1, &one);
        v[i] = one.value;
    }
    if (rc >= 0)
        out->half_rtt = stats_of(v, n);
    out->value = out->half_rtt.p50;
    free(v);
    return rc;
}

static const struct plait_conn_ops lat_copy_ops = { .on_message = lat_message_copy,
                                                    .on_writable = perf_lat_writable };
static const struct plait_conn_ops lat_ops = { .on_message = perf_lat_message,
                                               .on_writable = perf_lat_writable };

/* ---- parts: one interruption of the machine does not count ---- */

unsigned long perf_part_of(const struct perf_client *c, unsigned long n)
{
    /* what is in flight at the end of a part must not matter; else all is one part */
    return n / PERF_PARTS >= 20ul * c->window ? n / PERF_PARTS : n;
}

__attribute__((noinline)) void perf_part_over(struct perf_client *c)
{
    if (c->nparts < PERF_PARTS)
        c->part_end[c->nparts++] = perf_now();
}

/* Messages a second, from parts of `part` messages each; what n has beyond them is not counted. */
double perf_parts_rate(const struct perf_client *c, unsigned long part)
{
    double rate[PERF_PARTS], from = c->t0;

    for (unsigned i = 0; i < c->nparts; i++) {
        rate[i] = (double)part / (c->part_end[i] - from) * 1e9;
        from = c->part_end[i];
    }
    return stats_median(rate, c->nparts);
}

/* ---- rate, bw: a stream one way, confirmed at its end ---- */

static int stream(struct perf_client *c, unsigned long n, unsigned batch, struct perf_round *out)
{
    unsigned long i, part = perf_part_of(c, n), left = part;
    unsigned more = batch;
    int rc;

    c->nparts = 0;
    c->t0 = perf_now();
    for (i = 0; i < n; i++) {
        unsigned flags = PLAIT_MORE;

        if (--more == 0) {
            flags = 0;
            more = batch;
        }
        while (__builtin_expect((rc = perf_send(c->conn, c->buf, c->size, flags)) != 0, 0)) {
            if (rc != PLAIT_E_AGAIN)
                return perf_fail(c, rc, NULL);
            c->blocked = true;
            if (perf_wait_space(c) < 0)
                return c->status;
        }
        if (__builtin_expect(--left == 0, 0) && i + 1 < n) {
            perf_part_over(c);
            left = part;
        }
    }
    rc = perf_control(c, PERF_COUNT, 0); /* behind them all: its reply says that they have arrived */
    if (rc < 0)
        return rc;
    if (left == 0)
        perf_part_over(c);
    if (c->answer.count != n || c->answer.bytes != n * c->size)
        return perf_fail(c, PLAIT_E_PROTO, "the peer counted %llu messages of %lu",
                         (unsigned long long)c->answer.count, n);
    out->value = perf_parts_rate(c, part);
    return 0;
}

static int rate_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    return stream(c, n, c->batch, out);
}

static int bw_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc = stream(c, n, c->size < 1024 ? c->batch : 1, out);

    out->value *= (double)c->size;
    return rc;
}

static const struct plait_conn_ops stream_ops = { .on_writable = perf_on_writable };

/* ---- rpc: requests, `window` of them in flight ---- */

static void rpc_reply(struct plait_msg *reply, int status, void *arg);

static void rpc_issue(struct perf_client *c)
{
    int rc;

    while (c->to_send > 0 && c->left - c->to_send < c->window) {
        /* from inside a poll, so what MORE holds back goes out at its end */
        rc = plait_request(c->conn, c->buf, c->size, PLAIT_MORE, rpc_reply, c);
        if (rc == 0) {
            c->to_send--;
        } else {
            if (rc == PLAIT_E_AGAIN)
                c->blocked = true; /* rpc_writable() goes on */
            else
                perf_fail(c, rc, NULL);
            return;
        }
    }
}

static void rpc_writable(struct plait_conn *conn, void *arg)
{
    perf_on_writable(conn, arg);
    rpc_issue(arg);
}

static void rpc_reply(struct plait_msg *reply, int status, void *arg)
{
    struct perf_client *c = arg;

    if (__builtin_expect(status != 0 || reply->len != c->size, 0)) {
        if (status != PLAIT_E_PEERDIED)
            perf_fail(c, status < 0 ? status : PLAIT_E_PROTO, "a request was not answered as it should: %s",
                      status < 0 ? plait_strerror(status) : "the reply has another size");
        return;
    }
    if (__builtin_expect(--c->part_left == 0, 0)) {
        perf_part_over(c);
        c->part_left = c->part;
    }
    if (__builtin_expect(--c->left == 0, 0)) {
        perf_done(c);
    } else if (__builtin_expect(c->to_send > 0 && !c->blocked, 1) &&
               __builtin_expect(plait_request(c->conn, c->buf, c->size, PLAIT_MORE, rpc_reply, c) == 0, 1)) {
        c->to_send--; /* one for one */
    } else {
        rpc_issue(c);
    }
}

static int rpc_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc;

    c->nparts = 0;
    c->part = c->part_left = perf_part_of(c, n);
    c->left = c->to_send = n;
    c->t0 = perf_now();
    rpc_issue(c);
    plait_flush(c->conn);
    rc = perf_wait(c);
    out->value = perf_parts_rate(c, c->part);
    return rc;
}

static const struct plait_conn_ops rpc_ops = { .on_writable = rpc_writable };

/* ---- limits ---- */

static unsigned long between(unsigned long v, unsigned long lo, unsigned long hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

int perf_lat_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                   struct perf_limits *out)
{
    struct limit_lat l = { 0 };
    int rc = limit_lat_run(pair, (unsigned)between(n, 100, 50000), &l);

    (void)size;
    (void)window;
    out->value = l.half_rtt_ns;
    out->physical = l.physical_ns;
    return rc;
}

static int rate_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                      struct perf_limits *out)
{
    struct limit_rate l = { 0 };
    int rc = limit_rate_run(pair, size, between(n, 1000, 2000000), &l);

    (void)window;
    out->value = l.msgs_per_s;
    return rc;
}

/* There is no bare form of requests. Two bounds that hold for every one: a request is two messages, and
 * each side handles both, so there are at most half as many as messages in a ring; and none is answered
 * sooner than a round trip takes. */
static int rpc_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                     struct perf_limits *out)
{
    struct perf_limits lat = { 0 }, rate = { 0 };
    double turn;
    int rc = perf_lat_limit(pair, size, window, n, &lat);

    if (rc == 0)
        rc = rate_limit(pair, size, window, n, &rate);
    if (rc < 0)
        return rc;
    turn = window / (2 * lat.value) * 1e9;
    out->value = rate.value / 2 < turn ? rate.value / 2 : turn;
    return 0;
}

static int bw_limits(int rc, const struct limit_bw *l, struct perf_limits *out)
{
    out->value = l->bytes_per_s;
    out->memcpy = l->memcpy_bytes_per_s;
    out->pipelined = l->pipelined_bytes_per_s;
    return rc;
}

static int bw_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                    struct perf_limits *out)
{
    struct limit_bw l = { 0 };

    (void)window;
    return bw_limits(limit_bw_run(pair, size, between(n * size, 1 << 20, 256ul << 20), &l), &l, out);
}

int perf_duplex_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                      struct perf_limits *out)
{
    struct limit_bw l = { 0 };

    (void)window;
    return bw_limits(limit_duplex_run(pair, size, between(n * size, 1 << 20, 256ul << 20), &l), &l, out);
}

static int wake_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                      struct perf_limits *out)
{
    struct limit_wake l = { 0 };
    int rc = limit_wake_run(pair, (unsigned)between(n, 10, 1000), &l);

    (void)size;
    (void)window;
    out->value = l.eventfd_ns;
    return rc;
}

/* ---- how many ---- */

unsigned long perf_lat_iterations(size_t size)
{
    return 200000 / (1 + size / 1024) + 2000;
}

static unsigned long rate_iterations(size_t size)
{
    return 4000000 / (1 + size / 128) + 2000;
}

static unsigned long rpc_iterations(size_t size)
{
    return 2000000 / (1 + size / 128) + 2000;
}

unsigned long perf_bw_iterations(size_t size)
{
    return (1ul << 30) / (size + 512) + 10;
}

static unsigned long wake_iterations(size_t size)
{
    (void)size;
    return 1000;
}

#define LAT_SIZES "8,64,1k,4k,64k"

const struct perf_kind perf_lat_copy_kind = { PERF_LAT, PERF_ECHO_COPY, &lat_copy_ops, lat_round, perf_lat_limit,
                                              perf_lat_iterations, LAT_SIZES, "1", false };

const struct perf_kind *perf_kind(enum perf_test t)
{
    static const struct perf_kind kinds[PERF_TESTS] = {
        [PERF_LAT] = { PERF_LAT, PERF_ECHO, &lat_ops, lat_round, perf_lat_limit,
                       perf_lat_iterations, LAT_SIZES, "1", false },
        [PERF_RATE] = { PERF_RATE, PERF_SINK, &stream_ops, rate_round, rate_limit, rate_iterations,
                        "8,64,1k", "4096", false },
        [PERF_RPC] = { PERF_RPC, PERF_REPLY, &rpc_ops, rpc_round, rpc_limit, rpc_iterations, "8", "64",
                       false },
        [PERF_BW] = { PERF_BW, PERF_SINK, &stream_ops, bw_round, bw_limit, perf_bw_iterations,
                      PERF_BW_SIZES, PERF_BW_WINDOW, false },
        [PERF_WAKE] = { PERF_WAKE, PERF_ECHO, &lat_ops, wake_round, wake_limit, wake_iterations, "8", "1",
                        true },
    };

    if (perf_rma_kind(t))
        return perf_rma_kind(t);
    return t > PERF_LIMIT && t < PERF_TESTS ? &kinds[t] : NULL;
}
