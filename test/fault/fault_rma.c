/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers in one-sided operations: exports of what cannot be mapped safely, answers to what was not asked. */
#include "plait/rma.h"
#include "runtime/rma.h"
#include "test/fault/hostile.h"

TestSuite(fault_rma, .timeout = 120);

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)
#define ALL_SEALS (SIZE_SEALS | F_SEAL_FUTURE_WRITE)
#define LEN 8192
#define R PLAIT_ACCESS_READ
#define RW PLI_RMA_ACCESS

enum odd_fd { MEMFD, READONLY, SPARSE, PIPE, DIRECTORY, FILE_ON_DISK, SOCKET };

struct thing {
    enum odd_fd kind;
    int seals, size;
};

static int make(const struct thing *t)
{
    char path[64], name[] = "/tmp/plait-test-XXXXXX";
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING), p[2];

    if (t->kind == SPARSE)
        cr_assert_eq(ftruncate(fd, t->size), 0);
    else if (t->size)
        cr_assert_eq(fallocate(fd, 0, 0, t->size), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, t->seals), 0);
    if (t->kind == MEMFD || t->kind == SPARSE)
        return fd;
    switch (t->kind) {
    case READONLY:
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        p[0] = open(path, O_RDONLY | O_CLOEXEC);
        break;
    case PIPE:
        cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
        close(p[1]);
        break;
    case DIRECTORY:
        p[0] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        break;
    case SOCKET:
        p[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        break;
    default:
        p[0] = mkostemp(name, O_CLOEXEC);
        unlink(name);
        cr_assert_eq(fallocate(p[0], 0, 0, t->size), 0);
    }
    close(fd);
    cr_assert_geq(p[0], 0);
    return p[0];
}

#define PAGE { MEMFD, ALL_SEALS, PLI_RMA_PAGE }
#define GOOD { MEMFD, SIZE_SEALS, LEN }

/* An EXPORT that is wrong in one way, if code is not 0. */
struct bad_export {
    const char *what, *word;
    int code;
    uint64_t len, secret;
    uint32_t flags;
    int nfds;
    struct thing region, page;
};

static const struct bad_export exports[] = {
    { "nothing wrong", "", 0, LEN, 5, RW, 2, GOOD, PAGE },
    { "nothing wrong, for reading", "", 0, LEN, 5, R, 2, { MEMFD, ALL_SEALS, LEN }, PAGE },
    { "nothing wrong, by its descriptor", "", 0, LEN, 5, R, 2, { READONLY, SIZE_SEALS, LEN }, PAGE },
    { "nothing wrong, not whole pages", "", 0, LEN - 77, 5, RW, 2, GOOD, PAGE },
    { "no seals", "seals", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, 0, LEN }, PAGE },
    { "no shrink seal", "seals", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, F_SEAL_GROW, LEN }, PAGE },
    { "no grow seal", "seals", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, F_SEAL_SHRINK, LEN }, PAGE },
    { "for reading, and we could write", "seals", PLAIT_E_BADPEER, LEN, 5, R, 2, GOOD, PAGE },
    { "for writing, and sealed", "seals forbid", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, ALL_SEALS, LEN }, PAGE },
    { "for writing, by a descriptor that cannot", "descriptor cannot", PLAIT_E_BADPEER, LEN, 5, RW, 2, { READONLY, SIZE_SEALS, LEN }, PAGE },
    { "smaller than said", "it has 4096 bytes, the message says 8192", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, SIZE_SEALS, 4096 }, PAGE },
    { "not whole pages", "whole pages", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, SIZE_SEALS, LEN + 100 }, PAGE },
    { "far larger than said", "the message says 8192", PLAIT_E_BADPEER, LEN, 5, RW, 2, { SPARSE, SIZE_SEALS, 0x7ffff000 }, PAGE },
    { "not reserved", "reserved", PLAIT_E_BADPEER, LEN, 5, RW, 2, { SPARSE, SIZE_SEALS, LEN }, PAGE },
    { "empty", "0 bytes", PLAIT_E_BADPEER, LEN, 5, RW, 2, { MEMFD, SIZE_SEALS, 0 }, PAGE },
    { "a pipe", "0 bytes", PLAIT_E_BADPEER, LEN, 5, RW, 2, { PIPE, 0, 0 }, PAGE },
    { "a socket", "0 bytes", PLAIT_E_BADPEER, LEN, 5, RW, 2, { SOCKET, 0, 0 }, PAGE },
    { "a folder", "region of EXPORT", PLAIT_E_BADPEER, LEN, 5, RW, 2, { DIRECTORY, 0, 0 }, PAGE },
    { "a file on disk", "memfd", PLAIT_E_BADPEER, LEN, 5, RW, 2, { FILE_ON_DISK, 0, LEN }, PAGE },
    { "a page that is too small", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { MEMFD, ALL_SEALS, 4096 } },
    { "a page that is too large", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { MEMFD, ALL_SEALS, 2 * PLI_RMA_PAGE } },
    { "a page without seals", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { MEMFD, 0, PLI_RMA_PAGE } },
    { "a page that we could write", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { MEMFD, SIZE_SEALS, PLI_RMA_PAGE } },
    { "a page that is not reserved", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { SPARSE, ALL_SEALS, PLI_RMA_PAGE } },
    { "a page that is a pipe", "key page", PLAIT_E_BADPEER, LEN, 5, RW, 2, GOOD, { PIPE, 0, 0 } },
    { "no descriptors", "0 descriptors", PLAIT_E_PROTO, LEN, 5, RW, 0, GOOD, PAGE },
    { "one descriptor", "1 descriptors", PLAIT_E_PROTO, LEN, 5, RW, 1, GOOD, PAGE },
    { "no access", "access 0x0", PLAIT_E_PROTO, LEN, 5, 0, 2, GOOD, PAGE },
    { "unknown access", "access 0x7", PLAIT_E_PROTO, LEN, 5, 7, 2, GOOD, PAGE },
    { "a place behind the page", "place 8192", PLAIT_E_PROTO, LEN, 5, RW | 8192u << PLI_RMA_FLAGS_SLOT, 2, GOOD, PAGE },
    { "no secret", "without a secret", PLAIT_E_PROTO, LEN, 0, RW, 2, GOOD, PAGE },
    { "no bytes", "of 0 bytes", PLAIT_E_PROTO, 0, 5, RW, 2, GOOD, PAGE },
    { "a huge length", "bytes", PLAIT_E_PROTO, UINT64_MAX, 5, RW, 2, GOOD, PAGE },
    { "a large length", "the message says", PLAIT_E_BADPEER, (uint64_t)1 << 40, 5, RW, 2, GOOD, PAGE },
};

