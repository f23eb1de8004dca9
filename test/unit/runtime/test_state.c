/* SPDX-License-Identifier: BSD-3-Clause */
/* The tables are total, and two connections that are driven against each other always end, both. */
#include <criterion/criterion.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/state.h"

TestSuite(state, .timeout = 60);

#define CONN_ACTS 0x1ffu
#define SESSION_ACTS 0x3ffu
#define LINK_ACTS 0x7fu

static void check_step(struct pli_step st, unsigned states, unsigned acts, unsigned state, unsigned event)
{
    cr_assert(st.actions & PLI_STEP_WRITTEN, "state %u, event %u: nobody wrote this entry", state, event);
    cr_assert_lt(st.next, states, "state %u, event %u leads out of the table", state, event);
    cr_assert_eq(st.actions & ~(acts | PLI_STEP_WRITTEN), 0, "state %u, event %u: unknown action", state, event);
}

Test(state, conn_is_total)
{
    for (unsigned s = 0; s < PLI_CONN_STATES; s++)
        for (unsigned e = 0; e < PLI_CONN_EVENTS; e++) {
            struct pli_step st = pli_conn_step(s, e);

            check_step(st, PLI_CONN_STATES, CONN_ACTS, s, e);
            /* what is refused or forbidden changes nothing; the end is told exactly on the way into CLOSED */
            if (st.actions & (PLI_ACT_BREACH | PLI_ACT_REFUSE_CALL))
                cr_assert(st.next == s && !(st.actions & ~(PLI_ACT_BREACH | PLI_ACT_REFUSE_CALL | PLI_STEP_WRITTEN)));
            cr_assert_eq(!!(st.actions & PLI_ACT_END), s != PLI_CONN_CLOSED && st.next == PLI_CONN_CLOSED);
            if (st.actions & (PLI_ACT_ABORT | PLI_ACT_ANSWER | PLI_ACT_LINGER))
                cr_assert_eq(st.next, PLI_CONN_CLOSED);
            if (s == PLI_CONN_CLOSED)
                cr_assert_eq(st.next, PLI_CONN_CLOSED, "CLOSED is left");
            if (e == PLI_CEV_FAIL)
                cr_assert_eq(st.next, PLI_CONN_CLOSED, "a lost link must end it");
        }
}

Test(state, session_is_total)
{
    for (unsigned s = 0; s < PLI_SESSION_STATES; s++)
        for (unsigned e = 0; e < PLI_SESSION_EVENTS; e++) {
            struct pli_step st = pli_session_step(s, e);

            check_step(st, PLI_SESSION_STATES, SESSION_ACTS, s, e);
            if (st.actions & (PLI_SACT_BREACH | PLI_SACT_REFUSE_CALL))
                cr_assert_eq(st.next, s);
            if (s == PLI_SES_CLOSED)
                cr_assert_eq(st.next, PLI_SES_CLOSED);
            if (e == PLI_SEV_FAIL)
                cr_assert(st.next == PLI_SES_CLOSING || st.next == PLI_SES_CLOSED);
        }
}

/* Whatever happens before, a failure and then the end of all connections close a session, telling the user at most once. */
Test(state, session_always_ends)
{
    for (unsigned s = 0; s < PLI_SESSION_STATES; s++) {
        struct pli_step one = pli_session_step(s, PLI_SEV_FAIL), two = pli_session_step(one.next, PLI_SEV_CONNS_DOWN);
        int told = !!(one.actions & PLI_SACT_END) + !!(two.actions & PLI_SACT_END);

        cr_assert_eq(two.next, PLI_SES_CLOSED);
        cr_assert_eq(told, s != PLI_SES_CLOSED, "state %u", s);
    }
}

Test(state, link_is_total)
{
    for (unsigned s = 0; s < PLI_LINK_STATES; s++)
        for (unsigned e = 0; e < PLI_LINK_EVENTS; e++) {
            struct pli_step st = pli_link_step(s, e);

            check_step(st, PLI_LINK_STATES, LINK_ACTS, s, e);
            if (st.actions & PLI_LACT_BREACH)
                cr_assert_eq(st.next, s);
            cr_assert_eq(!!(st.actions & PLI_LACT_DOWN), s != PLI_LINK_DOWN && st.next == PLI_LINK_DOWN);
            if (s == PLI_LINK_DOWN || e == PLI_LEV_LOST)
                cr_assert_eq(st.next, PLI_LINK_DOWN);
        }
}

