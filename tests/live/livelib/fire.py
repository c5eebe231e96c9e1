# SPDX-License-Identifier: GPL-2.0-or-later
"""Random faults on a real cluster under load, the witness watching, and an audit after each."""
import argparse
import contextlib
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time

from livelib import blocks as blocks_of
from livelib.cluster import ADDRESS, LiveError, program, running_cluster
from livelib.fire_audit import Audit, judge, longest_silence, unasked
from livelib.fire_bounds import Bounds
from livelib.fire_field import RECOVERY_S, Field
from livelib.fire_kinds import KINDS, PLANTS, SPLITS
from livelib.fire_pacemaker import lost_stops, refresh
from livelib.fire_splits import splits
from livelib.load import HttpLoad, Witness, end, last_answer, real_time
from livelib.tap import TELL_EVERY_S, TOOLS

HTTP_RATE = 30
PROBED_BLOCKS = 32
RESOLUTION_S = 0.25  # a silence is measured no better than a block is asked
FAR = 3
PROBE_RATE = 50      # for each of them: gaps are told to 20 ms
LEAD_S = 0.5         # the witness listens this long before a fault
CATCH_UP_S = 1.0     # and this long after the cluster has settled
LOG_FILE = "/var/log/sarud.log"
PATIENCE_S = 30      # after this without recovery it is asked whether Pacemaker is at fault


def sequence(seed, nodes, kinds):
    """All faults of a seed, without end. Leaving kinds out changes nothing about the others."""
    turn = 0
    while True:
        order = sorted(KINDS)
        random.Random(f"{seed} order {turn}").shuffle(order)
        for kind in order:
            if kind in kinds:
                yield KINDS[kind](seed, nodes, turn)
        turn += 1
        for kind in kinds:
            if kind in PLANTS:
                yield PLANTS[kind](seed, nodes, turn)


class Result:
    """One fault: what it was, and what came of it."""

    def __init__(self, fault):
        self.fault = fault
        self.complaints = []
        self.doubts = []
        self.lost_stops = []  # nodes where Pacemaker had to be told what runs
        self.twice = 0
        self.silence_s, self.block = 0.0, None
        self.bound_s = 0.0
        self.settled_s = 0.0

    def is_over(self):
        return self.silence_s > self.bound_s

    def is_far_over(self):
        """A busy machine is late by a part of the bound, not by several of them."""
        return self.silence_s > FAR * self.bound_s

    def line(self, number, began):
        verdict = "FAILED" if self.complaints else "ok"
        if self.is_over():
            verdict += ", longer than the bound"
        block = "" if self.block is None else f" (block {self.block})"
        return (f"[{began:6.0f} s] {number:3} {self.fault.kind}: {self.fault.text}: "
                f"longest without an answer {self.silence_s:.2f} s{block}, "
                f"bound {self.bound_s:.2f} s; twice {self.twice}; "
                f"settled {self.settled_s:.1f} s after it; {verdict}")