static void send_export(struct hostile *h, const struct bad_export *b, uint32_t key, int page)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = (uint16_t)b->nfds };
    int fds[2] = { make(&b->region), page >= 0 ? page : make(&b->page) };

    msg.mem.op = PLI_MEM_EXPORT;
    msg.mem.key = key;
    msg.mem.flags = b->flags;
    memcpy(msg.mem.sid, h->sid, PLI_ID_LEN);
    msg.mem.addr = b->secret;
    msg.mem.len = b->len;
    msg.mem.text.p = "gift";
    msg.mem.text.len = 4;
    hostile_send(h, &msg, fds);
    close(fds[0]);
    if (page < 0)
        close(fds[1]);
}

static void expect_mem(struct hostile *h, uint32_t op, uint32_t key, int code)
{
    struct pli_wire_msg msg;

    hostile_expect(h, &msg, PLI_WIRE_MEM);
    cr_assert_eq(msg.mem.op, op);
    cr_assert_eq(msg.mem.key, key);
    cr_assert_eq(msg.mem.code, code, "%.*s", (int)msg.mem.text.len, (const char *)msg.mem.text.p);
}

static void send_mem(struct hostile *h, uint32_t op, uint32_t key, int code)
{
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM };

    msg.mem.op = op;
    msg.mem.key = key;
    msg.mem.code = code;
    hostile_send(h, &msg, NULL);
}

