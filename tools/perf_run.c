/* SPDX-License-Identifier: BSD-3-Clause */
/* The client of plait perf: rounds of plait and rounds of the limit, one after the other. */
#include "perf.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const struct perf_opts *o;
    const struct perf_kind *kind;
    struct limit_pair *pair;
    struct perf_client c;
    struct perf_peer peer;
    unsigned long iterations;
    struct perf_round round[PERF_ROUNDS_MAX];
    struct perf_limits limit[PERF_ROUNDS_MAX + 1]; /* before, between and after the rounds */
    bool headed; /* the table of this test has its head */
    bool park;   /* one core for both sides */
};

static struct perf_payload payload;

/* ---- where ---- */

static int place(int pus[2])
{
    struct plait_topo_place_opts po = PLAIT_TOPO_PLACE_OPTS_INIT;
    struct plait_topo_info info = PLAIT_TOPO_INFO_INIT;
    struct plait_topo_place places[2];
    struct plait_topo *topo;
    int rc;

    if (plait_topo_open(&topo) < 0)
        return -1;
    po.contexts = 2;
    rc = plait_topo_get_info(topo, &info);
    if (rc == 0)
        rc = info.this_system ? plait_topo_get_places(topo, &po, places, 2) : -1;
    plait_topo_close(topo);
    if (rc != 2)
        return -1;
    pus[0] = places[0].pu;
    pus[1] = places[1].pu;
    return 0;
}

