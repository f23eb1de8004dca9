/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: what is withdrawn, released, closed, aborted, destroyed, forked. */
#include "test/unit/runtime/child.h"
#include "test/unit/runtime/rma_util.h"
#include "test/unit/runtime/session_thread.h"
#include "util/spin.h"

TestSuite(rma_withdraw, .timeout = 120);

static int get(const struct pair *p)
{
    static char buf[64];
    int rc = plait_get(p->user, &p->key, 0, buf, sizeof buf, NULL, NULL);

    return outcome_of(p->w, p->user, rc);
}

/* ---- withdrawing ---- */

Test(rma_withdraw, at_once)
{
    struct pair *p = new_pair(4096);
    struct outcome gone = { 0 };
    char buf[8];

    cr_assert_eq(flush(p), 0);
    FAILS(get(p), 0);
    cr_assert_eq(in_use(p->mem), 1);
    FAILS(plait_mem_withdraw(&p->key, on_done, &gone), 0);
    /* nobody has polled: the peer has not heard of it */
    SAYS(plait_mem_withdraw(&p->key, NULL, NULL), PLAIT_E_REVOKED, "already");
    REFUSES(p->w, p->user, plait_get(p->user, &p->key, 0, buf, 8, NULL, NULL), PLAIT_E_REVOKED, "'window' has been withdrawn");
    REFUSES(p->w, p->user, plait_put(p->user, &p->key, 0, "x", 1, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    REFUSES(p->w, p->user, plait_get(p->user, &p->key, 0, buf, 0, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    REFUSES(p->w, p->user, plait_atomic_add(p->user, &p->key, 0, 1, NULL, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    cr_assert(REMOTE || gone.n == 0, "called from inside");
    WAIT(p->w, gone.n, 1);
    cr_assert_eq(gone.status, 0);
    cr_assert_eq(in_use(p->mem), 0);
    SAYS(get(p), PLAIT_E_REVOKED, "has been withdrawn by its owner");
    SAYS(plait_mem_withdraw(&p->key, NULL, NULL), PLAIT_E_NOTFOUND, "not made by this process");
    settle(p->w);
    cr_assert_eq(gone.n, 1);
    /* again, with another key */
    FAILS(plait_mem_export(p->mem, p->owner, RW, &p->key), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    FAILS(get(p), 0);
    end_pair(p);
}

/* Before the peer has heard of the export. */
Test(rma_withdraw, before_it_has_come)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 }, gone = { 0 };

    FAILS(plait_put(p->user, &p->key, 0, "x", 1, on_done, &o), 0);
    FAILS(plait_mem_withdraw(&p->key, on_done, &gone), 0);
    WAIT(p->w, o.n, 1);
    WAIT(p->w, gone.n, 1);
    cr_assert_eq(o.status, PLAIT_E_REVOKED);
    cr_assert_eq(gone.status, 0);
    cr_assert_eq(p->addr[0], 0);
    end_pair(p);
}

/* The region goes, and its exports with it; the peer cannot tell the difference. */
Test(rma_withdraw, release)
{
    struct pair *p = new_pair(4096);
    struct plait_key second;
    char buf[8];
    int fds;

    FAILS(plait_mem_export(p->mem, p->owner, PLAIT_ACCESS_READ, &second), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    cr_assert_eq(in_use(p->mem), 2);
    fds = count_fds();
    pli_mem_hold(p->mem);
    FAILS(plait_mem_release(p->mem), 0);
    cr_assert_eq(get(p), PLAIT_E_REVOKED);
    REFUSES(p->w, p->user, plait_get(p->user, &second, 0, buf, 8, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    p->addr[0] = 'y'; /* ours until the peer has unmapped it: nothing that was under way faults */
    settle(p->w);
    cr_assert_eq(atomic_load(&p->mem->refs), 1);
    pli_mem_put(p->mem);
    cr_assert_eq(count_fds(), fds - 1);
    SAYS(get(p), PLAIT_E_REVOKED, "withdrawn");
    p->mem = NULL;
    end_pair(p);
}

/* One region for several sessions: each key has its own life. */
Test(rma_withdraw, several_sessions)
{
    struct pair *p = new_pair(4096);
    struct log more[3];
    struct plait_key keys[3];
    struct outcome gone = { 0 };

    for (int i = 0; i < 3; i++) {
        struct log *srv = open_session(p->w, &more[i], NULL);

        FAILS(plait_mem_export(p->mem, srv->conn[0], RW, &keys[i]), 0);
    }
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    for (uint64_t i = 0; i < 3; i++)
        DOES(p->w, more[i].conn[0], plait_atomic_add(more[i].conn[0], &keys[i], 0, i + 1, NULL, NULL, NULL));
    cr_assert_eq(((uint64_t *)(void *)p->addr)[0], 6);
    FAILS(plait_mem_withdraw(&keys[1], on_done, &gone), 0);
    FAILS(plait_atomic_add(more[0].conn[0], &keys[0], 0, 1, NULL, NULL, NULL), 0);
    REFUSES(p->w, more[1].conn[0], plait_atomic_add(more[1].conn[0], &keys[1], 0, 1, NULL, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    FAILS(plait_atomic_add(more[2].conn[0], &keys[2], 0, 1, NULL, NULL, NULL), 0);
    FAILS(get(p), 0);
    WAIT(p->w, gone.n, 1);
    end_session(p->w, &more[0]);
    settle(p->w);
    SAYS(plait_mem_withdraw(&keys[0], NULL, NULL), PLAIT_E_NOTFOUND, "ended with its connection");
    FAILS(plait_atomic_add(more[2].conn[0], &keys[2], 0, 1, NULL, NULL, NULL), 0);
    FAILS(get(p), 0);
    end_session(p->w, &more[1]);
    end_session(p->w, &more[2]);
    settle(p->w);
    cr_assert_eq(in_use(p->mem), 1);
    end_pair(p);
}

/* Both sides of one session export to each other. */
Test(rma_withdraw, both_directions)
{
    struct pair *p = new_pair(4096);
    struct plait_mem *back = writable(4096);
    struct plait_key key;

    FAILS(plait_mem_export(back, p->user, RW, &key), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    for (int i = 0; i < 100; i++) {
        FAILS(plait_atomic_add(p->user, &p->key, 0, 1, NULL, NULL, NULL), 0);
        FAILS(plait_atomic_add(p->owner, &key, 0, 2, NULL, NULL, NULL), 0);
    }
    cr_assert_eq(outcome_of(p->w, p->user, 0), 0);
    cr_assert_eq(outcome_of(p->w, p->owner, 0), 0);
    cr_assert_eq(((uint64_t *)(void *)p->addr)[0], 100);
    cr_assert_eq(*(uint64_t *)plait_mem_addr(back), 200);
    FAILS(plait_mem_release(back), 0);
    REFUSES(p->w, p->owner, plait_atomic_add(p->owner, &key, 0, 2, NULL, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    FAILS(get(p), 0);
    end_pair(p);
}

/* ---- ends ---- */

/* How the user's connection ends while operations wait; what it ends with. */
static void end_while_waiting(void (*end)(struct pair *p), int status)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 }, f = { 0 };
    struct plait_key never = p->key;
    uint32_t check;

    never.bytes[0] += 7;
    check = (uint32_t)pli_hash_bytes(&never, 28);
    memcpy(never.bytes + 28, &check, 4);
    cr_assert_eq(flush(p), 0);
    for (int i = 0; i < 10; i++)
        FAILS(plait_put(p->user, i == 0 ? &never : &p->key, 0, "x", 1, i % 2 ? NULL : on_done, &o), 0);
    FAILS(plait_rma_flush(p->user, on_done, &f), 0);
    end(p);
    WAIT(p->w, f.n, 1);
    cr_assert_eq(o.n, 5);
    cr_assert_eq(o.status, status, "%s", plait_status_name(o.status));
    cr_assert_eq(f.status, status);
    WAIT(p->w, p->cli.c_closed, 1);
    settle(p->w);
    cr_assert_eq(o.n, 5);
    cr_assert_eq(f.n, 1);
    if (p->mem) {
        cr_assert_eq(in_use(p->mem), 0);
        SAYS(plait_mem_withdraw(&p->key, NULL, NULL), PLAIT_E_NOTFOUND, "ended");
    }
    SAYS(get(p), PLAIT_E_CLOSED, "closed");
    end_pair(p);
}

static void user_aborts(struct pair *p)
{
    FAILS(plait_conn_abort(p->user), 0);
}

static void owner_aborts(struct pair *p)
{
    FAILS(plait_conn_abort(p->owner), 0);
}

static void owner_destroys_its_context(struct pair *p)
{
    FAILS(plait_ctx_destroy(p->w->ctx[0]), 0);
    p->w->ctx[0] = NULL;
}

static void lost(struct pair *p)
{
    pli_link_fail(p->owner->link, PLAIT_E_PROTO, "the test ends it");
}

Test(rma_withdraw, user_aborts)
{
    end_while_waiting(user_aborts, PLAIT_E_ABORTED);
}

Test(rma_withdraw, owner_aborts)
{
    end_while_waiting(owner_aborts, PLAIT_E_ABORTED);
}

Test(rma_withdraw, owner_destroys_its_context)
{
    end_while_waiting(owner_destroys_its_context, PLAIT_E_ABORTED);
}

Test(rma_withdraw, link_is_lost)
{
    end_while_waiting(lost, PLAIT_E_PROTO);
}

/* The owner closes in order, with operations under way; the user does not wait for their end. What still comes for its connection harms no
 * other one on the link. after: the owner's DONE has come, or is on its way. */
static void abort_while_closing(bool after)
{
    static char buf[16384];
    struct log other, *srv;
    struct outcome o = { 0 };
    struct pair *p;

    if (!REMOTE)
        cr_skip_test("nobody answers operations on shared memory");
    p = new_pair(1 << 20);
    srv = open_session(p->w, &other, NULL);
    cr_assert_eq(flush(p), 0);
    for (int i = 0; i < 1000; i++)
        FAILS(plait_put(p->user, &p->key, 0, buf, sizeof buf, on_done, &o), 0);
    FAILS(plait_conn_close(p->owner), 0);
    while (!p->srv->c_closed && (after ? p->user->state != PLI_CONN_DONE_RCVD : p->owner->state != PLI_CONN_DONE_SENT))
        poll_all(p->w);
    for (int i = 0; i < 50; i++)
        cr_assert_geq(plait_ctx_poll(p->w->ctx[0]), 0);
    if (!p->cli.c_closed)
        plait_conn_abort(p->user);
    WAIT(p->w, p->cli.c_closed, 1);
    WAIT(p->w, p->srv->c_closed, 1);
    cr_assert_eq(o.n, 1000);
    settle(p->w);
    cr_assert_eq(other.c_closed + srv->c_closed, 0, "%s%s", other.c_text, srv->c_text);
    FAILS(plait_request(other.conn[0], "x", 1, 0, on_reply, &o), 0);
    WAIT(p->w, o.n, 1001);
    cr_assert_eq(o.status, PLAIT_E_NOREPLY, "the server's own word: %s", plait_status_name(o.status));
    end_session(p->w, &other);
    end_pair(p);
}

Test(rma_withdraw, abort_behind_done)
{
    abort_while_closing(true);
}

Test(rma_withdraw, abort_before_done)
{
    abort_while_closing(false);
}

/* on_gone, when the peer is gone before it answers. */
Test(rma_withdraw, gone_with_the_link)
{
    struct pair *p = new_pair(4096);
    struct outcome gone = { 0 };

    cr_assert_eq(flush(p), 0);
    FAILS(plait_mem_withdraw(&p->key, on_done, &gone), 0);
    FAILS(plait_ctx_destroy(p->w->ctx[1]), 0);
    p->w->ctx[1] = NULL;
    WAIT(p->w, gone.n, 1);
    cr_assert_eq(in_use(p->mem), 0);
    FAILS(plait_mem_export(p->mem, p->owner, RW, &p->key), PLAIT_E_CLOSED);
    FAILS(plait_mem_release(p->mem), 0);
    end_world(p->w);
    cr_assert_eq(p->cli.closed, 1);
    plait_session_release(p->cli.s);
}

/* The owner's context, with a withdrawal that it has not told of yet. */
Test(rma_withdraw, gone_with_the_context)
{
    struct pair *p = new_pair(4096);
    struct outcome gone = { 0 };

    cr_assert_eq(flush(p), 0);
    FAILS(plait_mem_withdraw(&p->key, on_done, &gone), 0);
    FAILS(plait_ctx_destroy(p->w->ctx[0]), 0);
    p->w->ctx[0] = NULL;
    cr_assert_eq(gone.n, 1);
    cr_assert_eq(gone.status, PLAIT_E_ABORTED);
    WAIT(p->w, p->cli.closed, 1);
    end_pair(p);
}

/* The connection has ended, and the key with it, on a link that goes on: when is the region the owner's alone again? */
Test(rma_withdraw, gone_after_the_connection)
{
    struct pair *p = new_pair(4096);
    struct outcome gone = { 0 }, never = { 0 };
    struct log other;
    struct plait_key key;

    for (int i = 0; i < 3; i++) { /* how it ends: by the user, by the owner, and by a release of the region */
        struct plait_mem *mem = writable(4096);
        struct log *srv = open_session(p->w, &other, NULL);

        gone.n = 0;
        FAILS(plait_mem_export(mem, srv->conn[0], RW, &key), 0);
        FAILS(plait_put(other.conn[0], &key, 0, "x", 1, on_done, &never), 0);
        WAIT(p->w, never.n, (unsigned)i + 1);
        pli_mem_hold(mem);
        if (i == 2)
            FAILS(plait_mem_release(mem), 0);
        else
            FAILS(plait_conn_abort(i ? srv->conn[0] : other.conn[0]), 0);
        for (int ctx = 1; i < 2 && !srv->c_closed; ctx = !ctx) /* not further: the peer has not answered yet */
            cr_assert_geq(plait_ctx_poll(p->w->ctx[i ? 0 : ctx]), 0);
        FAILS(plait_mem_withdraw(&key, on_done, &gone), 0);
        SAYS(plait_mem_withdraw(&key, on_done, &never), PLAIT_E_REVOKED, "already");
        cr_assert_eq(gone.n, 0);
        WAIT(p->w, gone.n, 1);
        cr_assert_eq(gone.status, 0);
        cr_assert_eq(atomic_load(&mem->refs), i == 2 ? 1 : 2, "the link has let go of the region");
        SAYS(plait_mem_withdraw(&key, on_done, &never), PLAIT_E_NOTFOUND, "ended with its connection");
        pli_mem_put(mem);
        if (i < 2)
            FAILS(plait_mem_release(mem), 0);
        end_session(p->w, &other);
        settle(p->w);
        cr_assert_eq(gone.n, 1);
        cr_assert_eq(never.n, i + 1);
    }
    cr_assert_eq(flush(p), 0);
    FAILS(get(p), 0);
    end_pair(p);
}

static struct outcome gone_later;

static void withdraw_it(struct log *log, struct plait_conn *c)
{
    struct pair *p = log->user;

    (void)c;
    FAILS(plait_mem_withdraw(&p->key, on_done, &gone_later), 0);
    cr_assert_eq(gone_later.n, 0, "called from inside");
}

/* In on_closed, when the link is lost. */
Test(rma_withdraw, gone_after_the_link)
{
    struct pair *p = new_pair(4096);

    cr_assert_eq(flush(p), 0);
    p->srv->user = p;
    p->srv->on_closed = withdraw_it;
    lost(p);
    WAIT(p->w, gone_later.n, 1);
    cr_assert_eq(gone_later.status, PLAIT_E_PROTO);
    cr_assert_eq(in_use(p->mem), 0);
    WAIT(p->w, p->cli.c_closed, 1);
    settle(p->w);
    cr_assert_eq(gone_later.n, 1);
    end_pair(p);
}

/* A callback aborts the connection whose other operations are to be told. */
static void on_done_abort(int status, void *arg)
{
    struct pair *p = arg;

    cr_assert_eq(status, 0);
    plait_conn_abort(p->user);
    /* and the session, which is released here by its only holder */
    plait_session_release(p->cli.s);
}

Test(rma_withdraw, ends_from_a_callback)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 };

    cr_assert_eq(flush(p), 0);
    FAILS(plait_put(p->user, &p->key, 0, "x", 1, on_done_abort, p), 0);
    for (int i = 0; i < 10; i++)
        FAILS(plait_put(p->user, &p->key, 0, "x", 1, on_done, &o), 0);
    WAIT(p->w, o.n, 10);
    WAIT(p->w, p->srv->c_closed, 1);
    FAILS(plait_mem_release(p->mem), 0);
    end_world(p->w);
}

/* ---- threads ---- */

static _Atomic unsigned rounds;

static void *withdraws(void *arg)
{
    struct pair *p = arg;
    unsigned before = atomic_load(&rounds);

    while (atomic_load(&rounds) < before + 3)
        pli_spin_wait();
    return plait_mem_withdraw(&p->key, NULL, NULL) == 0 ? NULL : (void *)1;
}

/* Another thread withdraws, in the middle of large copies; none is partly new that says that it was done. */
Test(rma_withdraw, in_the_middle)
{
    enum { LEN = 8 << 20 };
    static uint8_t data[LEN];
    struct pair *p = new_pair(LEN);
    pthread_t t;
    void *bad;
    int rc;

    cr_assert_eq(flush(p), 0);
    for (unsigned round = 0; round < 20; round++) {
        pthread_create(&t, NULL, withdraws, p);
        for (uint8_t i = 1;; i++) {
            memset(data, i, LEN);
            rc = outcome_of(p->w, p->user, plait_put(p->user, &p->key, 0, data, LEN, NULL, NULL));
            if (rc < 0)
                break;
            cr_assert_eq(p->addr[0], (char)i);
            cr_assert_eq(p->addr[LEN - 1], (char)i);
            atomic_fetch_add(&rounds, 1);
        }
        cr_assert_eq(rc, PLAIT_E_REVOKED, "%s", plait_error_text());
        pthread_join(t, &bad);
        cr_assert_null(bad);
        FAILS(plait_mem_export(p->mem, p->owner, RW, &p->key), 0);
        cr_assert_eq(flush(p), 0);
        settle(p->w);
    }
    end_pair(p);
}

/* Releases regions from a thread that owns neither context, while these run and end. */
static void *releases(void *arg)
{
    struct plait_mem **m = arg;

    for (int i = 0; i < 50; i++)
        plait_mem_release(m[i]);
    return NULL;
}

Test(rma_withdraw, released_by_another_thread)
{
    for (int round = 0; round < 10; round++) {
        struct pair *p = new_pair(4096);
        struct plait_mem *m[50];
        struct plait_key key;
        pthread_t t;

        for (int i = 0; i < 50; i++) {
            m[i] = writable(4096);
            FAILS(plait_mem_export(m[i], p->owner, RW, &key), 0);
        }
        pthread_create(&t, NULL, releases, m);
        for (int i = 0; i < round; i++)
            poll_all(p->w);
        if (round % 2)
            owner_destroys_its_context(p);
        end_pair(p);
        pthread_join(t, NULL);
    }
}

/* ---- fork ---- */

static int child(void *arg)
{
    struct pair *p = arg;
    struct plait_key key;
    char buf[8];

    if (plait_put(p->user, &p->key, 0, "x", 1, NULL, NULL) != PLAIT_E_FORKED ||
        plait_get(p->user, &p->key, 0, buf, 1, NULL, NULL) != PLAIT_E_FORKED ||
        plait_rma_flush(p->user, on_done, NULL) != PLAIT_E_FORKED)
        return 1;
    if (plait_mem_export(p->mem, p->owner, RW, &key) != PLAIT_E_FORKED)
        return 2;
    if (plait_mem_withdraw(&p->key, NULL, NULL) != PLAIT_E_FORKED)
        return 3;
    if (plait_mem_release(p->mem) != 0)
        return 4;
    if (plait_ctx_destroy(p->w->ctx[0]) != 0 || plait_ctx_destroy(p->w->ctx[1]) != 0)
        return 5;
    return 0;
}

/* What the child does to its copies is not the parent's. */
Test(rma_withdraw, fork)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 };

    cr_assert_eq(flush(p), 0);
    FAILS(plait_put(p->user, &p->key, 0, "x", 1, on_done, &o), 0); /* not told of yet */
    cr_assert_eq(in_child(child, p), 0);
    FAILS(get(p), 0);
    WAIT(p->w, o.n, 1);
    DOES(p->w, p->user, plait_put(p->user, &p->key, 0, "yes", 4, NULL, NULL));
    cr_assert_str_eq(p->addr, "yes");
    end_pair(p);
}

/* A child with exports of its own. */
static int child_with_its_own(void *arg)
{
    struct pair *p;

    (void)arg;
    p = new_pair(4096);
    if (flush(p) != 0 || get(p) != 0)
        return 1;
    FAILS(plait_mem_withdraw(&p->key, NULL, NULL), 0);
    if (get(p) != PLAIT_E_REVOKED)
        return 2;
    end_pair(p);
    return 0;
}

Test(rma_withdraw, fork_and_begin_anew)
{
    struct pair *p, mine;

#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer has no threads after a fork");
#endif
    p = new_pair(4096);
    mine = *p;
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(in_child(child_with_its_own, NULL), 0);
    FAILS(get(&mine), 0);
    end_pair(p);
}
