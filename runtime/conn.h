/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions, connections and messages, inside the library. A connection belongs to its context's thread; of a session, what
 * says "any thread" is atomic, the rest belongs to the lead context's. */
#ifndef PLI_RUNTIME_CONN_H
#define PLI_RUNTIME_CONN_H

#include <stdatomic.h>
#include "plait/msg.h"
#include "plait/session.h"
#include "runtime/link.h"
#include "runtime/pieces.h"

/* When a time-out of count units of unit_ns from now ends; negative or very long: never. */
static inline uint64_t pli_deadline(int64_t count, uint64_t unit_ns)
{
    if (count < 0 || (uint64_t)count > PLI_CLOCK_NEVER / unit_ns)
        return PLI_CLOCK_NEVER;
    return pli_clock_after(pli_clock_now(), (uint64_t)count * unit_ns);
}

/* ---- requests and receipts that are awaited ---- */

enum pli_req_kind { PLI_REQ_FREE, PLI_REQ_REPLY, PLI_REQ_DONE, PLI_REQ_FORGOTTEN };

struct pli_rma_conn;

/* What few entries have. */
struct pli_req_more {
    struct pli_timer timer;    /* armed: it times out */
    struct plait_conn *conn;
    uint32_t index;
    struct pli_pieces *into;    /* where the reply's data is put, or NULL */
    struct pli_pieces *named;  /* what the message names by addresses, or NULL */
    bool needed;               /* the peer cannot read there and has asked for the bytes */
    struct plait_mem **mems;   /* regions of these, a reference on each; NULL: none */
    uint32_t nmems;
    uint32_t nshares;
    uint16_t shares[];         /* slots of the shares that the message names, if they are several */
};

/* An entry of a connection's table. Its number on the wire (cookie) is index | generation << 16. What the short paths need to know of it is
 * one word, so that a reply compares once and stores once. */
struct pli_req {
    union {
        plait_reply_fn on_reply;
        plait_done_fn on_done;
    };
    void *arg;
    uint64_t key;       /* bits 0..31 cookie, 32..39 enum pli_req_kind, 40 any of: more, share, 41 offered, 42 given up, 43 due;
                           48..63 if free: index of the next free entry */
    struct pli_req_more *more; /* NULL unless the key says so */
    uint32_t seq;       /* order of sending, for completion in order at the end */
    uint16_t share;     /* 1 + slot of the share that the message names; 0: none, or see more. The same */
};

#define PLI_REQ_KEY(kind) ((uint64_t)(kind) << 32)
#define PLI_REQ_ODD ((uint64_t)1 << 40)
#define PLI_REQ_OFFERED ((uint64_t)1 << 41)  /* the peer reads the message where it lies. Only with ODD, as the next */
#define PLI_REQ_GIVEN_UP ((uint64_t)1 << 42) /* the peer is told so */
#define PLI_REQ_DUE ((uint64_t)1 << 43)      /* and it is to be completed with PLAIT_E_CANCELED here, see cancel.c */

static inline uint32_t pli_req_cookie(const struct pli_req *r)
{
    return (uint32_t)r->key;
}

static inline enum pli_req_kind pli_req_kind(const struct pli_req *r)
{
    return (enum pli_req_kind)(r->key >> 32 & 0xffu);
}

#define PLI_REQ_NONE 0xffffu /* end of the free list; also the most entries */

/* ---- messages ---- */

/* A message that waits for space in the ring. */
struct pli_txmsg {
    struct pli_list node;
    uint32_t meta;       /* type and flags as for a record of one piece */
    uint32_t hdr_len;
    uint64_t cookie;
    uint32_t chan;       /* the peer's channel, or PLI_CHAN_LINK */
    const uint8_t *hdr, *data; /* into copy, or the user's (PLAIT_NOCOPY) */
    struct pli_cursor from; /* instead of data: pieces; what has not been sent yet. The array lies in copy, too. iov NULL: there is data */
    size_t len, sent;    /* bytes of data */
    struct plait_mem **mems; /* regions that the data lies in, held: its user may release them before it is sent. In copy, too */
    unsigned nmems;
    bool started;        /* its first part is on the way */
    uint8_t copy[] __attribute__((aligned(8)));
};

