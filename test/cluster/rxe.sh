#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# make check-rxe: everything that RDMA can change, on rxe. Where this machine has an RDMA device with an active
# port, on that one; else in guests: the conformance programs in one, then jobs of both launchers over two.
#   RXE_SUITE     all Criterion programs, relative to the build folder; those that match $sessions are run
#   RXE_ALL=1     all of them are: some ten minutes in a guest
#   RXE_PLACE     native or guest: not what is there, but this
. "$(dirname "${BASH_SOURCE[0]}")/guest_common.sh"

build=${top_builddir:-$top}
# every transport, those of rxe by these providers
conformance=(test_transport test_transport_long test_transport_two)
providers=(verbs)
# processes that open many sessions over verbs need seconds for each here, where all is emulated: only with RXE_ALL
sessions='^$'
# for the Criterion programs and the jobs: what libfabric 1.17 needs on rxe, and no handler of SIGSEGV from libpsm
export FI_UNIVERSE_SIZE=64 IPATH_NO_BACKTRACE=1 CRITERION_JOBS=1 CRITERION_VERBOSITY_LEVEL=1

# program NAME LIMIT [VARIABLE=VALUE]...: one Criterion program; its cases are counted by what they print
program() {
    local out rc began=$SECONDS
    out=$(cd "$build" && env "${@:3}" timeout -k 5 "$2" "./$1" 2>&1 </dev/null)
    rc=$?
    echo "$1 ${*:3}: $((SECONDS - began)) s"
    grep -aE '^\[(PASS|FAIL|SKIP)\]' <<<"$out"
    [ $rc = 0 ] && { [ -n "$out" ] || echo "[PASS] $1"; } && return
    echo "$out" | tail -n 40
    grep -aq '^\[FAIL\]' <<<"$out" || echo "[FAIL] $1: exit status $rc"
    bad=1
}

suite() {
    local p t
    export PLAIT_TEST_QUICK=1
    for p in "${providers[@]}"; do
        for t in "${conformance[@]}"; do program "test/conform/$t" 200 PLAIT_TEST_PROVIDERS="$p"; done
    done
    for t in ${RXE_SUITE:-}; do
        case $t in
        test/conform/*) continue ;;
        esac
        [ "${RXE_ALL:-}" = 1 ] || [[ $t =~ $sessions ]] || continue
        program "$t" 120
    done
}

# same_lines TEXT COMMAND...: it succeeds and prints these lines, in any order
same_lines() {
    local out
    out=$("${@:2}" 2>&1) && [ "$(sort <<<"$out")" = "$1" ] && return
    echo "$out"
    return 1
}

ring_over_verbs() {
    PLAIT_PROVIDER=verbs "$1" 4 env PLAIT_PROVIDER=verbs "$build/examples/ring"
}

# jobs OPENMPI MPICH NODES_SEEN: each launcher by a command or function that takes RANKS COMMAND...
jobs() {
    result rxe::openmpi_over_all_nodes same_lines "$3" "$1" 4 hostname
    result rxe::mpich_over_all_nodes same_lines "$3" "$2" 4 hostname
    # messages between the ranks, over the provider verbs; with one launcher, since emulated processes take seconds to load libfabric
    result rxe::ring_over_verbs ring_over_verbs "$1"
}

# on one machine, in place of the functions for jobs in guests
here_openmpi() { mpirun.openmpi --allow-run-as-root --oversubscribe -np "$@"; }
here_mpich() { mpiexec.mpich -n "$@"; }

native() {
    echo "on this machine: $(rdma link | grep 'state ACTIVE')"
    suite
    jobs here_openmpi here_mpich "$(for i in 1 2 3 4; do hostname; done)"
}

guests() {
    local rc
    for p in suite jobs; do
        in_cluster $p -g $([ $p = suite ] && echo 1 || echo 2) -m 1024 -t 600 \
            -e "RXE_SUITE=${RXE_SUITE:-}" -e "RXE_ALL=${RXE_ALL:-}"
        rc=$?
        [ $rc != 77 ] || exit 77
        [ $rc = 0 ] || bad=1
    done
}

case $part in
host)
    need rdma iproute2 mpirun.openmpi openmpi-bin mpiexec.mpich mpich
    case ${RXE_PLACE:-$(rdma link 2>/dev/null | grep -q 'state ACTIVE' && echo native || echo guest)} in
    native) native ;;
    *) guests ;;
    esac
    ;;
suite)
    suite
    ;;
jobs)
    barrier start || bad=1
    [ "$NODE" != 1 ] || jobs run_openmpi run_mpich $'node1\nnode1\nnode2\nnode2'
    barrier end || bad=1
    ;;
esac
exit $bad
