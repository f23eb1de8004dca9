#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the parsers of what comes from outside. Needs clang. By default with as many inputs as take some
# seconds, always the same ones, so that a failure is there again in the next run.
#   PLAIT_FUZZ_SECONDS    for so long instead, with other inputs each time
#   PLAIT_TEST_QUICK=1    fewer, and others than without it
set -eu
src=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
if [ -n "${PLAIT_FUZZ_SECONDS:-}" ]; then
    amount=("-max_total_time=$PLAIT_FUZZ_SECONDS" "-seed=$((RANDOM + 1))")
elif [ -n "${PLAIT_TEST_QUICK:-}" ]; then
    amount=(-runs=200000 -seed=2)
else
    amount=(-runs=1000000 -seed=1)
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/plait-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! command -v clang >/dev/null; then
    echo "SKIP: no clang"
    exit 77
fi
echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n); int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d == 0 && n; }' >"$work/probe.c"
if ! clang -fsanitize=fuzzer,address,undefined -o "$work/probe" "$work/probe.c" 2>"$work/probe.log"; then
    echo "SKIP: clang has no libFuzzer: $(head -n 1 "$work/probe.log")"
    exit 77
fi

# fuzz NAME LONGEST SOURCE...
fuzz() {
    local name=$1 longest=$2 status=0
    shift 2
    clang -std=gnu11 -D_GNU_SOURCE= -I"$src" -I"$src/include" -g -O1 -pthread \
        -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o "$work/$name" "$@"
    mkdir "$work/$name.corpus"
    "$work/$name" -corpus="$work/$name.corpus"
    # -timeout is of real time: enough for a machine that stands still for a while
    "$work/$name" "${amount[@]}" -max_len="$longest" -timeout=60 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work/$name.corpus" >"$work/$name.log" 2>&1 || status=$?
    if [ $status = 0 ]; then
        grep -E 'number_of_executed_units|new_units_added' "$work/$name.log"
        echo "[PASS] $name"
    else
        tail -n 60 "$work/$name.log"
        for f in "$work"/crash-* "$work"/timeout-* "$work"/leak-* "$work"/oom-*; do
            [ -e "$f" ] && { echo "input of $(stat -c %s "$f") bytes, in base64:"; base64 "$f"; }
        done
        echo "exit status $status of: $name ${amount[*]}"
        echo "[FAIL] $name"
        return 1
    fi
}

cd "$src"
fuzz wire 17000 test/fuzz/fuzz_wire.c runtime/wire.c runtime/wire_encode.c runtime/uri.c util/err.c
# the fabric's headers are libfabric's
if echo '#include <rdma/fabric.h>' | clang -fsyntax-only -x c - 2>/dev/null; then
    fuzz packet 9000 test/fuzz/fuzz_packet.c fabric/recv.c util/err.c util/log.c
else
    echo "no libfabric: the packets of the fabric are not fuzzed"
fi