#define PLI_MSG_REPLIED 0x01u
#define PLI_MSG_HELD 0x02u
#define PLI_MSG_IN_PLACE 0x04u /* held in the transport's memory under token */
#define PLI_MSG_RECEIPT 0x08u  /* a receipt is owed */
#define PLI_MSG_REFUSED 0x10u
#define PLI_MSG_COUNTED 0x20u  /* its credit has been counted already */
#define PLI_MSG_PLACED 0x40u   /* place says where its data is */

/* A received message. */
struct pli_msg {
    struct plait_msg pub;
    uint32_t flags;
    uint32_t cookie;
    uint32_t token;
    void *buf;            /* owned memory behind pub.data, or NULL */
    struct pli_list node; /* link->held, if in place */
    struct pli_pieces *place; /* only with PLI_MSG_PLACED */
    struct iovec one;     /* for plait_msg_iov() */
};

/* A message that is coming in parts. */
struct pli_asm {
    bool busy;
    uint8_t *buf;         /* header part padded to 8, then the data; or: */
    struct pli_pieces *place; /* where its receiver wants it; neither: nobody does */
    struct pli_cursor to; /* in place: where the next byte goes */
    uint32_t meta;
    uint32_t hdr_len, total, got;
    uint64_t cookie;
};

/* ---- connections ---- */

/* What other threads may know of a connection's state. */
enum { PLI_CONN_PUBLIC_OPENING, PLI_CONN_PUBLIC_OPEN, PLI_CONN_PUBLIC_CLOSED };

struct plait_conn {
    /* hot: sending (fast.c) */
    struct pli_tr *tr;    /* never NULL: before it is open one without room */
    uint64_t tx_seq;      /* messages accepted (requests and one-way) */
    uint64_t tx_limit;    /* no more than this many; equal to tx_seq while nothing may be sent */
    uint64_t w1_chan;     /* peer_chan, at its place in word 1 */
    uint32_t rx_released; /* messages released here: the credit */
    uint32_t rx_credited; /* of these, as last told */
    struct pli_req *reqs;
    uint16_t req_free;    /* first free entry, PLI_REQ_NONE */
    uint16_t nreqs;
    uint64_t req_begun;   /* entries of reqs taken so far, */
    /* hot: receiving */
    uint64_t tx_released; /* messages released by the peer */
    void (*on_message)(struct plait_conn *conn, struct plait_msg *msg, void *arg); /* never NULL */
    void *arg;
    uint64_t rx_seen;     /* messages that came and take space in the window */
    uint64_t req_ended;   /* and given back: */
    uint64_t req_unreplied; /* of these, without a reply */
    uint32_t window;      /* of the peer's messages */
    uint32_t credit_step; /* tell at the latest after this many */
    uint32_t rx_owed;     /* requests not yet replied to, receipts not yet given */
    uint64_t replies;     /* sent */
    bool tx_ready;        /* open, and nothing is queued */
    bool rx_fast;         /* open, no long message is half received, and nothing waits behind one */
    bool blocked;         /* a send returned AGAIN: on_writable is owed */
    bool credit_due;
    uint16_t peer_chan;
    uint16_t chan;

    uint32_t state;       /* enum pli_conn_state */
    struct pli_take *taking; /* a long message that is being copied, or NULL (take.h) */
    struct plait_ctx *ctx;
    const struct plait_conn_ops *ops;
    struct pli_link *link;

    struct pli_asm in;
    struct pli_work take_work, push_work;
    struct pli_list behind;    /* records that wait behind taking */
    uint32_t nbehind;
    size_t behind_bytes;
    bool replaying;            /* one of these is being handled: it does not lie in the transport's memory */
    struct pli_list txq;       /* struct pli_txmsg */
    struct pli_list queued;    /* link->queued, if txq is not empty */
    struct pli_list blocked_on;/* link->blocked */
    uint32_t ntxq;
    uint32_t peer_window;
    uint32_t peer_max_msg, max_msg;
    bool reserving, reserved_request;
    bool in_table;             /* has a channel number */
    bool zombie_due;           /* CONN_OPEN has been sent: keep the number when it ends before the answer */

