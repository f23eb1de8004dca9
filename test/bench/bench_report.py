# SPDX-License-Identifier: BSD-3-Clause
"""Medians, the table, the JSON document and the plot of test/bench/compare."""

import statistics
import subprocess

import bench_tcp
from bench_peers import figures_of

UNITS = {"lat": ("ns", 1.0), "rate": ("M/s", 1e-6), "rpc": ("M/s", 1e-6), "bw": ("GB/s", 1e-9)}
HEADINGS = {"lat": "Half round trip in ns, less is better",
            "bw": "Messages one way, GB/s, more is better",
            "rate": "Messages of 8 bytes one way, million a second, more is better",
            "rpc": "Requests of 8 bytes with replies, million a second, more is better"}
BUSY = 0.1
COLOURS = {"limit": "#9e9e9e", "physical": "#cfcfcf", "fabric": "#cfcfcf", "plait": "#c62828",
           "plait-copy": "#ef9a9a"}
PEER_COLOURS = ("#1f77b4", "#6baed6", "#2ca02c", "#9467bd", "#e6a000",
                "#17becf", "#8c564b")


def figure_name(figure):
    test, n = figure
    if test == "rpc":
        return "%d in flight" % n
    if n >= 1 << 20:
        return "%d MiB" % (n >> 20)
    return "%d KiB" % (n // 1024) if n >= 1024 else "%d B" % n


class Results:
    """values[name][figure][round]; a round without a figure has no entry."""

    def __init__(self, contenders, tests, over="shm"):
        self.contenders, self.tests = contenders, tests  # contenders: plait first
        self.values, self.failures = {}, {}
        self.probes, self.repeated, self.displaced = [], 0, 0  # see Placement in compare
        self.busy = 0.0  # the most that others used of the two cores while we did nothing
        self.titles = {c.name: c.title for c in contenders}
        self.titles.update({c.name: c.title + ", copied" for c in contenders if c.name == "plait-copy"})
        self.received = {c.name: c.received for c in contenders}
        self.over = over
        self.titles.update(limit="limit (raw TCP)" if over == "tcp" else "limit (shared memory)",
                           physical="limit, one line", fabric="bare libfabric tcp")

    def add(self, name, round_no, found):
        for figure, entry in found.items():
            for kind, who in (("value", name), ("limit", "limit"), ("physical", "physical"),
                              ("fabric", "fabric")):
                if kind in entry and (kind == "value" or name == "plait"):
                    self.values.setdefault(who, {}).setdefault(figure, {})[round_no] = entry[kind]

    def fail(self, name, test, reason):
        self.failures.setdefault((name, test), reason)

    def of(self, name, figure):
        return self.values.get(name, {}).get(figure, {})

    def median(self, name, figure):
        values = self.of(name, figure)
        return statistics.median(values.values()) if values else None

    def ratio(self, name, base, figure):
        """Median of the ratios of each round: what ran at the same time is compared."""
        a, b = self.of(name, figure), self.of(base, figure)
        common = [a[r] / b[r] for r in a if r in b]
        return statistics.median(common) if common else None

    def best_peer(self, figure):
        medians = [(self.median(c.name, figure), c.name) for c in self.contenders
                   if c.is_peer and self.of(c.name, figure)]
        if not medians:
            return None
        return (min(medians) if figure[0] == "lat" else max(medians))[1]

    def rows(self, test):
        """The names that have a line in this test's part of the table."""
        names = [n for n in ("physical", "limit", "fabric") if any(self.of(n, f) for f in figures_of(test))]
        return names + [c.name for c in self.contenders if test in c.tests]

    def limit_drift(self):
        """The most that a limit has moved between rounds, as a factor."""
        spans = [max(v.values()) / min(v.values()) for v in self.values.get("limit", {}).values() if v]
        return max(spans, default=1.0)


def cell(value, width, digits):
    return "%*s" % (width, "-" if value is None else "%.*f" % (digits, value))


def table_line(res, name, figure):
    test = figure[0]
    scale, digits = UNITS[test][1], 1 if test == "lat" else 2
    values = res.of(name, figure)
    best = res.best_peer(figure)
    head = "%s %-22s" % ("*" if name == best else " ", res.titles[name])
    if not values:
        return "%s %s" % (head, res.failures.get((name, test), "no figure"))
    spread = (res.median(name, figure), min(values.values()), max(values.values()))
    return head + "".join(cell(v * scale, 10, digits) for v in spread) + \
        cell(res.ratio(name, "limit", figure), 11, 2) + \
        cell(res.ratio(name, best, figure) if best else None, 14, 2) + \
        "%s" % ("  " + res.received[name][test] if test in res.received.get(name, {}) else "")


def table(res, rounds):
    out = ["Median, least and most of %d interleaved round%s; * is the best peer. The two ratios are the" %
           (rounds, "" if rounds == 1 else "s"),
           "medians of those in each round, because the machine changes from round to round. Received in",
           "place: the receiver is shown the bytes, and the test does not read them; copied: to its memory."]
    for test in res.tests:
        out += ["", HEADINGS[test]]
        for figure in figures_of(test):
            out.append("%-24s%10s%10s%10s%11s%14s%s" % (
                "  " + figure_name(figure), "median", "least", "most", "to limit", "to best peer",
                "  received" if test in ("lat", "bw") else ""))
            out += [table_line(res, name, figure) for name in res.rows(test)]
        for (name, where), reason in res.failures.items():
            if where == test and any(res.of(name, f) for f in figures_of(test)):
                out.append("  %s %s" % (res.titles[name], reason))
    if res.over == "tcp":
        out += [line for line in [bench_tcp.goals_table(res)] if line]
    if res.repeated:
        out += ["", "%d runs were repeated because the cores were elsewhere before or after; %d of those"
                % (res.repeated, res.displaced), "that count are from such a moment nevertheless."]
    if res.limit_drift() > 1.3:
        out += ["", "The limit itself moved by a factor of %.1f between rounds (other placement of the"
                % res.limit_drift(), "cores, other load): trust the ratios, not the absolute figures."]
    if res.busy > BUSY:
        out += ["", "This machine is not quiet: other programs took %.0f %% of the two cores. The figures are"
                % (100 * res.busy), "worse than on a quiet one, most of all UCX's rates, which are averages."]
    return "\n".join(out)


def document(res, about):
    """What --json writes; figures in ns and per second."""
    figures = []
    for test in res.tests:
        for figure in figures_of(test):
            best = res.best_peer(figure)
            entry = {"test": test, "size": figure[1] if test != "rpc" else 8, "best_peer": best,
                     "unit": "ns" if test == "lat" else "per_s", "contenders": {}}
            if test == "rpc":
                entry["window"] = figure[1]
            for name in res.rows(test):
                values = res.of(name, figure)
                if not values:
                    entry["contenders"][name] = {"missing": res.failures.get((name, test), "no figure")}
                    continue
                entry["contenders"][name] = {
                    "median": res.median(name, figure), "min": min(values.values()),
                    "max": max(values.values()), "rounds": [values[r] for r in sorted(values)],
                    "to_limit": res.ratio(name, "limit", figure),
                    "received": res.received.get(name, {}).get(test),
                    "to_best_peer": res.ratio(name, best, figure) if best else None}
            figures.append(entry)
    if res.over == "tcp":
        about = dict(about, goals=bench_tcp.goals(res))
    return dict(about, over=res.over, busy=round(res.busy, 3), probes_ns=res.probes,
                runs_repeated=res.repeated, runs_displaced=res.displaced, titles=res.titles, figures=figures)


def gnuplot_script(res, path, subtitle):
    names = []
    for test in res.tests:
        names += [n for n in res.rows(test) if n not in names and any(res.of(n, f) for f in figures_of(test))]
    peers = [n for n in names if n not in COLOURS]
    colours = dict(COLOURS, **{n: PEER_COLOURS[i % len(PEER_COLOURS)] for i, n in enumerate(peers)})
    panels = [t for t in res.tests if any(res.of(n, f) for n in names for f in figures_of(t))]
    out = ["set terminal svg size %d,420 font 'sans-serif,12' background '#ffffff'" %
           (330 * (len(panels) + 1)),
           "set output '%s'" % path.replace("'", "''"),
           "set style data histogram", "set style histogram clustered gap 1",
           "set style fill solid 1 border rgb '#ffffff'", "set boxwidth 1", "set grid ytics lc rgb '#e0e0e0'",
           "set tics nomirror", "set border 3", "set datafile missing '-'",
           "set multiplot layout 1,%d title \"%s\"" % (len(panels) + 1, subtitle.replace('"', "'"))]
    for test in panels:
        figures = [f for f in figures_of(test) if any(res.of(n, f) for n in names)]
        shown = [n for n in names if any(res.of(n, f) for f in figures)]
        block = "$" + test
        out.append(block + " << EOD")
        for f in figures:
            cells = [res.median(n, f) for n in shown]
            out.append('"%s" %s' % (short_name(f), " ".join(
                "-" if v is None else "%.4f" % (v * UNITS[test][1]) for v in cells)))
        out += ["EOD", "set title \"%s\"" % HEADINGS[test].replace(", ", "\\n", 1),
                "set ylabel '%s'" % UNITS[test][0], "set logscale y",
                "set xlabel '%s'" % ("requests in flight" if test == "rpc" else "message size in bytes"),
                "unset key", "set yrange [%g:*]" % (0.5 * least_of(res, shown, figures) * UNITS[test][1])]
        out.append("plot " + ", ".join(
            "%s using %d%s lc rgb '%s'" % (block, i + 2, ":xtic(1)" if i == 0 else "", colours[n])
            for i, n in enumerate(shown)))
    # the last panel is the key alone
    out += ["unset logscale", "unset border", "unset tics", "unset title", "unset xlabel", "unset ylabel",
            "set xrange [0:1]", "set yrange [0:1]", "set key left center Left reverse samplen 2",
            "plot " + ", ".join("NaN with boxes lc rgb '%s' title \"%s\"" % (colours[n], res.titles[n])
                                for n in names), "unset multiplot", ""]
    return "\n".join(out)


def short_name(figure):
    n = figure[1]
    if n >= 1 << 20:
        return "%dM" % (n >> 20)
    return "%dK" % (n // 1024) if n >= 1024 else str(n)


def least_of(res, names, figures):
    return min(v for n in names for f in figures for v in [res.median(n, f)] if v is not None)


def plot(res, path, subtitle):
    """Writes an SVG; raises RuntimeError with gnuplot's words."""
    script = gnuplot_script(res, path, subtitle)
    p = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False)
    if p.returncode or "error" in p.stderr.lower():
        raise RuntimeError("gnuplot: " + (p.stderr.strip().splitlines() or ["failed"])[-1])