Test(fault_rma, bad_exports)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof exports / sizeof exports[0]; i++) {
        const struct bad_export *b = &exports[i];
        struct hostile *h = new_hostile(w);

        hostile_open(h);
        send_export(h, b, 1, -1);
        if (b->code) {
            WAIT(w, w->srv[i + 1].closed, 1);
            cr_assert_eq(w->srv[i + 1].c_code, b->code, "%s: %s", b->what, w->srv[i + 1].c_text);
            cr_assert_not_null(strstr(w->srv[i + 1].c_text, b->word), "%s: no '%s' in: %s", b->what, b->word, w->srv[i + 1].c_text);
            cr_assert_not_null(strstr(w->srv[i + 1].c_text, "peer process"), "%s: %s", b->what, w->srv[i + 1].c_text);
        } else {
            expect_mem(h, PLI_MEM_EXPORTED, 1, 0);
            send_mem(h, PLI_MEM_WITHDRAW, 1, 0);
            expect_mem(h, PLI_MEM_WITHDRAWN, 1, 0);
        }
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* ---- keys ---- */

enum step { END, EXPORT_1, EXPORT_2, EXPORT_0, OTHER_PAGE_2, WITHDRAW_1, WITHDRAW_2, EXPORTED_1, WITHDRAWN_1, FDS_WITH_WITHDRAW };

static void take_step(struct hostile *h, enum step step, int page)
{
    static const struct bad_export *good = &exports[0];
    struct pli_wire_msg msg = { .type = PLI_WIRE_MEM, .nfds = 1 };

    switch (step) {
    case EXPORT_0:
    case EXPORT_1:
    case EXPORT_2:
        send_export(h, good, step == EXPORT_0 ? 0 : step == EXPORT_1 ? 1 : 2, page);
        break;
    case OTHER_PAGE_2:
        send_export(h, good, 2, -1);
        break;
    case WITHDRAW_1:
    case WITHDRAW_2:
        send_mem(h, PLI_MEM_WITHDRAW, step == WITHDRAW_1 ? 1 : 2, 0);
        break;
    case EXPORTED_1:
        send_mem(h, PLI_MEM_EXPORTED, 1, 0);
        break;
    case WITHDRAWN_1:
        send_mem(h, PLI_MEM_WITHDRAWN, 1, 0);
        break;
    default:
        msg.mem.op = PLI_MEM_WITHDRAW;
        msg.mem.key = 1;
        hostile_send(h, &msg, &page);
    }
}

Test(fault_rma, keys_out_of_order)
{
    static const struct {
        const char *what, *word;
        enum step steps[6];
        int code;
    } cases[] = {
        { "a key of 0", "EXPORT with key 0", { EXPORT_0 }, PLAIT_E_PROTO },
        { "the same key twice", "EXPORT with key 1", { EXPORT_1, EXPORT_1 }, PLAIT_E_PROTO },
        { "a key below another", "EXPORT with key 1", { EXPORT_2, EXPORT_1 }, PLAIT_E_PROTO },
        { "a key that was withdrawn", "EXPORT with key 1", { EXPORT_1, WITHDRAW_1, EXPORT_1 }, PLAIT_E_PROTO },
        { "another key page", "another one", { EXPORT_1, OTHER_PAGE_2 }, PLAIT_E_BADPEER },
        { "nothing to withdraw", "WITHDRAW of key 1", { WITHDRAW_1 }, PLAIT_E_PROTO },
        { "not this one", "WITHDRAW of key 2", { EXPORT_1, WITHDRAW_2 }, PLAIT_E_PROTO },
        { "withdrawn twice", "WITHDRAW of key 1", { EXPORT_1, WITHDRAW_1, WITHDRAW_1 }, PLAIT_E_PROTO },
        { "an answer to nothing", "EXPORTED for key 1", { EXPORTED_1 }, PLAIT_E_PROTO },
        { "another answer to nothing", "WITHDRAWN for key 1", { WITHDRAWN_1 }, PLAIT_E_PROTO },
        { "an answer to its own", "EXPORTED for key 1", { EXPORT_1, EXPORTED_1 }, PLAIT_E_PROTO },
        { "descriptors with a withdrawal", "descriptors", { EXPORT_1, FDS_WITH_WITHDRAW }, PLAIT_E_PROTO },
    };
    static const struct thing page = PAGE;
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);
        int fd;

        hostile_open(h);
        fd = make(&page);
        for (int k = 0; cases[i].steps[k]; k++)
            take_step(h, cases[i].steps[k], fd);
        close(fd);
        WAIT(w, w->srv[i + 1].closed, 1);
        cr_assert_eq(w->srv[i + 1].c_code, cases[i].code, "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        cr_assert_not_null(strstr(w->srv[i + 1].c_text, cases[i].word), "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* More than a peer may have. */
Test(fault_rma, too_many)
{
    static const struct thing page = PAGE;
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;
    int fd;

    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    fd = make(&page);
    for (uint32_t i = 1; i <= PLAIT_EXPORTS_MAX + 1; i++) {
        send_export(h, &exports[0], i, fd);
        if (i <= PLAIT_EXPORTS_MAX)
            expect_mem(h, PLI_MEM_EXPORTED, i, 0);
    }
    close(fd);
    WAIT(w, w->srv[1].closed, 1);
    cr_assert_eq(w->srv[1].c_code, PLAIT_E_PROTO);
    cr_assert_not_null(strstr(w->srv[1].c_text, "more than 1024"), "%s", w->srv[1].c_text);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* ---- answers to what the victim exports ---- */

Test(fault_rma, bad_answers)
{
    static const struct {
        const char *what, *word;
        bool withdraw;          /* the victim does */
        uint32_t ops[3], key;
    } cases[] = {
        { "another key", "EXPORTED for key 2", false, { PLI_MEM_EXPORTED }, 2 },
        { "two answers", "EXPORTED for key 1", false, { PLI_MEM_EXPORTED, PLI_MEM_EXPORTED }, 1 },
        { "withdrawn without being asked", "WITHDRAWN for key 1", false, { PLI_MEM_EXPORTED, PLI_MEM_WITHDRAWN }, 1 },
        { "withdrawn without having answered", "WITHDRAWN for key 1", true, { PLI_MEM_WITHDRAWN }, 1 },
        { "withdrawn twice", "WITHDRAWN for key 1", true, { PLI_MEM_EXPORTED, PLI_MEM_WITHDRAWN, PLI_MEM_WITHDRAWN }, 1 },
        { "another one withdrawn", "for key 7", true, { PLI_MEM_EXPORTED, PLI_MEM_WITHDRAWN }, 7 },
    };
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct world *w = listening_world();
    struct plait_mem *m;
    struct plait_key first;
    struct innocent in;

    o.flags = PLAIT_MEM_WRITABLE;
    FAILS(plait_mem_alloc(&m, LEN, &o), 0);
    innocent_start(w, &in);
    FAILS(plait_mem_export(m, w->srv[0].conn[0], RW, &first), 0); /* makes the key page, which stays */
    settle(w);
    in.fds = count_fds();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct plait_mem_info info = PLAIT_MEM_INFO_INIT;
        struct outcome gone = { 0 };
        struct plait_key key;

        hostile_open(h);
        WAIT(w, w->srv[i + 1].c_opened, 1);
        FAILS(plait_mem_export(m, w->srv[i + 1].conn[0], RW, &key), 0);
        expect_mem(h, PLI_MEM_EXPORT, 1, 0);
        if (cases[i].withdraw) {
            FAILS(plait_mem_withdraw(&key, on_done, &gone), 0);
            expect_mem(h, PLI_MEM_WITHDRAW, 1, 0);
        }
        for (int k = 0; k < 3 && cases[i].ops[k]; k++)
            send_mem(h, cases[i].ops[k], cases[i].key, 0);
        WAIT(w, w->srv[i + 1].closed, 1);
        cr_assert_eq(w->srv[i + 1].c_code, PLAIT_E_PROTO, "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        cr_assert_not_null(strstr(w->srv[i + 1].c_text, cases[i].word), "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        cr_assert_eq(gone.n, cases[i].withdraw);
        hostile_close(h);
        innocent_check(w, &in);
        FAILS(plait_mem_get_info(m, &info), 0);
        cr_assert_eq(info.in_use, 1);
    }
    FAILS(plait_mem_release(m), 0);
    innocent_end(w, &in);
    end_world(w);
}

/* A peer that cannot map it, and one that never answers: the owner goes on. */
Test(fault_rma, refused_and_silent)
{
    struct plait_mem_opts o = PLAIT_MEM_OPTS_INIT;
    struct world *w = listening_world();
    struct plait_key key[2];
    struct plait_mem *m;
    struct innocent in;
    struct hostile *h;

    setenv("PLAIT_LOG", "none", 1);
    o.flags = PLAIT_MEM_WRITABLE;
    FAILS(plait_mem_alloc(&m, LEN, &o), 0);
    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    WAIT(w, w->srv[1].c_opened, 1);
    for (int i = 0; i < 2; i++)
        FAILS(plait_mem_export(m, w->srv[1].conn[0], RW, &key[i]), 0);
    send_mem(h, PLI_MEM_EXPORTED, 1, PLAIT_E_NOMEM);
    settle(w);
    cr_assert_eq(w->srv[1].c_closed, 0);
    FAILS(plait_mem_withdraw(&key[0], NULL, NULL), 0);
    FAILS(plait_mem_release(m), 0);
    settle(w);
    cr_assert_eq(w->srv[1].c_closed, 0);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}
