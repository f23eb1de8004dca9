/* SPDX-License-Identifier: BSD-3-Clause */
/* The owner's side of one-sided operations: export and withdraw. */
#include "runtime/rma.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/loop_priv.h"
#include "util/err.h"
#include "util/log.h"

/* ---- withdrawing ---- */

static void send_withdraw(struct pli_export *e)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM };
    int rc;

    if (e->withdraw_sent || !e->link || !pli_link_is_up(e->link))
        return;
    e->withdraw_sent = true;
    msg.mem.op = PLI_MEM_WITHDRAW;
    msg.mem.key = e->number;
    rc = pli_channel_send(&e->link->ch, &msg, NULL);
    if (rc < 0)
        pli_link_send_failed(e->link, rc);
}

/* With the lock held, any thread: the peer is told by the link's own thread. While the export has not ended, its link and so its context are
 * there. */
static void withdraw(struct pli_export *e)
{
    if (e->withdrawn)
        return;
    e->withdrawn = true;
    pli_rma_slot_clear(e);
    if (!e->posted) {
        e->posted = true;
        pli_ctx_post(e->ctx, &e->post);
    }
}

/* The post is over: whoever is last frees it. */
static bool is_last(struct pli_export *e)
{
    bool ended;

    pli_rma_lock();
    e->posted = false;
    ended = e->ended;
    pli_rma_unlock();
    return ended;
}

static void post_fn(struct pli_post *p)
{
    struct pli_export *e = pli_container_of(p, struct pli_export, post);

    if (is_last(e))
        free(e);
    else
        send_withdraw(e);
}

static void post_drop(struct pli_post *p)
{
    struct pli_export *e = pli_container_of(p, struct pli_export, post);

    if (is_last(e))
        free(e);
}

/* The peer cannot access it any more. */
static void end_export(struct pli_rma_link *r, struct pli_export *e, int code, bool forked)
{
    struct plait_mem *mem = e->mem;
    plait_done_fn on_gone;
    bool posted;
    void *arg;

    pli_list_remove(&e->by_link);
    pli_list_remove(&e->by_conn);
    r->nexports--;
    pli_rma_lock();
    e->link = NULL; /* here: pli_rma_locate() of another link may look at it */
    pli_rma_slot_free(e);
    pli_list_remove(&e->by_mem);
    e->ended = true;
    posted = e->posted;
    on_gone = e->on_gone;
    arg = e->arg;
    pli_rma_unlock();
    if (!posted)
        free(e);
    pli_mem_put(mem);
    if (on_gone && !forked)
        on_gone(code, arg);
}

void pli_rma_exports_withdraw(struct pli_rma_conn *r)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&r->exports)) != NULL) {
        struct pli_export *e = pli_container_of(node, struct pli_export, by_conn);

        pli_rma_lock();
        e->withdrawn = true;
        pli_rma_slot_clear(e);
        pli_rma_unlock();
        send_withdraw(e);
    }
}

void pli_rma_exports_end(struct pli_rma_link *r, int code, bool forked)
{
    struct pli_list *node;

    while ((node = pli_list_first(&r->exports)) != NULL)
        end_export(r, pli_container_of(node, struct pli_export, by_link), code, forked);
}

void pli_rma_mem_released(struct plait_mem *m)
{
    struct pli_list *node;

    if (m->forked)
        return;
    pli_rma_lock();
    pli_list_foreach(node, &m->exports)
        withdraw(pli_container_of(node, struct pli_export, by_mem));
    pli_rma_unlock();
}

int plait_mem_withdraw(const struct plait_key *key, plait_done_fn on_gone, void *arg)
{
    struct pli_export *e;
    struct pli_key k;
    int rc = 0;

    if (!key)
        return pli_fail(PLAIT_E_INVAL, "plait_mem_withdraw() without a key");
    memcpy(&k, key, sizeof k);
    pli_rma_lock();
    e = pli_rma_slot_get(k.slot);
    if (!e || e->secret != k.secret || e->number != k.number)
        rc = pli_rma_is_child() ? PLAIT_E_FORKED : PLAIT_E_NOTFOUND;
    else if (e->asked)
        rc = PLAIT_E_REVOKED;
    if (rc == 0) {
        e->asked = true;
        e->on_gone = on_gone;
        e->arg = arg;
        withdraw(e);
    }
    pli_rma_unlock();
    switch (rc) {
    case PLAIT_E_FORKED:
        return pli_fail(rc, "the key belongs to the parent process: a child of fork() cannot withdraw it");
    case PLAIT_E_NOTFOUND:
        return pli_fail(rc, "the key was not made by this process, or has ended with its connection");
    case PLAIT_E_REVOKED:
        return pli_fail(rc, "the key has been withdrawn already");
    default:
        return rc;
    }
}

