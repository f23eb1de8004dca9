/* SPDX-License-Identifier: BSD-3-Clause */
/* The libfabric transport: its table, and the life of a link. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>
#include "fabric/ofi.h"
#include "util/clock.h"
#include "util/err.h"

static int probe(void)
{
    struct fi_info *info;
    int rc = pli_ofi_find_local(NULL, -1, NULL, &info);

    if (rc == 0)
        pli_fi_lib()->freeinfo(info);
    return rc;
}

static void load(void)
{
    pli_fi_lib();
}

struct pli_ofi_link *pli_ofi_link_find(const struct pli_ofi_hub *hub, uint32_t id)
{
    struct pli_hash_node *node = pli_hash_table_find(&hub->by_id, pli_hash_u64(id));

    return node ? pli_container_of(node, struct pli_ofi_link, by_id) : NULL;
}

/* ---- what devices promise to links: buffers that are posted, and the completions of all that is under way ---- */

static bool promise(struct pli_ofi_dev *dev, uint32_t rx, uint32_t tx)
{
    if (dev->cq_used + rx + tx > dev->cq_size || (dev->kind == PLI_OFI_RDM && dev->rx_windows + rx > dev->info->rx_attr->size))
        return false;
    dev->cq_used += rx + tx;
    dev->rx_windows += rx;
    return true;
}

static void take_back(struct pli_ofi_link *l)
{
    if (!l->dev)
        return;
    l->dev->cq_used -= l->window + PLI_OFI_TX_MAX;
    l->dev->rx_windows -= l->window;
}

bool pli_ofi_link_widen(struct pli_ofi_link *l, uint32_t window)
{
    if (!promise(l->dev, window - l->window, 0))
        return false;
    l->window = window;
    return true;
}

int pli_ofi_link_move(struct pli_ofi_link *l, struct pli_ofi_dev *dev)
{
    if (l->dev == dev)
        return 0;
    if (!promise(dev, l->window, PLI_OFI_TX_MAX))
        return pli_fail(PLAIT_E_NOMEM, "%s: its completion queue of %u entries%s is promised to the links that this context has; "
                        "use more contexts", dev->name, dev->cq_size, dev->kind == PLI_OFI_RDM ? ", or its queue of receives," : "");
    take_back(l);
    l->dev = dev;
    return 0;
}

static int pick_device(struct pli_ofi_link *l, const struct pli_tr_env *env)
{
    struct pli_ofi_dev *dev;
    struct fi_info *info;
    int rc = pli_ofi_find_local(env->local, env->local_node, env->provider, &info);

    if (rc == 0)
        rc = pli_ofi_dev_get(&dev, l->hub, info);
    if (rc == 0)
        rc = pli_ofi_link_move(l, dev);
    if (rc == 0 && !env->active && l->dev->kind == PLI_OFI_MSG)
        rc = pli_ofi_dev_listen(l->dev);
    return rc;
}

static int draw(void *to, size_t size)
{
    return getrandom(to, size, 0) == (ssize_t)size ? 0 : pli_fail_errno("getrandom for a link over the fabric");
}

/* Numbers that a stranger does not guess. That of the link is the hub's only one. */
static int draw_numbers(struct pli_ofi_link *l)
{
    int rc = draw(l->token, sizeof l->token);

    if (rc == 0)
        rc = draw(&l->tag, sizeof l->tag);
    do {
        if (rc == 0)
            rc = draw(&l->id, sizeof l->id);
    } while (rc == 0 && pli_ofi_link_find(l->hub, l->id));
    return rc;
}

static int create(struct pli_tr **tr, const struct pli_tr_env *env, const struct pli_tr_up *up, void *owner)
{
    struct pli_ofi_link *l = calloc(1, sizeof *l);
    int rc;

    if (!l)
        return pli_fail(PLAIT_E_NOMEM, "no memory for a link over the fabric");
    l->tr.ops = &pli_ofi_ops;
    l->tr.up = up;
    l->tr.owner = owner;
    l->tr.hot_index = -1;
    l->deadline = PLI_CLOCK_NEVER;
    l->tx_big_from = l->rx_big_from = UINT32_MAX;
    l->tx_max = PLI_OFI_TX_MAX;
    l->window = PLI_OFI_WINDOW_MIN;
    l->rx_told = PLI_OFI_WINDOW_MIN; /* the description says so */
    l->peer_addr = FI_ADDR_UNSPEC;
    pli_list_init(&l->node);
    pli_list_init(&l->ready_node);
    pli_list_init(&l->dirty_node);
    pli_list_init(&l->ops);
    pli_list_init(&l->posted);
    pli_list_init(&l->rxq);
    pli_list_init(&l->heldq);
    pli_list_init(&l->spare);
    rc = pli_ofi_hub_get(&l->hub, env);
    if (rc == 0)
        rc = draw_numbers(l);
    if (rc < 0)
        goto err_free;
    rc = pick_device(l, env);
    if (rc < 0)
        goto err_free;
    if (!pli_ofi_wanted(env->provider, &l->wanted_by))
        l->wanted_by = NULL;
    l->tr.hub = &l->hub->tr;
    pli_list_push_back(&l->hub->links, &l->node);
    pli_hash_table_insert(&l->hub->by_id, &l->by_id, pli_hash_u64(l->id));
    *tr = &l->tr;
    return 0;

err_free:
    take_back(l);
    free(l);
    return rc;
}

