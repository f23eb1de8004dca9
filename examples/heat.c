/* SPDX-License-Identifier: BSD-3-Clause */
/* Heat flows through a plate: the 2-D heat equation on N x N cells, by explicit steps, with the rows divided
 * among the ranks of a job. Before every step neighbours exchange the rows at their border; at the end rank 0
 * gathers all rows and writes a picture. The result does not depend on the number of ranks, not even in its
 * last bit.
 * Usage: mpirun -n RANKS heat [-n N] [-s STEPS] [FILE.png] */
#include <plait/plait.h>
#include <png.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UP, DOWN };

/* A neighbour. It may be one step ahead, never two: there are two rows for what comes from it. */
struct border {
    struct plait_conn *conn; /* NULL: none, or not connected yet */
    double *rows[2];         /* by parity of the step */
    uint64_t arrived;        /* how many have come */
};

struct plate {
    struct plait_ctx *ctx;
    int n, steps;         /* cells along each side, steps to do */
    int rank, size;
    int first, rows;      /* this rank's rows of the plate */
    double *now, *next;   /* rows + 2 rows: the first and the last are the neighbours' */
    double *flow;         /* how well each of these cells conducts */
    double *rod;          /* the temperature that each of these cells keeps; negative: none */
    double *whole;        /* rank 0: the result */
    int gathered;         /* rank 0: rows of other ranks that have arrived */
    int sessions, closed; /* opened or accepted, and ended */
    struct border border[2];
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "heat: %s: %s\n", what, why);
    exit(1);
}

static void check(int rc, const char *what)
{
    if (rc < 0)
        fail(what, plait_error_text());
}

static void *allocate(size_t count, size_t size)
{
    void *p = calloc(count, size);

    if (!p)
        fail("memory", "there is not enough for a plate of this size");
    return p;
}

static size_t row_bytes(const struct plate *p)
{
    return (size_t)p->n * sizeof(double);
}

/* The first row of a rank; of rank size: the end of the plate. */
static int first_row(const struct plate *p, int rank)
{
    return (int)((int64_t)p->n * rank / p->size);
}

/* ---- the plate: rods that keep their temperature, and walls that do not conduct ---- */

static int in_disc(double x, double y, double cx, double cy, double r)
{
    return (x - cx) * (x - cx) + (y - cy) * (y - cy) < r * r;
}

/* The temperature that a rod keeps at this cell, or a negative number: no rod. */
static double rod_at(double x, double y)
{
    if (in_disc(x, y, 0.28, 0.32, 0.09))
        return 1.0;
    if (in_disc(x, y, 0.72, 0.70, 0.06))
        return 0.85;
    if (in_disc(x, y, 0.75, 0.22, 0.035))
        return 0.95;
    return in_disc(x, y, 0.22, 0.78, 0.05) ? 0.55 : -1.0;
}

static double conductivity(double x, double y)
{
    int ring = in_disc(x, y, 0.28, 0.32, 0.19) && !in_disc(x, y, 0.28, 0.32, 0.17);
    int gap = x > 0.28 && y > 0.29 && y < 0.37; /* the ring is open on its right */
    int wall = x > 0.50 && x < 0.52 && y > 0.45 && y < 0.95;

    return (ring && !gap) || wall ? 0.0 : 0.24;
}

static void set_up(struct plate *p)
{
    double x, y;
    size_t i;

    p->first = first_row(p, p->rank);
    p->rows = first_row(p, p->rank + 1) - p->first;
    p->now = allocate((size_t)p->rows + 2, row_bytes(p));
    p->next = allocate((size_t)p->rows + 2, row_bytes(p));
    p->flow = allocate((size_t)p->rows + 2, row_bytes(p));
    p->rod = allocate((size_t)p->rows + 2, row_bytes(p));
    for (int b = UP; b <= DOWN; b++) {
        p->border[b].rows[0] = allocate(1, row_bytes(p));
        p->border[b].rows[1] = allocate(1, row_bytes(p));
    }
    if (p->rank == 0)
        p->whole = allocate((size_t)p->n, row_bytes(p));
    for (int r = 0; r < p->rows + 2; r++) {
        for (int c = 0; c < p->n; c++) {
            i = (size_t)r * (size_t)p->n + (size_t)c;
            x = (c + 0.5) / p->n;
            y = (p->first + r - 1 + 0.5) / p->n;
            p->rod[i] = rod_at(x, y);
            p->now[i] = p->next[i] = p->rod[i] > 0 ? p->rod[i] : 0.0;
            p->flow[i] = conductivity(x, y);
        }
    }
}

