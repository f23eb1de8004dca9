/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations where no memory is shared: records that the target does and answers, in order. */
#include "runtime/rma.h"

#include <string.h>
#include "runtime/loop_priv.h"
#include "util/copy.h"
#include "util/err.h"

/* ---- asking ---- */

/* Bytes of the record that begins there. */
static uint32_t piece(const struct pli_rma_op *op, size_t at)
{
    return op->len - at < PLI_RMA_STEP ? (uint32_t)(op->len - at) : PLI_RMA_STEP;
}

static int ask_piece(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    struct plait_conn *c = r->conn;
    struct pli_key k;
    struct pli_rma_rec rec = { .offset = op->offset + op->asked, .a = op->a, .b = op->b, .len = piece(op, op->asked),
                               .kind = (uint8_t)op->kind };
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_RMA, PLI_RF_COOKIE, sizeof rec), .hdr_len = sizeof rec, .hdr = (const uint8_t *)&rec,
                           .cookie = r->next_asked, .chan = c->peer_chan };
    int rc;

    memcpy(&k, &op->key, sizeof k);
    rec.secret = k.secret;
    rec.slot = k.slot;
    if (op->kind == PLI_RMA_PUT) {
        m.data = (const uint8_t *)op->from + op->asked;
        m.len = rec.len;
    }
    rc = pli_conn_send_or_queue(c, &m, false, true, false);
    if (rc < 0)
        return rc;
    op->asked += rec.len;
    r->next_asked++;
    r->nasked++;
    return 0;
}

/* Nothing more is asked for; what has been will be answered. */
static void cut(struct pli_rma_conn *r, struct pli_rma_op *op, int status)
{
    if (op->status == 0)
        op->status = status;
    op->len = op->asked;
    if (r->asking == op)
        r->asking = NULL;
}

static void over(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    pli_list_remove(&op->node);
    pli_rma_op_over(r, op, op->status);
}

void pli_rma_ask_more(struct pli_rma_conn *r)
{
    struct pli_rma_op *op = r->asking;
    int rc;

    while (r->asking && op->asked < op->len && r->nasked < PLI_RMA_ASKED) {
        rc = ask_piece(r, op);
        if (rc < 0) {
            cut(r, op, rc);
            if (op->answered == op->asked)
                over(r, op);
            return;
        }
    }
    if (r->asking && op->asked == op->len)
        r->asking = NULL;
}

void pli_rma_ask(struct pli_rma_conn *r, struct pli_rma_op *op)
{
    int rc;

    op->asked = op->answered = 0;
    op->status = 0;
    pli_list_push_back(&r->sent, &op->node);
    r->asking = op;
    rc = ask_piece(r, op); /* one also where there is nothing to move */
    if (rc < 0) {
        cut(r, op, rc);
        over(r, op);
        return;
    }
    pli_rma_ask_more(r);
}

/* ---- answers ---- */

static void answered(struct pli_rma_conn *r, int status)
{
    struct pli_rma_op *op = pli_container_of(pli_list_first(&r->sent), struct pli_rma_op, node);

    r->nasked--;
    r->next_answered++;
    op->answered += piece(op, op->answered);
    if (status < 0)
        cut(r, op, status);
    if (op->answered == op->len)
        over(r, op);
    pli_rma_pump_conn(r);
}

/* Bytes that a good answer brings. */
static uint32_t expected(const struct pli_rma_op *op)
{
    switch (op->kind) {
    case PLI_RMA_PUT:
        return 0;
    case PLI_RMA_GET:
        return piece(op, op->answered);
    default:
        return 8;
    }
}

static int answer_came(struct plait_conn *c, bool parts, uint64_t cookie, const uint8_t *p, uint32_t len)
{
    struct pli_rma_conn *r = c->rma;
    struct pli_rma_op *op;
    int status = parts ? 0 : (int)(uint32_t)(cookie >> 32);
    uint32_t total = parts ? (uint32_t)(cookie >> 32) : len;
    char *to;

    if (!r || !r->nasked || (uint32_t)cookie != r->next_answered || status > 0 || pli_conn_rma_is_queued(c, (uint32_t)cookie))
        return pli_conn_breach(c, "an answer to a one-sided operation that was not asked for");
    op = pli_container_of(pli_list_first(&r->sent), struct pli_rma_op, node);
    if (total != (status ? 0 : expected(op)) || len > total || (parts && (op->kind != PLI_RMA_GET || len == total)))
        return pli_conn_breach(c, "an answer to a one-sided operation has a wrong length");
    to = op->kind == PLI_RMA_GET ? (char *)op->to + op->answered : op->to;
    if (len && to)
        pli_copy(to, p, len);
    if (parts)
        r->in = (struct pli_rma_in){ .left = total - len, .answer = true, .to = to + len };
    else
        answered(r, status);
    return 0;
}

/* ---- being asked ---- */

static int answer(struct plait_conn *c, uint32_t number, int status, const void *data, uint32_t len)
{
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_RMA_ANSWER, PLI_RF_COOKIE, 0), .chan = c->peer_chan, .data = data,
                           .len = status < 0 ? 0 : len, .cookie = number | (uint64_t)(uint32_t)status << 32 };
    int rc = pli_conn_send_or_queue(c, &m, true, true, false);

    if (rc < 0 && c->state == PLI_CONN_DONE_SENT) { /* an ABORT would not be told */
        pli_link_fail(c->link, rc, "no memory to answer a one-sided operation");
        return rc;
    }
    return rc < 0 ? pli_conn_event(c, PLI_CEV_ABORT, rc, "no memory to answer a one-sided operation") : 0;
}

