/* SPDX-License-Identifier: BSD-3-Clause */
/* A load that both sides of a session put on it: requests, one-way messages with and without receipts, of many sizes, in both
 * directions, some of them held for a while. Counts what was accepted and what was completed. */
#ifndef SESSION_LOAD_H
#define SESSION_LOAD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "plait/plait.h"
#include "runtime/pace.h"

#define LOAD_IN_FLIGHT 32
#define LOAD_HELD 8

/* Of the modes offers and holds: so many messages in flight, of so many bytes; message n is full of the number n. */
#define OFFERS 8u
#define OFFER_LEN (3 * PLI_PACE_COARSE + 1000u) /* several slices */

struct load {
    struct plait_conn *conn;
    uint32_t random;
    unsigned opened, closed, session_opened, session_closed;
    int code;
    char text[512];
    uint64_t accepted, completed; /* requests and receipts of this side */
    uint64_t ok, received;
    uint64_t wrong;               /* content, or a completion after the end */
    unsigned in_flight;
    struct plait_msg *held[LOAD_HELD];
    unsigned nheld;
    int quiet;                    /* nonzero: sends nothing more */
};

static inline uint32_t load_random(struct load *l)
{
    l->random = l->random * 1664525u + 1013904223u;
    return l->random >> 8;
}

static inline void load_fill(struct load *l);

static inline void load_completed(struct load *l, int status)
{
    l->completed++;
    l->in_flight--;
    l->ok += status == 0;
    l->wrong += l->closed != 0;
    if (status == 0)
        load_fill(l);
}

static inline void load_reply(struct plait_msg *m, int status, void *arg)
{
    struct load *l = arg;

    if (m && m->len && ((const uint8_t *)m->data)[m->len - 1] != (uint8_t)m->len)
        l->wrong++;
    load_completed(l, status);
}

static inline void load_done(int status, void *arg)
{
    load_completed(arg, status);
}

static inline void load_fill(struct load *l)
{
    static uint8_t data[65536];
    int rc = 0;

    while (!l->quiet && rc == 0 && l->in_flight < LOAD_IN_FLIGHT) {
        struct plait_out out = PLAIT_OUT_INIT;
        uint32_t r = load_random(l);

        out.len = r % 50 == 0 ? r % sizeof data : r % 7 == 0 ? r % 5000 : r % 120;
        out.data = data;
        out.arg = l;
        if (out.len)
            data[out.len - 1] = (uint8_t)out.len;
        if (r % 3)
            out.on_reply = load_reply;
        else if (r % 2)
            out.on_done = load_done;
        rc = plait_sendx(l->conn, &out);
        if (rc == 0 && (out.on_reply || out.on_done)) {
            l->accepted++;
            l->in_flight++;
        }
    }
    if (rc != 0 && rc != PLAIT_E_AGAIN && rc != PLAIT_E_CLOSED)
        l->wrong++;
}

static inline void load_open(struct plait_conn *c, void *arg)
{
    struct load *l = arg;

    l->conn = c;
    l->opened++;
    load_fill(l);
}

static inline void load_answer(struct plait_msg *m)
{
    if (m->kind == PLAIT_REQUEST)
        plait_reply(m, m->data, m->len, 0); /* fails when the connection has ended: nobody waits then */
}

static inline void load_message(struct plait_conn *c, struct plait_msg *m, void *arg)
{
    struct load *l = arg;

    (void)c;
    l->received++;
    if (m->len && ((const uint8_t *)m->data)[m->len - 1] != (uint8_t)m->len)
        l->wrong++;
    if (load_random(l) % 4) {
        load_answer(m);
        return;
    }
    if (l->nheld == LOAD_HELD) {
        struct plait_msg **old = &l->held[load_random(l) % LOAD_HELD];

        load_answer(*old);
        plait_msg_release(*old);
        *old = l->held[--l->nheld];
    }
    l->held[l->nheld] = plait_msg_hold(m);
    l->nheld += l->held[l->nheld] != NULL;
}

static inline void load_writable(struct plait_conn *c, void *arg)
{
    (void)c;
    load_fill(arg);
}

static inline void load_closed(struct plait_conn *c, const struct plait_reason *why, void *arg)
{
    struct load *l = arg;

    (void)c;
    l->closed++;
    l->code = why->code;
    strncpy(l->text, why->text, sizeof l->text - 1);
}

static inline void load_session_open(struct plait_session *s, const void *data, size_t len, void *arg)
{
    (void)s;
    (void)data;
    (void)len;
    ((struct load *)arg)->session_opened++;
}

static inline void load_session_closed(struct plait_session *s, const struct plait_reason *why, void *arg)
{
    struct load *l = arg;

    (void)s;
    l->session_closed++;
    if (!l->code) {
        l->code = why->code;
        strncpy(l->text, why->text, sizeof l->text - 1);
    }
}

static inline void load_release(struct load *l)
{
    while (l->nheld)
        plait_msg_release(l->held[--l->nheld]);
}

static const struct plait_conn_ops load_conn_ops = {
    .on_open = load_open,
    .on_message = load_message,
    .on_writable = load_writable,
    .on_closed = load_closed,
};

static const struct plait_session_ops load_session_ops = { .on_open = load_session_open, .on_closed = load_session_closed };

static inline struct plait_session_opts load_opts(struct load *l)
{
    struct plait_session_opts o = PLAIT_SESSION_OPTS_INIT;

    o.conn_ops = &load_conn_ops;
    o.session_ops = &load_session_ops;
    o.arg = l;
    o.open_timeout_ms = 60000; /* emulated machines load libfabric for seconds */
    return o;
}

#endif
