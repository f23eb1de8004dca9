#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every public header compiles on its own, in C99 and in C++, without a warning.
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0

compile() { # NAME HEADER COMPILER...
    local name=$1 header=$2
    shift 2
    if "$@" -Wall -Wextra -Werror -pedantic -fsyntax-only -I"$top/include" "$tmp/one.${name%%[0-9]*}"; then
        echo "[PASS] headers::$header as $name"
    else
        echo "[FAIL] headers::$header as $name"
        bad=1
    fi
}

for path in "$top"/include/plait/*.h; do
    header=plait/$(basename "$path")
    # twice: the guard is tested as well
    printf '#include <%s>\n#include <%s>\nextern int plait_x;\n' "$header" "$header" | tee "$tmp/one.c" >"$tmp/one.cc"
    compile c99 "$header" ${CC:-cc} -std=c99
    if command -v g++ >/dev/null; then
        compile cc "$header" g++ -std=c++11
    else
        echo "[SKIP] headers::$header as C++: no g++ here"
    fi
done
exit $bad
