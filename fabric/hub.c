/* SPDX-License-Identifier: BSD-3-Clause */
/* The hub: what the context polls and sleeps on, for all its links over the fabric. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "fabric/ofi.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/log.h"

enum {
    REAP = 32,       /* completions that are fetched at once */
    EVENTS_EVERY = 256, /* polls between two looks at the event queues, when nobody is connecting */
    EMPTY = 64,      /* polls without a completion, after which fewer are made while other links have work */
    EMPTY_EVERY = 8,
};
#define GREETING_NS (10 * PLI_NS_PER_MS) /* the longest sleep while a peer's first packet is missing */

/* ---- completions ---- */

/* This packet has gone; on a quiet device, so have those before it, which have no completions. */
static void sent(struct pli_ofi_buf *buf)
{
    struct pli_ofi_link *l = buf->link;
    struct pli_ofi_buf *first;

    do {
        first = l->dev->quiet ? pli_container_of(pli_list_first(&l->ops), struct pli_ofi_buf, node) : buf;
        l->tx_flight--;
        pli_ofi_buf_put(l->dev, first);
    } while (first != buf);
    if (l->starved)
        pli_ofi_link_ready(l);
    if (l->fill)
        pli_ofi_link_dirty(l);
}

static void complete(struct pli_ofi_dev *dev, const struct fi_cq_msg_entry *e)
{
    struct pli_ofi_buf *buf = e->op_context;

    if (!buf || buf->op == PLI_OFI_IDLE) /* its link was closed meanwhile, or it was found without this */
        return;
    if (buf->op == PLI_OFI_RX && dev->kind == PLI_OFI_RDM) {
        pli_ofi_rdm_arrived(dev, buf, (uint32_t)e->len);
    } else if (!buf->link) { /* its link is gone */
        pli_ofi_buf_put(dev, buf);
    } else if (buf->op == PLI_OFI_TX) {
        sent(buf);
    } else {
        pli_list_remove(&buf->node);
        buf->len = (uint32_t)e->len;
        pli_ofi_arrived(buf->link, buf);
    }
}

static void complete_error(struct pli_ofi_dev *dev)
{
    struct fi_cq_err_entry e = { .err_data_size = 0 };
    struct pli_ofi_buf *buf;
    struct pli_ofi_link *l;
    char text[160], reason[80] = "";

    if (fi_cq_readerr(dev->cq, &e, 0) < 0)
        return;
    buf = e.op_context;
    if (!buf)
        return;
    l = buf->link;
    if (!l) {
        if (buf->op == PLI_OFI_RX)
            pli_ofi_rdm_lost(dev, buf);
        else if (buf->op == PLI_OFI_TX)
            pli_ofi_buf_put(dev, buf);
        return;
    }
    if (e.err != FI_ECANCELED) {
        const char *s = fi_cq_strerror(dev->cq, e.prov_errno, e.err_data, reason, sizeof reason);

        snprintf(text, sizeof text, "%s failed: %s (%.60s)", buf->op == PLI_OFI_TX ? "sending" : "receiving",
                 pli_fi_lib()->strerror(e.err), s ? s : "");
        pli_ofi_link_broke(l, text);
    }
    if (buf->op == PLI_OFI_IDLE) /* it is being read, or is held */
        return;
    if (buf->op == PLI_OFI_TX)
        l->tx_flight--;
    pli_ofi_buf_put(l->dev, buf);
}

static int reap(struct pli_ofi_dev *dev)
{
    struct fi_cq_msg_entry e[REAP];
    ssize_t n = fi_cq_read(dev->cq, e, REAP);

    if (n > 0) {
        for (ssize_t i = 0; i < n; i++)
            complete(dev, &e[i]);
        return (int)n;
    }
    if (n == -FI_EAVAIL) {
        complete_error(dev);
        return 1;
    }
    return 0;
}

int pli_ofi_dev_reap(struct pli_ofi_dev *dev)
{
    int n = reap(dev);

    if (pli_ofi_rdm_lacks(dev)) /* for packets that were for nobody; if it fails, the next link that posts hears of it */
        pli_ofi_rdm_fill(dev);
    return n;
}

/* ---- deadlines ---- */

static void set_timer(struct pli_ofi_hub *hub, uint64_t at)
{
    struct itimerspec t = { .it_value = { 0, 0 } };

    if (at != PLI_CLOCK_NEVER) {
        t.it_value.tv_sec = (time_t)(at / PLI_NS_PER_S);
        t.it_value.tv_nsec = (long)(at % PLI_NS_PER_S) + 1;
    }
    timerfd_settime(hub->timerfd, TFD_TIMER_ABSTIME, &t, NULL);
}

