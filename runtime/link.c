/* SPDX-License-Identifier: BSD-3-Clause */
/* Links: the cache and the life of a link. */
#include "runtime/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/conn.h"
#include "runtime/loop_priv.h"
#include "runtime/rma.h"
#include "runtime/take.h"
#include "util/err.h"

#define DRAIN_MAX 1000000 /* records delivered after the peer's death: more than any ring holds */

/* ---- birth and end ---- */

static void link_free(struct pli_link *link)
{
    struct pli_list *node;

    pli_ctx_obj_del(&link->obj);
    pli_registry_lock();
    pli_list_remove(&link->node);
    pli_registry_unlock();
    pli_timer_stop(link->ctx, &link->timer);
    pli_timer_stop(link->ctx, &link->last_words);
    pli_defer_cancel(&link->down);
    pli_defer_cancel(&link->reap);
    pli_defer_cancel(&link->pump);
    pli_defer_cancel(&link->ready);
    pli_defer_cancel(&link->flush);
    pli_fill_end(&link->fill);
    if (link->connector)
        pli_connector_cancel(link->connector);
    if (link->ch_open)
        pli_channel_close(&link->ch);
    if (link->tr)
        link->tr->ops->destroy(link->tr, link->ctx->forked);
    pli_rma_link_down(link, link->code, link->ctx->forked);
    while ((node = pli_list_pop_front(&link->ctl)) != NULL)
        free(pli_container_of(node, struct pli_ctl_rec, node));
    pli_shares_end(link);
    pli_cma_close(&link->cma);
    free(link->chans);
    free(link);
}

/* Nobody uses a link that is down any more: at the end of the pass, since its poll may be running. */
static void reap_fn(struct pli_defer *d)
{
    struct pli_link *link = pli_container_of(d, struct pli_link, reap);

    if (link->state == PLI_LINK_DOWN && link->users == 0 && pli_list_is_empty(&link->held))
        link_free(link);
}

static void say_goodbye(struct pli_link *link)
{
    struct pli_wire_msg msg = { .type = link->tr ? PLI_WIRE_BYE : PLI_WIRE_REFUSE };

    /* the peer's own end needs no answer */
    if (!link->ch_open || link->code == PLAIT_E_PEERDIED || link->ctx->forked)
        return;
    msg.end.code = link->code;
    msg.end.text.p = link->text;
    msg.end.text.len = (uint32_t)strnlen(link->text, PLI_WIRE_TEXT_MAX);
    pli_channel_send(&link->ch, &msg, NULL);
}

/* What the peer published before it ended is delivered first. */
static void drain(struct pli_link *link)
{
    int n, left = DRAIN_MAX;

    if (link->code != PLAIT_E_PEERDIED && link->code != PLAIT_E_CLOSED && link->code != PLAIT_E_ABORTED)
        return;
    while (pli_link_is_up(link) && !link->stop && left > 0 && (n = link->tr->ops->poll(link->tr, 64)) > 0)
        left -= n;
    if (link->code != PLAIT_E_PEERDIED) /* who lives has its memory back */
        return;
    for (uint32_t i = 0; i < link->nchans && !link->stop; i++)
        if (link->chans[i] && link->chans[i]->taking)
            pli_take_finish(link->chans[i]);
}

static void fail_waits(struct pli_link *link)
{
    struct pli_list *node;

    while ((node = pli_list_pop_front(&link->waits)) != NULL) {
        struct pli_link_wait *w = pli_container_of(node, struct pli_link_wait, node);

        pli_fail(link->code, "%s", link->text);
        w->fn(w, link->code);
    }
}

static void fail_conns(struct pli_link *link)
{
    for (uint32_t i = 0; i < link->nchans; i++) {
        struct plait_conn *c = link->chans[i];

        if (c && c != &pli_conn_zombie)
            pli_conn_event(c, PLI_CEV_FAIL, link->code, link->text);
    }
}

void pli_link_take_down(struct pli_link *link)
{
    if (link->tr && pli_link_is_up(link))
        drain(link);
    if (link->tr)
        pli_ctx_tr_del(link->ctx, link->tr, &link->wake_src);
    if (link->tr && link->tr->ops->quiet)
        link->tr->ops->quiet(link->tr);
    say_goodbye(link);
    link->state = PLI_LINK_DOWN;
    pli_timer_stop(link->ctx, &link->timer);
    pli_timer_stop(link->ctx, &link->last_words);
    if (link->connector) {
        pli_connector_cancel(link->connector);
        link->connector = NULL;
    }
    if (link->ch_open) {
        pli_channel_close(&link->ch);
        link->ch_open = false;
    }
    link->users++; /* not freed while these run */
    fail_waits(link);
    fail_conns(link);
    pli_session_link_lost(link, link->code, link->text);
    pli_shares_end(link);
    pli_rma_link_down(link, link->code, link->ctx->forked);
    link->users--;
    pli_ctx_defer(link->ctx, &link->reap);
}

