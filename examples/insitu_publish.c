/* SPDX-License-Identifier: BSD-3-Clause */
/* How a rank of a simulation publishes its part of each step. The parts lie in plait_mem memory and are sent
 * from there; a buffer is free again when the viewer has released the part that lies in it. */
#include "insitu.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "insitu: %s: %s\n", what, why);
    exit(1);
}

static void check(int rc, const char *what)
{
    if (rc < 0)
        fail(what, plait_error_text());
}

/* Lets the context work until a callback has stopped it. */
static void wait_for_something(struct insitu_publisher *p)
{
    check(plait_ctx_run(p->ctx, -1), "plait_ctx_run");
}

/* ---- sending ---- */

static void on_done(int status, void *arg)
{
    struct insitu_buffer *b = arg;

    (void)status; /* negative: the viewer has gone, on_closed() follows */
    b->state = INSITU_FREE;
    b->p->done++;
    plait_ctx_stop(b->p->ctx);
}

/* Sends what is to be sent, as far as there is space; on_writable() goes on. */
static void send_queued(struct insitu_publisher *p)
{
    struct plait_out out = PLAIT_OUT_INIT;
    int rc;

    out.flags = PLAIT_NOCOPY; /* the part stays where it is, unchanged, until on_done() */
    out.len = insitu_part_len(p->hello.cells, p->hello.ranks, p->hello.rank);
    out.on_done = on_done;
    while (p->queued > 0) {
        out.data = p->queue[0]->part;
        out.arg = p->queue[0];
        rc = plait_sendx(plait_session_conn(p->viewer, 0), &out);
        if (rc == PLAIT_E_AGAIN || rc == PLAIT_E_CLOSED) /* closed: on_closed() will come */
            return;
        check(rc, "plait_sendx");
        memmove(p->queue, p->queue + 1, --p->queued * sizeof p->queue[0]);
    }
}

static void on_writable(struct plait_conn *conn, void *arg)
{
    (void)conn;
    send_queued(arg);
}

static void send_part(struct insitu_publisher *p, struct insitu_buffer *b)
{
    b->state = p->gone ? INSITU_FREE : INSITU_SENT;
    p->sent++;
    if (p->gone)
        return; /* the other ranks will hear of it after the next step */
    p->queue[p->queued++] = b;
    send_queued(p);
}

/* Two parts may be at the viewer, one waits, and the next one is computed. What decides is the same at every
 * rank, and so is what is dropped. */
static void send_or_drop(struct insitu_publisher *p, struct insitu_buffer *b, uint64_t done)
{
    const uint64_t most = INSITU_BUFFERS - 2;

    if (p->newest && p->sent - done < most) {
        send_part(p, p->newest);
        p->newest = NULL;
    }
    if (!p->newest && p->sent - done < most) {
        send_part(p, b);
        return;
    }
    if (p->newest) {
        p->newest->state = INSITU_FREE;
        p->drops++;
    }
    p->newest = b;
}

void insitu_publish(struct insitu_publisher *p, struct insitu_buffer *b, const struct insitu_agreed *all)
{
    if (all->gone)
        b->state = INSITU_FREE;
    else if (p->drop_oldest)
        send_or_drop(p, b, all->done);
    else
        send_part(p, b);
}

/* ---- buffers ---- */

static struct insitu_buffer *free_buffer(struct insitu_publisher *p)
{
    for (unsigned i = 0; i < INSITU_BUFFERS; i++)
        if (p->buffers[i].state == INSITU_FREE)
            return &p->buffers[i];
    return NULL;
}

struct insitu_buffer *insitu_next_buffer(struct insitu_publisher *p)
{
    struct insitu_buffer *b = free_buffer(p);

    if (!b)
        p->waits++; /* never with drop_oldest: send_or_drop() leaves one */
    while (!b) {
        wait_for_something(p); /* on_done() will come, also if the viewer goes */
        b = free_buffer(p);
    }
    b->state = INSITU_COMPUTED;
    return b;
}

static void make_buffers(struct insitu_publisher *p)
{
    size_t len = insitu_part_len(p->hello.cells, p->hello.ranks, p->hello.rank);
    size_t stride = (len + 63) / 64 * 64;
    struct plait_mem_opts opts = PLAIT_MEM_OPTS_INIT;

    opts.name = "insitu steps";
    check(plait_mem_alloc(&p->mem, INSITU_BUFFERS * stride, &opts), "plait_mem_alloc");
    for (unsigned i = 0; i < INSITU_BUFFERS; i++) {
        p->buffers[i].p = p;
        p->buffers[i].part = (struct insitu_part *)((char *)plait_mem_addr(p->mem) + i * stride);
    }
}

/* ---- the session to the viewer ---- */

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct insitu_publisher *p = arg;

    (void)s;
    p->gone = 1;
    snprintf(p->why, sizeof p->why, "%s", why->text);
    while (p->queued > 0)
        p->queue[--p->queued]->state = INSITU_FREE;
    plait_ctx_stop(p->ctx);
}

/* 0: open; else why it is not: the text is at p->why. */
static int try_to_open(struct insitu_publisher *p, const char *uri)
{
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    static const struct plait_conn_ops conn_ops = { .on_writable = on_writable };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    int rc;

    opts.session_ops = &session_ops;
    opts.conn_ops = &conn_ops;
    opts.arg = p;
    opts.data = &p->hello;
    opts.data_len = sizeof p->hello;
    p->gone = 0;
    p->why[0] = '\0';
    check(plait_session_open(&p->viewer, p->ctx, uri, &opts), "plait_session_open");
    rc = plait_session_wait(p->viewer, -1);
    if (rc < 0)
        plait_session_release(p->viewer);
    return rc;
}

void insitu_open(struct insitu_publisher *p, const char *uri, int wait_s)
{
    time_t end = time(NULL) + wait_s;
    int rc, told = p->hello.rank > 0;

    make_buffers(p);
    while ((rc = try_to_open(p, uri)) < 0) {
        if (rc != PLAIT_E_NOLISTENER)
            fail("the session to the viewer", p->why);
        if (time(NULL) >= end)
            fail("there is no viewer; start insitu_view with the same URI, or give --wait SECONDS", p->why);
        if (!told++)
            fprintf(stderr, "insitu: waiting up to %d s for a viewer at %s\n", wait_s, uri);
        check(plait_ctx_run(p->ctx, 50000), "plait_ctx_run"); /* the next attempt is at most 50 ms away */
    }
}

void insitu_finish(struct insitu_publisher *p, const struct insitu_agreed *all)
{
    if (!all->gone && p->newest)
        send_part(p, p->newest); /* the last step is always shown */
    while (!all->gone && !p->gone && p->done < p->sent)
        wait_for_something(p);
}

void insitu_close(struct insitu_publisher *p)
{
    if (!p->gone)
        check(plait_session_close(p->viewer), "plait_session_close");
    while (!p->gone)
        wait_for_something(p);
    plait_session_release(p->viewer);
    check(plait_mem_release(p->mem), "plait_mem_release");
}
