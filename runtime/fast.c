/* SPDX-License-Identifier: BSD-3-Clause */
/* The short paths: small messages without a header part on an open connection, with space in window and ring. No system call, no
 * allocation, no lock, no fence, few stores. Whatever is out of the ordinary goes to send.c and recv.c, which do it all, slower. The calls
 * at the end of each function are jumps. */
#include "runtime/conn.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define META_ONEWAY ((uint32_t)PLI_REC_ONEWAY)
#define META_REQUEST ((uint32_t)PLI_REC_REQUEST | PLI_RF_COOKIE << 8)
#define META_REPLY ((uint32_t)PLI_REC_REPLY | PLI_RF_COOKIE << 8)

/* ---- sending ---- */

static inline bool short_way(const struct plait_conn *c, const struct pli_tr *tr, size_t len, unsigned flags)
{
#ifdef PLAIT_DEBUG
    if (pli_ctx_check(c->ctx) < 0)
        return false;
#else
    (void)c;
#endif
    return tr->room.pos < tr->room.limit && len <= PLI_TR_SMALL && flags <= PLAIT_MORE;
}

/* Every record carries the credit. */
static inline uint64_t next_w1(struct plait_conn *c, size_t len)
{
    uint32_t released = c->rx_released;

    c->rx_credited = released;
    return (uint64_t)len | c->w1_chan | (uint64_t)released << 48;
}

int plait_send(struct plait_conn *c, const void *data, size_t len, unsigned flags)
{
    struct pli_tr *tr = c->tr;

    if (unlikely(c->tx_seq == c->tx_limit || !short_way(c, tr, len, flags)))
        return pli_send_slow(c, data, len, flags);
    if (flags)
        pli_conn_flush_later(c);
    c->tx_seq++;
    return tr->send_small(tr, META_ONEWAY, next_w1(c, len), 0, data, flags);
}

int plait_request(struct plait_conn *c, const void *data, size_t len, unsigned flags, plait_reply_fn fn, void *arg)
{
    struct pli_tr *tr = c->tr;
    struct pli_req *r;

    if (unlikely(c->tx_seq == c->tx_limit || !short_way(c, tr, len, flags) || !fn || c->req_free == PLI_REQ_NONE))
        return pli_request_slow(c, data, len, flags, fn, arg);
    if (flags)
        pli_conn_flush_later(c);
    r = &c->reqs[c->req_free];
    c->req_free = r->next_free;
    r->kind = PLI_REQ_REPLY;
    r->seq = (uint32_t)c->tx_seq++;
    r->on_reply = fn;
    r->arg = arg;
    c->npending++;
    return tr->send_small(tr, META_REQUEST, next_w1(c, len), r->cookie, data, flags);
}

int plait_reply(struct plait_msg *req, const void *data, size_t len, unsigned flags)
{
    struct pli_msg *m = (struct pli_msg *)req;
    struct plait_conn *c = req->conn;
    struct pli_tr *tr = c->tr;

    if (unlikely(req->kind != PLAIT_REQUEST || m->flags & PLI_MSG_REPLIED || !c->tx_ready || !short_way(c, tr, len, flags)))
        return pli_reply_slow(req, data, len, flags);
    if (flags)
        pli_conn_flush_later(c);
    m->flags |= PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    c->rx_released++; /* the credit of the request travels with its reply */
    c->rx_owed--;
    c->replies++;
    return tr->send_small(tr, META_REPLY, next_w1(c, len), m->cookie, data, flags);
}

/* ---- receiving ---- */

static inline int rx_credit(struct plait_conn *c, uint64_t w1)
{
    uint32_t delta = (pli_w1_credit(w1) - (uint32_t)c->tx_released) & 0xffffu;

    if (delta == 0)
        return 0;
    if (unlikely(delta > c->tx_seq - c->tx_released || c->blocked || !c->tx_ready))
        return pli_conn_credited(c, delta);
    c->tx_released += delta;
    c->tx_limit += delta;
    return 0;
}

static inline void fill(struct pli_msg *m, struct plait_conn *c, const void *data, uint32_t len, uint32_t kind)
{
    m->pub.data = data;
    m->pub.len = len;
    m->pub.hdr = NULL;
    m->pub.hdr_len = 0;
    m->pub.kind = kind;
    m->pub.conn = c;
    m->buf = NULL;
}

