/* SPDX-License-Identifier: BSD-3-Clause */
/* The other process of the session tests:
 *   session_peer serve SEED          listens at SESSION_PEER_URI, prints its URI, serves and loads every session; SEED 0: does not load them
 *   session_peer load SEED URI       opens a session and loads it
 *   session_peer idle URI            opens a session and does nothing
 *   session_peer links N URI         N contexts with a session each; the first one is then busy
 *   session_peer offers URI          sends long messages from a region, as fast as they are released
 *   session_peer holds URI           holds every message that comes, for ever
 *   session_peer copies N URI        kills itself N passes after it has begun to copy an offered message
 * until it is killed, or its standard input ends. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include "test/proc/session_load.h"
#include "test/proc/peer.h"

static struct load load;

static int run(void)
{
    if (peer_run() != 0)
        return 1;
    load_release(&load);
    plait_ctx_destroy(ctx);
    return load.wrong ? fail("wrong content") : 0;
}

static int serve(void)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    const char *uri = getenv("SESSION_PEER_URI");
    struct plait_listener *l;

    o.session = load_opts(&load);
    if (plait_listen(&l, ctx, uri ? uri : "plait://127.0.0.1:0/", &o) < 0)
        return fail("listening");
    say(plait_listener_uri(l));
    return run();
}

static int connect_to(const char *uri, int quiet)
{
    struct plait_session_opts o = load_opts(&load);
    struct plait_session *s = NULL;
    int rc;

    load.quiet = quiet;
    if (plait_session_open(&s, ctx, uri, &o) < 0 || plait_session_wait(s, -1) < 0) {
        rc = fail("opening a session");
        if (s)
            plait_session_release(s);
        plait_ctx_destroy(ctx);
        return rc;
    }
    say("open");
    return run();
}

/* ---- many links ---- */

static void bounce(struct plait_msg *m, int status, void *arg)
{
    (void)m;
    if (status == 0)
        plait_request(arg, "ping", 4, 0, bounce, arg);
}

static int links(int n, const char *uri)
{
    struct rlimit rl;
    struct plait_session **s = calloc((size_t)n, sizeof(void *));
    struct plait_ctx **c = calloc((size_t)n, sizeof(void *));
    int open = 0;

    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    for (int i = 0; i < n; i++) {
        struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

        o.open_timeout_ms = 60000;
        if (plait_ctx_create(&c[i], NULL) < 0 || plait_session_open(&s[i], c[i], uri, &o) < 0)
            return fail("creating contexts");
        /* one after the other */
        if (plait_session_wait(s[i], -1) < 0)
            return fail("opening sessions");
        open++;
    }
    ctx = c[0];
    say("open");
    plait_request(plait_session_conn(s[0], 0), "ping", 4, 0, bounce, plait_session_conn(s[0], 0));
    return run() || open != n;
}

/* ---- offered messages ---- */

static struct {
    struct plait_conn *conn;
    uint64_t *p;
    uint64_t sent;
    bool busy[OFFERS]; /* parts of the region: they are released in any order */
} offers;

static void offer_more(void);

static void offer_done(int status, void *arg)
{
    *(bool *)arg = false;
    if (status == 0)
        offer_more();
}

static void offer_more(void)
{
    int rc = 0;

    for (unsigned k = 0; k < OFFERS && rc == 0; k++) {
        struct plait_out out = PLAIT_OUT_INIT;
        uint64_t *p = offers.p + k * (OFFER_LEN / 8);

        if (offers.busy[k])
            continue;
        for (size_t i = 0; i < OFFER_LEN / 8; i++)
            p[i] = offers.sent;
        out.flags = PLAIT_NOCOPY;
        out.data = p;
        out.len = OFFER_LEN;
        out.on_done = offer_done;
        out.arg = &offers.busy[k];
        rc = plait_sendx(offers.conn, &out);
        offers.busy[k] = rc == 0;
        offers.sent += rc == 0;
    }
}

static void offer_open(struct plait_conn *c, void *arg)
{
    (void)arg;
    offers.conn = c;
    offer_more();
}

static void offer_writable(struct plait_conn *c, void *arg)
{
    (void)c;
    (void)arg;
    offer_more();
}

static void hold_for_ever(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)arg;
    (void)!plait_msg_hold(m);
}

static int offer_or_hold(const char *uri, int hold)
{
    static struct plait_conn_ops ops;
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s;
    struct plait_mem *mem;

    if (hold)
        ops.on_message = hold_for_ever;
    else
        ops.on_open = offer_open;
    ops.on_writable = offer_writable;
    o.conn_ops = &ops;
    o.max_msg = OFFER_LEN;
    if (plait_mem_alloc(&mem, OFFERS * OFFER_LEN, NULL) < 0)
        return fail("allocating a region");
    offers.p = plait_mem_addr(mem);
    if (plait_session_open(&s, ctx, uri, &o) < 0 || plait_session_wait(s, -1) < 0)
        return fail("opening a session");
    say("open");
    return run();
}

/* ---- killed while it copies ---- */

static bool announced;

static void copy_this(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    static uint8_t into[OFFER_LEN];
    struct iovec iov = { into, sizeof into };

    (void)c;
    (void)arg;
    announced = plait_offer_into(offer, &iov, 1) == 0;
}

static void copied(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)m;
    (void)arg;
    announced = false;
}

static int copies(int passes, const char *uri)
{
    static const struct plait_conn_ops ops = { .on_offer = copy_this, .on_message = copied };
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct plait_ctx_stats st = { .size = sizeof st };
    struct plait_session *s;

    o.conn_ops = &ops;
    o.max_msg = OFFER_LEN;
    o.take = PLAIT_TAKE_COPY;
    if (plait_session_open(&s, ctx, uri, &o) < 0 || plait_session_wait(s, -1) < 0)
        return fail("opening a session");
    say("open");
    while (plait_conn_is_open(plait_session_conn(s, 0)) && plait_ctx_poll(ctx) >= 0 && plait_ctx_get_stats(ctx, &st) == 0) {
        if (!announced || !st.offers_copied)
            continue;
        while (passes-- > 0)
            plait_ctx_poll(ctx);
        raise(SIGKILL);
    }
    return fail("the other side has gone");
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "links") == 0)
        return links(atoi(argv[2]), argv[3]);
    if (plait_ctx_create(&ctx, NULL) < 0)
        return fail("creating a context");
    if (argc > 2)
        load.random = (uint32_t)strtoul(argv[2], NULL, 10);
    load.quiet = argc > 2 && strcmp(argv[2], "0") == 0;
    if (argc > 2 && strcmp(argv[1], "serve") == 0)
        return serve();
    if (argc > 3 && strcmp(argv[1], "load") == 0)
        return connect_to(argv[3], 0);
    if (argc > 2 && (strcmp(argv[1], "offers") == 0 || strcmp(argv[1], "holds") == 0))
        return offer_or_hold(argv[2], argv[1][0] == 'h');
    if (argc > 3 && strcmp(argv[1], "copies") == 0)
        return copies(atoi(argv[2]), argv[3]);
    if (argc > 2 && strcmp(argv[1], "idle") == 0)
        return connect_to(argv[2], 1);
    fprintf(stderr, "usage: see the comment in session_peer.c\n");
    return 2;
}
