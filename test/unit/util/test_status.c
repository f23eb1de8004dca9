/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "util/err.h"

#define CODE(c) { c, #c }

static const struct {
    int code;
    const char *name;
} codes[] = {
    CODE(PLAIT_OK), CODE(PLAIT_E_AGAIN), CODE(PLAIT_E_TOOBIG), CODE(PLAIT_E_TIMEDOUT),
    CODE(PLAIT_E_CANCELED), CODE(PLAIT_E_NOREPLY), CODE(PLAIT_E_REPLIED), CODE(PLAIT_E_REFUSED),
    CODE(PLAIT_E_BUSY), CODE(PLAIT_E_WOULDBLOCK), CODE(PLAIT_E_REVOKED), CODE(PLAIT_E_CLOSED),
    CODE(PLAIT_E_ABORTED),
    CODE(PLAIT_E_REJECTED), CODE(PLAIT_E_PROTO), CODE(PLAIT_E_NOTRANSPORT), CODE(PLAIT_E_RESOLVE),
    CODE(PLAIT_E_NOLISTENER), CODE(PLAIT_E_ADDRINUSE), CODE(PLAIT_E_UNREACHABLE),
    CODE(PLAIT_E_PEERDIED), CODE(PLAIT_E_VERSION), CODE(PLAIT_E_PERM), CODE(PLAIT_E_BADPEER),
    CODE(PLAIT_E_INVAL), CODE(PLAIT_E_NOMEM), CODE(PLAIT_E_NOFILE), CODE(PLAIT_E_THREAD),
    CODE(PLAIT_E_FORKED), CODE(PLAIT_E_SYSTEM), CODE(PLAIT_E_TOPOLOGY), CODE(PLAIT_E_LAUNCHER),
    CODE(PLAIT_E_NOTFOUND), CODE(PLAIT_E_UNSUPPORTED),
};

#define N_CODES (sizeof codes / sizeof codes[0])

Test(status, every_code_has_its_name_and_a_text_of_its_own)
{
    for (size_t i = 0; i < N_CODES; i++) {
        const char *text = plait_strerror(codes[i].code);

        cr_expect_str_eq(plait_status_name(codes[i].code), codes[i].name);
        cr_expect_str_neq(text, "unknown plait status", "%s has no text", codes[i].name);
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(text, plait_strerror(codes[j].code), "%s and %s have one text",
                              codes[i].name, codes[j].name);
    }
}

Test(status, the_list_above_is_complete)
{
    size_t known = 0;

    for (int code = -999; code <= 0; code++)
        if (strcmp(plait_status_name(code), "PLAIT_E_?") != 0)
            known++;
    cr_expect_eq(known, N_CODES, "status.c knows %zu codes, this test %zu", known, N_CODES);
}

Test(status, unknown_codes_are_told_as_unknown)
{
    cr_expect_str_eq(plait_strerror(1), "unknown plait status");
    cr_expect_str_eq(plait_strerror(-100000), "unknown plait status");
    cr_expect_str_eq(plait_status_name(1), "PLAIT_E_?");
}

Test(err, fail_keeps_the_sentence_and_returns_the_code)
{
    int rc = pli_fail(PLAIT_E_TOOBIG, "the message has %d bytes, the limit is %d", 10, 5);

    cr_expect_eq(rc, PLAIT_E_TOOBIG);
    cr_expect_str_eq(plait_error_text(), "the message has 10 bytes, the limit is 5");
}

Test(err, a_sentence_may_quote_the_one_before_it)
{
    pli_fail(PLAIT_E_RESOLVE, "no such host");
    pli_fail(PLAIT_E_RESOLVE, "plait://x:1: %s", plait_error_text());
    cr_expect_str_eq(plait_error_text(), "plait://x:1: no such host");
}

Test(err, prefix_keeps_the_old_sentence)
{
    int rc;

    pli_fail(PLAIT_E_NOMEM, "the pool is empty");
    rc = pli_fail_prefix(PLAIT_E_NOMEM, "context %d", 3);
    cr_expect_eq(rc, PLAIT_E_NOMEM);
    cr_expect_str_eq(plait_error_text(), "context 3: the pool is empty");
}

Test(err, a_sentence_too_long_is_cut_not_overrun)
{
    char big[2000];

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    pli_fail(PLAIT_E_INVAL, "%s", big);
    cr_expect_lt(strlen(plait_error_text()), sizeof big - 1);
    cr_expect_eq(plait_error_text()[0], 'x');
}

Test(err, emfile_names_the_limit)
{
    struct rlimit rl;
    char number[32];
    int rc;

    errno = EMFILE;
    rc = pli_fail_errno("socket for %s", "plait://a:1");
    cr_expect_eq(rc, PLAIT_E_NOFILE);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
    snprintf(number, sizeof number, "limit is %llu", (unsigned long long)rl.rlim_cur);
    cr_expect(strstr(plait_error_text(), number), "no '%s' in: %s", number, plait_error_text());
    cr_expect(strstr(plait_error_text(), "ulimit -n"), "no advice in: %s", plait_error_text());
    cr_expect_eq(strncmp(plait_error_text(), "socket for plait://a:1: ", 24), 0);
}

Test(err, errno_becomes_a_code)
{
    errno = ENOMEM;
    cr_expect_eq(pli_fail_errno("mmap"), PLAIT_E_NOMEM);
    errno = ENFILE;
    cr_expect_eq(pli_fail_errno("socket"), PLAIT_E_NOFILE);
    errno = EPERM;
    cr_expect_eq(pli_fail_errno("bind"), PLAIT_E_SYSTEM);
    cr_expect_str_eq(plait_error_text(), "bind: Operation not permitted");
}

static void *text_of_other_thread(void *arg)
{
    (void)arg;
    return (void *)plait_error_text();
}

Test(err, each_thread_has_its_own_sentence)
{
    char first[64];
    pthread_t t;
    void *text = NULL;

    snprintf(first, sizeof first, "%s", plait_error_text());
    cr_expect_str_eq(first, "no error");
    pli_fail(PLAIT_E_INVAL, "only for this thread");
    cr_assert_eq(pthread_create(&t, NULL, text_of_other_thread, NULL), 0);
    pthread_join(t, &text);
    cr_expect_str_eq(text, "no error");
    cr_expect_str_eq(plait_error_text(), "only for this thread");
}
