/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef PLI_UTIL_SPIN_H
#define PLI_UTIL_SPIN_H

/* What a thread does between two looks that found nothing. The pause keeps the poll from taking the line away from
 * its writer too early, and leaves the core to the sibling hardware thread; see doc/memory-model.md
 * before changing it. Any thread. */
static inline void pli_spin_wait(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

#endif
