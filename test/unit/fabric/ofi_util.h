/* SPDX-License-Identifier: BSD-3-Clause */
/* Links over libfabric in one program, a hub for each side: the victim's links share one. */
#ifndef PLI_TEST_OFI_UTIL_H
#define PLI_TEST_OFI_UTIL_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "fabric/ofi.h"
#include "test/unit/runtime/fds.h"
#include "util/clock.h"
#include <plait/plait.h>

#define SOON_NS (20 * PLI_NS_PER_S) /* what has not happened by then never will */

struct side {
    struct pli_tr *hub;
    struct pli_tr *tr;
    struct pli_tr **shared_hub; /* of another side, or &hub */
    uint64_t counter;
    uint64_t got, got_bytes;
    unsigned failed;
    int code;
    char text[512];
};

static inline int side_rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    struct side *s = owner;
    uint64_t n = pli_rec_payload(meta, w1);
    volatile uint8_t last = 0;

    if (n)
        last = ((const uint8_t *)payload)[n - 1]; /* it must be readable */
    (void)last;
    s->got++;
    s->got_bytes += n;
    return 0;
}

static inline void side_writable(void *owner)
{
    (void)owner;
}

static inline int side_send_control(void *owner, const void *blob, size_t len, const int *fds, int nfds)
{
    (void)owner;
    (void)blob;
    (void)len;
    (void)fds;
    (void)nfds;
    return PLAIT_E_SYSTEM;
}

static inline void side_failed(void *owner, int code, const char *text)
{
    struct side *s = owner;

    s->failed++;
    s->code = code;
    snprintf(s->text, sizeof s->text, "%s", text);
}

static const struct pli_tr_up side_up = {
    .rx = side_rx, .writable = side_writable, .send_control = side_send_control, .failed = side_failed,
};

/* with: a side whose hub this one uses, or NULL: one of its own. */
static inline int side_try_create(struct side *s, struct side *with)
{
    struct pli_tr_env env = { .local_node = -1, .peer_node = -1 };

    setenv("PLAIT_PROVIDER", "tcp", 0); /* on a host with RDMA, too: what is played here are its sockets */
    memset(s, 0, sizeof *s);
    s->shared_hub = with ? with->shared_hub : &s->hub;
    env.shm_bytes = env.kicks = env.bind_failures = &s->counter;
    env.hub = s->shared_hub;
    return pli_ofi_ops.create(&s->tr, &env, &side_up, s);
}

static inline void side_create(struct side *s, struct side *with)
{
    cr_assert_eq(side_try_create(s, with), 0, "%s", plait_error_text());
}

static inline struct pli_ofi_link *side_link(struct side *s)
{
    return pli_ofi_link_of(s->tr);
}

static inline struct pli_ofi_desc side_describe(struct side *s)
{
    uint8_t blob[PLI_TR_BLOB_MAX];
    struct pli_ofi_desc d;
    int fds[PLI_TR_FDS_MAX], nfds;
    size_t len;

    pli_ofi_ops.describe(s->tr, blob, &len, fds, &nfds);
    cr_assert_eq(len, sizeof d);
    cr_assert_eq(nfds, 0);
    memcpy(&d, blob, sizeof d);
    return d;
}

static inline int side_connect(struct side *s, const struct pli_ofi_desc *d)
{
    return pli_ofi_ops.connect(s->tr, d, sizeof *d, NULL, 0);
}

static inline bool side_is_up(struct side *s)
{
    return side_link(s)->state == PLI_OFI_UP;
}

static inline void side_poll(struct side *s)
{
    pli_ofi_ops.poll(s->tr, 64);
}

/* Polls both until the condition holds. */
#define SIDES_UNTIL(a, b, condition)                                                       \
    do {                                                                                   \
        for (uint64_t until_ = pli_clock_now() + SOON_NS; !(condition);) {                 \
            cr_assert_lt(pli_clock_now(), until_, "never happens: " #condition);           \
            side_poll(a);                                                                  \
            side_poll(b);                                                                  \
        }                                                                                  \
    } while (0)

/* b listens, a connects. */
static inline void sides_meet(struct side *a, struct side *b)
{
    struct pli_ofi_desc d = side_describe(b);

    cr_assert_eq(side_connect(a, &d), 0, "%s", plait_error_text());
    d = side_describe(a);
    cr_assert_eq(side_connect(b, &d), 0, "%s", plait_error_text());
    SIDES_UNTIL(a, b, side_is_up(a) && side_is_up(b));
}

static inline void side_destroy(struct side *s)
{
    pli_ofi_ops.destroy(s->tr, false);
    s->tr = NULL;
}

/* After all the links of the hub. */
static inline void side_close_hub(struct side *s)
{
    if (s->hub)
        s->hub->ops->destroy(s->hub, false);
    s->hub = NULL;
}

static inline int side_send(struct side *s, uint32_t len)
{
    static const uint8_t data[65536];

    return pli_ofi_ops.send(s->tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(len, 0, 0), 0, data, NULL, false);
}

/* Records go both ways between the two. */
static inline void sides_talk(struct side *a, struct side *b)
{
    uint64_t at_a = a->got, at_b = b->got;

    for (unsigned i = 0; i < 100; i++) {
        SIDES_UNTIL(a, b, side_send(a, i) == 0);
        SIDES_UNTIL(a, b, side_send(b, 2 * i) == 0);
    }
    SIDES_UNTIL(a, b, a->got == at_a + 100 && b->got == at_b + 100);
    cr_assert_eq(a->failed + b->failed, 0, "%s%s", a->text, b->text);
}

#endif
