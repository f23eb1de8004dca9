/* SPDX-License-Identifier: BSD-3-Clause */
/* The lock of PLAIT_CTX_SHARED contexts, and who receives while several threads wait.
 *
 * One of the waiting threads is the receiver: it runs the context for everybody, and lets others have
 * the lock between two passes and while it sleeps. A waiting thread whose done() has come true is woken,
 * alone. When the receiver has what it waited for, it wakes one other waiting thread, which goes on
 * receiving. Nothing exists only to receive. */
#ifndef PLI_RUNTIME_HANDOVER_H
#define PLI_RUNTIME_HANDOVER_H

#include "runtime/loop.h"

/* PLAIT_E_NOMEM, NOFILE, SYSTEM. */
int pli_handover_create(struct plait_ctx *ctx);
/* Nobody may hold or wait for the lock. forked: frees only. */
void pli_handover_destroy(struct plait_ctx *ctx, bool forked);

/* Takes the lock; a thread that has it may take it again. No-op for a context that is not shared. Blocks
 * while another thread has it. */
void pli_handover_lock(struct plait_ctx *ctx);
/* Gives it back, and wakes who has something to do because of what was done meanwhile. */
void pli_handover_unlock(struct plait_ctx *ctx);
/* Has the calling thread the lock? Any thread. */
bool pli_handover_mine(const struct plait_ctx *ctx);
/* Does any thread wait? With the lock. */
bool pli_handover_busy(const struct plait_ctx *ctx);

/* pli_ctx_wait() of a shared context. */
int pli_handover_wait(struct plait_ctx *ctx, bool (*done)(void *arg), void *arg, uint64_t deadline);

/* In the child of a fork: closes the descriptor. Async-signal-safe. */
void pli_handover_forked(struct plait_ctx *ctx);

#endif
