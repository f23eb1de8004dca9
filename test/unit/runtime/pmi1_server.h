/* SPDX-License-Identifier: BSD-3-Clause */
/* A PMI-1 server for a job of two, which can be told to misbehave at any request. The client's connection is the process's, so each
 * case is a test of its own (Criterion gives it a process). */
#ifndef PLI_TEST_PMI1_SERVER_H
#define PLI_TEST_PMI1_SERVER_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plait/status.h"
#include "runtime/boot.h"
#include "util/err.h"

#define LONG_MS   20000
#define PAIRS_MAX 4000

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

static inline void reply(const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(srv.fd, text + at, srv.dribble ? 1 : len - at, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        at += (size_t)n;
    }
}

static inline void reply_text(const char *text)
{
    reply(text, strlen(text));
}

static inline void add_pair(const char *key, const char *value)
{
    cr_assert_lt(srv.pairs, PAIRS_MAX);
    cr_assert_lt(strlen(key), 64);
    for (unsigned i = 0; i < srv.pairs; i++)
        cr_assert_str_neq(srv.pair[i].key, key, "a key was put twice");
    strcpy(srv.pair[srv.pairs].key, key);
    strcpy(srv.pair[srv.pairs++].value, value);
}

/* Rank 1 puts what rank 0 puts. */
static inline void add_mirrored(const char *key, const char *value)
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

static inline void do_put(const char *line)
{
    char key[1024], value[1024];

    cr_assert_eq(sscanf(line, "cmd=put kvsname=kvs_test key=%1023s value=%1023s", key, value), 2, "%s", line);
    if (strlen(value) > srv.longest_value)
        srv.longest_value = (unsigned)strlen(value);
    add_pair(key, value);
    add_mirrored(key, value);
    reply_text("cmd=put_result rc=0 msg=success\n");
}

static inline void do_get(const char *line)
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

static inline void do_request(const char *line)
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
static inline bool serve(const char *line)
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

static inline void *server(void *arg)
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

static inline void make_socket(void)
{
    char text[16];
    int sv[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    srv.fd = sv[0];
    snprintf(text, sizeof text, "%d", sv[1]);
    setenv("PMI_FD", text, 1);
}

static inline void setup(void)
{
    srv.vallen_max = "1024";
    srv.mapping = "(vector,(0,1,2))";
    setenv("PLAIT_JOB", "pmi1", 1);
    setenv("PMI_RANK", "0", 1);
    setenv("PMI_SIZE", "2", 1);
    make_socket();
}

static inline void start_server(void)
{
    cr_assert_eq(pthread_create(&srv.thread, NULL, server, NULL), 0);
}

/* After it the test reads srv alone, and the exit handler finds the connection closed. */
static inline void stop_server(void)
{
    shutdown(srv.fd, SHUT_RDWR);
    pthread_join(srv.thread, NULL);
}

static inline void answer_with(const char *on, const char *answer)
{
    pthread_mutex_lock(&srv_lock);
    srv.on = on;
    srv.answer = answer;
    pthread_mutex_unlock(&srv_lock);
}

static inline void expect_fail(int rc, int code, const char *word)
{
    cr_assert_eq(rc, code, "%s instead of %s: %s", plait_status_name(rc), plait_status_name(code),
                 pli_err_text());
    cr_assert(strstr(pli_err_text(), word), "'%s' does not say '%s'", pli_err_text(), word);
    cr_assert(strstr(pli_err_text(), "PMI"), "'%s' does not name the launcher", pli_err_text());
}

static inline struct pli_boot *join(void)
{
    struct pli_boot *b;
    int rc = pli_boot_init(&b, LONG_MS);

    cr_assert_eq(rc, 0, "%s", pli_err_text());
    return b;
}

#endif
