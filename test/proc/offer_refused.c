/* SPDX-License-Identifier: BSD-3-Clause */
/* A process reads the memory of another one, which then ceases to be dumpable: what is on the way by its addresses, and all that follows, comes
 * through the ring. One of them is killed in that, too. The reader is the parent, as Yama may demand; both are an ordinary user's. */
#include <grp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "runtime/conn.h"
#include "runtime/take.h"
#include "test/proc/session_util.h"

TestSuite(offer_refused, .timeout = 120);

#define LEN ((size_t)4 << 20)
#define WORDS (LEN / 8)
#define IN_FLIGHT 4u
#define SOME 6u /* messages before, and after */

static struct shared {
    char uri[256];
    _Atomic unsigned locked; /* not dumpable any more */
    _Atomic unsigned lock, done, bad;
} *shared;

static struct {
    struct plait_ctx *ctx;
    struct plait_conn *conn;
    unsigned n, wrong, closed;
    int code;
} me;

static void ordinary_user(void)
{
    if (geteuid() == 0) {
        cr_assert_eq(setgroups(0, NULL), 0);
        cr_assert_eq(setresgid(65534, 65534, 65534), 0);
        cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    }
    cr_assert_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* which a change of the user takes away */
}

/* ---- the sender ---- */

static uint64_t *memory;

static void send_one(void);

static void on_sent(int status, void *arg)
{
    (void)arg;
    if (status == 0) {
        atomic_fetch_add(&shared->done, 1);
        send_one();
    } else if (status != PLAIT_E_ABORTED) {
        atomic_fetch_add(&shared->bad, 1);
    }
}

static void send_one(void)
{
    uint64_t *p = memory + me.n % IN_FLIGHT * WORDS;
    struct plait_out out = PLAIT_OUT_INIT;

    for (size_t i = 0; i < WORDS; i++)
        p[i] = me.n ^ (i << 32);
    if (atomic_load(&shared->lock) && !atomic_load(&shared->locked)) {
        prctl(PR_SET_DUMPABLE, 0);
        atomic_store(&shared->locked, 1);
    }
    out.flags = PLAIT_NOCOPY;
    out.data = p;
    out.len = LEN;
    out.on_done = on_sent;
    if (plait_sendx(me.conn, &out) == 0)
        me.n++;
}

static void on_writable(struct plait_conn *c, void *arg)
{
    (void)arg;
    me.conn = c;
    if (me.n - atomic_load(&shared->done) < IN_FLIGHT)
        send_one();
}

static void on_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    (void)c;
    (void)arg;
    me.closed++;
    me.code = why->code;
}

static const struct plait_conn_ops sender_ops = { .on_writable = on_writable, .on_closed = on_closed };

/* Of the child process: until the connection ends. */
static void send_until_closed(void)
{
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s;

    o.take = PLAIT_TAKE_CMA;
    o.max_msg = LEN;
    o.conn_ops = &sender_ops;
    memory = malloc(IN_FLIGHT * LEN);
    if (!memory || plait_ctx_create(&me.ctx, NULL) < 0 || plait_session_open(&s, me.ctx, shared->uri, &o) < 0 ||
        plait_session_wait(s, -1) < 0)
        _exit(1);
    me.conn = plait_session_conn(s, 0);
    for (unsigned i = 0; i < IN_FLIGHT; i++)
        send_one();
    while (!me.closed && plait_ctx_run(me.ctx, 100) >= 0)
        ;
    _exit(atomic_load(&shared->bad) != 0);
}

/* ---- the receiver ---- */

static void on_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    const uint64_t *p = m->data;

    (void)arg;
    me.conn = c;
    if (m->len != LEN || ((uintptr_t)p & 7)) {
        me.wrong++;
        return;
    }
    for (size_t i = 0; i < WORDS; i++)
        me.wrong += p[i] != (me.n ^ (i << 32));
    me.n++;
}

static const struct plait_conn_ops receiver_ops = { .on_message = on_message, .on_closed = on_closed };

#define RUN_UNTIL(cond)                                                                          \
    do {                                                                                         \
        uint64_t end_ = pli_clock_now() + 60 * PLI_NS_PER_S;                                     \
        while (!(cond) && pli_clock_now() < end_)                                                \
            cr_assert_geq(plait_ctx_poll(me.ctx), 0, "%s", plait_error_text());                  \
        cr_assert(cond, "%s did not come true in 60 s", #cond);                                  \
    } while (0)

static struct plait_ctx_stats stats(void)
{
    struct plait_ctx_stats st = { .size = sizeof st };

    cr_assert_eq(plait_ctx_get_stats(me.ctx, &st), 0);
    return st;
}

/* Reads some messages; then the sender locks itself. False: nothing can be read here. */
static bool start(pid_t *child)
{
    struct plait_listen_opts o = PLAIT_LISTEN_OPTS_INIT;
    struct plait_listener *l;

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer allows no threads after a fork");
#endif
    memset(&me, 0, sizeof me);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    ordinary_user();
    cr_assert_eq(plait_ctx_create(&me.ctx, NULL), 0, "%s", plait_error_text());
    o.session.conn_ops = &receiver_ops;
    o.session.max_msg = LEN;
    cr_assert_eq(plait_listen(&l, me.ctx, "plait://127.0.0.1:0", &o), 0, "%s", plait_error_text());
    snprintf(shared->uri, sizeof shared->uri, "%s", plait_listener_uri(l));
    *child = fork();
    cr_assert_geq(*child, 0);
    if (*child == 0)
        send_until_closed();
    RUN_UNTIL(stats().offers_cma >= SOME || stats().cma_refused || me.closed);
    cr_assert_eq(me.closed, 0);
    if (stats().cma_refused)
        return false;
    atomic_store(&shared->lock, 1);
    return true;
}

static void stop(pid_t child, bool killed)
{
    int status = 0;

    if (!me.closed)
        cr_assert_eq(plait_conn_abort(me.conn), 0);
    RUN_UNTIL(me.closed);
    cr_assert_eq(me.wrong, 0);
    cr_assert_eq(plait_ctx_destroy(me.ctx), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    if (!killed)
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the sender ended with 0x%x", (unsigned)status);
    munmap(shared, sizeof *shared);
}

Test(offer_refused, a_sender_that_is_not_dumpable_any_more)
{
    uint64_t read;
    unsigned n;
    pid_t child;

    if (start(&child)) {
        RUN_UNTIL(stats().cma_refused);
        read = stats().offers_cma;
        n = me.n;
        RUN_UNTIL(me.n >= n + SOME + IN_FLIGHT);
        cr_assert_eq(stats().offers_cma, read);
        cr_assert_eq(stats().cma_refused, 1);
        cr_assert_eq(me.closed, 0);
        cr_assert_geq(atomic_load(&shared->done), SOME);
    }
    stop(child, false);
}

/* It has been asked for bytes, or some of them have come. */
Test(offer_refused, the_sender_is_killed)
{
    for (unsigned polls = 0; polls < 10; polls++) {
        pid_t child;
        bool able = start(&child);

        if (able) {
            RUN_UNTIL(me.conn->taking && me.conn->taking->asked);
            for (unsigned i = 0; i < polls; i++)
                plait_ctx_poll(me.ctx);
            cr_assert_eq(kill(child, SIGKILL), 0);
            RUN_UNTIL(me.closed);
            cr_assert_eq(me.code, PLAIT_E_PEERDIED);
        }
        stop(child, able);
    }
}
