/* SPDX-License-Identifier: BSD-3-Clause */
/* The transports of this build, in order of preference. */
#ifndef PLI_RUNTIME_TRANSPORTS_H
#define PLI_RUNTIME_TRANSPORTS_H

#include "runtime/peeraddr.h"

struct pli_transport {
    uint32_t bit;                  /* PLI_TRANSPORT_... */
    const char *name;
    const struct pli_tr_ops *ops;  /* NULL: known by name, not in this build */
    const char *purpose;           /* what it is for, or why it is not there */
};

/* Transport i, or NULL past the last. Any thread. */
const struct pli_transport *pli_transport_at(unsigned i);

/* The best transport of mask that both sides can use; same_host: over AF_UNIX and with equal host identity. NULL with a sentence in
 * pli_err_text() that says for each transport why not (PLAIT_E_NOTRANSPORT). */
const struct pli_transport *pli_transport_choose(uint32_t mask, bool same_host);

/* Loads what the transports between hosts of mask need: who does this before it meets a peer spares that the wait. Without them: nothing. Blocks. Any thread. */
void pli_transport_load(uint32_t mask);

/* The transports of mask that exist in this build. */
uint32_t pli_transport_mask(uint32_t mask);

#endif
