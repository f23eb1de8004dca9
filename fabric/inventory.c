/* SPDX-License-Identifier: BSD-3-Clause */
/* Which providers there are, which one would be chosen and why, and what NICs they have: for who asks. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include "fabric/ofi.h"
#include "util/err.h"

struct inventory {
    void (*tell)(const struct plait_device_info *d, void *arg);
    void *arg;
    char library[32];
    const char *wanted, *by; /* the only provider that may be chosen, or NULL */
    const char *chosen;      /* NULL: none so far */
};

static bool same_address(const struct fi_info *a, const struct fi_info *b)
{
    return strcmp(a->domain_attr->name, b->domain_attr->name) == 0 && a->addr_format == b->addr_format &&
           a->src_addrlen == b->src_addrlen && (!a->src_addrlen || memcmp(a->src_addr, b->src_addr, a->src_addrlen) == 0);
}

/* Providers list a NIC once for each set of abilities. */
static bool told_before(const struct fi_info *list, const struct fi_info *info)
{
    for (; list != info; list = list->next)
        if (same_address(list, info))
            return true;
    return false;
}

/* NULL: it is not one that people read. */
static const char *address_text(const struct fi_info *info, char *buf, size_t size)
{
    const struct sockaddr *sa = info->src_addr;

    if (!sa)
        return NULL;
    if (info->addr_format == FI_ADDR_STR)
        return info->src_addr;
    if (info->addr_format != FI_SOCKADDR && info->addr_format != FI_SOCKADDR_IN && info->addr_format != FI_SOCKADDR_IN6)
        return NULL;
    if (sa->sa_family == AF_INET)
        return inet_ntop(AF_INET, &((const struct sockaddr_in *)info->src_addr)->sin_addr, buf, (socklen_t)size);
    if (sa->sa_family == AF_INET6)
        return inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)info->src_addr)->sin6_addr, buf, (socklen_t)size);
    return NULL;
}

static void tell_nics(const struct inventory *inv, struct plait_device_info *d, const struct fi_info *list)
{
    for (const struct fi_info *i = list; i; i = i->next) {
        char address[INET6_ADDRSTRLEN];
        struct pli_topo_nic nic;

        if (told_before(list, i))
            continue;
        pli_ofi_place(i, &nic);
        d->nic = i->domain_attr->name;
        d->address = address_text(i, address, sizeof address);
        d->node = nic.node;
        d->cpus = nic.cpus[0] ? nic.cpus : NULL;
        inv->tell(d, inv->arg);
    }
}

/* Why it is chosen, or is not although it could be used. */
static void judge(struct inventory *inv, const char *name, struct plait_device_info *d, char *why, size_t size)
{
    if (inv->wanted && strcasecmp(inv->wanted, name) != 0) {
        snprintf(why, size, "%s wants %s", inv->by, inv->wanted);
    } else if (inv->chosen) {
        snprintf(why, size, "%s is preferred", inv->chosen);
    } else {
        d->chosen = 1;
        inv->chosen = name;
        snprintf(why, size, inv->wanted ? "%s wants it" : "the best that can be used here", inv->by);
    }
}

static void look_at(struct inventory *inv, const struct pli_ofi_candidate *c)
{
    char why[300];
    struct plait_device_info d = {
        .size = sizeof d,
        .transport = "ofi",
        .library = inv->library,
        .provider = c->name,
        .kind = c->kind == PLI_OFI_MSG ? "MSG" : "RDM",
        .node = -1,
        .why = why,
    };
    struct fi_info *list = NULL;

    if (pli_ofi_find_all(c, &list) < 0) {
        snprintf(why, sizeof why, "%.200s%s%.60s", pli_err_text(), c->needs ? "; needs " : "", c->needs ? c->needs : "");
        inv->tell(&d, inv->arg);
        return;
    }
    d.usable = 1;
    judge(inv, c->name, &d, why, sizeof why);
    tell_nics(inv, &d, list);
    pli_fi_lib()->freeinfo(list);
}

int pli_ofi_inventory(void (*tell)(const struct plait_device_info *d, void *arg), void *arg)
{
    const struct pli_fi_lib *lib = pli_fi_lib();
    struct inventory inv = { .tell = tell, .arg = arg };
    const struct pli_ofi_candidate *c;
    bool known = false;
    uint32_t version;

    if (!lib)
        return PLAIT_E_UNSUPPORTED;
    version = lib->version();
    snprintf(inv.library, sizeof inv.library, "libfabric %u.%u", FI_MAJOR(version), FI_MINOR(version));
    inv.wanted = pli_ofi_wanted(NULL, &inv.by);
    for (unsigned i = 0; (c = pli_ofi_candidate(i)) != NULL; i++) {
        look_at(&inv, c);
        known = known || (inv.wanted && strcasecmp(inv.wanted, c->name) == 0);
    }
    if (inv.wanted && !known) {
        struct pli_ofi_candidate other = pli_ofi_candidate_named(inv.wanted);

        look_at(&inv, &other);
    }
    return 0;
}
