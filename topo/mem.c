/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory on a NUMA node: asked for, and checked. */
#include "topo/topo.h"

#include <errno.h>
#include <numaif.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "util/err.h"
#include "util/log.h"

#define NODES_MAX  1024
#define WORD_BITS  (8 * sizeof(unsigned long))
#define NODE_WORDS (NODES_MAX / WORD_BITS)
#define CHUNK      256 /* pages asked about in one call: their addresses fit on the stack */

enum reason { BIND_REFUSED, BIND_FAILED, VERIFY_REFUSED, VERIFY_FAILED, ELSEWHERE };

/* Stores the sentence as an error's, and warns the first time that the reason occurs in this process. */
static int warn_once(enum reason reason, int code)
{
    static atomic_uint warned;
    unsigned bit = 1u << reason;

    if (!(atomic_fetch_or_explicit(&warned, bit, memory_order_relaxed) & bit))
        pli_warn("%s; going on (said once)", pli_err_text());
    return code;
}

static int is_refusal(int err)
{
    return err == EPERM || err == ENOSYS || err == EACCES;
}

/* One node has all memory there is, so nothing that fails can have put it elsewhere. */
static int single_node(const struct pli_topo *t)
{
    int i, n = 0;

    for (i = 0; i < pli_topo_info(t)->nodes; i++)
        n += pli_topo_node(t, i)->memory > 0 || pli_topo_info(t)->nodes == 1;
    return n <= 1;
}

static int check_range(const struct pli_topo *t, const void *addr, size_t len, int *node)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int asked = *node;

    if (!addr || !len || (uintptr_t)addr % page || (uintptr_t)addr + len < (uintptr_t)addr)
        return pli_fail(PLAIT_E_INVAL,
                        "memory of %zu bytes at %p cannot be bound: the address must be a multiple of "
                        "the page size %zu, the length above 0",
                        len, addr, page);
    *node = pli_topo_mem_node(t, asked);
    if (*node < 0 || *node >= NODES_MAX)
        return pli_fail(PLAIT_E_INVAL, "memory cannot be bound to NUMA node %d: there is no such node",
                        asked);
    return 0;
}

int pli_mem_bind(const struct pli_topo *t, void *addr, size_t len, int node)
{
    unsigned long mask[NODE_WORDS] = { 0 };
    int err, rc = check_range(t, addr, len, &node);

    if (rc < 0)
        return rc;
    if (!pli_topo_info(t)->this_system)
        return PLI_TOPO_NOOP;
    mask[(size_t)node / WORD_BITS] = 1ul << ((size_t)node % WORD_BITS);
    /* MPOL_BIND would let the kernel kill the process when the node is full. The kernel wants the number of
     * bits + 1. */
    if (mbind(addr, len, MPOL_PREFERRED, mask, NODES_MAX + 1, MPOL_MF_MOVE) == 0)
        return 0;
    err = errno;
    if (is_refusal(err)) {
        if (single_node(t))
            return 0;
        pli_fail(PLAIT_E_UNSUPPORTED,
                 "memory cannot be bound to NUMA node %d: mbind: %s (a container needs "
                 "CAP_SYS_NICE, or a seccomp profile that allows mbind)",
                 node, strerror(err));
        return warn_once(BIND_REFUSED, PLAIT_E_UNSUPPORTED);
    }
    pli_fail(PLAIT_E_SYSTEM, "memory of %zu bytes cannot be bound to NUMA node %d: mbind: %s", len, node,
             strerror(err));
    return warn_once(BIND_FAILED, PLAIT_E_SYSTEM);
}

static int verify_failed(const struct pli_topo *t, const char *call, int err, int node)
{
    if (is_refusal(err)) {
        if (single_node(t))
            return PLI_TOPO_NOOP;
        pli_fail(PLAIT_E_UNSUPPORTED, "memory on NUMA node %d cannot be verified: %s: %s", node, call,
                 strerror(err));
        return warn_once(VERIFY_REFUSED, PLAIT_E_UNSUPPORTED);
    }
    pli_fail(PLAIT_E_SYSTEM, "memory on NUMA node %d cannot be verified: %s: %s", node, call, strerror(err));
    return warn_once(VERIFY_FAILED, PLAIT_E_SYSTEM);
}

/* Where n pages are; adds to *st. *absent gets the address of one that is not there yet. 0 or errno. */
static int count_pages(char *addr, size_t n, int node, struct pli_mem_pages *st, void **absent)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), i;
    void *pages[CHUNK];
    int status[CHUNK];

    for (i = 0; i < n; i++) {
        pages[i] = addr + i * page;
        status[i] = -ENOENT;
    }
    if (move_pages(0, n, pages, NULL, status, 0) < 0) /* without target nodes it only asks */
        return errno;
    for (i = 0; i < n; i++) {
        if (status[i] == node) {
            st->there++;
        } else if (status[i] >= 0) {
            st->elsewhere++;
            if (st->other_node < 0)
                st->other_node = status[i];
        } else {
            /* -ENOENT: no page yet; -EFAULT: the zero page, or nothing mapped; no memory is used */
            st->absent++;
            *absent = pages[i];
        }
    }
    return 0;
}

/* Will a page that is touched later come from the node? 1, 0, or -errno. */
static int policy_prefers(void *addr, int node)
{
    unsigned long mask[NODE_WORDS] = { 0 };
    int mode = 0;

    if (get_mempolicy(&mode, mask, NODES_MAX, addr, MPOL_F_ADDR) < 0)
        return -errno;
    return (mode == MPOL_PREFERRED || mode == MPOL_BIND) &&
           (mask[(size_t)node / WORD_BITS] >> ((size_t)node % WORD_BITS) & 1);
}

int pli_mem_verify(const struct pli_topo *t, const void *addr, size_t len, int node,
                   struct pli_mem_pages *pages)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), total = len / page + (len % page != 0), done, n;
    struct pli_mem_pages st = { .total = total, .other_node = -1 };
    void *absent = NULL;
    int err, rc = check_range(t, addr, len, &node);

    if (pages)
        *pages = st;
    if (rc < 0)
        return rc;
    if (!pli_topo_info(t)->this_system)
        return PLI_TOPO_NOOP;
    for (done = 0; done < total; done += n) {
        n = total - done < CHUNK ? total - done : CHUNK;
        err = count_pages((char *)addr + done * page, n, node, &st, &absent);
        if (err)
            return verify_failed(t, "move_pages", err, node);
    }
    if (pages)
        *pages = st;
    if (st.elsewhere) {
        pli_fail(PLAIT_E_SYSTEM,
                 "%zu of %zu pages are on NUMA node %d, not on node %d as asked (is node %d full?)",
                 st.elsewhere, total, st.other_node, node, node);
        return warn_once(ELSEWHERE, PLAIT_E_SYSTEM);
    }
    if (!absent || single_node(t))
        return 0;
    err = policy_prefers(absent, node);
    if (err < 0)
        return verify_failed(t, "get_mempolicy", -err, node);
    if (!err) {
        pli_fail(PLAIT_E_SYSTEM,
                 "%zu of %zu pages are not there yet, and their memory policy does not name NUMA node %d",
                 st.absent, total, node);
        return warn_once(ELSEWHERE, PLAIT_E_SYSTEM);
    }
    return 0;
}