static int do_atomic(struct plait_conn *c, const struct pli_rma_rec *rec, uint32_t number, char *p)
{
    _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)p;
    uint64_t old = rec->a;

    if (rec->kind == PLI_RMA_ADD)
        old = atomic_fetch_add_explicit(word, rec->a, memory_order_seq_cst);
    else
        atomic_compare_exchange_strong_explicit(word, &old, rec->b, memory_order_seq_cst, memory_order_seq_cst);
    return answer(c, number, 0, &old, sizeof old);
}

/* The next bytes of a put. */
static int put_some(struct plait_conn *c, const uint8_t *p, uint32_t len)
{
    struct pli_rma_in *in = &c->rma->in;
    char *to;
    int rc = pli_rma_locate(c, &in->rec, &to);

    if (rc < 0 && in->status == 0)
        in->status = rc;
    if (in->status == 0 && len)
        pli_copy(to, p, len);
    in->rec.offset += len;
    in->rec.len -= len;
    in->left -= len;
    return in->left ? 0 : answer(c, in->number, in->status, NULL, 0);
}

/* NULL, or what is wrong with it. */
static const char *check(const struct plait_conn *c, const struct pli_rma_rec *rec, bool parts, uint64_t cookie, uint32_t len)
{
    if (rec->kind >= PLI_RMA_FLUSH || rec->zero)
        return "a one-sided operation of unknown kind";
    if (rec->len > PLI_RMA_STEP || (rec->kind > PLI_RMA_GET && (rec->len != 8 || rec->offset % 8)))
        return "a one-sided operation with a wrong length or offset";
    if (rec->kind != PLI_RMA_PUT ? parts || len : parts ? len >= rec->len || cookie >> 32 != rec->len : len != rec->len)
        return "a one-sided operation with data of a wrong length";
    if (c->ntxq > PLI_RMA_ASKED && pli_conn_count_queued(c, PLI_REC_RMA_ANSWER) >= PLI_RMA_ASKED)
        return "more one-sided operations than may be asked for";
    return NULL;
}

static int asked(struct plait_conn *c, bool parts, uint64_t cookie, const uint8_t *p, uint32_t len)
{
    struct pli_rma_rec rec;
    const char *wrong;
    char *at;
    int rc;

    memcpy(&rec, p, sizeof rec); /* once: the peer could change it */
    wrong = check(c, &rec, parts, cookie, len);
    if (wrong)
        return pli_conn_breach(c, wrong);
    if (rec.kind == PLI_RMA_PUT) {
        c->rma->in = (struct pli_rma_in){ .left = rec.len, .rec = rec, .number = (uint32_t)cookie };
        return put_some(c, p + sizeof rec, len);
    }
    rc = pli_rma_locate(c, &rec, &at);
    if (rc < 0)
        return answer(c, (uint32_t)cookie, rc, NULL, 0);
    if (rec.kind == PLI_RMA_GET)
        return answer(c, (uint32_t)cookie, 0, at, rec.len);
    return do_atomic(c, &rec, (uint32_t)cookie, at);
}

/* ---- records ---- */

static int more_came(struct plait_conn *c, const uint8_t *p, uint32_t len)
{
    struct pli_rma_in *in = c->rma ? &c->rma->in : NULL;

    if (!in || !len || len > in->left)
        return pli_conn_breach(c, "bytes of a one-sided operation that has none");
    if (!in->answer)
        return put_some(c, p, len);
    pli_copy(in->to, p, len);
    in->to += len;
    in->left -= len;
    if (!in->left)
        answered(c->rma, 0);
    return 0;
}

int pli_rma_rx(struct plait_conn *c, uint32_t meta, uint64_t cookie, const uint8_t *p, uint32_t len)
{
    uint32_t flags = pli_meta_flags(meta), type = pli_meta_type(meta);
    bool parts = flags & PLI_RF_FRAG;

    if (pli_link_shares(c->link))
        return pli_conn_breach(c, "a record of a one-sided operation, which needs none here");
    if (type == PLI_REC_RMA_DATA)
        return flags || pli_meta_hdr_len(meta) ? pli_conn_breach(c, "the flags of bytes of a one-sided operation") : more_came(c, p, len);
    if ((flags & ~PLI_RF_FRAG) != PLI_RF_COOKIE || pli_meta_hdr_len(meta) != (type == PLI_REC_RMA ? sizeof(struct pli_rma_rec) : 0))
        return pli_conn_breach(c, "the flags or header length of a one-sided operation");
    if (c->rma && c->rma->in.left)
        return pli_conn_breach(c, "a one-sided operation inside another one");
    if (type == PLI_REC_RMA_ANSWER)
        return answer_came(c, parts, cookie, p, len);
    if (!pli_rma_conn(c))
        return pli_conn_event(c, PLI_CEV_ABORT, PLAIT_E_NOMEM, pli_err_text());
    return asked(c, parts, cookie, p, len);
}
