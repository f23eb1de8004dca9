/* SPDX-License-Identifier: BSD-3-Clause */
/* Waking the peer; and what sending and receiving have in common. */
#ifndef PLI_SHM_WAKE_H
#define PLI_SHM_WAKE_H

#include "shm/shm.h"

/* Writes the peer's eventfd, once for each of its sleeps. wait.c */
void pli_shm_kick(struct pli_shm *s, uint32_t epoch);

/* After a publication (a record, or the cursor): does the peer sleep? The full fence that store-then-load needs is paid by the
 * sleeper (membarrier, see pli_sleeper_barrier()), or by us if its kernel has none. */
static inline void wake_peer(struct pli_shm *s)
{
    uint32_t epoch;

    if (__builtin_expect(s->fence, 0))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
    epoch = atomic_load_explicit(&s->peer->parked, memory_order_relaxed);
    if (__builtin_expect(epoch & 1, 0) && epoch != s->kicked)
        pli_shm_kick(s, epoch);
}

/* send.c: tells the consumer that the cursor is waited for, or not any more. */
void pli_shm_want_space(struct pli_shm *s, bool on);
/* send.c: the limit as of the cursor last read, whether a reservation closes it now or not. */
uint64_t pli_shm_limit_known(const struct pli_shm *s);
/* send.c: is there space now for what found none? */
bool pli_shm_space_back(const struct pli_shm *s);
/* recv.c: publishes the cursor, and wakes a producer that waits for space. */
void pli_shm_publish_cursor(struct pli_shm *s);

/* The contract's operations, each in the file of its subject. */
int pli_shm_send(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, const void *hdr, bool more);
int pli_shm_reserve(struct pli_tr *tr, bool cookie, uint32_t len, void **data);
void pli_shm_commit(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, bool more);
void pli_shm_abandon(struct pli_tr *tr);
void pli_shm_flush(struct pli_tr *tr);
uint32_t pli_shm_max_payload(const struct pli_tr *tr);
bool pli_shm_behind(struct pli_tr *tr);
int pli_shm_poll(struct pli_tr *tr, int budget);
int pli_shm_hold(struct pli_tr *tr, uint32_t *token);
void pli_shm_release(struct pli_tr *tr, uint32_t token);

#endif
