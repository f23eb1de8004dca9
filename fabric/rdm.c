/* SPDX-License-Identifier: BSD-3-Clause */
/* Endpoints of reliable datagrams: one for all links of a device. Its buffers are anybody's until a packet is in one, which names its link;
 * as many are posted as packets have been promised to the peers of all links. */
#include <stdio.h>
#include <stdlib.h>
#include "fabric/ofi.h"
#include "util/clock.h"
#include "util/err.h"

/* ---- opening and closing ---- */

static int open_fail(const struct pli_ofi_dev *dev, const char *what, int rc)
{
    int code = pli_ofi_fail(dev->name, what, rc);

    /* layered providers ask for queues that have room for all peers that there might be */
    if (rc == -FI_EINVAL && strstr(dev->info->fabric_attr->prov_name, "ofi_rxm") && !getenv("FI_UNIVERSE_SIZE"))
        return pli_fail(code, "%.300s; FI_UNIVERSE_SIZE=64 in the environment may help", pli_err_text());
    return code;
}

int pli_ofi_rdm_open(struct pli_ofi_dev *dev)
{
    struct fi_av_attr av = { .type = dev->info->domain_attr->av_type };
    size_t len = sizeof dev->addr;
    int rc;

    if (av.type == FI_AV_UNSPEC)
        av.type = FI_AV_TABLE;
    rc = fi_av_open(dev->domain, &av, &dev->av, NULL);
    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening an address vector", rc);
    rc = fi_endpoint(dev->domain, dev->info, &dev->ep, dev);
    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening an endpoint", rc);
    rc = fi_ep_bind(dev->ep, &dev->av->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(dev->ep, &dev->cq->fid, FI_TRANSMIT | FI_RECV);
    if (rc == 0)
        rc = fi_enable(dev->ep);
    if (rc == 0)
        rc = fi_getname(&dev->ep->fid, dev->addr, &len);
    if (rc < 0)
        return open_fail(dev, "enabling an endpoint", rc);
    dev->addr_len = (uint32_t)len;
    return 0;
}

void pli_ofi_rdm_close(struct pli_ofi_dev *dev)
{
    struct pli_list *node;
    int rounds = 0;

    /* ofi_rxm over verbs crashes in libfabric 1.17 when packets lie there that nobody has read */
    while (dev->ep && pli_ofi_dev_reap(dev) > 0 && ++rounds < 10000)
        ;
    if (dev->ep)
        fi_close(&dev->ep->fid);
    dev->ep = NULL;
    while ((node = pli_list_pop_front(&dev->peers)) != NULL)
        free(pli_container_of(node, struct pli_ofi_peer, node));
}

/* ---- peers ---- */

static struct pli_ofi_peer *find_peer(const struct pli_ofi_dev *dev, const void *addr)
{
    struct pli_list *node;

    pli_list_foreach(node, &dev->peers) {
        struct pli_ofi_peer *p = pli_container_of(node, struct pli_ofi_peer, node);

        if (memcmp(p->addr, addr, dev->addr_len) == 0)
            return p;
    }
    return NULL;
}

/* The provider connects when something is sent, for which both sides must look after it, and not all wake who sleeps for that. So each sends an
 * empty packet at once, and does not sleep for long before the peer's has come. */
static void greet(struct pli_ofi_link *l)
{
    if (l->state >= PLI_OFI_BROKEN)
        return;
    pli_ofi_link_enter(l, PLI_OFI_UP);
    l->greet = true;
    l->greeting = l->rx_arrived == 0;
    l->hub->greeting += l->greeting;
}

static void is_greeted(struct pli_ofi_link *l)
{
    if (!l->greeting)
        return;
    l->greeting = false;
    l->hub->greeting--;
    pli_ofi_link_deadline(l, PLI_CLOCK_NEVER);
}

int pli_ofi_rdm_meet(struct pli_ofi_link *l, const void *addr)
{
    struct pli_ofi_dev *dev = l->dev;
    struct pli_ofi_peer *p = find_peer(dev, addr);

    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return pli_fail(PLAIT_E_NOMEM, "%s: no memory for a peer", dev->name);
        memcpy(p->addr, addr, dev->addr_len);
        if (fi_av_insert(dev->av, addr, 1, &p->at, 0, NULL) != 1) {
            free(p);
            return pli_fail(PLAIT_E_BADPEER, "%s: the address of the peer's endpoint is refused", dev->name);
        }
        pli_list_init(&p->node);
        pli_list_push_back(&dev->peers, &p->node);
    }
    p->links++;
    l->peer = p;
    l->peer_addr = p->at;
    greet(l);
    return 0;
}

