/* SPDX-License-Identifier: BSD-3-Clause */
/* Sending: records gather in a packet. One on an idle link goes at once; while a packet is under way further ones gather behind it and leave
 * together, at the end of a poll, at a flush, or when the packet is full. */
#include "fabric/ofi.h"
#include "util/err.h"
#include "util/log.h"

/* ---- packets ---- */

static uint32_t credits(const struct pli_ofi_link *l)
{
    return l->tx_grant - l->tx_next;
}

static bool may_send(const struct pli_ofi_link *l, bool data)
{
    return l->state == PLI_OFI_UP && l->described && l->tx_flight < l->tx_max && credits(l) > (data ? 1u : 0u);
}

/* Completes the packet at both ends. The buffer's len is without the tail. */
static void write_head(struct pli_ofi_link *l, struct pli_ofi_buf *buf, uint32_t records)
{
    uint64_t tail = pli_ofi_tail(l->peer_tag, l->tx_next);
    struct pli_ofi_head h = {
        .magic = PLI_OFI_MAGIC,
        .records = (uint16_t)records,
        .tag = l->peer_tag,
        .link = l->peer_id,
        .grant = l->rx_posted,
        .big_from = l->rx_big_from,
        .number = l->tx_next,
        .len = buf->len + PLI_OFI_TAIL,
    };

    memcpy(buf->mem, &h, sizeof h);
    memcpy(buf->mem + buf->len, &tail, sizeof tail);
}

static bool refused(struct pli_ofi_link *l, ssize_t rc)
{
    if (rc != -FI_EAGAIN)
        pli_ofi_link_broke(l, pli_fi_lib()->strerror((int)-rc));
    else /* once more in the next poll */
        pli_ofi_link_dirty(l);
    return false;
}

/* A packet is with the provider. */
static void accepted(struct pli_ofi_link *l)
{
    l->tx_next++;
    l->greet = false;
    l->rx_told = l->rx_posted;
    l->rx_data = false;
    if (l->starved)
        pli_ofi_link_ready(l);
}

/* The provider has the buffer until the completion of this packet, or of a later one. */
static ssize_t hand_over(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    struct iovec iov = { buf->mem, buf->len + PLI_OFI_TAIL };
    struct fi_msg msg = { .msg_iov = &iov, .desc = &buf->desc, .iov_count = 1, .addr = l->peer_addr, .context = &buf->ctx };
    bool silent = l->dev->quiet && l->tx_silent < PLI_OFI_SILENT && l->tx_flight + 1 < l->tx_max;
    ssize_t rc = fi_sendmsg(l->ep, &msg, silent ? 0 : FI_COMPLETION);

    if (rc < 0)
        return rc;
    l->tx_silent = silent ? l->tx_silent + 1 : 0;
    buf->link = l;
    buf->op = PLI_OFI_TX;
    pli_list_push_back(&l->ops, &buf->node);
    l->tx_flight++;
    return 0;
}

/* Gives a packet to the provider, which has it from then on unless *again is set: then it may be used for the next one. */
static bool post(struct pli_ofi_link *l, struct pli_ofi_buf *buf, uint32_t records, bool *again)
{
    ssize_t rc;

    write_head(l, buf, records);
    *again = buf->len + PLI_OFI_TAIL <= l->dev->info->tx_attr->inject_size;
    if (*again)
        rc = fi_inject(l->ep, buf->mem, buf->len + PLI_OFI_TAIL, l->peer_addr);
    else
        rc = hand_over(l, buf);
    if (rc < 0)
        return refused(l, rc);
    if (*again || l->dev->quiet) {
        l->injected = true;
        pli_ofi_link_dirty(l);
    }
    accepted(l);
    return true;
}

static bool post_fill(struct pli_ofi_link *l)
{
    bool again;

    if (!may_send(l, true) || !post(l, l->fill, l->fill_records, &again))
        return false;
    l->fill_records = 0;
    if (again) /* an idle link keeps none; the next record gets this one, which is in the cache */
        pli_ofi_buf_put(l->dev, l->fill);
    l->fill = NULL;
    return true;
}

/* A packet without records. What cannot be sent now is due as before. */
static void post_grant(struct pli_ofi_link *l)
{
    struct pli_ofi_buf *buf;
    bool again;

    if (!may_send(l, false))
        return;
    buf = pli_ofi_buf_get(l->dev, false);
    if (!buf) {
        pli_warn("%s", pli_err_text());
        return;
    }
    buf->len = sizeof(struct pli_ofi_head);
    if (!post(l, buf, 0, &again) || again)
        pli_ofi_buf_put(l->dev, buf);
}

/* Is a packet on its way, so that records gather behind it? Where there are no completions it is, until the next poll. */
static bool under_way(const struct pli_ofi_link *l)
{
    return l->injected || (!l->dev->quiet && l->tx_flight);
}

void pli_ofi_link_flush(struct pli_ofi_link *l, bool all)
{
    l->injected = false;
    if (l->fill_records && !l->reserved && (all || !under_way(l)))
        post_fill(l);
    if (l->greet || pli_ofi_grant_due(l))
        post_grant(l);
}

/* ---- records ---- */

/* Does a large buffer wait for the next packet? */
static bool next_is_big(const struct pli_ofi_link *l)
{
    return l->tx_big_from != UINT32_MAX && !l->dev->no_big && (int32_t)(l->tx_next - l->tx_big_from) >= 0;
}

