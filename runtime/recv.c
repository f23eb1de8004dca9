/* SPDX-License-Identifier: BSD-3-Clause */
/* Receiving: records become messages, messages are delivered, held and released. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "runtime/offer.h"
#include "runtime/rma.h"
#include "runtime/take.h"
#include "util/copy.h"
#include "util/err.h"

#define ALIGN8(n) (((n) + 7u) & ~7u)

int pli_conn_breach(struct plait_conn *c, const char *what)
{
    return pli_link_breach(c->link, "connection %u: %s", c->index, what);
}

/* ---- credit ---- */

/* The peer has released some of our messages. */
int pli_conn_credited(struct plait_conn *c, uint32_t delta)
{
    if (delta > c->tx_seq - c->tx_released)
        return pli_conn_breach(c, "credit for messages that were never sent");
    c->tx_released += delta;
    if (c->state == PLI_CONN_OPEN && pli_list_is_empty(&c->txq)) {
        c->tx_limit += delta;
        if (__builtin_expect(c->blocked, 0) && !pli_list_is_on(&c->blocked_on))
            pli_list_push_back(&c->link->blocked, &c->blocked_on);
        if (__builtin_expect(c->blocked, 0))
            pli_ctx_defer(c->ctx, &c->link->pump); /* not from here: a reply may be about to be delivered */
    }
    return 0;
}

static inline int take_credit(struct plait_conn *c, uint64_t w1)
{
    uint32_t delta = (pli_w1_credit(w1) - (uint32_t)c->tx_released) & 0xffffu;

    return __builtin_expect(delta != 0, 1) ? pli_conn_credited(c, delta) : 0;
}

static inline void tell_credit(struct plait_conn *c)
{
    if (__builtin_expect(c->rx_released - c->rx_credited >= c->credit_step || pli_conn_seen_since(c, c->rx_credited) >= c->window, 0))
        pli_conn_credit_now(c);
}

static inline void release_credit(struct plait_conn *c)
{
    c->rx_released++;
    tell_credit(c);
}

/* While messages are held the peer may see a full window long before credit_step is reached. */
static void credit_if_peer_waits(struct plait_conn *c)
{
    if (pli_conn_seen_since(c, c->rx_credited) >= c->window && c->rx_released != c->rx_credited && c->state != PLI_CONN_CLOSED)
        pli_conn_credit_now(c);
}

/* ---- delivery ---- */

static __attribute__((noinline)) void give_receipt(struct plait_conn *c, const struct pli_msg *m)
{
    pli_conn_send_receipt(c, m->cookie, m->flags & PLI_MSG_REFUSED ? PLAIT_E_REFUSED : 0);
    c->rx_owed--;
    pli_conn_quiet_later(c);
}

/* The requester waits for it: if it cannot be queued, the link's end must tell. */
static __attribute__((noinline)) void no_reply(struct plait_conn *c, struct pli_msg *m)
{
    if (plait_reply_error(&m->pub, PLAIT_E_NOREPLY) < 0 && c->state != PLI_CONN_CLOSED)
        pli_link_fail(c->link, PLAIT_E_NOMEM, "no memory to answer a request");
}

/* The message's user is done with it. */
static inline void finish(struct plait_conn *c, struct pli_msg *m)
{
    if (c->state == PLI_CONN_CLOSED)
        return;
    if (m->pub.kind == PLAIT_REQUEST && __builtin_expect(!(m->flags & PLI_MSG_REPLIED), 0))
        no_reply(c, m);
    else if (__builtin_expect(m->flags & PLI_MSG_RECEIPT, 0))
        give_receipt(c, m);
    if (!(m->flags & PLI_MSG_COUNTED) && c->state != PLI_CONN_CLOSED) {
        m->flags |= PLI_MSG_COUNTED;
        release_credit(c);
    }
}

void pli_conn_finish(struct plait_conn *c, struct pli_msg *m)
{
    finish(c, m);
    credit_if_peer_waits(c);
}

/* ---- buffers of long messages ---- */

#define SPARE_MIN (128u << 10) /* malloc() gives smaller ones again by itself */
#define SPARE_MAX (80u << 20)

