/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad peers that hand over memory which cannot be trusted: without seals, of the wrong size or shape, or no memory at all. */
#include <sys/socket.h>
#include "test/fault/hostile.h"

TestSuite(fault_memory, .timeout = 120);

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)
#define RIGHT_SIZE (PLI_SHM_CTL_SIZE + PLI_SHM_FIRST_SLOTS * PLI_SHM_SLOT)

enum odd_fd { NORMAL, NO_EVENTFD, PIPE, DIRECTORY, FILE_ON_DISK, SWAPPED, ONE_ONLY, NONE, THREE };

/* One way to be wrong. 0 means: as it should be. */
struct fault {
    const char *what, *word; /* word: in the victim's sentence */
    int seals, size;
    struct pli_shm_desc desc;
    int blob_len;
    enum odd_fd fds;
    int code;
};

#define OK_DESC { PLI_SHM_DESC_MAGIC, PLI_SHM_DESC_VERSION, PLI_SHM_FIRST_SLOTS, PLI_SHM_CTL_SIZE, RIGHT_SIZE }
#define DESC(...) { __VA_ARGS__ }
#define MAGIC PLI_SHM_DESC_MAGIC, PLI_SHM_DESC_VERSION

static const struct fault faults[] = {
    { "no seals", "seals", -1, 0, OK_DESC, 0, NORMAL, 0 },
    { "no shrink seal", "seals", F_SEAL_GROW | F_SEAL_FUTURE_WRITE, 0, OK_DESC, 0, NORMAL, 0 },
    { "no grow seal", "seals", F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE, 0, OK_DESC, 0, NORMAL, 0 },
    { "no write seal", "seals", F_SEAL_SHRINK | F_SEAL_GROW, 0, OK_DESC, 0, NORMAL, 0 },
    { "smaller than said", "bytes", 0, 4096, OK_DESC, 0, NORMAL, 0 },
    { "larger than said", "bytes", 0, RIGHT_SIZE + 4096, OK_DESC, 0, NORMAL, 0 },
    { "empty", "bytes", 0, -1, OK_DESC, 0, NORMAL, 0 },
    { "wrong magic", "", 0, 0, DESC(1, PLI_SHM_DESC_VERSION, PLI_SHM_FIRST_SLOTS, PLI_SHM_CTL_SIZE, RIGHT_SIZE), 0, NORMAL, 0 },
    { "wrong version", "", 0, 0, DESC(PLI_SHM_DESC_MAGIC, 77, PLI_SHM_FIRST_SLOTS, PLI_SHM_CTL_SIZE, RIGHT_SIZE), 0, NORMAL, 0 },
    { "no slots", "", 0, 4096, DESC(MAGIC, 0, PLI_SHM_CTL_SIZE, 4096), 0, NORMAL, 0 },
    { "slots not a power of two", "", 0, 4096 + 255 * 64, DESC(MAGIC, 255, PLI_SHM_CTL_SIZE, 4096 + 255 * 64), 0, NORMAL, 0 },
    { "too many slots", "", 0, 0, DESC(MAGIC, 0x80000000u, PLI_SHM_CTL_SIZE, RIGHT_SIZE), 0, NORMAL, 0 },
    { "slots beyond the memory", "", 0, 0, DESC(MAGIC, 1024, PLI_SHM_CTL_SIZE, RIGHT_SIZE), 0, NORMAL, 0 },
    { "one slot", "", 0, 4160, DESC(MAGIC, 1, PLI_SHM_CTL_SIZE, 4160), 0, NORMAL, 0 },
    { "wrong control size", "", 0, 0, DESC(MAGIC, PLI_SHM_FIRST_SLOTS, 64, RIGHT_SIZE), 0, NORMAL, 0 },
    { "a huge size", "", 0, 0, DESC(MAGIC, PLI_SHM_FIRST_SLOTS, PLI_SHM_CTL_SIZE, UINT64_MAX), 0, NORMAL, 0 },
    { "a short description", "bytes", 0, 0, OK_DESC, 23, NORMAL, 0 },
    { "an empty description", "bytes", 0, 0, OK_DESC, -1, NORMAL, 0 },
    { "a long description", "bytes", 0, 0, OK_DESC, 200, NORMAL, 0 },
    { "no eventfd", "eventfd", 0, 0, OK_DESC, 0, NO_EVENTFD, 0 },
    { "a pipe", "memfd", 0, 0, OK_DESC, 0, PIPE, 0 },
    { "a folder", "memfd", 0, 0, OK_DESC, 0, DIRECTORY, 0 },
    { "a file on disk", "memfd", 0, 0, OK_DESC, 0, FILE_ON_DISK, 0 },
    { "the wrong order", "", 0, 0, OK_DESC, 0, SWAPPED, 0 },
    { "one descriptor", "descriptors", 0, 0, OK_DESC, 0, ONE_ONLY, 0 },
    { "no descriptor", "descriptors", 0, 0, OK_DESC, 0, NONE, 0 },
    { "three descriptors", "descriptors", 0, 0, OK_DESC, 0, THREE, 0 },
};

