/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections: opening, closing, ending. */
#include "runtime/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/loop_priv.h"
#include "runtime/rma.h"
#include "runtime/take.h"
#include "util/err.h"

#define POST_OPEN 1u
#define POST_CLOSE 2u
#define POST_ABORT 4u

static const struct plait_conn_ops no_ops;

/* Before a connection is open, and after: no room, so that every send looks closer. Never written. */
static struct pli_tr no_tr;

static void ignore(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    (void)conn;
    (void)msg;
    (void)arg;
}

/* ---- timers and deferred work ---- */

static void linger_fn(struct pli_timer *t)
{
    struct plait_conn *c = pli_container_of(t, struct plait_conn, linger);
    char text[256];

    snprintf(text, sizeof text, "the orderly close took longer than linger_ms, %u: %u replies outstanding, %u owed, %u messages queued",
             c->session->linger_ms, pli_conn_pending(c), c->rx_owed, c->ntxq);
    pli_conn_event(c, PLI_CEV_ABORT, PLAIT_E_TIMEDOUT, text);
}

static bool is_quiet(const struct plait_conn *c)
{
    return pli_conn_pending(c) == 0 && c->rx_owed == 0 && pli_list_is_empty(&c->txq) && !c->in.busy && !c->taking &&
           pli_rma_conn_is_quiet(c);
}

static void quiet_fn(struct pli_defer *d)
{
    struct plait_conn *c = pli_container_of(d, struct plait_conn, quiet);

    if (c->state != PLI_CONN_CLOSED && is_quiet(c))
        pli_conn_event(c, PLI_CEV_QUIET, 0, NULL);
}

void pli_conn_quiet_later(struct plait_conn *c)
{
    if (c->state == PLI_CONN_DRAINING || c->state == PLI_CONN_DONE_RCVD)
        pli_ctx_defer(c->ctx, &c->quiet);
}

static void gone_fn(struct pli_defer *d)
{
    pli_session_unref(pli_container_of(d, struct plait_conn, gone)->session);
}

/* ---- posts from other threads; each holds a reference on the session ---- */

static void post_done(struct plait_conn *c, uint32_t bit)
{
    atomic_fetch_and(&c->post_flags, ~bit);
    pli_session_unref(c->session);
}

/* If its user has released the session, he is told nothing any more. */
static void mute(struct plait_conn *c)
{
    if (c->session->muted) {
        c->ops = &no_ops;
        c->on_message = ignore;
    }
}

void pli_conn_close_here(struct plait_conn *c)
{
    mute(c);
    pli_conn_event(c, PLI_CEV_CLOSE, 0, NULL);
}

void pli_conn_abort_here(struct plait_conn *c)
{
    struct plait_session *s = c->session;

    mute(c);
    if (c->state == PLI_CONN_CLOSED)
        return;
    if (s->abort_code)
        pli_conn_event(c, PLI_CEV_ABORT, s->abort_code, s->abort_text);
    else
        pli_conn_event(c, PLI_CEV_ABORT, PLAIT_E_ABORTED, "plait_conn_abort() was called");
}

static void post_close_fn(struct pli_post *p)
{
    struct plait_conn *c = pli_container_of(p, struct plait_conn, post_close);

    pli_conn_close_here(c);
    post_done(c, POST_CLOSE);
}

static void post_abort_fn(struct pli_post *p)
{
    struct plait_conn *c = pli_container_of(p, struct plait_conn, post_abort);

    pli_conn_abort_here(c);
    post_done(c, POST_ABORT);
}

static void post_open_fn(struct pli_post *p)
{
    struct plait_conn *c = pli_container_of(p, struct plait_conn, post_open);

    pli_conn_start(c, &c->session->key);
    post_done(c, POST_OPEN);
}

/* A connection that was never started, and whose context is gone: nobody else will end it. */
static void end_orphan(struct plait_conn *c)
{
    static const char text[] = "the context of the connection was destroyed before it was open";
    struct plait_reason why = { PLAIT_E_ABORTED, text, NULL, 0 };

    if (atomic_exchange(&c->orphaned, true) || c->state == PLI_CONN_CLOSED)
        return;
    c->state = PLI_CONN_CLOSED;
    c->end_code = PLAIT_E_ABORTED;
    c->tx_limit = c->tx_seq;
    mute(c);
    if (c->ops->on_closed)
        c->ops->on_closed(c, &why, c->arg);
    pli_session_conn_ended(c, PLAIT_E_ABORTED, text);
    pli_session_unref(c->session);
}