class Fire:
    """A cluster under load that is set on fire, fault after fault."""

    def __init__(self, cluster, folder, say=print):
        self.cluster, self.folder, self.say = cluster, folder, say
        self.field = Field(cluster)
        self.results = []
        self.began = time.monotonic()

    def start(self):
        cluster = self.cluster
        cluster.run(cluster.nodes[0], *cluster.create_words(f"log_file={LOG_FILE}"), timeout=90)
        self.field.servers.start()
        self.field.settled(cluster.nodes, "all kernels to hold the agreed table")
        link = cluster.run(cluster.nodes[0], "ip", "-j", "link", "show", "saru1").stdout
        self.mac = json.loads(link)[0]["address"]
        status = cluster.sarud_status(cluster.nodes[0])
        self.bounds = Bounds(cluster.detection_s(), status["lease_ms"] / 1000,
                             cluster.device_sync_s, cluster.device_lag_s)
        cluster.wait_stable(RECOVERY_S)
        self.audit = Audit(self.field)
        self.http = HttpLoad(cluster, self.folder, rate=HTTP_RATE)
        self.start_probes()
        self.witness = self.new_witness()
        self.began = time.monotonic()

    def start_probes(self):
        self.probed = blocks_of.spread(range(blocks_of.BLOCKS), PROBED_BLOCKS)
        argv = real_time([program("saru-probe"), "send", "--address", ADDRESS, "--rate",
                          str(PROBE_RATE), "--seconds", "86000", "--realtime", "5",
                          "--blocks", ",".join(str(block) for block in self.probed)])
        self.probes_output = f"{self.folder}/probes.json"
        with open(self.probes_output, "w", encoding="utf-8") as output:
            self.probes = self.cluster.start(
                self.cluster.inside("client", argv, own_pids=False), output)

    def new_witness(self):
        """A witness of its own for every fault; the next listens before the last one stops."""
        place = tempfile.mkdtemp(prefix="witness.", dir=self.folder)
        witness = Witness(self.cluster, place, self.mac)
        witness.place = place
        return witness

    def check_load(self):
        if self.probes.poll() is not None or self.http.process.poll() is not None:
            raise LiveError("the load has ended")

    def run(self, fault):
        """One fault from beginning to end."""
        result = Result(fault)
        time.sleep(LEAD_S)
        self.check_load()
        for step in (fault.inject, fault.heal, lambda _: self.recover(result)):
            try:
                step(self.field)
            except LiveError as error:
                result.complaints.append(str(error))
        result.bound_s = fault.bound(self.bounds)
        try:
            self.hear_witness(result)
        except LiveError as error:  # a machine that chokes; the logs of it tell more
            result.complaints.append(str(error))
        self.results.append(result)
        return result

    def recover(self, result):
        began = time.monotonic()
        seconds = result.fault.recovery_s
        complaints = self.audit.recovered(min(seconds, PATIENCE_S))
        if complaints and seconds > PATIENCE_S:
            result.lost_stops = lost_stops(self.field)
            for node in result.lost_stops:
                refresh(self.cluster, node)
            complaints = self.audit.recovered(seconds - PATIENCE_S)
        result.complaints += complaints
        result.settled_s = time.monotonic() - began
        if not result.complaints:
            self.cluster.wait_stable(RECOVERY_S)
            result.complaints += self.audit.complaints(result.fault.calm_s)

    def hear_witness(self, result):
        time.sleep(CATCH_UP_S)
        old, self.witness = self.witness, self.new_witness()
        time.sleep(CATCH_UP_S)
        summary = old.stop()
        result.twice = summary["answered_twice"]
        result.doubts = summary["doubts"]
        result.silence_s, result.block = longest_silence(summary)
        result.complaints += judge(summary, old.violations())
        unseen, resolution_s = unasked(summary, self.probed)
        if unseen:
            result.complaints.append(f"{unseen} of {len(self.probed)} probed blocks were not asked")
        if resolution_s > RESOLUTION_S:
            result.doubts.append(f"a block was not asked for {resolution_s:.2f} s")
        if result.is_far_over():
            result.complaints.append(f"block {result.block} had no owner for {FAR} times its bound")
        if not result.complaints:
            shutil.rmtree(old.place)

    def keep(self, result):
        """The logs and records of a run that has failed, where the clean-up does not take them."""
        kept = tempfile.mkdtemp(prefix="saru-fire-", dir="/tmp")
        with contextlib.suppress(OSError), open("/proc/loadavg", encoding="utf-8") as file:
            result.complaints.append(f"load of the machine: {file.read().strip()}")
        with open(f"{kept}/complaints", "w", encoding="utf-8") as file:
            file.write("\n".join([result.fault.kind + ": " + result.fault.text,
                                  *result.complaints]) + "\n")
        for node, folder in self.audit.folders.items():
            with contextlib.suppress(OSError):  # what is written meanwhile may be gone meanwhile
                shutil.copytree(folder, f"{kept}/{node}", symlinks=True,
                                ignore_dangling_symlinks=True)
            with contextlib.suppress(LiveError, OSError):
                said = self.cluster.run(node, "sh", "-c", "nft list ruleset; ip addr; crm_mon -1A; "
                                        "saructl status --json; saructl events", check=False)
                with open(f"{kept}/{node}/now", "w", encoding="utf-8") as file:
                    file.write(said.stdout + said.stderr)
        for place in os.listdir(self.folder):
            source = f"{self.folder}/{place}"
            if os.path.isdir(source):
                shutil.copytree(source, f"{kept}/{place}")
        return kept

    def stop(self):
        """Ends the load; what it has to tell of the whole run."""
        self.witness.stop()
        answers = self.http.stop()
        end(self.probes, 15, "the UDP probes")
        sent = last_answer(self.probes_output, "the load of UDP probes")
        return answers, sent


