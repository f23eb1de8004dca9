/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: regions that are exported to a peer, and those that a peer has exported to us.
 *
 * An export has a word in the key page, a page of this process that its peers map read-only: its secret while it is valid, 0 from the moment
 * when it is withdrawn. Who accesses looks at the word first (and again while it copies much), so a withdrawal takes effect without
 * asking anybody. Frames follow it: EXPORT gives the region, EXPORTED answers; WITHDRAW asks to unmap, WITHDRAWN answers, and then (or
 * when the link is down) the export lets go of the region and of its word.
 *
 * Exports of all links are in one table under one lock, for whoever withdraws from another thread. Everything else belongs to the link's
 * context's thread. */
#ifndef PLI_RUNTIME_RMA_H
#define PLI_RUNTIME_RMA_H

#include "plait/rma.h"
#include "runtime/conn.h"
#include "runtime/mem.h"
#include "runtime/peermem.h"

#define PLI_RMA_SLOTS 8192u
#define PLI_RMA_PAGE (PLI_RMA_SLOTS * 8u) /* bytes of the key page: whole pages of every size up to 64 KiB */
#define PLI_RMA_FLAGS_SLOT 16             /* EXPORT.flags: PLAIT_ACCESS_..., and from this bit on the slot */
#define PLI_RMA_ACCESS (PLAIT_ACCESS_READ | PLAIT_ACCESS_WRITE)
#define PLI_RMA_STEP (256u << 10)         /* bytes copied between two looks at the word */
#define PLI_RMA_OPS_KEPT 64u              /* free ones that a connection keeps */

/* What the bytes of a struct plait_key are. */
struct pli_key {
    uint32_t number;            /* of the export on its link, from 1, never used twice */
    uint32_t owner_ctx, peer_ctx;
    uint16_t slot, access;
    uint64_t secret;
    uint32_t session;           /* hash of the session's id */
    uint32_t check;             /* hash of all that is before */
};
_Static_assert(sizeof(struct pli_key) == sizeof(struct plait_key), "layout of a key");

/* ---- the owner's side ---- */

struct pli_export {
    struct pli_list by_link, by_conn; /* link->rma, conn->rma */
    struct pli_list by_mem;           /* mem->exports; under the lock */
    struct plait_mem *mem;            /* one reference */
    struct pli_link *link;            /* NULL: it has ended */
    struct plait_ctx *ctx;
    uint64_t secret;
    uint32_t number;
    uint16_t slot;
    bool answered;                    /* EXPORTED came */
    bool withdraw_sent;
    bool withdrawn, posted, ended;    /* under the lock; withdrawn: by whatever */
    bool asked;                       /* under the lock: by plait_mem_withdraw() */
    struct pli_post post;             /* withdrawn by another thread: say so to the peer */
    plait_done_fn on_gone;            /* under the lock */
    void *arg;
};

/* ---- the peer's side ---- */

struct pli_import {
    struct pli_key key;
    uint8_t sid[PLI_ID_LEN];
    struct pli_peermem *pm;      /* NULL: it could not be mapped: code, why */
    const _Atomic uint64_t *word;
    uint64_t len;
    int code;
    char *why;
    char name[PLI_MEM_NAME_MAX];
};

/* Of a link, made at the first use. */
struct pli_rma_link {
    struct pli_list exports;
    unsigned nexports;
    uint32_t last_number;        /* given to an export */
    struct pli_import **imports; /* by number */
    unsigned nimports, cap;
    struct pli_import *recent;
    uint32_t highest;            /* number of an import so far */
    struct pli_peermem *page;    /* the peer's key page */
    uint64_t page_dev, page_ino;
    struct pli_list waiting;     /* struct pli_rma_conn with a queue */
};

enum pli_rma_kind { PLI_RMA_PUT, PLI_RMA_GET, PLI_RMA_ADD, PLI_RMA_CAS, PLI_RMA_FLUSH };

struct pli_rma_op {
    struct pli_list node;
    enum pli_rma_kind kind;
    int status;
    struct plait_key key;
    uint64_t offset;
    size_t len;
    const void *from;
    void *to;                    /* buf, or old */
    uint64_t a, b;               /* add; expected and desired */
    plait_done_fn fn;
    void *arg;
    uint64_t deadline;           /* ns, of waiting for the region */
};

