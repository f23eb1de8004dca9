/* SPDX-License-Identifier: BSD-3-Clause */
/* The control channel's messages: encoding. */
#include "runtime/wire.h"

#include <string.h>

#include "util/err.h"

/* A frame in the making. A field that does not fit sets err; len is then of no use. */
struct writer {
    uint8_t *p;
    size_t cap, len;
    unsigned type;
    int err;
};

static uint8_t *put(struct writer *w, size_t n)
{
    uint8_t *p = w->p + w->len;

    if (w->err)
        return NULL;
    if (n > w->cap - w->len) {
        w->err = pli_fail(PLAIT_E_INVAL, "control message %s: does not fit in %zu bytes",
                          pli_wire_type_name(w->type), w->cap);
        return NULL;
    }
    w->len += n;
    return p;
}

static void store32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void store16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(struct writer *w, uint32_t v)
{
    uint8_t *p = put(w, 4);

    if (p)
        store32(p, v);
}

static void put16(struct writer *w, uint16_t v)
{
    uint8_t *p = put(w, 2);

    if (p)
        store16(p, v);
}

static void put64(struct writer *w, uint64_t v)
{
    put32(w, (uint32_t)v);
    put32(w, (uint32_t)(v >> 32));
}

static void put_raw(struct writer *w, const void *data, size_t n)
{
    uint8_t *p = put(w, n);

    if (p && n)
        memcpy(p, data, n);
}

static void put_bytes(struct writer *w, const char *field, const struct pli_wire_bytes *b, uint32_t max)
{
    if (!w->err && b->len > max)
        w->err = pli_fail(PLAIT_E_INVAL, "control message %s: field '%s': %u bytes are over its limit of %u",
                          pli_wire_type_name(w->type), field, b->len, max);
    put16(w, (uint16_t)b->len);
    put_raw(w, b->p, b->len);
}

/* A sentence: too long or with control characters it is mended, not refused; it only explains what is worse.
 */
static void put_text(struct writer *w, const struct pli_wire_bytes *b)
{
    const uint8_t *text = b->p;
    uint32_t len = b->len;
    uint8_t *p;

    if (len > PLI_WIRE_TEXT_MAX) {
        len = PLI_WIRE_TEXT_MAX;
        while (len > 0 && (text[len] & 0xc0) == 0x80) /* not in the middle of a UTF-8 character */
            len--;
    }
    put16(w, (uint16_t)len);
    p = put(w, len);
    for (uint32_t i = 0; p && i < len; i++)
        p[i] = pli_wire_is_control(text[i]) ? ' ' : text[i];
}

static void put_version(struct writer *w)
{
    put32(w, PLI_WIRE_MAGIC);
    put32(w, PLI_WIRE_VERSION);
}

static void encode_hello(struct writer *w, const struct pli_wire_msg *m)
{
    const struct pli_wire_peer *peer = &m->hello.peer;

    put_version(w);
    put32(w, peer->features);
    put32(w, peer->transports);
    put_raw(w, peer->incarnation, PLI_ID_LEN);
    put_raw(w, peer->host, PLI_HOST_LEN);
    put32(w, peer->ctx_id);
    put32(w, peer->target);
    put32(w, (uint32_t)peer->node);
    put32(w, (uint32_t)peer->pid);
    if (m->type == PLI_WIRE_HELLO)
        put32(w, m->hello.listener);
    else
        put_bytes(w, "blob", &m->hello.blob, PLI_TR_BLOB_MAX);
}

static void encode_session(struct writer *w, const struct pli_wire_msg *m)
{
    switch (m->type) {
    case PLI_WIRE_SESSION_OPEN:
        put_raw(w, m->open.sid, PLI_ID_LEN);
        put32(w, m->open.listener);
        put32(w, m->open.nconns);
        put32(w, (uint32_t)m->open.rank);
        put_bytes(w, "job", &m->open.job, PLI_WIRE_JOB_MAX);
        put_bytes(w, "resource", &m->open.resource, PLI_WIRE_RESOURCE_MAX);
        put_bytes(w, "data", &m->open.data, PLAIT_MAX_PRIVATE);
        break;
    case PLI_WIRE_SESSION_ACCEPT:
        put_raw(w, m->accept.sid, PLI_ID_LEN);
        put32(w, m->accept.nportals);
        put_raw(w, m->accept.portals.p, m->accept.portals.len);
        put_bytes(w, "data", &m->accept.data, PLAIT_MAX_PRIVATE);
        break;
    default:
        put_raw(w, m->reject.sid, PLI_ID_LEN);
        put32(w, (uint32_t)m->reject.code);
        if (m->type == PLI_WIRE_SESSION_CLOSE)
            break;
        put_text(w, &m->reject.text);
        put_bytes(w, "data", &m->reject.data, PLAIT_MAX_PRIVATE);
    }
}

