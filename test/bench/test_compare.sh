#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# test/bench/compare without any measuring: canned outputs, stand-ins for the commands, bad options.
set -u
here=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}/test/bench
command -v python3 >/dev/null || { echo "SKIP: no python3 (apt-get install python3)"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
python=$(python3 -c 'import sys; print(sys.executable)')
failed=0

pass() { echo "[PASS] compare::$1"; }
fail() { echo "[FAIL] compare::$1: $2"; failed=1; }

# expect NAME FILE TEXT...: each text is in the file; runs of spaces count as one
expect() {
    name=$1 file=$2
    shift 2
    for text in "$@"; do
        tr -s ' ' <"$file" | grep -qF -- "$text" && continue
        fail "$name" "'$text' is not in the output:"
        cat "$file"
        return
    done
    pass "$name"
}

# compare STATUS ARGS...: runs it without the peers' commands in PATH; its output in $dir/out
compare() {
    want=$1
    shift
    PATH="$dir/bin:$path" "$python" "$here/compare" "$@" >"$dir/out" 2>&1
    got=$?
    [ $got = "$want" ] || { fail "status" "exit status $got instead of $want: $*"; cat "$dir/out"; }
}

plait_lat() { # SIZE P50 LIMIT
    printf '{"test":"lat","transport":"shm","size":%s,"window":1,"half_rtt_ns":' "$1"
    printf '{"min":1,"p50":%s,"p90":900,"p99":901,"max":902},"limit":%s,"ratio":1}\n' "$2" "$3"
}

ucx() { # SIZE P50_US RATE [MIB_PER_S]
    echo "# size $1"
    echo "iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr"
    echo "500000,$2,0.9,0.9,85.46,${4:-85.46},11201837,$3"
}

bw() { # TRANSPORT SIZE GB/S [LIMIT]
    printf '{"test":"bw","transport":"%s","size":%s,"window":64,' "$1" "$2"
    printf '"bytes_per_s":%se9,"limit":%se9}\n' "$3" "${4:-1}"
}

mkdir "$dir/bin" "$dir/raw"
path=/nonexistent

# rounds 1, 2, 3: plait 70, 90, 80 over a limit of 50, 100, 80; UCX tag 140, 100, 120; Open MPI 200, 90, 150
for i in 1 2 3; do
    case $i in
    1) set -- 70 50 0.140 200 ;;
    2) set -- 90 100 0.100 90 ;;
    3) set -- 80 80 0.120 150 ;;
    esac
    for size in 8 64 1024 4096; do
        plait_lat $size "$1" "$2" >>"$dir/raw/plait.lat.$i"
        ucx $size "$3" 7 >>"$dir/raw/ucx-tag.lat.$i"
        plait_lat $size "$4" 1 >>"$dir/raw/openmpi.lat.$i"
        plait_lat $size "$4" 1 >>"$dir/raw/plait-copy.lat.$i"
    done
    echo "{\"test\":\"rate\",\"size\":8,\"window\":64,\"msgs_per_s\":${i}0000000,\"limit\":100000000}" \
        >"$dir/raw/plait.rate.$i"
    { ucx 8 0.05 "${i}500000"; ucx 8 0.05 1000000; } >"$dir/raw/ucx-tag.rate.$i" # the better one counts
    for size in 65536 1048576 4194304 67108864; do
        bw plait $size "${i}0" 40 >>"$dir/raw/plait.bw.$i"
        bw mpi $size 5 >>"$dir/raw/mpich.bw.$i"
        ucx $size 9 7 "${i}000" >>"$dir/raw/ucx-am.bw.$i"
    done
    for w in 1 16 64; do
        printf '{"test":"rpc","size":8,"window":%s,"requests_per_s":%s000000,"limit":64000000}\n' \
            $w $((w * i))
    done >"$dir/raw/plait.rpc.$i"
done