/* Owner thread, as the next. Fresh pages cost more than the copy into them: one large buffer is kept for the next message. */
void *pli_conn_buf_new(struct plait_ctx *ctx, size_t size)
{
    void *buf = ctx->spare;

    /* not one that is far too large: the message may be held for long */
    if (size < SPARE_MIN || !buf || malloc_usable_size(buf) < size || malloc_usable_size(buf) / 2 > size)
        return malloc(size);
    ctx->spare = NULL;
    return buf;
}

static void buffer_free(struct plait_ctx *ctx, void *buf)
{
    size_t size = buf ? malloc_usable_size(buf) : 0;

    if (size >= SPARE_MIN && size <= SPARE_MAX && (!ctx->spare || malloc_usable_size(ctx->spare) < size)) {
        free(ctx->spare);
        ctx->spare = buf;
    } else {
        free(buf);
    }
}

/* After on_message. */
void pli_conn_delivered(struct plait_conn *c, struct pli_msg *m)
{
    if (__builtin_expect(c->ctx->forked, 0)) /* the child of a fork in the callback: the rings are not mapped there */
        return;
    if (m->flags & PLI_MSG_HELD) {
        credit_if_peer_waits(c);
        return;
    }
    finish(c, m);
    if (__builtin_expect(m->buf != NULL, 0))
        buffer_free(c->ctx, m->buf);
    if (__builtin_expect(m->flags & PLI_MSG_PLACED, 0))
        pli_pieces_free(m->place);
}

void pli_conn_credit_due(struct plait_conn *c)
{
    if (c->state != PLI_CONN_CLOSED && !c->ctx->forked)
        pli_conn_credit_now(c);
}

/* Calls the user. m lies on the caller's stack; if it was held, a copy lives on and m must not be finished. */
static void deliver(struct plait_conn *c, struct pli_msg *m)
{
    c->on_message(c, &m->pub, c->arg);
    pli_conn_delivered(c, m);
}

static void fill(struct pli_msg *m, struct plait_conn *c, const uint8_t *hdr, uint32_t hdr_len, const void *data,
                 uint32_t len)
{
    m->pub.hdr = hdr_len ? hdr : NULL;
    m->pub.hdr_len = hdr_len;
    m->pub.data = len ? data : NULL;
    m->pub.len = len;
    m->pub.conn = c;
}

void pli_conn_fill(struct pli_msg *m, struct plait_conn *c, const void *hdr, uint32_t hdr_len, const void *data, size_t len)
{
    m->buf = NULL;
    m->flags = 0;
    m->cookie = 0;
    fill(m, c, hdr, hdr_len, data, (uint32_t)len);
}

bool pli_conn_window_full(const struct plait_conn *c)
{
    return pli_conn_seen_since(c, c->rx_released) >= c->window;
}

static void drop(struct plait_conn *c, struct pli_msg *m)
{
    buffer_free(c->ctx, m->buf);
    if (m->flags & PLI_MSG_PLACED)
        pli_pieces_free(m->place);
}

int pli_conn_incoming(struct plait_conn *c, struct pli_msg *m)
{
    if (pli_conn_window_full(c)) {
        drop(c, m);
        return pli_conn_breach(c, "more messages than the window allows");
    }
    c->rx_seen++;
    c->rx_owed += m->pub.kind == PLAIT_REQUEST || m->flags & PLI_MSG_RECEIPT;
    deliver(c, m);
    return 0;
}

/* A request or one-way message is whole. */
static inline int incoming(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *hdr, const void *data,
                           uint32_t len, void *buf)
{
    struct pli_msg m;
    bool is_request = pli_meta_type(meta) == PLI_REC_REQUEST;

    if (__builtin_expect(len >= c->offer_min && c->ops->on_offer, 0))
        return pli_conn_whole(c, meta, cookie, hdr, data, len);
    c->rx_seen++;
    if (__builtin_expect(pli_conn_seen_since(c, c->rx_released) > c->window, 0)) {
        free(buf);
        return pli_conn_breach(c, "more messages than the window allows");
    }
    fill(&m, c, hdr, pli_meta_hdr_len(meta), data, len);
    m.buf = buf;
    m.cookie = (uint32_t)cookie;
    m.pub.kind = is_request ? PLAIT_REQUEST : PLAIT_ONEWAY;
    m.flags = meta & PLI_RF_RECEIPT << 8 ? PLI_MSG_RECEIPT : 0;
    c->rx_owed += is_request || m.flags;
    deliver(c, &m);
    return 0;
}

