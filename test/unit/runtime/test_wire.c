/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/unit/runtime/wire_samples.h"
#include "util/err.h"

#define CAP (PLI_WIRE_HEAD + PLI_WIRE_MAX)

static uint8_t frame[CAP];

static int encode_sample(enum pli_wire_type type)
{
    struct pli_wire_msg m;
    int len;

    sample_message(&m, type);
    len = pli_wire_encode(frame, sizeof frame, &m);
    cr_assert_gt(len, 0, "%s: %s", pli_wire_type_name(type), pli_err_text());
    return len;
}

static void put32(size_t at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        frame[at + (size_t)i] = (uint8_t)(v >> 8 * i);
}

static void same_bytes(struct pli_wire_bytes a, struct pli_wire_bytes b)
{
    cr_expect_eq(a.len, b.len);
    cr_expect(a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

static void same_message(const struct pli_wire_msg *a, const struct pli_wire_msg *b)
{
    switch (a->type) {
    case PLI_WIRE_GREETING:
        cr_expect_eq(a->greeting.version, b->greeting.version);
        cr_expect_arr_eq(a->greeting.host, b->greeting.host, PLI_HOST_LEN);
        cr_expect_eq(a->greeting.listener, b->greeting.listener);
        same_bytes(a->greeting.unix_name, b->greeting.unix_name);
        break;
    case PLI_WIRE_HELLO:
    case PLI_WIRE_HELLO_ACK:
        cr_expect_arr_eq(&a->hello.peer, &b->hello.peer, sizeof a->hello.peer);
        cr_expect_eq(a->hello.listener, b->hello.listener);
        same_bytes(a->hello.blob, b->hello.blob);
        break;
    case PLI_WIRE_REFUSE:
    case PLI_WIRE_BYE:
        cr_expect_eq(a->end.code, b->end.code);
        same_bytes(a->end.text, b->end.text);
        break;
    case PLI_WIRE_TR_CONNECT:
    case PLI_WIRE_TR_CONTROL:
        same_bytes(a->tr.blob, b->tr.blob);
        break;
    case PLI_WIRE_MEM:
        cr_expect_eq(a->mem.op, b->mem.op);
        cr_expect_eq(a->mem.key, b->mem.key);
        cr_expect_eq(a->mem.code, b->mem.code);
        cr_expect_eq(a->mem.flags, b->mem.flags);
        cr_expect_arr_eq(a->mem.sid, b->mem.sid, PLI_ID_LEN);
        cr_expect_eq(a->mem.addr, b->mem.addr);
        cr_expect_eq(a->mem.len, b->mem.len);
        same_bytes(a->mem.text, b->mem.text);
        break;
    case PLI_WIRE_SESSION_OPEN:
        cr_expect_arr_eq(a->open.sid, b->open.sid, PLI_ID_LEN);
        cr_expect_eq(a->open.listener, b->open.listener);
        cr_expect_eq(a->open.nconns, b->open.nconns);
        cr_expect_eq(a->open.rank, b->open.rank);
        same_bytes(a->open.job, b->open.job);
        same_bytes(a->open.resource, b->open.resource);
        same_bytes(a->open.data, b->open.data);
        break;
    case PLI_WIRE_SESSION_ACCEPT:
        cr_expect_arr_eq(a->accept.sid, b->accept.sid, PLI_ID_LEN);
        cr_expect_eq(a->accept.nportals, b->accept.nportals);
        same_bytes(a->accept.portals, b->accept.portals);
        same_bytes(a->accept.data, b->accept.data);
        break;
    case PLI_WIRE_SESSION_REJECT:
    case PLI_WIRE_SESSION_CLOSE:
        cr_expect_arr_eq(a->reject.sid, b->reject.sid, PLI_ID_LEN);
        cr_expect_eq(a->reject.code, b->reject.code);
        same_bytes(a->reject.text, b->reject.text);
        same_bytes(a->reject.data, b->reject.data);
        break;
    case PLI_WIRE_CONN_OPEN:
    case PLI_WIRE_CONN_ACCEPT:
    case PLI_WIRE_CONN_REFUSE:
        cr_expect_arr_eq(a->conn.sid, b->conn.sid, PLI_ID_LEN);
        cr_expect_eq(a->conn.index, b->conn.index);
        cr_expect_eq(a->conn.chan, b->conn.chan);
        cr_expect_eq(a->conn.peer_chan, b->conn.peer_chan);
        cr_expect_eq(a->conn.window, b->conn.window);
        cr_expect_eq(a->conn.max_msg, b->conn.max_msg);
        cr_expect_eq(a->conn.code, b->conn.code);
        same_bytes(a->conn.text, b->conn.text);
        break;
    default:
        break;
    }
}

Test(wire, every_type_comes_back_as_it_was)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        struct pli_wire_msg in, out;
        int len = encode_sample((enum pli_wire_type)type);

        sample_message(&in, (enum pli_wire_type)type);
        cr_assert_eq(pli_wire_parse(frame, (size_t)len, &out), len, "%s: %s", pli_wire_type_name(type),
                     pli_err_text());
        cr_expect_eq(out.type, in.type);
        cr_expect_eq(out.nfds, in.nfds);
        same_message(&in, &out);
    }
}

