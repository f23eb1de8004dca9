/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers on the command line, and numbers for people. */
#include <criterion/criterion.h>
#include <string.h>
#include "tools/cli.h"

static void size_is(const char *text, size_t want)
{
    const char *why = NULL;
    size_t got = 77;

    cr_expect_eq(cli_parse_size(text, &got, &why), 0, "'%s': %s", text, why);
    cr_expect_eq(got, want, "'%s' is %zu", text, got);
}

Test(cli, sizes)
{
    size_is("0", 0);
    size_is("8", 8);
    size_is("64B", 64);
    size_is("1k", 1024);
    size_is("64K", 65536);
    size_is("256KiB", 262144);
    size_is("1M", 1 << 20);
    size_is("3MiB", 3 << 20);
    size_is("2g", (size_t)2 << 30);
}

Test(cli, sizes_that_are_none)
{
    static const char *const bad[] = { "", "k", "-1", "+8", " 8", "8 ", "8x", "8kk", "8kBB", "0x10", "1.5k",
                                       "8,9", "99999999999999999999", "18446744073709551615k" };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        size_t got = 77;

        cr_expect_eq(cli_parse_size(bad[i], &got, &why), -1, "'%s'", bad[i]);
        cr_expect_eq(got, 77, "'%s' changed the result", bad[i]);
        cr_expect(why != NULL && strlen(why) > 5);
    }
}

Test(cli, lists)
{
    struct cli_list l;
    const char *why;

    cr_assert_eq(cli_parse_sizes("8,64,1k,4k,64k", &l, &why), 0);
    cr_assert_eq(l.n, 5);
    cr_expect_eq(l.v[0], 8);
    cr_expect_eq(l.v[4], 65536);
    cr_assert_eq(cli_parse_sizes("16", &l, &why), 0);
    cr_expect(l.n == 1 && l.v[0] == 16);
}

Test(cli, lists_that_are_none)
{
    static const char *const bad[] = { "", ",", "8,", ",8", "8,,9", "8;9", "8, 9", "0", "8,0", "8,x" };
    char longest[3 * CLI_LIST_MAX + 4] = "1";
    struct cli_list l = { .n = 99 };
    const char *why;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(cli_parse_sizes(bad[i], &l, &why), -1, "'%s'", bad[i]);
    for (int i = 1; i < CLI_LIST_MAX; i++)
        strcat(longest, ",1");
    cr_expect_eq(l.n, 99);
    cr_expect_eq(cli_parse_sizes(longest, &l, &why), 0);
    cr_expect_eq(l.n, CLI_LIST_MAX);
    strcat(longest, ",1");
    cr_expect_eq(cli_parse_sizes(longest, &l, &why), -1);
    cr_expect(strstr(why, "too long") != NULL);
}

Test(cli, counts_and_seconds)
{
    unsigned long n = 5;
    const char *why;
    double s = 5;

    cr_expect(cli_parse_count("0", &n, &why) == 0 && n == 0);
    cr_expect(cli_parse_count("12345", &n, &why) == 0 && n == 12345);
    cr_expect_eq(cli_parse_count("-1", &n, &why), -1);
    cr_expect_eq(cli_parse_count("1k", &n, &why), -1);
    cr_expect_eq(cli_parse_count("", &n, &why), -1);
    cr_expect_eq(cli_parse_count("99999999999999999999999", &n, &why), -1);
    cr_expect(cli_parse_seconds("0.25", &s, &why) == 0 && s == 0.25);
    cr_expect(cli_parse_seconds("0", &s, &why) == 0 && s == 0);
    cr_expect(cli_parse_seconds(".5", &s, &why) == 0 && s == 0.5);
    cr_expect_eq(cli_parse_seconds("-1", &s, &why), -1);
    cr_expect_eq(cli_parse_seconds("nan", &s, &why), -1);
    cr_expect_eq(cli_parse_seconds("1s", &s, &why), -1);
    cr_expect_eq(cli_parse_seconds(".", &s, &why), -1);
    cr_expect_eq(cli_parse_seconds("1e9", &s, &why), -1);
}

Test(cli, cpus)
{
    int c[2] = { 7, 7 };
    const char *why;

    cr_expect(cli_parse_cpus("0,1", c, &why) == 0 && c[0] == 0 && c[1] == 1);
    cr_expect(cli_parse_cpus("12", c, &why) == 0 && c[0] == 12 && c[1] == -1);
    cr_expect_eq(cli_parse_cpus("", c, &why), -1);
    cr_expect_eq(cli_parse_cpus("1,", c, &why), -1);
    cr_expect_eq(cli_parse_cpus("1,2,3", c, &why), -1);
    cr_expect_eq(cli_parse_cpus("-1", c, &why), -1);
    cr_expect_eq(cli_parse_cpus("99999999999", c, &why), -1);
}

Test(cli, bytes_for_people)
{
    char buf[CLI_TEXT];

    cr_expect_str_eq(cli_bytes(buf, 0), "0 B");
    cr_expect_str_eq(cli_bytes(buf, 1023), "1023 B");
    cr_expect_str_eq(cli_bytes(buf, 1024), "1 KiB");
    cr_expect_str_eq(cli_bytes(buf, 1536), "1.5 KiB");
    cr_expect_str_eq(cli_bytes(buf, 20480), "20 KiB");
    cr_expect_str_eq(cli_bytes(buf, (uint64_t)25 << 30), "25 GiB");
    cr_expect_str_eq(cli_bytes(buf, UINT64_MAX), "unlimited");
    cr_expect_str_eq(cli_bytes(buf, UINT64_MAX - 1), "16 EiB");
}
