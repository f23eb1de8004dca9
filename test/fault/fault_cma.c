/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that ask to be read, offer addresses, and ask for bytes or send them where nobody has asked. */
#include "runtime/cma.h"
#include "runtime/offer.h"
#include "test/fault/share_util.h"
#include "test/unit/runtime/refuse_reads.h"

TestSuite(fault_cma, .timeout = 120);

#define PROBE_LEN (256u << 10) /* as in runtime/cma.c */

static uint8_t readable[PROBE_LEN] __attribute__((aligned(4096)));

static void send_probe(struct hostile *h, enum pli_mem_op op, const void *addr, uint64_t len, int code, uint8_t token)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM };

    msg.mem.op = op;
    msg.mem.code = code;
    msg.mem.addr = (uintptr_t)addr;
    msg.mem.len = len;
    memset(msg.mem.sid, token, PLI_ID_LEN);
    hostile_send(h, &msg, NULL);
}

static void expect_probed(struct hostile *h, int code, const char *word)
{
    struct pli_wire_msg msg;
    char text[300];

    hostile_expect(h, &msg, PLI_WIRE_MEM);
    snprintf(text, sizeof text, "%.*s", (int)msg.mem.text.len, (const char *)msg.mem.text.p);
    cr_assert_eq(msg.mem.op, PLI_MEM_PROBED);
    cr_assert_eq(msg.mem.code, code, "%s %s", plait_status_name(msg.mem.code), text);
    cr_assert_not_null(strstr(text, word), "no '%s' in: %s", word, text);
}

/* What cannot be read is no error: everything goes through the ring. */
Test(fault_cma, what_cannot_be_read)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    send_probe(h, PLI_MEM_PROBE, (void *)4096, PROBE_LEN, 0, 0);
    expect_probed(h, PLAIT_E_BADPEER, "memory that it does not have");
    hostile_close(h);
    h = new_hostile(w);
    hostile_open(h);
    memset(readable, 3, sizeof readable);
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN, 0, 4); /* other bytes than told */
    expect_probed(h, PLAIT_E_PERM, "another one here");
    cr_assert_eq(ctx_stats(w->ctx[0]).cma_refused, 2);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_cma, frames_that_do_not_fit)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    memset(readable, 3, sizeof readable);
    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN - 1, 0, 3);
    expect_link_end(h, &in, "a probe of another length", PLAIT_E_PROTO, "PROBE of 262143 bytes");
    h = new_hostile(w);
    hostile_open(h);
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN, 0, 3);
    expect_probed(h, 0, "");
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN, 0, 3);
    expect_link_end(h, &in, "a second probe", PLAIT_E_PROTO, "for the second time");
    h = new_hostile(w);
    hostile_open(h);
    send_probe(h, PLI_MEM_PROBED, NULL, 0, 0, 3);
    expect_link_end(h, &in, "an answer", PLAIT_E_PROTO, "PROBED without a question");
    innocent_end(w, &in);
    end_world(w);
}

static void offer(struct hostile *h, const struct pli_ref *refs, uint32_t n)
{
    struct {
        struct pli_ref_head head;
        struct pli_ref refs[2];
    } rec = { .head = { 0, n } };
    uint32_t len = (uint32_t)(sizeof rec.head + n * sizeof *refs);

    memcpy(rec.refs, refs, n * sizeof *refs);
    hostile_record(h, pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_RECEIPT | PLI_RF_REF, 0), pli_rec_w1(len, h->chan, 0), 7, &rec);
}

/* That connection ends, and nothing else. */
static void ends_with(struct world *w, struct innocent *in, const struct pli_ref *refs, uint32_t n, int code, const char *word)
{
    struct pli_ref good = { PLI_REF_ADDRESS, 1000, (uintptr_t)readable };
    struct hostile *h = new_hostile(w);
    unsigned before = came;

    hostile_open(h);
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN, 0, 3);
    expect_probed(h, 0, "");
    offer(h, &good, 1);
    HOSTILE_WAIT(h, came == before + 1);
    offer(h, refs, n);
    expect_conn_end(h, in, "bad addresses", code, word);
    cr_assert_eq(came, before + 1);
    w->nsrv = 1; /* their logs have been looked at */
}

