/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: what belongs to a link and to a connection, and where frames go. */
#include "runtime/rma.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/err.h"
#include "util/hash.h"

struct pli_rma_link *pli_rma_link(struct pli_link *link)
{
    struct pli_rma_link *r = link->rma;

    if (r)
        return r;
    r = calloc(1, sizeof *r);
    if (!r) {
        pli_fail(PLAIT_E_NOMEM, "no memory for the exported regions of a link (%zu bytes)", sizeof *r);
        return NULL;
    }
    pli_list_init(&r->exports);
    pli_list_init(&r->waiting);
    link->rma = r;
    return r;
}

struct pli_rma_conn *pli_rma_conn(struct plait_conn *c)
{
    struct pli_rma_conn *r = c->rma;

    if (r)
        return r;
    r = calloc(1, sizeof *r);
    if (!r) {
        pli_fail(PLAIT_E_NOMEM, "no memory for one-sided operations on a connection (%zu bytes)", sizeof *r);
        return NULL;
    }
    r->conn = c;
    pli_list_init(&r->exports);
    pli_rma_conn_init(r);
    c->rma = r;
    return r;
}

int pli_rma_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    if (msg->mem.op == PLI_MEM_EXPORT)
        return pli_rma_export_came(link, msg, fds);
    pli_fds_close(fds, msg->nfds);
    if (msg->nfds)
        return pli_link_breach(link, "MEM of kind %u comes with %u descriptors", msg->mem.op, msg->nfds);
    switch (msg->mem.op) {
    case PLI_MEM_EXPORTED:
        return pli_rma_exported(link, msg);
    case PLI_MEM_WITHDRAW:
        return pli_rma_withdraw_came(link, msg);
    default:
        return pli_rma_withdrawn(link, msg);
    }
}

void pli_rma_conn_ended(struct plait_conn *c, int code)
{
    if (!c->rma)
        return;
    pli_rma_exports_withdraw(c->rma);
    pli_rma_complete_all(c->rma, code);
}

void pli_rma_conn_free(struct plait_conn *c)
{
    struct pli_rma_conn *r = c->rma;
    struct pli_list *node;

    if (!r)
        return;
    while ((node = pli_list_pop_front(&r->spare)) || (node = pli_list_pop_front(&r->done)) ||
           (node = pli_list_pop_front(&r->sent)) || (node = pli_list_pop_front(&r->queue))) /* these three: in the child of a fork */
        free(pli_container_of(node, struct pli_rma_op, node));
    while ((node = pli_list_pop_front(&r->exports)) != NULL)
        continue; /* they are the link's */
    free(r);
    c->rma = NULL;
}

bool pli_rma_conn_is_quiet(const struct plait_conn *c)
{
    return !c->rma || c->rma->nops == 0;
}

void pli_rma_link_down(struct pli_link *link, int code, bool forked)
{
    struct pli_rma_link *r = link->rma;

    if (!r)
        return;
    pli_rma_exports_end(r, code, forked);
    pli_rma_imports_free(r);
    pli_peermem_put(r->page);
    link->rma = NULL;
    free(r);
}

/* ---- keys ---- */

uint32_t pli_key_session(const uint8_t *sid)
{
    return (uint32_t)pli_hash_bytes(sid, PLI_ID_LEN);
}

uint32_t pli_key_check(const struct pli_key *k)
{
    return (uint32_t)pli_hash_bytes(k, offsetof(struct pli_key, check));
}

void pli_key_seal(struct pli_key *k, const uint8_t *sid)
{
    k->session = pli_key_session(sid);
    k->check = pli_key_check(k);
}
