# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes through directors while things happen to them: sessions that are held from both sides,
a download, pings, HTTP and UDP."""
import json
import os
import re
import signal
import subprocess
import time

from livelib import director, held, stream
from livelib.cluster import program
from livelib.load import real_time
from livelib.measure import PROBE_RATE, Run

SPEAKS_S = 2.2  # each held session has spoken within that
PING_S = 0.2
PROBES_PER_S = 100
HELD, HELD6, OUTGOING = 1000, 40, 40  # sessions


class RealServers:
    """The services of the real servers; they have nothing to do with what happens to nodes."""

    def __init__(self, cluster):
        self.cluster = cluster

    def start(self, nodes=None):
        """Once for all: a node that comes back has no services."""
        cluster = self.cluster
        asked = (80, 7, director.HELD_PORT, director.STREAM_PORT)
        machines = {**{server: asked for server in cluster.servers},
                    "client": (director.OUT_PORT,)}
        if nodes is not None or all(self.listens(*one) for one in machines.items()):
            return
        for server in cluster.servers:
            for argv in ([program("saru-probe"), "serve", "--name", server, "--port", "80"],
                         [program("saru-probe"), "respond", "--name", server, "--port", "7"],
                         [held.__file__, "serve", server, str(director.HELD_PORT)],
                         [stream.__file__, "serve", str(director.STREAM_PORT)]):
                cluster.start(cluster.inside(server, real_time(argv)), subprocess.DEVNULL)
        cluster.start(cluster.inside("client", real_time(
            [held.__file__, "serve", "client", str(director.OUT_PORT)])), subprocess.DEVNULL)
        for machine, ports in machines.items():
            cluster.wait(lambda m=machine, p=ports: self.listens(m, p), 10,
                         f"the services of {machine}")

    def listens(self, machine, ports):
        out = self.cluster.run(machine, "ss", "-Hltun", check=False).stdout
        return all(f":{port} " in out for port in ports)


class Sessions:
    """Held TCP sessions from one machine."""

    def __init__(self, cluster, folder, machine, address, port, count):
        self.cluster, self.count = cluster, count
        self.path = os.path.join(folder, f"held.{machine}.{port}.{address}")
        argv = real_time([held.__file__, "hold", address, str(port), str(count), self.path])
        self.process = cluster.start(cluster.inside(machine, argv), subprocess.DEVNULL)

    def wait_begun(self):
        self.cluster.wait(lambda: sum(self.now()["answering"].values()) == self.count, 40,
                          f"{self.count} sessions to begin")
        return self

    def now(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {"answering": {}, "broken": [], "turned": 0, "longest_s": 0}

    def later(self):
        """As it is once every session has spoken again."""
        time.sleep(SPEAKS_S)
        return self.now()

    def end(self):
        self.cluster.end_inside(self.process)
        self.process.wait(timeout=10)


class Download:
    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.path = os.path.join(folder, "download")
        argv = real_time([stream.__file__, "fetch", director.OUTSIDE, str(director.STREAM_PORT),
                          self.path])
        self.process = cluster.start(cluster.inside("client", argv), subprocess.DEVNULL)
        cluster.wait(lambda: self.now()["bytes"], 10, "the download to begin")

    def now(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {"bytes": 0, "longest_s": 0, "ended": None}

    def end(self):
        """Asks for the rest; what became of it."""
        self.cluster.end_inside(self.process)
        self.cluster.wait(lambda: self.now()["ended"], 30, "the end of the download")
        self.process.wait(timeout=10)
        return self.now()


class Pings:
    """A real server asks the client, by ICMP, all the time; the director's NAT keeps the flow."""

    def __init__(self, cluster, folder, server):
        self.cluster = cluster
        self.path = os.path.join(folder, f"ping.{server}")
        self.process = None
        self.server = server

    def start(self):
        with open(self.path, "w", encoding="utf-8") as output:
            self.process = self.cluster.start(self.cluster.inside(
                self.server, ["ping", "-i", str(PING_S), "-n", director.CLIENT]), output)
        return self

    def end(self):
        """(sent, answered, longest row without an answer) once it has ended."""
        self.cluster.end_inside(self.process, signal.SIGINT)
        self.process.wait(timeout=10)
        with open(self.path, encoding="utf-8") as file:
            text = file.read()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        numbers = [int(n) for n in re.findall(r"icmp_seq=(\d+) ttl", text)]
        row = max((b - a - 1 for a, b in zip(numbers, numbers[1:])), default=0)
        return int(found[1]), int(found[2]), row


class DirectorRun(Run):
    """measure.Run with the services behind the directors instead of on them."""

    def __init__(self, cluster, folder, **how):
        super().__init__(cluster, folder, **how)
        self.servers = RealServers(cluster)
        self.answering = cluster.servers
        self.connections_move = True

    def broken_by_move(self, request, changes):
        """None is: handshakes under way go along, too."""
        return False

    def probe(self, probed, rate=PROBE_RATE):
        """Fewer than elsewhere: each passes the machine twice, beside all that is held."""
        return super().probe(probed, min(rate, PROBES_PER_S))


class Traffic:
    """Everything that goes through the directors, and what has become of it so far."""

    def __init__(self, cluster, folder, count=HELD):
        self.cluster = cluster
        self.judge = director.Judge(cluster, folder)
        self.run = DirectorRun(cluster, folder)
        self.run.start()
        per_server = OUTGOING // len(cluster.servers)
        self.sessions = {
            f"{count} from the client": Sessions(cluster, folder, "client", director.OUTSIDE,
                                                 director.HELD_PORT, count),
            f"{HELD6} over IPv6": Sessions(cluster, folder, "client", director.OUTSIDE6,
                                           director.HELD_PORT, HELD6)}
        for server in cluster.servers:
            self.sessions[f"{per_server} from {server} to the outside"] = Sessions(
                cluster, folder, server, director.CLIENT, director.OUT_PORT, per_server)
        for sessions in self.sessions.values():
            sessions.wait_begun()
        self.download = Download(cluster, folder)
        self.pings = [Pings(cluster, folder, server).start() for server in cluster.servers]
        self.total = sum(one.count for one in self.sessions.values())

    def broken(self):
        """[(which, source port, server, why, when)] so far."""
        return [(name, *one[:4]) for name, sessions in self.sessions.items()
                for one in sessions.now()["broken"]]

    def settle_s(self):
        """TCP tries again after 0.2, 0.6, 1.4 s and so on: at most as long again as it was dark."""
        return SPEAKS_S + 2 * self.cluster.detection_s()

    def later(self):
        """Once all had time to speak: {"broken", "going": sessions, "turned": to another server,
        "longest_s": between two answers of one, so far}"""
        time.sleep(self.settle_s())
        states = [sessions.now() for sessions in self.sessions.values()]
        return {"broken": self.broken(),
                "going": sum(sum(now["answering"].values()) for now in states),
                "turned": sum(now["turned"] for now in states),
                "longest_s": max(now["longest_s"] for now in states)}

    def end(self):
        """Ends all of it. ({server: (pings sent, answered, most in a row that were not)},
        what became of the download, the totals of the run)"""
        got = self.download.end() if self.download.now()["ended"] is None else self.download.now()
        pings = {one.server: one.end() for one in self.pings}
        for sessions in self.sessions.values():
            sessions.end()
        return pings, got, self.run.stop()
