#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Run by `make installcheck`: a user's program builds with the installed plait.pc, shared and static, and runs.
# Arguments: libdir (where plait.pc's folder is), bindir.
set -u
libdir=$1 bindir=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
pkg_config=${PKG_CONFIG:-pkg-config}

fail() {
    echo "installcheck: $*" >&2
    exit 1
}

cat >"$tmp/user.c" <<'EOF'
#include <plait/plait.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    char headers[32];

    snprintf(headers, sizeof headers, "%d.%d.%d", PLAIT_VERSION_MAJOR, PLAIT_VERSION_MINOR, PLAIT_VERSION_PATCH);
    printf("plait %s, headers %s: %s\n", plait_version(), headers, plait_strerror(PLAIT_E_PEERDIED));
    return strcmp(headers, plait_version()) != 0;
}
EOF

version=$($pkg_config --modversion plait) || fail "pkg-config does not find plait in $PKG_CONFIG_PATH"
if [ -e "$libdir/libplait.so" ]; then
    ${CC:-cc} -o "$tmp/shared" "$tmp/user.c" $($pkg_config --cflags --libs plait) || fail "the shared library does not link"
    LD_LIBRARY_PATH=$libdir "$tmp/shared" || fail "the program with the shared library fails"
fi
if [ -e "$libdir/libplait.a" ]; then
    libs=$($pkg_config --static --libs plait | sed 's/-lplait\>/-l:libplait.a/')
    ${CC:-cc} -o "$tmp/static" "$tmp/user.c" $($pkg_config --cflags plait) $libs || fail "the static library does not link"
    "$tmp/static" || fail "the program with the static library fails"
fi
if [ -x "$bindir/plait" ]; then
    "$bindir/plait" --version | grep -qF "$version" || fail "'plait --version' does not say $version"
fi
echo "installcheck: plait $version is usable"
