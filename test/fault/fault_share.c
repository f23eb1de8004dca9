/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that show regions, and name them in messages. */
#include "runtime/mem.h"
#include "runtime/offer.h"
#include "test/fault/hostile.h"

TestSuite(fault_share, .timeout = 120);

#define LEN 65536u

/* A region as an honest peer shows it. */
static struct plait_mem *region(void)
{
    struct plait_mem *mem;

    cr_assert_eq(plait_mem_alloc(&mem, LEN, NULL), 0, "%s", plait_error_text());
    return mem;
}

static void send_mem(struct hostile *h, enum pli_mem_op op, uint32_t key, uint64_t len, int fd)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = fd >= 0 };

    msg.mem.op = op;
    msg.mem.key = key;
    msg.mem.len = len;
    hostile_send(h, &msg, &fd);
}

static void expect_shared(struct hostile *h, uint32_t key, int code, const char *word)
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

static void share_good(struct hostile *h, uint32_t key, struct plait_mem *mem)
{
    send_mem(h, PLI_MEM_SHARE, key, LEN, mem->fd);
    expect_shared(h, key, 0, "");
}

static uint64_t mapped(struct world *w)
{
    return ctx_stats(w->ctx[0]).mapped_bytes;
}

/* The whole link ends. */
static void expect_link_end(struct hostile *h, struct innocent *in, const char *what, int code, const char *word)
{
    struct world *w = h->w;
    struct log *srv = &w->srv[w->nsrv - 1];

    WAIT(w, srv->closed, 1);
    cr_assert_eq(srv->c_code, code, "%s: %s %s", what, plait_status_name(srv->c_code), srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, word), "%s: no '%s' in: %s", what, word, srv->c_text);
    cr_assert_not_null(strstr(srv->c_text, "peer process"), "%s: the peer is not named: %s", what, srv->c_text);
    cr_assert_eq(srv->misuse, 0);
    hostile_close(h);
    innocent_check(w, in);
    cr_assert_eq(mapped(w), 0);
}

Test(fault_share, shared_and_revoked)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct plait_mem *mem = region();
    struct innocent in;

    innocent_start(w, &in);
    hostile_open(h);
    share_good(h, 3, mem);
    cr_assert_eq(mapped(w), LEN);
    share_good(h, 7, mem);
    cr_assert_eq(mapped(w), 2 * LEN);
    send_mem(h, PLI_MEM_REVOKE, 3, 0, -1);
    send_mem(h, PLI_MEM_REVOKE, 7, 0, -1);
    share_good(h, 8, mem); /* the answer comes after these */
    cr_assert_eq(mapped(w), LEN);
    send_mem(h, PLI_MEM_REVOKE, 7, 0, -1);
    expect_link_end(h, &in, "revoked twice", PLAIT_E_PROTO, "REVOKE of the key 7");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

static int memfd(size_t len, int seals, bool reserved)
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

Test(fault_share, bad_regions)
{
    struct {
        const char *what, *word;
        size_t real, told;
        int seals;
        bool reserved;
    } bad[] = {
        { "no seals", "lacks seals", LEN, LEN, 0, true },
        { "not sealed against shrinking", "lacks seals", LEN, LEN, F_SEAL_GROW | F_SEAL_FUTURE_WRITE, true },
        { "not sealed against growing", "lacks seals", LEN, LEN, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE, true },
        { "writable", "lacks seals", LEN, LEN, F_SEAL_SHRINK | F_SEAL_GROW, true },
        { "shorter than told", "its message says", LEN, 2 * LEN, GOOD_SEALS, true },
        { "longer than told", "its message says", 2 * LEN, LEN, GOOD_SEALS, true },
        { "not reserved", "not been reserved", LEN, LEN, GOOD_SEALS, false },
        { "no whole pages", "not whole pages", LEN + 1, LEN + 1, GOOD_SEALS, true },
        { "of length 0", "not whole pages", LEN, 0, GOOD_SEALS, true },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostile *h = new_hostile(w);
        int fd = memfd(bad[i].real, bad[i].seals, bad[i].reserved);

        hostile_open(h);
        send_mem(h, PLI_MEM_SHARE, 1, bad[i].told, fd);
        close(fd);
        expect_link_end(h, &in, bad[i].what, PLAIT_E_BADPEER, bad[i].word);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_share, not_a_memfd)
{
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;
    int fd;

    innocent_start(w, &in);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    hostile_open(h);
    send_mem(h, PLI_MEM_SHARE, 1, LEN, fd);
    close(fd);
    expect_link_end(h, &in, "/dev/null", PLAIT_E_BADPEER, "not a memfd");
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_share, frames_that_do_not_fit)
{
    struct {
        const char *what, *word;
        enum pli_mem_op op;
        uint32_t key;
        bool fd;
    } bad[] = {
        { "the same key twice", "SHARE with the key 5", PLI_MEM_SHARE, 5, true },
        { "a lower key", "SHARE with the key 4", PLI_MEM_SHARE, 4, true },
        { "no memory", "SHARE with 0 descriptors", PLI_MEM_SHARE, 6, false },
        { "SHARED for nothing", "SHARED for the key 1", PLI_MEM_SHARED, 1, false },
        { "SHARED with memory", "with descriptors", PLI_MEM_SHARED, 1, true },
        { "REVOKE of an unknown key", "REVOKE of the key 6", PLI_MEM_REVOKE, 6, false },
        { "REVOKE of key 0", "REVOKE of the key 0", PLI_MEM_REVOKE, 0, false },
        { "REVOKE with memory", "with descriptors", PLI_MEM_REVOKE, 5, true },
    };
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        share_good(h, 5, mem);
        send_mem(h, bad[i].op, bad[i].key, LEN, bad[i].fd ? mem->fd : -1);
        expect_link_end(h, &in, bad[i].what, PLAIT_E_PROTO, bad[i].word);
    }
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, more_than_may_be_mapped)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;

    setenv("PLAIT_MAPPED_MAX", "200000", 1);
    innocent_start(w, &in);
    hostile_open(h);
    for (uint32_t key = 1; key <= 3; key++)
        share_good(h, key, mem);
    send_mem(h, PLI_MEM_SHARE, 4, LEN, mem->fd);
    expect_shared(h, 4, PLAIT_E_NOMEM, "PLAIT_MAPPED_MAX");
    send_mem(h, PLI_MEM_REVOKE, 1, 0, -1);
    share_good(h, 5, mem);
    cr_assert_eq(mapped(w), 3 * LEN);
    /* one that was refused is none */
    send_mem(h, PLI_MEM_REVOKE, 4, 0, -1);
    expect_link_end(h, &in, "refused", PLAIT_E_PROTO, "REVOKE of the key 4");
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}

Test(fault_share, more_regions_than_there_may_be)
{
    struct plait_mem *mem = region();
    struct world *w = listening_world();
    struct hostile *h = new_hostile(w);
    struct innocent in;

    innocent_start(w, &in);
    hostile_open(h);
    for (uint32_t key = 1; key <= PLI_SHARES_MAX; key++)
        share_good(h, key, mem);
    send_mem(h, PLI_MEM_SHARE, 5000, LEN, mem->fd);
    expect_shared(h, 5000, PLAIT_E_NOMEM, "1024 regions");
    hostile_close(h);
    innocent_check(w, &in);
    cr_assert_eq(mapped(w), 0);
    innocent_end(w, &in);
    end_world(w);
    plait_mem_release(mem);
}
