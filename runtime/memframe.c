/* SPDX-License-Identifier: BSD-3-Clause */
/* MEM frames of the control channel go to who they are for. */
#include "runtime/conn.h"
#include "runtime/rma.h"

static int refuse(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    pli_fds_close(fds, msg->nfds);
    return pli_link_breach(link, "MEM of kind %u on an established control channel", msg->mem.op);
}

int pli_mem_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    if (msg->fds_lost && msg->mem.op != PLI_MEM_SHARE && msg->mem.op != PLI_MEM_EXPORT) /* what has none of them to lose */
        return refuse(link, msg, fds);
    switch (msg->mem.op) {
    case PLI_MEM_SHARE:
    case PLI_MEM_SHARED:
    case PLI_MEM_REVOKE:
        return pli_share_frame(link, msg, fds);
    case PLI_MEM_PROBE:
    case PLI_MEM_PROBED:
        return pli_cma_frame(link, msg, fds);
    case PLI_MEM_EXPORT:
    case PLI_MEM_EXPORTED:
    case PLI_MEM_WITHDRAW:
    case PLI_MEM_WITHDRAWN:
        return pli_rma_frame(link, msg, fds);
    default:
        return refuse(link, msg, fds);
    }
}
