/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf put, get, atomic: one-sided operations on a region that the peer exports. The peer's program does nothing meanwhile. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

static struct plait_key key;
static unsigned char *target; /* of get */

/* ---- the region ---- */

static void on_key(struct plait_msg *reply, int status, void *arg)
{
    struct perf_client *c = arg;

    if (status || reply->len != sizeof(key)) {
        if (!c->closing && status != PLAIT_E_PEERDIED) /* else the session's end says it better */
            perf_fail(c, status < 0 ? status : PLAIT_E_PROTO, "the peer could not export a region of %zu bytes", c->size);
        return;
    }
    memcpy(&key, reply->data, sizeof(key));
    perf_done(c);
}

static void on_flush(int status, void *arg)
{
    if (status)
        perf_fail(arg, status, "a one-sided operation failed: %s", plait_strerror(status));
    else
        perf_done(arg);
}

static int flush(struct perf_client *c)
{
    int rc;

    while ((rc = plait_rma_flush(c->conn, on_flush, c)) == PLAIT_E_AGAIN && plait_ctx_poll(c->ctx) >= 0)
        continue;
    return rc < 0 ? perf_fail(c, rc, NULL) : perf_wait(c);
}

/* Asks for the key, and waits until the region is there. */
static int meet_region(struct perf_client *c)
{
    struct perf_cmd cmd = { .op = PERF_EXPORT };
    struct plait_out out = PLAIT_OUT_INIT;
    uint64_t size = c->size;
    int rc;

    out.hdr = &cmd;
    out.hdr_len = sizeof(cmd);
    out.data = &size;
    out.len = sizeof(size);
    out.on_reply = on_key;
    out.arg = c;
    rc = plait_sendx(c->conn, &out);
    if (rc < 0)
        return perf_fail(c, rc, NULL);
    if (perf_wait(c) < 0)
        return c->status;
    rc = plait_put(c->conn, &key, 0, NULL, 0, NULL, NULL);
    return rc < 0 ? perf_fail(c, rc, NULL) : flush(c);
}

/* ---- rounds ---- */

static int put(struct perf_client *c)
{
    return plait_put(c->conn, &key, 0, c->buf, c->size, NULL, NULL);
}

static int get(struct perf_client *c)
{
    return plait_get(c->conn, &key, 0, target, c->size, NULL, NULL);
}

static int add(struct perf_client *c)
{
    return plait_atomic_add(c->conn, &key, 0, 1, NULL, NULL, NULL);
}

/* Operations a second: the median of parts. */
static inline int rounds(struct perf_client *c, unsigned long n, int (*one)(struct perf_client *), double *per_s)
{
    unsigned nparts = n < PERF_PARTS ? 1 : PERF_PARTS, p;
    unsigned long part = n / nparts, i;
    double rate[PERF_PARTS], from;
    int rc = meet_region(c);

    if (rc < 0)
        return rc;
    for (p = 0; p < nparts; p++) {
        from = perf_now();
        for (i = 0; i < part; i++) {
            while ((rc = one(c)) == PLAIT_E_AGAIN && plait_ctx_poll(c->ctx) >= 0) /* as many as may be under way */
                continue;
            if (__builtin_expect(rc < 0, 0))
                return perf_fail(c, rc, NULL);
        }
        rc = flush(c);
        if (rc < 0)
            return rc;
        rate[p] = (double)part / (perf_now() - from) * 1e9;
    }
    *per_s = stats_median(rate, nparts);
    return 0;
}

static int put_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc = rounds(c, n, put, &out->value);

    out->value *= (double)c->size;
    return rc;
}

static int get_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    int rc;

    target = malloc(c->size);
    if (!target)
        return perf_fail(c, PLAIT_E_NOMEM, "no memory for %zu bytes", c->size);
    memset(target, 1, c->size);
    rc = rounds(c, n, get, &out->value);
    out->value *= (double)c->size;
    free(target);
    target = NULL;
    return rc;
}

static int atomic_round(struct perf_client *c, unsigned long n, struct perf_round *out)
{
    return rounds(c, n, add, &out->value);
}

static const struct plait_conn_ops no_ops = { .on_open = NULL };

/* ---- limits ---- */

static int copy_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n, struct perf_limits *out)
{
    unsigned long bytes = n * size;
    struct limit_bw l = { 0 };
    int rc = limit_bw_run(pair, size, bytes < 1u << 20 ? 1u << 20 : bytes > 256u << 20 ? 256u << 20 : bytes, &l);

    (void)window;
    out->value = out->memcpy = l.memcpy_bytes_per_s;
    return rc;
}

static int add_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n, struct perf_limits *out)
{
    struct limit_atomic l = { 0 };
    int rc = limit_atomic_run(pair, n, &l);

    (void)size;
    (void)window;
    out->value = l.ops_per_s;
    return rc;
}

/* ---- how many ---- */

static unsigned long copies(size_t size)
{
    return (1ul << 30) / (size + 512) + 10;
}

static unsigned long adds(size_t size)
{
    (void)size;
    return 2000000;
}

/* The peer sleeps: where two CPUs are two threads of one core, its polling would cost us half. */
const struct perf_kind *perf_rma_kind(enum perf_test t)
{
    static const struct perf_kind put_kind = { PERF_PUT, PERF_IDLE, &no_ops, put_round, copy_limit, copies,
                                               "4k,64k,256k,1M,4M", "1", true };
    static const struct perf_kind get_kind = { PERF_GET, PERF_IDLE, &no_ops, get_round, copy_limit, copies,
                                               "4k,64k,256k,1M,4M", "1", true };
    static const struct perf_kind atomic_kind = { PERF_ATOMIC, PERF_IDLE, &no_ops, atomic_round, add_limit, adds,
                                                  "8", "1", true };

    return t == PERF_PUT ? &put_kind : t == PERF_GET ? &get_kind : t == PERF_ATOMIC ? &atomic_kind : NULL;
}

/* ---- the peer ---- */

/* A client has a session for each size: the region is made once. NULL, or why not. */
static const char *make_window(struct plait_mem **mem, uint64_t size)
{
    struct plait_mem_opts mo = PLAIT_MEM_OPTS_INIT;

    if (*mem)
        return NULL;
    if (size > LIMIT_BW_MAX_SIZE)
        return "a client asks for more than there may be";
    mo.flags = PLAIT_MEM_WRITABLE;
    mo.name = "perf";
    return plait_mem_alloc(mem, size < 8 ? 8 : size, &mo) < 0 ? plait_error_text() : NULL;
}

void perf_export(struct plait_mem **mem, struct plait_key *k, struct plait_msg *msg)
{
    bool fresh = !*mem;
    const char *why;
    uint64_t size;

    if (msg->len != sizeof(size)) {
        plait_conn_abort(msg->conn);
        return;
    }
    memcpy(&size, msg->data, sizeof(size));
    why = make_window(mem, size);
    if (!why && fresh && plait_mem_export(*mem, msg->conn, PLAIT_ACCESS_READ | PLAIT_ACCESS_WRITE, k) < 0)
        why = plait_error_text();
    if (why) {
        cli_error("no region for a client: %s", why);
        plait_reply_error(msg, PLAIT_E_NOMEM);
        return;
    }
    plait_reply(msg, k, sizeof(*k), 0);
}
