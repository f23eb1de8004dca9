/* SPDX-License-Identifier: BSD-3-Clause */
#include "test/unit/runtime/channel_util.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>

TestSuite(channel, .init = open_ctx, .fini = close_ctx, .timeout = 60);

Test(channel, frames_of_every_type_arrive_in_order_with_their_descriptors)
{
    struct end *a, *b;
    unsigned nfds = 0;
    int pipes[4];

    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(pipe(pipes + 2), 0);
    open_pair(&a, &b);
    for (unsigned type = 1; type < PLI_WIRE_TYPES; type++) {
        struct pli_wire_msg m;

        sample_message(&m, (enum pli_wire_type)type);
        cr_assert_eq(pli_channel_send(&a->ch, &m, pipes), 0, "%s", pli_err_text());
        nfds += m.nfds;
    }
    settle();
    cr_assert_eq(b->frames, PLI_WIRE_TYPES - 1);
    for (unsigned i = 0; i < b->frames; i++)
        cr_expect_eq(b->types[i], i + 1);
    cr_assert_eq(b->nfds, nfds);
    cr_expect(same_file(b->fds[0], pipes[0]) && same_file(b->fds[1], pipes[1]));
    cr_expect(same_file(b->fds[5], pipes[3]) && same_file(b->fds[6], pipes[0]));
    for (unsigned i = 0; i < b->nfds; i++)
        cr_expect(fcntl(b->fds[i], F_GETFD) & FD_CLOEXEC);
    cr_expect_null(b->ch.in, "the buffer of an idle channel is kept");
    cr_expect_eq(a->ends + b->ends, 0);
    for (int i = 0; i < 4; i++)
        close(pipes[i]);
    close_end(a);
    close_end(b);
}

Test(channel, frames_may_come_byte_by_byte)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_SESSION_OPEN);
    struct end *e = open_end(&peer);

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < len; i++) {
            cr_expect_eq(e->frames, (unsigned)round);
            write_all(peer, buf + i, 1);
            settle();
        }
    }
    cr_expect_eq(e->frames, 2);
    close(peer);
    close_end(e);
}

Test(channel, a_thousand_frames_in_one_stream_are_all_delivered)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX], many[40 * 1000];
    int peer, len = encode(buf, PLI_WIRE_BYE);
    struct end *e = open_end(&peer);

    cr_assert_leq((size_t)len * 1000, sizeof many);
    for (int i = 0; i < 1000; i++)
        memcpy(many + i * len, buf, (size_t)len);
    write_all(peer, many, (size_t)len * 1000);
    settle();
    cr_expect_eq(e->frames, 1000);
    close(peer);
    close_end(e);
}

Test(channel, end_of_file_is_the_death_of_the_peer_after_its_last_words)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_BYE);
    struct end *e = open_end(&peer);

    write_all(peer, buf, (size_t)len);
    close(peer);
    settle();
    cr_expect_eq(e->frames, 1);
    cr_expect_eq(e->ends, 1);
    cr_expect_eq(e->code, PLAIT_E_PEERDIED);
    close_end(e);
}

Test(channel, truncation_is_told)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int len = encode(buf, PLI_WIRE_BYE);

    for (int n = 1; n < len; n++) {
        int peer;
        struct end *e = open_end(&peer);

        write_all(peer, buf, (size_t)n);
        close(peer);
        settle();
        cr_expect_eq(e->frames, 0);
        cr_expect_eq(e->ends, 1);
        cr_expect_eq(e->code, PLAIT_E_PEERDIED);
        cr_expect(strstr(e->text, "in the middle of a control message"), "%s", e->text);
        close_end(e);
    }
}

Test(channel, garbage_and_other_versions_end_it)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len;
    struct end *e = open_end(&peer);

    write_all(peer, "GET / HTTP/1.0\r\n\r\n", 18);
    settle();
    cr_expect_eq(e->ends, 1);
    cr_expect_eq(e->code, PLAIT_E_PROTO);
    cr_expect(strstr(e->text, "unknown type"), "%s", e->text);
    write_all(peer, "more", 4);
    settle();
    cr_expect_eq(e->ends, 1);
    close(peer);
    close_end(e);

    e = open_end(&peer);
    len = encode(buf, PLI_WIRE_HELLO);
    buf[PLI_WIRE_HEAD + 4] = 99;
    write_all(peer, buf, (size_t)len);
    settle();
    cr_expect_eq(e->code, PLAIT_E_VERSION);
    cr_expect(strstr(e->text, "version 99"), "%s", e->text);
    close(peer);
    close_end(e);
}

