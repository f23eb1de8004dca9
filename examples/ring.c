/* SPDX-License-Identifier: BSD-3-Clause */
/* A token goes round the ranks of a job, and every rank adds 1 to it.
 * Usage: mpirun -n RANKS ring [ROUNDS] */
#include <plait/plait.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct token {
    uint64_t hops; /* how often it has been passed on */
    uint64_t last; /* after so many hops it rests */
};

struct rank {
    struct plait_ctx *ctx;
    struct plait_conn *next; /* to the next rank */
    int size;
    int waiting;   /* the token will come again */
    int closed;    /* sessions that have ended: to the next rank, and from the one before */
    uint64_t hops; /* when the token came last */
};

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "ring: %s: %s\n", what, plait_error_text());
        exit(1);
    }
}

/* The token has come, or (rank 0) starts: pass it on. One message is never too much for a window. */
static void pass_on(struct rank *r, struct token t)
{
    r->hops = t.hops;
    if (t.last - t.hops < (uint64_t)r->size) {
        r->waiting = 0;
        plait_ctx_stop(r->ctx);
    }
    if (t.hops++ < t.last)
        check(plait_send(r->next, &t, sizeof t, 0), "plait_send");
}

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    (void)conn;
    if (msg->len == sizeof(struct token))
        pass_on(arg, *(const struct token *)msg->data);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct rank *r = arg;

    (void)s;
    if (why->code < 0) {
        fprintf(stderr, "ring: a neighbour has gone: %s\n", why->text);
        exit(1);
    }
    r->closed++;
    plait_ctx_stop(r->ctx);
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops conn_ops = { .on_message = on_message };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_job_opts opts = PLAIT_JOB_OPTS_INIT;
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
    struct rank r = { .waiting = 1 };
    struct plait_session *s;
    struct plait_job *job;
    int rank;

    if (rounds < 1 || rounds > 1000000000) {
        fprintf(stderr, "usage: mpirun -n RANKS ring [ROUNDS]\n");
        return 2;
    }
    opts.session.conn_ops = &conn_ops;
    opts.session.session_ops = &session_ops;
    opts.session.arg = &r;
    check(plait_job_open(&job, &r.ctx, &opts), "plait_job_open");
    rank = plait_job_rank(job);
    r.size = plait_job_size(job);
    check(plait_job_connect(job, (rank + 1) % r.size, &opts.session, &s), "plait_job_connect");
    check(plait_session_wait(s, -1), "the next rank");
    r.next = plait_session_conn(s, 0);
    check(plait_job_barrier(job), "plait_job_barrier"); /* everybody knows its next rank */

    if (rank == 0)
        pass_on(&r, (struct token){ .hops = 0, .last = rounds * (uint64_t)r.size });
    while (r.waiting)
        check(plait_ctx_run(r.ctx, -1), "plait_ctx_run");
    if (rank == 0)
        printf("%d ranks, %llu rounds: the token has counted %llu\n", r.size, (unsigned long long)rounds,
               (unsigned long long)r.hops);

    check(plait_session_close(s), "plait_session_close");
    while (r.closed < 2)
        check(plait_ctx_run(r.ctx, -1), "plait_ctx_run");
    plait_session_release(s);
    check(plait_job_close(job), "plait_job_close");
    check(plait_ctx_destroy(r.ctx), "plait_ctx_destroy");
    return rank != 0 || r.hops == rounds * (uint64_t)r.size ? 0 : 1;
}
