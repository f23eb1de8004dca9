/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf lat --beside: round trips on one connection while another one of the same link streams long
 * messages, sent by the same thread from its callbacks. */
#include "perf.h"

#include <stdlib.h>

#define CHUNK 128u        /* round trips between two looks at how long it takes with the stream */
#define ENOUGH_NS 5e8     /* such a round need not last longer, */
#define STUCK_NS 1e10     /* but the stream must have moved so soon */
#define MOVED (2 * PERF_BESIDE_WINDOW) /* messages */
#define BATCH 32u

/* ---- the stream ---- */

static void stream(struct perf_client *c);

static void stream_done(int status, void *arg)
{
    struct perf_client *c = arg;
    struct perf_beside *b = &c->beside;

    b->inflight--;
    b->done++;
    if (status != 0)
        b->on = false; /* the session's on_closed tells why */
    stream(c);
    if (b->done == b->wait_for || (!b->on && b->inflight == 0))
        perf_done(c);
}

/* As many as the window allows; what is done, or writable, goes on. */
static void stream(struct perf_client *c)
{
    struct perf_beside *b = &c->beside;
    struct plait_out out = PLAIT_OUT_INIT;
    int rc = 0;

    out.data = c->buf;
    out.len = b->size;
    out.flags = PLAIT_NOCOPY;
    out.on_done = stream_done;
    out.arg = c;
    while (b->on && b->inflight < PERF_BESIDE_WINDOW && (rc = plait_sendx(b->conn, &out)) == 0) {
        b->inflight++;
        b->sent++;
    }
    if (rc < 0 && rc != PLAIT_E_AGAIN) {
        b->on = false;
        perf_fail(c, rc, NULL);
    }
}

/* Returns when the first messages have arrived. */
static int stream_start(struct perf_client *c)
{
    struct perf_beside *b = &c->beside;

    b->sent = b->done = 0;
    b->wait_for = PERF_BESIDE_WINDOW;
    b->on = true;
    stream(c);
    return perf_wait(c);
}

/* Returns when the last one has arrived. */
static int stream_stop(struct perf_client *c)
{
    struct perf_beside *b = &c->beside;

    b->on = false;
    return b->inflight > 0 ? perf_wait(c) : c->status;
}

/* ---- a round ---- */

/* Round trips, whose times are appended. */
static int trips(struct perf_client *c, unsigned long n)
{
    unsigned batch = n < BATCH ? (unsigned)n : BATCH;
    double *more = realloc(c->samples, (c->nsamples + n / batch + 1) * sizeof(double));

    if (!more)
        return perf_fail(c, PLAIT_E_NOMEM, "no memory for %lu times", n / batch);
    c->samples = more;
    return perf_round_trips(c, n, batch);
}

static int alone(struct perf_client *c, unsigned long n)
{
    return trips(c, n / 2 + 1);
}

/* At least n, and until the stream has moved; fewer where that takes long. */
static int beside(struct perf_client *c, unsigned long n, double *rate)
{
    struct perf_beside *b = &c->beside;
    unsigned long chunk = n < CHUNK ? n : CHUNK, made = 0, first;
    double from, ns;
    int rc = stream_start(c);

    from = perf_now();
    first = b->done;
    do {
        rc = rc == 0 ? trips(c, chunk) : rc;
        if (rc < 0)
            return rc;
        made += chunk;
        ns = perf_now() - from;
        if (ns > STUCK_NS && b->done - first < MOVED)
            return perf_fail(c, PLAIT_E_TIMEDOUT, "the stream beside stands still: %lu messages of %zu bytes in "
                             "%.0f s", b->done - first, b->size, ns / 1e9);
    } while ((made < n && ns < ENOUGH_NS) || b->done - first < MOVED);
    *rate = (double)(b->done - first) * (double)b->size / ns * 1e9;
    return stream_stop(c);
}

/* Both connections must be on one link: the context has no other one. */
static int check_link(struct perf_client *c)
{
    struct plait_ctx_stats st = { .size = sizeof(st) };

    if (plait_ctx_get_stats(c->ctx, &st) < 0)
        return perf_fail(c, PLAIT_E_INVAL, NULL);
    c->beside.links = (unsigned)st.links;
    return st.links == 1 ? 0 : perf_fail(c, PLAIT_E_PROTO, "the two connections have %u links, not one",
                                         c->beside.links);
}

static int measure(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    struct perf_beside *b = &c->beside;
    size_t before;
    double *quiet;
    int rc = check_link(c);

    /* without, with, without: what drifts meanwhile counts on both sides */
    rc = rc == 0 ? alone(c, n) : rc;
    before = c->nsamples;
    rc = rc == 0 ? beside(c, n, &out->beside_rate) : rc;
    if (rc < 0)
        return rc;
    out->beside = stats_of(c->samples + before, c->nsamples - before);
    c->nsamples = before;
    rc = alone(c, n);
    quiet = c->samples;
    out->half_rtt = stats_of(quiet, c->nsamples);
    out->value = out->half_rtt.p50;
    if (rc == 0)
        rc = perf_control(c, PERF_COUNT, 0);
    if (rc == 0 && (c->answer.count != b->sent || c->answer.bytes != b->sent * b->size))
        return perf_fail(c, PLAIT_E_PROTO, "the peer counted %llu messages of %lu beside",
                         (unsigned long long)c->answer.count, b->sent);
    return rc;
}

static int beside_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc;

    c->samples = NULL;
    c->nsamples = 0;
    rc = measure(c, n, out);
    free(c->samples);
    c->samples = NULL;
    return rc;
}

static void beside_writable(struct plait_conn *conn, void *arg)
{
    struct perf_client *c = arg;

    if (conn == c->beside.conn)
        stream(c);
    else
        perf_lat_writable(conn, arg);
}

static const struct plait_conn_ops beside_ops = { .on_message = perf_lat_message,
                                                  .on_writable = beside_writable };

const struct perf_kind perf_beside_kind = {
    .test = PERF_LAT, .mode = PERF_BESIDE, .ops = &beside_ops, .round = beside_round, .limit = perf_lat_limit,
    .iterations = perf_lat_iterations, .sizes = "8", .windows = "1", .sleeps = false,
};
