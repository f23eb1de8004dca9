/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/err.h"

static const char *const type_names[PLI_WIRE_TYPES] = {
    NULL,           "GREETING",       "HELLO",          "HELLO_ACK",
    "REFUSE",       "TR_CONNECT",     "TR_UP",          "TR_CONTROL",
    "SESSION_OPEN", "SESSION_ACCEPT", "SESSION_REJECT", "SESSION_CLOSE",
    "CONN_OPEN",    "CONN_ACCEPT",    "CONN_REFUSE",    "BYE",
    "MEM",
};

#define WINDOW_MAX 16384u
#define MSG_MIN 64u

const char *pli_wire_type_name(unsigned type)
{
    return type > 0 && type < PLI_WIRE_TYPES ? type_names[type] : "?";
}

/* Most descriptors that may come with a frame of this type. */
static unsigned fds_max(unsigned type)
{
    switch (type) {
    case PLI_WIRE_HELLO_ACK:
    case PLI_WIRE_TR_CONNECT:
    case PLI_WIRE_TR_CONTROL:
        return PLI_TR_FDS_MAX;
    case PLI_WIRE_MEM:
        return PLI_MEM_FDS_MAX;
    default:
        return 0;
    }
}

/* ---- reading ---- */

/* What is left of a body. After the first error everything reads as zero: callers check once, at the end. */
struct reader {
    const uint8_t *p;
    size_t left;
    unsigned type;
    int err;
};

__attribute__((format(printf, 3, 4), cold)) static void bad(struct reader *r, const char *field,
                                                            const char *fmt, ...)
{
    char what[160];
    va_list ap;

    if (r->err)
        return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    r->err = pli_fail(PLAIT_E_PROTO, "control message %s: field '%s': %s", pli_wire_type_name(r->type), field,
                      what);
}

