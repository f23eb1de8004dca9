/* SPDX-License-Identifier: BSD-3-Clause */
/* The server's side: listeners, sessions that ask, connections that arrive. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "runtime/conn.h"
#include "runtime/job.h"
#include "runtime/loop_priv.h"
#include "runtime/transports.h"
#include "util/err.h"
#include "util/log.h"

struct plait_listener {
    struct plait_ctx *ctx;
    struct pli_list node;      /* ctx->listeners */
    struct pli_ctx_obj obj;
    struct pli_acceptor *acceptor;
    struct pli_list asked;     /* sessions that wait for accept or reject */
    struct plait_listen_opts opts;
    uint32_t number;           /* in this process, on the wire */
    uint32_t transports;
    char provider[PLI_PROVIDER_MAX + 1];
    unsigned nsessions;        /* open ones, where there is a limit */
    char uri[1400];
};

static _Atomic uint32_t next_number = 1;

/* Sessions that were accepted in this process, by their number: connections of other contexts look for them. Under pli_session_lock(). */
static struct pli_list accepted = PLI_LIST_INIT(accepted);

/* ---- arrivals ---- */

struct handed {
    struct pli_post post;
    struct plait_ctx *ctx;
    struct pli_arrival arrival;
};

static void link_arrival(struct plait_ctx *ctx, struct pli_arrival *a)
{
    if (pli_link_accept(ctx, a) < 0)
        pli_warn("context '%s': a peer (process %d) could not be served: %s", ctx->name, (int)a->pid, pli_err_text());
}

static void handed_fn(struct pli_post *p)
{
    struct handed *h = pli_container_of(p, struct handed, post);

    link_arrival(h->ctx, &h->arrival);
    free(h);
}

static void handed_drop(struct pli_post *p)
{
    struct handed *h = pli_container_of(p, struct handed, post);

    close(h->arrival.fd);
    free(h);
}

/* The registry's lock keeps the context alive while it is posted to. */
static int hand_over(struct handed *h, uint32_t ctx_id)
{
    struct plait_ctx *ctx;

    pli_registry_lock();
    ctx = pli_registry_find(ctx_id);
    if (ctx) {
        h->ctx = ctx;
        pli_ctx_post(ctx, &h->post);
    }
    pli_registry_unlock();
    return ctx ? 0 : -1;
}

