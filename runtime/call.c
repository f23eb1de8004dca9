/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocking call: a request, and running the context until its reply is there. */
#include "runtime/conn.h"
#include "runtime/handover.h"
#include "util/err.h"

struct call {
    struct plait_conn *conn;
    const void *data;
    size_t len;
    bool sent, done, want_reply;
    int status;
    struct plait_msg *reply;
};

static void on_reply(struct plait_msg *reply, int status, void *arg)
{
    struct call *call = arg;

    call->done = true;
    call->status = status;
    if (reply && call->want_reply) {
        call->reply = plait_msg_hold(reply);
        if (!call->reply)
            call->status = PLAIT_E_NOMEM;
    }
}

/* Asked again whenever something has happened: sends as soon as there is space. */
static bool is_done(void *arg)
{
    struct call *call = arg;
    int rc;

    if (call->sent || call->done)
        return call->done;
    rc = plait_request(call->conn, call->data, call->len, 0, on_reply, call);
    if (rc == PLAIT_E_AGAIN || rc == PLAIT_E_BUSY)
        return false;
    call->sent = rc == 0;
    if (rc < 0) {
        call->done = true;
        call->status = rc;
    }
    return call->done;
}

/* The stack frame that the reply would write to is about to end. */
static void give_up(struct call *call)
{
    if (call->sent && !call->done)
        pli_req_forget(call->conn, call);
}

static int call_locked(struct call *call, int64_t timeout_us)
{
    uint64_t deadline = pli_deadline(timeout_us, PLI_NS_PER_US);
    int rc;

    if (call->conn->state == PLI_CONN_CLOSED)
        return pli_fail(PLAIT_E_CLOSED, "the connection is closed: %s", plait_strerror(call->conn->end_code));
    rc = pli_ctx_wait(call->conn->ctx, is_done, call, deadline);
    if (call->done)
        return call->status;
    give_up(call);
    if (rc < 0)
        return rc;
    return pli_fail(PLAIT_E_TIMEDOUT, call->sent ? "no reply to a call within %lld us" : "a call could not be sent within %lld us",
                    (long long)timeout_us);
}

int plait_call(struct plait_conn *c, const void *data, size_t len, struct plait_msg **reply, int64_t timeout_us)
{
    struct call call = { .conn = c, .data = data, .len = len, .want_reply = reply != NULL };
    struct plait_ctx *ctx = c->ctx;
    bool shared;
    int rc;

    if (reply)
        *reply = NULL;
    /* a closed one's context may be gone; what only the owner may look at has to wait for the lock */
    if (atomic_load_explicit(&c->public_state, memory_order_acquire) == PLI_CONN_PUBLIC_CLOSED)
        return pli_fail(PLAIT_E_CLOSED, "the connection is closed: %s", plait_strerror(c->end_code));
    if (ctx->forked)
        return pli_ctx_check(ctx);
    shared = ctx->shared;
    if (shared)
        pli_handover_lock(ctx);
    rc = pli_ctx_check_blocking(ctx);
    if (rc == 0)
        rc = call_locked(&call, timeout_us);
    if (shared)
        pli_handover_unlock(ctx);
    if (rc != 0 && call.done && call.status == rc && call.sent)
        pli_fail(rc, "the call failed: %s", rc < 0 ? plait_strerror(rc) : "the responder's own code");
    if (reply)
        *reply = call.reply;
    return rc;
}
