/* SPDX-License-Identifier: BSD-3-Clause */
/* Several connections, contexts, threads; links that are shared. */
#include "test/unit/runtime/session_thread.h"

TestSuite(session_team, .timeout = 120);

static struct plait_session_opts on_ctxs(struct plait_ctx *const *ctxs, unsigned n)
{
    struct plait_session_opts o = session_opts(NULL);

    o.ctxs = ctxs;
    o.nctxs = n;
    return o;
}

static struct world *world_of(unsigned nctx)
{
    struct world *w = listening_world();

    while (w->nctx < nctx)
        add_ctx(w, 0);
    return w;
}

Test(session_team, sessions_between_two_contexts_share_one_link)
{
    enum { N = 20 };
    struct world *w = world_of(2);
    static struct log cli[N];
    struct outcome o[N];

    w->on_msg = echo;
    memset(o, 0, sizeof o);
    for (int i = 0; i < N; i++)
        open_session(w, &cli[i], NULL);
    cr_assert_eq(ctx_stats(w->ctx[0]).links, 1);
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1);
    cr_assert_eq(ctx_stats(w->ctx[1]).conns, N);
    for (int i = 0; i < N; i++)
        FAILS(plait_request(cli[i].conn[0], &i, sizeof i, 0, on_reply, &o[i]), 0);
    for (int i = 0; i < N; i++) {
        WAIT(w, o[i].n, 1);
        cr_assert_eq(memcmp(o[i].data, &i, sizeof i), 0);
        cr_assert_eq(w->srv[i].msgs, 1);
    }
    for (int i = 0; i < N; i++)
        end_session(w, &cli[(i * 7) % N]);
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1, "an idle link stays for a moment");
    open_session(w, &cli[0], NULL);
    end_session(w, &cli[0]);
    for (uint64_t end = pli_clock_now() + PATIENCE_NS; ctx_stats(w->ctx[0]).links && pli_clock_now() < end;)
        poll_all(w);
    cr_assert_eq(ctx_stats(w->ctx[0]).links, 0, "and then it goes");
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 0);
    open_session(w, &cli[1], NULL);
    end_session(w, &cli[1]);
    end_world(w);
}

/* Sessions that ask at the same time wait for the same link. */
Test(session_team, sessions_that_open_together_share_one_link)
{
    enum { N = 20 };
    struct world *w = world_of(2);
    static struct log cli[N];

    for (int i = 0; i < N; i++)
        start_open(w, &cli[i], NULL);
    for (int i = 0; i < N; i++)
        WAIT(w, cli[i].opened, 1);
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1);
    for (int i = 0; i < N; i++)
        end_session(w, &cli[i]);
    end_world(w);
}

/* Connections of one session on several contexts, to portals that spread them. */
static void spread(unsigned clients, unsigned portals)
{
    struct world *w = world_of(1 + clients + portals);
    struct plait_session_opts o = on_ctxs(&w->ctx[1], clients);
    struct outcome out[PLAIT_MAX_CONNS];
    struct log cli, *srv;

    w->on_msg = echo;
    w->accept.ctxs = &w->ctx[1 + clients];
    w->accept.nctxs = portals;
    srv = open_session(w, &cli, &o);
    cr_assert_eq(plait_session_conn_count(cli.s), clients);
    memset(out, 0, sizeof out);
    for (unsigned i = 0; i < clients; i++) {
        cr_assert_eq(plait_conn_ctx(cli.conn[i]), w->ctx[1 + i]);
        cr_assert_eq(plait_conn_ctx(srv->conn[i]), w->ctx[1 + clients + i % portals]);
        FAILS(plait_request(cli.conn[i], &i, sizeof i, 0, on_reply, &out[i]), 0);
    }
    for (unsigned i = 0; i < clients; i++) {
        WAIT(w, out[i].n, 1);
        cr_assert_eq(memcmp(out[i].data, &i, sizeof i), 0);
    }
    FAILS(plait_conn_close(cli.conn[clients - 1]), 0);
    WAIT(w, srv->c_closed, 1);
    settle(w);
    cr_assert_eq(cli.closed, clients == 1);
    end_session(w, &cli);
    WAIT(w, srv->closed, 1);
    cr_assert_eq(cli.code | srv->code, 0, "%s %s", cli.text, srv->text);
    check_log(&cli);
    end_world(w);
}

