/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers from the environment. */
#ifndef PLI_UTIL_ENV_H
#define PLI_UTIL_ENV_H

#include <stdint.h>

/* A number of unit ('bytes') from the variable name: a decimal number, or word (NULL: there is none), which means means. Not set or empty: *n is left
 * as it is. 0, or PLAIT_E_INVAL with a sentence that names the variable and its value, *n left as it is. Any thread. */
int pli_env_number(uint64_t *n, const char *name, const char *unit, const char *word, uint64_t means);

/* The same of bytes. */
int pli_env_bytes(uint64_t *bytes, const char *name, const char *word, uint64_t means);

#endif
