/* SPDX-License-Identifier: BSD-3-Clause */
/* A control channel: one nonblocking stream socket of a context, that carries frames (wire.h) and, over
 * AF_UNIX, file descriptors. Called by the owner thread of the context; nothing blocks. Embedded in its user
 * (a link, or a socket that is not yet handed over). */
#ifndef PLI_RUNTIME_CHANNEL_H
#define PLI_RUNTIME_CHANNEL_H

#include "runtime/loop.h"
#include "runtime/wire.h"

#define PLI_CHANNEL_FDS 16 /* descriptors received and not yet taken by a frame; more is a protocol error */
#define PLI_CHANNEL_OUT_MAX (1024u * 1024u) /* bytes that wait for a peer that does not read */

struct pli_channel;

struct pli_channel_ops {
    /* A frame came. fds: msg->nfds descriptors, close-on-exec; the callee owns them. What msg points to is
     * valid until the callback returns, even if it closes the channel. Returns 0, or a negative code: the
     * channel has been, or is to be, given up and reads no further (on_end is not called for it). The callee
     * may close the channel inside, and free the memory that it is in (returns negative then).
     * msg->fds_lost: only for TR_CONTROL and MEM, which can be done without. */
    int (*on_frame)(struct pli_channel *ch, const struct pli_wire_msg *msg, int *fds);
    /* The channel ended: PLAIT_E_PEERDIED for end-of-file or a reset, PLAIT_E_PROTO, PLAIT_E_VERSION,
     * PLAIT_E_NOFILE (descriptors of another message were lost in reception: MSG_CTRUNC), PLAIT_E_NOMEM, PLAIT_E_SYSTEM; the
     * sentence is in pli_err_text(). Called once, after every frame that came whole. The callee closes the
     * channel, now or later. */
    void (*on_end)(struct pli_channel *ch, int code);
};

struct pli_channel {
    struct pli_src src; /* src.fd is the socket, -1: none */
    struct plait_ctx *ctx;
    const struct pli_channel_ops *ops;
    uint8_t *in; /* PLI_WIRE_HEAD + PLI_WIRE_MAX bytes, allocated at the first read, freed when empty */
    size_t in_len;
    int fds[PLI_CHANNEL_FDS]; /* received, in order, not yet taken */
    int nfds;
    bool lost;      /* descriptors of a frame that begins at or behind in[lost_at] were lost */
    size_t lost_at;
    struct pli_list out; /* frames that the socket did not take yet, with duplicates of their descriptors */
    size_t out_bytes;
    bool ended; /* reads no further */
    bool is_unix;
    bool broken; /* writing has failed: nothing is sent any more */
    bool silent; /* the system has given the peer's machine up, which does not answer */
    bool *gone;  /* inside on_frame: set when the channel is closed or detached */
};

/* Takes fd over (sets O_NONBLOCK and FD_CLOEXEC, and TCP's options with the context's peer_timeout_ms; closes it on error) and reads from it. ch: zero bytes, or a
 * closed channel. PLAIT_E_INVAL, PLAIT_E_NOMEM, PLAIT_E_SYSTEM. */
int pli_channel_open(struct pli_channel *ch, struct plait_ctx *ctx, int fd,
                     const struct pli_channel_ops *ops);

/* Encodes and sends, or queues, a frame. fds are borrowed (duplicated if queued). PLAIT_E_PEERDIED (also: the
 * peer does not read and PLI_CHANNEL_OUT_MAX bytes wait), PLAIT_E_NOMEM, PLAIT_E_NOFILE, PLAIT_E_INVAL (a
 * value over its limit, descriptors over TCP), PLAIT_E_SYSTEM. After an error the channel still waits to be
 * closed by its user, and reads on: on_end may follow; but after PLAIT_E_NOFILE nothing of the frame has been sent, and the channel is as before. */
int pli_channel_send(struct pli_channel *ch, const struct pli_wire_msg *msg, const int *fds);

/* Takes the socket away from the channel (for handing it to another context), and frees the rest as close
 * does. Returns the fd; PLAIT_E_BUSY: output is queued; PLAIT_E_PROTO: bytes beyond the present frame have
 * come. */
int pli_channel_detach(struct pli_channel *ch);

/* Closes descriptors that came with a frame. Any thread. */
void pli_fds_close(const int *fds, int n);

/* Closes the socket after trying to send what is queued (without blocking), frees buffers and descriptors.
 * Idempotent. In a child after fork it sends nothing. */
void pli_channel_close(struct pli_channel *ch);

#endif
