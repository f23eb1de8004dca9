/* SPDX-License-Identifier: BSD-3-Clause */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/wait.h>

#include "test/unit/runtime/fds.h"
#include "test/unit/runtime/meet.h"

static struct plait_ctx *ctx;
static struct pli_acceptor *acceptor;
static struct pli_uri uri;
static int fds_before;

static struct pli_arrival arrivals[64];
static unsigned arrived;
static bool close_on_arrival;

static uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];
static struct pli_wire_msg msg;

static void on_arrival(struct pli_arrival *a, void *arg)
{
    cr_expect_eq(arg, &arrived);
    cr_expect(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
    cr_expect(fcntl(a->fd, F_GETFL) & O_NONBLOCK);
    arrivals[arrived++] = *a;
    if (close_on_arrival) {
        pli_acceptor_close(acceptor, false);
        acceptor = NULL;
    }
}

static struct pli_acceptor_opts opts = {.listener = 42, .on_arrival = on_arrival, .arg = &arrived};

static void setup(void)
{
    catch_stderr();
    fds_before = count_fds();
    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", pli_err_text());
}

static void teardown(void)
{
    pli_acceptor_close(acceptor, false);
    for (unsigned i = 0; i < arrived; i++)
        close(arrivals[i].fd);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_expect_eq(count_fds(), fds_before, "descriptors were leaked");
}

static int open_at(const char *text)
{
    cr_assert_eq(pli_uri_parse(&uri, text), 0, "%s", pli_err_text());
    return pli_acceptor_open(&acceptor, ctx, &uri, &opts);
}

static void must_open_at(const char *text)
{
    cr_assert_eq(open_at(text), 0, "%s", pli_err_text());
    cr_expect_neq(uri.port, 0);
    cr_expect_eq(uri.port, pli_acceptor_port(acceptor));
}

static void write_all(int fd, const void *p, size_t len)
{
    cr_assert_eq(write(fd, p, len), (ssize_t)len);
}

static void say_hello(int fd)
{
    write_all(fd, buf, (size_t)encode_sample(buf, PLI_WIRE_HELLO));
}

/* Reads the greeting of a TCP client. */
static int dial(const char *ip)
{
    int fd = dial_tcp(ip, uri.port);

    cr_assert_geq(fd, 0, "%s: %s", ip, strerror(-fd));
    cr_assert(wait_readable(ctx, fd));
    cr_assert_gt(read_frame(fd, buf, &msg), 0);
    cr_assert_eq(msg.type, PLI_WIRE_GREETING);
    return fd;
}

static bool at_end(int fd)
{
    char c;

    return wait_readable(ctx, fd) && read(fd, &c, 1) <= 0;
}

TestSuite(acceptor, .init = setup, .fini = teardown, .timeout = 60);

Test(acceptor, greets_over_tcp_and_takes_a_hello)
{
    int fd;

    must_open_at("plait://127.0.0.1");
    fd = dial("127.0.0.1");
    cr_expect_eq(msg.greeting.listener, 42);
    cr_expect_eq(msg.greeting.version, PLI_WIRE_VERSION);
    cr_expect_arr_eq(msg.greeting.host, pli_host_id(), PLI_HOST_LEN);
    cr_expect_eq(msg.greeting.unix_name.len, strlen(pli_acceptor_unix_name(acceptor)));
    cr_expect_arr_eq(msg.greeting.unix_name.p, pli_acceptor_unix_name(acceptor), msg.greeting.unix_name.len);
    say_hello(fd);
    cr_assert(wait_for(ctx, &arrived, 1));
    cr_expect_not(arrivals[0].is_unix);
    cr_expect_eq(arrivals[0].uid, (uid_t)-1);
    cr_expect_eq(arrivals[0].listener, 5);
    cr_expect_eq(arrivals[0].peer.ctx_id, 7);
    cr_expect_eq(arrivals[0].peer.target, 3);
    cr_expect_eq(pli_acceptor_pending(acceptor), 0);
    close(fd);
}

Test(acceptor, knows_who_says_hello_over_the_local_socket)
{
    int fd;

    must_open_at("plait://127.0.0.1");
    cr_expect_eq(strlen(pli_acceptor_unix_name(acceptor)), 6 + 32);
    cr_expect_eq(pli_acceptor_listener(acceptor), 42);
    fd = dial_unix(pli_acceptor_unix_name(acceptor));
    cr_assert_geq(fd, 0);
    say_hello(fd);
    cr_assert(wait_for(ctx, &arrived, 1));
    cr_expect(arrivals[0].is_unix);
    cr_expect_eq(arrivals[0].uid, geteuid());
    cr_expect_eq(arrivals[0].gid, getegid());
    cr_expect_eq(arrivals[0].pid, getpid());
    close(fd);
}

Test(acceptor, arrivals_over_tcp_have_keepalive)
{
    int fd, value = 0;
    socklen_t len = sizeof value;

    must_open_at("plait://127.0.0.1");
    fd = dial("127.0.0.1");
    say_hello(fd);
    cr_assert(wait_for(ctx, &arrived, 1));
    cr_expect_eq(getsockopt(arrivals[0].fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len), 0);
    cr_expect_neq(value, 0);
    cr_expect_eq(getsockopt(arrivals[0].fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    cr_expect_neq(value, 0);
    cr_expect_eq(getsockopt(arrivals[0].fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &len), 0);
    cr_expect_eq(value, 10000);
    close(fd);
}

static bool have_ipv6(void)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0;

    close(fd);
    return yes;
}

Test(acceptor, star_is_every_address_and_localhost_is_localhost)
{
    must_open_at("plait://*");
    close(dial("127.0.0.1"));
    if (have_ipv6())
        close(dial("::1"));
    pli_acceptor_close(acceptor, false);
    must_open_at("plait://localhost");
    close(dial("localhost"));
    pli_acceptor_close(acceptor, false);
    must_open_at("plait:///resource");
    close(dial("127.0.0.1"));
    if (have_ipv6()) {
        pli_acceptor_close(acceptor, false);
        must_open_at("plait://[::1]");
        close(dial("::1"));
    }
}

Test(acceptor, a_port_in_use_is_named)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost", "*"};
    uint16_t port;
    int fd = own_port(&port, 1);
    char text[64], named[32];

    snprintf(named, sizeof named, ":%u is in use", port);
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "plait://%s:%u", hosts[i], port);
        cr_expect_eq(open_at(text), PLAIT_E_ADDRINUSE, "%s: %s", text, pli_err_text());
        cr_expect(strstr(pli_err_text(), named), "%s", pli_err_text());
        cr_expect_null(acceptor);
    }
    close(fd);
    /* two of ours */
    must_open_at("plait://127.0.0.1");
    {
        struct pli_acceptor *second = NULL;

        cr_expect_eq(pli_acceptor_open(&second, ctx, &uri, &opts), PLAIT_E_ADDRINUSE);
        cr_expect_null(second);
    }
}

