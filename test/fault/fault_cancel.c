/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that give up messages: without a number, which are not theirs, over and over. */
#include "runtime/mem.h"
#include "runtime/offer.h"
#include "test/fault/hostile.h"

TestSuite(fault_cancel, .timeout = 120);

#define LEN PLAIT_EAGER_MAX /* copied in slices */
#define CANCEL pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE, 0)
#define FILLER "0123456789abcdef"

static struct {
    struct world *w;
    struct hostile *h;
    struct innocent in;
    struct plait_mem *mem;
    struct plait_msg *held;
    unsigned came, announced, gone;
} t;

static void take_all(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    log->misuse = 0; /* not aligned */
    if (msg->len == 5) { /* the innocent's */
        echo(log, c, msg);
        return;
    }
    t.came++;
    if (msg->kind == PLAIT_REQUEST && msg->len == 4) /* "hold" */
        t.held = plait_msg_hold(msg);
    else if (msg->kind == PLAIT_REQUEST)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

static void on_offer(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    (void)c;
    (void)offer;
    (void)arg;
    t.announced++;
}

static void on_gone(struct plait_conn *c, const struct plait_offer *offer, void *arg)
{
    (void)c;
    (void)offer;
    (void)arg;
    t.gone++;
}

/* A link with the region 1 and an open connection. */
static void attack(void)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = 1 };

    t.h = new_hostile(t.w);
    hostile_open(t.h);
    msg.mem.op = PLI_MEM_SHARE;
    msg.mem.key = 1;
    msg.mem.len = LEN;
    hostile_send(t.h, &msg, &t.mem->fd);
    hostile_expect(t.h, &msg, PLI_WIRE_MEM);
    cr_assert_eq(msg.mem.op, PLI_MEM_SHARED);
    cr_assert_eq(msg.mem.code, 0);
    t.came = t.announced = t.gone = 0;
}

static void begin(void)
{
    static struct plait_conn_ops ops;

    memset(&t, 0, sizeof t);
    t.w = listening_world();
    ops = log_conn_ops;
    ops.on_offer = on_offer;
    ops.on_offer_canceled = on_gone;
    t.w->accept.conn_ops = &ops;
    t.w->accept.take = PLAIT_TAKE_COPY;
    cr_assert_eq(plait_mem_alloc(&t.mem, LEN, NULL), 0, "%s", plait_error_text());
    innocent_start(t.w, &t.in);
    t.w->on_msg = take_all;
    attack();
}

static void finish(void)
{
    innocent_check(t.w, &t.in);
    cr_assert_eq(ctx_stats(t.w->ctx[0]).mapped_bytes, 0);
    innocent_end(t.w, &t.in);
    end_world(t.w);
    plait_mem_release(t.mem);
}

static struct log *victim(void)
{
    return &t.w->srv[t.w->nsrv - 1];
}

/* Waits for space. */
static void record(uint32_t meta, uint32_t len, uint64_t cookie, const void *data)
{
    uint64_t end = pli_clock_now() + PATIENCE_NS;
    int rc;

    while ((rc = pli_shm_ops.send(t.h->tr, meta, pli_rec_w1(len, t.h->chan, 0), cookie, data, NULL, false)) == PLAIT_E_AGAIN &&
           pli_clock_now() < end)
        hostile_poll(t.h);
    cr_assert_eq(rc, 0, "%s", pli_err_text());
}

static void cancel(uint32_t number)
{
    record(CANCEL, 0, number, NULL);
}

static void offer(enum pli_rec_type type, uint32_t flags, uint64_t cookie, uint32_t receipt)
{
    struct {
        struct pli_ref_head head;
        struct pli_ref ref;
    } rec = { { receipt, 1 }, { 1, LEN, 0 } };

    record(pli_rec_meta(type, flags | PLI_RF_COOKIE | PLI_RF_REF, 0), sizeof rec, cookie, &rec);
}

