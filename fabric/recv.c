/* SPDX-License-Identifier: BSD-3-Clause */
/* Receiving: buffers that are posted, packets that have come, records that are held in them. */
#include <stdio.h>
#include "fabric/ofi.h"
#include "util/err.h"
#include "util/log.h"

enum {
    FULL_PACKETS = 8,   /* nearly full packets, after which larger buffers are posted */
    POSTED_MIN = 3,     /* what is held leaves so many, or the two sides could only send each other grants */
};

/* ---- buffers ---- */

/* A buffer that has been read. Where a packet was found by looking at it, the provider may still be writing, because a bad peer has
 * sent more than the packet's field len says: it takes only this link's packets then, until the endpoint is closed. */
static void put_back(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    if (l->dev->quiet)
        pli_list_push_back(&l->spare, &buf->node);
    else
        pli_ofi_buf_put(l->dev, buf);
}

static struct pli_ofi_buf *get_buf(struct pli_ofi_link *l)
{
    uint32_t size = l->rx_big_from != UINT32_MAX ? PLI_OFI_BIG : PLI_OFI_SMALL;
    struct pli_list *node;

    pli_list_foreach(node, &l->spare) {
        struct pli_ofi_buf *buf = pli_container_of(node, struct pli_ofi_buf, node);

        if (buf->size == size) {
            pli_list_remove(node);
            return buf;
        }
    }
    return pli_ofi_buf_get(l->dev, size == PLI_OFI_BIG);
}

static uint32_t owned(const struct pli_ofi_link *l)
{
    return l->rx_posted - l->rx_read + l->held;
}

ssize_t pli_ofi_post_buf(struct fid_ep *ep, struct pli_ofi_buf *buf, bool quiet)
{
    struct iovec iov = { buf->mem, buf->size };
    struct fi_msg msg = { .msg_iov = &iov, .desc = &buf->desc, .iov_count = 1, .addr = FI_ADDR_UNSPEC, .context = &buf->ctx };

    memset(buf->mem, 0, sizeof(struct pli_ofi_head)); /* no packet is there */
    return fi_recvmsg(ep, &msg, quiet ? 0 : FI_COMPLETION);
}

/* The device's endpoint has one buffer more for each packet that the peer may be told of. */
static int post_rdm(struct pli_ofi_link *l)
{
    uint32_t more = l->window - owned(l);

    l->dev->rx_promised += more;
    l->rx_posted += more;
    return pli_ofi_rdm_fill(l->dev);
}

int pli_ofi_post(struct pli_ofi_link *l)
{
    if (l->dev->kind == PLI_OFI_RDM && l->ep && l->state < PLI_OFI_BROKEN && owned(l) < l->window)
        return post_rdm(l);
    while (l->ep && l->state < PLI_OFI_BROKEN && owned(l) < l->window) {
        struct pli_ofi_buf *buf = get_buf(l);
        ssize_t rc;

        if (!buf)
            return PLAIT_E_NOMEM;
        rc = pli_ofi_post_buf(l->ep, buf, l->dev->quiet);
        if (rc < 0) {
            put_back(l, buf);
            return pli_ofi_fail(l->dev->name, "posting a buffer", rc);
        }
        buf->link = l;
        buf->op = PLI_OFI_RX;
        pli_list_push_back(&l->posted, &buf->node);
        l->rx_posted++;
    }
    return 0;
}

/* Posts what is wanted; that the peer has to be told of it is seen at the end of the poll. */
static void post_again(struct pli_ofi_link *l)
{
    if (pli_ofi_post(l) < 0)
        pli_ofi_link_broke(l, pli_err_text());
    if (pli_ofi_grant_due(l))
        pli_ofi_link_dirty(l);
}

/* Is there memory for large packets? Where little may be locked, links go on with small ones. */
static bool has_big(struct pli_ofi_dev *dev)
{
    struct pli_ofi_buf *buf = dev->no_big ? NULL : pli_ofi_buf_get(dev, true);

    if (!buf && !dev->no_big)
        pli_warn("%s; long messages go in small packets", pli_err_text());
    dev->no_big = !buf;
    if (buf)
        pli_ofi_buf_put(dev, buf);
    return buf;
}

bool pli_ofi_grant_due(const struct pli_ofi_link *l)
{
    uint32_t left = l->rx_told - l->rx_seen; /* packets that the peer knows it may send */

    if (l->rx_posted == l->rx_told || l->state != PLI_OFI_UP)
        return false;
    /* an answer to packets without records only when the peer could not send one with records, or they would answer each other for ever */
    return l->rx_data ? left <= l->window / 2 : left <= 1;
}

