# SPDX-License-Identifier: GPL-2.0-or-later
"""./demo --director: real servers behind directors that are all active, and whose connections go
on when one of them is gone."""
from livelib import blocks, director, measure
from livelib.director_load import Traffic
from livelib.story import table

EVENTS = ("crash", "return", "standby", "unstandby")
SERVERS = 2


def picture(nodes):
    names = " ".join(nodes)
    return [f"client ── {director.OUTSIDE}  ({names}: every one has both addresses)  "
            f"{director.INSIDE} ── s1, s2"]


class Show:
    """Tells each event in plain words, and keeps what the table at the end needs."""

    def __init__(self, story, cluster, folder):
        self.story, self.cluster = story, cluster
        self.traffic = Traffic(cluster, folder)
        self.run = self.traffic.run
        self.rows = []

    def share(self):
        """How many blocks each director has: "n1 171, n2 171, n3 170"."""
        kernels = blocks.read_kernels(self.cluster)
        return ", ".join(f"{node} {len(owned or ())}" for node, owned in sorted(kernels.items()))

    def held(self):
        now = self.traffic.later()
        total, broken = self.traffic.total, len(now["broken"])
        longest = now["longest_s"]
        self.story.say(f"{total} connections held, {broken} broken; each still with the server it "
                       f"began with." if now["turned"] == 0 else
                       f"WRONG: {now['turned']} connections were answered by another server.",
                       f"The longest that one of them has waited for an answer so far: "
                       f"{longest:.1f} s. Download: {self.traffic.download.now()['bytes'] >> 20} "
                       "MiB, still going.",
                       f"Blocks now: {self.share()}.")
        return broken, longest

    def event(self, name, words, act):
        self.story.step(words[0])
        self.story.say(*words[1:])
        figures = act()
        gap = figures["gap_ms"]
        self.story.say(f"{figures['blocks_moved']} blocks moved. Each was dark for "
                       f"{gap['p50']:.0f} ms (p50), {gap['max']:.0f} ms at most.")
        broken, longest = self.held()
        self.rows.append({"event": name, "broken": broken, "longest_s": longest})

    def all_events(self, chosen):
        run = self.run
        words = {
            "crash": (f"{run.victim} loses its power",
                      "It forwarded a third of these connections, with their NAT, until now. The",
                      "others have had each of them in memory since it began; they put them into",
                      "their kernels' conntrack, and then take the blocks."),
            "return": (f"{run.victim} is switched on again",
                       "Before it gets a block, the others tell it all connections there are."),
            "standby": (f"Planned: pcs node standby {run.resting}",
                        "A planned move: nothing has to time out first."),
            "unstandby": (f"Planned: pcs node unstandby {run.resting}",
                          "Connections come back to a node that had them before.")}
        acts = {"crash": run.crash, "return": run.come_back, "standby": run.standby,
                "unstandby": run.unstandby}
        for name in chosen:
            self.event(name, words[name], acts[name])


def begin(story, cluster, options):
    story.step(f"{options.nodes} directors, {SERVERS} real servers behind them, and a client")
    cluster.up(options.nodes, options.token, options.consensus, servers=SERVERS, inside=True)
    director.prepare(cluster)
    story.say(*picture(cluster.nodes), "",
              "A real server knows one way out: the shared inside address. NAT is an ordinary",
              "nftables table, the same on each director:")
    story.show("[n1] cat /etc/director.nft", director.RULES.strip())
    story.step("Both shared addresses: one command on one node")
    words = director.create_words()
    story.say("$ " + " ".join(words))
    cluster.run(cluster.nodes[0], *words, timeout=90)
    blocks.wait_settled(cluster, cluster.nodes, 60, "all directors to serve")


def perform(story, cluster, options, folder):
    """The whole show; the totals of the run, with the connections in "connections"."""
    begin(story, cluster, options)
    story.step("Connections through the directors")
    show = Show(story, cluster, folder)
    story.say(f"{show.traffic.total} TCP connections are held: " + ", ".join(show.traffic.sessions)
              + ".", "Each carries numbered data with a checksum, four times a second. Beside them",
              "a download, pings, fresh HTTP requests, UDP.")
    show.held()
    show.all_events([name for name in options.events if name in EVENTS])
    story.step("The end, and what was measured in this run")
    pings, download, totals = show.traffic.end()
    totals["connections"] = {
        "held": show.traffic.total, "broken": len(show.traffic.broken()), "events": show.rows,
        "download": download, "pings": pings, "forwarded": show.traffic.judge.counted()}
    report(story, totals)
    return totals


def report(story, totals):
    found = totals["connections"]
    story.say("", *table(totals["events"]), "",
              f"connections held {found['held']}, broken {found['broken']}",
              f"download {found['download']['bytes'] >> 20} MiB: {found['download']['ended']}",
              "pings of the real servers: " + ", ".join(
                  f"{server} {answered} of {sent}" for server, (sent, answered, _)
                  in found["pings"].items()),
              "packets forwarded (and by two directors): " + ", ".join(
                  f"{kind} {seen} ({twice})" for kind, (seen, twice) in found["forwarded"].items()))
    for sentence in measure.shortcomings(totals) + shortcomings(totals):
        story.say(f"WRONG: {sentence}")


def shortcomings(totals):
    """What is wrong with what was held; nothing when all is as promised."""
    found, wrong = totals["connections"], []
    if found["broken"]:
        wrong.append(f"{found['broken']} of {found['held']} connections broke")
    if found["download"]["ended"] != "whole":
        wrong.append(f"the download is not whole: {found['download']['ended']}")
    if any(twice for _, twice in found["forwarded"].values()):
        wrong.append(f"packets were forwarded twice: {found['forwarded']}")
    return wrong
