/* SPDX-License-Identifier: BSD-3-Clause */
/* Which NIC of a provider: one that the peer reaches, and of these the nearest. */
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include "fabric/ofi.h"

void pli_ofi_place(const struct fi_info *info, struct pli_topo_nic *nic)
{
    const struct fid_nic *n = info->nic;
    char pci[32];

    nic->node = -1;
    if (n && n->bus_attr && n->bus_attr->bus_type == FI_BUS_PCI) {
        const struct fi_pci_attr *p = &n->bus_attr->attr.pci;

        snprintf(pci, sizeof pci, "%04x:%02x:%02x.%x", p->domain_id, p->bus_id, p->device_id, p->function_id);
        pli_topo_nic(NULL, pci, nic);
    }
    if (nic->node < 0 && n && n->device_attr && n->device_attr->name)
        pli_topo_nic(NULL, n->device_attr->name, nic);
    if (nic->node < 0)
        pli_topo_nic(NULL, info->domain_attr->name, nic);
}

int pli_ofi_node(const struct fi_info *info)
{
    struct pli_topo_nic nic;

    pli_ofi_place(info, &nic);
    return nic.node;
}

/* ---- addresses ---- */

/* The bytes of an IP address, in its own order. NULL: it is none. */
static const uint8_t *ip_bytes(const struct sockaddr *a, size_t *len)
{
    *len = a && a->sa_family == AF_INET6 ? 16 : 4;
    if (a && a->sa_family == AF_INET)
        return (const uint8_t *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
    return a && a->sa_family == AF_INET6 ? (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr : NULL;
}

/* Are they the same in the bits of mask? NULL: in all. */
static bool same_bits(const struct sockaddr *a, const struct sockaddr *b, const struct sockaddr *mask)
{
    size_t alen, blen, mlen;
    const uint8_t *x = ip_bytes(a, &alen), *y = ip_bytes(b, &blen), *m = ip_bytes(mask, &mlen);

    if (!x || !y || alen != blen || (mask && (!m || mlen != alen)))
        return false;
    for (size_t i = 0; i < alen; i++)
        if ((x[i] ^ y[i]) & (m ? m[i] : 0xff))
            return false;
    return true;
}

static const struct sockaddr *address_of(const struct fi_info *info)
{
    bool ip = info->addr_format == FI_SOCKADDR_IN || info->addr_format == FI_SOCKADDR_IN6 || info->addr_format == FI_SOCKADDR;

    return ip ? info->src_addr : NULL;
}

bool pli_ofi_netmask(const struct sockaddr *local, struct sockaddr_storage *mask)
{
    struct ifaddrs *all, *i;
    bool found = false;

    if (getifaddrs(&all) < 0)
        return false;
    for (i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || !i->ifa_netmask || !same_bits(i->ifa_addr, local, NULL))
            continue;
        memcpy(mask, i->ifa_netmask, local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
        mask->ss_family = local->sa_family; /* some kernels leave it out */
        found = true;
    }
    freeifaddrs(all);
    return found;
}

/* ---- the choice ---- */

/* What speaks against it; the least is best. */
static int cost(const struct fi_info *info, const struct pli_ofi_want *w)
{
    const struct sockaddr *addr = address_of(info);
    int node = w->node < 0 ? -1 : w->node_of(info), c = 0;

    if (w->local && !same_bits(addr, w->local, NULL))
        c += w->mask && same_bits(addr, w->local, w->mask) ? 1 : 100; /* in the same subnet; who knows whether the peer gets there */
    if (node != w->node)
        c += node < 0 ? 10 : 20;
    if (!w->local && (!addr || addr->sa_family != AF_INET))
        c += 2;
    return c;
}

struct fi_info *pli_ofi_pick(struct fi_info *list, const struct pli_ofi_want *w)
{
    struct fi_info *best = NULL;
    int least = 0;

    for (struct fi_info *i = list; i; i = i->next) {
        int c;

        if (w->nic && strcmp(i->domain_attr->name, w->nic) != 0)
            continue;
        c = cost(i, w);
        if (!best || c < least) {
            best = i;
            least = c;
        }
    }
    return best;
}

void pli_ofi_nic_names(const struct fi_info *list, char *buf, size_t size)
{
    size_t n = 0;

    buf[0] = '\0';
    for (const struct fi_info *i = list; i && n + 1 < size; i = i->next) {
        const char *name = i->domain_attr->name;
        const char *at = strstr(buf, name);

        if (at && (at[strlen(name)] == ',' || !at[strlen(name)]))
            continue;
        n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? ", " : "", name);
    }
}
