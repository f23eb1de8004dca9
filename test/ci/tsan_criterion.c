/* SPDX-License-Identifier: BSD-3-Clause */
/* Criterion maps an arena at a fixed address, 0x200000000000 + (rand_r() & 0x3fffff) * 16 MiB, and gives
 * up where ThreadSanitizer keeps its shadow. This rand_r, which takes the place of libc's, lets the
 * address fall into the part that ThreadSanitizer leaves to programs (0x550000000000 on x86-64). */
#if defined(__SANITIZE_THREAD__) && defined(__x86_64__)

#define FIRST 0x350000u
#define COUNT 0x17000u

__attribute__((visibility("default"))) int rand_r(unsigned int *seed);

int rand_r(unsigned int *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return (int)(FIRST + (*seed >> 8) % COUNT);
}

#else

/* ISO C forbids an empty file */
typedef int pli_no_tsan_here;

#endif