/* The socket is new and empty: a frame fits, or the peer does without. */
static void refuse_arrival(struct pli_arrival *a, int code, const char *text)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_REFUSE };
    uint8_t buf[512];
    int n;

    msg.end.code = code;
    msg.end.text.p = text;
    msg.end.text.len = (uint32_t)strlen(text);
    n = pli_wire_encode(buf, sizeof buf, &msg);
    if (n > 0 && send(a->fd, buf, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        pli_debug("peer process %d does not wait for its refusal", (int)a->pid);
    close(a->fd);
}

static void on_arrival(struct pli_arrival *a, void *arg)
{
    struct plait_listener *l = arg;
    struct handed *h;

    a->peer.transports &= l->transports;
    snprintf(a->provider, sizeof a->provider, "%s", l->provider);
    if (a->peer.target == 0 || a->peer.target == l->ctx->id) {
        link_arrival(l->ctx, a);
        return;
    }
    h = calloc(1, sizeof *h);
    if (h) {
        h->arrival = *a;
        h->post = (struct pli_post){ .fn = handed_fn, .drop = handed_drop };
    }
    if (!h || hand_over(h, a->peer.target) < 0) {
        pli_info("peer process %d asked for context %u, which is not here", (int)a->pid, a->peer.target);
        refuse_arrival(a, h ? PLAIT_E_NOTFOUND : PLAIT_E_NOMEM, h ? "the context of the service that was asked for has gone" : "no memory for a link");
        free(h);
    }
}

/* ---- listeners ---- */

static void listener_end(struct plait_listener *l, bool forked)
{
    struct pli_list *node;

    while (!forked && (node = pli_list_first(&l->asked)) != NULL)
        plait_session_reject(pli_container_of(node, struct plait_session, asked), "the service stopped listening", NULL, 0);
    pli_acceptor_close(l->acceptor, forked);
    pli_list_remove(&l->node);
    pli_ctx_obj_del(&l->obj);
    free((void *)l->opts.uids);
    free((void *)l->opts.session.data);
    free((void *)l->opts.session.ctxs);
    free(l);
}

static void obj_destroy(struct pli_ctx_obj *obj, bool forked)
{
    listener_end(pli_container_of(obj, struct plait_listener, obj), forked);
}

void plait_listener_close(struct plait_listener *l)
{
    if (l && pli_ctx_check(l->ctx) == 0)
        listener_end(l, false);
}

static int copy_bytes(const void **p, size_t len)
{
    void *copy;

    if (!len || !*p) {
        *p = NULL;
        return 0;
    }
    copy = malloc(len);
    if (!copy)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a listener's options");
    memcpy(copy, *p, len);
    *p = copy;
    return 0;
}

static int copy_opts(struct plait_listener *l, const struct plait_listen_opts *o)
{
    const void *uids = o->uids, *data = o->session.data, *ctxs = o->session.ctxs;
    int rc;

    l->opts = *o;
    l->opts.uids = NULL;
    l->opts.session.data = NULL;
    l->opts.session.ctxs = NULL;
    rc = copy_bytes(&uids, o->nuids * sizeof *o->uids);
    if (rc < 0)
        return rc;
    l->opts.uids = uids;
    rc = copy_bytes(&data, o->session.data_len);
    if (rc < 0)
        return rc;
    l->opts.session.data = data;
    rc = copy_bytes(&ctxs, o->session.nctxs * sizeof *o->session.ctxs);
    if (rc < 0)
        return rc;
    l->opts.session.ctxs = (struct plait_ctx *const *)ctxs;
    return 0;
}

static int open_acceptor(struct plait_listener *l, struct pli_uri *uri)
{
    struct pli_acceptor_opts ao = {
        .listener = l->number,
        .uids = l->opts.uids,
        .nuids = l->opts.nuids,
        .any_uid = l->opts.any_uid,
        .hello_timeout_ms = 5000,
        .max_pending = 1024,
        .on_arrival = on_arrival,
        .arg = l,
    };

    return pli_acceptor_open(&l->acceptor, l->ctx, uri, &ao);
}

int plait_listen(struct plait_listener **out, struct plait_ctx *ctx, const char *text, const struct plait_listen_opts *opts)
{
    static const struct plait_listen_opts defaults = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l;
    struct pli_uri uri;
    int rc = pli_ctx_check(ctx);

    if (!opts)
        opts = &defaults;
    if (rc == 0 && opts->size != sizeof *opts)
        rc = pli_fail(PLAIT_E_INVAL, "struct plait_listen_opts has size %zu, not %zu: begin with PLAIT_LISTEN_OPTS_INIT", opts->size, sizeof *opts);
    if (rc == 0)
        rc = pli_session_opts_check(&opts->session);
    if (rc == 0)
        rc = pli_uri_parse(&uri, text);
    if (rc == 0 && !pli_transport_mask(uri.transports)) {
        pli_transport_choose(uri.transports, true);
        rc = pli_fail_prefix(PLAIT_E_NOTRANSPORT, "'%s'", text);
    }
    if (rc < 0)
        return rc;
    l = calloc(1, sizeof *l);
    if (!l)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a listener");
    l->ctx = ctx;
    l->number = atomic_fetch_add(&next_number, 1);
    l->transports = uri.transports;
    snprintf(l->provider, sizeof l->provider, "%s", uri.provider);
    pli_list_init(&l->asked);
    if (!(uri.transports & PLI_TRANSPORT_SHM))
        pli_transport_load(uri.transports);
    rc = copy_opts(l, opts);
    if (rc == 0)
        rc = open_acceptor(l, &uri);
    if (rc < 0)
        goto err;
    pli_uri_format(&uri, l->uri, sizeof l->uri);
    pli_list_push_back(&ctx->listeners, &l->node);
    pli_ctx_obj_add(ctx, &l->obj, obj_destroy);
    *out = l;
    return 0;

err:
    free((void *)l->opts.uids);
    free((void *)l->opts.session.data);
    free((void *)l->opts.session.ctxs);
    free(l);
    return rc;
}

const char *plait_listener_uri(const struct plait_listener *l)
{
    return l->uri;
}

/* ---- a session asks ---- */

static struct plait_listener *find_listener(struct plait_ctx *ctx, uint32_t number)
{
    struct pli_list *node;

    pli_list_foreach(node, &ctx->listeners) {
        struct plait_listener *l = pli_container_of(node, struct plait_listener, node);

        if (l->number == number)
            return l;
    }
    return NULL;
}

static int reject_sid(struct pli_link *link, const uint8_t *sid, int code, const char *text, const void *data, size_t len)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_REJECT };
    int rc;

    memcpy(msg.reject.sid, sid, PLI_ID_LEN);
    msg.reject.code = code;
    msg.reject.text.p = text;
    msg.reject.text.len = (uint32_t)strnlen(text, PLI_WIRE_TEXT_MAX);
    msg.reject.data.p = data;
    msg.reject.data.len = (uint32_t)len;
    rc = pli_channel_send(&link->ch, &msg, NULL);
    return rc < 0 ? pli_link_send_failed(link, rc) : 0;
}

