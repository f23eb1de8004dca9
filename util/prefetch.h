/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLI_UTIL_PREFETCH_H
#define PLI_UTIL_PREFETCH_H

/* Asks for the line at p to be owned by this core, since it will be written soon. The compiler's builtin gives a prefetch for reading unless it is
 * told of a processor with PREFETCHW; one without it ignores the instruction. Never faults. Any thread. */
static inline void pli_prefetch_write(const void *p)
{
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

#endif
