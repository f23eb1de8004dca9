/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/take.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/offer.h"
#include "runtime/pace.h"
#include "util/err.h"

#define ALIGN8(n) (((n) + 7u) & ~7u)

/* Records of one connection that wait behind a copy. With more, the copy is finished first, so that a peer finds its ring full and not our memory
 * used up. */
#define BEHIND_MAX 256u
#define BEHIND_BYTES (64u << 10)
/* But behind one whose bytes were asked for there is nothing to finish. What its peer sends before it looks at the question, one message as
 * long as they may be among that, must find room. */
#define BEHIND_ASKED ((size_t)64 << 20)

#define CALL_MIN (8u << 10) /* bytes for one call of process_vm_readv(), which takes a microsecond for itself */

struct behind {
    struct pli_list node;
    uint32_t meta, size;
    uint64_t w1;
    uint8_t payload[] __attribute__((aligned(8)));
};

/* ---- one message ---- */

static void release(struct pli_take *t)
{
    free(t->m.buf);
    if (t->m.flags & PLI_MSG_PLACED)
        pli_pieces_free(t->m.place);
    pli_pieces_free(t->src);
}

/* It could not be received; the text is in pli_err_text(). */
static int end(struct plait_conn *c, int rc)
{
    char text[400];

    snprintf(text, sizeof text, "%s", pli_err_text());
    return pli_conn_event(c, PLI_CEV_ABORT, rc, text);
}

/* Into the place that somebody named, or a buffer of our own. Nothing of the record is needed after that. */
static int find_room(struct plait_conn *c, struct pli_take *t, struct pli_pieces *into)
{
    struct pli_msg *m = &t->m;
    uint8_t *buf;

    if (into) {
        m->place = into;
        m->flags |= PLI_MSG_PLACED;
        m->pub.hdr = into->hdr;
        m->pub.data = into->niov == 1 ? into->iov[0].iov_base : NULL;
        t->to = (struct pli_cursor){ into->iov, 0 };
        return 0;
    }
    buf = pli_conn_buf_new(c->ctx, ALIGN8(m->pub.hdr_len) + t->left + 1);
    if (!buf)
        return pli_fail(PLAIT_E_NOMEM, "no memory to receive a message of %zu bytes", t->left);
    if (m->pub.hdr_len)
        memcpy(buf, m->pub.hdr, m->pub.hdr_len);
    m->buf = buf;
    m->pub.hdr = m->pub.hdr_len ? buf : NULL;
    m->pub.data = t->left ? buf + ALIGN8(m->pub.hdr_len) : NULL;
    t->whole = (struct iovec){ buf + ALIGN8(m->pub.hdr_len), t->left };
    t->to = (struct pli_cursor){ &t->whole, 0 };
    return 0;
}

/* From the peer's regions, or out of its memory. */
static int copy_some(struct plait_conn *c, struct pli_take *t, size_t n)
{
    size_t left = n;
    int rc = 0;

    if (t->addresses && n) {
        rc = pli_cma_read(c->link, &t->from, &t->to, n);
        if (rc == 0 && n == t->left)
            rc = pli_cma_still_there(c->link);
    }
    while (!t->addresses && left) {
        size_t part = t->from.iov->iov_len - t->from.off;

        part = part < left ? part : left;
        pli_cursor_write(&t->to, (const uint8_t *)t->from.iov->iov_base + t->from.off, part);
        t->from.off += part;
        if (t->from.off == t->from.iov->iov_len)
            t->from = (struct pli_cursor){ t->from.iov + 1, 0 };
        left -= part;
    }
    t->left -= n;
    return rc;
}

/* Its data is where the peer put it. */
static void lay(struct pli_msg *m, struct pli_pieces *src)
{
    m->place = src;
    m->flags |= PLI_MSG_PLACED;
    m->pub.data = src->niov == 1 ? src->iov[0].iov_base : NULL;
}

/* All of it is there. */
static int deliver(struct plait_conn *c, struct pli_take *t)
{
    if (t->reply && !t->in_place && pli_req_find(c, (uint32_t)t->cookie)) /* the replier can have its memory again */
        pli_conn_send_receipt(c, t->receipt, 0);
    if (c->state == PLI_CONN_CLOSED) { /* the link failed in that */
        release(t);
        return 0;
    }
    if (t->in_place)
        lay(&t->m, t->src);
    else
        pli_pieces_free(t->src);
    return t->reply ? pli_conn_replied(c, &t->m, t->cookie) : pli_conn_incoming(c, &t->m);
}

/* Its bytes cannot be read; the text is in pli_err_text(). t is c->taking, or on the stack. All of them come: what has been written is
 * written again. */
