/* SPDX-License-Identifier: BSD-3-Clause */
/* What a session of plait perf does with long messages: --take. */
#include "perf.h"

#include <string.h>

static const struct {
    const char *name;
    enum plait_take take;
} ways[] = {
    { "auto", PLAIT_TAKE_AUTO }, { "place", PLAIT_TAKE_PLACE }, { "copy", PLAIT_TAKE_COPY },
    { "cma", PLAIT_TAKE_CMA },   { "ring", PLAIT_TAKE_RING },
};

bool perf_take_known(const char *take)
{
    struct plait_session_opts so;

    return !perf_take(&so, take);
}

const char *perf_take(struct plait_session_opts *so, const char *take)
{
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(take, ways[i].name) == 0) {
            so->take = ways[i].take;
            return NULL;
        }
    }
    return "there is no such way to take a message; --take auto, place, copy, cma or ring";
}