    struct plait_session *session;
    unsigned index;
    struct pli_link_wait wait; /* client: for the link */
    bool waiting;
    uint32_t portal;           /* client: the context to go to, 0: the listener's */
    struct pli_timer linger;
    struct pli_defer quiet;    /* look whether it is quiet */
    struct pli_defer gone;     /* drops the connection's reference on its session, when no frame of it is on the stack */
    struct pli_post post_open, post_close, post_abort;
    _Atomic uint32_t post_flags; /* which of the posts are on their way, so that each is posted once */
    _Atomic uint32_t public_state; /* PLI_CONN_PUBLIC_...: for other threads */
    uint32_t ctx_id;           /* of ctx, which may be gone before the connection has been started on it */
    _Atomic bool orphaned;
    void *user;
    int end_code;
    uint32_t offer_min;
    unsigned take;               /* enum plait_take */
    struct pli_list dones;       /* replies whose memory is done with, and whose users are still to be told (reply.c) */
    struct pli_defer tell_dones;
    struct pli_defer give_up;    /* completes what was given up (cancel.c) */
    struct pli_link *held_link;  /* the link, also after the end, for messages held in place */
    struct pli_rma_conn *rma;    /* one-sided operations and exports, or NULL */
};

/* ---- sessions ---- */

struct plait_session {
    _Atomic uint32_t refs;
    struct plait_ctx *lead;
    enum pli_session_state state;
    bool server;
    _Atomic bool muted;        /* released by its user: no more callbacks */
    uint8_t sid[PLI_ID_LEN];
    uint8_t peer_incarnation[PLI_ID_LEN];
    const struct plait_session_ops *ops;
    const struct plait_conn_ops *conn_ops;
    void *arg;
    uint32_t window, max_msg, open_timeout_ms, linger_ms, offer_min;
    unsigned take;             /* enum plait_take */
    char *uri;                 /* client: as given; server: the resource */
    char *resource;
    void *data;                /* client's private data until it is sent */
    size_t data_len;
    struct pli_link_key key;   /* client */
    struct pli_link *link;     /* the lead link, NULL when it is lost */
    struct pli_link_wait wait;
    bool waiting;
    struct pli_list node;      /* link->sessions */
    struct pli_ctx_obj obj;
    struct pli_timer timer;    /* opening */
    struct plait_listener *listener; /* server, while ASKED */
    struct pli_list asked;     /* listener->asked */
    struct pli_list global;    /* service.c's table by sid */
    struct plait_ctx **ctxs;   /* client: one for each connection */
    struct plait_ctx **portals; /* server */
    unsigned nportals;
    struct plait_conn **conns; /* server: filled in as they come */
    unsigned nconns;
    _Atomic unsigned made, up, down; /* connections that exist, have opened, have ended; any thread */
    _Atomic int first_code;    /* the first connection that failed: why. Any thread */
    _Atomic uint32_t closing;  /* no further connections. Any thread */
    char first_text[512];      /* under pli_session_lock(), like first_code's first setting */
    uint32_t listener_number;  /* server */
    unsigned users;            /* references that users have; under pli_session_lock() */
    bool lead_gone;            /* it has ended, or the lead context was destroyed; under pli_session_lock() */
    bool asked_peer;           /* client: SESSION_OPEN has been sent */
    bool peer_left;            /* server: SESSION_CLOSE came, or the lead link is lost */
    _Atomic int abort_code;    /* what its connections end with; set after its text */
    char abort_text[512];
    struct pli_defer gone;     /* drops the session's own reference */
    struct pli_post post_check; /* to the lead: count again */
    _Atomic uint32_t check_posted;
    struct pli_post post_release;
    struct plait_reason why;
    char why_text[512];
    void *why_data;
    int rank;
    uid_t uid;
    gid_t gid;
    pid_t pid;
    pid_t owner;               /* the process that made it: not the child of a fork */
};

/* session.c */

