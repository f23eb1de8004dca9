/* SPDX-License-Identifier: BSD-3-Clause */
/* Sending: what may be sent, and what the short paths of fast.c leave. */
#include "runtime/conn.h"
#include "runtime/offer.h"
#include "util/err.h"

void pli_conn_update_limit(struct plait_conn *c)
{
    /* nothing may be sent while something older is queued: order */
    c->tx_ready = c->state == PLI_CONN_OPEN && pli_list_is_empty(&c->txq);
    c->tx_limit = c->tx_ready ? c->tx_released + c->peer_window : c->tx_seq;
}

int pli_conn_send_record(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more)
{
    int rc = c->tr->ops->send(c->tr, meta, w1 | pli_rec_w1(0, 0, c->rx_released), cookie, data, hdr, more);

    if (rc == 0)
        c->rx_credited = c->rx_released;
    return rc;
}

/* ---- again and writable ---- */

void pli_conn_unblock(struct plait_conn *c)
{
    if (!c->blocked || c->state != PLI_CONN_OPEN)
        return;
    pli_conn_update_limit(c);
    if (c->tx_limit == c->tx_seq)
        return; /* still no window, or a queue: comes again with either */
    c->blocked = false;
    pli_list_remove(&c->blocked_on);
    if (c->ops->on_writable)
        c->ops->on_writable(c, c->arg);
}

static int again(struct plait_conn *c, const char *why)
{
    c->blocked = true;
    c->ctx->st.again++;
    if (c->link && !pli_list_is_on(&c->blocked_on))
        pli_list_push_back(&c->link->blocked, &c->blocked_on);
    return pli_fail_const(PLAIT_E_AGAIN, why);
}

int pli_conn_check_open(struct plait_conn *c, const char *what)
{
    int rc;

    if (c->state == PLI_CONN_CLOSED) /* first: its context may be gone */
        return pli_fail(PLAIT_E_CLOSED, "the connection is closed: %s", plait_strerror(c->end_code));
    rc = pli_ctx_check(c->ctx);
    if (rc < 0)
        return rc;
    if (c->state == PLI_CONN_OPENING)
        return again(c, "the connection is not open yet");
    if (c->state != PLI_CONN_OPEN)
        return pli_fail(PLAIT_E_CLOSED, "the connection is being closed: no new %s", what);
    return 0;
}

/* Why can nothing be sent? The cold part of every send. */
__attribute__((noinline)) int pli_conn_refuse(struct plait_conn *c, size_t len)
{
    int rc = pli_conn_check_open(c, "messages");

    if (rc < 0)
        return rc;
    if (len > c->peer_max_msg)
        return pli_fail(PLAIT_E_TOOBIG, "a message of %zu bytes is over the %u that the peer accepts (max_msg)", len,
                        c->peer_max_msg);
    if (c->reserving)
        return pli_fail(PLAIT_E_BUSY, "a reservation is open on this connection: commit or abandon it first");
    if (!pli_list_is_empty(&c->txq))
        return again(c, "earlier messages wait for space in the ring");
    if (c->tx_seq == c->tx_limit)
        return again(c, "the window is full: the peer has not released enough messages");
    return 0;
}

__attribute__((noinline)) int pli_conn_ring_full(struct plait_conn *c, int rc)
{
    if (rc == PLAIT_E_AGAIN) {
        pli_link_starved(c->link);
        return again(c, "the ring to the peer is full");
    }
    return rc;
}

static void set_data(struct pli_txmsg *m, const struct plait_out *out, size_t len)
{
    m->data = out->data;
    m->from = (struct pli_cursor){ out->niov ? out->iov : NULL, 0 };
    m->len = len;
}

/* A message that did not fit the short path: long, or something is in the way. index: of its entry, or PLI_REQ_NONE. */
static __attribute__((noinline)) int send_long(struct plait_conn *c, uint32_t meta, uint32_t index, const struct plait_out *out, size_t len)
{
    struct pli_txmsg m = { .meta = meta, .hdr_len = out->hdr_len, .chan = c->peer_chan, .hdr = out->hdr };
    /* a request that times out gives its memory back before it has been sent: that one is copied */
    bool stays = out->flags & PLAIT_NOCOPY && !out->timeout_us;
    int rc = pli_conn_refuse(c, len), offered = 0;

    if (rc < 0)
        return rc;
    if (index != PLI_REQ_NONE)
        m.cookie = pli_req_cookie(&c->reqs[index]);
    if (stays && len >= c->offer_min)
        offered = pli_offer_send(c, &m, index, out, false);
    if (offered < 0)
        return pli_conn_ring_full(c, offered);
    if (!offered) {
        set_data(&m, out, len);
        rc = pli_conn_send_or_queue(c, &m, !stays, false, out->flags & PLAIT_MORE);
        if (rc < 0)
            return pli_conn_ring_full(c, rc);
        c->ctx->st.long_pushed += len >= c->offer_min;
    }
    c->tx_seq++;
    pli_conn_update_limit(c);
    if (out->flags & PLAIT_MORE)
        pli_conn_flush_later(c);
    return 0;
}