Test(wire, every_type_has_a_name)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++)
        cr_expect_str_neq(pli_wire_type_name(type), "?", "type %u", type);
    cr_expect_str_eq(pli_wire_type_name(0), "?");
    cr_expect_str_eq(pli_wire_type_name(PLI_WIRE_TYPES), "?");
    cr_expect_str_eq(pli_wire_type_name(60000), "?");
}

Test(wire, a_truncated_frame_needs_more)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        int len = encode_sample((enum pli_wire_type)type);

        for (int n = 0; n < len; n++) {
            struct pli_wire_msg m;
            /* a block of exactly n bytes, so that AddressSanitizer and valgrind see every byte too many */
            uint8_t *copy = malloc((size_t)n);

            if (n > 0)
                memcpy(copy, frame, (size_t)n);
            cr_expect_eq(pli_wire_parse(copy, (size_t)n, &m), 0, "%s cut to %d", pli_wire_type_name(type), n);
            free(copy);
        }
    }
}

Test(wire, a_body_that_is_too_short_or_too_long_for_its_type_is_refused)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        int len = encode_sample((enum pli_wire_type)type);
        struct pli_wire_msg m;

        for (uint32_t body = 0; body < (uint32_t)len - PLI_WIRE_HEAD; body++) {
            put32(0, body);
            cr_expect_lt(pli_wire_parse(frame, (size_t)len, &m), 0, "%s with a body of %u",
                         pli_wire_type_name(type), body);
        }
        put32(0, (uint32_t)len - PLI_WIRE_HEAD + 1);
        frame[len] = 0;
        cr_expect_eq(pli_wire_parse(frame, (size_t)len + 1, &m), PLAIT_E_PROTO);
        cr_expect(strstr(pli_err_text(), "1 bytes follow"), "%s", pli_err_text());
    }
}

Test(wire, two_frames_in_one_buffer_are_taken_one_by_one)
{
    int first = encode_sample(PLI_WIRE_TR_UP), second;
    struct pli_wire_msg m;
    uint8_t two[2 * CAP];

    memcpy(two, frame, (size_t)first);
    second = encode_sample(PLI_WIRE_BYE);
    memcpy(two + first, frame, (size_t)second);
    cr_expect_eq(pli_wire_parse(two, (size_t)(first + second), &m), first);
    cr_expect_eq(m.type, PLI_WIRE_TR_UP);
    cr_expect_eq(pli_wire_parse(two + first, (size_t)second, &m), second);
    cr_expect_eq(m.type, PLI_WIRE_BYE);
}

/* One byte string at one place of a sample's body makes it invalid, and the sentence names the field. */
struct defect {
    enum pli_wire_type type;
    unsigned at; /* in the body */
    uint32_t value;
    unsigned bytes;
    const char *field;
};

