/* SPDX-License-Identifier: BSD-3-Clause */
/* Links: records in and out, channel numbers. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/conn.h"
#include "util/err.h"

struct plait_conn pli_conn_zombie = { .state = PLI_CONN_CLOSED, .chan = PLI_CHAN_LINK };

int pli_link_breach(struct pli_link *link, const char *fmt, ...)
{
    char text[350], whole[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s broke the protocol: %s", link->who, text);
    link->stop = PLAIT_E_PROTO; /* nothing more is read from it, not even when it is drained */
    pli_link_fail(link, PLAIT_E_PROTO, whole);
    return PLAIT_E_PROTO;
}

/* ---- channel numbers ---- */

static int grow_chans(struct pli_link *link)
{
    uint32_t n = link->nchans ? link->nchans * 2 : 4;
    struct plait_conn **chans;

    if (n > PLI_LINK_CHANS_MAX)
        n = PLI_LINK_CHANS_MAX;
    if (n == link->nchans)
        return pli_fail(PLAIT_E_NOMEM, "the link to %s carries %u connections, the most it can", link->who, n);
    chans = realloc(link->chans, n * sizeof *chans);
    if (!chans)
        return pli_fail(PLAIT_E_NOMEM, "no memory for another connection on the link to %s", link->who);
    memset(chans + link->nchans, 0, (n - link->nchans) * sizeof *chans);
    link->chans = chans;
    link->nchans = n;
    return 0;
}

int pli_link_chan_alloc(struct pli_link *link, struct plait_conn *conn, uint16_t *chan)
{
    for (;;) {
        for (uint32_t i = 0; i < link->nchans; i++) {
            uint32_t at = (link->chan_hint + i) % link->nchans;

            if (!link->chans[at]) {
                link->chans[at] = conn;
                link->chan_hint = at + 1;
                *chan = (uint16_t)at;
                return 0;
            }
        }
        link->chan_hint = link->nchans;
        if (grow_chans(link) < 0)
            return PLAIT_E_NOMEM;
    }
}

void pli_link_chan_free(struct pli_link *link, uint16_t chan, bool zombie)
{
    if (link->recent == link->chans[chan])
        link->recent = &pli_conn_zombie;
    link->chans[chan] = zombie ? &pli_conn_zombie : NULL;
}

/* ---- out ---- */

static int ctl_send_now(struct pli_link *link, const struct pli_ctl_rec *r)
{
    return link->tr->ops->send(link->tr, r->meta, r->w1, r->cookie, r->data, NULL, false);
}

void pli_link_send_ctl(struct pli_link *link, uint32_t meta, uint64_t w1, uint64_t cookie, const void *data)
{
    struct pli_ctl_rec *r;

    if (!pli_link_is_up(link))
        return; /* it is going down: whoever waits for this will be told */
    if (pli_list_is_empty(&link->ctl) && link->tr->ops->send(link->tr, meta, w1, cookie, data, NULL, false) == 0)
        return;
    pli_link_starved(link);
    r = malloc(sizeof *r + pli_w1_len(w1));
    if (!r) {
        pli_link_fail(link, PLAIT_E_NOMEM, "no memory to queue a control record");
        return;
    }
    r->meta = meta;
    r->w1 = w1;
    r->cookie = cookie;
    if (pli_w1_len(w1))
        memcpy(r->data, data, pli_w1_len(w1));
    pli_list_push_back(&link->ctl, &r->node);
}

void pli_link_send_frame(struct pli_link *link, const struct pli_wire_msg *msg)
{
    uint8_t buf[512];
    int n = pli_wire_encode(buf, sizeof buf, msg);

    if (n < 0) {
        pli_link_fail(link, n, pli_err_text());
        return;
    }
    pli_link_send_ctl(link, pli_rec_meta(PLI_REC_LINK, 0, 0), pli_rec_w1((uint32_t)n, PLI_CHAN_LINK, 0), 0, buf);
}

static bool pump_ctl(struct pli_link *link)
{
    struct pli_list *node;

    while ((node = pli_list_first(&link->ctl)) != NULL) {
        struct pli_ctl_rec *r = pli_container_of(node, struct pli_ctl_rec, node);

        if (ctl_send_now(link, r) < 0) {
            pli_link_starved(link);
            return false;
        }
        pli_list_remove(node);
        free(r);
    }
    return true;
}

/* Everybody on the list now gets one turn; who blocks again goes to its end. */
static void each_once(struct pli_link *link, struct pli_list *list, size_t member, void (*fn)(struct plait_conn *))
{
    struct pli_list turn;
    struct pli_list *node;

    pli_list_init(&turn);
    pli_list_splice_back(&turn, list);
    while (pli_link_is_up(link) && (node = pli_list_pop_front(&turn)) != NULL) {
        struct plait_conn *c = (struct plait_conn *)(void *)((char *)node - member);

        pli_session_ref(c->session);
        fn(c);
        pli_session_unref(c->session);
    }
    pli_list_splice_back(list, &turn);
}

