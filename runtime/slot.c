/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are written in place: reserve, commit, abandon; and flush. */
#include <string.h>
#include "runtime/conn.h"
#include "util/err.h"

int plait_reserve(struct plait_conn *c, size_t len, struct plait_slot *slot)
{
    int rc = pli_conn_refuse(c, len);
    size_t max;

    if (rc < 0)
        return rc;
    max = plait_reserve_max(c);
    if (len > max)
        return pli_fail(PLAIT_E_TOOBIG, "%zu bytes cannot be reserved in the ring, %zu at most: use plait_send", len, max);
    /* a cookie word is always reserved: a request is decided at commit; a one-way message carries it unused */
    rc = c->tr->ops->reserve(c->tr, true, (uint32_t)len, &slot->data);
    if (rc < 0)
        return pli_conn_ring_full(c, rc);
    slot->len = len;
    slot->priv[0] = (uint64_t)(uintptr_t)c;
    slot->priv[1] = len;
    c->reserving = true;
    return 0;
}

size_t plait_reserve_max(const struct plait_conn *c)
{
    return c->tr && c->state == PLI_CONN_OPEN ? c->tr->ops->max_payload(c->tr) - 8 : 0;
}

static int commit_check(struct plait_conn *c, const struct plait_slot *slot, size_t len, unsigned flags)
{
    if (c->state != PLI_CONN_CLOSED && c->ctx->forked)
        return pli_ctx_check_slow(c->ctx); /* the ring is not mapped here */
    if (!c->reserving || slot->priv[0] != (uint64_t)(uintptr_t)c)
        return pli_fail(PLAIT_E_INVAL, "nothing is reserved on this connection");
    if (len > slot->priv[1])
        return pli_fail(PLAIT_E_INVAL, "%zu bytes are committed of %llu reserved", len, (unsigned long long)slot->priv[1]);
    if (flags & ~PLAIT_MORE)
        return pli_fail(PLAIT_E_INVAL, "no flag but PLAIT_MORE, not 0x%x", flags);
    return 0;
}

static void commit(struct plait_conn *c, struct plait_slot *slot, enum pli_rec_type type, size_t len, uint64_t cookie,
                   unsigned flags)
{
    c->tr->ops->commit(c->tr, pli_rec_meta(type, PLI_RF_COOKIE, 0), pli_rec_w1((uint32_t)len, c->peer_chan, c->rx_released),
                       cookie, flags & PLAIT_MORE);
    c->rx_credited = c->rx_released;
    c->reserving = false;
    slot->priv[0] = 0;
    c->tx_seq++;
    if (flags)
        pli_conn_flush_later(c);
    if (!pli_list_is_empty(&c->txq)) /* a reply was queued behind the reservation: it goes first */
        pli_conn_update_limit(c);
    /* what the reservation kept back */
    if (!pli_list_is_empty(&c->link->ctl) || !pli_list_is_empty(&c->link->queued))
        pli_ctx_defer(c->ctx, &c->link->pump);
}

int plait_commit(struct plait_conn *c, struct plait_slot *slot, size_t len, unsigned flags)
{
    int rc = commit_check(c, slot, len, flags);

    if (rc < 0)
        return rc;
    commit(c, slot, PLI_REC_ONEWAY, len, 0, flags);
    return 0;
}

int plait_commit_request(struct plait_conn *c, struct plait_slot *slot, size_t len, unsigned flags, plait_reply_fn fn,
                         void *arg)
{
    uint32_t index;
    int rc = commit_check(c, slot, len, flags);

    if (rc == 0 && !fn)
        rc = pli_fail(PLAIT_E_INVAL, "a request needs a function for its reply");
    if (rc == 0)
        rc = pli_req_alloc(c, PLI_REQ_REPLY, &index);
    if (rc < 0)
        return rc;
    c->reqs[index].on_reply = fn;
    c->reqs[index].arg = arg;
    commit(c, slot, PLI_REC_REQUEST, len, pli_req_cookie(&c->reqs[index]), flags);
    return 0;
}

void plait_abandon(struct plait_conn *c, struct plait_slot *slot)
{
    if (!c->reserving || slot->priv[0] != (uint64_t)(uintptr_t)c || c->ctx->forked)
        return;
    if (c->state != PLI_CONN_CLOSED)
        c->tr->ops->abandon(c->tr);
    c->reserving = false;
    slot->priv[0] = 0;
    /* what could not be sent meanwhile */
    if (c->state != PLI_CONN_CLOSED)
        pli_ctx_defer(c->ctx, &c->link->pump);
}

int plait_flush(struct plait_conn *c)
{
    int rc;

    if (c->state == PLI_CONN_CLOSED || c->state == PLI_CONN_OPENING)
        return pli_fail(PLAIT_E_CLOSED, "the connection is not open");
    rc = pli_ctx_check(c->ctx);
    if (rc < 0)
        return rc;
    c->tr->ops->flush(c->tr);
    return 0;
}
