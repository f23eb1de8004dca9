/* SPDX-License-Identifier: BSD-3-Clause */
/* Long messages that come in parts: put together in a buffer, or where their receiver wants them. */
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "runtime/offer.h"
#include "util/copy.h"
#include "util/err.h"

#define ALIGN8(n) (((n) + 7u) & ~7u)

void pli_conn_asm_drop(struct plait_conn *c)
{
    free(c->in.buf);
    pli_pieces_free(c->in.place);
    c->in.buf = NULL;
    c->in.place = NULL;
    c->in.busy = false;
}

void pli_conn_asm_forget(struct plait_conn *c, uint32_t cookie)
{
    struct pli_asm *in = &c->in;

    if (!in->busy || pli_meta_type(in->meta) != PLI_REC_REPLY || (uint32_t)in->cookie != cookie)
        return;
    free(in->buf);
    pli_pieces_free(in->place); /* nothing is written there from here on */
    in->buf = NULL;
    in->place = NULL;
}

bool pli_conn_asm_is(const struct plait_conn *c, uint32_t number)
{
    const struct pli_asm *in = &c->in;

    if (!in->busy || (uint32_t)in->cookie != number)
        return false;
    return pli_meta_type(in->meta) == PLI_REC_REQUEST || pli_meta_flags(in->meta) & PLI_RF_RECEIPT;
}

int pli_conn_asm_cancel(struct plait_conn *c)
{
    struct pli_asm in = c->in;
    struct pli_msg m;
    int rc;

    c->in.buf = NULL;
    c->in.place = NULL;
    c->in.busy = false;
    pli_conn_update_rx(c);
    pli_conn_fill(&m, c, in.place ? in.place->hdr : in.buf, in.hdr_len, NULL, in.total);
    m.pub.kind = pli_meta_type(in.meta) == PLI_REC_REQUEST ? PLAIT_REQUEST : PLAIT_ONEWAY;
    rc = pli_conn_lost(c, pli_meta_type(in.meta), (uint32_t)in.cookie);
    if (rc == 0)
        pli_offer_canceled(c, &m.pub);
    if (c->ctx->forked)
        return PLAIT_E_FORKED;
    free(in.buf);
    pli_pieces_free(in.place);
    return rc;
}

static void store(struct pli_asm *in, const void *data, uint32_t len)
{
    if (in->place)
        pli_cursor_write(&in->to, data, len);
    else if (in->buf)
        pli_copy(in->buf + ALIGN8(in->hdr_len) + in->got, data, len);
    in->got += len;
}

static int done(struct plait_conn *c)
{
    struct pli_asm in = c->in;
    const struct pli_pieces *place = in.place;
    struct pli_msg m;

    c->in.buf = NULL;
    c->in.place = NULL;
    c->in.busy = false;
    pli_conn_update_rx(c);
    if (place)
        pli_conn_fill(&m, c, place->hdr, in.hdr_len, place->niov == 1 ? place->iov[0].iov_base : NULL, in.total);
    else
        pli_conn_fill(&m, c, in.buf, in.hdr_len, in.buf ? in.buf + ALIGN8(in.hdr_len) : NULL, in.total);
    m.buf = in.buf;
    m.place = in.place;
    m.flags = place ? PLI_MSG_PLACED : 0;
    if (pli_meta_type(in.meta) == PLI_REC_REPLY)
        return pli_conn_replied(c, &m, in.cookie);
    m.pub.kind = pli_meta_type(in.meta) == PLI_REC_REQUEST ? PLAIT_REQUEST : PLAIT_ONEWAY;
    m.cookie = (uint32_t)in.cookie;
    m.flags |= pli_meta_flags(in.meta) & PLI_RF_RECEIPT ? PLI_MSG_RECEIPT : 0;
    return pli_conn_incoming(c, &m);
}

/* Where is it wanted? 0, or as pli_offer_announce(). */
static int announce(struct plait_conn *c, uint32_t meta, const uint8_t *hdr, size_t len, struct pli_offer *o)
{
    uint32_t hdr_len = pli_meta_hdr_len(meta);
    uint32_t kind = pli_meta_type(meta) == PLI_REC_REQUEST ? PLAIT_REQUEST : PLAIT_ONEWAY;

    o->place = NULL;
    o->copy = false;
    o->pub = (struct plait_offer){ hdr_len ? hdr : NULL, hdr_len, kind, len, 1, 0, c };
    return pli_offer_announce(c, o);
}

