/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory of which every page is there before anybody touches it. */
#include "runtime/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "topo/topo.h"
#include "util/err.h"
#include "util/log.h"
#include "util/memlimit.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* No resize, and no other writable mapping: a peer that gets the descriptor can read and nothing else. Memory
 * that is to be exported for writing has to say so when it is made (PLAIT_MEM_WRITABLE), because this cannot be undone. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
#define WRITABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Reserved in one system call. A signal makes the kernel undo all of a call and start again: with a
 * profiler's ticks a large one would never end. */
#define CHUNK ((size_t)1 << 20)

/* ---- limits ---- */

/* Past the end of memory the kernel kills instead of refusing. */
static int check_system(const char *name, size_t size)
{
    unsigned long long kib, available = 0, swap = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");

    if (!f)
        return 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            available = kib << 10;
        else if (sscanf(line, "SwapFree: %llu", &kib) == 1)
            swap = kib << 10;
    }
    fclose(f);
    if (available == 0 || size <= available + swap)
        return 0;
    return pli_fail(PLAIT_E_NOMEM,
                    "memory '%s': %zu bytes do not fit: the system has %llu bytes of memory and swap "
                    "available; see /proc/meminfo",
                    name, size, available + swap);
}

/* Huge pages come from a store of their own, which no memory cgroup counts. */
static int check_limits(const char *name, size_t size, bool huge)
{
    int rc = huge ? pli_memlimit_check_file_size(name, size) : pli_memlimit_check(name, size);

    if (huge)
        return rc;
    return rc < 0 ? rc : check_system(name, size);
}

static int map_failed(const char *name, size_t size)
{
    char what[PLI_MEM_NAME_MAX + 16];
    struct rlimit rl;
    int err = errno;

    if (err == EAGAIN && getrlimit(RLIMIT_MEMLOCK, &rl) == 0) /* after mlockall(MCL_FUTURE) */
        return pli_fail(
            PLAIT_E_NOMEM,
            "cannot map %zu bytes of memory '%s': this process locks all of its memory, and its limit "
            "for that is %llu bytes; raise it with 'ulimit -l'",
            size, name, (unsigned long long)rl.rlim_cur);
    snprintf(what, sizeof what, "memory '%s'", name);
    errno = err;
    return pli_memlimit_map_failed(what, size);
}

static int fill_failed(const char *name, size_t size)
{
    if (errno == ENOSPC || errno == EFAULT) /* what a touch would have been killed for */
        return pli_fail(PLAIT_E_NOMEM,
                        "cannot reserve %zu bytes of memory '%s': the system's shared memory or huge pages "
                        "are used up; see 'free' and /proc/meminfo",
                        size, name);
    return pli_fail_errno("cannot reserve %zu bytes of memory '%s'", size, name);
}

/* ---- pages ---- */

static int fallocate_all(int fd, size_t size, size_t chunk)
{
    size_t done, n;

    for (done = 0; done < size; done += n) {
        n = size - done < chunk ? size - done : chunk;
        while (fallocate(fd, 0, (off_t)done, (off_t)n) < 0) {
            if (errno != EINTR)
                return -1;
        }
    }
    return 0;
}

static int populate(void *addr, size_t size)
{
    int rc;

    do
        rc = madvise(addr, size, MADV_POPULATE_WRITE);
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* Huge pages follow the mapping's memory policy only when they are touched; normal ones also follow it in
 * fallocate(), and are mapped then so that the first use does not have to (and so that their place can be
 * verified). */
static int fill(struct plait_mem *m, bool huge)
{
    if (huge) {
        if (populate(m->addr, m->mapped) == 0)
            return 0;
        if (errno != EINVAL) /* an older kernel */
            return -1;
        return fallocate_all(m->fd, m->mapped, m->page_size);
    }
    if (fallocate_all(m->fd, m->mapped, CHUNK) < 0)
        return -1;
    populate(m->addr, m->mapped);
    return 0;
}

/* ---- the region ---- */

static int make_fd(const char *name, size_t page_size, bool huge)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    char full[PLI_MEM_NAME_MAX + 16];
    int fd;

    if (huge)
        flags |= MFD_HUGETLB | (unsigned)__builtin_ctzl(page_size) << MFD_HUGE_SHIFT;
    snprintf(full, sizeof full, "plait-mem-%s", name);
    fd = memfd_create(full, flags);
    if (fd >= 0 && fchmod(fd, S_IRUSR | S_IWUSR) < 0) { /* it is made for everybody: another user with the descriptor could open it again, to write */
        close(fd);
        return -1;
    }
    return fd;
}

