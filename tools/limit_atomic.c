/* SPDX-License-Identifier: BSD-3-Clause */
/* Locked operations on a line of shared memory that nobody else touches meanwhile: the peer sleeps. */
#include <plait/plait.h>
#include "limit_priv.h"

static const char *const names[LIMIT_ATOMIC_FORMS] = { "add", "compare and swap" };

const char *limit_atomic_name(int form)
{
    return form >= 0 && form < LIMIT_ATOMIC_FORMS ? names[form] : "?";
}

static void adds(uint64_t *word, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
}

/* Each finds what the one before it wrote. */
static void swaps(uint64_t *word, uint64_t n)
{
    uint64_t expected = __atomic_load_n(word, __ATOMIC_RELAXED);

    for (uint64_t i = 0; i < n; i++, expected++)
        __atomic_compare_exchange_n(word, &expected, expected + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

int limit_atomic_run(struct limit_pair *p, unsigned long ops, struct limit_atomic *out)
{
    uint64_t n = ops / LIMIT_PARTS > 100 ? ops / LIMIT_PARTS : 100, start, *word = &p->shm->line_ab;
    double v[LIMIT_PARTS];
    int rc = limit_begin(p);

    if (rc)
        return rc;
    adds(word, 1); /* the line is here */
    for (int form = 0; form < LIMIT_ATOMIC_FORMS; form++) {
        for (int i = 0; i < LIMIT_PARTS; i++) {
            start = limit_now_ns();
            if (form == LIMIT_ATOMIC_ADD)
                adds(word, n);
            else
                swaps(word, n);
            v[i] = (double)n * 1e9 / (double)(limit_now_ns() - start + 1);
        }
        out->form[form] = limit_median(v, LIMIT_PARTS);
    }
    out->ops_per_s = out->form[LIMIT_ATOMIC_ADD];
    return limit_end(p, 0);
}