static int make_memfd(const struct fault *f)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_eq(f->size < 0 ? 0 : fallocate(fd, 0, 0, f->size ? f->size : (off_t)RIGHT_SIZE), 0);
    if (f->seals >= 0)
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, f->seals ? f->seals : ALL_SEALS), 0, "%s", strerror(errno));
    return fd;
}

static int make_file(void)
{
    char path[] = "/tmp/plait-test-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);

    cr_assert_geq(fd, 0);
    unlink(path);
    cr_assert_eq(ftruncate(fd, RIGHT_SIZE), 0);
    return fd;
}

/* Sends the bad description in msg, which is a HELLO_ACK or a TR_CONNECT. */
static void send_fault(struct hostile *h, const struct fault *f, struct pli_wire_msg *msg)
{
    static uint8_t blob[PLI_TR_BLOB_MAX];
    struct pli_wire_bytes *b = msg->type == PLI_WIRE_HELLO_ACK ? &msg->hello.blob : &msg->tr.blob;
    int fds[3], p[2], n = 2;

    memset(blob, 0, sizeof blob);
    memcpy(blob, &f->desc, sizeof f->desc);
    b->p = blob;
    b->len = f->blob_len < 0 ? 0 : f->blob_len ? (uint32_t)f->blob_len : (uint32_t)sizeof f->desc;
    fds[0] = make_memfd(f);
    fds[1] = fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    switch (f->fds) {
    case NO_EVENTFD:
        dup3(p[1], fds[1], O_CLOEXEC);
        break;
    case PIPE:
        dup3(p[0], fds[0], O_CLOEXEC);
        break;
    case DIRECTORY:
        close(fds[0]);
        fds[0] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        break;
    case FILE_ON_DISK:
        close(fds[0]);
        fds[0] = make_file();
        break;
    case SWAPPED:
        fds[2] = fds[0];
        fds[0] = fds[1];
        fds[1] = fds[2];
        break;
    case ONE_ONLY:
        n = 1;
        break;
    case NONE:
        n = 0;
        break;
    case THREE:
        n = 3;
        break;
    default:
        break;
    }
    msg->nfds = (uint16_t)n;
    hostile_send(h, msg, fds);
    close(fds[0]);
    close(fds[1]);
    close(p[0]);
    close(p[1]);
}

static void check_text(const struct fault *f, int code, const char *text)
{
    cr_assert_eq(code, PLAIT_E_BADPEER, "%s: %s %s", f->what, plait_status_name(code), text);
    cr_assert_not_null(strstr(text, f->word), "%s: no '%s' in: %s", f->what, f->word, text);
}

Test(fault_memory, from_a_client)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg, bad = { .type = PLI_WIRE_TR_CONNECT };
        char text[300];

        hostile_dial(h);
        hostile_hello(h, &msg);
        send_fault(h, &faults[i], &bad);
        while (hostile_recv(h, &msg) != PLI_WIRE_BYE)
            cr_assert_neq(msg.type, PLI_WIRE_TR_UP, "%s passed", faults[i].what);
        snprintf(text, sizeof text, "%.*s", (int)msg.end.text.len, (const char *)msg.end.text.p);
        check_text(&faults[i], msg.end.code, text);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

