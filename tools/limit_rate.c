/* SPDX-License-Identifier: BSD-3-Clause */
/* A bare ring with one producer and one consumer, in the usual forms. */
#include <string.h>
#include <plait/plait.h>
#include "limit_priv.h"

#define MAX_SLOTS 1024u
#define MAX_BATCH 16u
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static const char *const names[LIMIT_RATE_FORMS] = {
    "index per message", "cached index", "batches of 16", "sequence in the slot",
};

const char *limit_rate_name(int form)
{
    return form >= 0 && form < LIMIT_RATE_FORMS ? names[form] : "?";
}

/* The ring of one run; private to each side. */
struct ring {
    struct limit_pair *p;
    unsigned char *slots;
    uint64_t *head, *tail;
    uint64_t count;       /* slots, a power of two */
    uint64_t slot;        /* bytes of one */
    uint64_t size;        /* bytes of a payload */
    uint64_t batch;       /* messages per publication, a power of two */
    uint64_t n;
};

static void ring_set(struct ring *r, struct limit_pair *p, const struct limit_cmd *cmd)
{
    r->p = p;
    r->slots = p->shm->ring;
    r->head = &p->shm->head;
    r->tail = &p->shm->tail;
    r->size = cmd->size;
    r->slot = (8 + cmd->size + 7) & ~7ull;
    if (r->slot > 32)
        r->slot = (r->slot + 63) & ~63ull;
    /* most of it stays in the first two cache levels, and 8 slots always fit */
    for (r->count = MAX_SLOTS; r->count > 8 && r->count * r->slot > (128u << 10);)
        r->count /= 2;
    r->batch = r->count / 4 < MAX_BATCH ? r->count / 4 : MAX_BATCH;
    r->n = cmd->n;
}

_Static_assert(8 * (LIMIT_RATE_MAX_SIZE + 64) <= LIMIT_RING_BYTES, "8 of the largest slots fit");

/* `size8`, a constant, says that payloads have 8 bytes and slots 16: the compiler then knows all sizes. */
ALWAYS_INLINE unsigned char *slot_at(const struct ring *r, uint64_t i, bool size8)
{
    return r->slots + (i & (r->count - 1)) * (size8 ? 16 : r->slot);
}

static unsigned char source[LIMIT_RATE_MAX_SIZE];

ALWAYS_INLINE void fill(const struct ring *r, unsigned char *s, uint64_t i, bool size8)
{
    if (size8)
        *(volatile uint64_t *)(void *)(s + 8) = i;
    else
        memcpy(s + 8, source, r->size);
}

/* One word of every cache line. */
ALWAYS_INLINE void take(const struct ring *r, const unsigned char *s, bool size8)
{
    uint64_t off;

    if (size8) {
        (void)*(const volatile uint64_t *)(const void *)(s + 8);
        return;
    }
    for (off = 8; off < 8 + r->size; off += 64)
        (void)*(const volatile unsigned char *)(s + off);
}

/* `cached` and `batched` are constants. */
ALWAYS_INLINE int produce_index(struct ring *r, bool cached, bool batched, bool size8)
{
    uint64_t i, seen = 0;

    for (i = 0; i < r->n; i++) {
        unsigned char *s = slot_at(r, i, size8);

        if (!cached)
            seen = limit_load(r->tail);
        if (i - seen >= r->count && limit_wait_reach(r->p, r->tail, i - r->count + 1, &seen))
            return -1;
        *(volatile uint64_t *)(void *)s = r->size;
        fill(r, s, i, size8);
        if (!batched || ((i + 1) & (r->batch - 1)) == 0)
            limit_store(r->head, i + 1);
    }
    limit_store(r->head, i);
    return 0;
}

ALWAYS_INLINE void consume_index(struct ring *r, bool cached, bool size8)
{
    uint64_t i = 0, seen = 0;

    while (i < r->n) {
        if (limit_wait_reach(r->p, r->head, i + 1, &seen))
            return;
        if (!cached)
            seen = i + 1;
        for (; i < seen; i++) {
            unsigned char *s = slot_at(r, i, size8);

            (void)*(volatile uint64_t *)(void *)s;
            take(r, s, size8);
            if (cached && ((i + 1) & (r->batch - 1)) == 0)
                limit_store(r->tail, i + 1);
        }
        limit_store(r->tail, i);
    }
}

