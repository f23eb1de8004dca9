#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Jobs on four nodes, which are network namespaces (netns_common.sh).
# The examples run, too, as soon as this build has a transport between hosts.
suite=netns
nodes=4
. "$(dirname "$0")/netns_common.sh"
need_launcher
prog=$build/test/cluster/netns_prog

# the remote shell of the launchers: AGENT [OPTION...] NODE TEXT...
cat >"$dir/agent" <<'END'
#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
node=$1
shift
exec "${0%agent}on" "$node" sh -c "$*"
END
chmod +x "$dir/agent"

# ---- launching, from the first node ----

# launch_on NAME KIND N HOSTS COMMAND...: HOSTS as n1:2,n2:2; launch_options go to the launcher
launch_options=()
launch_on() {
    local name=$1 kind=$2 n=$3 hosts=$4 start=()
    shift 4
    case $kind in
    openmpi)
        start=("$openmpi" --mca plm_rsh_agent "$dir/agent" --mca oob_tcp_if_include $net.0/24 --bind-to none
               -x PLAIT_JOB_ADDR --host "$hosts") ;;
    mpich) start=("$mpich" -launcher ssh -launcher-exec "$dir/agent" -iface eth0 -hosts "$hosts") ;;
    esac
    [ -n "${PLAIT_JOB_ADDR+set}" ] || local -x PLAIT_JOB_ADDR=
    run "$name" "$dir/on" n1 "${start[@]}" "${launch_options[@]}" -n "$n" "$@"
}

protocol() { [ "$1" = openmpi ] && echo pmix || echo pmi1; }

# where NAME: what the ranks tell, in the order of ranks
where() { grep '^rank ' "$dir/$1.out" | sort -k 2n; }

# job NAME KIND N HOSTS ADDRESSES EXPECTED
job() {
    launch_on "$1" "$2" "$3" "$4" "$prog" "$3" "$(protocol "$2")" "$5" || return 1
    [ "$(where "$1")" = "$6" ] && return
    echo "expected: $6" >>"$dir/$1.out"
    return 1
}

# fails WORDS NAME KIND N HOSTS COMMAND...: a launcher that had to be stopped does not count
fails() {
    local words=$1 rc
    shift
    launch_on "$@"
    rc=$?
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && [ $rc -ne 137 ] && says "$1" "$words"
}

blocks="rank 0 on n1 at $net.1 is with 0 1
rank 1 on n1 at $net.1 is with 0 1
rank 2 on n2 at $net.2 is with 2 3
rank 3 on n2 at $net.2 is with 2 3
rank 4 on n3 at $net.3 is with 4 5
rank 5 on n3 at $net.3 is with 4 5
rank 6 on n4 at $net.4 is with 6 7
rank 7 on n4 at $net.4 is with 6 7"
uneven="rank 0 on n3 at $net.3 is with 0
rank 1 on n1 at $net.1 is with 1 2 3
rank 2 on n1 at $net.1 is with 1 2 3
rank 3 on n1 at $net.1 is with 1 2 3"
taking_turns="rank 0 on n1 at $net.1 is with 0 2
rank 1 on n2 at $net.2 is with 1 3
rank 2 on n1 at $net.1 is with 0 2
rank 3 on n2 at $net.2 is with 1 3"

one_node="rank 0 on n1 at 127.0.0.1 is with 0 1
rank 1 on n1 at 127.0.0.1 is with 0 1"

jobs() { # jobs KIND
    local kind=$1
    verdict "${kind}_blocks" job "${kind}_blocks" "$kind" 8 n1:2,n2:2,n3:2,n4:2 $net. "$blocks"
    verdict "${kind}_one_node" job "${kind}_one_node" "$kind" 2 n1:2 127.0.0.1 "$one_node"
    PLAIT_JOB_ADDR=fd77::/64 verdict "${kind}_ipv6" job "${kind}_ipv6" "$kind" 2 n2:1,n4:1 fd77:: \
        "rank 0 on n2 at fd77::2 is with 0"$'\n'"rank 1 on n4 at fd77::4 is with 1"
    PLAIT_JOB_ADDR=lo verdict "${kind}_loopback" \
        fails "leads to the loopback, 127.0.0.1" "${kind}_loopback" "$kind" 2 n1:1,n2:1 "$prog" 2 "$(protocol "$kind")" x
}