static inline int rx_oneway(struct pli_link *link, struct plait_conn *c, uint64_t w1, const void *payload)
{
    struct pli_msg m;

    fill(&m, c, payload, pli_w1_len(w1), PLAIT_ONEWAY);
    m.flags = 0;
    m.cookie = 0;
    c->rx_seen++;
    c->received++;
    c->on_message(c, &m.pub, c->arg);
    if (unlikely(m.flags)) {
        pli_conn_delivered(c, &m);
    } else if (unlikely(++c->rx_released - c->rx_credited >= c->credit_step ||
                        c->rx_seen - c->rx_credited >= c->window)) { /* others are held: the peer sees a full window */
        pli_conn_credit_due(c);
    }
    return link->stop;
}

static inline int rx_request(struct pli_link *link, struct plait_conn *c, uint64_t w1, const void *payload)
{
    struct pli_msg m;

    /* read once: the peer could change it */
    m.cookie = (uint32_t) * (const volatile uint64_t *)payload;
    fill(&m, c, (const char *)payload + 8, pli_w1_len(w1), PLAIT_REQUEST);
    m.flags = 0;
    c->rx_seen++;
    c->rx_owed++;
    c->received++;
    c->on_message(c, &m.pub, c->arg);
    if (unlikely(m.flags != (PLI_MSG_REPLIED | PLI_MSG_COUNTED)))
        pli_conn_delivered(c, &m);
    return link->stop;
}

/* 1: not for the short path. */
static inline int rx_reply(struct pli_link *link, struct plait_conn *c, uint64_t w1, const void *payload)
{
    uint64_t cookie = *(const volatile uint64_t *)payload;
    uint32_t index = (uint32_t)cookie & 0xffffu;
    struct pli_req *r = &c->reqs[index];
    struct pli_msg m;
    plait_reply_fn fn;
    void *arg;

    if (unlikely(index >= c->nreqs || r->cookie != (uint32_t)cookie || r->kind != PLI_REQ_REPLY || r->timer || cookie >> 32 || !c->tx_ready))
        return 1;
    fn = r->on_reply;
    arg = r->arg;
    r->kind = PLI_REQ_FREE;
    r->cookie = (uint32_t)cookie + 0x10000u;
    r->next_free = c->req_free;
    c->req_free = (uint16_t)index;
    c->npending--;
    c->received++;
    fill(&m, c, (const char *)payload + 8, pli_w1_len(w1), PLAIT_REPLY);
    m.flags = PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    m.cookie = 0;
    fn(&m.pub, 0, arg);
    return link->stop;
}

int pli_link_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    struct pli_link *link = owner;
    uint32_t chan = pli_w1_chan(w1);
    struct plait_conn *c;
    int rc;

    if (unlikely(chan >= link->nchans))
        return pli_link_rx_slow(link, meta, w1, payload);
    c = link->chans[chan];
    /* rx_fast: open, and nothing long is half received; a small message is never over max_msg or empty of data pointer */
    if (unlikely(!c || !c->rx_fast || pli_w1_len(w1) - 1 >= PLI_TR_SMALL))
        return pli_link_rx_slow(link, meta, w1, payload);
    if (unlikely(meta != META_REPLY && c->rx_seen - c->rx_released >= c->window))
        return pli_link_rx_slow(link, meta, w1, payload);
    if (likely(meta == META_ONEWAY)) {
        rc = rx_credit(c, w1);
        return unlikely(rc < 0) ? rc : rx_oneway(link, c, w1, payload);
    }
    if (likely(meta == META_REQUEST)) {
        rc = rx_credit(c, w1);
        return unlikely(rc < 0) ? rc : rx_request(link, c, w1, payload);
    }
    if (likely(meta == META_REPLY)) {
        rc = rx_credit(c, w1);
        if (likely(rc == 0))
            rc = rx_reply(link, c, w1, payload);
        if (likely(rc <= 0))
            return rc;
    }
    return pli_link_rx_slow(link, meta, w1, payload);
}
