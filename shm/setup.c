/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's set-up: making the own side, attaching the peer's, and taking both down. */
#include "shm/shm.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/err.h"

static size_t first_segment_size(uint32_t slots)
{
    return PLI_SHM_CTL_SIZE + (size_t)slots * PLI_SHM_SLOT;
}

int pli_shm_probe(void)
{
    struct pli_segment seg;
    uint64_t failures = 0;
    int rc = pli_segment_create(&seg, "plait-probe", PLI_SHM_CTL_SIZE, NULL, -1, &failures);

    if (rc < 0)
        return pli_fail_prefix(rc, "shared memory cannot be used");
    pli_segment_destroy(&seg, false);
    return 0;
}

int pli_shm_create(struct pli_tr **tr, const struct pli_tr_env *env, const struct pli_tr_up *up, void *owner)
{
    struct pli_shm *s;
    int rc;

    if (posix_memalign((void **)&s, 64, sizeof *s) != 0)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a shared memory link");
    memset(s, 0, sizeof *s);
    s->tr.ops = &pli_shm_ops;
    s->tr.send_small = pli_shm_send_small;
    s->turn.wait = PLI_TURN_START;
    s->tr.up = up;
    s->tr.owner = owner;
    s->tr.hot_index = -1;
    s->env = *env;
    /* a barrier reaches registered processes only: both must have it, or each publication fences */
    s->fence = !env->peer_membarrier || !env->membarrier;
    s->bulk.seg.fd = s->bulk.peer_seg.fd = -1;
    s->wake_fd = s->peer_wake_fd = s->seg.fd = s->big.fd = s->peer_seg.fd = s->peer_big.fd = -1;
    s->dirty = calloc(PLI_SHM_FIRST_SLOTS, 1);
    if (!s->dirty) {
        rc = pli_fail(PLAIT_E_NOMEM, "no memory for a shared memory link");
        goto err_free;
    }
    /* the peer polls these pages: they belong on its node */
    rc = pli_segment_create(&s->seg, "plait-link", first_segment_size(PLI_SHM_FIRST_SLOTS), env->topo, env->peer_node,
                            env->bind_failures);
    if (rc < 0)
        goto err_free;
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake_fd < 0) {
        rc = pli_fail_errno("eventfd for a shared memory link");
        goto err_segment;
    }
    *env->shm_bytes += s->seg.size;
    s->own = s->seg.addr;
    *tr = &s->tr;
    return 0;

err_segment:
    pli_segment_destroy(&s->seg, false);
err_free:
    free(s->dirty);
    free(s);
    return rc;
}

void pli_shm_describe(struct pli_tr *tr, void *blob, size_t *len, int *fds, int *nfds)
{
    struct pli_shm *s = pli_shm_of(tr);
    struct pli_shm_desc d = {
        .magic = PLI_SHM_DESC_MAGIC,
        .version = PLI_SHM_DESC_VERSION,
        .slots = PLI_SHM_FIRST_SLOTS,
        .ctl_size = PLI_SHM_CTL_SIZE,
        .size = s->seg.size,
    };

    memcpy(blob, &d, sizeof d);
    *len = sizeof d;
    fds[0] = s->seg.fd;
    fds[1] = s->wake_fd;
    *nfds = 2;
}

static bool is_eventfd(int fd)
{
    char path[64], target[PATH_MAX];
    ssize_t n;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    n = readlink(path, target, sizeof target - 1);
    if (n < 0)
        return true; /* no /proc: nothing to check with */
    target[n] = '\0';
    return strcmp(target, "anon_inode:[eventfd]") == 0;
}