/* It is answered: the connection lives, and the innocent's. */
static void expect_good(void)
{
    unsigned before = t.h->records;
    struct outcome o = { 0 };

    settle(t.w);
    while (pli_shm_ops.poll(t.h->tr, 64) > 0)
        before = t.h->records;
    record(pli_rec_meta(PLI_REC_REQUEST, PLI_RF_COOKIE, 0), 3, 0x30007, "yes");
    HOSTILE_WAIT(t.h, t.h->records > before && pli_meta_type(t.h->last_meta) == PLI_REC_REPLY);
    cr_assert_eq(t.h->last_cookie, 0x30007);
    cr_assert_eq(victim()->c_closed, 0);
    FAILS(plait_request(t.in.log.conn[0], "hello", 5, 0, on_reply, &o), 0);
    WAIT(t.w, o.n, 1);
}

/* The link ends. */
static void expect_end(const char *word)
{
    struct log *srv = victim();

    WAIT(t.w, srv->closed, 1);
    cr_assert_eq(srv->c_code, PLAIT_E_PROTO, "%s %s", plait_status_name(srv->c_code), srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, word), "no '%s' in: %s", word, srv->c_text);
    hostile_close(t.h);
    innocent_check(t.w, &t.in);
}

Test(fault_cancel, records_that_do_not_fit)
{
    begin();
    record(pli_rec_meta(PLI_REC_CANCEL, 0, 0), 0, 0, NULL);
    expect_end("given up without its number");
    attack();
    record(pli_rec_meta(PLI_REC_CANCEL, 0, 0), 8, 0, FILLER);
    expect_end("given up without its number");
    attack();
    record(pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE | PLI_RF_RECEIPT, 0), 0, 1, NULL);
    expect_end("the flags or header length");
    attack();
    record(pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE | PLI_RF_FRAG, 0), 0, 1, NULL);
    expect_end("unknown type");
    attack();
    record(pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE | PLI_RF_REF, 0), 16, 1, FILLER);
    WAIT(t.w, victim()->c_closed, 1);
    cr_assert_not_null(strstr(victim()->c_text, "type and flags do not fit"), "%s", victim()->c_text);
    hostile_close(t.h);
    finish();
}

/* The same while the connection copies something. */
Test(fault_cancel, records_that_do_not_fit_beside_a_copy)
{
    begin();
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 1, 0);
    record(pli_rec_meta(PLI_REC_CANCEL, 0, 0), 0, 0, NULL);
    expect_end("given up without its number");
    attack();
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 1, 0);
    record(pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE | PLI_RF_FRAG, 0), 0, 1, NULL);
    expect_end("unknown type");
    attack(); /* no message: it is looked at in its turn, whatever its number */
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 1, 0);
    record(pli_rec_meta(PLI_REC_LINK, PLI_RF_COOKIE, 0), 0, 7, NULL);
    cancel(7);
    expect_end("unknown type");
    cr_assert_eq(t.came, 1);
    finish();
}

Test(fault_cancel, unknown_numbers)
{
    begin();
    for (uint32_t i = 0; i < 20000; i++)
        cancel(i * 2654435761u);
    expect_good();
    record(CANCEL, 16, 9, FILLER); /* data that means nothing */
    expect_good();
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 5, 0);
    for (uint32_t i = 0; i < 20000; i++)
        cancel(6 + i);
    HOSTILE_WAIT(t.h, t.came == 3);
    expect_good();
    cr_assert_eq(t.gone, 0);
    hostile_close(t.h);
    finish();
}

/* Delivered and done; delivered and held. */
Test(fault_cancel, delivered)
{
    unsigned records;

    begin();
    record(pli_rec_meta(PLI_REC_REQUEST, PLI_RF_COOKIE, 0), 3, 5, "yes");
    record(pli_rec_meta(PLI_REC_REQUEST, PLI_RF_COOKIE, 0), 4, 6, "hold");
    HOSTILE_WAIT(t.h, t.came == 2 && t.h->records >= 1);
    cr_assert_eq(t.h->last_cookie, 5);
    records = t.h->records;
    for (unsigned i = 0; i < 5000; i++)
        cancel(5 + i % 2);
    for (int i = 0; i < 1000; i++)
        hostile_poll(t.h);
    cr_assert_eq(t.h->records, records, "a cancelled message was answered twice");
    plait_msg_release(t.held);
    HOSTILE_WAIT(t.h, t.h->records > records);
    cr_assert_eq(t.h->last_cookie, 6 | (uint64_t)(uint32_t)PLAIT_E_NOREPLY << 32);
    expect_good();
    hostile_close(t.h);
    finish();
}

