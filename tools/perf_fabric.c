/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf over the fabric: the limits of each test, and `perf limit --transport ofi`, which shows them alone. */
#include "perf.h"

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define STREAM_BYTES (128ul << 20) /* so many in a round are enough */
#define STREAM_MSGS 100000ul

static unsigned long between(unsigned long v, unsigned long lo, unsigned long hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static unsigned trips(size_t size, unsigned long n)
{
    return (unsigned)between(n, 25, 10000 / (1 + size / 16384) + 100);
}

static unsigned long messages(size_t size, unsigned long n)
{
    unsigned long enough = STREAM_BYTES / size + 5;

    return between(n, 5, enough < STREAM_MSGS ? enough : STREAM_MSGS);
}

/* ---- the limits of the tests; what libfabric has no figure for, or is missing, is NAN ---- */

static bool bare(void)
{
    return limit_fabric_missing() == NULL;
}

static int lat_limits(struct limit_pair *pair, size_t size, unsigned long n, struct perf_limits *out)
{
    struct limit_fabric_lat l = { 0 };
    int rc = limit_tcp_lat(pair, size, trips(size, n), false, &out->raw);

    if (rc == 0 && bare())
        rc = limit_fabric_lat(pair, size, trips(size, n), &l);
    out->fabric = bare() ? l.half_rtt_ns : NAN;
    out->value = out->raw;
    return rc;
}

/* Messages a second, each sent with a call of its own: what gathers them may be faster. */
static int rate_limits(struct limit_pair *pair, size_t size, unsigned long n, struct perf_limits *out)
{
    struct limit_fabric_stream s = { 0 };
    int rc = limit_tcp_stream(pair, size, messages(size, n), &out->raw);

    if (rc == 0 && bare())
        rc = limit_fabric_stream(pair, size, messages(size, n), &s);
    out->fabric = bare() ? s.per_s : NAN;
    out->value = out->raw;
    return rc;
}

/* Two bounds, as between processes of a node: as many as messages one way, and a round trip each. */
static int rpc_limits(struct limit_pair *pair, size_t size, unsigned window, unsigned long n, struct perf_limits *out)
{
    struct perf_limits lat = { 0 };
    int rc = lat_limits(pair, size, n, &lat);

    if (rc == 0)
        rc = rate_limits(pair, size, n, out);
    if (rc == 0) {
        out->value = fmin(out->raw, window / (2 * lat.raw) * 1e9);
        if (bare())
            out->fabric = fmin(out->fabric, window / (2 * lat.fabric) * 1e9);
    }
    return rc;
}

static int bw_limits(struct limit_pair *pair, size_t size, unsigned long n, struct perf_limits *out)
{
    int rc = rate_limits(pair, size, n, out);

    out->raw *= (double)size;
    out->fabric *= (double)size;
    out->value = fmax(out->raw, out->fabric); /* of a number and NAN: the number */
    return rc;
}

static int duplex_limits(struct limit_pair *pair, size_t size, unsigned long n, struct perf_limits *out)
{
    int rc = limit_tcp_duplex(pair, size, messages(size, n), &out->raw);

    out->raw *= (double)size;
    out->value = out->raw;
    out->fabric = NAN;
    return rc;
}

/* One at a time: a short message one way and the bytes the other, and no more than a stream carries. */
static int rma_limits(struct limit_pair *pair, size_t size, unsigned window, unsigned long n, struct perf_limits *out)
{
    double ask = 0, bytes = 0;
    int rc = limit_tcp_lat(pair, 8, trips(8, n), false, &ask);

    if (rc == 0)
        rc = limit_tcp_lat(pair, size, trips(size, n), false, &bytes);
    if (rc == 0)
        rc = bw_limits(pair, size, n, out);
    if (rc == 0)
        out->value = fmin(out->value, window * (double)size * 1e9 / (ask + bytes));
    return rc;
}

static int wake_limits(struct limit_pair *pair, size_t size, unsigned long n, struct perf_limits *out)
{
    out->fabric = NAN;
    return limit_tcp_lat(pair, size, (unsigned)between(n, 25, 500), true, &out->value);
}

static int atomic_limits(struct limit_pair *pair, unsigned long n, struct perf_limits *out)
{
    int rc = lat_limits(pair, 8, n, out);

    out->value = 1e9 / (2 * out->raw);
    out->fabric = 1e9 / (2 * out->fabric);
    return rc;
}

int perf_fabric_limit(const struct perf_kind *kind, struct limit_pair *pair, size_t size, unsigned window,
                      unsigned long n, struct perf_limits *out)
{
    switch (kind->test) {
    case PERF_RATE:
        return rate_limits(pair, size, n, out);
    case PERF_RPC:
        return rpc_limits(pair, size, window, n, out);
    case PERF_BW:
        return kind == &perf_duplex_kind ? duplex_limits(pair, size, n, out) : bw_limits(pair, size, n, out);
    case PERF_PUT:
    case PERF_GET:
        return rma_limits(pair, size, window, n, out);
    case PERF_ATOMIC:
        return atomic_limits(pair, n, out);
    case PERF_WAKE:
        return wake_limits(pair, size, n, out);
    default:
        return lat_limits(pair, size, n, out);
    }
}

/* ---- perf limit --transport ofi ---- */

#define FORMS_MAX LIMIT_FABRIC_FORMS

struct table {
    const struct perf_opts *o;
    struct limit_pair *pair;
    double raw[PERF_ROUNDS_MAX], fabric[PERF_ROUNDS_MAX], ratio[PERF_ROUNDS_MAX];
    double form[FORMS_MAX][PERF_ROUNDS_MAX];
};

/* A test of this table. */
struct part {
    const char *name, *what, *field;
    const char *sizes;
    size_t from, to; /* of --size those it takes */
    int forms, digits;
    bool is_time, bytes;
    const char *(*form_name)(int form);
    double scale;
};

static const struct part parts[] = {
    { "lat", "half round trip, us", "half_rtt_ns", "8,64,1k,4k,16k,64k", 1, 64 << 10, LIMIT_FABRIC_FORMS, 1, true,
      false, limit_fabric_lat_name, 1e-3 },
    { "rate", "messages one way, each sent with a call of its own, M/s", "msgs_per_s", "8", 1, 1 << 10,
      LIMIT_FABRIC_STREAMS, 0, false, false, limit_fabric_stream_name, 1e-6 },
    { "bw", "bytes one way, GB/s", "bytes_per_s", "64k,1M,4M", 4 << 10, LIMIT_BW_MAX_SIZE, LIMIT_FABRIC_STREAMS, 0,
      false, true, limit_fabric_stream_name, 1e-9 },
};

static int one_round(struct table *t, const struct part *p, size_t size, unsigned r)
{
    unsigned long n = t->o->iterations ? t->o->iterations : ~0ul;
    double unit = p->bytes ? (double)size : 1;
    struct limit_fabric_stream s = { 0 };
    struct limit_fabric_lat l = { 0 };
    int rc;

    if (p->is_time)
        rc = limit_tcp_lat(t->pair, size, trips(size, n), false, &t->raw[r]);
    else
        rc = limit_tcp_stream(t->pair, size, messages(size, n), &t->raw[r]);
    if (rc == 0 && bare())
        rc = p->is_time ? limit_fabric_lat(t->pair, size, trips(size, n), &l)
                        : limit_fabric_stream(t->pair, size, messages(size, n), &s);
    if (rc < 0)
        return cli_error("%s", limit_error());
    t->raw[r] *= unit;
    t->fabric[r] = !bare() ? NAN : p->is_time ? l.half_rtt_ns : s.per_s * unit;
    t->ratio[r] = t->fabric[r] / t->raw[r];
    for (int i = 0; i < p->forms; i++)
        t->form[i][r] = !bare() ? NAN : p->is_time ? l.form[i] : s.form[i] * unit;
    return CLI_OK;
}

/* The lines of JSON and of the table; every number is the median of the rounds. */

static void print_json(struct table *t, const struct part *p, size_t size)
{
    struct json_object *o = json_object_new_object(), *cpus = json_object_new_array(), *forms;
    const char *note = limit_pair_note(t->pair) ? limit_pair_note(t->pair) : limit_fabric_missing();
    unsigned n = (unsigned)t->o->rounds;
    double raw = stats_median(t->raw, n), fabric = stats_median(t->fabric, n);

    json_object_object_add(o, "test", json_object_new_string("limit"));
    json_object_object_add(o, "of", json_object_new_string(p->name));
    json_object_object_add(o, "transport", json_object_new_string("ofi"));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)size));
    json_object_object_add(o, "window", json_object_new_int(0));
    json_object_object_add(o, p->field, figure_number(p->bytes ? fmax(raw, fabric) : raw, p->digits));
    json_object_object_add(o, "raw", figure_number(raw, p->digits));
    json_object_object_add(o, "fabric", figure_number(fabric, p->digits));
    json_object_object_add(o, "ratio", figure_number(stats_median(t->ratio, n), FIGURE_RATIO));
    forms = json_object_new_object();
    for (int i = 0; i < p->forms; i++)
        json_object_object_add(forms, p->form_name(i), figure_number(stats_median(t->form[i], n), p->digits));
    json_object_object_add(o, "forms", forms);
    if (bare())
        json_object_object_add(o, "provider", json_object_new_string(limit_fabric_name()));
    json_object_object_add(o, "rounds", json_object_new_int64((int64_t)n));
    json_object_array_add(cpus, json_object_new_int(limit_pair_cpu_a(t->pair)));
    json_object_array_add(cpus, json_object_new_int(limit_pair_cpu_b(t->pair)));
    json_object_object_add(o, "cpus", cpus);
    if (note)
        json_object_object_add(o, "note", json_object_new_string(note));
    figure_print_json(o);
}