void pli_ofi_link_deadline(struct pli_ofi_link *link, uint64_t at)
{
    struct pli_ofi_hub *hub = link->hub;
    struct pli_list *node;

    if (link->deadline == at)
        return;
    link->deadline = at;
    hub->deadline = PLI_CLOCK_NEVER;
    pli_list_foreach(node, &hub->links) {
        const struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        if (l->deadline < hub->deadline)
            hub->deadline = l->deadline;
    }
    set_timer(hub, hub->deadline);
    hub->hurried = false;
}

static void give_up(struct pli_ofi_link *l)
{
    char text[320];
    bool broken = l->state == PLI_OFI_BROKEN;

    if (broken)
        snprintf(text, sizeof text, "the connection over the fabric was lost: %s", l->why);
    else
        snprintf(text, sizeof text, "%s: the peer did not connect within 5 s", l->dev->name);
    pli_ofi_quiet(&l->tr);
    l->tr.up->failed(l->tr.owner, broken ? PLAIT_E_PEERDIED : PLAIT_E_UNREACHABLE, text);
}

static int look_at_deadlines(struct pli_ofi_hub *hub)
{
    uint64_t now = pli_clock_now();
    struct pli_list *node, *tmp;
    int n = 0;

    if (now < hub->deadline)
        return 0;
    pli_list_foreach_safe(node, tmp, &hub->links) {
        struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        if (l->deadline > now)
            continue;
        give_up(l);
        n++;
    }
    return n;
}

/* ---- the poll ---- */

/* What has come is delivered; who found no space is told that there is some. Each link that is on the list now gets one turn. */
static int deliver_all(struct pli_ofi_hub *hub, int budget)
{
    struct pli_list turn, *node;
    int n = 0;

    pli_list_init(&turn);
    pli_list_splice_back(&turn, &hub->ready);
    while (n < budget && (node = pli_list_pop_front(&turn)) != NULL) {
        struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, ready_node);

        n += pli_ofi_deliver(l, budget - n);
        if (l->starved && l->state != PLI_OFI_DEAD && pli_ofi_make_space(l)) {
            l->starved = false;
            n++;
            l->tr.up->writable(l->tr.owner);
        }
    }
    pli_list_splice_back(&turn, &hub->ready);
    pli_list_splice_back(&hub->ready, &turn);
    return n;
}

static void flush_all(struct pli_ofi_hub *hub, bool all)
{
    struct pli_list turn, *node;

    pli_list_init(&turn);
    pli_list_splice_back(&turn, &hub->dirty);
    while ((node = pli_list_pop_front(&turn)) != NULL)
        pli_ofi_link_flush(pli_container_of(node, struct pli_ofi_link, dirty_node), all);
}

static int look_at_events(struct pli_ofi_hub *hub)
{
    struct pli_list *node, *tmp;
    int n = 0;

    hub->looks = EVENTS_EVERY;
    pli_list_foreach_safe(node, tmp, &hub->devs)
        n += pli_ofi_dev_events(pli_container_of(node, struct pli_ofi_dev, node));
    return n + look_at_deadlines(hub);
}

/* Where packets make no completions. */
static int look_at_links(struct pli_ofi_hub *hub)
{
    struct pli_list *node;
    int n = 0;

    pli_list_foreach(node, &hub->links) {
        struct pli_ofi_link *l = pli_container_of(node, struct pli_ofi_link, node);

        if (l->dev->quiet)
            n += pli_ofi_look(l);
    }
    return n;
}

int pli_ofi_hub_poll(struct pli_ofi_hub *hub, int budget)
{
    struct pli_list *node;
    int n = 0, got = 0;

    if (budget <= 0 || hub->polling)
        return 0;
    /* a look costs a system call: with other links to poll, and nothing here for a while, not in every pass */
    if (hub->empty > EMPTY && !hub->tr.alone && hub->empty % EMPTY_EVERY && pli_list_is_empty(&hub->ready)) {
        hub->empty++;
        return 0;
    }
    hub->polling = true;
    if (hub->looks-- == 0 || hub->waiting)
        n += look_at_events(hub);
    pli_list_foreach(node, &hub->devs)
        got += pli_ofi_dev_reap(pli_container_of(node, struct pli_ofi_dev, node));
    got += look_at_links(hub);
    if (!pli_list_is_empty(&hub->ready))
        n += deliver_all(hub, budget);
    if (!pli_list_is_empty(&hub->dirty))
        flush_all(hub, false);
    hub->empty = got ? 0 : hub->empty + 1;
    hub->polling = false;
    return n;
}

/* ---- sleeping ---- */

void pli_ofi_hub_park(struct pli_ofi_hub *hub)
{
    flush_all(hub, true);
}

