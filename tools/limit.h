/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine's own limits, measured with bare shared memory between two pinned processes.
 *
 * limit_pair_open() starts a peer process that sleeps until it is asked, so that nothing disturbs what is
 * measured in between: the caller alternates a round of plait with a round of a limit. The caller's
 * thread is pinned to the first CPU during a round, and gets its old mask back afterwards.
 *
 * All functions: from the thread that opened the pair (the peer ends when that thread ends); they block
 * for the time of the measurement; 0 or a negative plait status, and then limit_error() has the sentence. */
#ifndef TOOLS_LIMIT_H
#define TOOLS_LIMIT_H

#include <stdbool.h>
#include <stddef.h>

struct limit_pair;

#define LIMIT_RATE_MAX_SIZE (64u << 10)   /* largest message of limit_rate_run() */
#define LIMIT_BW_MAX_SIZE   (256u << 20)  /* largest message of limit_bw_run() */

/* Starts the peer, pinned to cpu_b; rounds pin the caller to cpu_a. -1 for a CPU: plait chooses the first
 * that the process may use and that is still free. Open it before any plait context: the peer is a fork of
 * this process. It closes every descriptor that it inherits, dies with this process, and leaves no file. */
int limit_pair_open(struct limit_pair **out, int cpu_a, int cpu_b);

/* Ends the peer and waits for it. NULL is allowed. */
void limit_pair_close(struct limit_pair *p);

/* NULL where the two ends have a CPU each. Otherwise a sentence for the user: the figures of such a pair
 * are no limits, since the two ends take turns on one CPU. */
const char *limit_pair_note(const struct limit_pair *p);

/* The CPUs in use. */
int limit_pair_cpu_a(const struct limit_pair *p);
int limit_pair_cpu_b(const struct limit_pair *p);

/* The peer's process id (for tests, and for messages). */
int limit_pair_pid(const struct limit_pair *p);

/* The sentence of the last failed call of this file. */
const char *limit_error(void);

/* Half round trips of 8 bytes, in ns: each is the median of batches. */
enum {
    LIMIT_LAT_TIGHT,       /* two lines, one writer each */
    LIMIT_LAT_PAUSE,       /* ... with a pause between two looks */
    LIMIT_LAT_FETCH,       /* ... with the own line fetched for writing while waiting */
    LIMIT_LAT_FETCH_PAUSE, /* ... both */
    LIMIT_LAT_ONE,         /* one line that both write */
    LIMIT_LAT_ONE_PAUSE,   /* ... with a pause between two looks */
    LIMIT_LAT_FORMS
};

struct limit_lat {
    double half_rtt_ns;    /* the limit: best of the two-line forms */
    double physical_ns;    /* best of the one-line forms */
    int best, physical;    /* which forms these are */
    double form_ns[LIMIT_LAT_FORMS];
};

/* Runs each form for `iters` round trips (at least 100). */
int limit_lat_run(struct limit_pair *p, unsigned iters, struct limit_lat *out);
const char *limit_lat_name(int form);

/* Messages per second through a bare ring with one producer and one consumer. A slot is one word (length
 * or sequence) and the payload; the producer writes all of it, the consumer reads each cache line. */
enum {
    LIMIT_RATE_INDEX,      /* both sides read and write the indices at every message */
    LIMIT_RATE_CACHED,     /* ... read the other's index only when their copy is used up */
    LIMIT_RATE_BATCH,      /* ... and the producer publishes 16 messages at a time */
    LIMIT_RATE_SEQUENCE,   /* no producer index: the slot's word carries the sequence */
    LIMIT_RATE_FORMS
};

struct limit_rate {
    double msgs_per_s;     /* the limit: best of the forms */
    int best;
    double form[LIMIT_RATE_FORMS];
};

/* Runs each form for `messages` messages of `size` bytes (1 to LIMIT_RATE_MAX_SIZE). */
int limit_rate_run(struct limit_pair *p, size_t size, unsigned long messages, struct limit_rate *out);
const char *limit_rate_name(int form);

/* Bytes per second for messages of one size. */
enum {
    LIMIT_BW_MEMCPY,       /* memcpy inside one process */
    LIMIT_BW_PIPE_16K,     /* copied in by one process, out by the other, 8 shared chunks of 16 KiB */
    LIMIT_BW_PIPE_32K,
    LIMIT_BW_PIPE_64K,
    LIMIT_BW_PIPE_256K,    /* 2 MiB in flight leave the second-level caches: read from the shared third */
    LIMIT_BW_FORMS
};

