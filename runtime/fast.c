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

    if (c->rx_credited != released) /* a store the less */
        c->rx_credited = released;
    return (uint64_t)len | c->w1_chan | (uint64_t)released << 48;
}

/* MORE: flush at the end of the pass, unless that is to happen anyway. */
static inline bool flush_unknown(const struct plait_conn *c, unsigned flags)
{
    return flags && !c->link->flush_due;
}

/* Apart, so that the short path needs no stack: it stores nothing that it need not. */
static __attribute__((noinline, cold)) int send_more(struct plait_conn *c, const void *data, size_t len, unsigned flags)
{
    pli_conn_flush_later(c);
    return plait_send(c, data, len, flags);
}

static __attribute__((noinline, cold)) int request_more(struct plait_conn *c, const void *data, size_t len, unsigned flags,
                                                        plait_reply_fn fn, void *arg)
{
    pli_conn_flush_later(c);
    return plait_request(c, data, len, flags, fn, arg);
}

static __attribute__((noinline, cold)) int reply_more(struct plait_msg *req, const void *data, size_t len, unsigned flags)
{
    pli_conn_flush_later(req->conn);
    return plait_reply(req, data, len, flags);
}

int plait_send(struct plait_conn *c, const void *data, size_t len, unsigned flags)
{
    struct pli_tr *tr = c->tr;

    if (unlikely(c->tx_seq == c->tx_limit || !short_way(c, tr, len, flags)))
        return pli_send_slow(c, data, len, flags);
    if (unlikely(flush_unknown(c, flags)))
        return send_more(c, data, len, flags);
    c->tx_seq++;
    return tr->send_small(tr, META_ONEWAY, next_w1(c, len), 0, data, flags);
}

int plait_request(struct plait_conn *c, const void *data, size_t len, unsigned flags, plait_reply_fn fn, void *arg)
{
    struct pli_tr *tr = c->tr;
    struct pli_req *r;
    uint64_t key;

    if (unlikely(c->tx_seq == c->tx_limit || !short_way(c, tr, len, flags) || !fn || c->req_free == PLI_REQ_NONE))
        return pli_request_slow(c, data, len, flags, fn, arg);
    if (unlikely(flush_unknown(c, flags)))
        return request_more(c, data, len, flags, fn, arg);
    r = &c->reqs[c->req_free];
    key = r->key;
    c->req_free = (uint16_t)(key >> 48);
    r->key = (uint32_t)key | PLI_REQ_KEY(PLI_REQ_REPLY);
    r->seq = (uint32_t)c->tx_seq++;
    r->on_reply = fn;
    r->arg = arg;
    c->req_begun++;
    return tr->send_small(tr, META_REQUEST, next_w1(c, len), (uint32_t)key, data, flags);
}

int plait_reply(struct plait_msg *req, const void *data, size_t len, unsigned flags)
{
    struct pli_msg *m = (struct pli_msg *)req;
    struct plait_conn *c = req->conn;
    struct pli_tr *tr = c->tr;

    if (unlikely(req->kind != PLAIT_REQUEST || m->flags & PLI_MSG_REPLIED || !c->tx_ready || !short_way(c, tr, len, flags)))
        return pli_reply_slow(req, data, len, flags);
    if (unlikely(flush_unknown(c, flags)))
        return reply_more(req, data, len, flags);
    m->flags |= PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    c->rx_released++; /* the credit of the request travels with its reply */
    c->rx_owed--;
    c->replies++;
    return tr->send_small(tr, META_REPLY, next_w1(c, len), m->cookie, data, flags);
}

/* ---- receiving ---- */

/* How many of our messages the peer has released since it last said so. */
static inline uint32_t new_credit(const struct plait_conn *c, uint64_t w1)
{
    return (pli_w1_credit(w1) - (uint32_t)c->tx_released) & 0xffffu;
}

/* Takes it, unless there is more to do or it is wrong. */
static inline bool took_credit(struct plait_conn *c, uint32_t delta)
{
    if (delta == 0)
        return true;
    if (unlikely(delta > c->tx_seq - c->tx_released || c->blocked || !c->tx_ready))
        return false;
    c->tx_released += delta;
    c->tx_limit += delta;
    return true;
}

