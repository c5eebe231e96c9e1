# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster as faults see it: its processes, its switch, and what was done to whom."""
import contextlib
import os
import signal
import subprocess
import time

from livelib import blocks as blocks_of
from livelib.cluster import LiveError
from livelib.load import Servers

RING_PORT = 5405
RECOVERY_S = 90  # nobody's promise: after this a cluster that has not recovered never will
STACK = ("pacemakerd", "pacemaker-based", "pacemaker-fenced", "pacemaker-execd", "pacemaker-attrd",
         "pacemaker-schedulerd", "pacemaker-controld")
RULES_TABLE = "fire"


def comm_of(name):
    """The kernel cuts names of processes."""
    return name[:15]


def scan(pids):
    """{machine: {pid: name}} of all processes, by the pid namespaces of these machines' inits."""
    machines = {}
    for machine, pid in pids.items():
        with contextlib.suppress(OSError):
            machines[os.readlink(f"/proc/{pid}/ns/pid")] = machine
    found = {machine: {} for machine in pids}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            machine = machines.get(os.readlink(f"/proc/{entry}/ns/pid"))
            if machine:
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                    found[machine][int(entry)] = file.read().strip()
    return found


class Field:
    """What faults act upon. `killed` counts, per node, the saruds that were killed."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.servers = Servers(cluster)
        self.killed = {}

    # Processes.

    def processes(self, node, names=None):
        """{pid: name} on a node, of these names only if any are given."""
        found = scan({node: self.cluster.pids[node]})[node]
        wanted = names and {comm_of(name) for name in names}
        return {pid: name for pid, name in found.items() if not wanted or name in wanted}

    def send_signal(self, node, number, *names):
        """Signals these processes, or all of the node; new ones too, until there are none."""
        hit = set()
        for _ in range(20):
            fresh = [pid for pid in self.processes(node, names) if pid not in hit]
            if not fresh:
                break
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            hit.update(fresh)
        return hit

    def kill(self, node, name, number=signal.SIGKILL):
        """Ends a process without warning; a sarud that is killed has an excuse to have ended."""
        pids = self.send_signal(node, number, name)
        if not pids:
            raise LiveError(f"no {name} runs on {node}")
        if name == "sarud" and number == signal.SIGKILL:
            self.excuse(node)
        self.cluster.wait(lambda: not pids & set(self.processes(node, [name])), 20,
                          f"{name} of {node} to die", step=0.01)

    def excuse(self, node):
        self.killed[node] = self.killed.get(node, 0) + 1

    def gone(self, node, names, seconds):
        """Waits until none of these runs any more."""
        self.cluster.wait(lambda: not self.processes(node, names), seconds,
                          f"{' and '.join(names)} of {node} to end")

    # The cluster software of a node, as its unit files would stop and start it.

    def stop_stack(self, node):
        for name in ("pacemakerd", "corosync"):
            self.send_signal(node, signal.SIGTERM, name)
            self.gone(node, STACK if name == "pacemakerd" else [name], RECOVERY_S)

    def start_stack(self, node, pacemaker="yes"):
        self.shell(node, f"setsid -f /run/saru-rig/start-node.sh {pacemaker} >/dev/null 2>&1")

    def boot(self, *nodes):
        self.cluster.rig("boot", *nodes)
        self.cluster.refresh()
        self.cluster.children = [one for one in self.cluster.children if one.poll() is None]
        self.servers.start(list(nodes))

    def crash(self, *nodes):
        # nsenter stops itself with its child and does not wake with it; a machine cannot die
        # before its processes' parents outside have noticed.
        for child in self.cluster.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
        for node in nodes:
            if self.processes(node, ["sarud"]):
                self.excuse(node)
        self.cluster.rig("crash", *nodes)
        self.cluster.refresh()

    # Network.

    def shell(self, node, script, check=True):
        return self.cluster.run(node, "sh", "-ec", script, check=check)

    def switch(self, *words):
        argv = ["ip", "-n", f"{self.cluster.name}-lan", *words]
        return self.cluster.finish(argv, 20, True, "switch: ip " + " ".join(words))

    def drop(self, rules):
        """{node: [(hook, match)]}: that of the ring's packets is dropped, on all nodes at once."""
        started = []
        for node, ones in rules.items():
            script = f"add table inet {RULES_TABLE}; " + " ".join(
                f"add chain inet {RULES_TABLE} {hook} "
                f"{{ type filter hook {hook} priority -300; }}; "
                f"add rule inet {RULES_TABLE} {hook} udp dport {RING_PORT} {match} drop;"
                for hook, match in ones)
            started.append((node, self.nft(node, script)))
        self.finish(started)

    def pass_all(self, nodes):
        self.finish([(node, self.nft(node, f"delete table inet {RULES_TABLE}")) for node in nodes])

    def nft(self, node, script):
        return subprocess.Popen(self.cluster.inside(node, ["nft", script]),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish(started):
        for node, process in started:
            try:
                said = process.communicate(timeout=20)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                said = "did not end within 20 s"
            if process.returncode != 0:
                raise LiveError(f"nft on {node}: {said.strip()}")

    # Waiting.

    def settled(self, nodes, awaited, seconds=RECOVERY_S):
        return blocks_of.wait_settled(self.cluster, nodes, seconds, awaited)

    @staticmethod
    def hold(seconds):
        time.sleep(seconds)
