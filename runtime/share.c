/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions that are shown to a peer, or by it. */
#include "runtime/share.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/conn.h"
#include "runtime/mem.h"
#include "runtime/peermem.h"
#include "util/env.h"
#include "util/err.h"
#include "util/log.h"

/* Guards plait_mem.shares and plait_mem.released. Innermost, but for what pli_ctx_post() does. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void pli_shares_lock(void)
{
    pthread_mutex_lock(&lock);
}

void pli_shares_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

int pli_share_mapped_max(uint64_t *bytes)
{
    *bytes = PLI_SHARE_MAPPED_MAX;
    return pli_env_bytes(bytes, "PLAIT_MAPPED_MAX", NULL, 0);
}

/* ---- ours: the table ---- */

/* The number of shares that begin at or before p. */
static uint32_t upper_bound(const struct pli_shares *sh, const char *p)
{
    uint32_t low = 0, high = sh->count;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if ((uintptr_t)sh->by_addr[mid]->addr <= (uintptr_t)p)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static inline bool has(const struct pli_share *s, const char *p, size_t len)
{
    uintptr_t offset = (uintptr_t)p - (uintptr_t)s->addr;

    return offset < s->len && len <= s->len - offset;
}

static int make_room(struct pli_shares *sh)
{
    uint32_t more = sh->cap ? 2 * sh->cap : 8;
    struct pli_share **grown;

    if (sh->count < sh->cap)
        return 0;
    grown = realloc(sh->by_addr, more * sizeof(*grown));
    if (!grown)
        return PLAIT_E_NOMEM;
    sh->by_addr = grown;
    grown = realloc(sh->slots, more * sizeof(*grown));
    if (!grown)
        return PLAIT_E_NOMEM;
    memset(grown + sh->cap, 0, (more - sh->cap) * sizeof(*grown));
    sh->slots = grown;
    sh->cap = more;
    return 0;
}

static void table_add(struct pli_shares *sh, struct pli_share *s)
{
    uint32_t i = upper_bound(sh, s->addr), slot = 0;

    memmove(sh->by_addr + i + 1, sh->by_addr + i, (sh->count - i) * sizeof(*sh->by_addr));
    sh->by_addr[i] = s;
    sh->count++;
    while (sh->slots[slot])
        slot++;
    sh->slots[slot] = s;
    s->slot = (uint16_t)slot;
}

static void table_del(struct pli_shares *sh, const struct pli_share *s)
{
    uint32_t i = upper_bound(sh, s->addr) - 1;

    memmove(sh->by_addr + i, sh->by_addr + i + 1, (sh->count - i - 1) * sizeof(*sh->by_addr));
    sh->count--;
    sh->slots[s->slot] = NULL;
    if (sh->hit == s)
        sh->hit = NULL;
}

static struct pli_share *find_key(const struct pli_shares *sh, uint32_t key)
{
    for (uint32_t i = 0; i < sh->count; i++)
        if (sh->by_addr[i]->key == key)
            return sh->by_addr[i];
    return NULL;
}

/* ---- ours: the life of a share ---- */

static int send_frame(struct pli_link *link, enum pli_mem_op op, uint32_t key, int32_t code, const char *text, uint64_t len, const int *fd)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = fd ? 1 : 0 };
    int rc;

    msg.mem.op = op;
    msg.mem.key = key;
    msg.mem.code = code;
    msg.mem.len = len;
    msg.mem.text.p = text;
    msg.mem.text.len = (uint32_t)strnlen(text, PLI_WIRE_TEXT_MAX);
    rc = pli_channel_send(&link->ch, &msg, fd);
    if (rc == PLAIT_E_NOFILE) /* too many descriptors: nothing has been sent, and the link is well */
        return rc;
    return rc < 0 ? pli_link_send_failed(link, rc) : 0;
}

static void share_free(struct pli_share *s)
{
    pli_shares_lock();
    pli_list_remove(&s->of_mem);
    pli_shares_unlock();
    pli_mem_put(s->mem);
    free(s);
}

/* Takes the caller's reference on the region over. NULL: it cannot be shared. */
static struct pli_share *share_new(struct pli_link *link, struct plait_mem *mem)
{
    struct pli_share *s = calloc(1, sizeof(*s));
    bool gone;

