# SPDX-License-Identifier: BSD-3-Clause
# What cluster.sh runs in each guest: the functions for a job, then the job itself, then the wait for the others.
# Files in the folder that all share with the host are the only means: no inotify there, so waiting is polling.
set -u
hosts=$(seq -s, -f 'node%g' "$NODES")
exec {tick}<> <(:)
declare -A rounds
requests=0

# wait_until SECONDS COMMAND...
wait_until() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        read -rt 0.1 <&$tick
    done
    return 0
}

fails() {
    echo "cluster: $*" >&2
    return 1
}

# at_barrier MARK: is each node there? One that ended without the mark will not come (2).
at_barrier() {
    local n over
    for ((n = 1; n <= NODES; n++)); do
        # in this order: a node marks, then ends
        over=$([ -e "$GUEST_OUT/ended/$n" ] || [ -e "$GUEST_OUT/gone/$n" ] && echo yes)
        [ -e "$GUEST_OUT/barriers/$1.$n" ] || [ -e "$GUEST_OUT/off/$n" ] && continue
        missing="node$n, which has ended"
        [ -n "$over" ] && return 0
        missing=node$n
        return 1
    done
    missing=
}

barrier() {
    local round=$((${rounds[$1]:-0} + 1)) missing
    rounds[$1]=$round
    : >"$GUEST_OUT/barriers/$1.$round.$NODE"
    wait_until "${2:-600}" at_barrier "$1.$round"
    [ -z "$missing" ] || fails "barrier $1: waited for $missing"
}

put() {
    echo "$2" >"$GUEST_OUT/values/.$NODE.$1" && mv "$GUEST_OUT/values/.$NODE.$1" "$GUEST_OUT/values/$1"
}

get() {
    wait_until "${2:-60}" test -e "$GUEST_OUT/values/$1" || fails "get $1: nobody has put it in ${2:-60} s" || return
    cat "$GUEST_OUT/values/$1"
}

# request WORD...: to the host
request() {
    local id=$NODE.$BASHPID.$((requests++)) answer
    echo "$*" >"$GUEST_OUT/requests/.$id" && mv "$GUEST_OUT/requests/.$id" "$GUEST_OUT/requests/$id"
    wait_until 60 test -e "$GUEST_OUT/answers/$id" || fails "$*: the host does not answer" || return
    answer=$(cat "$GUEST_OUT/answers/$id")
    [ "$answer" = ok ] || fails "$*: $answer"
}

cut_cable() { request cut_cable "$1"; }
restore_cable() { request restore_cable "$1"; }
cut_cable_for() { request cut_cable_for "$1" "$2"; }
power_off() { request power_off "$1"; }
on_node() { bash "$CLUSTER/agent.sh" "node$1" "${@:2}"; }

# these transports of Open MPI work between guests; the agent stands in for ssh
run_openmpi() {
    mpirun.openmpi --allow-run-as-root --oversubscribe -np "$1" --host "${hosts//,/:8,}:8" --map-by node \
        --mca plm_rsh_agent "bash $CLUSTER/agent.sh" --mca oob_tcp_if_include eth0 \
        --mca pml ob1 --mca btl tcp,self,vader --mca btl_tcp_if_include eth0 "${@:2}"
}

run_mpich() {
    mpiexec.mpich -n "$1" -ppn 1 -hosts "$hosts" -iface eth0 -launcher ssh -launcher-exec "$CLUSTER/agent.sh" "${@:2}"
}

all_over() {
    local n
    for ((n = 1; n <= NODES; n++)); do
        [ -e "$GUEST_OUT/ended/$n" ] || [ -e "$GUEST_OUT/gone/$n" ] || return 1
    done
}

# exit_with STATUS: the job's; it counts even if this guest does not live to the end
exit_with() {
    echo "$1" >"$GUEST_OUT/ended/.$NODE" && mv "$GUEST_OUT/ended/.$NODE" "$GUEST_OUT/ended/$NODE"
    wait_until 600 all_over
    exit "$1"
}

{
    echo "127.0.0.1 localhost"
    for ((n = 1; n <= NODES; n++)); do echo "10.77.0.$n node$n"; done
} >/etc/hosts
# with the job's environment, which a command from another node gets
busybox nc -ll -p 514 -e bash "$CLUSTER/agent.sh" --serve 2>/dev/null &
(. "$@")
exit_with $?
