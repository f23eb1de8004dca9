/* SPDX-License-Identifier: BSD-3-Clause */
#include <sched.h>
#include <sys/wait.h>

#include "runtime/helper.h"
#include "test/unit/runtime/fds.h"
#include "test/unit/runtime/meet.h"

static struct plait_ctx *ctx;
static struct pli_acceptor *acceptor;
static struct pli_uri uri;
static int fds_before;
static uint8_t buf[PLI_WIRE_HEAD + PLI_WIRE_MAX];

static struct pli_met last;
static unsigned called, good;
static bool starting;

static void on_met(struct pli_met *met, void *arg)
{
    cr_expect_eq(arg, &last);
    cr_expect_not(starting, "called from inside the start");
    last = *met;
    called++;
    if (met->code == 0) {
        good++;
        cr_expect(fcntl(met->fd, F_GETFD) & FD_CLOEXEC);
        cr_expect(fcntl(met->fd, F_GETFL) & O_NONBLOCK);
        close(met->fd);
    } else {
        cr_expect_eq(met->fd, -1);
        cr_expect_neq(met->text[0], '\0');
    }
}

static unsigned arrived;

static void on_arrival(struct pli_arrival *a, void *arg)
{
    (void)arg;
    arrived++;
    close(a->fd);
}

static void setup(void)
{
    catch_stderr();
    fds_before = count_fds();
    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", pli_err_text());
}

/* Helper threads end by themselves; their descriptors with them. */
static bool no_threads(void *arg)
{
    (void)arg;
    return pli_helper_threads() == 0;
}

static void teardown(void)
{
    pli_acceptor_close(acceptor, false);
    cr_expect(run_until(ctx, no_threads, NULL), "helper threads do not end");
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_expect_eq(count_fds(), fds_before, "descriptors were leaked");
}

static void listen_here(const char *text)
{
    struct pli_acceptor_opts opts = {.listener = 42, .on_arrival = on_arrival};

    cr_assert_eq(pli_uri_parse(&uri, text), 0);
    cr_assert_eq(pli_acceptor_open(&acceptor, ctx, &uri, &opts), 0, "%s", pli_err_text());
}

static struct pli_connector *start(const char *host, uint16_t port, uint32_t timeout_ms)
{
    struct pli_connector *c = NULL;

    starting = true;
    cr_assert_eq(pli_connector_start(&c, ctx, host, port, timeout_ms, on_met, &last), 0, "%s",
                 pli_err_text());
    starting = false;
    return c;
}

/* Meets, and returns the code. */
static int meet(const char *host, uint16_t port, uint32_t timeout_ms)
{
    unsigned before = called;

    start(host, port, timeout_ms);
    cr_assert(wait_for(ctx, &called, before + 1), "no answer");
    return last.code;
}

TestSuite(connector, .init = setup, .fini = teardown, .timeout = 120);

Test(connector, meets_a_listener_of_this_host_over_its_local_socket)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost", "LOCALHOST"};

    listen_here("plait://*");
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(meet(hosts[i], uri.port, 5000), 0, "%s: %s", hosts[i], last.text);
        cr_expect(last.is_unix);
        cr_expect_eq(last.listener, 42);
        cr_expect_eq(last.uid, geteuid());
        cr_expect_eq(last.gid, getegid());
        cr_expect_eq(last.pid, getpid());
    }
    run_for_ms(ctx, 20);
    cr_expect_eq(arrived, 0);
    cr_expect_str_empty(caught()); /* the TCP connections were given up without noise */
}

Test(connector, nobody_listens)
{
    uint16_t port;
    int fd = own_port(&port, 0);
    char where[64];

    cr_expect_eq(meet("127.0.0.1", port, 5000), PLAIT_E_NOLISTENER, "%s", last.text);
    snprintf(where, sizeof where, "nobody listens at 127.0.0.1:%u", port);
    cr_expect(strstr(last.text, where), "%s", last.text);
    cr_expect_eq(meet("localhost", port, 5000), PLAIT_E_NOLISTENER, "%s", last.text);
    close(fd);
}

