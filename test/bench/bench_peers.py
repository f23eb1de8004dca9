# SPDX-License-Identifier: BSD-3-Clause
"""The contenders of test/bench/compare: how each is found, started, and its output read.

A contender measures one test at a time: "lat" (half round trip in ns at sizes["lat"]), "rate" (messages of
8 bytes per second, one way), "rpc" (requests of 8 bytes per second, windows of them in flight) or "bw" (bytes
per second, one way, at sizes["bw"]). Its output is kept as text and parsed apart from the running, so that
saved output can be read again.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

ALL_SIZES = {"lat": (8, 64, 1024, 4096), "bw": (65536, 1 << 20, 4 << 20, 64 << 20)}
sizes = dict(ALL_SIZES)  # those that were chosen
WINDOWS = (1, 16, 64)
windows = list(WINDOWS)
TESTS = ("lat", "rate", "rpc", "bw")
FIELDS = {"lat": "half_rtt_ns", "rate": "msgs_per_s", "rpc": "requests_per_s", "bw": "bytes_per_s"}
RUN_LIMIT_S = 20


class Failed(Exception):
    """A run gave no figures; the text says why."""


def figures_of(test):
    """The keys of a test's figures, in the order of the table."""
    if test in sizes:
        return [(test, size) for size in sizes[test]]
    if test == "rate":
        return [("rate", 8)]
    return [("rpc", window) for window in windows]


