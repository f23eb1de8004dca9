/* SPDX-License-Identifier: BSD-3-Clause */
/* What a bare libfabric program can do: ping-pong in three forms, streams in two. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <math.h>
#include <stddef.h>
#include <plait/plait.h>
#include "limit_priv.h"

static const char *const lat_names[LIMIT_FABRIC_FORMS] = {
    "sends, reported by the queue",
    "sends, received without a report",
    "writes into the peer's memory",
};

static const char *const stream_names[LIMIT_FABRIC_STREAMS] = {
    "sends into posted receives",
    "reads from the peer's memory",
};

const char *limit_fabric_lat_name(int form)
{
    return form >= 0 && form < LIMIT_FABRIC_FORMS ? lat_names[form] : "?";
}

const char *limit_fabric_stream_name(int form)
{
    return form >= 0 && form < LIMIT_FABRIC_STREAMS ? stream_names[form] : "?";
}

#ifdef HAVE_LIBFABRIC

#include "limit_fabric_priv.h"

/* limit_cmd.form: a form of the ping-pong, or one of these plus the form of the stream */
#define STREAMS 100u

#define SLOTS 8u /* of a ping-pong */

/* ---- one operation ---- */

/* Posts a send, write or read of one message; again and again while there is no room. */
static int post(struct fabric *f, int form, unsigned slot)
{
    uint64_t at = f->raddr + f->stride * (slot + 1);
    ssize_t rc;
    int bad;

    for (;;) {
        if (form == LIMIT_FABRIC_WRITE)
            rc = f->inject ? fi_inject_write(f->ep, f->mem, f->size, f->peer, at, f->rkey)
                           : fi_write(f->ep, f->mem, f->size, f->desc, f->peer, at, f->rkey, &f->tx);
        else
            rc = f->inject ? fi_inject(f->ep, f->mem, f->size, f->peer)
                           : fi_send(f->ep, f->mem, f->size, f->desc, f->peer, &f->tx);
        if (__builtin_expect(rc == 0, 1))
            break;
        if (rc != -FI_EAGAIN)
            return fabric_fail("an operation was not taken", rc);
        bad = fabric_idle(f);
        if (bad)
            return bad;
    }
    f->sent += !f->inject;
    f->turns += f->inject;
    return 0;
}

/* Waits until not more than `most` of the reported operations are under way. */
static int drain(struct fabric *f, uint64_t most)
{
    int rc = 0;

    while (f->sent - f->done > most && rc == 0)
        rc = fabric_idle(f);
    return rc;
}

/* ---- ping-pong: message i ends with a mark of its own, by which its receiver finds it in memory ---- */

static unsigned char mark(uint64_t i)
{
    return (unsigned char)(i % 255 + 1);
}

static int ping(struct fabric *f, int form, uint64_t i)
{
    int rc = drain(f, 0);

    f->mem[f->size - 1] = mark(i);
    return rc ? rc : post(f, form, (unsigned)(i % f->depth));
}

static int pong(struct fabric *f, int form, uint64_t i)
{
    unsigned slot = (unsigned)(i % f->depth);
    volatile unsigned char *last = fabric_slot(f, slot) + f->size - 1;
    int rc = 0;

    if (form == LIMIT_FABRIC_SEND) {
        while (f->received <= i && rc == 0)
            rc = fabric_idle(f);
        return rc;
    }
    while (*last != mark(i) && rc == 0)
        rc = fabric_idle(f);
    f->turns++;
    if (rc == 0 && form == LIMIT_FABRIC_QUIET) {
        *last = 0;
        rc = fabric_post(f, slot);
    }
    return rc;
}

static int ping_pong(struct fabric *f, int form, uint64_t from, uint64_t n)
{
    int rc = 0;

    for (uint64_t i = from; i < from + n && rc == 0; i++) {
        rc = ping(f, form, i);
        if (rc == 0)
            rc = pong(f, form, i);
    }
    return rc;
}

static int lat_peer(struct fabric *f, int form, uint64_t n)
{
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++) {
        rc = pong(f, form, i);
        if (rc == 0)
            rc = ping(f, form, i);
    }
    return rc;
}

/* ---- streams, from the caller to the peer: in parts, each of which ends when the peer has it all ---- */

