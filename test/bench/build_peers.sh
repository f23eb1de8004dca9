#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Builds the peer programs that this machine has compilers and libraries for, into the folder OUT, and
# names those that it has not. They are no part of plait: `make bench-peers` and test/bench/compare call
# this, nothing else needs them. Exit status: 0, or 1 if a program that could be built does not compile.
set -u
out=${1:-}
if [ -z "$out" ] || [ $# -gt 1 ] || [ "$out" = --help ]; then
    echo "usage: build_peers.sh OUT    (for example: build_peers.sh build/test/bench)" >&2
    exit 2
fi
src=$(cd "$(dirname "$0")" && pwd) || exit 1
mkdir -p "$out" || exit 1
flags="-std=gnu11 -O2 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -I$src"
status=0

# build NAME PACKAGES SOURCE COMPILER [LIBRARIES]
build() {
    name=$1 packages=$2 source=$3 cc=$4 libs=${5:-}
    if ! command -v "$cc" >/dev/null 2>&1; then
        echo "not built: $name ($cc is missing: apt-get install $packages)"
        return
    fi
    # shellcheck disable=SC2086
    if $cc $flags -o "$out/$name.tmp" "$src/$source" "$src/peer.c" $libs; then
        mv "$out/$name.tmp" "$out/$name"
        echo "built: $out/$name"
    else
        echo "not built: $name (does not compile)" >&2
        status=1
    fi
}

# with_pkg NAME PACKAGES SOURCE MODULE
with_pkg() {
    if libs=$(pkg-config --cflags --libs "$4" 2>/dev/null); then
        build "$1" "$2" "$3" "${CC:-cc}" "$libs"
    else
        echo "not built: $1 (no $4 for pkg-config: apt-get install $2)"
    fi
}

build raw_lat "${CC:-gcc}" raw_lat.c "${CC:-cc}"
build mpi_bench.openmpi libopenmpi-dev mpi_bench.c mpicc.openmpi
# MPICH's own MPI_STATUSES_IGNORE trips this warning of gcc
build mpi_bench.mpich libmpich-dev mpi_bench.c mpicc.mpich -Wno-stringop-overflow
with_pkg ucx_rpc "libucx-dev pkg-config" ucx_rpc.c ucx
with_pkg fi_bench "libfabric-dev pkg-config" fi_bench.c libfabric
with_pkg zmq_bench "libzmq3-dev pkg-config" zmq_bench.c libzmq
exit $status
