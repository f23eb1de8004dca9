/* SPDX-License-Identifier: BSD-3-Clause */
/* What a session of plait perf does with long messages: --take. The only place that knows what this version
 * of the library can do of it. */
#include "perf.h"

#include <string.h>

static const char *const names[] = { "auto", "place", "copy", "cma", "ring" };

bool perf_take_known(const char *take)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(take, names[i]) == 0)
            return true;
    return false;
}

const char *perf_take(struct plait_session_opts *so, const char *take)
{
    (void)so; /* long messages always go through the ring */
    if (strcmp(take, "auto") == 0 || strcmp(take, "ring") == 0)
        return NULL;
    if (perf_take_known(take))
        return "this version of plait takes long messages through the ring only: --take auto or ring";
    return "there is no such way to take a message; --take auto, place, copy, cma or ring";
}
