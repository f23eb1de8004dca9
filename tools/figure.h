/* SPDX-License-Identifier: BSD-3-Clause */
/* A figure of `plait perf`: what it is, as a line of a table and as a line of JSON. */
#ifndef TOOLS_FIGURE_H
#define TOOLS_FIGURE_H

#include <stdbool.h>
#include <stddef.h>
#include "stats.h"

struct json_object;

enum perf_test { PERF_LIMIT, PERF_LAT, PERF_RATE, PERF_RPC, PERF_BW, PERF_WAKE, PERF_PUT, PERF_GET, PERF_ATOMIC, PERF_TESTS };

/* lat --beside: what a stream of long messages does. */
struct figure_beside {
    size_t size;             /* of these; 0: there is none */
    unsigned window, links;
    struct stats half_rtt;   /* ns, while it runs */
    double bytes_per_s;      /* that it moved meanwhile */
    double ratio, ratio_avg; /* of p50 and of mean, with it to without */
};

struct figure {
    enum perf_test test;
    const char *transport;
    size_t size;          /* bytes of a message */
    unsigned window;
    const char *take;     /* how long messages are taken, or NULL */
    bool touch;           /* lat: both sides copy what they get */
    bool duplex;          /* bw: both directions at once */
    unsigned rounds;
    unsigned long iterations; /* in each round */
    int cpu_a, cpu_b;
    const char *note;     /* why the figure means little, or NULL */
    struct stats half_rtt;/* lat, wake: ns */
    double value;         /* rate, rpc, bw: a second */
    double limit, ratio;
    double physical;      /* lat */
    struct figure_beside beside;
    double memcpy_limit, pipelined_limit; /* bw */
    bool wire;            /* between nodes: instead of physical, memcpy and pipelined there are */
    double raw;           /* bw: a raw TCP stream */
    double fabric, fabric_ratio; /* bare libfabric, and the figure's ratio to it; NAN: none */
};

const char *perf_test_name(enum perf_test t);

#define FIGURE_RATIO 4 /* for digits: four that count, wherever the point is */

/* A number with so many digits (0 to 3) after the point; null for what is no number. */
struct json_object *figure_number(double v, int digits);

/* An object with min, p50, p90, p99, max. */
struct json_object *figure_stats(const struct stats *s, int digits);

/* The figure's object; the caller puts it. */
struct json_object *figure_json(const struct figure *f);

/* Prints the object on a line of standard output, and puts it. */
void figure_print_json(struct json_object *o);

/* Prints what stands above and in the table. */
void figure_print_head(const struct figure *f);
void figure_print_row(const struct figure *f);

#endif