/* Room for size bytes in the packet that is being filled, or NULL: not now. Whoever has been told so waits until he is told more. */
static uint8_t *room(struct pli_ofi_link *l, uint32_t size)
{
    if (l->fill && l->fill->len + size + PLI_OFI_TAIL > l->fill->size) {
        if (l->fill_records && (l->starved || !post_fill(l)))
            return NULL;
        if (l->fill && l->fill->len + size + PLI_OFI_TAIL > l->fill->size) { /* empty, and too small all the same */
            pli_ofi_buf_put(l->dev, l->fill);
            l->fill = NULL;
        }
    }
    if (!l->fill) {
        l->fill = pli_ofi_buf_get(l->dev, next_is_big(l));
        if (!l->fill) {
            if (l->tx_flight <= l->tx_silent) /* no completion will bring one back: nobody would ever be told of space */
                pli_ofi_link_broke(l, pli_err_text());
            return NULL;
        }
        l->fill->len = sizeof(struct pli_ofi_head);
    }
    return l->fill->mem + l->fill->len;
}

bool pli_ofi_make_space(struct pli_ofi_link *l)
{
    if (l->state != PLI_OFI_UP || l->reserved)
        return false;
    return !l->fill || !l->fill_records || l->fill->len + l->need + PLI_OFI_TAIL <= l->fill->size || post_fill(l);
}

static int no_room(struct pli_ofi_link *l, uint32_t size)
{
    l->starved = true;
    l->need = size;
    return pli_fail_const(PLAIT_E_AGAIN, "no space on the fabric link now; on_writable follows");
}

static int check(struct pli_ofi_link *l, uint64_t payload)
{
    if (payload > pli_ofi_max_payload(&l->tr))
        return pli_fail(PLAIT_E_TOOBIG, "a record of %llu bytes is larger than this link's packets of %u", (unsigned long long)payload,
                        pli_ofi_max_payload(&l->tr));
    return l->reserved ? pli_fail_const(PLAIT_E_BUSY, "a reservation is open on the link") : 0;
}

/* One record more is in the packet: does it go at once? */
static void added(struct pli_ofi_link *l, bool more)
{
    l->fill_records++;
    if (!more && !under_way(l) && !l->hub->polling)
        post_fill(l);
    if (l->fill_records)
        pli_ofi_link_dirty(l);
}

static void put_words(uint8_t *to, uint32_t meta, uint64_t w1)
{
    uint64_t w0 = (uint64_t)meta << 32;

    memcpy(to, &w0, 8);
    memcpy(to + 8, &w1, 8);
}

int pli_ofi_send(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    uint64_t payload = pli_rec_payload(meta, w1);
    uint32_t size, hdr_len = pli_meta_hdr_len(meta);
    uint8_t *p, *end;
    int rc = check(l, payload);

    if (rc < 0)
        return rc;
    size = (uint32_t)pli_ofi_rec_size(payload);
    p = room(l, size);
    if (!p)
        return no_room(l, size);
    end = p + size;
    memset(end - 8, 0, 8); /* the padding */
    put_words(p, meta, w1);
    p += PLI_REC_HEAD;
    if (meta & PLI_RF_COOKIE << 8) {
        memcpy(p, &cookie, 8);
        p += 8;
    }
    if (hdr_len) {
        memcpy(p, hdr, hdr_len);
        p += hdr_len;
    }
    if (pli_w1_len(w1))
        memcpy(p, data, pli_w1_len(w1));
    l->fill->len += size;
    added(l, more);
    return 0;
}

int pli_ofi_reserve(struct pli_tr *tr, bool cookie, uint32_t len, void **data)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    uint64_t payload = (cookie ? 8u : 0u) + (uint64_t)len;
    uint8_t *p;
    int rc = check(l, payload);

    if (rc < 0)
        return rc;
    if (l->fill_records) /* what waits need not wait for the commit */
        post_fill(l);
    p = room(l, (uint32_t)pli_ofi_rec_size(payload));
    if (!p)
        return no_room(l, (uint32_t)pli_ofi_rec_size(payload));
    l->reserved = true;
    l->reserved_cookie = cookie;
    *data = p + PLI_REC_HEAD + (cookie ? 8 : 0);
    return 0;
}

void pli_ofi_commit(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    uint64_t payload = pli_rec_payload(meta, w1);
    uint8_t *p;

    if (!l->reserved)
        return;
    l->reserved = false;
    p = l->fill->mem + l->fill->len;
    put_words(p, meta, w1);
    if (l->reserved_cookie)
        memcpy(p + PLI_REC_HEAD, &cookie, 8);
    memset(p + PLI_REC_HEAD + payload, 0, (size_t)(-payload & 7));
    l->fill->len += (uint32_t)pli_ofi_rec_size(payload);
    added(l, more);
    if (l->starved)
        pli_ofi_link_ready(l);
}

void pli_ofi_abandon(struct pli_tr *tr)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);

    l->reserved = false;
    if (l->starved)
        pli_ofi_link_ready(l);
}

void pli_ofi_flush(struct pli_tr *tr)
{
    pli_ofi_link_flush(pli_ofi_link_of(tr), true);
}

uint32_t pli_ofi_max_payload(const struct pli_tr *tr)
{
    const struct pli_ofi_link *l = pli_container_of(tr, struct pli_ofi_link, tr);

    return pli_ofi_payload_max(next_is_big(l) ? PLI_OFI_BIG : PLI_OFI_SMALL);
}
