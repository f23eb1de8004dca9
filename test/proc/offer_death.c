/* SPDX-License-Identifier: BSD-3-Clause */
/* One of two processes is killed in some phase of an offered message: the region is not known yet, the offer is out, the message is held in
 * place, is being read, or copied, its region is being released. The survivor is this one. */
#include "test/proc/session_util.h"

TestSuite(offer_death, .timeout = 300);

#define ROUNDS (getenv("PLAIT_TEST_QUICK") ? 10u : 50u)

static struct side {
    struct plait_conn *conn;
    unsigned opened, closed, session_closed;
    int code;
    /* receiving */
    struct plait_msg *held[4 * OFFERS];
    unsigned nheld;
    uint64_t received, wrong;
    uint64_t kill_at; /* kill it inside the callback of this message */
    pid_t pid;
    /* sending */
    uint64_t *p;
    unsigned sent, done;
    int status;
} side;

static bool is_right(const struct plait_msg *m)
{
    const uint64_t *p = m->data;

    for (size_t i = 1; i < m->len / 8; i++)
        if (p[i] != p[0])
            return false;
    return m->len == OFFER_LEN;
}

static void release_all(void)
{
    while (side.nheld)
        plait_msg_release(side.held[--side.nheld]);
}

static void on_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)arg;
    side.received++;
    if (side.received == side.kill_at)
        kill(side.pid, SIGKILL);
    side.wrong += *(const uint64_t *)m->data != side.received - 1 || !is_right(m);
    side.held[side.nheld++] = plait_msg_hold(m);
    if (side.nheld == OFFERS && side.received < side.kill_at)
        while (side.nheld > OFFERS / 2)
            plait_msg_release(side.held[--side.nheld]);
}

static void on_open(struct plait_conn *c, void *arg)
{
    (void)arg;
    side.conn = c;
    side.opened++;
}

static void on_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    (void)c;
    (void)arg;
    side.closed++;
    side.code = why->code;
}

static void on_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    (void)s;
    (void)why;
    (void)arg;
    side.session_closed++;
}

static void on_done(int status, void *arg)
{
    (void)arg;
    side.done++;
    side.status = status;
}

static const struct plait_conn_ops conn_ops = { .on_open = on_open, .on_message = on_message, .on_closed = on_closed };
static const struct plait_session_ops session_ops = { .on_closed = on_session_closed };

static struct plait_listener *start_with(struct plait_ctx **ctx, struct peer *p, const char *mode, const char *n, const struct plait_conn_ops *ops,
                                         unsigned take)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l;

    memset(&side, 0, sizeof side);
    cr_assert_eq(plait_ctx_create(ctx, NULL), 0, "%s", plait_error_text());
    o.session.conn_ops = ops;
    o.session.take = take;
    o.session.session_ops = &session_ops;
    o.session.max_msg = OFFER_LEN;
    cr_assert_eq(plait_listen(&l, *ctx, "plait://127.0.0.1:0", &o), 0, "%s", plait_error_text());
    peer_start(p, mode, n ? n : plait_listener_uri(l), n ? plait_listener_uri(l) : NULL);
    side.pid = p->pid;
    return l;
}

static struct plait_listener *start(struct plait_ctx **ctx, struct peer *p, const char *mode)
{
    return start_with(ctx, p, mode, NULL, &conn_ops, PLAIT_TAKE_AUTO);
}

#define RUN_UNTIL(ctx, cond)                                                                     \
    do {                                                                                         \
        uint64_t end_ = pli_clock_now() + 30 * PLI_NS_PER_S;                                     \
        while (!(cond) && pli_clock_now() < end_)                                                \
            cr_assert_geq(plait_ctx_run(ctx, 100), 0, "%s", plait_error_text());                 \
        cr_assert(cond, "%s did not come true in 30 s", #cond);                                  \
    } while (0)

static struct plait_ctx_stats stats(struct plait_ctx *ctx)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0);
    return st;
}

/* What is held stays as it was, after everything else has gone. */
static void check_and_release(void)
{
    for (unsigned i = 0; i < side.nheld; i++)
        cr_assert(is_right(side.held[i]), "message %u", i);
    release_all();
}