static const uint8_t *take(struct reader *r, const char *field, size_t n)
{
    const uint8_t *p = r->p;

    if (r->err)
        return NULL;
    if (n > r->left) {
        bad(r, field, "needs %zu bytes, %zu are left in the message", n, r->left);
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(struct reader *r, const char *field)
{
    const uint8_t *p = take(r, field, 4);

    return p ? le32(p) : 0;
}

static uint16_t get16(struct reader *r, const char *field)
{
    const uint8_t *p = take(r, field, 2);

    return p ? le16(p) : 0;
}

static uint64_t get64(struct reader *r, const char *field)
{
    uint64_t low = get32(r, field);

    return low | (uint64_t)get32(r, field) << 32;
}

static void get_raw(struct reader *r, const char *field, void *out, size_t n)
{
    const uint8_t *p = take(r, field, n);

    if (p)
        memcpy(out, p, n);
}

static uint32_t get_range(struct reader *r, const char *field, uint32_t min, uint32_t max)
{
    uint32_t v = get32(r, field);

    if (!r->err && (v < min || v > max))
        bad(r, field, "%u is not in %u..%u", v, min, max);
    return v;
}

/* A number that is at least min. */
static int32_t get_int(struct reader *r, const char *field, int32_t min)
{
    int32_t v = (int32_t)get32(r, field);

    if (!r->err && v < min)
        bad(r, field, "%d is below %d", v, min);
    return v;
}

/* A status code: negative, or 0 where zero_ok. */
static int32_t get_code(struct reader *r, bool zero_ok)
{
    int32_t v = (int32_t)get32(r, "code");

    if (!r->err && (v > 0 || (v == 0 && !zero_ok)))
        bad(r, "code", "%d is not a status code of a failure", v);
    return v;
}

static void get_bytes(struct reader *r, const char *field, struct pli_wire_bytes *b, uint32_t min,
                      uint32_t max)
{
    uint32_t len = get16(r, field);

    if (!r->err && (len < min || len > max))
        bad(r, field, "length %u is not in %u..%u", len, min, max);
    b->p = take(r, field, len);
    b->len = b->p ? len : 0;
}

static void get_text(struct reader *r, const char *field, struct pli_wire_bytes *b, uint32_t min,
                     uint32_t max)
{
    const uint8_t *p;

    get_bytes(r, field, b, min, max);
    p = b->p;
    for (uint32_t i = 0; i < b->len; i++) {
        if (pli_wire_is_control(p[i])) {
            bad(r, field, "byte %u is the control character 0x%02x", i, p[i]);
            return;
        }
    }
}

/* The part that no version may move: whoever reads it knows whether to read on. */
static uint32_t get_version(struct reader *r)
{
    uint32_t magic = get32(r, "magic");
    uint32_t version;

    if (!r->err && magic != PLI_WIRE_MAGIC)
        bad(r, "magic", "0x%08x is not plait's 0x%08x", magic, PLI_WIRE_MAGIC);
    version = get32(r, "version");
    if (!r->err && version != PLI_WIRE_VERSION)
        r->err = pli_fail(PLAIT_E_VERSION,
                          "the peer speaks version %u of plait's protocol, this process version %u; use the "
                          "same release on both sides",
                          version, PLI_WIRE_VERSION);
    return version;
}

static void parse_greeting(struct reader *r, struct pli_wire_msg *m)
{
    m->greeting.version = get_version(r);
    get_raw(r, "host", m->greeting.host, PLI_HOST_LEN);
    m->greeting.listener = get32(r, "listener");
    get_text(r, "unix_name", &m->greeting.unix_name, 1, PLI_WIRE_NAME_MAX);
}

static void parse_hello(struct reader *r, struct pli_wire_msg *m)
{
    struct pli_wire_peer *peer = &m->hello.peer;

    peer->version = get_version(r);
    peer->features = get32(r, "features");
    if (!r->err && (peer->features & PLI_FEATURE_BIG_ENDIAN) != PLI_FEATURE_ORDER)
        r->err = pli_fail(PLAIT_E_VERSION, "the peer's machine is %s-endian and this one is not; plait joins machines of one byte order only",
                          PLI_FEATURE_ORDER ? "little" : "big");
    peer->transports = get_range(r, "transports", 1, UINT32_MAX);
    if (!r->err && r->type == PLI_WIRE_HELLO_ACK && (peer->transports & (peer->transports - 1)) != 0)
        bad(r, "transports", "0x%x names more than one", peer->transports);
    get_raw(r, "incarnation", peer->incarnation, PLI_ID_LEN);
    get_raw(r, "host", peer->host, PLI_HOST_LEN);
    peer->ctx_id = get_range(r, "ctx_id", 1, UINT32_MAX);
    peer->target = get32(r, "target");
    peer->node = get_int(r, "node", -1);
    peer->pid = get_int(r, "pid", 0);
    if (r->type == PLI_WIRE_HELLO)
        m->hello.listener = get32(r, "listener");
    else
        get_bytes(r, "blob", &m->hello.blob, 0, PLI_TR_BLOB_MAX);
}

static void parse_open(struct reader *r, struct pli_wire_msg *m)
{
    get_raw(r, "sid", m->open.sid, PLI_ID_LEN);
    m->open.listener = get32(r, "listener");
    m->open.nconns = get_range(r, "nconns", 1, PLAIT_MAX_CONNS);
    m->open.rank = get_int(r, "rank", -1);
    get_text(r, "job", &m->open.job, 0, PLI_WIRE_JOB_MAX);
    get_text(r, "resource", &m->open.resource, 0, PLI_WIRE_RESOURCE_MAX);
    get_bytes(r, "data", &m->open.data, 0, PLAIT_MAX_PRIVATE);
}

static void parse_accept(struct reader *r, struct pli_wire_msg *m)
{
    get_raw(r, "sid", m->accept.sid, PLI_ID_LEN);
    m->accept.nportals = get_range(r, "nportals", 1, PLAIT_MAX_CONNS);
    if (r->err)
        return;
    m->accept.portals.p = take(r, "portals", m->accept.nportals * 4);
    if (r->err)
        return;
    m->accept.portals.len = m->accept.nportals * 4;
    for (uint32_t i = 0; i < m->accept.nportals; i++)
        if (pli_wire_portal(m, i) == 0)
            bad(r, "portals", "number %u is 0, which is no context", i);
    get_bytes(r, "data", &m->accept.data, 0, PLAIT_MAX_PRIVATE);
}

static void parse_reject(struct reader *r, struct pli_wire_msg *m)
{
    bool close = r->type == PLI_WIRE_SESSION_CLOSE;

    get_raw(r, "sid", m->reject.sid, PLI_ID_LEN);
    m->reject.code = get_code(r, close);
    if (close)
        return;
    get_text(r, "text", &m->reject.text, 0, PLI_WIRE_TEXT_MAX);
    get_bytes(r, "data", &m->reject.data, 0, PLAIT_MAX_PRIVATE);
}

static void parse_conn(struct reader *r, struct pli_wire_msg *m)
{
    get_raw(r, "sid", m->conn.sid, PLI_ID_LEN);
    m->conn.index = get_range(r, "index", 0, PLAIT_MAX_CONNS - 1);
    if (r->type != PLI_WIRE_CONN_REFUSE)
        m->conn.chan = get16(r, "chan");
    if (r->type != PLI_WIRE_CONN_OPEN)
        m->conn.peer_chan = get16(r, "peer_chan");
    if (r->type == PLI_WIRE_CONN_REFUSE) {
        m->conn.code = get_code(r, false);
        get_text(r, "text", &m->conn.text, 0, PLI_WIRE_TEXT_MAX);
    } else {
        m->conn.window = get_range(r, "window", 1, WINDOW_MAX);
        m->conn.max_msg = get_range(r, "max_msg", MSG_MIN, PLAIT_MSG_MAX);
    }
}

static void parse_mem(struct reader *r, struct pli_wire_msg *m)
{
    m->mem.op = get_range(r, "op", 1, PLI_MEM_OPS - 1);
    m->mem.key = get32(r, "key");
    m->mem.code = (int32_t)get32(r, "code");
    if (!r->err && m->mem.code > 0)
        bad(r, "code", "%d is not a status code", m->mem.code);
    m->mem.flags = get32(r, "flags");
    get_raw(r, "sid", m->mem.sid, PLI_ID_LEN);
    m->mem.addr = get64(r, "addr");
    m->mem.len = get64(r, "len");
    get_text(r, "text", &m->mem.text, 0, PLI_WIRE_TEXT_MAX);
}

static void parse_body(struct reader *r, struct pli_wire_msg *m)
{
    switch (m->type) {
    case PLI_WIRE_GREETING:
        parse_greeting(r, m);
        break;
    case PLI_WIRE_HELLO:
    case PLI_WIRE_HELLO_ACK:
        parse_hello(r, m);
        break;
    case PLI_WIRE_REFUSE:
    case PLI_WIRE_BYE:
        m->end.code = get_code(r, m->type == PLI_WIRE_BYE);
        get_text(r, "text", &m->end.text, 0, PLI_WIRE_TEXT_MAX);
        break;
    case PLI_WIRE_TR_CONNECT:
    case PLI_WIRE_TR_CONTROL:
        get_bytes(r, "blob", &m->tr.blob, 0, PLI_TR_BLOB_MAX);
        break;
    case PLI_WIRE_SESSION_OPEN:
        parse_open(r, m);
        break;
    case PLI_WIRE_SESSION_ACCEPT:
        parse_accept(r, m);
        break;
    case PLI_WIRE_SESSION_REJECT:
    case PLI_WIRE_SESSION_CLOSE:
        parse_reject(r, m);
        break;
    case PLI_WIRE_CONN_OPEN:
    case PLI_WIRE_CONN_ACCEPT:
    case PLI_WIRE_CONN_REFUSE:
        parse_conn(r, m);
        break;
    case PLI_WIRE_MEM:
        parse_mem(r, m);
        break;
    case PLI_WIRE_TR_UP:
    case PLI_WIRE_TYPES:
        break;
    }
}

/* Frames of another version end here, whatever follows in them and however long they are. */
static int check_version(const uint8_t *body, size_t len, unsigned type)
{
    struct reader r = {body, len, type, 0};

    if (type != PLI_WIRE_GREETING && type != PLI_WIRE_HELLO && type != PLI_WIRE_HELLO_ACK)
        return 0;
    if (len >= 8)
        get_version(&r);
    return r.err;
}

int pli_wire_parse(const void *buf, size_t len, struct pli_wire_msg *msg)
{
    const uint8_t *p = buf;
    struct reader r;
    uint32_t body;
    unsigned type, nfds;
    int err;

    memset(msg, 0, sizeof *msg);
    if (len < PLI_WIRE_HEAD)
        return 0;
    body = le32(p);
    type = le16(p + 4);
    nfds = le16(p + 6);
    if (type == 0 || type >= PLI_WIRE_TYPES)
        return pli_fail(PLAIT_E_PROTO,
                        "control message of unknown type %u and length %u; is the other side "
                        "plait?",
                        type, body);
    msg->type = (enum pli_wire_type)type;
    err = check_version(p + PLI_WIRE_HEAD, len - PLI_WIRE_HEAD < body ? len - PLI_WIRE_HEAD : body, type);
    if (err)
        return err;
    if (body > PLI_WIRE_MAX)
        return pli_fail(PLAIT_E_PROTO, "control message %s: field 'length': %u is over the limit of %u bytes",
                        pli_wire_type_name(type), body, PLI_WIRE_MAX);
    if (nfds > fds_max(type))
        return pli_fail(PLAIT_E_PROTO,
                        "control message %s: field 'nfds': %u descriptors, at most %u "
                        "belong to it",
                        pli_wire_type_name(type), nfds, fds_max(type));
    if (len - PLI_WIRE_HEAD < body)
        return 0;
    msg->nfds = (uint16_t)nfds;
    r = (struct reader){p + PLI_WIRE_HEAD, body, type, 0};
    parse_body(&r, msg);
    if (!r.err && r.left)
        r.err = pli_fail(PLAIT_E_PROTO, "control message %s: %zu bytes follow its last field",
                         pli_wire_type_name(type), r.left);
    return r.err ? r.err : (int)(PLI_WIRE_HEAD + body);
}

size_t pli_wire_frame_len(const void *head)
{
    return PLI_WIRE_HEAD + (size_t)le32(head);
}

uint32_t pli_wire_portal(const struct pli_wire_msg *msg, uint32_t i)
{
    const uint8_t *p = msg->accept.portals.p;

    return i < msg->accept.nportals ? le32(p + 4 * (size_t)i) : 0;
}
