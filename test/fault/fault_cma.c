/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that ask to be read, and offer addresses. */
#include "runtime/cma.h"
#include "runtime/offer.h"
#include "test/fault/share_util.h"

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
