/* SPDX-License-Identifier: BSD-3-Clause */
/* A peer that writes what it likes into its own segment: the link fails with a sentence, and nothing outside is read. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "runtime/transport.h"
#include "shm/layout.h"
#include "util/rand.h"
#include <plait/plait.h>

#define SLOTS 256u
#define SIZE (PLI_SHM_CTL_SIZE + SLOTS * PLI_SHM_SLOT)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | 0x10)

static struct pli_tr *tr;
static uint64_t shm_bytes, kicks, bind_failures, received, bytes_read, sum;
static int failed_code;
static unsigned nfailed, nwritable;
static char failed_text[256];
static struct pli_shm_ctl *ctl;      /* the hostile peer's own segment, writable */
static struct pli_shm_slot *slots;
static uint8_t *mem;

static int rx(void *owner, uint32_t meta, uint64_t w1, const void *payload)
{
    uint64_t n = pli_rec_payload(meta, w1);

    (void)owner;
    received++;
    bytes_read += n;
    for (uint64_t i = 0; i < n; i++) /* outside of the mapping, this would be the end */
        sum += ((const uint8_t *)payload)[i];
    cr_assert_leq(n, SLOTS * PLI_SHM_SLOT - PLI_REC_HEAD);
    return 0;
}

static void writable(void *owner)
{
    (void)owner;
    nwritable++;
}

static int send_control(void *owner, const void *blob, size_t len, const int *fds, int nfds)
{
    (void)owner;
    (void)blob;
    (void)len;
    (void)fds;
    (void)nfds;
    return 0;
}

static void failed(void *owner, int code, const char *text)
{
    (void)owner;
    nfailed++;
    failed_code = code;
    snprintf(failed_text, sizeof failed_text, "%s", text);
}

static const struct pli_tr_up up = { .rx = rx, .writable = writable, .send_control = send_control, .failed = failed };

/* A sealed memfd with a writable mapping that was made before. */
static int make_memory(size_t size, uint8_t **map)
{
    int fd = memfd_create("test-hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_geq(fd, 0);
    cr_assert(size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0);
    *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(*map, MAP_FAILED);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, SEALS), 0);
    return fd;
}

static void create(void)
{
    struct pli_tr_env env = { .local_node = -1, .peer_node = -1, .shm_bytes = &shm_bytes, .kicks = &kicks,
                              .bind_failures = &bind_failures };

    received = bytes_read = nfailed = nwritable = 0;
    cr_assert_eq(pli_shm_ops.create(&tr, &env, &up, NULL), 0);
}

static void setup(void)
{
    struct pli_shm_desc d = { PLI_SHM_DESC_MAGIC, PLI_SHM_DESC_VERSION, SLOTS, PLI_SHM_CTL_SIZE, SIZE };
    int fds[2];

    create();
    fds[0] = make_memory(SIZE, &mem);
    fds[1] = eventfd(0, EFD_CLOEXEC);
    cr_assert_eq(pli_shm_ops.connect(tr, &d, sizeof d, fds, 2), 0, "%s", plait_error_text());
    ctl = (struct pli_shm_ctl *)mem;
    slots = (struct pli_shm_slot *)(mem + PLI_SHM_CTL_SIZE);
}

static void fini(void)
{
    pli_shm_ops.destroy(tr, false);
    munmap(mem, SIZE);
}

TestSuite(hostile, .init = setup, .fini = fini, .timeout = 60);

static void record(uint32_t pos, uint32_t meta, uint64_t w1)
{
    slots[pos % SLOTS].word1 = w1;
    atomic_store_explicit(&slots[pos % SLOTS].word0, (uint64_t)meta << 32 | pos, memory_order_release);
}

static void fails(int code, const char *text)
{
    pli_shm_ops.poll(tr, 64);
    cr_assert_eq(nfailed, 1);
    cr_assert_eq(failed_code, code);
    cr_assert_not_null(strstr(failed_text, text), "'%s' lacks '%s'", failed_text, text);
    cr_assert_eq(received, 0);
}

Test(hostile, length_over_the_end)
{
    record(0, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(SLOTS * 64 - 15, 1, 1));
    fails(PLAIT_E_PROTO, "length");
}

Test(hostile, length_that_wraps)
{
    record(0, pli_rec_meta(PLI_REC_ONEWAY, PLI_RF_COOKIE, 0xffff), pli_rec_w1(UINT32_MAX, 1, 1));
    fails(PLAIT_E_PROTO, "length");
}

