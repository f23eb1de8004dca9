/* SPDX-License-Identifier: BSD-3-Clause */
#include "figure.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include "cli.h"

static const struct {
    const char *name, *field, *what, *unit;
    double scale;
} tests[PERF_TESTS] = {
    [PERF_LIMIT] = { "limit", NULL, "the machine's own limits", NULL, 1 },
    [PERF_LAT] = { "lat", "half_rtt_ns", "half round trip, one-way messages each way", "ns", 1 },
    [PERF_RATE] = { "rate", "msgs_per_s", "one-way messages", "M/s", 1e-6 },
    [PERF_RPC] = { "rpc", "requests_per_s", "requests with replies", "M/s", 1e-6 },
    [PERF_BW] = { "bw", "bytes_per_s", "bytes in one-way messages", "GB/s", 1e-9 },
    [PERF_PUT] = { "put", "bytes_per_s", "bytes written into the peer's memory", "GB/s", 1e-9 },
    [PERF_GET] = { "get", "bytes_per_s", "bytes read from the peer's memory", "GB/s", 1e-9 },
    [PERF_ATOMIC] = { "atomic", "ops_per_s", "atomic additions in the peer's memory", "M/s", 1e-6 },
    [PERF_WAKE] = { "wake", "half_rtt_ns", "half round trip between contexts that sleep", "us", 1e-3 },
};

static bool is_time(enum perf_test t)
{
    return t == PERF_LAT || t == PERF_WAKE;
}

const char *perf_test_name(enum perf_test t)
{
    return tests[t].name;
}

/* ---- JSON ---- */

struct json_object *figure_number(double v, int digits)
{
    static const char *const formats[] = { "%.0f", "%.1f", "%.2f", "%.3f", "%.4g" };
    struct json_object *o;

    if (!(v > -1e300 && v < 1e300))
        return NULL; /* printed as null */
    o = json_object_new_double(v);
    json_object_set_serializer(o, json_object_double_to_json_string, (void *)(uintptr_t)formats[digits],
                               NULL);
    return o;
}

struct json_object *figure_stats(const struct stats *s, int digits)
{
    struct json_object *o = json_object_new_object();

    json_object_object_add(o, "min", figure_number(s->min, digits));
    json_object_object_add(o, "p50", figure_number(s->p50, digits));
    json_object_object_add(o, "p90", figure_number(s->p90, digits));
    json_object_object_add(o, "p99", figure_number(s->p99, digits));
    json_object_object_add(o, "max", figure_number(s->max, digits));
    return o;
}

static struct json_object *beside_json(const struct figure *f)
{
    struct json_object *o = json_object_new_object(), *times = figure_stats(&f->beside.half_rtt, 1);

    json_object_object_add(o, "size", json_object_new_int64((int64_t)f->beside.size));
    json_object_object_add(o, "window", json_object_new_int64(f->beside.window));
    json_object_object_add(o, "links", json_object_new_int64(f->beside.links));
    json_object_object_add(times, "mean", figure_number(f->beside.half_rtt.avg, 1));
    json_object_object_add(o, "half_rtt_ns", times);
    json_object_object_add(o, "alone_mean", figure_number(f->half_rtt.avg, 1));
    json_object_object_add(o, "bytes_per_s", figure_number(f->beside.bytes_per_s, 0));
    json_object_object_add(o, "ratio", figure_number(f->beside.ratio, FIGURE_RATIO));
    json_object_object_add(o, "ratio_mean", figure_number(f->beside.ratio_avg, FIGURE_RATIO));
    return o;
}

static void add_wire(struct json_object *o, const struct figure *f, int digits)
{
    if (f->test == PERF_BW)
        json_object_object_add(o, "raw", figure_number(f->raw, digits));
    json_object_object_add(o, "fabric", figure_number(f->fabric, digits));
}

static void add_copies(struct json_object *o, const struct figure *f, int digits)
{
    json_object_object_add(o, "memcpy", figure_number(f->memcpy_limit, digits));
    json_object_object_add(o, "pipelined", figure_number(f->pipelined_limit, digits));
}

struct json_object *figure_json(const struct figure *f)
{
    struct json_object *o = json_object_new_object(), *cpus = json_object_new_array();
    int digits = is_time(f->test) ? 1 : 0;

