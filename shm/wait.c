/* SPDX-License-Identifier: BSD-3-Clause */
/* The shm transport's sleep, and its table. */
#include "shm/wake.h"

#include <poll.h>
#include <unistd.h>

void pli_shm_kick(struct pli_shm *s, uint32_t epoch)
{
    struct pollfd p = { .fd = s->peer_wake_fd, .events = POLLOUT };
    uint64_t one = 1;

    s->kicked = epoch;
    ++*s->env.kicks;
    /* O_NONBLOCK is shared with the peer, who may have cleared it: never write to a full counter; it has been told often enough then */
    if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))
        return;
    if (write(s->peer_wake_fd, &one, sizeof one) < 0)
        return;
}

static void shm_park(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint32_t epoch = atomic_load_explicit(&s->own->parked, memory_order_relaxed);

    /* what waits for more must go: nobody will flush while we sleep */
    pli_shm_flush(tr);
    /* a producer that waits for space looks at the cursor only until it sleeps, too */
    pli_shm_publish_cursor(s);
    if (!(epoch & 1))
        atomic_store_explicit(&s->own->parked, epoch + 1, memory_order_relaxed);
}

static bool shm_ready(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint64_t word0;

    if (pli_ring_rx_peek(&s->rx, &word0))
        return true;
    /* the cursor published before the barrier may have met a producer that set want_space after our look */
    pli_shm_publish_cursor(s);
    if (!s->starved) /* a switch that is due waits for the next send */
        return false;
    return !pli_ring_tx_refresh(&s->tx) || (s->bulk.want && !pli_shm_bulk_refresh(s)) || pli_shm_space_back(s);
}

static void shm_unpark(struct pli_tr *tr)
{
    struct pli_shm *s = pli_shm_of(tr);
    uint32_t epoch = atomic_load_explicit(&s->own->parked, memory_order_relaxed);

    if (epoch & 1)
        atomic_store_explicit(&s->own->parked, epoch + 1, memory_order_relaxed);
}

static int shm_wake_fd(const struct pli_tr *tr)
{
    return ((const struct pli_shm *)tr)->wake_fd;
}

static void shm_stats(const struct pli_tr *tr, struct pli_tr_stats *st)
{
    const struct pli_shm *s = (const struct pli_shm *)tr;

    st->ring_slots = s->tx.nslots;
    st->ring_used = (uint32_t)(s->tr.room.pos - s->tx.seen_cursor);
    st->grows = s->grows;
    st->connected = s->peer != NULL;
    st->held = s->rx.hold_tail - s->rx.hold_head;
}

const struct pli_tr_ops pli_shm_ops = {
    .name = "shm",
    .same_host = true,
    .kicks_once = true,
    .probe = pli_shm_probe,
    .create = pli_shm_create,
    .describe = pli_shm_describe,
    .connect = pli_shm_connect,
    .control = pli_shm_control,
    .destroy = pli_shm_destroy,
    .send = pli_shm_send,
    .reserve = pli_shm_reserve,
    .commit = pli_shm_commit,
    .abandon = pli_shm_abandon,
    .flush = pli_shm_flush,
    .max_payload = pli_shm_max_payload,
    .behind = pli_shm_behind,
    .poll = pli_shm_poll,
    .hold = pli_shm_hold,
    .release = pli_shm_release,
    .park = shm_park,
    .ready = shm_ready,
    .unpark = shm_unpark,
    .wake_fd = shm_wake_fd,
    .stats = shm_stats,
};
