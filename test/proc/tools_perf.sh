#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# plait perf: the figures that it prints, its peers, and what happens when somebody dies. No bounds on time.
suite=perf
. "$(dirname "$0")/tools_common.sh"

# what every figure must have, for the scripts below
check='
import json, sys
FIELD = {"lat": "half_rtt_ns", "rate": "msgs_per_s", "rpc": "requests_per_s", "bw": "bytes_per_s",
         "wake": "half_rtt_ns", "put": "bytes_per_s", "get": "bytes_per_s", "atomic": "ops_per_s"}
MORE = {"lat": ["physical"], "bw": ["memcpy", "pipelined"]}
def number(v): return isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < 1e15
def figures(path, test=None):
    found = [json.loads(l) for l in open(path)]
    for o in found:
        t = o["test"]
        names = ["test", "transport", "size", "window", FIELD[t], "limit"] + MORE.get(t, []) + ["ratio"]
        assert list(o)[:len(names)] == names, o
        assert o["transport"] == "shm" and number(o["limit"]) and number(o["ratio"]), o
        v = o[FIELD[t]]
        if isinstance(v, dict):
            assert list(v) == ["min", "p50", "p90", "p99", "max"] and all(map(number, v.values())), o
            assert list(v.values()) == sorted(v.values()), o
        else:
            assert number(v), o
        assert len(o["cpus"]) == 2 and o["take"] in ("auto", "place", "copy", "cma", "ring"), o
        assert t != "lat" or o["touch"] in ("none", "copy"), o
        assert t != "bw" or o["duplex"] in (True, False), o
        if t == "lat": assert number(o["physical"]), o
    return [(o["test"], o["size"], o["window"]) for o in found]
'

# figures NAME WANT ARG...: runs plait perf ARG... --json; WANT is the list of (test, size, window)
figures() {
    local name=$1 want=$2
    shift 2
    run perf "$@" --json
    [ $status = 0 ] || { fail "$name" "exit status $status: $(cat "$dir/err")"; return; }
    cp "$dir/out" "$dir/figures"
    python "$name" "$check
got = figures(sys.argv[1]); assert got == $want, got" "$dir/figures"
}

few=(--iterations 400 --rounds 2)
many=8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8 # a run with many figures, to do something in its middle
figures lat '[("lat", 8, 1), ("lat", 1024, 1), ("lat", 65536, 1)]' lat --size 8,1k,64k "${few[@]}"
figures rate '[("rate", 8, 100), ("rate", 200, 100)]' rate --size 8,200 --window 100 "${few[@]}"
figures rpc '[("rpc", 8, 1), ("rpc", 8, 16), ("rpc", 8, 64)]' rpc --window 1,16,64 "${few[@]}"
figures bw '[("bw", 4096, 64), ("bw", 262144, 64)]' bw --size 4k,256k "${few[@]}"
figures "put and get" '[("put", 1, 1), ("put", 65536, 1), ("get", 1, 1), ("get", 65536, 1)]' put get --size 1,64k "${few[@]}"
figures atomic '[("atomic", 8, 1)]' atomic --size 64k "${few[@]}"
figures "bw, long messages" '[("bw", 8191, 64), ("bw", 8192, 64), ("bw", 262145, 64), ("bw", 67108864, 64)]' \
    bw --size 8191,8192,262145,64M --iterations 2 --rounds 1
figures "bw, both ways" '[("bw", 8, 64), ("bw", 8192, 64), ("bw", 4194304, 64)]' \
    bw --duplex --size 8,8k,4M --iterations 10 --rounds 1
figures "bw, both ways, in parts" '[("bw", 4096, 4)]' bw --duplex --size 4k --window 4 "${few[@]}"
python "bw, both ways, is told" '
import json, sys
assert all(json.loads(l)["duplex"] is True for l in open(sys.argv[1]))' "$dir/figures"
figures "bw, both ways, a window of one" '[("bw", 4096, 1), ("bw", 65536, 1)]' \
    bw --duplex --size 4k,64k --window 1 "${few[@]}"
