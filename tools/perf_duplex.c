/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf bw --duplex: both sides stream at once, the client counts what moves in both directions. */
#include "perf.h"

/* One message more has gone or has come. */
static void moved(struct perf_client *c)
{
    c->moved++;
    if (c->moved % c->part == 0 && c->moved < c->total)
        perf_part_over(c);
}

static void duplex_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct perf_client *c = arg;

    (void)conn;
    if (__builtin_expect(msg->len != c->size || c->left == 0, 0)) {
        perf_fail(c, PLAIT_E_PROTO, "the peer sent %zu bytes that were not expected", msg->len);
        return;
    }
    moved(c);
    if (--c->left == 0)
        perf_done(c);
}

static int send_one(struct perf_client *c, const void *data, size_t size)
{
    int rc;

    while ((rc = perf_send(c->conn, data, size, 0)) != 0) {
        if (rc != PLAIT_E_AGAIN)
            return perf_fail(c, rc, NULL);
        c->blocked = true;
        if (perf_wait_space(c) < 0)
            return c->status;
    }
    return 0;
}

/* An empty message tells the peer to begin. What has come is looked at after each message, so that neither
 * direction goes ahead of the other. */
static int send_all(struct perf_client *c, unsigned long n)
{
    int rc = send_one(c, NULL, 0);

    for (unsigned long i = 0; i < n && rc == 0; i++) {
        rc = send_one(c, c->buf, c->size);
        if (rc < 0)
            return rc;
        moved(c);
        if (!c->park && plait_ctx_poll(c->ctx) < 0)
            return perf_fail(c, PLAIT_E_CLOSED, NULL);
        rc = c->status;
    }
    return rc;
}

static int duplex_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc;

    c->nparts = 0;
    c->moved = 0;
    c->left = n;
    c->total = 2 * n;
    c->part = perf_part_of(c, c->total);
    c->t0 = perf_now();
    rc = send_all(c, n);
    if (rc == 0)
        rc = perf_wait(c);
    if (rc == 0)
        rc = perf_control(c, PERF_COUNT, 0); /* behind them all */
    if (rc < 0)
        return rc;
    if (c->total % c->part == 0)
        perf_part_over(c);
    if (c->answer.count != n || c->answer.bytes != n * c->size)
        return perf_fail(c, PLAIT_E_PROTO, "the peer counted %llu messages of %lu",
                         (unsigned long long)c->answer.count, n);
    out->value = perf_parts_rate(c, c->part) * (double)c->size;
    return 0;
}

static const struct plait_conn_ops duplex_ops = { .on_message = duplex_message,
                                                  .on_writable = perf_on_writable };

const struct perf_kind perf_duplex_kind = {
    .test = PERF_BW, .mode = PERF_DUPLEX, .ops = &duplex_ops, .round = duplex_round,
    .limit = perf_duplex_limit, .iterations = perf_bw_iterations, .sizes = PERF_BW_SIZES,
    .windows = PERF_BW_WINDOW, .sleeps = false,
};