/* ---- exporting ---- */

static int check(const struct plait_mem *m, struct plait_conn *c, unsigned access)
{
    int rc;

    if (c->state == PLI_CONN_CLOSED) /* first: its context may be gone */
        return pli_fail(PLAIT_E_CLOSED, "a region cannot be exported, the connection is closed: %s", plait_strerror(c->end_code));
    rc = pli_ctx_check(c->ctx);
    if (rc < 0)
        return rc;
    if (c->state != PLI_CONN_OPEN || c->link->code)
        return pli_fail(PLAIT_E_CLOSED, "a region cannot be exported, the connection is not open");
    if (m->forked)
        return pli_fail(PLAIT_E_FORKED, "memory '%s' belongs to the parent process", m->name);
    if (access == 0 || access & ~PLI_RMA_ACCESS)
        return pli_fail(PLAIT_E_INVAL, "access 0x%x: PLAIT_ACCESS_READ, PLAIT_ACCESS_WRITE or both", access);
    if (m->kind != PLAIT_MEM_ALLOCATED)
        return pli_fail(PLAIT_E_INVAL, "registered memory cannot be exported: only what plait_mem_alloc() made can be mapped by a peer");
    if (access & PLAIT_ACCESS_WRITE && !m->writable)
        return pli_fail(PLAIT_E_INVAL,
                        "memory '%s' cannot be exported with PLAIT_ACCESS_WRITE: allocate it with PLAIT_MEM_WRITABLE in plait_mem_opts.flags",
                        m->name);
    return 0;
}

static int send_export(struct pli_link *link, const struct pli_export *e, const struct pli_key *k, const uint8_t *sid)
{
    bool maps = pli_link_shares(link);
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = maps ? 2 : 0 };
    struct plait_mem *m = e->mem;
    int fds[2] = { m->fd, pli_rma_page_fd() }, rc;

    /* a writable region shown for reading only: by a descriptor that cannot write */
    if (maps && m->writable && !(k->access & PLAIT_ACCESS_WRITE))
        fds[0] = pli_mem_open_readonly(m);
    if (fds[0] < 0)
        return fds[0];
    msg.mem.op = PLI_MEM_EXPORT;
    msg.mem.key = e->number;
    msg.mem.flags = k->access | (uint32_t)e->slot << PLI_RMA_FLAGS_SLOT;
    memcpy(msg.mem.sid, sid, PLI_ID_LEN);
    msg.mem.addr = e->secret;
    msg.mem.len = m->len;
    msg.mem.text.p = m->name;
    msg.mem.text.len = (uint32_t)strlen(m->name);
    rc = pli_channel_send(&link->ch, &msg, fds);
    if (fds[0] != m->fd)
        close(fds[0]);
    if (rc < 0)
        pli_link_send_failed(link, rc);
    return rc;
}

static struct pli_export *new_export(struct pli_rma_link *r, struct plait_mem *m, struct plait_conn *c, unsigned access)
{
    struct pli_export *e = calloc(1, sizeof *e);

    if (!e) {
        pli_fail(PLAIT_E_NOMEM, "no memory to describe an export (%zu bytes)", sizeof *e);
        return NULL;
    }
    e->mem = m;
    e->link = c->link;
    e->ctx = c->ctx;
    e->number = r->last_number + 1;
    e->access = (uint16_t)access;
    e->session = pli_key_session(c->session->sid);
    e->post.fn = post_fn;
    e->post.drop = post_drop;
    pli_list_init(&e->by_link);
    pli_list_init(&e->by_conn);
    pli_list_init(&e->by_mem);
    return e;
}

