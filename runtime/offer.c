/* SPDX-License-Identifier: BSD-3-Clause */
/* Offers that come in: checked, announced, delivered in place or copied to where they are wanted. */
#include "runtime/offer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/peermem.h"
#include "runtime/take.h"
#include "util/err.h"

/* The record in memory that the peer cannot change, and what it names. */
struct incoming {
    struct pli_ref_head head;
    struct pli_ref refs[PLAIT_IOV_MAX];
    struct pli_pieces place; /* without references */
    struct iovec iov[PLAIT_IOV_MAX];
    struct pli_peermem *pm[PLAIT_IOV_MAX];
    uint64_t total;
    bool addresses; /* iov names the peer's memory, not ours */
};

/* ---- checks ---- */

/* Only this connection ends. */
static int refuse(struct plait_conn *c, int code, const char *what)
{
    char text[300];

    snprintf(text, sizeof text, "%s: connection %u: an offered message: %s", c->link->who, c->index, what);
    return pli_conn_event(c, PLI_CEV_ABORT, code, text);
}

/* NULL, or what is wrong with the record. */
static const char *read_refs(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const uint8_t *p, struct incoming *in)
{
    uint32_t flags = pli_meta_flags(meta), type = pli_meta_type(meta), len = pli_w1_len(w1);

    if (type < PLI_REC_ONEWAY || type > PLI_REC_REPLY || flags & PLI_RF_FRAG || !(flags & PLI_RF_COOKIE))
        return "its type and flags do not fit";
    if (type == PLI_REC_REPLY && cookie >> 32)
        return "a reply with a status";
    if (len < sizeof in->head)
        return "it is shorter than the head of its references";
    p += pli_meta_hdr_len(meta);
    memcpy(&in->head, p, sizeof in->head); /* once: the peer could change it */
    if (in->head.count > PLAIT_IOV_MAX)
        return "it has more references than there may be";
    if (len != sizeof in->head + in->head.count * sizeof in->refs[0])
        return "its length does not fit its count of references";
    if (in->head.receipt && type != PLI_REC_REPLY)
        return "it asks for a receipt and is no reply";
    if (in->head.count)
        memcpy(in->refs, p + sizeof in->head, in->head.count * sizeof in->refs[0]);
    if (type != PLI_REC_REPLY && pli_conn_window_full(c))
        return "it is more than the window allows";
    return NULL;
}

static int add_length(struct plait_conn *c, const struct pli_ref *ref, struct incoming *in)
{
    in->total += ref->len;
    return in->total > c->max_msg ? refuse(c, PLAIT_E_PROTO, "its total length, over the maximum") : 0;
}

/* The address itself is the peer's word about its own memory: reading it finds out. */
static int find_address(struct plait_conn *c, const struct pli_ref *ref, struct incoming *in)
{
    if (!c->link->cma.may_read) /* nobody has been told that this process would read addresses */
        return refuse(c, PLAIT_E_PROTO, "a reference to an address, which was not agreed");
    if (!in->addresses && in->place.niov)
        return refuse(c, PLAIT_E_PROTO, "references to regions and to addresses in one message");
    in->addresses = true;
    if (ref->len)
        in->place.iov[in->place.niov++] = (struct iovec){ (void *)(uintptr_t)ref->offset, ref->len };
    return add_length(c, ref, in);
}

static int find_ref(struct plait_conn *c, const struct pli_ref *ref, struct incoming *in)
{
    struct pli_pieces *pl = &in->place;
    struct pli_peermem *pm;
    bool revoked = false;

    if (ref->key == PLI_REF_ADDRESS)
        return find_address(c, ref, in);
    if (in->addresses)
        return refuse(c, PLAIT_E_PROTO, "references to regions and to addresses in one message");
    pm = pli_share_peer(c->link, ref->key, &revoked);
    if (!pm && revoked) /* its sender's connection has ended: its ABORT is behind it in the ring */
        return refuse(c, PLAIT_E_ABORTED, "the peer has revoked the key of its region");
    if (!pm)
        return refuse(c, PLAIT_E_PROTO, "the key of a region that is not shared");
    if (ref->offset > pm->size || ref->len > pm->size - ref->offset)
        return refuse(c, PLAIT_E_PROTO, "offset and length of a reference, beyond the end of its region");
    if (add_length(c, ref, in) < 0)
        return PLAIT_E_PROTO;
    if (!ref->len)
        return 0;
    pl->iov[pl->niov++] = (struct iovec){ pm->addr + ref->offset, ref->len };
    if (!pl->npm || pl->pm[pl->npm - 1] != pm)
        pl->pm[pl->npm++] = pm;
    return 0;
}

/* True: all references are good. False: the connection has ended. */
static bool find_refs(struct plait_conn *c, struct incoming *in)
{
    in->total = 0;
    in->addresses = false;
    in->place.owned = false;
    in->place.niov = in->place.npm = 0;
    in->place.iov = in->iov;
    in->place.pm = in->pm;
    in->place.pool_buf = in->place.hdr = NULL;
    for (uint32_t i = 0; i < in->head.count; i++)
        if (find_ref(c, &in->refs[i], in) < 0 || c->state == PLI_CONN_CLOSED)
            return false;
    return true;
}

/* ---- announcing ---- */

