/* SPDX-License-Identifier: BSD-3-Clause */
/* Parking and waking over rings: NRINGS producers, one context that consumes. See README.md.
 *
 * A record in a ring is a count here: slots are published in order, so the header words of a ring say
 * no more than 'so many are published'. The rings never fill (duplex.pml has that side).
 *
 * Variants: FENCED=n  producers below n fence for themselves, the others rely on membarrier
 *           NRINGS=1, MSGS0, MSGS1 (records of producer 0 and 1), HEATS
 * Mutants (each must fail): see run.sh. */

#ifndef MSGS0
#define MSGS0 2         /* messages from producer 0 */
#endif
#ifndef MSGS1
#define MSGS1 1         /* and from producer 1 */
#endif
#ifndef NRINGS
#define NRINGS 2
#endif
#ifndef FENCED
#define FENCED 0
#endif
#ifndef HEATS
#define HEATS 0         /* so often a parked ring becomes hot for another reason than its event */
#endif

#define CONSUMER   NRINGS
#define PUB(p)     (p)              /* written by producer p: records published */
#define PARKED(p)  (NRINGS + (p))   /* written by the consumer: odd = parked */
#define ODD(e)     ((e) & 1)
#if NRINGS > 1
#define ALL_GOT    (got[0] == MSGS0 && got[1] == MSGS1)
#else
#define ALL_GOT    (got[0] == MSGS0)
#endif

#define NPROC      (NRINGS + 1)
#define NWORDS     (2 * NRINGS)
#define DEPTH      4
#if NRINGS > 1
#define PASSING    PASS(CONSUMER, PARKED(0)) PASS(CONSUMER, PARKED(1))
#else
#define PASSING    PASS(CONSUMER, PARKED(0))
#endif
#include "tso.pml"

bool ev[NRINGS];        /* eventfds in the context's epoll, one a ring, edge-triggered and never read */

/* ---- producer: publish a record, look at the parked word, kick ---- */

#ifdef MUT_KICK_ONCE_EVER
#define MUST_KICK  (ODD(load(PARKED(me))) && kicked == 0)
#else
#define MUST_KICK  (ODD(load(PARKED(me))) && load(PARKED(me)) != kicked)
#endif

#ifdef MUT_NO_PRODUCER_FENCE
#define PUBLISH     atomic { n++; store(me, PUB(me), n) };
#else
#define PUBLISH     atomic { n++; store(me, PUB(me), n); (me >= FENCED || fence(me)) };
#endif
#ifdef MUT_LOOK_BEFORE_PUBLISH
#define LATE_PUBLISH PUBLISH
#else
#define LATE_PUBLISH
#endif

proctype producer(byte me, msgs)
{
    byte n, kicked;

    do
    :: n < msgs ->
#ifndef MUT_LOOK_BEFORE_PUBLISH
        PUBLISH
#endif
        if
        :: atomic { MUST_KICK -> kicked = load(PARKED(me)) };
           LATE_PUBLISH
           ev[me] = true
        :: else -> LATE_PUBLISH
           skip
        fi
    :: else -> break
    od
}

/* ---- consumer: one context. The inlines use its variables. ---- */

#ifdef MUT_EPOCH_IS_A_FLAG
#define NEXT_EVEN(e) 0
#else
#define NEXT_EVEN(e) (e + 1)
#endif

inline park(p)
{
    epoch[p]++;
    assert(ODD(epoch[p]));
    hot[p] = false;
    store(CONSUMER, PARKED(p), epoch[p])
}

inline unpark(p)
{
    epoch[p] = NEXT_EVEN(epoch[p]);
    hot[p] = true;
    store(CONSUMER, PARKED(p), epoch[p])
}

/* membarrier for the producers that rely on it; it is a full fence of the caller, too */
inline barrier()
{
#ifdef MUT_NO_CONSUMER_BARRIER
    skip
#else
    fence(CONSUMER);
#if FENCED < 1
    drained(0);
#endif
#if NRINGS > 1 && FENCED < 2 && !defined MUT_PEER_NOT_REGISTERED
    drained(1)
#endif
#endif
}

