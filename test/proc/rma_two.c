/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations between processes: that nothing is lost, and that nobody suffers when somebody dies. */
#include "runtime/mem.h"
#include "test/proc/rma_load.h"
#include "test/proc/session_util.h"

TestSuite(rma_two, .timeout = 300);

#define QUICK (getenv("PLAIT_TEST_QUICK") != NULL)

static struct plait_ctx *new_ctx(void)
{
    struct plait_ctx *ctx;

    cr_assert_eq(plait_ctx_create(&ctx, NULL), 0, "%s", plait_error_text());
    return ctx;
}

static void use_start(struct peer *p, const char *id, const char *n, const char *uri)
{
    peer_start_args(p, "rma_peer", (const char *const[]){ "use", id, n, uri, NULL });
}

static _Atomic uint64_t *word(const struct rma_owner *o, size_t at)
{
    return (_Atomic uint64_t *)(void *)((char *)plait_mem_addr(o->mem) + at);
}

static unsigned in_use(const struct plait_mem *m)
{
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;

    cr_assert_eq(plait_mem_get_info(m, &info), 0);
    return info.in_use;
}

/* Two users and the owner, all at once: the sums are exact, every block is as it was put. */
Test(rma_two, everybody_counts)
{
    unsigned rounds = QUICK ? 300 : OVER_SHM ? 3000 : 200;
    struct plait_ctx *ctx = new_ctx();
    struct plait_listener *l;
    struct rma_owner o;
    struct peer p[2];
    uint64_t mine = 0, polls = 0, end;
    char n[16];

    snprintf(n, sizeof n, "%u", rounds);
    cr_assert_eq(rma_owner_start(&o, ctx, LISTEN_URI, &l), 0, "%s", plait_error_text());
    for (int i = 0; i < 2; i++)
        use_start(&p[i], i ? "1" : "0", n, plait_listener_uri(l));
    end = pli_clock_now() + 200 * PLI_NS_PER_S;
    while (o.closed < 2 && pli_clock_now() < end) {
        uint64_t guess = atomic_load(word(&o, RMA_CAS_AT));

        plait_ctx_poll(ctx);
        /* between hosts a guess is old when it arrives: leave time in which it can be right */
        if (o.sessions < 2 || (!OVER_SHM && ++polls % 500))
            continue;
        atomic_fetch_add(word(&o, RMA_ADD_AT), 1);
        while (!atomic_compare_exchange_weak(word(&o, RMA_CAS_AT), &guess, guess + 1))
            continue;
        mine++;
    }
    for (int i = 0; i < 2; i++)
        cr_assert_eq(peer_end(&p[i]), 0);
    cr_assert_eq(atomic_load(word(&o, RMA_ADD_AT)), 2 * rounds + mine);
    cr_assert_eq(atomic_load(word(&o, RMA_CAS_AT)), 2 * rounds + mine);
    plait_mem_release(o.mem);
    cr_assert_eq(plait_ctx_destroy(ctx), 0);
}

/* The owner is killed while we read and write: nothing faults, and then every operation fails. */
Test(rma_two, the_owner_is_killed)
{
    for (int round = 0; round < (QUICK || !OVER_SHM ? 10 : 40); round++) {
        struct plait_ctx *ctx = new_ctx();
        struct rma_user u;
        struct peer p;
        char uri[256];
        uint64_t guess = 0, killed;
        uint32_t i = 0;
        int rc;

        peer_start_args(&p, "rma_peer", (const char *const[]){ "own", LISTEN_URI, NULL });
        peer_line(&p, uri, sizeof uri);
        cr_assert_eq(rma_user_open(&u, ctx, uri), 0, "%s", plait_error_text());
        if (round % 5) { /* else: the key has only been asked for */
            cr_assert_eq(rma_user_ask(&u), 0, "%s", plait_error_text());
            for (; i < (uint32_t)round; i++)
                cr_assert_eq(rma_round(&u, 0, i, &guess), 0, "%s", plait_error_text());
        }
        cr_assert_eq(kill(p.pid, SIGKILL), 0);
        killed = pli_clock_now();
        do
            rc = round % 5 ? rma_round(&u, 0, i++, &guess) : rma_user_ask(&u);
        while (rc == 0 && pli_clock_now() - killed < 20 * PLI_NS_PER_S);
        cr_assert(rc == PLAIT_E_CLOSED || rc == PLAIT_E_PEERDIED || rc == PLAIT_E_AGAIN, "%s", plait_status_name(rc));
        while (!u.closed && pli_clock_now() - killed < 20 * PLI_NS_PER_S)
            plait_ctx_poll(ctx);
        cr_assert_eq(u.closed, 1);
        cr_assert_eq(u.code, PLAIT_E_PEERDIED);
        cr_assert_eq(plait_atomic_add(u.conn, &u.key, 0, 1, NULL, NULL, NULL), PLAIT_E_CLOSED);
        cr_assert_eq(plait_rma_flush(u.conn, rma_set, &rc), PLAIT_E_CLOSED);
        plait_session_release(u.s);
        peer_end(&p);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
    }
}

