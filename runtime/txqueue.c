/* SPDX-License-Identifier: BSD-3-Clause */
/* What a connection sends: one record if it fits and there is space, else parts and a queue. */
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "runtime/mem.h"
#include "runtime/pace.h"
#include "util/err.h"

/* Of longer messages memory for what may have to be queued is taken before the first part goes out: then there may be none. */
#define COPY_FIRST (1u << 20)
#define PART_MIN (2 * PLAIT_HDR_MAX + 512u) /* bytes: the first part has the header part in it, too */
#define ALL SIZE_MAX

/* A record with the next len bytes of m. */
static int send_part(struct plait_conn *c, struct pli_txmsg *m, uint32_t meta, uint32_t chan, uint32_t len, uint64_t cookie,
                     const void *hdr, bool more)
{
    uint64_t w1 = pli_rec_w1(len, chan, 0);

    if (m->from.iov)
        return pli_conn_gather_record(c, meta, w1, cookie, &m->from, hdr, more);
    return pli_conn_send_record(c, meta, w1, cookie, m->data + m->sent, hdr, more);
}

/* Bytes of one record. */
static uint32_t part_max(const struct plait_conn *c, size_t budget)
{
    uint32_t max = c->tr->ops->max_payload(c->tr);

    if (budget >= max)
        return max;
    return budget > PART_MIN ? (uint32_t)budget : PART_MIN;
}

static enum pli_rec_type rest_type(const struct pli_txmsg *m)
{
    switch (pli_meta_type(m->meta)) {
    case PLI_REC_FILL:
        return PLI_REC_FILL;
    case PLI_REC_RMA:
    case PLI_REC_RMA_ANSWER:
        return PLI_REC_RMA_DATA;
    default:
        return PLI_REC_FRAG;
    }
}

/* Sends of m what fits, but not much more than budget bytes: 0 all of it, PLAIT_E_AGAIN not all, 1 the budget is used up. */
static int push_txmsg(struct plait_conn *c, struct pli_txmsg *m, bool more, size_t budget)
{
    uint32_t max = part_max(c, budget);
    uint32_t head = (m->meta & PLI_RF_COOKIE << 8 ? 8u : 0u) + m->hdr_len;
    uint32_t part;
    uint64_t cookie = m->cookie;
    enum pli_rec_type rest = rest_type(m);
    int rc;

    if (!m->started && head + m->len <= max)
        return send_part(c, m, m->meta, m->chan, (uint32_t)m->len, m->cookie, m->hdr, more);
    if (!m->started) {
        uint32_t meta = m->meta | (PLI_RF_FRAG | PLI_RF_COOKIE) << 8;

        part = max - 8 - m->hdr_len;
        cookie = (uint32_t)m->cookie | (uint64_t)m->len << 32;
        rc = send_part(c, m, meta, c->peer_chan, part, cookie, m->hdr, true);
        if (rc < 0)
            return rc;
        m->started = true;
        m->sent = part;
        budget -= part < budget ? part : budget;
    }
    while (m->sent < m->len) {
        if (!budget)
            return 1;
        bool last = m->len - m->sent <= max;

        part = last ? (uint32_t)(m->len - m->sent) : max;
        rc = send_part(c, m, pli_rec_meta(rest, 0, 0), c->peer_chan, part, 0, NULL, false);
        if (rc < 0)
            return rc;
        m->sent += part;
        budget -= part < budget ? part : budget;
    }
    return 0;
}

static void enqueue(struct plait_conn *c, struct pli_txmsg *m)
{
    pli_list_push_back(&c->txq, &m->node);
    c->ntxq++;
    if (!pli_list_is_on(&c->queued))
        pli_list_push_back(&c->link->queued, &c->queued);
    pli_conn_update_limit(c);
}

/* Bytes behind the entry: the header part, padded for what follows; the data, or the array of the pieces that it lies in. */
static size_t queued_hdr(const struct pli_txmsg *m)
{
    return m->started ? 0 : (m->hdr_len + 7u) & ~(size_t)7u;
}

static unsigned pieces_left(const struct pli_txmsg *m)
{
    const struct pli_cursor *from = &m->from;
    size_t left = m->len - m->sent + from->off;
    unsigned n = 0;

    for (; left; n++)
        left -= from->iov[n].iov_len < left ? from->iov[n].iov_len : left;
    return n;
}

/* Of data that stays with the user. */
static size_t queued_pieces(const struct pli_txmsg *m)
{
    return m->from.iov ? pieces_left(m) * (sizeof(struct iovec) + sizeof(struct plait_mem *)) : sizeof(struct plait_mem *);
}

/* Space to queue m in, with a copy of its bytes unless they stay with the user. */
static struct pli_txmsg *queue_entry(const struct pli_txmsg *m, bool copy)
{
    size_t rest = copy ? m->len - m->sent : queued_pieces(m);
    struct pli_txmsg *q = malloc(sizeof *q + queued_hdr(m) + rest);