# A rank whose launcher does not know that it cannot share memory with its neighbour.
apart() { # apart NAME ADDRESS ADDRESS COMMAND...: the first rank at one, the second, started by the command, at the other
    local name=$1 first=$2 second=$3
    shift 3
    run "$name" "$dir/on" n1 "$mpich" -n 1 "$prog" 2 pmi1 "${first%.*}." apart : \
        -n 1 "$@" sh -c 'hostname n2; exec "$@"' - "$prog" 2 pmi1 "${first%.*}." apart || return
    [ "$(where "$name")" = "rank 0 on n1 at $first is with 0 1"$'\n'"rank 1 on n2 at $second is with 0 1" ]
}

no_interface() {
    PLAIT_JOB_ADDR=a0 fails "rank 1: PLAIT_JOB_ADDR=a0 fits no address of an interface that is up here (lo 127.0.0.1, eth0 $net.4" \
        no_interface mpich 2 n1:1,n4:1 "$prog" 2 pmi1 192.168. &&
        says no_interface "rank 1 on n4 could not open the job"
}

# ---- the examples, unchanged ----

between_hosts() {
    python3 -c 'import json, sys
sys.exit(not any(t["name"] == "ofi" and t["available"] for t in json.load(open(sys.argv[1]))["transports"]))' "$dir/info.out"
}


ring() { # ring KIND
    launch_on "ring_$1" "$1" 8 n1:2,n2:2,n3:2,n4:2 "$bin/ring" 20 &&
        says "ring_$1" "8 ranks, 20 rounds: the token has counted 160"
}

heat() { # heat KIND: the same picture as on one node
    [ -e "$dir/heat_alone.png" ] || run heat_alone "$bin/heat" -n 72 -s 60 "$dir/heat_alone.png" || return
    launch_on "heat_$1" "$1" 8 n1:2,n2:2,n3:2,n4:2 "$bin/heat" -n 72 -s 60 "$dir/heat_$1.png" &&
        says "heat_$1" "8 ranks" && cmp "$dir/heat_$1.png" "$dir/heat_alone.png" >>"$dir/heat_$1.out" 2>&1
}

insitu() { # insitu KIND: the viewer is on the first node, the simulation on all
    server "insitu_$1.view" "$dir/on" n1 "$bin/insitu_view" --out "$dir/insitu_$1.frames" "plait://$net.1:0/insitu" || return
    launch_on "insitu_$1" "$1" 4 n1:1,n2:1,n3:1,n4:1 "$bin/insitu_sim" --cells 50 --steps 24 --back-pressure "$uri" &&
        server_ends "insitu_$1.view" && says "insitu_$1" "4 ranks, back-pressure" &&
        says "insitu_$1.view" "24 frames of 50 x 50 cells, 0 dropped"
}

examples() { # examples KIND
    local program
    for program in ring heat insitu; do
        if [ "$program" != ring ] && ! { [ -x "$bin/heat" ] && [ -x "$bin/insitu_view" ]; }; then
            echo "[SKIP] $suite::${1}_$program: it is not built (libpng-dev)"
        else
            verdict "${1}_$program" $program "$1"
        fi
    done
}

verdict info run info "$build/tools/plait" info --json
between_hosts && far=yes || far=no
for kind in openmpi mpich; do
    [ -n "${!kind}" ] || { echo "[SKIP] $suite::$kind: it is not installed"; continue; }
    if [ $kind = openmpi ] && ! grep -q '"build": .*with PMIx' "$dir/info.out"; then
        echo "[SKIP] $suite::openmpi: this build has no PMIx"
        continue
    fi
    jobs $kind
    if [ $far = yes ]; then
        examples $kind
    else
        echo "[SKIP] $suite::${kind}_examples: this build has no transport between hosts (see plait info)"
    fi
done
if [ -n "$openmpi" ] && grep -q '"build": .*with PMIx' "$dir/info.out"; then
    launch_options=(--map-by node)
    verdict openmpi_taking_turns job taking_turns openmpi 4 n1:2,n2:2 $net. "$taking_turns"
    launch_options=()
fi
if [ -n "$mpich" ]; then
    verdict mpich_uneven job uneven mpich 4 n3:1,n1:3 $net. "$uneven"
    verdict mpich_other_network apart other_network $net.1 $net.2 ip netns exec n2 unshare --uts
    if unshare --user --map-root-user --uts true 2>/dev/null; then
        verdict mpich_other_user_namespace \
            apart other_user 127.0.0.1 127.0.0.1 unshare --user --map-root-user --uts
    else
        echo "[SKIP] $suite::mpich_other_user_namespace: they cannot be made here"
    fi
    verdict mpich_no_interface no_interface
fi
verdict nothing_left clean
exit $bad
