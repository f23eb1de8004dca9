#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Runs one command in a virtual machine with Debian's kernel, for what this machine's kernel cannot show: NUMA
# nodes, Yama, RDMA. The guest's root is this machine's, with all programs, libraries and the build folder, at
# the same paths; what the command writes there is gone at the end. QEMU emulates (no KVM is needed), so
# everything is 10 to 30 times slower; it takes about 6 s to boot.
set -u
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
me=${0##*/}

usage() {
    cat <<END
Usage: $me [OPTION]... COMMAND [ARGUMENT]...
Runs COMMAND as root in a guest, in the current folder; prints its output; exits with its exit status.
  -n NODES     NUMA nodes, with equal parts of the memory and of the CPUs (default 1); where they are
               more than the CPUs, the last ones have memory only
  -c CPUS      (default 2)
  -m MIB       memory of the guest (default 1024)
  -t SECONDS   limit for all of it (default 120); then the exit status is 124
  -o FOLDER    is \$GUEST_OUT in the guest, and what the command writes there stays; the guest's console
               and the command's output are in it, too (default: a temporary folder)
  -k MODULES   kernel modules to load besides those that the guest needs itself
  -a WORDS     more words on the kernel's command line
  -q OPTIONS   more options of QEMU, such as a network device; split at spaces
  -r ADDRESS   a network card eth0 with this IPv4 address (/24) and an MTU of 9000, and RDMA over it, the
               device rxe0 (also for rdma_cm); alone in its network, unless -q has '-netdev ...,id=n0'
  -N NAME      the guest's name; its own files are then in the folder NAME below the one of -o, which
               several guests may share (cluster.sh)
  --fetch      only gets the kernel
Other exit statuses: 77 it cannot run here (after a line "SKIP: reason"), 125 the guest failed.
The kernel comes from the archive of the distribution (apt-get download, 70 MB), once, into
\${XDG_CACHE_HOME:-~/.cache}/plait/guest; remove that folder to get the newest one.
END
}

skip() {
    echo "SKIP: $*"
    exit 77
}

# ---- the kernel: \$kernel/vmlinux and \$kernel/lib/modules/VERSION ----

# what the guest needs itself, and what RDMA in it needs
files=('boot/vmlinuz-*' 'boot/config-*' 'modules.builtin*' modules.order kernel/drivers/virtio kernel/net/9p
    kernel/net/core kernel/fs/9p kernel/fs/netfs kernel/fs/fscache kernel/fs/overlayfs kernel/fs/configfs
    kernel/crypto kernel/lib kernel/arch/x86/crypto kernel/drivers/infiniband 'drivers/net/*failover.ko'
    drivers/net/virtio_net.ko drivers/net/dummy.ko 'net/ip*/*udp_tunnel.ko')

# unpack_kernel FILE NEW_FILE: what it unpacks itself to when it boots, which takes a guest 4 s; without PVH
# or the program to unpack it, FILE itself will do
unpack_kernel() {
    local start size
    start=$(od -An -t u1 -j 497 -N 1 "$1")
    start=$(((start + 1) * 512 + $(od -An -t u4 -j 584 -N 4 "$1")))
    size=$(od -An -t u4 -j 588 -N 4 "$1")
    for unpack in "xz --single-stream -dcq" "zstd -dcq"; do
        grep -q '^CONFIG_PVH=y' "${1/vmlinuz/config}" || break
        # zstd counts the kernel's own trailer as an error
        tail -c +$((start + 1)) "$1" | head -c "$size" | $unpack >"$2" 2>/dev/null
        [ "$(head -c 4 "$2")" != $'\x7fELF' ] || return 0
    done
    cp "$1" "$2"
}

# fetch_kernel LOG: with the lock held, into a folder that is renamed when it is whole
fetch_kernel() {
    local new=$cache/new package
    package=$(apt-cache depends --important linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: //p')
    [ -n "$package" ] || skip "apt knows no package linux-image-amd64 (Debian's kernel) for the guest"
    rm -rf "$new"
    mkdir -p "$new"
    (cd "$new" && timeout 300 apt-get download "$package") >"$1" 2>&1 ||
        skip "the guest's kernel, $package, cannot be downloaded: $(grep '^E:' "$1" | head -n 1)"
    dpkg-deb --fsys-tarfile "$new"/*.deb 2>>"$1" |
        tar -x -C "$new" --wildcards --no-anchored "${files[@]}" >>"$1" 2>&1
    rm -f "$new"/*.deb
    unpack_kernel "$new"/boot/vmlinuz-* "$new/vmlinux" 2>>"$1" && rm -r "$new/boot" &&
        depmod -b "$new" "$(ls "$new/lib/modules")" >>"$1" 2>&1 &&
        mv "$new" "$kernel" && return
    skip "the guest's kernel, $package, cannot be unpacked: $(tail -n 1 "$1")"
}

get_kernel() {
    [ "$(uname -m)" = x86_64 ] || skip "the guest's kernel is for x86_64 only, this is $(uname -m)"
    for tool in qemu-system-x86_64 busybox cpio depmod modprobe apt-get apt-cache dpkg-deb flock; do
        command -v $tool >/dev/null ||
            skip "guests need $tool: install qemu-system-x86 busybox-static cpio kmod"
    done
    cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/plait/guest
    { mkdir -p "$cache" && exec 9>"$cache/lock"; } 2>/dev/null ||
        skip "no folder for the guest's kernel: cannot write $cache"
    # another list of files is another kernel
    kernel=$cache/kernel-$(printf '%s\n' "${files[@]}" | cksum | cut -d' ' -f1)
    flock 9
    [ -e "$kernel/vmlinux" ] || fetch_kernel "$cache/log"
    exec 9>&-
    version=$(ls "$kernel/lib/modules")
}

# ---- the initramfs ----

# the first process: modules, the root, and on to $own/start
print_init() {
    cat <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir /proc /sys /dev /host /rw /new 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod /modules/$module || echo "guest: no module $module"; done </modules/list
p9=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $p9,cache=loose,ro host /host
mount -t tmpfs -o size=50% rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /new
mkdir -p /new/guest-out
mount -t 9p -o $p9,cache=none out /new/guest-out || echo "guest: no root, or no place for results"
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts
mount -t devpts devpts /new/dev/pts
ln -s /proc/self/fd /new/dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${i%:*} /new/dev/${i#*:}; done
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
ifconfig lo up
umount /proc /sys
END
    echo "exec switch_root /new /bin/sh /guest-out/${name:+$name/}start"
}

# print_start COMMAND...: what the first process does then; the guest's end is that of the command
print_start() {
    local own=/guest-out${name:+/$name}
    cat <<END
hostname ${name:-plait-guest}
cd $(printf %q "$PWD")
export LC_ALL=C PATH=$(printf %q "$PATH") HOME=/root TMPDIR=/tmp GUEST_OUT=/guest-out
exec >$own/output 2>&1 </dev/null
END
    [ -z "$address" ] || cat <<END
for command in "ip link set eth0 mtu 9000 up" "ip address add $address/24 brd + dev eth0" \\
    "rdma link add rxe0 type rxe netdev eth0"; do
    \$command || echo "guest: no network, or no RDMA: \$command"
done
END
    cat <<END
bash -c $(printf %q "exec $(printf '%q ' "$@")")
echo \$? >$own/rc.tmp
mv $own/rc.tmp $own/rc
echo o >/proc/sysrq-trigger
sleep 60
END
}

make_initramfs() {
    local root=$tmp/initramfs m
    mkdir -p "$root/bin" "$root/modules"
    cp "$(command -v busybox)" "$root/bin/busybox"
    print_init >"$root/init"
    chmod +x "$root/init"
    for m in virtio_pci 9pnet_virtio 9p overlay $modules; do
        modprobe -d "$kernel" -S "$version" --show-depends "$m" || return
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tmp/modules"
    xargs cp -t "$root/modules" <"$tmp/modules" && sed 's|.*/||' "$tmp/modules" >"$root/modules/list"
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd"
}

# ---- the machine ----

# numa_options: nodes, each with its part of the memory and of the CPUs
numa_options() {
    local i first=0 last of
    [ "$nodes" -gt 1 ] || return
    for ((i = 0; i < nodes; i++)); do
        last=$((cpus < nodes ? i : cpus * (i + 1) / nodes - 1))
        of=$([ $first -ge "$cpus" ] || echo ",cpus=$first-$last")
        echo "-object memory-backend-ram,id=m$i,size=$((memory / nodes))M"
        echo "-numa node,nodeid=$i,memdev=m$i$of"
        first=$((last + 1))
    done
}

# network_options: the card of -r, and unless -q says otherwise nothing at the other end of its cable
network_options() {
    [ -n "$address" ] || return
    case $more in
    *-netdev*) ;;
    *) echo "-netdev hubport,id=n0,hubid=0" ;;
    esac
    echo "-device virtio-net-pci,netdev=n0,host_mtu=9000,romfile=,mac=$(printf '52:54:%02x:%02x:%02x:%02x' ${address//./ })"
}

