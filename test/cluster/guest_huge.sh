#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# In a guest with one huge page of 1 GiB, which its kernel sets aside when it boots.
. "$(dirname "$0")/guest_common.sh"

if [ $part = host ]; then
    # QEMU's process takes what the guest touches
    available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    [ "${available:-0}" -ge 3000 ] ||
        skip "a guest with a page of 1 GiB needs 3000 MiB of memory, $available MiB are available"
    in_guest -c 2 -m 2304 -t 270 -a "hugepagesz=1G hugepages=1"
fi
if ! grep -qw pdpe1gb /proc/cpuinfo || [ "$(cat /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages)" != 1 ]; then
    skip "the guest has no page of 1 GiB"
fi
"$bin/guest_huge" || bad=1
exit $bad
