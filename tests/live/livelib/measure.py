# SPDX-License-Identifier: GPL-2.0-or-later
"""One event after the other, under load, each with its figures.

Where they come from: gaps, packets answered twice and SYN retransmissions from the frames on the
switch (saru-witness); corosync_ms from a CPG listener of its own on a survivor; blocks from the
kernels' sets; requests from the client. sarud is never asked for a figure."""
import json
import os
import signal
import time

from livelib import blocks as blocks_of
from livelib.cluster import LiveError
from livelib.handover import broken_by_a_move
from livelib.load import (PROBE_RATE, PROBED_BLOCKS, HttpLoad, Listener, Monitor, Probes, Servers,
                          Witness)

LEAD_S = 1.0     # probes run this long before an event
SETTLE_S = 0.7   # and this long after its end
CATCH_UP_S = 0.4  # until the witness has written what it saw
OTHERS = 8       # probed blocks that are not to move
EVENTS = ("crash", "return", "standby", "unstandby", "flush")


def percentiles(values):
    """Nearest rank, in ms; all None when there are no values."""
    if not values:
        return {"p50": None, "p99": None, "max": None}
    ordered = sorted(values)

    def rank(percent):
        return round(ordered[(len(ordered) * percent + 99) // 100 - 1], 3)
    return {"p50": rank(50), "p99": rank(99), "max": rank(100)}


class Run:
    """A cluster under load. Call one method per event; each returns its figures."""

    def __init__(self, cluster, folder, say=print):
        self.cluster, self.folder, self.say = cluster, folder, say
        self.servers = Servers(cluster)
        self.answering = cluster.nodes  # whose names the answers carry
        self.connections_move = False   # connections=sync: a connection may change its node
        self.monitors = {}
        self.events = []
        self.windows = []  # (figures, first ns, last ns, requests that a crash must break)
        first = cluster.nodes[0]
        # The last node crashes, the second stands by, the first one watches and is flushed.
        self.victim, self.resting, self.flushed = cluster.nodes[-1], cluster.nodes[1], first

    def start(self):
        cluster = self.cluster
        self.servers.start()
        self.settled(60, "all kernels to hold the agreed table")
        link = cluster.run(cluster.nodes[0], "ip", "-j", "link", "show", "saru1").stdout
        self.witness = Witness(cluster, self.folder, json.loads(link)[0]["address"],
                               connections_move=self.connections_move)
        self.listener = Listener(cluster, self.folder, cluster.nodes[0])
        for node in cluster.living():
            self.monitors[node] = Monitor(cluster, self.folder, node)
        self.http = HttpLoad(cluster, self.folder, expect=self.answering)

    def settled(self, seconds, awaited, without=None):
        expected = [node for node in self.cluster.living() if node != without]
        return blocks_of.wait_settled(self.cluster, expected, seconds, awaited)

    # Events.

    def crash(self):
        cluster, victim = self.cluster, self.victim
        before = blocks_of.read_kernels(cluster)
        own = blocks_of.spread(before[victim], PROBED_BLOCKS)
        rest = frozenset(range(blocks_of.BLOCKS)) - before[victim]
        probes, first_ns = self.probe(own + blocks_of.spread(rest, OTHERS))
        told = json.loads(cluster.rig("crash", "--json", victim).stdout)
        at_ns = told["realtime_ns"]
        dead_ns = at_ns + int(told["took_ms"] * 1e6)
        cluster.refresh()
        time.sleep(1.5 * cluster.detection_s())
        after = self.settled(30 + 3 * cluster.detection_s(),
                             f"the others to take the blocks of {victim}")
        number = cluster.ids[victim]
        ring_ns = self.listener.first_ring(at_ns, lambda members: number not in members)
        broken = [(block, dead_ns) for block in before[victim]]
        return self.finish("crash", first_ns, probes, before, after, at_ns, ring_ns, broken)

    def come_back(self):
        cluster, victim = self.cluster, self.victim
        before = blocks_of.read_kernels(cluster)
        told = json.loads(cluster.rig("boot", "--json", victim).stdout)
        at_ns = told["realtime_ns"]
        cluster.refresh()
        self.servers.start([victim])
        self.monitors[victim] = Monitor(cluster, self.folder, victim)
        number = cluster.ids[victim]
        ring_ns = cluster.wait(lambda: self.listener.first_ring(at_ns, lambda m: number in m), 30,
                               f"Corosync to let {victim} in")
        probes, first_ns = self.probe(self.will_move(before, cluster.living()))
        after = self.settled(90, f"{victim} to get its share of the blocks")
        return self.finish("return", first_ns, probes, before, after, at_ns, ring_ns)

    def standby(self):
        cluster, node = self.cluster, self.resting
        before = blocks_of.read_kernels(cluster)
        probes, first_ns = self.probe(blocks_of.spread(before[node], PROBED_BLOCKS))
        at_ns = time.time_ns()
        cluster.run(cluster.nodes[0], "pcs", "node", "standby", node, timeout=180)
        after = self.settled(60, f"{node} to hand over its blocks", without=node)
        return self.finish("standby", first_ns, probes, before, after, at_ns)

    def unstandby(self):
        cluster, node = self.cluster, self.resting
        before = blocks_of.read_kernels(cluster)
        probes, first_ns = self.probe(self.will_move(before, cluster.living()))
        at_ns = time.time_ns()
        cluster.run(cluster.nodes[0], "pcs", "node", "unstandby", node, timeout=180)
        after = self.settled(60, f"{node} to get its share of the blocks")
        return self.finish("unstandby", first_ns, probes, before, after, at_ns)

    def flush(self):
        cluster, node = self.cluster, self.flushed
        before = blocks_of.read_kernels(cluster)
        probes, first_ns = self.probe(blocks_of.spread(before[node], PROBED_BLOCKS))
        at_ns = time.time_ns()
        done = cluster.run(node, "nft", "flush", "ruleset", check=False)
        time.sleep(1.5)
        after = self.settled(30, f"the table of {node} to be whole again")
        figures = self.finish("flush", first_ns, probes, before, after, at_ns,
                              touched=probes.blocks)
        figures["nft_exit"] = done.returncode
        return figures

    def kill_sarud(self):
        """kill -9: the kernel goes on until the lease ends; Pacemaker starts sarud again."""
        cluster, node = self.cluster, self.resting
        before = blocks_of.read_kernels(cluster)
        probes, first_ns = self.probe(blocks_of.spread(before[node], PROBED_BLOCKS))
        pid = cluster.process_of(node, "sarud")
        at_ns = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        cluster.wait(lambda: cluster.process_of(node, "sarud") not in (None, pid), 60,
                     f"Pacemaker to start sarud on {node} again")
        after = self.settled(60, f"{node} to get its share of the blocks again")
        # Until its lease ends the kernel goes on answering; what is open then, breaks.
        closed_ns = at_ns + int(1.25 * cluster.detection_s() * 1e9)
        broken = [(block, closed_ns) for block in before[node]]
        return self.finish("kill", first_ns, probes, before, after, at_ns, broken=broken,
                           touched=probes.blocks)

    def disturb(self, name, act, seconds=90, staying=None):
        """Anything else: act() under probes to blocks of all nodes, until all is as it was.
        staying: a node whose blocks are told apart, as those that are not touched."""
        before = blocks_of.read_kernels(self.cluster)
        probes, first_ns = self.probe(blocks_of.spread(range(blocks_of.BLOCKS), 48), rate=400)
        at_ns = time.time_ns()
        act()
        after = self.settled(seconds, f"the cluster to recover from: {name}")
        touched = [block for block in probes.blocks if block not in before.get(staying, ())]
        return self.finish(name, first_ns, probes, before, after, at_ns, touched=touched)

    def will_move(self, before, members):
        now, soon = blocks_of.owners(before), blocks_of.forecast(self.cluster, before, members)
        return blocks_of.spread([b for b in soon if soon[b] != now.get(b)], PROBED_BLOCKS)

    # Figures.

    def probe(self, probed, rate=PROBE_RATE):
        """Starts the probes; the window of the event begins when they run."""
        probes = Probes(self.cluster, self.folder, probed, rate)
        time.sleep(LEAD_S)
        if probes.process.poll() is not None:
            raise LiveError("the UDP probes have ended at once")
        return probes, time.time_ns() - int(LEAD_S / 2 * 1e9)

    def finish(self, name, first_ns, probes, before, after, at_ns, ring_ns=None, broken=(),
               touched=None):
        time.sleep(SETTLE_S)
        last_ns = time.time_ns()
        sent = probes.stop()
        time.sleep(CATCH_UP_S)
        seen = self.witness.judge(name, first_ns, 0, (last_ns - first_ns) / 1e6)
        moved = blocks_of.moved(before, after)
        rows = {row["block"]: row for row in seen["blocks"] if row["protocol"] == "udp"}
        if touched is None:
            touched = [b for b in probes.blocks if b in moved]
        silent = [b for b in probes.blocks if b not in rows]
        others = [rows[b]["gap_ms"] for b in probes.blocks if b in rows and b not in touched]
        figures = {
            "event": name,
            "corosync_ms": round((ring_ns - at_ns) / 1e6, 1) if ring_ns else None,
            "gap_ms": percentiles([rows[b]["gap_ms"] for b in touched if b in rows]),
            "failed": None, "failed_by_move": None, "failed_unavoidable": None, "requests": None,
            "answered_twice": seen["answered_twice"],
            "syn_retransmits": seen["syn_retransmits"],
            "blocks_moved": len(moved),
            "blocks_minimum": blocks_of.minimum_moves(before, after) if name != "kill" else None,
            "blocks_measured": len([b for b in touched if b in rows]),
            "blocks_silent": len(silent),
            "gap_of_others_ms": percentiles(others),
            "monitor_gap_ms": self.monitored(moved, at_ns, last_ns, name == "crash"),
            "shared_mac_frames": seen["shared_mac_frames"],
            "doubts": seen["doubts"],
            "probes_per_second": round(sent["rate_achieved"] / max(1, sent["channels"])),
            "probe_interval_max_ms": sent["send_interval_max_ms"],
        }
        self.events.append(figures)
        self.windows.append((figures, first_ns, last_ns, dict(broken)))
        return figures

    def monitored(self, moved, at_ns, last_ns, crashed):
        """By the kernels' own announcements: from the last removal to the next addition."""
        gone, taken = {}, {}
        changes = sorted(change for monitor in self.monitors.values()
                         for change in monitor.changes() if at_ns <= change[0] <= last_ns)
        for when, verb, block in changes:
            if verb == "add" and block not in taken:
                taken[block] = when
            elif verb == "del" and block not in taken:
                gone[block] = when
        start = {block: at_ns for block in moved} if crashed else gone
        both = [block for block in moved if block in taken and block in start]
        return percentiles([(taken[block] - start[block]) / 1e6 for block in both])

    def broken_by_move(self, request, changes):
        """Whether a request may have failed because its block moved meanwhile."""
        return broken_by_a_move(request, changes)

    def stop(self):
        """Ends the load; completes the figures with the requests; returns the totals."""
        answers = self.http.stop()
        changes = [one for monitor in self.monitors.values() for one in monitor.changes()]
        for figures, first_ns, last_ns, broken in self.windows:
            requests = self.http.requests(first_ns, last_ns)
            lost = [one for one in requests if one["result"] != "ok"]
            died = [one for one in lost if one["start_ns"] <= broken.get(one["block"], 0)]
            moved = [one for one in lost if one not in died and self.broken_by_move(one, changes)]
            figures["requests"] = len(requests)
            figures["failed"] = len(lost)
            figures["failed_by_move"] = len(moved)
            figures["failed_unavoidable"] = len(died) + len(moved)
        summary = self.witness.stop()
        for watcher in [self.listener, *self.monitors.values()]:
            self.cluster.end_inside(watcher.process)
        return {
            "nodes": len(self.cluster.nodes),
            "token_ms": self.cluster.token,
            "answers": {node: answers["by_node"].get(node, 0) for node in self.answering},
            "requests": answers["requests"],
            "failed": answers["failed"],
            "failed_by_move": sum(f["failed_by_move"] for f in self.events),
            "failed_unavoidable": sum(f["failed_unavoidable"] for f in self.events),
            "answered_twice": summary["answered_twice"],
            "shared_mac_frames": summary["shared_mac_frames"],
            "syn_retransmits": summary["syn_retransmits"],
            "http_latency_ms": answers["latency_ms"],
            "http_failures": answers["failures"],
            "verdict": summary["verdict"],
            "doubts": summary["doubts"],
            "blind": summary["blind"],
            "violations": self.witness.violations(),
            "events": self.events,
        }


def excused(totals):
    """Which of the failed requests had to fail, as words."""
    moved = totals["failed_by_move"]
    died = totals["failed_unavoidable"] - moved
    return f"{died} to a node that crashed, {moved} under way when their block moved"


def shortcomings(totals):
    """What is wrong with a run, one sentence each; nothing when all is as promised."""
    found = list(totals["violations"])
    if totals["verdict"] != "ok" and not found:
        found.append("the witness is not sure: " + "; ".join(totals["doubts"]))
    beyond = totals["failed"] - totals["failed_unavoidable"]
    if beyond:
        found.append(f"{beyond} requests failed that neither a crash nor a move had to break")
    silent = [node for node, count in totals["answers"].items() if count == 0]
    if silent:
        found.append(f"never answered a request: {' '.join(silent)}")
    for one in totals["events"]:
        if one["blocks_minimum"] is not None and one["blocks_moved"] != one["blocks_minimum"]:
            found.append(f"{one['event']}: {one['blocks_moved']} blocks moved, "
                         f"{one['blocks_minimum']} had to")
        if one["blocks_silent"]:
            found.append(f"{one['event']}: {one['blocks_silent']} probed blocks saw no probe")
    return found
