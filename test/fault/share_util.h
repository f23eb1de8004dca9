/* SPDX-License-Identifier: BSD-3-Clause */
/* For bad peers that show regions. */
#ifndef PLI_TEST_SHARE_UTIL_H
#define PLI_TEST_SHARE_UTIL_H

#include "runtime/mem.h"
#include "test/fault/hostile.h"

#define LEN 65536u

/* A region as an honest peer shows it. */
static inline struct plait_mem *region(void)
{
    struct plait_mem *mem;

    cr_assert_eq(plait_mem_alloc(&mem, LEN, NULL), 0, "%s", plait_error_text());
    return mem;
}

static inline void send_mem(struct hostile *h, enum pli_mem_op op, uint32_t key, uint64_t len, int fd)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = fd >= 0 };

    msg.mem.op = op;
    msg.mem.key = key;
    msg.mem.len = len;
    hostile_send(h, &msg, &fd);
}

static inline void expect_shared(struct hostile *h, uint32_t key, int code, const char *word)
{
    struct pli_wire_msg msg;
    char text[300];

    hostile_expect(h, &msg, PLI_WIRE_MEM);
    snprintf(text, sizeof text, "%.*s", (int)msg.mem.text.len, (const char *)msg.mem.text.p);
    cr_assert_eq(msg.mem.op, PLI_MEM_SHARED);
    cr_assert_eq(msg.mem.key, key);
    cr_assert_eq(msg.mem.code, code, "%s %s", plait_status_name(msg.mem.code), text);
    cr_assert_not_null(strstr(text, word), "no '%s' in: %s", word, text);
}

static inline void share_good(struct hostile *h, uint32_t key, struct plait_mem *mem)
{
    send_mem(h, PLI_MEM_SHARE, key, LEN, mem->fd);
    expect_shared(h, key, 0, "");
}

static inline uint64_t mapped(struct world *w)
{
    return ctx_stats(w->ctx[0]).mapped_bytes;
}

static unsigned came;

/* Counts what the attacker sends. */
static inline void count_them(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    log->misuse = 0; /* not aligned */
    if (plait_conn_session(c) != log->s || msg->len == 5) { /* the innocent's */
        echo(log, c, msg);
        return;
    }
    came++;
    if (msg->kind == PLAIT_REQUEST)
        FAILS(plait_reply(msg, "ok", 2, 0), 0);
}

static inline int memfd(size_t len, int seals, bool reserved)
{
    int fd = memfd_create("plait-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_eq(ftruncate(fd, (off_t)len), 0);
    cr_assert_eq(reserved ? fallocate(fd, 0, 0, (off_t)len) : 0, 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define GOOD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

#endif