/* One lock for what several contexts look at: cold paths only (a connection's end, posts between contexts, the table of
 * sessions). Never held while a callback runs. */
void pli_session_lock(void);
void pli_session_unlock(void);
struct plait_session *pli_session_new(struct plait_ctx *lead, unsigned nconns);
/* For one that was never begun; otherwise the last reference does it. */
void pli_session_free(struct plait_session *s);
void pli_session_ref(struct plait_session *s);
void pli_session_unref(struct plait_session *s);
/* Runs an event through the table. Lead thread. */
int pli_session_event(struct plait_session *s, enum pli_session_event event, int code, const char *text);
/* A connection has opened or ended: count, on the lead context. Any thread. */
void pli_session_check(struct plait_session *s);
/* The same, when one has ended: with why. */
void pli_session_conn_ended(struct plait_conn *c, int code, const char *text);
/* Frames on a link. */
int pli_session_frame(struct pli_link *link, const struct pli_wire_msg *msg);
/* The lead link of these sessions is lost. */
void pli_session_link_lost(struct pli_link *link, int code, const char *text);
struct plait_session *pli_session_by_sid(struct pli_list *sessions, const uint8_t *sid);

/* session_open.c */
int pli_session_set_opts(struct plait_session *s, const struct plait_session_opts *opts);
int pli_session_opts_check(const struct plait_session_opts *opts);
/* plait_session_open() to a rank of the job, whose host has that name; -1: to anybody. */
int pli_session_open_rank(struct plait_session **out, struct plait_ctx *ctx, const char *uri,
                          const struct plait_session_opts *opts, int rank, const char *host_name);

/* service.c */
int pli_service_open_frame(struct pli_link *link, const struct pli_wire_msg *msg);
int pli_service_answer(struct plait_session *s, int code, const char *text, const void *data, size_t len);
void pli_service_forget(struct plait_session *s);
void pli_service_session_ended(struct plait_session *s);
/* CONN_OPEN: finds the session and makes the connection. Any server context's thread. */
void pli_service_conn_open(struct pli_link *link, const struct pli_wire_msg *msg);

/* conn.c */
struct plait_conn *pli_conn_new(struct plait_session *s, struct plait_ctx *ctx, unsigned index);
void pli_conn_free(struct plait_conn *c);
void pli_conn_start(struct plait_conn *c, const struct pli_link_key *key);
int pli_conn_attach(struct plait_conn *c, struct pli_link *link, const struct pli_wire_msg *open);
void pli_conn_answer(struct pli_link *link, const struct pli_wire_msg *msg);
int pli_conn_event(struct plait_conn *c, enum pli_conn_event event, int code, const char *text);
void pli_conn_quiet_later(struct plait_conn *c);
void pli_conn_update_rx(struct plait_conn *c); /* after state, in.busy, taking or behind changed */
/* What the session asks of its connections: on the connection's thread, and from the lead's. */
void pli_conn_close_here(struct plait_conn *c);
void pli_conn_abort_here(struct plait_conn *c);
void pli_conn_post_close(struct plait_conn *c);
void pli_conn_post_abort(struct plait_conn *c);
void pli_conn_post_open(struct plait_conn *c);
int pli_conn_breach(struct plait_conn *c, const char *what);

/* reqtable.c: awaited replies and receipts */
int pli_req_alloc(struct plait_conn *c, enum pli_req_kind kind, uint32_t *index); /* PLAIT_E_NOMEM, PLAIT_E_AGAIN */
void pli_req_forget_one(struct plait_conn *c, struct pli_req *r); /* its user has been told; a reply may still come */
void pli_req_free(struct plait_conn *c, uint32_t index, bool replied); /* replied: not a receipt, nor one that was never sent */
struct pli_req *pli_req_find(struct plait_conn *c, uint32_t cookie); /* NULL: no such number is in use */
int pli_req_set_timeout(struct plait_conn *c, uint32_t index, uint64_t timeout_us); /* PLAIT_E_NOMEM, as the next two */
int pli_req_set_into(struct plait_conn *c, uint32_t index, const struct iovec *iov, unsigned niov);
/* The message's data, which its record names by addresses. Takes the references of the regions over, also on error. PLAIT_E_NOMEM. */
int pli_req_set_named(struct plait_conn *c, uint32_t index, const struct iovec *iov, unsigned niov, struct plait_mem *const *mems,
                      uint32_t n);