/* Heat from one cell to its neighbour: through the one that conducts worse. */
static inline double flux(double t, double t2, double k, double k2)
{
    return (k < k2 ? k : k2) * (t2 - t);
}

static void step_row(struct plate *p, int r)
{
    size_t n = (size_t)p->n;
    const double *t = p->now + (size_t)r * n, *k = p->flow + (size_t)r * n, *rod = p->rod + (size_t)r * n;
    double *restrict out = p->next + (size_t)r * n;

    for (size_t c = 1; c + 1 < n; c++) {
        double gain = (flux(t[c], t[c - n], k[c], k[c - n]) + flux(t[c], t[c + n], k[c], k[c + n])) +
                      (flux(t[c], t[c - 1], k[c], k[c - 1]) + flux(t[c], t[c + 1], k[c], k[c + 1]));

        out[c] = rod[c] > 0 ? rod[c] : t[c] + gain;
    }
}

static void step(struct plate *p)
{
    double *t;

    for (int r = 1; r <= p->rows; r++)
        if (p->first + r - 1 > 0 && p->first + r < p->n) /* the plate's edge stays cold */
            step_row(p, r);
    t = p->now;
    p->now = p->next;
    p->next = t;
}

/* ---- the neighbours ---- */

/* A row of a neighbour (one-way), or at rank 0 one of the result (a request): its number, then its cells. */
static void on_message(struct plait_conn *conn, struct plait_msg *msg, void *arg)
{
    struct plate *p = arg;
    struct border *b;
    uint64_t row;

    if (msg->len != sizeof row + row_bytes(p))
        fail("a rank sent a message of the wrong length", "all ranks need the same arguments");
    memcpy(&row, msg->data, sizeof row);
    if (msg->kind == PLAIT_ONEWAY) {
        /* not by its conn: a row may come before plait_session_wait() has returned */
        b = &p->border[plait_session_peer_rank(plait_conn_session(conn)) == p->rank + 1 ? DOWN : UP];
        memcpy(b->rows[b->arrived++ % 2], (const char *)msg->data + sizeof row, row_bytes(p));
    } else if (p->whole && row < (uint64_t)p->n) {
        memcpy(p->whole + row * (size_t)p->n, (const char *)msg->data + sizeof row, row_bytes(p));
        p->gathered++;
        check(plait_reply(msg, NULL, 0, 0), "plait_reply");
    }
    plait_ctx_stop(p->ctx); /* somebody may wait for it */
}

/* Whoever connects is the neighbour above, except at rank 0: there it is a rank with a part of the result. */
static void on_accepted(struct plait_conn *conn, void *arg)
{
    struct plate *p = arg;

    p->sessions++;
    if (p->rank > 0)
        p->border[UP].conn = conn;
    plait_ctx_stop(p->ctx);
}

static void on_writable(struct plait_conn *conn, void *arg)
{
    (void)conn;
    plait_ctx_stop(((struct plate *)arg)->ctx);
}

static void on_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct plate *p = arg;

    (void)s;
    if (why->code < 0)
        fail("another rank has gone", why->text);
    p->closed++;
    plait_ctx_stop(p->ctx);
}

/* Lets the context work until a callback has stopped it. */
static void wait_for_something(struct plate *p)
{
    check(plait_ctx_run(p->ctx, -1), "plait_ctx_run");
}