static void print_cell(double v)
{
    if (isnan(v))
        printf(" %10s", "-");
    else
        printf(" %10.3f", v);
}

static void print_head(const struct part *p)
{
    printf("%s: %s\n%9s %10s %10s %10s", p->name, p->what, "size", "raw TCP", "libfabric", "ratio");
    for (int i = 0; i < p->forms; i++)
        printf("     form %d", i + 1);
    printf("\n");
}

static void print_row(struct table *t, const struct part *p, size_t size)
{
    unsigned n = (unsigned)t->o->rounds;
    char text[CLI_TEXT];

    printf("%9s", cli_bytes(text, size));
    print_cell(p->scale * stats_median(t->raw, n));
    print_cell(p->scale * stats_median(t->fabric, n));
    print_cell(stats_median(t->ratio, n));
    for (int i = 0; i < p->forms; i++)
        print_cell(p->scale * stats_median(t->form[i], n));
    printf("\n");
    fflush(stdout);
}

static int one_part(struct table *t, const struct part *p)
{
    struct cli_list sizes = t->o->sizes;
    bool headed = false;
    const char *why;

    if (sizes.n == 0)
        cli_parse_sizes(p->sizes, &sizes, &why);
    for (unsigned i = 0; i < sizes.n; i++) {
        if (sizes.v[i] < p->from || sizes.v[i] > p->to)
            continue;
        for (unsigned r = 0; r < t->o->rounds; r++) {
            cli_progress("limit of %s, %zu bytes: round %u of %lu", p->name, sizes.v[i], r + 1, t->o->rounds);
            if (one_round(t, p, sizes.v[i], r) != CLI_OK)
                return CLI_FAILED;
        }
        cli_progress(NULL);
        if (t->o->json) {
            print_json(t, p, sizes.v[i]);
            continue;
        }
        if (!headed)
            print_head(p);
        headed = true;
        print_row(t, p, sizes.v[i]);
    }
    return CLI_OK;
}

static void print_forms(const struct part *p)
{
    for (int i = 0; i < p->forms; i++)
        printf("%s form %d: %s", i ? ";" : "", i + 1, p->form_name(i));
    printf("\n");
}

int perf_run_fabric_limit(const struct perf_opts *o, struct limit_pair *pair)
{
    struct table *t = calloc(1, sizeof(*t));
    int status = CLI_OK;

    if (!t)
        return cli_error("no memory");
    t->o = o;
    t->pair = pair;
    if (!bare())
        cli_note("%s; only raw TCP is measured", limit_fabric_missing());
    if (!o->json) {
        printf("limits between nodes, over loopback, CPUs %d and %d, medians of %lu rounds\nbare libfabric: %s; the best "
               "of these forms, beside raw TCP\nlat: ", limit_pair_cpu_a(pair), limit_pair_cpu_b(pair), o->rounds,
               bare() ? limit_fabric_name() : "none");
        print_forms(&parts[0]);
        printf("rate, bw: ");
        print_forms(&parts[1]);
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && status == CLI_OK; i++)
        status = one_part(t, &parts[i]);
    free(t);
    return status;
}
