/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf: what its files share. A client measures, a peer (a process of its own, or one that the user
 * started with --serve) does what it is told by control requests. Single thread on both sides. */
#ifndef TOOLS_PERF_H
#define TOOLS_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <plait/plait.h>
#include "cli.h"
#include "figure.h"
#include "limit.h"

/* ---- between client and peer ---- */

/* Begins the private data of both sides: name and version of this small protocol. The client adds
 * " window=N take=NAME", the peer " cpu=N". */
#define PERF_HELLO "plait-perf 3"

enum perf_mode {
    PERF_IDLE,
    PERF_ECHO,      /* a one-way message is answered by another one of that size, and not looked at */
    PERF_ECHO_COPY, /* ... and copied first */
    PERF_SINK,      /* one-way messages are counted */
    PERF_REPLY,     /* requests are answered with their own bytes */
    PERF_DUPLEX,    /* one-way messages are counted; after an empty one, n of `size` bytes are sent */
    PERF_BESIDE,    /* as ECHO, but on connections other than the first as SINK */
};

enum perf_op { PERF_START = 1, PERF_COUNT, PERF_STOP, PERF_EXPORT };

/* A request with a header part is a control request; this is the header. */
struct perf_cmd {
    uint32_t op, mode;
    uint32_t spin; /* nonzero: poll without sleep until PERF_STOP */
    uint32_t zero;
    uint64_t size, n; /* PERF_START: bytes of each message, messages of the round */
};

/* Data of its reply. */
struct perf_answer {
    uint64_t count, bytes; /* one-way messages since PERF_START */
};

/* ---- options ---- */

#define PERF_ROUNDS_MAX 100u
#define PERF_WINDOW_MAX 16384u

struct perf_opts {
    unsigned tests;            /* bits 1 << enum perf_test */
    struct cli_list sizes, windows; /* n 0: each test's own */
    unsigned long iterations;  /* in each round; 0: each test's own */
    unsigned long rounds;
    unsigned long batch;       /* of rate */
    const char *transport;     /* "auto", "shm", "ofi" */
    const char *take;          /* see perf_take() */
    bool touch;                /* lat: both sides copy what they get */
    bool duplex;               /* bw: both directions at once */
    const char *beside;        /* lat: how the messages of a stream beside it are taken; NULL: no stream */
    size_t beside_size;        /* bytes of each */
    int cpus[2];               /* client, peer; -1: as placement says */
    bool json;
    const char *serve, *connect;
    bool peer;                 /* this is the peer that a client started */
};

/* Replaces what is -1 in cpus: the first and the second core that this process may use. */
void perf_choose_cpus(int cpus[2]);

/* perf --serve; returns the exit status. Blocks until it is told to end. */
int perf_serve(const struct perf_opts *o);

/* Whether there is such a way. */
bool perf_take_known(const char *take);
/* Sets what the session does with long messages: "auto", "place", "copy", "cma", "ring". NULL, or why not. */
const char *perf_take(struct plait_session_opts *so, const char *take);

/* ---- what is sent ---- */

#define PERF_LONG 8192u /* from so many bytes on a message goes from where it lies, with PLAIT_NOCOPY */

struct perf_payload {
    struct plait_mem *mem;
    unsigned char *data; /* nobody changes it while messages go from it */
    size_t size;
    unsigned char *copy; /* where received messages are copied, or NULL */
};

/* 0 or a negative code, with plait_error_text(); of the copy's memory the only one is PLAIT_E_NOMEM. */
int perf_payload_open(struct perf_payload *p, size_t size);
int perf_payload_open_copy(struct perf_payload *p, size_t size);
void perf_payload_close(struct perf_payload *p);

/* A one-way message; its memory stays unchanged until the connection has ended. As plait_send(). */
int perf_send_long(struct plait_conn *conn, const void *data, size_t size, unsigned flags);
static inline int perf_send(struct plait_conn *conn, const void *data, size_t size, unsigned flags)
{
    if (__builtin_expect(size < PERF_LONG, 1))
        return plait_send(conn, data, size, flags);
    return perf_send_long(conn, data, size, flags);
}

/* ---- the peer process of a client ---- */

struct perf_peer {
    pid_t pid;   /* 0: none */
    int in, out; /* its standard input, whose end ends it, and its standard output */
    char uri[1500];
};

/* Starts this program as a peer pinned to a CPU, and waits until it listens. CLI_OK, or CLI_FAILED with a
 * message. The peer ends when this process ends, however that happens. */
int perf_peer_start(struct perf_peer *p, int cpu);
/* If it has died (a moment is waited for it): a sentence about it and a colon, else "". Valid until the next
 * call. */
const char *perf_peer_death(struct perf_peer *p);
/* Tells it to end and waits; kills it if that takes too long. */
void perf_peer_stop(struct perf_peer *p);

/* ---- the client ---- */

#define PERF_PARTS 10 /* a rate is the median of so many parts of its round, as that of the limit is */

#define PERF_BESIDE_WINDOW 4u /* messages of the stream that are in flight */

/* The stream of lat --beside. */
struct perf_beside {
    size_t size;            /* 0: there is none, and one connection */
    struct plait_conn *conn;
    unsigned links;         /* of the context */
    bool on;
    unsigned inflight;
    unsigned long sent, done;
    unsigned long wait_for; /* so many done: perf_done() */
};

struct perf_client {
    struct plait_ctx *ctx;
    struct plait_session *session;
    struct plait_conn *conn;
    struct plait_timer *watchdog;
    const char *uri, *take;
    char transport[16];
    int peer_cpu;         /* -1: unknown */
    bool park;            /* sleep while waiting: polling would keep the peer from running */
    bool closing, closed;