figures "lat, copied" '[("lat", 8, 1), ("lat", 4096, 1), ("lat", 300000, 1)]' \
    lat --touch copy --size 8,4k,300000 --iterations 100 --rounds 1
python "lat, copied, is told" '
import json, sys
assert all(json.loads(l)["touch"] == "copy" for l in open(sys.argv[1]))' "$dir/figures"
for take in auto place copy cma ring; do
    figures "take $take" '[("lat", 65536, 1), ("lat", 1048576, 1), ("bw", 65536, 64), ("bw", 1048576, 64)]' \
        lat bw --take $take --size 64k,1M --iterations 20 --rounds 1
    python "take $take, is told" '
import json, sys
assert all(json.loads(l)["take"] == sys.argv[2] for l in open(sys.argv[1]))' "$dir/figures" $take
done
for take in auto place copy cma ring; do
    figures "a stream beside, $take" '[("lat", 8, 1), ("lat", 9000, 1)]' \
        lat --beside $take --size 8,9000 --iterations 200 --rounds 2
    python "a stream beside, $take, has moved" "$check"'
for l in open(sys.argv[1]):
    o = json.loads(l)
    b = o["beside"]
    assert o["take"] == sys.argv[2], o
    assert (b["size"], b["window"], b["links"]) == (1 << 20, 4, 1), o
    assert list(b["half_rtt_ns"]) == ["min", "p50", "p90", "p99", "max", "mean"] and all(map(number, b["half_rtt_ns"].values())), o
    assert all(number(b[k]) for k in ("alone_mean", "bytes_per_s", "ratio", "ratio_mean")), o' "$dir/figures" $take
done
figures "a stream beside, other sizes" '[("lat", 8, 1)]' lat --beside copy --beside-size 300001 --size 8 "${few[@]}"
figures "a stream beside, one of everything" '[("lat", 8, 1)]' \
    lat --beside ring --beside-size 1 --iterations 1 --rounds 1
figures wake '[("wake", 8, 1)]' wake --iterations 20 --rounds 1
figures "several tests" '[("lat", 8, 1), ("rate", 8, 4096), ("rpc", 8, 64)]' lat rate rpc --size 8 "${few[@]}"
figures "one of everything" '[("lat", 8, 1)]' lat --size 8 --iterations 1 --rounds 1
figures "odd batches" '[("rate", 8, 7)]' rate --size 8 --batch 5 --window 7 --iterations 1001 --rounds 1
figures "a window of one" '[("rate", 8, 1), ("bw", 8, 1)]' rate bw --size 8 --window 1 "${few[@]}"
figures "transport by name" '[("lat", 8, 1)]' lat --size 8 --transport shm "${few[@]}"

run perf limit --iterations 200 --rounds 1 --size 8,4k --json
[ $status = 0 ]
result "limit ends well" $? "exit status $status: $(cat "$dir/err")"
cp "$dir/out" "$dir/figures"
python "limit --json has all limits" '
import json, sys
l = [json.loads(x) for x in open(sys.argv[1])]
assert all(o["test"] == "limit" for o in l)
want = [("lat", 8), ("rate", 8), ("rate", 4096), ("bw", 8), ("bw", 4096), ("atomic", 8), ("wake", 8)]
assert [(o["of"], o["size"]) for o in l] == want, l
assert 0 < l[0]["physical"] and 0 < l[0]["half_rtt_ns"] and len(l[0]["forms"]) == 6
assert l[1]["msgs_per_s"] > 0 and l[3]["bytes_per_s"] > 0
assert list(l[5]["forms"]) == ["add", "compare and swap"] and l[5]["ops_per_s"] == l[5]["forms"]["add"] > 0
assert {"eventfd", "futex"} <= set(l[6]["forms"])' "$dir/figures"

