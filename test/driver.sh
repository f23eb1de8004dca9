#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The test driver itself: what it makes of programs that pass, fail, crash, hang, skip and leak.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

# expect WHAT RESULTS SCRIPT: RESULTS is the list of verdicts that the driver writes for SCRIPT
expect() {
    local what=$1 want=$2 got
    echo "$3" >"$tmp/prog"
    PLAIT_TEST_TIMEOUT=2 bash "$top/test/ci/driver" --test-name prog --log-file "$tmp/prog.log" \
        --trs-file "$tmp/prog.trs" --color-tests no --enable-hard-errors yes --expect-failure no \
        -- bash "$tmp/prog" >"$tmp/out"
    got=$(sed -n 's/^:test-result: \([A-Z]*\).*/\1/p' "$tmp/prog.trs" | tr '\n' ' ')
    got="$got/ $(sed -n 's/^:global-test-result: //p' "$tmp/prog.trs")"
    if [ "$got" = "$want" ]; then
        echo "[PASS] driver::$what"
    else
        echo "[FAIL] driver::$what: '$got', not '$want'"
        bad=1
    fi
}

expect "a script without cases is one" "PASS / PASS" 'exit 0'
expect "a script that fails" "FAIL / FAIL" 'exit 3'
expect "a script that skips" "SKIP / SKIP" 'echo "SKIP: no network"; exit 77'
grep -q 'skipped: prog: no network' "$tmp/out" || { echo "[FAIL] driver::the reason is shown"; bad=1; }
expect "cases are counted" "PASS PASS SKIP / PASS" 'echo "[PASS] a::b: (0.00s)"; echo "[SKIP] a::c: later"; echo "[PASS] a::d"'
expect "a failed case" "PASS FAIL / FAIL" 'echo "[PASS] a::b"; echo "[FAIL] a::c: CRASH!"; exit 1'
expect "a failed case counts even when the exit status is 0" "FAIL / FAIL" 'echo "[FAIL] a::c"'
expect "an exit status that no case explains" "PASS FAIL / FAIL" 'echo "[PASS] a::b"; exit 1'
expect "a death by signal" "FAIL / FAIL" 'kill -SEGV $$'
expect "a program that hangs" "PASS FAIL / FAIL" 'echo "[PASS] a::b"; sleep 60'
expect "a leak that no case tells" "PASS FAIL / FAIL" 'echo "[PASS] a::b"; echo "==1==ERROR: LeakSanitizer: detected memory leaks"'
expect "only skipped cases" "SKIP / SKIP" 'echo "[SKIP] a::b: no huge pages"'
expect "a socket of Criterion in the way: tried again" "PASS / PASS" '
    [ -e "$0.again" ] && exit 0
    touch "$0.again"
    echo "criterion: Could not initialize the message server: Address already in use."
    exit 134'
exit $bad
