/* SPDX-License-Identifier: BSD-3-Clause */
/* The peer's side of one-sided operations: regions that others have exported to us. */
#include "runtime/rma.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/err.h"
#include "util/log.h"

/* ---- the table, in the order of the numbers ---- */

/* The place of the first one that is not below number. */
static unsigned place(const struct pli_rma_link *r, uint32_t number)
{
    unsigned low = 0, high = r->nimports;

    while (low < high) {
        unsigned mid = low + (high - low) / 2;

        if (r->imports[mid]->key.number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct pli_import *lookup(struct pli_rma_link *r, uint32_t number)
{
    unsigned i;

    if (r->recent && r->recent->key.number == number)
        return r->recent;
    i = place(r, number);
    if (i == r->nimports || r->imports[i]->key.number != number)
        return NULL;
    r->recent = r->imports[i];
    return r->recent;
}

static int make_room(struct pli_rma_link *r)
{
    unsigned cap = r->cap ? 2 * r->cap : 8;
    struct pli_import **larger;

    if (r->nimports < r->cap)
        return 0;
    larger = realloc(r->imports, cap * sizeof *larger);
    if (!larger)
        return pli_fail(PLAIT_E_NOMEM, "no memory to remember %u exported regions of a peer", cap);
    r->imports = larger;
    r->cap = cap;
    return 0;
}

static void import_free(struct pli_import *m)
{
    pli_fill_put(m->pm);
    free(m->why);
    free(m);
}

void pli_rma_imports_free(struct pli_rma_link *r)
{
    for (unsigned i = 0; i < r->nimports; i++)
        import_free(r->imports[i]);
    free(r->imports);
    r->imports = NULL;
    r->nimports = 0;
    r->recent = NULL;
}

/* ---- EXPORT ---- */

/* What it gave cannot be trusted: pli_err_text() says why. */
static int bad_peer(struct pli_link *link, const char *what, uint32_t number)
{
    char text[512];

    snprintf(text, sizeof text, "%s: %s of EXPORT with key %u: %.300s", link->who, what, number, pli_err_text());
    link->stop = PLAIT_E_BADPEER;
    pli_link_fail(link, PLAIT_E_BADPEER, text);
    return PLAIT_E_BADPEER;
}

/* Takes fd over. The first one is mapped, all later ones must be the same. */
static int take_page(struct pli_link *link, int fd, uint32_t number)
{
    struct pli_rma_link *r = link->rma;
    struct stat st;
    int rc;

    if (fstat(fd, &st) < 0) {
        rc = pli_fail_errno("fstat of the peer's key page");
        close(fd);
        return rc;
    }
    if (r->page) {
        close(fd);
        if (st.st_dev == r->page_dev && st.st_ino == r->page_ino)
            return 0;
        pli_fail(PLAIT_E_BADPEER, "it is another one than before");
        return bad_peer(link, "the key page", number);
    }
    rc = pli_peermem_attach(&r->page, fd, PLI_RMA_PAGE, false);
    if (rc == PLAIT_E_BADPEER)
        return bad_peer(link, "the key page", number);
    if (rc < 0) {
        r->page = NULL;
        return rc;
    }
    r->page_dev = st.st_dev;
    r->page_ino = st.st_ino;
    return 0;
}

/* Takes fd over. */
static int take_region(struct pli_link *link, struct pli_import *m, int fd)
{
    struct stat st;
    int rc;

    if (fstat(fd, &st) < 0) {
        rc = pli_fail_errno("fstat of the peer's region");
        goto err_close;
    }
    /* whole pages, of up to 1 GiB each */
    if (st.st_size < 0 || (uint64_t)st.st_size < m->len || (uint64_t)st.st_size - m->len >= PLAIT_MEM_PAGE_1G) {
        pli_fail(PLAIT_E_BADPEER, "it has %lld bytes, the message says %llu", (long long)st.st_size, (unsigned long long)m->len);
        rc = bad_peer(link, "the region", m->key.number);
        goto err_close;
    }
    rc = pli_shares_count(link, (uint64_t)st.st_size);
    if (rc < 0)
        goto err_close;
    rc = pli_peermem_attach(&m->pm, fd, (uint64_t)st.st_size, m->key.access & PLAIT_ACCESS_WRITE);
    if (rc < 0) {
        pli_mapped_sub(link->shares.mapped, (uint64_t)st.st_size);
        m->pm = NULL;
        return rc == PLAIT_E_BADPEER ? bad_peer(link, "the region", m->key.number) : rc;
    }
    pli_peermem_account(m->pm, link->shares.mapped);
    pli_fill_add(&link->fill, m->pm);
    return 0;

err_close:
    close(fd);
    return rc;
}

static int check_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_rma_link *r = link->rma;
    uint32_t access = msg->mem.flags & ((1u << PLI_RMA_FLAGS_SLOT) - 1), slot = msg->mem.flags >> PLI_RMA_FLAGS_SLOT;

    if (msg->nfds != (pli_link_shares(link) ? 2 : 0) && !msg->fds_lost)
        return pli_link_breach(link, "EXPORT with %u descriptors", msg->nfds);
    if (msg->mem.key <= r->highest)
        return pli_link_breach(link, "EXPORT with key %u, which is not above all before (%u)", msg->mem.key, r->highest);
    if (access == 0 || access & ~PLI_RMA_ACCESS)
        return pli_link_breach(link, "EXPORT with access 0x%x", access);
    if (slot >= PLI_RMA_SLOTS)
        return pli_link_breach(link, "EXPORT with place %u in a key page of %u", slot, PLI_RMA_SLOTS);
    if (msg->mem.addr == 0)
        return pli_link_breach(link, "EXPORT of key %u without a secret", msg->mem.key);
    if (msg->mem.len == 0 || msg->mem.len > PTRDIFF_MAX)
        return pli_link_breach(link, "EXPORT of %llu bytes", (unsigned long long)msg->mem.len);
    if (r->nimports >= PLAIT_EXPORTS_MAX)
        return pli_link_breach(link, "EXPORT of more than %u regions", PLAIT_EXPORTS_MAX);
    return 0;
}

static struct pli_import *new_import(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_import *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    m->len = msg->mem.len;
    memcpy(m->sid, msg->mem.sid, PLI_ID_LEN);
    m->key = (struct pli_key){
        .number = msg->mem.key,
        .owner_ctx = link->peer.ctx_id,
        .peer_ctx = link->ctx->id,
        .slot = (uint16_t)(msg->mem.flags >> PLI_RMA_FLAGS_SLOT),
        .access = (uint16_t)msg->mem.flags,
        .secret = msg->mem.addr,
    };
    pli_key_seal(&m->key, m->sid);
    snprintf(m->name, sizeof m->name, "%.*s", (int)msg->mem.text.len, (const char *)msg->mem.text.p);
    return m;
}

static int answer(struct pli_link *link, enum pli_mem_op op, uint32_t number, int code, const char *text)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM };
    int rc;

    msg.mem.op = op;
    msg.mem.key = number;
    msg.mem.code = code;
    if (code < 0) {
        msg.mem.text.p = text;
        msg.mem.text.len = (uint32_t)strnlen(text, PLI_WIRE_TEXT_MAX);
    }
    rc = pli_channel_send(&link->ch, &msg, NULL);
    return rc < 0 ? pli_link_send_failed(link, rc) : 0;
}

