/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions: what both sides share, from birth to end. */
#include "runtime/conn.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/job.h"
#include "util/err.h"

static pthread_mutex_t session_mutex = PTHREAD_MUTEX_INITIALIZER;

void pli_session_lock(void)
{
    pthread_mutex_lock(&session_mutex);
}

void pli_session_unlock(void)
{
    pthread_mutex_unlock(&session_mutex);
}

/* ---- birth and death ---- */

void pli_session_free(struct plait_session *s)
{
    for (unsigned i = 0; i < s->nconns; i++)
        if (s->conns[i])
            pli_conn_free(s->conns[i]);
    free(s->conns);
    free(s->ctxs);
    free(s->portals);
    free(s->uri);
    free(s->resource);
    free(s->data);
    free(s->why_data);
    free(s);
}

void pli_session_ref(struct plait_session *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

/* Release: what this thread did with the session comes before its end; acquire in the last one: sees what all others did. */
void pli_session_unref(struct plait_session *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        pli_session_free(s);
}

static void gone_fn(struct pli_defer *d)
{
    pli_session_unref(pli_container_of(d, struct plait_session, gone));
}

static void check_fn(struct pli_post *p);
static void check_drop(struct pli_post *p);
static void release_fn(struct pli_post *p);
static void release_drop(struct pli_post *p);
static void timer_fn(struct pli_timer *t);
static void link_wait_fn(struct pli_link_wait *w, int code);

static void obj_destroy(struct pli_ctx_obj *obj, bool forked)
{
    struct plait_session *s = pli_container_of(obj, struct plait_session, obj);

    if (forked)
        return;
    pli_session_event(s, PLI_SEV_FAIL, PLAIT_E_ABORTED, "the context was destroyed");
    pli_session_lock();
    s->lead_gone = true;
    pli_session_unlock();
    /* connections of other contexts may end later; nobody is left to be told */
    if (s->state != PLI_SES_CLOSED)
        pli_session_event(s, PLI_SEV_CONNS_DOWN, PLAIT_E_ABORTED, "the context was destroyed");
}

struct plait_session *pli_session_new(struct plait_ctx *lead, unsigned nconns)
{
    struct plait_session *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->conns = calloc(nconns, sizeof *s->conns);
    if (!s->conns) {
        free(s);
        return NULL;
    }
    s->lead = lead;
    s->nconns = nconns;
    s->rank = -1;
    s->uid = (uid_t)-1;
    s->gid = (gid_t)-1;
    s->owner = getpid();
    atomic_init(&s->refs, 1); /* its own, until it has ended */
    pli_list_init(&s->node);
    pli_list_init(&s->asked);
    pli_list_init(&s->global);
    pli_list_init(&s->wait.node);
    s->wait.fn = link_wait_fn;
    pli_timer_init(&s->timer, timer_fn);
    pli_defer_init(&s->gone, gone_fn);
    s->post_check = (struct pli_post){ .fn = check_fn, .drop = check_drop };
    s->post_release = (struct pli_post){ .fn = release_fn, .drop = release_drop };
    pli_ctx_obj_add(lead, &s->obj, obj_destroy);
    return s;
}

struct plait_session *pli_session_by_sid(struct pli_list *sessions, const uint8_t *sid)
{
    struct pli_list *node;

    pli_list_foreach(node, sessions) {
        struct plait_session *s = pli_container_of(node, struct plait_session, node);

        if (memcmp(s->sid, sid, PLI_ID_LEN) == 0)
            return s;
    }
    return NULL;
}

/* ---- actions ---- */

static void do_ask(struct plait_session *s)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_OPEN };
    int rc;

    memcpy(msg.open.sid, s->sid, PLI_ID_LEN);
    msg.open.listener = s->link->listener;
    msg.open.nconns = s->nconns;
    msg.open.rank = s->rank >= 0 ? pli_job_own_rank() : -1;
    msg.open.job.p = pli_job_id();
    msg.open.job.len = s->rank >= 0 ? (uint32_t)strlen(pli_job_id()) : 0;
    msg.open.resource.p = s->resource;
    msg.open.resource.len = (uint32_t)strlen(s->resource);
    msg.open.data.p = s->data;
    msg.open.data.len = (uint32_t)s->data_len;
    s->asked_peer = true;
    rc = pli_channel_send(&s->link->ch, &msg, NULL);
    if (rc < 0)
        pli_link_send_failed(s->link, rc);
}

/* Connections of other contexts are reached by posts. */
static void each_conn(struct plait_session *s, void (*here)(struct plait_conn *), void (*there)(struct plait_conn *))
{
    for (unsigned i = 0; i < s->nconns; i++) {
        struct plait_conn *c;

        pli_session_lock();
        c = s->conns[i];
        pli_session_unlock();
        if (!c)
            continue;
        if (c->ctx == s->lead)
            here(c);
        else
            there(c);
    }
}

