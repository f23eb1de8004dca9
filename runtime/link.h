/* SPDX-License-Identifier: BSD-3-Clause */
/* Links: the data path between one local and one remote context, shared by every connection between the two. A link belongs to
 * its context's thread, and so does everything here. */
#ifndef PLI_RUNTIME_LINK_H
#define PLI_RUNTIME_LINK_H

#include <sys/types.h>
#include "runtime/channel.h"
#include "runtime/cma.h"
#include "runtime/fill.h"
#include "runtime/loop.h"
#include "runtime/peeraddr.h"
#include "runtime/share.h"
#include "runtime/state.h"
#include "runtime/transport.h"
#include "runtime/wire.h"

struct plait_conn;
struct plait_session;
struct plait_listener;
struct pli_rma_link;

#define PLI_LINK_HANDSHAKE_NS (5 * UINT64_C(1000000000)) /* for each step of the handshake, beside what this side takes itself */
#define PLI_LINK_ACK_NS (30 * UINT64_C(1000000000))      /* from HELLO to HELLO_ACK, before which the peer may have to load libfabric */
#define PLI_LINK_IDLE_NS (1 * UINT64_C(1000000000))      /* a client's link without users is kept this long */
#define PLI_LINK_LAST_WORDS_NS (200 * UINT64_C(1000000)) /* for reading what a dead peer had sent */
#define PLI_LINK_CHANS_MAX 65535u                        /* channel numbers; 0xffff is the link itself */

/* Where a client's link leads: the key of the cache. */
struct pli_link_key {
    char host[256];
    uint16_t port;
    uint32_t target;     /* context number there, 0: the listener's */
    uint32_t transports; /* allowed */
    char name[100];      /* a rank's, with its host, for messages; "": host and port say enough. Does not distinguish links */
    char provider[PLI_PROVIDER_MAX + 1]; /* of libfabric, "": any; the one thing of a key that a server's link has, too */
};

/* Somebody who waits for a link to be up. Embedded; fn is called once, never from inside pli_link_get(). code 0: up. The text is in
 * pli_err_text() otherwise. */
struct pli_link_wait {
    struct pli_list node;
    void (*fn)(struct pli_link_wait *w, int code);
};

/* A small record that could not be sent at once (ring full), or a LINK record. */
struct pli_ctl_rec {
    struct pli_list node;
    uint32_t meta;
    uint64_t w1, cookie;
    uint8_t data[];
};

struct pli_link {
    /* hot: looked at for each record */
    struct pli_tr *tr;
    struct plait_conn *recent;    /* the last record was for it; &pli_conn_zombie: none */
    struct plait_conn **chans;    /* by channel number: a connection, &pli_conn_zombie, or NULL */
    uint32_t nchans;
    int stop;                     /* negative after a breach, and in the child of a fork: poll goes no further */
    enum pli_link_state state;
    bool flush_due;               /* flush is deferred */
    struct plait_ctx *ctx;

    struct pli_list node;         /* ctx->links */
    struct pli_ctx_obj obj;
    bool active;                  /* made by this side */
    bool is_unix;
    bool local;                   /* is_unix, and the transport is one for a single host */
    struct pli_channel ch;
    bool ch_open;
    struct pli_src wake_src;
    struct pli_link_key key;      /* active only, but for the provider */
    struct pli_connector *connector;
    uint32_t listener;            /* the listener's number at the server */
    struct pli_wire_peer peer;
    uid_t uid;
    gid_t gid;
    pid_t pid;
    struct pli_list waits;        /* struct pli_link_wait */
    struct pli_list sessions;     /* sessions whose lead link this is */
    struct pli_list queued;       /* connections with messages in their txq */
    struct pli_list blocked;      /* connections that owe their user on_writable because the ring was full */
    struct pli_list ctl;          /* struct pli_ctl_rec, before anything else */
    struct pli_list held;         /* messages held in place */
    uint32_t users;               /* connections and sessions */
    uint32_t chan_hint;
    struct pli_timer timer;       /* handshake, later idleness */
    struct pli_timer last_words;  /* writing to the peer failed: why is for the reading side to say, for so long */
    struct pli_defer down;        /* a failure found inside a send or a callback */
    struct pli_defer reap;        /* free it */
    struct pli_defer pump;        /* writable without the ring having been full */
    struct pli_defer ready;       /* somebody waits for a link that is up already */
    struct pli_defer flush;       /* PLAIT_MORE held something back: at the end of the poll it goes */
    int code;                     /* why it is going down */
    char text[512];
    char who[128];                /* the peer, for messages */
    struct pli_cma cma;
    struct pli_shares shares;
    struct pli_fill fill;         /* regions of the peer that have just been mapped */
    struct pli_rma_link *rma;     /* regions exported to the peer and by it, or NULL */
};

