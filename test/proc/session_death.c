/* SPDX-License-Identifier: BSD-3-Clause */
/* One of two processes is killed, at any moment, while both are busy. The survivor is this one. */
#include "test/proc/session_util.h"

TestSuite(session_death, .timeout = 300);

#define QUICK (getenv("PLAIT_TEST_QUICK") || !OVER_SHM) /* libfabric takes 0.3 s to load */
#define ROUNDS (!OVER_SHM ? 20 : QUICK ? 30 : 100) /* for each role */

static struct plait_ctx *new_ctx(void)
{
    struct plait_ctx *ctx;

    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", plait_error_text());
    return ctx;
}

static void poll_ctx(struct plait_ctx *ctx)
{
    cr_assert_geq(plait_ctx_run(ctx, 100), 0, "%s", plait_error_text());
}

/* The moment: so many messages after the opening, or, for some rounds, so many polls after the beginning. */
static void run_up_to_the_moment(struct plait_ctx *ctx, struct load *l, int round)
{
    uint64_t end = pli_clock_now() + 20 * PLI_NS_PER_S;
    uint64_t messages = (uint64_t)round * round * 2;

    if (round % 10 == 9) {
        for (int i = 0; i < round; i++)
            plait_ctx_poll(ctx);
        return;
    }
    while ((!l->opened || l->received < messages) && !l->closed && !l->session_closed && pli_clock_now() < end)
        poll_ctx(ctx);
    cr_assert_eq(l->opened, 1, "%d %s", l->code, l->text);
    cr_assert_geq(l->received, messages);
}

static void kill_and_wait_for_the_end(struct plait_ctx *ctx, struct peer *p, struct load *l, bool client)
{
    uint64_t killed;

    cr_assert_eq(kill(p->pid, SIGKILL), 0);
    killed = pli_clock_now();
    /* a server that was never asked has nothing to wait for */
    while ((client || l->opened) && !l->session_closed && pli_clock_now() - killed < 20 * PLI_NS_PER_S)
        poll_ctx(ctx);
    cr_assert_leq(pli_clock_now() - killed, SLOWER * PLI_NS_PER_S, "%llu ms until everything was completed",
                  (unsigned long long)((pli_clock_now() - killed) / PLI_NS_PER_MS));
    cr_assert_eq(l->closed, client ? 1 : l->opened);
    cr_assert_eq(l->completed, l->accepted, "%llu of %llu were completed", (unsigned long long)l->completed,
                 (unsigned long long)l->accepted);
    cr_assert_eq(l->in_flight, 0);
    cr_assert_eq(l->wrong, 0);
    if (l->opened)
        cr_assert_eq(l->code, PLAIT_E_PEERDIED, "%d %s", l->code, l->text);
    load_release(l);
    peer_end(p);
}

Test(session_death, the_server_is_killed)
{
    struct traces before;

    for (int round = 0; round < ROUNDS; round++) {
        struct load l = { .random = (uint32_t)round + 1 };
        struct plait_session_opts o = load_opts(&l);
        struct plait_session *s;
        struct plait_ctx *ctx;
        struct peer p;
        char seed[16], uri[256];

        if (round == 1)
            before = traces_now();
        ctx = new_ctx();
        snprintf(seed, sizeof seed, "%d", round + 1);
        peer_start(&p, "serve", seed, NULL);
        peer_line(&p, uri, sizeof uri);
        cr_assert_eq(plait_session_open(&s, ctx, uri, &o), 0, "%s", plait_error_text());
        run_up_to_the_moment(ctx, &l, round);
        kill_and_wait_for_the_end(ctx, &p, &l, true);
        cr_assert_eq(plait_send(plait_session_conn(s, 0), "x", 1, 0), PLAIT_E_CLOSED);
        plait_session_release(s);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
    }
    assert_no_traces(&before);
}

Test(session_death, the_client_is_killed)
{
    struct traces before;

    for (int round = 0; round < ROUNDS; round++) {
        struct load l = { .random = (uint32_t)round + 1 };
        struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
        struct plait_listener *listener;
        struct plait_ctx *ctx;
        struct peer p;
        char seed[16];

        if (round == 1)
            before = traces_now();
        ctx = new_ctx();
        o.session = load_opts(&l);
        cr_assert_eq(plait_listen(&listener, ctx, LISTEN_URI, &o), 0, "%s", plait_error_text());
        snprintf(seed, sizeof seed, "%d", round + 1);
        peer_start(&p, "load", seed, plait_listener_uri(listener));
        run_up_to_the_moment(ctx, &l, round);
        kill_and_wait_for_the_end(ctx, &p, &l, false);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
    }
    assert_no_traces(&before);
}

/* Afterwards the context has what it keeps for the links to come: a fabric's device. */
static void one_client_before(struct plait_ctx *ctx)
{
    struct load l = { .random = 1 };
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *listener;
    struct peer p;

    o.session = load_opts(&l);
    cr_assert_eq(plait_listen(&listener, ctx, LISTEN_URI, &o), 0, "%s", plait_error_text());
    peer_start(&p, "load", "1", plait_listener_uri(listener));
    run_up_to_the_moment(ctx, &l, 5);
    kill_and_wait_for_the_end(ctx, &p, &l, false);
    plait_listener_close(listener);
    for (int i = 0; i < 100; i++)
        plait_ctx_poll(ctx);
}