Test(session_team, connections_are_spread_over_the_portals)
{
    spread(1, 1);
    spread(3, 1);
    spread(1, 2);
    spread(2, 2);
    spread(4, 2);
    spread(3, 4);
}

Test(session_team, several_connections_on_one_context)
{
    struct world *w = world_of(2);
    struct plait_ctx *ctxs[50];
    struct plait_session_opts o = on_ctxs(ctxs, 50);
    struct outcome out = { 0 };
    struct log cli, *srv;

    for (int i = 0; i < 50; i++)
        ctxs[i] = w->ctx[1];
    w->on_msg = echo;
    srv = open_session(w, &cli, &o);
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1);
    cr_assert_eq(ctx_stats(w->ctx[1]).conns, 50);
    for (int i = 0; i < 50; i++)
        FAILS(plait_request(cli.conn[i], "x", 1, 0, on_reply, &out), 0);
    WAIT(w, out.n, 50);
    FAILS(plait_conn_abort(cli.conn[17]), 0);
    WAIT(w, srv->c_closed, 1);
    cr_assert_eq(cli.closed, 0, "the others go on");
    FAILS(plait_request(cli.conn[18], "x", 1, 0, on_reply, &out), 0);
    WAIT(w, out.n, 51);
    FAILS(plait_session_close(cli.s), 0);
    WAIT(w, cli.closed, 1);
    cr_assert_eq(cli.code, PLAIT_E_ABORTED, "the first that failed: %s", cli.text);
    plait_session_release(cli.s);
    end_world(w);
}

/* The connections of one context of a session and the session of another one's share a link, too. */
Test(session_team, a_link_is_known_by_its_ends)
{
    struct world *w = world_of(3);
    struct plait_session_opts o = on_ctxs(&w->ctx[1], 2);
    struct log lead, team, second;
    struct plait_session_opts so;

    /* from context 2 by the listener's name */
    log_init(&lead, w);
    so = session_opts(&lead);
    FAILS(plait_session_open(&lead.s, w->ctx[2], w->uri, &so), 0);
    WAIT(w, lead.opened, 1);
    /* and by the portal's number, which is the listener's context */
    open_session(w, &team, &o);
    cr_assert_eq(ctx_stats(w->ctx[2]).links, 1);
    cr_assert_eq(ctx_stats(w->ctx[0]).links, 2);
    open_session(w, &second, &o);
    cr_assert_eq(ctx_stats(w->ctx[2]).links, 1);
    cr_assert_eq(ctx_stats(w->ctx[1]).links, 1);
    end_session(w, &lead);
    end_session(w, &team);
    end_session(w, &second);
    end_world(w);
}

Test(session_team, one_context_of_several_is_destroyed)
{
    for (unsigned dead = 0; dead < 5; dead++) {
        struct world *w = world_of(5); /* 0: listener, 1-2: client, 3-4: portals */
        struct plait_session_opts o = on_ctxs(&w->ctx[1], 2);
        struct log cli, *srv;

        w->accept.ctxs = &w->ctx[3];
        w->accept.nctxs = 2;
        srv = open_session(w, &cli, &o);
        cli.lead_gone = dead == 1;
        srv->lead_gone = dead == 0;
        FAILS(plait_ctx_destroy(w->ctx[dead]), 0);
        w->ctx[dead] = NULL;
        settle(w);
        if (dead == 0) {
            WAIT(w, srv->closed, 1);
        } else if (dead == 1) {
            cr_assert_eq(cli.closed, 1);
        } else {
            cr_assert_eq(cli.c_closed, 1);
            cr_assert_eq(srv->c_closed, 1);
            cr_assert_eq(cli.closed, 0);
            FAILS(plait_session_close(cli.s), 0);
            WAIT(w, cli.closed, 1);
            WAIT(w, srv->closed, 1);
        }
        for (uint64_t end = pli_clock_now() + PATIENCE_NS; cli.c_closed < 2 && pli_clock_now() < end;)
            poll_all(w);
        plait_session_release(cli.s);
        end_world(w);
    }
}

