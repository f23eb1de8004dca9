/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The distance of two cores: a bare ping-pong over two cache lines, one writer each. compare runs it before
 * and after every other program. Only the second half of the time counts, when the cores are awake.
 */
#include "peer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define LAST (~0u)

struct lines {
    _Alignas(128) atomic_uint ping;
    _Alignas(128) atomic_uint pong;
};

static struct peer_samples samples;

static void follow(struct lines *l)
{
    for (unsigned n = 1;; n++) {
        unsigned v;

        while ((v = atomic_load_explicit(&l->ping, memory_order_acquire)) != n) {
            if (v == LAST)
                return;
        }
        atomic_store_explicit(&l->pong, n, memory_order_release);
    }
}

static void lead(struct lines *l, double seconds)
{
    double start = peer_now(), t0 = start, t1;
    unsigned n = 0;

    do {
        for (int i = 0; i < PEER_BATCH; i++) {
            atomic_store_explicit(&l->ping, ++n, memory_order_release);
            while (atomic_load_explicit(&l->pong, memory_order_acquire) != n)
                ;
        }
        t1 = peer_now();
        if (t1 - start > seconds / 2 && peer_add_lat(&samples, t1 - t0))
            break;
        t0 = t1;
    } while (t1 - start < seconds);
    atomic_store_explicit(&l->ping, LAST, memory_order_release);
}

int main(int argc, char **argv)
{
    struct peer_opts o;
    struct lines *l;
    int sock;

    peer_parse(argc, argv, &o);
    if (strcmp(o.test, "lat"))
        peer_die("%s: only lat", argv[0]);
    l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (l == MAP_FAILED)
        peer_die("mmap: %s", strerror(errno));
    if (!peer_fork(&o, &sock)) {
        follow(l);
        return 0;
    }
    lead(l, o.seconds);
    peer_join();
    peer_print_lat(&samples, "raw", 8);
    return 0;
}