struct limit_bw {
    double bytes_per_s;    /* the limit: best of all forms */
    double memcpy_bytes_per_s;
    double pipelined_bytes_per_s;
    int best;
    double form[LIMIT_BW_FORMS];
};

/* Runs each form for about `bytes` bytes in messages of `size` bytes (1 to LIMIT_BW_MAX_SIZE). */
int limit_bw_run(struct limit_pair *p, size_t size, unsigned long bytes, struct limit_bw *out);

/* The same in both directions at once: `bytes` bytes each way, each process copies in and out by turns; the
 * figures are the sums. memcpy in one process is no form of this: its figure is there, but never the best. */
int limit_duplex_run(struct limit_pair *p, size_t size, unsigned long bytes, struct limit_bw *out);
const char *limit_bw_name(int form);

/* Locked operations a second on 8 bytes of shared memory that nobody else touches. */
enum {
    LIMIT_ATOMIC_ADD,
    LIMIT_ATOMIC_SWAP,     /* compare and swap, every one of which exchanges */
    LIMIT_ATOMIC_FORMS
};

struct limit_atomic {
    double ops_per_s;      /* the limit: add */
    double form[LIMIT_ATOMIC_FORMS];
};

/* Runs each form for `ops` operations (at least 500). */
int limit_atomic_run(struct limit_pair *p, unsigned long ops, struct limit_atomic *out);
const char *limit_atomic_name(int form);

/* Wake-ups, one way (half a round trip), ns, medians. */
struct limit_wake {
    double eventfd_ns, futex_ns;            /* from CPU to CPU; as below where there is one CPU only */
    double eventfd_same_ns, futex_same_ns;  /* both ends on cpu_a */
};

/* Runs each kind for `iters` round trips (at least 10). */
int limit_wake_run(struct limit_pair *p, unsigned iters, struct limit_wake *out);

/* ---- between nodes, measured inside this one ---- */

/* Raw TCP over loopback, TCP_NODELAY, both ends polling their socket without sleep (MSG_DONTWAIT); sizes 1 to
 * LIMIT_BW_MAX_SIZE. */

/* Half a round trip of `size` bytes, at least 25 times; sleeps: both ends block in recv() instead. */
int limit_tcp_lat(struct limit_pair *p, size_t size, unsigned iters, bool sleeps, double *half_rtt_ns);
/* Messages a second one way, each sent with one call of send(); their bounds are not looked for, as it is a stream. */
int limit_tcp_stream(struct limit_pair *p, size_t size, unsigned long messages, double *per_s);
/* Both ways at once, so many messages each way; the sum. */
int limit_tcp_duplex(struct limit_pair *p, size_t size, unsigned long messages, double *per_s);

/* A bare libfabric program on the provider that PLAIT_PROVIDER names ("tcp" if unset): FI_EP_MSG where it has that,
 * FI_EP_RDM otherwise and for layered ones ("tcp;ofi_rxm"). libfabric is loaded at the first use, at run time. */

/* NULL if it can be used here, otherwise a sentence that says why not. */
const char *limit_fabric_missing(void);
/* "tcp, FI_EP_MSG, libfabric 1.17"; only if it is not missing. */
const char *limit_fabric_name(void);

/* Half round trips. */
enum {
    LIMIT_FABRIC_SEND,     /* sends (injected where that is possible), each reported by the receiver's queue */
    LIMIT_FABRIC_QUIET,    /* ... received without a report: the receiver looks at its next buffer */
    LIMIT_FABRIC_WRITE,    /* written into the peer's memory, which the receiver looks at */
    LIMIT_FABRIC_FORMS
};

struct limit_fabric_lat {
    double half_rtt_ns;    /* the limit: best of the forms */
    int best;
    double form[LIMIT_FABRIC_FORMS];
};

/* Runs each form for `iters` round trips (at least 25). A form that the provider lacks is NAN. */
int limit_fabric_lat(struct limit_pair *p, size_t size, unsigned iters, struct limit_fabric_lat *out);
const char *limit_fabric_lat_name(int form);

/* Messages a second one way. */
enum {
    LIMIT_FABRIC_STREAM,   /* sends into posted receives */
    LIMIT_FABRIC_READ,     /* the receiver reads them out of the sender's memory */
    LIMIT_FABRIC_STREAMS
};

struct limit_fabric_stream {
    double per_s;          /* the limit: best of the forms */
    int best;
    double form[LIMIT_FABRIC_STREAMS];
};

/* Runs each form for so many messages. */
int limit_fabric_stream(struct limit_pair *p, size_t size, unsigned long messages, struct limit_fabric_stream *out);
const char *limit_fabric_stream_name(int form);

#endif
