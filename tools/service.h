/* SPDX-License-Identifier: BSD-3-Clause */
/* What `plait serve` and `plait perf --serve` share: one context, one listener, an end in order on SIGINT
 * and SIGTERM. Single thread: the context's. */
#ifndef TOOLS_SERVICE_H
#define TOOLS_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <plait/plait.h>

struct service;
struct perf_payload;

/* A session of a client; every callback of the session and its connections has it as arg. */
struct client {
    struct service *sv;
    struct client *next, *prev;
    struct plait_session *session;
    struct plait_msg **held; /* echoes that wait for space, in order: a ring of `cap` entries */
    unsigned first, nheld, cap;
    /* plait perf */
    unsigned mode;           /* enum perf_mode */
    bool spin;               /* poll without sleeping while the test runs */
    uint64_t count, bytes;   /* one-way messages since the start of the test */
    struct plait_mem *window; /* what put, get and atomic work on, or NULL */
    struct plait_key window_key;
    struct perf_payload *payload; /* what is sent, or NULL */
    uint64_t size, to_send;  /* PERF_DUPLEX: bytes of each message, and how many are still to be sent */
    bool begun;              /* ... and may be sent */
};

struct service {
    /* filled by the caller */
    const char *uri;
    struct plait_ctx_opts ctx;
    const struct plait_conn_ops *conn_ops; /* on_closed and on_writable are the service's own */
    uint32_t window;
    bool any_uid;
    bool verbose;        /* tell of sessions */
    bool until_eof;      /* ends at the end of standard input, not with SIGINT */
    /* NULL, or: asked for every new session. Returns NULL to accept (opts may be changed), or why not. */
    const char *(*admit)(struct client *c, const struct plait_session_request *req,
                         struct plait_session_opts *opts);
    void (*listening)(struct service *sv, const char *uri); /* tells the user where */
    void (*writable)(struct client *c); /* NULL, or: there is space again, and no echo waits for it */
    void (*leaving)(struct client *c);  /* NULL, or: the client's session has ended */

    /* the service's own */
    struct plait_ctx *pctx;
    struct plait_listener *listener;
    struct plait_watch *sig_watch, *eof_watch;
    int sig_fd;
    struct client *clients;
    unsigned spinning;   /* clients whose test wants polling */
    bool stopping, done;
    struct plait_conn_ops ops;
};

/* Listens and serves until it is told to end. Returns the exit status; errors have been printed. Blocks. */
int service_run(struct service *sv);

/* Sends a received message back: a reply to a request, else a one-way message. What finds no space is held
 * and goes later, in order. Callbacks only. */
void service_echo(struct client *c, struct plait_msg *msg);

/* The client's test wants polling without sleep, or no longer. */
void service_spin(struct client *c, bool spin);

#endif
