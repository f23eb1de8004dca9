# SPDX-License-Identifier: BSD-3-Clause
# For the tests that run in a guest, sourced by bash. Such a script runs twice: on the host, where $part is
# host and it calls in_guest, and then in the guest.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
bin=${top_builddir:-$top}/test/cluster
part=${1:-host}
as_user=
bad=0

skip() {
    echo "SKIP: $*"
    exit 77
}

# need TOOL PACKAGE ...
need() {
    for ((; $#; )); do
        command -v "$1" >/dev/null || skip "$1 is missing: install $2"
        shift 2
    done
}

once() {
    [ -z "${PLAIT_TEST_QUICK:-}" ] || skip "tests in guests run once, in the normal build"
}

# result NAME COMMAND...: a case of this test, which passes when COMMAND succeeds
result() {
    if "${@:2}"; then
        echo "[PASS] $1"
    else
        echo "[FAIL] $1: ${*:2}"
        bad=1
    fi
}

# in_guest OPTION...: runs this script again, in a guest with these options of guest.sh, and does not return
in_guest() {
    once
    exec bash "$top/test/cluster/guest.sh" "$@" env top_srcdir="$top" top_builddir="${top_builddir:-$top}" \
        bash "$(cd "$(dirname "$0")" && pwd)/${0##*/}" guest
}

# in_cluster PART OPTION...: runs this script as the job of guests with these options of cluster.sh
in_cluster() {
    once
    bash "$top/test/cluster/cluster.sh" "${@:2}" -e top_srcdir="$top" -e top_builddir="${top_builddir:-$top}" \
        "$0" "$1"
}

# pair NAME CPU CPU allowed|refused: guest_peer with guest_peer
pair() {
    echo "$1, $(cut -d" " -f 1 /proc/uptime) s after boot"
    local uri server
    exec 3< <($as_user "$bin/guest_peer" serve "$1_server" "$2" 2>&1)
    server=$!
    read -r uri <&3
    $as_user "$bin/guest_peer" call "$1_caller" "$3" "$uri" "$4" 2>&1 || bad=1
    cat <&3
    wait $server || bad=1
    exec 3<&-
}