static struct plait_session *connect_rank(struct plate *p, struct plait_job *job, int rank,
                                          const struct plait_session_opts *accept_opts)
{
    static const struct plait_conn_ops ops = { .on_message = on_message, .on_writable = on_writable };
    struct plait_session_opts opts = *accept_opts;
    struct plait_session *s;

    opts.conn_ops = &ops;
    check(plait_job_connect(job, rank, &opts, &s), "plait_job_connect");
    check(plait_session_wait(s, -1), "connecting to another rank");
    p->sessions++;
    return s;
}

/* A message: the row's number and its cells, in buf. */
static size_t pack(const struct plate *p, uint64_t number, const double *row, char *buf)
{
    memcpy(buf, &number, sizeof number);
    memcpy(buf + sizeof number, row, row_bytes(p));
    return sizeof number + row_bytes(p);
}

static void send_row(struct plate *p, struct border *b, const double *row, char *buf)
{
    size_t len = pack(p, 0, row, buf);
    int rc;

    while ((rc = plait_send(b->conn, buf, len, 0)) == PLAIT_E_AGAIN)
        wait_for_something(p); /* on_writable will come */
    check(rc, "plait_send");
}

/* Sends this rank's border rows and takes those of the neighbours. */
static void exchange(struct plate *p, uint64_t done, char *buf)
{
    size_t n = (size_t)p->n;
    double *own[2] = { p->now + n, p->now + n * (size_t)p->rows };
    double *halo[2] = { p->now, p->now + n * (size_t)(p->rows + 1) };

    for (int i = UP; i <= DOWN; i++)
        if (p->border[i].conn)
            send_row(p, &p->border[i], own[i], buf);
    for (int i = UP; i <= DOWN; i++) {
        if (!p->border[i].conn)
            continue;
        while (p->border[i].arrived <= done)
            wait_for_something(p);
        memcpy(halo[i], p->border[i].rows[done % 2], row_bytes(p));
    }
}

/* Rank 0 has everybody's rows after this. */
static void gather(struct plate *p, struct plait_conn *conn, char *buf)
{
    size_t n = (size_t)p->n;

    for (int r = 1; p->rank > 0 && r <= p->rows; r++) {
        size_t len = pack(p, (uint64_t)(p->first + r - 1), p->now + n * (size_t)r, buf);

        check(plait_call(conn, buf, len, NULL, -1), "plait_call");
    }
    if (p->rank == 0) {
        memcpy(p->whole, p->now + n, n * (size_t)p->rows * sizeof(double));
        while (p->gathered < p->n - p->rows)
            wait_for_something(p);
    }
}

/* ---- the picture ---- */

/* From black over red and yellow to white, with a thin line at every tenth. */
static void colour(double t, unsigned char *rgb)
{
    static const double map[7][3] = { { 0, 0, 4 }, { 50, 10, 94 }, { 120, 28, 109 }, { 188, 55, 84 },
                                      { 237, 105, 37 }, { 251, 180, 26 }, { 252, 255, 164 } };
    double at = (t < 0 ? 0 : t > 1 ? 1 : t) * 6, f, tenth = t * 10 - (int)(t * 10);
    int i = at >= 6 ? 5 : (int)at;

    f = at - i;
    for (int c = 0; c < 3; c++) {
        double v = map[i][c] * (1 - f) + map[i + 1][c] * f;

        rgb[c] = (unsigned char)(t > 0.05 && t < 0.99 && tenth < 0.06 ? v * 0.75 : v);
    }
}

static void write_picture(const struct plate *p, const char *file)
{
    png_image image = { .version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB };
    size_t cells = (size_t)p->n * (size_t)p->n;
    unsigned char *rgb = allocate(cells, 3);

    for (size_t i = 0; i < cells; i++) {
        double y = ((double)(i / (size_t)p->n) + 0.5) / p->n, x = ((double)(i % (size_t)p->n) + 0.5) / p->n;

        if (conductivity(x, y) > 0)
            colour(p->whole[i], rgb + 3 * i);
        else
            memset(rgb + 3 * i, 110, 3);
    }
    image.width = image.height = (png_uint_32)p->n;
    if (!png_image_write_to_file(&image, file, 0, rgb, 0, NULL))
        fail(file, image.message);
    free(rgb);
}

