/* SPDX-License-Identifier: BSD-3-Clause */
/* The PMI-1 client against a server made here, which can be told to misbehave at any request. The client's
 * connection is the process's, so each case is a test of its own (Criterion gives it a process). */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plait/status.h"
#include "runtime/boot.h"
#include "util/err.h"

#define LONG_MS   20000
#define PAIRS_MAX 4000

/* ---- the server ---- */

enum after { GO_ON, HANG_UP, SAY_NOTHING };

/* Held while a request is served and while a test changes the answers. */
static pthread_mutex_t srv_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    int fd;
    pthread_t thread;
    const char *vallen_max; /* what get_maxes says */
    const char *mapping;    /* NULL: no such key */
    const char *on;         /* the request that goes wrong begins so; NULL: none */
    const char *answer;     /* ... and gets this; NULL: the right answer */
    size_t answer_len;      /* 0: strlen */
    enum after after;
    bool dribble;    /* answers come byte by byte */
    bool other_host; /* rank 1 gives other values than rank 0 */
    unsigned pairs, barriers, finalizes, longest_line, longest_value;
    struct {
        char key[64], value[1024];
    } pair[PAIRS_MAX];
} srv;

static void reply(const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(srv.fd, text + at, srv.dribble ? 1 : len - at, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        at += (size_t)n;
    }
}

static void reply_text(const char *text)
{
    reply(text, strlen(text));
}

static void add_pair(const char *key, const char *value)
{
    cr_assert_lt(srv.pairs, PAIRS_MAX);
    cr_assert_lt(strlen(key), 64);
    for (unsigned i = 0; i < srv.pairs; i++)
        cr_assert_str_neq(srv.pair[i].key, key, "a key was put twice");
    strcpy(srv.pair[srv.pairs].key, key);
    strcpy(srv.pair[srv.pairs++].value, value);
}

/* Rank 1 puts what rank 0 puts. */
static void add_mirrored(const char *key, const char *value)
{
    char mirrored[64], changed[1024];
    char *dash;

    strcpy(mirrored, key);
    dash = strrchr(mirrored, '-');
    cr_assert_eq(dash[-1], '0');
    dash[-1] = '1';
    strcpy(changed, value);
    if (srv.other_host)
        changed[strlen(changed) / 2] ^= 1; /* 'A' and '@' differ so, and digits stay digits */
    if (srv.other_host && strchr("@`[{:", changed[strlen(changed) / 2]))
        changed[strlen(changed) / 2] = 'B';
    add_pair(mirrored, changed);
}

static void do_put(const char *line)
{
    char key[1024], value[1024];

    cr_assert_eq(sscanf(line, "cmd=put kvsname=kvs_test key=%1023s value=%1023s", key, value), 2, "%s", line);
    if (strlen(value) > srv.longest_value)
        srv.longest_value = (unsigned)strlen(value);
    add_pair(key, value);
    add_mirrored(key, value);
    reply_text("cmd=put_result rc=0 msg=success\n");
}

static void do_get(const char *line)
{
    char key[1024], text[2048];
    const char *value = NULL;

    cr_assert_eq(sscanf(line, "cmd=get kvsname=kvs_test key=%1023s", key), 1, "%s", line);
    if (strcmp(key, "PMI_process_mapping") == 0)
        value = srv.mapping;
    for (unsigned i = 0; i < srv.pairs; i++)
        if (strcmp(srv.pair[i].key, key) == 0)
            value = srv.pair[i].value;
    if (value)
        snprintf(text, sizeof text, "cmd=get_result rc=0 msg=success value=%s\n", value);
    else
        snprintf(text, sizeof text, "cmd=get_result rc=-1 msg=key_%s_not_found value=unknown\n", key);
    reply_text(text);
}

static void do_request(const char *line)
{
    char text[256];

    if (strncmp(line, "cmd=init ", 9) == 0) {
        reply_text("cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n");
    } else if (strcmp(line, "cmd=get_maxes\n") == 0) {
        snprintf(text, sizeof text, "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=%s\n",
                 srv.vallen_max);
        reply_text(text);
    } else if (strcmp(line, "cmd=get_my_kvsname\n") == 0) {
        reply_text("cmd=my_kvsname kvsname=kvs_test\n");
    } else if (strncmp(line, "cmd=put ", 8) == 0) {
        do_put(line);
    } else if (strncmp(line, "cmd=get ", 8) == 0) {
        do_get(line);
    } else if (strcmp(line, "cmd=barrier_in\n") == 0) {
        srv.barriers++;
        reply_text("cmd=barrier_out\n");
    } else if (strcmp(line, "cmd=finalize\n") == 0) {
        srv.finalizes++;
        reply_text("cmd=finalize_ack\n");
    } else {
        cr_assert_fail("unknown request: %s", line);
    }
}

