/* SPDX-License-Identifier: BSD-3-Clause */
/* The record: what a transport moves. Two 64-bit words and a payload, little-endian.
 *
 *   w0   bits  0..31  the transport's own (shm: the slot sequence)
 *        bits 32..39  type          \
 *        bits 40..47  flags          }  "meta", the upper half of w0
 *        bits 48..63  header length /
 *   w1   bits  0..31  data length, bytes in this record
 *        bits 32..47  channel: the receiver's number of the connection
 *        bits 48..63  credit: low 16 bits of the count of messages that the sender of this record has released
 *   payload: the cookie word (8 bytes, only with PLI_RF_COOKIE), the header part, the data.
 *
 *   cookie word  bits 0..31 the requester's number of the request or receipt
 *                bits 32..63 REPLY, RECEIPT: status (int32); with PLI_RF_FRAG: total length of the data
 */
#ifndef PLI_RUNTIME_RECORD_H
#define PLI_RUNTIME_RECORD_H

#include <stdint.h>

enum pli_rec_type {
    PLI_REC_NONE = 0,    /* never sent: zeroed memory */
    PLI_REC_ONEWAY = 1,
    PLI_REC_REQUEST = 2,
    PLI_REC_REPLY = 3,
    PLI_REC_FRAG = 4,    /* a further part of the connection's fragmented message */
    PLI_REC_RECEIPT = 5, /* cookie: a message was released (status 0) or refused */
    PLI_REC_CREDIT = 6,  /* nothing but its credit field */
    PLI_REC_FIN = 7,     /* no new requests or one-way messages follow */
    PLI_REC_DONE = 8,    /* nothing at all follows */
    PLI_REC_ABORT = 9,   /* the connection ended at once; data: int32 code */
    PLI_REC_LINK = 10,   /* channel PLI_CHAN_LINK; data: a frame of wire.h (CONN_OPEN, CONN_ACCEPT, CONN_REFUSE), in order with the data */
    PLI_REC_CANCEL = 11, /* cookie: the sender's number of a message, or of the receipt of its reply: it need not be delivered any more.
                            Also in place of its further parts */
    PLI_REC_NEED = 12,   /* cookie: the peer's number of a message that it offered by addresses, or of the receipt of its reply:
                            they cannot be read */
    PLI_REC_FILL = 13,   /* nothing but data: the next bytes of the message that NEED named */
    PLI_REC_RMA = 14,    /* cookie: the sender's number of it; header part: struct pli_rma_rec (rma.h), a one-sided operation that its target is
                            to do. Long ones with PLI_RF_FRAG, as messages, the rest in RMA_DATA */
    PLI_REC_RMA_ANSWER = 15, /* cookie: its number and status; data: what was read */
    PLI_REC_RMA_DATA = 16,   /* nothing but data: the next bytes of the last RMA or RMA_ANSWER */
    PLI_REC_LAST = 16,
    PLI_REC_TRANSPORT = 0xf0, /* this and above: the transport's own, never delivered */
};

#define PLI_RF_COOKIE 0x01u  /* a cookie word comes first */
#define PLI_RF_FRAG 0x02u    /* first part of a longer message: total length in the cookie word */
#define PLI_RF_RECEIPT 0x04u /* ONEWAY: send a RECEIPT with this cookie */
#define PLI_RF_REF 0x08u     /* the data is not here but named: struct pli_ref_head and its struct pli_ref (offer.h) */
#define PLI_RF_ALL 0x0fu

#define PLI_CHAN_LINK 0xffffu /* the link itself */
#define PLI_REC_HEAD 16u /* bytes of w0 and w1 */

static inline uint32_t pli_rec_meta(enum pli_rec_type type, uint32_t flags, uint32_t hdr_len)
{
    return (uint32_t)type | flags << 8 | hdr_len << 16;
}

static inline uint64_t pli_rec_w1(uint32_t len, uint32_t chan, uint32_t credit)
{
    return (uint64_t)len | (uint64_t)(chan & 0xffffu) << 32 | (uint64_t)(credit & 0xffffu) << 48;
}

static inline uint32_t pli_meta_type(uint32_t meta)
{
    return meta & 0xffu;
}

static inline uint32_t pli_meta_flags(uint32_t meta)
{
    return meta >> 8 & 0xffu;
}

static inline uint32_t pli_meta_hdr_len(uint32_t meta)
{
    return meta >> 16;
}

static inline uint32_t pli_w1_len(uint64_t w1)
{
    return (uint32_t)w1;
}

static inline uint32_t pli_w1_chan(uint64_t w1)
{
    return (uint32_t)(w1 >> 32) & 0xffffu;
}

static inline uint32_t pli_w1_credit(uint64_t w1)
{
    return (uint32_t)(w1 >> 48);
}

/* Payload bytes that meta and w1 announce; 64-bit, so that hostile lengths cannot wrap. */
static inline uint64_t pli_rec_payload(uint32_t meta, uint64_t w1)
{
    return (meta & PLI_RF_COOKIE << 8 ? 8u : 0u) + (uint64_t)pli_meta_hdr_len(meta) + pli_w1_len(w1);
}

#endif
