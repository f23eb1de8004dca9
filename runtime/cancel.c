/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that their sender gives up. The peer is told of each (CANCEL), in place of what has not been sent of it; it answers for what it has not
 * delivered, and the rest is completed as always. */
#include "runtime/conn.h"
#include "util/err.h"

static int tell_peer(struct plait_conn *c, uint32_t cookie)
{
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE, 0), .cookie = cookie, .chan = c->peer_chan };

    return pli_conn_send_or_queue(c, &m, true, true, false);
}

static int give_up(struct plait_conn *c, struct pli_req *r)
{
    bool cut = pli_conn_cut_short(c, pli_req_cookie(r));
    int rc = cut ? 0 : tell_peer(c, pli_req_cookie(r));

    if (rc < 0)
        return rc;
    r->key |= PLI_REQ_ODD | PLI_REQ_GIVEN_UP;
    /* all of it is with the peer, and nothing of it here: its answer is not waited for */
    if (!cut && pli_req_kind(r) == PLI_REQ_REPLY && !(r->key & PLI_REQ_OFFERED)) {
        r->key |= PLI_REQ_DUE;
        pli_ctx_defer(c->ctx, &c->give_up);
    }
    return 0;
}

int plait_cancel(struct plait_conn *c, const void *arg)
{
    int rc = c->state == PLI_CONN_CLOSED ? PLAIT_E_CLOSED : pli_ctx_check(c->ctx);
    unsigned found = 0;

    if (rc == PLAIT_E_CLOSED)
        return pli_fail(rc, "the connection is closed: %s", plait_strerror(c->end_code));
    for (uint32_t i = 0; rc == 0 && i < c->nreqs; i++) {
        struct pli_req *r = &c->reqs[i];
        enum pli_req_kind kind = pli_req_kind(r);

        if ((kind != PLI_REQ_REPLY && kind != PLI_REQ_DONE) || r->arg != arg)
            continue;
        found++;
        if (!(r->key & PLI_REQ_GIVEN_UP))
            rc = give_up(c, r);
    }
    if (rc < 0 || found)
        return rc;
    return pli_fail(PLAIT_E_NOTFOUND, "no message with this arg is outstanding on the connection");
}

void pli_conn_give_up_fn(struct pli_defer *d)
{
    struct plait_conn *c = pli_container_of(d, struct plait_conn, give_up);

    pli_session_ref(c->session); /* a callback may release it */
    for (uint32_t i = 0; i < c->nreqs && !c->ctx->forked; i++) { /* or end the connection, or make the table larger */
        struct pli_req *r = &c->reqs[i];
        plait_reply_fn fn = r->on_reply;
        void *arg = r->arg;

        if (!(r->key & PLI_REQ_DUE))
            continue;
        pli_req_forget_one(c, r); /* an answer comes still */
        fn(NULL, PLAIT_E_CANCELED, arg);
    }
    pli_session_unref(c->session);
}
