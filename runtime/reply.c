/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies, out. */
#include "runtime/conn.h"
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

static int reply(struct pli_msg *m, int status, const void *hdr, uint32_t hdr_len, const void *data, size_t len,
                 unsigned flags)
{
    struct plait_conn *c = m->pub.conn;
    int rc;

    /* the credit of the request travels with its reply */
    if (!(m->flags & PLI_MSG_COUNTED))
        c->rx_released++;
    rc = pli_conn_send_reply(c, m->cookie, status, hdr, hdr_len, data, len, flags & PLAIT_MORE);
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
    int rc = reply_check(m, len);

    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(flags & ~PLAIT_MORE, 0))
        return pli_fail(PLAIT_E_INVAL, "plait_reply takes no flag but PLAIT_MORE, not 0x%x", flags);
    return reply(m, 0, NULL, 0, data, len, flags);
}

int plait_replyx(struct plait_msg *req, const struct plait_out *out)
{
    struct pli_msg *m = (struct pli_msg *)req;
    int rc;

    if (out->size != sizeof *out || out->flags & ~PLAIT_MORE || out->on_reply || out->on_done ||
        (out->hdr_len && !out->hdr) || (out->len && !out->data))
        return pli_fail(PLAIT_E_INVAL, "a reply has a header part, data and PLAIT_MORE: begin with PLAIT_OUT_INIT");
    if (out->hdr_len > PLAIT_HDR_MAX)
        return pli_fail(PLAIT_E_TOOBIG, "a header part of %u bytes is over PLAIT_HDR_MAX, %u", out->hdr_len, PLAIT_HDR_MAX);
    rc = reply_check(m, out->len);
    return rc < 0 ? rc : reply(m, 0, out->hdr, out->hdr_len, out->data, out->len, out->flags);
}

int plait_reply_error(struct plait_msg *req, int code)
{
    struct pli_msg *m = (struct pli_msg *)req;
    int rc;

    if (!code)
        return pli_fail(PLAIT_E_INVAL, "0 is no error: use plait_reply");
    rc = reply_check(m, 0);
    return rc < 0 ? rc : reply(m, code, NULL, 0, NULL, 0, 0);
}

int plait_msg_refuse(struct plait_msg *msg)
{
    struct pli_msg *m = (struct pli_msg *)msg;

    if (!(m->flags & PLI_MSG_RECEIPT))
        return pli_fail(PLAIT_E_INVAL, "the sender did not ask for a receipt");
    m->flags |= PLI_MSG_REFUSED;
    return 0;
}
