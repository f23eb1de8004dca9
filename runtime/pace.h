/* SPDX-License-Identifier: BSD-3-Clause */
/* How much of a long copy is done between two looks at the links. While small messages pass beside it, a slice takes about as long as one
 * of them is on its way; else it is so long that the look costs nothing. */
#ifndef PLI_RUNTIME_PACE_H
#define PLI_RUNTIME_PACE_H

#include "runtime/loop.h"

struct plait_conn;

#define PLI_PACE_COARSE (256u << 10) /* bytes of a slice while nothing else is going on: some microseconds */
#define PLI_PACE_PASS (1024u << 10)   /* bytes that one pass may copy besides, in copies of at most PLI_PACE_ONCE */
#define PLI_PACE_ONCE (64u << 10)
#define PLI_PACE_TINY 1024u          /* bytes that are never worth a slice of their own */

/* Owner thread, all of them; nothing blocks. */

void pli_pace_init(struct pli_pace *pace);
/* Do messages of other connections pass these days (a millisecond)? */
bool pli_pace_fine(struct plait_ctx *ctx);
/* May a message of len bytes be copied as it comes, without slices? Counts it, if so. */
bool pli_pace_at_once(struct plait_ctx *ctx, uint64_t len);
/* Bytes for a slice of this connection's, at the end of a pass; 0: not now. *now: for pli_pace_took(). */
size_t pli_pace_slice(const struct plait_conn *c, uint64_t *now);
/* A slice of so many bytes was copied, begun at that time. again: and the peer will copy it again. */
void pli_pace_took(struct plait_ctx *ctx, size_t bytes, uint64_t begun, bool again);
/* Something that takes as long as a small slice is done now. */
void pli_pace_gap(struct plait_ctx *ctx, uint64_t now);

#endif
