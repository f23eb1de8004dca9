/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = { "none", "error", "warn", "info", "debug" };
static const char *const level_words[] = { "", "error", "warning", "info", "debug" };

/* -1: not read yet. Relaxed: two threads that read the environment at once store the same value. */
static atomic_int threshold = -1;

static int read_threshold(void)
{
    const char *v = getenv("PLAIT_LOG");

    if (!v || !*v)
        return PLI_LOG_WARN;
    for (int i = 0; i < (int)(sizeof level_names / sizeof level_names[0]); i++)
        if (strcmp(v, level_names[i]) == 0)
            return i;
    fprintf(stderr, "plait[%d] warning: PLAIT_LOG=%s is not one of none, error, warn, info, debug; using warn\n",
            (int)getpid(), v);
    return PLI_LOG_WARN;
}

int pli_log_enabled(enum pli_log_level level)
{
    int t = atomic_load_explicit(&threshold, memory_order_relaxed);

    if (t < 0) {
        t = read_threshold();
        atomic_store_explicit(&threshold, t, memory_order_relaxed);
    }
    return (int)level <= t && level != PLI_LOG_NONE;
}

void pli_log(enum pli_log_level level, const char *fmt, ...)
{
    char line[1024];
    int n, m;
    va_list ap;

    if (!pli_log_enabled(level))
        return;
    n = snprintf(line, sizeof line, "plait[%d] %s: ", (int)getpid(), level_words[level]);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    n += m < (int)sizeof line - n - 2 ? m : (int)sizeof line - n - 2;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nowhere left to say it */
}
