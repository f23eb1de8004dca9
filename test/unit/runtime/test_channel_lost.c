/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors that come while this process has no room for them. */
#include "test/unit/runtime/channel_util.h"

TestSuite(channel_lost, .init = open_ctx, .fini = close_ctx, .timeout = 60);

/* A frame that can do without comes without; each of the next ones has its own, however the bytes are cut. */
Test(channel_lost, a_frame_without_its_descriptors)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int len = encode(buf, PLI_WIRE_MEM), peer, pipes[2][2], n;
    struct rlimit rl;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(pipe(pipes[0]) + pipe(pipes[1]), 0);
    n = (int)buf[6]; /* announced */
    cr_assert_eq(n, 2);
    for (int cut = 0; cut <= len; cut += cut < 12 ? 1 : 7) {
        for (int more = 0; more < 2; more++) {
            struct end *e = open_end(&peer);
            int all = count_fds();

            if (cut)
                write_fds(peer, buf, (size_t)cut, pipes[0], n);
            if (cut) {
                cr_assert_eq(limit_fds(more), 0);
                settle();
            }
            /* the rest, and two more frames, of which the second is another pipe's */
            write_fds(peer, buf + cut, (size_t)(len - cut), pipes[0], cut ? 0 : n);
            if (!cut) {
                cr_assert_eq(limit_fds(more), 0);
                settle();
            }
            cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
            cr_assert_eq(count_fds(), all, "part of them was kept");
            write_fds(peer, buf, (size_t)len, pipes[1], n);
            write_fds(peer, buf, (size_t)len, pipes[0], n);
            settle();
            cr_assert_eq(e->ends, 0, "cut at %d: %s", cut, e->text);
            cr_assert_eq(e->frames, 3);
            cr_assert_eq(e->lost, 1);
            cr_assert_eq(e->nfds, 4);
            cr_assert(same_file(e->fds[0], pipes[1][0]) && same_file(e->fds[2], pipes[0][0]), "cut at %d", cut);
            close(peer);
            close_end(e);
        }
    }
    for (int i = 0; i < 4; i++)
        close(pipes[i / 2][i % 2]);
}

/* All at once: those that were lost are not made up for by the next frame's. */
Test(channel_lost, many_frames_without_their_descriptors)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX], bye[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int len = encode(buf, PLI_WIRE_MEM), bye_len = encode(bye, PLI_WIRE_BYE), peer, pipes[2];
    struct end *e = open_end(&peer);
    struct rlimit rl;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(pipe(pipes), 0);
    for (int i = 0; i < 10; i++) {
        write_fds(peer, bye, (size_t)bye_len, NULL, 0);
        write_fds(peer, buf, (size_t)len, pipes, 2);
    }
    cr_assert_eq(limit_fds(5), 0); /* for two and a half */
    settle();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(e->ends, 0, "%s", e->text);
    cr_assert_eq(e->frames, 20);
    cr_assert_eq(e->lost, 8);
    cr_assert_eq(e->nfds, 4);
    close(peer);
    close_end(e);
    close(pipes[0]);
    close(pipes[1]);
}

/* Lost or not: they must have been announced. */
Test(channel_lost, lost_descriptors_that_nobody_announced)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_BYE), many[2] = { 2, 2 };
    struct rlimit rl;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    for (int cut = 1; cut <= len; cut++) {
        struct end *e = open_end(&peer);

        write_fds(peer, buf, (size_t)cut, many, 2);
        cr_assert_eq(limit_fds(0), 0);
        settle();
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
        write_fds(peer, buf + cut, (size_t)(len - cut), NULL, 0);
        write_fds(peer, buf, (size_t)len, NULL, 0);
        settle();
        cr_assert_eq(e->code, PLAIT_E_PROTO, "cut at %d: %s", cut, e->text);
        cr_assert_not_null(strstr(e->text, "belong to no control message"), "%s", e->text);
        close(peer);
        close_end(e);
    }
}
