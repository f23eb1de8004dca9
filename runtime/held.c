/* SPDX-License-Identifier: BSD-3-Clause */
/* Received messages that are kept beyond their callback. */
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "util/err.h"

#define ALIGN8(n) (((n) + 7u) & ~7u)

static void *copy_out(struct pli_msg *m)
{
    size_t hdr = ALIGN8(m->pub.hdr_len);
    uint8_t *buf = malloc(hdr + m->pub.len + 1);

    if (!buf)
        return NULL;
    if (m->pub.hdr_len)
        memcpy(buf, m->pub.hdr, m->pub.hdr_len);
    if (m->pub.len)
        memcpy(buf + hdr, m->pub.data, m->pub.len);
    m->pub.hdr = m->pub.hdr_len ? buf : NULL;
    m->pub.data = m->pub.len ? buf + hdr : NULL;
    return buf;
}

/* In the ring, or copied. */
static int keep_data(struct pli_msg *h)
{
    struct plait_conn *c = h->pub.conn;

    /* on a shared context a thread may read it while another one polls, which may move it (pli_msg_unplace_all) */
    if (!c->ctx->shared && !c->replaying && c->state != PLI_CONN_CLOSED && c->tr->ops->hold(c->tr, &h->token) == 0) {
        h->flags |= PLI_MSG_IN_PLACE;
        pli_list_push_back(&c->link->held, &h->node);
        pli_link_ref(c->link);
        return 0;
    }
    h->buf = copy_out(h);
    return h->buf ? 0 : PLAIT_E_NOMEM;
}

/* The data stays where it is, with references. The header part may lie in the ring. */
static int keep_place(struct pli_msg *h)
{
    struct pli_pieces *place = h->place;

    if (place->owned)
        return 0;
    place = pli_pieces_keep(place, h->pub.hdr, h->pub.hdr_len);
    if (!place)
        return PLAIT_E_NOMEM;
    h->place = place;
    h->pub.hdr = place->hdr;
    return 0;
}

struct plait_msg *plait_msg_hold(struct plait_msg *msg)
{
    struct pli_msg *m = (struct pli_msg *)msg;
    struct plait_conn *c = msg->conn;
    struct pli_msg *h;
    int rc = 0;

    if (m->flags & PLI_MSG_HELD)
        return msg;
    h = malloc(sizeof *h);
    if (!h) {
        pli_fail(PLAIT_E_NOMEM, "no memory to hold a message");
        return NULL;
    }
    *h = *m;
    h->flags |= PLI_MSG_HELD;
    pli_list_init(&h->node);
    if (h->flags & PLI_MSG_PLACED)
        rc = keep_place(h);
    else if (!h->buf)
        rc = keep_data(h);
    if (rc < 0) {
        free(h);
        pli_fail(rc, "no memory to hold a message of %zu bytes", msg->len);
        return NULL;
    }
    m->flags |= PLI_MSG_HELD;
    pli_session_ref(c->session);
    return &h->pub;
}

static void leave_place(struct pli_msg *h, struct pli_link *link)
{
    h->flags &= ~PLI_MSG_IN_PLACE;
    pli_list_remove(&h->node);
    if (!link->ctx->forked) /* a child has neither the mapping nor a word in this */
        link->tr->ops->release(link->tr, h->token);
    pli_link_put(link);
}

void plait_msg_release(struct plait_msg *msg)
{
    struct pli_msg *m = (struct pli_msg *)msg;
    struct plait_conn *c;
    struct plait_session *s;

    if (!msg)
        return;
    c = msg->conn;
    s = c->session;
    /* A reply that owes no receipt: any thread may release it, where it is a copy. A closed connection's context may be gone; one with
     * messages in place has a link, and so a context. */
    if ((msg->kind != PLAIT_REPLY || m->flags & PLI_MSG_RECEIPT) && c->state != PLI_CONN_CLOSED && !c->ctx->forked) {
        pli_conn_finish(c, m);
    }
    if (m->flags & PLI_MSG_IN_PLACE)
        leave_place(m, c->held_link);
    if (m->flags & PLI_MSG_PLACED)
        pli_pieces_free(m->place);
    free(m->buf);
    free(m);
    pli_session_unref(s);
}

int plait_msg_iov(const struct plait_msg *msg, const struct iovec **iov)
{
    struct pli_msg *m = (struct pli_msg *)(uintptr_t)msg; /* plait's own part is no constant */

    if (m->flags & PLI_MSG_PLACED) {
        *iov = m->place->iov;
        return (int)m->place->niov;
    }
    m->one = (struct iovec){ (void *)(uintptr_t)msg->data, msg->len };
    *iov = &m->one;
    return msg->len ? 1 : 0;
}

void pli_msg_unplace_all(struct pli_link *link, bool must)
{
    struct pli_list *node;

    while ((node = pli_list_first(&link->held)) != NULL) {
        struct pli_msg *h = pli_container_of(node, struct pli_msg, node);

        h->buf = copy_out(h);
        if (!h->buf && !must)
            return;
        if (!h->buf) {
            h->pub.hdr = h->pub.data = NULL;
            h->pub.hdr_len = 0;
            h->pub.len = 0;
        }
        leave_place(h, link);
    }
}
