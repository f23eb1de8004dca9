/* SPDX-License-Identifier: BSD-3-Clause */
#include "plait/status.h"

#include <stddef.h>

struct entry {
    int code;
    const char *name;
    const char *text;
};

#define E(c, t) { c, #c, t }

static const struct entry table[] = {
    E(PLAIT_OK, "success"),
    E(PLAIT_E_AGAIN, "no space now, try again when writable"),
    E(PLAIT_E_TOOBIG, "the message is too long"),
    E(PLAIT_E_TIMEDOUT, "timed out"),
    E(PLAIT_E_CANCELED, "cancelled"),
    E(PLAIT_E_NOREPLY, "the responder released the request without a reply"),
    E(PLAIT_E_REPLIED, "the request has been replied to already"),
    E(PLAIT_E_REFUSED, "the receiver refused the message"),
    E(PLAIT_E_BUSY, "the object is busy"),
    E(PLAIT_E_WOULDBLOCK, "a blocking call inside a callback"),
    E(PLAIT_E_REVOKED, "the key has been withdrawn by its owner"),
    E(PLAIT_E_CLOSED, "the connection is closed"),
    E(PLAIT_E_ABORTED, "the connection was aborted"),
    E(PLAIT_E_REJECTED, "the service rejected the session"),
    E(PLAIT_E_PROTO, "protocol error"),
    E(PLAIT_E_NOTRANSPORT, "no transport serves both sides"),
    E(PLAIT_E_RESOLVE, "the name does not resolve"),
    E(PLAIT_E_NOLISTENER, "nobody listens at that address"),
    E(PLAIT_E_ADDRINUSE, "the address is in use"),
    E(PLAIT_E_UNREACHABLE, "the address cannot be reached"),
    E(PLAIT_E_PEERDIED, "the peer process died"),
    E(PLAIT_E_VERSION, "the peer speaks another protocol version"),
    E(PLAIT_E_PERM, "the peer's user, or the access, is not allowed"),
    E(PLAIT_E_BADPEER, "the peer's memory or sizes cannot be trusted"),
    E(PLAIT_E_INVAL, "invalid argument"),
    E(PLAIT_E_NOMEM, "out of memory"),
    E(PLAIT_E_NOFILE, "out of file descriptors"),
    E(PLAIT_E_THREAD, "called from a thread that does not own the context"),
    E(PLAIT_E_FORKED, "called in a child process after fork"),
    E(PLAIT_E_SYSTEM, "a system call failed"),
    E(PLAIT_E_TOPOLOGY, "the topology could not be read"),
    E(PLAIT_E_LAUNCHER, "the launcher failed"),
    E(PLAIT_E_NOTFOUND, "not found"),
    E(PLAIT_E_UNSUPPORTED, "not supported by this build or machine"),
};

static const struct entry *find(int code)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].code == code)
            return &table[i];
    return NULL;
}

const char *plait_strerror(int code)
{
    const struct entry *e = find(code);

    return e ? e->text : "unknown plait status";
}

const char *plait_status_name(int code)
{
    const struct entry *e = find(code);

    return e ? e->name : "PLAIT_E_?";
}