run perf limit --transport ofi --iterations 50 --rounds 2 --size 8,64k --json
[ $status = 0 ]
result "limit between nodes ends well" $? "exit status $status: $(cat "$dir/err")"
cp "$dir/out" "$dir/figures"
python "limit between nodes, --json has all" '
import json, sys
FIELD = {"lat": "half_rtt_ns", "rate": "msgs_per_s", "bw": "bytes_per_s"}
l = [json.loads(x) for x in open(sys.argv[1])]
assert [(o["of"], o["size"]) for o in l] == [("lat", 8), ("lat", 65536), ("rate", 8), ("bw", 65536)], l
for o in l:
    assert (o["test"], o["transport"], o["rounds"], len(o["cpus"])) == ("limit", "ofi", 2, 2), o
    assert o["raw"] > 0 and o[FIELD[o["of"]]] >= o["raw"], o
    assert len(o["forms"]) == (3 if o["of"] == "lat" else 2), o
    if "provider" in o:
        assert o["provider"].startswith("tcp, FI_EP_MSG"), o
        assert o["fabric"] > 0 and o["ratio"] > 0 and all(v > 0 for v in o["forms"].values()), o
    else:
        assert o["fabric"] is None and o["ratio"] is None and "libfabric" in o["note"], o' "$dir/figures"
bare=$(grep -c provider "$dir/figures")
run perf limit --transport ofi --iterations 50 --rounds 1 --size 64,64k
expect "limit between nodes, a table" 0 out "raw TCP" "half round trip" GB/s
PLAIT_PROVIDER=nosuch run perf limit --transport ofi --iterations 50 --rounds 1 --size 8 --json
expect "a provider that is not there" 0 out '"fabric":null' '"raw":'
grep -q "libfabric" "$dir/err" && { [ "$bare" = 0 ] || grep -q "nosuch" "$dir/err"; }
result "a provider that is not there is told" $? "$(cat "$dir/err")"
if [ "$bare" -gt 0 ]; then
    PLAIT_PROVIDER='tcp;ofi_rxm' run perf limit --transport ofi --iterations 50 --rounds 1 --size 8 --json
    expect "a layered provider" 0 out "tcp;ofi_rxm, FI_EP_RDM"
fi

run perf lat rate bw wake --size 8 --iterations 200 --rounds 1
expect "tables" 0 out "half round trip" "one-way messages" "bytes in" sleep p99 physical ratio GB/s M/s
run perf bw --duplex --touch copy lat --size 64k --iterations 50 --rounds 1
expect "tables of both" 0 out "both directions at once" "copied by both receivers"
run perf lat --beside copy --iterations 200 --rounds 1
expect "a table of a stream beside" 0 out "beside a stream of 1 MiB, 4 in flight" "taken: copy" alone "of mean"
for wrong in "bw --beside copy" "lat --beside none" "lat --beside copy --take ring" "lat --beside copy --touch copy" \
    "lat --beside-size 8" "lat --beside copy --beside-size 0"; do
    run perf $wrong
    expect "a mistake: $wrong" 2 err "--beside"
done
PLAIT_PROVIDER=nonesuch run perf lat --transport ofi --iterations 100
expect "a provider that is not there" 1 err nonesuch
run perf lat --cpus 0,1000 --iterations 100
expect "a CPU that is not there" 1 err "CPU 1000"
run perf lat --connect plait://127.0.0.1:1
expect "no peer there" 1 err 127.0.0.1:1

# one core for both sides: they take turns
core=$(python3 -c 'import os; print(min(os.sched_getaffinity(0)))')
figures "one core" '[("lat", 8, 1), ("rate", 8, 4096), ("rpc", 8, 64)]' \
    lat rate rpc --size 8 --cpus "$core,$core" --iterations 100 --rounds 1
grep -q 'two cores' "$dir/err"
result "one core is told" $? "$(cat "$dir/err")"
python "one core is in the figures" '
import json, sys
assert "two cores" in json.loads(open(sys.argv[1]).readline())["note"]' "$dir/figures"
figures "one core, a stream beside" '[("lat", 8, 1)]' \
    lat --beside copy --beside-size 64k --cpus "$core,$core" --iterations 40 --rounds 1