Test(hostile, header_over_the_end)
{
    record(0, pli_rec_meta(PLI_REC_ONEWAY, 0, 0xffff), pli_rec_w1(0, 1, 1));
    fails(PLAIT_E_PROTO, "length");
}

Test(hostile, greatest_length)
{
    record(0, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(SLOTS * 64 - 16, 1, 1));
    cr_assert_eq(pli_shm_ops.poll(tr, 64), 1);
    cr_assert_eq(bytes_read, SLOTS * 64 - 16);
    cr_assert_eq(nfailed, 0);
}

Test(hostile, last_slot)
{
    for (uint32_t i = 0; i < SLOTS - 1; i++)
        record(i, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), 0);
    cr_assert_eq(pli_shm_ops.poll(tr, 1000), SLOTS - 1);
    received = 0;
    record(SLOTS - 1, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), pli_rec_w1(49, 0, 0));
    fails(PLAIT_E_PROTO, "length");
}

Test(hostile, unknown_types)
{
    for (uint32_t type = PLI_SHM_BULK + 1; type <= 0xff; type++) {
        nfailed = 0;
        record(0, type, 0);
        fails(PLAIT_E_PROTO, "unknown type");
    }
}

Test(hostile, switch_without_a_ring)
{
    record(0, PLI_SHM_SWITCH, 0);
    fails(PLAIT_E_PROTO, "never gave");
}

Test(hostile, bulk_without_an_area)
{
    record(0, PLI_SHM_BULK, 0);
    fails(PLAIT_E_PROTO, "bulk area");
}

/* Pads as fast as they are read: the poll must come back. */
Test(hostile, nothing_but_pads)
{
    for (uint32_t lap = 0; lap < 50; lap++) {
        record(lap * SLOTS, PLI_SHM_PAD, 0);
        cr_assert_eq(pli_shm_ops.poll(tr, 4), 0);
    }
    for (uint32_t i = 0; i < SLOTS; i++) /* of any positions: only one can be right */
        record(50 * SLOTS + i, PLI_SHM_PAD, 0);
    cr_assert_eq(pli_shm_ops.poll(tr, 1000), 0);
    cr_assert_eq(nfailed, 0);
}

static void fill(void)
{
    while (pli_shm_ops.send(tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), 0, 0, NULL, NULL, false) == 0)
        ;
}

Test(hostile, cursor_beyond)
{
    atomic_store(&ctl->cursor, 100000);
    fill();
    fails(PLAIT_E_BADPEER, "cursor");
}

Test(hostile, cursor_goes_back)
{
    fill();
    atomic_store(&ctl->cursor, 200);
    pli_shm_ops.poll(tr, 10);
    cr_assert_eq(nwritable, 1);
    fill();
    atomic_store(&ctl->cursor, 199);
    fails(PLAIT_E_BADPEER, "cursor");
}

Test(hostile, parked_and_wanting_at_random)
{
    struct pli_rand rnd;

    pli_rand_seed(&rnd, 1);
    for (int i = 0; i < 2000; i++) {
        atomic_store(&ctl->parked, (uint32_t)pli_rand_next(&rnd));
        atomic_store(&ctl->want_space, (uint32_t)pli_rand_next(&rnd));
        pli_shm_ops.send(tr, pli_rec_meta(PLI_REC_ONEWAY, 0, 0), 0, 0, NULL, NULL, false);
        pli_shm_ops.poll(tr, 1);
        pli_shm_ops.park(tr);
        pli_shm_ops.ready(tr);
        pli_shm_ops.unpark(tr);
    }
    cr_assert_eq(nfailed, 0);
}

/* Random words everywhere, with lengths that are now and then plausible. */
Test(hostile, garbage)
{
    struct pli_rand rnd;

    for (uint64_t seed = 0; seed < 300; seed++) {
        pli_rand_seed(&rnd, seed);
        if (seed) {
            fini();
            setup();
        }
        for (uint32_t i = 0; i < 2 * SLOTS && !nfailed; i++) {
            uint64_t w1 = pli_rand_next(&rnd);

            if (pli_rand_below(&rnd, 4))
                w1 &= UINT64_C(0xffffffff000007ff);
            for (uint32_t s = 0; s < SLOTS; s++) /* wherever it looks next */
                record(i / 2 * SLOTS + s, pli_rec_meta(1 + pli_rand_below(&rnd, 255), 0, 0), w1);
            pli_shm_ops.poll(tr, 8);
        }
    }
}

