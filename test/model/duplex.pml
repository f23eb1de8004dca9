/* SPDX-License-Identifier: BSD-3-Clause */
/* One link between two contexts, both directions at once: each side produces into its own ring and consumes
 * from the other's, sleeps when it has nothing to do, and may sleep because its ring is full. See README.md.
 *
 * Variants: FENCED=1   both sides fence for themselves (no membarrier); 2: side 0 only
 *           MSGS0, MSGS1  records that side 0 and side 1 send
 *           RING=n     slots of each ring; NEED=n slots of a record; QUARTER=n slots consumed before the
 *                      cursor is published unasked, and free slots that a starved side is not content with
 *           ECHO       side 1 sends only replies, and takes no request while a reply waits for space
 *           SPINNER    side 1 never parks
 *           BUSY0      side 0 parks the link, but its context stays awake with other links, and sends
 * Mutants (each must fail): see run.sh. */

#ifndef MSGS0
#define MSGS0 1
#endif
#ifndef MSGS1
#define MSGS1 3
#endif
#ifndef RING
#define RING 2
#endif
#ifndef NEED
#define NEED 1
#endif
#ifndef QUARTER
#define QUARTER 1
#endif
#ifndef FENCED
#define FENCED 0
#endif

#define PUB(s)      (s)             /* written by side s: slots published in its send ring */
#define CURSOR(s)   (2 + (s))       /* written by side s: slots that it has consumed of the other's ring */
#define PARKED(s)   (4 + (s))       /* written by side s: odd = asleep, kick me */
#define WANT(s)     (6 + (s))       /* written by side s: 1 = I wait for space */
#define ODD(e)      ((e) & 1)

#define NPROC       2
#define NWORDS      8
#define DEPTH       8
#define PASSING     PASS(0, PARKED(0)) PASS(0, WANT(0)) PASS(1, PARKED(1)) PASS(1, WANT(1))
#include "tso.pml"

#if FENCED == 0
#define FENCES(s)   false
#elif FENCED == 1
#define FENCES(s)   true
#else
#define FENCES(s)   ((s) == 0)
#endif

bool ev[2];             /* each side's eventfd, edge-triggered and never read */

#define you         (1 - me)
#define FREE        (RING - (sent - cursor))
#define SPACE       (FREE > NEED)                       /* the slot behind a record must be free, too */
#ifdef MUT_CONTENT_WITH_LESS
#define SPACE_BACK  (FREE > 0)                          /* 'writable' although a record does not fit */
#else
#define SPACE_BACK  (FREE > QUARTER || FREE == RING)
#endif

#ifdef ECHO
#define MAY_SEND    (me == 0 || sent + NEED <= got)
#define MAY_RECV    (me == 0 || sent + NEED > got)
#else
#define MAY_SEND    true
#define MAY_RECV    true
#endif
#ifdef BUSY0
#define CAN_ACT     (!parked || me == 0)
#define PARKS_EARLY (me == 0 && epoch < 4 && POLLS_EMPTY)
#else
#define CAN_ACT     (!parked)
#define PARKS_EARLY false
#endif
#ifdef SPINNER
#define MAY_PARK    (me == 0)
#else
#define MAY_PARK    true
#endif

#define TO_SEND     (sent < to_send && MAY_SEND && !starved)    /* the user waits for 'writable' */
#define NEW_RECORD  (MAY_RECV && load(PUB(you)) != got)
#define NEWS        (load(CURSOR(you)) != cursor || SPACE_BACK) /* for a starved side */
#define FINISHED    (sent == to_send && got == to_get)
#define POLLS_EMPTY (!NEW_RECORD && !(starved && NEWS))
#define IDLE        (POLLS_EMPTY && !TO_SEND && !FINISHED)

#ifdef MUT_NO_FENCE
#define producer_fence() skip
#else
#define producer_fence() (!FENCES(me) || fence(me))
#endif
#ifdef MUT_NO_FENCE_BEFORE_WANT
#define cursor_fence()  skip
#else
#define cursor_fence()  producer_fence()
#endif

#ifdef MUT_KICK_ONCE_EVER
#define MUST_KICK   (ODD(load(PARKED(you))) && kicked == 0)
#else
#define MUST_KICK   (ODD(load(PARKED(you))) && load(PARKED(you)) != kicked)
#endif

