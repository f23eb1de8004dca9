#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The examples ring and heat under the launchers that are installed, with 1 to 8 ranks, and without one.
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

is_png() { [ "$(head -c 8 "$first_picture" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ]; }

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
[ ! -x "$bin/heat" ] || verdict heat_picture is_png
verdict nothing_left clean
exit $bad