/* link.c: the cache and the life of a link. */

/* The client's link for that key: an existing one that is not down, or a new one. Adds a user. PLAIT_E_NOMEM, PLAIT_E_SYSTEM. */
int pli_link_get(struct pli_link **link, struct plait_ctx *ctx, const struct pli_link_key *key, uint32_t timeout_ms);
/* Calls w->fn when the link is up or has failed; from the deferred work of the pass if it is up already. */
void pli_link_wait(struct pli_link *link, struct pli_link_wait *w);
void pli_link_unwait(struct pli_link_wait *w);
/* One user more or less. At zero a client's link is kept for a while, then closed with BYE; a server's stays until the client leaves. */
void pli_link_ref(struct pli_link *link);
void pli_link_put(struct pli_link *link);
/* A server's link is born: takes the arrival's socket over. */
int pli_link_accept(struct plait_ctx *ctx, struct pli_arrival *arrival);
/* Takes the link down because of code and text; at once if nothing of it is running, else at the end of the pass. Idempotent. */
void pli_link_fail(struct pli_link *link, int code, const char *text);
/* A frame could not be sent, text in pli_err_text(). If the peer is gone, its last frames may be unread: they say why, and until then
 * the link lives. Returns 0 in that case, else code. */
int pli_link_send_failed(struct pli_link *link, int code);
/* True while records can be sent. */
static inline bool pli_link_is_up(const struct pli_link *link)
{
    return link->state == PLI_LINK_UP;
}

/* Can the two sides share memory, and may they read each other's? Not over a fabric, even where both are on one host: who asks for a
 * fabric there wants to see it. */
static inline bool pli_link_shares(const struct pli_link *link)
{
    return link->local;
}

/* The child of a fork: the links' mappings are gone, nothing may be sent or read. Called by the fork handler, so it takes no lock and calls
 * nothing. */
void pli_links_forked(struct plait_ctx *ctx);
/* Messages of the context's open connections, for the counters. */
void pli_links_count(const struct plait_ctx *ctx, uint64_t *sent, uint64_t *received);
/* For linkctl.c: the end, for the table of states, and what follows the handshake. */
void pli_link_take_down(struct pli_link *link);
void pli_link_tell_waits(struct pli_link *link);

/* linkctl.c: the control channel. */

/* Takes the connected socket over, also on error, and begins the handshake: PLI_LEV_MET at the client, PLI_LEV_ARRIVED at the server. */
int pli_link_open_channel(struct pli_link *link, int fd, enum pli_link_event event);
/* Which wire the link has and why, for people: a sentence of the calling thread's, until the next call. The link has a transport. */
const char *pli_link_wire(const struct pli_link *link);
/* Runs an event without a message through the table. */
void pli_link_event(struct pli_link *link, enum pli_link_event event);

/* memframe.c: a MEM frame. Takes the descriptors over. 0 or a negative code: the link fails. */
int pli_mem_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds);

/* linkio.c: records. */

extern const struct pli_tr_up pli_link_up_calls;

/* fast.c: the rx upcall. */
int pli_link_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload);
int pli_link_rx_many(void *owner, uint32_t meta, uint64_t w1, const void *payload, uint32_t stride, uint32_t count);
int pli_link_rx_slow(struct pli_link *link, uint32_t meta, uint64_t w1, const void *payload);

/* Bytes of peers' regions that are mapped, for the counters. */
uint64_t pli_links_mapped(const struct plait_ctx *ctx);
extern struct plait_conn pli_conn_zombie; /* stands for a channel number that waits for the peer's last word */

/* A free channel number for conn, PLAIT_E_NOMEM if there is none. */
int pli_link_chan_alloc(struct pli_link *link, struct plait_conn *conn, uint16_t *chan);
/* Frees it, or makes it a zombie until the peer has said DONE or ABORT. */
void pli_link_chan_free(struct pli_link *link, uint16_t chan, bool zombie);
/* Sends a small record without window, or queues it: always accepted; if there is no memory the link fails. */
void pli_link_send_ctl(struct pli_link *link, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data);
/* The same for a frame in a LINK record. */
void pli_link_send_frame(struct pli_link *link, const struct pli_wire_msg *msg);
/* Sends what waits, in the order control records, queued messages, writable callbacks. */
void pli_link_pump(struct pli_link *link);
/* A send found no space, or something waits for a poll: somebody must look from now on, also if the link was parked. */
static inline void pli_link_starved(struct pli_link *link)
{
    /* not on the way down: what is made hot then would be polled after its end */
    if (pli_link_is_up(link) && link->tr->hot_index < 0)
        pli_ctx_tr_heat(link->ctx, link->tr);
}
/* The peer broke the protocol: "who: sentence" and the link goes down. Returns PLAIT_E_PROTO. */
int pli_link_breach(struct pli_link *link, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

#endif
