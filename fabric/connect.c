/* SPDX-License-Identifier: BSD-3-Clause */
/* How two sides of a link meet, over what they tell each other on the control channel. The side that is described first listens: its
 * description has an address, to which the other side's endpoint connects, and names the link there by a random token. With reliable
 * datagrams nobody connects: both descriptions have an address. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>
#include "fabric/ofi.h"
#include "util/clock.h"
#include "util/err.h"

#define CONNECT_NS (5 * PLI_NS_PER_S)       /* from the peer's description to the connection, or its first packet */
#define LAST_WORDS_NS (500 * PLI_NS_PER_MS) /* from the endpoint's end until the owner is told, if nobody else has */

void pli_ofi_describe(struct pli_tr *tr, void *blob, size_t *len, int *fds, int *nfds)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    struct pli_ofi_desc d = {
        .magic = PLI_OFI_DESC_MAGIC,
        .version = PLI_OFI_DESC_VERSION,
        .kind = (uint16_t)l->dev->kind,
        .link = l->id,
        .tag = l->tag,
        .window = PLI_OFI_WINDOW_MIN,
        .addr_format = (uint16_t)l->dev->info->addr_format,
        .small = PLI_OFI_SMALL,
        .big = PLI_OFI_BIG,
    };
    bool rdm = l->dev->kind == PLI_OFI_RDM;

    (void)fds;
    memcpy(d.token, l->token, sizeof d.token);
    snprintf(d.provider, sizeof d.provider, "%s", l->dev->info->fabric_attr->prov_name);
    if (l->state == PLI_OFI_NEW || rdm) {
        d.addr_len = (uint16_t)l->dev->addr_len;
        memcpy(d.addr, l->dev->addr, l->dev->addr_len);
    }
    if (l->state == PLI_OFI_NEW) { /* nobody has connected this side: so it listens */
        pli_ofi_link_enter(l, PLI_OFI_LISTENING);
        if (rdm && pli_ofi_rdm_join(l) < 0)
            pli_ofi_link_broke(l, pli_err_text());
    }
    memcpy(blob, &d, sizeof d);
    *len = sizeof d;
    *nfds = 0;
}

static bool is_name(const char *name, size_t size)
{
    size_t n = strnlen(name, size);

    return n > 0 && n < size && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_;-.") == n;
}

/* Providers take an address to be as long as its format, or its family, says. */
static bool is_address(const struct pli_ofi_desc *d)
{
    sa_family_t family;

    memcpy(&family, d->addr, sizeof family);
    switch (d->addr_format) {
    case FI_SOCKADDR_IN:
        return d->addr_len == sizeof(struct sockaddr_in) && family == AF_INET;
    case FI_SOCKADDR_IN6:
        return d->addr_len == sizeof(struct sockaddr_in6) && family == AF_INET6;
    case FI_SOCKADDR_IB: /* struct sockaddr_ib, which only the kernel's headers have */
        return d->addr_len == 48 && family == AF_IB;
    default: /* those of native connections are all addresses of sockets */
        return d->kind != PLI_OFI_MSG && d->addr_format != FI_SOCKADDR && d->addr_format != FI_ADDR_STR;
    }
}