    json_object_object_add(o, "test", json_object_new_string(tests[f->test].name));
    json_object_object_add(o, "transport", json_object_new_string(f->transport));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)f->size));
    json_object_object_add(o, "window", json_object_new_int64(f->window));
    json_object_object_add(o, tests[f->test].field,
                           is_time(f->test) ? figure_stats(&f->half_rtt, 1) : figure_number(f->value, 0));
    json_object_object_add(o, "limit", figure_number(f->limit, digits));
    if (f->wire)
        add_wire(o, f, digits);
    else if (f->test == PERF_LAT)
        json_object_object_add(o, "physical", figure_number(f->physical, digits));
    else if (f->test == PERF_BW)
        add_copies(o, f, digits);
    json_object_object_add(o, "ratio", figure_number(f->ratio, FIGURE_RATIO));
    if (f->wire)
        json_object_object_add(o, "fabric_ratio", figure_number(f->fabric_ratio, FIGURE_RATIO));
    if (f->take)
        json_object_object_add(o, "take", json_object_new_string(f->take));
    if (f->test == PERF_LAT)
        json_object_object_add(o, "touch", json_object_new_string(f->touch ? "copy" : "none"));
    if (f->beside.size)
        json_object_object_add(o, "beside", beside_json(f));
    if (f->test == PERF_BW)
        json_object_object_add(o, "duplex", json_object_new_boolean(f->duplex));
    json_object_object_add(o, "rounds", json_object_new_int64(f->rounds));
    json_object_object_add(o, "iterations", json_object_new_int64((int64_t)f->iterations));
    json_object_array_add(cpus, json_object_new_int(f->cpu_a));
    json_object_array_add(cpus, json_object_new_int(f->cpu_b));
    json_object_object_add(o, "cpus", cpus);
    if (f->note)
        json_object_object_add(o, "note", json_object_new_string(f->note));
    return o;
}

void figure_print_json(struct json_object *o)
{
    puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

/* ---- table ---- */

static const char *manner(const struct figure *f)
{
    if (f->test == PERF_LAT && f->touch)
        return ", copied by both receivers";
    return f->test == PERF_BW && f->duplex ? ", both directions at once" : "";
}

static void print_beside_head(const struct figure *f)
{
    char size[CLI_TEXT];

    printf("%s: %s, %s, over %s, CPUs %d and %d, medians of %u rounds; beside a stream of %s, %u in flight, on the "
           "same link, taken: %s\n", tests[f->test].name, tests[f->test].what, tests[f->test].unit, f->transport,
           f->cpu_a, f->cpu_b, f->rounds, cli_bytes(size, f->beside.size), f->beside.window, f->take);
    printf("%9s %9s %9s %9s %9s %9s %9s %9s %9s %7s %7s\n", "size", "limit", "alone", "p50", "p90", "p99", "max",
           "mean", "GB/s", "ratio", "of mean");
}

static void print_beside_row(const struct figure *f)
{
    const struct stats *s = &f->beside.half_rtt;
    char size[CLI_TEXT];

    printf("%9s %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f %9.2f %7.2f %7.2f\n", cli_bytes(size, f->size), f->limit,
           f->half_rtt.p50, s->p50, s->p90, s->p99, s->max, s->avg, f->beside.bytes_per_s / 1e9, f->beside.ratio,
           f->beside.ratio_avg);
    fflush(stdout);
}

void figure_print_head(const struct figure *f)
{
    const char *unit = tests[f->test].unit;

    if (f->beside.size) {
        print_beside_head(f);
        return;
    }
    printf("%s: %s%s, %s, over %s, CPUs %d and %d, medians of %u rounds\n", tests[f->test].name,
           tests[f->test].what, manner(f), unit, f->transport, f->cpu_a, f->cpu_b, f->rounds);
    if (is_time(f->test))
        printf("%9s %9s %9s %9s %9s %9s %9s %9s %7s\n", "size", "min", "p50", "p90", "p99", "max", "limit",
               f->wire ? "fabric" : f->test == PERF_LAT ? "physical" : "", "ratio");
    else if (f->wire)
        printf("%9s %9s %9s %9s %9s %7s\n", "size", "window", unit, "limit", "fabric", "ratio");
    else if (f->test == PERF_BW)
        printf("%9s %9s %9s %9s %9s %9s %7s\n", "size", "window", unit, "limit", "memcpy", "pipelined",
               "ratio");
    else
        printf("%9s %9s %9s %9s %7s\n", "size", "window", unit, "limit", "ratio");
}

static void print_fabric(const struct figure *f, int digits)
{
    if (f->fabric > 0)
        printf(" %9.*f", digits, tests[f->test].scale * f->fabric);
    else
        printf(" %9s", "-");
}

void figure_print_row(const struct figure *f)
{
    double k = tests[f->test].scale;
    char size[CLI_TEXT];

    if (f->beside.size) {
        print_beside_row(f);
        return;
    }
    printf("%9s", cli_bytes(size, f->size));
    if (is_time(f->test)) {
        const struct stats *s = &f->half_rtt;

        printf(" %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f", k * s->min, k * s->p50, k * s->p90, k * s->p99,
               k * s->max, k * f->limit);
        if (f->wire)
            print_fabric(f, 1);
        else if (f->test == PERF_LAT)
            printf(" %9.1f", f->physical);
        else
            printf(" %9s", "");
    } else {
        printf(" %9u %9.2f %9.2f", f->window, k * f->value, k * f->limit);
        if (f->wire)
            print_fabric(f, 2);
        else if (f->test == PERF_BW)
            printf(" %9.2f %9.2f", k * f->memcpy_limit, k * f->pipelined_limit);
    }
    printf(" %7.2f\n", f->ratio);
    fflush(stdout);
}
