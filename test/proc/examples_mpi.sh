#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The examples ring, heat and insitu under the launchers that are installed, with 1 to 8 ranks, and without
# one.
suite=examples_mpi
. "$(dirname "$0")/examples_common.sh"
need_launcher

ring() { # ring KIND N
    launch "ring_$1_$2" "$1" "$2" "$bin/ring" 20 &&
        says "ring_$1_$2" "$2 ranks, 20 rounds: the token has counted $((20 * $2))"
}

heat() { # heat KIND N: the same sum and the same picture as without a launcher
    local name=heat_$1_$2 sum
    launch "$name" "$1" "$2" "$bin/heat" -n 72 -s 60 "$dir/$name.png" || return 1
    sum=$(grep -o 'checksum [0-9a-f]*' "$dir/$name.out") && says "$name" "$2 ranks" || return 1
    : "${first_sum:=$sum}" "${first_picture:=$dir/$name.png}"
    [ "$sum" = "$first_sum" ] && cmp "$dir/$name.png" "$first_picture"
}

fails() { # fails WORDS NAME KIND N PROGRAM ARGUMENT...: a launcher that had to be stopped does not count
    local words=$1 rc
    shift
    launch "$@"
    rc=$?
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && [ $rc -ne 137 ] && says "$1" "$words"
}

png_signature() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ]; }

# ---- insitu: a viewer and a simulation; the one without a launcher tells what each step looks like ----

insitu_cells=50
view() { # view NAME ARGUMENT...: starts it
    local name=$1
    shift
    server "$name.view" "$bin/insitu_view" --out "$dir/$name.frames" "$@"
}

sim() { # sim NAME KIND N ARGUMENT...: the exit status is the launcher's
    local name=$1 kind=$2 n=$3
    shift 3
    launch "$name" "$kind" "$n" "$bin/insitu_sim" --cells $insitu_cells "$@" "$uri"
}

reaches() { # reaches NAME WORDS: the next lines of the viewer, until one has them
    local line
    while IFS= read -r -t $patience -u 8 line; do
        echo "$line" >>"$dir/$1.view.out"
        [[ $line != *"$2"* ]] || return 0
    done
    return 1
}

# both_end NAME STATUS VIEWER'S-STATUS JOB: the simulation, in the background as JOB, and the viewer
both_end() {
    local got view_got
    wait "$4"
    got=$?
    server_ends "$1.view"
    view_got=$?
    [ $got = "$2" ] && [ $view_got = "$3" ] && return
    echo "exit status $got, and the viewer's $view_got" >>"$dir/$1.out"
    return 1
}

# shows NAME FRAMES DROPPED: the viewer has shown as many, each as it was without a launcher, with pictures
shows() {
    local frames=$dir/$1.frames
    says "$1.view" "$2 frames of $insitu_cells x $insitu_cells cells, $3 dropped" &&
        [ "$(grep -c '^step ' "$dir/$1.view.out")" = "$2" ] &&
        [ "$(find "$frames" -name '*.png' | wc -l)" = "$2" ] &&
        ! grep '^step ' "$dir/$1.view.out" | grep -qvxFf "$dir/insitu_alone.view.out"
}

insitu_alone() {
    view insitu_alone && sim insitu_alone alone 1 --steps 300 && server_ends insitu_alone.view &&
        shows insitu_alone 300 0 && png_signature "$dir/insitu_alone.frames/step-000299.png"
}

insitu() { # insitu KIND N back-pressure|drop-oldest
    local name=insitu_$1_$2_$3 slow=40 steps=24 dropped=0
    [ "$3" = back-pressure ] || slow=100 steps=300
    view "$name" --slow $slow || return 1
    sim "$name" "$1" "$2" --steps $steps "--$3" &
    both_end "$name" 0 0 $! && says "$name" "$2 ranks, $3: waited" || return 1
    if [ "$3" = back-pressure ]; then
        says "$name" "dropped 0 steps" && ! says "$name" "waited 0 times"
    else
        dropped=$(sed -n 's/.* dropped \([0-9]*\) steps.*/\1/p' "$dir/$name.out")
        says "$name" "waited 0 times" && [ "$dropped" -gt 0 ]
    fi && shows "$name" $((steps - dropped)) "$dropped" && says "$name.view" "step $((steps - 1)): "
}

insitu_viewer_dies() { # insitu_viewer_dies KIND POLICY: the simulation goes on
    local name=insitu_viewer_dies_$1_$2 job
    view "$name" --slow 20 || return 1
    sim "$name" "$1" 2 --steps 6000 "--$2" &
    job=$!
    reaches "$name" "step 0:" && kill -9 "$pid" && both_end "$name" 0 137 $job &&
        says "$name" "the viewer has gone, going on without it from step" && says "$name" ", lost the viewer"
}