Test(offer_death, the_sender_is_killed)
{
    struct traces before;
    uint64_t placed = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct plait_ctx *ctx;
        struct peer p;

        if (round == 1)
            before = traces_now();
        start(&ctx, &p, "offers");
        if (round % 3 == 0) { /* in the callback, while it reads */
            side.kill_at = round + 1;
            RUN_UNTIL(ctx, side.closed);
        } else { /* between callbacks: before the first message, after it, ... */
            side.kill_at = UINT64_MAX;
            RUN_UNTIL(ctx, side.opened && side.received + 1 >= round);
            if (round % 3 == 1)
                plait_ctx_poll(ctx);
            cr_assert_eq(kill(p.pid, SIGKILL), 0);
            side.kill_at = 0;
            RUN_UNTIL(ctx, side.closed);
        }
        cr_assert_eq(side.code, PLAIT_E_PEERDIED);
        cr_assert_eq(side.wrong, 0);
        placed += stats(ctx).offers_placed;
        if (round % 2)
            check_and_release();
        RUN_UNTIL(ctx, side.session_closed);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
        check_and_release();
        peer_end(&p);
    }
    cr_assert_gt(placed, ROUNDS);
    assert_no_traces(&before);
}

static int send_one(void)
{
    struct plait_out out = PLAIT_OUT_INIT;
    int rc;

    out.flags = PLAIT_NOCOPY;
    out.data = side.p + side.sent % (2 * OFFERS) * (OFFER_LEN / 8);
    out.len = OFFER_LEN;
    out.on_done = on_done;
    rc = plait_sendx(side.conn, &out);
    side.sent += rc == 0;
    return rc;
}

Test(offer_death, the_receiver_is_killed)
{
    enum phase { BEFORE_SHARED, ASKED, SENT, HELD, RELEASED, PHASES };
    struct traces before;

    for (unsigned round = 0; round < ROUNDS; round++) {
        enum phase phase = round % PHASES;
        struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
        struct plait_mem *mem;
        struct plait_ctx *ctx;
        struct peer p;

        if (round == 1)
            before = traces_now();
        start(&ctx, &p, "holds");
        cr_assert_eq(plait_mem_alloc(&mem, 2 * OFFERS * OFFER_LEN, NULL), 0, "%s", plait_error_text());
        side.p = plait_mem_addr(mem);
        RUN_UNTIL(ctx, side.opened);
        cr_assert_eq(send_one(), 0, "%s", plait_error_text());
        if (phase == ASKED)
            plait_ctx_poll(ctx);
        if (phase >= SENT)
            RUN_UNTIL(ctx, send_one() != 0 || stats(ctx).offers_sent > 0 || side.sent > 500);
        if (phase >= HELD)
            for (unsigned i = 0; i < 1 + round / PHASES; i++)
                cr_assert_geq(plait_ctx_run(ctx, 1000), 0);
        if (phase == RELEASED)
            cr_assert_eq(plait_mem_release(mem), 0);
        cr_assert_eq(kill(p.pid, SIGKILL), 0);
        RUN_UNTIL(ctx, side.session_closed);
        cr_assert_eq(side.code, PLAIT_E_PEERDIED);
        cr_assert_eq(side.done, side.sent);
        cr_assert_eq(side.status, PLAIT_E_PEERDIED);
        if (phase != RELEASED) {
            cr_assert_eq(plait_mem_get_info(mem, &info), 0);
            cr_assert_eq(info.in_use, 0, "%u still hold it", info.in_use);
            cr_assert_eq(plait_mem_release(mem), 0);
        }
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
        peer_end(&p);
    }
    assert_no_traces(&before);
}

/* ---- while it is copied, which is done in slices ---- */

static struct {
    uint8_t into[OFFER_LEN] __attribute__((aligned(8)));
    bool announced, closed;
} copy;

static void copy_offer(struct plait_conn *c, struct plait_offer *offer, void *arg)
{
    struct iovec iov = { copy.into, OFFER_LEN };

    (void)c;
    (void)arg;
    cr_assert(!copy.announced && !copy.closed);
    cr_assert_eq(plait_offer_into(offer, &iov, 1), 0, "%s", plait_error_text());
    copy.announced = true;
}

static void copy_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    (void)c;
    (void)arg;
    side.wrong += !copy.announced || *(const uint64_t *)m->data != side.received || !is_right(m);
    side.received++;
    copy.announced = false;
}

/* Its memory is the user's again. */
static void copy_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    on_closed(c, why, arg);
    copy.closed = true;
    memset(copy.into, 0x5a, OFFER_LEN);
}

static const struct plait_conn_ops copy_ops = {
    .on_open = on_open, .on_offer = copy_offer, .on_message = copy_message, .on_closed = copy_closed,
};

