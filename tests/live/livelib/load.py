# SPDX-License-Identifier: GPL-2.0-or-later
"""What is sent to the shared address, who answers it, and the witnesses that watch."""
import contextlib
import json
import os
import signal
import subprocess
import time

from livelib import blocks as blocks_of
from livelib.cluster import ADDRESS, LiveError, await_that, finish, program

HTTP_RATE = 100
PROBED_BLOCKS = 32
PROBE_RATE = 1000
MONITOR = os.path.join(os.path.dirname(os.path.realpath(__file__)), "monitor.py")


def real_time(argv):
    """What measures or answers must not wait for the processor; Corosync and sarud come first."""
    return ["chrt", "--fifo", "4", *argv]


def each(option, text):
    """The option once for each of the words between commas."""
    return [word for one in text.split(",") for word in (option, one)]


def read_lines(path):
    """The complete lines of a file that may still be written."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    return text[:text.rfind("\n") + 1].splitlines()


def end(process, seconds, what):
    """SIGTERM, and the exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        raise LiveError(f"{what} did not end within {seconds} s of SIGTERM") from None


def last_answer(path, what):
    """The last line of what a program has written, which tells its results."""
    lines = read_lines(path)
    if not lines:
        raise LiveError(f"{what} ended without a result")
    return json.loads(lines[-1])


class Servers:
    """Web servers and UDP responders on the nodes; they die with their node."""

    def __init__(self, cluster):
        self.cluster = cluster

    def start(self, nodes=None):
        nodes = nodes or self.cluster.living()
        for node in nodes:
            for service, port in (("serve", 80), ("respond", 7)):
                argv = real_time([program("saru-probe"), service, "--name", node,
                                  "--port", str(port)])
                self.cluster.start(self.cluster.inside(node, argv), subprocess.DEVNULL)
        for node in nodes:
            self.cluster.wait(lambda node=node: self.listens(node), 10,
                              f"the web server and the responder of {node}")

    def listens(self, node):
        out = self.cluster.run(node, "ss", "-Hltun", check=False).stdout
        return ":80 " in out and ":7 " in out


class Witness:
    """saru-witness on all ports of the switch, from now on to the end of the run."""

    def __init__(self, cluster, folder, shared_mac, address=ADDRESS, connections_move=False):
        self.records = f"{folder}/records"
        self.output = f"{folder}/witness.jsonl"
        self.errors = f"{folder}/witness.err"
        netns = f"{cluster.name}-lan"
        argv = real_time([program("saru-witness"), *each("--address", address), "--shared-mac",
                          shared_mac, "--records", self.records, "--output", self.output,
                          "--ring-kib", "65536",
                          *(["--connections-move"] if connections_move else [])])
        for machine in cluster.nodes + ["client"]:
            argv += ["--link", f"{machine}={netns}:{machine}"]
        for node in cluster.nodes:
            argv += ["--mac-of", f"{node}={cluster.macs[node]}"]
        with open(self.errors, "w", encoding="utf-8") as errors:
            self.process = cluster.start(argv, subprocess.DEVNULL, stderr=errors)
        await_that(self.started, 60, "the witness to listen")

    def said(self):
        with open(self.errors, encoding="utf-8") as file:
            return file.read().strip()

    def started(self):
        if self.process.poll() is not None:
            raise LiveError(f"the witness has ended: {self.said()}")
        return bool(read_lines(self.output))

    def judge(self, name, at_ns, before_ms, after_ms):
        """What happened around this moment, by the frames on the wire."""
        argv = [program("saru-witness"), "report", "--records", self.records,
                "--event", f"{name}={at_ns}", "--before-ms", str(int(before_ms)),
                "--after-ms", str(int(after_ms))]
        done = finish(argv, 120, f"the witness's judgement of {name}")
        if done.returncode not in (0, 1, 2):
            raise LiveError(f"the witness cannot judge {name}: {done.stderr.strip()}")
        return json.loads(done.stdout)["events"][0]

    def stop(self):
        """The summary of the whole run."""
        end(self.process, 30, "the witness")
        summary = last_answer(self.output, "the witness")
        if summary.get("type") != "summary":
            raise LiveError(f"the witness gave no summary: {self.said()}")
        return summary

    def violations(self):
        found = [json.loads(line) for line in read_lines(self.output)]
        return [one["text"] for one in found if one["type"] == "violation"]