static int accept_frame(struct plait_session *s)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_ACCEPT };
    uint32_t portals[PLAIT_MAX_CONNS];

    for (unsigned i = 0; i < s->nportals; i++)
        portals[i] = s->portals[i]->id;
    memcpy(msg.accept.sid, s->sid, PLI_ID_LEN);
    msg.accept.nportals = s->nportals;
    msg.accept.portals.p = portals;
    msg.accept.portals.len = s->nportals * (uint32_t)sizeof portals[0];
    msg.accept.data.p = s->data;
    msg.accept.data.len = (uint32_t)s->data_len;
    return pli_channel_send(&s->link->ch, &msg, NULL);
}

int pli_service_answer(struct plait_session *s, int code, const char *text, const void *data, size_t len)
{
    int rc;

    if (!s->link || !pli_link_is_up(s->link))
        return 0;
    if (code)
        return reject_sid(s->link, s->sid, code, text, data, len);
    rc = accept_frame(s);
    return rc < 0 ? pli_link_send_failed(s->link, rc) : 0;
}

void pli_service_forget(struct plait_session *s)
{
    if (!s->server)
        return;
    pli_list_remove(&s->asked);
    pli_session_lock();
    pli_list_remove(&s->global);
    pli_session_unlock();
}

static struct plait_session *asked_session(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct plait_session *s = pli_session_new(link->ctx, msg->open.nconns);

    if (!s)
        return NULL;
    s->server = true;
    s->state = PLI_SES_ASKED;
    memcpy(s->sid, msg->open.sid, PLI_ID_LEN);
    memcpy(s->peer_incarnation, link->peer.incarnation, PLI_ID_LEN);
    s->resource = strndup((const char *)msg->open.resource.p, msg->open.resource.len);
    if (!s->resource) {
        pli_ctx_obj_del(&s->obj);
        pli_session_unref(s);
        return NULL;
    }
    s->link = link;
    s->uid = link->uid;
    s->gid = link->gid;
    s->pid = link->pid;
    s->rank = pli_job_is_own(msg->open.job.p, msg->open.job.len) ? msg->open.rank : -1;
    pli_link_ref(link);
    pli_list_push_back(&link->sessions, &s->node);
    return s;
}

static void ask_user(struct plait_listener *l, struct plait_session *s, const struct pli_wire_msg *msg)
{
    struct plait_session_request req = {
        .resource = s->resource,
        .data = msg->open.data.len ? msg->open.data.p : NULL,
        .data_len = msg->open.data.len,
        .conns = s->nconns,
        .uid = s->uid,
        .gid = s->gid,
        .pid = s->pid,
        .rank = s->rank,
    };

    pli_timer_start(s->lead, &s->timer, pli_clock_now() + (uint64_t)l->opts.session.open_timeout_ms * 1000000);
    if (l->opts.on_session)
        l->opts.on_session(s, &req, l->opts.session.arg);
    else
        plait_session_accept(s, NULL);
}

int pli_service_open_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct plait_listener *l = find_listener(link->ctx, msg->open.listener);
    struct plait_session *s;

    if (!l)
        return reject_sid(link, msg->open.sid, PLAIT_E_NOLISTENER, "the listener has been closed", NULL, 0), 0;
    if (pli_session_by_sid(&link->sessions, msg->open.sid))
        return pli_link_breach(link, "a second SESSION_OPEN for one session");
    if (l->opts.max_sessions && l->nsessions >= l->opts.max_sessions)
        return reject_sid(link, msg->open.sid, PLAIT_E_REJECTED, "the service has its maximum of sessions (max_sessions)", NULL, 0), 0;
    s = asked_session(link, msg);
    if (!s)
        return reject_sid(link, msg->open.sid, PLAIT_E_NOMEM, "the service has no memory for a session", NULL, 0), 0;
    l->nsessions++;
    s->listener = l;
    s->listener_number = l->number;
    pli_session_set_opts(s, &l->opts.session);
    pli_list_push_back(&l->asked, &s->asked);
    ask_user(l, s, msg);
    return 0;
}

/* The listener's count, if it is still there. */
void pli_service_session_ended(struct plait_session *s)
{
    struct plait_listener *l = find_listener(s->lead, s->listener_number);

    if (l && l->nsessions)
        l->nsessions--;
}

