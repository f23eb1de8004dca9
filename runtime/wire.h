/* SPDX-License-Identifier: BSD-3-Clause */
/* The control channel's messages: encoding and a parser that is a pure function (a fuzzer calls it). See
 * doc/wire.md.
 *
 * A frame: u32 length of the body, u16 type, u16 number of file descriptors that come with it, body.
 * Little-endian, no padding. Strings and data: u16 length and bytes. The first frame of each side is GREETING
 * or HELLO, whose body begins with PLI_WIRE_MAGIC and a version that never moves, so that any two versions
 * can refuse each other with a sentence. */
#ifndef PLI_RUNTIME_WIRE_H
#define PLI_RUNTIME_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include "plait/session.h"
#include "runtime/transport.h"

#define PLI_WIRE_MAGIC 0x74696c70u /* "plit" */
#define PLI_WIRE_VERSION 3u
#define PLI_WIRE_HEAD 8u
#define PLI_WIRE_MAX 16384u /* most bytes of a body */
#define PLI_WIRE_TEXT_MAX 255u
#define PLI_WIRE_RESOURCE_MAX 1023u
#define PLI_WIRE_NAME_MAX 64u
#define PLI_WIRE_JOB_MAX 255u

enum pli_wire_type {
    PLI_WIRE_GREETING = 1, /* server, TCP only: who I am, where my AF_UNIX socket is */
    PLI_WIRE_HELLO,        /* client: who I am, which context I want */
    PLI_WIRE_HELLO_ACK,    /* server: who I am, the transport, its description (descriptors) */
    PLI_WIRE_REFUSE,       /* either, before the link is up: code and sentence; then the channel is closed */
    PLI_WIRE_TR_CONNECT,   /* client: its side of the transport (descriptors) */
    PLI_WIRE_TR_UP,        /* server: connected; the link is up */
    PLI_WIRE_TR_CONTROL,   /* either: the transport's own message (descriptors) */
    PLI_WIRE_SESSION_OPEN, /* client */
    PLI_WIRE_SESSION_ACCEPT, /* server */
    PLI_WIRE_SESSION_REJECT, /* server */
    PLI_WIRE_SESSION_CLOSE,  /* client: given up before or after its connections */
    PLI_WIRE_CONN_OPEN,   /* client, in a LINK record of the link that will carry it; so are the next two */
    PLI_WIRE_CONN_ACCEPT, /* server */
    PLI_WIRE_CONN_REFUSE, /* server */
    PLI_WIRE_BYE,         /* either: the link is closed on purpose; code and sentence */
    PLI_WIRE_MEM,         /* either: of regions; enum pli_mem_op says what (descriptors) */
    PLI_WIRE_TYPES        /* one past the last */
};

/* What a MEM frame says. A key is a number that the owner of a region gave it for this link; above 0, never used twice. */
enum pli_mem_op {
    PLI_MEM_SHARE = 1, /* owner: this region (one descriptor, sealed) is going to be named in offers: key, len, text: its name */
    PLI_MEM_SHARED,    /* the other side: key is mapped (code 0), or will not be: code, text */
    PLI_MEM_REVOKE,    /* owner: key is not named any more */
    PLI_MEM_EXPORT,    /* owner: for one-sided operations of session sid: key, len, flags, text (descriptors: region, key page) */
    PLI_MEM_EXPORTED,  /* the other side: key is mapped, or will not be: code, text */
    PLI_MEM_WITHDRAW,  /* owner: key must not be used any more */
    PLI_MEM_WITHDRAWN, /* the other side: it is not, from here on */
    PLI_MEM_PROBE,     /* can you read len bytes at addr of my memory, which begin with sid? */
    PLI_MEM_PROBED,    /* yes, and it is faster than the ring from len bytes on (code 0), or no: code, text */
    PLI_MEM_OPS        /* one past the last */
};
#define PLI_MEM_FDS_MAX 2

#define PLI_ID_LEN 16
#define PLI_HOST_LEN 32

#define PLI_FEATURE_MEMBARRIER 0x1u /* this process pays for its sleep with membarrier(2) */
#define PLI_FEATURE_BIG_ENDIAN 0x2u /* its records, and what users send, have that byte order */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define PLI_FEATURE_ORDER PLI_FEATURE_BIG_ENDIAN /* of this process */
#else
#define PLI_FEATURE_ORDER 0u
#endif
#define PLI_TRANSPORT_SHM 0x1u
#define PLI_TRANSPORT_OFI 0x2u

/* A process and a context of it. */
struct pli_wire_peer {
    uint32_t version;
    uint32_t features;               /* PLI_FEATURE_... */
    uint32_t transports;             /* PLI_TRANSPORT_..., HELLO: wanted, HELLO_ACK: the chosen one */
    uint8_t incarnation[PLI_ID_LEN]; /* random for each process start */
    uint8_t host[PLI_HOST_LEN];      /* boot id, network and user namespace: see identity.c */
    uint32_t ctx_id;                 /* the context that speaks */
    uint32_t target;                 /* HELLO: the context that is wanted, 0: the listener's */
    int32_t node;                    /* NUMA node of the context, -1 unknown */
    int32_t pid;                     /* for messages only */
};

