/* SPDX-License-Identifier: BSD-3-Clause */
/* Monotonic time in nanoseconds; a test can stop it and move it by hand.
 *
 * The clock is CLOCK_MONOTONIC through the vDSO (about 23 ns; no TSC arithmetic of our own, so migration,
 * suspend and virtual machines are the kernel's business). Every function may be called from any thread,
 * never blocks and never fails. */
#ifndef PLI_UTIL_CLOCK_H
#define PLI_UTIL_CLOCK_H

#include <stdint.h>

#define PLI_NS_PER_US 1000ull
#define PLI_NS_PER_MS 1000000ull
#define PLI_NS_PER_S  1000000000ull

/* A deadline that is never reached. */
#define PLI_CLOCK_NEVER UINT64_MAX

/* The present time; only differences mean something. */
uint64_t pli_clock_now(void);

/* now + ns, but PLI_CLOCK_NEVER instead of an overflow (and for ns == PLI_CLOCK_NEVER). */
uint64_t pli_clock_after(uint64_t now, uint64_t ns);

/* Milliseconds from now until the deadline for poll() and epoll_wait(): rounded up so that a wait never
 * ends just before its timer, at most INT_MAX, -1 for PLI_CLOCK_NEVER, 0 when the deadline has passed. */
int pli_clock_poll_timeout(uint64_t now, uint64_t deadline);

/* For tests: from here on, in the whole process, time stands still at 'now' until it is advanced. */
void pli_clock_fake_start(uint64_t now);

/* For tests: moves the fake time forward. */
void pli_clock_fake_advance(uint64_t ns);

/* For tests: back to the real clock. */
void pli_clock_fake_stop(void);

#endif