compare 1 --replay "$dir/raw" --rounds 3 --json "$dir/out.json"
expect medians "$dir/out" \
    " limit (shared memory) 80.0 50.0 100.0 1.00 0.67" \
    " plait 80.0 70.0 90.0 1.00 0.67 in place" \
    " plait, copied 150.0 90.0 200.0 1.88 1.25 copied" \
    "* MPICH 5.00 5.00 5.00 0.12 1.00 copied" \
    " UCX AM 2.10 1.05 3.15 0.05 0.42 copied" \
    " plait 20.00 10.00 30.00 0.50 4.00" \
    " limit (shared memory) 40.00 40.00 40.00 1.00 8.00" \
    " 64 MiB median" \
    "* UCX tag 120.0 100.0 140.0 1.50 1.00" \
    " Open MPI 150.0 90.0 200.0 1.88 1.25" \
    " plait 20.00 10.00 30.00 0.20 8.00" \
    "* UCX tag 2.50 1.50 3.50 0.03 1.00" \
    " plait 32.00 16.00 48.00 0.50 -"
expect drift "$dir/out" "The limit itself moved by a factor of 2.0"
expect missing_record "$dir/out" "MPICH failed in round 1: no recorded output mpich.lat.1"
"$python" - "$dir/out.json" >"$dir/json" 2>&1 <<'EOF'
import json, sys
d = json.load(open(sys.argv[1]))
f = {(x["test"], x["size"], x.get("window")): x for x in d["figures"]}
assert len(f) == 12 and d["rounds"] == 3, f.keys()
lat = f["lat", 4096, None]
assert lat["contenders"]["plait"]["received"] == "in place"
assert f["bw", 67108864, None]["contenders"]["ucx-am"]["median"] == 2000 * 1048576
assert lat["best_peer"] == "ucx-tag" and lat["unit"] == "ns"
assert lat["contenders"]["plait"]["rounds"] == [70, 90, 80] and lat["contenders"]["plait"]["median"] == 80
assert abs(lat["contenders"]["plait"]["to_limit"] - 1.0) < 1e-9
assert f["rpc", 8, 16]["contenders"]["plait"]["median"] == 32e6
assert "no recorded output" in f["rate", 8, None]["contenders"]["mpich"]["missing"]
print("right")
EOF
expect json "$dir/json" right

if command -v gnuplot >/dev/null; then
    path=$(dirname "$(command -v gnuplot)")
    compare 1 --replay "$dir/raw" --rounds 3 --svg "$dir/it's.svg"
    path=/nonexistent
    expect svg "$dir/it's.svg" "<svg" "UCX tag" "Open MPI" "requests in flight" "GB/s" "64M" "plait, copied"
else
    echo "[SKIP] compare::svg: no gnuplot"
fi
compare 2 --replay "$dir/raw" --svg "$dir/no.svg"
expect svg_without_gnuplot "$dir/out" "--svg needs gnuplot: apt-get install gnuplot-nox"

echo '{"test":"lat","size":8,"half_rtt_ns":' >"$dir/raw/mpich.lat.1"
compare 1 --replay "$dir/raw" --rounds 1 --tests lat --peers mpich
expect garbage "$dir/out" "MPICH failed in round 1: unreadable line of JSON"
plait_lat 8 100 1 >"$dir/raw/mpich.lat.1"
compare 1 --replay "$dir/raw" --rounds 1 --tests lat --peers mpich
expect lacking "$dir/out" "MPICH failed in round 1: no figure for 64 B, 1 KiB, 4 KiB"

echo "{" >"$dir/raw/openmpi.lat.2"
compare 1 --replay "$dir/raw" --rounds 3 --tests lat --peers openmpi
expect one_bad_round "$dir/out" "* Open MPI 175.0 150.0 200.0" \
    "Open MPI failed in round 2: unreadable line of JSON"

# running: a stand-in for plait and for a peer program, and no other peer
cat >"$dir/bin/plait" <<'EOF'
#!/bin/sh
case "$*" in
--version) echo "plait 9.8.7" ;;
"perf lat --size 8,64,1024,4096 --iterations "*" --rounds 3 --cpus $cores --json") /bin/cat "$0.lat" ;;
"perf lat --size 8,64,1024,4096 --touch copy --iterations "*" --rounds 3 --cpus $cores --json")
    /bin/cat "$0.copy" ;;
"perf bw --size 65536 --take copy "*) echo "plait perf: not in this version" >&2; exit 1 ;;
"perf bw --size "*" --iterations "*" --rounds 3 --cpus $cores --json")
    echo "{\"test\":\"bw\",\"size\":$4,\"bytes_per_s\":4e10}" ;;