/* ---- packets ---- */

static void spoil(struct pli_ofi_link *l, const char *text)
{
    char whole[320];

    snprintf(whole, sizeof whole, "%s: %s", l->dev->name, text);
    pli_ofi_quiet(&l->tr);
    l->tr.up->failed(l->tr.owner, PLAIT_E_PROTO, whole);
}

/* NULL, or what is wrong with it. */
static const char *take_head(struct pli_ofi_link *l, const struct pli_ofi_buf *buf, struct pli_ofi_head *h)
{
    uint64_t tail;

    if (buf->len < sizeof *h + PLI_OFI_TAIL || buf->len > buf->size)
        return "a packet's length, or its field len, is less than its head's or more than its buffer's";
    memcpy(h, buf->mem, sizeof *h);
    if (h->len != buf->len)
        return "a packet has another length than its field len";
    if (h->magic != PLI_OFI_MAGIC)
        return "a packet's field magic is wrong";
    if (h->tag != l->tag)
        return "a packet's field tag is not this link's";
    if (h->link != l->id)
        return "a packet's field link is not this link's";
    if (h->number != l->rx_seen)
        return "a packet's field number is out of order";
    if (h->grant - l->tx_grant > 1024)
        return "a packet's field grant goes back, or far ahead";
    if (h->big_from != l->tx_big_from && l->tx_big_from != UINT32_MAX)
        return "a packet's field big_from has changed";
    memcpy(&tail, buf->mem + h->len - PLI_OFI_TAIL, sizeof tail);
    if (tail != pli_ofi_tail(l->tag, h->number))
        return "a packet's tail, or its field len, is wrong";
    return NULL;
}

static void take_grant(struct pli_ofi_link *l, const struct pli_ofi_head *h)
{
    if (h->grant == l->tx_grant && h->big_from == l->tx_big_from)
        return;
    l->tx_grant = h->grant;
    l->tx_big_from = h->big_from;
    if (l->tx_big_from != UINT32_MAX)
        has_big(l->dev);
    if (l->starved)
        pli_ofi_link_ready(l);
    if (l->fill_records)
        pli_ofi_link_dirty(l);
}

/* A link that sends full packets gets larger ones, and more; only more where the buffers are anybody's. */
static void look_for_bulk(struct pli_ofi_link *l, const struct pli_ofi_buf *buf)
{
    const struct fi_info *info = l->dev->info;
    bool rdm = l->dev->kind == PLI_OFI_RDM;
    uint32_t window = rdm ? PLI_OFI_WINDOW_RDM : PLI_OFI_WINDOW_MAX;

    if (l->window >= window || buf->len < PLI_OFI_SMALL * 3 / 4 || ++l->rx_full < FULL_PACKETS)
        return;
    if (!rdm && (info->ep_attr->max_msg_size < PLI_OFI_BIG || info->rx_attr->size < PLI_OFI_WINDOW_MAX))
        return;
    if (!rdm && !has_big(l->dev))
        return;
    if (pli_ofi_link_widen(l, window) && !rdm)
        l->rx_big_from = l->rx_posted;
}

/* Is something there of the packet behind this one? Then all of this one is. */
static bool next_has_begun(const struct pli_ofi_link *l, const struct pli_list *node)
{
    const struct pli_list *next = pli_list_next(&l->posted, node);
    struct pli_ofi_head h;

    if (!next)
        return false;
    memcpy(&h, pli_container_of(next, struct pli_ofi_buf, node)->mem, sizeof h);
    return h.magic || h.len;
}

/* The provider writes a packet from its first byte to its last one, in its progress, which this thread runs: so the tail comes last. A stale tail
 * of the buffer's earlier use has another number. */
bool pli_ofi_look(struct pli_ofi_link *l)
{
    struct pli_list *node;
    bool any = false;

    while ((node = pli_list_first(&l->posted)) != NULL) {
        struct pli_ofi_buf *buf = pli_container_of(node, struct pli_ofi_buf, node);
        struct pli_ofi_head h;
        uint64_t tail;

        memcpy(&h, buf->mem, sizeof h);
        if (h.magic == 0 && h.len == 0)
            break;
        buf->len = h.len;
        tail = 0;
        if (h.len >= sizeof h + PLI_OFI_TAIL && h.len <= buf->size)
            memcpy(&tail, buf->mem + h.len - PLI_OFI_TAIL, sizeof tail);
        /* a length that is too small may be one of which not all bytes are there yet, but for one whose successor is there */
        if (h.len <= buf->size && tail != pli_ofi_tail(l->tag, l->rx_arrived) && !next_has_begun(l, node))
            break;
        pli_list_remove(node);
        pli_ofi_arrived(l, buf);
        any = true;
    }
    return any;
}