static void forget_peer(struct pli_ofi_link *l)
{
    struct pli_ofi_peer *p = l->peer;

    l->peer = NULL;
    if (!p || --p->links)
        return;
    fi_av_remove(l->dev->av, &p->at, 1, 0);
    pli_list_remove(&p->node);
    free(p);
}

int pli_ofi_rdm_join(struct pli_ofi_link *l)
{
    size_t size = l->dev->info->tx_attr->size;

    l->ep = l->dev->ep;
    if (size < l->tx_max)
        l->tx_max = (uint32_t)size;
    return pli_ofi_post(l);
}

void pli_ofi_rdm_leave(struct pli_ofi_link *l)
{
    struct pli_list *node;

    if (!l->ep)
        return;
    while ((node = pli_list_pop_front(&l->ops)) != NULL)
        pli_container_of(node, struct pli_ofi_buf, node)->link = NULL;
    l->dev->rx_promised -= l->rx_posted - l->rx_arrived;
    forget_peer(l);
    l->ep = NULL;
}

/* ---- buffers ---- */

int pli_ofi_rdm_fill(struct pli_ofi_dev *dev)
{
    while (pli_ofi_rdm_lacks(dev)) {
        struct pli_ofi_buf *buf = pli_ofi_buf_get(dev, false);
        ssize_t rc;

        if (!buf)
            return PLAIT_E_NOMEM;
        rc = pli_ofi_post_buf(dev->ep, buf, false);
        if (rc < 0) {
            pli_ofi_buf_put(dev, buf);
            return rc == -FI_EAGAIN ? 0 : pli_ofi_fail(dev->name, "posting a buffer", rc);
        }
        buf->op = PLI_OFI_RX;
        dev->rx_posted++;
    }
    return 0;
}

void pli_ofi_rdm_lost(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf)
{
    dev->rx_posted--;
    dev->strangers++;
    pli_ofi_buf_put(dev, buf);
}

/* ---- packets ---- */

static uint32_t number_of(const struct pli_ofi_buf *buf)
{
    struct pli_ofi_head h;

    memcpy(&h, buf->mem, sizeof h);
    return h.number;
}

bool pli_ofi_rdm_is_next(const struct pli_ofi_link *l, const struct pli_ofi_buf *buf)
{
    return number_of(buf) == l->rx_seen;
}

/* Only who was told number and tag of a link can send to it: 64 random bits. */
static struct pli_ofi_link *addressee(const struct pli_ofi_dev *dev, const struct pli_ofi_buf *buf)
{
    struct pli_ofi_link *l;
    struct pli_ofi_head h;

    if (buf->len < sizeof h + PLI_OFI_TAIL)
        return NULL;
    memcpy(&h, buf->mem, sizeof h);
    l = h.magic == PLI_OFI_MAGIC ? pli_ofi_link_find(dev->hub, h.link) : NULL;
    return l && l->dev == dev && l->ep && l->tag == h.tag ? l : NULL;
}

/* The packet's place among those that wait, by its number. False: it has come already, or was not granted. */
static bool queue(struct pli_ofi_link *l, struct pli_ofi_buf *buf)
{
    uint32_t number = number_of(buf);
    struct pli_list *at = &l->rxq;

    if (number - l->rx_seen >= l->rx_posted - l->rx_seen)
        return false;
    while (at->prev != &l->rxq) {
        int32_t ahead = (int32_t)(number - number_of(pli_container_of(at->prev, struct pli_ofi_buf, node)));

        if (ahead == 0)
            return false;
        if (ahead > 0)
            break;
        at = at->prev;
    }
    pli_list_insert_before(at, &buf->node);
    return true;
}

void pli_ofi_rdm_arrived(struct pli_ofi_dev *dev, struct pli_ofi_buf *buf, uint32_t len)
{
    struct pli_ofi_link *l;

    buf->len = len;
    l = addressee(dev, buf);
    if (!l) {
        pli_ofi_rdm_lost(dev, buf);
        return;
    }
    dev->rx_posted--;
    buf->op = PLI_OFI_IDLE;
    if (l->state >= PLI_OFI_BROKEN || l->rx_wrong) {
        pli_ofi_buf_put(dev, buf);
        return;
    }
    if (queue(l, buf)) {
        is_greeted(l);
        buf->link = l;
        l->rx_arrived++;
        dev->rx_promised--;
    } else {
        l->rx_wrong = true;
        pli_ofi_buf_put(dev, buf);
    }
    if (l->described)
        pli_ofi_link_ready(l);
}
