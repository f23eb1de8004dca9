/* SPDX-License-Identifier: BSD-3-Clause */
/* One valid message of every type, for the tests of the parser and the fuzzer's corpus. */
#ifndef PLI_TEST_WIRE_SAMPLES_H
#define PLI_TEST_WIRE_SAMPLES_H

#include <string.h>

#include "runtime/wire.h"

static inline struct pli_wire_bytes sample_bytes(const char *s)
{
    return (struct pli_wire_bytes){s, (uint32_t)strlen(s)};
}

static inline void sample_peer(struct pli_wire_peer *peer)
{
    peer->version = PLI_WIRE_VERSION;
    peer->features = PLI_FEATURE_MEMBARRIER | PLI_FEATURE_ORDER;
    peer->transports = PLI_TRANSPORT_SHM;
    memset(peer->incarnation, 0xa1, PLI_ID_LEN);
    memset(peer->host, 0xb2, PLI_HOST_LEN);
    peer->ctx_id = 7;
    peer->target = 3;
    peer->node = -1;
    peer->pid = 4711;
}

/* Fills *m with a message of the type; what it points to is static. */
static inline void sample_message(struct pli_wire_msg *m, enum pli_wire_type type)
{
    static const uint8_t portals[3 * 4] = {1, 0, 0, 0, 2, 0, 0, 0, 9, 1, 0, 0};

    memset(m, 0, sizeof *m);
    m->type = type;
    switch (type) {
    case PLI_WIRE_GREETING:
        m->greeting.version = PLI_WIRE_VERSION;
        memset(m->greeting.host, 0xc3, PLI_HOST_LEN);
        m->greeting.listener = 5;
        m->greeting.unix_name = sample_bytes("plait-0123456789abcdef0123456789abcdef");
        break;
    case PLI_WIRE_HELLO:
        sample_peer(&m->hello.peer);
        m->hello.listener = 5;
        break;
    case PLI_WIRE_HELLO_ACK:
        sample_peer(&m->hello.peer);
        m->hello.blob = sample_bytes("what the transport describes");
        m->nfds = 2;
        break;
    case PLI_WIRE_REFUSE:
    case PLI_WIRE_BYE:
        m->end.code = PLAIT_E_PERM;
        m->end.text = sample_bytes("not you");
        break;
    case PLI_WIRE_TR_CONNECT:
    case PLI_WIRE_TR_CONTROL:
        m->tr.blob = sample_bytes("blob");
        m->nfds = type == PLI_WIRE_TR_CONNECT ? 4 : 1;
        break;
    case PLI_WIRE_SESSION_OPEN:
        memset(m->open.sid, 0xd4, PLI_ID_LEN);
        m->open.listener = 5;
        m->open.nconns = 256;
        m->open.rank = 12;
        m->open.job = sample_bytes("prterun-node7-1234@1");
        m->open.resource = sample_bytes("render/high");
        m->open.data = sample_bytes("private data");
        break;
    case PLI_WIRE_SESSION_ACCEPT:
        memset(m->accept.sid, 0xd4, PLI_ID_LEN);
        m->accept.nportals = 3;
        m->accept.portals = (struct pli_wire_bytes){portals, sizeof portals};
        m->accept.data = sample_bytes("welcome");
        break;
    case PLI_WIRE_SESSION_REJECT:
        m->reject.text = sample_bytes("full");
        m->reject.data = sample_bytes("try node8");
        /* fallthrough */
    case PLI_WIRE_SESSION_CLOSE:
        memset(m->reject.sid, 0xd4, PLI_ID_LEN);
        m->reject.code = PLAIT_E_REJECTED;
        break;
    case PLI_WIRE_CONN_OPEN:
    case PLI_WIRE_CONN_ACCEPT:
        memset(m->conn.sid, 0xd4, PLI_ID_LEN);
        m->conn.index = 255;
        m->conn.chan = 65535;
        m->conn.window = 1024;
        m->conn.max_msg = 65536;
        if (type == PLI_WIRE_CONN_ACCEPT)
            m->conn.peer_chan = 3;
        break;
    case PLI_WIRE_CONN_REFUSE:
        memset(m->conn.sid, 0xd4, PLI_ID_LEN);
        m->conn.index = 2;
        m->conn.peer_chan = 3;
        m->conn.code = PLAIT_E_NOTFOUND;
        m->conn.text = sample_bytes("no such session");
        break;
    case PLI_WIRE_MEM:
        m->mem.op = PLI_MEM_EXPORT;
        m->mem.key = 77;
        m->mem.code = PLAIT_E_NOMEM;
        m->mem.flags = 3;
        memset(m->mem.sid, 0xd4, PLI_ID_LEN);
        m->mem.addr = UINT64_C(0x7f0123456789);
        m->mem.len = UINT64_C(1) << 40;
        m->mem.text = sample_bytes("field of the simulation");
        m->nfds = 2;
        break;
    case PLI_WIRE_TR_UP:
    case PLI_WIRE_TYPES:
        break;
    }
}

#endif