# no_timer_check: on a busy machine the emulated timer is late for the kernel's check, which then leaves it off
kernel_words="console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable clocksource=tsc no_timer_check
    cryptomgr.notests 8250.nr_uarts=1"

run_guest() {
    local options=(-accel "tcg,thread=multi" -cpu max
        -smp "$cpus" -m "$((memory / nodes * nodes))M" $(numa_options)
        -nodefaults -no-user-config -no-reboot -display none -serial "file:$own/console"
        -kernel "$kernel/vmlinux" -initrd "$tmp/initrd"
        -append "${kernel_words//$'\n'/ } $words"
        -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        -virtfs "local,path=${share//,/,,},mount_tag=out,security_model=none,multidevs=remap"
        $(network_options) $more)
    # --foreground: in the group of this script, so that QEMU is killed with it; wait: so that a trap comes
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 "${options[@]}" >"$own/qemu" 2>&1 </dev/null &
    qemu=$!
    wait $qemu
    status=$?
    qemu=
}

nodes=1 cpus=2 memory=1024 limit=120 share= modules= words= more= address= name=
if [ "${1:-}" = --fetch ]; then
    get_kernel
    echo "$kernel: Linux $version"
    exit 0
fi
while getopts n:c:m:t:o:k:a:q:r:N:h opt; do
    case $opt in
    n) nodes=$OPTARG ;;
    c) cpus=$OPTARG ;;
    m) memory=$OPTARG ;;
    t) limit=$OPTARG ;;
    o) share=$OPTARG ;;
    k) modules=$OPTARG ;;
    a) words=$OPTARG ;;
    q) more=$OPTARG ;;
    r) address=$OPTARG ;;
    N) name=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 125 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 125; }