/* A one-way message without a receipt has no number, though its parts and references carry one. */
Test(fault_cancel, without_a_number)
{
    begin();
    offer(PLI_REC_ONEWAY, 0, 0, 0);
    cancel(0);
    offer(PLI_REC_ONEWAY, 0, 0, 0);
    cancel(0);
    HOSTILE_WAIT(t.h, t.came == 2);
    record(pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0), 16, (uint64_t)20 << 32, FILLER);
    cancel(0);
    record(pli_rec_meta(PLI_REC_FRAG, 0, 0), 4, 0, FILLER);
    HOSTILE_WAIT(t.h, t.came == 3);
    offer(PLI_REC_ONEWAY, 0, 0, 0); /* and behind a copy */
    record(pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG, 0), 16, (uint64_t)20 << 32, FILLER);
    cancel(0);
    record(pli_rec_meta(PLI_REC_FRAG, 0, 0), 4, 0, FILLER);
    HOSTILE_WAIT(t.h, t.came == 5);
    cr_assert_eq(t.gone, 0);
    expect_good();
    hostile_close(t.h);
    finish();
}

/* Parts that go on behind the CANCEL. */
Test(fault_cancel, parts_after_it)
{
    begin();
    record(pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE | PLI_RF_FRAG | PLI_RF_RECEIPT, 0), 16, 9 | (uint64_t)20 << 32, FILLER);
    cancel(9);
    HOSTILE_WAIT(t.h, t.gone == 1);
    expect_good();
    record(pli_rec_meta(PLI_REC_FRAG, 0, 0), 4, 0, FILLER);
    expect_end("a part without a beginning");
    finish();
}

/* Two messages of the same number; each CANCEL ends one. */
Test(fault_cancel, same_number_twice)
{
    begin();
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 3, 0);
    offer(PLI_REC_REQUEST, 0, 3, 0);
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 3, 0);
    for (int i = 0; i < 3; i++)
        cancel(3);
    HOSTILE_WAIT(t.h, t.h->records >= 3);
    cr_assert_eq(t.came, 0);
    expect_good();
    hostile_close(t.h);
    finish();
}

/* Replies to nobody are as wrong when they are given up. */
Test(fault_cancel, replies)
{
    begin();
    offer(PLI_REC_REPLY, 0, 4, 8);
    cancel(8);
    expect_end("a reply to a request that is not outstanding");
    attack();
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 1, 0);
    offer(PLI_REC_REPLY, 0, 4, 8);
    cancel(8);
    expect_end("a reply to a request that is not outstanding");
    attack(); /* too short to have a number */
    offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, 1, 0);
    record(pli_rec_meta(PLI_REC_REPLY, PLI_RF_COOKIE | PLI_RF_REF, 0), 2, 4, FILLER);
    cancel(0x33323130);
    WAIT(t.w, victim()->c_closed, 1);
    hostile_close(t.h);
    finish();
}

/* Memory, window and copies are as they were after thousands. */
Test(fault_cancel, thousands)
{
    unsigned n = 0;

    begin();
    for (uint32_t i = 0; i < 3000; i++, n += 2) {
        offer(i % 2 ? PLI_REC_ONEWAY : PLI_REC_REQUEST, i % 2 ? PLI_RF_RECEIPT : 0, i, 0);
        offer(PLI_REC_ONEWAY, PLI_RF_RECEIPT, i | 0x40000000u, 0);
        cancel(i | 0x40000000u);
        cancel(i);
        HOSTILE_WAIT(t.h, t.h->records >= n + 2);
    }
    cr_assert_eq(t.came, 0);
    cr_assert_eq(t.gone, t.announced);
    expect_good();
    hostile_close(t.h);
    finish();
}
