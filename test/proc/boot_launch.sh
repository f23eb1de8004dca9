#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Jobs under the launchers that are installed, with 1 to 8 ranks, without MPI and together with it. Each
# rank is boot_prog (see there for the modes), which checks what the launcher tells it.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
bin=${top_builddir:-$top}/test/proc
openmpi=${MPIRUN_OPENMPI:-$(command -v mpirun.openmpi)}
mpich=${MPIEXEC_MPICH:-$(command -v mpiexec.mpich)}
tmp=$(mktemp -d) || exit 1
failed=0 ended=0
tell_failures() {
    [ $failed = 0 ] || cat "$tmp/failed"
    rm -rf "$tmp"
}
trap tell_failures EXIT
export TMPDIR=$tmp
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export LSAN_OPTIONS="suppressions=$top/test/proc/launchers.supp:print_suppressions=0:${LSAN_OPTIONS:-}"

if [ -z "$openmpi" ] && [ -z "$mpich" ]; then
    echo "SKIP: neither Open MPI's mpirun.openmpi nor MPICH's mpiexec.mpich is installed"
    exit 77
fi
# this test may itself run under a launcher
unset PLAIT_JOB
for v in $(compgen -e | grep -E '^(PMI_|PMIX_|OMPI_COMM_WORLD_|SLURM_)'); do unset "$v"; done

# command_ended ARGUMENT...: its output is in $tmp/out, its exit status, which is also ours, in $ended
command_ended() {
    timeout 120 "$@" >"$tmp/out" 2>&1 </dev/null
    ended=$?
    return $ended
}

# launch KIND N PROGRAM ARGUMENT...: the exit status is the launcher's
launch() {
    local kind=$1 n=$2
    shift 2
    case $kind in
    pmix) command_ended "$openmpi" --oversubscribe --bind-to none -n "$n" "$@" ;;
    pmi1) command_ended "$mpich" -n "$n" "$@" ;;
    none) command_ended "$@" ;;
    esac
}

# verdict NAME CONDITION...: the condition is a command. What a failed case printed is told at the end, where a
# shortened log still has it.
verdict() {
    local name=$1 began=$SECONDS
    shift
    if "$@"; then
        echo "[PASS] $name"
    else
        echo "[FAIL] $name"
        failed=1
        {
            echo "--- $name: exit status $ended after $((SECONDS - began)) s, and this output:"
            sed 's/^/    /' "$tmp/out"
        } >>"$tmp/failed"
    fi
}

good() { # good KIND N PROGRAM MODE
    verdict "$1_$2_$(basename "$3")_$4" launch "$1" "$2" "$3" "$4" "$2" "$1"
}

ends_badly() { # a launcher that had to be stopped does not count
    local rc
    launch "$@"
    rc=$?
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && [ $rc -ne 137 ]
}

says() { # says WORDS KIND N PROGRAM ARGUMENT...
    local words=$1
    shift
    launch "$@"
    [ $? -ne 124 ] && grep -q -- "$words" "$tmp/out"
}

without_mpi() {
    local kind=$1 n
    for n in 1 2 3 4 8; do
        good "$kind" $n "$bin/boot_prog" plain
    done
    good "$kind" 3 "$bin/boot_prog" twice
    good "$kind" 2 "$bin/boot_prog" fork
    verdict "${kind}_one_dies" ends_badly "$kind" 3 "$bin/boot_prog" die
    verdict "${kind}_one_stays_away" says "timed out as expected" "$kind" 3 "$bin/boot_prog" timeout
    PLAIT_JOB=none verdict "${kind}_refused_by_user" launch "$kind" 2 "$bin/boot_prog" plain 1 none
}