/* A context that a session was to use is destroyed before the connection on it was started. */
Test(session_team, a_context_is_destroyed_before_its_connection_starts)
{
    for (int after = 0; after < 30; after++) {
        struct world *w = world_of(4);
        struct plait_session_opts o = on_ctxs(&w->ctx[1], 3);
        struct log cli;

        start_open(w, &cli, &o);
        for (int i = 0; i < after; i++) {
            plait_ctx_poll(w->ctx[0]);
            plait_ctx_run(w->ctx[1], 100);
        }
        FAILS(plait_ctx_destroy(w->ctx[2]), 0);
        w->ctx[2] = NULL;
        for (uint64_t end = pli_clock_now() + PATIENCE_NS; !cli.closed && !cli.opened && pli_clock_now() < end;)
            poll_all(w);
        if (!cli.closed)
            plait_session_close(cli.s);
        WAIT(w, cli.closed, 1);
        cr_assert_neq(cli.code, 0);
        plait_session_release(cli.s);
        end_world(w);
    }
}

/* ---- real threads ---- */

struct team_peer {
    _Atomic unsigned opened, closed, replies, bad;
};

enum { IN_FLIGHT = 10, REPLIES = 500 }; /* of each connection, on average */

static void peer_reply(struct plait_msg *m, int status, void *arg)
{
    struct plait_conn *c = arg;
    struct team_peer *p = plait_conn_user(c);

    if (status != 0 || m->len != 4) {
        p->bad++;
    } else if (++p->replies < 5 * 5 * REPLIES) {
        while (plait_request(c, "echo", 4, 0, peer_reply, c) == PLAIT_E_AGAIN)
            p->bad++; /* so few always fit */
    }
}

static void peer_open(struct plait_conn *c, void *arg)
{
    struct team_peer *p = arg;

    p->opened++;
    plait_conn_set_user(c, p);
    for (int i = 0; i < IN_FLIGHT; i++)
        p->bad += plait_request(c, "echo", 4, 0, peer_reply, c) != 0;
}

static void peer_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct team_peer *p = arg;

    (void)c;
    p->bad += why->code != 0;
    p->closed++;
}

static void team_echo(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)arg;
    plait_reply(m, m->data, m->len, 0);
}

static struct plait_team *start_team(unsigned n)
{
    struct plait_team_opts to = PLAIT_TEAM_OPTS_INIT;
    struct plait_team *team;

    to.count = n;
    to.pin = 0;
    FAILS(plait_team_create(&team, &to), 0);
    return team;
}

static void team_ctxs(struct plait_team *team, struct plait_ctx **ctxs, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ctxs[i] = plait_team_ctx(team, i);
}

Test(session_team, two_teams_of_threads)
{
    static const struct plait_conn_ops server_ops = { .on_message = team_echo };
    static const struct plait_conn_ops client_ops = { .on_open = peer_open, .on_closed = peer_closed };
    enum { N = 4, SESSIONS = 5 };
    struct plait_team *servers = start_team(N), *clients = start_team(N);
    struct plait_ctx *portals[N], *ctxs[N + 1];
    struct world *w = new_world();
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct team_peer peer = { 0 };
    struct plait_session *s[SESSIONS];

    team_ctxs(servers, portals, N);
    ctxs[0] = w->ctx[1];
    team_ctxs(clients, ctxs + 1, N);
    lo.session.conn_ops = &server_ops;
    lo.session.ctxs = portals;
    lo.session.nctxs = N;
    FAILS(plait_listen(&w->listener, w->ctx[0], "plait://127.0.0.1:0", &lo), 0);
    for (int i = 0; i < SESSIONS; i++) {
        struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

        o.conn_ops = &client_ops;
        o.arg = &peer;
        o.ctxs = ctxs;
        o.nctxs = N + 1;
        FAILS(plait_session_open(&s[i], w->ctx[1], plait_listener_uri(w->listener), &o), 0);
    }
    for (uint64_t end = pli_clock_now() + PATIENCE_NS;
         peer.replies < SESSIONS * (N + 1) * REPLIES && pli_clock_now() < end;)
        poll_all(w);
    cr_assert_geq(peer.replies, SESSIONS * (N + 1) * REPLIES);
    for (int i = 0; i < SESSIONS; i++)
        FAILS(plait_session_close(s[i]), 0);
    for (uint64_t end = pli_clock_now() + PATIENCE_NS; peer.closed < SESSIONS * (N + 1) && pli_clock_now() < end;)
        poll_all(w);
    cr_assert_eq(peer.closed, SESSIONS * (N + 1));
    cr_assert_eq(peer.bad, 0);
    for (int i = 0; i < SESSIONS; i++)
        plait_session_release(s[i]);
    plait_team_destroy(clients);
    plait_team_destroy(servers);
    end_world(w);
}

