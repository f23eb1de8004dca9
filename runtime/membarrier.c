/* SPDX-License-Identifier: BSD-3-Clause */
/* The barrier of those who go to sleep. */
#include "runtime/loop_priv.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { UNKNOWN, YES, NO };

/* Only ever goes from UNKNOWN to the one right answer, so relaxed accesses do. */
static _Atomic int state;

static long membarrier(int cmd)
{
    return syscall(SYS_membarrier, cmd, 0, 0);
}

static int find_out(void)
{
    const char *no = getenv("PLAIT_NO_MEMBARRIER");
    long commands;

    if (no && strcmp(no, "1") == 0)
        return NO;
    commands = membarrier(MEMBARRIER_CMD_QUERY);
    if (commands < 0 || !(commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED) ||
        !(commands & MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED))
        return NO;
    return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0 ? YES : NO;
}

bool pli_membarrier_available(void)
{
    int s = atomic_load_explicit(&state, memory_order_relaxed);

    if (s == UNKNOWN) {
        s = find_out();
        atomic_store_explicit(&state, s, memory_order_relaxed);
    }
    return s == YES;
}

void pli_sleeper_barrier(void)
{
    /* A full barrier on this thread and on every running thread of registered processes: their plain
     * code then behaves as if it had a fence where we need one. */
    if (pli_membarrier_available() && membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0)
        return;
    atomic_thread_fence(memory_order_seq_cst);
}

void pli_membarrier_forked(void)
{
    atomic_store_explicit(&state, UNKNOWN, memory_order_relaxed);
}