figures "one core, both ways" '[("bw", 4096, 64), ("bw", 1048576, 64)]' \
    bw --duplex --size 4k,1M --cpus "$core,$core" --iterations 40 --rounds 1

# ---- between two terminals ----

begin 8 perf --serve plait://127.0.0.1
server=$pid
uri_of 8
for i in 1 2; do
    figures "--connect, time $i" '[("lat", 64, 1), ("rate", 64, 5), ("rpc", 64, 5)]' \
        lat rate rpc --connect "$uri" --size 64 --window 5 "${few[@]}"
done
run ping --count 1 "$uri"
expect "it is no echo service" 1 err "plait perf"
begin 9 serve plait://127.0.0.1
echo_server=$pid
served=$uri
uri_of 9
run perf lat --connect "$uri"
expect "an echo service is no peer" 1 err "no peer of plait perf"
kill -TERM "$echo_server"
wait "$echo_server"
exec 9<&-

# a client that ends in the middle leaves the peer as it was
begin 9 perf lat --connect "$served" --size "$many" --iterations 5000 --rounds 1 --json
read -r -t $((40 * slow)) -u 9 line
kill -9 "$pid"
wait "$pid" 2>/dev/null
exec 9<&-
figures "after a client was killed" '[("lat", 8, 1)]' lat --connect "$served" --size 8 "${few[@]}"
# the peer ends in the middle of a test
begin 9 perf lat --connect "$served" --size "$many" --iterations 5000 --rounds 1 --json
client=$pid
read -r -t $((40 * slow)) -u 9 line
kill -TERM "$server"
wait "$server"
result "perf --serve ends with SIGTERM" $? "exit status $?"
wait "$client"
status=$?
[ $status = 1 ] && grep -q 'plait perf: ' "$dir/err.9"
result "the client of a peer that ends is told" $? "exit status $status: $(cat "$dir/err.9")"
exec 8<&- 9<&-

# ---- deaths ----

# long NAME: starts a long run, waits for its first figure; $pid, $peer and $raw are the processes
long() {
    local i
    begin 9 perf lat --size "$many" --iterations 20000 --rounds 2 --json
    peer= raw=
    read -r -t $((60 * slow)) -u 9 line
    for i in $(children "$pid"); do
        if grep -qz -- --peer "/proc/$i/cmdline"; then peer=$i; else raw=$i; fi
    done
    [ -n "$peer" ] && [ -n "$raw" ]
    result "$1, the processes are there" $? "peer '$peer', limits '$raw': $(cat "$dir/err.9")"
}

# all_end NAME: after the death of one, every process ends, the command with exit status 1 and a message
all_end() {
    gone "$pid" $((4 * slow))
    result "$1, the command ends soon" $? "it still runs"
    wait "$pid"
    status=$?
    [ $status = 1 ] && grep -q "^plait perf: .*process" "$dir/err.9"
    result "$1, the command says why" $? "exit status $status: $(cat "$dir/err.9")"
    gone "$peer" $((4 * slow)) && gone "$raw" $((4 * slow))
    result "$1, nobody is left" $? "$(ps -f -p "$peer,$raw" 2>/dev/null)"
    exec 9<&-
}

long "the peer is killed"
kill -9 "$peer"
all_end "the peer is killed"
long "the other process of the limits is killed"
kill -9 "$raw"
all_end "the other process of the limits is killed"
for sig in INT TERM KILL; do
    long "SIG$sig"
    kill -$sig "$pid"
    wait "$pid" 2>/dev/null
    gone "$peer" $((4 * slow)) && gone "$raw" $((4 * slow))
    result "SIG$sig leaves nobody" $? "$(ps -f -p "$peer,$raw" 2>/dev/null)"
    exec 9<&-
done
exit $bad