int plait_mem_export(struct plait_mem *mem, struct plait_conn *c, unsigned access, struct plait_key *key)
{
    struct pli_rma_link *rl;
    struct pli_rma_conn *rc_;
    struct pli_export *e;
    struct pli_key k;
    int rc;

    if (!mem || !key)
        return pli_fail(PLAIT_E_INVAL, "plait_mem_export() without %s", mem ? "a place for the key" : "a region");
    memset(key, 0, sizeof *key);
    rc = check(mem, c, access);
    if (rc < 0)
        return rc;
    rl = pli_rma_link(c->link);
    rc_ = rl ? pli_rma_conn(c) : NULL;
    if (!rc_)
        return PLAIT_E_NOMEM;
    if (rl->nexports >= PLAIT_EXPORTS_MAX)
        return pli_fail(PLAIT_E_NOMEM, "%u regions are exported to %s, the most that can be (PLAIT_EXPORTS_MAX): withdraw some", rl->nexports,
                        c->link->who);
    if (rl->last_number == UINT32_MAX)
        return pli_fail(PLAIT_E_NOMEM, "the link to %s has used up its keys: open a new session", c->link->who);
    e = new_export(rl, mem, c, access);
    if (!e)
        return PLAIT_E_NOMEM;
    pli_rma_lock();
    rc = pli_rma_slot_alloc(e);
    if (rc == 0)
        pli_list_push_back(&mem->exports, &e->by_mem);
    pli_rma_unlock();
    if (rc < 0) {
        free(e);
        return rc;
    }
    rl->last_number++;
    rl->nexports++;
    pli_mem_hold(mem);
    pli_list_push_back(&rl->exports, &e->by_link);
    pli_list_push_back(&rc_->exports, &e->by_conn);
    k = (struct pli_key){ .number = e->number, .owner_ctx = c->ctx->id, .peer_ctx = c->link->peer.ctx_id, .slot = e->slot,
                          .access = (uint16_t)access, .secret = e->secret };
    pli_key_seal(&k, c->session->sid);
    rc = send_export(c->link, e, &k, c->session->sid);
    if (rc < 0) {
        end_export(rl, e, rc, false); /* nobody has heard of it */
        return rc;
    }
    memcpy(key, &k, sizeof *key);
    return 0;
}

/* ---- the peer's operations, where it cannot do them itself ---- */

int pli_rma_locate(struct plait_conn *c, const struct pli_rma_rec *rec, char **p)
{
    const struct pli_export *e;
    bool valid;

    pli_rma_lock();
    e = pli_rma_slot_get(rec->slot);
    /* of this link: it ends on this thread only, so it is there until we return */
    valid = e && e->link == c->link && e->secret == rec->secret && !e->withdrawn;
    pli_rma_unlock();
    if (!valid || e->session != pli_key_session(c->session->sid))
        return PLAIT_E_REVOKED;
    if (rec->offset > e->mem->len || rec->len > e->mem->len - rec->offset)
        return PLAIT_E_INVAL;
    if ((e->access & pli_rma_needs[rec->kind]) != pli_rma_needs[rec->kind])
        return PLAIT_E_PERM;
    *p = e->mem->addr + rec->offset;
    return 0;
}

/* ---- the peer's answers ---- */

static struct pli_export *find_export(const struct pli_link *link, uint32_t number)
{
    struct pli_list *node;

    if (!link->rma)
        return NULL;
    pli_list_foreach(node, &link->rma->exports) {
        struct pli_export *e = pli_container_of(node, struct pli_export, by_link);

        if (e->number == number)
            return e;
    }
    return NULL;
}

bool pli_rma_is_own(const struct pli_link *link, const struct pli_key *k)
{
    const struct pli_export *e = find_export(link, k->number);

    return e && e->secret == k->secret;
}

int pli_rma_exported(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_export *e = find_export(link, msg->mem.key);

    if (!e || e->answered)
        return pli_link_breach(link, "EXPORTED for key %u, which waits for no answer", msg->mem.key);
    e->answered = true;
    if (msg->mem.code < 0)
        pli_warn("memory '%s' is exported to %s, which cannot map it: %s: %.*s", e->mem->name, link->who,
                 plait_status_name(msg->mem.code), (int)msg->mem.text.len, (const char *)msg->mem.text.p);
    return 0;
}

int pli_rma_withdrawn(struct pli_link *link, const struct pli_wire_msg *msg)
{
    struct pli_export *e = find_export(link, msg->mem.key);

    if (!e || !e->answered || !e->withdraw_sent)
        return pli_link_breach(link, "WITHDRAWN for key %u, which is not being withdrawn", msg->mem.key);
    end_export(link->rma, e, 0, false);
    return 0;
}