/* A user is killed in the middle; the owner gets its region back. */
Test(rma_two, the_user_is_killed)
{
    for (int round = 0; round < (QUICK || !OVER_SHM ? 10 : 40); round++) {
        struct plait_ctx *ctx = new_ctx();
        struct plait_listener *l;
        struct rma_owner o;
        struct peer p;
        uint64_t end = pli_clock_now() + 20 * PLI_NS_PER_S;

        cr_assert_eq(rma_owner_start(&o, ctx, LISTEN_URI, &l), 0, "%s", plait_error_text());
        use_start(&p, "2", "0", plait_listener_uri(l));
        while (atomic_load(word(&o, RMA_ADD_AT)) < (uint64_t)round && pli_clock_now() < end)
            plait_ctx_poll(ctx);
        cr_assert_geq(atomic_load(word(&o, RMA_ADD_AT)), round);
        cr_assert_eq(kill(p.pid, SIGKILL), 0);
        if (round % 3 == 0 && round) /* not heard of its death yet */
            cr_assert_eq(plait_mem_withdraw(&o.key, rma_gone, &o), 0);
        while (o.closed < o.sessions && pli_clock_now() < end)
            plait_ctx_poll(ctx);
        cr_assert_eq(o.closed, o.sessions);
        for (int i = 0; i < 100; i++)
            plait_ctx_poll(ctx);
        cr_assert_eq(in_use(o.mem), 0);
        cr_assert_eq(o.gone, round % 3 == 0 && round);
        if (o.gone)
            cr_assert(o.gone_status == 0 || o.gone_status == PLAIT_E_PEERDIED, "%s", plait_status_name(o.gone_status));
        peer_end(&p);
        plait_mem_release(o.mem);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
    }
}

/* The owner withdraws while another process hammers: it is told so, and nothing worse. */
Test(rma_two, withdrawn_under_load)
{
    for (int round = 0; round < (QUICK || !OVER_SHM ? 5 : 20); round++) {
        struct plait_ctx *ctx = new_ctx();
        struct plait_listener *l;
        struct rma_owner o;
        struct peer p;
        uint64_t end = pli_clock_now() + 20 * PLI_NS_PER_S, last;
        int status;

        cr_assert_eq(rma_owner_start(&o, ctx, LISTEN_URI, &l), 0, "%s", plait_error_text());
        use_start(&p, "2", "0", plait_listener_uri(l));
        while (atomic_load(word(&o, RMA_ADD_AT)) < (uint64_t)round + 1 && pli_clock_now() < end)
            plait_ctx_poll(ctx);
        cr_assert_eq(plait_mem_withdraw(&o.key, rma_gone, &o), 0, "%s", plait_error_text());
        while (!o.gone && pli_clock_now() < end)
            plait_ctx_poll(ctx);
        cr_assert_eq(o.gone, 1);
        last = atomic_load(word(&o, RMA_ADD_AT));
        while (o.closed < o.sessions && pli_clock_now() < end)
            plait_ctx_poll(ctx);
        cr_assert_eq(atomic_load(word(&o, RMA_ADD_AT)), last, "somebody wrote after the owner was told that nobody can");
        status = peer_end(&p);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "0x%x", status);
        plait_mem_release(o.mem);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
    }
}
