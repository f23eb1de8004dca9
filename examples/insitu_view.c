/* SPDX-License-Identifier: BSD-3-Clause */
/* Looks at a simulation while it runs: insitu_sim's ranks connect to it, each with its part of every step.
 * The parts are held, and read where they lie, until the step has been shown: statistics and a picture. Then
 * they are released, and the simulation may use their memory again.
 * Usage: insitu_view [--slow MS] [--wait SECONDS] [--out FOLDER] [URI]
 *        mpirun -n RANKS insitu_sim URI     with the URI that insitu_view prints; either may be started first
 * --slow: each step takes that much longer to analyse. */
#include "insitu.h"
#include "insitu_frame.h"
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A rank of the simulation, and its parts that are held, oldest first. */
struct source {
    struct view *view;
    uint32_t rank;
    int joined;
    unsigned held;
    struct plait_msg *parts[INSITU_BUFFERS];
};

struct view {
    struct plait_ctx *ctx;
    struct plait_timer *patience, *analysis;
    int slow_ms, wait_s, analysing;
    const char *uri, *folder;
    uint32_t cells, ranks, joined, closed; /* ranks 0: no simulation yet */
    struct source *sources;
    struct frame frame;
    uint64_t next_step, dropped;
    char problem[400];                     /* why it ends too early */
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "insitu_view: %s: %s\n", what, why);
    exit(1);
}

static void check(int rc, const char *what)
{
    if (rc < 0)
        fail(what, plait_error_text());
}

static void stop(struct view *v, const char *what, const char *why)
{
    if (!v->problem[0])
        snprintf(v->problem, sizeof v->problem, "%s: %s", what, why);
    plait_ctx_stop(v->ctx);
}

/* ---- a frame ---- */

static uint64_t step_of(const struct source *src)
{
    return ((const struct insitu_part *)src->parts[0]->data)->step;
}

/* Shows the oldest step, of which every rank's part is here, and releases these. */
static void show(struct view *v)
{
    uint64_t step = step_of(&v->sources[0]);
    const char *why;
    char file[4096];

    frame_begin(&v->frame);
    for (uint32_t r = 0; r < v->ranks; r++)
        frame_add(&v->frame, ((const struct insitu_part *)v->sources[r].parts[0]->data)->cells,
                  insitu_rows(v->cells, v->ranks, r));
    frame_end(&v->frame);
    snprintf(file, sizeof file, "%s/step-%06llu.png", v->folder, (unsigned long long)step);
    why = frame_write(&v->frame, file);
    if (why)
        fail(file, why);
    printf("step %llu: min %.6f max %.6f mean %.9f checksum %016llx\n", (unsigned long long)step,
           v->frame.min, v->frame.max, v->frame.mean, (unsigned long long)v->frame.checksum);
    v->dropped += step - v->next_step;
    v->next_step = step + 1;
    for (uint32_t r = 0; r < v->ranks; r++) {
        struct source *src = &v->sources[r];

        plait_msg_release(src->parts[0]);
        memmove(src->parts, src->parts + 1, --src->held * sizeof src->parts[0]);
    }
}

static int frame_is_complete(const struct view *v)
{
    for (uint32_t r = 0; r < v->ranks; r++)
        if (v->sources[r].held == 0)
            return 0;
    for (uint32_t r = 0; r < v->ranks; r++)
        if (step_of(&v->sources[r]) != step_of(&v->sources[0]) || step_of(&v->sources[r]) < v->next_step)
            fail("the simulation", "its ranks do not publish the same steps in order");
    return v->ranks > 0;
}

static void show_what_is_complete(struct view *v)
{
    while (!v->analysing && frame_is_complete(v)) {
        if (v->slow_ms > 0) {
            v->analysing = 1;
            plait_timer_start(v->analysis, (uint64_t)v->slow_ms * 1000, 0);
        } else {
            show(v);
        }
    }
}

static void on_analysed(void *arg)
{
    struct view *v = arg;

    v->analysing = 0;
    show(v);
    show_what_is_complete(v);
}

/* ---- the simulation ---- */

static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct source *src = arg;
    struct view *v = src->view;

    (void)conn;
    if (msg->len != insitu_part_len(v->cells, v->ranks, src->rank) || src->held == INSITU_BUFFERS)
        fail("the simulation", "a rank sent a part of the wrong length, or too many parts");
    src->parts[src->held] = plait_msg_hold(msg);
    if (!src->parts[src->held++])
        fail("plait_msg_hold", "there is not enough memory");
    show_what_is_complete(v);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct source *src = arg;
    char what[64];

    (void)s;
    src->view->closed++;
    snprintf(what, sizeof what, "the simulation has gone, its rank %u first", src->rank);
    if (why->code < 0)
        stop(src->view, what, why->text);
    else if (src->view->closed == src->view->ranks)
        plait_ctx_stop(src->view->ctx);
}

static void on_patience_ends(void *arg)
{
    struct view *v = arg;
    char why[128];

    if (v->ranks == 0)
        snprintf(why, sizeof why, "nobody connected within %d s; start insitu_sim with this URI", v->wait_s);
    else
        snprintf(why, sizeof why, "%u of its %u ranks connected within %d s", v->joined, v->ranks, v->wait_s);
    stop(v, "there is no simulation", why);
}

