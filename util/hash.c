/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/hash.h"

#include <stdlib.h>
#include <string.h>

uint64_t pli_hash_u64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

uint64_t pli_hash_bytes(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325ull;

    while (len--) {
        h ^= *p++;
        h *= 0x100000001b3ull;
    }
    return pli_hash_u64(h);
}

uint64_t pli_hash_string(const char *s)
{
    return pli_hash_bytes(s, strlen(s));
}

void pli_hash_table_init(struct pli_hash_table *table)
{
    memset(table, 0, sizeof *table);
    table->buckets = table->first_buckets;
    table->nbuckets = PLI_HASH_MIN_BUCKETS;
}

void pli_hash_table_fini(struct pli_hash_table *table)
{
    if (table->buckets != table->first_buckets)
        free(table->buckets);
    pli_hash_table_init(table);
}

static struct pli_hash_node **bucket_of(const struct pli_hash_table *table, uint64_t hash)
{
    return &table->buckets[hash & (table->nbuckets - 1)];
}

static void grow(struct pli_hash_table *table)
{
    size_t i, old_n = table->nbuckets;
    struct pli_hash_node *node, *next, **slot, **old = table->buckets;
    struct pli_hash_node **buckets = calloc(old_n * 2, sizeof *buckets);

    if (!buckets)
        return; /* slower, not wrong */
    table->buckets = buckets;
    table->nbuckets = old_n * 2;
    for (i = 0; i < old_n; i++) {
        for (node = old[i]; node; node = next) {
            next = node->next;
            slot = bucket_of(table, node->hash);
            node->next = *slot;
            *slot = node;
        }
    }
    if (old != table->first_buckets)
        free(old);
}

void pli_hash_table_insert(struct pli_hash_table *table, struct pli_hash_node *node, uint64_t hash)
{
    struct pli_hash_node **slot;

    if (table->count >= table->nbuckets)
        grow(table);
    slot = bucket_of(table, hash);
    node->hash = hash;
    node->next = *slot;
    *slot = node;
    table->count++;
}

int pli_hash_table_remove(struct pli_hash_table *table, struct pli_hash_node *node)
{
    struct pli_hash_node **slot = bucket_of(table, node->hash);

    while (*slot && *slot != node)
        slot = &(*slot)->next;
    if (!*slot)
        return 0;
    *slot = node->next;
    node->next = NULL;
    table->count--;
    return 1;
}

static struct pli_hash_node *skip_to(struct pli_hash_node *node, uint64_t hash)
{
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct pli_hash_node *pli_hash_table_find(const struct pli_hash_table *table, uint64_t hash)
{
    return skip_to(*bucket_of(table, hash), hash);
}

struct pli_hash_node *pli_hash_table_find_next(const struct pli_hash_node *node)
{
    return skip_to(node->next, node->hash);
}

struct pli_hash_node *pli_hash_table_next(const struct pli_hash_table *table,
                                          const struct pli_hash_node *node)
{
    size_t i = 0;

    if (node) {
        if (node->next)
            return node->next;
        i = (node->hash & (table->nbuckets - 1)) + 1;
    }
    for (; i < table->nbuckets; i++) {
        if (table->buckets[i])
            return table->buckets[i];
    }
    return NULL;
}
