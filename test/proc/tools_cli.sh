#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The command plait: help, mistakes in the command line, info, serve and ping.
suite=cli
. "$(dirname "$0")/tools_common.sh"
unset PLAIT_PROVIDER

# ---- help ----

for c in '' info serve ping perf; do
    run $c --help
    expect "plait${c:+ $c} --help" 0 out Usage: Examples: "plait $c"
    [ -z "$c" ] || { run help $c; expect "plait help $c" 0 out Usage: Examples:; }
done
run --version
python "plait --version" '
import re, sys
assert re.fullmatch(r"plait \d+\.\d+\.\d+\n", open(sys.argv[1]).read())' "$dir/out"

# ---- mistakes: exit status 2, the culprit by name, and where to look ----

mistake() { # TEXT ARG...
    local text=$1
    shift
    run "$@"
    expect "mistake, plait${*:+ $*}" 2 err "$text" --help
}
mistake subcommand
mistake "'frobnicate'" frobnicate
mistake "'--frobnicate'" --frobnicate
mistake "'frobnicate'" help frobnicate
for c in info serve ping perf; do mistake "'--frobnicate'" $c --frobnicate; done
mistake "'more'" info more
mistake URI serve
mistake "'b'" serve a b
mistake URI ping
mistake "'b'" ping a b
mistake "'x'" ping --count x plait://127.0.0.1:1
mistake "'-1'" ping --interval -1 plait://127.0.0.1:1
mistake "256k" ping --size 1M plait://127.0.0.1:1
mistake test perf
mistake "'frob'" perf frob
mistake "'8x'" perf lat --size 8x
mistake "256M" perf lat --size 300M
mistake "'0'" perf lat --rounds 0
mistake 16384 perf rpc --window 20000
mistake "'rdma'" perf lat --transport rdma
mistake "'a,b'" perf lat --cpus a,b
mistake "'dma'" perf bw --take dma
mistake "'read'" perf lat --touch read
mistake "--touch" perf bw --touch copy
mistake "--duplex" perf lat --duplex
mistake "--serve" perf lat --serve plait://127.0.0.1

# ---- info ----

run info
expect "plait info" 0 out transports shm ofi machine "context 0" "open files" "locked memory" \
    "address space" "file size" "memory of the cgroup" /dev/shm membarrier "shared memory of a link"
run info --json
cp "$dir/out" "$dir/info.json"
expect "plait info --json" 0 out '"version"'
python "plait info --json has the fields" '
import json, os, sys
d = json.load(open(sys.argv[1]))
assert d["version"].count(".") == 2 and d["build"]
t = {x["name"]: x for x in d["transports"]}
assert t["shm"]["available"] is True and t["ofi"]["why"] and "providers" not in t["shm"], t
if t["ofi"]["available"]:
    p = t["ofi"]["providers"]
    assert t["ofi"]["library"].startswith("libfabric "), t
    assert [x["name"] for x in p if x["kind"] == "MSG"] == ["verbs", "tcp", "net"], p
    assert sum(x["chosen"] for x in p) == 1 and all(x["why"] for x in p), p
    assert all(x["usable"] == bool(x["nics"]) for x in p), p
    lo = [n for x in p if x["name"] == "tcp" for n in x["nics"] if n["address"] == "127.0.0.1"]
    assert lo == [{"name": "lo", "address": "127.0.0.1", "node": None, "cpus": None}], p
o = d["topology"]
assert o["pus_allowed"] == len(os.sched_getaffinity(0)), o
assert 1 <= o["cores_allowed"] <= o["cores"] and len(o["contexts"]) == o["cores_allowed"], o
assert {c["cpu"] for c in o["contexts"]} <= os.sched_getaffinity(0), o
assert sum(n["cores"] for n in o["nodes"]) >= 1 and o["nodes"][0]["memory"] > 0, o
import resource
l = d["limits"]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
assert l["nofile"] == {"soft": soft, "hard": hard}, l
for name in ("memlock", "address_space", "file_size"):
    assert set(l[name]) == {"soft", "hard"}, l