static const struct defect defects[] = {
    {PLI_WIRE_GREETING, 0, 0x50545448, 4, "'magic'"},
    {PLI_WIRE_GREETING, 44, 0, 2, "'unix_name'"},
    {PLI_WIRE_GREETING, 44, 65, 2, "'unix_name'"},
    {PLI_WIRE_GREETING, 46, 0, 1, "'unix_name'"},
    {PLI_WIRE_HELLO, 0, 0, 4, "'magic'"},
    {PLI_WIRE_HELLO, 12, 0, 4, "'transports'"},
    {PLI_WIRE_HELLO, 64, 0, 4, "'ctx_id'"},
    {PLI_WIRE_HELLO, 72, (uint32_t)-2, 4, "'node'"},
    {PLI_WIRE_HELLO, 76, (uint32_t)-1, 4, "'pid'"},
    {PLI_WIRE_HELLO_ACK, 12, 3, 4, "'transports'"},
    {PLI_WIRE_HELLO_ACK, 80, 257, 2, "'blob'"},
    {PLI_WIRE_HELLO_ACK, 80, 29, 2, "'blob'"},
    {PLI_WIRE_REFUSE, 0, 0, 4, "'code'"},
    {PLI_WIRE_REFUSE, 0, 5, 4, "'code'"},
    {PLI_WIRE_REFUSE, 4, 256, 2, "'text'"},
    {PLI_WIRE_REFUSE, 6, '\n', 1, "'text'"},
    {PLI_WIRE_REFUSE, 8, 0x7f, 1, "'text'"},
    {PLI_WIRE_TR_CONNECT, 0, 257, 2, "'blob'"},
    {PLI_WIRE_TR_CONTROL, 0, 5, 2, "'blob'"},
    {PLI_WIRE_SESSION_OPEN, 20, 0, 4, "'nconns'"},
    {PLI_WIRE_SESSION_OPEN, 20, 257, 4, "'nconns'"},
    {PLI_WIRE_SESSION_OPEN, 24, (uint32_t)-2, 4, "'rank'"},
    {PLI_WIRE_SESSION_OPEN, 28, 256, 2, "'job'"},
    {PLI_WIRE_SESSION_OPEN, 30, 0, 1, "'job'"},
    {PLI_WIRE_SESSION_OPEN, 50, 1024, 2, "'resource'"},
    {PLI_WIRE_SESSION_OPEN, 52, 27, 1, "'resource'"},
    {PLI_WIRE_SESSION_OPEN, 63, 4097, 2, "'data'"},
    {PLI_WIRE_SESSION_ACCEPT, 16, 0, 4, "'nportals'"},
    {PLI_WIRE_SESSION_ACCEPT, 16, 257, 4, "'nportals'"},
    {PLI_WIRE_SESSION_ACCEPT, 16, 200, 4, "'portals'"},
    {PLI_WIRE_SESSION_ACCEPT, 24, 0, 4, "'portals'"},
    {PLI_WIRE_SESSION_ACCEPT, 32, 4097, 2, "'data'"},
    {PLI_WIRE_SESSION_REJECT, 16, 0, 4, "'code'"},
    {PLI_WIRE_SESSION_REJECT, 20, 300, 2, "'text'"},
    {PLI_WIRE_SESSION_REJECT, 26, 5000, 2, "'data'"},
    {PLI_WIRE_SESSION_CLOSE, 16, 1, 4, "'code'"},
    {PLI_WIRE_CONN_OPEN, 16, 256, 4, "'index'"},
    {PLI_WIRE_CONN_OPEN, 22, 0, 4, "'window'"},
    {PLI_WIRE_CONN_OPEN, 22, 16385, 4, "'window'"},
    {PLI_WIRE_CONN_OPEN, 26, 63, 4, "'max_msg'"},
    {PLI_WIRE_CONN_OPEN, 26, PLAIT_MSG_MAX + 1, 4, "'max_msg'"},
    {PLI_WIRE_CONN_ACCEPT, 24, 0, 4, "'window'"},
    {PLI_WIRE_CONN_ACCEPT, 28, 0, 4, "'max_msg'"},
    {PLI_WIRE_CONN_REFUSE, 22, 0, 4, "'code'"},
    {PLI_WIRE_CONN_REFUSE, 26, 17, 2, "'text'"},
    {PLI_WIRE_BYE, 0, 1, 4, "'code'"},
    {PLI_WIRE_MEM, 0, 0, 4, "'op'"},
    {PLI_WIRE_MEM, 0, PLI_MEM_OPS, 4, "'op'"},
    {PLI_WIRE_MEM, 8, 1, 4, "'code'"},
    {PLI_WIRE_MEM, 48, 256, 2, "'text'"},
    {PLI_WIRE_MEM, 50, 7, 1, "'text'"},
};

Test(wire, every_bad_field_is_named)
{
    for (size_t i = 0; i < sizeof defects / sizeof defects[0]; i++) {
        const struct defect *d = &defects[i];
        int len = encode_sample(d->type);
        struct pli_wire_msg m;

        for (unsigned b = 0; b < d->bytes; b++)
            frame[PLI_WIRE_HEAD + d->at + b] = (uint8_t)(d->value >> 8 * b);
        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), PLAIT_E_PROTO, "%s at %u: %u is accepted",
                     pli_wire_type_name(d->type), d->at, d->value);
        cr_expect(strstr(pli_err_text(), d->field), "%s at %u: \"%s\" does not name %s",
                  pli_wire_type_name(d->type), d->at, pli_err_text(), d->field);
        cr_expect(strstr(pli_err_text(), pli_wire_type_name(d->type)), "%s", pli_err_text());
    }
}