void pli_link_pump(struct pli_link *link)
{
    if (!pli_link_is_up(link) || !pump_ctl(link))
        return;
    each_once(link, &link->queued, offsetof(struct plait_conn, queued), pli_conn_pump);
    each_once(link, &link->blocked, offsetof(struct plait_conn, blocked_on), pli_conn_unblock);
}

/* ---- in ---- */

static int rx_link_frame(struct pli_link *link, uint64_t w1, const void *payload)
{
    /* copied before it is parsed: the peer could change it between the check and the use */
    uint8_t buf[512];
    struct pli_wire_msg msg;
    uint32_t len = pli_w1_len(w1);
    int n;

    if (len > sizeof buf)
        return pli_link_breach(link, "a link record of %u bytes", len);
    memcpy(buf, payload, len);
    n = pli_wire_parse(buf, len, &msg);
    if (n != (int)len || msg.nfds)
        return pli_link_breach(link, "a link record that is not one whole frame");
    switch (msg.type) {
    case PLI_WIRE_CONN_OPEN:
        pli_service_conn_open(link, &msg);
        break;
    case PLI_WIRE_CONN_ACCEPT:
    case PLI_WIRE_CONN_REFUSE:
        pli_conn_answer(link, &msg);
        break;
    default:
        return pli_link_breach(link, "%s in a link record", pli_wire_type_name(msg.type));
    }
    return pli_link_is_up(link) ? 0 : PLAIT_E_CLOSED;
}

static int rx_zombie(struct pli_link *link, uint32_t meta, uint32_t chan)
{
    uint32_t type = pli_meta_type(meta);

    if (type == PLI_REC_DONE || type == PLI_REC_ABORT)
        link->chans[chan] = NULL;
    return 0;
}

static __attribute__((noinline)) int rx_odd(struct pli_link *link, uint32_t meta, uint64_t w1, const void *payload)
{
    uint32_t chan = pli_w1_chan(w1), type = pli_meta_type(meta);

    if (type > PLI_REC_LAST || pli_meta_flags(meta) & ~PLI_RF_ALL)
        return pli_link_breach(link, "a record of type %u with flags 0x%x", type, pli_meta_flags(meta));
    if (chan == PLI_CHAN_LINK && type == PLI_REC_LINK && pli_meta_hdr_len(meta) == 0 && pli_meta_flags(meta) == 0)
        return rx_link_frame(link, w1, payload);
    if (chan < link->nchans && link->chans[chan] == &pli_conn_zombie)
        return rx_zombie(link, meta, chan);
    return pli_link_breach(link, "a record of type %u for channel %u, which is no connection", type, chan);
}

/* An answer to a connection that has ended here. It may come behind DONE, so its number is free, or has a connection again that is being
 * opened. (Numbers go round: it would be open only if all the others were taken.) */
static bool is_late_answer(const struct pli_link *link, uint32_t type, const struct plait_conn *c)
{
    return (type == PLI_REC_RMA_ANSWER || type == PLI_REC_RMA_DATA) && !pli_link_shares(link) && (!c || c->state == PLI_CONN_OPENING);
}

/* Whatever the short path (fast.c) leaves. */
int pli_link_rx_slow(struct pli_link *link, uint32_t meta, uint64_t w1, const void *payload)
{
    uint32_t chan = pli_w1_chan(w1);
    struct plait_conn *c = chan < link->nchans ? link->chans[chan] : NULL;
    int rc;

    if (c == &pli_conn_zombie)
        rc = rx_odd(link, meta, w1, payload);
    else if (is_late_answer(link, pli_meta_type(meta), c))
        rc = 0;
    else
        rc = c ? pli_conn_rx(c, meta, w1, payload) : rx_odd(link, meta, w1, payload);
    return rc < 0 ? rc : link->stop;
}

static void link_writable(void *owner)
{
    pli_link_pump(owner);
}

static void link_crowded(void *owner)
{
    pli_msg_unplace_all(owner, false);
}

static int link_send_control(void *owner, const void *blob, size_t len, const int *fds, int nfds)
{
    struct pli_link *link = owner;
    struct pli_wire_msg msg = { .type = PLI_WIRE_TR_CONTROL, .nfds = (uint16_t)nfds };
    int rc;

    msg.tr.blob.p = blob;
    msg.tr.blob.len = (uint32_t)len;
    rc = pli_channel_send(&link->ch, &msg, fds);
    return rc < 0 ? pli_link_send_failed(link, rc) : 0;
}

static void link_failed(void *owner, int code, const char *text)
{
    struct pli_link *link = owner;
    char whole[512];

    snprintf(whole, sizeof whole, "%s: %s", link->who, text);
    pli_link_fail(link, code, whole);
}

static void link_wants_poll(void *owner)
{
    struct pli_link *link = owner;

    if (link->tr->counted) /* else it will be polled when it is */
        pli_link_starved(link);
}

const struct pli_tr_up pli_link_up_calls = {
    .rx = pli_link_rx,
    .rx_many = pli_link_rx_many,
    .writable = link_writable,
    .send_control = link_send_control,
    .failed = link_failed,
    .crowded = link_crowded,
    .wants_poll = link_wants_poll,
};
