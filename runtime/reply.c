/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies, out. */
#include <stdlib.h>
#include "runtime/conn.h"
#include "runtime/offer.h"
#include "util/err.h"

static int reply_check(struct pli_msg *m, size_t len)
{
    struct plait_conn *c = m->pub.conn;
    int rc;

    if (m->pub.kind != PLAIT_REQUEST)
        return pli_fail(PLAIT_E_REPLIED, "only requests can be replied to");
    if (m->flags & PLI_MSG_REPLIED)
        return pli_fail(PLAIT_E_REPLIED, "this request has been replied to already");
    if (c->state == PLI_CONN_CLOSED)
        return pli_fail(PLAIT_E_CLOSED, "the requester is gone: %s", plait_strerror(c->end_code));
    rc = pli_ctx_check(c->ctx);
    if (rc < 0)
        return rc;
    if (len > c->peer_max_msg)
        return pli_fail(PLAIT_E_TOOBIG, "a reply of %zu bytes is over the %u that the peer accepts (max_msg)", len, c->peer_max_msg);
    return 0;
}

static int reply(struct pli_msg *m, int status, const struct plait_out *out, bool *offered)
{
    struct plait_conn *c = m->pub.conn;
    int rc;

    /* the credit of the request travels with its reply */
    if (!(m->flags & PLI_MSG_COUNTED))
        c->rx_released++;
    rc = pli_conn_send_reply(c, m->cookie, status, out, offered);
    if (__builtin_expect(rc < 0, 0)) {
        if (!(m->flags & PLI_MSG_COUNTED))
            c->rx_released--;
        return rc;
    }
    m->flags |= PLI_MSG_REPLIED | PLI_MSG_COUNTED;
    c->rx_owed--;
    if (__builtin_expect(c->state != PLI_CONN_OPEN, 0))
        pli_conn_quiet_later(c);
    return 0;
}

int pli_reply_slow(struct plait_msg *req, const void *data, size_t len, unsigned flags)
{
    struct pli_msg *m = (struct pli_msg *)req;
    struct plait_out out = PLAIT_OUT_INIT;
    int rc = reply_check(m, len);
    bool offered;

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(flags & ~PLAIT_MORE, 0))
        return pli_fail(PLAIT_E_INVAL, "plait_reply takes no flag but PLAIT_MORE, not 0x%x", flags);
    out.data = data;
    out.len = len;
    out.flags = flags;
    return reply(m, 0, &out, &offered);
}

/* ---- replies whose memory is the user's ---- */

void pli_conn_tell_dones(struct plait_conn *c)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&c->dones)) != NULL) {
        struct pli_done *d = pli_container_of(node, struct pli_done, node);
        plait_done_fn fn = d->fn;
        void *arg = d->arg;

        free(d);
        fn(0, arg);
    }
}

void pli_conn_tell_dones_fn(struct pli_defer *d)
{
    struct plait_conn *c = pli_container_of(d, struct plait_conn, tell_dones);
    struct plait_session *s = c->session;

    pli_session_ref(s); /* a callback may release it */
    pli_conn_tell_dones(c);
    pli_session_unref(s);
}

/* The bytes have been copied: its user hears of it when no frame of his is on the stack. */
static int reply_done(struct pli_msg *m, const struct plait_out *out)
{
    struct plait_conn *c = m->pub.conn;
    struct pli_done *d = malloc(sizeof *d);
    bool offered;
    int rc;

    if (!d)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a reply with on_done");
    d->fn = out->on_done;
    d->arg = out->arg;
    rc = reply(m, 0, out, &offered);
    if (rc < 0 || offered) {
        free(d);
        return rc;
    }
    pli_list_push_back(&c->dones, &d->node);
    pli_ctx_defer(c->ctx, &c->tell_dones);
    return 0;
}

int plait_replyx(struct plait_msg *req, const struct plait_out *out)
{
    struct pli_msg *m = (struct pli_msg *)req;
    bool offered;
    size_t len;
    int rc = pli_out_check(out, &len);

    if (rc < 0)
        return rc;
    if (out->on_reply || out->timeout_us || out->into)
        return pli_fail(PLAIT_E_INVAL, "a reply has no %s", out->on_reply ? "on_reply" : out->into ? "into" : "timeout_us");
    if (out->flags & PLAIT_NOCOPY && !out->on_done)
        return pli_fail(PLAIT_E_INVAL, "PLAIT_NOCOPY needs on_done: when may the memory be used again?");
    rc = reply_check(m, len);
    if (rc < 0)
        return rc;
    return out->on_done ? reply_done(m, out) : reply(m, 0, out, &offered);
}

int plait_reply_error(struct plait_msg *req, int code)
{
    struct pli_msg *m = (struct pli_msg *)req;
    struct plait_out none = PLAIT_OUT_INIT;
    bool offered;
    int rc;

    if (!code)
        return pli_fail(PLAIT_E_INVAL, "0 is no error: use plait_reply");
    rc = reply_check(m, 0);
    return rc < 0 ? rc : reply(m, code, &none, &offered);
}

int plait_msg_refuse(struct plait_msg *msg)
{
    struct pli_msg *m = (struct pli_msg *)msg;

    if (msg->kind != PLAIT_ONEWAY || !(m->flags & PLI_MSG_RECEIPT))
        return pli_fail(PLAIT_E_INVAL, "the sender did not ask for a receipt");
    m->flags |= PLI_MSG_REFUSED;
    return 0;
}