    if (!s || make_room(&link->shares) < 0)
        goto err_put;
    s->addr = mem->addr;
    s->len = mem->len;
    s->mem = mem;
    s->link = link;
    s->key = ++link->shares.last_key;
    pli_shares_lock();
    gone = mem->released; /* by another thread, since it was found */
    if (!gone)
        pli_list_push_back(&mem->shares, &s->of_mem);
    pli_shares_unlock();
    if (gone)
        goto err_put;
    table_add(&link->shares, s);
    return s;

err_put:
    free(s);
    pli_mem_put(mem);
    return NULL;
}

static bool too_many(struct pli_link *link)
{
    if (link->shares.count < PLI_SHARES_MAX && link->shares.last_key != UINT32_MAX)
        return false;
    if (!link->shares.full_told)
        pli_warn("%u regions are shared with %s, the most there can be: messages from further ones are copied; use fewer, larger regions",
                 link->shares.count, link->who);
    link->shares.full_told = true;
    return true;
}

/* The peer shall map the region at p. False: there is none that could be shared. */
static bool ask(struct pli_link *link, const void *p, size_t len)
{
    struct plait_mem *mem = pli_mem_find(p, len);
    struct pli_share *s;

    if (!mem)
        return false;
    /* whoever gets the descriptor of a writable one could write: that is for plait_mem_export() to allow */
    if (mem->kind != PLAIT_MEM_ALLOCATED || mem->fd < 0 || mem->writable || !pli_link_shares(link)) {
        pli_mem_put(mem);
        return false;
    }
    if (too_many(link)) {
        pli_mem_put(mem);
        return true;
    }
    s = share_new(link, mem);
    if (s && send_frame(link, PLI_MEM_SHARE, s->key, 0, mem->name, mem->mapped, &mem->fd) == PLAIT_E_NOFILE) {
        s->state = PLI_SHARE_REFUSED; /* the peer has not heard of it; messages are copied */
        pli_warn("messages from memory '%s' are copied: %s", mem->name, pli_err_text());
    }
    return true;
}

struct pli_share *pli_share_find(struct pli_link *link, const void *p, size_t len, bool *in_region)
{
    struct pli_shares *sh = &link->shares;
    struct pli_share *s = sh->hit;
    uint32_t i;

    *in_region = true;
    if (s && has(s, p, len)) /* only those that are up become the hit */
        return s;
    i = upper_bound(sh, p);
    s = i ? sh->by_addr[i - 1] : NULL;
    if (!s || !has(s, p, len)) {
        *in_region = pli_link_is_up(link) && ask(link, p, len);
        return NULL;
    }
    if (s->state != PLI_SHARE_UP || atomic_load_explicit(&s->released, memory_order_relaxed))
        return NULL;
    sh->hit = s;
    return s;
}

/* The region was released, and nobody names it any more. An answer that is still to come must find the share. */
static void revoke_if_idle(struct pli_share *s)
{
    struct pli_link *link = s->link;

    if (s->in_flight || s->state == PLI_SHARE_ASKED || !atomic_load_explicit(&s->released, memory_order_relaxed))
        return;
    table_del(&link->shares, s);
    if (s->state == PLI_SHARE_UP && pli_link_is_up(link))
        send_frame(link, PLI_MEM_REVOKE, s->key, 0, "", 0, NULL);
    share_free(s);
}

void pli_share_take(struct pli_link *link, uint16_t slot)
{
    link->shares.slots[slot]->in_flight++;
}

void pli_share_give(struct pli_link *link, uint16_t slot)
{
    struct pli_share *s = link->shares.slots[slot];

    s->in_flight--;
    /* relaxed: the post that follows the store looks at it again */
    if (__builtin_expect(atomic_load_explicit(&s->released, memory_order_relaxed), 0))
        revoke_if_idle(s);
}

