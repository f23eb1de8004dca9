/* SPDX-License-Identifier: BSD-3-Clause */
/* A test that every transport must pass: two ends in one process, polled in turn. */
#ifndef PLI_TEST_CONFORM_EACH_H
#define PLI_TEST_CONFORM_EACH_H

#include "ends.h"

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
        for (size_t i_ = 0; i_ < 2 * NTRANSPORTS; i_++) {                                  \
            int fds_ = count_fds();                                                        \
            ends_open(&a, &b, transports[i_ / 2], i_ % 2 == 0);                            \
            name##_with(transports[i_ / 2]);                                               \
            cr_assert_null(a.trouble, "%s", a.trouble);                                    \
            cr_assert_null(b.trouble, "%s", b.trouble);                                    \
            ends_close(&a, &b);                                                            \
            cr_assert_eq(count_fds(), fds_, "descriptors leak");                           \
        }                                                                                  \
    }                                                                                      \
    static void name##_with(const struct pli_tr_ops *ops)

static inline void drain(struct end *e)
{
    for (int idle = 0; idle < 3;)
        idle = end_poll(e) ? 0 : idle + 1;
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