static int set_portals(struct plait_session *s, const struct plait_session_opts *opts)
{
    s->nportals = opts->nctxs ? opts->nctxs : 1;
    s->portals = calloc(s->nportals, sizeof *s->portals);
    if (!s->portals)
        return pli_fail(PLAIT_E_NOMEM, "no memory to accept a session");
    for (unsigned i = 0; i < s->nportals; i++)
        s->portals[i] = opts->nctxs ? opts->ctxs[i] : s->lead;
    return 0;
}

int plait_session_accept(struct plait_session *s, const struct plait_session_opts *opts)
{
    int rc;

    if (s->state != PLI_SES_ASKED)
        return pli_fail(PLAIT_E_CLOSED, "the session is %s: it does not wait for an answer", pli_session_state_name(s->state));
    if (!opts)
        opts = &s->listener->opts.session;
    rc = pli_session_opts_check(opts);
    if (rc < 0)
        return rc;
    free(s->data);
    s->data = NULL;
    s->data_len = 0;
    rc = pli_session_set_opts(s, opts);
    if (rc == 0)
        rc = set_portals(s, opts);
    if (rc < 0)
        return rc;
    pli_list_remove(&s->asked);
    pli_timer_stop(s->lead, &s->timer);
    pli_session_lock();
    pli_list_push_back(&accepted, &s->global);
    pli_session_unlock();
    pli_session_event(s, PLI_SEV_ACCEPT, 0, NULL);
    return pli_service_answer(s, 0, NULL, NULL, 0);
}

int plait_session_reject(struct plait_session *s, const char *reason, const void *data, size_t len)
{
    if (s->state != PLI_SES_ASKED)
        return pli_fail(PLAIT_E_CLOSED, "the session is %s: it does not wait for an answer", pli_session_state_name(s->state));
    if (len > PLAIT_MAX_PRIVATE || (len && !data))
        return pli_fail(PLAIT_E_INVAL, "%zu bytes of data with a rejection: PLAIT_MAX_PRIVATE is %u", len, PLAIT_MAX_PRIVATE);
    pli_service_answer(s, PLAIT_E_REJECTED, reason ? reason : "rejected", data, len);
    s->muted = true; /* its user has ended it */
    return pli_session_event(s, PLI_SEV_FAIL, PLAIT_E_REJECTED, "rejected");
}

/* ---- a connection arrives, maybe on another context than the session's ---- */

static void refuse_conn(struct pli_link *link, const struct pli_wire_msg *open, int code, const char *text)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_CONN_REFUSE };

    msg.conn = open->conn;
    msg.conn.peer_chan = open->conn.chan;
    msg.conn.chan = 0;
    msg.conn.code = code;
    msg.conn.text.p = text;
    msg.conn.text.len = (uint32_t)strnlen(text, PLI_WIRE_TEXT_MAX);
    pli_link_send_frame(link, &msg);
}

static struct plait_session *find_accepted(struct pli_link *link, const uint8_t *sid)
{
    struct pli_list *node;

    pli_list_foreach(node, &accepted) {
        struct plait_session *s = pli_container_of(node, struct plait_session, global);

        if (memcmp(s->sid, sid, PLI_ID_LEN) == 0 &&
            memcmp(s->peer_incarnation, link->peer.incarnation, PLI_ID_LEN) == 0)
            return s;
    }
    return NULL;
}

/* Makes the connection under the lock, so that a session that closes sees it. NULL and a reason otherwise. */
static struct plait_conn *join(struct pli_link *link, const struct pli_wire_msg *msg, const char **why)
{
    struct plait_conn *c = NULL;
    struct plait_session *s;
    uint32_t i = msg->conn.index;

    pli_session_lock();
    s = find_accepted(link, msg->conn.sid);
    if (!s)
        *why = "no such session here: it has ended, or belongs to another process";
    else if (atomic_load(&s->closing))
        *why = "the session is being closed";
    else if (i >= s->nconns || s->conns[i])
        *why = "the session has no place for this connection";
    else if ((c = pli_conn_new(s, link->ctx, i)) == NULL)
        *why = "no memory for a connection";
    if (c) {
        s->conns[i] = c;
        atomic_fetch_add(&s->made, 1);
    }
    pli_session_unlock();
    return c;
}

void pli_service_conn_open(struct pli_link *link, const struct pli_wire_msg *msg)
{
    const char *why = NULL;
    struct plait_conn *c = join(link, msg, &why);

    if (!c) {
        refuse_conn(link, msg, PLAIT_E_REJECTED, why);
        return;
    }
    if (pli_conn_attach(c, link, msg) < 0) {
        refuse_conn(link, msg, PLAIT_E_NOMEM, pli_err_text());
        pli_conn_event(c, PLI_CEV_FAIL, PLAIT_E_NOMEM, pli_err_text());
    }
}