*) echo "plait: unknown option: $*" >&2; exit 2 ;;
esac
EOF
cp "$dir/raw/plait.lat.1" "$dir/bin/plait.lat"
cp "$dir/raw/plait-copy.lat.1" "$dir/bin/plait.copy"
cp "$dir/raw/openmpi.lat.1" "$dir/bin/fi_bench.lat"
cat >"$dir/bin/fi_bench" <<'EOF'
#!/bin/sh
[ "$*" = "lat --size 8,64,1024,4096 --cores $cores --seconds 0.05" ] && /bin/cat "$0.lat"
EOF
chmod +x "$dir/bin/plait" "$dir/bin/fi_bench"
cores=$("$python" -c 'import os; print(",".join(map(str, sorted(os.sched_getaffinity(0))[:2])))')
export cores
case $cores in
*,*)
    compare 0 --quick --tests lat --rounds 2 --plait "$dir/bin/plait" --peer-dir "$dir/bin" --no-build
    expect running "$dir/out" \
        " plait 9.8.7 70.0 70.0 70.0 1.40 0.35" \
        " plait 9.8.7, copied 200.0 200.0 200.0 4.00 1.00" \
        "* libfabric shm 200.0 200.0 200.0 4.00 1.00"
    expect missing_peers "$dir/out" \
        "missing: ucx_perftest is not installed: apt-get install ucx-utils" \
        "missing: mpirun.openmpi is not installed: apt-get install openmpi-bin libopenmpi-dev" \
        "missing: mpiexec.mpich is not installed: apt-get install mpich libmpich-dev"
    cat >"$dir/bin/raw_lat" <<'EOF'
#!/bin/sh
read -r n <"$0.count"
echo $((n + 1)) >"$0.count"
[ "$n" = 7 ] && distance=300 || distance=60
echo "{\"test\":\"lat\",\"half_rtt_ns\":{\"p50\":$distance}}"
EOF
    chmod +x "$dir/bin/raw_lat"
    echo 1 >"$dir/bin/raw_lat.count"
    compare 0 --quick --tests lat --rounds 1 --plait "$dir/bin/plait" --peer-dir "$dir/bin" --no-build
    expect moved_cores "$dir/out" "1 runs were repeated because the cores were elsewhere before or after; 0"
    compare 1 --quick --tests rpc --rounds 1 --plait "$dir/bin/plait" --peer-dir "$dir/bin" --no-build
    expect failing_command "$dir/out" \
        "failed in round 1: exit status 2: plait: unknown option: perf rpc --size 8 --window 1,16,64" \
        "ucx_rpc is not built: apt-get install libucx-dev, then make bench-peers"
    compare 0 --quick --tests lat,bw --sizes 1M --peers '' --rounds 1 --plait "$dir/bin/plait"
    expect sizes "$dir/out" " 1 MiB median" " plait 9.8.7 40.00 40.00 40.00" \
        "plait 9.8.7, copied missing: exit status 1: plait perf: not in this version"
    ! grep -q 'Half round trip\|KiB' "$dir/out" && pass sizes_only || fail sizes_only "there are others"
    compare 1 --quick --tests lat --peers '' --plait "$dir/none"
    expect missing_plait "$dir/out" \
        "missing: no command $dir/none: build plait (make), or name it with --plait"
    ;;
*) echo "[SKIP] compare::running: only one core" ;;
esac

# over TCP: plait 5.0, 5.5, 7.0 us over raw TCP 5.0 and bare libfabric 5.0; UCX tag 6.0; ZeroMQ 40; fi_pingpong 7.0
mkdir "$dir/tcp"
for i in 1 2 3; do
    case $i in 1) p50=5000 ;; 2) p50=5500 ;; 3) p50=7000 ;; esac
    printf '{"test":"lat","size":8,"half_rtt_ns":{"p50":%s},"limit":5000,"raw":5000,"fabric":5000}\n' $p50 \
        >"$dir/tcp/plait.lat.$i"
    ucx 8 6.0 7 >"$dir/tcp/ucx-tag.lat.$i"
    plait_lat 8 40000 1 >"$dir/tcp/zmq.lat.$i"
    printf '# size 8\nbytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec\n%s\n' \
        '8       1k      =1k      15k         1.01s      0.02       7.00       0.00' >"$dir/tcp/fi-pingpong.lat.$i"
    echo '{"test":"rate","size":8,"msgs_per_s":9000000,"limit":200000,"fabric":300000}' >"$dir/tcp/plait.rate.$i"
    ucx 8 5 400000 >"$dir/tcp/ucx-tag.rate.$i"
    echo '{"test":"rate","size":8,"msgs_per_s":6000000}' >"$dir/tcp/zmq.rate.$i"
    echo '{"test":"rpc","size":8,"window":64,"requests_per_s":3000000,"limit":250000}' >"$dir/tcp/plait.rpc.$i"
    echo '{"test":"rpc","size":8,"window":64,"requests_per_s":1500000}' >"$dir/tcp/openmpi.rpc.$i"
    for size in 65536 1048576; do bw ofi $size 4 5 >>"$dir/tcp/plait.bw.$i"; done