static void start_here(struct plait_conn *c)
{
    pli_conn_start(c, &c->session->key);
}

static void do_leave(struct plait_session *s)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_CLOSE };

    if (s->server || !s->asked_peer || !s->link || !pli_link_is_up(s->link))
        return;
    memcpy(msg.reject.sid, s->sid, PLI_ID_LEN);
    pli_channel_send(&s->link->ch, &msg, NULL); /* a failure is a link that is down: the peer knows then */
}

static void do_end(struct plait_session *s)
{
    const struct plait_session_ops *ops = s->ops;

    s->why.code = atomic_load(&s->first_code);
    if (!s->why.text) {
        pli_session_lock();
        snprintf(s->why_text, sizeof s->why_text, "%s", s->why.code ? s->first_text : "the session was closed");
        pli_session_unlock();
        s->why.text = s->why_text;
    }
    s->why.data = s->why_data;
    pli_timer_stop(s->lead, &s->timer);
    pli_service_forget(s);
    if (s->server)
        pli_service_session_ended(s);
    pli_ctx_obj_del(&s->obj);
    pli_list_remove(&s->node);
    if (s->waiting)
        pli_link_unwait(&s->wait);
    if (s->link)
        pli_link_put(s->link);
    s->link = NULL;
    pli_session_lock();
    s->lead_gone = true; /* nothing is posted there any more: it may be destroyed before the last reference goes */
    pli_session_unlock();
    if (ops && ops->on_closed && !s->muted)
        ops->on_closed(s, &s->why, s->arg);
    pli_ctx_defer(s->lead, &s->gone);
}

static void note_failure(struct plait_session *s, int code, const char *text)
{
    pli_session_lock();
    if (code && !atomic_load(&s->first_code)) {
        snprintf(s->first_text, sizeof s->first_text, "%s", text ? text : plait_strerror(code));
        atomic_store(&s->first_code, code);
    }
    pli_session_unlock();
}

int pli_session_event(struct plait_session *s, enum pli_session_event event, int code, const char *text)
{
    struct pli_step step = pli_session_step(s->state, event);

    if (step.actions & PLI_SACT_REFUSE_CALL)
        return pli_fail(PLAIT_E_CLOSED, "the session is %s", pli_session_state_name(s->state));
    if (step.actions & PLI_SACT_BREACH)
        return s->link ? pli_link_breach(s->link, "an answer for a session that is %s", pli_session_state_name(s->state)) : PLAIT_E_PROTO;
    if (event == PLI_SEV_FAIL || event == PLI_SEV_REJECT)
        note_failure(s, code, text);
    s->state = step.next;
    if (step.actions & PLI_SACT_ASK)
        do_ask(s);
    if (step.actions & PLI_SACT_JOIN)
        each_conn(s, start_here, pli_conn_post_open);
    if (step.actions & PLI_SACT_OPEN)
        pli_timer_stop(s->lead, &s->timer);
    if (step.actions & PLI_SACT_OPEN && !s->server && s->ops && s->ops->on_open && !s->muted)
        s->ops->on_open(s, s->data, s->data_len, s->arg);
    if (step.actions & (PLI_SACT_CLOSE | PLI_SACT_ABORT))
        atomic_store(&s->closing, 1);
    if (step.actions & PLI_SACT_CLOSE)
        each_conn(s, pli_conn_close_here, pli_conn_post_close);
    if (step.actions & PLI_SACT_ABORT) {
        if (!s->abort_code) /* the first reason; other threads may be reading it */
            snprintf(s->abort_text, sizeof s->abort_text, "%s", text ? text : "the session was closed before it was open");
        if (!s->abort_code)
            s->abort_code = code ? code : PLAIT_E_CANCELED;
        each_conn(s, pli_conn_abort_here, pli_conn_post_abort);
    }
    if (step.actions & (PLI_SACT_CLOSE | PLI_SACT_ABORT))
        pli_session_check(s);
    if (step.actions & PLI_SACT_LEAVE)
        do_leave(s);
    if (step.actions & PLI_SACT_END)
        do_end(s);
    return 0;
}

/* ---- counting connections ---- */

static void check_locked(struct plait_session *s)
{
    if (!s->lead_gone && !atomic_exchange(&s->check_posted, 1)) {
        pli_session_ref(s);
        pli_ctx_post(s->lead, &s->post_check);
    }
}

void pli_session_check(struct plait_session *s)
{
    pli_session_lock();
    check_locked(s);
    pli_session_unlock();
}