void pli_ofi_arrived(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    buf->op = PLI_OFI_IDLE;
    l->rx_arrived++;
    pli_list_push_back(&l->rxq, &buf->node);
    pli_ofi_link_ready(l);
}

/* The packet at the head of the queue is looked at for the first time. */
static bool begin(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    struct pli_ofi_head h;
    const char *bad = take_head(l, buf, &h);

    if (bad) {
        spoil(l, bad);
        return false;
    }
    l->rx_seen++;
    take_grant(l, &h);
    look_for_bulk(l, buf);
    l->rx_data = l->rx_data || h.records;
    l->rx_at = sizeof h;
    l->rx_left = h.records;
    return true;
}

static void finish(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    pli_list_remove(&buf->node);
    l->rx_at = 0;
    l->rx_read++;
    if (buf->holds) {
        l->held++;
        pli_list_push_back(&l->heldq, &buf->node);
    } else {
        put_back(l, buf);
    }
    post_again(l);
}

/* Delivers one record, or ends the packet. Negative: the link delivers nothing more. */
static int next_record(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    uint32_t meta, next;
    uint64_t w1;
    int rc;

    if (l->rx_left == 0) {
        if (l->rx_at + PLI_OFI_TAIL != buf->len) {
            spoil(l, "a packet is longer than its records");
            return -1;
        }
        finish(l, buf);
        return 0;
    }
    if (!pli_ofi_rec_parse(buf->mem, buf->len - PLI_OFI_TAIL, l->rx_at, &meta, &w1, &next)) {
        spoil(l, "a record is longer than its packet");
        return -1;
    }
    l->in_rx = true;
    rc = l->tr.up->rx(l->tr.owner, meta, w1, buf->mem + l->rx_at + PLI_REC_HEAD);
    l->in_rx = false;
    l->rx_at = next;
    l->rx_left--;
    if (rc < 0) { /* the owner has ended the link */
        pli_ofi_quiet(&l->tr);
        return -1;
    }
    return 1;
}

int pli_ofi_deliver(struct pli_ofi_link *l, int budget)
{
    struct pli_list *node;
    int n = 0;

    while (l->described && l->state != PLI_OFI_DEAD && (node = pli_list_first(&l->rxq)) != NULL) {
        struct pli_ofi_buf *buf = pli_container_of(node, struct pli_ofi_buf, node);
        int rc;

        if (!l->rx_at && l->dev->kind == PLI_OFI_RDM && !pli_ofi_rdm_is_next(l, buf))
            break;
        if (!l->rx_at && !begin(l, buf))
            break;
        if (n >= budget && l->rx_left) {
            pli_ofi_link_ready(l);
            break;
        }
        rc = next_record(l, buf);
        if (rc < 0)
            return n + 1;
        n += rc;
    }
    if (l->rx_wrong && l->state != PLI_OFI_DEAD && n < budget) {
        spoil(l, "a packet's field number is out of order");
        return n + 1;
    }
    if (n && l->held * 4 >= l->window && l->tr.up->crowded && l->state != PLI_OFI_DEAD)
        l->tr.up->crowded(l->tr.owner);
    return n;
}

/* ---- holds ---- */

int pli_ofi_hold(struct pli_tr *tr, uint32_t *token)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    struct pli_ofi_buf *buf;

    if (!l->in_rx)
        return PLAIT_E_AGAIN;
    buf = pli_container_of(pli_list_first(&l->rxq), struct pli_ofi_buf, node);
    if (!buf->holds && l->held + POSTED_MIN >= l->window)
        return PLAIT_E_AGAIN;
    buf->holds++;
    l->holds++;
    *token = buf->id;
    return 0;
}

void pli_ofi_release(struct pli_tr *tr, uint32_t token)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    struct pli_ofi_buf *buf = l->hub->bufs[token];

    l->holds--;
    if (--buf->holds)
        return;
    if (pli_list_first(&l->rxq) == &buf->node) /* still being read */
        return;
    pli_list_remove(&buf->node);
    put_back(l, buf);
    l->held--;
    post_again(l);
}
