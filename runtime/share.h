/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions that a link's two sides have shown to each other, so that messages can be offered in place (offer.h).
 *
 * Ours: a share holds a reference on its region. It is asked for (SHARE) when a message from the region is sent for the first time, and
 * can be named in offers once the peer has mapped it (SHARED). When the user has released the region and no message in flight names it any
 * more, it is revoked (REVOKE) and freed. The peer's: mapped at SHARE, dropped at REVOKE; messages hold references of their own.
 *
 * Everything belongs to the link's context, but for the list of a region's shares, which has a lock: plait_mem_release() walks it on any
 * thread, and posts to the contexts. Nothing here blocks for long. */
#ifndef PLI_RUNTIME_SHARE_H
#define PLI_RUNTIME_SHARE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/list.h"

#define PLI_SHARES_MAX 1024u                        /* of each side of a link */
#define PLI_SHARE_MAPPED_MAX (UINT64_C(4) << 30)    /* bytes that a link's peer can make this process map; PLAIT_MAPPED_MAX overrides */

struct pli_link;
struct pli_mapped;
struct pli_peermem;
struct pli_post;
struct pli_wire_msg;
struct plait_mem;

enum pli_share_state { PLI_SHARE_ASKED, PLI_SHARE_UP, PLI_SHARE_REFUSED };

/* A region of ours that the peer knows. */
struct pli_share {
    char *addr;
    size_t len;
    uint32_t key;        /* its name on this link */
    uint16_t slot;       /* its place in pli_shares.slots */
    enum pli_share_state state;
    uint32_t in_flight;  /* messages that name it and are not completed yet */
    _Atomic bool released; /* the user has released the region; set by any thread */
    struct plait_mem *mem;
    struct pli_link *link;
    struct pli_list of_mem; /* mem->shares */
};

/* A region of the peer's. */
struct pli_peer_share {
    uint32_t key;
    struct pli_peermem *pm;
};

/* Of a link; zero bytes at first. */
struct pli_shares {
    struct pli_share *hit;       /* where the last message lay */
    struct pli_share **by_addr;  /* regions do not overlap, and one that is shared stays mapped */
    struct pli_share **slots;    /* NULL where one is free */
    uint32_t count, cap;
    uint32_t last_key;
    bool full_told, refused_told;
    struct pli_peer_share *peer; /* by key: keys only grow */
    uint32_t npeer, peer_cap;
    uint32_t peer_hit;           /* index of the last one found */
    uint32_t peer_last_key;
    struct pli_mapped *mapped;   /* what is mapped of the peer's, also what only messages hold; NULL: nothing was ever */
};

/* The share that has [p, p + len) and can be named in offers; NULL: there is none now. If p lies in an allocated region that the peer
 * does not know yet, the peer is asked (a link that fails thereby fails later, in deferred work). *in_region: does it lie in one at
 * all? Without a lock where the answer is a share. Owner thread. */
struct pli_share *pli_share_find(struct pli_link *link, const void *p, size_t len, bool *in_region);

/* A message that names the share in this slot is under way, or is completed. */
void pli_share_take(struct pli_link *link, uint16_t slot);
void pli_share_give(struct pli_link *link, uint16_t slot);

/* The peer's region of that key; NULL: there is none. *revoked: there was one. Owner thread. */
struct pli_peermem *pli_share_peer(struct pli_link *link, uint32_t key, bool *revoked);

/* Counts len more bytes as mapped of the link's peer, for shares and exports: link->shares.mapped has them then. PLAIT_E_NOMEM: more than there may
 * be. Owner thread. */
int pli_shares_count(struct pli_link *link, uint64_t len);

/* SHARE, SHARED, REVOKE. Takes the descriptors over. 0 or a negative code: the link fails. */
int pli_share_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds);

/* Frees everything; idempotent. Connections have ended before. Also in the child of a fork. */
void pli_shares_end(struct pli_link *link);

/* The user releases a region, which is in the index no more: each link that shares it hears of it. Any thread. */
void pli_shares_released(struct plait_mem *mem);
/* On the context: what pli_shares_released() posts. */
void pli_shares_post_fn(struct pli_post *post);

/* The descriptors of a region did not fit into this process: PLAIT_E_NOFILE, with a sentence that names the limit. */
int pli_share_no_descriptor(void);

/* PLAIT_MAPPED_MAX of the environment into *bytes, or the default. PLAIT_E_INVAL: it is no number of bytes. */
int pli_share_mapped_max(uint64_t *bytes);

/* Around fork(). */
void pli_shares_lock(void);
void pli_shares_unlock(void);

#endif
