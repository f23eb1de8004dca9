/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies of some kilobytes and more, into and out of shared memory. */
#ifndef PLI_UTIL_COPY_H
#define PLI_UTIL_COPY_H

#include <stddef.h>

/* As memcpy(). The C library's takes `rep movsb` from 2 KiB on where the processor says that it is fast; on AMD's Zen 3 and 4 it is not when
 * source and destination have nearly the same place in their pages (glibc bug 30994), as parts of long messages have: 5 GB/s instead of 25
 * (doc/memory-model.md). With AVX2 this is a plain loop, else the C library's. Any thread. */
void pli_copy(void *to, const void *from, size_t n);

#endif
