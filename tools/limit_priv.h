/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files limit_*.c share: the pair, the shared memory, and how the two ends wait. */
#ifndef TOOLS_LIMIT_PRIV_H
#define TOOLS_LIMIT_PRIV_H

#include <stdint.h>
#include <sys/types.h>
#include "limit.h"

#define LIMIT_RING_BYTES (2u << 20)
#define LIMIT_PARTS 5 /* a figure is the median of so many parts, so that one interruption does not count */

enum limit_op { LIMIT_OP_LAT, LIMIT_OP_RATE, LIMIT_OP_BW, LIMIT_OP_DUPLEX, LIMIT_OP_EVENTFD, LIMIT_OP_FUTEX,
                LIMIT_OP_TCP, LIMIT_OP_FABRIC };

/* One order to the peer, a packet on the socket. */
struct limit_cmd {
    uint32_t op, form;
    uint64_t n;       /* round trips, messages, or messages of `size` */
    uint64_t size;
    uint64_t token;   /* for the common start */
    int32_t cpu;      /* where the peer runs for this order */
};

/* Words of different writers are 128 bytes apart: processors fetch lines in pairs. */
struct limit_shm {
    _Alignas(128) uint64_t ready;    /* peer: token of the order it is ready for */
    _Alignas(128) uint64_t go;       /* caller: token that starts it */
    _Alignas(128) uint64_t line_a;   /* caller's line */
    _Alignas(128) uint64_t line_b;   /* peer's line */
    _Alignas(128) uint64_t line_ab;  /* written by both */
    _Alignas(128) uint64_t head;     /* producer (caller) */
    _Alignas(128) uint64_t tail;     /* consumer (peer) */
    _Alignas(128) uint64_t head_back; /* the other way: producer (peer) */
    _Alignas(128) uint64_t tail_back; /* consumer (caller) */
    _Alignas(128) uint32_t futex_a;
    _Alignas(128) uint32_t futex_b;
    _Alignas(128) int32_t failed;    /* peer: errno of what kept it from getting ready */
    _Alignas(128) uint64_t given_up; /* token of the order that one end has given up */
    char why[256];                   /* peer: why it has */
    _Alignas(4096) unsigned char ring[LIMIT_RING_BYTES];
    _Alignas(4096) unsigned char ring_back[LIMIT_RING_BYTES];
};

struct limit_pair {
    struct limit_shm *shm;
    unsigned spins;       /* looks before limit_wait_slow(): 1 where the two ends share a CPU */
    unsigned slow;        /* calls of limit_wait_slow() */
    bool is_peer;         /* this is the peer's copy */
    bool dead;            /* the peer died: every later call fails */
    int sock;
    int event_a, event_b; /* eventfds: a wakes the peer, b the caller */
    int cpu_a, cpu_b;
    pid_t parent, peer;
    uint64_t token;       /* of the order that runs */
    int tcp;              /* limit_tcp.c: the connection, -1: none yet */
    unsigned char *buf[2]; /* private memory: caller's source and target, peer's target and source */
    size_t buf_len;
    unsigned char saved_mask[1024 / 8]; /* the caller's affinity between limit_begin() and limit_end() */
    char note[200];
};

/* Errors: store the sentence, return the code. */
int limit_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
int limit_fail_errno(const char *what) __attribute__((cold));

/* A round: limit_begin() pins the caller; limit_start() sends an order and returns when both ends run;
 * limit_end() gives the caller its old mask back, and returns rc. */
int limit_begin(struct limit_pair *p);
int limit_start(struct limit_pair *p, struct limit_cmd *cmd);
int limit_end(struct limit_pair *p, int rc);

/* What a wait does when it has looked p->spins times: lets others run, and now and then checks that the
 * other end lives. 0, or -1 when it does not (p->dead is set). */
int limit_wait_slow(struct limit_pair *p) __attribute__((cold, noinline));

/* Tells the other end that this order cannot go on, with the sentence of the last failure: its waits end with -1. */
void limit_give_up(struct limit_pair *p) __attribute__((cold));
/* The caller's, before limit_end(): what an order returns that ended with rc, 0, -1 or a code; gives up if need be. */
int limit_ended(struct limit_pair *p, int rc);
/* The caller's: whether the peer has died. */
bool limit_is_dead(struct limit_pair *p);

/* Grows the private buffers to len bytes, touched. 0 or an errno. */
int limit_buffers(struct limit_pair *p, size_t len, int count);

/* The peer's halves. */
void limit_lat_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_rate_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_bw_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_duplex_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_eventfd_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_futex_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_tcp_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_fabric_peer(struct limit_pair *p, const struct limit_cmd *cmd);
void limit_fabric_tidy(void); /* before the next order of any kind */

/* Batches of ping-pongs and their median: the mean of a long run would contain the machine's interruptions. */
#define LIMIT_BATCHES 25u

uint64_t limit_now_ns(void);
double limit_median(double *v, unsigned n); /* sorts v */

static inline void limit_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void limit_fetch_for_write(const void *line)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line)); /* the builtin may emit a plain prefetch */
#else
    __builtin_prefetch(line, 1, 3);
#endif
}

/* p->spins for looks that are system calls: where others want the CPU too, they must not wait long. */
static inline unsigned limit_calls(const struct limit_pair *p)
{
    return p->spins > 64 ? p->spins / 64 : 1;
}

static inline uint64_t limit_load(const uint64_t *w)
{
    return __atomic_load_n(w, __ATOMIC_ACQUIRE);
}

static inline void limit_store(uint64_t *w, uint64_t v)
{
    __atomic_store_n(w, v, __ATOMIC_RELEASE);
}

/* Waits until the word is v; with a pause between two looks, or none. 0, or -1 when the other end died. */
static inline __attribute__((always_inline)) int limit_wait(struct limit_pair *p, const uint64_t *w,
                                                            uint64_t v, bool pause)
{
    unsigned left = p->spins;

    while (__builtin_expect(limit_load(w) != v, 0)) {
        if (pause)
            limit_relax();
        if (--left == 0) {
            if (limit_wait_slow(p))
                return -1;
            left = p->spins;
        }
    }
    return 0;
}

/* Waits until the word is at least v, and stores it in *seen. */
static inline __attribute__((always_inline)) int limit_wait_reach(struct limit_pair *p, const uint64_t *w,
                                                                  uint64_t v, uint64_t *seen)
{
    unsigned left = p->spins;

    while ((*seen = limit_load(w)) < v) {
        limit_relax();
        if (--left == 0) {
            if (limit_wait_slow(p))
                return -1;
            left = p->spins;
        }
    }
    return 0;
}

#endif
