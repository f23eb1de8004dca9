/* SPDX-License-Identifier: BSD-3-Clause */
/* The bulk area: where long records go once a link has carried many. The ring then holds only a reference, and up to two megabytes are
 * on their way at once. Lines that one core has just written move to another at the pace of its private caches; with more than
 * these hold in flight, they stream from the cache that both share (measured: doc/memory-model.md).
 *
 * The sender writes payloads one behind the other, in the order of their records, and takes the space back when the consumer's bulk cursor
 * has passed the record. Nothing here is ever held in place by the receiver: what it keeps it copies. Hence a cursor of its own, which
 * records that are held in the ring do not stop. */
#ifndef PLI_SHM_BULK_H
#define PLI_SHM_BULK_H

#include <stdbool.h>
#include "shm/ring.h"
#include "shm/segment.h"

#define PLI_SHM_BULK_SIZE (2u << 20)
#define PLI_SHM_BULK_PAGE 4096u
#define PLI_SHM_BULK_MAX (256u * 1024u + 2048u) /* bytes of one payload: the longest message with header part and cookie */
#define PLI_SHM_BULK_PEER_MAX (16u << 20)       /* the largest area that is taken from a peer */
#define PLI_SHM_BULK_RECORDS 64u                /* in the area at once, at most */
#define PLI_SHM_BULK_AFTER 32u                  /* parts of long messages that a link must have sent before */
#define PLI_SHM_BULK_TOTAL (512ull << 20)       /* bytes of all areas of a process; further links do without */

struct pli_shm;

/* A record that the consumer has not passed yet, as far as known. */
struct pli_shm_bulk_rec {
    uint64_t pos; /* its reference in the ring */
    uint32_t begin, end;
};

struct pli_shm_bulk {
    struct pli_segment seg, peer_seg; /* to send in; the peer's */
    bool asked, up;                   /* BULK has been sent; answered */
    uint32_t parts;                   /* of long messages sent so far */
    uint32_t want;                    /* bytes that found no space, 0: none */
    uint64_t seen;                    /* greatest valid bulk cursor read */
    uint32_t head, tail;              /* free-running; tail - head records */
    struct pli_shm_bulk_rec recs[PLI_SHM_BULK_RECORDS];
};

/* A part of a long message goes through the ring: is it time for an area? Failing to get one costs speed only. */
void pli_shm_bulk_wanted(struct pli_shm *s);

/* BULK and BULK_OK. Takes *fd over and sets it to -1, if it needs it. 0 or a negative code: the link fails. */
int pli_shm_bulk_control(struct pli_shm *s, const struct pli_shm_note *note, int *fd);

/* Reads the consumer's bulk cursor anew, and forgets the records that it has passed. False: the peer wrote nonsense there (it went back, or beyond what was sent). */
bool pli_shm_bulk_refresh(struct pli_shm *s);

/* A place for len bytes as of the cursor last read. NULL: there is none. */
void *pli_shm_bulk_place(const struct pli_shm *s, uint32_t len);

/* The bytes at place belong to the record at pos from now on. */
void pli_shm_bulk_took(struct pli_shm *s, const void *place, uint32_t len, uint64_t pos);

/* The payload of a reference in the peer's ring; NULL: it is wrong. */
const void *pli_shm_bulk_find(const struct pli_shm *s, uint64_t offset, uint64_t len);

void pli_shm_bulk_destroy(struct pli_shm *s, bool forked);

#endif