Test(fault_memory, from_a_server)
{
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg ack = { .type = PLI_WIRE_HELLO_ACK };
        struct log cli;

        hostile_listen(h);
        start_open(w, &cli, NULL);
        hostile_greet(h);
        hostile_self(&ack.hello.peer);
        send_fault(h, &faults[i], &ack);
        WAIT(w, cli.closed, 1);
        check_text(&faults[i], cli.code, cli.text);
        cr_assert_eq(cli.opened, 0);
        plait_session_release(cli.s);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* ---- a larger ring that is none ---- */

struct growth {
    const char *what;
    uint32_t op, slots;
    int size, seals, nfds;
    size_t len;
};

Test(fault_memory, bad_growth)
{
    static const struct growth cases[] = {
        { "an unknown message", 9, 1024, 65536, 0, 1, 8 },
        { "a short message", 1, 1024, 65536, 0, 1, 7 },
        { "a long message", 1, 1024, 65536, 0, 1, 9 },
        { "no memory", 1, 1024, 65536, 0, 0, 8 },
        { "two memories", 1, 1024, 65536, 0, 2, 8 },
        { "a smaller ring", 1, 128, 8192, 0, 1, 8 },
        { "not a power of two", 1, 1000, 64000, 0, 1, 8 },
        { "a huge ring", 1, 0x80000000u, 65536, 0, 1, 8 },
        { "memory that is too small", 1, 1024, 65535, 0, 1, 8 },
        { "memory without seals", 1, 1024, 65536, -1, 1, 8 },
        { "an answer to nothing", 2, 2048, 65536, 0, 0, 8 },
        { "an answer with memory", 2, 2048, 65536, 0, 1, 8 },
        { "no bulk memory", 3, 16, 65536, 0, 0, 8 },
        { "a bulk area of nothing", 3, 0, 65536, 0, 1, 8 },
        { "a huge bulk area", 3, 0xffffffffu, 65536, 0, 1, 8 },
        { "bulk memory that is too small", 3, 17, 65536, 0, 1, 8 },
        { "bulk memory without seals", 3, 16, 65536, -1, 1, 8 },
        { "an answer to no bulk area", 4, 512, 65536, 0, 0, 8 },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg msg = { .type = PLI_WIRE_TR_CONTROL };
        struct fault f = { .size = cases[i].size, .seals = cases[i].seals };
        uint8_t blob[16] = { 0 };
        int fds[2];

        hostile_open(h);
        fds[0] = fds[1] = make_memfd(&f);
        memcpy(blob, &cases[i].op, 4);
        memcpy(blob + 4, &cases[i].slots, 4);
        msg.tr.blob.p = blob;
        msg.tr.blob.len = (uint32_t)cases[i].len;
        msg.nfds = (uint16_t)cases[i].nfds;
        hostile_send(h, &msg, fds);
        close(fds[0]);
        WAIT(w, w->srv[i + 1].closed, 1);
        cr_assert(w->srv[i + 1].c_code == PLAIT_E_PROTO || w->srv[i + 1].c_code == PLAIT_E_BADPEER, "%s: %s", cases[i].what,
                  w->srv[i + 1].c_text);
        cr_assert_not_null(strstr(w->srv[i + 1].c_text, "shm") ? "" : strstr(w->srv[i + 1].c_text, "segment"), "%s: %s",
                           cases[i].what, w->srv[i + 1].c_text);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}

/* 64 KiB of good memory, as a larger ring or a bulk area. */
static void give_memory(struct hostile *h, uint32_t op, uint32_t slots)
{
    struct fault f = { .size = 1024 * 64 };
    struct pli_wire_msg msg = { .type = PLI_WIRE_TR_CONTROL, .nfds = 1 };
    struct pli_shm_note note = { op, slots };
    int fd = make_memfd(&f);

    msg.tr.blob.p = &note;
    msg.tr.blob.len = sizeof note;
    hostile_send(h, &msg, &fd);
    close(fd);
}

/* A good larger ring, twice; and one that is switched to although it never came. */
Test(fault_memory, growing_twice_and_never)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    for (int i = 0; i < 2; i++)
        give_memory(h, PLI_SHM_CTL_GROW, 1024);
    WAIT(w, w->srv[1].closed, 1);
    cr_assert_eq(w->srv[1].c_code, PLAIT_E_PROTO);
    cr_assert_not_null(strstr(w->srv[1].c_text, "second time"), "%s", w->srv[1].c_text);
    hostile_close(h);
    innocent_check(w, &in);

    h = new_hostile(w);
    hostile_open(h);
    hostile_record(h, PLI_SHM_SWITCH, 0, 0, NULL);
    WAIT(w, w->srv[2].closed, 1);
    cr_assert_eq(w->srv[2].c_code, PLAIT_E_PROTO);
    cr_assert_not_null(strstr(w->srv[2].c_text, "never gave"), "%s", w->srv[2].c_text);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* A good bulk area, twice. */
Test(fault_memory, a_second_bulk_area)
{
    struct world *w = listening_world();
    struct innocent in;
    struct hostile *h;

    innocent_start(w, &in);
    h = new_hostile(w);
    hostile_open(h);
    for (int i = 0; i < 2; i++)
        give_memory(h, PLI_SHM_CTL_BULK, 16);
    WAIT(w, w->srv[1].closed, 1);
    cr_assert_eq(w->srv[1].c_code, PLAIT_E_PROTO);
    cr_assert_not_null(strstr(w->srv[1].c_text, "second bulk area"), "%s", w->srv[1].c_text);
    hostile_close(h);
    innocent_check(w, &in);
    innocent_end(w, &in);
    end_world(w);
}

/* References into it that lead outside of it, or to what must not be there. */
Test(fault_memory, bad_bulk_references)
{
    static const struct {
        const char *what, *word;
        uint32_t meta, len;
        uint64_t offset;
    } cases[] = {
        { "behind the area", "outside", PLI_REC_ONEWAY, 16, 65536 },
        { "across its end", "outside", PLI_REC_ONEWAY, 100, 65536 - 64 },
        { "far away", "outside", PLI_REC_ONEWAY, 16, UINT64_C(1) << 63 },
        { "an offset that wraps", "outside", PLI_REC_ONEWAY, 16, UINT64_MAX - 63 },
        { "an odd offset", "outside", PLI_REC_ONEWAY, 16, 8 },
        { "a length that is too much with its header", "outside", PLI_REC_ONEWAY | 1024u << 16, 16, 65536 - 64 },
        { "a pad", "transport's own", PLI_SHM_PAD, 16, 0 },
        { "a reference", "transport's own", PLI_SHM_BULK, 16, 0 },
        { "a record of no type", "unknown type", PLI_REC_LAST + 1, 16, 0 },
        { "several records", "flags", PLI_REC_ONEWAY | 1u << PLI_RING_PACK_SHIFT, 16, 0 },
    };
    struct world *w = listening_world();
    struct innocent in;

    innocent_start(w, &in);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hostile *h = new_hostile(w);
        struct pli_wire_msg answer;
        struct pli_shm_bulk_ref ref[16] = { { cases[i].meta, 0, cases[i].offset } };

        hostile_open(h);
        give_memory(h, PLI_SHM_CTL_BULK, 16);
        hostile_expect(h, &answer, PLI_WIRE_TR_CONTROL);
        hostile_record(h, PLI_SHM_BULK, pli_rec_w1(cases[i].len, h->chan, 0), 0, ref);
        WAIT(w, w->srv[i + 1].closed, 1);
        cr_assert_eq(w->srv[i + 1].c_code, PLAIT_E_PROTO, "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        cr_assert_not_null(strstr(w->srv[i + 1].c_text, cases[i].word), "%s: %s", cases[i].what, w->srv[i + 1].c_text);
        hostile_close(h);
        innocent_check(w, &in);
    }
    innocent_end(w, &in);
    end_world(w);
}