void pli_session_conn_ended(struct plait_conn *c, int code, const char *text)
{
    struct plait_session *s = c->session;

    note_failure(s, code, text);
    pli_session_lock();
    /* Under the lock: who posts to this connection's context looks at this first, and the session must not end, and its context
     * go, between the count and the post. */
    atomic_store(&c->public_state, PLI_CONN_PUBLIC_CLOSED);
    atomic_fetch_add(&s->down, 1);
    check_locked(s);
    pli_session_unlock();
}

static void check_fn(struct pli_post *p)
{
    struct plait_session *s = pli_container_of(p, struct plait_session, post_check);
    unsigned made, up, down;

    atomic_store(&s->check_posted, 0);
    /* the lock: no connection joins between the count and the end (join() in service.c looks at closing, then counts) */
    pli_session_lock();
    down = atomic_load(&s->down); /* before up: what has ended has been counted as open */
    up = atomic_load(&s->up);
    made = atomic_load(&s->made);
    pli_session_unlock();
    if (s->state == PLI_SES_JOINING && up == s->nconns) /* even if one has ended since */
        pli_session_event(s, PLI_SEV_CONNS_UP, 0, NULL);
    else if (s->state == PLI_SES_JOINING && down)
        pli_session_event(s, PLI_SEV_FAIL, atomic_load(&s->first_code), s->first_text);
    if (down == made && (!s->server || s->peer_left) && s->state >= PLI_SES_JOINING)
        pli_session_event(s, PLI_SEV_CONNS_DOWN, 0, NULL);
    pli_session_unref(s);
}

static void check_drop(struct pli_post *p)
{
    pli_session_unref(pli_container_of(p, struct plait_session, post_check));
}

/* ---- time-outs and the lead link ---- */

static void timer_fn(struct pli_timer *t)
{
    struct plait_session *s = pli_container_of(t, struct plait_session, timer);
    const char *name = s->key.name;
    char text[512];

    if (s->state == PLI_SES_ASKED) {
        pli_service_answer(s, PLAIT_E_TIMEDOUT, "the service did not answer in time", NULL, 0);
        pli_session_event(s, PLI_SEV_FAIL, PLAIT_E_TIMEDOUT, "the session was neither accepted nor rejected in time");
        return;
    }
    if (s->server) { /* closing, and the client does not leave */
        s->peer_left = true;
        pli_session_check(s);
        return;
    }
    snprintf(text, sizeof text, "%s%sopening %.300s took longer than open_timeout_ms, %u (it was %s)", name, name[0] ? ": " : "",
             s->uri, s->open_timeout_ms, pli_session_state_name(s->state));
    pli_session_event(s, PLI_SEV_FAIL, PLAIT_E_TIMEDOUT, text);
}

static void link_wait_fn(struct pli_link_wait *w, int code)
{
    struct plait_session *s = pli_container_of(w, struct plait_session, wait);

    s->waiting = false;
    if (code < 0) {
        pli_link_put(s->link); /* it may go before the session has ended */
        s->link = NULL;
        pli_session_event(s, PLI_SEV_FAIL, code, pli_err_text());
        return;
    }
    pli_list_push_back(&s->link->sessions, &s->node);
    s->uid = s->link->uid;
    s->pid = s->link->pid;
    pli_session_event(s, PLI_SEV_LINKED, 0, NULL);
}

void pli_session_link_lost(struct pli_link *link, int code, const char *text)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&link->sessions)) != NULL) {
        struct plait_session *s = pli_container_of(node, struct plait_session, node);
        bool orderly = s->server && code == PLAIT_E_CLOSED;

        s->link = NULL;
        s->peer_left = true;
        pli_link_put(link);
        if (s->state == PLI_SES_ASKED || s->state == PLI_SES_ASKING || s->state == PLI_SES_JOINING)
            pli_session_event(s, PLI_SEV_FAIL, code, text);
        else if (!orderly)
            note_failure(s, code, text);
        if (s->server || s->state == PLI_SES_OPEN)
            atomic_store(&s->closing, 1);
        pli_session_check(s);
    }
}

/* ---- frames ---- */