static int ask(struct plait_conn *c, struct pli_take *t)
{
    struct pli_txmsg need = { .meta = pli_rec_meta(PLI_REC_NEED, PLI_RF_COOKIE, 0), .chan = c->peer_chan };
    struct pli_take *later = t == c->taking ? t : malloc(sizeof *later);
    int rc;

    c->ctx->st.offers_cma--;
    pli_cma_refused(c->link);
    pli_pieces_free(t->src);
    t->src = NULL;
    if (!later) {
        release(t);
        return end(c, pli_fail(PLAIT_E_NOMEM, "no memory to ask for a message that cannot be read"));
    }
    *later = *t;
    later->asked = true;
    later->left = later->m.pub.len;
    later->to = (struct pli_cursor){ later->m.flags & PLI_MSG_PLACED ? later->m.place->iov : &later->whole, 0 };
    c->taking = later;
    pli_conn_update_rx(c);
    need.cookie = later->reply ? later->receipt : later->m.cookie;
    rc = pli_conn_send_first(c, &need, true);
    return rc < 0 ? end(c, rc) : 0;
}

static int at_once(struct plait_conn *c, struct pli_take *t)
{
    int rc = copy_some(c, t, t->left);

    if (rc == 0)
        return deliver(c, t);
    if (rc == PLAIT_E_PERM)
        return ask(c, t);
    release(t);
    return end(c, rc);
}

/* Puts it on the heap, for slices. False: no memory for that. */
static bool put_off(struct plait_conn *c, const struct pli_take *t)
{
    struct pli_take *later = malloc(sizeof *later);

    if (!later)
        return false;
    *later = *t;
    later->src = pli_pieces_keep(t->src, t->m.pub.hdr, t->in_place ? t->m.pub.hdr_len : 0);
    if (!later->src) {
        free(later);
        return false;
    }
    if (t->in_place)
        later->m.pub.hdr = later->src->hdr;
    later->from = (struct pli_cursor){ later->src->iov, 0 };
    if (t->to.iov == &t->whole)
        later->to.iov = &later->whole;
    c->taking = later;
    pli_conn_update_rx(c);
    pli_ctx_work(c->ctx, &c->take_work);
    return true;
}

int pli_take_begin(struct plait_conn *c, struct pli_take *t, struct pli_pieces *src, size_t total, struct pli_pieces *into)
{
    int rc;

    t->src = src;
    t->from = (struct pli_cursor){ src->iov, 0 };
    t->left = total;
    t->in_place = t->asked = t->dropped = false;
    rc = find_room(c, t, into);
    if (rc < 0)
        return end(c, rc);
    if (t->addresses)
        c->ctx->st.offers_cma++;
    else
        c->ctx->st.offers_copied++;
    if (t->addresses && c->link->cma.refused && total)
        return ask(c, t);
    if (pli_pace_at_once(c->ctx, total) || !put_off(c, t))
        return at_once(c, t);
    return 0;
}

int pli_take_in_place(struct plait_conn *c, struct pli_take *t, struct pli_pieces *src)
{
    c->ctx->st.offers_placed++;
    t->src = src;
    t->left = 0;
    t->in_place = true;
    t->asked = t->dropped = false;
    if (pli_pace_fine(c->ctx) && put_off(c, t))
        return 0;
    return deliver(c, t);
}

/* ---- what waits ---- */

static void unlink_behind(struct plait_conn *c, struct behind *b)
{
    pli_list_remove(&b->node);
    c->nbehind--;
    c->behind_bytes -= b->size;
}

static struct behind *pop(struct plait_conn *c)
{
    struct pli_list *node = pli_list_first(&c->behind);
    struct behind *b = node ? pli_container_of(node, struct behind, node) : NULL;

    if (b)
        unlink_behind(c, b);
    return b;
}

/* As it would have been when it came. Its credit has been taken already. */
static int replay(struct plait_conn *c, const struct behind *b)
{
    uint64_t w1 = (b->w1 & ~((uint64_t)0xffff << 48)) | c->tx_released << 48;
    int rc;

    c->replaying = true;
    rc = pli_conn_rx(c, b->meta, w1, b->payload);
    c->replaying = false;
    return rc;
}

/* Until the next copy, or the end. */
static int go_on(struct plait_conn *c)
{
    struct behind *b;
    int rc = 0;

    while (rc >= 0 && !c->taking && !c->ctx->forked && c->state != PLI_CONN_CLOSED && (b = pop(c)) != NULL) {
        rc = replay(c, b);
        free(b);
    }
    if (c->state != PLI_CONN_CLOSED)
        pli_conn_update_rx(c);
    return rc;
}