Test(acceptor, addresses_that_are_not_here_are_refused)
{
    cr_expect_eq(open_at("plait://192.0.2.1:4711"), PLAIT_E_UNREACHABLE);
    cr_expect(strstr(pli_err_text(), "192.0.2.1") && strstr(pli_err_text(), "not an address of this machine"),
              "%s", pli_err_text());
    cr_expect_eq(open_at("plait://no.such.host.invalid"), PLAIT_E_RESOLVE);
    cr_expect(strstr(pli_err_text(), "no.such.host.invalid"), "%s", pli_err_text());
}

Test(acceptor, no_descriptors_to_open_with)
{
    struct rlimit rl;

    for (int more = 0; more < 2; more++) {
        cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
        cr_assert_eq(limit_fds(more), 0);
        cr_expect_eq(open_at("plait://127.0.0.1"), PLAIT_E_NOFILE, "%d: %s", more, pli_err_text());
        cr_expect(strstr(pli_err_text(), "ulimit -n"), "%s", pli_err_text());
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    }
}

Test(acceptor, hello_may_come_byte_by_byte_and_what_follows_stays_in_the_socket)
{
    int fd, len;
    char rest[8] = {0};

    must_open_at("plait://127.0.0.1");
    fd = dial_unix(pli_acceptor_unix_name(acceptor));
    len = encode_sample(buf, PLI_WIRE_HELLO);
    memcpy(buf + len, "rest", 4);
    for (int i = 0; i < len - 1; i++) {
        write_all(fd, buf + i, 1);
        plait_ctx_poll(ctx);
    }
    cr_expect_eq(arrived, 0);
    write_all(fd, buf + len - 1, 5);
    cr_assert(wait_for(ctx, &arrived, 1));
    cr_expect_eq(read(arrivals[0].fd, rest, sizeof rest), 4);
    cr_expect_str_eq(rest, "rest");
    close(fd);
}

