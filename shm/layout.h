/* SPDX-License-Identifier: BSD-3-Clause */
/* What lies in shared memory. Each side of a link owns one segment, which it alone may write (the peer's mapping is
 * read-only, and the seals forbid another): its send ring, and its own words about the other direction.
 *
 *   0     struct pli_shm_ctl: one page
 *   4096  the first send ring: slots of 64 bytes
 *
 * A larger send ring that replaces the first is a memfd of its own, slots only. So is the bulk area, where the payloads of long
 * records lie, one behind the other. */
#ifndef PLI_SHM_LAYOUT_H
#define PLI_SHM_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PLI_SHM_SLOT 64u
#define PLI_SHM_CTL_SIZE 4096u
#define PLI_SHM_MIN_SLOTS 2u      /* capacity of one record: the slot after it must be free, too */
#define PLI_SHM_MAX_SLOTS 65536u
#define PLI_SHM_FIRST_SLOTS 256u  /* 16 KiB: a quiet link touches 20 KiB on each side */
#define PLI_SHM_GROWN_SLOTS 2048u /* 128 KiB: once the first has been full often, or for long messages */

/* A slot; a record takes one or more in a row. word0 is written last, with release: see doc/memory-model.md. */
struct pli_shm_slot {
    _Atomic uint64_t word0; /* bits 0..31: the slot's absolute number; bits 32..63: the record's meta */
    uint64_t word1;
    uint8_t payload[PLI_SHM_SLOT - 16];
};
_Static_assert(sizeof(struct pli_shm_slot) == PLI_SHM_SLOT, "a slot is one cache line");
_Static_assert(offsetof(struct pli_shm_slot, payload) == 16, "payload follows the two words");

/* Words of the segment's owner. Each line has one writer (the owner's context) and one reader (the peer's). */
struct pli_shm_ctl {
    /* as a receiver of the peer's ring */
    _Atomic uint64_t cursor;     /* every slot below this number may be written again; published lazily */
    _Atomic uint32_t parked;     /* epoch; odd: asleep, write the eventfd */
    uint32_t pad;
    _Atomic uint64_t bulk_cursor;/* the payloads of long records below this number may be written again; published after each */
    uint8_t pad0[64 - 24];
    /* as a sender in the own ring */
    _Atomic uint32_t want_space; /* 1: publish the cursor eagerly, the sender waits for space */
    uint8_t pad1[64 - 4];
};
_Static_assert(sizeof(struct pli_shm_ctl) == 128, "two lines");
_Static_assert(offsetof(struct pli_shm_ctl, parked) == 8, "parked shares the cursor's line");
_Static_assert(offsetof(struct pli_shm_ctl, bulk_cursor) == 16, "and so does bulk_cursor");
_Static_assert(offsetof(struct pli_shm_ctl, want_space) == 64, "want_space has a line of its own");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free to be shared");

/* Records of the transport's own (type byte of meta). */
#define PLI_SHM_PAD 0xf0u    /* nothing here: go on at slot 0 */
#define PLI_SHM_SWITCH 0xf1u /* go on in the larger ring */
#define PLI_SHM_BULK 0xf2u   /* word1 is that of a long record, whose payload lies in the bulk area; struct pli_shm_bulk_ref says where */
struct pli_shm_bulk_ref {
    uint32_t meta; /* of the long record */
    uint32_t pad;
    uint64_t offset; /* a multiple of 64 */
};
_Static_assert(sizeof(struct pli_shm_bulk_ref) == 16, "it fits into a slot");

/* Messages of the transport through the control channel; host byte order, since both are on this host. */
#define PLI_SHM_DESC_MAGIC 0x6d687370u /* "pshm" */
#define PLI_SHM_DESC_VERSION 3u /* 1: without shared slots, 2: without the bulk area */
struct pli_shm_desc { /* connect: fds are the segment and the eventfd */
    uint32_t magic, version;
    uint32_t slots;      /* of the first ring */
    uint32_t ctl_size;   /* PLI_SHM_CTL_SIZE */
    uint64_t size;       /* bytes of the segment */
};
_Static_assert(sizeof(struct pli_shm_desc) == 24, "connect message");

enum { PLI_SHM_CTL_GROW = 1, PLI_SHM_CTL_GROWN = 2, PLI_SHM_CTL_BULK = 3, PLI_SHM_CTL_BULK_OK = 4 };
struct pli_shm_note { /* control: GROW (fd: the new ring) and its answer GROWN; BULK (fd: the area) and BULK_OK */
    uint32_t op;
    uint32_t slots;      /* BULK: pages of 4096 bytes */
};
_Static_assert(sizeof(struct pli_shm_note) == 8, "control message");

#endif
