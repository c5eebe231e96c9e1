# SPDX-License-Identifier: GPL-2.0-or-later
"""All figures that the project states, several runs each, written as a page for people."""
import argparse
import json
import os
import platform
import subprocess
import sys
import time

from livelib import measure
from livelib.cluster import REPO, LiveError, finish, program, running_cluster
from livelib.story import number
from livelib.tap import folder_for_logs, run_under_load

EVENTS = ("crash", "come_back", "standby", "unstandby", "flush", "kill_sarud")
FAST = {"token": 300, "consensus": 100}
LONG = {"token": 3000}
ABOUT = """# Figures

All of them were taken by `tests/live/figures`, which starts real nodes with `tests/rig/rig` (real
Corosync with knet and encryption, real Pacemaker, the clone of the README) on one machine and
writes this page. `./demo` takes the same figures, once. To take them again, on a machine with
nothing else to do:

    ./check build-gcc
    tests/live/figures --output docs/figures.md

How they are measured:

- **gap**: 32 blocks that the event moves are probed with UDP packets 1000 times a second each.
  The gap of a block goes from the last probe that was answered by the old owner to the first one
  answered by the new owner, by the frames on the switch (`saru-witness`). p50, p99 and max are
  over these blocks; 1 ms is the resolution, and "longest pause" says how long the sender itself
  was held up at worst.
- **monitors**: the same by other means: from the kernel's announcement that the block left one
  node's set (for a crash: from the crash) to the announcement that it is in another's, heard by a
  listener on each node.
- **others**: the longest gap of 8 probed blocks that did not move, 0 when each probe was
  answered.
- **Corosync**: from the event to the membership callback of a CPG client of its own on a survivor
  (`saru-cpgwatch`). A crash: the node's link falls silent, then SIGKILL to everything.
- **failed**: of 100 fresh HTTP connections a second, all blocks in turn. **SYNs**: TCP SYNs sent
  again.
- **twice**: packets answered by two nodes, as the witness saw it.
- **moved / least**: blocks by the kernels' sets before and after; the least that any balanced
  table allows is computed by the test itself.

sarud's own log and status are never used for a figure.
"""


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} processors ({names[0] if names else platform.machine()})"


def load_average():
    return round(os.getloadavg()[0], 1)


def say(text):
    print(text, file=sys.stderr, flush=True)


def waits(what, seconds):
    if seconds > 20:
        say(f"  {seconds:.0f} s: {what}")


def one_run(events, idle_seconds, **timing):
    """One cluster, one event after the other; returns totals with everything in it."""
    began = load_average()
    with folder_for_logs() as folder:
        with running_cluster("figures", 3, on_wait=waits, **timing) as cluster:
            run = run_under_load(cluster, folder)
            lease_ms = cluster.sarud_status(cluster.nodes[0])["lease_ms"]
            for event in events:
                figures = getattr(run, event)()
                say(f"  {figures['event']}: {figures['gap_ms']}")
            totals = run.stop()
            totals["lease_ms"] = lease_ms
            totals["load_average"] = [began, load_average()]
            if idle_seconds:
                totals["idle"] = idle(cluster, idle_seconds)
            return totals


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def idle(cluster, seconds):
    """What sarud and Corosync use of one processor while nothing happens and nobody asks."""
    time.sleep(3)
    pids = {(comm, node): cluster.process_of(node, comm)
            for comm in ("sarud", "corosync") for node in cluster.living()}
    first = {key: cpu_ticks(pid) for key, pid in pids.items()}
    time.sleep(seconds)
    per_second = os.sysconf("SC_CLK_TCK")
    share = {key: 100 * (cpu_ticks(pid) - first[key]) / per_second / seconds
             for key, pid in pids.items()}
    return {comm: {"cpu_percent": [round(share[key], 2) for key in share if key[0] == comm],
                   "rss_mib": [round(resident_kib(pids[key]) / 1024, 1)
                               for key in pids if key[0] == comm]}
            for comm in ("sarud", "corosync")}


def bench():
    """The benchmark of the kernel's part; its JSON lines, None when it is not built."""
    script = f"{REPO}/tests/kernel/bench.sh"
    tool = program("nft_bench")
    done = finish([script, tool], 300, script)
    if done.returncode != 0:
        raise LiveError(f"{script} failed: {done.stderr.strip()}")
    return done.stdout


# The page.