/* False when the connection is to end. */
static bool serve(const char *line)
{
    if (strlen(line) > srv.longest_line)
        srv.longest_line = (unsigned)strlen(line);
    if (!srv.on || strncmp(line, srv.on, strlen(srv.on)) != 0) {
        do_request(line);
        return true;
    }
    if (srv.after == SAY_NOTHING)
        return true;
    if (srv.answer)
        reply(srv.answer, srv.answer_len ? srv.answer_len : strlen(srv.answer));
    else
        do_request(line);
    return srv.after != HANG_UP;
}

static void *server(void *arg)
{
    char line[4096];
    size_t n = 0;
    bool go_on;

    (void)arg;
    while (n + 1 < sizeof line && recv(srv.fd, line + n, 1, 0) == 1) {
        n++;
        if (line[n - 1] != '\n')
            continue;
        line[n] = '\0';
        n = 0;
        pthread_mutex_lock(&srv_lock);
        go_on = serve(line);
        pthread_mutex_unlock(&srv_lock);
        if (!go_on)
            break;
    }
    shutdown(srv.fd, SHUT_RDWR);
    return NULL;
}

static void make_socket(void)
{
    char text[16];
    int sv[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    srv.fd = sv[0];
    snprintf(text, sizeof text, "%d", sv[1]);
    setenv("PMI_FD", text, 1);
}

static void setup(void)
{
    srv.vallen_max = "1024";
    srv.mapping = "(vector,(0,1,2))";
    setenv("PLAIT_JOB", "pmi1", 1);
    setenv("PMI_RANK", "0", 1);
    setenv("PMI_SIZE", "2", 1);
    make_socket();
}

static void start_server(void)
{
    cr_assert_eq(pthread_create(&srv.thread, NULL, server, NULL), 0);
}

/* After it the test reads srv alone, and the exit handler finds the connection closed. */
static void stop_server(void)
{
    shutdown(srv.fd, SHUT_RDWR);
    pthread_join(srv.thread, NULL);
}

TestSuite(boot_pmi1, .init = setup, .timeout = 60);

static void answer_with(const char *on, const char *answer)
{
    pthread_mutex_lock(&srv_lock);
    srv.on = on;
    srv.answer = answer;
    pthread_mutex_unlock(&srv_lock);
}

static void expect_fail(int rc, int code, const char *word)
{
    cr_assert_eq(rc, code, "%s instead of %s: %s", plait_status_name(rc), plait_status_name(code),
                 pli_err_text());
    cr_assert(strstr(pli_err_text(), word), "'%s' does not say '%s'", pli_err_text(), word);
    cr_assert(strstr(pli_err_text(), "PMI"), "'%s' does not name the launcher", pli_err_text());
}

static struct pli_boot *join(void)
{
    struct pli_boot *b;
    int rc = pli_boot_init(&b, LONG_MS);

    cr_assert_eq(rc, 0, "%s", pli_err_text());
    return b;
}

/* ---- what works ---- */

Test(boot_pmi1, job_of_two)
{
    struct pli_boot *b;

    start_server();
    b = join();
    cr_assert_eq(b->kind, PLI_BOOT_PMI1);
    cr_assert_eq(b->rank, 0);
    cr_assert_eq(b->size, 2);
    cr_assert_str_eq(b->job_id, "kvs_test");
    cr_assert_eq(b->local_size, 2);
    cr_assert_eq(b->local_rank, 0);
    cr_assert_eq(b->local_ranks[1], 1);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0);
    cr_assert_eq(pli_boot_finalize(b), 0);
    stop_server();
    cr_assert_eq(srv.barriers, 1);
    cr_assert_eq(srv.finalizes, 0, "the launcher was told before the process ended");
}