/* Of a connection, made at the first use. */
struct pli_rma_conn {
    struct plait_conn *conn;
    struct pli_list exports;
    struct pli_list queue;       /* operations from the first one on whose region has not come yet */
    struct pli_list done;        /* to be told */
    struct pli_list spare;
    unsigned nops, nspare;       /* nops: queue and done */
    int first_error;             /* of those without on_done, for the next flush */
    struct pli_defer deliver;
    struct pli_timer patience;
    struct pli_list waiting;     /* link->rma->waiting */
};

/* rma.c: life. All on the link's thread; none blocks. */

/* The link's or connection's part, made if it is not there. NULL: no memory, with a sentence. */
struct pli_rma_link *pli_rma_link(struct pli_link *link);
struct pli_rma_conn *pli_rma_conn(struct plait_conn *c);
/* A MEM frame of ops EXPORT ... WITHDRAWN. Takes the descriptors over. 0 or a negative code: the link fails. */
int pli_rma_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds);
/* The connection has ended with code: completes its operations, withdraws its exports. */
void pli_rma_conn_ended(struct plait_conn *c, int code);
void pli_rma_conn_free(struct plait_conn *c);
/* Nothing waits and nothing is to be told? */
bool pli_rma_conn_is_quiet(const struct plait_conn *c);
/* The link is down with code; its connections have ended. Frees link->rma. forked: in the child. */
void pli_rma_link_down(struct pli_link *link, int code, bool forked);
/* The memory of a key. */
void pli_key_seal(struct pli_key *k, const uint8_t *sid);
uint32_t pli_key_check(const struct pli_key *k);
uint32_t pli_key_session(const uint8_t *sid);

/* rma_page.c: the key page and the table of exports. Any thread. */

void pli_rma_lock(void);
void pli_rma_unlock(void);
/* All with the lock held. A free slot of the page, which is made if it is not there; its word becomes e->secret. Fills slot and secret.
 * PLAIT_E_NOMEM (full), NOFILE, SYSTEM. */
int pli_rma_slot_alloc(struct pli_export *e);
/* The word becomes 0: nothing that begins from now on is allowed. */
void pli_rma_slot_clear(const struct pli_export *e);
void pli_rma_slot_free(struct pli_export *e);
/* NULL, or whose slot it is. */
struct pli_export *pli_rma_slot_get(uint16_t slot);
/* The descriptor for peers; -1 before the first export. */
int pli_rma_page_fd(void);
/* Is this the child of a process that had exports? Then they are not its own. */
bool pli_rma_is_child(void);
/* fork.c: in the child, with the lock held: async-signal-safe. */
void pli_rma_forked(void);

/* rma_export.c */
int pli_rma_exported(struct pli_link *link, const struct pli_wire_msg *msg);
int pli_rma_withdrawn(struct pli_link *link, const struct pli_wire_msg *msg);
/* Was the key made at this end of the link? */
bool pli_rma_is_own(const struct pli_link *link, const struct pli_key *k);
/* Withdraws the exports of a connection that has ended. */
void pli_rma_exports_withdraw(struct pli_rma_conn *r);
/* Ends all of them, on_gone is called with code. */
void pli_rma_exports_end(struct pli_rma_link *r, int code, bool forked);
/* plait_mem_release(): any thread. */
void pli_rma_mem_released(struct plait_mem *m);

/* rma_import.c */
int pli_rma_export_came(struct pli_link *link, const struct pli_wire_msg *msg, int *fds);
int pli_rma_withdraw_came(struct pli_link *link, const struct pli_wire_msg *msg);
void pli_rma_imports_free(struct pli_rma_link *r);
/* 0 and the import of the key, for this connection; 1: it may still come; negative: a code with a sentence. */
int pli_rma_find(struct plait_conn *c, const struct plait_key *key, struct pli_import **import);

/* rma_op.c */
/* A region has come, or will not: goes on with what waits on this link. */
void pli_rma_pump(struct pli_link *link);
void pli_rma_conn_init(struct pli_rma_conn *r);
/* Completes everything: what is done with its status, the rest with code. Calls their functions. */
void pli_rma_complete_all(struct pli_rma_conn *r, int code);

#endif
