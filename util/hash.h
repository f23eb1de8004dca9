/* SPDX-License-Identifier: BSD-3-Clause */
/* A hash of bytes and numbers, and an intrusive chained hash table that finds by hash.
 *
 * The table stores only hashes: the caller compares keys while it walks the nodes of one hash. Inserting
 * never fails: the first buckets are inside the table, and when a larger array cannot be had the chains
 * just get longer. No function blocks or owns a node; the table's owner serialises the calls. The hash is
 * not keyed: keys that a hostile peer chooses freely must be bounded in number by the caller. */
#ifndef PLI_UTIL_HASH_H
#define PLI_UTIL_HASH_H

#include <stddef.h>
#include <stdint.h>

#define PLI_HASH_MIN_BUCKETS 8

struct pli_hash_node {
    struct pli_hash_node *next;
    uint64_t hash;
};

struct pli_hash_table {
    struct pli_hash_node **buckets;     /* a power of two of them */
    size_t nbuckets;
    size_t count;
    struct pli_hash_node *first_buckets[PLI_HASH_MIN_BUCKETS];
};

/* FNV-1a over the bytes, then mixed so that the low bits depend on all of them. */
uint64_t pli_hash_bytes(const void *data, size_t len);

/* The same of a terminated string. */
uint64_t pli_hash_string(const char *s);

/* Mixes a number (the finaliser of SplitMix64): a bijection. */
uint64_t pli_hash_u64(uint64_t x);

/* Makes an empty table. The table must stay where it is until fini. */
void pli_hash_table_init(struct pli_hash_table *table);

/* Frees the buckets; nodes that are still in are the caller's and are not touched. */
void pli_hash_table_fini(struct pli_hash_table *table);

/* Puts a node in under a hash; equal hashes may be in several times. */
void pli_hash_table_insert(struct pli_hash_table *table, struct pli_hash_node *node, uint64_t hash);

/* Takes out a node that is in. Returns 1, or 0 when it was not in. */
int pli_hash_table_remove(struct pli_hash_table *table, struct pli_hash_node *node);

/* The first node with this hash, or NULL; the next one after 'node' with the same hash, or NULL. */
struct pli_hash_node *pli_hash_table_find(const struct pli_hash_table *table, uint64_t hash);
struct pli_hash_node *pli_hash_table_find_next(const struct pli_hash_node *node);

/* Walks all nodes in no particular order, starting with node == NULL; NULL at the end. The table must not
 * change during the walk, except that the caller may empty it by taking out the first one repeatedly. */
struct pli_hash_node *pli_hash_table_next(const struct pli_hash_table *table,
                                          const struct pli_hash_node *node);

#endif
