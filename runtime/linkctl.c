/* SPDX-License-Identifier: BSD-3-Clause */
/* The control channel of a link: the handshake, then frames. */
#include "runtime/link.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "runtime/conn.h"
#include "runtime/loop_priv.h"
#include "runtime/place.h"
#include "runtime/sock.h"
#include "runtime/transports.h"
#include "util/err.h"
#include "util/log.h"

/* ---- the handshake ---- */

static void fill_self(const struct pli_link *link, struct pli_wire_peer *self)
{
    self->version = PLI_WIRE_VERSION;
    self->features = (pli_membarrier_available() ? PLI_FEATURE_MEMBARRIER : 0) | PLI_FEATURE_ORDER;
    memcpy(self->incarnation, pli_incarnation(), PLI_ID_LEN);
    memcpy(self->host, pli_host_id(), PLI_HOST_LEN);
    self->ctx_id = link->ctx->id;
    self->node = link->ctx->node;
    self->pid = (int32_t)getpid();
}

static int make_transport(struct pli_link *link, const struct pli_transport *t)
{
    struct sockaddr_storage local;
    struct pli_tr_env env = {
        .topo = link->ctx->node >= 0 ? pli_place_topo() : NULL,
        .local_node = link->ctx->node,
        .peer_node = link->peer.node,
        .peer_membarrier = link->peer.features & PLI_FEATURE_MEMBARRIER,
        .membarrier = pli_membarrier_available(),
        .shm_bytes = &link->ctx->st.shm_bytes,
        .kicks = &link->ctx->st.kicks_sent,
        .bind_failures = &link->ctx->st.bind_failures,
        .hub = &link->ctx->hub.tr,
        .local = link->is_unix ? NULL : pli_sock_local(link->ch.src.fd, &local),
        .active = link->active,
        .provider = link->key.provider[0] ? link->key.provider : NULL,
    };
    int rc;

    link->local = link->is_unix && t->ops->same_host;
    rc = t->ops->create(&link->tr, &env, &pli_link_up_calls, link);
    /* that may have loaded a library: it is the peer's turn from now on */
    pli_timer_start(link->ctx, &link->timer, pli_clock_now() + PLI_LINK_HANDSHAKE_NS);
    return rc;
}

static int send_transport(struct pli_link *link, enum pli_wire_type type, const struct pli_transport *t)
{
    struct pli_wire_msg msg = { .type = type };
    uint8_t blob[PLI_TR_BLOB_MAX];
    int fds[PLI_TR_FDS_MAX], nfds = 0;
    size_t len = 0;
    struct pli_wire_bytes *b = type == PLI_WIRE_HELLO_ACK ? &msg.hello.blob : &msg.tr.blob;

    link->tr->ops->describe(link->tr, blob, &len, fds, &nfds);
    if (type == PLI_WIRE_HELLO_ACK) {
        fill_self(link, &msg.hello.peer);
        msg.hello.peer.transports = t->bit;
        msg.hello.listener = link->listener;
    }
    b->p = blob;
    b->len = (uint32_t)len;
    msg.nfds = (uint16_t)nfds;
    return pli_channel_send(&link->ch, &msg, fds);
}

static bool same_host(const struct pli_link *link)
{
    return link->is_unix && memcmp(link->peer.host, pli_host_id(), PLI_HOST_LEN) == 0;
}

/* A client knows what its own URI allows, a server what both do: it gets both in one mask. */
static const char *why_this(const struct pli_link *link)
{
    if (link->tr->ops->same_host)
        return "the peer is on the same host";
    if (!same_host(link))
        return "the peer is on another host, or in another network or user namespace";
    if (link->active && link->key.transports & PLI_TRANSPORT_SHM)
        return "the listener's URI allows no other";
    return link->active ? "the URI allows no other" : "the URI of one side allows no other";
}

const char *pli_link_wire(const struct pli_link *link)
{
    static __thread char text[256];
    char name[128] = "shared memory";

    if (link->tr->ops->name_of)
        link->tr->ops->name_of(link->tr, name, sizeof name);
    else if (!link->tr->ops->same_host)
        snprintf(name, sizeof name, "%s", link->tr->ops->name);
    snprintf(text, sizeof text, "%s; %s", name, why_this(link));
    return text;
}

/* client */
static int do_hello(struct pli_link *link)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_HELLO };

    fill_self(link, &msg.hello.peer);
    msg.hello.peer.transports = pli_transport_mask(link->key.transports);
    msg.hello.peer.target = link->key.target;
    msg.hello.listener = link->listener;
    return pli_channel_send(&link->ch, &msg, NULL);
}