assert set(l["memory_cgroup"]) == {"path", "limit", "usage"} and set(l["dev_shm"]) == {"total", "free"}, l
assert l["membarrier"] in (True, False), l
m = d["link_shm_bytes"]
assert 0 < m["quiet"] <= 64 << 10 and m["quiet"] <= m["busy"] <= 512 << 10, m
' "$dir/info.json"
(ulimit -n 300; ulimit -v unlimited; "$plait" info --json >"$dir/out" 2>"$dir/err")
python "plait info shows a lowered limit" \
    'import json, sys; assert json.load(open(sys.argv[1]))["limits"]["nofile"]["soft"] == 300' "$dir/out"
fabric= # is libfabric here, with its provider tcp?
! grep -q '"127.0.0.1"' "$dir/info.json" || fabric=yes
if [ -n "$fabric" ]; then
    PLAIT_PROVIDER=net run info --json
    python "plait info with another provider wanted" '
import json, sys
p = {x["name"]: x for x in json.load(open(sys.argv[1]))["transports"][1]["providers"]}
assert p["net"]["chosen"] and "PLAIT_PROVIDER" in p["net"]["why"], p["net"]
assert p["tcp"]["usable"] and not p["tcp"]["chosen"] and "net" in p["tcp"]["why"], p["tcp"]' "$dir/out"
    PLAIT_PROVIDER=no_such run info
    expect "plait info with a provider that is not there" 0 out "not available" "no_such, which PLAIT_PROVIDER wants" \
        "not installed" "wants no_such"
fi
HWLOC_SYNTHETIC='numa:4 core:4 pu:2' "$plait" info --json >"$dir/out" 2>"$dir/err"
python "plait info of another machine" '
import json, sys
t = json.load(open(sys.argv[1]))["topology"]
assert (t["cores"], t["pus"], len(t["nodes"]), t["this_system"]) == (16, 32, 4, False), t
assert len(t["contexts"]) == 16 and t["contexts"][15]["node"] == 3, t["contexts"]' "$dir/out"
HWLOC_XMLFILE=$dir/missing.xml "$plait" info >"$dir/out" 2>"$dir/err"
status=$?
expect "plait info with a topology that is missing" 1 err missing.xml
if [ -w /dev/full ]; then
    "$plait" info >/dev/full 2>"$dir/err"
    status=$?
    expect "output that cannot be written" 1 err "standard output"
fi

# ---- ping without a service ----