struct pli_wire_bytes {
    const void *p; /* into the frame */
    uint32_t len;
};

/* A decoded message. Bytes and text point into the frame and live as long as it. */
struct pli_wire_msg {
    enum pli_wire_type type;
    uint16_t nfds;
    bool fds_lost; /* set by the channel: there were descriptors, and this process had no room for them; nfds is 0 */
    union {
        struct {
            uint32_t version;
            uint8_t host[PLI_HOST_LEN];
            uint32_t listener;               /* the listener's number in its process */
            struct pli_wire_bytes unix_name; /* abstract name, without the leading zero byte */
        } greeting;
        struct {
            struct pli_wire_peer peer;
            uint32_t listener;          /* HELLO: which listener was connected to */
            struct pli_wire_bytes blob; /* HELLO_ACK: the transport's description */
        } hello;                        /* HELLO and HELLO_ACK */
        struct {
            int32_t code;
            struct pli_wire_bytes text;
        } end; /* REFUSE and BYE */
        struct {
            struct pli_wire_bytes blob;
        } tr; /* TR_CONNECT, TR_CONTROL (TR_UP has no body) */
        struct {
            uint8_t sid[PLI_ID_LEN];
            uint32_t listener;
            uint32_t nconns;           /* 1..PLAIT_MAX_CONNS, checked */
            int32_t rank;              /* in the job named by job, or -1 */
            struct pli_wire_bytes job; /* at most 255 bytes */
            struct pli_wire_bytes resource;
            struct pli_wire_bytes data;
        } open;
        struct {
            uint8_t sid[PLI_ID_LEN];
            uint32_t nportals;             /* 1..PLAIT_MAX_CONNS, checked */
            struct pli_wire_bytes portals; /* nportals u32: context ids; read with pli_wire_portal() */
            struct pli_wire_bytes data;
        } accept;
        struct {
            uint8_t sid[PLI_ID_LEN];
            int32_t code;
            struct pli_wire_bytes text;
            struct pli_wire_bytes data;
        } reject; /* SESSION_REJECT; SESSION_CLOSE without text and data */
        struct {
            uint8_t sid[PLI_ID_LEN];
            uint32_t index;     /* of the connection in the session, < PLAIT_MAX_CONNS, checked */
            uint16_t chan;      /* the sender's channel number: what the other side writes into records */
            uint16_t peer_chan; /* CONN_ACCEPT, CONN_REFUSE: the channel number of CONN_OPEN */
            uint32_t
                window; /* messages that the sender lets the other side have unreleased, 1..16384, checked */
            uint32_t max_msg; /* bytes, 64..PLAIT_MSG_MAX, checked */
            int32_t code;     /* CONN_REFUSE */
            struct pli_wire_bytes text;
        } conn;
        struct {
            uint32_t op;  /* enum pli_mem_op, checked; what else it needs is for its reader to check */
            uint32_t key;
            int32_t code; /* 0 or negative, checked */
            uint32_t flags;
            uint8_t sid[PLI_ID_LEN];
            uint64_t addr, len;
            struct pli_wire_bytes text;
        } mem;
    };
};

/* Text goes into error messages and logs of the other side: without control bytes it cannot forge lines or
 * move a terminal's cursor. */
static inline bool pli_wire_is_control(uint8_t c)
{
    return c < 0x20 || c == 0x7f;
}

/* Looks at len received bytes. >0: a whole frame of that many bytes was decoded into *msg. 0: more bytes are
 * needed. <0: PLAIT_E_PROTO (text names the frame type and field) or PLAIT_E_VERSION (text has both versions;
 * told as soon as the version is there, whatever follows it). msg->type is set in any case once it is known.
 * Pure: reads nothing beyond len, keeps nothing, calls nothing but pli_fail. Every length, count and
 * enumerated value is checked here. Bytes that somebody else may change meanwhile (shared memory) must be
 * copied first. */
int pli_wire_parse(const void *buf, size_t len, struct pli_wire_msg *msg);

/* Bytes of the frame that begins with these PLI_WIRE_HEAD bytes, for which pli_wire_parse() has asked for more. */
size_t pli_wire_frame_len(const void *head);

/* Encodes *msg into buf of cap bytes (PLI_WIRE_HEAD + PLI_WIRE_MAX always suffices for valid messages).
 * Returns the bytes of the frame, or PLAIT_E_INVAL for anything that pli_wire_parse() would refuse. The
 * version is always this one's. A text that is too long is cut, and control characters in it become spaces,
 * so that a user's sentence never makes a message fail. */
int pli_wire_encode(void *buf, size_t cap, const struct pli_wire_msg *msg);

/* Portal i of a decoded SESSION_ACCEPT; 0 if there is none. */
uint32_t pli_wire_portal(const struct pli_wire_msg *msg, uint32_t i);

/* "SESSION_OPEN"; "?" for an unknown type. */
const char *pli_wire_type_name(unsigned type);

#endif
