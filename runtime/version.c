/* SPDX-License-Identifier: BSD-3-Clause */
/* The version, how the library was built, and its transports. */
#include "plait/version.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <stdio.h>
#include "runtime/transports.h"
#include "util/err.h"

#define STR2(x) #x
#define STR(x) STR2(x)
#define VERSION STR(PLAIT_VERSION_MAJOR) "." STR(PLAIT_VERSION_MINOR) "." STR(PLAIT_VERSION_PATCH)

#if defined(__SANITIZE_THREAD__)
#define SANITIZERS "thread"
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZERS "address"
#else
#define SANITIZERS "none"
#endif

#ifdef HAVE_PMIX
#define PMIX "with PMIx"
#else
#define PMIX "without PMIx"
#endif

#ifdef PLAIT_DEBUG
#define CHECKS "on"
#else
#define CHECKS "off"
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *plait_version(void)
{
    return VERSION;
}

const char *plait_build_options(void)
{
    return COMPILER "; sanitizers: " SANITIZERS "; " PMIX "; debug checks: " CHECKS;
}

int plait_transport_info(unsigned i, struct plait_transport_info *info)
{
    static __thread char why[512];
    const struct pli_transport *t = pli_transport_at(i);

    if (!t)
        return pli_fail(PLAIT_E_NOTFOUND, "there is no transport %u", i);
    info->name = t->name;
    info->available = t->ops && t->ops->probe() == 0;
    info->why = t->purpose;
    if (t->ops && !info->available) {
        snprintf(why, sizeof why, "%s", pli_err_text());
        info->why = why;
    }
    return 0;
}
