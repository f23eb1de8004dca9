/* SPDX-License-Identifier: BSD-3-Clause */
/* Raw ping-pong of one word: over two cache lines with one writer each, and over one that both write. */
#include <plait/plait.h>
#include "limit_priv.h"

#define WARM_UP 200u

static const char *const names[LIMIT_LAT_FORMS] = {
    "two lines",
    "two lines, pause",
    "two lines, fetched for writing",
    "two lines, fetched for writing, pause",
    "one line",
    "one line, pause",
};

const char *limit_lat_name(int form)
{
    return form >= 0 && form < LIMIT_LAT_FORMS ? names[form] : "?";
}

/* Round trips from+1 .. from+n, the caller's side. `pause` and `fetch` are constants: one loop per form. */
static inline __attribute__((always_inline)) int two_lines_a(struct limit_pair *p, uint64_t from, uint64_t n,
                                                             bool pause, bool fetch)
{
    uint64_t *mine = &p->shm->line_a, *theirs = &p->shm->line_b, i;

    for (i = from + 1; i <= from + n; i++) {
        limit_store(mine, i);
        if (fetch)
            limit_fetch_for_write(mine);
        if (limit_wait(p, theirs, i, pause))
            return -1;
    }
    return 0;
}

static inline __attribute__((always_inline)) void two_lines_b(struct limit_pair *p, uint64_t n, bool pause,
                                                              bool fetch)
{
    uint64_t *mine = &p->shm->line_b, *theirs = &p->shm->line_a, i;

    for (i = 1; i <= n; i++) {
        if (limit_wait(p, theirs, i, pause))
            return;
        limit_store(mine, i);
        if (fetch)
            limit_fetch_for_write(mine);
    }
}

/* Odd values are the caller's, even ones the peer's. */
static inline __attribute__((always_inline)) int one_line_a(struct limit_pair *p, uint64_t from, uint64_t n,
                                                            bool pause)
{
    uint64_t *line = &p->shm->line_ab, i;

    for (i = from + 1; i <= from + n; i++) {
        limit_store(line, 2 * i - 1);
        if (limit_wait(p, line, 2 * i, pause))
            return -1;
    }
    return 0;
}

static inline __attribute__((always_inline)) void one_line_b(struct limit_pair *p, uint64_t n, bool pause)
{
    uint64_t *line = &p->shm->line_ab, i;

    for (i = 1; i <= n; i++) {
        if (limit_wait(p, line, 2 * i - 1, pause))
            return;
        limit_store(line, 2 * i);
    }
}

static int ping(struct limit_pair *p, int form, uint64_t from, uint64_t n)
{
    switch (form) {
    case LIMIT_LAT_TIGHT:
        return two_lines_a(p, from, n, false, false);
    case LIMIT_LAT_PAUSE:
        return two_lines_a(p, from, n, true, false);
    case LIMIT_LAT_FETCH:
        return two_lines_a(p, from, n, false, true);
    case LIMIT_LAT_FETCH_PAUSE:
        return two_lines_a(p, from, n, true, true);
    case LIMIT_LAT_ONE:
        return one_line_a(p, from, n, false);
    default:
        return one_line_a(p, from, n, true);
    }
}

void limit_lat_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    switch (cmd->form) {
    case LIMIT_LAT_TIGHT:
        two_lines_b(p, cmd->n, false, false);
        break;
    case LIMIT_LAT_PAUSE:
        two_lines_b(p, cmd->n, true, false);
        break;
    case LIMIT_LAT_FETCH:
        two_lines_b(p, cmd->n, false, true);
        break;
    case LIMIT_LAT_FETCH_PAUSE:
        two_lines_b(p, cmd->n, true, true);
        break;
    case LIMIT_LAT_ONE:
        one_line_b(p, cmd->n, false);
        break;
    default:
        one_line_b(p, cmd->n, true);
        break;
    }
}

/* Short batches and their median: the mean of a long run would contain the machine's interruptions. */
static int run_form(struct limit_pair *p, int form, unsigned iters, double *half_rtt_ns)
{
    enum { BATCHES = 25 };
    struct limit_cmd cmd = {.op = LIMIT_OP_LAT, .form = (uint32_t)form, .cpu = p->cpu_b};
    unsigned batch = iters / BATCHES ? iters / BATCHES : 1;
    double v[BATCHES];
    uint64_t done = WARM_UP, start;
    int i, rc;

    cmd.n = WARM_UP + (uint64_t)batch * BATCHES;
    rc = limit_start(p, &cmd);
    if (rc)
        return rc;
    rc = ping(p, form, 0, WARM_UP);
    for (i = 0; rc == 0 && i < BATCHES; i++) {
        start = limit_now_ns();
        rc = ping(p, form, done, batch);
        v[i] = (double)(limit_now_ns() - start) / 2 / batch;
        done += batch;
    }
    if (rc)
        return PLAIT_E_PEERDIED; /* limit_end() puts it in words */
    *half_rtt_ns = limit_median(v, BATCHES);
    return 0;
}

int limit_lat_run(struct limit_pair *p, unsigned iters, struct limit_lat *out)
{
    int form, rc = limit_begin(p);

    if (rc)
        return rc;
    if (iters < 100)
        iters = 100;
    for (form = 0; form < LIMIT_LAT_FORMS && rc == 0; form++)
        rc = run_form(p, form, iters, &out->form_ns[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->best = LIMIT_LAT_TIGHT;
    out->physical = LIMIT_LAT_ONE;
    for (form = 0; form < LIMIT_LAT_FORMS; form++) {
        int *best = form < LIMIT_LAT_ONE ? &out->best : &out->physical;

        if (out->form_ns[form] < out->form_ns[*best])
            *best = form;
    }
    out->half_rtt_ns = out->form_ns[out->best];
    out->physical_ns = out->form_ns[out->physical];
    return 0;
}
