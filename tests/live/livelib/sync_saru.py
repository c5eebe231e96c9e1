# SPDX-License-Identifier: GPL-2.0-or-later
"""saru's half of figures_sync: three directors of the rig. n3 stands by (its corosync takes part),
so that n1 tells and n2 learns all, and what n1 gives up goes to n2 alone."""
import json
import re
import subprocess
import time

from livelib import blocks, director, opens
from livelib.cluster import LiveError, running_cluster
from livelib.sync_meter import Growth, Meter, lines, memory_kib, per_flow

LOG = "/var/log/sarud.log"
REST_S = 5
PATIENCE_S = 180
DIGESTS_S = 31  # every holder tells one within that
OPEN_S, KEEP_S = 6, 6
MOST_OPEN = 18_000  # the limit of descriptors is often 20000
PORT = director.HELD_PORT


class Directors:
    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        director.prepare(cluster)
        cluster.run("n1", *director.create_words("sync", f"log_file={LOG}", "log_level=debug"),
                    timeout=90)
        self.settled("n1", "n2", "n3")

    def settled(self, *nodes):
        return blocks.wait_settled(self.cluster, list(nodes), PATIENCE_S, "all to serve")

    def flows(self, node):
        status = self.cluster.sarud_status(node)
        return (status or {}).get("flows") or {}

    def wait_known(self, count, *nodes):
        def all_know():
            said = [self.flows(node) for node in nodes]
            return all(one.get("known") == count and one.get("unsent") == 0 for one in said)
        self.cluster.wait(all_know, PATIENCE_S, f"{count} connections to be known", step=0.1)

    def log_of(self, node, pattern, since=0):
        """(seconds of the day, match) of sarud's lines from the `since`th on."""
        text = self.cluster.run(node, "cat", LOG).stdout.splitlines()[since:]
        found = []
        for line in text:
            match, clock = re.search(pattern, line), re.search(r"(\d+):(\d+):(\d+\.\d+)", line)
            if match and clock:
                hours, minutes, seconds = clock.groups()
                found.append((int(hours) * 3600 + int(minutes) * 60 + float(seconds), match))
        return found

    def length_of_log(self, node):
        return len(self.cluster.run(node, "cat", LOG).stdout.splitlines())

    def standby(self, node, verb="standby"):
        self.cluster.run("n2", "pcs", "node", verb, node, timeout=60)

    def pid(self, node, comm):
        pid = self.cluster.process_of(node, comm)
        if pid is None:
            raise LiveError(f"{comm} does not run on {node}")
        return pid

    def meter(self):
        cluster = self.cluster
        processes = {f"{comm}_{who}": [self.pid(node, comm)]
                     for node, who in (("n1", "sender"), ("n2", "receiver"))
                     for comm in ("sarud", "corosync")}
        return Meter(processes, [(cluster.pids[node], "eth0") for node in cluster.nodes])

    # Connections put into n1's conntrack.

    def inject(self, flows):
        owned = blocks.read_kernels(self.cluster, ["n1"])["n1"]
        ports = [block * blocks.PORTS + i for block in sorted(owned) for i in range(blocks.PORTS)]
        path = f"{self.folder}/flows"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines(flows, ports, director.OUTSIDE))
        began = time.monotonic()
        # The node's mount namespace need not have the folder: only its network counts.
        done = subprocess.run(
            ["nsenter", "-t", str(self.cluster.pids["n1"]), "-n", "conntrack", "--load-file", path],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode != 0:
            raise LiveError(f"conntrack --load-file: {done.stderr.strip()}")
        return time.monotonic() - began

    def flush(self, *nodes):
        for node in nodes:
            self.cluster.run(node, "conntrack", "-F", timeout=60)

    def told(self, flows):
        """Begin and end of each connection: what that costs, and how long it takes."""
        meter = self.meter()
        idle = meter.rest(REST_S)
        meter.begin()
        injected_s = self.inject(flows)
        self.wait_known(flows, "n1", "n2")
        arrived_s, begin = time.monotonic() - meter.began, meter.now()
        memory = {node: memory_kib(self.pid(node, "sarud")) for node in ("n1", "n2")}
        meter.rest(REST_S)
        meter.begin()
        self.flush("n1")
        self.wait_known(0, "n1", "n2")
        ended_s, end = time.monotonic() - meter.began, meter.now()
        both = {name: begin[name] + end[name] for name in begin}
        return {"per_flow": per_flow(both, flows, len(self.cluster.nodes) - 1),
                "per_flow_begin": per_flow(begin, flows, len(self.cluster.nodes) - 1),
                "idle_per_s": {name: round(value, 4) for name, value in idle.items()},
                "injected_s": round(injected_s, 2), "arrived_s": round(arrived_s, 2),
                "ended_s": round(ended_s, 2), "sarud_kib": memory,
                "counters": {node: self.counters(node) for node in ("n1", "n2")}}

    def counters(self, node):
        flows = self.flows(node)
        return {name: flows.get(name) for name in (
            "told", "learned", "wholes", "gaps", "damaged", "refused", "repeated", "events",
            "overruns", "failed")}

    def taken(self, flows):
        """n1 gives up all of its blocks: n2 puts the connections in place, then takes them."""
        since = self.length_of_log("n2"), self.length_of_log("n1")
        growth = Growth(self.cluster.pids["n2"], flows)
        self.standby("n1")
        self.settled("n2")
        growth.end()
        if growth.last is None:
            raise LiveError(f"n2 has not put {flows} connections in place")
        takes = self.log_of("n2", r"takes (\d+) blocks, (\d+) us after", since[0])
        views = self.log_of("n2", r"view .* free (\d+) in", since[0])
        gave = self.log_of("n1", r"told what is left of (\d+) blocks in (\d+) us", since[1])
        return {"put_s": round(growth.last - growth.first, 3),
                "view_to_taken_s": round(takes[-1][0] - views[0][0], 3),
                "given_up_s": round(int(gave[-1][1][2]) / 1e6, 3)}

    def filled(self, flows):
        """n1's next sarud, from its first view in the log until it knows what n2 knows."""
        since = self.length_of_log("n1")
        self.standby("n1", "unstandby")
        self.settled("n1", "n2")
        knows = self.log_of("n1", r"knows the (\d+) connections", since)
        if not knows or int(knows[-1][1][1]) != flows:
            raise LiveError(f"n1 does not know {flows} connections: {[one[1][0] for one in knows]}")
        views = self.log_of("n1", r"view .*: members", since)
        return {"view_to_known_s": round(knows[-1][0] - views[0][0], 3),
                "known": int(knows[-1][1][1])}

    def bulk(self, flows):
        figures = {"flows": flows, **self.told(flows)}
        self.inject(flows)
        self.wait_known(flows, "n1", "n2")
        figures["takeover"] = self.taken(flows)
        figures["joiner"] = self.filled(flows)
        self.flush("n1", "n2")
        self.wait_known(0, "n1", "n2")
        return figures

    # Real connections.

    def servers(self):
        for server in self.cluster.servers:
            self.cluster.start(self.cluster.inside(server, [opens.__file__, "serve", str(PORT)]),
                               subprocess.DEVNULL)
            self.cluster.wait(lambda s=server: f":{PORT} " in self.cluster.run(
                s, "ss", "-Hltn").stdout, 10, f"the service of {server}")

    def opened(self, rate):
        """Connections from the client at that rate, all kept: whether each is known everywhere."""
        nodes = self.cluster.nodes
        before = {node: self.counters(node) for node in nodes}
        argv = [opens.__file__, "open", director.OUTSIDE, str(PORT), str(rate),
                str(min(OPEN_S, MOST_OPEN / rate)), str(KEEP_S)]
        child = self.cluster.start(self.cluster.inside("client", argv), subprocess.PIPE, text=True)
        figures = json.loads(child.stdout.readline())
        time.sleep(KEEP_S / 2)
        figures["known"] = {node: self.flows(node).get("known") for node in nodes}
        child.stdout.read()
        child.wait(timeout=30)
        self.wait_known(0, *nodes)
        after = {node: self.counters(node) for node in nodes}
        for name in ("told", "overruns", "gaps", "repeated"):
            figures[name] = sum(after[node][name] - before[node][name] for node in nodes)
        time.sleep(DIGESTS_S)
        figures["wholes"] = sum(self.counters(node)["wholes"] - before[node]["wholes"]
                                for node in nodes)
        figures["lost"] = sum(figures["opened"] - known for known in figures["known"].values())
        return figures


def measure(name, sizes, rates, folder, tell):
    """tell(kind, figures): each time that some are there."""
    with running_cluster(name, 3, clone=False, servers=2, inside=True) as cluster:
        directors = Directors(cluster, folder)
        directors.servers()
        for rate in rates:
            tell("real", directors.opened(rate))
        directors.standby("n3")
        directors.settled("n1", "n2")
        directors.flush(*cluster.nodes)  # what is in TIME_WAIT would end while others are counted
        for flows in sizes:
            tell("bulk", directors.bulk(flows))
