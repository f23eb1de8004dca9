/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are offered: the record names where the data lies instead of carrying it (PLI_RF_REF). */
#ifndef PLI_RUNTIME_OFFER_H
#define PLI_RUNTIME_OFFER_H

#include "runtime/conn.h"

/* Behind the cookie word and the header part. Both are unaligned in a record, and copied out of it before they are looked at. */
struct pli_ref_head {
    uint32_t receipt; /* REPLY: the replier's number of the RECEIPT that is to follow; 0 in all others */
    uint32_t count;   /* of struct pli_ref: 0..PLAIT_IOV_MAX */
};

/* A piece: of the sender's region of that key (share.h), or of its memory. */
struct pli_ref {
    uint32_t key; /* or PLI_REF_ADDRESS */
    uint32_t len;
    uint64_t offset; /* in the region; PLI_REF_ADDRESS: the address, for process_vm_readv() */
};
#define PLI_REF_ADDRESS 0u

/* A whole record, with cookie word and header part, fits the smallest ring: see ring_max() in shm/send.c. */
_Static_assert(8 + PLAIT_HDR_MAX + sizeof(struct pli_ref_head) + PLAIT_IOV_MAX * sizeof(struct pli_ref) <= 6128, "one record");
_Static_assert(sizeof(struct pli_ref_head) == 8 && sizeof(struct pli_ref) == 16, "as in doc/wire.md");

/* A long message that is announced to its receiver. */
struct pli_offer {
    struct plait_offer pub;
    struct pli_pieces *place; /* where it shall be put: owned by whoever announced it; NULL: nowhere in particular */
    bool copy;               /* but not in place */
};

/* Owner thread, all of them; nothing blocks, unless a pool that the user takes a buffer from does. */

/* offer_send.c. Offers the message of out, whose record m describes up to its data and whose entry in the table is index, and keeps its
 * shares with the entry. reply: it must be accepted, and its receipt's number is that of the entry. 1: done. 0: it cannot be offered (now): push
 * it. Negative: as pli_conn_send_or_queue(), PLAIT_E_NOMEM; the entry is to be freed. */
int pli_offer_send(struct plait_conn *c, struct pli_txmsg *m, uint32_t index, const struct plait_out *out, bool reply);
/* NEED came: the peer cannot read the message of that number where it lies. Its bytes follow as FILL records, before all that waits. 0 or a
 * negative code: the link fails. */
int pli_offer_needed(struct plait_conn *c, uint32_t cookie);
/* PLAIT_TAKE and PLAIT_MAPPED_MAX of the environment: *take is changed if the first is set; NULL: only checked. PLAIT_E_INVAL. */
int pli_offer_env(unsigned *take);

/* gather.c: is out fit to be sent? *len: bytes of its data. PLAIT_E_INVAL, PLAIT_E_TOOBIG. */
int pli_out_check(const struct plait_out *out, size_t *len);

/* offer.c. A record with PLI_RF_REF. 0 or a negative code: the link fails. */
int pli_offer_rx(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, const uint8_t *p);
/* Calls on_offer, if there is one. 0; PLAIT_E_CLOSED: the connection ended in it; PLAIT_E_FORKED: this is the child of a fork in it. */
int pli_offer_announce(struct plait_conn *c, struct pli_offer *o);
/* Its sender has given it up: tells the user, if it was announced to him. m: all but data. */
void pli_offer_canceled(struct plait_conn *c, const struct plait_msg *m);

#endif