Test(fault_cma, bad_addresses)
{
    const struct pli_ref nowhere = { PLI_REF_ADDRESS, 10, 4096 };
    const struct pli_ref half[2] = { { PLI_REF_ADDRESS, 10, (uintptr_t)readable }, { PLI_REF_ADDRESS, 10, UINT64_MAX - 3 } };
    const struct pli_ref mixed[2] = { { PLI_REF_ADDRESS, 10, (uintptr_t)readable }, { 1, 10, 0 } };
    const struct pli_ref much[2] = { { PLI_REF_ADDRESS, UINT32_MAX, (uintptr_t)readable }, { PLI_REF_ADDRESS, UINT32_MAX, 0 } };
    struct world *w = listening_world();
    struct innocent in;

    memset(readable, 3, sizeof readable);
    innocent_start(w, &in);
    w->on_msg = count_them;
    ends_with(w, &in, &nowhere, 1, PLAIT_E_BADPEER, "memory that it does not have");
    ends_with(w, &in, half, 2, PLAIT_E_BADPEER, "memory that it does not have");
    ends_with(w, &in, mixed, 2, PLAIT_E_PROTO, "regions and to addresses");
    ends_with(w, &in, much, 2, PLAIT_E_PROTO, "total length");
    innocent_end(w, &in);
    end_world(w);
}

/* ---- bytes that are asked for ---- */

/* The victim asks for the bytes of message 7, which has 1000. */
static struct hostile *hostile_asked(struct world *w)
{
    const struct pli_ref good = { PLI_REF_ADDRESS, 1000, (uintptr_t)readable };
    struct hostile *h = new_hostile(w);

    hostile_open(h);
    allowed = UINT_MAX;
    send_probe(h, PLI_MEM_PROBE, readable, PROBE_LEN, 0, 3);
    expect_probed(h, 0, "");
    allowed = 0;
    offer(h, &good, 1);
    HOSTILE_WAIT(h, h->records == 1);
    cr_assert_eq(h->last_meta, pli_rec_meta(PLI_REC_NEED, PLI_RF_COOKIE, 0));
    cr_assert_eq(h->last_cookie, 7);
    return h;
}

static void send_fill(struct hostile *h, uint32_t flags, uint32_t hdr_len, uint32_t len)
{
    hostile_record(h, pli_rec_meta(PLI_REC_FILL, flags, hdr_len), pli_rec_w1(len, h->chan, 0), 7, NULL);
}

/* That the link ends, not what the innocent's session had before it. */
static void fill_ends(struct hostile *h, struct innocent *in, const char *word)
{
    expect_link_end(h, in, word, PLAIT_E_PROTO, word);
    h->w->nsrv = 1;
}

Test(fault_cma, bytes_that_do_not_fit)
{
    static const char unasked[] = "were not asked for";
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    memset(readable, 3, sizeof readable);
    innocent_start(w, &in);
    w->on_msg = count_them;
    h = new_hostile(w);
    hostile_open(h);
    send_fill(h, 0, 0, 10);
    fill_ends(h, &in, unasked);
    h = hostile_asked(w);
    send_fill(h, 0, 0, 1001);
    fill_ends(h, &in, unasked);
    h = hostile_asked(w);
    send_fill(h, 0, 0, 0);
    fill_ends(h, &in, unasked);
    h = hostile_asked(w);
    send_fill(h, PLI_RF_COOKIE, 0, 10);
    fill_ends(h, &in, "the flags of bytes");
    h = hostile_asked(w);
    send_fill(h, PLI_RF_FRAG, 0, 10);
    fill_ends(h, &in, "of an unknown type");
    h = hostile_asked(w);
    send_fill(h, 0, 8, 10);
    fill_ends(h, &in, "the flags of bytes");
    h = hostile_asked(w);
    send_fill(h, 0, 0, 600);
    send_fill(h, 0, 0, 600);
    fill_ends(h, &in, unasked);
    cr_assert_eq(came, 0);
    h = hostile_asked(w);
    send_fill(h, 0, 0, 600);
    send_fill(h, 0, 0, 400);
    HOSTILE_WAIT(h, came == 1);
    send_fill(h, 0, 0, 1);
    fill_ends(h, &in, unasked);
    /* given up: they are not asked for any more */
    h = hostile_asked(w);
    send_fill(h, 0, 0, 600);
    hostile_record(h, pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE, 0), pli_rec_w1(0, h->chan, 0), 7, NULL);
    HOSTILE_WAIT(h, h->records == 2);
    cr_assert_eq(pli_meta_type(h->last_meta), PLI_REC_RECEIPT);
    send_fill(h, 0, 0, 400);
    fill_ends(h, &in, unasked);
    innocent_end(w, &in);
    end_world(w);
}

