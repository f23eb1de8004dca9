/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/cma.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "runtime/link.h"
#include "util/clock.h"
#include "util/copy.h"
#include "util/env.h"
#include "util/err.h"
#include "util/log.h"

#define PROBE_LEN (256u << 10)
#define PROBE_SHORT 4096u
#define PROBE_TRIES 4 /* the best of them counts: the first fills caches */
#define PIECES 64u    /* for one call */

/* ---- what peers may read to find out ---- */

static uint8_t probe[PROBE_LEN] __attribute__((aligned(4096)));
static pthread_once_t probe_once = PTHREAD_ONCE_INIT;

static void fill_probe(void)
{
    memset(probe, 0x5a, sizeof probe); /* pages of its own */
    if (getrandom(probe, PLI_ID_LEN, 0) != PLI_ID_LEN)
        snprintf((char *)probe, PLI_ID_LEN, "%d-%" PRIu64, (int)getpid(), pli_clock_now());
}

void pli_cma_init(struct pli_cma *cma)
{
    memset(cma, 0, sizeof *cma);
    cma->pidfd = -1;
}

void pli_cma_close(struct pli_cma *cma)
{
    if (cma->pidfd >= 0)
        close(cma->pidfd);
    pli_cma_init(cma);
}

/* Once for each link. */
static void ask(struct pli_link *link)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM };
    int rc;

    if (link->cma.peer_reads != PLI_CMA_UNKNOWN)
        return;
    link->cma.peer_reads = pli_link_shares(link) ? PLI_CMA_ASKED : PLI_CMA_NO;
    if (!pli_link_shares(link))
        return;
    pthread_once(&probe_once, fill_probe);
    msg.mem.op = PLI_MEM_PROBE;
    msg.mem.addr = (uintptr_t)probe;
    msg.mem.len = sizeof probe;
    memcpy(msg.mem.sid, probe, PLI_ID_LEN);
    rc = pli_channel_send(&link->ch, &msg, NULL);
    if (rc < 0)
        pli_link_send_failed(link, rc);
}

bool pli_cma_wanted(struct pli_link *link, uint64_t len, bool always)
{
    ask(link);
    return link->cma.peer_reads == PLI_CMA_YES && (always || len >= link->cma.min);
}

/* ---- reading ---- */

static int read_failed(struct pli_link *link, int err)
{
    switch (err) {
    case ESRCH:
        return pli_fail(PLAIT_E_PEERDIED, "%s has no memory any more: it has ended", link->who);
    case EPERM:
        return pli_fail(PLAIT_E_PERM, "the memory of %s may not be read (process_vm_readv): another user namespace, "
                        "/proc/sys/kernel/yama/ptrace_scope, or it is not dumpable", link->who);
    case EFAULT:
        return pli_fail(PLAIT_E_BADPEER, "%s offers memory that it does not have", link->who);
    case ENOMEM:
        return pli_fail(PLAIT_E_NOMEM, "no memory in the kernel to read the memory of %s", link->who);
    default:
        errno = err;
        return pli_fail_errno("process_vm_readv from %s", link->who);
    }
}

/* The next pieces, as many as one call takes, and of at most limit bytes, which there are. */
static unsigned next_pieces(const struct pli_cursor *c, struct iovec *out, size_t limit, size_t *bytes)
{
    const struct iovec *v = c->iov;
    size_t at = c->off, sum = 0;
    unsigned n = 0;

    for (; n < PIECES && sum < limit; v++, at = 0) {
        size_t len = v->iov_len - at;

        if (len > limit - sum)
            len = limit - sum;
        if (len == 0)
            continue;
        out[n].iov_base = (char *)v->iov_base + at;
        out[n++].iov_len = len;
        sum += len;
    }
    *bytes = sum;
    return n;
}

static void advance(struct pli_cursor *c, size_t bytes)
{
    while (bytes > 0) {
        size_t len = c->iov->iov_len - c->off;

        if (bytes < len) {
            c->off += bytes;
            return;
        }
        bytes -= len;
        *c = (struct pli_cursor){ c->iov + 1, 0 };
    }
}

