/* SPDX-License-Identifier: BSD-3-Clause */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "runtime/transports.h"

#include <stdio.h>
#include <string.h>
#include "util/err.h"

static const struct pli_transport table[] = {
    { PLI_TRANSPORT_SHM, "shm", &pli_shm_ops, "shared memory rings between processes of one host" },
#ifdef HAVE_LIBFABRIC
    { PLI_TRANSPORT_OFI, "ofi", &pli_ofi_ops, "libfabric (verbs, tcp and others) between hosts" },
#else
    { PLI_TRANSPORT_OFI, "ofi", NULL, "libfabric between hosts: not in this build, which was made without libfabric" },
#endif
};

const struct pli_transport *pli_transport_at(unsigned i)
{
    return i < sizeof table / sizeof table[0] ? &table[i] : NULL;
}

uint32_t pli_transport_mask(uint32_t mask)
{
    uint32_t have = 0;

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].ops)
            have |= table[i].bit;
    return mask & have;
}

void pli_transport_load(uint32_t mask)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if ((mask & table[i].bit) && table[i].ops && table[i].ops->load)
            table[i].ops->load();
}

static const char *why_not(const struct pli_transport *t, uint32_t mask, bool same_host)
{
    if (!(mask & t->bit))
        return "not allowed by the URI of one side";
    if (!t->ops)
        return t->purpose;
    if (!same_host && t->ops->same_host)
        return "the peer is on another host, or in another network or user namespace";
    return NULL;
}

const struct pli_transport *pli_transport_choose(uint32_t mask, bool same_host)
{
    char text[400] = "";

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *why = why_not(&table[i], mask, same_host);
        size_t n = strlen(text);

        if (!why)
            return &table[i];
        snprintf(text + n, sizeof text - n, "%s%s: %s", n ? "; " : "", table[i].name, why);
    }
    pli_fail(PLAIT_E_NOTRANSPORT, "no transport serves both sides: %s", text);
    return NULL;
}
