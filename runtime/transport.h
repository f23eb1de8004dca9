/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of a transport: what moves records (record.h) on a link, between one local and one remote
 * context. Implemented by shm/, fabric/ and the tests' sim; used by runtime/ and the conformance suite.
 *
 * Everything is called by the one thread that owns the link's context; nothing blocks. A transport never calls
 * upcalls from inside send, reserve, commit, abandon, flush, release or park, but for send_control and wants_poll: only from poll and control. An upcall may call
 * send, reserve/commit, flush, hold and release of the same link, and may mark the link for destruction, but destroy
 * itself is called only outside poll and control. */
#ifndef PLI_RUNTIME_TRANSPORT_H
#define PLI_RUNTIME_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <plait/version.h>
#include "runtime/record.h"

struct pli_tr;

#define PLI_TR_BLOB_MAX 256 /* bytes of a transport's message through the control channel */
#define PLI_TR_FDS_MAX 4    /* file descriptors with it */

/* What the transport tells its user (the runtime, or a test). */
struct pli_tr_up {
    /* A record came. payload: pli_rec_payload() bytes, 8-byte aligned, in the transport's memory, valid until return
     * (longer with hold). Lengths have been checked against what the transport really has; type, flags, channel, credit
     * have not. Returns 0, or a negative code: the link has failed, poll stops at once. */
    int (*rx)(void *owner, uint32_t meta, uint64_t w1, const void *payload);
    /* count records that differ only in their payloads, which lie stride bytes (a multiple of 8) apart: as rx for one after the
     * other. NULL: rx is called for each. */
    int (*rx_many)(void *owner, uint32_t meta, uint64_t w1, const void *payload, uint32_t stride, uint32_t count);
    /* After send or reserve returned PLAIT_E_AGAIN: there is space again. */
    void (*writable)(void *owner);
    /* Send this to the peer's control() through the control channel. fds are borrowed for the call.
     * Returns 0 or a negative code (the link is failing anyway then). */
    int (*send_control)(void *owner, const void *blob, size_t len, const int *fds, int nfds);
    /* The peer broke the transport's own rules, text says how (code PLAIT_E_PROTO or PLAIT_E_BADPEER). Poll stops after it. */
    void (*failed)(void *owner, int code, const char *text);
    /* From anywhere but destroy and quiet: something waits for a poll to be sent. Who has parked must poll again. May be NULL. */
    void (*wants_poll)(void *owner);
    /* From poll: records held in place keep a quarter of the ring from the peer. Copy them and release their place. May be NULL. */
    void (*crowded)(void *owner);
};

struct pli_topo;
struct sockaddr;

/* What a new link needs to know. */
struct pli_tr_env {
    const struct pli_topo *topo; /* to bind memory with, NULL: do not */
    int local_node;       /* NUMA node of this context, -1 unknown */
    int peer_node;        /* of the peer's context: where the pages that it polls should be */
    bool peer_membarrier; /* the peer pays for its sleep with membarrier(2); if not, every publication needs a fence */
    bool membarrier;      /* the same of this process */
    uint64_t *shm_bytes;  /* counter: bytes of shared memory reserved */
    uint64_t *kicks;      /* counter: wake-ups written to the peer */
    uint64_t *bind_failures; /* counter */
    /* For a transport whose links share what is polled. *hub: NULL, or what the context's first such link has put there; the context polls it
     * in place of these links, and destroys it after the last one. */
    struct pli_tr **hub;
    const struct sockaddr *local; /* own address of a control channel over TCP, else NULL; borrowed for the call */
    const char *provider;  /* the one that the URI names, NULL: none; borrowed for the call */
    bool active;           /* this side has asked for the link, and will be told of the peer's description before it is asked for its own */
};

struct pli_tr_stats {
    uint32_t ring_slots;   /* send ring */
    uint32_t ring_used;    /* slots not yet consumed by the peer, as far as known */
    uint64_t grows;        /* times the send ring was replaced by a larger one */
    uint64_t held;         /* received records held in place */
    bool connected;        /* what is sent goes out at once; before that it waits until the endpoints have met */
};

/* Most bytes of data that send_small takes. */
#define PLI_TR_SMALL 40u

/* The short way to send. pos counts up with what is sent, limit is where there may be no more space; send looks again there.
 * A limit of 0 closes the short way: in the child of a fork, while something is reserved. */
struct pli_tr_room {
    uint64_t pos, limit;
};

/* Sends one record of at most PLI_TR_SMALL bytes of data and no header part, when the caller has seen room.pos < room.limit: it cannot
 * fail then, and returns 0. Everything else as send. */
typedef int (*pli_tr_send_small)(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data,
                                 unsigned more);

struct pli_tr_ops {
    const char *name;
    bool same_host;  /* for processes of one host only, which can share memory beside it, too */
    bool kicks_once; /* wake_fd becomes readable once for each park, and never else: an application's own wake-ups, not a socket's */
    /* Can it be used in this process? 0, or a negative code with a sentence in pli_err_text(). Any thread; may be slow. */
    int (*probe)(void);
    /* Loads what create would load at its first call, which takes a while. NULL: nothing. Blocks. Any thread. */
    void (*load)(void);
    /* Calls tell for each device that the transport has looked for, in order of preference, with texts that are valid until it returns.
     * 0, or as probe: no device then. NULL: it needs none. Any thread; may be slow. */
    int (*describe_devices)(void (*tell)(const struct plait_device_info *d, void *arg), void *arg);