/* Messages that are under way. */
static unsigned depth_of(size_t size)
{
    size_t n = (16u << 20) / size;

    return n < 2 ? 2 : n > FABRIC_DEPTH_MAX ? FABRIC_DEPTH_MAX : (unsigned)n;
}

static int stream_part(struct fabric *f, int form, uint64_t n, uint64_t part)
{
    uint64_t i;
    int rc = 0;

    for (i = 0; i < n && rc == 0 && form == LIMIT_FABRIC_STREAM; i++) {
        rc = drain(f, f->depth - 1);
        if (rc == 0)
            rc = post(f, LIMIT_FABRIC_SEND, 0);
    }
    while (rc == 0 && limit_load(&f->p->shm->line_b) < part)
        rc = fabric_idle(f);
    return rc;
}

static int read_one(struct fabric *f, uint64_t i)
{
    unsigned char *to = fabric_slot(f, (unsigned)(i % f->depth));
    ssize_t rc;
    int bad = 0;

    while ((rc = fi_read(f->ep, to, f->size, f->desc, f->peer, f->raddr, f->rkey, &f->tx)) == -FI_EAGAIN && !bad)
        bad = fabric_idle(f);
    f->sent++;
    return bad ? bad : rc ? fabric_fail("fi_read", rc) : 0;
}

static int stream_peer(struct fabric *f, int form, uint64_t n)
{
    uint64_t part, i;
    int rc = 0;

    for (part = 1; part <= LIMIT_PARTS && rc == 0; part++) {
        while (form == LIMIT_FABRIC_READ && rc == 0 && limit_load(&f->p->shm->line_a) < part)
            rc = fabric_idle(f); /* the clock is not read yet */
        for (i = 0; i < n && rc == 0 && form == LIMIT_FABRIC_READ; i++) {
            rc = drain(f, f->depth - 1);
            if (rc == 0)
                rc = read_one(f, i);
        }
        if (rc == 0)
            rc = drain(f, 0);
        while (rc == 0 && form == LIMIT_FABRIC_STREAM && f->received < part * n)
            rc = fabric_idle(f);
        if (rc == 0)
            limit_store(&f->p->shm->line_b, part);
    }
    return rc;
}

/* ---- an order ---- */

static int open_for(struct fabric *f, struct limit_pair *p, const struct limit_cmd *cmd)
{
    bool streams = cmd->form >= STREAMS;

    return fabric_open(f, p, cmd->size, streams ? depth_of(cmd->size) : SLOTS, cmd->form == LIMIT_FABRIC_QUIET);
}

/* The peer's end stays open until its next order: the caller must not find a closed one before it has finished. */
static struct fabric kept;

void limit_fabric_tidy(void)
{
    if (kept.p)
        fabric_close(&kept);
    kept.p = NULL;
}

void limit_fabric_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct fabric *f = &kept;
    int rc = open_for(f, p, cmd);

    if (rc == 0)
        rc = cmd->form >= STREAMS ? stream_peer(f, (int)(cmd->form - STREAMS), cmd->n)
                                  : lat_peer(f, (int)cmd->form, cmd->n);
    if (rc == 0)
        rc = drain(f, 0);
    if (rc == 0)
        limit_store(&p->shm->tail_back, 1);
    if (rc < -1)
        limit_give_up(p);
}

static int begin(struct limit_pair *p, struct fabric *f, struct limit_cmd *cmd)
{
    int rc = limit_fabric_missing() ? limit_fail(PLAIT_E_UNSUPPORTED, "%s", limit_fabric_missing()) : 0;

    f->p = NULL;
    if (rc == 0 && (cmd->size < 1 || cmd->size > LIMIT_BW_MAX_SIZE))
        rc = limit_fail(PLAIT_E_INVAL, "the limit of libfabric is measured for 1 to %u bytes, not for %zu",
                        LIMIT_BW_MAX_SIZE, (size_t)cmd->size);
    if (rc == 0)
        rc = limit_start(p, cmd);
    return rc ? rc : open_for(f, p, cmd);
}

/* The caller's end of one order, within limit_begin() and limit_end(). */
static int end(struct limit_pair *p, struct fabric *f, int rc)
{
    if (!f->p)
        return rc;
    while (rc == 0 && !limit_load(&p->shm->tail_back))
        rc = fabric_idle(f); /* what the peer has to finish may need us */
    rc = limit_ended(p, rc);
    fabric_close(f);
    return rc;
}

