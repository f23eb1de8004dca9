/* SPDX-License-Identifier: BSD-3-Clause */
/* Log lines on standard error: "plait[PID] warning: ...". PLAIT_LOG=none|error|warn|info|debug sets the
 * level (default warn). A warning is for what plait worked around; an error that a call returns is not logged. */
#ifndef PLI_UTIL_LOG_H
#define PLI_UTIL_LOG_H

enum pli_log_level { PLI_LOG_NONE, PLI_LOG_ERROR, PLI_LOG_WARN, PLI_LOG_INFO, PLI_LOG_DEBUG };

void pli_log(enum pli_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
int pli_log_enabled(enum pli_log_level level);

#define pli_error(...) pli_log(PLI_LOG_ERROR, __VA_ARGS__)
#define pli_warn(...)  pli_log(PLI_LOG_WARN, __VA_ARGS__)
#define pli_info(...)  pli_log(PLI_LOG_INFO, __VA_ARGS__)
#define pli_debug(...) pli_log(PLI_LOG_DEBUG, __VA_ARGS__)

#endif