/* Sessions are aborted, closed and released from wherever, while both sides are busy. */
static void *disturb(void *arg)
{
    struct plait_session **s = arg;

    for (int i = 0; s[i]; i++) {
        for (unsigned j = 0; j < plait_session_conn_count(s[i]); j++)
            plait_conn_abort(plait_session_conn(s[i], j));
        plait_session_release(s[i]);
    }
    return NULL;
}

static void count_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct team_peer *p = arg;

    (void)s;
    (void)why;
    p->closed++;
}

static void ask_again(struct plait_msg *m, int status, void *arg)
{
    (void)m;
    if (status == 0)
        plait_request(arg, "echo", 4, 0, ask_again, arg);
}

static void ask_first(struct plait_conn *c, void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++)
        plait_request(c, "echo", 4, 0, ask_again, c);
}

Test(session_team, aborted_from_everywhere)
{
    static const struct plait_conn_ops server_ops = { .on_message = team_echo };
    static const struct plait_conn_ops client_ops = { .on_open = ask_first };
    static const struct plait_session_ops session_ops = { .on_closed = count_session_closed };
    enum { N = 2, SESSIONS = 6, ROUNDS = 20 };
    struct plait_team *servers = start_team(N), *clients = start_team(N);
    struct plait_ctx *portals[N], *ctxs[N + 1];
    struct world *w = new_world();
    struct plait_listen_opts lo = PLAIT_LISTEN_OPTS_INIT;
    struct team_peer peer = { 0 };

    team_ctxs(servers, portals, N);
    ctxs[0] = w->ctx[1];
    team_ctxs(clients, ctxs + 1, N);
    lo.session.conn_ops = &server_ops;
    lo.session.ctxs = portals;
    lo.session.nctxs = N;
    FAILS(plait_listen(&w->listener, w->ctx[0], "plait://127.0.0.1:0", &lo), 0);
    for (int round = 0; round < ROUNDS; round++) {
        struct plait_session *s[SESSIONS + 1] = { NULL }, *held[SESSIONS + 1] = { NULL };
        pthread_t t;

        peer.closed = 0;
        for (int i = 0; i < SESSIONS; i++) {
            struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

            o.conn_ops = &client_ops;
            o.session_ops = &session_ops;
            o.arg = &peer;
            o.ctxs = ctxs;
            o.nctxs = N + 1;
            FAILS(plait_session_open(&s[i], w->ctx[1], plait_listener_uri(w->listener), &o), 0);
            held[i] = plait_session_hold(s[i]);
        }
        for (int i = 0; i < round * 100; i++)
            poll_all(w);
        cr_assert_eq(pthread_create(&t, NULL, disturb, held), 0);
        for (int i = 0; i < SESSIONS; i += 2)
            plait_session_close(s[i]);
        for (uint64_t end = pli_clock_now() + PATIENCE_NS; peer.closed < SESSIONS && pli_clock_now() < end;)
            poll_all(w);
        pthread_join(t, NULL);
        cr_assert_eq(peer.closed, SESSIONS, "round %d: %u sessions closed", round, peer.closed);
        for (int i = 0; i < SESSIONS; i++)
            plait_session_release(s[i]);
    }
    plait_team_destroy(clients);
    plait_team_destroy(servers);
    end_world(w);
}
