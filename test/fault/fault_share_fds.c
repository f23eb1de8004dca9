/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions that a peer shows to a process without room for descriptors: nothing but these is lost. */
#include "test/fault/share_util.h"

TestSuite(fault_share_fds, .timeout = 120);

/* It keeps the link: it answers that it cannot map the region, and does without a larger ring. */
Test(fault_share_fds, descriptors_that_do_not_fit)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct pli_wire_msg grow = { .type = PLI_WIRE_TR_CONTROL, .nfds = 1 };
    uint32_t note[2] = { 1, 1024 };
    struct innocent in;
    struct rlimit rl;
    int fd;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    innocent_start(w, &in);
    hostile_open(h);
    share_good(h, 1, mem);
    fd = memfd(1024 * 64, GOOD_SEALS, true);
    grow.tr.blob.p = note;
    grow.tr.blob.len = sizeof note;
    cr_assert_eq(limit_fds(0), 0);
    for (uint32_t key = 2; key < 12; key++)
        send_mem(h, PLI_MEM_SHARE, key, LEN, mem->fd);
    hostile_send(h, &grow, &fd);
    for (uint32_t key = 12; key < 14; key++)
        send_mem(h, PLI_MEM_SHARE, key, LEN, mem->fd);
    for (uint32_t key = 2; key < 14; key++)
        expect_shared(h, key, PLAIT_E_NOFILE, "ulimit -n");
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(mapped(w), LEN);
    close(fd);
    share_good(h, 14, mem);
    /* a key that was refused is none */
    send_mem(h, PLI_MEM_REVOKE, 2, 0, -1);
    expect_link_end(h, &in, "refused", PLAIT_E_PROTO, "REVOKE of the key 2");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

/* Being out of descriptors excuses nothing else. */
Test(fault_share_fds, descriptors_that_do_not_fit_and_do_not_belong_there)
{
    static const struct {
        const char *what, *word;
        enum pli_mem_op op;
        uint32_t key;
    } bad[] = {
        { "SHARED", "MEM of kind 2", PLI_MEM_SHARED, 1 },
        { "REVOKE", "MEM of kind 3", PLI_MEM_REVOKE, 1 },
        { "WITHDRAW", "MEM of kind 6", PLI_MEM_WITHDRAW, 1 },
        { "a key again", "not above the last one", PLI_MEM_SHARE, 1 },
        { "an export of nothing", "EXPORT with access", PLI_MEM_EXPORT, 1 },
    };
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct innocent in;
    struct rlimit rl;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct log *srv;

        hostile_open(h);
        share_good(h, 1, mem);
        srv = &w->srv[w->nsrv - 1];
        cr_assert_eq(limit_fds(0), 0);
        send_mem(h, bad[i].op, bad[i].key, LEN, mem->fd);
        WAIT(w, srv->closed, 1);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
        expect_link_end(h, &in, bad[i].what, PLAIT_E_PROTO, bad[i].word);
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}