Test(channel, descriptors_must_match_what_is_announced)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_TR_CONNECT), many[40];
    struct end *e = open_end(&peer);

    for (int i = 0; i < 40; i++)
        many[i] = STDERR_FILENO;
    write_fds(peer, buf, (size_t)len, many, 3);
    settle();
    cr_expect_eq(e->code, PLAIT_E_PROTO);
    cr_expect(strstr(e->text, "announces 4 descriptors, 3 came"), "%s", e->text);
    close(peer);
    close_end(e);

    e = open_end(&peer);
    len = encode(buf, PLI_WIRE_BYE);
    write_fds(peer, buf, (size_t)len, many, 1);
    settle();
    cr_expect_eq(e->frames, 1);
    cr_expect_eq(e->code, PLAIT_E_PROTO);
    cr_expect(strstr(e->text, "1 descriptors that belong to no"), "%s", e->text);
    close(peer);
    close_end(e);

    e = open_end(&peer);
    write_fds(peer, buf, 1, many, 17);
    settle();
    cr_expect_eq(e->code, PLAIT_E_PROTO);
    cr_expect(strstr(e->text, "more than 16"), "%s", e->text);
    close(peer);
    close_end(e);

    e = open_end(&peer);
    write_fds(peer, buf, 1, many, 10);
    write_fds(peer, buf + 1, 1, many, 10);
    settle();
    cr_expect_eq(e->code, PLAIT_E_PROTO);
    cr_expect(strstr(e->text, "more than 16"), "%s", e->text);
    close(peer);
    close_end(e);
}

Test(channel, lost_descriptors_are_told_with_the_limit)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_TR_CONNECT), many[4] = {2, 2, 2, 2};
    struct end *e = open_end(&peer);
    struct rlimit rl;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    write_fds(peer, buf, (size_t)len, many, 4);
    cr_assert_eq(limit_fds(2), 0);
    settle();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_expect_eq(e->frames, 0);
    cr_expect_eq(e->code, PLAIT_E_NOFILE, "%d %s", e->code, e->text);
    cr_expect(strstr(e->text, "ulimit -n"), "%s", e->text);
    close(peer);
    close_end(e);
}

Test(channel, a_peer_that_does_not_read_gets_one_mebibyte)
{
    int peer, pipes[2], rc;
    struct end *e = open_end(&peer);
    struct pli_wire_msg m;
    unsigned sent = 0;
    static uint8_t sink[65536];

    cr_assert_eq(pipe(pipes), 0);
    sample_message(&m, PLI_WIRE_TR_CONTROL);
    while ((rc = pli_channel_send(&e->ch, &m, pipes)) == 0) {
        sent++;
        cr_assert_leq(e->ch.out_bytes, PLI_CHANNEL_OUT_MAX);
        if (sent == 400) /* descriptors are few; the rest without */
            sample_message(&m, PLI_WIRE_BYE);
        if (sent == 200)
            settle();
    }
    cr_expect_eq(rc, PLAIT_E_PEERDIED);
    cr_expect(strstr(pli_err_text(), "does not read"), "%s", pli_err_text());
    cr_expect_gt(e->ch.out_bytes, PLI_CHANNEL_OUT_MAX - 100);
    settle();
    cr_expect_eq(e->ends, 0);
    /* still not closed by its user: no frame follows the lost one */
    cr_expect_eq(pli_channel_send(&e->ch, &m, pipes), PLAIT_E_PEERDIED);
    cr_assert_gt(read(peer, sink, sizeof sink), 0);
    close_end(e);
    close(peer);
    close(pipes[0]);
    close(pipes[1]);
}