/* Posts while the registry's lock keeps the context alive. */
static int post_if_alive(struct plait_conn *c, struct pli_post *post)
{
    struct plait_ctx *ctx;

    pli_registry_lock();
    ctx = pli_registry_find(c->ctx_id);
    if (ctx) {
        pli_session_ref(c->session);
        pli_ctx_post(ctx, post);
    }
    pli_registry_unlock();
    return ctx ? 0 : PLAIT_E_NOTFOUND;
}

/* The context was destroyed first. */
static void dropped(struct plait_conn *c, uint32_t bit)
{
    if (!c->ctx->forked)
        end_orphan(c);
    post_done(c, bit);
}

static void drop_close(struct pli_post *p)
{
    dropped(pli_container_of(p, struct plait_conn, post_close), POST_CLOSE);
}

static void drop_abort(struct pli_post *p)
{
    dropped(pli_container_of(p, struct plait_conn, post_abort), POST_ABORT);
}

static void drop_open(struct pli_post *p)
{
    dropped(pli_container_of(p, struct plait_conn, post_open), POST_OPEN);
}

static int post_once(struct plait_conn *c, struct pli_post *post, uint32_t bit)
{
    int rc = 0;

    pli_session_lock();
    if (atomic_load(&c->public_state) == PLI_CONN_PUBLIC_CLOSED) {
        rc = PLAIT_E_CLOSED;
    } else if (!(atomic_fetch_or(&c->post_flags, bit) & bit)) {
        rc = post_if_alive(c, post);
        if (rc < 0)
            atomic_fetch_and(&c->post_flags, ~bit);
    }
    pli_session_unlock();
    return rc;
}

void pli_conn_post_close(struct plait_conn *c)
{
    if (post_once(c, &c->post_close, POST_CLOSE) == PLAIT_E_NOTFOUND)
        end_orphan(c);
}

void pli_conn_post_abort(struct plait_conn *c)
{
    if (post_once(c, &c->post_abort, POST_ABORT) == PLAIT_E_NOTFOUND)
        end_orphan(c);
}

void pli_conn_post_open(struct plait_conn *c)
{
    if (post_once(c, &c->post_open, POST_OPEN) == PLAIT_E_NOTFOUND)
        end_orphan(c);
}

/* ---- birth ---- */

static void wait_fn(struct pli_link_wait *w, int code);

struct plait_conn *pli_conn_new(struct plait_session *s, struct plait_ctx *ctx, unsigned index)
{
    struct plait_conn *c;

    if (posix_memalign((void **)&c, 64, sizeof *c) != 0)
        return NULL;
    memset(c, 0, sizeof *c);
    c->session = s;
    c->ctx = ctx;
    c->ctx_id = ctx->id;
    c->index = index;
    c->state = PLI_CONN_OPENING;
    c->ops = s->conn_ops ? s->conn_ops : &no_ops;
    c->arg = s->arg;
    c->window = s->window;
    c->credit_step = s->window > 1 ? s->window / 2 : 1;
    c->max_msg = s->max_msg;
    c->offer_min = s->offer_min;
    c->take = s->take;
    c->req_free = PLI_REQ_NONE;
    c->tr = &no_tr;
    c->on_message = c->ops->on_message ? c->ops->on_message : ignore;
    pli_list_init(&c->txq);
    pli_list_init(&c->queued);
    pli_list_init(&c->blocked_on);
    pli_take_init(c);
    pli_work_init(&c->push_work, pli_conn_push_work);
    pli_list_init(&c->wait.node);
    pli_list_init(&c->dones);
    pli_defer_init(&c->tell_dones, pli_conn_tell_dones_fn);
    pli_defer_init(&c->give_up, pli_conn_give_up_fn);
    c->wait.fn = wait_fn;
    pli_timer_init(&c->linger, linger_fn);
    pli_defer_init(&c->quiet, quiet_fn);
    pli_defer_init(&c->gone, gone_fn);
    c->post_open = (struct pli_post){ .fn = post_open_fn, .drop = drop_open };
    c->post_close = (struct pli_post){ .fn = post_close_fn, .drop = drop_close };
    c->post_abort = (struct pli_post){ .fn = post_abort_fn, .drop = drop_abort };
    pli_session_ref(s); /* until it has ended: pli_conn_event() drops it */
    return c;
}

