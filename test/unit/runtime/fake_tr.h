/* SPDX-License-Identifier: BSD-3-Clause */
/* A transport for tests of the loop: records are a counter, the peer is the test itself (any thread). */
#ifndef FAKE_TR_H
#define FAKE_TR_H

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/loop.h"

struct fake {
    struct pli_tr tr;
    struct pli_src src;
    int wakefd;
    _Atomic unsigned sent;   /* by the peer */
    unsigned received;
    _Atomic unsigned parked;
    unsigned polls, parks, unparks;
    void (*rx)(struct fake *f); /* called for each record, or NULL */
    void (*on_park)(struct fake *f);
    void *user;
};

static struct fake *fake_of(const struct pli_tr *tr)
{
    return pli_container_of(tr, struct fake, tr);
}

static int fake_poll(struct pli_tr *tr, int budget)
{
    struct fake *f = fake_of(tr);
    int n = 0;

    f->polls++;
    while (n < budget && f->received != atomic_load_explicit(&f->sent, memory_order_acquire)) {
        f->received++;
        n++;
        if (f->rx)
            f->rx(f);
    }
    return n;
}

static void fake_park(struct pli_tr *tr)
{
    struct fake *f = fake_of(tr);

    f->parks++;
    atomic_store_explicit(&f->parked, 1, memory_order_relaxed);
    if (f->on_park)
        f->on_park(f);
}

static void fake_unpark(struct pli_tr *tr)
{
    struct fake *f = fake_of(tr);

    f->unparks++;
    atomic_store_explicit(&f->parked, 0, memory_order_relaxed);
}

static bool fake_ready(struct pli_tr *tr)
{
    struct fake *f = fake_of(tr);

    return f->received != atomic_load_explicit(&f->sent, memory_order_acquire);
}

static int fake_wake_fd(const struct pli_tr *tr)
{
    return fake_of(tr)->wakefd;
}

static const struct pli_tr_ops fake_ops = {
    .name = "fake",
    .poll = fake_poll,
    .park = fake_park,
    .unpark = fake_unpark,
    .ready = fake_ready,
    .wake_fd = fake_wake_fd,
};

/* The peer's side. Any thread. */
static inline void fake_kick(struct fake *f)
{
    uint64_t one = 1;

    cr_assert_eq(write(f->wakefd, &one, sizeof one), (ssize_t)sizeof one);
}

static inline void fake_send(struct fake *f)
{
    atomic_fetch_add_explicit(&f->sent, 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&f->parked, memory_order_relaxed))
        fake_kick(f);
}

static inline void fake_open(struct fake *f, struct plait_ctx *ctx)
{
    memset(f, 0, sizeof *f);
    f->tr.ops = &fake_ops;
    f->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cr_assert_geq(f->wakefd, 0);
    cr_assert_eq(pli_ctx_tr_add(ctx, &f->tr, &f->src), 0, "%s", plait_error_text());
}

static inline void fake_close(struct fake *f, struct plait_ctx *ctx)
{
    pli_ctx_tr_del(ctx, &f->tr, &f->src);
    close(f->wakefd);
}

#endif