static int check_desc(const struct pli_ofi_desc *d, size_t len)
{
    if (len != sizeof *d)
        return pli_fail(PLAIT_E_BADPEER, "the peer's description of its fabric endpoint has %zu bytes, not %zu", len, sizeof *d);
    if (d->magic != PLI_OFI_DESC_MAGIC || d->version != PLI_OFI_DESC_VERSION)
        return pli_fail(PLAIT_E_BADPEER, "the peer's description of its fabric endpoint has magic 0x%x version %u, not 0x%x version %u",
                        d->magic, d->version, PLI_OFI_DESC_MAGIC, PLI_OFI_DESC_VERSION);
    if (d->small != PLI_OFI_SMALL || d->big != PLI_OFI_BIG)
        return pli_fail(PLAIT_E_BADPEER, "the peer's packets over the fabric have %u and %u bytes, not %d and %d: it is another build of plait",
                        d->small, d->big, PLI_OFI_SMALL, PLI_OFI_BIG);
    if (d->window < PLI_OFI_WINDOW_MIN || d->window > 1024)
        return pli_fail(PLAIT_E_BADPEER, "the peer's fabric endpoint has %u buffers, not %d to 1024", d->window, PLI_OFI_WINDOW_MIN);
    if (d->kind != PLI_OFI_MSG && d->kind != PLI_OFI_RDM)
        return pli_fail(PLAIT_E_BADPEER, "the peer's fabric endpoint is of the unknown kind %u", d->kind);
    if (!is_name(d->provider, sizeof d->provider))
        return pli_fail(PLAIT_E_BADPEER, "the peer's description of its fabric endpoint has no proper provider");
    if (d->addr_len > sizeof d->addr || (d->addr_len && !is_address(d)))
        return pli_fail(PLAIT_E_BADPEER, "the peer's description of its fabric endpoint has no proper address: %u bytes of format %u",
                        d->addr_len, d->addr_format);
    return 0;
}