    /* ---- set-up: create, describe -> the peer's connect, connect with the peer's description ---- */

    /* Makes the own side: memory, wake-up descriptor. owner is what upcalls get. PLAIT_E_NOMEM, NOFILE, SYSTEM. */
    int (*create)(struct pli_tr **tr, const struct pli_tr_env *env, const struct pli_tr_up *up, void *owner);
    /* Writes the description for the peer: at most PLI_TR_BLOB_MAX bytes, PLI_TR_FDS_MAX descriptors, which remain the transport's. */
    void (*describe)(struct pli_tr *tr, void *blob, size_t *len, int *fds, int *nfds);
    /* Attaches the peer's side. Takes the descriptors over, also on error. PLAIT_E_BADPEER with a sentence that names what is
     * wrong, NOMEM, SYSTEM. After success records can be sent (the peer must have connected before it is polled there). */
    int (*connect)(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds);
    /* A message of the peer's send_control. Takes the descriptors over. 0 or a negative code: the link fails. */
    int (*control)(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds);
    /* No upcall follows, whatever still comes; what is held stays, until destroy. May be called in poll. NULL: nothing calls by itself
     * once the owner polls no more. */
    void (*quiet)(struct pli_tr *tr);
    /* Frees everything; held records become invalid (the runtime copies or forgets them before). Never in poll. forked: in a
     * child process, whose shared mappings are gone already: free only private memory and descriptors. */
    void (*destroy)(struct pli_tr *tr, bool forked);

    /* ---- data ---- */

    /* Sends one record. meta, w1 as in record.h; cookie is used only with PLI_RF_COOKIE; hdr has pli_meta_hdr_len() bytes,
     * data pli_w1_len(). Copies before it returns. more: the record may wait until flush (or a send without more).
     * 0; PLAIT_E_AGAIN: no space, writable() follows; PLAIT_E_TOOBIG: payload over max_payload; PLAIT_E_BUSY: reserved. */
    int (*send)(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more);
    /* Space for one record with a cookie word (if cookie) and len bytes of data; one at a time. As send. */
    int (*reserve)(struct pli_tr *tr, bool cookie, uint32_t len, void **data);
    /* Publishes it; the header part, if meta has one, lies before the data in what was reserved; length at most as reserved, cookie flag
     * as reserved. */
    void (*commit)(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more);
    void (*abandon)(struct pli_tr *tr);
    /* Publishes what waited because of more, and wakes the peer if it sleeps. */
    void (*flush)(struct pli_tr *tr);
    /* Most payload bytes (cookie, header and data) of one record at present; may grow. */
    uint32_t (*max_payload)(const struct pli_tr *tr);
    /* Are long records that were sent still unread, as far as that is known? May be NULL. */
    bool (*behind)(struct pli_tr *tr);

    /* Delivers at most budget records through rx (a few more where the last of them lie together). Returns how many (writable() counts as
     * one). */
    int (*poll)(struct pli_tr *tr, int budget);
    /* Inside rx: keep the record being delivered in place. 0 and a token, or PLAIT_E_AGAIN: copy it instead. */
    int (*hold)(struct pli_tr *tr, uint32_t *token);
    /* Ends a hold, in any order. */
    void (*release)(struct pli_tr *tr, uint32_t token);

    /* ---- waiting; see doc/memory-model.md ---- */

    /* Tells the peer that a wake-up is needed from now on (relaxed store; the caller does the barrier, once for many links). */
    void (*park)(struct pli_tr *tr);
    /* After the barrier: is there something to receive, or space that was wanted? */
    bool (*ready)(struct pli_tr *tr);
    /* The peer need not wake us any more. */
    void (*unpark)(struct pli_tr *tr);
    /* The descriptor that the peer's wake-up makes readable; for epoll with EPOLLIN|EPOLLET, never read. */
    int (*wake_fd)(const struct pli_tr *tr);

    void (*stats)(const struct pli_tr *tr, struct pli_tr_stats *st);
    /* Writes what of the transport the link uses, as "libfabric provider tcp, lo". NULL: there is only one. */
    void (*name_of)(const struct pli_tr *tr, char *buf, size_t size);
};

/* The head of every transport's link object. */
struct pli_tr {
    struct pli_tr_room room;
    pli_tr_send_small send_small;
    const struct pli_tr_ops *ops;
    const struct pli_tr_up *up;
    void *owner;
    struct pli_tr *hub; /* what the context polls instead; its ops are destroy, poll, park, ready, unpark and wake_fd. NULL: this link itself */
    /* The context's own, set while the link is with a context (runtime/loop.c). */
    int hot_index;        /* place among the links polled in every pass, -1: parked */
    uint32_t idle_rounds; /* looks of the context since the last record */
    bool alone;           /* the only hot link: poll may wait a moment for an answer */
    bool counted;         /* it has been added to the context */
};

/* The transports of this build, in order of preference, ended by NULL. Defined by the program's top (runtime/registry.c
 * declares it weakly so that unit tests can bring their own). */
extern const struct pli_tr_ops pli_shm_ops;
extern const struct pli_tr_ops pli_ofi_ops;

#endif
