/* SPDX-License-Identifier: BSD-3-Clause */
/* What goes over the fabric: a packet is a head and whole records, one behind the other. Little-endian, as record.h.
 *
 *   head    struct pli_ofi_head
 *   record  w0 (upper half: meta; lower half 0), w1, payload, zeros up to a multiple of 8
 *   tail    the receiver's tag and the packet's number once more: where no completion is asked for, who sees this has the whole packet
 *
 * A packet fits into the buffer that the receiver has posted for it. Both sides count a link's packets from 0. On a connected endpoint they
 * arrive in that order, packet n takes the n-th buffer, and from number big_from on these are large. On one of reliable datagrams the
 * buffers are those of all links, and small.
 *
 * Credits: grant is how many packets the sender of this head has posted buffers for in all. Packet n may be sent when n < grant; one with
 * records only when n + 1 < grant, so that there is always a buffer for a packet that has no record and brings a grant. */
#ifndef PLI_FABRIC_PACKET_H
#define PLI_FABRIC_PACKET_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/record.h"

#define PLI_OFI_MAGIC 0x6b61u

struct pli_ofi_head {
    uint16_t magic;
    uint16_t records;  /* how many follow; 0: it only brings the grant */
    uint32_t tag;      /* the receiver's own, from its description: a stranger does not know it */
    uint32_t link;     /* the receiver's number of the link */
    uint32_t grant;
    uint32_t big_from; /* UINT32_MAX: never so far */
    uint32_t number;   /* of this packet, from 0 */
    uint32_t len;      /* of the whole packet; after all else that is looked at before the tail */
    uint32_t zero;
};
static_assert(sizeof(struct pli_ofi_head) == 32, "packet head");
static_assert(offsetof(struct pli_ofi_head, grant) == 12, "packet head");
static_assert(offsetof(struct pli_ofi_head, number) == 20, "packet head");
static_assert(offsetof(struct pli_ofi_head, len) == 24, "packet head");

#define PLI_OFI_TAIL 8u

static inline uint64_t pli_ofi_tail(uint32_t tag, uint32_t number)
{
    return (uint64_t)tag << 32 | number;
}

enum {
    PLI_OFI_SMALL = 3584,       /* bytes of a small packet, and of its buffer: four of them, and all else of an idle link, are below 16 KiB */
    PLI_OFI_BIG = 262144,       /* of a large one: over tcp 64 KiB reach 0.6 of a bare stream, these 0.7, and longer ones no more */
    PLI_OFI_WINDOW_MIN = 4,     /* buffers of a quiet link */
    PLI_OFI_WINDOW_MAX = 8,     /* of one that carries much */
    PLI_OFI_WINDOW_RDM = 32,    /* the same where all packets are small */
    PLI_OFI_SILENT = 3,         /* packets in a row that may go without a completion, where that helps */
    PLI_OFI_TX_MAX = 16,        /* packets of one link with the provider at a time: more than credits allow, and those that wait for a
                                   later one's completion */
};

/* Bytes that a record of that many payload bytes takes. */
static inline uint64_t pli_ofi_rec_size(uint64_t payload)
{
    return PLI_REC_HEAD + ((payload + 7) & ~UINT64_C(7));
}

/* Most payload bytes of a record in a packet of size bytes. */
static inline uint32_t pli_ofi_payload_max(uint32_t size)
{
    return size - (uint32_t)sizeof(struct pli_ofi_head) - PLI_REC_HEAD - PLI_OFI_TAIL;
}

/* The record at offset at of a packet of len bytes: its words, and where the next one begins. False: it does not fit into the packet. */
static inline int pli_ofi_rec_parse(const uint8_t *packet, uint32_t len, uint32_t at, uint32_t *meta, uint64_t *w1, uint32_t *next)
{
    uint64_t w0, size;

    if (at > len || len - at < PLI_REC_HEAD)
        return 0;
    __builtin_memcpy(&w0, packet + at, 8);
    __builtin_memcpy(w1, packet + at + 8, 8);
    *meta = (uint32_t)(w0 >> 32);
    size = pli_ofi_rec_size(pli_rec_payload(*meta, *w1));
    if (size > len - at)
        return 0;
    *next = at + (uint32_t)size;
    return 1;
}

/* How a side describes itself to the other one through the control channel: the transport's blob. */
struct pli_ofi_desc {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;        /* enum pli_ofi_kind */
    uint32_t link;        /* for pli_ofi_head.link of packets to it */
    uint32_t tag;
    uint8_t token[16];    /* MSG: names the link in a request for a connection */
    uint32_t window;      /* buffers that are posted to begin with */
    uint16_t addr_format;
    uint16_t addr_len;
    char provider[32];    /* NUL-padded */
    uint8_t addr[64];     /* MSG: where it listens; none (addr_len 0) from the side that connects. RDM: of the endpoint */
    uint32_t small, big;  /* bytes of its packets: both sides must have the same */
};
static_assert(sizeof(struct pli_ofi_desc) == 144, "description");
static_assert(offsetof(struct pli_ofi_desc, window) == 32, "description");
static_assert(offsetof(struct pli_ofi_desc, addr) == 72, "description");
static_assert(offsetof(struct pli_ofi_desc, small) == 136, "description");
static_assert(offsetof(struct pli_ofi_desc, big) == 140, "description");

#define PLI_OFI_DESC_MAGIC 0x69666f70u
#define PLI_OFI_DESC_VERSION 2u

/* The private data of a request for a connection. */
struct pli_ofi_cm {
    uint32_t magic;
    uint8_t token[16];
};
static_assert(sizeof(struct pli_ofi_cm) == 20, "connection request");

#endif
