#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Greps the #includes of every room and fails on an arrow that points the wrong way (doc/architecture.md):
#   include/plait -> libc, itself       util    -> + include/plait     topo -> + util, hwloc, libnuma
#   runtime       -> + topo             shm, fabric -> include/plait, util, topo, and of runtime only
#   transport.h and what that includes  tools, examples -> include/plait and their own private headers
# It proves itself first on planted trees, each with one wrong arrow.
set -u
export LC_ALL=C
top=${top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# third-party headers, and the rooms that may include them
owners_of() {
    case $1 in
    hwloc.h|hwloc/*|numa.h|numaif.h) echo topo test/unit/topo ;;
    rdma/*) echo fabric test tools/limit_fabric ;; # the limit is a program of libfabric's own API
    infiniband/*) echo fabric test ;;
    pmix.h|pmix_*) echo runtime test ;;
    json.h|json-c/*|json_*) echo tools test ;;
    png.h) echo examples ;;
    mpi.h|ucp/*|ucs/*|uct/*|criterion/*) echo test ;;
    *) echo any ;;
    esac
}

# the headers of runtime that a transport sees: transport.h and what it includes, and so on
transport_headers() {
    local root=$1 seen=" " todo=runtime/transport.h f inc
    while [ -n "$todo" ]; do
        f=${todo%% *}
        todo=${todo#"$f"}
        todo=${todo# }
        case $seen in *" $f "*) continue ;; esac
        [ -f "$root/$f" ] || continue
        seen="$seen$f "
        for inc in $(includes_of "$root/$f" | sed -n 's/^[0-9]*:"//p'); do
            [ -f "$root/$inc" ] || inc=runtime/$inc
            case $inc in runtime/*) todo="$todo${todo:+ }$inc" ;; esac
        done
    done
    echo "$seen"
}

# lines "NUMBER:<header" or "NUMBER:"header"
includes_of() {
    grep -noE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<][^">]+' "$1" |
        sed -E 's/^([0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*/\1:/'
}

# may ROOM include the project's file TARGET (a path from the top)?
allowed() {
    local room=$1 target=$2
    case $room:$target in
    *:config.h) [ "$room" != include ] ;;
    test:*) true ;;
    *:include/plait/*) true ;;
    util:util/*|topo:topo/*|runtime:runtime/*|shm:shm/*|fabric:fabric/*) true ;;
    tools:tools/*|examples:examples/*) true ;;
    topo:util/*) true ;;
    runtime:util/*|runtime:topo/*) true ;;
    shm:util/*|shm:topo/*|fabric:util/*|fabric:topo/*) true ;;
    shm:runtime/*|fabric:runtime/*)
        case $contract in *" $target "*) true ;; *) false ;; esac ;;
    *) false ;;
    esac
}

check_include() {
    local root=$1 file=$2 room=$3 line=$4 mark=$5 name=$6 owner target
    for owner in $(owners_of "$name"); do
        [ "$owner" = any ] && break
        case $file in "$owner"/*|"$owner"*.[ch]) break ;; esac
        owner=
    done
    if [ -z "$owner" ]; then
        echo "$file:$line: <$name> belongs to: $(owners_of "$name")"
        return
    fi
    # which file of the project is it, if any: beside the file, from the top, or a public header
    target=
    if [ "$mark" = '"' ] && [ -f "$root/$(dirname "$file")/$name" ]; then
        target=$(dirname "$file")/$name
    elif [ -f "$root/$name" ]; then
        target=$name
    elif [ -f "$root/include/$name" ]; then
        target=include/$name
    elif [ "$name" = config.h ]; then
        target=config.h
    fi
    case $target in
    *../*) echo "$file:$line: write \"$name\" as a path from the top, without .." ; return ;;
    '') [ "$mark" = '<' ] || echo "$file:$line: \"$name\" is not in this tree"; return ;;
    esac
    allowed "$room" "$target" || echo "$file:$line: $room must not include $target"
}

# prints the wrong arrows of the tree at $1
check_tree() {
    local root=$1 file room hit
    contract=$(transport_headers "$root")
    for room in include util topo runtime shm fabric tools examples test; do
        [ -d "$root/$room" ] || continue
        while read -r file; do
            file=${file#"$root/"}
            while IFS= read -r hit; do
                [ -n "$hit" ] || continue
                local number=${hit%%:*} rest=${hit#*:}
                check_include "$root" "$file" "$room" "$number" "${rest:0:1}" "${rest:1}"
            done < <(includes_of "$root/$file")
        done < <(find "$root/$room" -name '*.[ch]' | sort)
    done
}

good_tree() {
    rm -rf "$tmp/t"
    mkdir -p "$tmp/t"/{include/plait,util,topo,runtime,shm,fabric,tools,examples,test/unit/shm}
    cd "$tmp/t" || exit 1
    echo '#include <stddef.h>' >include/plait/plait.h
    printf '%s\n' '#include <plait/plait.h>' '#include <string.h>' >util/list.h
    printf '%s\n' '#include "util/list.h"' '#include <hwloc.h>' '#include <numaif.h>' >topo/topo.h
    echo '#include "topo/topo.h"' >runtime/core.h
    echo '#include "runtime/mem.h"' >runtime/transport.h
    echo '#include "util/list.h"' >runtime/mem.h
    printf '%s\n' '#include "runtime/transport.h"' '#include "runtime/mem.h"' '# include "ring.h"' >shm/shm.c
    echo '#include "topo/topo.h"' >shm/ring.h
    printf '%s\n' '#include "runtime/transport.h"' '#include <rdma/fabric.h>' >fabric/ofi.c
    printf '%s\n' '#include <plait/plait.h>' '#include "table.h"' '#include <json-c/json.h>' >tools/main.c
    echo '#include <stdio.h>' >tools/table.h
    echo '#include <rdma/fi_rma.h>' >tools/limit_fabric.c
    printf '%s\n' '#include <plait/plait.h>' '#include <png.h>' >examples/heat.c
    printf '%s\n' '#include "shm/ring.h"' '#include <criterion/criterion.h>' >test/unit/shm/test_ring.c
}

must_fail() { # FILE LINE: one wrong arrow planted into a good tree must be found, and only that
    local found
    good_tree
    echo "$2" >>"$1"
    found=$(check_tree "$tmp/t")
    if [ "$(echo "$found" | grep -c "^$1:")" = 1 ] && [ "$(echo "$found" | wc -l)" = 1 ]; then
        echo "[PASS] layers::planted in $1 is found, $2"
    else
        echo "[FAIL] layers::planted in $1 is not found, $2"
        echo "$found"
    fi
}

good_tree
found=$(check_tree "$tmp/t")
if [ -z "$found" ]; then echo "[PASS] layers::a good tree passes"; else
    echo "[FAIL] layers::a good tree passes"; echo "$found"; fi
must_fail include/plait/plait.h '#include "util/list.h"'
must_fail include/plait/plait.h '#include <hwloc.h>'
must_fail include/plait/plait.h '#include "config.h"'
must_fail util/list.h '#include "topo/topo.h"'
must_fail util/list.h '#  include <runtime/core.h>'
must_fail util/list.h '#include <numa.h>'
must_fail topo/topo.h '#include "runtime/core.h"'
must_fail runtime/core.h '#include "shm/ring.h"'
must_fail runtime/core.h '#include "fabric/ofi.c"'
must_fail runtime/core.h '#include <hwloc/linux.h>'
must_fail runtime/core.h '#include <rdma/fabric.h>'
must_fail shm/shm.c '#include "runtime/core.h"'
must_fail shm/ring.h '#include "fabric/ofi.c"'
must_fail shm/ring.h '#include <numaif.h>'
must_fail shm/ring.h '#include "../runtime/transport.h"'
must_fail fabric/ofi.c '#include "shm/ring.h"'
must_fail fabric/ofi.c '#include "runtime/core.h"'
must_fail tools/main.c '#include "util/list.h"'
must_fail tools/table.h '#include <hwloc.h>'
must_fail tools/main.c '#include <rdma/fabric.h>'
must_fail tools/limit_fabric.c '#include <infiniband/verbs.h>'
must_fail examples/heat.c '#include "topo/topo.h"'
must_fail examples/heat.c '#include <mpi.h>'
must_fail test/unit/shm/test_ring.c '#include <hwloc.h>'
must_fail shm/shm.c '#include "missing.h"'

found=$(check_tree "$top")
if [ -z "$found" ]; then echo "[PASS] layers::this tree"; else
    echo "[FAIL] layers::this tree: $(echo "$found" | wc -l) wrong includes"; echo "$found"; fi
[ -z "$found" ]