    if (!q)
        pli_fail(PLAIT_E_NOMEM, "no memory to queue a message of %zu bytes", m->len);
    return q;
}

/* Copies what is left of the data. From here on nothing but FRAG records may be left: len counts from here. */
static void copy_rest(struct pli_txmsg *q, struct pli_txmsg *m, uint8_t *to)
{
    size_t rest = m->len - m->sent;

    if (m->from.iov)
        pli_cursor_read(&m->from, to, rest);
    else if (rest)
        memcpy(to, m->data + m->sent, rest);
    q->from.iov = NULL;
    q->data = to;
    q->len = rest;
    q->sent = 0;
}

static void hold_mem(struct pli_txmsg *q, const void *p, size_t len)
{
    struct plait_mem *mem = len ? pli_mem_find(p, len) : NULL;

    if (mem)
        q->mems[q->nmems++] = mem;
}

/* The data stays where it is: q gets the array of its pieces, and holds the regions. */
static void keep_pieces(struct pli_txmsg *q, const struct pli_txmsg *m, uint8_t *to)
{
    unsigned n = m->from.iov ? pieces_left(m) : 0;
    struct iovec *iov = (struct iovec *)(void *)to;

    q->mems = (struct plait_mem **)(void *)(iov + n);
    if (!n) {
        hold_mem(q, m->data, m->len);
        return;
    }
    q->from.iov = iov;
    memcpy(iov, m->from.iov, n * sizeof *iov);
    for (unsigned i = 0; i < n; i++)
        hold_mem(q, iov[i].iov_base, iov[i].iov_len);
}

static void txmsg_free(struct pli_txmsg *q)
{
    for (unsigned i = 0; i < q->nmems; i++)
        pli_mem_put(q->mems[i]);
    free(q);
}

/* Queues what is left of m in q, which was made for as much or more; NULL: makes it. */
static int enqueue_rest(struct plait_conn *c, struct pli_txmsg *m, bool copy, struct pli_txmsg *q)
{
    size_t hdr = queued_hdr(m);

    if (!q)
        q = queue_entry(m, copy);
    if (!q)
        return PLAIT_E_NOMEM;
    *q = *m;
    pli_list_init(&q->node);
    if (hdr)
        memcpy(q->copy, m->hdr, m->hdr_len);
    q->hdr = q->copy;
    if (copy)
        copy_rest(q, m, q->copy + hdr);
    else
        keep_pieces(q, m, q->copy + hdr);
    enqueue(c, q);
    return 0;
}

int pli_conn_send_or_queue(struct plait_conn *c, struct pli_txmsg *m, bool copy, bool must, bool more)
{
    struct pli_txmsg *q = NULL;
    /* what stays with its user can be sent bit by bit; the rest is wanted back when the call returns */
    size_t budget = !copy && pli_pace_fine(c->ctx) ? c->ctx->pace.fine : ALL;
    int rc = PLAIT_E_AGAIN;

    if (copy && m->len > COPY_FIRST) {
        q = queue_entry(m, true);
        if (!q)
            return PLAIT_E_NOMEM;
    }
    if (pli_list_is_empty(&c->txq))
        rc = push_txmsg(c, m, more, budget);
    if (rc == 1) {
        q = queue_entry(m, false);
        if (q) {
            pli_ctx_work(c->ctx, &c->push_work);
            return enqueue_rest(c, m, false, q);
        }
        rc = push_txmsg(c, m, more, ALL);
    }
    if (rc == 0 || (rc != PLAIT_E_AGAIN && rc != PLAIT_E_BUSY)) {
        free(q);
        return rc;
    }
    pli_link_starved(c->link);
    if (!m->started && !must) {
        free(q);
        return rc;
    }
    rc = enqueue_rest(c, m, copy, q);
    if (rc < 0 && m->started) /* half of it is out, the rest cannot follow */
        pli_link_fail(c->link, rc, pli_err_text());
    else if (rc < 0)
        return rc;
    return 0;
}

int pli_conn_send_first(struct plait_conn *c, struct pli_txmsg *m, bool copy)
{
    struct pli_txmsg *q = queue_entry(m, copy);

    if (!q)
        return PLAIT_E_NOMEM;
    enqueue_rest(c, m, copy, q);
    pli_list_remove(&q->node);
    pli_list_push_front(&c->txq, &q->node); /* parts of what was first go on behind it */
    pli_ctx_work(c->ctx, &c->push_work);
    return 0;
}

