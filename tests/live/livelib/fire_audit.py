# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be true after each fault, asked from outside: kernels, processes, logs, the witness."""
import contextlib
import json
import os
import re

from livelib import blocks as blocks_of
from livelib.cluster import LiveError
from livelib.fire_field import STACK, comm_of, scan

DAEMONS = (*STACK, "corosync", "sarud")
FILES_MAX = 100    # of one sarud; it has about 30
FATAL = re.compile(r"SARU_CHECK|terminate called|AddressSanitizer|runtime error:|stack smashing|"
                   r"free\(\): |malloc\(\): |corrupted ")
LINE = re.compile(r"^\w{3} +\d+ [\d:.]+ \[(\d+)\] +(\w+) +(.*)$")  # the level is padded


class Reader:
    """The lines that a file has got since the last time."""

    def __init__(self, path):
        self.path, self.offset = path, 0

    def fresh(self):
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # begun anew
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        data = data[:data.rfind(b"\n") + 1]
        self.offset += len(data)
        return data.decode(errors="replace").splitlines()


class Ends:
    """Who of the saruds of a node ended without having been told to: by its log, line by line.

    The last thing that one says is that it ended; one that dies while it stops does not."""

    def __init__(self):
        self.running = None
        self.told = False

    def unexplained(self, lines):
        """How many ended so."""
        count = 0
        for line in lines:
            found = LINE.match(line)
            if not found:
                continue
            pid, text = int(found.group(1)), found.group(3)
            if "ready: in the group" in text:
                count += self.running is not None and not self.told
                self.running, self.told = pid, False
            elif pid == self.running and text.startswith("saru ") and ": ended" in text:
                self.told = True
        return count