Test(channel, what_was_queued_arrives_in_order_with_its_descriptors)
{
    int peer, pipes[2], small = 4096;
    struct end *a = open_end(&peer), *b = calloc(1, sizeof *b);
    struct pli_wire_msg m;
    unsigned sent = 0;

    cr_assert_eq(setsockopt(a->ch.src.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    cr_assert_eq(pipe(pipes), 0);
    sample_message(&m, PLI_WIRE_TR_CONTROL);
    while (sent < 60) {
        cr_assert_eq(pli_channel_send(&a->ch, &m, pipes), 0);
        sent++;
    }
    cr_assert_gt(a->ch.out_bytes, 0, "the socket took everything");
    close(pipes[1]); /* the channel has duplicates */
    cr_assert_eq(pli_channel_detach(&a->ch), PLAIT_E_BUSY);
    cr_assert_eq(pli_channel_open(&b->ch, ctx, peer, &ops), 0);
    settle();
    cr_expect_eq(b->frames, sent);
    cr_expect_eq(b->nfds, sent);
    cr_expect_eq(a->ch.out_bytes, 0);
    for (unsigned i = 0; i < b->nfds; i++)
        cr_expect(same_file(b->fds[i], pipes[0]));
    close(pipes[0]);
    close_end(a);
    close_end(b);
}

Test(channel, a_failed_send_still_leaves_the_last_words_to_be_read)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_REFUSE);
    struct end *e = open_end(&peer);
    struct pli_wire_msg m;

    write_all(peer, buf, (size_t)len);
    close(peer);
    sample_message(&m, PLI_WIRE_TR_UP);
    cr_expect_eq(pli_channel_send(&e->ch, &m, NULL), PLAIT_E_PEERDIED);
    cr_expect_eq(e->ends, 0, "on_end was called from inside send");
    settle();
    cr_expect_eq(e->frames, 1);
    cr_expect_eq(e->types[0], PLI_WIRE_REFUSE);
    cr_expect_eq(e->ends, 1);
    close_end(e);
}

Test(channel, a_refused_frame_is_the_last_one)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_BYE);
    struct end *e = open_end(&peer);

    e->stop_at = 2;
    for (int i = 0; i < 5; i++)
        write_all(peer, buf, (size_t)len);
    settle();
    write_all(peer, buf, (size_t)len);
    settle();
    close(peer);
    settle();
    cr_expect_eq(e->frames, 2);
    cr_expect_eq(e->ends, 0);
    close_end(e);
}

Test(channel, may_be_closed_and_freed_in_its_callback)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int len = encode(buf, PLI_WIRE_BYE);

    for (int action = CLOSE; action <= CLOSE_AND_FREE; action++) {
        int peer;
        struct end *e = open_end(&peer);

        e->stop_at = 1;
        e->action = action;
        write_all(peer, buf, (size_t)len);
        write_all(peer, buf, (size_t)len);
        settle();
        if (action == CLOSE) {
            cr_expect_eq(e->frames, 1);
            cr_expect_eq(e->ends, 0);
            close_end(e);
        }
        close(peer);
    }
}

Test(channel, closing_with_descriptors_that_nobody_took_leaks_none)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_TR_CONNECT), many[4] = {2, 2, 2, 2};
    struct end *e = open_end(&peer);

    write_fds(peer, buf, (size_t)len - 1, many, 4);
    settle();
    cr_expect_eq(e->frames, 0);
    close(peer);
    close_end(e); /* the rest is count_fds() in close_ctx() */
}

Test(channel, the_socket_can_be_handed_over)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_BYE);
    struct end *a = open_end(&peer), *b = calloc(1, sizeof *b);

    a->stop_at = 1;
    a->action = DETACH;
    write_all(peer, buf, (size_t)len);
    settle();
    cr_assert_geq(a->detached, 0);
    cr_assert_eq(pli_channel_open(&b->ch, ctx, a->detached, &ops), 0);
    write_all(peer, buf, (size_t)len);
    settle();
    cr_expect_eq(a->frames, 1);
    cr_expect_eq(b->frames, 1);
    close_end(a);
    close_end(b);
    close(peer);
}

Test(channel, the_socket_is_not_handed_over_when_more_has_come)
{
    uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
    int peer, len = encode(buf, PLI_WIRE_BYE);
    struct end *e = open_end(&peer);

    e->stop_at = 1;
    e->action = DETACH;
    memcpy(buf + len, buf, 4);
    write_all(peer, buf, (size_t)len + 4);
    settle();
    cr_expect_eq(e->frames, 1);
    cr_expect_eq(e->detached, PLAIT_E_PROTO);
    close(peer);
    close_end(e);
}