with_mpi() { # with_mpi KIND PROGRAM
    local kind=$1 prog=$2 mode n
    if [ ! -x "$prog" ]; then
        echo "[SKIP] ${kind}_with_mpi: $(basename "$prog") is not built"
        return
    fi
    case "$kind ${PLAIT_SANITIZERS:-}" in
    "pmi1 "*thread*)
        echo "[SKIP] ${kind}_with_mpi: MPICH's own MPI_Init crashes under ThreadSanitizer"
        return ;;
    esac
    # they leave memory behind in modules that they have unloaded, which no suppression can name
    local -x ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
    for mode in before after; do
        for n in 1 2 3 4 8; do
            good "$kind" $n "$prog" $mode
        done
    done
    for mode in first around late plain twice; do
        good "$kind" 2 "$prog" $mode
    done
    # started without its launcher; Open MPI's MPI_Init then starts a PMIx server for itself
    for mode in before after around; do
        verdict "alone_$(basename "$prog")_$mode" launch none 1 "$prog" $mode 1
    done
}

# Two nodes: a remote shell that drops its options and stays here. It gives each "host" a folder of its own for
# temporary files: Open MPI's daemons make the same session folders on every host, and a daemon gives up when
# another makes one between its look for it and its mkdir.
cat >"$tmp/agent" <<'END'
#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
TMPDIR=$TMPDIR/$1
export TMPDIR
mkdir -p "$TMPDIR" || exit 1
shift
exec sh -c "$*"
END
chmod +x "$tmp/agent"

two_nodes() { # two_nodes EXPECTED COMMAND...
    local want=$1
    shift
    command_ended "$@" &&
        [ "$(grep '^rank .*;' "$tmp/out" | sort | tr -d '\n')" = "$want" ]
}

good none 1 "$bin/boot_prog" plain
PMIX_RANK=0 PMIX_NAMESPACE=gone PMIX_SERVER_URI2='gone.0;tcp4://127.0.0.1:1' \
    verdict pmix_launcher_gone says "PLAIT_E_LAUNCHER .*PMIx" none 1 "$bin/boot_prog" error

built_without_pmix() {
    PMIX_RANK=0 PMIX_NAMESPACE=gone launch none 1 "$bin/boot_prog" error
    grep -q 'built without PMIx' "$tmp/out"
}

if [ -n "$openmpi" ] && built_without_pmix; then
    verdict pmix_not_built says "PLAIT_E_LAUNCHER .*built without PMIx.*PLAIT_JOB=none" \
        pmix 2 "$bin/boot_prog" error
    echo "[SKIP] pmix: this build has no PMIx"
elif [ -n "$openmpi" ]; then
    without_mpi pmix
    verdict pmix_desert ends_badly pmix 2 "$bin/boot_prog" desert
    verdict pmix_taken_away says "PLAIT_E_LAUNCHER .*without PMIx.*PLAIT_JOB=none" \
        pmix 2 env -u PMIX_RANK -u PMIX_NAMESPACE "$bin/boot_prog" error
    verdict pmix_two_nodes two_nodes \
        'rank 0 is with 0 1;rank 1 is with 0 1;rank 2 is with 2 3;rank 3 is with 2 3;' \
        "$openmpi" --mca plm_rsh_agent "$tmp/agent" --bind-to none --host ha:2,hb:2 -n 4 \
        "$bin/boot_prog" nodes 4 pmix
    with_mpi pmix "$bin/boot_openmpi"
else
    echo "[SKIP] pmix: Open MPI's mpirun.openmpi is not installed"
fi

if [ -n "$mpich" ]; then
    without_mpi pmi1
    verdict pmi1_taken_away says "PLAIT_E_LAUNCHER .*not an open file descriptor" \
        pmi1 2 bash -c 'exec {PMI_FD}>&-; exec "$@"' - "$bin/boot_prog" error
    verdict pmi1_two_nodes two_nodes \
        'rank 0 is with 0 1 3;rank 1 is with 0 1 3;rank 2 is with 2;rank 3 is with 0 1 3;' \
        "$mpich" -launcher ssh -launcher-exec "$tmp/agent" -hosts ha:2,hb:1 -n 4 \
        "$bin/boot_prog" nodes 4 pmi1
    with_mpi pmi1 "$bin/boot_mpich"
else
    echo "[SKIP] pmi1: MPICH's mpiexec.mpich is not installed"
fi
exit $failed