/* ---- control messages and descriptions ---- */

static int grow(uint32_t n, size_t size, bool with_fd)
{
    struct pli_shm_note note = { PLI_SHM_CTL_GROW, n };
    uint8_t *map = NULL;
    int fd = -1, rc;

    if (with_fd)
        fd = make_memory(size, &map);
    rc = pli_shm_ops.control(tr, &note, sizeof note, &fd, with_fd);
    if (map)
        munmap(map, size);
    return rc;
}

Test(hostile, second_grow)
{
    cr_assert_eq(grow(512, 512 * 64, true), 0);
    cr_assert_eq(grow(1024, 1024 * 64, true), PLAIT_E_PROTO);
    cr_assert_not_null(strstr(plait_error_text(), "second time"));
}

Test(hostile, second_switch)
{
    cr_assert_eq(grow(512, 512 * 64, true), 0);
    record(0, PLI_SHM_SWITCH, 0);
    cr_assert_eq(pli_shm_ops.poll(tr, 8), 0);
    cr_assert_eq(nfailed, 0);
    cr_assert_eq(pli_shm_ops.poll(tr, 8), 0, "the new ring is empty");
}

Test(hostile, bad_grows)
{
    static const uint32_t counts[] = { 0, 1, 128, 256, 300, 2 * PLI_SHM_MAX_SLOTS, UINT32_MAX };

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        cr_assert_eq(grow(counts[i], 4096, true), PLAIT_E_BADPEER);
    cr_assert_eq(grow(512, 512 * 64 - 4096, true), PLAIT_E_BADPEER);
    cr_assert_eq(grow(512, 0, false), PLAIT_E_PROTO);
    cr_assert_eq(grow(512, 512 * 64, true), 0, "a refused one is not the first");
}

Test(hostile, grown_without_grow)
{
    struct pli_shm_note note = { PLI_SHM_CTL_GROWN, PLI_SHM_GROWN_SLOTS };

    cr_assert_eq(pli_shm_ops.control(tr, &note, sizeof note, NULL, 0), PLAIT_E_PROTO);
    note.slots = 0;
    cr_assert_eq(pli_shm_ops.control(tr, &note, sizeof note, NULL, 0), PLAIT_E_PROTO);
    note.op = 99;
    cr_assert_eq(pli_shm_ops.control(tr, &note, sizeof note, NULL, 0), PLAIT_E_PROTO);
    cr_assert_not_null(strstr(plait_error_text(), "99"));
    cr_assert_eq(pli_shm_ops.control(tr, &note, 7, NULL, 0), PLAIT_E_PROTO);
}

static void bad_desc(struct pli_shm_desc d, bool is_eventfd, const char *text)
{
    uint8_t *map;
    int fds[2] = { make_memory(SIZE, &map), is_eventfd ? eventfd(0, 0) : dup(0) };

    pli_shm_ops.destroy(tr, false);
    create();
    cr_assert_eq(pli_shm_ops.connect(tr, &d, sizeof d, fds, 2), PLAIT_E_BADPEER);
    cr_assert_not_null(strstr(plait_error_text(), text), "'%s' lacks '%s'", plait_error_text(), text);
    cr_assert_lt(fcntl(fds[0], F_GETFD), 0);
    cr_assert_lt(fcntl(fds[1], F_GETFD), 0);
    munmap(map, SIZE);
}

Test(hostile, descriptions)
{
    const struct pli_shm_desc good = { PLI_SHM_DESC_MAGIC, PLI_SHM_DESC_VERSION, SLOTS, PLI_SHM_CTL_SIZE, SIZE };
    struct pli_shm_desc d;

    bad_desc(good, false, "eventfd");
    d = good, d.magic++;
    bad_desc(d, true, "magic");
    d = good, d.version++;
    bad_desc(d, true, "version");
    d = good, d.slots = 1;
    bad_desc(d, true, "slots");
    d = good, d.slots = 255;
    bad_desc(d, true, "slots");
    d = good, d.slots = 2 * PLI_SHM_MAX_SLOTS;
    bad_desc(d, true, "slots");
    d = good, d.slots = 2 * SLOTS;
    bad_desc(d, true, "does not hold");
    d = good, d.ctl_size = 0;
    bad_desc(d, true, "does not hold");
    d = good, d.slots = 2 * SLOTS, d.size = PLI_SHM_CTL_SIZE + 2 * SLOTS * 64;
    bad_desc(d, true, "bytes");
}