Test(channel, closing_sends_what_it_can)
{
    int peer, small = 4096;
    struct end *e = open_end(&peer);
    struct pli_wire_msg m;
    uint8_t sink[65536];
    ssize_t n, total = 0;
    int len = 0;

    cr_assert_eq(setsockopt(e->ch.src.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    sample_message(&m, PLI_WIRE_BYE);
    len = pli_wire_encode(sink, sizeof sink, &m);
    while (e->ch.out_bytes < 100)
        cr_assert_eq(pli_channel_send(&e->ch, &m, NULL), 0);
    n = recv(peer, sink, sizeof sink, MSG_DONTWAIT); /* room for the rest */
    cr_assert_gt(n, 0);
    total = n;
    close_end(e);
    while ((n = read(peer, sink, sizeof sink)) > 0)
        total += n;
    cr_expect_eq(total % len, 0, "%zd bytes are not whole frames of %d", total, len);
    close(peer);
}

Test(channel, descriptors_do_not_go_over_tcp)
{
    struct sockaddr_storage addr = {0};
    socklen_t alen = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), server;
    struct end *e = calloc(1, sizeof *e);
    struct pli_wire_msg m;
    int fds[4] = {2, 2, 2, 2};

    addr.ss_family = AF_INET;
    cr_assert_eq(bind(listener, (struct sockaddr *)&addr, 16), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &alen), 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&addr, alen), 0);
    server = accept(listener, NULL, NULL);
    cr_assert_eq(pli_channel_open(&e->ch, ctx, client, &ops), 0);
    sample_message(&m, PLI_WIRE_TR_CONNECT);
    cr_expect_eq(pli_channel_send(&e->ch, &m, fds), PLAIT_E_INVAL);
    cr_expect(strstr(pli_err_text(), "TCP"), "%s", pli_err_text());
    m.nfds = 0;
    cr_expect_eq(pli_channel_send(&e->ch, &m, NULL), 0);
    close(server);
    close(listener);
    settle();
    cr_expect_eq(e->code, PLAIT_E_PEERDIED);
    close_end(e);
}

static int tcp_option(int fd, int option)
{
    int value = 0;
    socklen_t len = sizeof value;

    cr_assert_eq(getsockopt(fd, IPPROTO_TCP, option, &value, &len), 0);
    return value;
}

/* The kernel's limits for a silent machine: repeating for user_timeout ms, asking after idle s, then every interval s. */
static void expect_limits(const struct plait_ctx_opts *opts, int user_timeout, int idle, int interval)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct plait_ctx *c;
    struct end e = { .ends = 0 };

    cr_assert_eq(plait_ctx_create(&c, opts), 0, "%s", pli_err_text());
    cr_assert_eq(pli_channel_open(&e.ch, c, fd, &ops), 0, "%s", pli_err_text());
    cr_expect_eq(tcp_option(fd, TCP_USER_TIMEOUT), user_timeout);
    cr_expect_eq(tcp_option(fd, TCP_KEEPIDLE), idle);
    cr_expect_eq(tcp_option(fd, TCP_KEEPINTVL), interval);
    cr_expect_eq(tcp_option(fd, TCP_NODELAY), 1);
    pli_channel_close(&e.ch);
    cr_assert_eq(plait_ctx_destroy(c), 0);
}

Test(channel, a_silent_machine_is_dead_after_peer_timeout)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;

    expect_limits(NULL, 10000, 2, 1);
    opts.peer_timeout_ms = 1000;
    expect_limits(&opts, 1000, 1, 1);
    opts.peer_timeout_ms = PLAIT_PEER_TIMEOUT_MAX;
    expect_limits(&opts, 3600000, 720, 360);
    opts.size = offsetof(struct plait_ctx_opts, peer_timeout_ms);
    expect_limits(&opts, 10000, 2, 1);
    setenv("PLAIT_PEER_TIMEOUT", "4500", 1);
    expect_limits(NULL, 4500, 1, 1);
    expect_limits(&opts, 4500, 1, 1);
}

Test(channel, open_refuses_what_is_no_socket)
{
    struct pli_channel ch;

    cr_expect_lt(pli_channel_open(&ch, ctx, 99999, &ops), 0);
    cr_expect_lt(pli_channel_open(&ch, ctx, open("/dev/null", O_RDONLY), &ops), 0);
    pli_channel_close(&ch);
}

/* The child's copies of the socket must not hide the parent's death, and the child must not speak for it. */
Test(channel, a_forked_child_neither_holds_nor_uses_the_socket)
{
    int peer, status = 0, hold[2];
    struct end *e = open_end(&peer);
    char c;
    pid_t pid;

    cr_assert_eq(pipe(hold), 0);
    pid = fork();
    if (pid == 0) {
        close(peer);
        close(hold[1]);
        if (read(hold[0], &c, 1) != 0) /* until the parent says so */
            _exit(1);
        pli_channel_close(&e->ch);
        _exit(0);
    }
    close(hold[0]);
    pli_channel_close(&e->ch);
    cr_expect_eq(read(peer, &c, 1), 0, "the child keeps the socket open");
    close(hold[1]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0);
    close(peer);
    close_end(e);
}