Test(state, names)
{
    for (unsigned s = 0; s < PLI_CONN_STATES; s++)
        cr_assert_neq(*pli_conn_state_name(s), '?');
    for (unsigned s = 0; s < PLI_SESSION_STATES; s++)
        cr_assert_neq(*pli_session_state_name(s), '?');
    for (unsigned s = 0; s < PLI_LINK_STATES; s++)
        cr_assert_neq(*pli_link_state_name(s), '?');
    cr_assert_eq(*pli_conn_state_name(PLI_CONN_STATES), '?');
    cr_assert_eq(*pli_session_state_name(~0u), '?');
    cr_assert_eq(*pli_link_state_name(99), '?');
}

/* ---- two connections over two reliable queues: every interleaving ----
 * Side 0 is the client, which sends OPEN; side 1 the server, which accepts or refuses. The channel numbers follow the rules of
 * conn.c: a number is kept (zombie) after ABORT or LINGER until DONE or ABORT comes, and while the answer to OPEN is out. */

enum { M_OPEN = 1, M_ACCEPT, M_REFUSE, M_FIN, M_DONE, M_ABORT };
enum { FREE, TAKEN, ZOMBIE };
#define QUEUE 6

struct pair {
    uint8_t state[2];
    uint8_t chan[2];
    uint8_t quiet[2];  /* nothing pending: QUIET may be told */
    uint8_t closed[2]; /* the user has called close or abort */
    uint8_t q[2][QUEUE], n[2]; /* on their way to side i */
};

#define HASH (1u << 20)
static struct pair *seen;
static uint8_t *used;
static uint32_t *order; /* places in seen, first come first served */
static uint32_t nseen;

static void enter(const struct pair *p)
{
    const uint8_t *b = (const uint8_t *)p;
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < sizeof *p; i++)
        h = (h ^ b[i]) * 16777619u;
    for (h %= HASH; used[h]; h = (h + 1) % HASH)
        if (memcmp(&seen[h], p, sizeof *p) == 0)
            return;
    cr_assert_lt(nseen, HASH / 2, "too many states");
    used[h] = 1;
    seen[h] = *p;
    order[nseen++] = h;
}

static void emit(struct pair *p, int from, uint8_t msg)
{
    int to = !from;

    cr_assert_lt(p->n[to], QUEUE, "more than %d messages on their way", QUEUE);
    p->q[to][p->n[to]++] = msg;
}

/* pli_conn_event(): false if the step is refused. */
static int apply(struct pair *p, int side, enum pli_conn_event ev)
{
    unsigned old = p->state[side];
    struct pli_step st = pli_conn_step(old, ev);
    int zombie = !!(st.actions & (PLI_ACT_ABORT | PLI_ACT_LINGER));

    cr_assert_not(st.actions & PLI_ACT_BREACH, "side %d, state %s (%u), event %u: a breach between correct peers (the other: %u)",
                  side, pli_conn_state_name(old), old, (unsigned)ev, p->state[!side]);
    if (st.actions & PLI_ACT_REFUSE_CALL)
        return 0;
    if (old == PLI_CONN_OPENING && p->chan[side] == TAKEN && ev != PLI_CEV_FAIL)
        zombie = 1;
    p->state[side] = (uint8_t)st.next;
    if (st.actions & PLI_ACT_FIN)
        emit(p, side, M_FIN);
    if (st.actions & (PLI_ACT_DONE | PLI_ACT_ANSWER))
        emit(p, side, M_DONE);
    if (st.actions & PLI_ACT_ABORT)
        emit(p, side, M_ABORT);
    if (st.actions & PLI_ACT_END)
        p->chan[side] = zombie ? ZOMBIE : FREE;
    return 1;
}

