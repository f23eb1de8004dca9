/* SPDX-License-Identifier: BSD-3-Clause */
/* A bad peer. It speaks the protocol by hand: as a client against a real listener, or as a server against a real client, up to the
 * point where it begins to misbehave. The victim's contexts run in the same thread (session_util.h). */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "runtime/peeraddr.h"
#include "runtime/sock.h"
#include "runtime/wire.h"
#include "shm/shm.h"
#include "test/unit/runtime/session_util.h"
#include "util/err.h"
#include "util/rand.h"

#define HOSTILE_CTX 77u

struct hostile {
    struct world *w;
    int fd;                    /* control channel */
    int tcp, un;               /* listening sockets, if it is the server */
    uint8_t buf[32768];
    size_t have;
    int fds[16];
    int nfds;
    struct pli_tr *tr;         /* its side of the shared memory */
    bool attached;             /* has the victim's, too */
    uint64_t shm_bytes, kicks, binds;
    uint8_t sid[PLI_ID_LEN];
    uint16_t chan;             /* the victim's number of the connection */
    unsigned records;          /* that came, without LINK records */
    uint32_t last_meta;
    uint64_t last_cookie;
    struct pli_wire_msg answer;/* the last LINK record: CONN_OPEN, CONN_ACCEPT, CONN_REFUSE */
    unsigned answers;
};

/* ---- its side of the ring ---- */

static inline int hostile_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    struct hostile *h = owner;

    if (pli_meta_type(meta) == PLI_REC_LINK) {
        cr_assert_gt(pli_wire_parse(payload, pli_w1_len(w1), &h->answer), 0);
        h->answers++;
        return 0;
    }
    h->records++;
    h->last_meta = meta;
    if (meta & PLI_RF_COOKIE << 8)
        memcpy(&h->last_cookie, payload, 8);
    return 0;
}

static inline void hostile_writable(void *owner)
{
    (void)owner;
}

static inline int hostile_control(void *owner, const void *blob, size_t len, const int *fds, int nfds)
{
    (void)owner;
    (void)blob;
    (void)len;
    (void)fds;
    (void)nfds;
    return 0;
}

static inline void hostile_failed(void *owner, int code, const char *text)
{
    (void)owner;
    cr_assert_fail("the victim broke the rules: %d %s", code, text);
}

static const struct pli_tr_up hostile_up = {
    .rx = hostile_rx, .writable = hostile_writable, .send_control = hostile_control, .failed = hostile_failed,
};

static inline void hostile_make_memory(struct hostile *h)
{
    struct pli_tr_env env = {
        .local_node = -1, .peer_node = -1, .shm_bytes = &h->shm_bytes, .kicks = &h->kicks, .bind_failures = &h->binds,
    };

    cr_assert_eq(pli_shm_ops.create(&h->tr, &env, &hostile_up, h), 0, "%s", pli_err_text());
}

/* Looks at what the victim wrote. */
static inline void hostile_poll(struct hostile *h)
{
    if (h->attached)
        pli_shm_ops.poll(h->tr, 64);
    poll_all(h->w);
}

