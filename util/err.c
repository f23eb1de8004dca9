/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define TEXT_MAX 512

static __thread char err_text[TEXT_MAX];
static __thread const char *err_const; /* instead of err_text, if not NULL */

const char *pli_err_text(void)
{
    if (err_const)
        return err_const;
    return err_text[0] ? err_text : "no error";
}

int pli_fail_const(int code, const char *text)
{
    err_const = text;
    return code;
}

const char *plait_error_text(void)
{
    return pli_err_text();
}

int pli_fail(int code, const char *fmt, ...)
{
    /* an argument may point into err_text itself, so the sentence is made beside it */
    char text[TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(err_text, text, sizeof text);
    err_const = NULL;
    return code;
}

int pli_fail_prefix(int code, const char *fmt, ...)
{
    char prefix[TEXT_MAX / 2], old[TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    snprintf(old, sizeof old, "%s", pli_err_text());
    return pli_fail(code, "%s: %s", prefix, old);
}

static int code_of_errno(int err)
{
    switch (err) {
    case ENOMEM:
        return PLAIT_E_NOMEM;
    case EMFILE:
    case ENFILE:
        return PLAIT_E_NOFILE;
    default:
        return PLAIT_E_SYSTEM;
    }
}

int pli_fail_errno(const char *fmt, ...)
{
    int err = errno;
    int code = code_of_errno(err);
    char what[TEXT_MAX / 2];
    struct rlimit rl;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (err == EMFILE && getrlimit(RLIMIT_NOFILE, &rl) == 0)
        return pli_fail(code, "%s: no file descriptors left: the process's limit is %llu (hard limit %llu); raise it with 'ulimit -n'",
                        what, (unsigned long long)rl.rlim_cur, (unsigned long long)rl.rlim_max);
    if (err == ENFILE)
        return pli_fail(code, "%s: no file descriptors left in the whole system; see /proc/sys/fs/file-max", what);
    return pli_fail(code, "%s: %s", what, strerror(err));
}