static int one_lat(struct limit_pair *p, int form, size_t size, unsigned iters, double *half_rtt_ns)
{
    unsigned batch = iters / LIMIT_BATCHES ? iters / LIMIT_BATCHES : 1, i;
    uint64_t done = iters / 10 + 2, start;
    struct limit_cmd cmd = {.op = LIMIT_OP_FABRIC, .form = (uint32_t)form, .cpu = p->cpu_b, .size = size,
                            .n = done + (uint64_t)batch * LIMIT_BATCHES};
    double v[LIMIT_BATCHES];
    struct fabric f;
    int rc = begin(p, &f, &cmd);

    if (rc == 0)
        rc = ping_pong(&f, form, 0, done);
    for (i = 0; i < LIMIT_BATCHES && rc == 0; i++) {
        start = limit_now_ns();
        rc = ping_pong(&f, form, done, batch);
        v[i] = (double)(limit_now_ns() - start) / 2 / batch;
        done += batch;
    }
    if (rc == 0)
        *half_rtt_ns = limit_median(v, LIMIT_BATCHES);
    return end(p, &f, rc);
}

static int one_stream(struct limit_pair *p, int form, size_t size, unsigned long messages, double *per_s)
{
    struct limit_cmd cmd = {.op = LIMIT_OP_FABRIC, .form = STREAMS + (uint32_t)form, .cpu = p->cpu_b, .size = size,
                            .n = messages / LIMIT_PARTS ? messages / LIMIT_PARTS : 1};
    double v[LIMIT_PARTS];
    struct fabric f;
    uint64_t start;
    int rc = begin(p, &f, &cmd), i;

    for (i = 0; i < LIMIT_PARTS && rc == 0; i++) {
        start = limit_now_ns();
        limit_store(&p->shm->line_a, (uint64_t)i + 1);
        rc = stream_part(&f, form, cmd.n, (uint64_t)i + 1);
        v[i] = (double)cmd.n * 1e9 / (double)(limit_now_ns() - start + 1);
    }
    if (rc == 0)
        *per_s = limit_median(v, LIMIT_PARTS);
    return end(p, &f, rc);
}

/* Only the first form of each is there with every provider. */
static int lacking(struct limit_pair *p, int rc, int form, double *v)
{
    if (rc == 0 || form == 0 || p->dead || rc == PLAIT_E_PEERDIED)
        return rc;
    *v = NAN;
    return 0;
}

int limit_fabric_lat(struct limit_pair *p, size_t size, unsigned iters, struct limit_fabric_lat *out)
{
    int form, rc = limit_begin(p);

    if (rc)
        return rc;
    for (form = 0; form < LIMIT_FABRIC_FORMS && rc == 0; form++)
        rc = lacking(p, one_lat(p, form, size, iters, &out->form[form]), form, &out->form[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->best = 0;
    for (form = 1; form < LIMIT_FABRIC_FORMS; form++)
        if (out->form[form] < out->form[out->best])
            out->best = form;
    out->half_rtt_ns = out->form[out->best];
    return 0;
}

int limit_fabric_stream(struct limit_pair *p, size_t size, unsigned long messages, struct limit_fabric_stream *out)
{
    int form, rc = limit_begin(p);

    if (rc)
        return rc;
    for (form = 0; form < LIMIT_FABRIC_STREAMS && rc == 0; form++)
        rc = lacking(p, one_stream(p, form, size, messages, &out->form[form]), form, &out->form[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->best = out->form[LIMIT_FABRIC_READ] > out->form[LIMIT_FABRIC_STREAM];
    out->per_s = out->form[out->best];
    return 0;
}

#else

void limit_fabric_tidy(void)
{
}

void limit_fabric_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    (void)p;
    (void)cmd;
}

int limit_fabric_lat(struct limit_pair *p, size_t size, unsigned iters, struct limit_fabric_lat *out)
{
    (void)p;
    (void)size;
    (void)iters;
    (void)out;
    return limit_fail(PLAIT_E_UNSUPPORTED, "%s", limit_fabric_missing());
}

int limit_fabric_stream(struct limit_pair *p, size_t size, unsigned long messages, struct limit_fabric_stream *out)
{
    (void)p;
    (void)size;
    (void)messages;
    (void)out;
    return limit_fail(PLAIT_E_UNSUPPORTED, "%s", limit_fabric_missing());
}

#endif
