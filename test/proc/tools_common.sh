# SPDX-License-Identifier: BSD-3-Clause
# What the tests of the command plait share. Sourced by bash.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${top_builddir:-$top/build}
plait=$build/tools/plait
[ -x "$plait" ] || { echo "SKIP: the command plait is not built (libjson-c-dev)"; exit 77; }
command -v python3 >/dev/null || { echo "SKIP: no python3 (apt-get install python3)"; exit 77; }
dir=$(mktemp -d) || exit 1
started=()
bad=0
slow=1 # what takes longer with a sanitizer
[ -z "${PLAIT_SANITIZERS:-}" ] || slow=6

clean_up() {
    local pid
    for pid in "${started[@]}"; do kill -9 "$pid" 2>/dev/null; done
    rm -rf "$dir"
}
trap clean_up EXIT

pass() { echo "[PASS] $suite::$1"; }
fail() {
    echo "[FAIL] $suite::$1: $2"
    bad=1
}

# result NAME OK WHY...: passed if OK is 0
result() { if [ "$2" = 0 ]; then pass "$1"; else fail "$1" "$3"; fi; }

# run ARG...: the command; its output in $dir/out and $dir/err, its exit status in $status
run() {
    timeout $((40 * slow)) "$plait" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
}

# expect NAME STATUS FILE TEXT...: the exit status of run, and what its output contains
expect() {
    local name=$1 want=$2 file=$3 text
    shift 3
    if [ $status != "$want" ]; then
        fail "$name" "exit status $status, not $want"
        cat "$dir/out" "$dir/err"
        return
    fi
    for text in "$@"; do
        grep -qF -- "$text" "$dir/$file" && continue
        fail "$name" "'$text' is not in its output:"
        cat "$dir/$file"
        return
    done
    pass "$name"
}

# python NAME SCRIPT ARG...: passed if the script, in which the figures are read with json, raises nothing
python() {
    local name=$1
    shift
    if python3 -c "$@" >"$dir/python" 2>&1; then pass "$name"; else
        fail "$name" "$(tail -n 1 "$dir/python")"
        cat "$dir/python"
        [ ! -f "$dir/err" ] || cat "$dir/err"
    fi
}

# begin FD ARG...: starts the command, its output at file descriptor FD, its errors in $dir/err.FD, its
# process id in $pid
begin() {
    local fd=$1
    shift
    rm -f "$dir/fifo.$fd"
    mkfifo "$dir/fifo.$fd"
    # a shell's background processes ignore SIGINT, unless told otherwise
    env --default-signal=INT "$plait" "$@" >"$dir/fifo.$fd" 2>"$dir/err.$fd" </dev/null &
    pid=$!
    started+=("$pid")
    eval "exec $fd<\"$dir/fifo.$fd\""
}

# uri_of FD: reads lines until one has a URI, in $uri
uri_of() {
    local line
    uri=
    while IFS= read -r -t $((20 * slow)) -u "$1" line; do
        uri=$(grep -oE 'plait://[^ ]+' <<<"$line") && return
    done
    fail "it listens" "no URI within $((20 * slow)) s"
    cat "$dir/err.$1"
    exit 1
}

# alive PID: it runs; a zombie does not
alive() { [ -d "/proc/$1" ] && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null; }

# gone PID SECONDS: waits until it has ended
gone() {
    local until=$((SECONDS + $2 + 1))
    while alive "$1"; do
        [ $SECONDS -lt $until ] || return 1
        read -r -t 0.02 <> <(:)
    done
    return 0
}

# children PID: its child processes
children() {
    local s
    for s in /proc/[0-9]*/status; do
        awk -v p="$1" '/^Pid:/ { pid = $2 } /^PPid:/ && $2 == p { print pid }' "$s" 2>/dev/null
    done
}