/* An endpoint of the link with its buffers posted. */
static int open_ep(struct pli_ofi_link *l, struct fi_info *info)
{
    struct pli_ofi_dev *dev = l->dev;
    int rc = fi_endpoint(dev->domain, info, &l->ep, l);

    if (rc < 0)
        return pli_ofi_fail(dev->name, "opening an endpoint", rc);
    rc = fi_ep_bind(l->ep, &dev->eq->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(l->ep, &dev->cq->fid, FI_TRANSMIT | FI_RECV | (dev->quiet ? FI_SELECTIVE_COMPLETION : 0));
    if (rc == 0)
        rc = fi_enable(l->ep);
    if (rc < 0) {
        fi_close(&l->ep->fid);
        l->ep = NULL;
        return pli_ofi_fail(dev->name, "enabling an endpoint", rc);
    }
    if (info->tx_attr->size < l->tx_max)
        l->tx_max = (uint32_t)info->tx_attr->size;
    return pli_ofi_post(l);
}

/* The side that is described first has chosen. */
static int check_provider(const struct pli_ofi_link *l, const struct pli_ofi_desc *d)
{
    const char *own = l->dev->info->fabric_attr->prov_name;

    if (!l->wanted_by || strcasecmp(own, d->provider) == 0)
        return 0;
    return pli_fail(PLAIT_E_NOTRANSPORT, "the listener chose libfabric's provider %s, while %s of this side wants %s: name the same for both",
                    d->provider, l->wanted_by, own);
}

static int connect_msg(struct pli_ofi_link *l, const struct pli_ofi_desc *d)
{
    struct pli_ofi_cm cm = { .magic = PLI_OFI_DESC_MAGIC };
    struct fi_info *info, *own;
    struct pli_ofi_dev *dev;
    int rc = check_provider(l, d);

    if (rc < 0)
        return rc;
    rc = pli_ofi_find_peer(d->provider, PLI_OFI_MSG, d->addr_format, d->addr, d->addr_len, &info);

    if (rc < 0)
        return rc;
    own = pli_fi_lib()->dupinfo(info);
    if (!own) {
        pli_fi_lib()->freeinfo(info);
        return pli_fail(PLAIT_E_NOMEM, "no memory for a link over the fabric");
    }
    rc = pli_ofi_dev_get(&dev, l->hub, own);
    if (rc == 0)
        rc = pli_ofi_link_move(l, dev);
    if (rc == 0)
        rc = open_ep(l, info);
    pli_fi_lib()->freeinfo(info);
    if (rc < 0)
        return rc;
    memcpy(cm.token, d->token, sizeof cm.token);
    rc = fi_connect(l->ep, d->addr, &cm, sizeof cm);
    if (rc < 0)
        return pli_ofi_fail(l->dev->name, "connecting to the peer", rc);
    pli_ofi_link_enter(l, PLI_OFI_CONNECTING);
    return 0;
}

/* Nobody connects: each side knows the other one's address, and the provider does the rest when something is sent there. */
static int connect_rdm(struct pli_ofi_link *l, const struct pli_ofi_desc *d)
{
    struct pli_ofi_dev *dev;
    struct fi_info *info;
    int rc = 0;

    if (l->state == PLI_OFI_NEW) {
        rc = check_provider(l, d);
        if (rc == 0)
            rc = pli_ofi_find_peer(d->provider, PLI_OFI_RDM, d->addr_format, d->addr, d->addr_len, &info);
        if (rc == 0)
            rc = pli_ofi_dev_get(&dev, l->hub, info);
        if (rc == 0)
            rc = pli_ofi_link_move(l, dev);
        if (rc == 0)
            rc = pli_ofi_rdm_join(l);
    }
    if (rc < 0)
        return rc;
    if (d->addr_format != l->dev->info->addr_format || d->addr_len != l->dev->addr_len)
        return pli_fail(PLAIT_E_BADPEER, "the peer's fabric endpoint has an address of %u bytes of format %u, not %u of format %u", d->addr_len,
                        d->addr_format, l->dev->addr_len, l->dev->info->addr_format);
    return pli_ofi_rdm_meet(l, d->addr);
}

/* The two descriptions must be of a pair that can meet. */
static int check_pair(const struct pli_ofi_link *l, const struct pli_ofi_desc *d)
{
    bool listens = l->state != PLI_OFI_NEW;

    if (listens && d->kind != l->dev->kind)
        return pli_fail(PLAIT_E_BADPEER, "the peer's fabric endpoint is of kind %u, not %u as this side's", d->kind, l->dev->kind);
    if (d->kind == PLI_OFI_RDM)
        return d->addr_len ? 0 : pli_fail(PLAIT_E_BADPEER, "the peer's fabric endpoint has no address to send to");
    if (listens == (d->addr_len > 0))
        return pli_fail(PLAIT_E_BADPEER, "both sides' fabric endpoints want to %s", d->addr_len ? "listen" : "connect");
    return 0;
}

int pli_ofi_connect(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);
    struct pli_ofi_desc d;
    int rc = 0;

    for (int i = 0; i < nfds; i++)
        close(fds[i]);
    if (nfds || l->described)
        return pli_fail(PLAIT_E_BADPEER, "the peer's description of its fabric endpoint came %s", nfds ? "with descriptors" : "twice");
    memset(&d, 0, sizeof d);
    memcpy(&d, blob, len < sizeof d ? len : sizeof d);
    rc = check_desc(&d, len);
    if (rc == 0)
        rc = check_pair(l, &d);
    if (rc < 0)
        return rc;
    l->peer_id = d.link;
    l->peer_tag = d.tag;
    l->tx_grant = d.window;
    l->described = true;
    if (d.kind == PLI_OFI_RDM)
        rc = connect_rdm(l, &d);
    else if (l->state == PLI_OFI_NEW)
        rc = connect_msg(l, &d);
    if (rc == 0 && l->state == PLI_OFI_UP) /* at once, or the endpoints were faster */
        pli_ofi_link_flush(l, true);
    if (rc == 0 && !pli_list_is_empty(&l->rxq))
        pli_ofi_link_ready(l);
    if (rc == 0 && (l->state != PLI_OFI_UP || l->greeting) && l->state < PLI_OFI_BROKEN)
        pli_ofi_link_deadline(l, pli_clock_now() + CONNECT_NS);
    return rc;
}

/* ---- events ---- */

void pli_ofi_link_broke(struct pli_ofi_link *l, const char *why)
{
    if (l->state >= PLI_OFI_BROKEN)
        return;
    pli_ofi_link_enter(l, PLI_OFI_BROKEN);
    snprintf(l->why, sizeof l->why, "%s: %.120s", l->dev->name, why);
    pli_ofi_link_deadline(l, pli_clock_now() + LAST_WORDS_NS);
}