static void encode_conn(struct writer *w, const struct pli_wire_msg *m)
{
    put_raw(w, m->conn.sid, PLI_ID_LEN);
    put32(w, m->conn.index);
    if (m->type != PLI_WIRE_CONN_REFUSE)
        put16(w, m->conn.chan);
    if (m->type != PLI_WIRE_CONN_OPEN)
        put16(w, m->conn.peer_chan);
    if (m->type == PLI_WIRE_CONN_REFUSE) {
        put32(w, (uint32_t)m->conn.code);
        put_text(w, &m->conn.text);
    } else {
        put32(w, m->conn.window);
        put32(w, m->conn.max_msg);
    }
}

static void encode_mem(struct writer *w, const struct pli_wire_msg *m)
{
    put32(w, m->mem.op);
    put32(w, m->mem.key);
    put32(w, (uint32_t)m->mem.code);
    put32(w, m->mem.flags);
    put_raw(w, m->mem.sid, PLI_ID_LEN);
    put64(w, m->mem.addr);
    put64(w, m->mem.len);
    put_text(w, &m->mem.text);
}

static void encode_body(struct writer *w, const struct pli_wire_msg *m)
{
    switch (m->type) {
    case PLI_WIRE_GREETING:
        put_version(w);
        put_raw(w, m->greeting.host, PLI_HOST_LEN);
        put32(w, m->greeting.listener);
        put_bytes(w, "unix_name", &m->greeting.unix_name, PLI_WIRE_NAME_MAX);
        break;
    case PLI_WIRE_HELLO:
    case PLI_WIRE_HELLO_ACK:
        encode_hello(w, m);
        break;
    case PLI_WIRE_REFUSE:
    case PLI_WIRE_BYE:
        put32(w, (uint32_t)m->end.code);
        put_text(w, &m->end.text);
        break;
    case PLI_WIRE_TR_CONNECT:
    case PLI_WIRE_TR_CONTROL:
        put_bytes(w, "blob", &m->tr.blob, PLI_TR_BLOB_MAX);
        break;
    case PLI_WIRE_SESSION_OPEN:
    case PLI_WIRE_SESSION_ACCEPT:
    case PLI_WIRE_SESSION_REJECT:
    case PLI_WIRE_SESSION_CLOSE:
        encode_session(w, m);
        break;
    case PLI_WIRE_CONN_OPEN:
    case PLI_WIRE_CONN_ACCEPT:
    case PLI_WIRE_CONN_REFUSE:
        encode_conn(w, m);
        break;
    case PLI_WIRE_MEM:
        encode_mem(w, m);
        break;
    case PLI_WIRE_TR_UP:
    case PLI_WIRE_TYPES:
        break;
    }
}

int pli_wire_encode(void *buf, size_t cap, const struct pli_wire_msg *msg)
{
    struct writer w = {buf, cap, 0, msg->type, 0};
    struct pli_wire_msg check;
    uint8_t *head = put(&w, PLI_WIRE_HEAD);

    if (!head)
        return w.err;
    encode_body(&w, msg);
    if (w.err)
        return w.err;
    store32(head, (uint32_t)(w.len - PLI_WIRE_HEAD));
    store16(head + 4, (uint16_t)msg->type);
    store16(head + 6, msg->nfds);
    /* what the other side would refuse is refused here, where the mistake is */
    if (pli_wire_parse(buf, w.len, &check) != (int)w.len)
        return pli_fail(PLAIT_E_INVAL, "%s", pli_err_text());
    return (int)w.len;
}
