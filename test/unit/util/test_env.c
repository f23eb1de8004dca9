/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers from the environment. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "util/env.h"
#include "util/err.h"

#define NAME "PLAIT_TEST_BYTES"

static void is(const char *text, const char *word, uint64_t want)
{
    uint64_t bytes = 4711;

    cr_assert_eq(setenv(NAME, text, 1), 0);
    cr_assert_eq(pli_env_bytes(&bytes, NAME, word, UINT64_MAX), 0, "'%s': %s", text, pli_err_text());
    cr_assert_eq(bytes, want, "'%s'", text);
}

static void is_not(const char *text, const char *word)
{
    uint64_t bytes = 4711;

    cr_assert_eq(setenv(NAME, text, 1), 0);
    cr_assert_eq(pli_env_bytes(&bytes, NAME, word, UINT64_MAX), PLAIT_E_INVAL, "'%s'", text);
    cr_assert_eq(bytes, 4711, "'%s'", text);
    cr_assert_not_null(strstr(pli_err_text(), NAME), "%s", pli_err_text());
    cr_assert_not_null(strstr(pli_err_text(), text), "%s", pli_err_text());
}

Test(env, not_set)
{
    uint64_t bytes = 4711;

    unsetenv(NAME);
    cr_assert_eq(pli_env_bytes(&bytes, NAME, NULL, 0), 0);
    cr_assert_eq(pli_env_bytes(&bytes, NAME, "never", 0), 0);
    cr_assert_eq(bytes, 4711);
    is("", NULL, 4711);
    is("", "never", 4711);
}

Test(env, numbers)
{
    is("0", NULL, 0);
    is("100000", "never", 100000);
    is("007", NULL, 7);
    is("18446744073709551615", NULL, UINT64_MAX);
}

Test(env, words)
{
    is("never", "never", UINT64_MAX);
    is_not("never", NULL);
    is_not("always", "never");
    cr_assert_not_null(strstr(pli_err_text(), "or never"), "%s", pli_err_text());
}

Test(env, neither)
{
    static const char *const bad[] = { "-3", "+3", " 3", "3 ", "4k", "0x10", "1.5", "18446744073709551616", "never ", "Never" };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        is_not(bad[i], NULL);
        is_not(bad[i], "never");
    }
}