static int no_memory(struct pli_link *link)
{
    pli_link_fail(link, PLAIT_E_NOMEM, "no memory for an exported region of the peer");
    return PLAIT_E_NOMEM;
}

/* Takes the descriptors of the region and of the key page over. */
static int take_both(struct pli_link *link, struct pli_import *m, const int *fds)
{
    int rc = take_page(link, fds[1], m->key.number);

    if (rc < 0) {
        close(fds[0]);
        return rc;
    }
    return take_region(link, m, fds[0]);
}

int pli_rma_export_came(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    struct pli_rma_link *r = pli_rma_link(link);
    struct pli_import *m;
    int rc = r ? check_frame(link, msg) : no_memory(link);

    if (rc < 0) {
        pli_fds_close(fds, msg->nfds);
        return rc;
    }
    m = make_room(r) < 0 ? NULL : new_import(link, msg);
    if (!m) {
        pli_fds_close(fds, msg->nfds);
        return no_memory(link);
    }
    m->remote = !pli_link_shares(link);
    rc = 0;
    if (!m->remote)
        rc = msg->fds_lost ? pli_share_no_descriptor() : take_both(link, m, fds);
    if (rc == PLAIT_E_BADPEER) {
        import_free(m);
        return rc;
    }
    if (rc == 0 && !m->remote) {
        m->word = (const _Atomic uint64_t *)(void *)r->page->addr + m->key.slot;
    } else if (rc < 0) {
        m->code = rc;
        m->why = strdup(pli_err_text());
        link->ctx->st.regions_refused++;
    }
    r->highest = msg->mem.key;
    r->imports[r->nimports++] = m;
    rc = answer(link, PLI_MEM_EXPORTED, msg->mem.key, m->code, m->why ? m->why : "");
    pli_rma_pump(link);
    return rc;
}

