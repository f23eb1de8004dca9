#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# In a guest with two NUMA nodes: memory and pools are on the node that was asked for, the rings of a link on
# the node of whoever reads them, and huge pages are taken where there are some.
. "$(dirname "$0")/guest_common.sh"

if [ $part = host ]; then
    in_guest -n 2 -c 2 -m 1024 -t 270
fi
"$bin/guest_numa" || bad=1
pair numa 0 1 allowed
exit $bad
