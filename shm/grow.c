/* SPDX-License-Identifier: BSD-3-Clause */
/* A busy link gets a larger ring: a quiet one should not pay for it. The producer makes it, sends it through the control
 * channel (GROW), and after the consumer has mapped it (GROWN) writes a SWITCH record into the old ring; what follows is in the new one.
 * Once per direction. Failing to grow costs speed only, so it is no error. */
#include "shm/shm.h"

#include <stdlib.h>
#include <unistd.h>
#include "util/err.h"
#include "util/log.h"

void pli_shm_grow_start(struct pli_shm *s)
{
    struct pli_shm_note note = { PLI_SHM_CTL_GROW, PLI_SHM_GROWN_SLOTS };
    size_t size = (size_t)PLI_SHM_GROWN_SLOTS * PLI_SHM_SLOT;

    if (s->grow_asked || s->tx.nslots >= PLI_SHM_GROWN_SLOTS)
        return;
    s->grow_asked = true;
    s->big_dirty = calloc(PLI_SHM_GROWN_SLOTS, 1);
    if (!s->big_dirty)
        return;
    if (pli_segment_create(&s->big, "plait-ring", size, s->env.topo, s->env.peer_node, s->env.bind_failures) < 0) {
        pli_info("the ring stays small: %s", pli_err_text());
        goto err_dirty;
    }
    if (s->tr.up->send_control(s->tr.owner, &note, sizeof note, &s->big.fd, 1) < 0)
        goto err_segment;
    *s->env.shm_bytes += s->big.size;
    s->big_slots = PLI_SHM_GROWN_SLOTS;
    return;

err_segment:
    pli_segment_destroy(&s->big, false);
err_dirty:
    free(s->big_dirty);
    s->big_dirty = NULL;
}

void pli_shm_grow_finish(struct pli_shm *s)
{
    if (!s->switch_due || s->tx.reserved || !pli_ring_tx_refresh(&s->tx))
        return;
    if (!pli_ring_tx_switch(&s->tx, s->big.addr, s->big_slots, s->big_dirty))
        return;
    s->switch_due = false;
    s->grows++;
    close(s->big.fd);
    s->big.fd = -1;
}

static int peer_grows(struct pli_shm *s, const struct pli_shm_note *note, int *fd)
{
    struct pli_shm_note answer = { PLI_SHM_CTL_GROWN, note->slots };
    int rc, taken = *fd;

    if (s->peer_big.addr)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer grows its ring a second time");
    if (note->slots <= s->rx.nslots || note->slots > PLI_SHM_MAX_SLOTS || (note->slots & (note->slots - 1)))
        return pli_fail(PLAIT_E_BADPEER, "shm: the peer's larger ring has %u slots", note->slots);
    if (taken < 0)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer's larger ring came without its memory");
    *fd = -1;
    rc = pli_segment_attach(&s->peer_big, taken, (size_t)note->slots * PLI_SHM_SLOT);
    if (rc == PLAIT_E_NOMEM) { /* no answer: the peer stays with its small ring */
        pli_info("the peer's ring stays small: %s", pli_err_text());
        return 0;
    }
    if (rc < 0)
        return rc;
    s->peer_big_slots = note->slots;
    return s->tr.up->send_control(s->tr.owner, &answer, sizeof answer, NULL, 0);
}

int pli_shm_grow_control(struct pli_shm *s, const struct pli_shm_note *note, int *fd)
{
    if (note->op == PLI_SHM_CTL_GROW)
        return peer_grows(s, note, fd);
    if (note->op != PLI_SHM_CTL_GROWN)
        return pli_fail(PLAIT_E_PROTO, "shm: unknown control message %u", note->op);
    if (!s->big_slots || note->slots != s->big_slots || s->switch_due || s->grows)
        return pli_fail(PLAIT_E_PROTO, "shm: the peer has mapped a ring that was not offered");
    s->switch_due = true;
    pli_shm_grow_finish(s);
    return 0;
}

bool pli_shm_grow_switch_rx(struct pli_shm *s)
{
    if (!s->peer_big.addr || s->rx.slots == s->peer_big.addr)
        return false;
    s->rx.slots = s->peer_big.addr;
    s->rx.nslots = s->peer_big_slots;
    s->rx.mask = s->peer_big_slots - 1;
    return true;
}