static int client_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    const uint8_t *sid = msg->type == PLI_WIRE_SESSION_ACCEPT ? msg->accept.sid : msg->reject.sid;
    struct plait_session *s = pli_session_by_sid(&link->sessions, sid);
    char text[PLI_WIRE_TEXT_MAX + 1];

    if (!s || s->server)
        return 0; /* it was given up here meanwhile */
    if (msg->type == PLI_WIRE_SESSION_REJECT) {
        if (s->state != PLI_SES_ASKING)
            return 0;
        snprintf(text, sizeof text, "%.*s", (int)msg->reject.text.len, (const char *)msg->reject.text.p);
        if (msg->reject.data.len) {
            s->why_data = malloc(msg->reject.data.len);
            if (s->why_data) {
                memcpy(s->why_data, msg->reject.data.p, msg->reject.data.len);
                s->why.data_len = msg->reject.data.len;
            }
        }
        pli_session_event(s, PLI_SEV_REJECT, msg->reject.code < 0 ? msg->reject.code : PLAIT_E_REJECTED, text);
        return 0;
    }
    if (s->state != PLI_SES_ASKING)
        return s->state == PLI_SES_CLOSING ? 0 : pli_link_breach(link, "a second SESSION_ACCEPT");
    /* each connection goes to the portal that its number falls on */
    for (unsigned i = 0; i < s->nconns; i++)
        s->conns[i]->portal = pli_wire_portal(msg, i % msg->accept.nportals);
    free(s->data);
    s->data_len = 0;
    s->data = msg->accept.data.len ? malloc(msg->accept.data.len) : NULL;
    if (s->data) {
        memcpy(s->data, msg->accept.data.p, msg->accept.data.len);
        s->data_len = msg->accept.data.len;
    }
    pli_session_event(s, PLI_SEV_ACCEPT, 0, NULL);
    return 0;
}

int pli_session_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct plait_session *s;

    if (msg->type == PLI_WIRE_SESSION_OPEN)
        return pli_service_open_frame(link, msg);
    if (msg->type != PLI_WIRE_SESSION_CLOSE)
        return client_frame(link, msg);
    s = pli_session_by_sid(&link->sessions, msg->reject.sid);
    if (!s || !s->server)
        return 0;
    s->peer_left = true;
    atomic_store(&s->closing, 1);
    if (s->state == PLI_SES_ASKED)
        pli_session_event(s, PLI_SEV_FAIL, PLAIT_E_CANCELED, "the client gave up before it was answered");
    else
        pli_session_check(s);
    return 0;
}

/* ---- public ---- */

int plait_session_close(struct plait_session *s)
{
    int rc;

    if (s->state == PLI_SES_CLOSED)
        return pli_fail(PLAIT_E_CLOSED, "the session is closed already");
    rc = pli_ctx_check(s->lead);
    if (rc < 0)
        return rc;
    if (s->state == PLI_SES_ASKED) /* closing is an answer, too */
        return plait_session_reject(s, "the service closed the session", NULL, 0);
    rc = pli_session_event(s, PLI_SEV_CLOSE, 0, NULL);
    if (rc == 0 && s->server)
        pli_timer_start(s->lead, &s->timer, pli_clock_now() + (uint64_t)s->linger_ms * 1000000);
    return rc;
}

struct plait_session *plait_session_hold(struct plait_session *s)
{
    pli_session_lock();
    s->users++;
    pli_session_unlock();
    pli_session_ref(s);
    return s;
}

/* On the lead context: nobody has the session any more. */
static void release_fn(struct pli_post *p)
{
    struct plait_session *s = pli_container_of(p, struct plait_session, post_release);

    s->muted = true;
    if (s->state != PLI_SES_CLOSED && s->state != PLI_SES_CLOSING)
        pli_session_event(s, PLI_SEV_CLOSE, 0, NULL);
    pli_session_unref(s);
}

static void release_drop(struct pli_post *p)
{
    pli_session_unref(pli_container_of(p, struct plait_session, post_release));
}

void plait_session_release(struct plait_session *s)
{
    bool post = false, here = false;

    if (!s)
        return;
    pli_session_lock();
    /* a server's session is its own; a client's ends with its last user */
    if (--s->users == 0 && !s->server && !s->lead_gone) {
        /* at once where that is possible: what comes in the next poll must not reach a user who is gone */
        here = !s->lead->shared && !s->lead->forked && pthread_equal(s->lead->owner, pthread_self());
        post = !here;
        if (post)
            pli_ctx_post(s->lead, &s->post_release); /* takes the caller's reference along */
    }
    pli_session_unlock();
    if (here)
        release_fn(&s->post_release);
    else if (!post)
        pli_session_unref(s);
}

struct plait_conn *plait_session_conn(struct plait_session *s, unsigned i)
{
    struct plait_conn *c;

    pli_session_lock();
    c = i < s->nconns ? s->conns[i] : NULL;
    pli_session_unlock();
    return c;
}

unsigned plait_session_conn_count(const struct plait_session *s)
{
    return s->nconns;
}

const char *plait_session_uri(const struct plait_session *s)
{
    return s->server ? s->resource : s->uri;
}

int plait_session_peer_rank(const struct plait_session *s)
{
    return s->rank;
}

void plait_session_set_arg(struct plait_session *s, void *arg)
{
    s->arg = arg;
}

void *plait_session_arg(const struct plait_session *s)
{
    return s->arg;
}
