/* SPDX-License-Identifier: BSD-3-Clause */
/* Identifiers that nobody can guess, and fast random numbers that must not be unguessable. */
#ifndef PLI_UTIL_RAND_H
#define PLI_UTIL_RAND_H

#include <stdint.h>

#define PLI_ID_BYTES 16

/* Fills id from getrandom(2): process incarnations, tokens. May block only in the first seconds after
 * boot. Any thread. Returns 0 or PLAIT_E_SYSTEM. */
int pli_rand_id(uint8_t id[PLI_ID_BYTES]);

/* State of one generator (xorshift64*, Vigna 2016); its owner serialises the calls. */
struct pli_rand {
    uint64_t state;
};

/* Any seed will do, 0 too; equal seeds give equal sequences. */
void pli_rand_seed(struct pli_rand *r, uint64_t seed);

/* The next 64 bits. */
uint64_t pli_rand_next(struct pli_rand *r);

/* A number in 0..n-1 (n > 0), uniform but for a bias of at most n/2^64: backoff, test delays. */
uint64_t pli_rand_below(struct pli_rand *r, uint64_t n);

#endif
