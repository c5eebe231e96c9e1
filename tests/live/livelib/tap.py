# SPDX-License-Identifier: GPL-2.0-or-later
"""A live test: a cluster of its own, checks as TAP, and everything taken away at the end."""
import contextlib
import os
import shutil
import sys
import tempfile
import time

from livelib import measure
from livelib.cluster import LiveError, program, running_cluster

TELL_EVERY_S = 10
TOOLS = ("sarud", "saructl", "saru-witness", "saru-probe", "saru-cpgwatch", "saru-forecast")


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = False
        self.told = 0.0

    def note(self, text):
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def check(self, good, name, why=""):
        self.count += 1
        print(f"{'ok' if good else 'not ok'} {self.count} - {name}", flush=True)
        if not good:
            self.failed = True
            self.note(str(why))

    def waits(self, what, seconds):
        if seconds >= TELL_EVERY_S and time.monotonic() - self.told >= TELL_EVERY_S:
            self.told = time.monotonic()
            self.note(f"{seconds:.0f} s: {what}")


@contextlib.contextmanager
def folder_for_logs():
    folder = tempfile.mkdtemp(prefix="saru-live-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(tap, figures):
    """One line with what was measured, for whoever reads the log."""
    gap = figures["gap_ms"]
    tap.note(f"{figures['event']}: corosync_ms {figures['corosync_ms']}, gap ms p50 {gap['p50']} "
             f"p99 {gap['p99']} max {gap['max']}, others max {figures['gap_of_others_ms']['max']}, "
             f"answered twice {figures['answered_twice']}, "
             f"SYNs again {figures['syn_retransmits']}, "
             f"moved {figures['blocks_moved']} of at least {figures['blocks_minimum']}, "
             f"longest pause between probes {figures['probe_interval_max_ms']:.1f} ms")


def check_totals(tap, totals, planned=True):
    """What every run under load must show at its end."""
    tap.check(totals["answered_twice"] == 0, "no packet was answered by two nodes",
              "\n".join(totals["violations"]))
    tap.check(totals["shared_mac_frames"] == 0, "the shared MAC never was a source address",
              "\n".join(totals["violations"]))
    tap.check(totals["verdict"] != "violation", "the witness has nothing to complain about",
              "\n".join(totals["violations"]))
    for doubt in totals["doubts"]:
        tap.note(f"the witness doubts: {doubt}")
    tap.check(totals["blind"] == [], "the witness has seen every frame", totals["blind"])
    unseen = {one["event"]: one["blocks_silent"] for one in totals["events"]
              if one["blocks_silent"]}
    tap.check(not unseen, "in every event it saw probes to each block that was probed", unseen)
    tap.check(sum(totals["answers"].values()) > 0, "requests were answered", totals["answers"])
    if planned:
        beyond = totals["failed"] - totals["failed_unavoidable"]
        tap.check(beyond == 0, "no HTTP request failed beyond what a crash or a move must break",
                  totals["http_failures"])
        if totals["failed_by_move"]:
            tap.note(f"{totals['failed_by_move']} requests were under way when their block moved")


def main(body, **how):
    """Runs body(tap, cluster, folder) on a cluster made with `how`; exits with the verdict."""
    tap = Tap()
    print("TAP version 13", flush=True)
    try:
        if os.geteuid() != 0:
            raise LiveError("needs root")
        for tool in TOOLS:
            program(tool)
        with folder_for_logs() as folder:
            how.setdefault("nodes", 3)
            name = os.environ.get("SARU_LIVE_NAME") or f"check{os.getpid()}"
            with running_cluster(name, on_wait=tap.waits, **how) as cluster:
                body(tap, cluster, folder)
    except LiveError as error:
        tap.check(False, "it came to its end", error)
    except KeyboardInterrupt:
        tap.check(False, "it was not interrupted")
    print(f"1..{tap.count}", flush=True)
    sys.exit(1 if tap.failed or tap.count == 0 else 0)


def run_under_load(cluster, folder):
    run = measure.Run(cluster, folder)
    run.start()
    return run