/* server */
static int do_ack(struct pli_link *link)
{
    const struct pli_transport *t = pli_transport_choose(pli_transport_mask(link->peer.transports), same_host(link));
    int rc;

    if (!t)
        return PLAIT_E_NOTRANSPORT;
    rc = make_transport(link, t);
    return rc < 0 ? rc : send_transport(link, PLI_WIRE_HELLO_ACK, t);
}

/* client: HELLO_ACK came. Takes the descriptors over. */
static int do_connect(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    const struct pli_transport *t = NULL;
    int rc;

    if (msg->hello.peer.transports & pli_transport_mask(link->key.transports))
        t = pli_transport_choose(msg->hello.peer.transports, same_host(link));
    if (!t) {
        pli_fds_close(fds, msg->nfds);
        return pli_fail(PLAIT_E_NOTRANSPORT, "%s chose a transport (0x%x) that this side cannot use", link->who,
                        msg->hello.peer.transports);
    }
    rc = make_transport(link, t);
    if (rc < 0) {
        pli_fds_close(fds, msg->nfds);
        return rc;
    }
    rc = link->tr->ops->connect(link->tr, msg->hello.blob.p, msg->hello.blob.len, fds, msg->nfds);
    return rc < 0 ? rc : send_transport(link, PLI_WIRE_TR_CONNECT, t);
}

/* server: TR_CONNECT came. Takes the descriptors over. */
static int do_attach(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    struct pli_wire_msg up = { .type = PLI_WIRE_TR_UP };
    int rc = link->tr->ops->connect(link->tr, msg->tr.blob.p, msg->tr.blob.len, fds, msg->nfds);

    return rc < 0 ? rc : pli_channel_send(&link->ch, &up, NULL);
}

static void link_is_up(struct pli_link *link)
{
    int rc = pli_ctx_tr_add(link->ctx, link->tr, &link->wake_src);

    if (rc < 0) {
        link->state = PLI_LINK_ATTACHING;
        pli_link_fail(link, rc, pli_err_text());
        return;
    }
    pli_timer_stop(link->ctx, &link->timer);
    if (link->active && link->users == 0)
        pli_timer_start(link->ctx, &link->timer, pli_clock_now() + PLI_LINK_IDLE_NS);
    pli_link_tell_waits(link);
}

void pli_link_event(struct pli_link *link, enum pli_link_event event)
{
    struct pli_step step = pli_link_step(link->state, event);
    int rc = 0;

    if (step.actions & PLI_LACT_DOWN) {
        pli_link_take_down(link);
        return;
    }
    link->state = step.next;
    if (step.actions & PLI_LACT_HELLO)
        rc = do_hello(link);
    if (step.actions & PLI_LACT_ACK)
        rc = do_ack(link);
    if (step.actions & PLI_LACT_UP)
        link_is_up(link);
    if (rc < 0)
        pli_link_send_failed(link, rc);
}

/* The same for a message of the peer. Takes descriptors over. */
static int link_message(struct pli_link *link, enum pli_link_event event, const struct pli_wire_msg *msg, int *fds)
{
    struct pli_step step = pli_link_step(link->state, event);
    int rc = 0;

    /* the two that end ATTACHING belong to one side each */
    if (step.actions & PLI_LACT_BREACH || (event == PLI_LEV_TR_CONNECT && link->active) ||
        (event == PLI_LEV_TR_UP && !link->active)) {
        pli_fds_close(fds, msg->nfds);
        return pli_link_breach(link, "%s while the link is %s", pli_wire_type_name(msg->type),
                               pli_link_state_name(link->state));
    }
    link->state = step.next;
    if (step.actions & PLI_LACT_CONNECT)
        rc = do_connect(link, msg, fds);
    if (step.actions & PLI_LACT_ATTACH)
        rc = do_attach(link, msg, fds);
    if (rc < 0) {
        if (link->state == PLI_LINK_UP)
            link->state = PLI_LINK_ATTACHING;
        return pli_link_send_failed(link, rc);
    }
    if (step.actions & PLI_LACT_UP)
        link_is_up(link);
    return 0;
}

/* ---- frames ---- */

static void describe_peer(struct pli_link *link, int fd)
{
    int pid = link->pid ? (int)link->pid : link->peer.pid;
    const char *name = link->key.name;
    const struct sockaddr *remote = NULL;
    struct sockaddr_storage addr;
    char where[PLI_SOCK_TEXT] = "";

    if (!link->is_unix)
        remote = pli_sock_remote(fd, &addr);
    if (remote)
        pli_sock_text(remote, where, sizeof where);
    if (link->uid == (uid_t)-1)
        snprintf(link->who, sizeof link->who, "%s%s process %d%s%s", name[0] ? name : "peer", name[0] ? "," : "", pid,
                 where[0] ? " at " : "", where);
    else
        snprintf(link->who, sizeof link->who, "%s%s process %d (uid %d)", name[0] ? name : "peer", name[0] ? "," : "",
                 pid, (int)link->uid);
}

