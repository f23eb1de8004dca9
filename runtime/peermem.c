/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/peermem.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "util/err.h"
#include "util/memlimit.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Without SHRINK its truncation would be our SIGBUS; GROW, so that the size stays what was counted. */
#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static int check_fd(int fd, uint64_t size, bool writable)
{
    int needed = SIZE_SEALS;
    struct stat st;
    int seals, mode;

    if (size == 0 || size > PTRDIFF_MAX || size % (uint64_t)sysconf(_SC_PAGESIZE))
        return pli_fail(PLAIT_E_BADPEER, "the peer's region has %llu bytes, not whole pages", (unsigned long long)size);
    if (fstat(fd, &st) < 0)
        return pli_fail_errno("fstat of the peer's region");
    seals = fcntl(fd, F_GET_SEALS);
    if (!S_ISREG(st.st_mode) || seals < 0)
        return pli_fail(PLAIT_E_BADPEER, "the peer's region is not a memfd");
    if (st.st_size < 0 || (uint64_t)st.st_size != size)
        return pli_fail(PLAIT_E_BADPEER, "the peer's region has %lld bytes, its message says %llu", (long long)st.st_size,
                        (unsigned long long)size);
    /* a hole would be filled when we read it, and at our expense */
    if ((uint64_t)st.st_blocks * 512 < size)
        return pli_fail(PLAIT_E_BADPEER, "the peer's region of %llu bytes has not been reserved", (unsigned long long)size);
    mode = fcntl(fd, F_GETFL);
    if (mode < 0)
        return pli_fail_errno("fcntl of the peer's region");
    mode &= O_ACCMODE;
    if (writable && (mode != O_RDWR || seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
        return pli_fail(PLAIT_E_BADPEER, "the peer's region is to be written, but its %s", mode != O_RDWR ? "descriptor cannot" : "seals forbid it");
    /* nothing may be written through what is for reading: by the memory itself, or by this descriptor */
    if (!writable && mode != O_RDONLY)
        needed |= F_SEAL_FUTURE_WRITE;
    if ((seals & needed) != needed)
        return pli_fail(PLAIT_E_BADPEER, "the peer's region lacks seals: it has 0x%x of the 0x%x that are needed", (unsigned)(seals & needed),
                        (unsigned)needed);
    return 0;
}

/* Its pages are there, and charged to who reserved them; what we pay for is the tables. */
static int check_limits(int fd, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct statfs fs;

    if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
        page = (uint64_t)fs.f_bsize;
    return pli_memlimit_check_tables("the peer's region", size / page);
}

int pli_peermem_attach(struct pli_peermem **out, int fd, uint64_t size, bool writable)
{
    struct pli_peermem *pm = NULL;
    int rc = check_fd(fd, size, writable);

    if (rc == 0)
        rc = check_limits(fd, size);
    if (rc < 0)
        goto err_close;
    pm = calloc(1, sizeof *pm);
    if (!pm) {
        rc = pli_fail(PLAIT_E_NOMEM, "no memory to describe the peer's region");
        goto err_close;
    }
    atomic_init(&pm->refs, 1);
    pli_list_init(&pm->fill);
    pm->owner = getpid();
    pm->size = (size_t)size;
    pm->addr = mmap(NULL, pm->size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (pm->addr == MAP_FAILED) {
        rc = pli_memlimit_map_failed("the peer's region", pm->size);
        goto err_free;
    }
    if (madvise(pm->addr, pm->size, MADV_DONTFORK) < 0) {
        rc = pli_fail_errno("madvise of the peer's region");
        goto err_unmap;
    }
    close(fd);
    *out = pm;
    return 0;

err_unmap:
    munmap(pm->addr, pm->size);
err_free:
    free(pm);
err_close:
    close(fd);
    return rc;
}

void pli_peermem_hold(struct pli_peermem *pm)
{
    /* relaxed: who holds it has it already */
    atomic_fetch_add_explicit(&pm->refs, 1, memory_order_relaxed);
}

void pli_peermem_put(struct pli_peermem *pm)
{
    /* release: our reads come before the unmapping; acquire, in whoever is last: it comes after all of them */
    if (!pm || atomic_fetch_sub_explicit(&pm->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (pm->owner == getpid())
        munmap(pm->addr, pm->size);
    if (pm->mapped) {
        pli_mapped_sub(pm->mapped, pm->size);
        pli_mapped_put(pm->mapped);
    }
    free(pm);
}

void pli_peermem_account(struct pli_peermem *pm, struct pli_mapped *mapped)
{
    atomic_fetch_add_explicit(&mapped->refs, 1, memory_order_relaxed); /* the caller has one */
    pm->mapped = mapped;
}

/* ---- counting ---- */

struct pli_mapped *pli_mapped_new(void)
{
    struct pli_mapped *m = calloc(1, sizeof *m);

    if (m)
        atomic_init(&m->refs, 1);
    return m;
}

void pli_mapped_put(struct pli_mapped *m)
{
    /* acq_rel: whoever is last frees it after all others have looked */
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        free(m);
}

/* Only the link's thread adds, so what it has seen can only have become less. Relaxed: a bound, not an order. */
bool pli_mapped_add(struct pli_mapped *m, uint64_t bytes, uint64_t max)
{
    uint64_t now = atomic_load_explicit(&m->bytes, memory_order_relaxed);

    if (bytes > max || now > max - bytes)
        return false;
    atomic_fetch_add_explicit(&m->bytes, bytes, memory_order_relaxed);
    return true;
}

void pli_mapped_sub(struct pli_mapped *m, uint64_t bytes)
{
    atomic_fetch_sub_explicit(&m->bytes, bytes, memory_order_relaxed);
}