class Audit:
    """Takes the cluster as it stands as the measure for later."""

    def __init__(self, field):
        self.field, self.cluster = field, field.cluster
        folders = {node["name"]: node["log_dir"] for node in self.cluster.status()["nodes"]}
        self.folders = folders
        self.ends = {node: Ends() for node in folders}
        self.saruds = {node: Reader(f"{folder}/sarud.log") for node, folder in folders.items()}
        others = ("pacemaker/pacemaker.log", "pacemakerd.out", "corosync.out", "../console.log")
        self.logs = [(node, Reader(f"{folder}/{name}")) for node, folder in folders.items()
                     for name in others]
        self.errors = []
        self.check_logs()
        silent = [node for node, ends in self.ends.items() if ends.running is None]
        if silent:
            raise LiveError(f"the logs of sarud on {' '.join(silent)} say nothing of its start")
        self.measure = {node: self.belongings(node) for node in self.cluster.nodes}
        self.namespaces = self.count_namespaces()

    def complaints(self, seconds):
        """All that is wrong and stays so for that time, one sentence each."""
        return self.lasting(self.check_now, seconds) + self.check_logs()

    def recovered(self, seconds):
        """Waits until every node serves its share again; the complaints that are left by then."""
        return self.lasting(lambda: self.check_saruds() or self.check_kernels(), seconds)

    def lasting(self, check, seconds):
        """What this check still has to say after that time; nothing as soon as it says nothing."""
        last = []

        def nothing_wrong():
            last[:] = check()
            return not last
        with contextlib.suppress(LiveError):
            self.cluster.wait(nothing_wrong, seconds, "the cluster to be as it was", step=0.25)
        return last

    def check_now(self):
        return self.check_kernels() + self.check_processes() + self.check_belongings()

    # Kernels.

    def check_kernels(self):
        kernels = blocks_of.read_kernels(self.cluster)
        wrong = blocks_of.problem(kernels, self.cluster.nodes)
        if wrong:
            return [f"by the kernels: {wrong}"]
        found = []
        for node in self.cluster.nodes:
            done = self.cluster.saructl(node, "check", check=False)
            if done.returncode != 0:
                said = (done.stdout + done.stderr).strip()
                found.append(f"saructl check on {node} ({done.returncode}): {said}")
        return found

    # What belongs to a node.

    def belongings(self, node):
        """Names of its tables and links."""
        tables = self.cluster.run(node, "nft", "list", "tables").stdout.split("\n")
        links = json.loads(self.cluster.run(node, "ip", "-j", "link").stdout)
        return {"tables": sorted(filter(None, tables)),
                "links": sorted(link["ifname"] for link in links)}

    def count_namespaces(self):
        found = set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    found.add(os.readlink(f"/proc/{entry}/ns/net"))
        names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
        return len(found), sorted(names)

    def check_belongings(self):
        found = []
        for node, measure in self.measure.items():
            for what, now in self.belongings(node).items():
                if now != measure[what]:
                    found.append(f"{node} has the {what} {now}, before: {measure[what]}")
        if self.count_namespaces() != self.namespaces:
            found.append(f"network namespaces {self.count_namespaces()}, before: {self.namespaces}")
        return found

    def check_saruds(self):
        """The set of a dead sarud stays in its kernel: the sets alone prove nothing."""
        machines = scan({node: self.cluster.pids[node] for node in self.cluster.nodes})
        return [f"{len(ones)} saruds run on {node}" for node, processes in machines.items()
                if len(ones := [name for name in processes.values() if name == "sarud"]) != 1]

    def check_processes(self):
        found = []
        machines = scan({node: self.cluster.pids[node] for node in self.cluster.nodes})
        for node, processes in machines.items():
            names = list(processes.values())
            for daemon in DAEMONS:
                count = names.count(comm_of(daemon))
                if count != 1:
                    found.append(f"{count} processes {daemon} run on {node}")
            dead = [name for pid, name in processes.items() if state_of(pid) in ("Z", "T")]
            if dead:
                found.append(f"dead or stopped processes on {node}: {' '.join(sorted(dead))}")
            for pid, name in processes.items():
                if name == "sarud" and files_of(pid) > FILES_MAX:
                    found.append(f"sarud of {node} has {files_of(pid)} files open")
        return found

    # Logs.

    def check_logs(self):
        found = []
        for node, reader in self.saruds.items():
            lines = reader.fresh()
            found += [f"{node}: {line}" for line in lines if FATAL.search(line)]
            self.errors += [f"{node}: {line}" for line in lines if is_error(line)]
            ends = self.ends[node].unexplained(lines)
            killed = self.field.killed.get(node, 0)
            if ends > killed:
                found.append(f"{ends} saruds of {node} ended without having been told to, "
                             f"{killed} were killed")
            # The next one is ready by now: an excuse that was not needed excuses no later end.
            self.field.killed[node] = 0
        for node, reader in self.logs:
            found += [f"{node}: {line}" for line in reader.fresh() if FATAL.search(line)]
        return found


def is_error(line):
    found = LINE.match(line)
    return bool(found) and found.group(2) in ("error", "crit", "alert", "emerg")


def state_of(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    return None


def files_of(pid):
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def judge(summary, violations):
    """What the witness has to complain about; it must also have seen something."""
    found = []
    if summary["verdict"] == "violation":
        found = violations or [f"the witness: {json.dumps(summary)}"]
    found += [f"the witness is blind: {doubt}" for doubt in summary["blind"]]
    return found


def unasked(summary, probed):
    """(how many of the probed blocks it saw no question to, the longest time in seconds that it saw
    none to one of the others): no silence is measured there."""
    rows = [row for row in summary["blocks"]
            if row["protocol"] == "udp" and row["block"] in probed]
    return len(probed) - len(rows), max((row["interval_max_ms"] / 1000 for row in rows), default=0)


def longest_silence(summary):
    """(seconds, block) of the probed block that went longest without an answer."""
    rows = [(row["gap_ms"] / 1000, row["block"]) for row in summary["blocks"]
            if row["protocol"] == "udp" and row["gap_unanswered"]]
    return max(rows, default=(0.0, None))
