/* SPDX-License-Identifier: BSD-3-Clause */
#include "stats.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Nearest rank: the smallest value that at least p percent of all do not exceed. */
static double percentile(const double *v, size_t n, unsigned p)
{
    size_t rank = (n * p + 99) / 100;

    return v[rank > 0 ? rank - 1 : 0];
}

struct stats stats_of(double *v, size_t n)
{
    struct stats s;
    double sum = 0;

    memset(&s, 0, sizeof(s));
    if (n == 0)
        return s;
    qsort(v, n, sizeof(*v), compare);
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    s.min = v[0];
    s.avg = sum / (double)n;
    s.p50 = percentile(v, n, 50);
    s.p90 = percentile(v, n, 90);
    s.p99 = percentile(v, n, 99);
    s.max = v[n - 1];
    return s;
}

double stats_median(double *v, size_t n)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof(*v), compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}
