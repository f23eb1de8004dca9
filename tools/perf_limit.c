/* SPDX-License-Identifier: BSD-3-Clause */
/* plait perf limit: the machine's own limits, alone. Every figure is the median of the rounds. */
#include "perf.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#define FORMS_MAX 8

struct table {
    const struct perf_opts *o;
    struct limit_pair *pair;
    unsigned long n;
    double v[FORMS_MAX][PERF_ROUNDS_MAX]; /* a figure of each round */
};

static double median(struct table *t, int form)
{
    return stats_median(t->v[form], t->o->rounds);
}

/* As many as were asked for, within what makes sense; enough of them if nothing was asked for. */
static unsigned long times(const struct table *t, unsigned long least, unsigned long enough)
{
    if (t->n == 0 || t->n > enough)
        return enough;
    return t->n < least ? least : t->n;
}

static int failed(void)
{
    return cli_error("%s", limit_error());
}

static void progress(const char *what, size_t size, unsigned i, unsigned long rounds)
{
    cli_progress("limit of %s, %zu bytes: round %u of %lu", what, size, i + 1, rounds);
}

static struct json_object *object(struct table *t, const char *of, size_t size)
{
    struct json_object *o = json_object_new_object(), *cpus = json_object_new_array();

    json_object_object_add(o, "test", json_object_new_string("limit"));
    json_object_object_add(o, "of", json_object_new_string(of));
    json_object_object_add(o, "transport", json_object_new_string("none"));
    json_object_object_add(o, "size", json_object_new_int64((int64_t)size));
    json_object_object_add(o, "window", json_object_new_int(0));
    json_object_array_add(cpus, json_object_new_int(limit_pair_cpu_a(t->pair)));
    json_object_array_add(cpus, json_object_new_int(limit_pair_cpu_b(t->pair)));
    json_object_object_add(o, "cpus", cpus);
    if (limit_pair_note(t->pair))
        json_object_object_add(o, "note", json_object_new_string(limit_pair_note(t->pair)));
    return o;
}

static void add_forms(struct table *t, struct json_object *o, int n, const char *(*name)(int), int digits)
{
    struct json_object *forms = json_object_new_object();

    for (int i = 0; i < n; i++)
        json_object_object_add(forms, name(i), figure_number(median(t, i), digits));
    json_object_object_add(o, "forms", forms);
}

static void print_forms(struct table *t, int n, const char *(*name)(int), double scale)
{
    for (int i = 0; i < n; i++)
        printf("  %-40s %10.1f\n", name(i), scale * median(t, i));
}

static double best(struct table *t, int from, int to, bool least)
{
    double b = median(t, from);

    for (int i = from + 1; i < to; i++)
        if (least ? median(t, i) < b : median(t, i) > b)
            b = median(t, i);
    return b;
}

static int lat(struct table *t)
{
    struct json_object *o;
    struct limit_lat l;

    for (unsigned r = 0; r < t->o->rounds; r++) {
        progress("lat", 8, r, t->o->rounds);
        if (limit_lat_run(t->pair, (unsigned)times(t, 100, 100000), &l) < 0)
            return failed();
        for (int i = 0; i < LIMIT_LAT_FORMS; i++)
            t->v[i][r] = l.form_ns[i];
    }
    cli_progress(NULL);
    if (!t->o->json) {
        printf("lat: half round trip of 8 bytes in ns\n");
        print_forms(t, LIMIT_LAT_FORMS, limit_lat_name, 1);
        return CLI_OK;
    }
    o = object(t, "lat", 8);
    json_object_object_add(o, "half_rtt_ns", figure_number(best(t, 0, LIMIT_LAT_ONE, true), 1));
    json_object_object_add(o, "physical", figure_number(best(t, LIMIT_LAT_ONE, LIMIT_LAT_FORMS, true), 1));
    add_forms(t, o, LIMIT_LAT_FORMS, limit_lat_name, 1);
    figure_print_json(o);
    return CLI_OK;
}

static int rate(struct table *t, size_t size)
{
    struct json_object *o;
    struct limit_rate l;

    for (unsigned r = 0; r < t->o->rounds; r++) {
        progress("rate", size, r, t->o->rounds);
        if (limit_rate_run(t->pair, size, times(t, 1000, 4000000 / (1 + size / 128) + 1000), &l) < 0)
            return failed();
        for (int i = 0; i < LIMIT_RATE_FORMS; i++)
            t->v[i][r] = l.form[i];
    }
    cli_progress(NULL);
    if (!t->o->json) {
        printf("rate: messages of %zu bytes through a bare ring, million a second\n", size);
        print_forms(t, LIMIT_RATE_FORMS, limit_rate_name, 1e-6);
        return CLI_OK;
    }
    o = object(t, "rate", size);
    json_object_object_add(o, "msgs_per_s", figure_number(best(t, 0, LIMIT_RATE_FORMS, false), 0));
    add_forms(t, o, LIMIT_RATE_FORMS, limit_rate_name, 0);
    figure_print_json(o);
    return CLI_OK;
}

