#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The program in README.md compiles without a warning, and does what the README says.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${top_builddir:-$top/build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() {
    echo "[FAIL] readme::$1"
    exit 1
}

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$top/README.md" >"$tmp/readme.c"
[ -s "$tmp/readme.c" ] || fail "there is no block of C in README.md"
lib=$build/.libs/libplait.so
[ -e "$lib" ] || { echo "SKIP: the shared library is not built"; exit 77; }
${CC:-cc} -std=c99 -Wall -Wextra -Werror -I"$top/include" -o "$tmp/readme" "$tmp/readme.c" "$lib" \
    -Wl,-rpath,"$build/.libs" || fail "the program in README.md does not compile"
out=$(timeout 60 "$tmp/readme" 2>&1) || fail "the program in README.md fails: $out"
want=$(awk '/^prints `/ { sub(/^prints `/, ""); sub(/`.*/, ""); print; exit }' "$top/README.md")
[ "$out" = "$want" ] || fail "the program in README.md prints '$out', not '$want'"
echo "[PASS] readme::the program works"

# local links lead to files that exist
missing=
for f in $(grep -oE '\]\([A-Za-z._/-]+\)' "$top/README.md" | tr -d '])('); do
    [ -e "$top/$f" ] || missing="$missing $f"
done
[ -z "$missing" ] || fail "README.md links to what does not exist:$missing"
echo "[PASS] readme::its links lead to files"
