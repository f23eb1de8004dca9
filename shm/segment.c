/* SPDX-License-Identifier: BSD-3-Clause */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "topo/topo.h"
#include "util/err.h"
#include "util/memlimit.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* No resize, no other writable mapping, no further change of these rules. */
#define OWN_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
/* What a peer's must have at least: without SHRINK its truncation would be our SIGBUS. */
#define PEER_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

int pli_segment_create(struct pli_segment *seg, const char *name, size_t size, const struct pli_topo *topo, int node,
                       uint64_t *bind_failures)
{
    bool bind = topo && node >= 0;
    int rc = pli_memlimit_check(name, size);

    if (rc < 0)
        return rc;
    seg->size = size;
    seg->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (seg->fd < 0)
        return pli_fail_errno("memfd_create for %s", name);
    if (ftruncate(seg->fd, (off_t)size) < 0) {
        rc = pli_fail_errno("cannot size %s to %zu bytes", name, size);
        goto err_close;
    }
    seg->addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, seg->fd, 0);
    if (seg->addr == MAP_FAILED) {
        rc = pli_memlimit_map_failed(name, size);
        goto err_close;
    }
    /* the policy first, then the pages: fallocate puts them on the right node without a move */
    if (bind && pli_mem_bind(topo, seg->addr, size, node) < 0)
        ++*bind_failures;
    if (fallocate(seg->fd, 0, 0, (off_t)size) < 0) {
        rc = errno == ENOSPC ? pli_fail(PLAIT_E_NOMEM, "cannot reserve %zu bytes of shared memory for %s: the system's shared memory is full; see 'df /dev/shm' and 'free'", size, name)
                             : pli_fail_errno("cannot reserve %zu bytes of shared memory for %s", size, name);
        goto err_unmap;
    }
    if (bind && pli_mem_verify(topo, seg->addr, size, node, NULL) < 0)
        ++*bind_failures;
    /* a child of fork must neither write here nor keep the pages alive */
    if (madvise(seg->addr, size, MADV_DONTFORK) < 0 || fcntl(seg->fd, F_ADD_SEALS, OWN_SEALS) < 0) {
        rc = pli_fail_errno("cannot seal %s", name);
        goto err_unmap;
    }
    return 0;

err_unmap:
    munmap(seg->addr, size);
err_close:
    close(seg->fd);
    seg->addr = NULL;
    seg->fd = -1;
    return rc;
}

static int check_peer_fd(int fd, size_t size)
{
    struct stat st;
    int seals;

    if (fstat(fd, &st) < 0)
        return pli_fail_errno("fstat of the peer's segment");
    seals = fcntl(fd, F_GET_SEALS);
    if (!S_ISREG(st.st_mode) || seals < 0)
        return pli_fail(PLAIT_E_BADPEER, "the peer's segment is not a memfd");
    if (st.st_size < 0 || (uint64_t)st.st_size != size)
        return pli_fail(PLAIT_E_BADPEER, "the peer's segment has %lld bytes, its description says %zu", (long long)st.st_size, size);
    /* a hole would be filled when we read it, and at our expense */
    if ((uint64_t)st.st_blocks * 512 < size)
        return pli_fail(PLAIT_E_BADPEER, "the peer's segment of %zu bytes has not been reserved", size);
    if ((seals & PEER_SEALS) != PEER_SEALS)
        return pli_fail(PLAIT_E_BADPEER, "the peer's segment lacks seals: it has 0x%x of the 0x%x that are needed (shrink, grow, future write)",
                        (unsigned)seals & PEER_SEALS, (unsigned)PEER_SEALS);
    return 0;
}

int pli_segment_attach(struct pli_segment *seg, int fd, size_t size)
{
    int rc = check_peer_fd(fd, size);

    if (rc < 0)
        goto out;
    seg->fd = -1;
    seg->size = size;
    seg->addr = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (seg->addr == MAP_FAILED) {
        rc = pli_memlimit_map_failed("the peer's segment", size);
        seg->addr = NULL;
    } else if (madvise(seg->addr, size, MADV_DONTFORK) < 0) {
        rc = pli_fail_errno("madvise of the peer's segment");
        munmap(seg->addr, size);
        seg->addr = NULL;
    }
out:
    close(fd);
    return rc;
}

void pli_segment_destroy(struct pli_segment *seg, bool unmapped)
{
    if (seg->addr && !unmapped)
        munmap(seg->addr, seg->size);
    if (seg->fd >= 0)
        close(seg->fd);
    seg->addr = NULL;
    seg->fd = -1;
}