/* The copy is done, or has failed: rc. */
static int over(struct plait_conn *c, int rc)
{
    struct pli_take t = *c->taking;

    if (rc == PLAIT_E_PERM)
        return ask(c, c->taking);
    free(c->taking);
    c->taking = NULL;
    if (rc < 0) {
        release(&t);
        return end(c, rc);
    }
    rc = deliver(c, &t);
    return rc < 0 ? rc : go_on(c);
}

static void slice(struct pli_work *w)
{
    struct plait_conn *c = pli_container_of(w, struct plait_conn, take_work);
    struct pli_take *t = c->taking;
    uint64_t now;
    size_t n = pli_pace_slice(c, &now);
    int rc;

    if (!n) {
        pli_ctx_work(c->ctx, w);
        return;
    }
    if (t->addresses && n < CALL_MIN)
        n = CALL_MIN;
    if (n > t->left)
        n = t->left;
    rc = copy_some(c, t, n);
    if (rc == 0 && t->left) {
        pli_pace_took(c->ctx, n, now, false);
        pli_ctx_work(c->ctx, w);
        return;
    }
    pli_session_ref(c->session);
    if (t->in_place)
        pli_pace_gap(c->ctx, now);
    over(c, rc);
    pli_session_unref(c->session);
}

static bool asks(const struct plait_conn *c)
{
    return c->taking && c->taking->asked;
}

static int finish_all(struct plait_conn *c)
{
    int rc = 0;

    while (rc >= 0 && c->taking && !asks(c) && !c->ctx->forked) {
        pli_work_cancel(&c->take_work);
        rc = copy_some(c, c->taking, c->taking->left);
        rc = over(c, rc);
    }
    return rc;
}

void pli_take_finish(struct plait_conn *c)
{
    pli_session_ref(c->session);
    finish_all(c);
    pli_session_unref(c->session);
}

int pli_take_fill(struct plait_conn *c, const void *data, uint32_t len)
{
    struct pli_take *t = c->taking;

    if (!asks(c) || !len || len > t->left)
        return pli_conn_breach(c, "bytes of a message that were not asked for");
    if (!t->dropped)
        pli_cursor_write(&t->to, data, len);
    t->left -= len;
    return t->left ? 0 : over(c, 0);
}

/* ---- given up by its sender ---- */

/* Has its sender that number for it? A one-way message without a receipt has none. */
static bool is_number_of(const struct pli_take *t, uint32_t number)
{
    if (t->reply)
        return t->receipt == number;
    return t->m.cookie == number && (t->m.pub.kind == PLAIT_REQUEST || t->m.flags & PLI_MSG_RECEIPT);
}

/* Both ends of a reply hear of it. */
static int lose_reply(struct plait_conn *c, uint32_t receipt, uint64_t request)
{
    pli_conn_send_receipt(c, receipt, PLAIT_E_CANCELED);
    return pli_conn_reply_lost(c, request, PLAIT_E_CANCELED);
}

static int lose_taken(struct plait_conn *c)
{
    struct pli_take t = *c->taking;
    int rc;

    pli_work_cancel(&c->take_work);
    free(c->taking);
    c->taking = NULL;
    pli_conn_update_rx(c);
    if (t.reply) {
        rc = lose_reply(c, t.receipt, t.cookie);
    } else {
        rc = pli_conn_lost(c, t.m.pub.kind == PLAIT_REQUEST ? PLI_REC_REQUEST : PLI_REC_ONEWAY, t.m.cookie);
        if (rc == 0)
            pli_offer_canceled(c, &t.m.pub);
    }
    if (c->ctx->forked) /* the child of a fork in the callback */
        return PLAIT_E_FORKED;
    release(&t);
    return rc < 0 ? rc : go_on(c);
}

/* The sender's number of the message or reply that a record carries; false: it has none. */
static bool number_in(const struct behind *b, uint32_t *number)
{
    uint32_t type = pli_meta_type(b->meta), flags = pli_meta_flags(b->meta), at = 0;

    if (type < PLI_REC_ONEWAY || type > PLI_REC_REPLY || !(flags & PLI_RF_COOKIE) || (type == PLI_REC_ONEWAY && !(flags & PLI_RF_RECEIPT)))
        return false;
    if (type == PLI_REC_REPLY) {
        at = 8 + pli_meta_hdr_len(b->meta) + (uint32_t)offsetof(struct pli_ref_head, receipt);
        if (!(flags & PLI_RF_REF))
            return false;
    }
    if (at + sizeof *number > b->size)
        return false;
    memcpy(number, b->payload + at, sizeof *number);
    return true;
}

