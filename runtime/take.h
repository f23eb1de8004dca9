/* SPDX-License-Identifier: BSD-3-Clause */
/* Offered messages that are copied to where they are wanted: short ones at once, long ones in slices between the passes over the links
 * (pace.h). Those in place are given at once, but while others talk one in a pass. While a connection copies one, what comes on it waits
 * behind, in order; other connections go on.
 *
 * What was offered by addresses and cannot be read any more is asked for (NEED), with the same waiting behind it. Its bytes (FILL) come
 * before all that its sender had not sent yet, and are written as they come. */
#ifndef PLI_RUNTIME_TAKE_H
#define PLI_RUNTIME_TAKE_H

#include "runtime/conn.h"

/* A message that is being copied. */
struct pli_take {
    struct pli_msg m;       /* as it will be delivered; place or buf own where it is put */
    uint64_t cookie;        /* reply: the request's */
    uint32_t receipt;       /* reply: the replier's number of it */
    bool reply;
    bool addresses;         /* src names the peer's memory, not ours */
    bool in_place;          /* nothing is copied: it is only put off */
    bool asked;             /* the peer's memory may not be read: its sender has been asked for the bytes (NEED), and src is NULL */
    bool dropped;           /* asked, but nobody wants them any more: they are only counted */
    struct pli_pieces *src; /* where it lies; owned if the copy is done in slices */
    struct pli_cursor from, to;
    struct iovec whole;     /* behind to, if it is a buffer of plait's own */
    size_t left;            /* bytes */
};

/* Owner thread, all of them; nothing blocks for longer than a slice, but for records that come while too much waits already. */

/* Begins: m is described up to its data, cookie, receipt, reply and addresses are set. It lies at src, which is on the caller's stack, is total
 * bytes long, and goes to `into`, which is taken over; NULL: to a buffer. Delivers it now or later. 0; negative: the link fails. An error of the
 * message ends the connection. */
int pli_take_begin(struct plait_conn *c, struct pli_take *t, struct pli_pieces *src, size_t total, struct pli_pieces *into);
/* The same for one that is given in place: at once, or at the end of a pass while others talk. */
int pli_take_in_place(struct plait_conn *c, struct pli_take *t, struct pli_pieces *src);
/* A record came while c->taking: it waits, or is handled if its order does not matter. As pli_conn_rx(). */
int pli_take_behind(struct plait_conn *c, uint32_t meta, uint64_t w1, const void *payload);
/* The reply of that number is not wanted any more: its place is left alone from here on. */
void pli_take_forget(struct plait_conn *c, uint32_t cookie);
/* CANCEL came: the message of that number is not delivered, if it is still being received. As pli_conn_rx(). */
int pli_take_cancel(struct plait_conn *c, uint32_t cookie);
/* FILL came. As pli_conn_rx(). */
int pli_take_fill(struct plait_conn *c, const void *data, uint32_t len);
/* Copies and delivers all that waits, now; but not what has been asked for, and what is behind that. */
void pli_take_finish(struct plait_conn *c);
/* The connection has ended. */
void pli_take_drop(struct plait_conn *c);
void pli_take_init(struct plait_conn *c);

#endif
