/* SPDX-License-Identifier: BSD-3-Clause */
#include "util/env.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "util/err.h"

int pli_env_number(uint64_t *number, const char *name, const char *unit, const char *word, uint64_t means)
{
    const char *v = getenv(name);
    unsigned long long n;
    char *end;

    if (!v || !*v)
        return 0;
    if (word && strcmp(v, word) == 0) {
        *number = means;
        return 0;
    }
    errno = 0;
    n = strtoull(v, &end, 10);
    if (*v < '0' || *v > '9' || *end || errno) /* it would take blanks and signs, too */
        return pli_fail(PLAIT_E_INVAL, "%s is '%s': it must be a number of %s%s%s", name, v, unit, word ? " or " : "", word ? word : "");
    *number = n;
    return 0;
}

int pli_env_bytes(uint64_t *bytes, const char *name, const char *word, uint64_t means)
{
    return pli_env_number(bytes, name, "bytes", word, means);
}