int pli_req_set_shares(struct plait_conn *c, uint32_t index, const uint16_t *slots, uint32_t n); /* takes them (pli_share_take()) */
/* Where the reply of len bytes to the request is to be put, for the caller to free; NULL: anywhere. *rc: PLAIT_E_NOMEM. */
struct pli_pieces *pli_req_into(const struct pli_req *r, size_t len, const void *hdr, uint32_t hdr_len, int *rc);
void pli_req_forget(struct plait_conn *c, const void *arg); /* the user of the request with this arg is gone; its reply may come */
void pli_req_fail_all(struct plait_conn *c, int code);
void pli_req_table_free(struct plait_conn *c);

/* After a send with PLAIT_MORE: at the latest the end of the poll lets it out, also on a link that nobody polls now. */
static inline void pli_conn_flush_later(struct plait_conn *c)
{
    if (!c->link->flush_due) {
        c->link->flush_due = true;
        pli_ctx_defer(c->ctx, &c->link->flush);
    }
}

/* Messages delivered so far. */
static inline uint64_t pli_conn_received(const struct plait_conn *c)
{
    return c->rx_seen + c->req_ended - c->req_unreplied;
}

/* Requests and receipts that are awaited, forgotten ones too. */
static inline uint32_t pli_conn_pending(const struct plait_conn *c)
{
    return (uint32_t)(c->req_begun - c->req_ended);
}

/* Messages that have come since the count `released` or `credited`. */
static inline uint32_t pli_conn_seen_since(const struct plait_conn *c, uint32_t count)
{
    return (uint32_t)c->rx_seen - count;
}

/* send.c: everything that the short paths of fast.c leave */
int pli_send_slow(struct plait_conn *c, const void *data, size_t len, unsigned flags);
int pli_request_slow(struct plait_conn *c, const void *data, size_t len, unsigned flags, plait_reply_fn fn, void *arg);
void pli_conn_update_limit(struct plait_conn *c);
/* 0 if the connection is open and this is its thread. Otherwise PLAIT_E_CLOSED (no new `what`), PLAIT_E_AGAIN, or the context's error. */
int pli_conn_check_open(struct plait_conn *c, const char *what);
int pli_conn_refuse(struct plait_conn *c, size_t len); /* why nothing of that length can be sent now; 0: it can. The cold part of every send */
int pli_conn_ring_full(struct plait_conn *c, int rc); /* rc, after on_writable was arranged for where it is PLAIT_E_AGAIN */
/* out: header part, data or pieces, flags. offered: 0 it was not; the reply was sent, and its on_done follows with the receipt. */
int pli_conn_send_reply(struct plait_conn *c, uint32_t cookie, int status, const struct plait_out *out, bool *offered);
void pli_conn_send_receipt(struct plait_conn *c, uint32_t cookie, int status);
void pli_conn_send_fin(struct plait_conn *c);
void pli_conn_send_frame(struct plait_conn *c, const struct pli_wire_msg *msg); /* a LINK record, in order with the messages */
/* Sends a record that carries the credit. */
int pli_conn_send_record(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more);
void pli_conn_credit_now(struct plait_conn *c);
void pli_conn_unblock(struct plait_conn *c);

/* txqueue.c */
/* Sends as much of m as fits and queues the rest, copied unless its bytes stay with the user. must: queue it even if nothing of it fits.
 * 0, PLAIT_E_AGAIN (then nothing was sent), PLAIT_E_BUSY, PLAIT_E_NOMEM. */
int pli_conn_send_or_queue(struct plait_conn *c, struct pli_txmsg *m, bool copy, bool must, bool more);
/* Sends m, with nothing that must come after older messages, before what waits; in parts if it is FILL. Later in the pass.
 * PLAIT_E_NOMEM. */