#define HOSTILE_WAIT(h, cond)                                                                  \
    do {                                                                                       \
        uint64_t end_ = pli_clock_now() + PATIENCE_NS;                                         \
        while (!(cond) && pli_clock_now() < end_)                                              \
            hostile_poll(h);                                                                   \
        cr_assert(cond, "%s did not come true in 30 s", #cond);                                \
    } while (0)

/* ---- the control channel ---- */

static inline void hostile_write(struct hostile *h, const void *bytes, size_t len, const int *fds, int nfds)
{
    struct iovec iov = { (void *)(uintptr_t)bytes, len };
    union {
        char buf[CMSG_SPACE(32 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

    memset(&control, 0, sizeof control);
    if (nfds) {
        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, (size_t)nfds * sizeof(int));
    }
    cr_assert_eq(sendmsg(h->fd, &mh, MSG_NOSIGNAL), (ssize_t)len, "%s", strerror(errno));
}

static inline void hostile_send(struct hostile *h, const struct pli_wire_msg *msg, const int *fds)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int n = pli_wire_encode(buf, sizeof buf, msg);

    cr_assert_gt(n, 0, "%s", pli_err_text());
    hostile_write(h, buf, (size_t)n, fds, msg->nfds);
}

static inline bool hostile_readable(struct hostile *h)
{
    struct pollfd p = { h->fd, POLLIN, 0 };

    return poll(&p, 1, 0) > 0;
}

/* The victim's next frame; its type, or 0: the channel was closed. Descriptors gather in h->fds. */
static inline unsigned hostile_recv(struct hostile *h, struct pli_wire_msg *msg)
{
    static uint8_t frame[32768];

    for (;;) {
        union {
            char buf[CMSG_SPACE(16 * sizeof(int))];
            struct cmsghdr align;
        } control;
        struct iovec iov = { h->buf + h->have, sizeof h->buf - h->have };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
        int n = pli_wire_parse(h->buf, h->have, msg);
        ssize_t got;

        cr_assert_geq(n, 0, "%s", pli_err_text());
        if (n > 0) {
            /* what msg points to must live on */
            memcpy(frame, h->buf, (size_t)n);
            memmove(h->buf, h->buf + n, h->have - (size_t)n);
            h->have -= (size_t)n;
            pli_wire_parse(frame, (size_t)n, msg);
            return msg->type;
        }
        HOSTILE_WAIT(h, hostile_readable(h));
        got = recvmsg(h->fd, &mh, 0);
        if (got <= 0)
            return 0;
        h->have += (size_t)got;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
            int k = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

            memcpy(h->fds + h->nfds, CMSG_DATA(c), (size_t)k * sizeof(int));
            h->nfds += k;
        }
    }
}

static inline void hostile_expect(struct hostile *h, struct pli_wire_msg *msg, unsigned type)
{
    unsigned got = hostile_recv(h, msg);

    cr_assert_eq(got, type, "%s came, not %s: %.*s", pli_wire_type_name(got), pli_wire_type_name(type),
                 got == PLI_WIRE_BYE || got == PLI_WIRE_REFUSE ? (int)msg->end.text.len : 0,
                 got == PLI_WIRE_BYE || got == PLI_WIRE_REFUSE ? (const char *)msg->end.text.p : "");
}

/* The victim ends it: with REFUSE or BYE, this code, and a sentence that contains word. Other frames may come before. */
static inline void hostile_refused(struct hostile *h, int code, const char *word)
{
    struct pli_wire_msg msg;
    unsigned type;
    char text[300];

    while ((type = hostile_recv(h, &msg)) != PLI_WIRE_BYE && type != PLI_WIRE_REFUSE)
        cr_assert_neq(type, 0, "the channel was closed without a word, not with '%s'", word);
    snprintf(text, sizeof text, "%.*s", (int)msg.end.text.len, (const char *)msg.end.text.p);
    cr_assert_eq(msg.end.code, code, "%s %s", plait_status_name(msg.end.code), text);
    cr_assert_not_null(strstr(text, word), "no '%s' in: %s", word, text);
    cr_assert_eq(hostile_recv(h, &msg), 0);
}

static inline void hostile_self(struct pli_wire_peer *p)
{
    p->version = PLI_WIRE_VERSION;
    p->features = PLI_FEATURE_ORDER;
    p->transports = PLI_TRANSPORT_SHM;
    memset(p->incarnation, 0x5a, PLI_ID_LEN);
    memcpy(p->host, pli_host_id(), PLI_HOST_LEN);
    p->ctx_id = HOSTILE_CTX;
    p->node = -1;
    p->pid = getpid();
}

static inline void hostile_close(struct hostile *h)
{
    if (h->fd >= 0)
        close(h->fd);
    if (h->tcp >= 0)
        close(h->tcp);
    if (h->un >= 0)
        close(h->un);
    h->fd = h->tcp = h->un = -1;
    while (h->nfds)
        close(h->fds[--h->nfds]);
    if (h->tr)
        pli_shm_ops.destroy(h->tr, false);
    h->tr = NULL;
    h->attached = false;
}

static inline struct hostile *new_hostile(struct world *w)
{
    static struct hostile hostile;
    struct hostile *h = &hostile;

    memset(h, 0, sizeof *h);
    h->w = w;
    h->fd = h->tcp = h->un = -1;
    memset(h->sid, 0x33, sizeof h->sid);
    return h;
}

/* ---- as a client ---- */

/* Meets the listener over TCP, comes back over its local socket. */
static inline void hostile_dial(struct hostile *h)
{
    struct pli_uri uri;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un;
    struct pli_wire_msg msg;
    socklen_t len;
    int fd;

    cr_assert_eq(pli_uri_parse(&uri, h->w->uri), 0);
    in.sin_port = htons(uri.port);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(h->fd, (struct sockaddr *)&in, sizeof in), 0);
    hostile_expect(h, &msg, PLI_WIRE_GREETING);
    len = pli_sock_abstract(&un, msg.greeting.unix_name.p, msg.greeting.unix_name.len);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&un, len), 0);
    close(h->fd);
    h->fd = fd;
}