Test(connector, a_name_that_does_not_resolve_fails_at_once)
{
    uint64_t before = pli_clock_now();

    cr_expect_eq(meet("no.such.host.invalid", 4711, 20000), PLAIT_E_RESOLVE, "%s", last.text);
    cr_expect(strstr(last.text, "'no.such.host.invalid' does not resolve"), "%s", last.text);
    cr_expect_lt(pli_clock_now() - before, 2 * PLI_NS_PER_S);
}

Test(connector, a_listeners_wildcard_is_no_host)
{
    cr_expect_eq(meet("*", 4711, 5000), PLAIT_E_INVAL);
    cr_expect_eq(meet("", 4711, 5000), PLAIT_E_INVAL);
}

Test(connector, an_unreachable_network_is_told)
{
    if (unshare(CLONE_NEWNET) < 0)
        cr_skip_test("network namespaces cannot be made here");
    cr_expect_eq(meet("10.1.2.3", 4711, 5000), PLAIT_E_UNREACHABLE, "%s", last.text);
    cr_expect(strstr(last.text, "10.1.2.3:4711"), "%s", last.text);
}

Test(connector, silence_is_ended_by_the_time_out)
{
    uint16_t port;
    int fd = own_port(&port, 8);
    uint64_t before = pli_clock_now();

    cr_expect_eq(meet("127.0.0.1", port, 150), PLAIT_E_TIMEDOUT);
    cr_expect(strstr(last.text, "sent no greeting within 150 ms"), "%s", last.text);
    cr_expect_geq(pli_clock_now() - before, 150 * PLI_NS_PER_MS);
    close(fd);
}

/* A listener that says these bytes and, if close_it, closes. */
static int answered(const void *bytes, size_t len, bool close_it)
{
    unsigned before = called;
    uint16_t port;
    int fd = own_port(&port, 8), s;

    start("127.0.0.1", port, 500);
    s = accept(fd, NULL, NULL);
    cr_assert_eq(write(s, bytes, len), (ssize_t)len);
    if (close_it)
        close(s);
    cr_assert(wait_for(ctx, &called, before + 1));
    if (!close_it)
        close(s);
    close(fd);
    return last.code;
}

Test(connector, a_bad_greeting_is_explained)
{
    int len;

    cr_expect_eq(answered("SSH-2.0-OpenSSH_9.2p1\r\n", 23, false), PLAIT_E_PROTO);
    cr_expect(strstr(last.text, "does not greet as a plait listener"), "%s", last.text);
    cr_expect_eq(answered("", 0, true), PLAIT_E_PROTO);
    cr_expect(strstr(last.text, "closed the connection after 0 bytes"), "%s", last.text);

    len = encode_sample(buf, PLI_WIRE_GREETING);
    cr_expect_eq(answered(buf, (size_t)len - 1, true), PLAIT_E_PROTO);
    cr_expect_eq(answered(buf, (size_t)len - 1, false), PLAIT_E_TIMEDOUT);
    buf[len] = 1;
    cr_expect_eq(answered(buf, (size_t)len + 1, false), PLAIT_E_PROTO, "%s", last.text);
    buf[PLI_WIRE_HEAD + 4] = 7;
    cr_expect_eq(answered(buf, (size_t)len, false), PLAIT_E_VERSION);
    cr_expect(strstr(last.text, "version 7") && strstr(last.text, "version 3"), "%s", last.text);

    len = encode_sample(buf, PLI_WIRE_SESSION_OPEN);
    cr_expect_eq(answered(buf, (size_t)len, false), PLAIT_E_PROTO);
    cr_expect(strstr(last.text, "SESSION_OPEN"), "%s", last.text);
    len = encode_sample(buf, PLI_WIRE_REFUSE);
    cr_expect_eq(answered(buf, (size_t)len, true), PLAIT_E_PERM);
    cr_expect(strstr(last.text, "refuses: not you"), "%s", last.text);
}

Test(connector, another_host_is_met_over_tcp)
{
    int len = encode_sample(buf, PLI_WIRE_GREETING); /* its host is not this one */

    cr_expect_eq(answered(buf, (size_t)len, false), 0, "%s", last.text);
    cr_expect_not(last.is_unix);
    cr_expect_eq(last.listener, 5);
    cr_expect_eq(last.uid, (uid_t)-1);
}

