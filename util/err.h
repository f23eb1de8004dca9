/* SPDX-License-Identifier: BSD-3-Clause */
/* Error texts: one sentence per failing call, kept for the calling thread. */
#ifndef PLI_UTIL_ERR_H
#define PLI_UTIL_ERR_H

#include <stddef.h>
#include "plait/status.h"

/* Stores a sentence for plait_error_text() and returns code, so that a function can end with
 * `return pli_fail(PLAIT_E_NOMEM, "...")`. The sentence names the thing, the limit and what to do. */
int pli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* The same for a sentence that needs no values, kept by reference: for refusals that are no trouble (PLAIT_E_AGAIN) and may come often. */
int pli_fail_const(int code, const char *text);

/* The same for a failed system call: appends ": strerror(errno)", and maps ENOMEM to PLAIT_E_NOMEM,
 * EMFILE/ENFILE to PLAIT_E_NOFILE (with RLIMIT_NOFILE's value), anything else to PLAIT_E_SYSTEM. */
int pli_fail_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2), cold));

/* Puts "prefix: " before the thread's present sentence; returns code. */
int pli_fail_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* The thread's present sentence. */
const char *pli_err_text(void);

#endif