    int status;           /* why nothing goes on, a negative code; */
    char why[500];        /* its sentence */
    uint64_t seen;        /* messages at the watchdog's last look */
    unsigned quiet;       /* seconds since something moved */

    /* of the round that runs */
    bool done;            /* what perf_wait() waits for */
    bool blocked;         /* a send found no space */
    const unsigned char *buf;
    unsigned char *copy;  /* lat --touch copy: for what comes */
    size_t size;
    unsigned window;
    unsigned batch, batch_left;
    unsigned long n, left, to_send;
    unsigned long moved, total; /* duplex: messages in both directions */
    unsigned long part, part_left;
    double t0;
    double *samples;      /* ns, half round trips */
    size_t nsamples;
    unsigned nparts;      /* of rate, rpc, bw: parts of the round that are over, */
    double part_end[PERF_PARTS]; /* and when */
    struct perf_answer answer;
    struct perf_beside beside;
};

/* All of these: 0 or a negative code, with c->why. They block, with the context running. */
int perf_client_open(struct perf_client *c, const struct plait_conn_ops *ops, unsigned window);
int perf_client_close(struct perf_client *c);
/* A control request and its reply, in c->answer. */
int perf_control(struct perf_client *c, enum perf_op op, enum perf_mode mode);

/* on_writable of the tests: ends perf_wait_space(). */
void perf_on_writable(struct plait_conn *conn, void *arg);

/* Waits until c->done (and clears it), or for space until !c->blocked. */
int perf_wait(struct perf_client *c);
int perf_wait_space(struct perf_client *c);

/* Records a failure, the first one counts; with a sentence or, fmt NULL, the library's. Returns the code. */
int perf_fail(struct perf_client *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* For callbacks: what perf_wait() waits for is there. */
void perf_done(struct perf_client *c);

/* ns */
double perf_now(void);

/* ---- the tests ---- */

/* What a round gave. */
struct perf_round {
    struct stats half_rtt; /* lat, wake */
    struct stats beside;   /* lat --beside: while the stream runs; half_rtt: while it does not */
    double beside_rate;    /* bytes a second of the stream */
    double value;          /* the figure whose ratio to the limit counts: p50, or a second */
};

struct perf_limits {
    double value, physical, memcpy, pipelined;
    double raw, fabric; /* over the fabric: raw TCP, bare libfabric (NAN: none) */
};

struct perf_kind {
    enum perf_test test;
    enum perf_mode mode;
    const struct plait_conn_ops *ops;
    /* One round of n messages, already started at the peer. 0 or a negative code with c->why. */
    int (*round)(struct perf_client *c, unsigned long n, struct perf_round *out);
    /* The limit; n as above. 0 or a negative code with limit_error(). */
    int (*limit)(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                 struct perf_limits *out);
    unsigned long (*iterations)(size_t size); /* that are enough */
    const char *sizes;
    const char *windows;
    bool sleeps; /* both sides sleep while they wait */
};

/* NULL for PERF_LIMIT. */
const struct perf_kind *perf_kind(enum perf_test t);
/* put, get, atomic (perf_rma.c); NULL for others. */
const struct perf_kind *perf_rma_kind(enum perf_test t);
/* Their peer's side: answers PERF_EXPORT, whose data is a size (u64), with the key of *mem, which is made if it is NULL. */
void perf_export(struct plait_mem **mem, struct plait_key *key, struct plait_msg *msg);
extern const struct perf_kind perf_lat_copy_kind; /* lat --touch copy */
extern const struct perf_kind perf_duplex_kind;   /* bw --duplex */
extern const struct perf_kind perf_beside_kind;   /* lat --beside */

#define PERF_BW_SIZES "4k,64k,1M,4M,64M"
#define PERF_BW_WINDOW "64"

/* Parts of a round of n messages: of how many messages each; one is over now; messages a second, from parts
 * of `part` messages each (what n has beyond them is not counted). */
unsigned long perf_part_of(const struct perf_client *c, unsigned long n);
void perf_part_over(struct perf_client *c);
double perf_parts_rate(const struct perf_client *c, unsigned long part);

/* Of lat: the callbacks of its client; n round trips, whose times (of `batch` each, 1 to n) are appended to c->samples, where
 * there is room; limit and iterations as in struct perf_kind. */
void perf_lat_message(struct plait_conn *conn, struct plait_msg *msg, void *arg);
void perf_lat_writable(struct plait_conn *conn, void *arg);
int perf_round_trips(struct perf_client *c, unsigned long n, unsigned batch);
int perf_lat_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                   struct perf_limits *out);
unsigned long perf_lat_iterations(size_t size);

int perf_duplex_limit(struct limit_pair *pair, size_t size, unsigned window, unsigned long n,
                      struct perf_limits *out);
unsigned long perf_bw_iterations(size_t size);

/* Runs the tests; prints figures and errors; returns the exit status. */
int perf_run(const struct perf_opts *o);

/* `perf limit`: as above. */
int perf_run_limit(const struct perf_opts *o, struct limit_pair *pair);
int perf_run_fabric_limit(const struct perf_opts *o, struct limit_pair *pair); /* with --transport ofi */

/* The limit of a test over the fabric, as struct perf_kind's limit. */
int perf_fabric_limit(const struct perf_kind *kind, struct limit_pair *pair, size_t size, unsigned window,
                      unsigned long n, struct perf_limits *out);

#endif
