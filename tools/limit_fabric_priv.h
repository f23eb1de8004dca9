/* SPDX-License-Identifier: BSD-3-Clause */
/* What limit_fabric.c and limit_fabric_ep.c share: a connection of the bare libfabric program, which both ends
 * open for one order and close after it. */
#ifndef TOOLS_LIMIT_FABRIC_PRIV_H
#define TOOLS_LIMIT_FABRIC_PRIV_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include "limit_priv.h"

#define FABRIC_DEPTH_MAX 64u

struct fabric {
    struct limit_pair *p;
    struct fi_info *info; /* of the peer: what came with the request for the connection */
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_av *av;
    struct fid_pep *pep;
    struct fid_ep *ep;
    struct fid_mr *mr;
    fi_addr_t peer;
    bool rdm, quiet;
    bool inject;          /* messages of this size can be injected */

    /* memory: one slot to send from, then `depth` slots that are received or written into */
    size_t size, stride;
    unsigned depth;
    unsigned char *mem;
    void *desc;
    uint64_t raddr, rkey; /* the peer's */
    struct fi_context2 rx[FABRIC_DEPTH_MAX], tx; /* what an operation is known by */

    unsigned left;        /* looks until fabric_slow() */
    uint64_t deadline;    /* ns: something must have moved by then, */
    uint64_t moved;       /* which shows in a sum of counters other than this one */
    uint64_t received;    /* reported messages */
    uint64_t sent, done;  /* operations that are reported, and were */
    uint64_t turns;       /* operations and messages that are not */
};

/* Opens this end; the other does the same. quiet: receives are not reported. 0, -1 when the other end gave up or
 * died, or a negative code with its sentence. fabric_close() in any case. */
int fabric_open(struct fabric *f, struct limit_pair *p, size_t size, unsigned depth, bool quiet);
void fabric_close(struct fabric *f);

/* A negative code of libfabric, put in words. */
int fabric_fail(const char *what, long rc) __attribute__((cold));

/* Both ends wait here for each other; phases count from 1. */
int fabric_meet(struct fabric *f, uint64_t phase);

/* Posts slot k. */
int fabric_post(struct fabric *f, unsigned k);

/* Takes what the queue reports, and makes progress; reported receives are posted again. */
int fabric_poll(struct fabric *f);

static inline unsigned char *fabric_slot(struct fabric *f, unsigned k)
{
    return f->mem + f->stride * (k + 1);
}

/* After many looks: 0, -1 as limit_wait_slow(), or a negative code with its sentence when nothing moves any more. */
int fabric_slow(struct fabric *f) __attribute__((cold));

/* fabric_poll() for a loop that waits. */
static inline int fabric_idle(struct fabric *f)
{
    if (__builtin_expect(--f->left == 0, 0)) {
        int rc = fabric_slow(f);

        if (rc)
            return rc;
    }
    return fabric_poll(f);
}

#endif
