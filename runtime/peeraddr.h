/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding and meeting a peer: URIs, the identity of hosts, the helper thread that connects, the sockets that
 * accept. */
#ifndef PLI_RUNTIME_PEERADDR_H
#define PLI_RUNTIME_PEERADDR_H

#include "runtime/channel.h"

/* ---- uri.c ---- */

#define PLI_PROVIDER_MAX 31 /* bytes in the name of a provider of libfabric */

struct pli_uri {
    char host[256];                           /* without brackets; "*" or "" to listen on every address */
    uint16_t port;                            /* 0: none */
    char resource[PLI_WIRE_RESOURCE_MAX + 1]; /* percent-decoded, without the leading slash */
    uint32_t transports;                      /* PLI_TRANSPORT_... mask from ?transport=auto|shm|ofi */
    char provider[PLI_PROVIDER_MAX + 1];      /* from ?provider=NAME; "": none. For the transport ofi */
};

/* PLAIT_E_INVAL with a sentence that quotes the URI, names the part that is wrong and shows a right one.
 * Pure. */
int pli_uri_parse(struct pli_uri *uri, const char *text);
/* Writes it again (listener_uri). What does not fit in len bytes is cut off; PLI_URI_TEXT always suffices.
 * Pure. */
void pli_uri_format(const struct pli_uri *uri, char *buf, size_t len);
#define PLI_URI_TEXT (3 * PLI_WIRE_RESOURCE_MAX + 320)

/* ---- identity.c ---- */

/* This process's random identity; a forked child gets a new one. Any thread; blocks for a moment the first
 * time. */
const uint8_t *pli_incarnation(void);
/* This host's: the boot id, and the network and user namespace (device and inode, hashed), as they were at
 * the first call. Any thread; reads files the first time. */
const uint8_t *pli_host_id(void);
/* Reads it now, for who has a descriptor free now and perhaps not later: what is read without one stays unknown for good. 0, or
 * PLAIT_E_NOFILE: try again. Any thread. */
int pli_host_id_load(void);

/* Of two host identities: is it one running kernel; and one network namespace of it, so that they share its loopback? The user
 * namespaces may differ. Pure. */
bool pli_host_same_machine(const uint8_t *a, const uint8_t *b);
bool pli_host_same_network(const uint8_t *a, const uint8_t *b);

/* ---- connector.c: meets a listener on a helper thread ---- */

/* What the helper thread found: a connected AF_UNIX socket (same host), or TCP; nonblocking, close-on-exec.
 */
struct pli_met {
    int fd; /* the receiver of the callback owns it; -1 on error */
    bool is_unix;
    uint32_t listener; /* the greeting's */
    uid_t
        uid; /* is_unix: the user, group and process that opened the listener (SO_PEERCRED), which whoever */
    gid_t
        gid; /* connects must check before it trusts it: any user may listen at a port. (uid_t)-1 over TCP */
    pid_t pid;
    int code;       /* 0 or negative */
    char text[512]; /* sentence */
};

struct pli_connector; /* one attempt */

/* Starts to meet the listener at host:port: resolves (getaddrinfo; every address in turn), connects over TCP,
 * reads the greeting, and if the host identity is the same connects to its AF_UNIX socket instead. fn is
 * called once on the context's thread, never from inside this call, unless cancelled before or the context is
 * destroyed; the attempt is gone when it returns. Its codes: PLAIT_E_RESOLVE, PLAIT_E_NOLISTENER (refused),
 * PLAIT_E_UNREACHABLE, PLAIT_E_TIMEDOUT (silence; names how long), PLAIT_E_PROTO (not a plait greeting),
 * PLAIT_E_VERSION, PLAIT_E_INVAL (no host), PLAIT_E_NOFILE, PLAIT_E_NOMEM, PLAIT_E_SYSTEM, or what the
 * listener refuses with. Returns 0, PLAIT_E_NOMEM, PLAIT_E_SYSTEM (no thread). Owner thread; never blocks. */
int pli_connector_start(struct pli_connector **c, struct plait_ctx *ctx, const char *host, uint16_t port,
                        uint32_t timeout_ms, void (*fn)(struct pli_met *met, void *arg), void *arg);

/* A listener that is known already, from a launcher's exchange. */
struct pli_known {
    uint8_t host_id[PLI_HOST_LEN];
    char unix_name[PLI_WIRE_NAME_MAX + 1]; /* pli_acceptor_unix_name() */
    uint32_t listener;                     /* pli_acceptor_listener() */
    const char *host; /* for the way over TCP, if it is on another host; may be NULL: no such way */
    uint16_t port;
};

