/* SPDX-License-Identifier: BSD-3-Clause */
/* Which provider and which NIC. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include "fabric/ofi.h"
#include "util/err.h"

#define API_VERSION FI_VERSION(1, 11)

/* The best first. Native connections where the provider has them; reliable datagrams where it has only those. */
static const struct pli_ofi_candidate candidates[] = {
    { "cxi", PLI_OFI_RDM, "a Slingshot NIC" },
    { "efa", PLI_OFI_RDM, "an Elastic Fabric Adapter" },
    { "psm3", PLI_OFI_RDM, "an Ethernet NIC with RDMA" },
    { "opx", PLI_OFI_RDM, "an Omni-Path NIC" },
    { "verbs", PLI_OFI_MSG, "an InfiniBand or RoCE device, rxe too" },
    { "tcp", PLI_OFI_MSG, "a network interface that is up" },
    { "net", PLI_OFI_MSG, "a network interface that is up" },
    { "verbs;ofi_rxm", PLI_OFI_RDM, "an InfiniBand or RoCE device, rxe too" },
    { "tcp;ofi_rxm", PLI_OFI_RDM, "a network interface that is up" },
};
enum { NCANDIDATES = sizeof candidates / sizeof candidates[0] };

int pli_ofi_fail(const char *name, const char *what, long rc)
{
    const struct pli_fi_lib *lib = pli_fi_lib();
    int code = rc == -FI_ENOMEM ? PLAIT_E_NOMEM : rc == -FI_EMFILE ? PLAIT_E_NOFILE : PLAIT_E_SYSTEM;

    return pli_fail(code, "%s: %s: %s", name, what, lib ? lib->strerror((int)-rc) : "no libfabric");
}

static struct fi_info *make_hints(const struct pli_fi_lib *lib, const char *provider, enum pli_ofi_kind kind)
{
    struct fi_info *hints = lib->dupinfo(NULL);

    if (!hints)
        return NULL;
    hints->caps = FI_MSG;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = kind == PLI_OFI_MSG ? FI_EP_MSG : FI_EP_RDM;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    hints->fabric_attr->prov_name = strdup(provider);
    if (kind == PLI_OFI_RDM) {
        hints->domain_attr->av_type = FI_AV_TABLE;
        hints->tx_attr->msg_order = FI_ORDER_SAS;
        hints->rx_attr->msg_order = FI_ORDER_SAS;
    }
    if (!hints->fabric_attr->prov_name) {
        lib->freeinfo(hints);
        return NULL;
    }
    return hints;
}

/* What the provider has at the address source (NULL: everywhere), for the caller to free. PLAIT_E_UNSUPPORTED: nothing. */
static int ask(const struct pli_fi_lib *lib, const struct pli_ofi_candidate *c, const char *source, struct fi_info **list)
{
    struct fi_info *hints;
    int rc;

    hints = make_hints(lib, c->name, c->kind);
    if (!hints)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a question to libfabric");
    rc = lib->getinfo(API_VERSION, source, NULL, source ? FI_SOURCE : 0, hints, list);
    lib->freeinfo(hints);
    if (rc < 0)
        return pli_fail(PLAIT_E_UNSUPPORTED, "%s", rc == -FI_ENODATA ? "has no device here, or is not installed" : lib->strerror(-rc));
    return 0;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

/* A copy of the one that suits. */
static int choose(const struct pli_fi_lib *lib, struct fi_info *list, const struct sockaddr *local, int node, const char *nic, struct fi_info **out)
{
    struct sockaddr_storage mask;
    struct pli_ofi_want w = { .nic = nic, .local = local && !is_loopback(local) ? local : NULL, .node = node, .node_of = pli_ofi_node };
    struct fi_info *info;
    char names[160];

    if (w.local && pli_ofi_netmask(local, &mask))
        w.mask = (const struct sockaddr *)(const void *)&mask;
    info = pli_ofi_pick(list, &w);
    if (!info) {
        pli_ofi_nic_names(list, names, sizeof names);
        return pli_fail(PLAIT_E_UNSUPPORTED, "has no NIC %.60s, which PLAIT_NIC wants, but %s", nic, names);
    }
    *out = lib->dupinfo(info);
    return *out ? 0 : pli_fail(PLAIT_E_NOMEM, "no memory for what libfabric says");
}

/* The provider's endpoint at that address. Providers on sockets have one for each address of the host, so they are asked for the
 * very one; of others the NIC that has the address, or one nearby, is taken. */
static int find(const struct pli_fi_lib *lib, const struct pli_ofi_candidate *c, const struct sockaddr *local, int ctx_node, struct fi_info **out)
{
    const char *nic = getenv("PLAIT_NIC");
    bool sockets = strncmp(c->name, "tcp", 3) == 0 || strcmp(c->name, "net") == 0;
    struct fi_info *list = NULL;
    char node[INET6_ADDRSTRLEN] = "127.0.0.1";
    int rc;

    nic = nic && *nic ? nic : NULL;
    if (nic || (local && getnameinfo(local, local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in), node,
                                     sizeof node, NULL, 0, NI_NUMERICHOST) != 0))
        sockets = false;
    rc = ask(lib, c, sockets ? node : NULL, &list);
    if (rc < 0)
        return rc;
    rc = choose(lib, list, local, ctx_node, nic, out);
    lib->freeinfo(list);
    return rc;
}

