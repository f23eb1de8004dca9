/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the peer programs share: options, pinning, the clock and the JSON lines, which have the names of
 * `plait perf --json`, so that one parser reads plait and its peers.
 */
#ifndef TEST_BENCH_PEER_H
#define TEST_BENCH_PEER_H

#include <stddef.h>

#define PEER_LIST_MAX 16
#define PEER_SAMPLES 100000
#define PEER_BATCH 64  /* round trips of a latency sample: makes the clock's 20 ns vanish */
#define PEER_SLICE 512 /* messages, at least, of a rate sample */
#define PEER_SIZE_MAX 65536        /* of all tests but bw */
#define PEER_BW_SIZE_MAX (64 << 20)

struct peer_list {
    int v[PEER_LIST_MAX];
    int n;
};

struct peer_opts {
    const char *test; /* "lat", "rate", "rpc" or "bw" */
    struct peer_list sizes;
    struct peer_list windows;
    struct peer_list cores; /* two */
    double seconds;         /* for each figure */
    const char *provider;   /* of libfabric, or NULL; the other programs do not look at it */
};

/*
 * What one figure is made of: half round trips in ns, or rates per second of short slices. Their median
 * stands for the run, so that a moment in which the core was taken away does not count.
 */
struct peer_samples {
    double v[PEER_SAMPLES];
    int n;
};

/* Reads the command line; prints what is wrong and exits with 2 on a mistake. */
void peer_parse(int argc, char **argv, struct peer_opts *o);
/* Pins the calling thread; exits with 1 if the core cannot be had. */
void peer_pin(int core);
/* Monotonic seconds. */
double peer_now(void);
/* Prints to stderr and exits with 1. */
void peer_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* How many messages of bw are in flight together: 16 MiB, but 2 to 64 messages. */
int peer_bw_window(int size);
/* Memory for them, with its pages; the caller frees it. */
char *peer_memory(size_t size);

/* Records PEER_BATCH round trips, or `count` messages, or bytes. Returns nonzero when no more samples fit. */
int peer_add_lat(struct peer_samples *s, double batch_seconds);
int peer_add_rate(struct peer_samples *s, long count, double seconds);
/* These print one line of JSON and empty the samples. field: "msgs_per_s", "requests_per_s", "bytes_per_s". */
void peer_print_lat(struct peer_samples *s, const char *transport, int size);
void peer_print_rate(struct peer_samples *s, const char *test, const char *field, const char *transport,
                     int size, int window);

/*
 * Forks the responder: returns 0 in the child and 1 in the parent, and in both of them a socket to the
 * other. Each is pinned to its core. The child dies with its parent, and neither outlives a hung run.
 */
int peer_fork(const struct peer_opts *o, int *sock);
/* Sends my blob and receives the other's into `theirs` (up to max bytes). Blocks. Returns its length. */
size_t peer_swap(int sock, const void *mine, size_t len, void *theirs, size_t max);
/* The parent waits for the child, and exits with 1 if the child has failed. */
void peer_join(void);

#endif
