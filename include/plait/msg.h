/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file msg.h
 * @brief Messages: one-way, request, reply.
 *
 * Everything here is called by the owner thread of the connection's context, may be called from callbacks and
 * never blocks, unless it says otherwise. A message is a header of at most PLAIT_HDR_MAX bytes (often none) and
 * data; both arrive as they were sent. Messages of one connection are delivered in order.
 *
 * PLAIT_E_AGAIN means: not accepted, nothing happened, the connection's on_writable will follow. Everything that
 * was accepted (0 was returned) is completed exactly once, with success or a reason.
 */
#ifndef PLAIT_MSG_H
#define PLAIT_MSG_H

#include <stddef.h>
#include <stdint.h>
#include <plait/session.h>

#ifdef __cplusplus
extern "C" {
#endif

enum plait_msg_kind { PLAIT_ONEWAY = 1, PLAIT_REQUEST = 2, PLAIT_REPLY = 3 };

/** A received message: the fields that its receiver may read. Made by plait only; the library's own part follows. */
struct plait_msg {
    const void *data; /**< 8-byte aligned if there is no header part; NULL if len is 0 */
    size_t len;       /**< bytes of data */
    const void *hdr;  /**< 8-byte aligned; NULL if hdr_len is 0 */
    uint32_t hdr_len; /**< bytes of the header part */
    uint32_t kind;    /**< enum plait_msg_kind */
    struct plait_conn *conn;
};

#define PLAIT_MORE 0x1u   /**< more messages follow at once: this one may wait for them (until plait_flush(), a send without it, or the end of the poll) */
#define PLAIT_NOCOPY 0x2u /**< (plait_sendx) data stays with the caller, unchanged, until done: a long message is sent from there */

/** Completion of a request: reply is valid until the callback returns, longer with plait_msg_hold(); NULL on error.
 *  status is 0, or the code why there is no reply. */
typedef void (*plait_reply_fn)(struct plait_msg *reply, int status, void *arg);
/** Completion of a message with a receipt: 0 when the peer's user has released it, PLAIT_E_REFUSED, or the reason it was lost. */
typedef void (*plait_done_fn)(int status, void *arg);

/**
 * Sends a one-way message. The data has been copied when it returns.
 * @param flags  0 or PLAIT_MORE.
 * @return 0, PLAIT_E_AGAIN, PLAIT_E_TOOBIG (longer than the peer's max_msg), PLAIT_E_CLOSED, PLAIT_E_INVAL (flags), PLAIT_E_NOMEM.
 */
PLAIT_API int plait_send(struct plait_conn *conn, const void *data, size_t len, unsigned flags);

/**
 * Sends a request; fn is called exactly once if 0 is returned, never from inside this call. The data has been copied.
 * @return as plait_send().
 */
PLAIT_API int plait_request(struct plait_conn *conn, const void *data, size_t len, unsigned flags,
                            plait_reply_fn fn, void *arg);

/** The full form of a message to send; start from PLAIT_OUT_INIT. */
struct plait_out {
    size_t size;
    const void *hdr;          /**< header part, or NULL */
    uint32_t hdr_len;         /**< bytes, at most PLAIT_HDR_MAX */
    unsigned flags;           /**< PLAIT_MORE, PLAIT_NOCOPY */
    const void *data;
    size_t len;               /**< bytes */
    plait_reply_fn on_reply;  /**< not NULL: it is a request */
    plait_done_fn on_done;    /**< not NULL (one-way only): a receipt is wanted */
    void *arg;                /**< of on_reply or on_done */
    uint64_t timeout_us;      /**< of a request: complete it with PLAIT_E_TIMEDOUT after this time; 0: none */
};
#define PLAIT_OUT_INIT { sizeof(struct plait_out), NULL, 0, 0, NULL, 0, NULL, NULL, NULL, 0 }

/**
 * Sends a message with all choices. PLAIT_NOCOPY needs on_reply or on_done, and the memory stays the caller's until that is called.
 * @return as plait_send().
 */
PLAIT_API int plait_sendx(struct plait_conn *conn, const struct plait_out *out);

/**
 * Replies to a request. Always accepted while the connection is open: what does not fit is copied and queued.
 * @return 0, PLAIT_E_REPLIED (already, or not a request), PLAIT_E_TOOBIG, PLAIT_E_CLOSED (the requester is gone), PLAIT_E_NOMEM.
 */
PLAIT_API int plait_reply(struct plait_msg *req, const void *data, size_t len, unsigned flags);
/** The same with a header part (out->hdr, hdr_len, data, len, flags MORE). */
PLAIT_API int plait_replyx(struct plait_msg *req, const struct plait_out *out);
/** Ends a request with an error code instead of a reply: the requester's status. code: a negative plait code, or any
 *  positive number of the user's. @return as plait_reply(), PLAIT_E_INVAL (0). */
PLAIT_API int plait_reply_error(struct plait_msg *req, int code);

/** Refuses a one-way message that asked for a receipt: the sender's on_done gets PLAIT_E_REFUSED.
 *  @return 0, PLAIT_E_INVAL (it did not ask). */
PLAIT_API int plait_msg_refuse(struct plait_msg *msg);

/**
 * Keeps a received message beyond its callback. The bytes of a small one stay where they are as long as that costs the sender no more
 * than a quarter of the ring; otherwise they are copied, now or later while the context polls: read data and hdr from the message each time.
 * @return the message to use from now on (msg itself is invalid then), or NULL: no memory. Release it with plait_msg_release().
 */
PLAIT_API struct plait_msg *plait_msg_hold(struct plait_msg *msg);
/** Releases a held message. A request without a reply is answered with PLAIT_E_NOREPLY. NULL is allowed. Also after the connection has closed. */
PLAIT_API void plait_msg_release(struct plait_msg *msg);

/** Space in shared memory for a message to be written in place. */
struct plait_slot {
    void *data;   /**< write here */
    size_t len;   /**< bytes that may be written */
    uint64_t priv[2];
};
/**
 * Reserves space for one message of at most len bytes, and no more than plait_reserve_max(). Until commit or
 * abandon no other message can be sent on any connection to the same peer context (PLAIT_E_BUSY) and the context must not be polled.
 * @return 0, PLAIT_E_AGAIN, PLAIT_E_TOOBIG, PLAIT_E_CLOSED, PLAIT_E_BUSY.
 */
PLAIT_API int plait_reserve(struct plait_conn *conn, size_t len, struct plait_slot *slot);
/** Sends the first len bytes of what was reserved as a one-way message. @return 0, PLAIT_E_INVAL (not reserved, or longer). */
PLAIT_API int plait_commit(struct plait_conn *conn, struct plait_slot *slot, size_t len, unsigned flags);
/** The same as a request. @return 0, PLAIT_E_INVAL, PLAIT_E_NOMEM. */
PLAIT_API int plait_commit_request(struct plait_conn *conn, struct plait_slot *slot, size_t len, unsigned flags,
                                   plait_reply_fn fn, void *arg);
/** Gives the space back without sending. */
PLAIT_API void plait_abandon(struct plait_conn *conn, struct plait_slot *slot);
/** The most bytes that plait_reserve() can give on this connection now. */
PLAIT_API size_t plait_reserve_max(const struct plait_conn *conn);

/** Sends what PLAIT_MORE held back. @return 0, PLAIT_E_CLOSED. */
PLAIT_API int plait_flush(struct plait_conn *conn);

/**
 * Sends a request and waits for its reply: for people who do not want callbacks. While it waits it runs the context
 * (other callbacks are called). On a PLAIT_CTX_SHARED context several threads may call at once: one of them receives for all,
 * and hands over when it has its own reply.
 * @param[out] reply  the held reply, to be released by the caller; NULL: not wanted.
 * @param timeout_us  microseconds; negative: no limit.
 * @return 0, PLAIT_E_TIMEDOUT, PLAIT_E_NOREPLY, the responder's plait_reply_error() code, why the connection ended, or as
 *         plait_send() (but waits instead of PLAIT_E_AGAIN). Blocks. Owner thread, or any thread on a shared context;
 *         not from callbacks (PLAIT_E_WOULDBLOCK).
 */
PLAIT_API int plait_call(struct plait_conn *conn, const void *data, size_t len, struct plait_msg **reply,
                         int64_t timeout_us);

#ifdef __cplusplus
}
#endif
#endif