ALWAYS_INLINE int produce_sequence(struct ring *r, bool size8)
{
    uint64_t i, seen = 0;

    for (i = 0; i < r->n; i++) {
        unsigned char *s = slot_at(r, i, size8);

        if (i - seen >= r->count && limit_wait_reach(r->p, r->tail, i - r->count + 1, &seen))
            return -1;
        fill(r, s, i, size8);
        limit_store((uint64_t *)(void *)s, i + 1);
    }
    return 0;
}

ALWAYS_INLINE void consume_sequence(struct ring *r, bool size8)
{
    uint64_t i, quarter = r->count / 4 - 1;

    for (i = 0; i < r->n; i++) {
        unsigned char *s = slot_at(r, i, size8);

        if (limit_wait(r->p, (uint64_t *)(void *)s, i + 1, true))
            return;
        take(r, s, size8);
        if ((i & quarter) == quarter)
            limit_store(r->tail, i + 1);
    }
    limit_store(r->tail, i);
}

static int produce(struct ring *r, unsigned form)
{
    bool size8 = r->size == 8;

    switch (form) {
    case LIMIT_RATE_INDEX:
        return size8 ? produce_index(r, false, false, true) : produce_index(r, false, false, false);
    case LIMIT_RATE_CACHED:
        return size8 ? produce_index(r, true, false, true) : produce_index(r, true, false, false);
    case LIMIT_RATE_BATCH:
        return size8 ? produce_index(r, true, true, true) : produce_index(r, true, true, false);
    default:
        return size8 ? produce_sequence(r, true) : produce_sequence(r, false);
    }
}

void limit_rate_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    struct ring r;
    bool size8 = cmd->size == 8;

    ring_set(&r, p, cmd);
    if (cmd->form == LIMIT_RATE_INDEX) {
        if (size8)
            consume_index(&r, false, true);
        else
            consume_index(&r, false, false);
    } else if (cmd->form == LIMIT_RATE_SEQUENCE) {
        if (size8)
            consume_sequence(&r, true);
        else
            consume_sequence(&r, false);
    } else if (size8) {
        consume_index(&r, true, true);
    } else {
        consume_index(&r, true, false);
    }
}

static int run_form(struct limit_pair *p, int form, size_t size, uint64_t n, double *per_s)
{
    struct limit_cmd cmd = {
        .op = LIMIT_OP_RATE, .form = (uint32_t)form, .n = n, .size = size, .cpu = p->cpu_b,
    };
    double v[LIMIT_PARTS];
    struct ring r;
    uint64_t start, seen;
    int i, rc;

    ring_set(&r, p, &cmd);
    for (i = 0; i < LIMIT_PARTS; i++) {
        memset(r.slots, 0, r.count * r.slot); /* no sequence of the part before */
        rc = limit_start(p, &cmd);
        if (rc)
            return rc;
        start = limit_now_ns();
        if (produce(&r, (unsigned)form) || limit_wait_reach(p, r.tail, n, &seen))
            return PLAIT_E_PEERDIED; /* limit_end() puts it in words */
        v[i] = (double)n * 1e9 / (double)(limit_now_ns() - start + 1);
    }
    *per_s = limit_median(v, LIMIT_PARTS);
    return 0;
}

int limit_rate_run(struct limit_pair *p, size_t size, unsigned long messages, struct limit_rate *out)
{
    uint64_t n = messages / LIMIT_PARTS;
    int form, rc;

    if (size < 1 || size > LIMIT_RATE_MAX_SIZE)
        return limit_fail(PLAIT_E_INVAL, "the rate limit is measured for 1 to %u bytes, not for %zu",
                          LIMIT_RATE_MAX_SIZE, size);
    rc = limit_begin(p);
    if (rc)
        return rc;
    for (form = 0; form < LIMIT_RATE_FORMS && rc == 0; form++)
        rc = run_form(p, form, size, n ? n : 1, &out->form[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->best = 0;
    for (form = 0; form < LIMIT_RATE_FORMS; form++)
        if (out->form[form] > out->form[out->best])
            out->best = form;
    out->msgs_per_s = out->form[out->best];
    return 0;
}
