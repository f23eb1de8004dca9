/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are offered: the record names where the data lies instead of carrying it (PLI_RF_REF). */
#ifndef PLI_RUNTIME_OFFER_H
#define PLI_RUNTIME_OFFER_H

#include <stdint.h>

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

_Static_assert(sizeof(struct pli_ref_head) == 8 && sizeof(struct pli_ref) == 16, "as in doc/wire.md");

#endif
