/* SPDX-License-Identifier: BSD-3-Clause */
/* A simulation that shows its steps to another program, insitu_view, while it runs. Its ranks divide the rows
 * of a field, and each publishes its part over a session of its own (insitu_publish.c).
 * When the viewer is slower than the simulation:
 *   --back-pressure  the simulation waits for a free buffer: no step is lost (the default)
 *   --drop-oldest    it never waits: the newest step replaces the oldest one that has not been sent yet
 * If the viewer goes away, the simulation says so and goes on without it.
 * Usage: mpirun -n RANKS insitu_sim [--cells N] [--steps N] [--wait SECONDS] [--drop-oldest] URI */
#include "insitu.h"
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct sim {
    struct plait_ctx *ctx;
    uint32_t cells, steps, rank, ranks;
    int wait_s;
    const char *uri;
    struct insitu_publisher publisher;
    struct plait_session *root; /* to rank 0, from the others */
    struct plait_msg **asked;   /* rank 0: what the other ranks have sent */
    uint32_t nasked, closed;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "insitu_sim: %s: %s\n", what, why);
    exit(1);
}

static void check(int rc, const char *what)
{
    if (rc < 0)
        fail(what, plait_error_text());
}

/* Lets the context work until a callback has stopped it. */
static void wait_for_something(struct sim *s)
{
    check(plait_ctx_run(s->ctx, -1), "plait_ctx_run");
}

/* ---- the field: ripples from three sources that move on circles ---- */

static float ripples(float x, float y, float t)
{
    static const float speed[3] = { 0.031f, -0.023f, 0.017f }, radius[3] = { 0.20f, 0.33f, 0.44f };
    float sum = 0, dx, dy, d;

    for (int i = 0; i < 3; i++) {
        dx = x - 0.5f - radius[i] * cosf(speed[i] * t + 2.1f * (float)i);
        dy = y - 0.5f - radius[i] * sinf(speed[i] * t + 2.1f * (float)i);
        d = sqrtf(dx * dx + dy * dy);
        sum += sinf(55.0f * d - 0.4f * t) / (1.0f + 6.0f * d);
    }
    return sum;
}

/* A rank needs no other rank's rows here; heat.c shows how ranks exchange them. */
static void compute(struct sim *s, struct insitu_part *part, uint32_t step)
{
    uint32_t end = insitu_first_row(s->cells, s->ranks, s->rank + 1);
    float n = (float)s->cells, *cell = part->cells;

    part->step = step;
    for (uint32_t r = insitu_first_row(s->cells, s->ranks, s->rank); r < end; r++) {
        for (uint32_t c = 0; c < s->cells; c++)
            *cell++ = ripples(((float)c + 0.5f) / n, ((float)r + 0.5f) / n, (float)step);
        check(plait_ctx_poll(s->ctx), "plait_ctx_poll"); /* what is being sent goes on meanwhile */
    }
}

/* ---- the other ranks ---- */

static void on_asked(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct sim *s = arg;

    (void)conn;
    if (msg->kind != PLAIT_REQUEST || msg->len != sizeof(struct insitu_agreed) || s->nasked + 1 >= s->ranks)
        fail("a rank sent a message of the wrong kind", "all ranks need the same program and arguments");
    s->asked[s->nasked] = plait_msg_hold(msg);
    if (!s->asked[s->nasked++])
        fail("plait_msg_hold", "there is not enough memory");
    plait_ctx_stop(s->ctx);
}

static void on_rank_closed(struct plait_session *session, const struct plait_reason *why, void *arg)
{
    struct sim *s = arg;

    (void)session;
    if (why->code < 0)
        fail("another rank has gone", why->text);
    s->closed++;
    plait_ctx_stop(s->ctx);
}

/* Every rank calls it, and every rank gets the same answer, from rank 0. */
static struct insitu_agreed agree(struct sim *s)
{
    struct insitu_agreed all = { s->publisher.done, s->publisher.waits, (uint64_t)s->publisher.gone }, one;
    struct plait_msg *msg;

    if (s->rank > 0) {
        check(plait_call(plait_session_conn(s->root, 0), &all, sizeof all, &msg, -1), "asking rank 0");
        memcpy(&all, msg->data, sizeof all);
        plait_msg_release(msg);
        return all;
    }
    while (s->nasked < s->ranks - 1)
        wait_for_something(s);
    for (uint32_t i = 0; i < s->nasked; i++) {
        memcpy(&one, s->asked[i]->data, sizeof one);
        all.done = one.done < all.done ? one.done : all.done;
        all.waits += one.waits;
        all.gone |= one.gone;
    }
    while (s->nasked > 0) {
        msg = s->asked[--s->nasked];
        check(plait_reply(msg, &all, sizeof all, 0), "plait_reply");
        plait_msg_release(msg);
    }
    return all;
}

