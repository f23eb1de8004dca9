/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file rma.h
 * @brief One-sided operations: put, get and atomics on memory that a peer has exported.
 *
 * The owner of a region exports it to one session, plait_mem_export(), and sends the key to the peer in a message.
 * Who has the key reads, writes and counts in the region, while the owner's program does something else: nobody there
 * calls a function for it. The owner withdraws the key at any time; from then on every access that begins fails with
 * PLAIT_E_REVOKED, and never with a signal.
 *
 * Operations of one connection are done in the order of the calls; the memory that they name (data, buf, old) stays
 * plait's until they are complete. An operation is complete when its on_done has been called or, without one, when
 * the on_done of a plait_rma_flush() after it has been. None is called from inside the call that started it. A key
 * may be used before plait has heard of its region (the key's message may overtake that): operations wait then, at
 * most PLAIT_RMA_WAIT_MS, and keep their order.
 *
 * Memory order. A put and a get are plain copies, of bytes in no particular order. The atomics are single,
 * sequentially consistent operations on the memory itself, as C11's atomic_fetch_add() and
 * atomic_compare_exchange_strong(), with those of every other process and of the owner, who uses C11 atomics on the
 * same 8 bytes. All operations before plait_rma_flush() are visible to the owner and to everybody who has the region
 * before the flush completes; so: put, flush, then tell by a message or an atomic. A get that overlaps a concurrent
 * put or store may give old and new bytes mixed.
 *
 * Between processes of one host these are loads and stores in memory that both map, done in the call. Between hosts, and between others that share no
 * memory, the owner's context does them, in the calls that poll it: it must run for that, and copies. What could be found wrong at once on one host
 * comes with on_done then, or with the next flush; and a put or get without on_done, too, is complete only after a flush.
 */
#ifndef PLAIT_RMA_H
#define PLAIT_RMA_H

#include <stddef.h>
#include <stdint.h>
#include <plait/mem.h>
#include <plait/msg.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Names one region for one session. Opaque; send its bytes to the peer in a message. */
struct plait_key {
    unsigned char bytes[32];
};

#define PLAIT_ACCESS_READ 0x1u  /**< the peer may get. Of a region with PLAIT_MEM_WRITABLE it has a descriptor for reading, which a process of the
                                     same user can open again for writing: only a region without that flag lets nobody write */
#define PLAIT_ACCESS_WRITE 0x2u /**< the peer may put; atomics need both */

#define PLAIT_RMA_WAIT_MS 5000u /**< how long an operation waits for the region of its key */
#define PLAIT_RMA_OPS_MAX 4096u /**< operations of a connection that wait, or whose on_done has not been called yet */
#define PLAIT_EXPORTS_MAX 1024u /**< exports at a time from one context to another; a process has at most 8192 */

/* ---- the owner ---- */

/**
 * Exports a region to the session of a connection, until plait_mem_withdraw(), plait_mem_release() of the region, or
 * the end of the connection. The key serves for every connection of that session between the same two contexts.
 * @param mem       of plait_mem_alloc(); PLAIT_ACCESS_WRITE needs one that was allocated with PLAIT_MEM_WRITABLE.
 * @param conn      open.
 * @param access    PLAIT_ACCESS_READ, PLAIT_ACCESS_WRITE or both.
 * @param[out] key  to be sent to the peer.
 * @return 0; PLAIT_E_INVAL (access, a registered region, one that is not writable); PLAIT_E_NOMEM (more than
 *         PLAIT_EXPORTS_MAX, or the process has 8192, or memory); PLAIT_E_CLOSED (conn is not open);
 *         PLAIT_E_NOFILE; PLAIT_E_SYSTEM; PLAIT_E_THREAD; PLAIT_E_FORKED. Never blocks. Owner thread of the connection's context, callbacks too.
 */
PLAIT_API int plait_mem_export(struct plait_mem *mem, struct plait_conn *conn, unsigned access, struct plait_key *key);

/**
 * Makes a key worthless, at once: an access that begins after this call fails with PLAIT_E_REVOKED. One that has
 * begun goes on, at most for some 256 KiB; on_gone tells when there can be none any more.
 *
 * The end of the connection and plait_mem_release() make a key worthless, too, and nobody is told of the rest. Who
 * wants to know calls this function once all the same, in on_closed or later: on_gone comes as ever, or the peer has
 * let go already, and it is PLAIT_E_NOTFOUND.
 * @param key      as plait_mem_export() gave it.
 * @param on_gone  NULL, or called once when the peer has unmapped the region (status 0), or the link to it is lost
 *                 (the reason; a peer that lives may be at the end of an access even then); on the thread of the
 *                 connection's context, possibly after the connection's on_closed, at the latest when the context is
 *                 destroyed; never from inside this call.
 * @return 0; PLAIT_E_REVOKED (this function was called for it before, and on_gone of that call is still to come);
 *         PLAIT_E_NOTFOUND (it has ended: the peer has unmapped the region, or the link is lost; or this process did
 *         not make it); PLAIT_E_FORKED. Then on_gone is not called. Never blocks. Any thread, callbacks too.
 */
PLAIT_API int plait_mem_withdraw(const struct plait_key *key, plait_done_fn on_gone, void *arg);

/* ---- the peer ---- */

/**
 * Writes len bytes at offset of the region. What can be found wrong at once is returned, and on_done is not called
 * then; the rest comes with on_done or, where that is NULL, with the next plait_rma_flush().
 * @param conn     of the session that the key was made for, open.
 * @param key      copied.
 * @param offset   bytes, any alignment.
 * @param data     the caller leaves it unchanged until completion; NULL is allowed if len is 0. It must not overlap
 *                 the target.
 * @param len      bytes, 0 is allowed. offset + len must not exceed the region.
 * @param on_done  NULL, or called once, with 0 or the code of what went wrong: one of those below, or PLAIT_E_TIMEDOUT (the region of the key did
 *                 not arrive within PLAIT_RMA_WAIT_MS), or why the connection ended.
 * @return 0; PLAIT_E_INVAL (the key is damaged, or of another session, process or context; outside the region);
 *         PLAIT_E_PERM (the key does not allow it); PLAIT_E_REVOKED (withdrawn, bytes of it may have been written);
 *         PLAIT_E_AGAIN (PLAIT_RMA_OPS_MAX operations, or the connection is not open yet: nothing happened,
 *         on_writable follows); PLAIT_E_CLOSED; PLAIT_E_NOMEM or PLAIT_E_NOFILE (also: the region could not be mapped
 *         here; the sentence names the limit, and a key that the owner makes after it was raised will do);
 *         PLAIT_E_THREAD; PLAIT_E_FORKED. Does not wait, but takes the time of the copy. Owner
 *         thread, callbacks too.
 */
PLAIT_API int plait_put(struct plait_conn *conn, const struct plait_key *key, uint64_t offset, const void *data, size_t len,
                        plait_done_fn on_done, void *arg);

/**
 * Reads len bytes at offset of the region into buf.
 * @param buf  the caller does not use it until completion; NULL is allowed if len is 0.
 * @return as plait_put(). Owner thread, callbacks too.
 */
PLAIT_API int plait_get(struct plait_conn *conn, const struct plait_key *key, uint64_t offset, void *buf, size_t len,
                        plait_done_fn on_done, void *arg);

/**
 * Adds to the 8 bytes at offset, in the byte order of the machine; wraps around.
 * @param offset    a multiple of 8.
 * @param[out] old  NULL, or gets what was there before, at the latest when the operation completes.
 * @return as plait_put(), PLAIT_E_INVAL (offset), PLAIT_E_PERM (needs PLAIT_ACCESS_READ and PLAIT_ACCESS_WRITE).
 *         Owner thread, callbacks too.
 */
PLAIT_API int plait_atomic_add(struct plait_conn *conn, const struct plait_key *key, uint64_t offset, uint64_t add,
                               uint64_t *old, plait_done_fn on_done, void *arg);

/**
 * Writes desired to the 8 bytes at offset if they are expected.
 * @param[out] old  NULL, or gets what was there before: expected, if it was exchanged.
 * @return as plait_atomic_add(). Owner thread, callbacks too.
 */
PLAIT_API int plait_atomic_cas(struct plait_conn *conn, const struct plait_key *key, uint64_t offset, uint64_t expected,
                               uint64_t desired, uint64_t *old, plait_done_fn on_done, void *arg);

/**
 * Completes when all operations of this connection that were started before are complete and visible at their
 * targets.
 * @param on_done  called once, with 0, or the first code of an operation without an on_done that failed since the
 *                 last flush, or why the connection ended. Not NULL.
 * @return 0, PLAIT_E_INVAL, PLAIT_E_AGAIN (as plait_put(): poll, and call it again), PLAIT_E_CLOSED, PLAIT_E_NOMEM, PLAIT_E_THREAD, PLAIT_E_FORKED. Never
 *         blocks. Owner thread, callbacks too.
 */
PLAIT_API int plait_rma_flush(struct plait_conn *conn, plait_done_fn on_done, void *arg);

#ifdef __cplusplus
}
#endif
#endif
