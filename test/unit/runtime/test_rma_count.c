/* SPDX-License-Identifier: BSD-3-Clause */
/* The counters of one-sided operations: what was done, how much, and what was not. */
#include "runtime/rma.h"
#include "test/unit/runtime/rma_util.h"

TestSuite(rma_count, .timeout = 120);

static void expect(struct pair *p, uint64_t puts, uint64_t gets, uint64_t atomics, uint64_t bytes, uint64_t failed)
{
    struct plait_ctx_stats st = ctx_stats(p->w->ctx[1]), owner = ctx_stats(p->w->ctx[0]);

    cr_assert_eq(st.rma_puts, puts, "%llu puts", (unsigned long long)st.rma_puts);
    cr_assert_eq(st.rma_gets, gets, "%llu gets", (unsigned long long)st.rma_gets);
    cr_assert_eq(st.rma_atomics, atomics, "%llu atomics", (unsigned long long)st.rma_atomics);
    cr_assert_eq(st.rma_bytes, bytes, "%llu bytes", (unsigned long long)st.rma_bytes);
    cr_assert_eq(st.rma_failed, failed, "%llu failed", (unsigned long long)st.rma_failed);
    cr_assert_eq(owner.rma_puts + owner.rma_gets + owner.rma_atomics + owner.rma_bytes + owner.rma_failed, 0, "the owner does nothing");
}

/* The first ones wait for the region, later ones are done at once, with and without somebody who is told. */
Test(rma_count, what_is_done)
{
    struct pair *p = new_pair(65536);
    struct outcome o[4] = { { 0 } };
    char buf[1000] = "";
    uint64_t old;

    expect(p, 0, 0, 0, 0, 0);
    for (unsigned i = 1; i <= 3; i++) {
        plait_done_fn fn = i == 3 ? on_done : NULL;

        FAILS(plait_put(p->user, &p->key, 0, buf, 1000, fn, &o[0]), 0);
        FAILS(plait_get(p->user, &p->key, 0, buf, 100, fn, &o[1]), 0);
        FAILS(plait_atomic_add(p->user, &p->key, 0, 1, &old, fn, &o[2]), 0);
        FAILS(plait_atomic_cas(p->user, &p->key, 0, 77, 78, &old, fn, &o[3]), 0);
        FAILS(plait_put(p->user, &p->key, 0, NULL, 0, NULL, NULL), 0);
        cr_assert_eq(flush(p), 0);
        expect(p, 2 * i, i, 2 * i, 1100 * i, 0);
    }
    for (unsigned i = 0; i < 4; i++)
        WAIT(p->w, o[i].n, 1);
    end_pair(p);
}

Test(rma_count, what_fails)
{
    struct pair *p = new_pair(65536);
    struct outcome o = { 0 };
    struct plait_key read_only, bad;
    char buf[16] = "";

    FAILS(plait_put(p->user, &p->key, 65536, buf, 1, on_done, &o), 0); /* before the region is there: found out later */
    WAIT(p->w, o.n, 1);
    cr_assert_eq(o.status, PLAIT_E_INVAL);
    expect(p, 0, 0, 0, 0, 1);
    FAILS(plait_get(p->user, &p->key, 65530, buf, 16, NULL, NULL), PLAIT_E_INVAL);
    FAILS(plait_mem_export(p->mem, p->owner, PLAIT_ACCESS_READ, &read_only), 0);
    settle(p->w);
    FAILS(plait_put(p->user, &read_only, 0, buf, 1, NULL, NULL), PLAIT_E_PERM);
    bad = p->key;
    bad.bytes[20] ^= 1;
    FAILS(plait_get(p->user, &bad, 0, buf, 1, NULL, NULL), PLAIT_E_INVAL);
    expect(p, 0, 0, 0, 0, 4);
    /* these are no operations */
    FAILS(plait_atomic_add(p->user, &p->key, 4, 1, NULL, NULL, NULL), PLAIT_E_INVAL);
    FAILS(plait_put(p->user, &p->key, 0, NULL, 5, NULL, NULL), PLAIT_E_INVAL);
    FAILS(plait_mem_withdraw(&p->key, NULL, NULL), 0);
    REFUSES(p->w, p->user, plait_put(p->user, &p->key, 0, buf, 1, NULL, NULL), PLAIT_E_REVOKED, "withdrawn");
    expect(p, 0, 0, 0, 0, 5);
    end_pair(p);
}

/* Those that wait when their connection ends have failed, too; a flush is none. */
Test(rma_count, what_never_began)
{
    struct pair *p = new_pair(65536);
    struct outcome o[3] = { { 0 } };
    struct plait_key never;
    struct pli_key k;
    char buf[16] = "";

    memcpy(&k, &p->key, sizeof k);
    k.number += 5;
    pli_key_seal(&k, p->user->session->sid);
    memcpy(&never, &k, sizeof never);
    FAILS(plait_put(p->user, &never, 0, buf, 1, on_done, &o[0]), 0);
    FAILS(plait_get(p->user, &p->key, 0, buf, 1, on_done, &o[1]), 0); /* behind it */
    FAILS(plait_rma_flush(p->user, on_done, &o[2]), 0);
    settle(p->w);
    expect(p, 0, 0, 0, 0, 0);
    FAILS(plait_conn_abort(p->user), 0);
    WAIT(p->w, o[2].n, 1);
    cr_assert_lt(o[0].status, 0);
    cr_assert_lt(o[1].status, 0);
    expect(p, 0, 0, 0, 0, 2);
    end_pair(p);
}

/* A program that was built before these counters were there gets the ones that it knows. */
Test(rma_count, an_older_program)
{
    struct pair *p = new_pair(65536);
    struct plait_ctx_stats st;

    memset(&st, 0x5a, sizeof st);
    st.size = offsetof(struct plait_ctx_stats, rma_puts);
    FAILS(plait_ctx_get_stats(p->w->ctx[1], &st), 0);
    cr_assert_eq(st.cma_refused, 0);
    cr_assert_eq(st.rma_puts, UINT64_C(0x5a5a5a5a5a5a5a5a));
    end_pair(p);
}