/* The request that this is a reply to; NULL: there is none that has been sent. */
static inline struct pli_req *replied_to(struct plait_conn *c, uint32_t cookie)
{
    struct pli_req *r = pli_req_find(c, cookie);

    if (__builtin_expect(!r || pli_req_kind(r) == PLI_REQ_DONE || (!pli_list_is_empty(&c->txq) && pli_conn_is_queued(c, cookie)), 0))
        return NULL;
    return r;
}

int pli_conn_replied(struct plait_conn *c, struct pli_msg *m, uint64_t cookie)
{
    struct pli_req *r = replied_to(c, (uint32_t)cookie);
    plait_reply_fn fn;
    void *arg;

    if (!r) {
        drop(c, m);
        return pli_conn_breach(c, "a reply to a request that is not outstanding");
    }
    fn = pli_req_kind(r) == PLI_REQ_FORGOTTEN ? NULL : r->on_reply;
    arg = r->arg;
    m->pub.kind = PLAIT_REPLY;
    m->flags |= PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    c->rx_owed += (m->flags & PLI_MSG_RECEIPT) != 0;
    pli_req_free(c, (uint32_t)cookie & 0xffffu, true);
    pli_conn_quiet_later(c);
    if (fn)
        fn(&m->pub, 0, arg);
    pli_conn_delivered(c, m);
    return 0;
}

/* A short reply that is wanted in a certain place. 1: it is not. */
static __attribute__((noinline)) int replied_into(struct plait_conn *c, const struct pli_req *r, uint64_t cookie, const void *hdr,
                                                  uint32_t hdr_len, const void *data, uint32_t len)
{
    struct pli_cursor to;
    struct pli_msg m;
    int rc;

    m.place = pli_req_into(r, len, hdr, hdr_len, &rc);
    if (!m.place)
        return rc < 0 ? pli_conn_event(c, PLI_CEV_ABORT, rc, pli_err_text()) : 1;
    to = (struct pli_cursor){ m.place->iov, 0 };
    pli_cursor_write(&to, data, len);
    pli_conn_fill(&m, c, m.place->hdr, hdr_len, m.place->niov == 1 ? m.place->iov[0].iov_base : NULL, len);
    m.flags = PLI_MSG_PLACED;
    return pli_conn_replied(c, &m, cookie);
}

/* A reply is whole. */
static inline int replied(struct plait_conn *c, uint32_t meta, uint64_t cookie, int status, const uint8_t *hdr, const void *data,
                          uint32_t len, void *buf)
{
    struct pli_req *r = replied_to(c, (uint32_t)cookie);
    struct pli_msg m;
    plait_reply_fn fn;
    void *arg;

    if (__builtin_expect(!r, 0)) {
        free(buf);
        return pli_conn_breach(c, "a reply to a request that is not outstanding");
    }
    if (__builtin_expect(r->key & PLI_REQ_ODD && status == 0 && !buf, 0)) {
        int rc = replied_into(c, r, cookie, hdr, pli_meta_hdr_len(meta), data, len);

        if (rc <= 0)
            return rc;
    }
    fn = r->on_reply;
    arg = r->arg;
    if (__builtin_expect(pli_req_kind(r) == PLI_REQ_FORGOTTEN, 0))
        fn = NULL;
    pli_req_free(c, (uint32_t)cookie & 0xffffu, true);
    if (__builtin_expect(c->state != PLI_CONN_OPEN, 0))
        pli_conn_quiet_later(c);
    fill(&m, c, hdr, pli_meta_hdr_len(meta), data, len);
    m.buf = buf;
    m.cookie = 0;
    m.pub.kind = PLAIT_REPLY;
    m.flags = PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    if (__builtin_expect(fn != NULL, 1))
        fn(status ? NULL : &m.pub, status, arg);
    if (__builtin_expect(m.buf && !(m.flags & PLI_MSG_HELD), 0))
        buffer_free(c->ctx, m.buf);
    return 0;
}

int pli_conn_reply_lost(struct plait_conn *c, uint64_t cookie, int status)
{
    return replied(c, pli_rec_meta(PLI_REC_REPLY, PLI_RF_COOKIE, 0), cookie, status, NULL, NULL, 0, NULL);
}

