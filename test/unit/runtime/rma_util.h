/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of one-sided operations: the server's side owns a region, the client's accesses it. */
#ifndef PLI_TEST_RMA_UTIL_H
#define PLI_TEST_RMA_UTIL_H

#include "runtime/conn.h"
#include "runtime/mem.h"
#include "test/unit/runtime/session_util.h"
#include "util/hash.h"

#define RW (PLAIT_ACCESS_READ | PLAIT_ACCESS_WRITE)

/* The call fails with this code, and its sentence has this word. */
#define SAYS(call, want, word)                                                                                          \
    do {                                                                                                                \
        FAILS(call, want);                                                                                              \
        cr_assert_not_null(strstr(plait_error_text(), word), "no '%s' in: %s", word, plait_error_text());               \
    } while (0)

struct pair {
    struct world *w;
    struct log cli, *srv;
    struct plait_conn *owner, *user;
    struct plait_mem *mem;
    char *addr;
    struct plait_key key;
};

static inline struct plait_mem *writable(size_t len)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct plait_mem *m;

    o.flags = PLAIT_MEM_WRITABLE;
    o.name = "window";
    FAILS(plait_mem_alloc(&m, len, &o), 0);
    return m;
}

static inline void pair_export(struct pair *p, size_t len, unsigned access)
{
    p->mem = writable(len);
    p->addr = plait_mem_addr(p->mem);
    FAILS(plait_mem_export(p->mem, p->owner, access, &p->key), 0);
}

/* A session between two contexts, and a region of len bytes exported over it. */
static inline struct pair *new_pair(size_t len)
{
    static struct pair pair;
    struct pair *p = &pair;

    memset(p, 0, sizeof *p);
    p->w = listening_world();
    p->srv = open_session(p->w, &p->cli, NULL);
    p->owner = p->srv->conn[0];
    p->user = p->cli.conn[0];
    pair_export(p, len, RW);
    return p;
}

static inline void end_pair(struct pair *p)
{
    FAILS(plait_mem_release(p->mem), 0);
    end_session(p->w, &p->cli);
    check_log(&p->cli);
    end_world(p->w);
}

/* Waits until all that was started on the connection is complete. */
static inline int flush_of(struct world *w, struct plait_conn *c)
{
    struct outcome o = { 0 };

    FAILS(plait_rma_flush(c, on_done, &o), 0);
    cr_assert_eq(o.n, 0, "called from inside");
    WAIT(w, o.n, 1);
    settle(w);
    cr_assert_eq(o.n, 1);
    return o.status;
}

static inline int flush(struct pair *p)
{
    return flush_of(p->w, p->user);
}

/* Where no memory is shared the target does the operations, and what a call is refused for is told later. */
#define REMOTE (sizeof TRANSPORT > 1)

/* What becomes of an operation without on_done; rc: what its call returned. */
static inline int outcome_of(struct world *w, struct plait_conn *c, int rc)
{
    return rc == 0 && REMOTE ? flush_of(w, c) : rc;
}

#define DOES(w, c, call)                                                                                                \
    do {                                                                                                                \
        FAILS(call, 0);                                                                                                 \
        cr_assert_eq(outcome_of(w, c, 0), 0);                                                                           \
    } while (0)

/* As SAYS; what is told later is told without a sentence. */
#define REFUSES(w, c, call, want, word)                                                                                 \
    do {                                                                                                                \
        int rc_ = (call);                                                                                               \
                                                                                                                        \
        if (rc_ < 0)                                                                                                    \
            cr_assert_not_null(strstr(plait_error_text(), word), "no '%s' in: %s", word, plait_error_text());           \
        else                                                                                                            \
            rc_ = outcome_of(w, c, rc_);                                                                                \
        cr_assert_eq(rc_, want, "%s: %s", #call, plait_status_name(rc_));                                               \
    } while (0)

static inline unsigned in_use(const struct plait_mem *m)
{
    struct plait_mem_info info = PLAIT_MEM_INFO_INIT;

    FAILS(plait_mem_get_info(m, &info), 0);
    return info.in_use;
}

#endif
