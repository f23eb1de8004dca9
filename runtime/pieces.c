/* SPDX-License-Identifier: BSD-3-Clause */
#include "runtime/pieces.h"

#include <stdlib.h>
#include <string.h>
#include "plait/mem.h"
#include "runtime/peermem.h"
#include "util/copy.h"
#include "util/err.h"

#define ALIGN8(n) (((n) + 7u) & ~(size_t)7u)

/* How many of n bytes the present piece has, after those that are used up were left. */
static size_t step(struct pli_cursor *c, size_t n)
{
    size_t rest;

    while (c->off == c->iov->iov_len) {
        c->iov++;
        c->off = 0;
    }
    rest = c->iov->iov_len - c->off;
    return n < rest ? n : rest;
}

void pli_cursor_read(struct pli_cursor *from, void *to, size_t n)
{
    uint8_t *p = to;

    while (n) {
        size_t part = step(from, n);

        pli_copy(p, (const uint8_t *)from->iov->iov_base + from->off, part);
        from->off += part;
        p += part;
        n -= part;
    }
}

void pli_cursor_write(struct pli_cursor *to, const void *from, size_t n)
{
    const uint8_t *p = from;

    while (n) {
        size_t part = step(to, n);

        pli_copy((uint8_t *)to->iov->iov_base + to->off, p, part);
        to->off += part;
        p += part;
        n -= part;
    }
}

size_t pli_iov_len(const struct iovec *iov, unsigned niov)
{
    size_t len = 0;

    for (unsigned i = 0; i < niov; i++) {
        if (iov[i].iov_len > SIZE_MAX - len)
            return SIZE_MAX;
        len += iov[i].iov_len;
    }
    return len;
}

/* ---- places ---- */

static struct pli_pieces *alloc_place(unsigned niov, unsigned npm, const void *hdr, size_t hdr_len)
{
    struct pli_pieces *p = malloc(sizeof *p + niov * sizeof(struct iovec) + npm * sizeof(struct pli_peermem *) + ALIGN8(hdr_len));

    if (!p)
        return NULL;
    p->owned = true;
    p->niov = niov;
    p->npm = npm;
    p->iov = (struct iovec *)(p + 1);
    p->pm = (struct pli_peermem **)(p->iov + niov);
    p->pool_buf = NULL;
    p->hdr = hdr_len ? p->pm + npm : NULL;
    if (hdr_len)
        memcpy(p->hdr, hdr, hdr_len);
    return p;
}

struct pli_pieces *pli_pieces_new(const struct iovec *iov, unsigned niov, size_t len, const void *hdr, size_t hdr_len)
{
    struct pli_pieces *p = alloc_place(niov, 0, hdr, hdr_len);
    unsigned n = 0;

    if (!p)
        return NULL;
    for (unsigned i = 0; i < niov && len; i++) {
        size_t part = iov[i].iov_len < len ? iov[i].iov_len : len;

        if (part)
            p->iov[n++] = (struct iovec){ iov[i].iov_base, part };
        len -= part;
    }
    p->niov = n;
    return p;
}

int pli_pieces_from_pool(struct pli_pieces **place, struct plait_pool *pool, size_t len, const void *hdr, size_t hdr_len)
{
    struct pli_pieces *p = alloc_place(1, 0, hdr, hdr_len);
    int rc;

    if (!p)
        return pli_fail(PLAIT_E_NOMEM, "no memory to describe where a message is put");
    rc = plait_pool_alloc(pool, len, &p->pool_buf);
    if (rc < 0) {
        free(p);
        return rc;
    }
    p->iov[0] = (struct iovec){ p->pool_buf, len };
    p->niov = len ? 1 : 0;
    *place = p;
    return 0;
}

struct pli_pieces *pli_pieces_keep(const struct pli_pieces *place, const void *hdr, size_t hdr_len)
{
    struct pli_pieces *p = alloc_place(place->niov, place->npm, hdr, hdr_len);

    if (!p)
        return NULL;
    if (p->niov)
        memcpy(p->iov, place->iov, place->niov * sizeof(*p->iov));
    for (unsigned i = 0; i < p->npm; i++) {
        p->pm[i] = place->pm[i];
        pli_peermem_hold(p->pm[i]);
    }
    return p;
}

void pli_pieces_free(struct pli_pieces *p)
{
    if (!p || !p->owned)
        return;
    for (unsigned i = 0; i < p->npm; i++)
        pli_peermem_put(p->pm[i]);
    if (p->pool_buf)
        plait_pool_free(p->pool_buf);
    free(p);
}