int pli_conn_lost(struct plait_conn *c, uint32_t type, uint32_t cookie)
{
    struct plait_out none = PLAIT_OUT_INIT;
    bool offered;

    if (pli_conn_window_full(c))
        return pli_conn_breach(c, "more messages than the window allows");
    c->rx_seen++;
    c->rx_released++; /* its credit travels with the answer */
    if (type == PLI_REC_REQUEST && pli_conn_send_reply(c, cookie, PLAIT_E_CANCELED, &none, &offered) < 0) {
        pli_link_fail(c->link, PLAIT_E_NOMEM, "no memory to answer a request that was given up");
        return PLAIT_E_NOMEM;
    }
    if (type == PLI_REC_ONEWAY)
        pli_conn_send_receipt(c, cookie, PLAIT_E_CANCELED);
    if (c->state != PLI_CONN_CLOSED)
        tell_credit(c);
    return 0;
}

static int receipt(struct plait_conn *c, uint64_t cookie)
{
    struct pli_req *r = pli_req_find(c, (uint32_t)cookie);
    plait_done_fn fn;
    void *arg;
    int status = (int)(uint32_t)(cookie >> 32);

    if (!r || pli_req_kind(r) != PLI_REQ_DONE || pli_conn_is_queued(c, (uint32_t)cookie))
        return pli_conn_breach(c, "a receipt for a message that is not outstanding");
    fn = r->on_done;
    arg = r->arg;
    pli_req_free(c, (uint32_t)cookie & 0xffffu, false);
    if (c->state != PLI_CONN_OPEN)
        pli_conn_quiet_later(c);
    fn(status, arg);
    return 0;
}

/* ---- records ---- */

static bool no_new_messages(const struct plait_conn *c)
{
    return c->state != PLI_CONN_OPEN && c->state != PLI_CONN_FIN_SENT;
}

static __attribute__((noinline)) int rx_rare(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie,
                                             const uint8_t *p)
{
    uint32_t type = pli_meta_type(meta), len = pli_w1_len(w1), flags = pli_meta_flags(meta);
    int32_t code = PLAIT_E_ABORTED;

    if (flags & ~PLI_RF_ALL || (flags & PLI_RF_RECEIPT && type != PLI_REC_ONEWAY) || pli_meta_hdr_len(meta) > PLAIT_HDR_MAX)
        return pli_conn_breach(c, "the flags or header length of a record");
    if (flags & PLI_RF_REF)
        return pli_offer_rx(c, meta, w1, cookie, p);
    if (type >= PLI_REC_RMA && type <= PLI_REC_RMA_DATA)
        return pli_rma_rx(c, meta, cookie, p, len);
    if (flags & PLI_RF_FRAG) {
        if (type > PLI_REC_REPLY || !(flags & PLI_RF_COOKIE))
            return pli_conn_breach(c, "a long message of an unknown type");
        return pli_conn_part_first(c, meta, cookie, p, p + pli_meta_hdr_len(meta), len);
    }
    switch (type) {
    case PLI_REC_FRAG:
        return pli_conn_part_more(c, p, len);
    case PLI_REC_RECEIPT:
        if (!(flags & PLI_RF_COOKIE))
            return pli_conn_breach(c, "a receipt without a number");
        return receipt(c, cookie);
    case PLI_REC_CREDIT:
        return 0;
    case PLI_REC_CANCEL:
        if (!(flags & PLI_RF_COOKIE))
            return pli_conn_breach(c, "a message is given up without its number");
        return pli_take_cancel(c, (uint32_t)cookie);
    case PLI_REC_NEED:
        if (!(flags & PLI_RF_COOKIE))
            return pli_conn_breach(c, "the bytes of a message are asked for without its number");
        return pli_offer_needed(c, (uint32_t)cookie);
    case PLI_REC_FILL:
        if (meta != pli_rec_meta(PLI_REC_FILL, 0, 0))
            return pli_conn_breach(c, "the flags of bytes that were asked for");
        return pli_take_fill(c, p, len);
    case PLI_REC_FIN:
        return pli_conn_event(c, PLI_CEV_RX_FIN, 0, NULL);
    case PLI_REC_DONE:
        return pli_conn_event(c, PLI_CEV_RX_DONE, 0, NULL);
    case PLI_REC_ABORT:
        if (len >= sizeof code)
            memcpy(&code, p, sizeof code);
        return pli_conn_event(c, PLI_CEV_RX_ABORT, code < 0 ? code : PLAIT_E_ABORTED, "the peer aborted the connection");
    default:
        return pli_conn_breach(c, "a record of unknown type");
    }
}

