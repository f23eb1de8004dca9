/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of the loop have in common. */
#ifndef LOOP_UTIL_H
#define LOOP_UTIL_H

#include <criterion/criterion.h>
#include <sys/resource.h>
#include <time.h>

#include "plait/plait.h"

static inline struct plait_ctx *new_ctx(uint32_t spin_us, unsigned flags)
{
    struct plait_ctx_opts opts = PLAIT_CTX_OPTS_INIT;
    struct plait_ctx *ctx;

    opts.spin_us = spin_us;
    opts.flags = flags;
    cr_assert_eq(plait_ctx_create(&ctx, &opts), 0, "%s", plait_error_text());
    return ctx;
}

static inline struct plait_ctx_stats stats_of(struct plait_ctx *ctx)
{
    struct plait_ctx_stats st;

    st.size = sizeof st;
    cr_assert_eq(plait_ctx_get_stats(ctx, &st), 0, "%s", plait_error_text());
    return st;
}

/* CPU time of this process in us. */
static inline long cpu_us(void)
{
    struct rusage ru;

    getrusage(RUSAGE_SELF, &ru);
    return (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000L + ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
}

static inline void assert_code(int rc, int want, const char *word)
{
    cr_assert_eq(rc, want, "%s (%s)", plait_status_name(rc), plait_error_text());
    if (word)
        cr_assert_not_null(strstr(plait_error_text(), word), "no '%s' in: %s", word, plait_error_text());
}

#endif
