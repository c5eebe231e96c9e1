# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to directors, one after the other, while connections are held through them."""
import time

from livelib import blocks, director
from livelib.director_load import DirectorRun, Download, Pings, RealServers, Sessions
from livelib.tap import check_totals, tell

HELD, HELD6, OUTGOING = 1000, 40, 40
PING_S = 0.2


class Story:
    """Held sessions of all kinds, and after each event what became of them."""

    def __init__(self, tap, cluster, folder, count=HELD):
        self.tap, self.cluster = tap, cluster
        self.judge = director.Judge(cluster, folder)
        self.run = DirectorRun(cluster, folder)
        self.run.start()
        client, per_server = "client", OUTGOING // len(cluster.servers)
        self.sessions = {
            f"{count} from the client": Sessions(cluster, folder, client, director.OUTSIDE,
                                                 director.HELD_PORT, count),
            f"{HELD6} over IPv6": Sessions(cluster, folder, client, director.OUTSIDE6,
                                           director.HELD_PORT, HELD6)}
        for server in cluster.servers:
            self.sessions[f"{per_server} from {server} to the outside"] = Sessions(
                cluster, folder, server, director.CLIENT, director.OUT_PORT, per_server)
        for sessions in self.sessions.values():
            sessions.wait_begun()
        self.download = Download(cluster, folder)
        self.pings = [Pings(cluster, folder, server).start() for server in cluster.servers]
        self.total = sum(one.count for one in self.sessions.values())
        self.tap.note(f"{self.total} sessions are held: " + ", ".join(self.sessions))

    def broken(self):
        """[(which, source port, server, why, when)] so far."""
        return [(name, *one[:4]) for name, sessions in self.sessions.items()
                for one in sessions.now()["broken"]]

    def looked_at(self, what):
        """What became of the sessions, once all had time to speak."""
        time.sleep(self.settle_s())
        broken = self.broken()
        self.tap.check(not broken, f"{what}: 0 of {self.total} sessions are broken",
                       f"{len(broken)} broken: {broken[:5]}")
        states = {name: sessions.now() for name, sessions in self.sessions.items()}
        going = {name: sum(now["answering"].values()) for name, now in states.items()}
        turned = sum(now["turned"] for now in states.values())
        self.tap.check(sum(going.values()) == self.total and turned == 0,
                       f"{what}: each goes on with the server it had", (going, turned))
        problem = self.judge.problem()
        self.tap.check(problem is None, f"{what}: no packet was forwarded twice", problem)
        got = self.download.now()
        self.tap.check(got["ended"] is None, f"{what}: the download goes on", got)
        self.tap.note(f"{what}: longest between two answers "
                      f"{max(now['longest_s'] for now in states.values())} s, of the download "
                      f"{got['longest_s']} s")

    def settle_s(self):
        """TCP tries again after 0.2, 0.6, 1.4 s and so on: at most as long again as it was dark."""
        return 2.5 + 2 * self.cluster.detection_s()

    def event(self, what, act):
        figures = act()
        if figures:
            tell(self.tap, figures)
            self.tap.check(figures["answered_twice"] == 0, f"{what}: nothing was answered twice",
                           figures["answered_twice"])
        self.looked_at(what)

    # What happens.

    def hither_and_thither(self):
        """n1's blocks go to the others and come back, three times, as quickly as they can."""
        def act():
            for _ in range(3):
                self.cluster.saructl("n1", "drain")
                blocks.wait_settled(self.cluster, [n for n in self.cluster.living() if n != "n1"],
                                    30, "the others to own everything")
                self.cluster.saructl("n1", "undrain")
                blocks.wait_settled(self.cluster, self.cluster.living(), 30, "n1 to have its share")
        return self.run.disturb("A-B-A", act)

    def rolling(self):
        """Each node is shut down and started again, one after the other."""
        def act():
            for node in self.cluster.nodes:
                self.cluster.rig("halt", node, timeout=120)
                self.cluster.refresh()
                blocks.wait_settled(self.cluster, self.cluster.living(), 60,
                                    f"the others to take the blocks of {node}")
                self.cluster.rig("boot", node)
                self.cluster.refresh()
                blocks.wait_settled(self.cluster, self.cluster.living(), 90,
                                    f"{node} to have its share again")
        return self.run.disturb("rolling restart", act, seconds=120)

    # The end.

    def end(self):
        """The checks of the whole run."""
        tap = self.tap
        got = self.download.end()
        tap.check(got["ended"] == "whole" and got["bytes"] > 1 << 20,
                  f"the download of {got['bytes'] >> 20} MiB is whole", got)
        for pings in self.pings:
            sent, answered, row = pings.end()
            most = (3 * self.cluster.detection_s() + 1) / PING_S
            tap.check(sent > 50 and answered > 0.7 * sent and row <= most,
                      f"{pings.server}: {answered} of {sent} pings came back, "
                      f"{row} in a row did not at most", f"at most {most}")
        for sessions in self.sessions.values():
            sessions.end()
        check_totals(tap, self.run.stop())
        counted = self.judge.counted()
        tap.check(all(seen for seen, _ in counted.values()),
                  "the judge has seen TCP, UDP, ICMP and IPv6", counted)
        tap.note(f"packets forwarded, and twice: {counted}")

    def give_up(self):
        """Ends what is left of a run whose sessions were to break."""
        self.cluster.end_inside(self.download.process)
        for pings in self.pings:
            pings.end()
        for sessions in self.sessions.values():
            sessions.end()
        self.run.stop()


def check_topology(tap, cluster, folder):
    """One director with plain addresses and no saru: the topology carries everything. Then two that
    forward everything: the judge sees it."""
    judge = director.Judge(cluster, folder)
    director.plain(cluster, "n1", True)
    RealServers(cluster).start()
    found = [Sessions(cluster, folder, *how).wait_begun() for how in (
        ("client", director.OUTSIDE, director.HELD_PORT, 20),
        ("client", director.OUTSIDE6, director.HELD_PORT, 20),
        ("s1", director.CLIENT, director.OUT_PORT, 20))]
    now = [one.later() for one in found]
    tap.check(all(not one["broken"] for one in now), "one plain director carries everything", now)
    tap.check([sorted(one["answering"]) for one in now] == [["s1", "s2"], ["s1", "s2"], ["client"]],
              "  to both servers, by both IP versions, and from them to the outside", now)
    tap.check(judge.problem() is None, "  nothing is forwarded twice", judge.problem())
    for one in found:
        one.end()
    director.plain(cluster, "n1", False)
    director.both(cluster, ["n1", "n2"])
    for _ in range(4):
        cluster.run("client", "curl", "-s", "-m", "1", f"http://{director.OUTSIDE}/", check=False)
    director.no_longer_both(cluster, ["n1", "n2"])
    tap.check(judge.counted()["tcp"][1] > 0, "  where two forward everything, the judge sees it",
              judge.counted())
    director.switch(cluster, "nft", "delete", "table", "bridge", director.JUDGE)
