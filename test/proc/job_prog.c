/* SPDX-License-Identifier: BSD-3-Clause */
/* One rank of a job, for job.sh: job_prog SIZE LAUNCHER. It checks what plait_job_* tell, gathers, connects
 * to every rank and to itself, exchanges a message each way, and ends with 0 if all was as it should be. */
#include <plait/plait.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS_MAX 64

struct rank {
    struct plait_ctx *ctx;
    int accepted, closed;
};

static void ok(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "job_prog: wrong: %s (last error: %s)\n", what, plait_error_text());
        exit(1);
    }
}

/* A request carries the rank that asks; the answer is the rank that was asked times 1000, plus that. */
static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct plait_session *s = plait_conn_session(conn);
    int answer = *(int *)plait_conn_user(conn) * 1000 + *(const int *)msg->data;

    (void)arg;
    ok(*(const int *)msg->data == plait_session_peer_rank(s), "the session knows the rank of its peer");
    ok(plait_reply(msg, &answer, sizeof answer, 0) == 0, "plait_reply");
}

static int own_rank;

static void on_open(struct plait_conn *conn, void *arg)
{
    ((struct rank *)arg)->accepted++;
    plait_conn_set_user(conn, &own_rank);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct rank *r = arg;

    (void)s;
    ok(why->code == 0, why->text);
    r->closed++;
    plait_ctx_stop(r->ctx);
}

static void check_gather(struct plait_job *job, int size)
{
    static unsigned char mine[4096], all[RANKS_MAX * sizeof mine];
    static const size_t lens[] = { 1, 4, 1000, sizeof mine };

    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        memset(mine, own_rank + 1, sizeof mine);
        memset(all, 0, sizeof all);
        ok(plait_job_allgather(job, mine, lens[i], all) == 0, "plait_job_allgather");
        for (size_t b = 0; b < lens[i] * (size_t)size; b++)
            ok(all[b] == b / lens[i] + 1, "what was gathered");
    }
    ok(plait_job_allgather(job, mine, sizeof mine + 1, all) == PLAIT_E_INVAL, "over 4096 bytes are refused");
    ok(plait_job_allgather(job, mine, 0, all) == PLAIT_E_INVAL, "0 bytes are refused");
}

/* Ranks that nobody has bound get CPUs of their own, as long as there are enough. */
static void check_cores(struct plait_job *job, struct plait_ctx *ctx, int size, int cpus)
{
    int mine = plait_ctx_cpu(ctx), all[RANKS_MAX];

    ok(plait_job_allgather(job, &mine, sizeof mine, all) == 0, "plait_job_allgather of CPUs");
    for (int i = 0; i < size && size <= cpus; i++) {
        ok(all[i] >= 0, "a rank is pinned");
        ok(i == own_rank || all[i] != mine, "no other rank has this CPU");
    }
}

static void check_connect(struct plait_job *job, struct rank *r, int size)
{
    static const struct plait_session_ops ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct plait_session *s[RANKS_MAX], *none = NULL;
    struct plait_msg *reply;

    opts.session_ops = &ops;
    opts.arg = r;
    ok(plait_job_connect(job, size, &opts, &none) == PLAIT_E_NOTFOUND, "there is no rank after the last");
    ok(plait_job_connect(job, -1, &opts, &none) == PLAIT_E_NOTFOUND, "there is no rank -1");
    for (int i = 0; i < size; i++)
        ok(plait_job_connect(job, i, &opts, &s[i]) == 0, "plait_job_connect");
    for (int i = 0; i < size; i++) {
        ok(plait_session_wait(s[i], -1) == 0, "plait_session_wait");
        ok(plait_session_peer_rank(s[i]) == i, "plait_session_peer_rank");
        ok(plait_call(plait_session_conn(s[i], 0), &own_rank, sizeof own_rank, &reply, -1) == 0,
           "plait_call");
        ok(*(const int *)reply->data == i * 1000 + own_rank, "the right rank has answered");
        plait_msg_release(reply);
    }
    for (int i = 0; i < size; i++)
        ok(plait_session_close(s[i]) == 0, "plait_session_close");
    while (r->closed < 2 * size) /* the own ones, and those of all ranks to this one */
        ok(plait_ctx_run(r->ctx, -1) >= 0, "plait_ctx_run");
    ok(r->accepted == size, "every rank has connected to this one");
    for (int i = 0; i < size; i++)
        plait_session_release(s[i]);
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops conn_ops = { .on_open = on_open, .on_message = on_message };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_job_opts opts = PLAIT_JOB_OPTS_INIT;
    struct rank r = { .accepted = 0 };
    struct plait_job *job, *again;
    int size = argc > 1 ? atoi(argv[1]) : 0;
    cpu_set_t set;

    ok(argc == 3 && size > 0 && size <= RANKS_MAX, "usage: job_prog SIZE LAUNCHER");
    ok(sched_getaffinity(0, sizeof set, &set) == 0, "sched_getaffinity");
    opts.session.conn_ops = &conn_ops;
    opts.session.session_ops = &session_ops;
    opts.session.arg = &r;
    ok(plait_job_open(&job, &r.ctx, &opts) == 0, "plait_job_open");
    own_rank = plait_job_rank(job);
    ok(plait_job_size(job) == size && own_rank >= 0 && own_rank < size, "rank and size");
    ok(strcmp(plait_job_launcher(job), argv[2]) == 0, "the launcher");
    ok(plait_job_local_size(job) == size && plait_job_local_rank(job) == own_rank, "all share this node");
    ok(plait_job_is_local(job, 0) && plait_job_is_local(job, size - 1), "ranks are local");
    ok(!plait_job_is_local(job, -1) && !plait_job_is_local(job, size), "no other ranks are local");
    ok(plait_job_open(&again, &r.ctx, &opts) == PLAIT_E_BUSY, "a process is in one job at a time");
    for (int i = 0; i < 3; i++)
        ok(plait_job_barrier(job) == 0, "plait_job_barrier");
    check_gather(job, size);
    check_cores(job, r.ctx, size, CPU_COUNT(&set));
    check_connect(job, &r, size);
    ok(plait_job_barrier(job) == 0, "the last barrier");
    ok(plait_job_close(job) == 0, "plait_job_close");
    ok(plait_ctx_destroy(r.ctx) == 0, "plait_ctx_destroy");
    return 0;
}