/* Nothing is there, and the device's descriptors may be slept on. */
static bool may_sleep(struct pli_ofi_dev *dev)
{
    struct fid *fids[2] = { &dev->cq->fid, dev->eq ? &dev->eq->fid : NULL };
    struct pollfd cq = { .fd = dev->cq_fd, .events = POLLIN };

    if (dev->quiet && pli_ofi_dev_watch(dev) < 0) {
        pli_warn("%s; the context does not sleep", pli_err_text());
        return false;
    }
    if (fi_trywait(dev->fabric, fids, dev->eq ? 2 : 1) != FI_SUCCESS)
        return false;
    /* It does not see all, with ofi_rxm and with net, and the context hears only of what becomes readable from now on. That net's descriptor is
     * readable says nothing: it stays so. */
    if (dev->kind == PLI_OFI_RDM && poll(&cq, 1, 0) > 0)
        return false;
    return dev->quiet || pli_ofi_dev_reap(dev) == 0;
}

bool pli_ofi_hub_ready(struct pli_ofi_hub *hub)
{
    struct pli_list *node;
    bool sleeps = pli_list_is_empty(&hub->ready) && pli_list_is_empty(&hub->dirty);

    pli_list_foreach(node, &hub->devs)
        sleeps = sleeps && may_sleep(pli_container_of(node, struct pli_ofi_dev, node));
    sleeps = sleeps && !look_at_links(hub); /* fi_trywait() may have read something */
    if (sleeps && hub->greeting) {
        set_timer(hub, pli_clock_now() + GREETING_NS);
        hub->hurried = true;
    }
    hub->looks = 0; /* what wakes us may be an event */
    hub->empty = 0;
    return !sleeps;
}

void pli_ofi_hub_unpark(struct pli_ofi_hub *hub)
{
    struct pli_list *node;

    pli_list_foreach(node, &hub->devs)
        pli_ofi_dev_unwatch(pli_container_of(node, struct pli_ofi_dev, node));
    if (hub->hurried)
        set_timer(hub, hub->deadline);
    hub->hurried = false;
    hub->empty = 0;
    hub->looks = 0;
}

/* ---- as the context sees it ---- */

static int poll_op(struct pli_tr *tr, int budget)
{
    return pli_ofi_hub_poll(pli_ofi_hub_of(tr), budget);
}

static void park_op(struct pli_tr *tr)
{
    pli_ofi_hub_park(pli_ofi_hub_of(tr));
}

static bool ready_op(struct pli_tr *tr)
{
    return pli_ofi_hub_ready(pli_ofi_hub_of(tr));
}

static void unpark_op(struct pli_tr *tr)
{
    pli_ofi_hub_unpark(pli_ofi_hub_of(tr));
}

static int wake_fd_op(const struct pli_tr *tr)
{
    return pli_container_of(tr, struct pli_ofi_hub, tr)->epfd;
}

static void destroy_op(struct pli_tr *tr, bool forked)
{
    struct pli_ofi_hub *hub = pli_ofi_hub_of(tr);
    struct pli_list *node, *tmp;

    pli_list_foreach_safe(node, tmp, &hub->devs)
        pli_ofi_dev_close(pli_container_of(node, struct pli_ofi_dev, node), forked);
    close(hub->epfd);
    close(hub->timerfd);
    pli_hash_table_fini(&hub->by_id);
    free(hub->bufs);
    free(hub);
}

const struct pli_tr_ops pli_ofi_hub_ops = {
    .name = "ofi",
    .destroy = destroy_op,
    .poll = poll_op,
    .park = park_op,
    .ready = ready_op,
    .unpark = unpark_op,
    .wake_fd = wake_fd_op,
};

int pli_ofi_hub_get(struct pli_ofi_hub **out, const struct pli_tr_env *env)
{
    struct epoll_event ev = { .events = EPOLLIN };
    struct pli_ofi_hub *hub;
    int rc;

    if (*env->hub) {
        *out = pli_ofi_hub_of(*env->hub);
        return 0;
    }
    hub = calloc(1, sizeof *hub);
    if (!hub)
        return pli_fail(PLAIT_E_NOMEM, "no memory for links over the fabric");
    hub->tr.ops = &pli_ofi_hub_ops;
    hub->tr.hot_index = -1;
    hub->deadline = PLI_CLOCK_NEVER;
    pli_list_init(&hub->devs);
    pli_list_init(&hub->links);
    pli_list_init(&hub->ready);
    pli_list_init(&hub->dirty);
    pli_hash_table_init(&hub->by_id);
    hub->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (hub->epfd < 0) {
        rc = pli_fail_errno("epoll_create for links over the fabric");
        goto err_free;
    }
    hub->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (hub->timerfd < 0 || epoll_ctl(hub->epfd, EPOLL_CTL_ADD, hub->timerfd, &ev) < 0) {
        rc = pli_fail_errno("timerfd for links over the fabric");
        goto err_epfd;
    }
    *env->hub = &hub->tr;
    *out = hub;
    return 0;

err_epfd:
    if (hub->timerfd >= 0)
        close(hub->timerfd);
    close(hub->epfd);
err_free:
    free(hub);
    return rc;
}