static void down_fn(struct pli_defer *d)
{
    pli_link_event(pli_container_of(d, struct pli_link, down), PLI_LEV_LOST);
}

void pli_link_fail(struct pli_link *link, int code, const char *text)
{
    if (link->state == PLI_LINK_DOWN || link->code)
        return;
    link->code = code ? code : PLAIT_E_CLOSED;
    snprintf(link->text, sizeof link->text, "%s", text);
    pli_ctx_defer(link->ctx, &link->down);
}

static void last_words_fn(struct pli_timer *t)
{
    struct pli_link *link = pli_container_of(t, struct pli_link, last_words);
    char text[256];

    snprintf(text, sizeof text, "%s does not read its control channel any more", link->who);
    pli_link_fail(link, PLAIT_E_PEERDIED, text);
}

int pli_link_send_failed(struct pli_link *link, int code)
{
    if (code != PLAIT_E_PEERDIED) {
        pli_link_fail(link, code, pli_err_text());
        return code;
    }
    if (link->state != PLI_LINK_DOWN && !link->last_words.armed)
        pli_timer_start(link->ctx, &link->last_words, pli_clock_now() + PLI_LINK_LAST_WORDS_NS);
    return 0;
}

static void link_obj_destroy(struct pli_ctx_obj *obj, bool forked)
{
    struct pli_link *link = pli_container_of(obj, struct pli_link, obj);

    link->connector = NULL; /* younger than the link, so the context has ended it already */
    if (link->state != PLI_LINK_DOWN) {
        link->code = PLAIT_E_ABORTED;
        snprintf(link->text, sizeof link->text, "the context was destroyed");
        if (forked && link->tr && pli_link_is_up(link))
            link->state = PLI_LINK_ATTACHING; /* neither drained nor polled */
        pli_link_take_down(link);
    }
    /* after the last callbacks, which may have held something more */
    if (!forked)
        pli_msg_unplace_all(link, true);
    link_free(link);
}

static void timer_fn(struct pli_timer *t)
{
    struct pli_link *link = pli_container_of(t, struct pli_link, timer);
    char text[256];

    if (pli_link_is_up(link)) {
        if (link->active && link->users == 0)
            pli_link_fail(link, PLAIT_E_CLOSED, "the link was idle");
        return;
    }
    snprintf(text, sizeof text, "%s did not finish the handshake within %llu ms (state %s)", link->who,
             (unsigned long long)((link->active && !link->tr ? PLI_LINK_ACK_NS : PLI_LINK_HANDSHAKE_NS) / 1000000),
             pli_link_state_name(link->state));
    pli_link_fail(link, PLAIT_E_TIMEDOUT, text);
}

static void pump_fn(struct pli_defer *d)
{
    pli_link_pump(pli_container_of(d, struct pli_link, pump));
}

void pli_link_tell_waits(struct pli_link *link)
{
    struct pli_list *node;

    while (pli_link_is_up(link) && (node = pli_list_pop_front(&link->waits)) != NULL) {
        struct pli_link_wait *w = pli_container_of(node, struct pli_link_wait, node);

        w->fn(w, 0);
    }
}

static void ready_fn(struct pli_defer *d)
{
    pli_link_tell_waits(pli_container_of(d, struct pli_link, ready));
}

static void flush_fn(struct pli_defer *d)
{
    struct pli_link *link = pli_container_of(d, struct pli_link, flush);

    link->flush_due = false;
    if (pli_link_is_up(link))
        link->tr->ops->flush(link->tr);
}

void pli_links_forked(struct plait_ctx *ctx)
{
    struct pli_list *node;

    pli_list_foreach(node, &ctx->links) {
        struct pli_link *link = pli_container_of(node, struct pli_link, node);

        link->stop = PLAIT_E_FORKED;
        if (link->tr)
            link->tr->room.limit = 0;
    }
}

void pli_links_count(const struct plait_ctx *ctx, uint64_t *sent, uint64_t *received)
{
    const struct pli_list *node;

    pli_list_foreach(node, &ctx->links) {
        const struct pli_link *link = pli_container_of(node, struct pli_link, node);

        for (uint32_t i = 0; i < link->nchans; i++) {
            const struct plait_conn *c = link->chans[i];

            if (!c || c == &pli_conn_zombie)
                continue;
            *sent += c->tx_seq + c->replies;
            *received += pli_conn_received(c);
        }
    }
}

static struct pli_link *link_new(struct plait_ctx *ctx)
{
    struct pli_link *link = calloc(1, sizeof *link);

