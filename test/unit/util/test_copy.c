/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "util/copy.h"

enum { MAX = 3000, EDGE = 64 };

static uint8_t from[MAX + 2 * EDGE], to[MAX + 2 * EDGE];

static void try_copy(size_t n, size_t from_at, size_t to_at)
{
    memset(to, 0xee, sizeof to);
    pli_copy(to + EDGE + to_at, from + EDGE + from_at, n);
    cr_assert_eq(memcmp(to + EDGE + to_at, from + EDGE + from_at, n), 0, "%zu bytes from %zu to %zu", n, from_at, to_at);
    for (size_t i = 0; i < EDGE + to_at; i++)
        cr_assert_eq(to[i], 0xee, "%zu bytes from %zu to %zu: written before", n, from_at, to_at);
    for (size_t i = EDGE + to_at + n; i < sizeof to; i++)
        cr_assert_eq(to[i], 0xee, "%zu bytes from %zu to %zu: written behind", n, from_at, to_at);
}

static void fill(void)
{
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i * 7 + (i >> 8));
}

Test(copy, every_length)
{
    fill();
    for (size_t n = 0; n < MAX - EDGE; n++)
        try_copy(n, n % 5, n % 3);
}

Test(copy, every_alignment)
{
    static const size_t sizes[] = { 511, 512, 513, 640, 1024, 2047, 2900 };

    fill();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t a = 0; a < 40; a++)
            for (size_t b = 0; b < 40; b++)
                try_copy(sizes[i], a, b);
}

/* Blocks of just these bytes: a sanitizer sees a byte that is read or written too much. */
Test(copy, stays_inside)
{
    for (size_t n = 1; n < 1500; n += n < 600 ? 1 : 37) {
        uint8_t *a = malloc(n), *b = malloc(n);

        cr_assert(a && b);
        memset(a, (int)n, n);
        pli_copy(b, a, n);
        cr_assert_eq(memcmp(a, b, n), 0);
        free(a);
        free(b);
    }
}