/* FNV-1a over the bits of every cell. */
static uint64_t checksum(const struct plate *p)
{
    const unsigned char *bytes = (const unsigned char *)p->whole;
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < (size_t)p->n * row_bytes(p); i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h;
}

/* ---- all together ---- */

static const char *parse(int argc, char **argv, struct plate *p)
{
    int c;

    p->n = 384;
    p->steps = 4000;
    while ((c = getopt(argc, argv, "n:s:")) != -1) {
        if (c == 'n')
            p->n = atoi(optarg);
        else if (c == 's')
            p->steps = atoi(optarg);
        else
            p->n = 0;
    }
    if (p->n < 8 || p->n > 16384 || p->steps < 0 || optind + 1 < argc) {
        fprintf(stderr, "usage: mpirun -n RANKS heat [-n CELLS_ALONG_A_SIDE] [-s STEPS] [FILE.png]\n");
        exit(2);
    }
    return optind < argc ? argv[optind] : "heat.png";
}

static void compute(struct plate *p, struct plait_job *job, const struct plait_session_opts *opts)
{
    struct plait_session *below = NULL, *root = NULL;
    char *buf = allocate(1, sizeof(uint64_t) + row_bytes(p));

    if (p->rank + 1 < p->size) {
        below = connect_rank(p, job, p->rank + 1, opts);
        p->border[DOWN].conn = plait_session_conn(below, 0);
    }
    if (p->rank > 0)
        root = connect_rank(p, job, 0, opts);
    while (p->rank > 0 && !p->border[UP].conn)
        wait_for_something(p);

    for (int s = 0; s < p->steps; s++) {
        exchange(p, (uint64_t)s, buf);
        step(p);
    }
    gather(p, root ? plait_session_conn(root, 0) : NULL, buf);

    if (below)
        check(plait_session_close(below), "plait_session_close");
    if (root)
        check(plait_session_close(root), "plait_session_close");
    while (p->closed < p->sessions)
        wait_for_something(p);
    plait_session_release(below);
    plait_session_release(root);
    free(buf);
}

static void free_plate(struct plate *p)
{
    for (int b = UP; b <= DOWN; b++) {
        free(p->border[b].rows[0]);
        free(p->border[b].rows[1]);
    }
    free(p->now);
    free(p->next);
    free(p->flow);
    free(p->rod);
    free(p->whole);
}

int main(int argc, char **argv)
{
    static const struct plait_conn_ops conn_ops = { .on_open = on_accepted, .on_message = on_message,
                                                    .on_writable = on_writable };
    static const struct plait_session_ops session_ops = { .on_closed = on_closed };
    struct plait_job_opts opts = PLAIT_JOB_OPTS_INIT;
    struct plate p = { .n = 0 };
    const char *file = parse(argc, argv, &p);
    struct plait_job *job;

    opts.session.conn_ops = &conn_ops;
    opts.session.session_ops = &session_ops;
    opts.session.arg = &p;
    check(plait_job_open(&job, &p.ctx, &opts), "plait_job_open");
    p.rank = plait_job_rank(job);
    p.size = plait_job_size(job);
    set_up(&p); /* before the barrier: messages may come as soon as another has left it */
    check(plait_job_barrier(job), "plait_job_barrier");
    if (p.size > p.n)
        fail("too many ranks", "each needs at least one row of the plate");
    compute(&p, job, &opts.session);
    if (p.rank == 0) {
        write_picture(&p, file);
        printf("%d x %d cells, %d steps, %d ranks: checksum %016llx, picture %s\n", p.n, p.n, p.steps, p.size,
               (unsigned long long)checksum(&p), file);
    }
    check(plait_job_close(job), "plait_job_close");
    check(plait_ctx_destroy(p.ctx), "plait_ctx_destroy");
    free_plate(&p);
    return 0;
}
