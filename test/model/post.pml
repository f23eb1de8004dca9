/* SPDX-License-Identifier: BSD-3-Clause */
/* Work posted to a context by other threads: the queue of util/mpsc.h word by word, and the context's
 * 'sleeping' word. See README.md.
 *
 * Variants: NODES=n   nodes that poster 0 posts; poster 1 posts one
 *           LOOK_POP  the context's second look is a pop instead of pli_mpsc_is_empty()
 * Mutants (each must fail): see run.sh. */

#ifndef NODES
#define NODES 2
#endif

#define CONTEXT     2
#define STUB        1               /* node numbers; 0 is NULL */
#define LAST        (NODES + 2)     /* poster 1's node */
#define NEXT(n)     (n)
#define HEAD        (NODES + 3)
#define SLEEPING    (NODES + 4)     /* 1: write the eventfd; whoever changes it to 0 does */

#define NPROC       3
#define NWORDS      (NODES + 5)
#define DEPTH       4
#define PASSING     PASS(CONTEXT, SLEEPING)
#include "tso.pml"

bool ev;                /* the context's eventfd, edge-triggered and never read */

/* ---- a poster ---- */

proctype poster(byte me, node, last)
{
    byte prev, was;

    do
    :: node <= last ->
        /* pli_mpsc_push; the exchange empties the buffer first, so next = NULL is in memory by then */
        atomic { store(me, NEXT(node), 0) };
        exchange(me, HEAD, node, prev);
        atomic { store(me, NEXT(prev), node); prev = 0 };
        /* pli_ctx_kick */
#ifndef MUT_NO_POSTER_FENCE
        fence(me);
#endif
        if
        :: load(SLEEPING) ->
#ifdef MUT_CLEARED_AFTER_KICK
            ev = true;
            exchange(me, SLEEPING, 0, was)
#else
            exchange(me, SLEEPING, 0, was);
            if
            :: was -> atomic { ev = true; was = 0 }
            :: else
            fi
#endif
        :: else
        fi;
        node++
    :: else -> break
    od
}

/* ---- the context ---- */

inline set_sleeping(on)
{
    store(CONTEXT, SLEEPING, on)
}

/* epoll_wait */
inline sleep()
{
#ifdef MUT_DRAIN_EVENT_BEFORE_SLEEP
    ev = false;
#endif
    atomic { ev -> ev = false; set_sleeping(0) }
}

inline arm()
{
#ifdef MUT_BARRIER_BEFORE_SLEEPING
    fence(CONTEXT);
#endif
    atomic { set_sleeping(1) };
#if !defined MUT_NO_BARRIER && !defined MUT_BARRIER_BEFORE_SLEEPING
    fence(CONTEXT)
#endif
}

/* The lost wake-up is an invalid end state: the context waits for ev with a node in its queue. */
proctype context()
{
    byte tail = STUB, next, prev, got;
    bool armed, taken[LAST + 1];

pop:
    /* pli_mpsc_pop */
    load_own(CONTEXT, NEXT(tail), next);
    if
    :: tail == STUB && next == 0 -> goto nothing
    :: tail == STUB && next != 0 -> tail = next; load_own(CONTEXT, NEXT(tail), next)
    :: else
    fi;
    if
    :: next == 0 ->
        if
        :: load(HEAD) != tail -> goto nothing
        :: else
        fi;
        atomic { store(CONTEXT, NEXT(STUB), 0) };
        exchange(CONTEXT, HEAD, STUB, prev);
        atomic { store(CONTEXT, NEXT(prev), STUB); prev = 0 };
        load_own(CONTEXT, NEXT(tail), next);
        if
        :: next == 0 -> goto nothing
        :: else
        fi
    :: else
    fi;
    atomic {
        /* each node once, and those of one poster in order */
        assert(tail != STUB && !taken[tail]);
        assert(tail == LAST || tail == STUB + 1 || taken[tail - 1]);
        taken[tail] = true;
        tail = next;
        next = 0;
        got++;
        if
        :: armed -> set_sleeping(0); armed = false      /* the second look has found something */
        :: else
        fi;
        if
        :: got == NODES + 1 -> goto finished
        :: else -> goto pop
        fi
    };

nothing:
#ifdef LOOK_POP
    if
    :: !armed ->
        arm();
        armed = true
    :: armed ->
        armed = false;
        sleep()
    fi;
#else
    arm();
    if
#ifdef MUT_NO_SECOND_LOOK
    :: true -> sleep()
#else
    :: tail == STUB && load(HEAD) == STUB -> sleep()
    :: else ->                                          /* a push is under way: it will be complete soon */
        atomic { set_sleeping(0) };
        load(NEXT(tail)) != 0
#endif
    fi;
#endif
    goto pop;
finished:
    skip
}

init {
    atomic {
        mem[HEAD] = STUB;
        run poster(0, STUB + 1, NODES + 1);
        run poster(1, LAST, LAST);
        run context()
    }
}