static inline void hostile_hello(struct hostile *h, struct pli_wire_msg *ack)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_HELLO };

    hostile_self(&msg.hello.peer);
    msg.hello.listener = 1;
    hostile_send(h, &msg, NULL);
    hostile_expect(h, ack, PLI_WIRE_HELLO_ACK);
}

/* Attaches the victim's memory, which came with its message. */
static inline void hostile_attach(struct hostile *h, const struct pli_wire_bytes *blob)
{
    cr_assert_eq(pli_shm_ops.connect(h->tr, blob->p, blob->len, h->fds, h->nfds), 0, "%s", pli_err_text());
    h->attached = true;
    h->nfds = 0;
}

/* Sends its own, as an honest peer does. */
static inline void hostile_describe(struct hostile *h, struct pli_wire_msg *msg)
{
    static uint8_t blob[PLI_TR_BLOB_MAX];
    struct pli_wire_bytes *b = msg->type == PLI_WIRE_HELLO_ACK ? &msg->hello.blob : &msg->tr.blob;
    int fds[PLI_TR_FDS_MAX], nfds;
    size_t len;

    pli_shm_ops.describe(h->tr, blob, &len, fds, &nfds);
    b->p = blob;
    b->len = (uint32_t)len;
    msg->nfds = (uint16_t)nfds;
    hostile_send(h, msg, fds);
}

static inline void hostile_link(struct hostile *h)
{
    struct pli_wire_msg msg, connect_msg = { .type = PLI_WIRE_TR_CONNECT };

    hostile_dial(h);
    hostile_hello(h, &msg);
    hostile_make_memory(h);
    hostile_attach(h, &msg.hello.blob);
    hostile_describe(h, &connect_msg);
    hostile_expect(h, &msg, PLI_WIRE_TR_UP);
}

static inline void hostile_session_open(struct hostile *h, struct pli_wire_msg *msg)
{
    struct pli_wire_msg open = { .type = PLI_WIRE_SESSION_OPEN };

    memcpy(open.open.sid, h->sid, PLI_ID_LEN);
    open.open.listener = 1;
    open.open.nconns = 1;
    open.open.rank = -1;
    hostile_send(h, &open, NULL);
    if (msg)
        hostile_expect(h, msg, PLI_WIRE_SESSION_ACCEPT);
}

static inline void hostile_link_record(struct hostile *h, const struct pli_wire_msg *msg)
{
    uint8_t buf[512];
    int n = pli_wire_encode(buf, sizeof buf, msg);

    cr_assert_gt(n, 0, "%s", pli_err_text());
    cr_assert_eq(pli_shm_ops.send(h->tr, pli_rec_meta(PLI_REC_LINK, 0, 0), pli_rec_w1((uint32_t)n, PLI_CHAN_LINK, 0), 0, buf, NULL,
                                  false),
                 0);
}