Test(connector, a_local_socket_that_has_gone_is_no_listener)
{
    struct pli_wire_msg m;
    int len;

    sample_message(&m, PLI_WIRE_GREETING);
    memcpy(m.greeting.host, pli_host_id(), PLI_HOST_LEN);
    len = pli_wire_encode(buf, sizeof buf, &m);
    cr_expect_eq(answered(buf, (size_t)len, false), PLAIT_E_NOLISTENER, "%s", last.text);
    cr_expect(strstr(last.text, "has gone"), "%s", last.text);
}

Test(connector, no_descriptors)
{
    struct rlimit rl;

    listen_here("plait://127.0.0.1");
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    cr_assert_eq(limit_fds(0), 0);
    cr_expect_eq(meet("127.0.0.1", uri.port, 5000), PLAIT_E_NOFILE, "%s", last.text);
    cr_expect(strstr(last.text, "ulimit -n"), "%s", last.text);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
}

/* ---- many, slow, cancelled ---- */

Test(connector, many_attempts_at_once_need_few_threads)
{
    unsigned most = 0;

    listen_here("plait://127.0.0.1");
    for (int i = 0; i < 200; i++)
        start("127.0.0.1", uri.port, 20000);
    while (called < 200) {
        unsigned now = pli_helper_threads();

        most = now > most ? now : most;
        cr_assert(wait_for(ctx, &called, called + 1));
    }
    cr_expect_eq(good, 200, "%s", last.text);
    cr_expect_leq(most, PLI_HELPERS_MAX);
    cr_expect_gt(most, 0);
}

Test(connector, slow_attempts_do_not_keep_others)
{
    uint16_t port;
    int silent = own_port(&port, 64);

    listen_here("plait://127.0.0.1");
    for (int i = 0; i < PLI_HELPERS_MAX - 2; i++)
        start("127.0.0.1", port, 3000);
    run_for_ms(ctx, 50);
    start("127.0.0.1", uri.port, 20000);
    cr_assert(wait_for(ctx, &called, 1));
    cr_expect_eq(good, 1, "a silent one was answered first: %s", last.text);
    /* and destroying the context now leaves nothing */
    close(silent);
}

Test(connector, cancelled_attempts_are_silent)
{
    struct pli_connector *c[40];
    uint16_t port;
    int silent = own_port(&port, 64);

    listen_here("plait://127.0.0.1");
    for (int i = 0; i < 40; i++)
        c[i] = start("127.0.0.1", i % 2 ? port : uri.port, 3000);
    for (int i = 0; i < 20; i++)
        pli_connector_cancel(c[i]);
    run_for_ms(ctx, 30);
    cr_expect_leq(called, 10);
    cr_expect_eq(called, good);
    cr_assert(wait_for(ctx, &called, 20)); /* those that were not cancelled, by their time-out or not */
    cr_expect_eq(good, 10);
    close(silent);
}

Test(connector, an_attempt_that_is_done_but_not_told_can_be_cancelled)
{
    uint16_t port;
    int fd = own_port(&port, 0);

    for (int i = 0; i < 20; i++) {
        struct pli_connector *c = start("127.0.0.1", port, 3000);

        while (pli_mpsc_is_empty(&ctx->posts)) /* the result is there */
            sched_yield();
        pli_connector_cancel(c);
        run_for_ms(ctx, 1);
    }
    cr_expect_eq(called, 0);
    close(fd);
}

static struct pli_connector *own;

static void cancel_itself(struct pli_met *met, void *arg)
{
    pli_connector_cancel(own);
    on_met(met, arg);
}

Test(connector, cancelling_inside_the_callback_does_nothing)
{
    cr_assert_eq(pli_connector_start(&own, ctx, "no.such.host.invalid", 1, 1000, cancel_itself, &last), 0);
    cr_assert(wait_for(ctx, &called, 1));
    cr_expect_eq(last.code, PLAIT_E_RESOLVE);
}

Test(connector, a_context_may_be_destroyed_while_attempts_are_in_flight)
{
    uint16_t silent_port, refusing_port;
    int silent = own_port(&silent_port, 64), refusing = own_port(&refusing_port, 0);

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 8; i++) {
            start("127.0.0.1", silent_port, 60000);
            start("127.0.0.1", refusing_port, 60000);
        }
        for (int i = 0; i < round * 50; i++)
            sched_yield();
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
        cr_assert_eq(plait_ctx_create(&ctx, NULL), 0);
    }
    close(silent);
    close(refusing);
}

