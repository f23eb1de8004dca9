/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/clock.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

/* Relaxed is enough: a test starts and stops the fake while it owns the threads that look. */
static atomic_bool fake_on;
static _Atomic uint64_t fake_now;

uint64_t pli_clock_now(void)
{
    struct timespec ts;

    if (__builtin_expect(atomic_load_explicit(&fake_on, memory_order_relaxed), 0))
        return atomic_load_explicit(&fake_now, memory_order_relaxed);
    clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this id and a valid pointer */
    return (uint64_t)ts.tv_sec * PLI_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t pli_clock_after(uint64_t now, uint64_t ns)
{
    return ns >= PLI_CLOCK_NEVER - now ? PLI_CLOCK_NEVER : now + ns;
}

int pli_clock_poll_timeout(uint64_t now, uint64_t deadline)
{
    uint64_t ns, ms;

    if (deadline == PLI_CLOCK_NEVER)
        return -1;
    if (deadline <= now)
        return 0;
    ns = deadline - now;
    ms = ns / PLI_NS_PER_MS + (ns % PLI_NS_PER_MS != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

void pli_clock_fake_start(uint64_t now)
{
    atomic_store_explicit(&fake_now, now, memory_order_relaxed);
    atomic_store_explicit(&fake_on, true, memory_order_relaxed);
}

void pli_clock_fake_advance(uint64_t ns)
{
    atomic_fetch_add_explicit(&fake_now, ns, memory_order_relaxed);
}

void pli_clock_fake_stop(void)
{
    atomic_store_explicit(&fake_on, false, memory_order_relaxed);
}