/* One survivor sees many die, one after the other and together, and still serves the living. */
Test(session_death, a_server_outlives_its_clients)
{
    enum { N = OVER_SHM ? 10 : 4 }; /* those that live keep the cores busy while libfabric is loaded */
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    static struct load l[2 * N + 1];
    struct plait_listener *listener[2 * N + 1];
    struct plait_ctx *ctx = new_ctx();
    struct traces before;
    struct plait_ctx_stats st = { .size = sizeof st };
    struct peer p[2 * N + 1];
    uint64_t end, living;

    one_client_before(ctx);
    before = traces_now();
    for (int i = 0; i <= 2 * N; i++) {
        char seed[16];

        l[i].random = (uint32_t)i;
        o.session = load_opts(&l[i]);
        cr_assert_eq(plait_listen(&listener[i], ctx, LISTEN_URI, &o), 0, "%s", plait_error_text());
        snprintf(seed, sizeof seed, "%d", i + 1);
        peer_start(&p[i], "load", seed, plait_listener_uri(listener[i]));
        end = pli_clock_now() + 30 * PLI_NS_PER_S;
        while (l[i].received < 100 && pli_clock_now() < end)
            poll_ctx(ctx);
        cr_assert_geq(l[i].received, 100);
        if (i % 2)
            kill(p[i].pid, SIGKILL);
    }
    for (int i = 2; i <= 2 * N; i += 2)
        kill(p[i].pid, SIGKILL);
    end = pli_clock_now() + 20 * PLI_NS_PER_S;
    for (int i = 1; i <= 2 * N; i++) {
        while (!l[i].session_closed && pli_clock_now() < end)
            poll_ctx(ctx);
        cr_assert_eq(l[i].session_closed, 1, "client %d", i);
        cr_assert_eq(l[i].accepted, l[i].completed);
    }
    living = l[0].received;
    while (l[0].received < living + 1000 && pli_clock_now() < end)
        poll_ctx(ctx);
    cr_assert_geq(l[0].received, living + 1000, "the living client is not served any more");
    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0);
    cr_assert_eq(st.links, 1);
    cr_assert_eq(st.conns, 1);
    kill(p[0].pid, SIGKILL);
    while (!l[0].session_closed && pli_clock_now() < end)
        poll_ctx(ctx);
    for (int i = 0; i <= 2 * N; i++) {
        cr_assert_eq(l[i].wrong, 0);
        load_release(&l[i]);
        plait_listener_close(listener[i]);
        peer_end(&p[i]);
    }
    /* nothing is left of them while the context lives on */
    for (int i = 0; i < 100; i++)
        plait_ctx_poll(ctx);
    assert_no_traces(&before);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

/* ---- what is not a death ---- */

Test(session_death, a_stopped_peer_is_not_dead)
{
    struct load l = { .random = 1 };
    struct plait_session_opts o = load_opts(&l);
    struct plait_session *s;
    struct plait_ctx *ctx = new_ctx();
    struct peer p;
    char uri[256];
    uint64_t end, ok;

    peer_start(&p, "serve", "1", NULL);
    peer_line(&p, uri, sizeof uri);
    cr_assert_eq(plait_session_open(&s, ctx, uri, &o), 0, "%s", plait_error_text());
    end = pli_clock_now() + 30 * PLI_NS_PER_S;
    while (l.ok < 1000 && pli_clock_now() < end)
        poll_ctx(ctx);
    cr_assert_geq(l.ok, 1000);
    cr_assert_eq(kill(p.pid, SIGSTOP), 0);
    cr_assert_eq(plait_ctx_run(ctx, QUICK ? 2000000 : 5000000), 0);
    cr_assert_eq(l.closed, 0, "%s", l.text);
    ok = l.ok;
    cr_assert_gt(l.in_flight, 0);
    cr_assert_eq(kill(p.pid, SIGCONT), 0);
    end = pli_clock_now() + 30 * PLI_NS_PER_S;
    while (l.ok < ok + 1000 && pli_clock_now() < end)
        poll_ctx(ctx);
    cr_assert_geq(l.ok, ok + 1000, "it does not go on");
    cr_assert_eq(l.closed, 0);
    cr_assert_eq(l.wrong, 0);
    /* an orderly end of a load: every request is answered */
    l.quiet = 1;
    load_release(&l);
    cr_assert_eq(plait_session_close(s), 0);
    while (!l.session_closed && pli_clock_now() < end) {
        poll_ctx(ctx);
        load_release(&l);
    }
    cr_assert_eq(l.session_closed, 1);
    cr_assert_eq(l.accepted, l.completed);
    plait_session_release(s);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_assert_eq(peer_end(&p), 0);
}

Test(session_death, the_peer_exits_by_itself)
{
    struct load l = { .random = 1 };
    struct plait_session_opts o = load_opts(&l);
    struct plait_session *s;
    struct plait_ctx *ctx = new_ctx();
    struct peer p;
    char uri[256];
    uint64_t end = pli_clock_now() + 30 * PLI_NS_PER_S;

    peer_start(&p, "serve", "1", NULL);
    peer_line(&p, uri, sizeof uri);
    cr_assert_eq(plait_session_open(&s, ctx, uri, &o), 0, "%s", plait_error_text());
    while (l.ok < 100 && pli_clock_now() < end)
        poll_ctx(ctx);
    close(p.in); /* it destroys its context */
    p.in = -1;
    while (!l.session_closed && pli_clock_now() < end)
        poll_ctx(ctx);
    cr_assert_eq(l.code, PLAIT_E_ABORTED, "%d %s", l.code, l.text);
    cr_assert_eq(l.accepted, l.completed);
    load_release(&l);
    plait_session_release(s);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
    cr_assert_eq(peer_end(&p), 0);
}
