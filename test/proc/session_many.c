/* SPDX-License-Identifier: BSD-3-Clause */
/* Many links: idle ones cost nothing, and processes connect all to all. */
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "test/proc/session_util.h"

TestSuite(session_many, .timeout = 300);

static struct plait_ctx *new_ctx(void)
{
    struct plait_ctx *ctx;

    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", plait_error_text());
    return ctx;
}

static struct plait_ctx_stats stats_of(struct plait_ctx *ctx)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0, "%s", plait_error_text());
    return st;
}

static long cpu_us(void)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    return (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000L + ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
}

/* ---- idle ---- */

Test(session_many, an_idle_session_uses_no_cpu)
{
    struct load other = { .quiet = 1 };
    struct plait_ctx *ctx = new_ctx();
    struct peer p;
    struct plait_ctx_stats before, after;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    long cpu;

    lo.session = load_opts(&other);
    cr_assert_eq(plait_listen(&listener, ctx, LISTEN_URI, &lo), 0);
    peer_start(&p, "idle", plait_listener_uri(listener), NULL);
    while (!other.opened)
        cr_assert_geq(plait_ctx_run(ctx, 1000), 0);
    /* what comes after the opening may take its time when the machine is busy; it does not go on */
    for (unsigned i = 0; i < 20; i++) {
        before = stats_of(ctx);
        cpu = cpu_us();
        cr_assert_eq(plait_ctx_run(ctx, 500000), 0);
        cpu = cpu_us() - cpu;
        after = stats_of(ctx);
        if (after.wakeups - before.wakeups <= 5)
            break;
    }
    cr_assert_leq(after.wakeups - before.wakeups, 5, "%lu wake-ups in half a second", (unsigned long)(after.wakeups - before.wakeups));
    cr_assert_leq(after.parks - before.parks, 5);
    cr_assert_leq(cpu, 10000 * SLOWER, "%ld us of CPU in half a second", cpu);
    peer_end(&p);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

/* ---- 1,000 idle links beside a busy one ---- */

static uint64_t pings;

static void count_ping(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)arg;
    pings++;
    plait_reply(m, m->data, m->len, 0);
}

static void run_pings(struct plait_ctx *ctx, uint64_t n)
{
    uint64_t until = pings + n, end = pli_clock_now() + 60 * PLI_NS_PER_S;

    while (pings < until && pli_clock_now() < end)
        cr_assert_geq(plait_ctx_run(ctx, 1000), 0);
    cr_assert_geq(pings, until);
}

/* Afterwards the context has what it keeps for the links to come: a fabric's device. */
static void warm_up(struct plait_ctx *ctx)
{
    struct load other = { .quiet = 1 };
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    struct peer p;

    o.session = load_opts(&other);
    cr_assert_eq(plait_listen(&listener, ctx, LISTEN_URI, &o), 0, "%s", plait_error_text());
    peer_start(&p, "idle", plait_listener_uri(listener), NULL);
    while (!other.opened)
        cr_assert_geq(plait_ctx_run(ctx, 1000), 0);
    kill(p.pid, SIGKILL);
    peer_end(&p);
    while (!other.session_closed)
        cr_assert_geq(plait_ctx_run(ctx, 1000), 0);
    plait_listener_close(listener);
    for (int i = 0; i < 100; i++)
        plait_ctx_poll(ctx);
}