Test(wire, a_bad_head_is_refused_as_soon_as_it_is_there)
{
    struct pli_wire_msg m;

    encode_sample(PLI_WIRE_BYE);
    put32(0, PLI_WIRE_MAX + 1);
    cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD, &m), PLAIT_E_PROTO);
    cr_expect(strstr(pli_err_text(), "'length'") && strstr(pli_err_text(), "16384"), "%s", pli_err_text());
    encode_sample(PLI_WIRE_BYE);
    frame[4] = PLI_WIRE_TYPES;
    cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD, &m), PLAIT_E_PROTO);
    cr_expect(strstr(pli_err_text(), "unknown type 17"), "%s", pli_err_text());
    frame[4] = 0;
    cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD, &m), PLAIT_E_PROTO);
    cr_expect_eq(pli_wire_parse("GET / HTTP/1.1\r\n", 16, &m), PLAIT_E_PROTO);
    cr_expect_eq(pli_wire_parse("SSH-2.0-OpenSSH_9.2", 8, &m), PLAIT_E_PROTO);
}

Test(wire, descriptors_come_only_with_types_that_have_some)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        int len = encode_sample((enum pli_wire_type)type);
        bool some = type == PLI_WIRE_HELLO_ACK || type == PLI_WIRE_TR_CONNECT || type == PLI_WIRE_TR_CONTROL;
        struct pli_wire_msg m;

        frame[6] = PLI_TR_FDS_MAX;
        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), some ? len : PLAIT_E_PROTO, "%s",
                     pli_wire_type_name(type));
        frame[6] = PLI_TR_FDS_MAX + 1;
        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), PLAIT_E_PROTO, "%s", pli_wire_type_name(type));
        cr_expect(strstr(pli_err_text(), "'nfds'"), "%s", pli_err_text());
    }
}

Test(wire, a_peer_of_another_byte_order)
{
    static const enum pli_wire_type types[] = {PLI_WIRE_HELLO, PLI_WIRE_HELLO_ACK};

    for (int i = 0; i < 2; i++) {
        int len = encode_sample(types[i]);
        struct pli_wire_msg m;

        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), len);
        frame[PLI_WIRE_HEAD + 8] ^= PLI_FEATURE_BIG_ENDIAN;
        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), PLAIT_E_VERSION);
        cr_expect(strstr(pli_err_text(), "byte order"), "%s", pli_err_text());
        frame[PLI_WIRE_HEAD + 8] = (uint8_t)(0xfc | PLI_FEATURE_ORDER); /* bits of a later version */
        cr_expect_eq(pli_wire_parse(frame, (size_t)len, &m), len, "%s", pli_err_text());
    }
}

Test(wire, another_version_is_told_from_garbage_whatever_follows_it)
{
    static const enum pli_wire_type types[] = {PLI_WIRE_GREETING, PLI_WIRE_HELLO, PLI_WIRE_HELLO_ACK};

    for (int i = 0; i < 3; i++) {
        struct pli_wire_msg m;

        encode_sample(types[i]);
        put32(PLI_WIRE_HEAD + 4, 7);
        memset(frame + PLI_WIRE_HEAD + 8, 0xff, 100);
        put32(0, 1000000);
        cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD + 8, &m), PLAIT_E_VERSION, "%s", pli_err_text());
        cr_expect(strstr(pli_err_text(), "version 7") && strstr(pli_err_text(), "version 3"), "%s",
                  pli_err_text());
        cr_expect_eq(m.type, types[i]);
        put32(0, 8);
        cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD + 8, &m), PLAIT_E_VERSION);
        /* too short to have a version */
        put32(0, 7);
        cr_expect_eq(pli_wire_parse(frame, PLI_WIRE_HEAD + 8, &m), PLAIT_E_PROTO);
    }
}

Test(wire, the_encoder_refuses_what_the_parser_would)
{
    struct pli_wire_msg m;
    uint8_t big[PLAIT_MAX_PRIVATE + 1] = {1};

    sample_message(&m, PLI_WIRE_SESSION_OPEN);
    m.open.data = (struct pli_wire_bytes){big, sizeof big};
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
    cr_expect(strstr(pli_err_text(), "'data'") && strstr(pli_err_text(), "4096"), "%s", pli_err_text());
    sample_message(&m, PLI_WIRE_SESSION_OPEN);
    m.open.nconns = 0;
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
    sample_message(&m, PLI_WIRE_CONN_OPEN);
    m.conn.window = 20000;
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
    sample_message(&m, PLI_WIRE_SESSION_ACCEPT);
    m.accept.portals.len = 4;
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
    sample_message(&m, PLI_WIRE_BYE);
    m.nfds = 1;
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
    memset(&m, 0, sizeof m);
    cr_expect_eq(pli_wire_encode(frame, sizeof frame, &m), PLAIT_E_INVAL);
}