done
compare 1 --over tcp --replay "$dir/tcp" --rounds 3 --json "$dir/tcp.json"
expect tcp "$dir/out" \
    " limit (raw TCP) 5000.0 5000.0 5000.0 1.00 0.83" \
    " bare libfabric tcp 5000.0" \
    " plait 5500.0 5000.0 7000.0 1.10 0.92 in place" \
    "* UCX tag 6000.0" " fi_pingpong 7000.0" " ZeroMQ 40000.0" \
    "* ZeroMQ 6.00 6.00 6.00" \
    " 64 in flight median" " 64 KiB median" " 1 MiB median" \
    " plait 4.00 4.00 4.00 0.80" \
    "UCX AM failed in round 1: no recorded output ucx-am.lat.1"
expect tcp_goals "$dir/out" \
    " lat 8 B to raw TCP <= 1.25 1.10 1.00 1.40 met" \
    " lat 8 B to bare libfabric <= 1.05 1.10 1.00 1.40 MISSED" \
    " lat 8 B to the best of UCX, Open MPI, MPICH <= 1.00 0.92 0.83 1.17 met" \
    " rate 8 B to the best of UCX, MPI, libfabric >= 15.00 22.50 22.50 22.50 met" \
    " rate 8 B to ZeroMQ >= 1.00 1.50" \
    " rpc, 64 in flight, to the best of UCX, MPI, libfabric >= 3.00 2.00 2.00 2.00 MISSED" \
    " bw 1 MiB to the better of raw TCP and bare libfabric >= 0.90 0.80"
! grep -q '4 MiB\|16 in flight\|, copied\|shared memory' "$dir/out" && pass tcp_only || fail tcp_only "there is more"
"$python" - "$dir/tcp.json" >"$dir/json" 2>&1 <<'EOF'
import json, sys
d = json.load(open(sys.argv[1]))
assert d["over"] == "tcp" and len(d["figures"]) == 5, d["figures"]
lat = d["figures"][0]
assert lat["best_peer"] == "ucx-tag" and lat["contenders"]["fabric"]["median"] == 5000
assert "no recorded output" in lat["contenders"]["mpich"]["missing"]
goals = {g["goal"]: g for g in d["goals"]}
assert len(goals) == 7 and goals["lat 8 B to raw TCP"]["met"] and goals["rate 8 B to ZeroMQ"]["against"] == ["zmq"]
assert goals["rpc, 64 in flight, to the best of UCX, MPI, libfabric"]["met"] is False
print("right")
EOF
expect tcp_json "$dir/json" right
compare 1 --over tcp --replay "$dir/tcp" --rounds 1 --tests lat --sizes 4k --peers zmq
expect tcp_sizes "$dir/out" "ZeroMQ failed in round 1: no figure for 4 KiB"
echo '8 1k =1k 15k 1.01s 0.02 fast 0.00' >>"$dir/tcp/fi-pingpong.lat.1"
compare 1 --over tcp --replay "$dir/tcp" --rounds 1 --tests lat --peers fi-pingpong
expect tcp_garbage "$dir/out" "fi_pingpong failed in round 1: fi_pingpong printed other columns than expected"

