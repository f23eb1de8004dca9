/* SPDX-License-Identifier: BSD-3-Clause */
/* Intrusive doubly linked list: a circle through a head that is no element.
 *
 * An element carries a struct pli_list per list that it can be on. All functions are O(1) except where
 * noted, never block, never fail and own nothing; the owner of the list's lock or context calls them.
 * A node that is on no list points to itself, so pli_list_is_on() and a second remove are well defined;
 * for that every node must be initialised once with pli_list_init(). */
#ifndef PLI_UTIL_LIST_H
#define PLI_UTIL_LIST_H

#include <stddef.h>

struct pli_list {
    struct pli_list *next, *prev;
};

#define PLI_LIST_INIT(name) { &(name), &(name) }

/* The structure of this type whose member is at ptr. */
#ifndef pli_container_of
#define pli_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#endif

/* Makes an empty list of a head, or an element that is on no list. */
static inline void pli_list_init(struct pli_list *node)
{
    node->next = node;
    node->prev = node;
}

static inline int pli_list_is_empty(const struct pli_list *head)
{
    return head->next == head;
}

/* Is this element on some list? (The same test as 'empty', said of an element.) */
static inline int pli_list_is_on(const struct pli_list *node)
{
    return node->next != node;
}

/* Puts a node that is on no list directly before pos. */
static inline void pli_list_insert_before(struct pli_list *pos, struct pli_list *node)
{
    node->next = pos;
    node->prev = pos->prev;
    pos->prev->next = node;
    pos->prev = node;
}

/* Puts a node that is on no list at the end. */
static inline void pli_list_push_back(struct pli_list *head, struct pli_list *node)
{
    pli_list_insert_before(head, node);
}

/* Puts a node that is on no list at the beginning. */
static inline void pli_list_push_front(struct pli_list *head, struct pli_list *node)
{
    pli_list_insert_before(head->next, node);
}

/* Takes a node off its list; nothing happens when it is on none. */
static inline void pli_list_remove(struct pli_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    pli_list_init(node);
}

/* Takes a node off its list, if it is on one, and puts it at the end of another. */
static inline void pli_list_move_back(struct pli_list *head, struct pli_list *node)
{
    pli_list_remove(node);
    pli_list_push_back(head, node);
}

/* The first node, or NULL. */
static inline struct pli_list *pli_list_first(const struct pli_list *head)
{
    return pli_list_is_empty(head) ? NULL : head->next;
}

/* The last node, or NULL. */
static inline struct pli_list *pli_list_last(const struct pli_list *head)
{
    return pli_list_is_empty(head) ? NULL : head->prev;
}

/* The node after this one, or NULL at the end. */
static inline struct pli_list *pli_list_next(const struct pli_list *head, const struct pli_list *node)
{
    return node->next == head ? NULL : node->next;
}

/* Takes the first node off and returns it, or NULL. */
static inline struct pli_list *pli_list_pop_front(struct pli_list *head)
{
    struct pli_list *node = pli_list_first(head);

    if (node)
        pli_list_remove(node);
    return node;
}

/* Moves everything of from to the end of to; from is empty afterwards. A loop whose callbacks may add or
 * remove any element takes the whole list to a private head first and then pops. */
static inline void pli_list_splice_back(struct pli_list *to, struct pli_list *from)
{
    if (pli_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    pli_list_init(from);
}

/* Number of elements, by walking: for tests and reports. */
static inline size_t pli_list_count(const struct pli_list *head)
{
    const struct pli_list *node;
    size_t n = 0;

    for (node = head->next; node != head; node = node->next)
        n++;
    return n;
}

/* Walks all nodes; the body must not change the list. */
#define pli_list_foreach(node, head) for ((node) = (head)->next; (node) != (head); (node) = (node)->next)

/* Walks all nodes; the body may remove (and free) the node it has, but not the one after it. */
#define pli_list_foreach_safe(node, tmp, head)                       \
    for ((node) = (head)->next, (tmp) = (node)->next; (node) != (head); \
         (node) = (tmp), (tmp) = (node)->next)

#endif