if [ -n "$address" ]; then
    modules="$modules virtio_net crc32_generic rdma_rxe rdma_ucm ib_uverbs"
    for tool in ip rdma; do
        command -v $tool >/dev/null || skip "a guest with RDMA needs $tool: install iproute2"
    done
fi

get_kernel
tmp=$(mktemp -d "${TMPDIR:-/tmp}/plait-test-guest.XXXXXX") || exit 125
qemu=
trap '[ -z "$qemu" ] || { kill $qemu; wait $qemu; }; rm -rf "$tmp"' EXIT
trap 'exit 125' HUP INT TERM
share=${share:-$tmp/share}
own=$share${name:+/$name}
mkdir -p "$own" && share=$(cd "$share" && pwd) && own=$(cd "$own" && pwd) || exit 125
rm -f "$own/rc" "$own/output"
print_start "$@" >"$own/start"
make_initramfs || { echo "$me: the initramfs cannot be made" >&2; exit 125; }
run_guest
[ ! -e "$own/output" ] || cat "$own/output"
rc=$(cat "$own/rc" 2>/dev/null)
[ -z "$rc" ] || exit "$rc"
{
    [ $status = 124 ] && echo "$me: the guest did not end within $limit s" ||
        echo "$me: the guest ended without a result, QEMU with exit status $status"
    echo "--- QEMU, and the last lines of the console:"
    tail -n 40 "$own/qemu" "$own/console"
} >&2
[ $status = 124 ] && exit 124
exit 125