int pli_rma_withdraw_came(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_rma_link *r = link->rma;
    struct pli_import *m = r ? lookup(r, msg->mem.key) : NULL;
    unsigned i;

    if (!m)
        return pli_link_breach(link, "WITHDRAW of key %u, which is not exported", msg->mem.key);
    i = place(r, msg->mem.key);
    r->nimports--;
    memmove(r->imports + i, r->imports + i + 1, (r->nimports - i) * sizeof *r->imports);
    r->recent = NULL;
    import_free(m);
    return answer(link, PLI_MEM_WITHDRAWN, msg->mem.key, 0, NULL);
}

/* ---- using ---- */

static __attribute__((noinline, cold)) int why_not(struct plait_conn *c, const struct pli_key *k)
{
    const struct pli_link *link = c->link;

    if (k->check != pli_key_check(k))
        return pli_fail(PLAIT_E_INVAL, "the key is damaged, or none that plait_mem_export() made");
    if (k->session != pli_key_session(c->session->sid))
        return pli_fail(PLAIT_E_INVAL, "the key was made for another session");
    if (k->owner_ctx != link->peer.ctx_id || k->peer_ctx != link->ctx->id)
        return pli_fail(PLAIT_E_INVAL, "the key was made for another connection of this session, between other contexts (%u and %u, not %u and %u)",
                        k->owner_ctx, k->peer_ctx, link->peer.ctx_id, link->ctx->id);
    if (k->number == 0)
        return pli_fail(PLAIT_E_INVAL, "the key is none that plait_mem_export() made");
    if (pli_rma_is_own(link, k)) /* both ends are of one context */
        return pli_fail(PLAIT_E_INVAL, "the key was made at this end of the session: it is for the other one");
    return 0;
}

int pli_rma_find(struct plait_conn *c, const struct plait_key *key, struct pli_import **out)
{
    struct pli_rma_link *r = c->link->rma;
    struct pli_import *m;
    struct pli_key k;
    int rc;

    memcpy(&k, key, sizeof k);
    m = r ? lookup(r, k.number) : NULL;
    if (m && memcmp(&m->key, &k, sizeof k) == 0 && memcmp(m->sid, c->session->sid, PLI_ID_LEN) == 0) {
        if (!m->pm && !m->remote)
            return pli_fail(m->code, "the region '%s' of %s could not be mapped here: %s", m->name, c->link->who, m->why ? m->why : "");
        *out = m;
        return 0;
    }
    rc = why_not(c, &k);
    if (rc < 0)
        return rc;
    if (m)
        return pli_fail(PLAIT_E_INVAL, "the key is none that %s made for this session", c->link->who);
    if (r && k.number <= r->highest)
        return pli_fail(PLAIT_E_REVOKED, "the key has been withdrawn by its owner, %s", c->link->who);
    return 1;
}