/* A message for a connection, or a zombie, of this side: pli_conn_rx(), rx_zombie(), pli_conn_answer(). */
static void receive(struct pair *p, int side, uint8_t msg)
{
    static const enum pli_conn_event events[] = { [M_FIN] = PLI_CEV_RX_FIN, [M_DONE] = PLI_CEV_RX_DONE, [M_ABORT] = PLI_CEV_RX_ABORT };

    if (p->chan[side] == ZOMBIE) {
        if (msg == M_ACCEPT)
            emit(p, side, M_ABORT);
        else if (msg == M_REFUSE || msg == M_DONE || msg == M_ABORT)
            p->chan[side] = FREE;
        return;
    }
    cr_assert_eq(p->chan[side], TAKEN, "side %d: message %u for a channel that is no connection", side, msg);
    if (msg == M_ACCEPT) {
        apply(p, side, PLI_CEV_OPENED);
    } else if (msg == M_REFUSE) {
        p->chan[side] = FREE;
        apply(p, side, PLI_CEV_FAIL);
    } else {
        apply(p, side, events[msg]);
    }
}

/* The next message reaches side; an OPEN has two outcomes. */
static void deliver(struct pair p, int side)
{
    uint8_t msg = p.q[side][0];
    struct pair other;

    memmove(p.q[side], p.q[side] + 1, QUEUE - 1);
    p.q[side][QUEUE - 1] = 0;
    p.n[side]--;
    if (msg != M_OPEN) {
        receive(&p, side, msg);
        enter(&p);
        return;
    }
    other = p;
    emit(&other, side, M_REFUSE);
    other.state[side] = PLI_CONN_CLOSED;
    enter(&other);
    p.chan[side] = TAKEN;
    emit(&p, side, M_ACCEPT);
    apply(&p, side, PLI_CEV_OPENED);
    enter(&p);
}

static void user_does(struct pair p, int side, enum pli_conn_event ev)
{
    if (side == 1 && p.chan[1] == FREE)
        return; /* the server has no such connection yet, or any more */
    if (!apply(&p, side, ev))
        return;
    if (ev != PLI_CEV_QUIET)
        p.closed[side] = 1;
    enter(&p);
}

static void explore(const struct pair *at)
{
    struct pair p;

    for (int side = 0; side < 2; side++) {
        if (at->n[side])
            deliver(*at, side);
        user_does(*at, side, PLI_CEV_ABORT);
        user_does(*at, side, PLI_CEV_CLOSE);
        if (at->quiet[side] && (at->state[side] == PLI_CONN_DRAINING || at->state[side] == PLI_CONN_DONE_RCVD))
            user_does(*at, side, PLI_CEV_QUIET);
        p = *at; /* work is done; none comes after the FINs have passed */
        p.quiet[side] = 1;
        enter(&p);
    }
}

/* No message is on its way and nobody has anything to do but close or abort: is it over, then? */
static void check_rest(const struct pair *p)
{
    if (p->n[0] || p->n[1])
        return;
    if (p->state[0] == PLI_CONN_CLOSED && p->state[1] == PLI_CONN_CLOSED) {
        cr_assert(p->chan[0] == FREE && p->chan[1] == FREE, "a channel number is lost: %d %d", p->chan[0], p->chan[1]);
        return;
    }
    for (int side = 0; side < 2; side++)
        if (p->quiet[side] && (p->state[side] == PLI_CONN_DRAINING || p->state[side] == PLI_CONN_DONE_RCVD))
            return; /* QUIET will be told */
    if (!p->quiet[0] || !p->quiet[1] || (!p->closed[0] && !p->closed[1]))
        return;
    cr_assert_fail("it hangs: states %u and %u", p->state[0], p->state[1]);
}

Test(state, two_connections_always_end)
{
    struct pair first;
    unsigned ended = 0;

    seen = calloc(HASH, sizeof *seen);
    used = calloc(HASH, 1);
    order = calloc(HASH, sizeof *order);
    cr_assert(seen && used && order);
    memset(&first, 0, sizeof first);
    first.state[0] = first.state[1] = PLI_CONN_OPENING;
    first.chan[0] = TAKEN;
    emit(&first, 0, M_OPEN);
    enter(&first);
    for (uint32_t i = 0; i < nseen; i++) {
        struct pair p = seen[order[i]];

        check_rest(&p);
        ended += !p.n[0] && !p.n[1] && p.state[0] == PLI_CONN_CLOSED && p.state[1] == PLI_CONN_CLOSED;
        explore(&p);
    }
    cr_assert_gt(nseen, 100);
    cr_assert_gt(ended, 0);
    free(seen);
    free(used);
    free(order);
}
