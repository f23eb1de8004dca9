/* SPDX-License-Identifier: BSD-3-Clause */
/* The PMI-1 client against a server that goes, is silent, or answers what it should not. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>

#include "test/unit/runtime/pmi1_server.h"

TestSuite(boot_pmi1_wrong, .init = setup, .timeout = 60);

Test(boot_pmi1_wrong, silence)
{
    struct pli_boot *b;
    char all[2];

    srv.on = "cmd=barrier_in";
    srv.after = SAY_NOTHING;
    start_server();
    b = join();
    expect_fail(pli_boot_barrier(b, 50), PLAIT_E_TIMEDOUT, "barrier_in");
    expect_fail(pli_boot_barrier(b, 50), PLAIT_E_LAUNCHER, "earlier call");
    expect_fail(pli_boot_put(b, "key", "x", 1), PLAIT_E_LAUNCHER, "earlier call");
    expect_fail(pli_boot_allgather(b, "x", 1, all, 50), PLAIT_E_LAUNCHER, "earlier call");
    pli_boot_finalize(b);
    expect_fail(pli_boot_init(&b, 50), PLAIT_E_LAUNCHER, "earlier call");
    stop_server();
    cr_assert_eq(srv.finalizes, 0);
}

Test(boot_pmi1_wrong, silence_from_the_start)
{
    struct pli_boot *b;

    srv.on = "cmd=";
    srv.after = SAY_NOTHING;
    start_server();
    expect_fail(pli_boot_init(&b, 50), PLAIT_E_TIMEDOUT, "cmd=init");
    cr_assert_null(b);
    stop_server();
}

Test(boot_pmi1_wrong, answer_that_nobody_asked_for)
{
    struct pli_boot *b;

    start_server();
    b = join();
    reply_text("cmd=barrier_out\n");
    expect_fail(pli_boot_barrier(b, LONG_MS), PLAIT_E_LAUNCHER, "not asked for");
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1_wrong, launcher_goes_between_calls)
{
    struct pli_boot *b;

    start_server();
    b = join();
    stop_server();
    expect_fail(pli_boot_barrier(b, LONG_MS), PLAIT_E_LAUNCHER, "closed the connection");
    pli_boot_finalize(b);
}

Test(boot_pmi1_wrong, ranks_and_sizes)
{
    static const char *const bad[][2] = {
        { "0", "0" }, { "0", "-1" }, { "0", "two" }, { "0", "4194305" }, { "0", "99999999999999999999" },
        { "2", "2" }, { "-1", "2" }, { "x", "2" },   { "", "2" },        { "0", "" },
    };
    struct pli_boot *b;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("PMI_RANK", bad[i][0], 1);
        setenv("PMI_SIZE", bad[i][1], 1);
        expect_fail(pli_boot_init(&b, LONG_MS), PLAIT_E_LAUNCHER, "is not a number");
    }
}

#define MANY_X          "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define LONGER_THAN_256 MANY_X MANY_X MANY_X MANY_X "x"

static char overlong[10000];

static const struct wrong {
    const char *on, *answer;
    size_t answer_len;
    enum after after;
    const char *text; /* what the error says */
} wrong[] = {
    { "cmd=init", NULL, 0, HANG_UP, "cmd=get_maxes: the launcher closed" },
    { "cmd=init", "", 0, HANG_UP, "cmd=init: the launcher closed" },
    { "cmd=init", "cmd=response_to_in", 0, HANG_UP, "in the middle of an answer" },
    { "cmd=init", "\n", 0, GO_ON, "cannot be read" },
    { "cmd=init", "hello\n", 0, GO_ON, "cannot be read" },
    { "cmd=init", "cmd=response_to_init\0rc=0\n", 26, GO_ON, "unprintable" },
    { "cmd=init", overlong, sizeof overlong, GO_ON, "longer than 8192" },
    { "cmd=init", "cmd=maxes\n", 0, GO_ON, "not 'response_to_init'" },
    { "cmd=init", "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=-1\n", 0, GO_ON, "version 1" },
    { "cmd=init", "cmd=response_to_init pmi_version=2 pmi_subversion=0 rc=0\n", 0, GO_ON, "version 1" },
    { "cmd=init", "cmd=response_to_init pmi_version=1\n", 0, GO_ON, "version 1" },
    { "cmd=init", "cmd=response_to_init pmi_version=1 rc=0\ncmd=maxes\n", 0, GO_ON, "follows the end" },
    { "cmd=get_maxes", "cmd=maxes\n", 0, GO_ON, "keylen_max" },
    { "cmd=get_maxes", "cmd=maxes keylen_max=8 vallen_max=1024\n", 0, GO_ON, "keylen_max=8" },
    { "cmd=get_maxes", "cmd=maxes keylen_max=64 vallen_max=0\n", 0, GO_ON, "vallen_max=0" },
    { "cmd=get_maxes", "cmd=maxes keylen_max=64 vallen_max=-5\n", 0, GO_ON, "vallen_max=-5" },
    { "cmd=get_maxes", "cmd=maxes keylen_max=64 vallen_max=999999999999\n", 0, GO_ON, "vallen_max=9" },
    { "cmd=get_my_kvsname", "cmd=my_kvsname\n", 0, GO_ON, "name is missing" },
    { "cmd=get_my_kvsname", "cmd=my_kvsname kvsname=\n", 0, GO_ON, "name is missing" },
    { "cmd=get_my_kvsname", "cmd=my_kvsname kvsname=" LONGER_THAN_256 "\n", 0, GO_ON, "longer than 256" },
    { "cmd=get ", "cmd=get_result rc=0 msg=success value=(vector,(0,0,1))\n", 0, GO_ON,
      "PMI_process_mapping" },
    { "cmd=get ", "cmd=get_result rc=0 msg=success value=(vector\n", 0, GO_ON, "PMI_process_mapping" },
    { "cmd=get ", "cmd=barrier_out\n", 0, GO_ON, "'barrier_out'" },
};