class HttpLoad:
    """Fresh HTTP connections from the client, round all blocks, until stop()."""

    def __init__(self, cluster, folder, rate=HTTP_RATE, address=ADDRESS, expect=None):
        self.log = f"{folder}/http.jsonl"
        self.output = f"{folder}/http.json"
        # A SYN is repeated after 1, 3, 7, 15 s: so much patience sees the end of a crash.
        self.timeout_s = 10 + 3 * cluster.detection_s()
        argv = [program("saru-probe"), "http", *each("--address", address), "--seconds",
                "86000", "--connections-per-second", str(rate),
                "--timeout", f"{self.timeout_s:.1f}",
                "--log", self.log, "--expect", ",".join(expect or cluster.nodes)]
        argv = real_time(argv)
        with open(self.output, "w", encoding="utf-8") as output:
            self.process = cluster.start(cluster.inside("client", argv, own_pids=False), output)

    def requests(self, from_ns=0, until_ns=1 << 63):
        """The finished requests that were begun in this time."""
        found = [json.loads(line) for line in read_lines(self.log)]
        return [one for one in found if from_ns <= one["start_ns"] < until_ns]

    def stop(self):
        end(self.process, 20 + self.timeout_s, "the HTTP load")
        return last_answer(self.output, "the HTTP load")


class Probes:
    """UDP probes from the client to some blocks, each a thousand times a second, until stop()."""

    def __init__(self, cluster, folder, probed, rate=PROBE_RATE):
        self.blocks = sorted(probed)
        self.output = f"{folder}/probes.{time.time_ns()}.json"
        argv = [program("saru-probe"), "send", "--address", ADDRESS, "--rate", str(rate),
                "--seconds", "600", "--realtime", "5",
                "--blocks", ",".join(str(block) for block in self.blocks)]
        with open(self.output, "w", encoding="utf-8") as output:
            self.process = cluster.start(cluster.inside("client", argv, own_pids=False), output)

    def stop(self):
        end(self.process, 15, "the UDP probes")
        return last_answer(self.output, "the load of UDP probes")


class Monitor:
    """The kernel's announcements on one node about its set of owned blocks."""

    def __init__(self, cluster, folder, node):
        self.node = node
        self.output = f"{folder}/monitor.{node}.{time.time_ns()}"
        argv = ["/usr/bin/python3", MONITOR, blocks_of.TABLE, str(blocks_of.PORTS)]
        with open(self.output, "w", encoding="utf-8") as output:
            self.process = cluster.start(cluster.inside(node, argv), output)
        await_that(lambda: read_lines(self.output), 10, f"the nftables monitor of {node}")

    def changes(self):
        """(realtime_ns, verb, block) in the order in which the kernel announced them."""
        parts = [line.split() for line in read_lines(self.output)]
        return [(int(when), verb, int(block)) for when, verb, block in parts]


class Listener:
    """saru-cpgwatch on a node: when its Corosync announced which members."""

    def __init__(self, cluster, folder, node):
        self.output = f"{folder}/cpgwatch.{node}.{time.time_ns()}"
        with open(self.output, "w", encoding="utf-8") as output:
            argv = cluster.inside(node, [program("saru-cpgwatch")])
            self.process = cluster.start(argv, output)
        await_that(lambda: read_lines(self.output), 15, f"the Corosync listener of {node}")

    def first_ring(self, after_ns, fits):
        """When Corosync first announced, after that moment, a ring whose members fit; None."""
        for line in read_lines(self.output):
            one = json.loads(line)
            if one["source"] == "totem" and one["realtime_ns"] > after_ns and fits(one["members"]):
                return one["realtime_ns"]
        return None