static int bw(struct table *t, size_t size)
{
    struct json_object *o;
    struct limit_bw l;

    for (unsigned r = 0; r < t->o->rounds; r++) {
        progress("bw", size, r, t->o->rounds);
        if (limit_bw_run(t->pair, size, times(t, 1, (256ul << 20) / size + 1) * size, &l) < 0)
            return failed();
        for (int i = 0; i < LIMIT_BW_FORMS; i++)
            t->v[i][r] = l.form[i];
    }
    cli_progress(NULL);
    if (!t->o->json) {
        printf("bw: messages of %zu bytes, GB/s\n", size);
        print_forms(t, LIMIT_BW_FORMS, limit_bw_name, 1e-9);
        return CLI_OK;
    }
    o = object(t, "bw", size);
    json_object_object_add(o, "bytes_per_s", figure_number(best(t, 0, LIMIT_BW_FORMS, false), 0));
    add_forms(t, o, LIMIT_BW_FORMS, limit_bw_name, 0);
    figure_print_json(o);
    return CLI_OK;
}

static int atomic(struct table *t)
{
    struct json_object *o;
    struct limit_atomic l;

    for (unsigned r = 0; r < t->o->rounds; r++) {
        progress("atomic", 8, r, t->o->rounds);
        if (limit_atomic_run(t->pair, times(t, 500, 2000000), &l) < 0)
            return failed();
        for (int i = 0; i < LIMIT_ATOMIC_FORMS; i++)
            t->v[i][r] = l.form[i];
    }
    cli_progress(NULL);
    if (!t->o->json) {
        printf("atomic: locked operations on a shared line that nobody else touches, million a second\n");
        print_forms(t, LIMIT_ATOMIC_FORMS, limit_atomic_name, 1e-6);
        return CLI_OK;
    }
    o = object(t, "atomic", 8);
    json_object_object_add(o, "ops_per_s", figure_number(median(t, LIMIT_ATOMIC_ADD), 0));
    add_forms(t, o, LIMIT_ATOMIC_FORMS, limit_atomic_name, 0);
    figure_print_json(o);
    return CLI_OK;
}

static const char *wake_name(int form)
{
    static const char *const names[] = { "eventfd", "futex", "eventfd, same CPU", "futex, same CPU" };

    return names[form];
}

static int wake(struct table *t)
{
    struct json_object *o;
    struct limit_wake l;

    for (unsigned r = 0; r < t->o->rounds; r++) {
        progress("wake", 8, r, t->o->rounds);
        if (limit_wake_run(t->pair, (unsigned)times(t, 10, 500), &l) < 0)
            return failed();
        t->v[0][r] = l.eventfd_ns;
        t->v[1][r] = l.futex_ns;
        t->v[2][r] = l.eventfd_same_ns;
        t->v[3][r] = l.futex_same_ns;
    }
    cli_progress(NULL);
    if (!t->o->json) {
        printf("wake: waking a process that sleeps, one way, us\n");
        print_forms(t, 4, wake_name, 1e-3);
        return CLI_OK;
    }
    o = object(t, "wake", 8);
    json_object_object_add(o, "half_rtt_ns", figure_number(median(t, 0), 1));
    add_forms(t, o, 4, wake_name, 1);
    figure_print_json(o);
    return CLI_OK;
}

static int measure(struct table *t)
{
    struct cli_list rates = t->o->sizes, bws = t->o->sizes;
    int status = lat(t);
    const char *why;

    if (t->o->sizes.n == 0) {
        cli_parse_sizes("8,64,1k", &rates, &why);
        cli_parse_sizes("4k,64k,1M,4M", &bws, &why);
    }
    for (unsigned i = 0; i < rates.n && status == CLI_OK; i++)
        if (rates.v[i] <= LIMIT_RATE_MAX_SIZE)
            status = rate(t, rates.v[i]);
    for (unsigned i = 0; i < bws.n && status == CLI_OK; i++)
        status = bw(t, bws.v[i]);
    if (status == CLI_OK)
        status = atomic(t);
    return status == CLI_OK ? wake(t) : status;
}

int perf_run_limit(const struct perf_opts *o, struct limit_pair *pair)
{
    struct table *t = calloc(1, sizeof(*t));
    int status;

    if (!t)
        return cli_error("no memory");
    t->o = o;
    t->pair = pair;
    t->n = o->iterations;
    if (!o->json)
        printf("limits of this machine, bare shared memory, CPUs %d and %d, medians of %lu rounds\n",
               limit_pair_cpu_a(pair), limit_pair_cpu_b(pair), o->rounds);
    status = measure(t);
    free(t);
    return status;
}