    if (!link)
        return NULL;
    link->ctx = ctx;
    link->state = PLI_LINK_MEETING;
    link->recent = &pli_conn_zombie;
    pli_list_init(&link->waits);
    pli_list_init(&link->sessions);
    pli_list_init(&link->queued);
    pli_list_init(&link->blocked);
    pli_list_init(&link->ctl);
    pli_list_init(&link->held);
    pli_timer_init(&link->timer, timer_fn);
    pli_cma_init(&link->cma);
    pli_fill_init(&link->fill, ctx);
    pli_timer_init(&link->last_words, last_words_fn);
    pli_defer_init(&link->down, down_fn);
    pli_defer_init(&link->reap, reap_fn);
    pli_defer_init(&link->pump, pump_fn);
    pli_defer_init(&link->ready, ready_fn);
    pli_defer_init(&link->flush, flush_fn);
    pli_registry_lock(); /* against fork(), whose handler walks the list */
    pli_list_push_back(&ctx->links, &link->node);
    pli_registry_unlock();
    pli_ctx_obj_add(ctx, &link->obj, link_obj_destroy);
    return link;
}

void pli_link_ref(struct pli_link *link)
{
    if (link->users++ == 0 && pli_link_is_up(link))
        pli_timer_stop(link->ctx, &link->timer);
}

void pli_link_put(struct pli_link *link)
{
    if (--link->users)
        return;
    if (link->state == PLI_LINK_DOWN)
        pli_ctx_defer(link->ctx, &link->reap);
    else if (!link->active)
        return;
    else if (pli_link_is_up(link))
        pli_timer_start(link->ctx, &link->timer, pli_clock_now() + PLI_LINK_IDLE_NS);
    else
        pli_link_fail(link, PLAIT_E_CANCELED, "nobody waits for the link any more");
}

/* ---- client ---- */

/* The connector knows the address, and not whose it is. */
static void fail_to_meet(struct pli_link *link, const struct pli_met *m)
{
    char text[512];

    if (link->key.name[0])
        snprintf(text, sizeof text, "%s: %.340s", link->who, m->text);
    pli_link_fail(link, m->code, link->key.name[0] ? text : m->text);
}

static void met(struct pli_met *m, void *arg)
{
    struct pli_link *link = arg;
    int rc;

    link->connector = NULL;
    link->uid = m->uid;
    link->gid = m->gid;
    link->pid = m->pid;
    if (m->code < 0) {
        fail_to_meet(link, m);
        return;
    }
    link->is_unix = m->is_unix;
    link->listener = m->listener;
    rc = pli_link_open_channel(link, m->fd, PLI_LEV_MET);
    if (rc < 0)
        pli_link_fail(link, rc, pli_err_text());
}

/* Does the link lead where the key does? One that was asked for as "the listener's context" is known by its number once it is met. */
static bool leads_to(const struct pli_link *link, const struct pli_link_key *key)
{
    const struct pli_link_key *k = &link->key;

    return k->port == key->port && k->transports == key->transports && strcmp(k->host, key->host) == 0 &&
           strcmp(k->provider, key->provider) == 0 &&
           (k->target == key->target || (key->target && link->peer.ctx_id == key->target));
}

int pli_link_get(struct pli_link **out, struct plait_ctx *ctx, const struct pli_link_key *key, uint32_t timeout_ms)
{
    struct pli_list *node;
    struct pli_link *link;
    int rc;

    pli_list_foreach(node, &ctx->links) {
        link = pli_container_of(node, struct pli_link, node);
        if (link->active && link->state != PLI_LINK_DOWN && !link->code && leads_to(link, key)) {
            pli_link_ref(link);
            *out = link;
            return 0;
        }
    }
    link = link_new(ctx);
    if (!link)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a link to %s:%u", key->host, key->port);
    link->active = true;
    link->key = *key;
    if (key->name[0])
        snprintf(link->who, sizeof link->who, "%s", key->name);
    else
        snprintf(link->who, sizeof link->who, "%.80s:%u", key->host, key->port);
    rc = pli_connector_start(&link->connector, ctx, key->host, key->port, timeout_ms, met, link);
    if (rc < 0) {
        link->state = PLI_LINK_DOWN;
        link_free(link);
        return rc;
    }
    link->users = 1;
    *out = link;
    return 0;
}

void pli_link_wait(struct pli_link *link, struct pli_link_wait *w)
{
    pli_list_push_back(&link->waits, &w->node);
    if (pli_link_is_up(link))
        pli_ctx_defer(link->ctx, &link->ready);
}

void pli_link_unwait(struct pli_link_wait *w)
{
    pli_list_remove(&w->node);
}

/* ---- server ---- */

int pli_link_accept(struct plait_ctx *ctx, struct pli_arrival *a)
{
    struct pli_link *link = link_new(ctx);
    int rc;

    if (!link) {
        close(a->fd);
        return pli_fail(PLAIT_E_NOMEM, "no memory for a link");
    }
    link->is_unix = a->is_unix;
    link->peer = a->peer;
    link->listener = a->listener;
    link->uid = a->uid;
    link->gid = a->gid;
    link->pid = a->pid;
    snprintf(link->key.provider, sizeof link->key.provider, "%s", a->provider);
    rc = pli_link_open_channel(link, a->fd, PLI_LEV_ARRIVED);
    if (rc < 0) {
        link->state = PLI_LINK_DOWN;
        link_free(link);
    }
    return rc;
}