/* Why this rank cannot join, or NULL. The first one tells how large the field is and how many will follow. */
static const char *examine(struct view *v, const struct insitu_hello *h)
{
    if (h->magic != INSITU_MAGIC || h->cells < INSITU_CELLS_MIN || h->cells > INSITU_CELLS_MAX ||
        h->ranks == 0 || h->ranks > h->cells || h->rank >= h->ranks)
        return "this is not a rank of insitu_sim";
    if (v->ranks == 0) {
        v->cells = h->cells;
        v->ranks = h->ranks;
        v->sources = calloc(h->ranks, sizeof *v->sources);
        if (!v->sources || frame_create(&v->frame, h->cells) < 0)
            fail("memory", "there is not enough for a field of this size");
    }
    if (h->cells != v->cells || h->ranks != v->ranks || v->sources[h->rank].joined)
        return "insitu_view looks at another simulation already";
    return NULL;
}

static void on_session(struct plait_session *s, const struct plait_session_request *req, void *arg)
{
    static const struct plait_conn_ops conn_ops = { .on_message = on_message };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_session_opts opts = PLAIT_SESSION_OPTS_INIT;
    struct insitu_hello h = { .magic = 0 };
    struct view *v = arg;
    struct source *src;
    const char *why;

    if (req->data_len == sizeof h)
        memcpy(&h, req->data, sizeof h);
    why = examine(v, &h);
    if (why) {
        if (plait_session_reject(s, why, NULL, 0) < 0)
            fprintf(stderr, "insitu_view: plait_session_reject: %s\n", plait_error_text());
        return;
    }
    src = &v->sources[h.rank];
    src->view = v;
    src->rank = h.rank;
    src->joined = 1;
    opts.conn_ops = &conn_ops;
    opts.session_ops = &session_ops;
    opts.arg = src;
    opts.max_msg = (uint32_t)insitu_part_len(h.cells, h.ranks, h.rank);
    check(plait_session_accept(s, &opts), "plait_session_accept");
    printf("rank %u of %u has joined, process %d\n", h.rank, h.ranks, (int)req->pid);
    if (++v->joined == v->ranks)
        plait_timer_stop(v->patience);
}

/* ---- all together ---- */

static void parse(int argc, char **argv, struct view *v)
{
    static const struct option options[] = {
        { "slow", 1, 0, 's' }, { "wait", 1, 0, 'w' }, { "out", 1, 0, 'o' }, { 0, 0, 0, 0 },
    };
    int c;

    v->wait_s = 60;
    v->folder = "insitu-frames";
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's': v->slow_ms = atoi(optarg); break;
        case 'w': v->wait_s = atoi(optarg); break;
        case 'o': v->folder = optarg; break;
        default: v->slow_ms = -1;
        }
    }
    if (v->slow_ms < 0 || v->wait_s < 0 || optind + 1 < argc) {
        fprintf(stderr, "usage: insitu_view [--slow MS] [--wait SECONDS] [--out FOLDER] [URI]\n");
        exit(2);
    }
    v->uri = optind < argc ? argv[optind] : "plait://127.0.0.1/insitu";
}

static void conclude(struct view *v)
{
    const struct frame *f = &v->frame;

    if (f->count > 0)
        printf("%llu frames of %u x %u cells, %llu dropped: "
               "min %.6f max %.6f mean %.9f checksum %016llx, in %s\n",
               (unsigned long long)f->count, v->cells, v->cells, (unsigned long long)v->dropped, f->all_min,
               f->all_max, f->all_means / (double)f->count, (unsigned long long)f->all_checksum, v->folder);
    for (uint32_t r = 0; r < v->ranks; r++)
        while (v->sources[r].held > 0)
            plait_msg_release(v->sources[r].parts[--v->sources[r].held]);
    if (v->problem[0])
        fprintf(stderr, "insitu_view: %s\n", v->problem);
}

int main(int argc, char **argv)
{
    struct plait_listen_opts opts = PLAIT_LISTEN_OPTS_INIT;
    struct view v = { .ctx = NULL };
    struct plait_listener *listener;

    parse(argc, argv, &v);
    setvbuf(stdout, NULL, _IOLBF, 0); /* also into a file: who reads it sees each frame at once */
    if (mkdir(v.folder, 0777) < 0 && errno != EEXIST)
        fail(v.folder, strerror(errno));
    check(plait_ctx_create(&v.ctx, NULL), "plait_ctx_create");
    check(plait_timer_create(&v.patience, v.ctx, on_patience_ends, &v), "plait_timer_create");
    check(plait_timer_create(&v.analysis, v.ctx, on_analysed, &v), "plait_timer_create");
    opts.on_session = on_session;
    opts.session.arg = &v;
    check(plait_listen(&listener, v.ctx, v.uri, &opts), "plait_listen");
    printf("waiting for insitu_sim at %s\n", plait_listener_uri(listener));
    plait_timer_start(v.patience, (uint64_t)v.wait_s * 1000000, 0);
    check(plait_ctx_run(v.ctx, -1), "plait_ctx_run"); /* until somebody stops it */
    conclude(&v);
    plait_listener_close(listener);
    check(plait_ctx_destroy(v.ctx), "plait_ctx_destroy");
    free(v.sources);
    frame_destroy(&v.frame);
    return v.problem[0] != '\0';
}