void pli_shares_released(struct plait_mem *mem)
{
    struct pli_list *node;

    pli_shares_lock();
    mem->released = true;
    pli_list_foreach(node, &mem->shares) {
        struct pli_share *s = pli_container_of(node, struct pli_share, of_mem);
        /* as long as the share is in the list, the context lives, or is being destroyed and drops its posts later */
        struct plait_ctx *ctx = s->link->ctx;

        atomic_store_explicit(&s->released, true, memory_order_relaxed);
        if (!ctx->forked && !atomic_exchange_explicit(&ctx->mem_posted, true, memory_order_acq_rel))
            pli_ctx_post(ctx, &ctx->mem_post);
    }
    pli_shares_unlock();
}

void pli_shares_post_fn(struct pli_post *post)
{
    struct plait_ctx *ctx = pli_container_of(post, struct plait_ctx, mem_post);
    struct pli_list *node;

    /* before the look: what is released from here on posts again. acq_rel: pairs with the exchange there */
    atomic_exchange_explicit(&ctx->mem_posted, false, memory_order_acq_rel);
    pli_list_foreach(node, &ctx->links) {
        struct pli_shares *sh = &pli_container_of(node, struct pli_link, node)->shares;

        for (uint32_t i = sh->count; i-- > 0;)
            revoke_if_idle(sh->by_addr[i]);
    }
}

/* ---- the peer's ---- */

static struct pli_peer_share *find_peer(const struct pli_shares *sh, uint32_t key)
{
    uint32_t low = 0, high = sh->npeer;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (sh->peer[mid].key < key)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sh->npeer && sh->peer[low].key == key ? &sh->peer[low] : NULL;
}

struct pli_peermem *pli_share_peer(struct pli_link *link, uint32_t key, bool *revoked)
{
    struct pli_shares *sh = &link->shares;
    struct pli_peer_share *ps = sh->peer + sh->peer_hit;

    if (__builtin_expect(sh->peer_hit < sh->npeer && ps->key == key, 1))
        return ps->pm;
    ps = find_peer(sh, key);
    if (ps)
        sh->peer_hit = (uint32_t)(ps - sh->peer);
    *revoked = !ps && key && key <= sh->peer_last_key;
    return ps ? ps->pm : NULL;
}

static int peer_room(struct pli_shares *sh)
{
    uint32_t more = sh->peer_cap ? 2 * sh->peer_cap : 8;
    struct pli_peer_share *grown;

    if (sh->npeer < sh->peer_cap)
        return 0;
    if (sh->npeer >= PLI_SHARES_MAX)
        return pli_fail(PLAIT_E_NOMEM, "%u regions of one peer are mapped, the most there can be", sh->npeer);
    grown = realloc(sh->peer, more * sizeof(*grown));
    if (!grown)
        return pli_fail(PLAIT_E_NOMEM, "no memory to remember %u regions", more);
    sh->peer = grown;
    sh->peer_cap = more;
    return 0;
}

int pli_shares_count(struct pli_link *link, uint64_t len)
{
    struct pli_shares *sh = &link->shares;
    uint64_t max;

    if (!sh->mapped)
        sh->mapped = pli_mapped_new();
    if (!sh->mapped)
        return pli_fail(PLAIT_E_NOMEM, "no memory to remember what a peer has mapped here");
    if (pli_share_mapped_max(&max) < 0)
        pli_warn("%s", pli_err_text());
    if (!pli_mapped_add(sh->mapped, len, max))
        return pli_fail(PLAIT_E_NOMEM, "a region of %llu bytes would bring what %s has mapped here over %llu bytes: see PLAIT_MAPPED_MAX",
                        (unsigned long long)len, link->who, (unsigned long long)max);
    return 0;
}

/* Maps it. PLAIT_E_BADPEER, or a code that the peer can live with. Takes fd over. */
static int map_peer(struct pli_link *link, uint32_t key, int fd, uint64_t len)
{
    struct pli_shares *sh = &link->shares;
    struct pli_peermem *pm;
    int rc = peer_room(sh);

    if (rc == 0)
        rc = pli_shares_count(link, len);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    rc = pli_peermem_attach(&pm, fd, len, false);
    if (rc < 0) {
        pli_mapped_sub(sh->mapped, len);
        return rc;
    }
    pli_peermem_account(pm, sh->mapped);
    sh->peer[sh->npeer++] = (struct pli_peer_share){ key, pm };
    pli_fill_add(&link->fill, pm);
    return 0;
}

