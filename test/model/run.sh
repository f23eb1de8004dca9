#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks the models beside this file with Spin (README.md). Four kinds of lines below:
#   holds NAME MODEL FLAG...   every state is searched, there is no error
#   ends  NAME MODEL FLAG...   the same, and no execution goes on for ever (there is no cycle of states)
#   breaks MUT MODEL FLAG...   with -DMUT_... Spin must find a sleeper that nobody wakes
#   loops MUT MODEL FLAG...    with -DMUT_... Spin must find an execution that goes on for ever
# With an argument only the lines run whose NAME or MUT contains it, and an error is shown step by step.
# PLAIT_TEST_QUICK=1: only what holds.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
only=${1:-}
cc=${CC:-cc}
jobs=2
command -v spin >/dev/null || { echo "SKIP: spin is not installed"; exit 77; }
command -v "${cc%% *}" >/dev/null || { echo "SKIP: there is no C compiler"; exit 77; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
ran=0

# search DIR MODEL PANFLAGS RUNFLAGS FLAG...: makes the verifier of a model in DIR and runs it
search() {
    local dir=$1 model=$2 build=$3 run=$4
    shift 4
    cp "$here/$model.pml" "$here/tso.pml" "$dir" && cd "$dir" || return
    {
        spin "$@" -a "$model.pml" &&
            $cc -w $build -DMEMLIM=600 -DNOFAIR -o pan pan.c &&
            ./pan -m10000 $run
    } >out 2>&1
}

# complete: the search in ./out went through all states and found nothing
complete() {
    grep -q 'errors: 0$' out &&
        ! grep -qE 'Search not completed|max search depth too small|reached -DMEMLIM|out of memory|^pan:1' out
}

# explain WHAT FLAG...: what the search says, and in a run by hand how it came to the error
explain() {
    local what=$1
    shift
    grep -E '^pan|errors:|rror|Search not completed|states, stored' out
    [ -z "$only" ] || [ ! -f "$what.pml.trail" ] || spin "$@" -k "$what.pml.trail" -t -p -g "$what.pml" 2>&1
}

holds() { check "$1" "$2" "-O1 -DSAFETY" "-w22" "${@:3}"; }
ends() { check "$1, and ends" "$2" "-O1 -DNP" "-w20 -l" "${@:3}"; }

check() {
    local name=$1 model=$2 build=$3 run=$4
    shift 4
    search "$dir" "$model" "$build" "$run" "$@"
    if complete; then
        echo "[PASS] $model::$name ($(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' out) states)"
    else
        echo "[FAIL] $model::$name: Spin reports an error, or could not search all states"
        explain "$model" "$@"
    fi
}

breaks() { mutant "invalid end state" "-O0 -DSAFETY" "-w18" "$@"; }
loops() { mutant "non-progress cycle" "-O0 -DNP" "-w18 -l -A" "$@"; }

mutant() {
    local error=$1 build=$2 run=$3 mut=$4 model=$5
    shift 5
    search "$dir" "$model" "$build" "$run" "-DMUT_$mut" "$@"
    if grep -q 'errors: 1$' out && grep -q "^pan:1: $error" out; then
        echo "[PASS] $model::finds $mut"
        [ -z "$only" ] || explain "$model" "-DMUT_$mut" "$@"
    else
        echo "[FAIL] $model::finds $mut: the model does not notice it"
        explain "$model" "-DMUT_$mut" "$@"
    fi
}

# Runs one line in the background, jobs of them at a time.
line() {
    local dir=$tmp/$ran
    [ "${PLAIT_TEST_QUICK:-0}" != 1 ] || [ "$1" = holds ] || return 0
    case "$2" in *"$only"*) ;; *) return 0 ;; esac
    mkdir "$dir"
    while [ "$(jobs -rp | wc -l)" -ge $jobs ]; do wait -n; done
    ("$@" >"$dir/report"; rm -f "$dir/pan"*) &
    ran=$((ran + 1))
}

