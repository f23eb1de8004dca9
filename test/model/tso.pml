/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory with store buffers, for the models beside this file.
 *
 * A store goes into the buffer of its processor and reaches memory later, at any time: the process
 * 'buffers' takes the oldest entry of any buffer at any moment (TSO, which is x86). With -DPSO it may also
 * take a younger entry, unless that store is a release (PSO: stores to different words pass each other).
 * Loads are sequentially consistent with respect to each other.
 *
 * Before including, define:
 *   NPROC    number of processors with a buffer
 *   NWORDS   number of words in memory
 *   DEPTH    entries in a buffer; it is an error to need more
 *   PASSING  for PSO: PASS(p, w) for each word w that processor p stores without release order
 *
 * A processor that loads a word which it may itself have stored must see its own buffer first. Nearly all
 * words here have one writer, which keeps the value in a local variable; load_own is for the others.
 *
 * An append to one's own buffer is nobody else's business until it is flushed, so the models may join it
 * with the step before without losing an interleaving. Two loads are never joined, unless said. */

byte mem[NWORDS];
chan sb[NPROC] = [DEPTH] of { byte, byte };

#define load(w)         mem[w]
#define store(me, w, v) assert(len(sb[me]) < DEPTH); sb[me]!w,v

/* a full fence, or the part of a locked instruction that waits: goes on when the own buffer is empty */
#define fence(me)       empty(sb[me])

/* membarrier: the kernel makes every running processor of the registered processes execute a full fence
 * at some moment before the call returns, not all at the same moment. Going on at a moment when the
 * other's buffer is empty is the same, because 'buffers' may empty it at any time. */
#define drained(other)  empty(sb[other])

/* load a word that this processor may have stored at most once since its last fence */
inline load_own(me, w, to)
{
    d_step {
        if
        :: sb[me]??[eval(w), _] -> sb[me]?? <eval(w), to>
        :: else -> to = mem[w]
        fi
    }
}

/* a locked exchange: waits for the own buffer, then reads and writes memory at once */
inline exchange(me, w, v, old)
{
    d_step { fence(me) -> old = mem[w]; mem[w] = v }
}

active proctype buffers()
{
    byte w, v;

end:
    do
    :: d_step { sb[0]?w,v -> mem[w] = v; w = 0; v = 0 }
    :: d_step { sb[1]?w,v -> mem[w] = v; w = 0; v = 0 }
#if NPROC > 2
    :: d_step { sb[2]?w,v -> mem[w] = v; w = 0; v = 0 }
#endif
#ifdef PSO
#define PASS(p, to) :: d_step { sb[p]??[eval(to), _] -> sb[p]??eval(to),v; mem[to] = v; v = 0 }
    PASSING
#endif
    od
}