static void is_up(struct pli_ofi_link *l)
{
    if (l->state != PLI_OFI_LISTENING && l->state != PLI_OFI_CONNECTING)
        return;
    pli_ofi_link_enter(l, PLI_OFI_UP);
    pli_ofi_link_deadline(l, PLI_CLOCK_NEVER);
    pli_ofi_link_flush(l, true);
    if (l->starved)
        pli_ofi_link_ready(l);
}

static struct pli_ofi_link *find_token(struct pli_ofi_hub *hub, const uint8_t *token)
{
    struct pli_list *node;

    pli_list_foreach(node, &hub->links) {
        struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        if (l->state == PLI_OFI_LISTENING && !l->ep && memcmp(l->token, token, sizeof l->token) == 0)
            return l;
    }
    return NULL;
}

/* Somebody wants a connection. Only who knows a token gets one. */
static void on_request(struct pli_ofi_dev *dev, struct fi_info *info, const uint8_t *data, size_t len)
{
    struct pli_ofi_link *l = NULL;
    struct pli_ofi_cm cm;

    /* verbs pads the private data with zeros */
    if (len >= sizeof cm) {
        memcpy(&cm, data, sizeof cm);
        if (cm.magic == PLI_OFI_DESC_MAGIC)
            l = find_token(dev->hub, cm.token);
    }
    if (!l || l->dev != dev) {
        fi_reject(dev->pep, info->handle, NULL, 0);
    } else if (open_ep(l, info) < 0) {
        fi_reject(dev->pep, info->handle, NULL, 0);
        pli_ofi_link_broke(l, pli_err_text());
    } else {
        int rc = fi_accept(l->ep, NULL, 0);

        if (rc < 0)
            pli_ofi_link_broke(l, pli_fi_lib()->strerror(-rc));
    }
    pli_fi_lib()->freeinfo(info);
}

static struct pli_ofi_link *find_ep(struct pli_ofi_hub *hub, const struct fid *fid)
{
    struct pli_list *node;

    pli_list_foreach(node, &hub->links) {
        struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        if (l->ep && &l->ep->fid == fid)
            return l;
    }
    return NULL;
}

static void on_error(struct pli_ofi_dev *dev)
{
    struct fi_eq_err_entry err = { .err_data_size = 0 };
    struct pli_ofi_link *l;

    if (fi_eq_readerr(dev->eq, &err, 0) < 0)
        return;
    l = find_ep(dev->hub, err.fid);
    if (l)
        pli_ofi_link_broke(l, pli_fi_lib()->strerror(err.err));
}

int pli_ofi_dev_events(struct pli_ofi_dev *dev)
{
    union {
        struct fi_eq_cm_entry cm;
        uint8_t space[sizeof(struct fi_eq_cm_entry) + 512];
    } e;
    struct pli_ofi_link *l;
    uint32_t event;
    ssize_t n;
    int count = 0;

    if (!dev->eq)
        return 0;
    while (count < 64 && (n = fi_eq_read(dev->eq, &event, &e, sizeof e, 0)) != -FI_EAGAIN) {
        count++;
        if (n == -FI_EAVAIL)
            on_error(dev);
        else if (n < 0)
            break;
        else if (event == FI_CONNREQ)
            on_request(dev, e.cm.info, e.cm.data, (size_t)n > sizeof e.cm ? (size_t)n - sizeof e.cm : 0);
        else if (event == FI_CONNECTED && (l = find_ep(dev->hub, e.cm.fid)) != NULL)
            is_up(l);
        else if (event == FI_SHUTDOWN && (l = find_ep(dev->hub, e.cm.fid)) != NULL)
            pli_ofi_link_broke(l, "the peer's endpoint was closed");
    }
    return count;
}