/* ---- one-way ---- */

/* Any one-way message without a header part. */
int pli_send_slow(struct plait_conn *c, const void *data, size_t len, unsigned flags)
{
    struct plait_out out = PLAIT_OUT_INIT;

    if (flags & ~PLAIT_MORE)
        return pli_fail(PLAIT_E_INVAL, "plait_send takes no flag but PLAIT_MORE, not 0x%x", flags);
    out.data = data;
    out.len = len;
    out.flags = flags;
    return send_long(c, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), PLI_REQ_NONE, &out, len);
}

/* ---- requests ---- */

static int request(struct plait_conn *c, const struct plait_out *out, size_t len)
{
    uint32_t meta = pli_rec_meta(PLI_REC_REQUEST, PLI_RF_COOKIE, out->hdr_len);
    uint32_t index;
    int rc = pli_req_alloc(c, PLI_REQ_REPLY, &index);

    if (rc < 0)
        return rc == PLAIT_E_AGAIN ? again(c, "as many requests are outstanding on this connection as there can be") : rc;
    c->reqs[index].on_reply = out->on_reply;
    c->reqs[index].arg = out->arg;
    if (out->timeout_us) {
        rc = pli_req_set_timeout(c, index, out->timeout_us);
        if (rc < 0)
            goto err;
    }
    if (out->into) {
        rc = pli_req_set_into(c, index, out->into, out->ninto);
        if (rc < 0)
            goto err;
    }
    rc = send_long(c, meta, index, out, len);
    if (rc < 0)
        goto err;
    return 0;

err:
    pli_req_free(c, index, false);
    return rc;
}

/* Any request without a header part. */
int pli_request_slow(struct plait_conn *c, const void *data, size_t len, unsigned flags, plait_reply_fn fn, void *arg)
{
    struct plait_out out = PLAIT_OUT_INIT;
    int rc;

    if (flags & ~PLAIT_MORE || !fn)
        return pli_fail(PLAIT_E_INVAL, "plait_request needs a function for the reply and no flag but PLAIT_MORE");
    rc = pli_conn_refuse(c, len);
    if (rc < 0)
        return rc;
    out.data = data;
    out.len = len;
    out.flags = flags;
    out.on_reply = fn;
    out.arg = arg;
    return request(c, &out, len);
}

static int oneway_receipt(struct plait_conn *c, const struct plait_out *out, size_t len)
{
    uint32_t meta = pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_RECEIPT, out->hdr_len);
    uint32_t index;
    int rc = pli_req_alloc(c, PLI_REQ_DONE, &index);

    if (rc < 0)
        return rc == PLAIT_E_AGAIN ? again(c, "as many requests are outstanding on this connection as there can be") : rc;
    c->reqs[index].on_done = out->on_done;
    c->reqs[index].arg = out->arg;
    rc = send_long(c, meta, index, out, len);
    if (rc < 0)
        pli_req_free(c, index, false);
    return rc;
}

int plait_sendx(struct plait_conn *c, const struct plait_out *out)
{
    size_t len;
    int rc = pli_out_check(out, &len);

    if (rc < 0)
        return rc;
    if (out->on_reply && out->on_done)
        return pli_fail(PLAIT_E_INVAL, "a request has on_reply, a one-way message may have on_done: not both");
    if (out->flags & PLAIT_NOCOPY && !out->on_reply && !out->on_done)
        return pli_fail(PLAIT_E_INVAL, "PLAIT_NOCOPY needs on_reply or on_done: when may the memory be used again?");
    if ((out->timeout_us || out->into) && !out->on_reply)
        return pli_fail(PLAIT_E_INVAL, "%s for requests", out->into ? "into is" : "timeout_us is");
    rc = pli_conn_refuse(c, len);
    if (rc < 0)
        return rc;
    if (out->on_reply)
        return request(c, out, len);
    if (out->on_done)
        return oneway_receipt(c, out, len);
    return send_long(c, pli_rec_meta(PLI_REC_ONEWAY, 0, out->hdr_len), PLI_REQ_NONE, out, len);
}