#define NEW_RECORD(p) (load(PUB(p)) != got[p])

#define EMPTY(p)      (hot[p] && load(PUB(p)) == got[p])
#if NRINGS > 1
#define ANY_EMPTY     (EMPTY(0) || EMPTY(1))
#define ALL_EMPTY     ((EMPTY(0) || !hot[0]) && (EMPTY(1) || !hot[1]) && (hot[0] || hot[1]))
#else
#define ANY_EMPTY     EMPTY(0)
#define ALL_EMPTY     EMPTY(0)
#endif

inline park_if_chosen(p)
{
    if
    :: hot[p] && (all || one == p) -> fresh[p] = true; park(p)
    :: else
    fi
}

/* the rings that stay idle, one by one: what has work after all becomes hot again at once */
inline second_look(p)
{
    atomic {
        if
#ifndef MUT_NO_SECOND_LOOK
        :: fresh[p] && NEW_RECORD(p) ->
            if
            :: all -> found = true
            :: else -> unpark(p)
            fi
#endif
        :: else
        fi
    }
}

inline unpark_if_fresh(p)
{
    if
    :: found && fresh[p] -> unpark(p)
    :: else
    fi;
    fresh[p] = false
}

/* all: the context wants to sleep and parks every hot ring; if one of them has work, all become hot again.
 * Else: one ring is parked while the context goes on. */
inline park_round()
{
#ifdef MUT_BARRIER_BEFORE_PARK
    barrier();
#endif
    atomic {
        park_if_chosen(0);
#if NRINGS > 1
        park_if_chosen(1);
#endif
    };
#ifndef MUT_BARRIER_BEFORE_PARK
    barrier();
#endif
#ifdef MUT_DRAIN_EVENT_BEFORE_SLEEP
    ev[0] = false;
#endif
    second_look(0);
#if NRINGS > 1 && !defined MUT_SECOND_LOOK_AT_ONE
    second_look(1);
#endif
    atomic {
        unpark_if_fresh(0);
#if NRINGS > 1
        unpark_if_fresh(1);
#endif
        all = false;
        found = false
    }
}

inline heat(p)
{
    if
    :: !hot[p] -> unpark(p)
    :: else
    fi
}

inline on_event(p)
{
    ev[p] = false;
#ifdef MUT_NO_UNPARK_ON_EVENT
    /* polls the ring once, but leaves it parked under the epoch that has been kicked */
    if
    :: NEW_RECORD(p) -> got[p]++
    :: else
    fi
#else
    heat(p)
#endif
}

/* Rings are parked when they were empty at the last poll. That is a reason to park them, no more (so the
 * loads may be joined); what counts is the second look. */
inline choose()
{
    if
    :: ALL_EMPTY -> all = true
#if NRINGS > 1
    :: EMPTY(0) -> one = 0
    :: EMPTY(1) -> one = 1
#endif
    fi
}

/* What the loop waits for is what the C loop polls. When every ring is parked, only events are left:
 * that is epoll_wait, and to stay there with a record in a ring is the lost wake-up: an invalid end state. */
proctype consumer()
{
    byte got[NRINGS], epoch[NRINGS];
    bool hot[NRINGS] = true;        /* polled; the others are parked */
    bool fresh[NRINGS];             /* parked in this round */
    bool all, found;
    byte one, heats;

    do
    :: hot[0] && NEW_RECORD(0) -> got[0]++
    :: atomic { !ALL_GOT && ANY_EMPTY -> choose() }; park_round()
    :: atomic { ev[0] -> on_event(0) }
#if NRINGS > 1
    :: hot[1] && NEW_RECORD(1) -> got[1]++
    :: atomic { ev[1] -> on_event(1) }
#endif
#if HEATS > 0
    :: atomic { heats < HEATS && !hot[0] -> heats++; unpark(0) }
#endif
    :: ALL_GOT -> break
    od
}

init {
    atomic {
        run producer(0, MSGS0);
#if NRINGS > 1
        run producer(1, MSGS1);
#endif
        run consumer()
    }
}