static inline int rx_credit(struct plait_conn *c, uint64_t w1)
{
    uint32_t delta = new_credit(c, w1);

    return likely(took_credit(c, delta)) ? 0 : pli_conn_credited(c, delta);
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

/* The three kinds are functions of their own, which need little on the stack: while the line of the record is on its way, the processor
 * works ahead on all that follows, but nothing that follows is stored before the line has come, and stores go out one by one. */
static __attribute__((noinline)) int rx_oneway(struct plait_conn *c, uint64_t w1, const void *payload)
{
    struct pli_msg m;

    if (unlikely(rx_credit(c, w1) < 0))
        return c->held_link->stop;
    fill(&m, c, payload, pli_w1_len(w1), PLAIT_ONEWAY);
    m.flags = 0;
    m.cookie = 0;
    c->rx_seen++;
    c->on_message(c, &m.pub, c->arg);
    if (unlikely(m.flags)) {
        pli_conn_delivered(c, &m);
    } else if (unlikely(++c->rx_released - c->rx_credited >= c->credit_step ||
                        pli_conn_seen_since(c, c->rx_credited) >= c->window)) { /* others are held: the peer sees a full window */
        pli_conn_credit_due(c);
    }
    return c->held_link->stop;
}

static __attribute__((noinline)) int rx_request(struct plait_conn *c, uint64_t w1, const void *payload)
{
    struct pli_msg m;

    if (unlikely(rx_credit(c, w1) < 0))
        return c->held_link->stop;
    /* read once: the peer could change it */
    m.cookie = (uint32_t) * (const volatile uint64_t *)payload;
    fill(&m, c, (const char *)payload + 8, pli_w1_len(w1), PLAIT_REQUEST);
    m.flags = 0;
    c->rx_seen++;
    c->rx_owed++;
    c->on_message(c, &m.pub, c->arg);
    if (unlikely(m.flags != (PLI_MSG_REPLIED | PLI_MSG_COUNTED)))
        pli_conn_delivered(c, &m);
    return c->held_link->stop;
}

/* The request that is answered, which may be used again after its callback and arg have been read. NULL: not for the short path. */
static inline struct pli_req *take_request(struct plait_conn *c, uint64_t cookie)
{
    uint32_t index = (uint32_t)cookie & 0xffffu;
    struct pli_req *r = &c->reqs[index];

    /* that very number with status 0, of a request without a timer: a sum, so that no other status makes up for another kind */
    if (unlikely(index >= c->nreqs || cookie + PLI_REQ_KEY(PLI_REQ_REPLY) != r->key || !c->tx_ready))
        return NULL;
    r->key = (uint32_t)((uint32_t)cookie + 0x10000u) | PLI_REQ_KEY(PLI_REQ_FREE) | (uint64_t)c->req_free << 48;
    c->req_free = (uint16_t)index;
    c->req_ended++;
    return r;
}

static __attribute__((noinline)) int rx_reply(struct plait_conn *c, uint64_t w1, const void *payload)
{
    struct pli_req *r;
    struct pli_msg m;
    plait_reply_fn fn;

    if (unlikely(rx_credit(c, w1) < 0))
        return c->held_link->stop;
    r = take_request(c, *(const volatile uint64_t *)payload);
    if (unlikely(!r))
        return pli_link_rx_slow(c->held_link, META_REPLY, w1, payload);
    fill(&m, c, (const char *)payload + 8, pli_w1_len(w1), PLAIT_REPLY);
    m.flags = PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    m.cookie = 0;
    fn = r->on_reply;
    fn(&m.pub, 0, r->arg);
    return c->held_link->stop;
}

static __attribute__((noinline)) struct plait_conn *other_conn(struct pli_link *link, uint32_t chan)
{
    struct plait_conn *c = chan < link->nchans ? link->chans[chan] : NULL;

    if (c) {
        link->ctx->pace.switches += link->recent != &pli_conn_zombie;
        link->recent = c;
    }
    return c ? c : &pli_conn_zombie;
}

/* Mostly the connection of the record before. The processor guesses the branch and goes on with `recent`, while the line with the channel
 * number is still on its way from the other core; an address made from that number would wait for it, and everything after it, too. */
static inline struct plait_conn *conn_of(struct pli_link *link, uint32_t chan)
{
    struct plait_conn *c = link->recent;

    return likely(c->chan == chan) ? c : other_conn(link, chan);
}

int pli_link_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    struct pli_link *link = owner;
    struct plait_conn *c = conn_of(link, pli_w1_chan(w1));

    /* rx_fast: open, and nothing long is half received; a small message is never over max_msg or empty of data pointer */
    if (unlikely(!c->rx_fast || pli_w1_len(w1) - 1 >= PLI_TR_SMALL))
        return pli_link_rx_slow(link, meta, w1, payload);
    if (meta == META_REPLY)
        return rx_reply(c, w1, payload);
    if (unlikely(pli_conn_seen_since(c, c->rx_released) >= c->window))
        return pli_link_rx_slow(link, meta, w1, payload);
    if (likely(meta == META_ONEWAY))
        return rx_oneway(c, w1, payload);
    if (likely(meta == META_REQUEST))
        return rx_request(c, w1, payload);
    return pli_link_rx_slow(link, meta, w1, payload);
}

/* ---- several at once ---- */

