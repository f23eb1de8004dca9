/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file session.h
 * @brief Sessions, listeners and connections.
 *
 * A session is one logical association between a client and a service. It has one or more connections, each
 * an ordered, reliable message stream on one context. URIs: plait://host:port/resource?transport=auto|shm|ofi&provider=NAME
 * (IPv6 addresses in brackets; to listen, port 0 or none takes a free port, host * means every address; provider: which of
 * libfabric's to use where the transport is ofi, before PLAIT_PROVIDER of the environment. The listener's side chooses; a client
 * that names another one gets PLAIT_E_NOTRANSPORT).
 *
 * Order of events, each at most once. Session: on_open, then on_closed; a session that never opens has
 * only on_closed. Connection: on_open, then messages, then on_closed; all connections' on_closed come
 * before their session's (unless its lead context is destroyed while others live). After the closed event of an object no callback names it.
 *
 * Lifetime: whoever opens a session has a reference and gives it back with plait_session_release(). A
 * server's session has no user reference: it is valid until its on_closed returns, longer with
 * plait_session_hold(). A connection lives as long as its session; after it has closed, calls on it return
 * PLAIT_E_CLOSED.
 */
#ifndef PLAIT_SESSION_H
#define PLAIT_SESSION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <plait/ctx.h>

#ifdef __cplusplus
extern "C" {
#endif

struct plait_listener;
struct plait_session;
struct plait_conn;
struct plait_msg;
struct plait_offer;
struct plait_pool;

#define PLAIT_MAX_PRIVATE 4096u        /**< most bytes of private data of open, accept and reject */
#define PLAIT_MAX_CONNS 256u           /**< most connections of one session */
#define PLAIT_EAGER_MAX (256u * 1024u) /**< the usual max_msg */
#define PLAIT_MSG_MAX (1u << 30)       /**< the largest value of max_msg */
#define PLAIT_HDR_MAX 1024u            /**< most bytes of a message's header part */

/** What a connection tells its user. Any member may be NULL. The struct must outlive the session. */
struct plait_conn_ops {
    /** The connection can be used from now on. */
    void (*on_open)(struct plait_conn *conn, void *arg);
    /** A request or a one-way message. msg is valid until the callback returns, longer with
     *  plait_msg_hold(). A request that is neither replied to nor held is answered with PLAIT_E_NOREPLY. */
    void (*on_message)(struct plait_conn *conn, struct plait_msg *msg, void *arg);
    /** A request or one-way message that was offered, that comes in parts, or that has at least offer_min bytes, is announced, once, before
     *  any of its data has moved; on_message follows when it is there, before anything else is announced, or on_offer_canceled, or
     *  on_closed. Say where the data is to be put with plait_offer_into() or plait_offer_copy(), or do nothing: then it is given in place,
     *  or in a buffer of plait's. offer is valid until the callback returns. */
    void (*on_offer)(struct plait_conn *conn, struct plait_offer *offer, void *arg);
    /** The message that was announced last does not come: its sender has given it up (plait_cancel()). The memory that plait_offer_into() was
     *  told of is the user's again. Nobody but this tells him so: whoever calls plait_offer_into() should have it. offer is as it was, but for
     *  pieces and in_place, and valid until the callback returns. */
    void (*on_offer_canceled)(struct plait_conn *conn, const struct plait_offer *offer, void *arg);
    /** After a send returned PLAIT_E_AGAIN: there is space again. */
    void (*on_writable)(struct plait_conn *conn, void *arg);
    /** The connection has ended; every pending message has been completed before. */
    void (*on_closed)(struct plait_conn *conn, const struct plait_reason *why, void *arg);
};

/** What a session tells its user. Any member may be NULL. Called on the lead context. */
struct plait_session_ops {
    /** The service accepted; data is what it gave to plait_session_accept(), valid during the call. */
    void (*on_open)(struct plait_session *s, const void *data, size_t len, void *arg);
    /** The session has ended, or was rejected (why->code PLAIT_E_REJECTED, why->data the service's). */
    void (*on_closed)(struct plait_session *s, const struct plait_reason *why, void *arg);
};

#define PLAIT_OFFER_MIN 8192u /**< the usual offer_min */

/** What a side does with long messages. PLAIT_TAKE in the environment (auto, place, copy, cma, ring) overrides what the program says. */
enum plait_take {
    PLAIT_TAKE_AUTO = 0,  /**< offers what it can, receives in place */
    PLAIT_TAKE_PLACE = 1, /**< the same */
    PLAIT_TAKE_COPY = 2,  /**< what is offered to it is copied out of the peer's region */
    PLAIT_TAKE_CMA = 3,   /**< offers memory to be read with process_vm_readv where the peer can, else through the ring */
    PLAIT_TAKE_RING = 4,  /**< offers nothing: all it sends goes through the ring */
};

/** Options of a session, client's side (plait_session_open()) and server's (plait_session_accept()). */
struct plait_session_opts {
    size_t size;
    const struct plait_session_ops *session_ops; /**< or NULL */
    const struct plait_conn_ops *conn_ops;       /**< or NULL */
    void *arg;                /**< last argument of every callback of this session and its connections */
    const void *data;         /**< private data for the other side; copied */
    size_t data_len;          /**< bytes, at most PLAIT_MAX_PRIVATE */
    struct plait_ctx *const *ctxs; /**< client: one connection is opened on each; server: the portals that the
                                        connections are spread over. NULL: the lead (listener's) context alone */
    unsigned nctxs;           /**< entries of ctxs, at most PLAIT_MAX_CONNS */
    uint32_t window;          /**< messages that may be unreleased at the peer, per connection: 1..16384 (1024) */
    uint32_t max_msg;         /**< largest message to accept, bytes: 64..PLAIT_MSG_MAX (PLAIT_EAGER_MAX); so much memory
                                   is taken for a message that is coming in, and up to 80 MiB of it are
                                   kept by the context for the next one */
    uint32_t open_timeout_ms; /**< client: for the whole opening (5000) */
    uint32_t linger_ms;       /**< how long an orderly close may take before it becomes an abort (5000) */
    uint32_t offer_min;       /**< bytes, 64 at least: shorter messages are never offered; 0: PLAIT_OFFER_MIN */
    unsigned take;            /**< enum plait_take: what to do with long messages */
};
#define PLAIT_SESSION_OPTS_INIT \
    { sizeof(struct plait_session_opts), NULL, NULL, NULL, NULL, 0, NULL, 0, 1024, PLAIT_EAGER_MAX, 5000, 5000, \
      PLAIT_OFFER_MIN, PLAIT_TAKE_AUTO }

/* ---- client ---- */

/**
 * Opens a session to a service. Returns at once; names are resolved and sockets connected by a helper thread.
 * @param[out] s  the session, with one reference for the caller.
 * @param ctx     the lead context (the first connection's, unless opts->ctxs says otherwise). Calling thread owns it.
 * @param uri     where the service listens; copied.
 * @param opts    or NULL; not kept, but the ops tables are.
 * @return 0, PLAIT_E_INVAL (URI, options), PLAIT_E_NOMEM, PLAIT_E_NOTRANSPORT, PLAIT_E_THREAD, PLAIT_E_FORKED. What goes
 *         wrong later comes with on_closed. Never blocks, but for the loading of libfabric where the URI has transport=ofi. Owner
 *         thread, callbacks too.
 */
PLAIT_API int plait_session_open(struct plait_session **s, struct plait_ctx *ctx, const char *uri,
                                 const struct plait_session_opts *opts);

/**
 * Runs the lead context until the session and all its connections are open, or it has ended.
 * @param timeout_ms  milliseconds, negative: no limit but the session's own open_timeout_ms.
 * @return 0 (open), PLAIT_E_TIMEDOUT (still opening), or the code that the session ended with. Blocks. Owner
 *         thread of the lead context; connections of other contexts need these to run. Not from callbacks.
 */
PLAIT_API int plait_session_wait(struct plait_session *s, int64_t timeout_ms);

/* ---- both sides ---- */

/**
 * Closes in order: every connection sends what is queued, waits for its pending replies, exchanges FIN; then the
 * session's on_closed comes. Either side may start. After linger_ms what is left is aborted.
 * @return 0, PLAIT_E_CLOSED if it is closed or closing already. Never blocks. Owner thread of the lead context, callbacks too.
 */
PLAIT_API int plait_session_close(struct plait_session *s);

/** Another reference. Any thread, callbacks too. Never blocks. */
PLAIT_API struct plait_session *plait_session_hold(struct plait_session *s);
/** Gives a reference back; the session and its connections are freed with the last one, if they have ended;
 *  one that is still open is closed first, in order, without further callbacks of the session's user; connections on
 *  other contexts may still call theirs until those threads have heard of it. NULL is allowed.
 *  Any thread, callbacks too. Never blocks. */
PLAIT_API void plait_session_release(struct plait_session *s);

/** Connection i (0 is the leading one), or NULL. On a server only those that are open so far. Owner thread of the
 *  lead context; after on_open any thread. */
PLAIT_API struct plait_conn *plait_session_conn(struct plait_session *s, unsigned i);
/** How many connections the session has or will have. */
PLAIT_API unsigned plait_session_conn_count(const struct plait_session *s);
/** The URI (client: as opened; server: its resource). Valid as long as the session. */
PLAIT_API const char *plait_session_uri(const struct plait_session *s);
/** The peer's rank, where the session was opened with plait_job_connect(), here or by a peer of the same job; else -1. Any
 *  thread. Never blocks. */
PLAIT_API int plait_session_peer_rank(const struct plait_session *s);
/** Sets/gets the last argument of the session's callbacks. Owner thread of the lead context. */
PLAIT_API void plait_session_set_arg(struct plait_session *s, void *arg);
PLAIT_API void *plait_session_arg(const struct plait_session *s);

/* ---- server ---- */

/** Who asks for a session; valid during on_session. */
struct plait_session_request {
    const char *resource; /**< the path of the URI, without the slash; "" if none */
    const void *data;     /**< the client's private data */
    size_t data_len;
    unsigned conns;       /**< connections it wants */
    uid_t uid;            /**< the peer's user and process, as the kernel gave them */
    gid_t gid;
    pid_t pid;
    int rank;             /**< its rank in the same job, or -1 */
};

/** Options of a listener; start from PLAIT_LISTEN_OPTS_INIT. */
struct plait_listen_opts {
    size_t size;
    /** Asks whether to accept: call plait_session_accept() or plait_session_reject(), now or within
     *  open_timeout_ms. NULL: accept with the members below. */
    void (*on_session)(struct plait_session *s, const struct plait_session_request *req, void *arg);
    struct plait_session_opts session; /**< for sessions accepted without options; its arg is on_session's, too */
    const uid_t *uids;                 /**< users allowed besides the own one; NULL: none; copied */
    unsigned nuids;
    int any_uid;                       /**< nonzero: every user of this host */
    unsigned max_sessions;             /**< more are rejected (0: no limit) */
};
#define PLAIT_LISTEN_OPTS_INIT { sizeof(struct plait_listen_opts), NULL, PLAIT_SESSION_OPTS_INIT, NULL, 0, 0, 0 }

/**
 * Listens for sessions on a URI.
 * @return 0, PLAIT_E_INVAL, PLAIT_E_RESOLVE, PLAIT_E_ADDRINUSE, PLAIT_E_NOFILE, PLAIT_E_NOMEM, PLAIT_E_SYSTEM. May block
 *         for the resolution of a host name, and with transport=ofi for the loading of libfabric. Owner thread, callbacks too. The caller closes it.
 */
PLAIT_API int plait_listen(struct plait_listener **l, struct plait_ctx *ctx, const char *uri,
                           const struct plait_listen_opts *opts);
/** The URI with the real port, for clients. Valid as long as the listener. Any thread. */
PLAIT_API const char *plait_listener_uri(const struct plait_listener *l);
/** Stops listening; open sessions go on; sessions that wait for accept are rejected. NULL is allowed. Owner thread, callbacks too. */
PLAIT_API void plait_listener_close(struct plait_listener *l);

/**
 * Accepts a session that on_session announced.
 * @param opts  NULL: the listener's. opts->ctxs are the portals; the caller must keep them alive.
 * @return 0, PLAIT_E_INVAL, PLAIT_E_CLOSED (answered already, or the client has gone), PLAIT_E_NOMEM. Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_session_accept(struct plait_session *s, const struct plait_session_opts *opts);
/**
 * Rejects a session that on_session announced; s is gone after this.
 * @param reason  a sentence for the client (its plait_reason.text), at most 255 bytes are sent.
 * @param data    for the client's plait_reason.data, at most PLAIT_MAX_PRIVATE bytes.
 * @return 0, PLAIT_E_INVAL, PLAIT_E_CLOSED. Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_session_reject(struct plait_session *s, const char *reason, const void *data, size_t len);

/* ---- connections ---- */

/** Closes one connection in order (see plait_session_close()). Owner thread, callbacks too. Never blocks.
 *  @return 0, PLAIT_E_CLOSED. */
PLAIT_API int plait_conn_close(struct plait_conn *conn);
/** Ends a connection at once: pending messages complete with PLAIT_E_ABORTED, the peer is told. Any thread,
 *  callbacks too; the session must be held. Never blocks. on_closed follows on the owner thread.
 *  @return 0, PLAIT_E_CLOSED. */
PLAIT_API int plait_conn_abort(struct plait_conn *conn);

PLAIT_API struct plait_session *plait_conn_session(const struct plait_conn *conn);
PLAIT_API struct plait_ctx *plait_conn_ctx(const struct plait_conn *conn);
/** Its index in the session. */
PLAIT_API unsigned plait_conn_index(const struct plait_conn *conn);
/** A pointer of the user's, for each connection; NULL at first. Owner thread. */
PLAIT_API void plait_conn_set_user(struct plait_conn *conn, void *user);
PLAIT_API void *plait_conn_user(const struct plait_conn *conn);
/** Nonzero while messages can be sent. Owner thread. */
PLAIT_API int plait_conn_is_open(const struct plait_conn *conn);

/** A look at a connection. */
struct plait_conn_info {
    size_t size;              /**< in: bytes that the caller knows; from PLAIT_CONN_INFO_INIT */
    const char *state;        /**< "opening", "open", "closing", "closed" */
    const char *transport;    /**< "shm", "ofi", or "none" before a link is up */
    const char *wire;         /**< what of the transport is used, and why it: "libfabric provider tcp, eth0; the peer is on another host"; "none"
                                   as above. Belongs to the calling thread until its next call */
    pid_t peer_pid;           /**< 0 if unknown */
    uint32_t window;          /**< messages */
    uint32_t unreleased;      /**< of these, in use: sent, not yet released by the peer */
    uint32_t pending;         /**< requests and receipts not completed yet */
    uint32_t queued;          /**< messages accepted that wait for space */
    uint32_t max_msg;         /**< bytes that the peer accepts */
    uint64_t sent, received;  /**< messages */
};
#define PLAIT_CONN_INFO_INIT { .size = sizeof(struct plait_conn_info) }

/** Fills *info, as many bytes as its size says. @return 0, PLAIT_E_INVAL (size). Owner thread, callbacks too. Never blocks. */
PLAIT_API int plait_conn_get_info(struct plait_conn *conn, struct plait_conn_info *info);

#ifdef __cplusplus
}
#endif
#endif
