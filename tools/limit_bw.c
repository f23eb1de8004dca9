/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying: memcpy inside one process, and in and out through shared chunks by two, one way and both ways. */
#include <errno.h>
#include <string.h>
#include <plait/plait.h>
#include "limit_priv.h"

#define DEPTH 8u /* chunks that the copy in may be ahead of the copy out, or as many bytes of short messages */

static const char *const names[LIMIT_BW_FORMS] = {
    "memcpy in one process",
    "pipelined, 16 KiB chunks",
    "pipelined, 32 KiB chunks",
    "pipelined, 64 KiB chunks",
    "pipelined, 256 KiB chunks",
};

const char *limit_bw_name(int form)
{
    return form >= 0 && form < LIMIT_BW_FORMS ? names[form] : "?";
}

static size_t chunk_of(unsigned form)
{
    return form == LIMIT_BW_PIPE_256K ? 256u << 10 : (size_t)(8u << 10) << form;
}

_Static_assert(LIMIT_RING_BYTES >= DEPTH * (256u << 10), "the ring holds all chunks");

/* The ring of a form: how long its slots are and how many there are. */
struct slots {
    size_t chunk, stride;
    uint64_t depth;
};

static struct slots slots_of(const struct limit_cmd *cmd)
{
    size_t all = DEPTH * chunk_of(cmd->form), chunk = chunk_of(cmd->form);
    struct slots s;

    s.chunk = cmd->size < chunk ? cmd->size : chunk;
    s.stride = (s.chunk + 63) / 64 * 64;
    s.depth = all / s.stride;
    return s;
}

static size_t chunk_len(size_t size, size_t offset, size_t chunk)
{
    return size - offset < chunk ? size - offset : chunk;
}

/* head counts chunks copied in, tail chunks copied out. */
static int copy_in(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct slots s = slots_of(cmd);
    uint64_t k = 0, seen = 0, i;
    size_t off;

    for (i = 0; i < cmd->n; i++) {
        for (off = 0; off < cmd->size; off += s.chunk, k++) {
            if (k - seen >= s.depth && limit_wait_reach(p, &p->shm->tail, k - s.depth + 1, &seen))
                return -1;
            memcpy(p->shm->ring + k % s.depth * s.stride, p->buf[0] + off,
                   chunk_len(cmd->size, off, s.chunk));
            limit_store(&p->shm->head, k + 1);
        }
    }
    return limit_wait_reach(p, &p->shm->tail, k, &seen);
}

void limit_bw_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct slots s = slots_of(cmd);
    uint64_t k = 0, seen = 0, i;
    size_t off;

    for (i = 0; i < cmd->n; i++) {
        for (off = 0; off < cmd->size; off += s.chunk, k++) {
            if (seen <= k && limit_wait_reach(p, &p->shm->head, k + 1, &seen))
                return;
            memcpy(p->buf[0] + off, p->shm->ring + k % s.depth * s.stride,
                   chunk_len(cmd->size, off, s.chunk));
            limit_store(&p->shm->tail, k + 1);
        }
    }
}

/* One side of a transfer in both directions: what it copies in goes to `head`, what it copies out comes from
 * `theirs`. A chunk of each by turns, whichever is possible. */
struct both {
    uint64_t *head, *tail;     /* ours: we copy in, the other end copies out */
    uint64_t *theirs, *taken;  /* the other end copies in, we copy out */
    unsigned char *out, *in;   /* rings */
    const unsigned char *source;
    unsigned char *target;
    uint64_t sent, freed, received, seen; /* chunks */
    size_t sent_at, received_at;          /* offset in the message */
};

static bool duplex_in(struct both *b, const struct limit_cmd *cmd, const struct slots *s, uint64_t total)
{
    size_t len = chunk_len(cmd->size, b->sent_at, s->chunk);

    if (b->sent == total)
        return false;
    if (b->sent - b->freed >= s->depth)
        b->freed = limit_load(b->tail);
    if (b->sent - b->freed >= s->depth)
        return false;
    memcpy(b->out + b->sent % s->depth * s->stride, b->source + b->sent_at, len);
    limit_store(b->head, ++b->sent);
    b->sent_at = b->sent_at + len < cmd->size ? b->sent_at + len : 0;
    return true;
}

static bool duplex_out(struct both *b, const struct limit_cmd *cmd, const struct slots *s, uint64_t total)
{
    size_t len = chunk_len(cmd->size, b->received_at, s->chunk);

    if (b->received == total)
        return false;
    if (b->seen == b->received)
        b->seen = limit_load(b->theirs);
    if (b->seen == b->received)
        return false;
    memcpy(b->target + b->received_at, b->in + b->received % s->depth * s->stride, len);
    limit_store(b->taken, ++b->received);
    b->received_at = b->received_at + len < cmd->size ? b->received_at + len : 0;
    return true;
}

