#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The man pages: those of section 3 are what doc/mkman.py makes of the public headers, every public function is in
# one with its prototype, and all of them render without complaint.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
verdict() { # NAME OK WHY
    if [ "$2" = 0 ]; then echo "[PASS] man::$1"; else echo "[FAIL] man::$1: $3"; bad=1; fi
}

if command -v python3 >/dev/null; then
    python3 "$top/doc/mkman.py" "$tmp" && for f in "$tmp"/*.3; do cmp "$f" "$top/doc/man/${f##*/}" || exit 1; done
    verdict "the pages are up to date" $? "run: python3 doc/mkman.py doc/man"
else
    echo "[SKIP] man::the pages are up to date: no python3"
fi

# prototypes as the preprocessor's input has them, each on one line
missing=
cat "$top"/doc/man/*.3 | sed 's/\\-/-/g' >"$tmp/pages"
for h in "$top"/include/plait/*.h; do
    sed -e 's,/\*\*<.*\*/,,' "$h" | awk '/^PLAIT_API/ { p = "" ; on = 1 } on { p = p " " $0 } on && /;/ { print p; on = 0 }' |
        sed -E 's/ *PLAIT_API //; s/[[:space:]]+/ /g; s/;.*/;/' >"$tmp/protos"
    while IFS= read -r proto; do
        grep -qF -- "$proto" "$tmp/pages" || missing="$missing $proto"
    done <"$tmp/protos"
    cat "$tmp/protos" >>"$tmp/all"
done
[ -z "$missing" ]
verdict "every public function has its prototype" $? "not found:$missing"
[ "$(grep -c . "$tmp/all")" = "$(cat "$top"/include/plait/*.h | grep -c '^PLAIT_API')" ]
verdict "every declaration was looked for" $? "$(grep -c . "$tmp/all") found"

for page in "$top"/doc/man/plait*.[137]; do
    name=${page##*/}
    if command -v mandoc >/dev/null; then
        mandoc -Tlint -Wwarning "$page" >"$tmp/lint" 2>&1
        [ ! -s "$tmp/lint" ]
        verdict "mandoc: $name" $? "$(head -3 "$tmp/lint" | tr '\n' ' ')"
    elif command -v man >/dev/null; then
        MANROFFSEQ= MANWIDTH=100 man --warnings=w -l "$page" >/dev/null 2>"$tmp/lint"
        [ ! -s "$tmp/lint" ]
        verdict "man: $name" $? "$(head -3 "$tmp/lint" | tr '\n' ' ')"
    else
        echo "[SKIP] man::$name: neither mandoc nor man"
    fi
done
exit $bad