# stand-ins once more: what plait and the peers are asked to do
cat >"$dir/bin/plait" <<'EOF'
#!/bin/sh
case "$PLAIT_PROVIDER $*" in
*--version) echo "plait 9.8.7" ;;
"tcp perf lat --transport ofi --size 8 --iterations 5000 --rounds 1 --cpus $cores --json") /bin/cat "$0.lat" ;;
*) echo "plait: unknown option: $*" >&2; exit 2 ;;
esac
EOF
cat >"$dir/bin/fi_bench" <<'EOF'
#!/bin/sh
[ "$*" = "lat --size 8 --cores $cores --seconds 0.05 --provider tcp;ofi_rxm" ] && /bin/cat "$0.lat"
EOF
cat >"$dir/bin/zmq_bench" <<'EOF'
#!/bin/sh
[ "$*" = "lat --size 8 --cores $cores --seconds 0.05" ] && echo '{"test":"lat","size":8,"half_rtt_ns":{"p50":400}}'
EOF
cat >"$dir/bin/mpirun.openmpi" <<'EOF'
#!/bin/sh
case "$*" in
*"--mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include lo $dir/bin/mpi_bench.openmpi lat "*) /bin/cat "$dir/bin/fi_bench.lat" ;;
*) exit 1 ;;
esac
EOF
cat >"$dir/bin/mpiexec.mpich" <<'EOF'
#!/bin/sh
case "$MPIR_CVAR_NOLOCAL $UCX_TLS $UCX_NET_DEVICES $*" in
"1 tcp,self lo "*"$dir/bin/mpi_bench.mpich lat "*) /bin/cat "$dir/bin/fi_bench.lat" ;;
*) exit 1 ;;
esac
EOF
: >"$dir/bin/mpi_bench.openmpi"
: >"$dir/bin/mpi_bench.mpich"
chmod +x "$dir"/bin/*
cp "$dir/tcp/plait.lat.1" "$dir/bin/plait.lat"
rm -f "$dir/bin/raw_lat"
export dir
case $cores in
*,*)
    compare 0 --over tcp --quick --tests lat --rounds 1 --plait "$dir/bin/plait" --peer-dir "$dir/bin" --no-build
    expect tcp_running "$dir/out" " plait 9.8.7 5000.0 5000.0 5000.0 1.00" \
        " libfabric rxm 200.0" " Open MPI 200.0" " MPICH 200.0" " ZeroMQ 400.0" \
        "missing: fi_pingpong is not installed: apt-get install libfabric-bin" \
        "missing: ucx_perftest is not installed: apt-get install ucx-utils"
    rm "$dir/bin/zmq_bench"
    compare 0 --over tcp --quick --tests lat --rounds 1 --plait "$dir/bin/plait" --peer-dir "$dir/bin" --no-build
    expect tcp_missing "$dir/out" "zmq_bench is not built: apt-get install libzmq3-dev, then make bench-peers"
    ;;
*) echo "[SKIP] compare::tcp_running: only one core" ;;
esac

compare 0 --help
expect help "$dir/out" "examples:" "--rounds N" "--svg FILE" "exit status:"
compare 2 --sppeed 3
expect unknown_option "$dir/out" "--sppeed"
compare 2 --peers ucx-am,zmq
expect unknown_peer "$dir/out" "argument --peers: unknown peer 'zmq' (choose from ucx-tag, ucx-am, libfabric, openmpi, mpich)"
compare 2 --over tcp --peers tcp
expect unknown_tcp_peer "$dir/out" \
    "unknown peer 'tcp' (choose from ucx-tag, ucx-am, libfabric, openmpi, mpich, fi-pingpong, zmq)"
compare 2 --over udp
expect unknown_over "$dir/out" "invalid choice: 'udp'"
compare 2 --tests get
expect unknown_test "$dir/out" "unknown test 'get' (choose from lat, rate, rpc, bw)"
compare 2 --sizes 3k
expect unknown_size "$dir/out" "no test has 3072 bytes (there are 8, 64, 1K, 4K, 64K, 1M, 4M, 64M)"
compare 2 --sizes 1Mk
expect bad_size "$dir/out" "'1Mk' is not a size like 8, 4k or 1M"
compare 2 --sizes 8 --tests bw
expect no_size "$dir/out" "none of the tests has such sizes"
compare 2 --cores 0
expect bad_cores "$dir/out" "'0' is not two core numbers like 0,1"
compare 2 --cores 0,99999
expect forbidden_core "$dir/out" "this process may use only"
exit $failed