inline wake_peer()
{
    if
    :: atomic { MUST_KICK -> kicked = load(PARKED(you)) };
       ev[you] = true
    :: else
    fi
}

/* Also without anything new to publish: then it only looks at the other's wish for space. */
inline publish_cursor()
{
    if
    :: got != published -> atomic { published = got; store(me, CURSOR(me), got); cursor_fence() }
    :: else
    fi;
#ifndef MUT_NO_KICK_FOR_SPACE
    if
    :: load(WANT(you)) -> producer_fence(); wake_peer()
    :: else
    fi
#endif
}

inline unpark()
{
#ifdef MUT_EPOCH_IS_A_FLAG
    epoch = 0;
#else
    epoch++;
#endif
    parked = false;
    store(me, PARKED(me), epoch)
}

inline set_want(on)
{
    starved = on;
#ifndef MUT_NO_WANT
    store(me, WANT(me), on)
#endif
}

/* A send finds no space as of the cached cursor: look again, else wait for it. */
inline room_refresh()
{
    cursor = load(CURSOR(you));
    if
    :: SPACE
    :: else ->
        set_want(true);
#ifndef MUT_STARVED_STAYS_PARKED
        if
        :: parked -> unpark()
        :: else
        fi
#endif
    fi
}

inline poll_starved()
{
    cursor = load(CURSOR(you));
    if
    :: SPACE_BACK -> set_want(false)
    :: else
    fi
}

inline barrier()
{
#ifdef MUT_NO_BARRIER
    skip
#else
    fence(me);
    (FENCES(you) || drained(you))
#endif
}

/* the second look, at three words at three moments */
inline unpark_if_ready()
{
#ifndef MUT_NO_SECOND_LOOK_AT_RING
    atomic {
        if
        :: NEW_RECORD -> unpark()
        :: else
        fi
    };
#endif
    if
    :: parked -> skip;
#ifndef MUT_CURSOR_NOT_PUBLISHED_BEFORE_SLEEP
        publish_cursor();
#endif
#ifndef MUT_NO_SECOND_LOOK_AT_CURSOR
        atomic {
            if
            :: starved -> cursor = load(CURSOR(you))
            :: else
            fi;
            if
            :: starved && SPACE_BACK -> unpark()
            :: else
            fi
        }
#endif
    :: else
    fi
}

inline go_to_sleep()
{
#ifndef MUT_CURSOR_NOT_PUBLISHED_BEFORE_SLEEP
    publish_cursor();
#endif
#ifdef MUT_BARRIER_BEFORE_PARK
    barrier();
#endif
    atomic { epoch++; parked = true; store(me, PARKED(me), epoch) };
#ifndef MUT_BARRIER_BEFORE_PARK
    barrier();
#endif
    unpark_if_ready()
}

/* Everything the loop waits for is what the C loop polls; a parked side waits for its eventfd only. The
 * lost wake-up is an invalid end state: a side that sleeps while the other has done its part. */
proctype side(byte me, to_send, to_get)
{
    byte sent, cursor, kicked;      /* as a producer; the other's cursor as last seen */
    byte got, published, epoch;
    bool starved, parked;

    do
    :: atomic {
           CAN_ACT && TO_SEND && SPACE ->
           sent = sent + NEED;
           store(me, PUB(me), sent);
           producer_fence()
       };
       wake_peer()
    :: atomic { CAN_ACT && TO_SEND && !SPACE -> room_refresh() }
    :: atomic { !parked && starved && NEWS -> poll_starved() }
    :: atomic { !parked && NEW_RECORD -> got = got + NEED };
       if
       :: got - published >= QUARTER -> publish_cursor()
       :: else
       fi
#ifndef MUT_NO_PUBLISH_WHEN_IDLE
    :: !parked && got != published && load(WANT(you)) -> publish_cursor()
#endif
    :: MAY_PARK && !parked && (IDLE || PARKS_EARLY) -> go_to_sleep()
    :: atomic { parked && ev[me] -> ev[me] = false; unpark() }
    :: FINISHED -> break
    od
}

init {
    atomic {
        run side(0, MSGS0 * NEED, MSGS1 * NEED);
        run side(1, MSGS1 * NEED, MSGS0 * NEED)
    }
}
