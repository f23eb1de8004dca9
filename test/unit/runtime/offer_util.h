/* SPDX-License-Identifier: BSD-3-Clause */
/* For the tests of offered messages: regions that the peer knows, and sending from them. */
#ifndef PLI_TEST_OFFER_UTIL_H
#define PLI_TEST_OFFER_UTIL_H

#include "test/unit/runtime/session_util.h"

#define KIB 1024u

static inline struct plait_mem *new_region(size_t len)
{
    struct plait_mem *mem;

    cr_assert_eq(plait_mem_alloc(&mem, len, NULL), 0, "%s", plait_error_text());
    return mem;
}

static inline struct plait_out nocopy(const void *data, size_t len, struct outcome *o)
{
    struct plait_out out = PLAIT_OUT_INIT;

    out.flags = PLAIT_NOCOPY;
    out.data = data;
    out.len = len;
    out.on_done = on_done;
    out.arg = o;
    return out;
}

/* Sends a message from the region until one has been offered; the server must release what it gets. */
static inline void make_known(struct world *w, unsigned from, struct plait_conn *c, struct plait_mem *mem)
{
    uint64_t offered = ctx_stats(w->ctx[from]).offers_sent;
    uint64_t end = pli_clock_now() + PATIENCE_NS;

    while (ctx_stats(w->ctx[from]).offers_sent == offered) {
        struct outcome o = { 0 };
        struct plait_out out = nocopy(plait_mem_addr(mem), PLAIT_OFFER_MIN, &o);

        cr_assert_lt(pli_clock_now(), end, "no message is offered");
        FAILS(plait_sendx(c, &out), 0);
        WAIT(w, o.n, 1);
        cr_assert_eq(o.status, 0);
    }
}

/* The pieces of a message hold these bytes, one behind the other. */
static inline bool msg_has(const struct plait_msg *msg, size_t len, uint32_t seed)
{
    uint8_t *all = malloc(len + 1), *p = all;
    const struct iovec *iov;
    int n = plait_msg_iov(msg, &iov);
    bool same = msg->len == len;

    for (int i = 0; i < n && same; i++) {
        same = iov[i].iov_len && iov[i].iov_len <= len - (size_t)(p - all);
        if (same)
            p = mempcpy(p, iov[i].iov_base, iov[i].iov_len);
    }
    same = same && p == all + len && has_bytes(all, len, seed) && (n == 1) == (msg->data != NULL) && (n != 1 || msg->data == iov[0].iov_base);
    free(all);
    return same;
}

/* Options for long messages. */
static inline struct plait_session_opts long_opts(void)
{
    struct plait_session_opts o = session_opts(NULL);

    o.max_msg = 64u << 20;
    return o;
}

static inline struct log *open_long(struct world *w, struct log *cli)
{
    struct plait_session_opts o = long_opts();

    w->accept.max_msg = 64u << 20;
    return open_session(w, cli, &o);
}

#endif
