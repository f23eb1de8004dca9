/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <plait/plait.h>

static const char *prog = "plait";
static bool progress_shown;

void cli_set_name(const char *name)
{
    prog = name;
}

static void clear_progress(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

static void say(const char *fmt, va_list ap)
{
    fflush(stdout); /* in the order in which things happened, where both go to one place */
    clear_progress();
    fprintf(stderr, "%s: ", prog);
    vfprintf(stderr, fmt, ap);
}

int cli_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return CLI_FAILED;
}

int cli_plait_error(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    snprintf(text, sizeof(text), "%s", plait_error_text());
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", text);
    return CLI_FAILED;
}

void cli_note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void cli_progress(const char *fmt, ...)
{
    static int terminal = -1;
    va_list ap;

    if (terminal < 0)
        terminal = isatty(STDERR_FILENO);
    if (!terminal)
        return;
    clear_progress();
    if (!fmt)
        return;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fflush(stderr);
    progress_shown = true;
}

int cli_finish(int status)
{
    clear_progress();
    if (fflush(stdout) || ferror(stdout))
        return cli_error("standard output could not be written: %s", strerror(errno));
    return status;
}

/* ---- numbers ---- */

static int unit_shift(const char **p)
{
    int shift;

    switch (tolower((unsigned char)**p)) {
    case 'k': shift = 10; break;
    case 'm': shift = 20; break;
    case 'g': shift = 30; break;
    default: return 0;
    }
    (*p)++;
    if (**p == 'i')
        (*p)++;
    return shift;
}

/* A size at *p, which is moved behind it. */
static int take_size(const char **p, size_t *out, const char **why)
{
    unsigned long long v;
    char *end;
    int shift;

    *why = "a size is a number of bytes, as 8, 64k or 1M";
    if (!isdigit((unsigned char)**p))
        return -1;
    errno = 0;
    v = strtoull(*p, &end, 10);
    *p = end;
    shift = unit_shift(p);
    if (**p == 'B' || **p == 'b')
        (*p)++;
    if (errno || v > SIZE_MAX >> shift) {
        *why = "the number is too large";
        return -1;
    }
    *out = (size_t)v << shift;
    return 0;
}

int cli_parse_size(const char *text, size_t *out, const char **why)
{
    size_t v;

    if (take_size(&text, &v, why))
        return -1;
    if (*text)
        return -1;
    *out = v;
    return 0;
}

int cli_parse_sizes(const char *text, struct cli_list *out, const char **why)
{
    struct cli_list l = { 0 };

    for (;;) {
        if (l.n == CLI_LIST_MAX) {
            *why = "the list is too long (32 entries at most)";
            return -1;
        }
        if (take_size(&text, &l.v[l.n], why))
            return -1;
        if (l.v[l.n++] == 0) {
            *why = "0 makes no sense here";
            return -1;
        }
        if (*text == '\0')
            break;
        if (*text++ != ',')
            return -1;
    }
    *out = l;
    return 0;
}

int cli_parse_count(const char *text, unsigned long *out, const char **why)
{
    unsigned long v;
    char *end;

    *why = "a whole number is needed";
    if (!isdigit((unsigned char)*text))
        return -1;
    errno = 0;
    v = strtoul(text, &end, 10);
    if (*end)
        return -1;
    if (errno) {
        *why = "the number is too large";
        return -1;
    }
    *out = v;
    return 0;
}

int cli_parse_seconds(const char *text, double *out, const char **why)
{
    char *end;
    double v;

    *why = "seconds are a number from 0 to 1000000, as 1 or 0.2";
    if (!isdigit((unsigned char)*text) && *text != '.')
        return -1;
    v = strtod(text, &end);
    if (*end || end == text || !(v >= 0 && v <= 1e6))
        return -1;
    *out = v;
    return 0;
}

static int take_cpu(const char **p, int *cpu)
{
    char *end;
    long v;

    if (!isdigit((unsigned char)**p))
        return -1;
    v = strtol(*p, &end, 10);
    if (v > 1 << 20)
        return -1;
    *p = end;
    *cpu = (int)v;
    return 0;
}

int cli_parse_cpus(const char *text, int cpus[2], const char **why)
{
    int c[2] = { -1, -1 };

    *why = "CPUs are one or two numbers, as 0,1 (see plait info)";
    if (take_cpu(&text, &c[0]))
        return -1;
    if (*text == ',') {
        text++;
        if (take_cpu(&text, &c[1]))
            return -1;
    }
    if (*text)
        return -1;
    cpus[0] = c[0];
    cpus[1] = c[1];
    return 0;
}

const char *cli_bytes(char buf[CLI_TEXT], uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double v = (double)bytes;
    unsigned u = 0;

    if (bytes == UINT64_MAX) {
        snprintf(buf, CLI_TEXT, "unlimited");
        return buf;
    }
    while (v >= 1024 && u < 6) {
        v /= 1024;
        u++;
    }
    if (v >= 100 || v == (double)(uint64_t)v)
        snprintf(buf, CLI_TEXT, "%.0f %s", v, units[u]);
    else
        snprintf(buf, CLI_TEXT, "%.1f %s", v, units[u]);
    return buf;
}

int cli_signal_fd(void)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        cli_error("signalfd: %s", strerror(errno));
    return fd;
}