void pli_conn_frames_first(struct plait_conn *c)
{
    struct pli_list *node = pli_list_first(&c->txq);
    struct pli_txmsg *m = node ? pli_container_of(node, struct pli_txmsg, node) : NULL;

    if (m && m->chan == PLI_CHAN_LINK)
        pli_link_send_ctl(c->link, m->meta, pli_rec_w1((uint32_t)m->len, PLI_CHAN_LINK, 0), 0, m->data);
}

static struct pli_txmsg *find_queued(const struct plait_conn *c, uint32_t cookie)
{
    struct pli_list *node;

    pli_list_foreach(node, &c->txq) {
        struct pli_txmsg *m = pli_container_of(node, struct pli_txmsg, node);
        uint32_t type = pli_meta_type(m->meta);
        bool numbered = (type == PLI_REC_REQUEST || type == PLI_REC_ONEWAY) && m->meta & PLI_RF_COOKIE << 8;

        if ((numbered || type == PLI_REC_FILL) && (uint32_t)m->cookie == cookie)
            return m;
    }
    return NULL;
}

unsigned pli_conn_count_queued(const struct plait_conn *c, enum pli_rec_type type)
{
    const struct pli_list *node;
    unsigned n = 0;

    pli_list_foreach(node, &c->txq)
        n += pli_meta_type(pli_container_of(node, struct pli_txmsg, node)->meta) == (uint32_t)type;
    return n;
}

bool pli_conn_rma_is_queued(const struct plait_conn *c, uint32_t number)
{
    const struct pli_list *node;

    pli_list_foreach(node, &c->txq) {
        const struct pli_txmsg *m = pli_container_of(node, struct pli_txmsg, node);

        if (pli_meta_type(m->meta) == PLI_REC_RMA)
            return (uint32_t)m->cookie == number; /* only one is answered at a time, and the first has the lowest number */
    }
    return false;
}

bool pli_conn_is_queued(const struct plait_conn *c, uint32_t cookie)
{
    return find_queued(c, cookie) != NULL;
}

/* Nothing but the rest of a message waits there: what cannot be begun is not accepted. */
bool pli_conn_cut_short(struct plait_conn *c, uint32_t cookie)
{
    struct pli_txmsg *m = find_queued(c, cookie);

    if (!m)
        return false;
    while (m->nmems)
        pli_mem_put(m->mems[--m->nmems]);
    m->meta = pli_rec_meta(PLI_REC_CANCEL, PLI_RF_COOKIE, 0);
    m->from.iov = NULL;
    m->started = false;
    m->len = m->sent = m->hdr_len = 0;
    return true;
}

/* A slice at a time: other connections pass. */
static int push_slice(struct plait_conn *c, struct pli_txmsg *m)
{
    uint64_t began;
    size_t sent = m->sent, budget = pli_pace_slice(c, &began);
    int rc;

    /* or the small ones would wait in the ring, behind what the peer has not read */
    if (!budget)
        return 1;
    if (budget < PLI_PACE_COARSE && m->len - m->sent > PART_MIN && c->tr->ops->behind && c->tr->ops->behind(c->tr))
        return 1;
    rc = push_txmsg(c, m, false, budget);
    pli_pace_took(c->ctx, m->sent - sent, began, true);
    return rc;
}

void pli_conn_push_work(struct pli_work *w)
{
    struct plait_conn *c = pli_container_of(w, struct plait_conn, push_work);

    if (!pli_list_is_empty(&c->link->ctl) || !pli_link_is_up(c->link))
        return; /* these go first: the transport will say when there is space */
    pli_session_ref(c->session);
    pli_conn_pump(c);
    pli_session_unref(c->session);
}

void pli_conn_pump(struct plait_conn *c)
{
    struct pli_list *node;

    while (c->state != PLI_CONN_CLOSED && (node = pli_list_first(&c->txq)) != NULL) {
        struct pli_txmsg *m = pli_container_of(node, struct pli_txmsg, node);
        int rc = push_slice(c, m);

        if (rc) {
            if (rc < 0)
                pli_link_starved(c->link);
            else
                pli_ctx_work(c->ctx, &c->push_work);
            if (!pli_list_is_on(&c->queued))
                pli_list_push_back(&c->link->queued, &c->queued);
            return;
        }
        pli_list_remove(node);
        c->ntxq--;
        txmsg_free(m);
    }
    if (c->state == PLI_CONN_CLOSED)
        return;
    pli_conn_update_limit(c);
    pli_conn_quiet_later(c);
    if (c->credit_due)
        pli_conn_credit_now(c);
    if (c->blocked)
        pli_conn_unblock(c);
}

void pli_conn_txq_drop(struct plait_conn *c)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&c->txq)) != NULL)
        txmsg_free(pli_container_of(node, struct pli_txmsg, node));
    c->ntxq = 0;
    pli_work_cancel(&c->push_work);
    pli_list_remove(&c->queued);
    pli_list_remove(&c->blocked_on);
}