/* ---- what the peer waits for: always accepted ---- */

/* PLI_REQ_NONE: its user wants no word, or it is not worth it. Otherwise a number for the receipt of an offered reply. */
static uint32_t reply_entry(struct plait_conn *c, const struct plait_out *out, size_t len)
{
    uint32_t index;

    if (!out->on_done || !(out->flags & PLAIT_NOCOPY) || len < c->offer_min || pli_req_alloc(c, PLI_REQ_DONE, &index) < 0)
        return PLI_REQ_NONE;
    c->reqs[index].on_done = out->on_done;
    c->reqs[index].arg = out->arg;
    return index;
}

int pli_conn_send_reply(struct plait_conn *c, uint32_t cookie, int status, const struct plait_out *out, bool *offered)
{
    size_t len = out->niov ? pli_iov_len(out->iov, out->niov) : out->len;
    struct pli_txmsg m = {
        .meta = pli_rec_meta(PLI_REC_REPLY, PLI_RF_COOKIE, out->hdr_len),
        .hdr_len = out->hdr_len,
        .cookie = cookie | (uint64_t)(uint32_t)status << 32,
        .chan = c->peer_chan,
        .hdr = out->hdr,
    };
    bool more = out->flags & PLAIT_MORE;
    uint32_t index = reply_entry(c, out, len);
    int rc = index != PLI_REQ_NONE ? pli_offer_send(c, &m, index, out, true) : 0;

    *offered = rc > 0;
    if (index != PLI_REQ_NONE && rc <= 0)
        pli_req_free(c, index, false);
    if (rc == 0) {
        set_data(&m, out, len);
        rc = pli_conn_send_or_queue(c, &m, true, true, more);
        c->ctx->st.long_pushed += rc == 0 && len >= c->offer_min;
    }
    if (rc < 0)
        return rc;
    c->replies++;
    if (more)
        pli_conn_flush_later(c);
    return 0;
}

void pli_conn_send_receipt(struct plait_conn *c, uint32_t cookie, int status)
{
    struct pli_txmsg m = {
        .meta = pli_rec_meta(PLI_REC_RECEIPT, PLI_RF_COOKIE, 0),
        .cookie = cookie | (uint64_t)(uint32_t)status << 32,
        .chan = c->peer_chan,
    };
    int rc = pli_conn_send_or_queue(c, &m, true, true, false);

    if (rc < 0)
        pli_link_fail(c->link, rc, pli_err_text());
}

void pli_conn_send_fin(struct plait_conn *c)
{
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_FIN, 0, 0), .chan = c->peer_chan };
    int rc = pli_conn_send_or_queue(c, &m, true, true, false);

    if (rc < 0)
        pli_link_fail(c->link, rc, pli_err_text());
}

void pli_conn_send_frame(struct plait_conn *c, const struct pli_wire_msg *msg)
{
    uint8_t buf[512];
    int n = pli_wire_encode(buf, sizeof buf, msg);
    struct pli_txmsg m = {
        .meta = pli_rec_meta(PLI_REC_LINK, 0, 0), .chan = PLI_CHAN_LINK, .data = buf, .len = n > 0 ? (size_t)n : 0,
    };
    int rc = n < 0 ? n : pli_conn_send_or_queue(c, &m, true, true, false);

    if (rc < 0)
        pli_link_fail(c->link, rc, pli_err_text());
}

/* Tells the credit alone. If the ring is full, pli_conn_pump() or a later release does. A peer that has sent FIN needs none, and after
 * DONE nothing may follow. */
void pli_conn_credit_now(struct plait_conn *c)
{
    int rc;

    c->credit_due = false;
    if (c->state != PLI_CONN_OPEN && c->state != PLI_CONN_FIN_SENT)
        return;
    rc = c->tr->ops->send(c->tr, pli_rec_meta(PLI_REC_CREDIT, 0, 0), pli_rec_w1(0, c->peer_chan, c->rx_released), 0, NULL,
                              NULL, false);

    c->credit_due = rc < 0;
    if (rc == 0) {
        c->rx_credited = c->rx_released;
        return;
    }
    pli_link_starved(c->link);
    if (!pli_list_is_on(&c->queued))
        pli_list_push_back(&c->link->queued, &c->queued);
}
