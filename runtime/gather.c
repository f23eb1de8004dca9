/* SPDX-License-Identifier: BSD-3-Clause */
/* What a message to send consists of; and records whose data is gathered from pieces, straight into the transport's memory. */
#include <string.h>
#include "runtime/conn.h"
#include "runtime/offer.h"
#include "util/err.h"

#define FLAGS_ALLOWED (PLAIT_MORE | PLAIT_NOCOPY)

static int check_pieces(const struct plait_out *out, size_t *len)
{
    if (out->niov && (out->data || out->len))
        return pli_fail(PLAIT_E_INVAL, "struct plait_out has data and iov: one of them");
    if (out->niov > PLAIT_IOV_MAX || out->ninto > PLAIT_IOV_MAX)
        return pli_fail(PLAIT_E_INVAL, "%u pieces in struct plait_out's %s: PLAIT_IOV_MAX is %u", out->niov > PLAIT_IOV_MAX ? out->niov : out->ninto,
                        out->niov > PLAIT_IOV_MAX ? "iov" : "into", PLAIT_IOV_MAX);
    if (!out->niov != !out->iov || !out->ninto != !out->into)
        return pli_fail(PLAIT_E_INVAL, "struct plait_out has %s without the other", !out->niov != !out->iov ? "iov or niov" : "into or ninto");
    for (unsigned i = 0; i < out->niov; i++)
        if (out->iov[i].iov_len && !out->iov[i].iov_base)
            return pli_fail(PLAIT_E_INVAL, "piece %u of struct plait_out's iov has a length without a pointer", i);
    *len = out->niov ? pli_iov_len(out->iov, out->niov) : out->len;
    return 0;
}

int pli_out_check(const struct plait_out *out, size_t *len)
{
    if (out->size != sizeof *out)
        return pli_fail(PLAIT_E_INVAL, "struct plait_out has size %zu, not %zu: begin with PLAIT_OUT_INIT", out->size, sizeof *out);
    if (out->flags & ~FLAGS_ALLOWED)
        return pli_fail(PLAIT_E_INVAL, "unknown flags 0x%x in struct plait_out", out->flags & ~FLAGS_ALLOWED);
    if (out->hdr_len > PLAIT_HDR_MAX)
        return pli_fail(PLAIT_E_TOOBIG, "a header part of %u bytes is over PLAIT_HDR_MAX, %u", out->hdr_len, PLAIT_HDR_MAX);
    if ((out->hdr_len && !out->hdr) || (out->len && !out->data))
        return pli_fail(PLAIT_E_INVAL, "struct plait_out has a length without a pointer");
    return check_pieces(out, len);
}

/* ---- records ---- */

#define SMALL 512u /* less is put together on the stack first: a transport sends that as it sends other small messages */

static int small(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, struct pli_cursor *from, const void *hdr, bool more)
{
    struct pli_cursor then = *from;
    uint8_t data[SMALL];
    int rc;

    pli_cursor_read(&then, data, pli_w1_len(w1));
    rc = pli_conn_send_record(c, meta, w1, cookie, data, hdr, more);
    if (rc == 0)
        *from = then;
    return rc;
}

int pli_conn_gather_record(struct plait_conn *c, uint32_t meta, uint64_t w1, uint64_t cookie, struct pli_cursor *from, const void *hdr, bool more)
{
    uint32_t hdr_len = pli_meta_hdr_len(meta), len = pli_w1_len(w1);
    void *to;
    int rc;

    if (len <= SMALL)
        return small(c, meta, w1, cookie, from, hdr, more);
    rc = c->tr->ops->reserve(c->tr, meta & PLI_RF_COOKIE << 8, hdr_len + len, &to);
    if (rc < 0)
        return rc;
    if (hdr_len)
        memcpy(to, hdr, hdr_len);
    pli_cursor_read(from, (uint8_t *)to + hdr_len, len);
    c->tr->ops->commit(c->tr, meta, w1 | pli_rec_w1(0, 0, c->rx_released), cookie, more);
    c->rx_credited = c->rx_released;
    return 0;
}
