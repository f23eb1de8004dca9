/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/heap.h"

void pli_heap_init(struct pli_heap *heap)
{
    heap->root = NULL;
    heap->count = 0;
}

void pli_heap_node_init(struct pli_heap_node *node)
{
    node->parent = node->left = node->right = NULL;
    node->heap = NULL;
    node->key = 0;
}

/* The link that leads, or would lead, to place n of the complete tree (the root is 1, the children of n
 * are 2n and 2n+1): the bits of n below the highest say left or right. Its parent goes to *parent. */
static struct pli_heap_node **link_to(struct pli_heap *heap, size_t n, struct pli_heap_node **parent)
{
    struct pli_heap_node **link = &heap->root;
    int bit = (int)(sizeof n * 8) - 1 - __builtin_clzl(n);

    *parent = NULL;
    while (bit-- > 0) {
        *parent = *link;
        link = (n >> bit & 1) ? &(*link)->right : &(*link)->left;
    }
    return link;
}

static struct pli_heap_node **link_of(struct pli_heap *heap, struct pli_heap_node *node)
{
    if (!node->parent)
        return &heap->root;
    return node->parent->left == node ? &node->parent->left : &node->parent->right;
}

static void set_children(struct pli_heap_node *node, struct pli_heap_node *left, struct pli_heap_node *right)
{
    node->left = left;
    node->right = right;
    if (left)
        left->parent = node;
    if (right)
        right->parent = node;
}

static void swap_with_parent(struct pli_heap *heap, struct pli_heap_node *node)
{
    struct pli_heap_node *parent = node->parent, *left = node->left, *right = node->right;

    *link_of(heap, parent) = node;
    node->parent = parent->parent;
    if (parent->left == node)
        set_children(node, parent, parent->right);
    else
        set_children(node, parent->left, parent);
    set_children(parent, left, right);
}

static void sift_up(struct pli_heap *heap, struct pli_heap_node *node)
{
    while (node->parent && node->key < node->parent->key)
        swap_with_parent(heap, node);
}

static void sift_down(struct pli_heap *heap, struct pli_heap_node *node)
{
    struct pli_heap_node *child;

    while ((child = node->left)) {
        if (node->right && node->right->key < child->key)
            child = node->right;
        if (node->key <= child->key)
            return;
        swap_with_parent(heap, child);
    }
}

void pli_heap_insert(struct pli_heap *heap, struct pli_heap_node *node, uint64_t key)
{
    pli_heap_remove(node);
    *link_to(heap, ++heap->count, &node->parent) = node;
    node->heap = heap;
    node->key = key;
    sift_up(heap, node);
}

void pli_heap_remove(struct pli_heap_node *node)
{
    struct pli_heap *heap = node->heap;
    struct pli_heap_node *last, *parent, **link;

    if (!heap)
        return;
    link = link_to(heap, heap->count--, &parent);
    last = *link;
    *link = NULL;
    if (last != node) {
        *link_of(heap, node) = last;
        last->parent = node->parent;
        set_children(last, node->left, node->right);
        sift_up(heap, last);
        sift_down(heap, last);
    }
    pli_heap_node_init(node);
}
