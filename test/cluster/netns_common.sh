# SPDX-License-Identifier: BSD-3-Clause
# Nodes, n1 to n$nodes, which are network namespaces joined by a bridge, each with its own host name, /dev/shm and folder
# for temporary files. Sourced by bash, with $suite and $nodes set. The script runs twice: all of it is inside further
# namespaces of its own, so that names and networks clash with nobody's, and everything ends with the script, however
# that ends. Needs root. Node N has the addresses $net.N and fd77::N; "$dir/on" nN COMMAND... runs a command there.
net=10.77.0
self=$(readlink -f "$0")
top=${top_srcdir:-$(cd "$(dirname "$self")/../.." && pwd)}

skip() {
    echo "SKIP: $1"
    exit 77
}

# ---- outside: what this needs; then again inside ----

space=(unshare --mount --net --uts --pid --fork --kill-child --mount-proc)

outside() {
    local tool why inner
    [ "$(id -u)" = 0 ] || skip "network namespaces need root"
    for tool in ip unshare mount; do
        command -v $tool >/dev/null || skip "there is no '$tool' here (Debian: iproute2, util-linux, mount)"
    done
    why=$("${space[@]}" true 2>&1) || skip "namespaces cannot be made here: $why"
    folder=$(mktemp -d) || exit 1
    trap 'rm -rf "$folder"' EXIT
    trap 'kill -9 "$inner" 2>/dev/null; exit 143' TERM INT HUP
    why=$("${space[@]}" env PLAIT_NETNS=probe TMPDIR="$folder" bash "$self" 2>&1) ||
        skip "network namespaces cannot be joined here: $(tail -n 1 <<<"$why")"
    "${space[@]}" env PLAIT_NETNS=run TMPDIR="$folder" bash "$self" &
    inner=$!
    wait $inner 2>/dev/null
    exit $?
}

# ---- the nodes ----

make_node() { # make_node N
    local in=(ip -n "n$1")
    ip netns add "n$1" || return
    "${in[@]}" link set lo up || return
    if [ "$1" != $nodes ]; then
        # an interface that is there before the right one, with the same address everywhere, as containers have it;
        # the last node has neither this nor a default route
        "${in[@]}" link add a0 type veth peer name a1 && "${in[@]}" address add 192.168.77.1/24 dev a0 &&
            "${in[@]}" link set a0 up && "${in[@]}" link set a1 up || return
    fi
    "${in[@]}" link add eth0 type veth peer name "port$1" && "${in[@]}" link set "port$1" netns $$ &&
        ip link set "port$1" master bridge0 up && "${in[@]}" address add "$net.$1/24" dev eth0 &&
        "${in[@]}" address add "fd77::$1/64" dev eth0 nodad && "${in[@]}" link set eth0 up || return
    [ "$1" = $nodes ] || "${in[@]}" route add default via "$net.254" dev eth0
}

make_nodes() {
    local n
    mkdir -p /run && mount -t tmpfs tmpfs /run && ip link set lo up && ip link add bridge0 type bridge &&
        ip link set bridge0 up || return
    for n in $(seq $nodes); do make_node "$n" || return; done
    {
        echo "127.0.0.1 localhost"
        for n in $(seq $nodes); do echo "$net.$n n$n"; done
    } >"$TMPDIR/hosts" && mount --bind "$TMPDIR/hosts" /etc/hosts
}

case ${PLAIT_NETNS:-} in
probe) make_nodes; exit ;;
run) ;;
*) outside ;;
esac

# shellcheck source=../proc/examples_common.sh
. "$top/test/proc/examples_common.sh"
make_nodes || { echo "[FAIL] $suite::nodes"; exit 1; }

cat >"$dir/on" <<'END'
#!/bin/sh
node=$1
shift
TMPDIR=$TMPDIR/$node
export TMPDIR
mkdir -p "$TMPDIR" || exit 1
exec ip netns exec "$node" unshare --mount --uts sh -c \
    'hostname "$0" && mount -t tmpfs tmpfs /dev/shm && exec "$@"' "$node" "$@"
END
chmod +x "$dir/on"