int pli_cma_still_there(struct pli_link *link)
{
    struct pollfd p = { .fd = link->cma.pidfd, .events = POLLIN };

    if (link->cma.pidfd < 0 || poll(&p, 1, 0) == 0) /* readable: it has ended */
        return 0;
    return read_failed(link, ESRCH);
}

int pli_cma_read(struct pli_link *link, struct pli_cursor *from, struct pli_cursor *into, size_t len)
{
    struct iovec remote[PIECES], local[PIECES];

    if (!link->cma.may_read)
        return pli_fail(PLAIT_E_PROTO, "%s offers addresses, which were never agreed on", link->who);
    while (len > 0) {
        size_t some, bytes;
        unsigned nlocal = next_pieces(into, local, len, &some);
        unsigned nremote = next_pieces(from, remote, some, &bytes);
        ssize_t got;

        if (bytes < some)
            nlocal = next_pieces(into, local, bytes, &some);
        got = process_vm_readv(link->pid, local, nlocal, remote, nremote, 0);
        if (got < 0)
            return read_failed(link, errno);
        if (got == 0)
            return read_failed(link, EFAULT);
        /* less than asked for: the next call says why, or goes on */
        advance(into, (size_t)got);
        advance(from, (size_t)got);
        len -= (size_t)got;
    }
    return 0;
}

void pli_cma_refused(struct pli_link *link)
{
    if (link->cma.refused)
        return;
    link->cma.refused = true;
    link->ctx->st.cma_refused++;
    pli_info("%s: it was allowed before; long messages come through the ring from here on", pli_err_text());
}

void pli_cma_unread(struct pli_link *link)
{
    if (link->cma.peer_reads == PLI_CMA_YES)
        pli_info("%s cannot read this process's memory any more, long messages go through the ring", link->who);
    link->cma.peer_reads = PLI_CMA_NO;
}

/* ---- finding out ---- */

/* Best time in ns of some readings of len bytes, or a negative code. */
static int64_t time_reading(struct pli_link *link, uint64_t addr, size_t len, void *buf)
{
    struct iovec from = { (void *)(uintptr_t)addr, len }, into = { buf, len };
    int64_t best = INT64_MAX;

    for (int i = 0; i < PROBE_TRIES; i++) {
        struct pli_cursor there = { &from, 0 }, here = { &into, 0 };
        uint64_t t0 = pli_clock_now();
        int rc = pli_cma_read(link, &there, &here, len);
        int64_t t = (int64_t)(pli_clock_now() - t0);

        if (rc < 0)
            return rc;
        best = t < best ? t : best;
    }
    return best;
}

/* What the ring takes is what its slower side takes, a copy; both sides copy at the same time. */
static int64_t time_copying(uint8_t *to, const uint8_t *from, size_t len)
{
    int64_t best = INT64_MAX;

    for (int i = 0; i < PROBE_TRIES; i++) {
        uint64_t t0 = pli_clock_now();

        pli_copy(to, from, len);
        __asm__ volatile("" : : "r"(to) : "memory");
        int64_t t = (int64_t)(pli_clock_now() - t0);
        best = t < best ? t : best;
    }
    return best > 0 ? best : 1;
}

/* From how many bytes on is reading faster than the ring? Both take a time that grows evenly; reading also one for the call. */
static uint64_t break_even(int64_t read_short, int64_t read_long, int64_t copy_long)
{
    double per_byte = (double)(read_long - read_short) / (PROBE_LEN - PROBE_SHORT);
    double call = (double)read_short - per_byte * PROBE_SHORT;
    double gain = (double)copy_long / PROBE_LEN - per_byte;

    if (gain <= 0 || call / gain > (double)PLAIT_MSG_MAX)
        return PLI_CMA_NEVER;
    return call > 0 ? (uint64_t)(call / gain) : 0;
}

/* PLAIT_CMA_MIN: bytes, or "never". */
static uint64_t overridden(uint64_t min)
{
    if (pli_env_bytes(&min, "PLAIT_CMA_MIN", "never", PLI_CMA_NEVER) < 0)
        pli_warn("%s; what was measured counts", pli_err_text());
    return min;
}

