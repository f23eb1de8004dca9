/* SPDX-License-Identifier: BSD-3-Clause */
/* A control channel: one nonblocking stream socket of a context, that carries frames (wire.h) and, over AF_UNIX, file
 * descriptors. Owner thread of the context; nothing blocks. Embedded in its user (a link, or a socket not yet handed over). */
#ifndef PLI_RUNTIME_CHANNEL_H
#define PLI_RUNTIME_CHANNEL_H

#include "runtime/loop.h"
#include "runtime/wire.h"

#define PLI_CHANNEL_FDS 16 /* descriptors received and not yet taken by a frame; more is a protocol error */

struct pli_channel;

struct pli_channel_ops {
    /* A frame came. fds: msg->nfds descriptors; the callee owns them. Returns 0, or a negative code: the channel has been, or is to be,
     * given up and reads no further (on_end is not called for it). The callee may close the channel inside (returns negative then). */
    int (*on_frame)(struct pli_channel *ch, const struct pli_wire_msg *msg, int *fds);
    /* The channel ended: PLAIT_E_PEERDIED for end-of-file or a reset, PLAIT_E_PROTO, PLAIT_E_VERSION, PLAIT_E_NOFILE (descriptors were
     * lost in reception: MSG_CTRUNC), PLAIT_E_SYSTEM; the sentence is in pli_err_text(). Called once. The callee closes it. */
    void (*on_end)(struct pli_channel *ch, int code);
};

struct pli_channel {
    struct pli_src src;
    struct plait_ctx *ctx;
    const struct pli_channel_ops *ops;
    uint8_t *in;              /* PLI_WIRE_HEAD + PLI_WIRE_MAX bytes, allocated at the first read, freed when empty */
    size_t in_len;
    int fds[PLI_CHANNEL_FDS]; /* received, in order, not yet taken */
    int nfds;
    struct pli_list out;      /* frames that the socket did not take yet, with duplicates of their descriptors */
    size_t out_bytes;
    bool ended;
};

/* Takes fd over (sets O_NONBLOCK and FD_CLOEXEC) and reads from it. in/in_len: bytes that were read from it before, or NULL. */
int pli_channel_open(struct pli_channel *ch, struct plait_ctx *ctx, int fd, const struct pli_channel_ops *ops);
/* Encodes and sends, or queues, a frame. fds are borrowed (duplicated if queued). PLAIT_E_PEERDIED, PLAIT_E_NOMEM, PLAIT_E_INVAL; at most 1 MiB is
 * queued, more is PLAIT_E_PEERDIED (the peer does not read). After an error the channel still waits to be closed by its user. */
int pli_channel_send(struct pli_channel *ch, const struct pli_wire_msg *msg, const int *fds);
/* Takes the socket away from the channel (for handing it to another context): returns the fd; queued output must be empty, received bytes beyond
 * the present frame must be none (PLAIT_E_PROTO). */
int pli_channel_detach(struct pli_channel *ch);
/* Closes the socket after trying to send what is queued (without blocking), frees buffers and descriptors. Idempotent. */
void pli_channel_close(struct pli_channel *ch);

#endif
