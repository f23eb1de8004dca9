#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# plait_job_* under the launchers that are installed, with 1 to 8 ranks, and without one: see job_prog.c.
suite=job
. "$(dirname "$0")/examples_common.sh"
prog=$build/test/proc/job_prog
need_launcher

verdict alone launch alone alone 1 "$prog" 1 none
for n in 1 2 3 4 8; do
    [ -z "$openmpi" ] || verdict "openmpi_$n" launch "openmpi_$n" openmpi $n "$prog" $n pmix
    [ -z "$mpich" ] || verdict "mpich_$n" launch "mpich_$n" mpich $n "$prog" $n pmi1
done
if [ -n "$openmpi" ] && [ "$(nproc)" -ge 2 ]; then
    verdict openmpi_bound launch bound bound 2 "$prog" 2 pmix
fi
verdict nothing_left clean
exit $bad