/* What they share is looked at, and stored, once; end is where the payload behind the last one would be. */

static inline bool goes_on(const struct plait_conn *c)
{
    return c->rx_fast && c->held_link->stop >= 0;
}

/* One by one: those that the short paths leave, or all that follow when a callback has ended the connection, or when the child of a fork
 * returns from it. */
static __attribute__((noinline, cold)) int rx_rest(struct pli_link *link, uint32_t meta, uint64_t w1, const uint8_t *p, uint32_t stride,
                                                   const uint8_t *end)
{
    for (; p != end && link->stop >= 0; p += stride) {
        int rc = pli_link_rx(link, meta, w1, p);

        if (unlikely(rc < 0))
            return rc;
    }
    return link->stop;
}

static __attribute__((noinline)) int rx_oneways(struct plait_conn *c, uint64_t w1, const uint8_t *p, uint32_t stride, const uint8_t *end)
{
    struct pli_msg m;

    fill(&m, c, NULL, pli_w1_len(w1), PLAIT_ONEWAY);
    m.cookie = 0;
    do {
        m.pub.data = p;
        m.flags = 0;
        p += stride;
        c->rx_seen++;
        c->on_message(c, &m.pub, c->arg);
        if (unlikely(m.flags))
            pli_conn_delivered(c, &m);
        else
            c->rx_released++;
        if (unlikely(!goes_on(c)))
            return rx_rest(c->held_link, META_ONEWAY, w1, p, stride, end);
    } while (p != end);
    if (unlikely(c->rx_released != c->rx_credited &&
                 (c->rx_released - c->rx_credited >= c->credit_step || pli_conn_seen_since(c, c->rx_credited) >= c->window)))
        pli_conn_credit_due(c);
    return c->held_link->stop;
}

static __attribute__((noinline)) int rx_requests(struct plait_conn *c, uint64_t w1, const uint8_t *p, uint32_t stride, const uint8_t *end)
{
    struct pli_msg m;

    fill(&m, c, NULL, pli_w1_len(w1), PLAIT_REQUEST);
    do {
        m.pub.data = p + 8;
        m.cookie = (uint32_t) * (const volatile uint64_t *)p;
        m.flags = 0;
        p += stride;
        c->rx_seen++;
        c->rx_owed++;
        c->on_message(c, &m.pub, c->arg);
        if (unlikely(m.flags != (PLI_MSG_REPLIED | PLI_MSG_COUNTED)))
            pli_conn_delivered(c, &m);
        if (unlikely(!goes_on(c)))
            return rx_rest(c->held_link, META_REQUEST, w1, p, stride, end);
    } while (p != end);
    return c->held_link->stop;
}

static __attribute__((noinline)) int rx_replies(struct plait_conn *c, uint64_t w1, const uint8_t *p, uint32_t stride, const uint8_t *end)
{
    struct pli_msg m;

    fill(&m, c, NULL, pli_w1_len(w1), PLAIT_REPLY);
    m.cookie = 0;
    do {
        struct pli_req *r = take_request(c, *(const volatile uint64_t *)p);

        if (unlikely(!r))
            return rx_rest(c->held_link, META_REPLY, w1, p, stride, end);
        m.pub.data = p + 8;
        m.flags = PLI_MSG_REPLIED | PLI_MSG_COUNTED;
        p += stride;
        r->on_reply(&m.pub, 0, r->arg);
        if (unlikely(!goes_on(c)))
            return rx_rest(c->held_link, META_REPLY, w1, p, stride, end);
    } while (p != end);
    return c->held_link->stop;
}

/* No calls but those at the ends: it needs no stack. */
int pli_link_rx_many(void *owner, uint32_t meta, uint64_t w1, const void *payload, uint32_t stride, uint32_t count)
{
    struct pli_link *link = owner;
    struct plait_conn *c = link->recent;
    const uint8_t *p = payload, *end = p + (size_t)stride * count;

    /* as in pli_link_rx(), which takes them one by one, and the credit with the first */
    if (unlikely(c->chan != pli_w1_chan(w1) || !c->rx_fast || pli_w1_len(w1) - 1 >= PLI_TR_SMALL))
        return rx_rest(link, meta, w1, p, stride, end);
    if (meta != META_REPLY &&
        unlikely(pli_conn_seen_since(c, c->rx_released) + count > c->window || (meta != META_ONEWAY && meta != META_REQUEST)))
        return rx_rest(link, meta, w1, p, stride, end);
    if (unlikely(!took_credit(c, new_credit(c, w1))))
        return rx_rest(link, meta, w1, p, stride, end);
    if (meta == META_REPLY)
        return rx_replies(c, w1, p, stride, end);
    return meta == META_REQUEST ? rx_requests(c, w1, p, stride, end) : rx_oneways(c, w1, p, stride, end);
}
