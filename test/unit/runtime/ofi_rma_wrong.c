/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations by records: what a bad peer can send. The user's side is the bad one, or the owner's. */
#include "runtime/rma.h"
#include "test/unit/runtime/rma_util.h"

TestSuite(rma_wrong, .timeout = 60);

static struct pli_rma_rec good(const struct pair *p, enum pli_rma_kind kind, uint32_t len)
{
    struct pli_key k;

    memcpy(&k, &p->key, sizeof k);
    return (struct pli_rma_rec){ .secret = k.secret, .slot = k.slot, .kind = (uint8_t)kind, .len = len };
}

static void record(struct plait_conn *c, uint32_t type, uint32_t flags, uint64_t cookie, const void *hdr, uint32_t hdr_len, uint32_t len)
{
    static const uint8_t data[4096];

    cr_assert_eq(pli_conn_send_record(c, pli_rec_meta(type, flags, hdr_len), pli_rec_w1(len, c->peer_chan, 0), cookie, data, hdr, false), 0,
                 "%s", plait_error_text());
}

/* A pair whose user knows the region. */
static struct pair *ready_pair(void)
{
    struct pair *p = new_pair(1 << 20);

    setenv("PLAIT_LOG", "none", 1);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    return p;
}

/* The link ends for the peer's fault, and its user hears why. */
static void end_badly(struct pair *p, struct log *victim, const char *word)
{
    WAIT(p->w, victim->c_closed, 1);
    cr_assert_eq(victim->c_code, PLAIT_E_PROTO, "%s: %s", word, plait_status_name(victim->c_code));
    cr_assert_not_null(strstr(victim->c_text, word), "no '%s' in: %s", word, victim->c_text);
    WAIT(p->w, p->cli.c_closed, 1);
    WAIT(p->w, p->srv->c_closed, 1);
    FAILS(plait_mem_release(p->mem), 0);
    end_session(p->w, &p->cli);
    end_world(p->w);
}

/* ---- what is asked ---- */

#define COOKIE PLI_RF_COOKIE
#define PARTS PLI_RF_FRAG

static const struct {
    const char *word;
    enum pli_rma_kind kind;
    uint32_t rec_len, flags, len, total;
    uint64_t offset;
    int hdr_less;
} asks[] = {
    { "unknown kind", PLI_RMA_FLUSH, 8, COOKIE, 0, 0, 0, 0 },
    { "unknown kind", 200, 8, COOKIE, 0, 0, 0, 0 },
    { "wrong length or offset", PLI_RMA_GET, PLI_RMA_STEP + 1, COOKIE, 0, 0, 0, 0 },
    { "wrong length or offset", PLI_RMA_PUT, UINT32_MAX, COOKIE | PARTS, 8, UINT32_MAX, 0, 0 },
    { "wrong length or offset", PLI_RMA_ADD, 4, COOKIE, 0, 0, 0, 0 },
    { "wrong length or offset", PLI_RMA_CAS, 8, COOKIE, 0, 0, 4, 0 },
    { "data of a wrong length", PLI_RMA_PUT, 8, COOKIE, 9, 0, 0, 0 },
    { "data of a wrong length", PLI_RMA_PUT, 8, COOKIE, 7, 0, 0, 0 },
    { "data of a wrong length", PLI_RMA_PUT, 8, COOKIE | PARTS, 8, 8, 0, 0 },
    { "data of a wrong length", PLI_RMA_PUT, 100, COOKIE | PARTS, 8, 90, 0, 0 },
    { "data of a wrong length", PLI_RMA_GET, 8, COOKIE, 8, 0, 0, 0 },
    { "data of a wrong length", PLI_RMA_GET, 8, COOKIE | PARTS, 0, 8, 0, 0 },
    { "data of a wrong length", PLI_RMA_ADD, 8, COOKIE, 1, 0, 0, 0 },
    { "flags or header length", PLI_RMA_GET, 8, 0, 0, 0, 0, 0 },
    { "flags or header length", PLI_RMA_GET, 8, COOKIE, 0, 0, 0, 1 },
    { "of a record", PLI_RMA_GET, 8, COOKIE | PLI_RF_RECEIPT, 0, 0, 0, 0 },
};

Test(rma_wrong, asking)
{
    for (unsigned i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        struct pair *p = ready_pair();
        struct pli_rma_rec rec = good(p, asks[i].kind, asks[i].rec_len);

        rec.offset = asks[i].offset;
        record(p->user, PLI_REC_RMA, asks[i].flags, (uint64_t)asks[i].total << 32, &rec, (uint32_t)sizeof rec - (uint32_t)asks[i].hdr_less, asks[i].len);
        end_badly(p, p->srv, asks[i].word);
    }
}

/* What nobody began, too much of what was begun, one inside another. */
Test(rma_wrong, data)
{
    for (int i = 0; i < 5; i++) {
        struct pair *p = ready_pair();
        struct pli_rma_rec rec = good(p, PLI_RMA_PUT, 100);

        if (i)
            record(p->user, PLI_REC_RMA, COOKIE | PARTS, (uint64_t)100 << 32, &rec, sizeof rec, 50);
        if (i == 3)
            record(p->user, PLI_REC_RMA, COOKIE | PARTS, (uint64_t)100 << 32, &rec, sizeof rec, 50);
        else
            record(p->user, PLI_REC_RMA_DATA, i == 4 ? COOKIE : 0, 0, NULL, 0, i == 0 ? 8 : i == 1 ? 51 : 0);
        end_badly(p, p->srv, i == 3 ? "inside another" : i == 4 ? "the flags" : "bytes of a one-sided operation");
    }
}

