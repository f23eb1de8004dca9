/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/copy.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

enum { LOOP_MIN = 512, STEP = 128 };

/* Aligned stores; the loads may cross lines. n is at least STEP. */
__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, const uint8_t *from, size_t n)
{
    size_t head = (32 - ((uintptr_t)to & 31)) & 31;
    const uint8_t *end = from + n;
    __m256i a, b, c, d;

    _mm256_storeu_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
    to += head;
    from += head;
    for (; (size_t)(end - from) >= STEP; from += STEP, to += STEP) {
        a = _mm256_loadu_si256((const __m256i *)from);
        b = _mm256_loadu_si256((const __m256i *)(from + 32));
        c = _mm256_loadu_si256((const __m256i *)(from + 64));
        d = _mm256_loadu_si256((const __m256i *)(from + 96));
        _mm256_store_si256((__m256i *)to, a);
        _mm256_store_si256((__m256i *)(to + 32), b);
        _mm256_store_si256((__m256i *)(to + 64), c);
        _mm256_store_si256((__m256i *)(to + 96), d);
    }
    for (; (size_t)(end - from) >= 32; from += 32, to += 32)
        _mm256_store_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
    /* what is left, with some of what is there already */
    to += end - from;
    _mm256_storeu_si256((__m256i *)(to - 32), _mm256_loadu_si256((const __m256i *)(end - 32)));
}

void pli_copy(void *to, const void *from, size_t n)
{
    if (n >= LOOP_MIN && __builtin_cpu_supports("avx2"))
        copy_avx2(to, from, n);
    else
        memcpy(to, from, n);
}

#else

void pli_copy(void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
}

#endif