static int rx_late(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const uint8_t *p);

int pli_conn_rx(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload)
{
    if (take_credit(c, w1) < 0)
        return PLAIT_E_PROTO;
    if (__builtin_expect(c->taking != NULL, 0) && c->state != PLI_CONN_CLOSED)
        return pli_take_behind(c, meta, w1, payload);
    return pli_conn_rx_now(c, meta, w1, payload);
}

int pli_conn_rx_now(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload)
{
    const uint8_t *p = payload;
    uint32_t type = pli_meta_type(meta), len = pli_w1_len(w1);
    uint32_t flags_type = meta & 0xffffu;
    uint64_t cookie = 0;

    if (meta & PLI_RF_COOKIE << 8) {
        cookie = *(const volatile uint64_t *)payload; /* once: the peer could change it */
        p += 8;
    }
    if (__builtin_expect(c->state != PLI_CONN_OPEN, 0))
        return rx_late(c, meta, w1, cookie, p);
    if (__builtin_expect(c->in.busy && type != PLI_REC_FRAG && type <= PLI_REC_REPLY, 0))
        return pli_conn_breach(c, "a message inside a long one");
    switch (flags_type) {
    case PLI_REC_ONEWAY:
    case PLI_REC_ONEWAY | PLI_RF_COOKIE << 8:
    case PLI_REC_ONEWAY | (PLI_RF_COOKIE | PLI_RF_RECEIPT) << 8:
    case PLI_REC_REQUEST | PLI_RF_COOKIE << 8:
        if (__builtin_expect(meta >> 16 > PLAIT_HDR_MAX || len > c->max_msg, 0))
            return pli_conn_breach(c, "a message over the maximum length");
        return incoming(c, meta, cookie, p, p + pli_meta_hdr_len(meta), len, NULL);
    case PLI_REC_REPLY | PLI_RF_COOKIE << 8:
        if (__builtin_expect(meta >> 16 > PLAIT_HDR_MAX || len > c->max_msg, 0))
            return pli_conn_breach(c, "a reply over the maximum length");
        if (replied(c, meta, cookie, (int)(uint32_t)(cookie >> 32), p, p + pli_meta_hdr_len(meta), len, NULL) < 0)
            return PLAIT_E_PROTO;
        break;
    default:
        return rx_rare(c, meta, w1, cookie, p);
    }
    return 0;
}

/* While the connection is being opened or closed. */
static int rx_late(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const uint8_t *p)
{
    uint32_t type = pli_meta_type(meta), flags = pli_meta_flags(meta), len = pli_w1_len(w1), hdr_len = pli_meta_hdr_len(meta);
    bool request_like = type == PLI_REC_ONEWAY || type == PLI_REC_REQUEST;

    if (c->state == PLI_CONN_OPENING)
        return pli_conn_breach(c, "a record before the connection is open");
    if (c->state == PLI_CONN_CLOSED)
        return 0;
    if (request_like && no_new_messages(c))
        return pli_conn_breach(c, "a message after FIN");
    if (flags & ~(PLI_RF_COOKIE | PLI_RF_RECEIPT) || type > PLI_REC_REPLY || type == PLI_REC_NONE)
        return rx_rare(c, meta, w1, cookie, p);
    if ((flags & PLI_RF_RECEIPT && type != PLI_REC_ONEWAY) || (!(flags & PLI_RF_COOKIE) && (type != PLI_REC_ONEWAY || flags)))
        return pli_conn_breach(c, "the flags of a record");
    if (hdr_len > PLAIT_HDR_MAX || len > c->max_msg || c->in.busy)
        return pli_conn_breach(c, "a message's length");
    if (request_like)
        return incoming(c, meta, cookie, p, p + hdr_len, len, NULL);
    return replied(c, meta, cookie, (int)(uint32_t)(cookie >> 32), p, p + hdr_len, len, NULL);
}