static void put_and_get(struct pli_boot *b, size_t len)
{
    unsigned char data[PLI_BOOT_VALUE_MAX], back[PLI_BOOT_VALUE_MAX];
    char key[32];
    size_t got = 1;

    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i * 167 + len);
    snprintf(key, sizeof key, "key.%zu", len);
    cr_assert_eq(pli_boot_put(b, key, data, len), 0, "%s", pli_err_text());
    cr_assert_eq(pli_boot_fence(b, LONG_MS), 0);
    for (uint32_t rank = 0; rank < 2; rank++) {
        cr_assert_eq(pli_boot_get(b, rank, key, back, sizeof back, &got, LONG_MS), 0, "%s", pli_err_text());
        cr_assert_eq(got, len);
        cr_assert_eq(memcmp(back, data, len), 0, "rank %u, %zu bytes", rank, len);
        if (len > 0)
            cr_assert_eq(pli_boot_get(b, rank, key, back, len - 1, &got, LONG_MS), PLAIT_E_TOOBIG);
    }
}

static void check_sizes(void)
{
    static const size_t sizes[] = {
        0, 1, 2, 3, 44, 45, 46, 700, 720, 750, 765, 1023, 1024, 4096, 16383, 16384
    };
    struct pli_boot *b;
    char big[PLI_BOOT_VALUE_MAX + 1] = "";

    start_server();
    b = join();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        put_and_get(b, sizes[i]);
    cr_assert_eq(pli_boot_put(b, "big", big, sizeof big), PLAIT_E_TOOBIG);
    pli_boot_finalize(b);
    stop_server();
    cr_assert_leq(srv.longest_line, 1024, "a line had %u bytes", srv.longest_line);
    cr_assert_lt(srv.longest_value, (unsigned)atoi(srv.vallen_max));
}

Test(boot_pmi1, values_of_every_size)
{
    check_sizes();
}

Test(boot_pmi1, values_over_small_limits)
{
    srv.vallen_max = "64";
    check_sizes();
}

Test(boot_pmi1, answers_byte_by_byte)
{
    srv.dribble = true;
    check_sizes();
}

Test(boot_pmi1, allgather)
{
    struct pli_boot *b;
    char mine[PLI_BOOT_GATHER_MAX + 1], all[2 * PLI_BOOT_GATHER_MAX];

    memset(mine, 'x', sizeof mine);
    start_server();
    b = join();
    for (int round = 0; round < 3; round++) {
        memset(all, 0, sizeof all);
        cr_assert_eq(pli_boot_allgather(b, mine, PLI_BOOT_GATHER_MAX, all, LONG_MS), 0, "%s", pli_err_text());
        cr_assert_eq(memcmp(all, mine, PLI_BOOT_GATHER_MAX), 0);
        cr_assert_eq(memcmp(all + PLI_BOOT_GATHER_MAX, mine, PLI_BOOT_GATHER_MAX), 0);
        /* in place */
        memcpy(all + 3, "abc", 4);
        cr_assert_eq(pli_boot_allgather(b, all + 3, 4, all, LONG_MS), 0);
        cr_assert_str_eq(all, "abc");
        cr_assert_str_eq(all + 4, "abc");
    }
    cr_assert_eq(pli_boot_allgather(b, NULL, 0, NULL, LONG_MS), 0);
    cr_assert_eq(pli_boot_allgather(b, mine, sizeof mine, all, LONG_MS), PLAIT_E_TOOBIG);
    pli_boot_finalize(b);
    stop_server();
    cr_assert_eq(srv.barriers, 7);
}