void pli_conn_free(struct plait_conn *c)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&c->dones)) != NULL) /* in the child of a fork */
        free(pli_container_of(node, struct pli_done, node));
    pli_req_table_free(c);
    pli_rma_conn_free(c);
    free(c);
}

/* ---- the handshake of a connection ---- */

static void send_open(struct plait_conn *c)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_CONN_OPEN };

    memcpy(msg.conn.sid, c->session->sid, PLI_ID_LEN);
    msg.conn.index = c->index;
    msg.conn.chan = c->chan;
    msg.conn.window = c->window;
    msg.conn.max_msg = c->max_msg;
    pli_link_send_frame(c->link, &msg);
}

/* client: the link is up, or lost */
static void wait_fn(struct pli_link_wait *w, int code)
{
    struct plait_conn *c = pli_container_of(w, struct plait_conn, wait);

    c->waiting = false;
    if (code == 0)
        code = pli_link_chan_alloc(c->link, c, &c->chan);
    if (code < 0) {
        pli_conn_event(c, PLI_CEV_FAIL, code, pli_err_text());
        return;
    }
    c->in_table = true;
    send_open(c);
}

void pli_conn_start(struct plait_conn *c, const struct pli_link_key *to)
{
    struct pli_link_key key = *to;
    struct plait_session *s = c->session;
    int rc;

    if (c->state != PLI_CONN_OPENING || c->link)
        return;
    key.target = c->portal;
    /* the lead link leads to the listener's context by any name */
    if (c->ctx == s->lead && s->link && s->link->peer.ctx_id == key.target) {
        c->link = s->link;
        pli_link_ref(c->link);
        rc = 0;
    } else {
        rc = pli_link_get(&c->link, c->ctx, &key, s->open_timeout_ms);
    }
    if (rc < 0) {
        pli_conn_event(c, PLI_CEV_FAIL, rc, pli_err_text());
        return;
    }
    c->held_link = c->link;
    c->waiting = true;
    pli_link_wait(c->link, &c->wait);
}

static void take_peer(struct plait_conn *c, const struct pli_wire_msg *msg)
{
    c->peer_chan = msg->conn.chan;
    c->peer_window = msg->conn.window;
    c->peer_max_msg = msg->conn.max_msg;
    c->tr = c->link->tr;
    c->w1_chan = pli_rec_w1(0, c->peer_chan, 0);
}

/* server: CONN_OPEN came */
int pli_conn_attach(struct plait_conn *c, struct pli_link *link, const struct pli_wire_msg *open)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_CONN_ACCEPT };
    int rc = pli_link_chan_alloc(link, c, &c->chan);

    if (rc < 0)
        return rc;
    c->in_table = true;
    c->link = c->held_link = link;
    pli_link_ref(link);
    take_peer(c, open);
    msg.conn = open->conn;
    msg.conn.chan = c->chan;
    msg.conn.peer_chan = open->conn.chan;
    msg.conn.window = c->window;
    msg.conn.max_msg = c->max_msg;
    pli_conn_send_frame(c, &msg);
    pli_conn_event(c, PLI_CEV_OPENED, 0, NULL);
    return 0;
}

static void send_abort(struct pli_link *link, uint16_t peer_chan, int code, uint32_t credit)
{
    int32_t c = code;

    pli_link_send_ctl(link, pli_rec_meta(PLI_REC_ABORT, 0, 0), pli_rec_w1(sizeof c, peer_chan, credit), 0, &c);
}

