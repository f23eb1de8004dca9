/* SPDX-License-Identifier: BSD-3-Clause */
/* Percentiles, and the lines of JSON that other programs read. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>
#include "tools/figure.h"

Test(stats, one_value)
{
    double v[] = { 4 };
    struct stats s = stats_of(v, 1);

    cr_expect(s.min == 4 && s.avg == 4 && s.p50 == 4 && s.p90 == 4 && s.p99 == 4 && s.max == 4);
    cr_expect(stats_median(v, 1) == 4);
}

Test(stats, no_value)
{
    struct stats s = stats_of(NULL, 0);

    cr_expect(s.min == 0 && s.p50 == 0 && s.max == 0);
    cr_expect(stats_median(NULL, 0) == 0);
}

Test(stats, a_hundred_values_in_reverse)
{
    double v[100];
    struct stats s;

    for (int i = 0; i < 100; i++)
        v[i] = 100 - i;
    s = stats_of(v, 100);
    cr_expect(s.min == 1 && s.p50 == 50 && s.p90 == 90 && s.p99 == 99 && s.max == 100 && s.avg == 50.5);
    cr_expect(stats_median(v, 100) == 50.5);
    cr_expect(stats_median(v, 99) == 50);
}

static struct figure a_figure(enum perf_test t)
{
    return (struct figure){
        .test = t, .transport = "shm", .size = 8, .window = 64, .take = "auto", .duplex = t == PERF_BW,
        .rounds = 5, .iterations = 1000, .cpu_a = 0, .cpu_b = 1, .half_rtt = { 60.04, 70, 65.55, 70, 80, 9000.1 }, .value = 60123456.7, .limit = 100.25,
        .ratio = 0.65432, .physical = 26.5, .memcpy_limit = 5e10, .pipelined_limit = 2e10,
    };
}

/* The names at the front of an object are a contract, the order is what people expect. */
static void names_of(struct figure f, const char *want)
{
    enum perf_test t = f.test;
    struct json_object *o = figure_json(&f);
    char names[300] = "";

    json_object_object_foreach(o, key, val) {
        (void)val;
        strcat(names, key);
        strcat(names, " ");
    }
    cr_expect(strncmp(names, want, strlen(want)) == 0, "%s", names);
    cr_expect_str_eq(json_object_get_string(json_object_object_get(o, "test")), perf_test_name(t));
    json_object_put(o);
}

static void names_are(enum perf_test t, const char *want)
{
    names_of(a_figure(t), want);
}

static struct figure a_wire(enum perf_test t)
{
    struct figure f = a_figure(t);

    f.transport = "ofi";
    f.wire = true;
    f.raw = 7e9;
    f.fabric = 5e9;
    f.fabric_ratio = 1.02345;
    return f;
}

Test(figure, names_between_nodes)
{
    names_of(a_wire(PERF_LAT), "test transport size window half_rtt_ns limit fabric ratio fabric_ratio take touch ");
    names_of(a_wire(PERF_RATE), "test transport size window msgs_per_s limit fabric ratio fabric_ratio ");
    names_of(a_wire(PERF_BW), "test transport size window bytes_per_s limit raw fabric ratio fabric_ratio take ");
}

Test(figure, no_libfabric_is_null)
{
    struct figure f = a_wire(PERF_RPC);
    struct json_object *o;

    f.fabric = f.fabric_ratio = NAN;
    o = figure_json(&f);
    cr_expect_null(json_object_object_get(o, "fabric"));
    cr_expect_null(json_object_object_get(o, "fabric_ratio"));
    cr_expect_not_null(json_object_object_get(o, "ratio"));
    json_object_put(o);
}

Test(figure, names)
{
    names_are(PERF_LAT, "test transport size window half_rtt_ns limit physical ratio take touch ");
    names_are(PERF_RATE, "test transport size window msgs_per_s limit ratio ");
    names_are(PERF_RPC, "test transport size window requests_per_s limit ratio ");
    names_are(PERF_BW, "test transport size window bytes_per_s limit memcpy pipelined ratio take duplex ");
    names_are(PERF_WAKE, "test transport size window half_rtt_ns limit ratio ");
}

Test(figure, text)
{
    struct figure f = a_figure(PERF_LAT);
    struct json_object *o = figure_json(&f);

    cr_expect_str_eq(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
                     "{\"test\":\"lat\",\"transport\":\"shm\",\"size\":8,\"window\":64,\"half_rtt_ns\":"
                     "{\"min\":60.0,\"p50\":65.5,\"p90\":70.0,\"p99\":80.0,\"max\":9000.1},"
                     "\"limit\":100.2,\"physical\":26.5,\"ratio\":0.6543,\"take\":\"auto\","
                     "\"touch\":\"none\",\"rounds\":5,\"iterations\":1000,\"cpus\":[0,1]}");
    json_object_put(o);
}

Test(figure, a_small_ratio_is_not_zero)
{
    struct figure f = a_figure(PERF_BW);
    struct json_object *o, *back;

    f.ratio = 4.567e-6;
    o = figure_json(&f);
    back = json_tokener_parse(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
    cr_assert_not_null(back);
    cr_expect_float_eq(json_object_get_double(json_object_object_get(back, "ratio")), 4.567e-6, 1e-9);
    json_object_put(back);
    json_object_put(o);
}

Test(figure, a_note_is_there_only_if_there_is_one)
{
    struct figure f = a_figure(PERF_RATE);
    struct json_object *o = figure_json(&f);

    cr_expect_null(json_object_object_get(o, "note"));
    json_object_put(o);
    f.note = "one core";
    o = figure_json(&f);
    cr_expect_str_eq(json_object_get_string(json_object_object_get(o, "note")), "one core");
    json_object_put(o);
}

Test(figure, what_is_no_number_is_null)
{
    struct figure f = a_figure(PERF_RPC);
    struct json_object *o;

    f.value = NAN;
    f.ratio = INFINITY;
    o = figure_json(&f);
    cr_expect_not_null(strstr(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
                              "\"requests_per_s\":null"));
    cr_expect_not_null(strstr(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN), "\"ratio\":null"));
    json_object_put(o);
}