/* It answers nothing, and sends on. */
Test(fault_cma, more_than_can_wait)
{
    static const uint8_t data[4096];
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;
    struct log *srv;
    uint64_t sent = 0;
    int rc;

    memset(readable, 3, sizeof readable);
    innocent_start(w, &in);
    w->on_msg = count_them;
    h = hostile_asked(w);
    srv = &w->srv[w->nsrv - 1];
    while (!srv->c_closed) {
        rc = pli_shm_ops.send(h->tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(sizeof data, h->chan, 0), 0, data, NULL, false);
        cr_assert(rc == 0 || rc == PLAIT_E_AGAIN);
        sent += rc == 0 ? sizeof data : 0;
        if (rc < 0)
            hostile_poll(h);
        cr_assert_lt(sent, 80u << 20);
    }
    cr_assert_gt(sent, 60u << 20);
    cr_assert_eq(srv->c_code, PLAIT_E_NOMEM, "%s %s", plait_status_name(srv->c_code), srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, "no room for more"), "%s", srv->c_text);
    cr_assert_eq(came, 0);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* The victim has offered it a message by its addresses; its number is h->last_cookie. */
static struct hostile *hostile_offered(struct world *w, struct outcome *o)
{
    struct plait_out out = PLAIT_OUT_INIT;
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg msg;
    struct plait_conn *c;
    unsigned records;

    hostile_open(h);
    c = w->srv[w->nsrv - 1].conn[0];
    memset(o, 0, 2 * sizeof *o);
    out.flags = PLAIT_NOCOPY;
    out.data = readable;
    out.len = 60000;
    out.on_done = on_done;
    out.arg = &o[0];
    FAILS(plait_sendx(c, &out), 0);
    hostile_expect(h, &msg, PLI_WIRE_MEM);
    cr_assert_eq(msg.mem.op, PLI_MEM_PROBE);
    send_probe(h, PLI_MEM_PROBED, NULL, 0, 0, 3);
    HOSTILE_WAIT(h, c->link->cma.peer_reads == PLI_CMA_YES && conn_info(c).queued == 0);
    settle(w);
    hostile_poll(h);
    records = h->records;
    out.arg = &o[1];
    FAILS(plait_sendx(c, &out), 0);
    HOSTILE_WAIT(h, h->records == records + 1);
    cr_assert_eq(pli_meta_flags(h->last_meta), PLI_RF_COOKIE | PLI_RF_RECEIPT | PLI_RF_REF);
    return h;
}

static void send_need(struct hostile *h, uint32_t flags, uint64_t number)
{
    hostile_record(h, pli_rec_meta(PLI_REC_NEED, flags, 0), pli_rec_w1(0, h->chan, 0), number, NULL);
}

static void need_ends(struct hostile *h, struct innocent *in, const struct outcome *o, const char *word)
{
    fill_ends(h, in, word);
    cr_assert(o[0].n == 1 && o[0].status < 0);
    cr_assert(o[1].n == 1 && o[1].status < 0);
}

Test(fault_cma, questions_that_do_not_fit)
{
    static const char unoffered[] = "was not offered by its addresses";
    struct world *w = listening_world();
    struct outcome o[2];
    struct innocent in;
    struct hostile *h;
    unsigned records;
    uint64_t number;

    memset(readable, 3, sizeof readable);
    w->accept.take = PLAIT_TAKE_CMA;
    innocent_start(w, &in);
    w->on_msg = count_them;
    h = hostile_offered(w, o);
    send_need(h, 0, 0);
    need_ends(h, &in, o, "without its number");
    h = hostile_offered(w, o);
    send_need(h, PLI_RF_COOKIE, h->last_cookie + 0x10000);
    need_ends(h, &in, o, unoffered);
    h = hostile_offered(w, o);
    send_need(h, PLI_RF_COOKIE, 0); /* that one came through the ring */
    need_ends(h, &in, o, unoffered);
    /* while its bytes wait for space: again, or as if it had them */
    h = hostile_offered(w, o);
    send_need(h, PLI_RF_COOKIE, h->last_cookie);
    settle(w);
    send_need(h, PLI_RF_COOKIE, h->last_cookie);
    need_ends(h, &in, o, unoffered);
    h = hostile_offered(w, o);
    send_need(h, PLI_RF_COOKIE, h->last_cookie);
    settle(w);
    hostile_record(h, pli_rec_meta(PLI_REC_RECEIPT, PLI_RF_COOKIE, 0), pli_rec_w1(0, h->chan, 0), (uint32_t)h->last_cookie, NULL);
    need_ends(h, &in, o, "a receipt for a message that is not outstanding");
    /* when it has them all: again */
    h = hostile_offered(w, o);
    number = h->last_cookie;
    records = h->records;
    send_need(h, PLI_RF_COOKIE, number);
    HOSTILE_WAIT(h, h->records > records && conn_info(w->srv[w->nsrv - 1].conn[0]).queued == 0);
    cr_assert_eq(h->last_meta, pli_rec_meta(PLI_REC_FILL, 0, 0));
    send_need(h, PLI_RF_COOKIE, number);
    need_ends(h, &in, o, unoffered);
    innocent_end(w, &in);
    end_world(w);
}
