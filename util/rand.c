/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/rand.h"

#include <errno.h>
#include <sys/random.h>

#include "util/err.h"
#include "util/hash.h"

int pli_rand_id(uint8_t id[PLI_ID_BYTES])
{
    ssize_t n;

    /* up to 256 bytes come whole or not at all */
    do {
        n = getrandom(id, PLI_ID_BYTES, 0);
    } while (n < 0 && errno == EINTR);
    if (n != PLI_ID_BYTES)
        return pli_fail_errno("getrandom of %d bytes for an identifier", PLI_ID_BYTES);
    return 0;
}

void pli_rand_seed(struct pli_rand *r, uint64_t seed)
{
    /* neighbouring seeds must not give similar sequences, and the state must never be 0 */
    r->state = pli_hash_u64(seed + 0x9e3779b97f4a7c15ull);
    if (!r->state)
        r->state = 1;
}

uint64_t pli_rand_next(struct pli_rand *r)
{
    uint64_t x = r->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * 0x2545f4914f6cdd1dull;
}

uint64_t pli_rand_below(struct pli_rand *r, uint64_t n)
{
    __extension__ unsigned __int128 wide = pli_rand_next(r);

    return (uint64_t)(wide * n >> 64);
}
