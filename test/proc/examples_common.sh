# SPDX-License-Identifier: BSD-3-Clause
# What the tests of the examples share. Sourced by bash.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${top_builddir:-$top/build}
bin=$build/examples
dir=$(mktemp -d) || exit 1
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp
export LSAN_OPTIONS="suppressions=$top/test/proc/launchers.supp:print_suppressions=0:${LSAN_OPTIONS:-}"
started=()
bad=0
patience=60 # seconds until a program counts as hanging
[ -z "${PLAIT_SANITIZERS:-}" ] || patience=200

clean_up() {
    local pid
    for pid in "${started[@]}"; do kill -9 "$pid" 2>/dev/null; done
    rm -rf "$dir"
}
trap clean_up EXIT

# this test may itself run under a launcher
unset PLAIT_JOB
for v in $(compgen -e | grep -E '^(PMI_|PMIX_|OMPI_COMM_WORLD_|SLURM_)'); do unset "$v"; done

# verdict NAME COMMAND...: passed if the command succeeds; else shows the files of output
verdict() {
    local name=$1
    shift
    if "$@"; then
        echo "[PASS] $suite::$name"
    else
        echo "[FAIL] $suite::$name"
        bad=1
        tail -n 30 "$(ls -t "$dir"/*.out | head -n 1)" | sed 's/^/    /'
    fi
}

# run NAME COMMAND...: output and errors in $dir/NAME.out; the exit status is the command's
run() {
    local out=$dir/$1.out
    shift
    timeout $patience "$@" >"$out" 2>&1 </dev/null
}

# says NAME WORDS: the output of run NAME contains them
says() { grep -qF -- "$2" "$dir/$1.out"; }

# ends STATUS NAME COMMAND...: run, with this exit status
ends() {
    local want=$1 got
    shift
    run "$@"
    got=$?
    [ $got = "$want" ] && return
    echo "exit status $got, not $want" >>"$dir/$1.out"
    return 1
}

# server NAME COMMAND...: starts it; its process id in $pid, the URI that it prints in $uri. What it says
# later is at descriptor 8. Its input is the descriptor 7, where that is open; 6 is the other end of that.
server() {
    local name=$1 line
    shift
    rm -f "$dir/fifo"
    mkfifo "$dir/fifo"
    if [ -e /dev/fd/7 ]; then
        "$@" >"$dir/fifo" 2>&1 <&7 6>&- &
    else
        "$@" >"$dir/fifo" 2>&1 </dev/null &
    fi
    pid=$!
    started+=("$pid")
    uri=
    exec 8<"$dir/fifo"
    while IFS= read -r -t $patience -u 8 line; do
        echo "$line" >>"$dir/$name.out"
        uri=$(grep -oE 'plait://[^ ]+' <<<"$line") && return
    done
    return 1
}

# server_ends NAME: the rest of its output goes to $dir/NAME.out; the exit status is the server's
server_ends() {
    timeout $patience cat <&8 >>"$dir/$1.out" || kill -9 "$pid"
    wait "$pid"
}

# clean: plait has left nothing in the folder for temporary files
clean() { [ -z "$(find "$TMPDIR" -mindepth 1 -iname '*plait*')" ]; }

# ---- launchers ----

openmpi=${MPIRUN_OPENMPI:-$(command -v mpirun.openmpi)}
mpich=${MPIEXEC_MPICH:-$(command -v mpiexec.mpich)}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# need_launcher: without one the test is skipped
need_launcher() {
    [ -z "$openmpi" ] && [ -z "$mpich" ] || return 0
    echo "SKIP: neither Open MPI's mpirun.openmpi nor MPICH's mpiexec.mpich is installed"
    exit 77
}

# launch NAME KIND N PROGRAM ARGUMENT...: the exit status is the launcher's
launch() {
    local name=$1 kind=$2 n=$3
    shift 3
    case $kind in
    openmpi) run "$name" "$openmpi" --oversubscribe --bind-to none -n "$n" "$@" ;;
    mpich) run "$name" "$mpich" -n "$n" "$@" ;;
    bound) run "$name" "$openmpi" --bind-to core -n "$n" "$@" ;;
    alone) run "$name" "$@" ;;
    esac
}
