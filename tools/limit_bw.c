/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying: memcpy inside one process, and in and out through shared chunks by two. */
#include <errno.h>
#include <string.h>
#include <plait/plait.h>
#include "limit_priv.h"

#define DEPTH 8u /* chunks that the copy in may be ahead of the copy out */

static const char *const names[LIMIT_BW_FORMS] = {
    "memcpy in one process",
    "pipelined, 16 KiB chunks",
    "pipelined, 32 KiB chunks",
    "pipelined, 64 KiB chunks",
    "pipelined, 256 KiB chunks",
};

const char *limit_bw_name(int form)
{
    return form >= 0 && form < LIMIT_BW_FORMS ? names[form] : "?";
}

static size_t chunk_of(unsigned form)
{
    return form == LIMIT_BW_PIPE_256K ? 256u << 10 : (size_t)(8u << 10) << form;
}

_Static_assert(LIMIT_RING_BYTES >= DEPTH * (256u << 10), "the ring holds all chunks");

static size_t chunk_len(size_t size, size_t offset, size_t chunk)
{
    return size - offset < chunk ? size - offset : chunk;
}

/* head counts chunks copied in, tail chunks copied out. */
static int copy_in(struct limit_pair *p, const struct limit_cmd *cmd)
{
    size_t chunk = chunk_of(cmd->form), off;
    uint64_t k = 0, seen = 0, i;

    for (i = 0; i < cmd->n; i++) {
        for (off = 0; off < cmd->size; off += chunk, k++) {
            if (k - seen >= DEPTH && limit_wait_reach(p, &p->shm->tail, k - DEPTH + 1, &seen))
                return -1;
            memcpy(p->shm->ring + k % DEPTH * chunk, p->buf[0] + off, chunk_len(cmd->size, off, chunk));
            limit_store(&p->shm->head, k + 1);
        }
    }
    return limit_wait_reach(p, &p->shm->tail, k, &seen);
}

void limit_bw_peer(struct limit_pair *p, const struct limit_cmd *cmd)
{
    size_t chunk = chunk_of(cmd->form), off;
    uint64_t k = 0, seen = 0, i;

    for (i = 0; i < cmd->n; i++) {
        for (off = 0; off < cmd->size; off += chunk, k++) {
            if (seen <= k && limit_wait_reach(p, &p->shm->head, k + 1, &seen))
                return;
            memcpy(p->buf[0] + off, p->shm->ring + k % DEPTH * chunk, chunk_len(cmd->size, off, chunk));
            limit_store(&p->shm->tail, k + 1);
        }
    }
}

static int one_part(struct limit_pair *p, struct limit_cmd *cmd, double *bytes_per_s)
{
    uint64_t start, i;
    int rc;

    if (cmd->form != LIMIT_BW_MEMCPY) {
        rc = limit_start(p, cmd);
        if (rc)
            return rc;
        start = limit_now_ns();
        if (copy_in(p, cmd))
            return PLAIT_E_PEERDIED; /* limit_end() puts it in words */
    } else {
        start = limit_now_ns();
        for (i = 0; i < cmd->n; i++) {
            memcpy(p->buf[1], p->buf[0], cmd->size);
            __asm__ volatile("" : : "r"(p->buf[1]) : "memory"); /* the copy is wanted, every time */
        }
    }
    *bytes_per_s = (double)cmd->n * (double)cmd->size * 1e9 / (double)(limit_now_ns() - start + 1);
    return 0;
}

static int run_form(struct limit_pair *p, int form, size_t size, uint64_t n, double *bytes_per_s)
{
    struct limit_cmd cmd = {.op = LIMIT_OP_BW, .form = (uint32_t)form, .n = n, .size = size, .cpu = p->cpu_b};
    double v[LIMIT_PARTS];
    int i, rc = 0;

    for (i = 0; i < LIMIT_PARTS && rc == 0; i++)
        rc = one_part(p, &cmd, &v[i]);
    if (rc == 0)
        *bytes_per_s = limit_median(v, LIMIT_PARTS);
    return rc;
}

int limit_bw_run(struct limit_pair *p, size_t size, unsigned long bytes, struct limit_bw *out)
{
    uint64_t n = bytes / LIMIT_PARTS / (size ? size : 1);
    int form, rc;

    if (size < 1 || size > LIMIT_BW_MAX_SIZE)
        return limit_fail(PLAIT_E_INVAL, "the bandwidth limit is measured for 1 to %u bytes, not for %zu",
                          LIMIT_BW_MAX_SIZE, size);
    rc = limit_begin(p);
    if (rc)
        return rc;
    errno = limit_buffers(p, size, 2);
    if (errno)
        rc = limit_fail_errno("memory for the copies");
    for (form = LIMIT_BW_FORMS - 1; form >= 0 && rc == 0; form--)
        rc = run_form(p, form, size, n ? n : 1, &out->form[form]);
    rc = limit_end(p, rc);
    if (rc)
        return rc;
    out->best = 0;
    out->memcpy_bytes_per_s = out->form[LIMIT_BW_MEMCPY];
    out->pipelined_bytes_per_s = 0;
    for (form = 0; form < LIMIT_BW_FORMS; form++) {
        if (out->form[form] > out->form[out->best])
            out->best = form;
        if (form != LIMIT_BW_MEMCPY && out->form[form] > out->pipelined_bytes_per_s)
            out->pipelined_bytes_per_s = out->form[form];
    }
    out->bytes_per_s = out->form[out->best];
    return 0;
}