/* ---- all together ---- */

static struct insitu_agreed simulate(struct sim *s)
{
    struct insitu_publisher *p = &s->publisher;
    struct insitu_agreed all = { 0, 0, 0 };
    int told = s->rank > 0;

    for (uint32_t step = 0; step < s->steps; step++) {
        struct insitu_buffer *b = insitu_next_buffer(p);

        compute(s, b->part, step);
        all = agree(s);
        insitu_publish(p, b, &all);
        if (all.gone && !told++)
            fprintf(stderr, "insitu_sim: the viewer has gone, going on without it from step %u: %s\n", step,
                    p->why[0] ? p->why : "another rank has lost it");
    }
    insitu_finish(p, &all);
    return agree(s);
}

static void parse(int argc, char **argv, struct sim *s)
{
    static const struct option options[] = {
        { "cells", 1, 0, 'c' },         { "steps", 1, 0, 's' },       { "wait", 1, 0, 'w' },
        { "back-pressure", 0, 0, 'b' }, { "drop-oldest", 0, 0, 'd' }, { 0, 0, 0, 0 },
    };
    int c, cells = 256, steps = 100;

    s->wait_s = 10;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'c': cells = atoi(optarg); break;
        case 's': steps = atoi(optarg); break;
        case 'w': s->wait_s = atoi(optarg); break;
        case 'b': s->publisher.drop_oldest = 0; break;
        case 'd': s->publisher.drop_oldest = 1; break;
        default: steps = 0;
        }
    }
    if (cells < INSITU_CELLS_MIN || cells > INSITU_CELLS_MAX || steps < 1 || s->wait_s < 0 ||
        optind + 1 != argc) {
        fprintf(stderr, "usage: mpirun -n RANKS insitu_sim [--cells %d..%d] [--steps N] [--wait SECONDS]"
                " [--back-pressure | --drop-oldest] URI\n", INSITU_CELLS_MIN, INSITU_CELLS_MAX);
        exit(2);
    }
    s->cells = (uint32_t)cells;
    s->steps = (uint32_t)steps;
    s->uri = argv[optind];
}

/* Joins the other ranks, and opens each rank's session to the viewer. */
static struct plait_job *join(struct sim *s)
{
    static const struct plait_conn_ops conn_ops = { .on_message = on_asked };
    static const struct plait_session_ops session_ops = { .on_closed = on_rank_closed };
    struct plait_job_opts opts = PLAIT_JOB_OPTS_INIT;
    struct plait_job *job;

    opts.session.conn_ops = &conn_ops;
    opts.session.session_ops = &session_ops;
    opts.session.arg = s;
    check(plait_job_open(&job, &s->ctx, &opts), "plait_job_open");
    s->rank = (uint32_t)plait_job_rank(job);
    s->ranks = (uint32_t)plait_job_size(job);
    s->asked = calloc(s->ranks, sizeof(struct plait_msg *));
    if (!s->asked)
        fail("memory", "there is not enough");
    check(plait_job_barrier(job), "plait_job_barrier");
    if (s->ranks > s->cells)
        fail("too many ranks", "each needs at least one row of the field");
    if (s->rank > 0) {
        check(plait_job_connect(job, 0, &opts.session, &s->root), "plait_job_connect");
        check(plait_session_wait(s->root, -1), "connecting to rank 0");
    }
    s->publisher.ctx = s->ctx;
    s->publisher.hello = (struct insitu_hello){ INSITU_MAGIC, s->cells, s->ranks, s->rank };
    insitu_open(&s->publisher, s->uri, s->wait_s);
    return job;
}

static void leave(struct sim *s, struct plait_job *job)
{
    insitu_close(&s->publisher);
    if (s->root)
        check(plait_session_close(s->root), "plait_session_close");
    while (s->closed < (s->rank > 0 ? 1 : s->ranks - 1))
        wait_for_something(s);
    plait_session_release(s->root);
    check(plait_job_close(job), "plait_job_close");
    check(plait_ctx_destroy(s->ctx), "plait_ctx_destroy");
    free(s->asked);
}

int main(int argc, char **argv)
{
    struct sim s = { .ctx = NULL };
    struct insitu_agreed all;
    struct plait_job *job;

    parse(argc, argv, &s);
    job = join(&s);
    all = simulate(&s);
    if (s.rank == 0)
        printf("%u steps of %u x %u cells, %u ranks, %s: waited %llu times, dropped %llu steps%s\n",
               s.steps, s.cells, s.cells, s.ranks, s.publisher.drop_oldest ? "drop-oldest" : "back-pressure",
               (unsigned long long)all.waits, (unsigned long long)s.publisher.drops,
               all.gone ? ", lost the viewer" : "");
    leave(&s, job);
    return 0;
}
