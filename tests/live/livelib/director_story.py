# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to directors, one after the other, while connections are held through them."""
from livelib import blocks, director
from livelib.director_load import HELD, PING_S, RealServers, Sessions, Traffic
from livelib.load import Monitor
from livelib.tap import check_totals, tell


class Story:
    """Traffic through directors, and after each event the checks of what became of it."""

    def __init__(self, tap, cluster, folder, count=HELD):
        self.tap, self.cluster = tap, cluster
        self.traffic = Traffic(cluster, folder, count)
        self.run, self.total = self.traffic.run, self.traffic.total
        self.tap.note(f"{self.total} sessions are held: " + ", ".join(self.traffic.sessions))

    def looked_at(self, what):
        """What became of the sessions, once all had time to speak."""
        now = self.traffic.later()
        broken = now["broken"]
        self.tap.check(not broken, f"{what}: 0 of {self.total} sessions are broken",
                       f"{len(broken)} broken: {broken[:5]}")
        self.tap.check(now["going"] == self.total and now["turned"] == 0,
                       f"{what}: each goes on with the server it had", now)
        problem = self.traffic.judge.problem()
        self.tap.check(problem is None, f"{what}: no packet was forwarded twice", problem)
        got = self.traffic.download.now()
        self.tap.check(got["ended"] is None, f"{what}: the download goes on", got)
        self.tap.note(f"{what}: longest between two answers so far {now['longest_s']} s, "
                      f"of the download {got['longest_s']} s")

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
                # Beside the one that ended with the node and saw its blocks go.
                self.run.monitors[f"{node} again"] = Monitor(self.cluster, self.run.folder, node)
                blocks.wait_settled(self.cluster, self.cluster.living(), 90,
                                    f"{node} to have its share again")
        return self.run.disturb("rolling restart", act, seconds=120)

    # The end.

    def end(self, planned=True):
        """The checks of the whole run."""
        tap = self.tap
        pings, got, totals = self.traffic.end()
        tap.check(got["ended"] == "whole" and got["bytes"] > 1 << 20,
                  f"the download of {got['bytes'] >> 20} MiB is whole", got)
        most = (3 * self.cluster.detection_s() + 1) / PING_S
        for server, (sent, answered, row) in pings.items():
            tap.check(sent > 50 and answered > 0.7 * sent and row <= most,
                      f"{server}: {answered} of {sent} pings came back, {row} in a row did not",
                      f"at most {most}")
        check_totals(tap, totals, planned)
        counted = self.traffic.judge.counted()
        tap.check(all(seen for seen, _ in counted.values()),
                  "the judge has seen TCP, UDP, ICMP and IPv6", counted)
        tap.note(f"packets forwarded, and twice: {counted}")


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
