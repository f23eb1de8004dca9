/* SPDX-License-Identifier: BSD-3-Clause */
/* For the programs that run in a guest: they print their results as lines that test/ci/driver counts. */
#ifndef GUEST_UTIL_H
#define GUEST_UTIL_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GUEST_MPOL_F_NODE 1ul /* <numaif.h> belongs to topo; these checks go past it on purpose */
#define GUEST_MPOL_F_ADDR 2ul

static unsigned guest_failed;

/* A result; why is a format for printf(), and what follows its arguments. */
__attribute__((format(printf, 3, 4)))
static inline bool verdict(const char *name, bool good, const char *why, ...)
{
    va_list ap;

    printf("[%s] %s", good ? "PASS" : "FAIL", name);
    if (!good) {
        guest_failed++;
        printf(": ");
        va_start(ap, why);
        vprintf(why, ap);
        va_end(ap);
    }
    printf("\n");
    fflush(stdout);
    return good;
}

/* The kernel's own word about where a page is: its node, or a negative errno. */
static inline int page_node(void *page)
{
    int status = -ENOENT;

    if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) < 0)
        return -errno;
    return status;
}

/* How many pages of a range are not on a node, by either system call; each one is read first, to be there. */
static inline size_t pages_elsewhere(const void *addr, size_t len, int node)
{
    const volatile char *p = addr;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;

    for (size_t i = 0; i < len; i += page) {
        int at = -1;

        (void)p[i];
        if (syscall(SYS_get_mempolicy, &at, NULL, 0ul, &p[i], GUEST_MPOL_F_NODE | GUEST_MPOL_F_ADDR) < 0)
            at = -1;
        n += at != node || page_node((void *)(uintptr_t)&p[i]) != node;
    }
    return n;
}

#endif
