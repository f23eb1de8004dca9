/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for the answer in a dialogue, one message each way.
 *
 * A look at a line that the peer has not written yet takes it away: the peer must fetch it back before it can write, which takes as long as
 * half a message (measured: doc/memory-model.md). So the first look should come when the answer is there, not sooner, and not much later. How
 * long that takes depends on the peer, and on where the two cores lie; it is learned: longer after each look that came too early, shorter
 * after each that found the answer, in small steps and so that one of four comes too early. (Larger steps put the two sides out of step; with
 * fewer early looks both wait for the other's wait. The constants are from trials.) */
#ifndef PLI_SHM_TURN_H
#define PLI_SHM_TURN_H

#include "shm/ring.h"
#include "util/spin.h"

/* In sixteenths of a step; a step is one multiplication, three or four cycles. */
#define PLI_TURN_START (50u << 4)
#define PLI_TURN_MAX (500u << 4)
#define PLI_TURN_EARLY 3u  /* after a look that came too early: so much longer */
#define PLI_TURN_BACK 1u   /* after one that did not: so much shorter */
#define PLI_TURN_ROW 24u   /* looks of one kind in a row that chance does not explain */
#define PLI_TURN_LOOKS 16u /* further looks, a pause apart: then the rest of the context has its turn */

struct pli_turn {
    uint32_t wait;
    uint32_t early, late; /* looks of one kind in a row */
};

/* The peer has become much slower or faster (other messages, another core): after many of one kind in a row in larger and larger steps. */
static inline uint32_t pli_turn_stride(uint32_t in_a_row)
{
    uint32_t doubled = in_a_row / PLI_TURN_ROW;

    return doubled < 6 ? 1u << doubled : 64;
}

static inline void pli_turn_learn(struct pli_turn *t, bool early)
{
    uint32_t step;

    if (early) {
        t->late = 0;
        step = PLI_TURN_EARLY * pli_turn_stride(t->early++);
        t->wait = t->wait + step < PLI_TURN_MAX ? t->wait + step : PLI_TURN_MAX;
    } else {
        t->early = 0;
        step = PLI_TURN_BACK * pli_turn_stride(t->late++);
        t->wait -= t->wait > step ? step : t->wait;
    }
}

/* Finer than a pause, and leaves the core to its sibling nearly as well: each step waits for the one before. */
static inline void pli_turn_steps(uint32_t n)
{
    uint64_t x = n;

    while (n--) {
        x *= x;
        __asm__ volatile("" : "+r"(x));
    }
}

/* Returns when the next record is there, or after some looks without one: about a microsecond at most. */
static inline void pli_turn_wait(struct pli_turn *t, const struct pli_ring_rx *rx)
{
    uint64_t word0;
    uint32_t i;

    pli_turn_steps(t->wait >> 4);
    if (pli_ring_rx_peek(rx, &word0)) {
        pli_turn_learn(t, false);
        return;
    }
    pli_turn_learn(t, true);
    for (i = 0; i < PLI_TURN_LOOKS && !pli_ring_rx_peek(rx, &word0); i++)
        pli_spin_wait();
}

#endif
