/* SPDX-License-Identifier: BSD-3-Clause */
/* Medians and percentiles. Pure functions. */
#ifndef TOOLS_STATS_H
#define TOOLS_STATS_H

#include <stddef.h>

struct stats {
    double min, avg, p50, p90, p99, max;
};

/* Sorts v. The percentile of a few values is the nearest of them. All 0 for n == 0. */
struct stats stats_of(double *v, size_t n);

/* The median; the mean of the two in the middle if n is even. Sorts v. 0 for n == 0. */
double stats_median(double *v, size_t n);

#endif