static struct behind *find_behind(const struct plait_conn *c, uint32_t cookie)
{
    struct pli_list *node;
    uint32_t number;

    pli_list_foreach(node, &c->behind) {
        struct behind *b = pli_container_of(node, struct behind, node);

        if (number_in(b, &number) && number == cookie)
            return b;
    }
    return NULL;
}

static int lose_behind(struct plait_conn *c, struct behind *b, uint32_t cookie)
{
    uint32_t type = pli_meta_type(b->meta);
    uint64_t request;

    unlink_behind(c, b);
    memcpy(&request, b->payload, sizeof request);
    free(b);
    return type == PLI_REC_REPLY ? lose_reply(c, cookie, (uint32_t)request) : pli_conn_lost(c, type, cookie);
}

int pli_take_cancel(struct plait_conn *c, uint32_t cookie)
{
    struct behind *b;

    if (pli_conn_asm_is(c, cookie))
        return pli_conn_asm_cancel(c);
    if (c->taking && is_number_of(c->taking, cookie))
        return lose_taken(c);
    b = find_behind(c, cookie);
    return b ? lose_behind(c, b, cookie) : 0; /* none: it has been delivered */
}

/* What has no place in the order: nothing is delivered by it, or nothing counts after it. */
static bool overtakes(const struct plait_conn *c, uint32_t meta, const void *payload)
{
    uint32_t type = pli_meta_type(meta);
    const struct behind *b;

    if (type == PLI_REC_CANCEL && meta & PLI_RF_COOKIE << 8) {
        b = find_behind(c, (uint32_t) * (const volatile uint64_t *)payload);
        return !b || !(b->meta & PLI_RF_FRAG << 8); /* or after its parts */
    }
    return type == PLI_REC_RECEIPT || type == PLI_REC_CREDIT || type == PLI_REC_ABORT || type == PLI_REC_NEED || type >= PLI_REC_FILL;
}

/* NULL: too much waits, or there is no memory. */
static struct behind *new_behind(const struct plait_conn *c, uint64_t size)
{
    size_t bytes = c->behind_bytes + size;
    bool room = c->nbehind < BEHIND_MAX && bytes <= BEHIND_BYTES;

    if (asks(c))
        room = bytes + c->nbehind * sizeof(struct behind) <= BEHIND_ASKED + c->max_msg;
    return room ? malloc(sizeof(struct behind) + size) : NULL;
}

int pli_take_behind(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload)
{
    uint64_t size = pli_rec_payload(meta, w1);
    struct behind *b;
    int rc;

    if (overtakes(c, meta, payload))
        return pli_conn_rx_now(c, meta, w1, payload);
    b = new_behind(c, size);
    if (!b && !asks(c)) {
        rc = finish_all(c);
        if (rc < 0 || c->ctx->forked)
            return rc;
        if (!c->taking)
            return pli_conn_rx_now(c, meta, w1, payload);
        b = new_behind(c, size);
    }
    if (!b)
        return end(c, pli_fail(PLAIT_E_NOMEM, "%s: connection %u: %u records with %zu bytes wait for the bytes of a message that cannot be read, "
                               "and there is no room for more", c->link->who, c->index, c->nbehind, c->behind_bytes));
    pli_list_init(&b->node);
    b->meta = meta;
    b->w1 = w1;
    b->size = (uint32_t)size;
    memcpy(b->payload, payload, size);
    pli_list_push_back(&c->behind, &b->node);
    c->nbehind++;
    c->behind_bytes += b->size;
    return 0;
}

void pli_take_forget(struct plait_conn *c, uint32_t cookie)
{
    struct pli_take *t = c->taking;

    if (!t || !t->reply || (uint32_t)t->cookie != cookie)
        return;
    if (t->m.flags & PLI_MSG_PLACED)
        pli_pieces_free(t->m.place);
    t->m.flags &= ~PLI_MSG_PLACED;
    t->m.pub.hdr = t->m.pub.data = NULL;
    t->m.pub.hdr_len = 0;
    t->m.pub.len = 0;
    t->dropped = t->asked;
    if (!t->asked)
        t->left = 0; /* whoever waits behind it goes on with the next slice */
}

void pli_take_init(struct plait_conn *c)
{
    pli_list_init(&c->behind);
    pli_work_init(&c->take_work, slice);
}

void pli_take_drop(struct plait_conn *c)
{
    struct behind *b;

    pli_work_cancel(&c->take_work);
    if (c->taking)
        release(c->taking);
    free(c->taking);
    c->taking = NULL;
    while ((b = pop(c)) != NULL)
        free(b);
}