Test(acceptor, another_version_is_refused_with_a_sentence)
{
    must_open_at("plait://127.0.0.1");
    for (int local = 0; local < 2; local++) {
        int fd = local ? dial_unix(pli_acceptor_unix_name(acceptor)) : dial("127.0.0.1");
        int len = encode_sample(buf, PLI_WIRE_HELLO);

        buf[PLI_WIRE_HEAD + 4] = 9;
        memset(buf + len, 0, 100);
        buf[0] = (uint8_t)(len - (int)PLI_WIRE_HEAD + 100); /* longer, as a later version may be */
        write_all(fd, buf, (size_t)len + 100);
        cr_assert(wait_readable(ctx, fd));
        cr_assert_gt(read_frame(fd, buf, &msg), 0);
        cr_expect_eq(msg.type, PLI_WIRE_REFUSE);
        cr_expect_eq(msg.end.code, PLAIT_E_VERSION);
        cr_expect(memmem(msg.end.text.p, msg.end.text.len, "version 9", 9));
        cr_expect(memmem(msg.end.text.p, msg.end.text.len, "version 3", 9));
        cr_expect(at_end(fd));
        close(fd);
    }
    cr_expect_eq(arrived, 0);
    cr_expect_eq(count_caught("version 9"), 2, "%s", caught());
}

Test(acceptor, garbage_is_dropped_with_a_warning_that_names_the_client)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *why;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", 18, "unknown type"},
        {"\0\0\0\0\x02\0\0\0", 8, "field 'magic'"},
        {"\0\1\0\0\x02\0\0\0", 8, "too long for a HELLO"},
        {"\0\0\0\0\x06\0\0\0", 8, "first message is TR_UP, not HELLO"},
        {"\x54\0\0\0\x02\0\1\0", 8, "'nfds'"},
    };

    must_open_at("plait://127.0.0.1");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = dial("127.0.0.1");
        struct sockaddr_in addr;
        socklen_t len = sizeof addr;
        char who[64];

        cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
        snprintf(who, sizeof who, "dropped 127.0.0.1:%u", ntohs(addr.sin_port));
        write_all(fd, cases[i].bytes, cases[i].len);
        cr_expect(at_end(fd), "case %zu", i);
        cr_expect_eq(count_caught(who), 1, "case %zu: %s", i, caught());
        cr_expect(strstr(caught(), cases[i].why), "case %zu: %s", i, caught());
        close(fd);
    }
    cr_expect_eq(arrived, 0);
}

Test(acceptor, a_stranger_cannot_fill_the_log)
{
    must_open_at("plait://127.0.0.1");
    for (int i = 0; i < 30; i++) {
        int fd = dial("127.0.0.1");

        write_all(fd, "garbage!", 8);
        cr_expect(at_end(fd));
        close(fd);
    }
    cr_expect_eq(count_caught("dropped"), 10, "%s", caught());
}

Test(acceptor, truncation_and_silence_are_told_apart_from_a_client_that_goes_its_way)
{
    int fd, len;

    opts.hello_timeout_ms = 100;
    must_open_at("plait://127.0.0.1");
    fd = dial("127.0.0.1");
    close(fd); /* as a client of this host does, to come back over the local socket */
    run_for_ms(ctx, 20);
    cr_expect_eq(pli_acceptor_pending(acceptor), 0);
    cr_expect_str_empty(caught());

    fd = dial("127.0.0.1");
    len = encode_sample(buf, PLI_WIRE_HELLO);
    write_all(fd, buf, (size_t)len - 1);
    close(fd);
    run_for_ms(ctx, 20);
    cr_expect_eq(pli_acceptor_pending(acceptor), 0);
    cr_expect(strstr(caught(), "closed the connection after 91 bytes of its HELLO"), "%s", caught());

    fd = dial("127.0.0.1");
    write_all(fd, buf, 10);
    cr_expect(at_end(fd)); /* it was the time-out that ended it */
    cr_expect(strstr(caught(), "said nothing that makes a HELLO for 100 ms (10 bytes came)"), "%s", caught());
    close(fd);
}

Test(acceptor, the_oldest_of_too_many_is_dropped)
{
    int fds[6];
    struct pollfd p;

    opts.max_pending = 4;
    must_open_at("plait://127.0.0.1");
    for (int i = 0; i < 6; i++)
        fds[i] = dial("127.0.0.1");
    cr_expect_eq(pli_acceptor_pending(acceptor), 4);
    cr_expect(at_end(fds[0]));
    cr_expect(at_end(fds[1]));
    for (int i = 2; i < 6; i++) {
        p = (struct pollfd){fds[i], POLLIN, 0};
        cr_expect_eq(poll(&p, 1, 0), 0, "number %d was dropped", i);
    }
    cr_expect_eq(count_caught("has not said HELLO yet"), 2);
    say_hello(fds[2]);
    cr_expect(wait_for(ctx, &arrived, 1));
    for (int i = 0; i < 6; i++)
        close(fds[i]);
}