def event_rows(runs, names):
    heads = ["event", "run", "Corosync ms", "gap p50", "p99", "max ms", "monitors p50", "max ms",
             "others ms", "failed", "SYNs", "twice", "moved / least", "longest pause ms"]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in names:
        for i, totals in enumerate(runs, 1):
            one = next((e for e in totals["events"] if e["event"] == name), None)
            if one is None:
                continue
            gap, monitors = one["gap_ms"], one["monitor_gap_ms"]
            least = one["blocks_minimum"]
            moved = f"{one['blocks_moved']} / {'-' if least is None else least}"
            cells = [name, str(i), number(one["corosync_ms"]), number(gap["p50"]),
                     number(gap["p99"]), number(gap["max"]), number(monitors["p50"]),
                     number(monitors["max"]), number(one["gap_of_others_ms"]["max"]),
                     str(one["failed"]), str(one["syn_retransmits"]), str(one["answered_twice"]),
                     moved, number(one["probe_interval_max_ms"])]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def ratios(runs):
    """The gap of a crash by Corosync's own detection, that of kill -9 by the lease."""
    lines = []
    for i, totals in enumerate(runs, 1):
        for one in totals["events"]:
            if one["event"] == "crash":
                part = one["gap_ms"]["max"] / one["corosync_ms"]
                lines.append(f"- run {i}, crash: longest gap = {part:.2f} x what Corosync took")
            if one["event"] == "kill":
                part = one["gap_ms"]["max"] / totals["lease_ms"]
                lines.append(f"- run {i}, kill -9 of sarud: longest gap = {part:.2f} x the lease "
                             f"({totals['lease_ms']} ms)")
    return lines


def sums(runs):
    return [f"- run {i}: {t['requests']} requests, {t['failed']} failed "
            f"({measure.excused(t)}); answered twice "
            f"{t['answered_twice']}; load average {t['load_average'][0]} before and "
            f"{t['load_average'][1]} after" for i, t in enumerate(runs, 1)]


def idle_lines(runs):
    lines = []
    for totals in runs:
        for comm, found in totals.get("idle", {}).items():
            lines.append(f"- {comm}: {found['cpu_percent']} % of a processor on the three nodes, "
                         f"{found['rss_mib']} MiB resident")
    return lines


def page(found):
    where = (f"Taken {found['date']} at commit {found['commit']}, Linux {platform.release()}, "
             f"{processor()}, three nodes and their client all on this one machine.")
    text = [ABOUT, where, "", "## Token 500 ms (Corosync's detection: 1100 ms)", ""]
    names = ["crash", "return", "standby", "unstandby", "flush", "kill"]
    text += [*event_rows(found["slow"], names), "", *ratios(found["slow"]), "",
             *sums(found["slow"]), "", "## Token 300 ms, consensus 100 ms", "",
             *event_rows(found["fast"], ["crash"]), "", *ratios(found["fast"]), "",
             *sums(found["fast"]), "",
             "## Token 3000 ms: the survivors answer on while the ring reforms", "",
             *event_rows(found["long"], ["crash"]), "", *ratios(found["long"]), "",
             *sums(found["long"]), "", "## sarud when nothing happens", "",
             f"Processor time over {found['idle_seconds']} s, from /proc/PID/stat:", "",
             *idle_lines(found["slow"]), "", "## The kernel's part", "",
             "One renewal of the lease and one switch of half of the blocks, with the reading back "
             "of the answer", "(`tests/kernel/bench.sh`):", "", "```",
             found["bench"].rstrip(), "```"]
    return "\n".join(text) + "\n"


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="figures", description="Takes the figures of docs/figures.md. Takes about 10 minutes.")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each kind (3)")
    parser.add_argument("--idle", type=int, default=60, metavar="S",
                        help="seconds over which an idle sarud is watched (60)")
    parser.add_argument("--output", metavar="FILE", help="write the page there, not to stdout")
    parser.add_argument("--json", metavar="FILE", help="all that was measured, for tools")
    return parser.parse_args(argv)


def commit():
    done = subprocess.run(["git", "-C", REPO, "rev-parse", "--short", "HEAD"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.strip() or "unknown"


def main(argv):
    options = parse(argv)
    found = {"date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "commit": commit(),
             "idle_seconds": options.idle, "slow": [], "fast": [], "long": []}
    try:
        for i in range(options.runs):
            say(f"run {i + 1} of {options.runs}, token 500; load average {load_average()}")
            last = i + 1 == options.runs
            found["slow"].append(one_run(EVENTS, options.idle if last else 0, token=500))
        for i in range(options.runs):
            say(f"run {i + 1} of {options.runs}, token 300; load average {load_average()}")
            found["fast"].append(one_run(["crash"], 0, **FAST))
        say(f"token 3000; load average {load_average()}")
        found["long"].append(one_run(["crash"], 0, **LONG))
        found["bench"] = bench()
    except (LiveError, KeyboardInterrupt) as error:
        say(f"figures: {error or 'interrupted'}")
        return 1
    text = page(found)
    for path, content in ((options.output, text), (options.json, json.dumps(found, indent=1))):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
    if not options.output:
        print(text, end="")
    wrong = [f"{kind} run {i}: {sentence}" for kind in ("slow", "fast", "long")
             for i, totals in enumerate(found[kind], 1)
             for sentence in measure.shortcomings(totals)]
    for sentence in wrong:
        say(f"WRONG: {sentence}")
    return 1 if wrong else 0
