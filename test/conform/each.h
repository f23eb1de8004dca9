/* SPDX-License-Identifier: BSD-3-Clause */
/* A test that every transport must pass: two ends in one process, polled in turn. */
#ifndef PLI_TEST_CONFORM_EACH_H
#define PLI_TEST_CONFORM_EACH_H

#include "ends.h"

#include "test/unit/fabric/forgotten.h"
#include "test/unit/runtime/fds.h"

static struct end a, b;

int sock_send_control(int sock, const void *blob, size_t len, const int *fds, int nfds)
{
    (void)sock;
    (void)blob;
    (void)len;
    (void)fds;
    (void)nfds;
    return PLAIT_E_SYSTEM;
}

/* In the suite transport. Each test is run with every transport, with the sleeper's barrier and with fences. */
#define EACH(ops, name)                                                                    \
    static void name##_with(const struct pli_tr_ops *ops);                                 \
    Test(transport, name)                                                                  \
    {                                                                                      \
        struct kind kinds_[MAX_KINDS];                                                     \
        size_t n_ = find_kinds(kinds_);                                                    \
        for (size_t i_ = 0; i_ < 2 * n_; i_++) {                                           \
            int fds_ = count_fds();                                                        \
            setenv("PLAIT_PROVIDER", kinds_[i_ / 2].provider, 1);                          \
            ends_open(&a, &b, kinds_[i_ / 2].ops, i_ % 2 == 0);                            \
            name##_with(kinds_[i_ / 2].ops);                                               \
            cr_assert_null(a.trouble, "%s", a.trouble);                                    \
            cr_assert_null(b.trouble, "%s", b.trouble);                                    \
            ends_close(&a, &b);                                                            \
            cr_assert_eq(count_fds(), fds_, "descriptors leak");                           \
        }                                                                                  \
    }                                                                                      \
    static void name##_with(const struct pli_tr_ops *ops)

/* Polls both ends until the condition holds: what is sent takes its time on some transports. */
#define UNTIL(condition)                                                                   \
    do {                                                                                   \
        for (uint64_t until_ = pli_clock_now() + SOON_NS; !(condition);) {                 \
            cr_assert_lt(pli_clock_now(), until_, "never happens: " #condition);           \
            end_poll(&b);                                                                  \
            end_poll(&a);                                                                  \
        }                                                                                  \
    } while (0)

/* What is there now. */
static inline void drain(struct end *e)
{
    for (int idle = 0; idle < 3;)
        idle = end_poll(e) ? 0 : idle + 1;
}

/* So many records in all come, and no more. */
static inline void arrive(struct end *e, uint64_t n)
{
    for (uint64_t until = pli_clock_now() + SOON_NS; e->got < n;) {
        cr_assert_lt(pli_clock_now(), until, "%llu records have come, not %llu", (unsigned long long)e->got, (unsigned long long)n);
        if (!end_poll(e))
            end_poll(e->peer);
    }
    drain(e);
    cr_assert_eq(e->got, n);
}

static inline void fill(bool more)
{
    while (end_send(&a, more) == 0)
        ;
    cr_assert_eq(end_send(&a, more), PLAIT_E_AGAIN);
}

static inline int take_anything(struct end *e, uint32_t meta, uint64_t w1, const uint8_t *p)
{
    (void)meta;
    (void)w1;
    (void)p;
    e->got++;
    return 0;
}

#endif