/* Where is it wanted? 0; PLAIT_E_NOMEM; otherwise as pli_offer_announce(). */
static int find_place(struct plait_conn *c, struct pli_asm *in, const uint8_t *hdr)
{
    struct pli_offer o;
    struct pli_req *r;
    int rc = 0;

    if (pli_meta_type(in->meta) == PLI_REC_REPLY) {
        r = pli_req_find(c, (uint32_t)in->cookie);
        if (r && pli_req_kind(r) == PLI_REQ_REPLY)
            in->place = pli_req_into(r, in->total, hdr, in->hdr_len, &rc);
    } else if (c->ops->on_offer) {
        rc = announce(c, in->meta, hdr, in->total, &o);
        in->place = o.place;
    }
    if (rc == 0 && !in->place) {
        in->buf = pli_conn_buf_new(c->ctx, ALIGN8(in->hdr_len) + (size_t)in->total);
        rc = in->buf ? 0 : PLAIT_E_NOMEM;
    }
    return rc;
}

int pli_conn_whole(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *hdr, const void *data, uint32_t len)
{
    struct pli_cursor to;
    struct pli_offer o;
    struct pli_msg m;
    int rc;

    if (pli_conn_window_full(c))
        return pli_conn_breach(c, "more messages than the window allows");
    rc = announce(c, meta, hdr, len, &o);
    if (rc < 0)
        return rc == PLAIT_E_FORKED ? rc : 0;
    pli_conn_fill(&m, c, hdr, pli_meta_hdr_len(meta), data, len);
    if (o.place) {
        to = (struct pli_cursor){ o.place->iov, 0 };
        pli_cursor_write(&to, data, len);
        m.place = o.place;
        m.flags = PLI_MSG_PLACED;
        m.pub.hdr = o.place->hdr;
        m.pub.data = o.place->niov == 1 ? o.place->iov[0].iov_base : NULL;
    }
    m.pub.kind = o.pub.kind;
    m.cookie = (uint32_t)cookie;
    m.flags |= meta & PLI_RF_RECEIPT << 8 ? PLI_MSG_RECEIPT : 0;
    return pli_conn_incoming(c, &m);
}

int pli_conn_part_first(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *hdr, const void *data, uint32_t len)
{
    struct pli_asm in = {
        .busy = true, .meta = meta & ~(PLI_RF_FRAG << 8), .hdr_len = pli_meta_hdr_len(meta), .total = (uint32_t)(cookie >> 32),
        .cookie = (uint32_t)cookie,
    };
    int rc;

    if (c->in.busy)
        return pli_conn_breach(c, "a long message inside another");
    if (in.total <= len || in.total > c->max_msg)
        return pli_conn_breach(c, "the total length of a long message");
    if (pli_meta_type(meta) != PLI_REC_REPLY && pli_conn_window_full(c))
        return pli_conn_breach(c, "more messages than the window allows");
    rc = find_place(c, &in, hdr);
    if (rc == PLAIT_E_FORKED)
        return rc; /* the memory of the link is not mapped here */
    if (rc == PLAIT_E_CLOSED)
        return 0; /* its other parts will find a connection that has ended, as after: */
    if (rc < 0)
        return pli_conn_event(c, PLI_CEV_ABORT, PLAIT_E_NOMEM, "no memory to receive a long message");
    if (in.place)
        in.to = (struct pli_cursor){ in.place->iov, 0 };
    else
        memcpy(in.buf, hdr, in.hdr_len);
    c->in = in;
    pli_conn_update_rx(c);
    store(&c->in, data, len);
    return 0;
}

int pli_conn_part_more(struct plait_conn *c, const void *data, uint32_t len)
{
    struct pli_asm *in = &c->in;

    if (!in->busy)
        return pli_conn_breach(c, "a part without a beginning");
    if (len > in->total - in->got || len == 0)
        return pli_conn_breach(c, "the parts of a long message are longer than it");
    store(in, data, len);
    return in->got == in->total ? done(c) : 0;
}