const struct pli_ofi_candidate *pli_ofi_candidate(unsigned i)
{
    return i < NCANDIDATES ? &candidates[i] : NULL;
}

struct pli_ofi_candidate pli_ofi_candidate_named(const char *name)
{
    for (int i = 0; i < NCANDIDATES; i++)
        if (strcmp(candidates[i].name, name) == 0)
            return candidates[i];
    return (struct pli_ofi_candidate){ name, PLI_OFI_RDM, NULL };
}

int pli_ofi_find_all(const struct pli_ofi_candidate *c, struct fi_info **list)
{
    const struct pli_fi_lib *lib = pli_fi_lib();

    return lib ? ask(lib, c, NULL, list) : PLAIT_E_UNSUPPORTED;
}

const char *pli_ofi_wanted(const char *uri, const char **by)
{
    const char *env = getenv("PLAIT_PROVIDER");

    *by = uri ? "the URI" : "PLAIT_PROVIDER";
    return uri ? uri : env && *env ? env : NULL;
}

int pli_ofi_find_local(const struct sockaddr *local, int node, const char *provider, struct fi_info **info)
{
    const struct pli_fi_lib *lib = pli_fi_lib();
    const char *by, *wanted = pli_ofi_wanted(provider, &by);
    char text[420] = "";

    if (!lib)
        return PLAIT_E_UNSUPPORTED;
    if (local && local->sa_family != AF_INET && local->sa_family != AF_INET6)
        local = NULL;
    if (wanted) {
        struct pli_ofi_candidate c = pli_ofi_candidate_named(wanted);

        return find(lib, &c, local, node, info) == 0 ? 0 : pli_fail_prefix(PLAIT_E_INVAL, "libfabric's provider %.60s, which %s wants", wanted, by);
    }
    for (int i = 0; i < NCANDIDATES; i++) {
        size_t n = strlen(text);

        if (find(lib, &candidates[i], local, node, info) == 0)
            return 0;
        snprintf(text + n, sizeof text - n, "%s%s: %s", n ? "; " : "", candidates[i].name, pli_err_text());
    }
    return pli_fail(PLAIT_E_UNSUPPORTED, "no provider of libfabric can be used: %s", text);
}

int pli_ofi_find_peer(const char *provider, enum pli_ofi_kind kind, uint32_t format, const void *addr, size_t len, struct fi_info **info)
{
    const struct pli_fi_lib *lib = pli_fi_lib();
    struct fi_info *hints, *list = NULL, *i;
    int rc;

    if (!lib)
        return PLAIT_E_UNSUPPORTED;
    hints = make_hints(lib, provider, kind);
    if (!hints)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a question to libfabric");
    hints->addr_format = format;
    if (kind == PLI_OFI_MSG || format == FI_SOCKADDR_IN || format == FI_SOCKADDR_IN6) { /* no other address says by which NIC */
        hints->dest_addr = malloc(len);
        if (!hints->dest_addr) {
            lib->freeinfo(hints);
            return pli_fail(PLAIT_E_NOMEM, "no memory for a question to libfabric");
        }
        memcpy(hints->dest_addr, addr, len);
        hints->dest_addrlen = len;
    }
    rc = lib->getinfo(API_VERSION, NULL, NULL, 0, hints, &list);
    lib->freeinfo(hints);
    for (i = list; i && strcasecmp(i->fabric_attr->prov_name, provider) != 0; i = i->next)
        ; /* of a provider with another one layered upon it, only that very pair is meant */
    if (rc == 0 && !i) {
        lib->freeinfo(list);
        rc = -FI_ENODATA;
    }
    if (rc < 0)
        return pli_fail(PLAIT_E_UNSUPPORTED, "the peer wants libfabric's provider %s for %s, which %s here", provider,
                        kind == PLI_OFI_MSG ? "connections" : "reliable datagrams", rc == -FI_ENODATA ? "has no way to it" : lib->strerror(-rc));
    *info = lib->dupinfo(i);
    lib->freeinfo(list);
    return *info ? 0 : pli_fail(PLAIT_E_NOMEM, "no memory for what libfabric says");
}
