/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file status.h
 * @brief Error codes and their texts.
 *
 * Every plait function that can fail returns 0 (or a count) on success and one of these negative
 * codes on failure. The hundreds say what the error damaged, and so what is left to do:
 *
 *   -1xx  one message or call: the connection goes on.
 *   -2xx  one connection or session: it is closed or never opened; the peer may be asked again.
 *   -3xx  the peer: every connection to that process is gone.
 *   -4xx  this context, this process or its arguments: nothing was sent.
 *
 * Beside the code, the failing call leaves a sentence for its own thread that names the thing, the
 * limit and what to do: plait_error_text(). Events that arrive later carry their sentence with them
 * (struct plait_reason).
 */
#ifndef PLAIT_STATUS_H
#define PLAIT_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/** The version script exports what begins with plait_; this attribute marks it in the headers. */
#define PLAIT_API __attribute__((visibility("default")))

enum plait_status {
    PLAIT_OK = 0,

    /* one message or call */
    PLAIT_E_AGAIN = -101,     /**< no space now: the window or the ring is full, or the connection is not open yet; on_writable follows */
    PLAIT_E_TOOBIG = -102,    /**< the message is longer than the connection's maximum */
    PLAIT_E_TIMEDOUT = -103,  /**< the time given to this call has passed */
    PLAIT_E_CANCELED = -104,  /**< the call or message was cancelled */
    PLAIT_E_NOREPLY = -105,   /**< the responder released the request without a reply */
    PLAIT_E_REPLIED = -106,   /**< this request has been replied to already, or is not a request */
    PLAIT_E_REFUSED = -107,   /**< the receiver of a message with a receipt refused it */
    PLAIT_E_BUSY = -108,      /**< the object is in use in a way that excludes this call */
    PLAIT_E_WOULDBLOCK = -109,/**< a blocking call was made from inside a callback of the same context */
    PLAIT_E_REVOKED = -110,   /**< the key of a one-sided operation has been withdrawn by its owner */

    /* one connection or session */
    PLAIT_E_CLOSED = -201,    /**< the connection is closed, or being closed, for sending */
    PLAIT_E_ABORTED = -202,   /**< plait_conn_abort() was called, here or by the peer */
    PLAIT_E_REJECTED = -203,  /**< the service rejected the session; the reason carries its data */
    PLAIT_E_PROTO = -204,     /**< the peer sent something that the protocol does not allow */
    PLAIT_E_NOTRANSPORT = -205,/**< no transport serves both sides; the text says why, for each */
    PLAIT_E_RESOLVE = -206,   /**< the name in the URI does not resolve */
    PLAIT_E_NOLISTENER = -207,/**< nobody listens at that address */
    PLAIT_E_ADDRINUSE = -208, /**< the address to listen on is in use */
    PLAIT_E_UNREACHABLE = -209,/**< the address cannot be reached */

    /* the peer */
    PLAIT_E_PEERDIED = -301,  /**< the peer process ended, or its control channel was cut */
    PLAIT_E_VERSION = -302,   /**< the peer speaks another version of the protocol */
    PLAIT_E_PERM = -303,      /**< the peer runs as a user that is not allowed here; of a one-sided operation: its key does not allow it,
                                   and nothing else is harmed */
    PLAIT_E_BADPEER = -304,   /**< what the peer gave (memory, sizes, seals) cannot be trusted */

    /* this context, this process, its arguments */
    PLAIT_E_INVAL = -401,     /**< an argument, URI, option or environment variable is not valid */
    PLAIT_E_NOMEM = -402,     /**< memory, or a limit on it, is exhausted */
    PLAIT_E_NOFILE = -403,    /**< file descriptors are exhausted */
    PLAIT_E_THREAD = -404,    /**< called from a thread that does not own the context */
    PLAIT_E_FORKED = -405,    /**< called in a child process after fork(); objects belong to the parent */
    PLAIT_E_SYSTEM = -406,    /**< a system call failed; the text has its name and errno */
    PLAIT_E_TOPOLOGY = -407,  /**< the machine's topology could not be read */
    PLAIT_E_LAUNCHER = -408,  /**< the job's launcher (PMIx, PMI) failed or is not supported */
    PLAIT_E_NOTFOUND = -409,  /**< no such rank, key, resource or object */
    PLAIT_E_UNSUPPORTED = -410,/**< this build or this machine cannot do it */
};

/** Why something ended: the code, a sentence, and data from the peer where there is some.
 *  Owned by plait; valid only during the callback that it is passed to. */
struct plait_reason {
    int code;             /**< PLAIT_OK for an orderly end, else a negative code */
    const char *text;     /**< one sentence; never NULL */
    const void *data;     /**< the peer's data (a rejection's), or NULL */
    unsigned data_len;    /**< bytes at data */
};

/**
 * The short fixed text of a code ("the peer process died").
 * @param code  any int; an unknown one gives "unknown plait status".
 * @return a static string. Never blocks; any thread; may be called from callbacks.
 */
PLAIT_API const char *plait_strerror(int code);

/**
 * The name of a code as it stands in the header ("PLAIT_E_PEERDIED").
 * @return a static string, "PLAIT_E_?" for an unknown code. Never blocks; any thread; callbacks too.
 */
PLAIT_API const char *plait_status_name(int code);

/**
 * The sentence that the last failed plait call of the calling thread left: what failed, which limit,
 * what to do. Only meaningful directly after a call that returned a negative code.
 * @return a string owned by the thread, valid until its next failing plait call; never NULL.
 *         Never blocks; any thread; may be called from callbacks.
 */
PLAIT_API const char *plait_error_text(void);

#ifdef __cplusplus
}
#endif
#endif