/* client: CONN_ACCEPT or CONN_REFUSE came */
void pli_conn_answer(struct pli_link *link, const struct pli_wire_msg *msg)
{
    uint16_t chan = msg->conn.peer_chan;
    struct plait_conn *c = chan < link->nchans ? link->chans[chan] : NULL;
    char text[PLI_WIRE_TEXT_MAX + 1];

    if (c == &pli_conn_zombie) { /* it ended here meanwhile */
        if (msg->type == PLI_WIRE_CONN_ACCEPT)
            send_abort(link, msg->conn.chan, PLAIT_E_ABORTED, 0);
        else
            pli_link_chan_free(link, chan, false);
        return;
    }
    if (!c || c->state != PLI_CONN_OPENING || memcmp(c->session->sid, msg->conn.sid, PLI_ID_LEN) != 0 ||
        c->index != msg->conn.index) {
        pli_link_breach(link, "%s for a connection that is not being opened", pli_wire_type_name(msg->type));
        return;
    }
    if (msg->type == PLI_WIRE_CONN_REFUSE) {
        snprintf(text, sizeof text, "%.*s", (int)msg->conn.text.len, (const char *)msg->conn.text.p);
        pli_link_chan_free(link, chan, false);
        c->in_table = false;
        pli_conn_event(c, PLI_CEV_FAIL, msg->conn.code < 0 ? msg->conn.code : PLAIT_E_REJECTED, text);
        return;
    }
    take_peer(c, msg);
    pli_conn_event(c, PLI_CEV_OPENED, 0, NULL);
}

/* ---- events ---- */

void pli_conn_update_rx(struct plait_conn *c)
{
    c->rx_fast = c->state == PLI_CONN_OPEN && !c->in.busy && !c->taking && !c->nbehind;
}

static void opened(struct plait_conn *c)
{
    c->ctx->st.conns++;
    atomic_store(&c->public_state, PLI_CONN_PUBLIC_OPEN);
    atomic_fetch_add(&c->session->up, 1);
    pli_conn_update_limit(c);
    if (c->ops->on_open)
        c->ops->on_open(c, c->arg);
    pli_session_check(c->session);
    if (!c->blocked || c->state != PLI_CONN_OPEN)
        return;
    /* sends were tried before it was open */
    if (!pli_list_is_on(&c->blocked_on))
        pli_list_push_back(&c->link->blocked, &c->blocked_on);
    pli_ctx_defer(c->ctx, &c->link->pump);
}

static void detach(struct plait_conn *c, bool zombie)
{
    struct pli_link *link = c->link;

    if (c->reserving && c->tr) {
        c->tr->ops->abandon(c->tr);
        pli_ctx_defer(c->ctx, &link->pump); /* what the reservation kept back */
    }
    c->reserving = false;
    pli_timer_stop(c->ctx, &c->linger);
    pli_defer_cancel(&c->quiet);
    pli_defer_cancel(&c->tell_dones);
    pli_defer_cancel(&c->give_up);
    pli_conn_txq_drop(c);
    pli_conn_asm_drop(c);
    pli_take_drop(c);
    if (c->waiting)
        pli_link_unwait(&c->wait);
    c->waiting = false;
    if (c->in_table)
        pli_link_chan_free(link, c->chan, zombie);
    c->in_table = false;
    c->link = NULL;
    c->tr = &no_tr;
    if (link)
        pli_link_put(link);
}

static void ended(struct plait_conn *c, enum pli_conn_state old, int code, const char *text, bool zombie)
{
    struct plait_reason why = { code, text ? text : plait_strerror(code), NULL, 0 };
    bool forked = c->ctx->forked;

    c->end_code = code ? code : PLAIT_E_CLOSED;
    c->tx_limit = c->tx_seq;
    c->tx_ready = c->rx_fast = false;
    if (old != PLI_CONN_OPENING)
        c->ctx->st.conns--;
    c->ctx->st.msgs_sent += c->tx_seq + c->replies;
    c->ctx->st.msgs_received += pli_conn_received(c);
    detach(c, zombie);
    if (forked) {
        atomic_store(&c->public_state, PLI_CONN_PUBLIC_CLOSED);
        return; /* the parent's users are not the child's; memory is all there is, and it goes with the process */
    }
    pli_conn_tell_dones(c);
    pli_req_fail_all(c, c->end_code);
    pli_rma_conn_ended(c, c->end_code);
    if (c->ops->on_closed)
        c->ops->on_closed(c, &why, c->arg);
    pli_session_conn_ended(c, code, why.text);
    pli_ctx_defer(c->ctx, &c->gone);
}

static void send_done(struct plait_conn *c)
{
    pli_link_send_ctl(c->link, pli_rec_meta(PLI_REC_DONE, 0, 0), pli_rec_w1(0, c->peer_chan, c->rx_released), 0, NULL);
}

