/* SPDX-License-Identifier: BSD-3-Clause */
/* What plait perf sends, on both sides: memory of plait, from which long messages go uncopied. */
#include "perf.h"

#include <stdlib.h>
#include <string.h>

int perf_payload_open(struct perf_payload *p, size_t size)
{
    struct plait_mem_opts opts = PLAIT_MEM_OPTS_INIT;
    int rc;

    opts.name = "perf";
    rc = plait_mem_alloc(&p->mem, size, &opts);
    if (rc < 0)
        return rc;
    p->data = plait_mem_addr(p->mem);
    p->size = size;
    for (size_t i = 0; i < size; i++)
        p->data[i] = (unsigned char)i;
    return 0;
}

int perf_payload_open_copy(struct perf_payload *p, size_t size)
{
    p->copy = malloc(size);
    if (!p->copy)
        return PLAIT_E_NOMEM;
    memset(p->copy, 1, size); /* its pages are there before the clock runs */
    return 0;
}

void perf_payload_close(struct perf_payload *p)
{
    plait_mem_release(p->mem);
    free(p->copy);
    memset(p, 0, sizeof(*p));
}

static void nothing(int status, void *arg)
{
    (void)status; /* if the session ends, its on_closed tells why */
    (void)arg;
}

int perf_send_long(struct plait_conn *conn, const void *data, size_t size, unsigned flags)
{
    struct plait_out out = PLAIT_OUT_INIT;

    out.data = data;
    out.len = size;
    out.flags = flags | PLAIT_NOCOPY;
    out.on_done = nothing;
    return plait_sendx(conn, &out);
}