insitu_rank_dies() { # insitu_rank_dies KIND RANK: the viewer says so and ends
    local name=insitu_rank_$2_dies_$1 job rank
    view "$name" --slow 100 || return 1
    sim "$name" "$1" 3 --steps 3000 &
    job=$!
    reaches "$name" "step 1:" && rank=$(sed -n "s/^rank $2 of 3 .*process //p" "$dir/$name.view.out") &&
        kill -9 "$rank" && server_ends "$name.view"
    [ $? = 1 ] && says "$name.view" "insitu_view: the simulation has gone, its rank" && ! wait $job
}

# The simulation first: it waits, at an address which nobody else has, for a port that was free just now.
insitu_viewer_second() { # insitu_viewer_second KIND
    local name=insitu_viewer_second_$1 job
    local address=127.$((RANDOM % 200 + 20)).$((RANDOM % 250)).$((RANDOM % 250 + 1))
    view "$name" "plait://$address/insitu" && kill "$pid" && ! wait "$pid" || return 1
    sim "$name" "$1" 2 --steps 10 --wait $patience &
    job=$!
    timeout $patience tail -n +1 -F "$dir/$name.out" 2>/dev/null |
        grep -q -m 1 "waiting up to $patience s for a viewer" &&
        view "$name" "$uri" && both_end "$name" 0 0 $job && shows "$name" 10 0
}

insitu_two_simulations() {
    local job
    view insitu_two --slow 50 || return 1
    sim insitu_two alone 1 --steps 40 &
    job=$!
    reaches insitu_two "step 0:" && ! sim insitu_two_b alone 1 &&
        says insitu_two_b "insitu_view looks at another simulation already" && both_end insitu_two 0 0 $job &&
        shows insitu_two 40 0
}

insitu_nobody() {
    view insitu_nobody --wait 1 && ! server_ends insitu_nobody.view &&
        says insitu_nobody.view "nobody connected within 1 s" || return 1
    ! sim insitu_lonely alone 1 --wait 1 && says insitu_lonely "there is no viewer; start insitu_view"
}

insitu_all() {
    local kind n policy
    verdict insitu_alone insitu_alone
    for kind in openmpi mpich; do
        [ -n "${!kind}" ] || continue
        for n in 1 2 3; do
            for policy in back-pressure drop-oldest; do
                verdict "insitu_${kind}_${n}_${policy/-/_}" insitu $kind $n $policy
            done
        done
        for policy in back-pressure drop-oldest; do
            verdict "insitu_${kind}_viewer_dies_${policy/-/_}" insitu_viewer_dies $kind $policy
        done
        for n in 0 2; do verdict "insitu_${kind}_rank_${n}_dies" insitu_rank_dies $kind $n; done
        verdict "insitu_${kind}_viewer_second" insitu_viewer_second $kind
        verdict "insitu_${kind}_too_many_ranks" \
            fails "at least one row" "many_$kind" $kind 9 "$bin/insitu_sim" --cells 8 plait://127.0.0.1:1
    done
    verdict insitu_two_simulations insitu_two_simulations
    verdict insitu_nobody insitu_nobody
    verdict insitu_no_folder ends 1 no_folder "$bin/insitu_view" --out "$dir/no/x"
    verdict insitu_no_folder_text says no_folder "No such file"
    verdict insitu_sim_usage ends 2 sim_usage "$bin/insitu_sim" --steps 0 plait://127.0.0.1:1
    verdict insitu_view_usage ends 2 view_usage "$bin/insitu_view" --slow -1
}

programs=(ring heat)
if [ ! -x "$bin/heat" ]; then
    echo "[SKIP] $suite::heat: it is not built (libpng-dev)"
    programs=(ring)
fi

for program in "${programs[@]}"; do verdict "${program}_alone" "$program" alone 1; done
for kind in openmpi mpich; do
    [ -n "${!kind}" ] || { echo "[SKIP] $suite::$kind: it is not installed"; continue; }
    for program in "${programs[@]}"; do
        for n in 1 2 3 4 8; do verdict "${program}_${kind}_$n" "$program" $kind $n; done
    done
    verdict "ring_${kind}_usage" fails usage: "usage_$kind" $kind 2 "$bin/ring" 0
    [ -x "$bin/heat" ] || continue
    verdict "heat_${kind}_no_folder" \
        fails "No such file" "folder_$kind" $kind 2 "$bin/heat" -n 8 -s 1 "$dir/no/x.png"
    verdict "heat_${kind}_too_many_ranks" \
        fails "at least one row" "rows_$kind" $kind 9 "$bin/heat" -n 8 "$dir/x.png"
done
[ ! -x "$bin/heat" ] || verdict heat_picture png_signature "$first_picture"
if [ -x "$bin/insitu_view" ]; then
    insitu_all
else
    echo "[SKIP] $suite::insitu: its viewer is not built (libpng-dev)"
fi
verdict nothing_left clean
exit $bad