def list_of(numbers):
    return ",".join(map(str, numbers))


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def parse_json_lines(text, test):
    """Reads the lines of `plait perf --json` and of our peer programs.
    Returns {figure: {"value": v, and what there is of "limit", "physical", "fabric": v}}."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            o = json.loads(line)
        except ValueError:
            raise Failed("unreadable line of JSON: " + line[:60]) from None
        if o.get("test") != test or FIELDS[test] not in o:
            continue
        value, key = o[FIELDS[test]], (test, o.get("window" if test == "rpc" else "size"))
        if key not in figures_of(test):
            continue
        entry = {"value": value["p50"] if isinstance(value, dict) else value}
        for extra in ("limit", "physical", "fabric"):
            if number(o.get(extra)):
                entry[extra] = o[extra]
        if not number(entry["value"]):
            raise Failed("no number in: " + line[:60])
        found[key] = entry
    return found


def parse_ucx(text, test):
    """Reads what ucx_perftest -f -v printed, each run after a line '# size N'. A latency is the median,
    in microseconds for half a round trip. A rate is that of a whole run, as the median time between two
    sends says nothing when they go in bursts; so that a moment without the core does not count, it is the
    best of several short runs."""
    found, size, columns = {}, None, []
    for line in text.splitlines():
        fields = line.strip().split(",")
        if line.startswith("# size "):
            size = int(line.split()[2])
        elif fields[0] == "iterations":
            columns = fields
        elif fields[0].isdigit() and len(fields) == len(columns):
            row = dict(zip(columns, fields))
            try:
                value = (1000 * float(row["50.0_percentile_lat"]) if test == "lat"
                         else 1048576 * float(row["overall_bw"]) if test == "bw"
                         else float(row["overall_mr"]))
            except (KeyError, ValueError):
                raise Failed("ucx_perftest printed other columns than expected") from None
            if test != "lat":
                value = max(value, found.get((test, size), {}).get("value", 0))
            found[(test, size)] = {"value": value}
    return {k: v for k, v in found.items() if k in figures_of(test)}


def stop_group(proc):
    try:
        os.killpg(proc.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    proc.wait()


def last_words(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "it printed nothing"


def run_command(argv, env, cores):
    """Runs argv on these cores and returns its standard output."""
    proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        out, err = proc.communicate(timeout=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Failed("did not end within %d s" % RUN_LIMIT_S) from None
    finally:
        stop_group(proc)
    if proc.returncode:
        raise Failed("exit status %d: %s" % (proc.returncode, last_words(err or out)))
    return out


def version_of(argv):
    """The first number with a dot that a command prints, or ''."""
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    m = re.search(r"\d+\.\d+(\.\d+)*", p.stdout)
    return m.group(0) if m else ""


class Contender:
    """name: for --peers; title: for the table; tests: what it can measure; received: where the bytes of a
    message are for the receiver, in each test about sizes. Over TCP instead of shared memory all of them
    use the loopback."""
    name = title = ""
    tests = TESTS
    is_peer = True
    received = {"lat": "copied", "bw": "copied"}

    def __init__(self, opts):
        self.o = opts
        self.tcp = opts.over == "tcp"

    def version(self):
        return ""

    def missing(self, test):
        """Why it cannot run here and what to do, or None."""
        raise NotImplementedError

    def run(self, test):
        """Returns the output; may raise Failed."""
        raise NotImplementedError

    parse = staticmethod(parse_json_lines)

    def env(self, **more):
        # our own UCX_* settings only, so that every user gets the same figures
        env = {k: v for k, v in os.environ.items() if not k.startswith("UCX_")}
        return dict(env, IPATH_NO_BACKTRACE="1", **more)

    def program(self, name):
        return os.path.join(self.o.peer_dir, name)

    def not_built(self, name, packages):
        if os.access(self.program(name), os.X_OK):
            return None
        return "%s is not built: apt-get install %s, then make bench-peers" % (name, packages)

    def program_args(self, test):
        lists = {"lat": ["--size", list_of(sizes["lat"])], "rate": ["--size", "8"],
                 "rpc": ["--size", "8", "--window", list_of(windows)], "bw": ["--size", list_of(sizes["bw"])]}
        return [test] + lists[test] + ["--cores", "%d,%d" % self.o.cores, "--seconds", str(self.o.seconds)]

    def start(self, argv, env):
        return run_command(argv, env, self.o.cores)


class Plait(Contender):
    name, title = "plait", "plait"
    is_peer = False
    received = {"lat": "in place", "bw": "as plait takes it"}
    more = {}
    # Of each of three rounds inside one run, each between two measurements of the limit. plait's rates
    # are averages over a round, so it takes the median of the three itself.
    iterations = {"lat": 300000, "rate": 4000000, "rpc": 500000}
    tcp_iterations = {"lat": 20000, "rate": 2000000, "rpc": 200000}
    inner_rounds = "3"
    tcp_inner_rounds = "1"  # its limits, raw TCP and bare libfabric, take longer than plait itself

    def version(self):
        return version_of([self.o.plait, "--version"])

    def missing(self, test):
        if os.access(self.o.plait, os.X_OK):
            return None
        return "no command %s: build plait (make), or name it with --plait" % self.o.plait

    def run(self, test):
        if test == "bw":
            return "".join(self.once(test, str(size), bytes_to_move(self.o) // size) for size in sizes[test])
        iterations = self.tcp_iterations if self.tcp else self.iterations
        n = max(1000, int(iterations[test] * self.o.seconds / 0.2))
        return self.once(test, list_of(sizes["lat"]) if test == "lat" else "8", n)

    def once(self, test, size_list, n, rounds=None):
        argv = [self.o.plait, "perf", test] + (["--transport", "ofi"] if self.tcp else [])
        argv += ["--size", size_list]
        if test == "rpc":
            argv += ["--window", list_of(windows)]
        argv += self.more.get(test, []) + ["--iterations", str(n), "--rounds",
                                             rounds or (self.tcp_inner_rounds if self.tcp else self.inner_rounds)]
        return self.start(argv + ["--cpus", "%d,%d" % self.o.cores, "--json"],
                          self.env(PLAIT_PROVIDER="tcp") if self.tcp else self.env())


class PlaitCopy(Plait):
    """The same into memory of the receiver's own, as most peers do it."""
    name, title = "plait-copy", "plait"
    tests = ("lat", "bw")
    received = Contender.received
    more = {"lat": ["--touch", "copy"], "bw": ["--take", "copy"]}

    def missing(self, test):
        reason = super().missing(test)
        if reason is None and test == "bw":
            try:
                self.once(test, "65536", 1, "1")
            except Failed as e:
                reason = str(e)
        return reason