def table(results, also=()):
    """By kind, as lines of text. The longest silence stands beside the bound of that same fault."""
    heads = ["kind", "faults", "failed", "twice", "longest s", "its bound s", "over", "doubted",
             "settled s"]
    rows = []
    for kind in [*KINDS, *also]:
        ones = [one for one in results if one.fault.kind == kind]
        if not ones:
            continue
        worst = max(ones, key=lambda one: one.silence_s)
        rows.append([kind, str(len(ones)), str(sum(bool(one.complaints) for one in ones)),
                     str(sum(one.twice for one in ones)), f"{worst.silence_s:.2f}",
                     f"{worst.bound_s:.2f}",
                     str(sum(one.is_over() for one in ones)),
                     str(sum(bool(one.doubts) for one in ones)),
                     f"{max(one.settled_s for one in ones):.1f}"])
    rows.append(["all", str(len(results)), str(sum(bool(one.complaints) for one in results)),
                 str(sum(one.twice for one in results)), "", "",
                 str(sum(one.is_over() for one in results)),
                 str(sum(bool(one.doubts) for one in results)), ""])
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    return ["  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])])
            for row in [heads, *rows]]


def splits_told(results, nodes):
    """Which splits of these nodes there were, by kind, as lines of text."""
    told = []
    for kind in SPLITS:
        ran = {one.fault.split for one in results if one.fault.kind == kind}
        if ran:
            told.append(f"{kind}: {len(ran)} of the {len(splits(nodes))} splits: "
                        + ", ".join(split.replace(" ", "") for split in sorted(ran)))
    return told


class Teller:
    """Says what is being waited for, when that takes long."""

    def __init__(self):
        self.told = 0.0

    def waits(self, what, seconds):
        if seconds >= TELL_EVERY_S and time.monotonic() - self.told >= TELL_EVERY_S:
            self.told = time.monotonic()
            print(f"           … {seconds:.0f} s: {what}", flush=True)


def burn(fire, options, kinds):
    """Fault after fault until the time is over or one has failed."""
    faults = sequence(options.seed, fire.cluster.nodes, kinds)
    until = time.monotonic() + (options.minutes * 60 if options.minutes else math.inf)
    number = 0
    for number, fault in enumerate(faults, 1):
        if number < options.first:
            continue
        if time.monotonic() >= until or (options.count and number >= options.first + options.count):
            return True
        result = fire.run(fault)
        print(result.line(number, time.monotonic() - fire.began), flush=True)
        for text in [*result.complaints, *(f"the witness doubts: {one}" for one in result.doubts),
                     *(f"Pacemaker lost its stop on {one} and was told to look there: "
                       "livelib/fire_pacemaker.py" for one in result.lost_stops)]:
            print(f"           {text}", flush=True)
        if result.complaints:
            print(f"logs and records of it are kept in {fire.keep(result)}")
            print(f"again: tests/live/fire --seed {options.seed} --nodes {options.nodes} "
                  f"--only {fault.kind}, or --first {number} for the same order", flush=True)
            return False
    return True


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="fire", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="kinds:\n" + "\n".join(f"  {k:<18}{one.about}" for k, one in KINDS.items()) +
        "\nplanted, with --only (the run must fail):\n" +
        "\n".join(f"  {k:<18}{one.about}" for k, one in PLANTS.items()))
    parser.add_argument("--minutes", type=float,
                        help="for how long new faults begin (10; without end if it counts faults)")
    parser.add_argument("--seed", default="1", help="the same faults in the same order (1)")
    parser.add_argument("--nodes", type=int, default=3, choices=(2, 3, 4, 5))
    parser.add_argument("--qdevice", action="store_true",
                        help="with a quorum device and its faults; for 2 or 4 nodes")
    parser.add_argument("--only", action="append", metavar="KIND", choices=[*KINDS, *PLANTS],
                        help="of these kinds only; may be repeated; the faults stay what they were")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="begin with the Nth")
    parser.add_argument("--count", type=int, default=0, metavar="N", help="end after N faults")
    parser.add_argument("--every-split", action="store_true",
                        help="each split of the nodes once, by the switch and in the ring alone "
                        "(or as --only says)")
    parser.add_argument("--list", action="store_true",
                        help="tell which faults it would be (the first 50, or --count)")
    options = parser.parse_args(argv)
    if options.qdevice != (options.nodes % 2 == 0):
        parser.error("two or four nodes go with --qdevice, and only they")
    complete(options)
    return options


