/* SPDX-License-Identifier: BSD-3-Clause */
/* Two threads, and two processes, at the two ends of a ring. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "ring_util.h"

static struct ring r;
static uint64_t records;
static uint64_t seed;

TestSuite(ring_two, .timeout = 120);

static void delay(struct pli_rand *rnd)
{
    uint64_t n = pli_rand_below(rnd, 64);

    if (n < 16)
        for (volatile uint64_t i = 0; i < n * 20; i++)
            ;
}

/* The other end has to go on first. On a busy machine a yield may take a whole time slice, so not at once. */
static void wait_a_bit(unsigned *spins)
{
    if (++*spins % 512 == 0)
        sched_yield();
}

/* Each end takes the lengths from a generator with the same seed. */
static void *produce(void *arg)
{
    static uint8_t buf[RING_PAYLOAD_MAX];
    uint32_t max = ring_quarter(r.tx.nslots);
    struct pli_rand lens, rnd;
    unsigned spins = 0;

    pli_rand_seed(&lens, seed);
    pli_rand_seed(&rnd, seed + 1);
    for (uint64_t i = 0; i < records; i++) {
        uint32_t len = random_len(&lens, max);

        make_payload(buf, len, i, 0);
        while (!ring_put(&r, buf, len, pli_rand_below(&rnd, 3) == 0)) {
            pli_ring_tx_flush(&r.tx);
            wait_a_bit(&spins);
        }
        if (pli_rand_below(&rnd, 8) == 0)
            pli_ring_tx_touch(&r.tx);
        delay(&rnd);
    }
    pli_ring_tx_flush(&r.tx);
    return arg;
}

/* NULL, or what went wrong. */
static const char *consume(void)
{
    static uint8_t want[RING_PAYLOAD_MAX];
    uint32_t max = ring_quarter(r.rx.nslots), token;
    struct pli_rand lens, rnd;
    const uint8_t *data;
    bool holding = false;
    unsigned spins = 0;

    pli_rand_seed(&lens, seed);
    pli_rand_seed(&rnd, seed + 2);
    for (uint64_t i = 0; i < records; i++) {
        uint32_t len = random_len(&lens, max);
        int n;

        while ((n = ring_peek(&r, &data)) < 0) {
            if (holding)
                pli_ring_rx_release(&r.rx, token);
            holding = false;
            pli_ring_rx_publish(&r.rx);
            wait_a_bit(&spins);
        }
        if ((uint32_t)n != len)
            return "a record has another length";
        make_payload(want, len, i, 0);
        if (memcmp(data, want, len) != 0)
            return "a record is damaged";
        if (!holding && pli_rand_below(&rnd, 4) == 0)
            holding = pli_ring_rx_hold(&r.rx, &token) == 0;
        ring_next(&r);
        if (pli_rand_below(&rnd, 4) == 0)
            pli_ring_rx_publish(&r.rx);
        delay(&rnd);
    }
    return ring_empty(&r) ? NULL : "a record too many";
}

static void two_threads(uint32_t nslots, uint64_t start, uint64_t n)
{
    const char *trouble;
    pthread_t thread;

    records = n;
    seed = nslots;
    ring_open(&r, nslots, start);
    cr_assert_eq(pthread_create(&thread, NULL, produce, NULL), 0);
    trouble = consume();
    if (trouble) /* the producer may wait for ever */
        cr_assert_fail("%s, %u slots", trouble, nslots);
    pthread_join(thread, NULL);
    ring_close(&r);
}

Test(ring_two, threads)
{
    two_threads(2, (UINT64_C(1) << 32) - 100, 300);
    two_threads(4, 0, 500);
    two_threads(16, (UINT64_C(1) << 32) - 100, 2000);
    two_threads(256, 0, 8000);
    two_threads(1024, (UINT64_C(1) << 63) - 1000, 4000);
}

static void *shared(size_t size)
{
    int fd = memfd_create("test-ring", MFD_CLOEXEC);
    void *p;

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    cr_assert_neq(p, MAP_FAILED);
    return p;
}

static void two_processes(uint32_t nslots, uint64_t start, uint64_t n)
{
    size_t size = (size_t)nslots * PLI_SHM_SLOT;
    const char *trouble;
    int status;
    pid_t pid;

    records = n;
    seed = nslots + 77;
    memset(&r, 0, sizeof r);
    r.slots = shared(size);
    r.cursor = shared(4096);
    r.dirty = calloc(nslots, 1);
    pli_ring_rx_init(&r.rx, r.slots, nslots, r.cursor, start);
    pli_ring_tx_init(&r.tx, &r.at, r.slots, nslots, r.dirty, r.cursor, start);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        produce(NULL);
        _exit(0);
    }
    trouble = consume();
    if (trouble)
        kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_null(trouble, "%s, %u slots", trouble, nslots);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    munmap(r.slots, size);
    munmap((void *)r.cursor, 4096);
    free(r.dirty);
}

Test(ring_two, processes)
{
    two_processes(2, 0, 300);
    two_processes(16, (UINT64_C(1) << 32) - 100, 2000);
    two_processes(256, (UINT64_C(1) << 32) - 100, 8000);
    two_processes(1024, 0, 4000);
}