static uint64_t copies_begun(struct plait_ctx *ctx)
{
    return stats(ctx).offers_copied + stats(ctx).offers_cma;
}

/* Some slices are copied. False: it is never offered so here. */
static bool begin_copy(struct plait_ctx *ctx, unsigned slices)
{
    uint64_t end = pli_clock_now() + 30 * PLI_NS_PER_S, begun;

    for (;;) {
        begun = copies_begun(ctx);
        cr_assert_geq(plait_ctx_poll(ctx), 0, "%s", plait_error_text());
        cr_assert_lt(pli_clock_now(), end, "nothing is copied");
        if (stats(ctx).cma_refused)
            return false;
        for (unsigned i = 0; i < slices && copy.announced && copies_begun(ctx) > begun; i++) {
            if (i + 1 == slices)
                return true;
            cr_assert_geq(plait_ctx_poll(ctx), 0, "%s", plait_error_text());
        }
    }
}

static void sender_killed(unsigned take)
{
    struct traces before;
    bool able = true;

    setenv("PLAIT_TAKE", take == PLAIT_TAKE_CMA ? "cma" : "copy", 1);
    for (unsigned round = 0; round < ROUNDS && able; round++) {
        struct plait_ctx *ctx;
        struct peer p;

        if (round == 1)
            before = traces_now();
        memset(&copy, 0, sizeof copy);
        start_with(&ctx, &p, "offers", NULL, &copy_ops, take);
        able = begin_copy(ctx, 1 + round % 2);
        cr_assert_eq(kill(p.pid, SIGKILL), 0);
        if (round % 4 < 2)
            while (waitpid(p.pid, NULL, WNOHANG | WNOWAIT) == 0)
                sched_yield(); /* it is quite dead */
        RUN_UNTIL(ctx, side.closed);
        cr_assert_eq(side.code, PLAIT_E_PEERDIED);
        cr_assert_eq(side.wrong, 0);
        if (take == PLAIT_TAKE_COPY) /* its region has outlived it: what it sent is delivered first */
            cr_assert(!copy.announced);
        RUN_UNTIL(ctx, side.session_closed);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
        for (size_t i = 0; i < OFFER_LEN; i++)
            cr_assert_eq(copy.into[i], 0x5a, "written after the end");
        peer_end(&p);
    }
    unsetenv("PLAIT_TAKE");
    if (!able)
        cr_skip_test("process_vm_readv is refused here");
    assert_no_traces(&before);
}

Test(offer_death, the_sender_is_killed_while_it_is_copied)
{
    sender_killed(PLAIT_TAKE_COPY);
}

Test(offer_death, the_sender_is_killed_while_it_is_read)
{
    sender_killed(PLAIT_TAKE_CMA);
}

Test(offer_death, the_receiver_is_killed_while_it_copies)
{
    struct traces before;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
        struct plait_mem *mem;
        struct plait_ctx *ctx;
        struct peer p;

        if (round == 1)
            before = traces_now();
        start_with(&ctx, &p, "copies", round % 2 ? "1" : "0", &conn_ops, PLAIT_TAKE_AUTO);
        cr_assert_eq(plait_mem_alloc(&mem, 2 * OFFERS * OFFER_LEN, NULL), 0, "%s", plait_error_text());
        side.p = plait_mem_addr(mem);
        RUN_UNTIL(ctx, side.opened);
        uint64_t end = pli_clock_now() + 30 * PLI_NS_PER_S;
        while (!side.closed) { /* until it has died of one */
            cr_assert_lt(pli_clock_now(), end, "no message took more than one pass");
            if (side.sent - side.done < 1 + round % 3)
                send_one();
            cr_assert_geq(plait_ctx_run(ctx, 1000), 0, "%s", plait_error_text());
        }
        RUN_UNTIL(ctx, side.session_closed);
        cr_assert_eq(side.code, PLAIT_E_PEERDIED);
        cr_assert_eq(side.done, side.sent);
        if (round % 2 == 0) /* with one pass more it may have been done */
            cr_assert_eq(side.status, PLAIT_E_PEERDIED);
        cr_assert_gt(stats(ctx).offers_sent, 0);
        cr_assert_eq(plait_mem_get_info(mem, &info), 0);
        cr_assert_eq(info.in_use, 0, "%u still hold it", info.in_use);
        cr_assert_eq(plait_mem_release(mem), 0);
        cr_assert_eq(plait_ctx_destroy(ctx), 0);
        peer_end(&p);
    }
    assert_no_traces(&before);
}