int pli_conn_send_first(struct plait_conn *c, struct pli_txmsg *m, bool copy);
void pli_conn_pump(struct plait_conn *c);
void pli_conn_push_work(struct pli_work *w);
/* Puts a CONN_ACCEPT that still waits in txq among the control records, before an ABORT. */
void pli_conn_frames_first(struct plait_conn *c);
/* Does the request or message with a receipt of this number still wait in txq, or bytes of it that the peer asked for? */
bool pli_conn_is_queued(const struct plait_conn *c, uint32_t cookie);
/* Does the RMA of this number, the next that is to be answered, wait in txq, or a part of it? */
bool pli_conn_rma_is_queued(const struct plait_conn *c, uint32_t number);
/* How many of that type wait in txq. */
unsigned pli_conn_count_queued(const struct plait_conn *c, enum pli_rec_type type);
/* If a message with this number is in txq, or what the peer asked for of it, a CANCEL follows in place of the rest: some of it has been
 * sent then. False: it is not there. */
bool pli_conn_cut_short(struct plait_conn *c, uint32_t cookie);
void pli_conn_txq_drop(struct plait_conn *c);

/* gather.c */
/* As pli_conn_send_record(), with the data gathered from pieces, of which it takes as many bytes as w1 says. */
int pli_conn_gather_record(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, struct pli_cursor *from, const void *hdr, bool more);

/* recv.c */
int pli_reply_slow(struct plait_msg *req, const void *data, size_t len, unsigned flags);
int pli_conn_credited(struct plait_conn *c, uint32_t delta); /* the peer has released delta more messages */
void pli_conn_delivered(struct plait_conn *c, struct pli_msg *m);
void pli_conn_finish(struct plait_conn *c, struct pli_msg *m); /* its user is done with it: receipt, credit */
void pli_conn_credit_due(struct plait_conn *c);
int pli_conn_rx(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload);
int pli_conn_rx_now(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload); /* even if others wait; its credit has been taken */
/* A message that was put together otherwise than by the short paths: m->pub, buf or place, RECEIPT and cookie are set. Takes it over. */
int pli_conn_incoming(struct plait_conn *c, struct pli_msg *m);
int pli_conn_replied(struct plait_conn *c, struct pli_msg *m, uint64_t cookie);
int pli_conn_reply_lost(struct plait_conn *c, uint64_t cookie, int status); /* the request ends with that instead */
/* A message that was given up by its sender before it was delivered: it counts as received and released. */
int pli_conn_lost(struct plait_conn *c, uint32_t type, uint32_t cookie);
void *pli_conn_buf_new(struct plait_ctx *ctx, size_t size); /* for a long message; NULL: no memory */
bool pli_conn_window_full(const struct plait_conn *c); /* one message more would be more than it allows */
void pli_conn_fill(struct pli_msg *m, struct plait_conn *c, const void *hdr, uint32_t hdr_len, const void *data, size_t len);

/* parts.c: long messages in parts */
int pli_conn_part_first(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *hdr, const void *data, uint32_t len);
/* in one record, but to be announced */
int pli_conn_whole(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *hdr, const void *data, uint32_t len);
int pli_conn_part_more(struct plait_conn *c, const void *data, uint32_t len);
void pli_conn_asm_drop(struct plait_conn *c);
bool pli_conn_asm_is(const struct plait_conn *c, uint32_t number); /* the request or message with a receipt that is coming in has that number */
int pli_conn_asm_cancel(struct plait_conn *c); /* and its sender has given it up */
void pli_conn_asm_forget(struct plait_conn *c, uint32_t cookie); /* the reply that is coming in is not wanted any more */

/* cancel.c */
void pli_conn_give_up_fn(struct pli_defer *d);

/* reply.c */
struct pli_done {
    struct pli_list node; /* c->dones */
    plait_done_fn fn;
    void *arg;
};
void pli_conn_tell_dones(struct plait_conn *c);
void pli_conn_tell_dones_fn(struct pli_defer *d);

/* Copies what is held in place and gives the place back. must: the memory goes; without it, what finds no memory stays. */
void pli_msg_unplace_all(struct pli_link *link, bool must);

#endif
