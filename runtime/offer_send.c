/* SPDX-License-Identifier: BSD-3-Clause */
/* Offering: a record that names where the data lies, in regions that the peer has mapped. The work does not depend on how long it is. */
#include <stdlib.h>
#include <string.h>
#include "runtime/mem.h"
#include "runtime/offer.h"
#include "util/err.h"

/* What goes into the record, and which shares it names. */
struct draft {
    struct {
        struct pli_ref_head head;
        struct pli_ref refs[PLAIT_IOV_MAX];
    } rec;
    uint16_t slots[PLAIT_IOV_MAX];
    uint32_t nslots;
    struct plait_mem *mems[PLAIT_IOV_MAX]; /* of pieces that are named by their addresses: a reference on each */
    uint32_t nmems;
    bool addresses;
};

static void name_share(struct draft *d, const struct pli_share *s)
{
    for (uint32_t i = d->nslots; i-- > 0;)
        if (d->slots[i] == s->slot)
            return;
    d->slots[d->nslots++] = s->slot;
}

/* False: not all of it can be named now. Asks for the regions that the peer does not know yet. */
static bool name_pieces(struct plait_conn *c, const struct iovec *iov, unsigned niov, struct draft *d)
{
    bool all = true, in_region;

    for (unsigned i = 0; i < niov; i++) {
        const struct pli_share *s;

        if (!iov[i].iov_len)
            continue;
        s = pli_share_find(c->link, iov[i].iov_base, iov[i].iov_len, &in_region);
        if (!s && !in_region)
            return false;
        all = all && s;
        if (!all)
            continue;
        d->rec.refs[d->rec.head.count++] = (struct pli_ref){
            .key = s->key, .len = (uint32_t)iov[i].iov_len, .offset = (uint64_t)((char *)iov[i].iov_base - s->addr),
        };
        name_share(d, s);
    }
    return all && d->nslots;
}

static void put_mems(struct draft *d)
{
    while (d->nmems)
        pli_mem_put(d->mems[--d->nmems]);
}

/* By their addresses: the peer reads them there. Regions stay until it has. any: also memory that is in none; it is the user's word then that
 * another process can read it (memory of a device, say, cannot be read so, though the program itself can). */
static bool name_addresses(const struct iovec *iov, unsigned niov, bool any, struct draft *d)
{
    d->nslots = d->rec.head.count = d->nmems = 0;
    d->addresses = true;
    for (unsigned i = 0; i < niov; i++) {
        struct plait_mem *mem = iov[i].iov_len ? pli_mem_find(iov[i].iov_base, iov[i].iov_len) : NULL;

        if (!iov[i].iov_len)
            continue;
        if (!mem && !any) {
            put_mems(d);
            return false;
        }
        if (mem)
            d->mems[d->nmems++] = mem;
        d->rec.refs[d->rec.head.count++] = (struct pli_ref){
            .key = PLI_REF_ADDRESS, .len = (uint32_t)iov[i].iov_len, .offset = (uintptr_t)iov[i].iov_base,
        };
    }
    return true;
}

/* True: the message can be offered, as d says. */
static bool name_data(struct plait_conn *c, const struct iovec *iov, unsigned niov, size_t len, struct draft *d)
{
    d->nslots = d->nmems = 0;
    d->addresses = false;
    if (c->take != PLAIT_TAKE_CMA && name_pieces(c, iov, niov, d))
        return true;
    return pli_cma_wanted(c->link, len, c->take == PLAIT_TAKE_CMA) && name_addresses(iov, niov, c->take == PLAIT_TAKE_CMA, d);
}

int pli_offer_send(struct plait_conn *c, struct pli_txmsg *m, uint32_t index, const struct plait_out *out, bool reply)
{
    const struct iovec one = { (void *)(uintptr_t)out->data, out->len };
    const struct iovec *iov = out->niov ? out->iov : &one;
    unsigned niov = out->niov ? out->niov : 1;
    struct pli_txmsg offer = *m;
    struct draft d;
    int rc;

    if (c->take == PLAIT_TAKE_RING || c->state == PLI_CONN_CLOSED)
        return 0;
    d.rec.head = (struct pli_ref_head){ .receipt = reply ? pli_req_cookie(&c->reqs[index]) : 0 };
    if (!name_data(c, iov, niov, pli_iov_len(iov, niov), &d))
        return 0;
    if (d.addresses)
        rc = pli_req_set_named(c, index, iov, niov, d.mems, d.nmems);
    else
        rc = d.nslots ? pli_req_set_shares(c, index, d.slots, d.nslots) : 0;
    if (rc < 0)
        return rc;
    offer.meta |= PLI_RF_REF << 8;
    offer.data = (const uint8_t *)&d.rec;
    offer.len = sizeof d.rec.head + d.rec.head.count * sizeof d.rec.refs[0];
    rc = pli_conn_send_or_queue(c, &offer, true, reply, out->flags & PLAIT_MORE);
    if (rc < 0)
        return rc;
    c->reqs[index].key |= PLI_REQ_ODD | PLI_REQ_OFFERED;
    c->ctx->st.offers_sent++;
    return 1;
}

int pli_offer_needed(struct plait_conn *c, uint32_t cookie)
{
    struct pli_req *r = pli_req_find(c, cookie);
    struct pli_req_more *more = r && r->key & PLI_REQ_OFFERED ? r->more : NULL;
    struct pli_txmsg m = { .meta = pli_rec_meta(PLI_REC_FILL, 0, 0), .cookie = cookie, .chan = c->peer_chan, .started = true };
    int rc;

    if (!more || !more->named || more->needed || pli_conn_is_queued(c, cookie))
        return pli_conn_breach(c, "the bytes of a message are asked for that was not offered by its addresses, or twice");
    more->needed = true;
    pli_cma_unread(c->link);
    if (r->key & PLI_REQ_GIVEN_UP) /* the peer will hear of it */
        return 0;
    m.from = (struct pli_cursor){ more->named->iov, 0 };
    m.len = pli_iov_len(more->named->iov, more->named->niov);
    rc = pli_conn_send_first(c, &m, false);
    if (rc < 0)
        return pli_conn_event(c, PLI_CEV_ABORT, rc, "no memory to send an offered message that cannot be read");
    c->ctx->st.long_pushed++;
    return 0;
}

int pli_offer_env(unsigned *take)
{
    static const char *const names[] = { "auto", "place", "copy", "cma", "ring" };
    const char *v = getenv("PLAIT_TAKE");
    uint64_t bytes;

    if (!v || !*v)
        return pli_share_mapped_max(&bytes);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(v, names[i]) == 0) {
            if (take)
                *take = i;
            return pli_share_mapped_max(&bytes);
        }
    }
    return pli_fail(PLAIT_E_INVAL, "PLAIT_TAKE is '%s': auto, place, copy, cma or ring", v);
}
