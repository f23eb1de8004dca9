#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# libplait.so exports what the public headers declare, all of it and nothing else; every global symbol of
# libplait.a begins with plait_ or pli_, so that it cannot collide with a program's own.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${top_builddir:-$top/build}
nm=${NM:-nm}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

expect_empty() { # NAME LINES
    if [ -z "$2" ]; then
        echo "[PASS] symbols::$1"
    else
        echo "[FAIL] symbols::$1: not so for $(echo "$2" | wc -l)"
        echo "$2"
        bad=1
    fi
}

# declarations that carry PLAIT_API, which is the only mention of visibility; the name stands before
# the first parenthesis after it, or at the end
declared() {
    for h in "$top"/include/plait/*.h; do echo "#include <plait/$(basename "$h")>"; done >"$tmp/all.c"
    ${CC:-cc} -E -P -I"$top/include" "$tmp/all.c" | tr '\n' ' ' | tr ';' '\n' |
        sed -nE 's/.*visibility\("default"\)[) ]*//p' |
        sed -nE 's/^[^(]*[^[:alnum:]_(](plait_[[:alnum:]_]+)[[:space:]]*(\(.*|\[.*)?$/\1/p' | sort -u
}

so=$build/.libs/libplait.so a=$build/.libs/libplait.a
if [ ! -e "$so" ]; then
    echo "[SKIP] symbols::libplait.so: not built (--disable-shared)"
else
    $nm -D --defined-only "$so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$tmp/exported"
    declared >"$tmp/declared"
    expect_empty "libplait.so exports something" "$([ -s "$tmp/exported" ] || echo nothing)"
    expect_empty "the headers declare something" "$([ -s "$tmp/declared" ] || echo nothing)"
    expect_empty "all exports begin with plait_" "$(grep -v '^plait_' "$tmp/exported")"
    expect_empty "all that is declared is exported" "$(comm -13 "$tmp/exported" "$tmp/declared")"
    # helper threads and fork handlers outlive a dlclose()
    expect_empty "libplait.so stays loaded" "$(readelf -d "$so" | grep NODELETE >/dev/null || echo "not linked with -z nodelete")"
    expect_empty "all that is exported is declared" "$(comm -23 "$tmp/exported" "$tmp/declared")"
fi
if [ ! -e "$a" ]; then
    echo "[SKIP] symbols::libplait.a: not built (--disable-static)"
else
    expect_empty "globals of libplait.a begin with plait_ or pli_" \
        "$($nm -g --defined-only "$a" 2>/dev/null | awk 'NF == 3 { print $3 }' | grep -vE '^(plait_|pli_)' | sort -u)"
fi
exit $bad