static inline void hostile_conn_msg(struct hostile *h, struct pli_wire_msg *msg, enum pli_wire_type type)
{
    memset(msg, 0, sizeof *msg);
    msg->type = type;
    memcpy(msg->conn.sid, h->sid, PLI_ID_LEN);
    msg->conn.window = 4096;
    msg->conn.max_msg = 65536;
}

/* All the way: a session with one open connection. */
static inline void hostile_open(struct hostile *h)
{
    struct pli_wire_msg msg;

    hostile_link(h);
    hostile_session_open(h, &msg);
    hostile_conn_msg(h, &msg, PLI_WIRE_CONN_OPEN);
    hostile_link_record(h, &msg);
    HOSTILE_WAIT(h, h->answers == 1);
    cr_assert_eq(h->answer.type, PLI_WIRE_CONN_ACCEPT);
    h->chan = h->answer.conn.chan;
}

/* One record, with whatever the words say; the transport's lengths are right. */
static inline void hostile_record(struct hostile *h, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    static const uint8_t zero[65536];

    cr_assert_eq(pli_shm_ops.send(h->tr, meta, w1, cookie, data ? data : zero, zero, false), 0, "%s", pli_err_text());
}

/* ---- as a server ---- */

static inline void hostile_listen(struct hostile *h)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un;
    socklen_t len = sizeof in;

    h->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(h->tcp, (struct sockaddr *)&in, sizeof in), 0);
    cr_assert_eq(listen(h->tcp, 8), 0);
    cr_assert_eq(getsockname(h->tcp, (struct sockaddr *)&in, &len), 0);
    snprintf(h->w->uri, sizeof h->w->uri, "plait://127.0.0.1:%u/", ntohs(in.sin_port));
    h->un = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    cr_assert_eq(bind(h->un, (struct sockaddr *)&un, sizeof(sa_family_t)), 0); /* the kernel chooses a name */
    cr_assert_eq(listen(h->un, 8), 0);
}

static inline int hostile_accept(struct hostile *h, int listening)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;
    int fd;

    while ((fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) < 0 && pli_clock_now() < end)
        hostile_poll(h);
    cr_assert_geq(fd, 0, "the client did not come");
    return fd;
}

static inline void hostile_greet(struct hostile *h)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_GREETING };
    struct sockaddr_un un;
    socklen_t len = sizeof un;

    h->fd = hostile_accept(h, h->tcp);
    memset(&un, 0, sizeof un);
    cr_assert_eq(getsockname(h->un, (struct sockaddr *)&un, &len), 0);
    memcpy(msg.greeting.host, pli_host_id(), PLI_HOST_LEN);
    msg.greeting.listener = 9;
    msg.greeting.unix_name.p = un.sun_path + 1;
    msg.greeting.unix_name.len = (uint32_t)(len - sizeof(sa_family_t) - 1);
    hostile_send(h, &msg, NULL);
    close(h->fd);
    h->fd = hostile_accept(h, h->un);
    hostile_expect(h, &msg, PLI_WIRE_HELLO);
}

static inline void hostile_ack(struct hostile *h)
{
    struct pli_wire_msg ack = { .type = PLI_WIRE_HELLO_ACK };

    hostile_self(&ack.hello.peer);
    hostile_make_memory(h);
    hostile_describe(h, &ack);
}

/* Up to the client's SESSION_OPEN. */
static inline void hostile_serve_link(struct hostile *h)
{
    struct pli_wire_msg msg, up = { .type = PLI_WIRE_TR_UP };

    hostile_greet(h);
    hostile_ack(h);
    hostile_expect(h, &msg, PLI_WIRE_TR_CONNECT);
    hostile_attach(h, &msg.tr.blob);
    hostile_send(h, &up, NULL);
    hostile_expect(h, &msg, PLI_WIRE_SESSION_OPEN);
    memcpy(h->sid, msg.open.sid, PLI_ID_LEN);
}

