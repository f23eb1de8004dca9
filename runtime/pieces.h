/* SPDX-License-Identifier: BSD-3-Clause */
/* Data that lies in pieces: to be sent from there, or received there. */
#ifndef PLI_RUNTIME_PIECES_H
#define PLI_RUNTIME_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct pli_peermem;
struct plait_pool;

/* A place in pieces: off bytes into the first of iov. */
struct pli_cursor {
    const struct iovec *iov;
    size_t off;
};

/* Copies the next n bytes from, or to, the pieces, and moves on. There are as many. */
void pli_cursor_read(struct pli_cursor *from, void *to, size_t n);
void pli_cursor_write(struct pli_cursor *to, const void *from, size_t n);

/* Bytes of niov pieces; SIZE_MAX: more than that. */
size_t pli_iov_len(const struct iovec *iov, unsigned niov);

/* Where the data of a received message lies, if it is not one buffer of plait's own: in the peer's regions (pm), in memory of the user's,
 * or in a buffer of a pool. In one piece of memory from malloc() if owned; else on the stack of who delivers the message, without
 * references, and then its header part is where it came. */
struct pli_pieces {
    bool owned;
    unsigned niov, npm;
    struct iovec *iov;       /* no empty ones */
    struct pli_peermem **pm; /* owned: one reference each */
    void *pool_buf;          /* owned, or NULL */
    void *hdr;               /* owned: a copy of the header part, or NULL */
};

/* An owned place of the first len bytes of the pieces, with a copy of the header part. NULL: no memory. */
struct pli_pieces *pli_pieces_new(const struct iovec *iov, unsigned niov, size_t len, const void *hdr, size_t hdr_len);
/* Of a buffer from the pool. PLAIT_E_NOMEM, or as plait_pool_alloc(). */
int pli_pieces_from_pool(struct pli_pieces **place, struct plait_pool *pool, size_t len, const void *hdr, size_t hdr_len);
/* An owned copy of one that is not, with references. NULL: no memory. */
struct pli_pieces *pli_pieces_keep(const struct pli_pieces *place, const void *hdr, size_t hdr_len);
/* Frees an owned one, and what it has; NULL and one that is not owned are left alone. Any thread. */
void pli_pieces_free(struct pli_pieces *place);

#endif
