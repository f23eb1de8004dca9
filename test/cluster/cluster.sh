#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs a job in one to three virtual machines (guest.sh) that are nodes of one network, with RDMA: rxe over
# Ethernet. The job can cut a node's cable, and take a node's power away. See --help.
set -u
export LC_ALL=C
me=${0##*/}
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<END
Usage: $me [OPTION]... JOBFILE [ARGUMENT]...
Runs JOBFILE, a bash script, in each of the guests node1, node2, ... as root, prints what it prints after
"node1: " and so on (lines of results, such as "[PASS] name", as they are), and exits with the worst exit status.
  -g GUESTS     1 to 3 (default 2)
  -n NODES      NUMA nodes of each guest (default 2)
  -c CPUS       of each guest (default: 2 in a single guest, else 1)
  -m MIB        memory of each guest (default 768)
  -t SECONDS    limit for all of it (default 120)
  -o FOLDER     what the guests leave: \$GUEST_OUT of the job, shared by all of them, and for each of them a
                folder node1, ... with its output and console (default: a temporary folder)
  -e NAME=VALUE a variable for the job; may be repeated
Each guest has eth0 with the address 10.77.0.NODE, an MTU of 9000, and the device rxe0 on it.
In the job: \$NODE (1 to \$NODES), \$NODES, \$GUEST_OUT, and the functions
  barrier NAME [SECONDS]    waits for all nodes; fails when one has ended. One that was powered off is not awaited
  put NAME VALUE, get NAME [SECONDS]     a value for the other nodes; get waits for it
  wait_until SECONDS COMMAND...          until COMMAND succeeds
  cut_cable NODE, restore_cable NODE     a node's cable
  cut_cable_for NODE SECONDS             cuts it, and returns; it will come back
  power_off NODE            as if unplugged: nothing more comes from it, and it need not answer
  on_node NODE COMMAND...   runs a command there, over the network, in the environment of the job
  run_openmpi RANKS COMMAND..., run_mpich RANKS COMMAND...     over all nodes
From here, a line such as "cut_cable 2" in a new file FOLDER/requests/ANYTHING does the same as the function.
The job's ends are awaited by all nodes; then the guests go. A guest without an answer (panic, end of time) is
a failure: 125, or 124 at the end of time. 77: it cannot run here, after a line "SKIP: reason".
END
}

nodes=2 numa=2 cpus= memory=768 limit=120 share= variables=()
while getopts g:n:c:m:t:o:e:h-: opt; do
    case $opt in
    g) nodes=$OPTARG ;;
    n) numa=$OPTARG ;;
    c) cpus=$OPTARG ;;
    m) memory=$OPTARG ;;
    t) limit=$OPTARG ;;
    o) share=$OPTARG ;;
    e) variables+=("$OPTARG") ;;
    h|-) usage; exit 0 ;;
    *) usage >&2; exit 125 ;;
    esac
done
shift $((OPTIND - 1))
case $nodes in
[123]) ;;
*) echo "$me: 1, 2 or 3 guests, not $nodes" >&2; exit 125 ;;
esac
job=$(realpath -e -- "${1:-}" 2>/dev/null) || { echo "$me: no job file '${1:-}' (see -h)" >&2; exit 125; }
shift
cpus=${cpus:-$((nodes > 1 ? 1 : 2))}

# ---- the guests ----

# network NODE: two guests have a cable between them, three a hub. A TCP connection would be slow.
network() {
    case $nodes in
    2) echo "-netdev stream,id=n0,server=$([ "$1" = 1 ] && echo on || echo off),addr.type=unix,addr.path=$tmp/cable" ;;
    3) echo "-netdev socket,id=n0,mcast=239.77.$(($$ >> 8 & 255)).$(($$ & 255)):$((20000 + ($$ >> 16))),localaddr=127.0.0.1" ;;
    *) echo "-netdev hubport,id=n0,hubid=0" ;;
    esac
}

# start NODE ARGUMENT...
start() {
    local n=$1 own=$share/node$1
    shift
    mkdir -p "$own"
    rm -f "$own/output"
    mkfifo "$tmp/qmp$n.in" "$tmp/qmp$n.out"
    exec {to[n]}<>"$tmp/qmp$n.in" {from[n]}<>"$tmp/qmp$n.out"
    bash "$here/guest.sh" -N "node$n" -r "10.77.0.$n" -o "$share" -n "$numa" -c "$cpus" -m "$memory" -t "$limit" \
        -q "$(network $n) -pidfile $tmp/pid$n -chardev pipe,id=qmp,path=$tmp/qmp$n -mon chardev=qmp,mode=control" \
        env "${variables[@]}" NODE=$n NODES="$nodes" CLUSTER="$here" bash "$here/cluster_job.sh" "$job" "$@" \
        >"$own/guest.out" 2>"$own/guest.err" &
    pid[n]=$!
    tail -n +1 -s 0.3 --pid=$! -F "$own/output" 2>/dev/null |
        sed -uE "/^(\[(PASS|FAIL|SKIP)\] |SKIP: )/!s/^/node$n: /" &
    printer[n]=$!
}

# pause SECONDS: without a process
pause() {
    read -rt "$1" <&$tick
}