void pli_ofi_quiet(struct pli_tr *tr)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);

    pli_ofi_link_enter(l, PLI_OFI_DEAD);
    pli_ofi_link_deadline(l, PLI_CLOCK_NEVER);
    pli_list_remove(&l->ready_node);
    pli_list_remove(&l->dirty_node);
}

static void put_all(struct pli_ofi_dev *dev, struct pli_list *list)
{
    struct pli_list *node;

    while ((node = pli_list_first(list)) != NULL)
        pli_ofi_buf_put(dev, pli_container_of(node, struct pli_ofi_buf, node));
}

static void leave_msg(struct pli_ofi_link *l)
{
    int rounds = 0;

    if (!l->ep)
        return;
    fi_shutdown(l->ep, 0);
    fi_close(&l->ep->fid);
    /* the operations that this has ended; after it none of the link is known to the provider */
    while (pli_ofi_dev_reap(l->dev) > 0 && ++rounds < 10000)
        ;
}

static void destroy(struct pli_tr *tr, bool forked)
{
    struct pli_ofi_link *l = pli_ofi_link_of(tr);

    if (!forked) {
        pli_ofi_quiet(tr);
        if (l->dev->kind == PLI_OFI_RDM)
            pli_ofi_rdm_leave(l);
        else
            leave_msg(l);
    }
    put_all(l->dev, &l->ops);
    put_all(l->dev, &l->posted);
    put_all(l->dev, &l->rxq);
    put_all(l->dev, &l->heldq);
    put_all(l->dev, &l->spare);
    if (l->fill)
        pli_ofi_buf_put(l->dev, l->fill);
    take_back(l);
    pli_hash_table_remove(&l->hub->by_id, &l->by_id);
    pli_list_remove(&l->node);
    pli_list_remove(&l->ready_node);
    pli_list_remove(&l->dirty_node);
    free(l);
}

static int control(struct pli_tr *tr, const void *blob, size_t len, const int *fds, int nfds)
{
    (void)tr;
    (void)blob;
    for (int i = 0; i < nfds; i++)
        close(fds[i]);
    return pli_fail(PLAIT_E_PROTO, "ofi: a control message of %zu bytes, where there are none", len);
}

static int poll_op(struct pli_tr *tr, int budget)
{
    return pli_ofi_hub_poll(pli_ofi_link_of(tr)->hub, budget);
}

static void park(struct pli_tr *tr)
{
    pli_ofi_hub_park(pli_ofi_link_of(tr)->hub);
}

static bool ready(struct pli_tr *tr)
{
    return pli_ofi_hub_ready(pli_ofi_link_of(tr)->hub);
}

static void unpark(struct pli_tr *tr)
{
    pli_ofi_hub_unpark(pli_ofi_link_of(tr)->hub);
}

static int wake_fd(const struct pli_tr *tr)
{
    return pli_container_of(tr, struct pli_ofi_link, tr)->hub->epfd;
}

/* A record goes at once: the first packet does not keep it back. */
static bool is_connected(const struct pli_ofi_link *l)
{
    bool first = l->dev->kind == PLI_OFI_RDM && l->tx_next <= 1 && (l->greet || l->injected || l->tx_flight);

    return l->state == PLI_OFI_UP && !l->greeting && !first;
}

static void stats(const struct pli_tr *tr, struct pli_tr_stats *st)
{
    const struct pli_ofi_link *l = pli_container_of(tr, struct pli_ofi_link, tr);

    st->ring_slots = l->window;
    st->ring_used = l->tx_flight;
    st->grows = l->rx_big_from != UINT32_MAX;
    st->held = l->holds;
    st->connected = is_connected(l);
}

static void name_of(const struct pli_tr *tr, char *buf, size_t size)
{
    snprintf(buf, size, "%s", pli_container_of(tr, struct pli_ofi_link, tr)->dev->name);
}

const struct pli_tr_ops pli_ofi_ops = {
    .name = "ofi",
    .probe = probe,
    .load = load,
    .describe_devices = pli_ofi_inventory,
    .create = create,
    .describe = pli_ofi_describe,
    .connect = pli_ofi_connect,
    .control = control,
    .quiet = pli_ofi_quiet,
    .destroy = destroy,
    .send = pli_ofi_send,
    .reserve = pli_ofi_reserve,
    .commit = pli_ofi_commit,
    .abandon = pli_ofi_abandon,
    .flush = pli_ofi_flush,
    .max_payload = pli_ofi_max_payload,
    .poll = poll_op,
    .hold = pli_ofi_hold,
    .release = pli_ofi_release,
    .park = park,
    .ready = ready,
    .unpark = unpark,
    .wake_fd = wake_fd,
    .stats = stats,
    .name_of = name_of,
};