static inline void hostile_accept_session(struct hostile *h)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_SESSION_ACCEPT };
    uint32_t portal = HOSTILE_CTX;

    memcpy(msg.accept.sid, h->sid, PLI_ID_LEN);
    msg.accept.nportals = 1;
    msg.accept.portals.p = &portal;
    msg.accept.portals.len = sizeof portal;
    hostile_send(h, &msg, NULL);
}

/* Up to an open connection. */
static inline void hostile_serve(struct hostile *h)
{
    struct pli_wire_msg msg;

    hostile_serve_link(h);
    hostile_accept_session(h);
    HOSTILE_WAIT(h, h->answers == 1);
    cr_assert_eq(h->answer.type, PLI_WIRE_CONN_OPEN);
    h->chan = h->answer.conn.chan;
    hostile_conn_msg(h, &msg, PLI_WIRE_CONN_ACCEPT);
    msg.conn.peer_chan = h->chan;
    hostile_link_record(h, &msg);
}

/* ---- the innocent ---- */

/* A good client of the same server, before and after the attack: only the attacker is harmed. */
struct innocent {
    struct log log;
    int fds;
    unsigned links;
};

static inline void innocent_start(struct world *w, struct innocent *in)
{
    struct outcome o = { 0 };

    w->on_msg = echo;
    open_session(w, &in->log, NULL);
    FAILS(plait_request(in->log.conn[0], "hello", 5, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    in->fds = count_fds();
    in->links = (unsigned)ctx_stats(w->ctx[0]).links;
}

static inline void innocent_check(struct world *w, struct innocent *in)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;
    struct outcome o = { 0 };

    while ((ctx_stats(w->ctx[0]).links > in->links || count_fds() > in->fds) && pli_clock_now() < end)
        poll_all(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).links, in->links, "the bad link is still there");
    cr_assert_eq(count_fds(), in->fds, "%d descriptors, %d before", count_fds(), in->fds);
    FAILS(plait_request(in->log.conn[0], "hello", 5, 0, on_reply, &o), 0);
    WAIT(w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(in->log.c_closed, 0);
}

static inline void innocent_end(struct world *w, struct innocent *in)
{
    end_session(w, &in->log);
    check_log(&in->log);
}

/* ---- how it ends ---- */

static inline void expect_sentence(const struct log *srv, const char *what, int code, const char *word)
{
    cr_assert_eq(srv->c_code, code, "%s: %s %s", what, plait_status_name(srv->c_code), srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, word), "%s: no '%s' in: %s", what, word, srv->c_text);
}

/* The server's connection ends with code, and its sentence contains word; nobody else notices. */
static inline void expect_conn_end(struct hostile *h, struct innocent *in, const char *what, int code, const char *word)
{
    struct log *srv = &h->w->srv[h->w->nsrv - 1];

    WAIT(h->w, srv->c_closed, 1);
    expect_sentence(srv, what, code, word);
    hostile_close(h);
    innocent_check(h->w, in);
}

/* And its session with it. */
static inline void expect_session_end(struct hostile *h, struct innocent *in, const char *what, int code, const char *word)
{
    struct log *srv = &h->w->srv[h->w->nsrv - 1];

    WAIT(h->w, srv->closed, 1);
    expect_sentence(srv, what, code, word);
    cr_assert_eq(srv->misuse, 0);
    hostile_close(h);
    innocent_check(h->w, in);
}

/* The whole link, whose other end is named. */
static inline void expect_link_end(struct hostile *h, struct innocent *in, const char *what, int code, const char *word)
{
    struct world *w = h->w;

    expect_session_end(h, in, what, code, word);
    expect_sentence(&w->srv[w->nsrv - 1], what, code, "peer process");
    cr_assert_eq(ctx_stats(w->ctx[0]).mapped_bytes, 0);
}

#endif