run ping http://127.0.0.1:1
expect "ping, not a plait URI" 1 err "http://127.0.0.1:1" "plait://"
run ping plait://127.0.0.1:99999
expect "ping, port out of range" 1 err 65535
run ping plait://
expect "ping, no host" 1 err host
run ping plait://no-such-host.invalid:77
expect "ping, the name does not resolve" 1 err no-such-host.invalid resolve
# a port that nobody listens on: bound by a socket that does not listen, until its standard input ends
coproc holder { exec python3 -c '
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()'; }
read -r -u "${holder[0]}" port
run ping "plait://127.0.0.1:$port"
expect "ping, nobody listens" 1 err "$port" listens
run serve "plait://127.0.0.1:$port"
expect "serve, port in use" 1 err "$port" "in use"
run serve plait://192.0.2.77:77
expect "serve, an address of another machine" 1 err 192.0.2.77
eval "exec ${holder[1]}>&-"

# ---- serve and ping ----

begin 8 serve -v plait://127.0.0.1
server=$pid
uri_of 8
served=$uri
run ping --count 3 --interval 0.01 "$uri"
expect "ping" 0 out "seq=1 " "seq=3 " "3 sent, 3 answered" shm p50
run ping --count 200 --interval 0 --size 64k --json "$uri/echo?transport=shm"
cp "$dir/out" "$dir/ping.json"
expect "ping --json" 0 out '"seq":200'
python "ping --json has the fields" '
import json, sys
lines = [json.loads(l) for l in open(sys.argv[1])]
assert [l["seq"] for l in lines[:-1]] == list(range(1, 201))
for l in lines[:-1]:
    assert l["transport"] == "shm" and l["size"] == 65536 and l["rtt_us"] > 0, l
s = lines[-1]
assert s["sent"] == s["answered"] == 200, s
r = s["rtt_us"]
assert 0 < r["min"] <= r["p50"] <= r["p90"] <= r["p99"] <= r["max"], r' "$dir/ping.json"
run ping --count 2 --interval 0 --size 0 "$uri"
expect "ping with nothing" 0 out "2 sent, 2 answered"
run ping --count 2 --interval 0 --size 256k "$uri"
expect "ping with the largest message" 0 out "2 sent, 2 answered"
PLAIT_PROVIDER=nonesuch run ping "$uri/?transport=ofi"
expect "ping, a provider that is not there" 1 err ofi
run ping "$uri/?transport=shm&provider=tcp"
expect "ping, a provider with shm" 1 err "provider=tcp" "transport=shm"
if [ -n "$fabric" ]; then
    begin 9 serve plait://127.0.0.1?provider=tcp
    uri_of 9
    run ping --count 1 "$uri&transport=ofi"
    expect "ping over libfabric" 0 out "1 answered, transport ofi" "libfabric provider tcp, lo; the URI allows no other"
    run ping --count 1 --json "${uri%%\?*}?transport=ofi"
    expect "ping over the listener's provider" 0 out '"transport":"ofi"' '"wire":"libfabric provider tcp, lo'
    PLAIT_PROVIDER=net run ping --count 1 "$uri&transport=ofi"
    expect "ping, the URI goes before PLAIT_PROVIDER" 0 out "libfabric provider tcp"
    run ping --count 1 "${uri%%\?*}?transport=ofi&provider=net"
    expect "ping, another provider than the listener's" 1 err "provider tcp" "the URI of this side wants net"
    PLAIT_PROVIDER=net run ping --count 1 "${uri%%\?*}?transport=ofi"
    expect "ping, PLAIT_PROVIDER is not the listener's" 1 err "provider tcp" "PLAIT_PROVIDER of this side wants net"
    run ping --count 1 "${uri%%\?*}?transport=ofi&provider=no_such"
    expect "ping, no such provider" 1 err "no_such, which the URI wants" "not installed"
    kill -TERM "$pid"
    wait "$pid"
    exec 9<&-
    uri=$served
fi

# Ctrl-C ends an endless ping, with its summary
begin 9 ping --count 0 --interval 0.001 "$uri"
read -r -t $((20 * slow)) -u 9 line
kill -INT "$pid"
while read -r -t $((20 * slow)) -u 9 line; do last=$line; done
wait "$pid"
status=$?
exec 9<&-
[ $status = 0 ] && grep -q 'answered, transport shm' <<<"${last:-}"
result "ping ends with Ctrl-C" $? "exit status $status, last line '${last:-}'"

# another user
if [ "$(id -u)" != 0 ]; then
    echo "[SKIP] $suite::another user is refused: only root can become somebody else"
elif ! setpriv --reuid=65534 --regid=65534 --clear-groups "$plait" --version >/dev/null 2>&1; then
    echo "[SKIP] $suite::another user is refused: the build folder is closed to other users"
else
    setpriv --reuid=65534 --regid=65534 --clear-groups "$plait" ping --count 1 "$uri" >"$dir/out" 2>"$dir/err"
    status=$?
    expect "another user is refused" 1 err user
    begin 9 serve --any-user plait://127.0.0.1
    uri_of 9
    setpriv --reuid=65534 --regid=65534 --clear-groups "$plait" ping --count 1 "$uri" >"$dir/out" 2>"$dir/err"
    status=$?
    expect "another user is served with --any-user" 0 out "1 answered"
    kill -TERM "$pid"
    wait "$pid"
    exec 9<&-
fi

# the end in order, with a session open: the client is told
begin 9 ping --count 0 --interval 30 "$served"
client=$pid
read -r -t $((20 * slow)) -u 9 line
kill -TERM "$server"
wait "$server"
result "serve ends with SIGTERM" $? "exit status $?"
wait "$client"
status=$?
[ $status = 1 ] && grep -q 'ended the session' "$dir/err.9"
result "ping is told that the service ends" $? "exit status $status: $(cat "$dir/err.9")"
exec 9<&-
cat <&8 >"$dir/serve.out"
exec 8<&-
grep -q 'accepted a session' "$dir/serve.out"
result "serve -v tells who comes" $? "$(cat "$dir/serve.out")"
run ping --count 1 "$served"
expect "nobody listens any more" 1 err listens
exit $bad
