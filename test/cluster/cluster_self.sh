#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The cluster itself, without plait: RDMA within a guest and between two, a cable that is cut, a node whose power
# goes; then three guests, of which one fails and one panics, and no guest at all in time.
. "$(dirname "${BASH_SOURCE[0]}")/guest_common.sh"

dev=/sys/class/infiniband/rxe0/ports/1

# the index of the address by IPv4, as ibv_rc_pingpong wants it
gid() {
    grep -l ':ffff:0a4d:' $dev/gids/* | head -n 1 | sed 's|.*/||'
}

# both_ends COMMAND...: its server is node 2, and may take a while; both of them end
both_ends() {
    if [ "$NODE" = 2 ]; then
        "$@" || bad=1
    else
        wait_until 20 "$@" node2
    fi >"$GUEST_OUT/$1.$NODE" 2>&1
}

# rping_to NODE: the server is here, or is about to be there
rping_to() {
    wait_until 20 rping -c -a "node$1" -C 5 -S 4000
}

cable_is() {
    [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ] && grep -q "$2" $dev/state
}

reaches() {
    busybox ping -c 1 -W 2 "$1" >/dev/null
}

takes() {
    local began=${EPOCHREALTIME/./}
    "${@:2}" && [ $((${EPOCHREALTIME/./} - began)) -ge "$1" ]
}

# from the cut on: a slow machine may only begin to talk when the cable is back
cut_and_talk() {
    cut_cable_for 2 1 && both_ends ibv_rc_pingpong -d rxe0 -g "$(gid)" -n 20
}

nodes_of_memory() {
    [ "$(cat /sys/devices/system/node/online)" = "$1" ]
}

two_first() {
    result cluster::two_numa_nodes nodes_of_memory 0-1
    result cluster::mtu_of_9000 grep -qx 9000 /sys/class/net/eth0/mtu
    rping -s -a node1 -C 5 -S 4000 &
    result cluster::verbs_within_a_guest rping_to 1
    wait $! || bad=1
    put value "some words"
    result cluster::verbs_between_guests both_ends ibv_rc_pingpong -d rxe0 -g "$(gid)" -n 100
    result cluster::command_on_another_node [ "$(on_node 2 'hostname; exit 3'; echo $?)" = $'node2\n3' ]
    ! cut_cable 7 2>"$GUEST_OUT/why"
    result cluster::no_such_node grep -q "there is no node '7'" "$GUEST_OUT/why"

    barrier connected || bad=1
    cut_cable 2 || bad=1
    barrier cut || bad=1
    ! reaches node2
    result cluster::nothing_passes_a_cut_cable [ $? = 0 ]
    barrier seen || bad=1
    restore_cable 2 || bad=1
    result cluster::restored_cable wait_until 20 reaches node2
    barrier back || bad=1
    result cluster::cable_comes_back_by_itself takes 900000 cut_and_talk

    barrier ready || bad=1
    power_off 2 || bad=1
    ! reaches node2
    result cluster::nothing_comes_without_power [ $? = 0 ]
    result cluster::barrier_without_the_one_powered_off barrier alone
}

two_second() {
    result cluster::value_of_another_node [ "$(get value)" = "some words" ]
    both_ends ibv_rc_pingpong -d rxe0 -g "$(gid)" -n 100
    barrier connected && barrier cut || bad=1
    result cluster::cut_cable_is_noticed wait_until 20 cable_is 0 DOWN
    barrier seen || bad=1
    result cluster::restored_cable_is_noticed wait_until 20 cable_is 1 ACTIVE
    barrier back || bad=1
    both_ends ibv_rc_pingpong -d rxe0 -g "$(gid)" -n 20
    barrier ready || bad=1
    # until the power goes
    wait_until 60 false
    echo "[FAIL] cluster::powered_off: it still runs"
    bad=1
}

three() {
    local n
    for n in 1 2 3; do
        result "cluster::node${NODE}_of_three_reaches_node$n" wait_until 20 reaches "node$n"
    done
    if [ "$NODE" = 3 ]; then
        rping -s -a node3 -C 5 -S 4000 || bad=1
    elif [ "$NODE" = 1 ]; then
        result cluster::verbs_between_two_of_three rping_to 3
    fi
    barrier reached || bad=1
    [ "$NODE" != 2 ] || exit 3
    [ "$NODE" != 3 ] || { echo c >/proc/sysrq-trigger; wait_until 60 false; }
    ! barrier never 2>"$GUEST_OUT/why"
    result cluster::barrier_names_the_missing grep -qE 'waited for node[23], which has ended' "$GUEST_OUT/why"
}

# from_here STATUS LINE...: what the host saw
from_here() {
    local line
    [ "$rc" = "$1" ] || { echo "[FAIL] cluster::exit_status: $rc, not $1"; bad=1; }
    for line in "${@:2}"; do
        result "cluster::says_$(echo "${line#cluster: }" | tr -cs 'a-z0-9\n' _)" grep -qx "$line" "$out"
    done
}

# all_of OPTION...: runs guests, shows what they print, and keeps it
all_of() {
    in_cluster "$@" | tee "$out"
    rc=${PIPESTATUS[0]}
    [ "$rc" != 77 ] || exit 77
}

case $part in
host)
    need ibv_rc_pingpong ibverbs-utils rping rdmacm-utils
    out=$(mktemp "${TMPDIR:-/tmp}/plait-test-cluster.XXXXXX") || exit 1
    trap 'rm -f "$out"' EXIT
    all_of two -g 2 -t 120
    from_here 0 "cluster: node1: exit status 0" "cluster: node2: powered off, as the job asked"
    all_of three -g 3 -m 512 -n 1 -t 120
    from_here 125 "cluster: node1: exit status 0" "cluster: node2: exit status 3" "cluster: node3: no answer (125)"
    all_of three -g 1 -t 1
    from_here 124 "cluster: node1: no answer (124)"
    ;;
two)
    [ "$NODE" = 1 ] && two_first || two_second
    ;;
three) three ;;
esac
exit $bad