# qmp NODE COMMAND [ARGUMENTS]: a command to QEMU, and its answer
qmp() {
    local line
    if [ -z "${greeted[$1]:-}" ]; then
        greeted[$1]=yes
        qmp "$1" qmp_capabilities || return
    fi
    echo "{\"execute\": \"$2\", \"arguments\": {${3:-}}}" >&${to[$1]}
    while IFS= read -rt 20 line <&${from[$1]}; do
        case $line in
        *'"return"'*) return 0 ;;
        *'"error"'*) echo "$line"; return 1 ;;
        esac
    done
    echo "QEMU of node$1 does not answer"
    return 1
}

# ---- what the job asks for ----

cable() {
    qmp "$1" set_link "\"name\": \"n0\", \"up\": $2"
}

# powered_off NODE: the mark first, so that nobody ever takes it for a failure
power_off() {
    : >"$share/off/$1"
    kill -9 "$(cat "$tmp/pid$1")"
}

# serve WORD...: one request; prints why it cannot be done
serve() {
    local now=${EPOCHREALTIME/./}
    case ${2:-} in
    [1-$nodes]) [ -e "$share/gone/$2" ] && { echo "node$2 has ended"; return 1; } ;;
    *) echo "there is no node '${2:-}'"; return 1 ;;
    esac
    case $1 in
    cut_cable) restore_at[$2]= && cable "$2" false ;;
    restore_cable) restore_at[$2]= && cable "$2" true ;;
    cut_cable_for) cable "$2" false && restore_at[$2]=$((now + $(printf %.0f "${3:-1}e6"))) ;;
    power_off) power_off "$2" ;;
    *) echo "there is no request '$1'"; return 1 ;;
    esac
}

serve_requests() {
    local file words n
    for file in "$share"/requests/*; do
        [ -s "$file" ] && read -ra words <"$file" || continue
        rm -f "$file"
        serve "${words[@]}" >"$tmp/why" 2>&1 && echo ok >"$tmp/why"
        cp "$tmp/why" "$share/answers/.new" && mv "$share/answers/.new" "$share/answers/${file##*/}"
        echo "cluster: ${words[*]}: $(cat "$tmp/why")"
    done
    for ((n = 1; n <= nodes; n++)); do
        [ -n "${restore_at[n]:-}" ] && [ "${EPOCHREALTIME/./}" -ge "${restore_at[n]}" ] || continue
        restore_at[n]=
        [ -e "$share/gone/$n" ] || cable "$n" true
        echo "cluster: node$n's cable is back"
    done
}

# ---- all of it ----

# ended NODE: its guest has; its exit status, the job's own where it got that far. What is worse than the others is kept.
ended() {
    local n=$1 rc
    wait ${pid[n]}
    rc=$?
    : >"$share/gone/$n"
    [ -e "$share/ended/$n" ] && rc=$(cat "$share/ended/$n")
    if [ -e "$share/off/$n" ]; then
        verdict[n]="powered off, as the job asked"
        return
    fi
    verdict[n]="exit status $rc"
    case $rc in
    77) skipped=$((skipped + 1)); grep -q '^SKIP: ' "$share/node$n/output" 2>/dev/null || verdict[n]+=" before it booted" ;;
    124|125) [ -e "$share/ended/$n" ] || verdict[n]="no answer ($rc)" ;;
    esac
    [ $rc = 77 ] || [ "$rc" -le $worst ] || worst=$rc
}

tmp=$(mktemp -d /tmp/plait-test-cluster.XXXXXX) || exit 125
exec {tick}<> <(:)
to=() from=() pid=() printer=() greeted=() restore_at=() verdict=() worst=0 skipped=0
finish() {
    local n
    for n in "${!pid[@]}"; do
        [ -n "${verdict[n]:-}" ] || kill "${pid[n]}" 2>/dev/null
    done
    wait
    rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 125' HUP INT TERM

share=${share:-$tmp/share}
mkdir -p "$share" && share=$(cd "$share" && pwd) || exit 125
for d in requests answers values barriers ended gone off; do
    rm -rf "${share:?}/$d"
    mkdir "$share/$d" || exit 125
done
bash "$here/guest.sh" --fetch >"$tmp/kernel" || { cat "$tmp/kernel"; exit 77; }
# one at a time: more would be too slow for their limits
exec {lock}>"${XDG_CACHE_HOME:-$HOME/.cache}/plait/guest/cluster.lock" && flock $lock
for ((n = 1; n <= nodes; n++)); do
    start $n "$@"
    # the cable's first end is a listening socket
    while [ "$nodes" = 2 ] && [ ! -e "$tmp/cable" ] && kill -0 ${pid[1]} 2>/dev/null; do pause 0.1; done
done
left=$nodes
while [ $left -gt 0 ]; do
    serve_requests
    for ((n = 1; n <= nodes; n++)); do
        [ -z "${verdict[n]:-}" ] && ! kill -0 ${pid[n]} 2>/dev/null || continue
        ended $n
        left=$((left - 1))
    done
    [ $left = 0 ] || pause 0.1
done
wait "${printer[@]}"
for ((n = 1; n <= nodes; n++)); do
    echo "cluster: node$n: ${verdict[n]}"
    case ${verdict[n]} in
    "no answer"*) sed "s/^/node$n! /" "$share/node$n/guest.err" ;;
    *"before it booted") cat "$share/node$n/guest.out" ;;
    esac
done
[ $worst = 0 ] && [ $skipped -gt 0 ] && exit 77
exit $worst
