/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: regions that are exported to a peer, and those that a peer has exported to us.
 *
 * On a link that shares memory the peer maps the region and does its operations by itself. An export has a word in the key page, a page of this process that its peers map read-only: its secret while it is valid, 0 from the moment
 * when it is withdrawn. Who accesses looks at the word first (and again while it copies much), so a withdrawal takes effect without
 * asking anybody. Frames follow it: EXPORT gives the region, EXPORTED answers; WITHDRAW asks to unmap, WITHDRAWN answers, and then (or
 * when the link is down) the export lets go of the region and of its word.
 *
 * On any other link the frames are the same, without descriptors, and an operation is a record of the connection, RMA, that its target does
 * and answers, in the order of the numbers. Long ones go in pieces of PLI_RMA_STEP, each checked by itself, so a withdrawal takes effect between
 * two of them, as above. At most PLI_RMA_ASKED are under way, so the target never has to keep more answers.
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
#define PLI_RMA_ASKED 32u                 /* RMA records of a connection that are not answered yet */

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

/* The header part of an RMA record. */
struct pli_rma_rec {
    uint64_t secret;   /* of the key */
    uint64_t offset;
    uint64_t a, b;     /* ADD: a; CAS: expected and desired */
    uint32_t len;      /* PUT: of its data; GET: bytes to be read; both at most PLI_RMA_STEP; else 8 */
    uint16_t slot;     /* of the key */
    uint8_t kind;      /* enum pli_rma_kind, but for FLUSH */
    uint8_t zero;
};
_Static_assert(sizeof(struct pli_rma_rec) == 40 && offsetof(struct pli_rma_rec, len) == 32 && offsetof(struct pli_rma_rec, kind) == 38,
               "as in doc/wire.md");

/* ---- the owner's side ---- */

struct pli_export {
    struct pli_list by_link, by_conn; /* link->rma, conn->rma */
    struct pli_list by_mem;           /* mem->exports; under the lock */
    struct plait_mem *mem;            /* one reference */
    struct pli_link *link;            /* NULL: it has ended */
    struct plait_ctx *ctx;
    uint64_t secret;
    uint32_t number;
    uint16_t slot, access;
    uint32_t session;                 /* as in the key */
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
    bool remote;                 /* not mapped: the owner does the operations */
    struct pli_peermem *pm;      /* NULL: remote, or it could not be mapped: code, why */
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

/* Also on the wire. */
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
    size_t asked, answered;      /* remote: bytes for which RMA records have gone; have been answered */
};

/* Data that comes in several records: of an RMA of the peer's, or of the answer to one of ours. */
struct pli_rma_in {
    uint32_t left;               /* bytes, 0: nothing is coming */
    bool answer;
    char *to;                    /* answer: where */
    struct pli_rma_rec rec;      /* else: offset and len are those of the rest */
    uint32_t number;
    int status;                  /* of what has come of it */
};

/* Of a connection, made at the first use. */
struct pli_rma_conn {
    struct plait_conn *conn;
    struct pli_list exports;
    struct pli_list queue;       /* operations from the first one on whose region has not come yet, or that cannot be asked for yet */
    struct pli_list sent;        /* remote: they have been asked for, the last one maybe not in full */
    struct pli_rma_op *asking;   /* that one, or NULL */
    unsigned nasked;             /* RMA records that are not answered yet */
    uint32_t next_asked, next_answered; /* their numbers */
    struct pli_rma_in in;
    struct pli_list done;        /* to be told */
    struct pli_list spare;
    unsigned nops, nspare;       /* nops: queue, sent and done */
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

/* The same for one that comes as a record: 0 and where, or a code (REVOKED, INVAL, PERM). */
int pli_rma_locate(struct plait_conn *c, const struct pli_rma_rec *rec, char **p);

/* rma_remote.c: one-sided operations by records. */

/* Begins an operation, the first of the queue: it is on r->sent then. */
void pli_rma_ask(struct pli_rma_conn *r, struct pli_rma_op *op);
/* Asks for more of r->asking. */
void pli_rma_ask_more(struct pli_rma_conn *r);
/* RMA, RMA_ANSWER, RMA_DATA. 0 or a negative code: the link fails. */
int pli_rma_rx(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *p, uint32_t len);

/* rma_op.c */
extern const unsigned char pli_rma_needs[]; /* by kind: PLAIT_ACCESS_... */
/* An operation that was asked for has been answered in full, or never will be. */
void pli_rma_op_over(struct pli_rma_conn *r, struct pli_rma_op *op, int status);
void pli_rma_pump_conn(struct pli_rma_conn *r);
/* A region has come, or will not: goes on with what waits on this link. */
void pli_rma_pump(struct pli_link *link);
void pli_rma_conn_init(struct pli_rma_conn *r);
/* Completes everything: what is done with its status, the rest with code. Calls their functions. */
void pli_rma_complete_all(struct pli_rma_conn *r, int code);

#endif
