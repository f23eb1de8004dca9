/* SPDX-License-Identifier: BSD-3-Clause */
/* The key page: a word for each export of this process, which its peers can read and it alone can write. */
#include "runtime/rma.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/err.h"
#include "util/memlimit.h"
#include "util/rand.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int page_fd = -1;
static _Atomic uint64_t *words;
static struct pli_export *table[PLI_RMA_SLOTS];
static unsigned used, hint;
static bool is_child;

void pli_rma_lock(void)
{
    pthread_mutex_lock(&lock);
}

void pli_rma_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static int page_open(void)
{
    void *p;
    int fd, rc;

    if (page_fd >= 0)
        return 0;
    rc = pli_memlimit_check("the key page", PLI_RMA_PAGE);
    if (rc < 0)
        return rc;
    fd = memfd_create("plait-keys", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return pli_fail_errno("memfd_create for the key page");
    if (fallocate(fd, 0, 0, PLI_RMA_PAGE) < 0) {
        rc = pli_fail_errno("cannot reserve the key page of %u bytes", PLI_RMA_PAGE);
        goto err_close;
    }
    p = mmap(NULL, PLI_RMA_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        rc = pli_memlimit_map_failed("the key page", PLI_RMA_PAGE);
        goto err_close;
    }
    /* the child of a fork must not withdraw what is its parent's */
    if (madvise(p, PLI_RMA_PAGE, MADV_DONTFORK) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        rc = pli_fail_errno("cannot seal the key page");
        goto err_unmap;
    }
    words = p;
    page_fd = fd;
    return 0;

err_unmap:
    munmap(p, PLI_RMA_PAGE);
err_close:
    close(fd);
    return rc;
}

static int new_secret(uint64_t *secret)
{
    uint8_t id[PLI_ID_BYTES];
    int rc;

    do {
        rc = pli_rand_id(id);
        if (rc < 0)
            return rc;
        memcpy(secret, id, sizeof *secret);
    } while (*secret == 0);
    return 0;
}

int pli_rma_slot_alloc(struct pli_export *e)
{
    int rc = page_open();

    if (rc < 0)
        return rc;
    if (used == PLI_RMA_SLOTS)
        return pli_fail(PLAIT_E_NOMEM, "this process has %u regions exported, the most it can: withdraw some", used);
    rc = new_secret(&e->secret);
    if (rc < 0)
        return rc;
    while (table[hint % PLI_RMA_SLOTS])
        hint++;
    e->slot = (uint16_t)(hint++ % PLI_RMA_SLOTS);
    table[e->slot] = e;
    used++;
    atomic_store_explicit(&words[e->slot], e->secret, memory_order_release);
    return 0;
}

void pli_rma_slot_clear(const struct pli_export *e)
{
    /* in one order with everything that this thread does next: what begins then is refused */
    atomic_store_explicit(&words[e->slot], 0, memory_order_seq_cst);
}

void pli_rma_slot_free(struct pli_export *e)
{
    if (table[e->slot] != e)
        return; /* in the child of a fork */
    pli_rma_slot_clear(e);
    table[e->slot] = NULL;
    used--;
}

struct pli_export *pli_rma_slot_get(uint16_t slot)
{
    return slot < PLI_RMA_SLOTS ? table[slot] : NULL;
}

int pli_rma_page_fd(void)
{
    return page_fd;
}

bool pli_rma_is_child(void)
{
    return is_child;
}

void pli_rma_forked(void)
{
    if (page_fd >= 0) {
        close(page_fd);
        is_child = true;
    }
    page_fd = -1;
    words = NULL;
    memset(table, 0, sizeof table);
    used = 0;
}
