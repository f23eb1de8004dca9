/* SPDX-License-Identifier: BSD-3-Clause */
/* Long messages are copied in slices, pushed and given up while now this, now that allocation fails: the functions of the C library are
 * wrapped by the linker. */
#define LEN (1024u * KIB)
#include "test/unit/runtime/cancel_util.h"
#include "test/unit/runtime/refuse_reads.h"

TestSuite(cancel_nomem, .timeout = 240);

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static unsigned countdown; /* the how manieth allocation fails; 0: none */
static unsigned paused;    /* the test's own */

static bool fails(void)
{
    return countdown && !paused && --countdown == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return fails() ? NULL : __real_realloc(p, size);
}

static void arrived_paused(struct log *log, struct plait_conn *c, struct plait_msg *msg)
{
    paused++;
    arrived(log, c, msg);
    paused--;
}

static bool accepted[IDS];
static bool refused; /* what is offered by addresses cannot be read any more */

static void accept_it(uint32_t id, int rc)
{
    accepted[id] = rc == 0;
    cr_assert(rc == 0 || rc == PLAIT_E_NOMEM || rc == PLAIT_E_AGAIN || rc == PLAIT_E_CLOSED, "%s", plait_error_text());
}

static void try_long(uint32_t id, bool request)
{
    struct plait_out out;

    paused++;
    out = long_out(&id);
    paused--;
    if (request) {
        out.on_done = NULL;
        out.on_reply = on_reply;
    }
    accept_it(id, plait_sendx(t.c, &out));
}

static void try_small(uint32_t id, bool request)
{
    struct plait_out out = PLAIT_OUT_INIT;
    uint32_t word[2] = { id, ~id };

    out.data = word;
    out.len = sizeof word;
    out.arg = &t.done[id];
    if (request)
        out.on_reply = on_reply;
    else
        out.on_done = on_done;
    accept_it(id, plait_sendx(t.c, &out));
}

static void try_cancel(uint32_t id)
{
    int rc = accepted[id] ? plait_cancel(t.c, &t.done[id]) : 0;

    cr_assert(rc == 0 || rc == PLAIT_E_NOMEM || rc == PLAIT_E_NOTFOUND || rc == PLAIT_E_CLOSED, "%s", plait_error_text());
}

/* Two long ones and two short ones, of which some are given up; the nth allocation fails. False: there are not so many. */
static bool nth_fails(unsigned n, unsigned given_up, bool requests)
{
    bool hit, ended;

    allowed = UINT_MAX;
    if (!begin()) {
        finish();
        return false;
    }
    memset(accepted, 0, sizeof accepted);
    t.srv->on_msg = arrived_paused;
    allowed = refused ? 0 : UINT_MAX;
    countdown = n;
    try_long(1, requests);
    poll_server();
    try_small(2, !requests);
    try_long(3, requests);
    try_small(4, requests);
    poll_server();
    for (uint32_t id = 4; id > 0; id--)
        if (given_up & 1u << id)
            try_cancel(id);
    settle(t.w);
    hit = countdown == 0;
    countdown = 0;
    for (uint32_t id = 1; id <= 4; id++) {
        if (accepted[id])
            WAIT(t.w, t.done[id].n, 1);
        else
            cr_assert_eq(t.done[id].n, 0, "%u was not accepted, and is done", id);
    }
    for (unsigned i = 1; i < t.n; i++) /* what came came in order */
        cr_assert_gt(t.order[i], t.order[i - 1]);
    ended = t.cli.c_closed || t.srv->c_closed;
    if (!ended) {
        t.srv->on_msg = arrived;
        goes_on();
        return hit;
    }
    WAIT(t.w, t.cli.closed, 1);
    WAIT(t.w, t.srv->closed, 1);
    plait_session_release(t.cli.s);
    t.cli.s = NULL;
    finish();
    return hit;
}

static void each_fails(void)
{
    static const unsigned given_up[] = { 0, 1u << 1, 1u << 3, 30u };

    for (unsigned k = 0; k < 8; k++) {
        unsigned n = 1;

        while (nth_fails(n, given_up[k / 2], k % 2))
            n++;
        cr_assert(n > 2 || t.way == CMA || t.way == PLACE, "nothing was allocated");
    }
}

#define EACH_FAILS(suffix, of)                    \
    Test(cancel_nomem, suffix)                    \
    {                                             \
        t.way = (of);                             \
        each_fails();                             \
    }

EACH_FAILS(copied, COPIED)
EACH_FAILS(take_copy, TAKE_COPY)
EACH_FAILS(cma, CMA)

Test(cancel_nomem, cma_refused)
{
    refused = true;
    t.way = CMA;
    each_fails();
}

EACH_FAILS(place, PLACE)
EACH_FAILS(ring, RING)
EACH_FAILS(ring_sent, RING_SENT)