int pli_conn_event(struct plait_conn *c, enum pli_conn_event event, int code, const char *text)
{
    enum pli_conn_state old = c->state;
    struct pli_step step = pli_conn_step(old, event);
    bool zombie = step.actions & (PLI_ACT_ABORT | PLI_ACT_LINGER);

    if (step.actions & PLI_ACT_BREACH)
        return pli_conn_breach(c, "FIN, DONE or ABORT in a state where they cannot come");
    if (step.actions & PLI_ACT_REFUSE_CALL)
        return pli_fail(PLAIT_E_CLOSED, "the connection is closed or being closed");
    /* CONN_OPEN is on its way: the answer must find the number taken */
    if (old == PLI_CONN_OPENING && c->in_table && event != PLI_CEV_FAIL)
        zombie = true;
    c->state = step.next;
    pli_conn_update_rx(c);
    if (step.actions & PLI_ACT_OPEN)
        opened(c);
    if (step.actions & PLI_ACT_FIN) {
        pli_conn_update_limit(c);
        pli_conn_send_fin(c);
        pli_timer_start(c->ctx, &c->linger, pli_clock_now() + (uint64_t)c->session->linger_ms * 1000000);
    }
    if (step.actions & PLI_ACT_DONE || step.actions & PLI_ACT_ANSWER)
        send_done(c);
    if (step.actions & PLI_ACT_ABORT) {
        pli_conn_frames_first(c);
        send_abort(c->link, c->peer_chan, code, c->rx_released);
    }
    if (step.actions & PLI_ACT_END)
        ended(c, old, code, text, zombie);
    else
        pli_conn_quiet_later(c);
    return 0;
}

/* ---- public ---- */

int plait_conn_close(struct plait_conn *c)
{
    int rc;

    if (c->state == PLI_CONN_CLOSED)
        return pli_fail(PLAIT_E_CLOSED, "the connection is closed already");
    rc = pli_ctx_check(c->ctx);
    return rc < 0 ? rc : pli_conn_event(c, PLI_CEV_CLOSE, 0, NULL);
}

int plait_conn_abort(struct plait_conn *c)
{
    int rc = post_once(c, &c->post_abort, POST_ABORT);

    if (rc == PLAIT_E_NOTFOUND && c->session->owner != getpid())
        return pli_fail(PLAIT_E_FORKED, "the connection belongs to the parent process");
    return rc < 0 ? pli_fail(rc, "the connection is closed already") : 0;
}

struct plait_session *plait_conn_session(const struct plait_conn *c)
{
    return c->session;
}

struct plait_ctx *plait_conn_ctx(const struct plait_conn *c)
{
    return c->ctx;
}

unsigned plait_conn_index(const struct plait_conn *c)
{
    return c->index;
}

void plait_conn_set_user(struct plait_conn *c, void *user)
{
    c->user = user;
}

void *plait_conn_user(const struct plait_conn *c)
{
    return c->user;
}

int plait_conn_is_open(const struct plait_conn *c)
{
    return c->state == PLI_CONN_OPEN;
}

int plait_conn_get_info(struct plait_conn *c, struct plait_conn_info *info)
{
    struct plait_conn_info now = PLAIT_CONN_INFO_INIT;
    const struct pli_link *link = c->link;

    if (!info || info->size < sizeof(size_t) || info->size > sizeof now)
        return pli_fail(PLAIT_E_INVAL, "plait_conn_info.size is %zu, this library knows up to %zu: start from PLAIT_CONN_INFO_INIT",
                        info ? info->size : 0, sizeof now);
    now.size = info->size;
    now.state = pli_conn_state_name(c->state);
    now.transport = link && link->tr ? link->tr->ops->name : "none";
    now.wire = link && link->tr ? pli_link_wire(link) : "none";
    now.peer_pid = link ? (link->pid ? link->pid : link->peer.pid) : 0;
    now.window = c->peer_window;
    now.unreleased = (uint32_t)(c->tx_seq - c->tx_released);
    now.pending = pli_conn_pending(c);
    now.queued = c->ntxq;
    now.max_msg = c->peer_max_msg;
    now.sent = c->tx_seq + c->replies;
    now.received = pli_conn_received(c);
    memcpy(info, &now, info->size);
    return 0;
}