/* More than anybody may ask for before there is an answer, to a peer that does not take them. */
Test(rma_wrong, too_many)
{
    struct pair *p = ready_pair();
    struct pli_rma_rec rec = good(p, PLI_RMA_GET, PLI_RMA_STEP);

    for (uint64_t i = 0; i < 100; i++) /* few packets, and this side does not poll: its window is full after a few answers */
        cr_assert_eq(pli_conn_send_record(p->user, pli_rec_meta(PLI_REC_RMA, COOKIE, sizeof rec), pli_rec_w1(0, p->user->peer_chan, 0), i, NULL,
                                          &rec, true), 0);
    p->user->tr->ops->flush(p->user->tr);
    while (!p->srv->c_closed)
        cr_assert_geq(plait_ctx_poll(p->w->ctx[0]), 0);
    end_badly(p, p->srv, "more one-sided operations");
}

/* Good records with bad keys are answered, and harm nobody. */
Test(rma_wrong, keys)
{
    struct pair *p = ready_pair();
    struct pli_rma_rec rec[4];
    char *at;

    for (int i = 0; i < 4; i++)
        rec[i] = good(p, PLI_RMA_PUT, 8);
    cr_assert_eq(pli_rma_locate(p->owner, &rec[0], &at), 0);
    cr_assert_eq(at, p->addr);
    rec[0].secret ^= 1;
    rec[1].slot += 1;
    rec[2].slot = UINT16_MAX;
    rec[3].offset = (1 << 20) - 7;
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pli_rma_locate(p->owner, &rec[i], &at), i < 3 ? PLAIT_E_REVOKED : PLAIT_E_INVAL);
    rec[3].offset = UINT64_MAX - 3;
    cr_assert_eq(pli_rma_locate(p->owner, &rec[3], &at), PLAIT_E_INVAL);
    rec[3] = good(p, PLI_RMA_PUT, 8);
    cr_assert_eq(pli_rma_locate(p->user, &rec[3], &at), PLAIT_E_REVOKED, "of the other side of the link");
    end_pair(p);
}

/* ---- what is answered ---- */

static const struct {
    uint32_t flags, cookie, status_or_total, len;
    const char *word;
} answers[] = {
    { COOKIE, 0, 1, 0, "not asked for" },
    { COOKIE, 7, 0, 100, "not asked for" },
    { COOKIE, 0, 0, 99, "wrong length" },
    { COOKIE, 0, 0, 101, "wrong length" },
    { COOKIE, 0, 0xffffffffu, 100, "wrong length" },
    { COOKIE | PARTS, 0, 101, 50, "wrong length" },
    { COOKIE | PARTS, 0, 100, 100, "wrong length" },
    { 0, 0, 0, 100, "flags or header length" },
};

Test(rma_wrong, answering)
{
    static char buf[100];

    for (unsigned i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct pair *p = ready_pair();
        struct outcome o = { 0 };

        FAILS(plait_get(p->user, &p->key, 0, buf, sizeof buf, on_done, &o), 0);
        /* before the owner's own answer: it has not polled */
        record(p->owner, PLI_REC_RMA_ANSWER, answers[i].flags, answers[i].cookie | (uint64_t)answers[i].status_or_total << 32, NULL, 0, answers[i].len);
        p->owner->tr->ops->flush(p->owner->tr);
        while (!p->cli.c_closed)
            cr_assert_geq(plait_ctx_poll(p->w->ctx[1]), 0);
        cr_assert_eq(o.n, 1);
        cr_assert_eq(o.status, PLAIT_E_PROTO);
        end_badly(p, &p->cli, answers[i].word);
    }
}

/* Before the target can have read it: the caller's memory must not be given back while it is still to be sent. */
Test(rma_wrong, an_answer_too_early)
{
    static char buf[1 << 20];
    struct pair *p = ready_pair();
    struct outcome o = { 0 };

    FAILS(plait_put(p->user, &p->key, 0, buf, sizeof buf, on_done, &o), 0);
    cr_assert_gt(p->user->ntxq, 0);
    for (uint64_t i = 0; i < 4; i++)
        record(p->owner, PLI_REC_RMA_ANSWER, COOKIE, i, NULL, 0, 0);
    p->owner->tr->ops->flush(p->owner->tr);
    while (!p->cli.c_closed)
        cr_assert_geq(plait_ctx_poll(p->w->ctx[1]), 0);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_PROTO);
    end_badly(p, &p->cli, "not asked for");
}

Test(rma_wrong, an_answer_to_nothing)
{
    struct pair *p = ready_pair();

    record(p->owner, PLI_REC_RMA_ANSWER, COOKIE, 0, NULL, 0, 0);
    end_badly(p, &p->cli, "not asked for");
}
