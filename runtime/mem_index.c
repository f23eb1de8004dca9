/* SPDX-License-Identifier: BSD-3-Clause */
/* Which region has this address? A sorted array: regions are few, and made rarely; a look-up is a binary
 * search. */
#include "runtime/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/err.h"

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct plait_mem **table; /* by address; they do not overlap */
static size_t count, capacity;
static struct pli_list all = PLI_LIST_INIT(all); /* also those that are released and still held */

/* The number of regions that begin at or before p: the last one of these is the only one that can have it. */
static size_t upper_bound(const char *p)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if ((uintptr_t)table[mid]->addr <= (uintptr_t)p)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct plait_mem *pli_mem_find(const void *addr, size_t len)
{
    struct plait_mem *m = NULL;
    uintptr_t offset;
    size_t i;

    pthread_rwlock_rdlock(&lock);
    i = upper_bound(addr);
    if (i > 0) {
        m = table[i - 1];
        offset = (uintptr_t)addr - (uintptr_t)m->addr;
        if (offset >= m->len || len > m->len - offset)
            m = NULL;
        else /* what is in the table has its user's reference, so the count is not 0 */
            pli_mem_hold(m);
    }
    pthread_rwlock_unlock(&lock);
    return m;
}

static int make_room(void)
{
    size_t more = capacity ? 2 * capacity : 16;
    struct plait_mem **larger;

    if (count < capacity)
        return 0;
    larger = realloc(table, more * sizeof(*table));
    if (!larger)
        return pli_fail(PLAIT_E_NOMEM, "no memory to remember %zu regions", more);
    table = larger;
    capacity = more;
    return 0;
}

static int overlaps(const struct plait_mem *m, const struct plait_mem *other)
{
    return (uintptr_t)m->addr < (uintptr_t)other->addr + other->len &&
           (uintptr_t)other->addr < (uintptr_t)m->addr + m->len;
}

static int check_overlap(const struct plait_mem *m, size_t i)
{
    const struct plait_mem *other = NULL;

    if (i > 0 && overlaps(m, table[i - 1]))
        other = table[i - 1];
    else if (i < count && overlaps(m, table[i]))
        other = table[i];
    if (!other)
        return 0;
    return pli_fail(PLAIT_E_BUSY,
                    "%zu bytes at %p overlap the region '%s' of %zu bytes at %p: release that first", m->len,
                    (void *)m->addr, other->name, other->len, (void *)other->addr);
}

int pli_mem_index_add(struct plait_mem *m)
{
    size_t i;
    int rc;

    pthread_rwlock_wrlock(&lock);
    rc = make_room();
    if (rc == 0) {
        i = upper_bound(m->addr);
        rc = check_overlap(m, i);
    }
    if (rc == 0) {
        memmove(table + i + 1, table + i, (count - i) * sizeof(*table));
        table[i] = m;
        count++;
        pli_list_push_back(&all, &m->all);
    }
    pthread_rwlock_unlock(&lock);
    return rc;
}

void pli_mem_index_del(struct plait_mem *m)
{
    size_t i;

    pthread_rwlock_wrlock(&lock);
    i = upper_bound(m->addr);
    if (i > 0 && table[i - 1] == m) {
        memmove(table + i - 1, table + i, (count - i) * sizeof(*table));
        count--;
    }
    pthread_rwlock_unlock(&lock);
}

void pli_mem_index_forget(struct plait_mem *m)
{
    pthread_rwlock_wrlock(&lock);
    pli_list_remove(&m->all);
    pthread_rwlock_unlock(&lock);
}

void pli_mem_fork_lock(void)
{
    pthread_rwlock_wrlock(&lock);
}

void pli_mem_fork_unlock(void)
{
    pthread_rwlock_unlock(&lock);
}

void pli_mem_forked(void)
{
    static const pthread_rwlock_t fresh = PTHREAD_RWLOCK_INITIALIZER;
    struct pli_list *node;

    pli_list_foreach(node, &all)
    {
        struct plait_mem *m = pli_container_of(node, struct plait_mem, all);

        if (!m->forked && m->fd >= 0)
            close(m->fd); /* it would keep the pages when the parent is gone */
        m->fd = -1;
        m->forked = true;
    }
    count = 0;
    /* glibc knows the writer by its thread id, which is another one in the child: unlocking would take it for
     * a reader */
#ifdef __SANITIZE_THREAD__
    pthread_rwlock_unlock(&lock); /* the sanitizer's own book has it locked; what this leaves in the lock is overwritten */
#endif
    memcpy(&lock, &fresh, sizeof lock);
}
