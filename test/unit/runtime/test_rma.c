/* SPDX-License-Identifier: BSD-3-Clause */
/* One-sided operations: put, get, atomics, flush; what is refused. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include "runtime/rma.h"
#include "test/unit/runtime/rma_util.h"

TestSuite(rma, .timeout = 120);

/* ---- what they do ---- */

Test(rma, put_and_get)
{
    static const size_t sizes[] = { 1, 7, 8, 63, 64, 65, 4096, 100000, 262143, 262144, 262145, 1 << 20 };
    static uint8_t data[1 << 20], back[1 << 20];
    struct pair *p = new_pair((1 << 20) + 77);
    struct outcome put, get;

    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put = get = (struct outcome){ 0 };
        fill_bytes(data, sizes[i], i);
        memset(back, 0, sizeof back);
        FAILS(plait_put(p->user, &p->key, i * 7, data, sizes[i], on_done, &put), 0);
        FAILS(plait_get(p->user, &p->key, i * 7, back, sizes[i], on_done, &get), 0);
        cr_assert_eq(put.n + get.n, 0, "called from inside");
        WAIT(p->w, get.n, 1);
        cr_assert_eq(put.n, 1);
        cr_assert_eq(put.status, 0);
        cr_assert_eq(get.status, 0);
        cr_assert(has_bytes(back, sizes[i], i), "%zu bytes", sizes[i]);
        cr_assert(has_bytes(p->addr + i * 7, sizes[i], i), "%zu bytes", sizes[i]);
    }
    /* the last byte */
    FAILS(plait_put(p->user, &p->key, (1 << 20) + 76, "x", 1, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(p->addr[(1 << 20) + 76], 'x');
    end_pair(p);
}

/* What nobody is told of one by one is told of by the flush. */
Test(rma, without_on_done)
{
    struct pair *p = new_pair(4096);
    uint64_t old = 1, squares[512];

    for (uint64_t i = 0; i < 512; i++) {
        squares[i] = i * i;
        FAILS(plait_put(p->user, &p->key, i * 8, &squares[i], 8, NULL, NULL), 0);
    }
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(memcmp(p->addr, squares, sizeof squares), 0);
    memset(p->addr, 0, 4096);
    FAILS(plait_atomic_add(p->user, &p->key, 8, 5, &old, NULL, NULL), 0);
    FAILS(plait_atomic_add(p->user, &p->key, 8, 5, NULL, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(old, 0);
    cr_assert_eq(((uint64_t *)(void *)p->addr)[1], 10);
    end_pair(p);
}

Test(rma, atomics)
{
    struct pair *p = new_pair(4096);
    uint64_t *word = (uint64_t *)(void *)(p->addr + 4088);
    struct outcome o = { 0 };
    uint64_t old = 99;

    FAILS(plait_atomic_add(p->user, &p->key, 4088, 40, &old, on_done, &o), 0);
    FAILS(plait_atomic_add(p->user, &p->key, 4088, 2, NULL, on_done, &o), 0);
    WAIT(p->w, o.n, 2);
    cr_assert_eq(old, 0);
    cr_assert_eq(*word, 42);
    FAILS(plait_atomic_cas(p->user, &p->key, 4088, 41, 1, &old, on_done, &o), 0);
    WAIT(p->w, o.n, 3);
    cr_assert_eq(old, 42);
    cr_assert_eq(*word, 42);
    FAILS(plait_atomic_cas(p->user, &p->key, 4088, 42, 7, &old, on_done, &o), 0);
    WAIT(p->w, o.n, 4);
    cr_assert_eq(old, 42);
    cr_assert_eq(*word, 7);
    FAILS(plait_atomic_cas(p->user, &p->key, 4088, 7, 8, NULL, NULL, NULL), 0);
    FAILS(plait_atomic_add(p->user, &p->key, 4088, UINT64_MAX, &old, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(old, 8);
    cr_assert_eq(*word, 7, "it wraps around");
    end_pair(p);
}

Test(rma, nothing_at_all)
{
    struct pair *p = new_pair(100);
    struct outcome o = { 0 };

    FAILS(plait_put(p->user, &p->key, 0, NULL, 0, on_done, &o), 0);
    FAILS(plait_get(p->user, &p->key, 100, NULL, 0, on_done, &o), 0);
    WAIT(p->w, o.n, 2);
    cr_assert_eq(o.status, 0);
    SAYS(plait_put(p->user, &p->key, 101, NULL, 0, on_done, &o), PLAIT_E_INVAL, "outside");
    cr_assert_eq(flush(p), 0);
    end_pair(p);
}

/* A context is its own peer. */
Test(rma, with_itself)
{
    struct pair *p = new_pair(4096);
    struct plait_session_opts so;
    struct plait_key key;
    struct log self;
    uint64_t old = 5;

    log_init(&self, p->w);
    so = session_opts(&self);
    FAILS(plait_session_open(&self.s, p->w->ctx[0], p->w->uri, &so), 0);
    WAIT(p->w, self.opened, 1);
    WAIT(p->w, p->w->srv[1].c_opened, 1);
    FAILS(plait_mem_export(p->mem, p->w->srv[1].conn[0], RW, &key), 0);
    p->user = self.conn[0];
    FAILS(plait_put(p->user, &key, 8, "itself", 7, NULL, NULL), 0);
    FAILS(plait_atomic_add(p->user, &key, 0, 3, &old, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_eq(old, 0);
    cr_assert_eq(p->addr[0], 3);
    cr_assert_str_eq(p->addr + 8, "itself");
    SAYS(plait_get(p->w->srv[1].conn[0], &key, 0, &old, 8, NULL, NULL), PLAIT_E_INVAL, "this end");
    end_session(p->w, &self);
    end_pair(p);
}

/* ---- threads: contexts of one process, each with a thread of its own ---- */

enum { THREADS = 3, TIMES = 20000 };

struct user {
    const struct pair *p;
    struct plait_key key;
    struct plait_session *s;
    _Atomic int step; /* 1: it is open, 2: it has a key, 3: it is done */
    pthread_t thread;
};

static void *user_main(void *arg)
{
    static const struct plait_conn_ops ops = { .on_open = NULL };
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;
    struct user *u = arg;
    struct plait_ctx *ctx;
    struct outcome f = { 0 };
    uint64_t old;
    int rc;

    o.conn_ops = &ops;
    rc = plait_ctx_create(&ctx, NULL);
    if (rc == 0)
        rc = plait_session_open(&u->s, ctx, u->p->w->uri, &o);
    if (rc == 0)
        rc = plait_session_wait(u->s, -1);
    atomic_store(&u->step, rc == 0 ? 1 : 3);
    while (atomic_load(&u->step) == 1)
        plait_ctx_poll(ctx);
    for (int i = 0; i < TIMES && rc == 0; i++) {
        struct plait_conn *c = plait_session_conn(u->s, 0);

        while ((rc = plait_atomic_add(c, &u->key, 0, 1, i % 7 ? NULL : &old, NULL, NULL)) == PLAIT_E_AGAIN)
            plait_ctx_poll(ctx); /* the region has not come yet */
        if (i % 100 == 0)
            plait_ctx_poll(ctx);
        if (rc == 0 && i == TIMES - 1)
            while ((rc = plait_rma_flush(c, on_done, &f)) == PLAIT_E_AGAIN)
                plait_ctx_poll(ctx);
    }
    while (rc == 0 && f.n == 0)
        plait_ctx_poll(ctx);
    plait_session_release(u->s);
    atomic_store(&u->step, 3);
    plait_ctx_destroy(ctx);
    return rc || f.status ? arg : NULL;
}

Test(rma, threads)
{
    struct pair *p = new_pair(4096);
    struct user u[THREADS];
    uint64_t mine = 0;
    void *bad;

    for (int i = 0; i < THREADS; i++) {
        u[i] = (struct user){ .p = p };
        pthread_create(&u[i].thread, NULL, user_main, &u[i]);
        while (atomic_load(&u[i].step) == 0)
            poll_all(p->w);
        cr_assert_eq(atomic_load(&u[i].step), 1);
        WAIT(p->w, p->w->srv[i + 1].c_opened, 1);
        FAILS(plait_mem_export(p->mem, p->w->srv[i + 1].conn[0], RW, &u[i].key), 0);
    }
    for (int i = 0; i < THREADS; i++)
        atomic_store(&u[i].step, 2);
    for (int i = 0; i < THREADS; i++) {
        while (atomic_load(&u[i].step) != 3) {
            poll_all(p->w);
            atomic_fetch_add((_Atomic uint64_t *)(void *)p->addr, 1);
            mine++;
        }
        pthread_join(u[i].thread, &bad);
        cr_assert_null(bad);
    }
    cr_assert_eq(atomic_load((_Atomic uint64_t *)(void *)p->addr), THREADS * TIMES + mine);
    end_pair(p);
}

/* ---- before the region is there ---- */

/* The key is used before the control channel has been read; order is kept, also with what needs no waiting. */
Test(rma, the_key_comes_first)
{
    struct pair *p = new_pair(4096);
    struct plait_key second;
    struct plait_mem *other = writable(64);
    struct outcome o = { 0 };
    char buf[8] = "", text[6][4] = { "aaa", "bbb", "ccc" };
    uint64_t old = 9;

    FAILS(plait_put(p->user, &p->key, 0, text[0], 3, on_done, &o), 0);
    cr_assert_eq(p->addr[0], 0, "it has not come yet");
    FAILS(plait_put(p->user, &p->key, 0, text[1], 3, NULL, NULL), 0);
    FAILS(plait_get(p->user, &p->key, 0, buf, 3, NULL, NULL), 0);
    FAILS(plait_put(p->user, &p->key, 0, text[2], 3, on_done, &o), 0);
    FAILS(plait_put(p->user, &p->key, 4096, text[2], 3, NULL, NULL), 0); /* outside: for the flush */
    FAILS(plait_atomic_add(p->user, &p->key, 8, 1, &old, on_done, &o), 0);
    WAIT(p->w, o.n, 3);
    cr_assert_str_eq(buf, "bbb");
    cr_assert_str_eq(p->addr, "ccc");
    cr_assert_eq(old, 0);
    cr_assert_eq(flush(p), PLAIT_E_INVAL);
    cr_assert_eq(flush(p), 0, "an error is told once");

    /* one that is there waits behind one that is not */
    FAILS(plait_mem_export(other, p->owner, RW, &second), 0);
    FAILS(plait_put(p->user, &second, 0, text[0], 3, NULL, NULL), 0);
    FAILS(plait_put(p->user, &p->key, 0, text[1], 3, on_done, &o), 0);
    cr_assert_str_eq(p->addr, "ccc");
    cr_assert_eq(flush(p), 0);
    cr_assert_str_eq(p->addr, "bbb");
    cr_assert_str_eq(plait_mem_addr(other), "aaa");
    FAILS(plait_mem_release(other), 0);
    end_pair(p);
}

static void completed_before(struct log *log, struct plait_conn *c)
{
    const struct outcome *o = log->user;

    (void)c;
    cr_assert_eq(o->n, 1);
}

/* An orderly close waits for what waits. */
Test(rma, close_waits_for_operations)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 };

    FAILS(plait_put(p->user, &p->key, 0, "late", 4, on_done, &o), 0);
    p->cli.user = &o;
    p->cli.on_closed = completed_before;
    FAILS(plait_session_close(p->cli.s), 0);
    SAYS(plait_put(p->user, &p->key, 0, "late", 4, on_done, &o), PLAIT_E_CLOSED, "closed");
    WAIT(p->w, o.n, 1);
    cr_assert_eq(o.status, 0);
    cr_assert_eq(memcmp(p->addr, "late", 5), 0);
    end_pair(p);
}

/* A key that nobody exported, well made: its operations give up, and those behind them go on. */
Test(rma, a_key_that_never_comes)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 }, good = { 0 };
    struct plait_key forged = p->key;
    uint64_t began = pli_clock_now();
    uint32_t check;

    cr_assert_eq(flush(p), 0);
    forged.bytes[0] += 7; /* its number */
    check = (uint32_t)pli_hash_bytes(&forged, 28);
    memcpy(forged.bytes + 28, &check, 4);
    FAILS(plait_put(p->user, &forged, 0, "x", 1, on_done, &o), 0);
    FAILS(plait_put(p->user, &p->key, 0, "x", 1, on_done, &good), 0);
    WAIT(p->w, good.n, 1);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_TIMEDOUT);
    cr_assert_eq(good.status, 0);
    cr_assert_geq(pli_clock_now() - began, PLAIT_RMA_WAIT_MS * PLI_NS_PER_MS);
    end_pair(p);
}

/* ---- bounds on how many ---- */

Test(rma, too_many_at_once)
{
    struct pair *p = new_pair(4096);
    struct outcome o = { 0 };
    unsigned n = 0, again = 0;

    for (int round = 0; round < 3; round++) {
        int rc;

        while ((rc = plait_atomic_add(p->user, &p->key, 0, 1, NULL, on_done, &o)) == 0)
            n++;
        cr_assert_eq(rc, PLAIT_E_AGAIN, "%s", plait_error_text());
        again++;
        cr_assert_eq(n, again * PLAIT_RMA_OPS_MAX);
        FAILS(plait_rma_flush(p->user, on_done, &o), PLAIT_E_AGAIN);
        WAIT(p->w, p->cli.writable, again);
        WAIT(p->w, o.n, n);
    }
    cr_assert_eq(((uint64_t *)(void *)p->addr)[0], n);
    end_pair(p);
}

Test(rma, too_many_exports)
{
    struct pair *p = new_pair(4096);
    static struct plait_key keys[PLAIT_EXPORTS_MAX];
    struct plait_key one_more;
    struct outcome o = { 0 };

    for (unsigned i = 1; i < PLAIT_EXPORTS_MAX; i++) {
        FAILS(plait_mem_export(p->mem, p->owner, RW, &keys[i]), 0);
        poll_all(p->w);
    }
    SAYS(plait_mem_export(p->mem, p->owner, RW, &one_more), PLAIT_E_NOMEM, "1024");
    FAILS(plait_put(p->user, &keys[700], 0, "seven", 5, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    cr_assert_str_eq(p->addr, "seven");
    FAILS(plait_mem_withdraw(&keys[700], on_done, &o), 0);
    WAIT(p->w, o.n, 1);
    FAILS(plait_mem_export(p->mem, p->owner, RW, &one_more), 0);
    FAILS(plait_put(p->user, &one_more, 0, "eight", 5, NULL, NULL), 0);
    cr_assert_eq(flush(p), 0);
    SAYS(plait_put(p->user, &keys[700], 0, "seven", 5, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    FAILS(plait_put(p->user, &keys[701], 0, "nine", 5, NULL, NULL), 0);
    end_pair(p);
}

/* Eight links can fill the key page of the process. */
Test(rma, the_key_page_is_full)
{
    struct world *w = new_world();
    static struct log cli[8];
    struct plait_mem *m = writable(4096);
    struct plait_key key, last;
    struct outcome o = { 0 };

    while (w->nctx < 8)
        add_ctx(w, 0);
    world_listen(w, NULL);
    for (unsigned i = 0; i < 8; i++) { /* the last one from the server's context to itself */
        struct plait_session_opts so = session_opts(&cli[i]);

        log_init(&cli[i], w);
        FAILS(plait_session_open(&cli[i].s, w->ctx[(i + 1) % 8], w->uri, &so), 0);
        WAIT(w, cli[i].opened, 1);
        WAIT(w, w->srv[i].c_opened, 1);
    }
    for (unsigned i = 0; i < 8192; i++) {
        FAILS(plait_mem_export(m, w->srv[i / 1024].conn[0], RW, &last), 0);
        poll_all(w);
    }
    SAYS(plait_mem_export(m, w->srv[0].conn[0], RW, &key), PLAIT_E_NOMEM, "1024");
    SAYS(plait_mem_export(m, cli[0].conn[0], RW, &key), PLAIT_E_NOMEM, "8192 regions");
    FAILS(plait_mem_withdraw(&last, on_done, &o), 0);
    WAIT(w, o.n, 1);
    FAILS(plait_mem_export(m, cli[0].conn[0], RW, &key), 0);
    FAILS(plait_mem_release(m), 0);
    for (unsigned i = 0; i < 8; i++)
        end_session(w, &cli[i]);
    end_world(w);
}

/* ---- what is refused ---- */

Test(rma, bounds)
{
    struct pair *p = new_pair(5000); /* the mapping has whole pages, the region not */
    char buf[16];

    cr_assert_eq(flush(p), 0);
    SAYS(plait_put(p->user, &p->key, 4990, buf, 11, NULL, NULL), PLAIT_E_INVAL, "11 bytes at offset 4990");
    SAYS(plait_get(p->user, &p->key, 5001, buf, 1, NULL, NULL), PLAIT_E_INVAL, "'window' of 5000 bytes");
    SAYS(plait_get(p->user, &p->key, UINT64_MAX, buf, 2, NULL, NULL), PLAIT_E_INVAL, "outside");
    SAYS(plait_get(p->user, &p->key, 8, buf, SIZE_MAX - 4, NULL, NULL), PLAIT_E_INVAL, "outside");
    SAYS(plait_put(p->user, &p->key, 0, buf, SIZE_MAX, NULL, NULL), PLAIT_E_INVAL, "outside");
    SAYS(plait_put(p->user, &p->key, UINT64_MAX - 7, buf, 16, NULL, NULL), PLAIT_E_INVAL, "outside");
    SAYS(plait_atomic_add(p->user, &p->key, 4, 1, NULL, NULL, NULL), PLAIT_E_INVAL, "multiple of 8");
    SAYS(plait_atomic_cas(p->user, &p->key, 9, 1, 2, NULL, NULL, NULL), PLAIT_E_INVAL, "multiple of 8");
    SAYS(plait_atomic_add(p->user, &p->key, 5000, 1, NULL, NULL, NULL), PLAIT_E_INVAL, "outside");
    SAYS(plait_atomic_add(p->user, &p->key, UINT64_MAX - 7, 1, NULL, NULL, NULL), PLAIT_E_INVAL, "outside");
    FAILS(plait_atomic_add(p->user, &p->key, 4992, 1, NULL, NULL, NULL), 0);
    SAYS(plait_put(p->user, NULL, 0, buf, 1, NULL, NULL), PLAIT_E_INVAL, "key");
    SAYS(plait_put(p->user, &p->key, 0, NULL, 1, NULL, NULL), PLAIT_E_INVAL, "data");
    SAYS(plait_get(p->user, &p->key, 0, NULL, 1, NULL, NULL), PLAIT_E_INVAL, "buffer");
    SAYS(plait_rma_flush(p->user, NULL, NULL), PLAIT_E_INVAL, "function");
    end_pair(p);
}

/* With one side's access only. */
Test(rma, access)
{
    struct pair *p = new_pair(4096);
    struct plait_key ro, wo;
    char buf[8];

    FAILS(plait_mem_export(p->mem, p->owner, PLAIT_ACCESS_READ, &ro), 0);
    FAILS(plait_mem_export(p->mem, p->owner, PLAIT_ACCESS_WRITE, &wo), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    memcpy(p->addr, "read me", 8);
    DOES(p->w, p->user, plait_get(p->user, &ro, 0, buf, 8, NULL, NULL));
    cr_assert_str_eq(buf, "read me");
    SAYS(plait_put(p->user, &ro, 0, buf, 8, NULL, NULL), PLAIT_E_PERM, "for reading, this operation needs writing");
    SAYS(plait_atomic_add(p->user, &ro, 0, 1, NULL, NULL, NULL), PLAIT_E_PERM, "reading and writing");
    SAYS(plait_atomic_cas(p->user, &ro, 0, 1, 1, NULL, NULL, NULL), PLAIT_E_PERM, "reading and writing");
    SAYS(plait_get(p->user, &wo, 0, buf, 8, NULL, NULL), PLAIT_E_PERM, "needs reading");
    SAYS(plait_atomic_add(p->user, &wo, 0, 1, NULL, NULL, NULL), PLAIT_E_PERM, "for writing");
    DOES(p->w, p->user, plait_put(p->user, &wo, 0, "written", 8, NULL, NULL));
    cr_assert_str_eq(p->addr, "written");
    end_pair(p);
}

/* A region that may be written is exported for reading: not even the peer's whole process could write. */
Test(rma, the_mapping_itself_forbids_it)
{
    struct pair *p;
    struct plait_key key;
    const struct pli_rma_link *r;

    if (REMOTE)
        cr_skip_test("nothing is mapped between hosts");
    p = new_pair(4096);
    FAILS(plait_mem_export(p->mem, p->owner, PLAIT_ACCESS_READ, &key), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    r = p->user->link->rma;
    cr_assert_eq(r->nimports, 2);
    cr_assert_eq(mprotect(r->imports[0]->pm->addr, 4096, PROT_READ | PROT_WRITE), 0);
    cr_assert_lt(mprotect(r->imports[1]->pm->addr, 4096, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(errno, EACCES);
    cr_assert_lt(mprotect(r->page->addr, PLI_RMA_PAGE, PROT_READ | PROT_WRITE), 0, "the key page");
    end_pair(p);
}

/* The keys' bytes, one after the other. */
Test(rma, tampered_keys)
{
    struct pair *p = new_pair(4096);
    char buf[8];

    cr_assert_eq(flush(p), 0);
    for (unsigned i = 0; i < sizeof p->key.bytes; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct plait_key bad = p->key;

            bad.bytes[i] ^= (unsigned char)(1 << bit);
            SAYS(plait_get(p->user, &bad, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "damaged");
            cr_assert_eq(plait_mem_withdraw(&bad, NULL, NULL) != 0, i < 4 || (i >= 12 && i < 14) || (i >= 16 && i < 24));
            if (!(i < 4 || (i >= 12 && i < 14) || (i >= 16 && i < 24)))
                goto withdrawn; /* those bytes say who may use it, not what it is */
        }
    }
withdrawn:
    FAILS(plait_mem_release(p->mem), 0);
    settle(p->w);
    pair_export(p, 4096, RW);
    memset(&p->key, 0, sizeof p->key);
    SAYS(plait_get(p->user, &p->key, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "damaged");
    end_pair(p);
}

/* Of another session over the same link, and of the same session's other connection between other contexts. */
Test(rma, keys_of_others)
{
    struct pair *p = new_pair(4096);
    struct log other, wide;
    struct log *srv = open_session(p->w, &other, NULL), *wsrv;
    struct plait_ctx *ctxs[2];
    struct plait_session_opts so = session_opts(&wide);
    struct plait_key key, wkey;
    char buf[8];

    FAILS(plait_mem_export(p->mem, srv->conn[0], RW, &key), 0);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    SAYS(plait_get(p->user, &key, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "another session");
    SAYS(plait_get(other.conn[0], &p->key, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "another session");
    FAILS(plait_get(other.conn[0], &key, 0, buf, 8, NULL, NULL), 0);

    ctxs[0] = p->w->ctx[1];
    ctxs[1] = add_ctx(p->w, 0);
    so.ctxs = ctxs;
    so.nctxs = 2;
    wsrv = open_session(p->w, &wide, &so);
    FAILS(plait_mem_export(p->mem, wsrv->conn[0], RW, &wkey), 0);
    settle(p->w);
    SAYS(plait_get(wide.conn[1], &wkey, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "other contexts");
    FAILS(plait_get(wide.conn[0], &wkey, 0, buf, 8, NULL, NULL), 0);
    SAYS(plait_get(wsrv->conn[0], &wkey, 0, buf, 8, NULL, NULL), PLAIT_E_INVAL, "other contexts"); /* its owner */
    end_session(p->w, &wide);
    end_session(p->w, &other);
    end_pair(p);
}

Test(rma, cannot_be_exported)
{
    struct pair *p = new_pair(4096);
    static char mine[100];
    struct plait_mem *sealed, *registered;
    struct plait_key key;
    char buf[8] = "";

    FAILS(plait_mem_alloc(&sealed, 4096, NULL), 0);
    FAILS(plait_mem_register(&registered, mine, sizeof mine), 0);
    SAYS(plait_mem_export(sealed, p->owner, RW, &key), PLAIT_E_INVAL, "PLAIT_MEM_WRITABLE");
    SAYS(plait_mem_export(sealed, p->owner, PLAIT_ACCESS_WRITE, &key), PLAIT_E_INVAL, "PLAIT_MEM_WRITABLE");
    SAYS(plait_mem_export(sealed, p->owner, 0, &key), PLAIT_E_INVAL, "access 0x0");
    SAYS(plait_mem_export(sealed, p->owner, 4, &key), PLAIT_E_INVAL, "access 0x4");
    SAYS(plait_mem_export(NULL, p->owner, RW, &key), PLAIT_E_INVAL, "a region");
    SAYS(plait_mem_export(sealed, p->owner, RW, NULL), PLAIT_E_INVAL, "key");
    SAYS(plait_mem_withdraw(NULL, NULL, NULL), PLAIT_E_INVAL, "key");
    SAYS(plait_mem_export(registered, p->owner, PLAIT_ACCESS_READ, &key), PLAIT_E_INVAL, "registered");
    FAILS(plait_mem_export(sealed, p->owner, PLAIT_ACCESS_READ, &key), 0);
    memcpy(plait_mem_addr(sealed), "sealed", 7);
    cr_assert_eq(flush(p), 0);
    settle(p->w);
    DOES(p->w, p->user, plait_get(p->user, &key, 0, buf, 7, NULL, NULL));
    cr_assert_str_eq(buf, "sealed");
    SAYS(plait_put(p->user, &key, 0, buf, 7, NULL, NULL), PLAIT_E_PERM, "needs writing");
    FAILS(plait_mem_release(sealed), 0);
    FAILS(plait_mem_release(registered), 0);
    end_pair(p);
}

static int unused(const struct pair *p)
{
    char buf[1];

    return plait_get(p->user, &p->key, 0, buf, 1, NULL, NULL);
}

/* Before it is open, and afterwards. */
Test(rma, connections_that_are_not_open)
{
    struct pair *p = new_pair(4096);
    struct log late;
    struct plait_key key;
    struct plait_conn *user = p->user;

    start_open(p->w, &late, NULL);
    p->user = plait_session_conn(late.s, 0);
    SAYS(unused(p), PLAIT_E_AGAIN, "not open yet");
    SAYS(plait_mem_export(p->mem, p->user, RW, &key), PLAIT_E_CLOSED, "not open");
    WAIT(p->w, late.opened, 1);
    WAIT(p->w, late.writable, 1);
    p->user = user;
    end_session(p->w, &late);
    plait_session_hold(p->cli.s);
    FAILS(plait_session_close(p->cli.s), 0);
    WAIT(p->w, p->cli.closed, 1);
    SAYS(unused(p), PLAIT_E_CLOSED, "closed");
    SAYS(plait_mem_export(p->mem, p->user, RW, &key), PLAIT_E_CLOSED, "closed");
    plait_session_release(p->cli.s);
    end_pair(p);
}

/* More than may be mapped: the owner is warned, the user is told. */
Test(rma, too_much_to_map)
{
    struct pair *p;
    char buf[1];
    struct outcome o = { 0 };
    struct plait_mem *small;
    struct plait_key key;

    if (REMOTE)
        cr_skip_test("nothing is mapped between hosts");
    setenv("PLAIT_MAPPED_MAX", "1000000", 1);
    setenv("PLAIT_LOG", "none", 1);
    p = new_pair(1 << 20);
    FAILS(plait_get(p->user, &p->key, 0, buf, 1, on_done, &o), 0);
    WAIT(p->w, o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_NOMEM);
    SAYS(unused(p), PLAIT_E_NOMEM, "PLAIT_MAPPED_MAX");
    small = writable(4096);
    FAILS(plait_mem_export(small, p->owner, RW, &key), 0);
    settle(p->w);
    FAILS(plait_get(p->user, &key, 0, buf, 1, NULL, NULL), 0);
    FAILS(plait_mem_release(small), 0);
    FAILS(plait_mem_withdraw(&p->key, on_done, &o), 0);
    WAIT(p->w, o.n, 2);
    SAYS(unused(p), PLAIT_E_REVOKED, "withdrawn");
    end_pair(p);
}
