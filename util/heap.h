/* SPDX-License-Identifier: BSD-3-Clause */
/* Binary min-heap of intrusive nodes keyed by a 64-bit number: the timers of a context.
 *
 * The nodes are linked (parent and two children) instead of standing in an array, so inserting allocates
 * nothing and cannot fail. Insert and remove take O(log n), min O(1). No function blocks or owns a node;
 * the heap's owner thread calls them. Nodes with equal keys leave in no particular order. */
#ifndef PLI_UTIL_HEAP_H
#define PLI_UTIL_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct pli_heap_node {
    struct pli_heap_node *parent, *left, *right;
    struct pli_heap *heap;              /* the heap it is in, or NULL */
    uint64_t key;                       /* read it freely; change it only through pli_heap_insert() */
};

struct pli_heap {
    struct pli_heap_node *root;
    size_t count;
};

/* Makes an empty heap. */
void pli_heap_init(struct pli_heap *heap);

/* Makes a node that is in no heap; needed once before the first use of any other function. */
void pli_heap_node_init(struct pli_heap_node *node);

/* Puts a node into the heap under key. A node that is in a heap already is taken out of it first, so this
 * also moves a timer. */
void pli_heap_insert(struct pli_heap *heap, struct pli_heap_node *node, uint64_t key);

/* Takes a node out of its heap; nothing happens when it is in none. */
void pli_heap_remove(struct pli_heap_node *node);

/* A node with the smallest key, or NULL; it stays in. */
static inline struct pli_heap_node *pli_heap_min(const struct pli_heap *heap)
{
    return heap->root;
}

static inline int pli_heap_is_in(const struct pli_heap_node *node)
{
    return node->heap != NULL;
}

#endif
