#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Yama's levels 0 to 3, in a guest: process_vm_readv between two unrelated processes of an ordinary user is
# allowed at 0 only; large messages between them pass at each, and the counters say how.
. "$(dirname "$0")/guest_common.sh"

if [ $part = host ]; then
    in_guest -c 2 -t 270
fi
# the build folder may be closed to an ordinary user
cp "$bin/guest_peer" /run/guest_peer && bin=/run
as_user="setpriv --reuid=65534 --regid=65534 --clear-groups"
# level 3 is the last one: it stays until the next boot
for level in 0 1 2 3; do
    if ! echo $level >/proc/sys/kernel/yama/ptrace_scope; then
        echo "[FAIL] guest_yama::level_$level: the kernel does not take it"
        exit 1
    fi
    READ_MEMORY=$([ $level = 0 ] && echo allowed || echo refused)
    export READ_MEMORY PLAIT_TAKE=cma
    pair "yama_$level" 0 1 $READ_MEMORY
done
exit $bad