static int reserve(struct plait_mem *m, size_t len, size_t page_size, bool huge, const struct pli_topo *topo,
                   int node)
{
    size_t size = (len + page_size - 1) & ~(page_size - 1);
    int rc;

    if (size < len || size > PTRDIFF_MAX)
        return pli_fail(PLAIT_E_NOMEM, "memory '%s': %zu bytes are more than an address space has", m->name,
                        len);
    rc = check_limits(m->name, size, huge);
    if (rc < 0)
        return rc;
    m->bind_failed = m->node_verified = false;
    m->page_size = page_size;
    m->mapped = size;
    m->fd = make_fd(m->name, page_size, huge);
    if (m->fd < 0)
        return pli_fail_errno("memfd_create for memory '%s'", m->name);
    if (ftruncate(m->fd, (off_t)size) < 0) {
        rc = pli_fail_errno("cannot size memory '%s' to %zu bytes", m->name, size);
        goto err_close;
    }
    m->addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
    if (m->addr == MAP_FAILED) {
        rc = map_failed(m->name, size);
        goto err_close;
    }
    /* the policy first, then the pages: they come to the right node without a move */
    if (topo && pli_mem_bind(topo, m->addr, size, node) < 0)
        m->bind_failed = true;
    if (fill(m, huge) < 0) {
        rc = fill_failed(m->name, size);
        goto err_unmap;
    }
    if (topo) {
        rc = pli_mem_verify(topo, m->addr, size, node, NULL);
        m->node_verified = rc == 0 && !m->bind_failed;
        m->bind_failed = m->bind_failed || rc < 0;
    }
    /* a child of fork must neither write here nor keep the pages alive */
    if (madvise(m->addr, size, MADV_DONTFORK) < 0 ||
        fcntl(m->fd, F_ADD_SEALS, m->writable ? WRITABLE_SEALS : SEALS) < 0) {
        rc = pli_fail_errno("cannot seal memory '%s'", m->name);
        goto err_unmap;
    }
    return 0;

err_unmap:
    munmap(m->addr, size);
err_close:
    close(m->fd);
    m->fd = -1;
    m->addr = NULL;
    return rc;
}

int pli_mem_reserve(struct plait_mem *m, size_t len, size_t page_size, const struct pli_topo *topo, int node)
{
    size_t normal = (size_t)sysconf(_SC_PAGESIZE);
    bool huge = page_size > normal, fallback = false;
    char why[256];
    int rc;

    m->len = len;
    m->node = node;
    m->page_size_asked = page_size;
    rc = reserve(m, len, page_size, huge, topo, node);
    if (rc < 0 && huge) {
        snprintf(why, sizeof why, "%s", pli_err_text());
        fallback = true;
        rc = reserve(m, len, normal, false, topo, node);
    }
    if (rc < 0)
        return rc;
    if (fallback)
        pli_warn("memory '%s' of %zu bytes has normal pages, not huge ones of %zu MiB: %s; see "
                 "/sys/kernel/mm/hugepages",
                 m->name, len, page_size >> 20, why);
    if (m->bind_failed)
        pli_warn("memory '%s' of %zu bytes is not, or not all, on NUMA node %d as asked", m->name, len, node);
    return 0;
}

int pli_mem_open_readonly(const struct plait_mem *m)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/self/fd/%d", m->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? pli_fail_errno("cannot open memory '%s' for reading only, by %s", m->name, path) : fd;
}

void pli_mem_unreserve(struct plait_mem *m)
{
    if (m->addr && !m->forked)
        munmap(m->addr, m->mapped);
    if (m->fd >= 0)
        close(m->fd);
    m->addr = NULL;
    m->fd = -1;
}