Test(connector, a_stuck_attempt_is_given_up_by_the_context)
{
    uint16_t port;
    int silent = own_port(&port, 64);

    for (int i = 0; i < PLI_HELPERS_MAX; i++)
        start("127.0.0.1", port, 1500);
    run_for_ms(ctx, 100);
    cr_expect_eq(pli_helper_threads(), PLI_HELPERS_MAX);
    cr_expect_eq(meet("127.0.0.1", port, 100), PLAIT_E_TIMEDOUT);
    cr_expect(strstr(last.text, "longer than 100 ms") && strstr(last.text, "no helper thread"), "%s",
              last.text);
    close(silent);
}

Test(connector, threads_end_when_there_is_nothing_to_do)
{
    cr_expect_eq(pli_helper_threads(), 0);
    cr_expect_eq(meet("no.such.host.invalid", 1, 1000), PLAIT_E_RESOLVE);
    cr_expect(run_until(ctx, no_threads, NULL));
    cr_expect_eq(meet("no.such.host.invalid", 1, 1000), PLAIT_E_RESOLVE);
}

/* ---- known listeners ---- */

static struct pli_known known_listener(void)
{
    struct pli_known k = {.listener = pli_acceptor_listener(acceptor), .host = "127.0.0.1", .port = uri.port};

    memcpy(k.host_id, pli_host_id(), PLI_HOST_LEN);
    snprintf(k.unix_name, sizeof k.unix_name, "%s", pli_acceptor_unix_name(acceptor));
    return k;
}

static int meet_known(const struct pli_known *k)
{
    struct pli_connector *c = NULL;
    unsigned before = called;

    starting = true;
    cr_assert_eq(pli_connector_start_known(&c, ctx, k, 2000, on_met, &last), 0, "%s", pli_err_text());
    starting = false;
    cr_assert(wait_for(ctx, &called, before + 1));
    return last.code;
}

Test(connector, a_known_listener_of_this_host_needs_neither_tcp_nor_thread)
{
    struct pli_known k;

    listen_here("plait://127.0.0.1");
    k = known_listener();
    k.port = 1;
    cr_expect_eq(meet_known(&k), 0, "%s", last.text);
    cr_expect_eq(pli_helper_threads(), 0);
    cr_expect(last.is_unix);
    cr_expect_eq(last.listener, 42);
    cr_expect_eq(last.pid, getpid());
}

Test(connector, a_known_listener_that_has_gone)
{
    struct pli_known k;

    listen_here("plait://127.0.0.1");
    k = known_listener();
    pli_acceptor_close(acceptor, false);
    acceptor = NULL;
    cr_expect_eq(meet_known(&k), PLAIT_E_NOLISTENER, "%s", last.text);
}

Test(connector, a_known_listener_of_another_host_is_met_over_tcp)
{
    struct pli_known k;

    listen_here("plait://127.0.0.1");
    k = known_listener();
    k.host_id[0] ^= 1;
    cr_expect_eq(meet_known(&k), 0, "%s", last.text);
    cr_expect(last.is_unix, "the greeting tells better");
    k.host = NULL;
    cr_expect_eq(meet_known(&k), PLAIT_E_INVAL);
}