void perf_choose_cpus(int cpus[2])
{
    int pus[2] = { -1, -1 }, cpu, n = 0;
    cpu_set_t set;

    if (cpus[0] >= 0 && cpus[1] >= 0)
        return;
    if (place(pus) < 0 && sched_getaffinity(0, sizeof(set), &set) == 0) { /* another machine's topology */
        for (cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
            if (CPU_ISSET(cpu, &set))
                pus[n++] = cpu;
        if (n == 1)
            pus[1] = pus[0];
    }
    if (cpus[0] < 0)
        cpus[0] = pus[0] != cpus[1] ? pus[0] : pus[1];
    if (cpus[1] < 0)
        cpus[1] = pus[1] != cpus[0] ? pus[1] : pus[0];
}

/* ---- one figure ---- */

static int failed(struct run *r)
{
    return cli_error("%s%s", perf_peer_death(&r->peer), r->c.why[0] ? r->c.why : "the measurement failed");
}

/* Over the fabric, or anything else that leaves the node. */
static bool on_wire(const struct run *r)
{
    return r->c.transport[0] && strcmp(r->c.transport, "shm") != 0;
}

static int measure_limit(struct run *r, unsigned i)
{
    int rc = on_wire(r) ? perf_fabric_limit(r->kind, r->pair, r->c.size, r->c.window, r->iterations, &r->limit[i])
                        : r->kind->limit(r->pair, r->c.size, r->c.window, r->iterations, &r->limit[i]);

    if (rc < 0)
        return cli_error("%s", limit_error());
    return CLI_OK;
}

/* One-sided operations need nobody on the other side, but for who has to do them between nodes. */
static enum perf_mode mode(const struct run *r)
{
    return r->kind->mode == PERF_IDLE && on_wire(r) ? PERF_SINK : r->kind->mode;
}

static int measure_plait(struct run *r, unsigned long n, struct perf_round *out)
{
    struct perf_client *c = &r->c;

    c->batch = (unsigned)r->o->batch;
    c->n = n;
    if (perf_control(c, PERF_START, mode(r)) < 0 || r->kind->round(c, n, out) < 0 ||
        perf_control(c, PERF_STOP, PERF_IDLE) < 0) /* the peer sleeps from here on, and so do we */
        return failed(r);
    return CLI_OK;
}

enum which { LEAST, MEDIAN, MOST };

static double over_rounds(struct run *r, size_t offset, enum which which)
{
    double v[PERF_ROUNDS_MAX];

    for (unsigned i = 0; i < r->o->rounds; i++)
        memcpy(&v[i], (const char *)&r->round[i] + offset, sizeof(double));
    if (which == MEDIAN)
        return stats_median(v, r->o->rounds);
    return which == LEAST ? stats_of(v, r->o->rounds).min : stats_of(v, r->o->rounds).max;
}

/* of: where in a round they are. */
static void fill_times(struct run *r, size_t of, struct stats *s)
{
    s->min = over_rounds(r, of + offsetof(struct stats, min), LEAST);
    s->avg = over_rounds(r, of + offsetof(struct stats, avg), MEDIAN);
    s->p50 = over_rounds(r, of + offsetof(struct stats, p50), MEDIAN);
    s->p90 = over_rounds(r, of + offsetof(struct stats, p90), MEDIAN);
    s->p99 = over_rounds(r, of + offsetof(struct stats, p99), MEDIAN);
    s->max = over_rounds(r, of + offsetof(struct stats, max), MOST);
}

/* Each round's latency with the stream against the one without it. */
static void fill_beside(struct run *r, struct figure *f)
{
    double p50[PERF_ROUNDS_MAX], avg[PERF_ROUNDS_MAX];
    unsigned n = (unsigned)r->o->rounds;

    if (!r->c.beside.size)
        return;
    for (unsigned i = 0; i < n; i++) {
        p50[i] = r->round[i].beside.p50 / r->round[i].half_rtt.p50;
        avg[i] = r->round[i].beside.avg / r->round[i].half_rtt.avg;
    }
    f->beside = (struct figure_beside){ .size = r->c.beside.size, .window = PERF_BESIDE_WINDOW,
                                        .links = r->c.beside.links, .ratio = stats_median(p50, n),
                                        .ratio_avg = stats_median(avg, n) };
    fill_times(r, offsetof(struct perf_round, beside), &f->beside.half_rtt);
    f->beside.bytes_per_s = over_rounds(r, offsetof(struct perf_round, beside_rate), MEDIAN);
}

static double median_limit(struct run *r, size_t offset)
{
    double v[PERF_ROUNDS_MAX + 1];

    for (unsigned i = 0; i <= r->o->rounds; i++)
        memcpy(&v[i], (const char *)&r->limit[i] + offset, sizeof(double));
    return stats_median(v, r->o->rounds + 1);
}

/* Bare libfabric. */
static void fill_wire(struct run *r, struct figure *f)
{
    double ratio[PERF_ROUNDS_MAX];
    unsigned n = (unsigned)r->o->rounds;

    f->wire = on_wire(r);
    if (!f->wire)
        return;
    for (unsigned i = 0; i < n; i++)
        ratio[i] = r->round[i].value / ((r->limit[i].fabric + r->limit[i + 1].fabric) / 2);
    f->raw = median_limit(r, offsetof(struct perf_limits, raw));
    f->fabric = median_limit(r, offsetof(struct perf_limits, fabric));
    f->fabric_ratio = stats_median(ratio, n);
    if (!f->note)
        f->note = limit_fabric_missing();
}

static void tell(struct run *r)
{
    double value[PERF_ROUNDS_MAX], ratio[PERF_ROUNDS_MAX];
    unsigned n = (unsigned)r->o->rounds, i;
    struct figure f = {
        .test = r->kind->test, .transport = r->c.transport, .size = r->c.size, .window = r->c.window,
        .take = r->o->take, .touch = r->o->touch, .duplex = r->o->duplex, .rounds = n,
        .iterations = r->iterations, .cpu_a = limit_pair_cpu_a(r->pair),
        .cpu_b = r->c.peer_cpu, .note = limit_pair_note(r->pair),
        .limit = median_limit(r, offsetof(struct perf_limits, value)),
        .physical = median_limit(r, offsetof(struct perf_limits, physical)),
        .memcpy_limit = median_limit(r, offsetof(struct perf_limits, memcpy)),
        .pipelined_limit = median_limit(r, offsetof(struct perf_limits, pipelined)),
    };

    for (i = 0; i < n; i++) { /* each round against the limit just before and just after it */
        value[i] = r->round[i].value;
        ratio[i] = r->round[i].value / ((r->limit[i].value + r->limit[i + 1].value) / 2);
    }
    f.value = stats_median(value, n);
    f.ratio = stats_median(ratio, n);
    fill_times(r, offsetof(struct perf_round, half_rtt), &f.half_rtt);
    fill_beside(r, &f);
    fill_wire(r, &f);
    cli_progress(NULL);
    if (r->o->json) {
        figure_print_json(figure_json(&f));
        return;
    }
    if (!r->headed)
        figure_print_head(&f);
    r->headed = true;
    figure_print_row(&f);
}

static int warn_about_cpus(struct run *r)
{
    static bool told;
    int b = limit_pair_cpu_b(r->pair);

    if (!told && r->c.peer_cpu >= 0 && r->c.peer_cpu != b)
        cli_note("the peer runs on CPU %d, but the limit is measured between CPUs %d and %d; give both sides "
                 "the same --cpus", r->c.peer_cpu, limit_pair_cpu_a(r->pair), b);
    told = true;
    /* two that poll on one core keep each other from running */
    return r->kind->sleeps || r->park || r->c.peer_cpu == limit_pair_cpu_a(r->pair);
}

static int all_rounds(struct run *r)
{
    const char *name = perf_test_name(r->kind->test);
    unsigned i, n = (unsigned)r->o->rounds;
    int status;

    cli_progress("%s, %zu bytes: warming up", name, r->c.size);
    status = measure_plait(r, r->iterations / 10 + 1, &r->round[0]);
    if (status == CLI_OK)
        status = measure_limit(r, 0);
    for (i = 0; i < n && status == CLI_OK; i++) {
        cli_progress("%s, %zu bytes: round %u of %u", name, r->c.size, i + 1, n);
        status = measure_plait(r, r->iterations, &r->round[i]);
        if (status == CLI_OK)
            status = measure_limit(r, i + 1);
    }
    return status;
}

static int one_figure(struct run *r, size_t size, unsigned window)
{
    int status;

    r->c.size = size;
    r->c.window = window;
    r->c.buf = payload.data;
    r->c.copy = payload.copy;
    r->c.park = true; /* until it is known where the peer runs */
    r->iterations = r->o->iterations ? r->o->iterations : r->kind->iterations(size);
    /* a control request must find room beside what is in flight, and lat and wake need no window at all */
    if (perf_client_open(&r->c, r->kind->ops, window < 64 ? 64 : window) < 0)
        return failed(r);
    r->c.park = warn_about_cpus(r);
    if (!r->o->iterations && ((r->c.park && !r->kind->sleeps) || (r->kind->mode == PERF_IDLE && on_wire(r))))
        r->iterations = r->iterations / 20 + 100; /* a switch of processes, or a turn to the other node, each time */
    status = all_rounds(r);
    if (status == CLI_OK)
        tell(r);
    perf_client_close(&r->c);
    return status;
}

static int one_test(struct run *r)
{
    struct cli_list sizes = r->o->sizes, windows = r->o->windows;
    const char *why;
    int status = CLI_OK;

    if (sizes.n == 0 || r->kind->test == PERF_ATOMIC)
        cli_parse_sizes(r->kind->sizes, &sizes, &why);
    /* lat and wake are about one message in flight */
    if (windows.n == 0 || strcmp(r->kind->windows, "1") == 0)
        cli_parse_sizes(r->kind->windows, &windows, &why);
    r->headed = false;
    for (unsigned w = 0; w < windows.n && status == CLI_OK; w++)
        for (unsigned s = 0; s < sizes.n && status == CLI_OK; s++)
            status = one_figure(r, sizes.v[s], (unsigned)windows.v[w]);
    return status;
}

/* ---- all of it ---- */

static const struct perf_kind *kind_of(const struct perf_opts *o, enum perf_test t)
{
    if (t == PERF_LAT && o->beside)
        return &perf_beside_kind;
    if (t == PERF_LAT && o->touch)
        return &perf_lat_copy_kind;
    if (t == PERF_BW && o->duplex)
        return &perf_duplex_kind;
    return perf_kind(t);
}

static int run_tests(struct run *r, int cpu)
{
    struct plait_ctx_opts co = PLAIT_CTX_OPTS_INIT;
    int status = CLI_OK, t;

    co.cpu = cpu;
    co.spin_us = 0; /* what waits, polls or sleeps as it chooses */
    co.name = "perf";
    if (plait_ctx_create(&r->c.ctx, &co) < 0)
        return cli_plait_error("no context");
    for (t = 0; t < PERF_TESTS && status == CLI_OK; t++) {
        r->kind = kind_of(r->o, t);
        if (!r->kind || !(r->o->tests & 1u << t))
            continue;
        status = one_test(r);
    }
    r->c.closing = true;
    plait_ctx_destroy(r->c.ctx);
    plait_session_release(r->c.session);
    return status;
}

static int with_transport(const struct perf_opts *o, const char *uri, char *out, size_t size)
{
    int n;

    if (strcmp(o->transport, "auto") == 0)
        n = snprintf(out, size, "%s", uri);
    else
        n = snprintf(out, size, "%s%ctransport=%s", uri, strchr(uri, '?') ? '&' : '?', o->transport);
    return n < 0 || (size_t)n >= size ? cli_error("the URI is too long") : CLI_OK;
}

static int with_peer(struct run *r, int cpu_a, int cpu_b)
{
    static char uri[1600];
    int status = CLI_OK;

    if (!r->o->connect)
        status = perf_peer_start(&r->peer, cpu_b);
    if (status == CLI_OK)
        status = with_transport(r->o, r->o->connect ? r->o->connect : r->peer.uri, uri, sizeof(uri));
    if (status == CLI_OK) {
        r->c.uri = uri;
        status = run_tests(r, cpu_a);
    }
    perf_peer_stop(&r->peer);
    return status;
}

/* What is sent: as much as the largest message of the tests. */
static int make_payload(const struct perf_opts *o)
{
    size_t max = o->beside ? o->beside_size : 1;
    int t;

    for (t = 0; t < PERF_TESTS; t++) {
        const struct perf_kind *kind = kind_of(o, t);
        struct cli_list sizes = o->sizes;
        const char *why;

        if (!kind || !(o->tests & 1u << t))
            continue;
        if (sizes.n == 0)
            cli_parse_sizes(kind->sizes, &sizes, &why);
        for (unsigned i = 0; i < sizes.n; i++)
            if (sizes.v[i] > max)
                max = sizes.v[i];
    }
    if (perf_payload_open(&payload, max) < 0)
        return cli_plait_error("no memory for what is sent");
    if (o->touch && perf_payload_open_copy(&payload, max) < 0)
        return cli_error("no memory for what is received");
    return CLI_OK;
}

/* Everything but `limit`. */
static int measure_tests(struct run *r, int cpus[2])
{
    int status = make_payload(r->o);

    if (status == CLI_OK)
        status = with_peer(r, cpus[0], cpus[1]);
    perf_payload_close(&payload);
    return status;
}

int perf_run(const struct perf_opts *o)
{
    struct run *r = calloc(1, sizeof(*r));
    int cpus[2] = { o->cpus[0], o->cpus[1] }, status = CLI_OK;

    if (!r)
        return cli_error("no memory");
    r->o = o;
    r->c.peer_cpu = -1;
    r->c.take = o->take;
    r->c.beside.size = o->beside ? o->beside_size : 0;
    r->peer.in = r->peer.out = -1;
    perf_choose_cpus(cpus);
    r->park = cpus[0] == cpus[1] && !o->connect;
    if (limit_pair_open(&r->pair, cpus[0], cpus[1]) < 0) {
        free(r);
        return cli_error("%s", limit_error());
    }
    if (limit_pair_note(r->pair))
        cli_note("%s; plait's figures mean as little", limit_pair_note(r->pair));
    if (o->tests & 1u << PERF_LIMIT)
        status = strcmp(o->transport, "ofi") == 0 ? perf_run_fabric_limit(o, r->pair) : perf_run_limit(o, r->pair);
    if (status == CLI_OK && o->tests & ~(1u << PERF_LIMIT))
        status = measure_tests(r, cpus);
    limit_pair_close(r->pair);
    free(r);
    return status;
}
