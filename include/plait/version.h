/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * @file version.h
 * @brief The version of the headers and of the library, and what this build can do.
 */
#ifndef PLAIT_VERSION_H
#define PLAIT_VERSION_H

#include <stddef.h>
#include <plait/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLAIT_VERSION_MAJOR 0
#define PLAIT_VERSION_MINOR 1
#define PLAIT_VERSION_PATCH 0

/** The library's version, "0.1.0". Any thread, callbacks too. */
PLAIT_API const char *plait_version(void);
/** How the library was built, one line: compiler, sanitizers, PMIx, debug checks. */
PLAIT_API const char *plait_build_options(void);

/** A transport of this build. */
struct plait_transport_info {
    const char *name; /**< "shm", "ofi" */
    int available;    /**< nonzero: can be used here */
    const char *why;  /**< one sentence: what it is used for, or why it cannot be */
};
/** Describes transport i (0, 1, ...). @return 0, or PLAIT_E_NOTFOUND past the last. Never blocks. Any thread. The
 *  strings are static or belong to the calling thread until its next call. */
PLAIT_API int plait_transport_info(unsigned i, struct plait_transport_info *info);

#ifdef __cplusplus
}
#endif
#endif
