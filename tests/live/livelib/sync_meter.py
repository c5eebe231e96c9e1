# SPDX-License-Identifier: GPL-2.0-or-later
"""What both halves of figures_sync share: the connections, and what is read of the kernel."""
import contextlib
import os
import threading
import time

CLIENT_PORTS = range(1024, 65536)


def lines(flows, ports=CLIENT_PORTS, address="10.77.0.100", server="10.79.1.1"):
    """Established TCP connections through a DNAT, as `conntrack --load-file` reads them: from these
    ports, of as many clients as that needs."""
    ports = list(ports)
    for i in range(flows):
        client, port = f"10.1.{i // len(ports) + 1}.9", ports[i % len(ports)]
        yield (f"-I -p tcp -s {client} -d {address} --sport {port} --dport 80 -r {address} "
               f"-q {client} --reply-port-src 80 --reply-port-dst {port} --dst-nat {server}:8080 "
               "--state ESTABLISHED -u SEEN_REPLY,ASSURED -t 3000\n")


def cpu_s(pid):
    """Processor time of all threads of a process, by the scheduler's own clock."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), \
                open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def sent_bytes(pid, interface):
    """Sent by an interface of the namespace of this process, with Ethernet headers."""
    with open(f"/proc/{pid}/net/dev", encoding="utf-8") as file:
        for line in file:
            name, _, numbers = line.partition(":")
            if name.strip() == interface:
                return int(numbers.split()[8])
    raise OSError(f"no interface {interface}")


def tracked(pid):
    """Connections in conntrack of the namespace of this process."""
    with open(f"/proc/{pid}/net/stat/nf_conntrack", encoding="utf-8") as file:
        file.readline()
        return int(file.readline().split()[0], 16)


class Growth:
    """Watches conntrack of a namespace: when it began to grow by `flows`, and when it had."""
    STEP_S = 0.002
    BEGUN = 10  # more than what comes by itself

    def __init__(self, pid, flows):
        self.pid, self.flows = pid, flows
        self.first = self.last = None
        self.over = False
        self.before = tracked(pid)
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over and self.last is None:
            grown = tracked(self.pid) - self.before
            now = time.monotonic()
            if self.first is None and grown >= self.BEGUN:
                self.first = now
            if grown >= self.flows:
                self.last = now
            time.sleep(self.STEP_S)

    def end(self):
        self.over = True
        self.thread.join()
        return self


class Meter:
    """Processor time by name, and bytes on the wire, between begin() and now()."""

    def __init__(self, processes, senders):
        """{name: [pid]}; [(pid, interface)] of all that send."""
        self.processes, self.senders = processes, senders
        self.idle = dict.fromkeys([*processes, "wire"], 0.0)
        self.begin()

    def read(self):
        found = {name: sum(map(cpu_s, pids)) for name, pids in self.processes.items()}
        found["wire"] = sum(sent_bytes(*one) for one in self.senders)
        return found

    def begin(self):
        self.start, self.began = self.read(), time.monotonic()

    def now(self):
        """Since begin(), less what the same time costs without anything to tell."""
        elapsed, found = time.monotonic() - self.began, self.read()
        return {name: found[name] - self.start[name] - self.idle[name] * elapsed
                for name in found}

    def rest(self, seconds):
        """Learns what it costs when nothing is to be told."""
        self.idle = dict.fromkeys(self.idle, 0.0)
        self.begin()
        time.sleep(seconds)
        found = self.now()
        self.idle = {name: value / seconds for name, value in found.items()}
        return self.idle


def per_flow(spent, flows, receivers):
    """As the figures are told: microseconds, and bytes for each receiver."""
    figures = {f"{name}_us": round(value / flows * 1e6, 2)
               for name, value in spent.items() if name != "wire"}
    figures["bytes"] = round(spent["wire"] / flows / receivers, 1)
    return figures
