#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the parsers of what comes from outside for a few seconds. Needs clang.
#   PLAIT_FUZZ_SECONDS  how long for each (default 10)
set -eu
src=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
seconds=${PLAIT_FUZZ_SECONDS:-10}
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
    local name=$1 longest=$2
    shift 2
    clang -std=gnu11 -D_GNU_SOURCE= -I"$src" -I"$src/include" -g -O1 -pthread \
        -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o "$work/$name" "$@"
    mkdir "$work/$name.corpus"
    "$work/$name" -corpus="$work/$name.corpus"
    if "$work/$name" -max_total_time="$seconds" -max_len="$longest" -timeout=5 -seed=1 -print_final_stats=1 \
        -artifact_prefix="$work/" "$work/$name.corpus" >"$work/$name.log" 2>&1; then
        grep -E 'number_of_executed_units|new_units_added' "$work/$name.log"
        echo "[PASS] $name"
    else
        tail -n 60 "$work/$name.log"
        for f in "$work"/crash-* "$work"/timeout-* "$work"/leak-*; do
            [ -e "$f" ] && { echo "input of $(stat -c %s "$f") bytes, in base64:"; base64 "$f"; }
        done
        echo "[FAIL] $name"
        return 1
    fi
}

cd "$src"
fuzz wire 17000 test/fuzz/fuzz_wire.c runtime/wire.c runtime/wire_encode.c runtime/uri.c util/err.c