Test(acceptor, waits_for_descriptors_without_spinning)
{
    struct plait_ctx_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    struct rlimit rl;
    int fd;

    must_open_at("plait://127.0.0.1");
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    fd = dial_unix(pli_acceptor_unix_name(acceptor));
    say_hello(fd);
    cr_assert_eq(limit_fds(0), 0);
    cr_assert_eq(plait_ctx_get_stats(ctx, &before), 0);
    run_for_ms(ctx, 250);
    cr_assert_eq(plait_ctx_get_stats(ctx, &after), 0);
    cr_expect_eq(arrived, 0);
    cr_expect_lt(after.events - before.events, 20);
    cr_expect_eq(count_caught("cannot accept"), 1, "%s", caught());
    cr_expect(strstr(caught(), "ulimit -n"), "%s", caught());
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_expect(wait_for(ctx, &arrived, 1));
    close(fd);
}

Test(acceptor, may_be_closed_by_the_arrival)
{
    int fds[3];

    must_open_at("plait://127.0.0.1");
    close_on_arrival = true;
    for (int i = 0; i < 3; i++) {
        fds[i] = dial_unix(pli_acceptor_unix_name(acceptor));
        say_hello(fds[i]);
    }
    cr_assert(wait_for(ctx, &arrived, 1));
    run_for_ms(ctx, 20);
    cr_expect_eq(arrived, 1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

Test(acceptor, closing_drops_those_who_wait)
{
    int fd;

    must_open_at("plait://127.0.0.1");
    fd = dial("127.0.0.1");
    pli_acceptor_close(acceptor, false);
    acceptor = NULL;
    cr_expect(at_end(fd));
    cr_expect_eq(dial_tcp("127.0.0.1", uri.port), -ECONNREFUSED);
    close(fd);
}

/* ---- other users ---- */

/* In a child that is another user: says HELLO on the local socket. Exit status: 0 let in, 1 refused, else
 * trouble. */
static void be_stranger(uid_t uid)
{
    int fd;

    if (setuid(uid) < 0)
        _exit(10);
    fd = dial_unix(pli_acceptor_unix_name(acceptor));
    if (fd < 0)
        _exit(11);
    if (write(fd, buf, (size_t)encode_sample(buf, PLI_WIRE_HELLO)) < 0 && errno != EPIPE)
        _exit(12);
    if (read_frame(fd, buf, &msg) <= 0)
        _exit(0); /* let in: the test closes it without a word */
    _exit(msg.type == PLI_WIRE_REFUSE && msg.end.code == PLAIT_E_PERM &&
                  memmem(msg.end.text.p, msg.end.text.len, "may not connect", 15)
              ? 1
              : 13);
}

static bool has_ended(void *arg)
{
    int *status = arg;

    for (; arrived > 0; arrived--)
        close(arrivals[arrived - 1].fd);
    return waitpid(-1, status, WNOHANG) > 0;
}

static int stranger(uid_t uid)
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0)
        be_stranger(uid);
    cr_assert_gt(pid, 0);
    cr_assert(run_until(ctx, has_ended, &status));
    return WEXITSTATUS(status);
}

Test(acceptor, another_user_is_refused_unless_listed)
{
    static const uid_t listed[] = {12345, 65534};

    if (geteuid() != 0)
        cr_skip_test("only root can be another user");
    must_open_at("plait://127.0.0.1");
    cr_expect_eq(stranger(65534), 1);
    cr_expect(strstr(caught(), "user 65534 may not connect to this listener of user 0"), "%s", caught());
    cr_expect_eq(stranger(0), 0);
    pli_acceptor_close(acceptor, false);
    opts.uids = listed;
    opts.nuids = 2;
    must_open_at("plait://127.0.0.1");
    cr_expect_eq(stranger(65534), 0);
    cr_expect_eq(stranger(1000), 1);
    pli_acceptor_close(acceptor, false);
    opts.nuids = 0;
    opts.any_uid = true;
    must_open_at("plait://127.0.0.1");
    cr_expect_eq(stranger(1000), 0);
}

Test(acceptor, root_is_a_stranger_to_a_user)
{
    if (geteuid() != 0)
        cr_skip_test("only root can be root");
    must_open_at("plait://127.0.0.1");
    cr_assert_eq(seteuid(65534), 0);
    {
        pid_t pid = fork();
        int status = -1;

        if (pid == 0)
            be_stranger(seteuid(0) == 0 ? 0 : 1);
        cr_assert(run_until(ctx, has_ended, &status));
        cr_expect_eq(WEXITSTATUS(status), 1);
    }
    cr_assert_eq(seteuid(0), 0);
}
