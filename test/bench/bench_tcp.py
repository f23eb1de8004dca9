# SPDX-License-Identifier: BSD-3-Clause
"""What test/bench/compare has beside bench_peers.py for messages between hosts, over TCP on the loopback."""

import os
import shutil
import statistics
import subprocess
import time

import bench_peers as peers

SIZES = {"lat": (8,), "bw": (65536, 1 << 20)}  # unless others are chosen
WINDOWS = (64,)
MPIS = ("ucx-tag", "ucx-am", "openmpi", "mpich")
FABRIC = ("libfabric", "fabric")


class FiPingpong(peers.Contender):
    """libfabric's own ping-pong, over the connected endpoints of the provider tcp."""
    name, title = "fi-pingpong", "fi_pingpong"
    tests = ("lat",)

    def version(self):
        return peers.version_of(["fi_info", "--version"])

    def missing(self, test):
        if shutil.which("fi_pingpong"):
            return None
        return "fi_pingpong is not installed: apt-get install libfabric-bin"

    def run(self, test):
        out = []
        for size in peers.sizes[test]:
            for attempt in range(3):
                try:
                    out.append("# size %d\n%s" % (size, self.once(size)))
                    break
                except peers.Failed:  # somebody else may have taken the port
                    if attempt == 2:
                        raise
        return "".join(out)

    def once(self, size):
        port = peers.free_port()
        argv = ["fi_pingpong", "-p", "tcp", "-e", "msg", "-S", str(size), "-I",
                str(max(1000, int(30000 * self.o.seconds / 0.2)))]
        server = subprocess.Popen(argv + ["-B", str(port)], env=self.env(), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                                  preexec_fn=lambda: os.sched_setaffinity(0, {self.o.cores[1]}))
        try:
            for _ in range(1000):
                if peers.listening(port):
                    break
                if server.poll() is not None:
                    raise peers.Failed("the server of fi_pingpong has ended")
                time.sleep(0.005)
            return peers.run_command(argv + ["-P", str(port), "127.0.0.1"], self.env(), {self.o.cores[0]})
        finally:
            peers.stop_group(server)

    @staticmethod
    def parse(text, test):
        """Its lines: bytes, sent, acknowledged, total, time, MB/s, us for half a round trip, M transfers/s."""
        found, size = {}, None
        for line in text.splitlines():
            fields = line.split()
            if line.startswith("# size "):
                size = int(fields[2])
            elif len(fields) == 8 and fields[0][:1].isdigit():
                try:
                    found[(test, size)] = {"value": 1000 * float(fields[6])}
                except ValueError:
                    raise peers.Failed("fi_pingpong printed other columns than expected") from None
        return {k: v for k, v in found.items() if k in peers.figures_of(test)}


class Zmq(peers.Contender):
    name, title = "zmq", "ZeroMQ"
    received = {"lat": "in place", "bw": "in place"}

    def version(self):
        return peers.version_of(["pkg-config", "--modversion", "libzmq"])

    def missing(self, test):
        return self.not_built("zmq_bench", "libzmq3-dev")

    def run(self, test):
        return self.start([self.program("zmq_bench")] + self.program_args(test), self.env())


class Goal:
    """plait's figure over that of others in one round: at least, or (lat) at most, `bound`."""

    def __init__(self, figure, against, bound, words):
        self.figure, self.against, self.bound, self.words = figure, against, bound, words
        self.most = figure[0] == "lat"  # a time

    def rounds(self, res):
        """The ratio in each round that has plait's figure and somebody else's."""
        out = {}
        for r, value in res.of("plait", self.figure).items():
            others = [v[r] for n in self.against for v in [res.of(n, self.figure)] if r in v]
            if others:
                out[r] = value / (min(others) if self.most else max(others))
        return out

    def entry(self, res):
        """For JSON, or None if nothing was measured."""
        ratios = list(self.rounds(res).values())
        if not ratios:
            return None
        median = statistics.median(ratios)
        met = median <= self.bound if self.most else median >= self.bound
        return {"goal": self.words, "bound": self.bound, "kind": "at most" if self.most else "at least",
                "median": median, "min": min(ratios), "max": max(ratios), "met": met,
                "against": [n for n in self.against if res.of(n, self.figure)]}


LAT, RATE, RPC, BW = ("lat", 8), ("rate", 8), ("rpc", 64), ("bw", 1 << 20)
GOALS = (
    Goal(LAT, ("limit",), 1.25, "lat 8 B to raw TCP"),
    Goal(LAT, ("fabric",), 1.05, "lat 8 B to bare libfabric"),
    Goal(LAT, MPIS, 1.0, "lat 8 B to the best of UCX, Open MPI, MPICH"),
    Goal(RATE, MPIS + FABRIC, 15.0, "rate 8 B to the best of UCX, MPI, libfabric"),
    Goal(RATE, ("zmq",), 1.0, "rate 8 B to ZeroMQ"),
    Goal(RPC, MPIS + ("libfabric",), 3.0, "rpc, 64 in flight, to the best of UCX, MPI, libfabric"),
    Goal(BW, ("limit",), 0.9, "bw 1 MiB to the better of raw TCP and bare libfabric"),
)


def goals(res):
    return [e for e in (g.entry(res) for g in GOALS) if e]


def goals_table(res):
    out = ["", "plait's goals, as ratios in each round%25s%8s%8s%8s" % ("needed", "median", "least", "most")]
    for e in goals(res):
        out.append("  %-54s %s %5.2f%8.2f%8.2f%8.2f  %s" % (
            e["goal"], "<=" if e["kind"] == "at most" else ">=", e["bound"], e["median"], e["min"], e["max"],
            "met" if e["met"] else "MISSED"))
    return "\n".join(out) if len(out) > 2 else ""