/* May this process read there, and does it pay? */
static int try_it(struct pli_link *link, const struct pli_wire_msg *msg, uint64_t *min)
{
    uint8_t *buf = malloc(2 * PROBE_LEN);
    int64_t read_short, read_long;
    int rc = 0;

    if (!buf)
        return pli_fail(PLAIT_E_NOMEM, "no memory to try reading the peer's");
    memset(buf, 1, 2 * PROBE_LEN);
    link->cma.may_read = true;
    read_short = time_reading(link, msg->mem.addr, PROBE_SHORT, buf);
    read_long = read_short < 0 ? read_short : time_reading(link, msg->mem.addr, PROBE_LEN, buf);
    if (read_long < 0)
        rc = (int)read_long;
    else if (pli_cma_still_there(link) < 0)
        rc = PLAIT_E_PEERDIED;
    else if (memcmp(buf, msg->mem.sid, PLI_ID_LEN) != 0)
        rc = pli_fail(PLAIT_E_PERM, "process %d is another one here than for %s: they number processes differently", (int)link->pid, link->who);
    else
        *min = overridden(break_even(read_short, read_long, time_copying(buf + PROBE_LEN, buf, PROBE_LEN)));
    link->cma.may_read = rc == 0;
    free(buf);
    return rc;
}

/* The process must be the one that the kernel says is at the other end, not one that the peer names; and of our own user: reading may
 * wait for whoever serves a page (userfaultfd, FUSE), and what we may read is not for others to choose. */
static int check_peer(const struct pli_link *link)
{
    if (link->pid <= 0)
        return pli_fail(PLAIT_E_PERM, "the process of %s has no number here: it is in another PID namespace", link->who);
    if (link->uid != geteuid())
        return pli_fail(PLAIT_E_PERM, "%s is another user's process, this one is uid %d", link->who, (int)geteuid());
    return 0;
}

static int on_probe(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_wire_msg answer = { .type = PLI_WIRE_MEM };
    uint64_t min = PLI_CMA_NEVER;
    const char *text = "";
    int rc;

    if (msg->mem.len != PROBE_LEN || link->cma.asked)
        return pli_link_breach(link, "MEM PROBE of %llu bytes, or for the second time", (unsigned long long)msg->mem.len);
    link->cma.asked = true;
    rc = check_peer(link);
    if (rc == 0) {
        link->cma.pidfd = (int)syscall(SYS_pidfd_open, link->pid, 0); /* -1 before Linux 5.3 */
        rc = try_it(link, msg, &min);
    }
    if (rc < 0) {
        text = pli_err_text();
        link->ctx->st.cma_refused++;
    }
    answer.mem.op = PLI_MEM_PROBED;
    answer.mem.code = rc;
    answer.mem.len = min;
    answer.mem.text.p = text;
    answer.mem.text.len = (uint32_t)strlen(text);
    rc = pli_channel_send(&link->ch, &answer, NULL);
    return rc < 0 ? pli_link_send_failed(link, rc) : 0;
}

static int on_probed(struct pli_link *link, const struct pli_wire_msg *msg)
{
    if (link->cma.peer_reads != PLI_CMA_ASKED)
        return pli_link_breach(link, "MEM PROBED without a question");
    link->cma.peer_reads = msg->mem.code < 0 ? PLI_CMA_NO : PLI_CMA_YES;
    link->cma.min = msg->mem.len;
    if (msg->mem.code < 0)
        pli_info("%s cannot read this process's memory, long messages go through the ring: %.*s", link->who, (int)msg->mem.text.len,
                 (const char *)msg->mem.text.p);
    return 0;
}

int pli_cma_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    pli_fds_close(fds, msg->nfds);
    if (msg->nfds)
        return pli_link_breach(link, "MEM of kind %u with a descriptor", msg->mem.op);
    return msg->mem.op == PLI_MEM_PROBE ? on_probe(link, msg) : on_probed(link, msg);
}