int pli_offer_announce(struct plait_conn *c, struct pli_offer *o)
{
    struct plait_ctx *ctx = c->ctx;

    if (!c->ops->on_offer)
        return 0;
    c->ops->on_offer(c, &o->pub, c->arg);
    if (!ctx->forked && c->state != PLI_CONN_CLOSED)
        return 0;
    pli_pieces_free(o->place);
    o->place = NULL;
    return ctx->forked ? PLAIT_E_FORKED : PLAIT_E_CLOSED;
}

void pli_offer_canceled(struct plait_conn *c, const struct plait_msg *m)
{
    struct plait_offer offer = { m->hdr, m->hdr_len, m->kind, m->len, 1, 0, c };

    if (c->ops->on_offer && c->ops->on_offer_canceled)
        c->ops->on_offer_canceled(c, &offer, c->arg);
}

static int said_before(const struct pli_offer *o)
{
    return o->place || o->copy ? pli_fail(PLAIT_E_BUSY, "it was said before where the offered message is to be put") : 0;
}

int plait_offer_into(struct plait_offer *offer, const struct iovec *iov, unsigned niov)
{
    struct pli_offer *o = (struct pli_offer *)offer;
    size_t len;
    int rc = said_before(o);

    if (rc < 0)
        return rc;
    if (niov < 1 || niov > PLAIT_IOV_MAX)
        return pli_fail(PLAIT_E_INVAL, "%u pieces for an offered message: 1 to PLAIT_IOV_MAX, %u", niov, PLAIT_IOV_MAX);
    len = pli_iov_len(iov, niov);
    if (len < offer->len)
        return pli_fail(PLAIT_E_INVAL, "pieces of %zu bytes for an offered message of %zu", len, offer->len);
    o->place = pli_pieces_new(iov, niov, offer->len, offer->hdr, offer->hdr_len);
    return o->place ? 0 : pli_fail(PLAIT_E_NOMEM, "no memory to remember where an offered message is put");
}

int plait_offer_copy(struct plait_offer *offer, struct plait_pool *pool)
{
    struct pli_offer *o = (struct pli_offer *)offer;
    int rc = said_before(o);

    if (rc == 0 && pool)
        rc = pli_pieces_from_pool(&o->place, pool, offer->len, offer->hdr, offer->hdr_len);
    o->copy |= rc == 0;
    return rc;
}

/* ---- delivery ---- */

static int take_reply(struct plait_conn *c, uint64_t cookie, struct pli_take *t, struct incoming *in)
{
    struct pli_req *r = pli_req_find(c, (uint32_t)cookie);
    struct pli_pieces *into = NULL;
    int rc = 0;

    if (r && pli_req_kind(r) == PLI_REQ_REPLY)
        into = pli_req_into(r, (size_t)in->total, t->m.pub.hdr, t->m.pub.hdr_len, &rc);
    if (rc < 0)
        return pli_conn_event(c, PLI_CEV_ABORT, rc, "no memory to receive a reply");
    t->m.cookie = t->receipt = in->head.receipt;
    t->m.flags = 0;
    t->cookie = cookie;
    t->reply = true;
    /* on a shared context any thread may release a reply, which is no thread to send a receipt */
    if (into || in->addresses || c->take == PLAIT_TAKE_COPY || c->ctx->shared)
        return pli_take_begin(c, t, &in->place, (size_t)in->total, into);
    t->m.flags = PLI_MSG_RECEIPT;
    return pli_take_in_place(c, t, &in->place);
}

static int take_message(struct plait_conn *c, uint32_t meta, uint64_t cookie, struct pli_take *t, struct incoming *in)
{
    struct pli_offer o = { .copy = false };
    struct pli_msg *m = &t->m;
    int rc;

    m->pub.kind = pli_meta_type(meta) == PLI_REC_REQUEST ? PLAIT_REQUEST : PLAIT_ONEWAY;
    m->cookie = (uint32_t)cookie;
    m->flags = pli_meta_flags(meta) & PLI_RF_RECEIPT ? PLI_MSG_RECEIPT : 0;
    if (c->ops->on_offer) {
        o.pub = (struct plait_offer){ m->pub.hdr, m->pub.hdr_len, m->pub.kind, (size_t)in->total, in->place.niov, !in->addresses && c->take != PLAIT_TAKE_COPY, c };
        rc = pli_offer_announce(c, &o);
        if (rc < 0)
            return rc == PLAIT_E_FORKED ? rc : 0;
    }
    if (o.place || o.copy || in->addresses || c->take == PLAIT_TAKE_COPY)
        return pli_take_begin(c, t, &in->place, (size_t)in->total, o.place);
    return pli_take_in_place(c, t, &in->place);
}

int pli_offer_rx(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const uint8_t *p)
{
    const char *wrong = "it comes inside a long one";
    struct incoming in;
    struct pli_take t;

    if (!c->in.busy)
        wrong = read_refs(c, meta, w1, cookie, p, &in);
    if (wrong)
        return refuse(c, PLAIT_E_PROTO, wrong);
    if (!find_refs(c, &in))
        return 0;
    pli_conn_fill(&t.m, c, p, pli_meta_hdr_len(meta), NULL, (size_t)in.total);
    t.reply = false;
    t.addresses = in.addresses;
    if (pli_meta_type(meta) == PLI_REC_REPLY)
        return take_reply(c, cookie, &t, &in);
    return take_message(c, meta, cookie, &t, &in);
}
