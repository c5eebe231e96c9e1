# SPDX-License-Identifier: GPL-2.0-or-later
"""Web traffic while blocks are handed over, and which requests may fail then.

Two kinds may: those to a server that a test has broken, until its blocks are elsewhere, and those
that were under way when their block moved: a node that stops takes its own along."""
import json
import time

from livelib import blocks as blocks_of
from livelib.cluster import ADDRESS
from livelib.load import HttpLoad, Monitor


def excuse_of(request, changes, broken):
    """Why this request may have failed; None when it may not.

    changes: (ns, verb, block, node) of all kernels; broken: (node, its blocks, from ns)."""
    began, ended = request["start_ns"], request["end_ns"]
    for node, owned, since in broken:
        gone = [when for when, verb, block, where in changes
                if where == node and verb == "del" and when >= since and block == request["block"]]
        until = min(gone, default=ended)
        if request["block"] in owned and ended >= since and began <= until:
            return f"to the broken server of {node}"
    if broken_by_a_move(request, changes):
        return "under way when its block moved"
    return None


def broken_by_a_move(request, changes):
    """The new owner does not know the connection and resets it: no client is left waiting."""
    return not request["result"].startswith("timeout") and any(
        verb == "del" and block == request["block"]
        and request["start_ns"] <= when <= request["end_ns"] for when, verb, block, *_ in changes)


class Traffic:
    """HTTP requests to all blocks, and the announcements of all kernels, until stop()."""

    def __init__(self, cluster, folder, address=ADDRESS):
        self.cluster = cluster
        self.monitors = {node: Monitor(cluster, folder, node) for node in cluster.living()}
        self.http = HttpLoad(cluster, folder, address=address)
        self.broken = []  # (node, its blocks, from ns)

    def server_fails(self, node, act):
        """act() breaks the server of this node; its requests may fail until its blocks are gone."""
        owned = blocks_of.read_kernels(self.cluster, [node])[node]
        self.broken.append((node, owned, time.time_ns()))
        act()

    def changes(self):
        return sorted((when, verb, block, node) for node, monitor in self.monitors.items()
                      for when, verb, block in monitor.changes())

    def stop(self):
        """(answers, [failed requests that must not have], {excuse: how many})"""
        answers = self.http.stop()
        changes = self.changes()
        for monitor in self.monitors.values():
            self.cluster.end_inside(monitor.process)
        bad, excuses = [], {}
        for request in self.http.requests():
            if request["result"] == "ok":
                continue
            excuse = excuse_of(request, changes, self.broken)
            if excuse:
                excuses[excuse] = excuses.get(excuse, 0) + 1
            else:
                near = [(when - request["start_ns"], verb, node)
                        for when, verb, block, node in changes if block == request["block"]
                        and abs(when - request["start_ns"]) < 1_000_000_000]
                bad.append({**request, "changes of its block, ns after its start": near})
        return answers, bad, excuses


def check_traffic(tap, traffic):
    """What every hand-over must show at its end."""
    answers, bad, excuses = traffic.stop()
    tap.note(f"{answers['requests']} requests, {answers['failed']} failed {json.dumps(excuses)}")
    tap.check(answers["requests"] > 100, "there was traffic", answers)
    tap.check(not bad, "no request failed but those to a broken server", bad[:10])