/* The same for a known listener. On this host there is no TCP and usually no helper thread: the AF_UNIX
 * socket is connected here, and fn comes with the context's next pass. On another host as
 * pli_connector_start(). */
int pli_connector_start_known(struct pli_connector **c, struct plait_ctx *ctx, const struct pli_known *known,
                              uint32_t timeout_ms, void (*fn)(struct pli_met *met, void *arg), void *arg);

/* fn will not be called; the attempt is gone. Inside fn: no-op. Owner thread. Never blocks: a thread that
 * sits in getaddrinfo is left to end by itself. */
void pli_connector_cancel(struct pli_connector *c);

/* ---- helper.c ---- */

/* Runs fn(arg) on a helper thread, then done(arg) on the context's. For what blocks (launcher calls). Helper
 * threads end when there is nothing to do. If the context is destroyed first, done is not called, while fn
 * may still run, or not run at all. Owner thread; never blocks. PLAIT_E_NOMEM, PLAIT_E_SYSTEM. */
int pli_helper_run(struct plait_ctx *ctx, void (*fn)(void *arg), void (*done)(void *arg), void *arg);
/* The same; drop(arg) is called instead of done where done is not, by any thread, once fn does not run (any
 * more). */
int pli_helper_run_or_drop(struct plait_ctx *ctx, void (*fn)(void *arg), void (*done)(void *arg),
                           void (*drop)(void *arg), void *arg);

/* ---- acceptor.c: a listener's two sockets ---- */

struct pli_acceptor;

/* A client that has said HELLO. What it sent after that is still in the socket. */
struct pli_arrival {
    int fd; /* the callee owns it; nonblocking, close-on-exec */
    bool is_unix;
    struct pli_wire_peer peer;
    uint32_t listener;
    uid_t uid; /* from SO_PEERCRED; (uid_t)-1 over TCP */
    gid_t gid;
    pid_t pid;
    char provider[PLI_PROVIDER_MAX + 1]; /* of the listener's URI, which on_arrival fills in for who gets the link */
};

struct pli_acceptor_opts {
    uint32_t listener; /* number for the greeting */
    const uid_t
        *uids; /* allowed besides geteuid(); copied. Root is no exception: it is let in where it is listed */
    unsigned nuids;
    bool any_uid;
    uint32_t hello_timeout_ms; /* silence before HELLO; 0: 5000 */
    unsigned max_pending;      /* sockets without HELLO at once; over it the oldest is dropped; 0: 1024 */
    void (*on_arrival)(struct pli_arrival *a,
                       void *arg); /* on the context's thread; may close the acceptor */
    void *arg;
};

/* Binds TCP (uri->host, uri->port; 0: free port, written back into uri) and an abstract AF_UNIX socket beside
 * it, sends GREETING to TCP clients, checks the user of AF_UNIX clients (REFUSE with PLAIT_E_PERM and a
 * sentence for a stranger), reads HELLO (bounded, with a time-out; REFUSE for another version; garbage is
 * dropped with a warning). PLAIT_E_RESOLVE, ADDRINUSE (names the address), UNREACHABLE (not an address of
 * this machine), NOFILE, NOMEM, SYSTEM. Out of descriptors in accept: warns once,
 * pauses accepting for 100 ms instead of spinning. Owner thread; blocks for the name service if uri->host is
 * a name other than localhost. */
int pli_acceptor_open(struct pli_acceptor **a, struct plait_ctx *ctx, struct pli_uri *uri,
                      const struct pli_acceptor_opts *opts);
/* What others need for pli_connector_start_known(): the abstract name (without the zero byte, as long as the
 * acceptor lives), the number, and the TCP port. */
const char *pli_acceptor_unix_name(const struct pli_acceptor *a);
uint32_t pli_acceptor_listener(const struct pli_acceptor *a);
uint16_t pli_acceptor_port(const struct pli_acceptor *a);
/* Sockets that have not said HELLO yet. */
unsigned pli_acceptor_pending(const struct pli_acceptor *a);
/* Ends it; no on_arrival follows. Inside on_arrival, too; NULL is allowed. forked: in a child after fork.
 * Never blocks. */
void pli_acceptor_close(struct pli_acceptor *a, bool forked);

#endif