Test(session_many, only_the_busy_one_of_many_links_is_polled)
{
    static const struct plait_conn_ops ops = { .on_message = count_ping };
    struct plait_ctx *ctx = new_ctx();
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    struct traces before;
    struct rlimit rl;
    struct peer p;
    char n[16];
    int links;

    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    /* the other process has a context for each link: 3 descriptors, and 4 for the link */
    links = rl.rlim_max < 7500 ? (int)(rl.rlim_max - 100) / 7 : 1001;
    if (!OVER_SHM) /* 13 more for a context with a device of its own, and 1 for the link */
        links = rl.rlim_max < 7000 ? (int)(rl.rlim_max - 100) / 24 : 257;
    if (links > 200 && getenv("PLAIT_TEST_QUICK"))
        links = 200;
    if (links < 50)
        cr_skip_test("RLIMIT_NOFILE is too low");
    warm_up(ctx);
    before = traces_now();
    o.session.conn_ops = &ops;
    cr_assert_eq(plait_listen(&listener, ctx, LISTEN_URI, &o), 0, "%s", plait_error_text());
    snprintf(n, sizeof n, "%d", links);
    peer_start(&p, "links", n, plait_listener_uri(listener));
    run_pings(ctx, 20000);
    cr_assert_eq(stats_of(ctx).links, (unsigned)links);
    cr_assert_leq(stats_of(ctx).links_active, 1); /* 0: both are asleep just now */
    cr_assert_leq(stats_of(ctx).shm_bytes, (uint64_t)links * 64 * 1024);
    run_pings(ctx, 20000);
    cr_assert_leq(stats_of(ctx).links_active, 1); /* 0: both are asleep just now */
    kill(p.pid, SIGKILL);
    peer_end(&p);
    for (uint64_t end = pli_clock_now() + 30 * PLI_NS_PER_S; stats_of(ctx).links && pli_clock_now() < end;)
        plait_ctx_run(ctx, 1000);
    cr_assert_eq(stats_of(ctx).links, 0);
    cr_assert_eq(stats_of(ctx).shm_bytes, 0);
    plait_listener_close(listener);
    for (int i = 0; i < 100; i++)
        plait_ctx_poll(ctx);
    assert_no_traces(&before);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

/* ---- all to all ---- */

enum { RANKS = OVER_SHM ? 64 : 12 }; /* libfabric takes 0.3 s to load */

/* Between the ranks, before they are connected. */
struct board {
    char uri[RANKS][128];
    _Atomic int listening, finished, failed;
    char error[256];
};

struct rank {
    struct board *board;
    int me, got, closed;
};

static int fail(struct board *b, int rank, const char *what)
{
    if (atomic_fetch_add(&b->failed, 1) == 0)
        snprintf(b->error, sizeof b->error, "rank %d: %s: %s", rank, what, plait_error_text());
    return 1;
}

static void rank_open(struct plait_conn *c, void *arg)
{
    struct rank *r = arg;

    if (plait_send(c, &r->me, sizeof r->me, 0) < 0)
        fail(r->board, r->me, "sending");
}

static void rank_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct rank *r = arg;
    int from;

    (void)c;
    if (m->len == sizeof from)
        r->got++;
    else
        fail(r->board, r->me, "receiving");
}

static void rank_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct rank *r = arg;

    (void)c;
    /* ranks end when all have finished, one before the other */
    if (atomic_load(&r->board->finished) < RANKS)
        fail(r->board, r->me, why->text);
    r->closed++;
}

/* One of the processes. No assertions here: Criterion's are the parent's. */
static int be_rank(struct board *b, int me)
{
    static const struct plait_conn_ops ops = { .on_open = rank_open, .on_message = rank_message, .on_closed = rank_closed };
    struct rank r = { b, me, 0, 0 };
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    struct plait_session *s[RANKS];
    struct plait_listener *l;
    struct plait_ctx *ctx;

    co.spin_us = 0;
    o.conn_ops = &ops;
    o.arg = &r;
    o.open_timeout_ms = 60000;
    lo.session = o;
    if (plait_ctx_create(&ctx, &co) < 0 || plait_listen(&l, ctx, LISTEN_URI, &lo) < 0)
        return fail(b, me, "listening");
    snprintf(b->uri[me], sizeof b->uri[me], "%s", plait_listener_uri(l));
    atomic_fetch_add(&b->listening, 1);
    while (atomic_load(&b->listening) < RANKS && !atomic_load(&b->failed))
        sched_yield();
    for (int i = me + 1; i < RANKS; i++)
        if (plait_session_open(&s[i], ctx, b->uri[i], &o) < 0)
            return fail(b, me, "opening");
    while (r.got < RANKS - 1 && !atomic_load(&b->failed))
        if (plait_ctx_run(ctx, 10000) < 0)
            return fail(b, me, "running");
    atomic_fetch_add(&b->finished, 1);
    while (atomic_load(&b->finished) < RANKS && !atomic_load(&b->failed))
        plait_ctx_run(ctx, 1000);
    plait_ctx_destroy(ctx);
    for (int i = me + 1; i < RANKS; i++)
        plait_session_release(s[i]);
    /* of those that it opened it hears only if they ended before they were released */
    if (r.closed < me || r.closed > RANKS - 1)
        return fail(b, me, r.closed < me ? "connections did not close" : "connections closed twice");
    return atomic_load(&b->failed) != 0;
}

Test(session_many, processes_connect_all_to_all)
{
    struct board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct traces before = traces_now();
    uint64_t start = pli_clock_now(), took;
    pid_t pid[RANKS];
    int bad = 0;

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer allows no threads after a fork");
#endif
    cr_assert_neq(b, MAP_FAILED);
    for (int i = 0; i < RANKS; i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            _exit(be_rank(b, i));
        cr_assert_gt(pid[i], 0);
    }
    for (int i = 0; i < RANKS; i++) {
        int status;

        waitpid(pid[i], &status, 0);
        bad += status != 0;
    }
    took = pli_clock_now() - start;
    cr_assert_eq(bad, 0, "%d ranks failed; %s", bad, b->error);
    cr_assert_leq(took, SLOWER * 10 * PLI_NS_PER_S, "%llu ms", (unsigned long long)(took / PLI_NS_PER_MS));
    fprintf(stderr, "%d processes: %llu ms\n", RANKS, (unsigned long long)(took / PLI_NS_PER_MS));
    munmap(b, sizeof *b);
    assert_no_traces(&before);
}