static int check_desc(const struct pli_shm_desc *d)
{
    if (d->magic != PLI_SHM_DESC_MAGIC || d->version != PLI_SHM_DESC_VERSION)
        return pli_fail(PLAIT_E_BADPEER, "the peer's shared memory description has magic 0x%x version %u, not 0x%x version %u",
                        d->magic, d->version, PLI_SHM_DESC_MAGIC, PLI_SHM_DESC_VERSION);
    if (d->slots < PLI_SHM_MIN_SLOTS || d->slots > PLI_SHM_MAX_SLOTS || (d->slots & (d->slots - 1)))
        return pli_fail(PLAIT_E_BADPEER, "the peer's ring has %u slots, not a power of two from %u to %u", d->slots,
                        PLI_SHM_MIN_SLOTS, PLI_SHM_MAX_SLOTS);
    if (d->ctl_size != PLI_SHM_CTL_SIZE || d->size != first_segment_size(d->slots))
        return pli_fail(PLAIT_E_BADPEER, "the peer's segment of %llu bytes does not hold its ring of %u slots",
                        (unsigned long long)d->size, d->slots);
    return 0;
}

static void close_fds(const int *fds, int nfds)
{
    for (int i = 0; i < nfds; i++)
        close(fds[i]);
}

int pli_shm_connect(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds)
{
    struct pli_shm *s = pli_shm_of(tr);
    struct pli_shm_desc d;
    int rc;

    if (len != sizeof d || nfds != 2 || s->peer) {
        close_fds(fds, nfds);
        return pli_fail(PLAIT_E_BADPEER, "the peer's shared memory description has %zu bytes and %d descriptors, not %zu and 2", len, nfds, sizeof d);
    }
    memcpy(&d, blob, sizeof d);
    rc = check_desc(&d);
    if (rc == 0 && !is_eventfd(fds[1]))
        rc = pli_fail(PLAIT_E_BADPEER, "the peer's wake-up descriptor is not an eventfd");
    if (rc < 0) {
        close_fds(fds, nfds);
        return rc;
    }
    rc = pli_segment_attach(&s->peer_seg, fds[0], d.size);
    if (rc < 0) {
        close(fds[1]);
        return rc;
    }
    s->peer_wake_fd = fds[1];
    fcntl(s->peer_wake_fd, F_SETFD, FD_CLOEXEC);
    fcntl(s->peer_wake_fd, F_SETFL, O_NONBLOCK);
    s->peer = s->peer_seg.addr;
    pli_ring_tx_init(&s->tx, &s->tr.room, (char *)s->seg.addr + PLI_SHM_CTL_SIZE, PLI_SHM_FIRST_SLOTS, s->dirty, &s->peer->cursor, 0);
    pli_ring_rx_init(&s->rx, (const char *)s->peer_seg.addr + PLI_SHM_CTL_SIZE, d.slots, &s->own->cursor, 0);
    return 0;
}

int pli_shm_control(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds)
{
    struct pli_shm *s = pli_shm_of(tr);
    struct pli_shm_note note;
    int fd = nfds == 1 ? fds[0] : -1;
    int rc;

    if (len != sizeof note || nfds > 1 || !s->peer) {
        close_fds(fds, nfds);
        return pli_fail(PLAIT_E_PROTO, "shm: a control message of %zu bytes with %d descriptors", len, nfds);
    }
    memcpy(&note, blob, sizeof note);
    if (note.op == PLI_SHM_CTL_BULK || note.op == PLI_SHM_CTL_BULK_OK)
        rc = pli_shm_bulk_control(s, &note, &fd);
    else
        rc = pli_shm_grow_control(s, &note, &fd);
    if (fd >= 0)
        close(fd);
    return rc;
}

void pli_shm_destroy(struct pli_tr *tr, bool forked)
{
    struct pli_shm *s = pli_shm_of(tr);

    *s->env.shm_bytes -= s->seg.size + (s->big.addr ? s->big.size : 0);
    pli_segment_destroy(&s->seg, forked);
    pli_segment_destroy(&s->big, forked);
    pli_segment_destroy(&s->peer_seg, forked);
    pli_segment_destroy(&s->peer_big, forked);
    pli_shm_bulk_destroy(s, forked);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    if (s->peer_wake_fd >= 0)
        close(s->peer_wake_fd);
    free(s->dirty);
    free(s->big_dirty);
    free(s);
}
