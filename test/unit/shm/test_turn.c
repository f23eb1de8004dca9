/* SPDX-License-Identifier: BSD-3-Clause */
/* Learning how long an answer takes: a peer of a fixed pace, without a clock. */
#include <criterion/criterion.h>
#include "shm/turn.h"

/* Looks until the wait is within a tenth of what the peer takes, in steps; at most `most`. */
static uint32_t looks_to_learn(struct pli_turn *t, uint32_t takes, uint32_t most)
{
    uint32_t n;

    for (n = 0; n < most && (t->wait / 16 < takes - takes / 10 || t->wait / 16 > takes + takes / 10); n++)
        pli_turn_learn(t, t->wait / 16 < takes);
    return n;
}

Test(turn, learns_a_pace_and_follows_it)
{
    static const uint32_t paces[] = { 60, 250, 60, 400, 30, 450 };
    struct pli_turn t = { .wait = PLI_TURN_START };

    for (unsigned i = 0; i < sizeof paces / sizeof paces[0]; i++)
        cr_assert_lt(looks_to_learn(&t, paces[i], 100000), 600, "%u steps after %u", paces[i], i ? paces[i - 1] : 0);
}

/* At its place one look of four is early, and the wait stays near. */
Test(turn, stays_at_its_place)
{
    struct pli_turn t = { .wait = 60 * 16 };
    unsigned early = 0;

    for (unsigned i = 0; i < 100000; i++) {
        bool e = t.wait / 16 < 60;

        early += e;
        pli_turn_learn(&t, e);
        cr_assert(t.wait / 16 >= 58 && t.wait / 16 <= 62, "%u", t.wait);
    }
    cr_assert(early > 20000 && early < 30000, "%u of 100000 early", early);
}

Test(turn, has_bounds)
{
    struct pli_turn t = { 0 };

    for (unsigned i = 0; i < 10000; i++)
        pli_turn_learn(&t, false);
    cr_assert_eq(t.wait, 0);
    for (unsigned i = 0; i < 100000; i++)
        pli_turn_learn(&t, true);
    cr_assert_eq(t.wait, PLI_TURN_MAX);
    t.early = t.late = UINT32_MAX; /* the counts wrap, the steps do not */
    pli_turn_learn(&t, true);
    cr_assert_eq(t.wait, PLI_TURN_MAX);
    pli_turn_learn(&t, false);
    cr_assert_lt(t.wait, PLI_TURN_MAX);
}
