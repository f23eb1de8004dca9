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
  -n NODES     NUMA nodes, with equal parts of the memory and of the CPUs (default 1)
  -c CPUS      (default 2; at least one for each node)
  -m MIB       memory of the guest (default 1024)
  -t SECONDS   limit for all of it (default 120); then the exit status is 124
  -o FOLDER    is \$GUEST_OUT in the guest, and what the command writes there stays; the guest's console
               and the command's output are in it, too (default: a temporary folder)
  -k MODULES   kernel modules to load besides those that the guest needs itself
  -a WORDS     more words on the kernel's command line
  -q OPTIONS   more options of QEMU, such as a network device; split at spaces
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

# ---- the kernel: \$cache/kernel/vmlinuz and \$cache/kernel/lib/modules/VERSION ----

# fetch_kernel LOG: with the lock held, into a folder that is renamed when it is whole
fetch_kernel() {
    local new=$cache/new package
    # what the guest needs itself, and what RDMA in it will need
    local files=('boot/vmlinuz-*' 'modules.builtin*' modules.order kernel/drivers/virtio kernel/net/9p
        kernel/net/core kernel/fs/9p kernel/fs/netfs kernel/fs/fscache kernel/fs/overlayfs kernel/crypto
        kernel/lib kernel/arch/x86/crypto kernel/drivers/infiniband 'drivers/net/*failover.ko'
        drivers/net/virtio_net.ko 'net/ip*/*udp_tunnel.ko')
    package=$(apt-cache depends --important linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: //p')
    [ -n "$package" ] || skip "apt knows no package linux-image-amd64 (Debian's kernel) for the guest"
    rm -rf "$new"
    mkdir -p "$new"
    (cd "$new" && timeout 300 apt-get download "$package") >"$1" 2>&1 ||
        skip "the guest's kernel, $package, cannot be downloaded: $(grep '^E:' "$1" | head -n 1)"
    dpkg-deb --fsys-tarfile "$new"/*.deb 2>>"$1" |
        tar -x -C "$new" --wildcards --no-anchored "${files[@]}" >>"$1" 2>&1
    rm -f "$new"/*.deb
    mv "$new"/boot/vmlinuz-* "$new/vmlinuz" 2>>"$1" &&
        depmod -b "$new" "$(ls "$new/lib/modules")" >>"$1" 2>&1 &&
        mv "$new" "$cache/kernel" && return
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
    flock 9
    [ -e "$cache/kernel/vmlinuz" ] || fetch_kernel "$cache/log"
    exec 9>&-
    version=$(ls "$cache/kernel/lib/modules")
}

# ---- the initramfs ----

# the first process: modules, the root, and on to $share/start
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
hostname plait-guest
umount /proc /sys
exec switch_root /new /bin/sh /guest-out/start
END
}

# print_start COMMAND...: what the first process does then; the guest's end is that of the command
print_start() {
    cat <<END
cd $(printf %q "$PWD")
export LC_ALL=C PATH=$(printf %q "$PATH") HOME=/root TMPDIR=/tmp GUEST_OUT=/guest-out
bash -c $(printf %q "exec $(printf '%q ' "$@")") >/guest-out/output 2>&1 </dev/null
echo \$? >/guest-out/rc.tmp
mv /guest-out/rc.tmp /guest-out/rc
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
        modprobe -d "$cache/kernel" -S "$version" --show-depends "$m" || return
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$tmp/modules"
    xargs cp -t "$root/modules" <"$tmp/modules" && sed 's|.*/||' "$tmp/modules" >"$root/modules/list"
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd"
}

# ---- the machine ----

# numa_options: nodes, each with its part of the memory and of the CPUs
numa_options() {
    local i first=0 last
    [ "$nodes" -gt 1 ] || return
    for ((i = 0; i < nodes; i++)); do
        last=$((cpus * (i + 1) / nodes - 1))
        echo "-object memory-backend-ram,id=m$i,size=$((memory / nodes))M"
        echo "-numa node,nodeid=$i,cpus=$first-$last,memdev=m$i"
        first=$((last + 1))
    done
}

run_guest() {
    local options=(-accel "tcg,thread=multi" -cpu max
        -smp "$cpus" -m "$((memory / nodes * nodes))M" $(numa_options)
        -nodefaults -no-user-config -no-reboot -display none -serial "file:$share/console"
        -kernel "$cache/kernel/vmlinuz" -initrd "$tmp/initrd"
        -append "console=ttyS0 quiet mitigations=off nokaslr panic=-1 tsc=reliable clocksource=tsc $words"
        -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        -virtfs "local,path=${share//,/,,},mount_tag=out,security_model=none,multidevs=remap" $more)
    # --foreground: in the group of this script, so that QEMU is killed with it; wait: so that a trap comes
    timeout --foreground -k 5 "$limit" qemu-system-x86_64 "${options[@]}" >"$share/qemu" 2>&1 </dev/null &
    qemu=$!
    wait $qemu
    status=$?
    qemu=
}

nodes=1 cpus=2 memory=1024 limit=120 share= modules= words= more=
if [ "${1:-}" = --fetch ]; then
    get_kernel
    echo "$cache/kernel: Linux $version"
    exit 0
fi
while getopts n:c:m:t:o:k:a:q:h opt; do
    case $opt in
    n) nodes=$OPTARG ;;
    c) cpus=$OPTARG ;;
    m) memory=$OPTARG ;;
    t) limit=$OPTARG ;;
    o) share=$OPTARG ;;
    k) modules=$OPTARG ;;
    a) words=$OPTARG ;;
    q) more=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 125 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 125; }
[ "$cpus" -ge "$nodes" ] || { echo "$me: $nodes nodes need $nodes CPUs at least, not $cpus" >&2; exit 125; }

get_kernel
tmp=$(mktemp -d "${TMPDIR:-/tmp}/plait-test-guest.XXXXXX") || exit 125
qemu=
trap '[ -z "$qemu" ] || { kill $qemu; wait $qemu; }; rm -rf "$tmp"' EXIT
trap 'exit 125' HUP INT TERM
share=${share:-$tmp/share}
mkdir -p "$share" && share=$(cd "$share" && pwd) || exit 125
rm -f "$share/rc" "$share/output"
print_start "$@" >"$share/start"
make_initramfs || { echo "$me: the initramfs cannot be made" >&2; exit 125; }
run_guest
[ ! -e "$share/output" ] || cat "$share/output"
rc=$(cat "$share/rc" 2>/dev/null)
[ -z "$rc" ] || exit "$rc"
{
    [ $status = 124 ] && echo "$me: the guest did not end within $limit s" ||
        echo "$me: the guest ended without a result, QEMU with exit status $status"
    echo "--- QEMU, and the last lines of the console:"
    tail -n 40 "$share/qemu" "$share/console"
} >&2
[ $status = 124 ] && exit 124
exit 125
