/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/pagemap.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include "util/err.h"

#define PAGE_BITS 12 /* systems with larger pages use several entries for one */
#define BITS 12
#define WIDTH ((size_t)1 << BITS)
#define LEVELS 3 /* 48 bits of address */

struct node {
    _Atomic(void *) entry[WIDTH];
};

static struct node root;

static size_t slot(uintptr_t page, int level)
{
    return page >> (BITS * (LEVELS - 1 - level)) & (WIDTH - 1);
}

/* The last level's table for a page; NULL: there is none. The acquires pair with the releases of make_leaf().
 */
static struct node *leaf_of(uintptr_t page)
{
    struct node *node = &root;
    int level;

    if (page >> (BITS * LEVELS))
        return NULL;
    for (level = 0; node && level < LEVELS - 1; level++)
        node = atomic_load_explicit(&node->entry[slot(page, level)], memory_order_acquire);
    return node;
}

static struct node *make_leaf(uintptr_t page)
{
    struct node *node = &root, *next;
    int level;

    for (level = 0; level < LEVELS - 1; level++) {
        next = atomic_load_explicit(&node->entry[slot(page, level)], memory_order_acquire);
        if (!next) {
            next = calloc(1, sizeof(*next));
            if (!next)
                return NULL;
            /* release: its zeroes before its address */
            atomic_store_explicit(&node->entry[slot(page, level)], next, memory_order_release);
        }
        node = next;
    }
    return node;
}

int pli_pagemap_set(const void *addr, size_t len, void *value)
{
    uintptr_t first = (uintptr_t)addr >> PAGE_BITS, end = first + (len >> PAGE_BITS), page;

    if (end >> (BITS * LEVELS))
        return pli_fail(PLAIT_E_UNSUPPORTED, "pools cannot use memory at %p: above 48 bits of address", addr);
    for (page = first; page < end; page = (page | (WIDTH - 1)) + 1) {
        if (!make_leaf(page))
            return pli_fail(PLAIT_E_NOMEM, "no memory for the page map of %zu bytes", len);
    }
    for (page = first; page < end; page++) /* release: what value points to is complete */
        atomic_store_explicit(&leaf_of(page)->entry[slot(page, LEVELS - 1)], value, memory_order_release);
    return 0;
}

void pli_pagemap_clear(const void *addr, size_t len, const void *value)
{
    uintptr_t first = (uintptr_t)addr >> PAGE_BITS, end = first + (len >> PAGE_BITS), page;

    for (page = first; page < end; page++) {
        _Atomic(void *) *entry = &leaf_of(page)->entry[slot(page, LEVELS - 1)];

        if (atomic_load_explicit(entry, memory_order_relaxed) == value)
            atomic_store_explicit(entry, NULL, memory_order_relaxed);
    }
}

void *pli_pagemap_get(const void *addr)
{
    uintptr_t page = (uintptr_t)addr >> PAGE_BITS;
    struct node *leaf = leaf_of(page);

    return leaf ? atomic_load_explicit(&leaf->entry[slot(page, LEVELS - 1)], memory_order_acquire) : NULL;
}