Test(wire, the_encoder_keeps_within_its_buffer)
{
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        int len = encode_sample((enum pli_wire_type)type);
        struct pli_wire_msg m;

        sample_message(&m, (enum pli_wire_type)type);
        for (int cap = 0; cap < len; cap++) {
            uint8_t *buf = malloc((size_t)cap);

            cr_expect_eq(pli_wire_encode(buf, (size_t)cap, &m), PLAIT_E_INVAL, "%s in %d bytes",
                         pli_wire_type_name(type), cap);
            free(buf);
        }
        cr_expect_eq(pli_wire_encode(frame, (size_t)len, &m), len);
    }
}

Test(wire, the_largest_messages_fit)
{
    static uint8_t data[PLAIT_MAX_PRIVATE], portals[4 * PLAIT_MAX_CONNS];
    static char text[2048];
    struct pli_wire_msg m, out;
    int len;

    memset(portals, 1, sizeof portals);
    memset(text, 'x', sizeof text);
    sample_message(&m, PLI_WIRE_SESSION_OPEN);
    m.open.job = (struct pli_wire_bytes){text, 255};
    m.open.resource = (struct pli_wire_bytes){text, PLI_WIRE_RESOURCE_MAX};
    m.open.data = (struct pli_wire_bytes){data, sizeof data};
    len = pli_wire_encode(frame, sizeof frame, &m);
    cr_expect_eq(pli_wire_parse(frame, (size_t)len, &out), len, "%s", pli_err_text());
    sample_message(&m, PLI_WIRE_SESSION_ACCEPT);
    m.accept.nportals = PLAIT_MAX_CONNS;
    m.accept.portals = (struct pli_wire_bytes){portals, sizeof portals};
    m.accept.data = (struct pli_wire_bytes){data, sizeof data};
    len = pli_wire_encode(frame, sizeof frame, &m);
    cr_expect_eq(pli_wire_parse(frame, (size_t)len, &out), len, "%s", pli_err_text());
    cr_expect_eq(pli_wire_portal(&out, PLAIT_MAX_CONNS - 1), 0x01010101);
    cr_expect_eq(pli_wire_portal(&out, PLAIT_MAX_CONNS), 0);
}

Test(wire, a_sentence_is_mended_instead_of_refused)
{
    char text[400];
    struct pli_wire_msg m = {.type = PLI_WIRE_REFUSE}, out;
    int len;

    memset(text, 'a', sizeof text);
    text[0] = '\n';
    text[1] = 27;
    /* a two-byte character across the limit of 255 */
    text[254] = (char)0xc3;
    text[255] = (char)0xa4;
    m.end.code = PLAIT_E_PROTO;
    m.end.text = (struct pli_wire_bytes){text, sizeof text};
    len = pli_wire_encode(frame, sizeof frame, &m);
    cr_assert_gt(len, 0, "%s", pli_err_text());
    cr_assert_eq(pli_wire_parse(frame, (size_t)len, &out), len);
    cr_expect_eq(out.end.text.len, 254);
    cr_expect_arr_eq(out.end.text.p, "  aaaa", 6);
}

/* What fuzzing does, in small: no mutation of a valid frame crashes, and what is accepted is the same when it
 * is encoded again. */
Test(wire, mutated_frames_are_refused_or_come_back_byte_by_byte)
{
    static uint8_t again[CAP];
    unsigned accepted = 0;

    srandom(1);
    for (int round = 0; round < 20000; round++) {
        enum pli_wire_type type = (enum pli_wire_type)(1 + random() % (PLI_WIRE_TYPES - 1));
        int len = encode_sample(type), n;
        struct pli_wire_msg m;

        for (long k = random() % 3; k >= 0; k--)
            frame[random() % len] = (uint8_t)random();
        n = pli_wire_parse(frame, (size_t)len, &m);
        if (n <= 0)
            continue;
        accepted++;
        cr_assert_eq(pli_wire_encode(again, sizeof again, &m), n, "%s", pli_err_text());
        cr_assert_arr_eq(frame, again, (size_t)n);
    }
    cr_expect_gt(accepted, 1000);
}
