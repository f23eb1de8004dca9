/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that their sender gives up. What is still queued here is taken back. Of what has been sent the peer is told (CANCEL); it answers for
 * what it has not delivered, and the rest is completed as always. */
#include "runtime/conn.h"
#include "util/err.h"

static void complete_later(struct plait_conn *c, struct pli_req *r, uint64_t unsent)
{
    r->key |= PLI_REQ_ODD | PLI_REQ_GIVEN_UP | unsent;
    pli_ctx_defer(c->ctx, &c->give_up);
}

static int tell_peer(struct plait_conn *c, uint32_t cookie)
{
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE, 0), .cookie = cookie, .chan = c->peer_chan };

    return pli_conn_send_or_queue(c, &m, true, true, false);
}

static int give_up(struct plait_conn *c, struct pli_req *r)
{
    bool request = pli_req_kind(r) == PLI_REQ_REPLY, offered = r->key & PLI_REQ_OFFERED;
    uint32_t cookie = pli_req_cookie(r);
    int rc = pli_conn_unqueue(c, cookie);

    if (rc == 1)
        complete_later(c, r, PLI_REQ_UNSENT);
    if (rc != PLAIT_E_NOTFOUND)
        return 0;
    rc = tell_peer(c, cookie);
    if (rc == 0 && request && !offered)
        complete_later(c, r, 0);
    return rc;
}

static bool meant(const struct pli_req *r, const void *arg)
{
    enum pli_req_kind kind = pli_req_kind(r);

    return (kind == PLI_REQ_REPLY || kind == PLI_REQ_DONE) && r->arg == arg && !(r->key & PLI_REQ_GIVEN_UP);
}

int plait_cancel(struct plait_conn *c, const void *arg)
{
    int rc = c->state == PLI_CONN_CLOSED ? PLAIT_E_CLOSED : pli_ctx_check(c->ctx);
    unsigned found = 0;

    if (rc == PLAIT_E_CLOSED)
        return pli_fail(rc, "the connection is closed: %s", plait_strerror(c->end_code));
    for (uint32_t i = 0; rc == 0 && i < c->nreqs; i++) {
        if (!meant(&c->reqs[i], arg))
            continue;
        found++;
        rc = give_up(c, &c->reqs[i]);
    }
    if (rc < 0 || found)
        return rc;
    return pli_fail(PLAIT_E_NOTFOUND, "no message with this arg is outstanding on the connection");
}

static void complete(struct plait_conn *c, uint32_t index)
{
    struct pli_req *r = &c->reqs[index];
    bool request = pli_req_kind(r) == PLI_REQ_REPLY, unsent = r->key & PLI_REQ_UNSENT;
    plait_reply_fn on_reply = r->on_reply;
    plait_done_fn on_done = r->on_done;
    void *arg = r->arg;

    if (unsent)
        pli_req_free(c, index, false);
    else
        pli_req_forget_one(c, r); /* an answer may come still */
    if (request)
        on_reply(NULL, PLAIT_E_CANCELED, arg);
    else
        on_done(PLAIT_E_CANCELED, arg);
}

void pli_conn_give_up_fn(struct pli_defer *d)
{
    struct plait_conn *c = pli_container_of(d, struct plait_conn, give_up);

    pli_session_ref(c->session); /* a callback may release it */
    for (uint32_t i = 0; i < c->nreqs && !c->ctx->forked; i++) /* or end the connection, or make the table larger */
        if (c->reqs[i].key & PLI_REQ_GIVEN_UP)
            complete(c, i);
    pli_conn_quiet_later(c);
    pli_session_unref(c->session);
}