Test(boot_pmi1, keys)
{
    struct pli_boot *b;
    char buf[4];

    start_server();
    b = join();
    cr_assert_eq(pli_boot_put(b, "", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a b", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a=b", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "a\nb", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "12345678901234567890123456789012", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_put(b, "1234567890123456789012345678901", "x", 1), 0, "%s", pli_err_text());
    cr_assert_eq(pli_boot_put(b, "1234567890123456789012345678901", "x", 1), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_get(b, 0, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_NOTFOUND);
    cr_assert_eq(pli_boot_get(b, 1, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_NOTFOUND);
    cr_assert_eq(pli_boot_get(b, 2, "nothing", buf, 4, NULL, LONG_MS), PLAIT_E_INVAL);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0, "a key that is missing broke the connection");
    pli_boot_finalize(b);
    stop_server();
}

/* The server refuses a key that comes twice: a second job in the process has keys of its own. */
Test(boot_pmi1, leave_and_join_again)
{
    start_server();
    for (int i = 0; i < 3; i++) {
        struct pli_boot *b = join(), *other;
        char all[2];

        cr_assert_eq(pli_boot_init(&other, LONG_MS), PLAIT_E_BUSY);
        cr_assert_null(other);
        cr_assert_eq(pli_boot_put(b, "address", "x", 1), 0);
        cr_assert_eq(pli_boot_allgather(b, "y", 1, all, LONG_MS), 0);
        pli_boot_finalize(b);
    }
    stop_server();
}

Test(boot_pmi1, nodes_from_the_mapping)
{
    struct pli_boot *b;

    srv.mapping = "(vector,(0,2,1))";
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 1);
    cr_assert_eq(b->local_ranks[0], 0);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1, nodes_without_a_mapping)
{
    struct pli_boot *b;

    srv.mapping = NULL;
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 2);
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1, other_nodes_without_a_mapping)
{
    struct pli_boot *b;

    srv.mapping = NULL;
    srv.other_host = true;
    start_server();
    b = join();
    cr_assert_eq(b->local_size, 1);
    pli_boot_finalize(b);
    stop_server();
}

/* What a process that has ended says to the launcher: cmd=finalize if it had left its job, else nothing. */
static unsigned finalizes_of(bool leave)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        struct pli_boot *b;

        close(srv.fd);
        if (pli_boot_init(&b, LONG_MS) < 0)
            _exit(1);
        if (leave)
            pli_boot_finalize(b);
        exit(0);
    }
    start_server();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    stop_server();
    return srv.finalizes;
}

Test(boot_pmi1, exit_after_leaving)
{
    cr_assert_eq(finalizes_of(true), 1);
}

Test(boot_pmi1, exit_without_leaving)
{
    cr_assert_eq(finalizes_of(false), 0);
}

Test(boot_pmi1, fork)
{
    struct pli_boot *b;
    pid_t child;
    int status;

    start_server();
    b = join();
    fflush(NULL);
    child = fork();
    if (child == 0) {
        struct pli_boot *other;
        bool ok = pli_boot_barrier(b, LONG_MS) == PLAIT_E_FORKED &&
                  pli_boot_put(b, "k", "x", 1) == PLAIT_E_FORKED && pli_boot_finalize(b) == 0 &&
                  pli_boot_init(&other, LONG_MS) == PLAIT_E_FORKED;

        _exit(ok ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(pli_boot_barrier(b, LONG_MS), 0, "%s", pli_err_text());
    pli_boot_finalize(b);
    stop_server();
}

/* ---- what goes wrong ---- */

Test(boot_pmi1, silence)
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

Test(boot_pmi1, silence_from_the_start)
{
    struct pli_boot *b;

    srv.on = "cmd=";
    srv.after = SAY_NOTHING;
    start_server();
    expect_fail(pli_boot_init(&b, 50), PLAIT_E_TIMEDOUT, "cmd=init");
    cr_assert_null(b);
    stop_server();
}

Test(boot_pmi1, answer_that_nobody_asked_for)
{
    struct pli_boot *b;

    start_server();
    b = join();
    reply_text("cmd=barrier_out\n");
    expect_fail(pli_boot_barrier(b, LONG_MS), PLAIT_E_LAUNCHER, "not asked for");
    pli_boot_finalize(b);
    stop_server();
}

Test(boot_pmi1, launcher_goes_between_calls)
{
    struct pli_boot *b;

    start_server();
    b = join();
    stop_server();
    expect_fail(pli_boot_barrier(b, LONG_MS), PLAIT_E_LAUNCHER, "closed the connection");
    pli_boot_finalize(b);
}

Test(boot_pmi1, ranks_and_sizes)
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

ParameterizedTestParameters(boot_pmi1, wrong_answers_to_init)
{
    static size_t index[sizeof wrong / sizeof wrong[0]];

    for (size_t i = 0; i < sizeof index / sizeof index[0]; i++)
        index[i] = i;
    return cr_make_param_array(size_t, index, sizeof index / sizeof index[0]);
}

ParameterizedTest(size_t *index, boot_pmi1, wrong_answers_to_init, .init = setup, .timeout = 60)
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

Test(boot_pmi1, damaged_values)
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

Test(boot_pmi1, refused_put)
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

Test(boot_pmi1, unequal_allgather)
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