static int on_end_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    char text[512];
    int code = msg->end.code < 0 ? msg->end.code : PLAIT_E_CLOSED;

    snprintf(text, sizeof text, "%s %s: %.*s", link->who, msg->type == PLI_WIRE_BYE ? "closed the link" : "refused",
             (int)msg->end.text.len, (const char *)msg->end.text.p);
    pli_link_fail(link, code, text);
    return code;
}

static int on_frame(struct pli_channel *ch, const struct pli_wire_msg *msg, int *fds)
{
    struct pli_link *link = pli_container_of(ch, struct pli_link, ch);
    int rc;

    if (link->code) { /* it is going down at the end of this pass */
        pli_fds_close(fds, msg->nfds);
        return link->code;
    }
    switch (msg->type) {
    case PLI_WIRE_HELLO_ACK:
        link->peer = msg->hello.peer;
        describe_peer(link, ch->src.fd);
        return link_message(link, PLI_LEV_HELLO_ACK, msg, fds);
    case PLI_WIRE_TR_CONNECT:
        return link_message(link, PLI_LEV_TR_CONNECT, msg, fds);
    case PLI_WIRE_TR_UP:
        return link_message(link, PLI_LEV_TR_UP, msg, fds);
    case PLI_WIRE_TR_CONTROL:
        if (!pli_link_is_up(link)) {
            pli_fds_close(fds, msg->nfds);
            return pli_link_breach(link, "TR_CONTROL before the link is up");
        }
        if (msg->fds_lost) { /* without an answer the peer goes on without what it gave */
            pli_info("%s gives more memory to the link, for which this process has no descriptor; raise the limit with 'ulimit -n'", link->who);
            return 0;
        }
        rc = link->tr->ops->control(link->tr, msg->tr.blob.p, msg->tr.blob.len, fds, msg->nfds);
        if (rc < 0)
            pli_link_fail(link, rc, pli_err_text());
        return rc;
    case PLI_WIRE_REFUSE:
    case PLI_WIRE_BYE:
        return on_end_frame(link, msg);
    case PLI_WIRE_SESSION_OPEN:
    case PLI_WIRE_SESSION_ACCEPT:
    case PLI_WIRE_SESSION_REJECT:
    case PLI_WIRE_SESSION_CLOSE:
        if (!pli_link_is_up(link))
            return pli_link_breach(link, "%s before the link is up", pli_wire_type_name(msg->type));
        return pli_session_frame(link, msg);
    case PLI_WIRE_MEM:
        if (!pli_link_is_up(link)) {
            pli_fds_close(fds, msg->nfds);
            return pli_link_breach(link, "%s before the link is up", pli_wire_type_name(msg->type));
        }
        return pli_mem_frame(link, msg, fds);
    default:
        pli_fds_close(fds, msg->nfds);
        return pli_link_breach(link, "%s on an established control channel", pli_wire_type_name(msg->type));
    }
}

static void on_end(struct pli_channel *ch, int code)
{
    struct pli_link *link = pli_container_of(ch, struct pli_link, ch);
    char text[512];

    if (code == PLAIT_E_PEERDIED && ch->silent)
        snprintf(text, sizeof text, "%s does not answer: nothing has come from its host for %u ms (peer_timeout_ms), so it counts as dead", link->who,
                 link->ctx->peer_timeout_ms);
    else if (code == PLAIT_E_PEERDIED)
        snprintf(text, sizeof text, "%s ended: its control channel was closed by the system", link->who);
    else
        snprintf(text, sizeof text, "control channel to %s: %.340s", link->who, pli_err_text());
    pli_link_fail(link, code, text);
}

static const struct pli_channel_ops channel_ops = { on_frame, on_end };

int pli_link_open_channel(struct pli_link *link, int fd, enum pli_link_event event)
{
    int rc;

    if (!link->active) /* it has said already who it is */
        describe_peer(link, fd);
    rc = pli_channel_open(&link->ch, link->ctx, fd, &channel_ops);
    if (rc < 0)
        return rc;
    link->ch_open = true;
    pli_timer_start(link->ctx, &link->timer, pli_clock_now() + (link->active ? PLI_LINK_ACK_NS : PLI_LINK_HANDSHAKE_NS));
    pli_link_event(link, event);
    return 0;
}