one="-DNRINGS=1"
spinner="-DSPINNER -DMSGS0=3 -DMSGS1=0"     # side 1 never sleeps and only receives
unasked="-DRING=3 -DNEED=2 -DQUARTER=3"     # a full ring is not enough for the cursor to be published unasked

line holds "membarrier" park
line holds "membarrier, stores pass each other" park -DPSO
line holds "fences" park -DFENCED=2
line holds "a producer with fences and one without" park -DFENCED=1
line holds "a parked ring gets hot without an event" park $one -DMSGS0=4 -DHEATS=2
line ends "membarrier" park $one -DMSGS0=3 -DHEATS=1
line breaks NO_CONSUMER_BARRIER park
line breaks NO_CONSUMER_BARRIER park -DFENCED=2
line breaks BARRIER_BEFORE_PARK park
line breaks NO_PRODUCER_FENCE park -DFENCED=2
line breaks PEER_NOT_REGISTERED park
line breaks LOOK_BEFORE_PUBLISH park $one
line breaks NO_SECOND_LOOK park $one
line breaks SECOND_LOOK_AT_ONE park
line breaks KICK_ONCE_EVER park $one
line breaks EPOCH_IS_A_FLAG park $one
line breaks DRAIN_EVENT_BEFORE_SLEEP park $one
line breaks NO_UNPARK_ON_EVENT park $one

line holds "membarrier" duplex
line holds "membarrier, stores pass each other" duplex -DPSO
line holds "membarrier, two records each way" duplex -DMSGS0=2 -DMSGS1=2
line holds "fences" duplex -DFENCED=1
line holds "one side with fences and one without" duplex -DFENCED=2
line holds "replies only" duplex -DECHO -DMSGS0=2 -DMSGS1=2
line holds "records of two slots" duplex $unasked -DMSGS1=3
line holds "one side never sleeps" duplex $spinner
line holds "one side never sleeps, fences" duplex $spinner -DFENCED=1
line holds "one side never sleeps, records of two slots" duplex $spinner $unasked
line holds "the link is parked, its context is not" duplex -DBUSY0 -DMSGS0=2 -DMSGS1=1
line holds "the link is parked, its context is not, the peer never sleeps" duplex -DBUSY0 $spinner
line ends "membarrier" duplex -DMSGS1=2
line ends "one side never sleeps" duplex $spinner
line breaks NO_BARRIER duplex
line breaks NO_BARRIER duplex -DFENCED=1
line breaks BARRIER_BEFORE_PARK duplex
line breaks NO_FENCE duplex -DFENCED=1
line breaks NO_FENCE_BEFORE_WANT duplex $spinner -DFENCED=1
line breaks NO_SECOND_LOOK_AT_RING duplex
line breaks NO_SECOND_LOOK_AT_CURSOR duplex
line breaks CURSOR_NOT_PUBLISHED_BEFORE_SLEEP duplex $unasked -DMSGS0=2 -DMSGS1=2
line breaks NO_PUBLISH_WHEN_IDLE duplex $spinner $unasked
line breaks NO_WANT duplex
line breaks NO_KICK_FOR_SPACE duplex
line breaks STARVED_STAYS_PARKED duplex -DBUSY0 $spinner
line breaks KICK_ONCE_EVER duplex
line breaks EPOCH_IS_A_FLAG duplex
line loops CONTENT_WITH_LESS duplex

line holds "three nodes" post
line holds "four nodes" post -DNODES=3
line holds "the second look is a pop" post -DLOOK_POP
line ends "three nodes" post
line breaks NO_BARRIER post
line breaks BARRIER_BEFORE_SLEEPING post
line breaks NO_SECOND_LOOK post
line breaks NO_POSTER_FENCE post -DLOOK_POP
line breaks CLEARED_AFTER_KICK post
line breaks DRAIN_EVENT_BEFORE_SLEEP post

wait
[ $ran -gt 0 ] || { echo "no line contains '$only'" >&2; exit 2; }
reports=()
for ((i = 0; i < ran; i++)); do reports+=("$tmp/$i/report"); done
cat "${reports[@]}"
[ "$(grep -c '^\[PASS\] ' <(cat "${reports[@]}"))" = $ran ]
