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
 *
 * A long message need not be copied. When its sender leaves the memory to plait until it is done (PLAIT_NOCOPY), and all of it lies in
 * regions of plait_mem_alloc() or in buffers of a pool, it is offered: the receiver gets pointers into a read-only mapping of these
 * regions, and on_done (or on_reply) tells the sender when it has released the message. The first message from a region goes the other way,
 * through the ring, as do all that are shorter than offer_min (struct plait_session_opts). The receiver can choose where the data is to be
 * put, before it moves: on_offer of struct plait_conn_ops.
 */
#ifndef PLAIT_MSG_H
#define PLAIT_MSG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <plait/session.h>

#ifdef __cplusplus
extern "C" {
#endif

enum plait_msg_kind { PLAIT_ONEWAY = 1, PLAIT_REQUEST = 2, PLAIT_REPLY = 3 };

/** A received message: the fields that its receiver may read. Made by plait only; the library's own part follows. */
struct plait_msg {
    const void *data; /**< NULL if len is 0, or if it lies in several pieces (plait_msg_iov()). 8-byte aligned if there is no header part; in
                           place, or where the receiver wanted it, as that memory is */
    size_t len;       /**< bytes of data */
    const void *hdr;  /**< 8-byte aligned; NULL if hdr_len is 0 */
    uint32_t hdr_len; /**< bytes of the header part */
    uint32_t kind;    /**< enum plait_msg_kind */
    struct plait_conn *conn;
};

#define PLAIT_MORE 0x1u   /**< more messages follow at once: this one may wait for them (until plait_flush(), a send without it, or the
                               end of the poll) */
#define PLAIT_NOCOPY 0x2u /**< (plait_sendx, plait_replyx) data stays with the caller, unchanged, until done: a long message is sent from
                               there, or read there by the peer */
#define PLAIT_IOV_MAX 256u /**< most pieces of a message */

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
    const void *data;         /**< or NULL: see iov */
    size_t len;               /**< bytes at data */
    plait_reply_fn on_reply;  /**< not NULL: it is a request */
    plait_done_fn on_done;    /**< not NULL: of a one-way message a receipt is wanted; of a reply its memory is */
    void *arg;                /**< of on_reply or on_done */
    uint64_t timeout_us;      /**< of a request: complete it with PLAIT_E_TIMEDOUT after this time; 0: none. A request with a time-out is copied */
    const struct iovec *iov;  /**< instead of data and len: the data is these pieces, one behind the other. The array is copied */
    unsigned niov;            /**< 1..PLAIT_IOV_MAX; 0: there are data and len. Pieces may be empty */
    const struct iovec *into; /**< of a request: put the reply's data there, or NULL. The array is copied; the memory it names is plait's
                                   until on_reply is called. If the reply is longer, it is put into a buffer of plait's as usual */
    unsigned ninto;           /**< 1..PLAIT_IOV_MAX, with into */
};
#define PLAIT_OUT_INIT { sizeof(struct plait_out), NULL, 0, 0, NULL, 0, NULL, NULL, NULL, 0, NULL, 0, NULL, 0 }

/**
 * Sends a message with all choices. PLAIT_NOCOPY needs on_reply or on_done, and the memory stays plait's, unchanged, until that is called,
 * never from inside this call.
 * @param out  not kept, nor the arrays that it points to.
 * @return as plait_send(); PLAIT_E_INVAL (out; the text names the member). Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_sendx(struct plait_conn *conn, const struct plait_out *out);

/**
 * Replies to a request. Always accepted while the connection is open: what does not fit is copied and queued.
 * @return 0, PLAIT_E_REPLIED (already, or not a request), PLAIT_E_TOOBIG, PLAIT_E_CLOSED (the requester is gone), PLAIT_E_NOMEM.
 */
PLAIT_API int plait_reply(struct plait_msg *req, const void *data, size_t len, unsigned flags);
/**
 * The same with a header part, pieces and PLAIT_NOCOPY (out->hdr, hdr_len, data, len or iov, niov, flags, on_done, arg). With PLAIT_NOCOPY
 * the memory stays plait's until on_done is called: with 0 when the requester has released the reply (or at once, in the next deferred
 * work, if the bytes had to be copied), or with the reason why the connection has ended. on_done is never called from inside this call.
 * @return as plait_reply(); PLAIT_E_INVAL (out). Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_replyx(struct plait_msg *req, const struct plait_out *out);
/** Ends a request with an error code instead of a reply: the requester's status. code: a negative plait code, or any
 *  positive number of the user's. @return as plait_reply(), PLAIT_E_INVAL (0). */
PLAIT_API int plait_reply_error(struct plait_msg *req, int code);

/**
 * Gives up messages of this connection that are not completed yet: requests, one-way messages with on_done, and replies with PLAIT_NOCOPY
 * that were offered, all that were sent with this arg. Each is completed exactly once all the same, never from inside this call: with
 * PLAIT_E_CANCELED if the peer's user has not got it and will not; as always, if he has. A request that he has got is completed with
 * PLAIT_E_CANCELED, too, unless he can still read its memory (PLAIT_NOCOPY, offered): then its reply is waited for. A reply that is given up
 * ends its request with PLAIT_E_CANCELED at the requester. Their receiver hears of it only if they had been announced: on_offer_canceled.
 * @return 0, again for what has been given up before and is not completed yet; PLAIT_E_NOTFOUND (no such message: it may have been
 * completed), PLAIT_E_CLOSED, PLAIT_E_NOMEM (some may have been given up). Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_cancel(struct plait_conn *conn, const void *arg);

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

/**
 * The pieces that a message's data lies in, one behind the other: one, if msg->data is not NULL; none, if it is empty.
 * @param[out] iov  valid as long as the message.
 * @return how many. Of a request that was offered (in place) they may be read until it is replied to: its memory is the requester's
 *         again then. Never blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_msg_iov(const struct plait_msg *msg, const struct iovec **iov);

/** A long message that is announced, before any of its data has moved (on_offer). Valid during the callback. */
struct plait_offer {
    const void *hdr;   /**< the header part, or NULL */
    uint32_t hdr_len;  /**< bytes */
    uint32_t kind;     /**< PLAIT_ONEWAY or PLAIT_REQUEST */
    size_t len;        /**< bytes of data */
    unsigned pieces;   /**< that the sender's memory consists of; 1 if it is sent through the ring */
    int in_place;      /**< nonzero: it will be given in place, if nothing else is asked for; zero: it will be copied */
    struct plait_conn *conn;
};

/**
 * The data shall be put into these pieces. Their memory is plait's from here on until on_message is called for this message, or
 * on_offer_canceled, or on_closed; on_message has it in msg->data, or in plait_msg_iov().
 * @param iov   copied; together at least offer->len bytes
 * @param niov  1..PLAIT_IOV_MAX
 * @return 0; PLAIT_E_INVAL (too small, too many pieces); PLAIT_E_BUSY (it was said before where to put it); PLAIT_E_NOMEM. Never blocks.
 *         From on_offer only.
 */
PLAIT_API int plait_offer_into(struct plait_offer *offer, const struct iovec *iov, unsigned niov);
/**
 * The data shall be put into a buffer, also if it could be given in place. The sender is done when the message is released, as always. The
 * message frees the buffer then.
 * @param pool  where the buffer is from, which must outlive the message; NULL: memory of plait's.
 * @return 0; PLAIT_E_BUSY (it was said before where to put it); otherwise as plait_pool_alloc(), and so does it block. From on_offer only.
 */
PLAIT_API int plait_offer_copy(struct plait_offer *offer, struct plait_pool *pool);

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