def complete(options):
    """What follows from other options."""
    drawn = [kind for kind, fault in KINDS.items() if options.qdevice or not fault.needs_device]
    if options.every_split:
        options.only = options.only or SPLITS
        options.count = len(options.only) * len(splits(names_of(options.nodes)))
    options.kinds = options.only or drawn
    if options.minutes is None:
        options.minutes = 0 if options.count else 10


def names_of(nodes):
    return [f"n{k}" for k in range(1, nodes + 1)]


def show(options, kinds):
    nodes = names_of(options.nodes)
    last = options.first + (options.count or 50)
    for number, fault in enumerate(sequence(options.seed, nodes, kinds), 1):
        if number >= last:
            return
        if number >= options.first:
            print(f"{number:4} {fault.kind}: {fault.text}")


def main(argv):
    options = parse(argv)
    kinds = options.kinds
    if options.list:
        show(options, kinds)
        return 0
    if os.geteuid() != 0:
        print("fire: needs root: namespaces and real daemons", file=sys.stderr)
        return 2
    teller = Teller()
    folder = tempfile.mkdtemp(prefix="saru-live-")
    try:
        for tool in TOOLS:
            program(tool)
        with running_cluster(f"fire{os.getpid() % 10000}", nodes=options.nodes, clone=False,
                             on_wait=teller.waits, qdevice=options.qdevice) as cluster:
            fire = Fire(cluster, folder)
            fire.start()
            print(f"{options.nodes} nodes, seed {options.seed}; token {cluster.token} ms, "
                  f"lease {fire.bounds.lease * 1000:.0f} ms", flush=True)
            try:
                good = burn(fire, options, kinds)
                good_end = concluded(fire, good)
            finally:
                print("\n" + "\n".join(table(fire.results, PLANTS)
                                       + splits_told(fire.results, cluster.nodes)), flush=True)
    except LiveError as error:
        print(f"fire: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good and good_end else 1


def concluded(fire, good):
    """conclude(); after a fault that has failed the load may have failed as well."""
    try:
        return conclude(fire)
    except LiveError as error:
        if good:
            raise
        print(f"nothing to tell of the load: {error}")
        return False


def conclude(fire):
    """What the load saw; True unless it saw nothing."""
    answers, sent = fire.stop()
    print(f"\n{answers['requests']} HTTP requests, {answers['failed']} failed; "
          f"{sent['sent']} probes, {sent['received']} answered; "
          f"longest pause between probes {sent['send_interval_max_ms']:.0f} ms")
    print(f"stops that Pacemaker lost: {sum(len(one.lost_stops) for one in fire.results)}")
    print(f"errors in the logs of sarud: {len(fire.audit.errors)}")
    for line in fire.audit.errors[:20]:
        print(f"  {line}")
    return answers["requests"] > 0 and sent["received"] > 0
