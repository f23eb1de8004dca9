/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's link object; for the files of shm/ and its unit tests. */
#ifndef PLI_SHM_SHM_H
#define PLI_SHM_SHM_H

#include "runtime/transport.h"
#include "shm/bulk.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/turn.h"

struct pli_shm {
    struct pli_tr tr;
    struct pli_ring_tx tx;
    /* read in every send */
    const struct pli_shm_ctl *peer;  /* read-only mapping */
    uint32_t kicked;                 /* the peer's park epoch that was woken already */
    bool fence;                      /* the peer cannot do the barrier: fence after each publication */
    bool starved;                    /* a send found no space; writable() is owed */
    bool wants;                      /* want_space is set in our segment */
    bool grow_asked;                 /* GROW has been sent */
    bool switch_due;                 /* GROWN has come, the SWITCH record is not out yet */
    uint32_t need;                   /* slots of the largest record that found no space */
    uint32_t full_count;             /* times the ring was full: when to grow */
    struct pli_shm_slot *reserved_slot;
    uint64_t touched;                /* tx.pos at the last look: has anything been sent since? */
    uint32_t long_slots;             /* of the last long record in the ring that was sent since, 0: none */
    int last_n;                      /* records found by the last poll */
    int burst;                       /* the same, a shared slot counted as one, by the last poll that found any */
    uint32_t short_looks;            /* polls that ended after one record */
    struct pli_turn turn;            /* waiting for the answer in a dialogue */

    struct pli_ring_rx rx __attribute__((aligned(64)));
    uint32_t like_meta, like_len;    /* of the records in the last shared slot: */
    uint32_t like_stride, like_max;  /* bytes from one to the next; how many fit */
    struct pli_shm_ctl *own;         /* in our segment */

    struct pli_segment seg, peer_seg;       /* ctl and first ring */
    struct pli_segment big, peer_big;       /* the larger rings, addr NULL until made */
    uint32_t big_slots, peer_big_slots;
    struct pli_shm_bulk bulk;
    void *reserved_bulk;             /* the place of a long reservation */
    uint8_t *dirty, *big_dirty;
    int wake_fd, peer_wake_fd;
    struct pli_tr_env env;
    uint64_t grows;
};

static inline struct pli_shm *pli_shm_of(struct pli_tr *tr)
{
    return (struct pli_shm *)tr;
}

/* grow.c: the larger send ring. All are no-ops when they are not due. */
void pli_shm_grow_start(struct pli_shm *s);
void pli_shm_grow_finish(struct pli_shm *s);
int pli_shm_grow_control(struct pli_shm *s, const struct pli_shm_note *note, int *fd);
/* The SWITCH record came: go on in the peer's larger ring. False: there is none. */
bool pli_shm_grow_switch_rx(struct pli_shm *s);

/* send.c */
int pli_shm_send_small(struct pli_tr *tr, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data, unsigned more);

/* setup.c */
int pli_shm_create(struct pli_tr **tr, const struct pli_tr_env *env, const struct pli_tr_up *up, void *owner);
void pli_shm_describe(struct pli_tr *tr, void *blob, size_t *len, int *fds, int *nfds);
int pli_shm_connect(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds);
int pli_shm_control(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds);
void pli_shm_destroy(struct pli_tr *tr, bool forked);
int pli_shm_probe(void);

#endif