int pli_share_no_descriptor(void)
{
    errno = EMFILE;
    return pli_fail_errno("receiving the descriptor of the peer's region");
}

static int on_share(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    bool bad_count = msg->nfds != 1 && !msg->fds_lost;
    char text[300];
    int rc;

    if (bad_count || msg->mem.key <= link->shares.peer_last_key) {
        pli_fds_close(fds, msg->nfds);
        if (bad_count)
            return pli_link_breach(link, "SHARE with %u descriptors, not 1", msg->nfds);
        return pli_link_breach(link, "SHARE with the key %u, which is not above the last one, %u", msg->mem.key, link->shares.peer_last_key);
    }
    link->shares.peer_last_key = msg->mem.key;
    rc = msg->fds_lost ? pli_share_no_descriptor() : map_peer(link, msg->mem.key, fds[0], msg->mem.len);
    if (rc == PLAIT_E_BADPEER) {
        snprintf(text, sizeof text, "%s: SHARE: %s", link->who, pli_err_text());
        link->stop = PLAIT_E_BADPEER;
        pli_link_fail(link, rc, text);
        return rc;
    }
    link->ctx->st.regions_refused += rc < 0;
    snprintf(text, sizeof text, "%s", rc < 0 ? pli_err_text() : "");
    return send_frame(link, PLI_MEM_SHARED, msg->mem.key, rc, text, 0, NULL);
}

static int on_shared(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_share *s = find_key(&link->shares, msg->mem.key);

    if (!s || s->state != PLI_SHARE_ASKED)
        return pli_link_breach(link, "SHARED for the key %u, which was not asked about", msg->mem.key);
    s->state = msg->mem.code < 0 ? PLI_SHARE_REFUSED : PLI_SHARE_UP;
    if (msg->mem.code < 0 && !link->shares.refused_told) {
        pli_warn("messages from memory '%s' are copied, since %s does not map it: %.*s", s->mem->name, link->who, (int)msg->mem.text.len,
                 (const char *)msg->mem.text.p);
        link->shares.refused_told = true;
    }
    revoke_if_idle(s);
    return 0;
}

static int on_revoke(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_shares *sh = &link->shares;
    struct pli_peer_share *ps = find_peer(sh, msg->mem.key);

    if (!ps)
        return pli_link_breach(link, "REVOKE of the key %u, which is not shared", msg->mem.key);
    pli_fill_put(ps->pm);
    memmove(ps, ps + 1, (size_t)(sh->peer + --sh->npeer - ps) * sizeof(*ps));
    return 0;
}

int pli_share_frame(struct pli_link *link, const struct pli_wire_msg *msg, int *fds)
{
    if (msg->mem.op == PLI_MEM_SHARE)
        return on_share(link, msg, fds);
    pli_fds_close(fds, msg->nfds);
    if (msg->nfds)
        return pli_link_breach(link, "MEM of kind %u with descriptors", msg->mem.op);
    return msg->mem.op == PLI_MEM_SHARED ? on_shared(link, msg) : on_revoke(link, msg);
}

uint64_t pli_links_mapped(const struct plait_ctx *ctx)
{
    const struct pli_list *node;
    uint64_t bytes = 0;

    pli_list_foreach(node, &ctx->links) {
        const struct pli_mapped *m = pli_container_of(node, struct pli_link, node)->shares.mapped;

        if (m)
            bytes += atomic_load_explicit(&m->bytes, memory_order_relaxed);
    }
    return bytes;
}

/* ---- the end ---- */

void pli_shares_end(struct pli_link *link)
{
    struct pli_shares *sh = &link->shares;

    for (uint32_t i = 0; i < sh->count; i++)
        share_free(sh->by_addr[i]);
    for (uint32_t i = 0; i < sh->npeer; i++)
        pli_fill_put(sh->peer[i].pm);
    pli_mapped_put(sh->mapped);
    free(sh->by_addr);
    free(sh->slots);
    free(sh->peer);
    memset(sh, 0, sizeof *sh);
}