/* The listener's queue is full and nobody accepts: a thread waits for it, and gives up in time. */
Test(connector, a_known_listener_that_does_not_accept)
{
    struct pli_known k = {.listener = 1, .unix_name = "plait-test-", .port = 1};
    struct sockaddr_un addr;
    socklen_t len;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), filler[4];
    struct pli_connector *c = NULL;

    memcpy(k.host_id, pli_host_id(), PLI_HOST_LEN);
    snprintf(k.unix_name, sizeof k.unix_name, "plait-test-%d-%p", (int)getpid(), (void *)&k);
    len = pli_sock_abstract(&addr, k.unix_name, strlen(k.unix_name));
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, len), 0);
    cr_assert_eq(listen(fd, 1), 0);
    for (int i = 0; i < 4; i++) {
        filler[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(filler[i], (struct sockaddr *)&addr, len);
    }
    cr_assert_eq(pli_connector_start_known(&c, ctx, &k, 100, on_met, &last), 0);
    cr_assert(wait_for(ctx, &called, 1));
    cr_expect_eq(last.code, PLAIT_E_TIMEDOUT, "%s", last.text);
    cr_expect(strstr(last.text, "within 100 ms"), "%s", last.text);
    cr_assert_eq(pli_connector_start_known(&c, ctx, &k, 5000, on_met, &last), 0);
    run_for_ms(ctx, 20);
    close(accept(fd, NULL, NULL));
    cr_assert(wait_for(ctx, &called, 2));
    cr_expect_eq(last.code, 0, "%s", last.text);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
    close(fd);
}

/* ---- fork ---- */

/* In a child: its own pool works. Returns the exit status. */
static int use_own_pool(void)
{
#ifdef __SANITIZE_THREAD__
    return 0; /* ThreadSanitizer does not allow threads in the child of a process that had some */
#else
    if (plait_ctx_create(&ctx, NULL) != 0)
        return 2;
    called = 0;
    if (meet("no.such.host.invalid", 1, 1000) != PLAIT_E_RESOLVE)
        return 3;
    return plait_ctx_destroy(ctx) == 0 ? 0 : 4;
#endif
}

Test(connector, a_forked_child_can_drop_the_context_and_the_parent_goes_on)
{
    uint16_t port;
    int silent = own_port(&port, 8), status = 0;
    struct pli_connector *c;
    pid_t pid;

    c = start("127.0.0.1", port, 60000);
    for (int i = 0; i < 8; i++)
        start("127.0.0.1", port, 400);
    run_for_ms(ctx, 30);
    pid = fork();
    if (pid == 0) {
        pli_connector_cancel(c);
        if (plait_ctx_destroy(ctx) != 0 || pli_helper_threads() != 0)
            _exit(1);
        _exit(use_own_pool());
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0);
    cr_assert(wait_for(ctx, &called, 8));
    cr_expect_eq(last.code, PLAIT_E_TIMEDOUT, "%s", last.text);
    pli_connector_cancel(c);
    close(silent);
}

/* ---- pli_helper_run ---- */

static unsigned ran, done, dropped;
static pthread_t ran_on, done_on;
static int gate[2];

static void run_fn(void *arg)
{
    char c;

    if (arg) /* one of many threads, which would race for ran_on */
        cr_expect_eq(read(gate[0], &c, 1), 1);
    else
        ran_on = pthread_self();
    __atomic_add_fetch(&ran, 1, __ATOMIC_SEQ_CST);
}

static void done_fn(void *arg)
{
    (void)arg;
    done_on = pthread_self();
    done++;
}

static void drop_fn(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&dropped, 1, __ATOMIC_SEQ_CST);
}

Test(connector, blocking_work_runs_on_a_helper_thread_and_is_reported_here)
{
    cr_assert_eq(pli_helper_run(ctx, run_fn, done_fn, NULL), 0);
    cr_assert(wait_for(ctx, &done, 1));
    cr_expect_eq(ran, 1);
    cr_expect_not(pthread_equal(ran_on, pthread_self()));
    cr_expect(pthread_equal(done_on, pthread_self()));
}

static bool all_dropped(void *arg)
{
    (void)arg;
    return __atomic_load_n(&dropped, __ATOMIC_SEQ_CST) == 20;
}

Test(connector, blocking_work_of_a_context_that_goes_is_dropped)
{
    cr_assert_eq(pipe(gate), 0);
    for (int i = 0; i < 20; i++) /* 16 run, 4 wait for a thread */
        cr_assert_eq(pli_helper_run_or_drop(ctx, run_fn, done_fn, drop_fn, gate), 0);
    run_for_ms(ctx, 50);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_assert_eq(write(gate[1], "xxxxxxxxxxxxxxxx", 16), 16);
    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0);
    cr_assert(run_until(ctx, all_dropped, NULL));
    cr_expect_eq(ran, 16);
    cr_expect_eq(done, 0);
    close(gate[0]);
    close(gate[1]);
}