ParameterizedTestParameters(boot_pmi1_wrong, wrong_answers_to_init)
{
    static size_t index[sizeof wrong / sizeof wrong[0]];

    for (size_t i = 0; i < sizeof index / sizeof index[0]; i++)
        index[i] = i;
    return cr_make_param_array(size_t, index, sizeof index / sizeof index[0]);
}

ParameterizedTest(size_t *index, boot_pmi1_wrong, wrong_answers_to_init, .init = setup, .timeout = 60)
{
    const struct wrong *w = &wrong[*index];
    struct pli_boot *b;

    memset(overlong, 'x', sizeof overlong);
    srv.on = w->on;
    srv.answer = w->answer;
    srv.answer_len = w->answer_len;
    srv.after = w->after;
    start_server();
    expect_fail(pli_boot_init(&b, LONG_MS), PLAIT_E_LAUNCHER, w->text);
    cr_assert_null(b);
    stop_server();
}

/* Answers to a get of 6 bytes; the connection itself stays good. */
static const char *const wrong_values[] = {
    "cmd=get_result rc=0 msg=success\n",
    "cmd=get_result rc=0 msg=success value=\n",
    "cmd=get_result rc=0 msg=success value=QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=:QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=-6:QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=99999:QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=99999999999999999999:QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=5:QUJDREVG\n",
    "cmd=get_result rc=0 msg=success value=6:QUJD!EVG\n",
    "cmd=get_result rc=0 msg=success value=6:QUJDREVGQ\n",
    "cmd=get_result rc=0 msg=success value=6:\n",
    "cmd=get_result rc=0 msg=success value=0:QUJD\n",
    "cmd=get_result rc=0 msg=success value=7:QUJDREVG\n", /* and the same again as its second part */
};

Test(boot_pmi1_wrong, damaged_values)
{
    struct pli_boot *b;
    char buf[64];

    start_server();
    b = join();
    cr_assert_eq(pli_boot_put(b, "key", "ABCDEF", 6), 0);
    cr_assert_eq(pli_boot_fence(b, LONG_MS), 0);
    for (size_t i = 0; i < sizeof wrong_values / sizeof wrong_values[0]; i++) {
        answer_with("cmd=get ", wrong_values[i]);
        expect_fail(pli_boot_get(b, 1, "key", buf, sizeof buf, NULL, LONG_MS), PLAIT_E_LAUNCHER, "damaged");
    }
    answer_with(NULL, NULL);
    cr_assert_eq(pli_boot_get(b, 1, "key", buf, sizeof buf, NULL, LONG_MS), 0, "%s", pli_err_text());
    cr_assert_eq(memcmp(buf, "ABCDEF", 6), 0);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1_wrong, refused_put)
{
    struct pli_boot *b;

    srv.on = "cmd=put ";
    srv.answer = "cmd=put_result rc=-1 msg=no_more_room\n";
    start_server();
    b = join();
    expect_fail(pli_boot_put(b, "key", "x", 1), PLAIT_E_LAUNCHER, "no_more_room");
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1_wrong, unequal_allgather)
{
    struct pli_boot *b;
    char all[12];

    srv.on = "cmd=get kvsname=kvs_test key=plait-";
    srv.answer = "cmd=get_result rc=0 msg=success value=3:QUJD\n";
    start_server();
    b = join();
    cr_assert_eq(pli_boot_allgather(b, "ABCDEF", 6, all, LONG_MS), PLAIT_E_INVAL);
    cr_assert(strstr(pli_err_text(), "rank 1 did not give 6 bytes"), "%s", pli_err_text());
    pli_boot_finalize(b);
    stop_server();
}
