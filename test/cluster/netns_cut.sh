#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# A connection over the fabric between two nodes, which are network namespaces (netns_common.sh), whose cable is cut while
# messages are under way, or while none are: for 2 s, and for longer than peer_timeout.
suite=netns_cut
nodes=2
. "$(dirname "$0")/netns_common.sh"
prog=$build/test/cluster/cut_prog
declare -A pid in out

# start ROLE NODE ENDING URI: the server or the caller
start() {
    rm -f "$dir/in" "$dir/fifo"
    mkfifo "$dir/in" "$dir/fifo"
    "$dir/on" "$2" "$prog" "$1" "$3" "$4" <"$dir/in" >"$dir/fifo" 2>&1 &
    pid[$1]=$!
    started+=($!)
    exec {fd}>"$dir/in"
    in[$1]=$fd
    exec {fd}<"$dir/fifo"
    out[$1]=$fd
}

# hears ROLE WORDS: reads what it prints, to a line with these words, which is in $line then
hears() {
    while IFS= read -r -t $patience -u "${out[$1]}" line; do
        echo "$1: $line" >>"$dir/$name.out"
        [[ $line != *$2* ]] || return 0
    done
    return 1
}

# ends_well ROLE: to its end; the exit status is its own
ends_well() {
    local line rc=0
    while [ $rc = 0 ]; do
        IFS= read -r -t $patience -u "${out[$1]}" line
        rc=$?
        [ $rc != 0 ] || echo "$1: $line" >>"$dir/$name.out"
    done
    [ $rc = 1 ] || kill -9 "${pid[$1]}" # it hangs
    wait "${pid[$1]}" 2>/dev/null
}

let_go() { # let_go ROLE
    exec {in[$1]}>&-
}

cut() {
    local role
    for role in serve call; do echo cut >&"${in[$role]}"; done
    # without a carrier, or as if it were cut further away
    case $1 in
    cable) ip link set port2 down ;;
    path) ip link set port2 nomaster ;;
    esac
}

restore() {
    case $1 in
    cable) ip link set port2 up ;;
    path) ip link set port2 master bridge0 ;;
    esac
}

both_flow() { # both_flow ENDING
    start serve n1 "$1" "plait://$net.1:0/cut?transport=ofi&provider=tcp"
    hears serve plait:// && start call n2 "$1" "$line" && hears call flowing && hears serve flowing
}

# ended: by both of them, and well
ended() {
    local role rc=0
    for role in call serve; do
        ends_well $role || { echo "$role: exit status $?" >>"$dir/$name.out"; rc=1; }
        exec {out[$role]}<&-
        [ -z "${in[$role]}" ] || let_go $role
    done
    return $rc
}

through() { # through WAY
    local name=through_$1 line
    export CUT_PAUSE_MS=1500
    both_flow through && cut "$1" && sleep 2 && restore "$1" && let_go call && in[call]= && ended
}

lost() { # lost WAY ENDING PEER_TIMEOUT
    local name=$2_$1 line rc
    export CUT_PAUSE_MS=0 PLAIT_PEER_TIMEOUT=$3
    both_flow "$2" && cut "$1" && ended
    rc=$?
    restore "$1"
    # or what they have found out about each other's absence would be believed for a while
    ip -n n1 neighbour flush all && ip -n n2 neighbour flush all || rc=1
    return $rc
}

run info "$build/tools/plait" info --json
python3 -c 'import json, sys
sys.exit(not any(t["name"] == "ofi" and t["available"] for t in json.load(open(sys.argv[1]))["transports"]))' "$dir/info.out" ||
    skip "this build has no transport between hosts (see plait info)"
verdict cut_for_2_s through cable
verdict path_lost_for_2_s through path
verdict cut_for_longer_than_peer_timeout lost cable lost 1500
verdict path_lost_for_longer_than_peer_timeout lost path lost 2000
verdict idle_and_cut_for_longer_than_peer_timeout lost path idle 2000
verdict nothing_left clean
exit $bad
