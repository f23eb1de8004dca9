#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# How many instructions a small message takes in plait's own functions, counted by callgrind: the difference between
# a long and a short run of test/bench/count.c, so that set-up does not count. Prints the table of doc/architecture.md.
# As a test it fails when one of the sums exceeds its bound below.
set -u
export LC_ALL=C
build=${top_builddir:-$(pwd)}
prog=$build/test/bench/count
[ -x "$prog" ] || { echo "SKIP: test/bench/count is not built"; exit 77; }
command -v valgrind >/dev/null || { echo "SKIP: no valgrind (apt-get install valgrind)"; exit 77; }
[ -z "${PLAIT_SANITIZERS:-}" ] || { echo "SKIP: sanitizers change what is counted"; exit 77; }
grep -qE "^CFLAGS *=.*-O[23]" "$build/Makefile" || { echo "SKIP: not an optimised build"; exit 77; }
! grep -q "define PLAIT_DEBUG" "$build/config.h" && ! grep -q -- "-DPLAIT_DEBUG" "$build/Makefile" ||
    { echo "SKIP: the debug checks change what is counted"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
short=100 long=1100 burst=48

# functions MODE N: lines "instructions function" of one run, a function in all of its files added up
functions() {
    valgrind --tool=callgrind --callgrind-out-file="$tmp/cg" "$prog" "$1" "$2" >/dev/null 2>"$tmp/err" ||
        { cat "$tmp/err" >&2; exit 1; }
    callgrind_annotate --threshold=100 --auto=no "$tmp/cg" 2>/dev/null |
        sed -nE 's/^ *([0-9,]+) \([ 0-9.]+%\) +[^ ]*:([A-Za-z_0-9.]+)( .*)?$/\1 \2/p' | tr -d , |
        awk '{ n[$2] += $1 } END { for (f in n) print n[f], f }'
}

# per_message MODE FUNCTION...: their instructions for each message (or request with its reply); with "all but" before the
# functions those of all others that have no part in the user's program or the C library
users=" main burst check on_message on_reply "
per_message() {
    local mode=$1 but=0
    shift
    if [ "$1 $2" = "all but" ]; then
        but=1
        shift 2
    fi
    awk -v want=" $* " -v but=$but -v users="$users" -v n=$(((long - short) * burst)) '
        FNR == NR { before[$2] = $1; next }
        index(users, " " $2 " ") { next }
        (index(want, " " $2 " ") > 0) != but { d += $1 - before[$2] }
        END { printf "%.0f\n", d / n }' "$tmp/$mode.short" "$tmp/$mode.long"
}

for mode in oneway rpc batch; do
    functions $mode $short >"$tmp/$mode.short"
    functions $mode $long >"$tmp/$mode.long"
    [ -s "$tmp/$mode.long" ] || { echo "[FAIL] count::$mode: callgrind told nothing"; exit 1; }
done

bad=0
# line NAME BOUND COUNT
line() {
    printf '%-62s %4s instructions\n' "$1" "$3"
    if [ "$3" -gt 0 ] && [ "$3" -le "$2" ]; then
        echo "[PASS] count::$1"
    else
        echo "[FAIL] count::$1: $3 instructions, not 1 to $2"
        bad=1
    fi
}
sends="plait_send pli_shm_send_small"
line "send 8 bytes (plait_send)" 100 "$(per_message oneway $sends)"
line "receive 8 bytes (poll and delivery)" 200 "$(per_message oneway all but $sends)"
line "request, reply and both deliveries" 620 "$(per_message rpc all but none)"
line "the same with PLAIT_MORE, three to a slot" 500 "$(per_message batch all but none)"
exit $bad