def bytes_to_move(o):
    """In a run of bw at one size; two messages at least."""
    return max(1 << 27, int((1 << 30) * o.seconds / 0.2))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port):
    """Whether somebody listens; looks only, as ucx_perftest would take a connection for its client."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as f:
                if re.search(r":%04X [0-9A-F]+:0000 0A " % port, f.read()):
                    return True
        except OSError:
            pass
    return False


UCX_SHM = {"UCX_TLS": "posix,cma,self"}
UCX_TCP = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"}


class UcxPerftest(Contender):
    calls = {}
    count = {"lat": 150000, "rate": 500000}
    tcp_count = {"lat": 30000, "rate": 50000}
    runs = {"lat": 1, "rate": 4, "bw": 2}
    parse = staticmethod(parse_ucx)

    def version(self):
        return version_of(["ucx_info", "-v"])

    def missing(self, test):
        if shutil.which("ucx_perftest"):
            return None
        return "ucx_perftest is not installed: apt-get install ucx-utils"

    def env(self, **more):
        return super().env(**(UCX_TCP if self.tcp else UCX_SHM), **more)

    def run(self, test):
        out = []
        for size in sizes.get(test, (8,)) * self.runs[test]:
            for attempt in range(3):
                try:
                    out.append("# size %d\n%s" % (size, self.once(self.calls[test], test, size)))
                    break
                except Failed:  # somebody else may have taken the port
                    if attempt == 2:
                        raise
        return "".join(out)

    def once(self, call, test, size):
        port = str(free_port())
        if test == "bw":
            n = bytes_to_move(self.o) // self.runs[test] // size
            n, warm_up = max(4, n), max(1, n // 10)
        else:
            count = self.tcp_count if self.tcp else self.count
            n, warm_up = max(1000, int(count[test] * self.o.seconds / 0.2)), 1000 if self.tcp else 10000
        server = subprocess.Popen(["ucx_perftest", "-p", port], env=self.env(), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  start_new_session=True,
                                  preexec_fn=lambda: os.sched_setaffinity(0, {self.o.cores[1]}))
        try:
            for _ in range(1000):
                if listening(int(port)):
                    break
                if server.poll() is not None:
                    raise Failed("the server of ucx_perftest has ended")
                time.sleep(0.005)
            return run_command(["ucx_perftest", "127.0.0.1", "-p", port, "-t", call, "-s", str(size),
                                "-n", str(n), "-w", str(warm_up), "-f", "-v"], self.env(), {self.o.cores[0]})
        finally:
            stop_group(server)


class UcxTag(UcxPerftest):
    name, title = "ucx-tag", "UCX tag"
    tests = ("lat", "rate", "bw")
    calls = {"lat": "tag_lat", "rate": "tag_bw", "bw": "tag_bw"}


class UcxAm(UcxPerftest):
    name, title = "ucx-am", "UCX AM"
    calls = {"lat": "ucp_am_lat", "rate": "ucp_am_bw", "bw": "ucp_am_bw"}
    received = {"lat": "in place", "bw": "copied"}

    def missing(self, test):
        if test == "rpc":
            return self.not_built("ucx_rpc", "libucx-dev")
        return super().missing(test)

    def run(self, test):
        if test == "rpc":
            return self.start([self.program("ucx_rpc")] + self.program_args(test), self.env())
        return super().run(test)

    @staticmethod
    def parse(text, test):
        return parse_json_lines(text, test) if test == "rpc" else parse_ucx(text, test)


class Libfabric(Contender):
    name, title = "libfabric", "libfabric shm"

    def __init__(self, opts):
        super().__init__(opts)
        if self.tcp:
            self.title = "libfabric rxm"

    def version(self):
        return version_of(["fi_info", "--version"])

    def missing(self, test):
        return self.not_built("fi_bench", "libfabric-dev")

    def run(self, test):
        argv = [self.program("fi_bench")] + self.program_args(test)
        return self.start(argv + (["--provider", "tcp;ofi_rxm"] if self.tcp else []), self.env())


class OpenMpi(Contender):
    name, title = "openmpi", "Open MPI"
    launcher = "mpirun.openmpi"

    def version(self):
        return version_of([self.launcher, "--version"])

    def missing(self, test):
        if not shutil.which(self.launcher):
            return "%s is not installed: apt-get install openmpi-bin libopenmpi-dev" % self.launcher
        return self.not_built("mpi_bench.openmpi", "libopenmpi-dev")

    def run(self, test):
        argv = [self.launcher, "-np", "2", "--bind-to", "none", "--oversubscribe",
                "--mca", "mpi_yield_when_idle", "0"]
        if self.tcp:
            argv += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]
        argv.append(self.program("mpi_bench.openmpi"))
        env = self.env()
        if os.geteuid() == 0:
            env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        return self.start(argv + self.program_args(test), env)


class Mpich(Contender):
    name, title = "mpich", "MPICH"
    launcher = "mpiexec.mpich"

    def version(self):
        return version_of([self.launcher, "--version"])

    def missing(self, test):
        if not shutil.which(self.launcher):
            return "%s is not installed: apt-get install mpich libmpich-dev" % self.launcher
        return self.not_built("mpi_bench.mpich", "libmpich-dev")

    def run(self, test):
        argv = [self.launcher, "-n", "2", "-bind-to", "none", self.program("mpi_bench.mpich")]
        # Debian's has UCX below it; without NOLOCAL the messages would go through shared memory
        env = self.env(MPIR_CVAR_NOLOCAL="1", **UCX_TCP) if self.tcp else self.env()
        return self.start(argv + self.program_args(test), env)


PEERS = (UcxTag, UcxAm, Libfabric, OpenMpi, Mpich)
# of build_peers.sh
PROGRAMS = ("raw_lat", "mpi_bench.openmpi", "mpi_bench.mpich", "ucx_rpc", "fi_bench")