static int duplex(struct limit_pair *p, struct both *b, const struct limit_cmd *cmd)
{
    struct slots s = slots_of(cmd);
    uint64_t total = cmd->n * ((cmd->size + s.chunk - 1) / s.chunk);
    unsigned left = p->spins;

    while (b->received < total || b->sent < total) {
        bool moved = duplex_in(b, cmd, &s, total);

        moved |= duplex_out(b, cmd, &s, total);
        if (moved) {
            left = p->spins;
            continue;
        }
        limit_relax();
        if (--left == 0) {
            if (limit_wait_slow(p))
                return -1;
            left = p->spins;
        }
    }
    return 0;
}

static int duplex_caller(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct both b = {.head = &p->shm->head, .tail = &p->shm->tail, .theirs = &p->shm->head_back,
                     .taken = &p->shm->tail_back, .out = p->shm->ring, .in = p->shm->ring_back,
                     .source = p->buf[0], .target = p->buf[1]};

    /* The caller alone waits until what it has sent was taken: its next order clears the words, and a peer that
     * still looked at them would wait for ever. */
    return duplex(p, &b, cmd) || limit_wait_reach(p, b.tail, b.sent, &b.freed);
}

void limit_duplex_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct both b = {.head = &p->shm->head_back, .tail = &p->shm->tail_back, .theirs = &p->shm->head,
                     .taken = &p->shm->tail, .out = p->shm->ring_back, .in = p->shm->ring,
                     .source = p->buf[1], .target = p->buf[0]};

    duplex(p, &b, cmd);
}

static int one_part(struct limit_pair *p, struct limit_cmd *cmd, double *bytes_per_s)
{
    uint64_t start, i;
    int rc;

    if (cmd->form != LIMIT_BW_MEMCPY) {
        rc = limit_start(p, cmd);
        if (rc)
            return rc;
        start = limit_now_ns();
        if (cmd->op == LIMIT_OP_DUPLEX ? duplex_caller(p, cmd) : copy_in(p, cmd))
            return PLAIT_E_PEERDIED; /* limit_end() puts it in words */
    } else {
        start = limit_now_ns();
        for (i = 0; i < cmd->n; i++) {
            memcpy(p->buf[1], p->buf[0], cmd->size);
            __asm__ volatile("" : : "r"(p->buf[1]) : "memory"); /* the copy is wanted, every time */
        }
    }
    *bytes_per_s = (double)cmd->n * (double)cmd->size * 1e9 / (double)(limit_now_ns() - start + 1);
    if (cmd->op == LIMIT_OP_DUPLEX && cmd->form != LIMIT_BW_MEMCPY)
        *bytes_per_s *= 2;
    return 0;
}

static int run_form(struct limit_pair *p, enum limit_op op, int form, size_t size, uint64_t n,
                    double *bytes_per_s)
{
    struct limit_cmd cmd = {.op = op, .form = (uint32_t)form, .n = n, .size = size, .cpu = p->cpu_b};
    double v[LIMIT_PARTS];
    int i, rc = 0;

    for (i = 0; i < LIMIT_PARTS && rc == 0; i++)
        rc = one_part(p, &cmd, &v[i]);
    if (rc == 0)
        *bytes_per_s = limit_median(v, LIMIT_PARTS);
    return rc;
}

static int run(struct limit_pair *p, enum limit_op op, size_t size, unsigned long bytes, struct limit_bw *out)
{
    uint64_t n = bytes / LIMIT_PARTS / (size ? size : 1);
    int form, rc;

    if (size < 1 || size > LIMIT_BW_MAX_SIZE)
        return limit_fail(PLAIT_E_INVAL, "the bandwidth limit is measured for 1 to %u bytes, not for %zu",
                          LIMIT_BW_MAX_SIZE, size);
    rc = limit_begin(p);
    if (rc)
        return rc;
    errno = limit_buffers(p, size, 2);
    if (errno)
        rc = limit_fail_errno("memory for the copies");
    for (form = LIMIT_BW_FORMS - 1; form >= 0 && rc == 0; form--)
        rc = run_form(p, op, form, size, n ? n : 1, &out->form[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->memcpy_bytes_per_s = out->form[LIMIT_BW_MEMCPY];
    out->best = LIMIT_BW_MEMCPY + 1;
    for (form = LIMIT_BW_MEMCPY + 1; form < LIMIT_BW_FORMS; form++)
        if (out->form[form] > out->form[out->best])
            out->best = form;
    out->pipelined_bytes_per_s = out->form[out->best];
    if (op == LIMIT_OP_BW && out->memcpy_bytes_per_s > out->pipelined_bytes_per_s)
        out->best = LIMIT_BW_MEMCPY;
    out->bytes_per_s = out->form[out->best];
    return 0;
}

int limit_bw_run(struct limit_pair *p, size_t size, unsigned long bytes, struct limit_bw *out)
{
    return run(p, LIMIT_OP_BW, size, bytes, out);
}

int limit_duplex_run(struct limit_pair *p, size_t size, unsigned long bytes, struct limit_bw *out)
{
    return run(p, LIMIT_OP_DUPLEX, size, bytes, out);
}
