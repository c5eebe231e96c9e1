# SPDX-License-Identifier: GPL-2.0-or-later
"""The small net of test_witness, and the tools under test."""

import contextlib
import json
import os
import signal
import subprocess
import time

SHARED_MAC = "02:5a:72:75:00:01"
V4, V6 = "10.9.0.1", "fd09::1"
NODES = ("n1", "n2", "n3")
BLOCKS = 512
SIZE = 65536 // BLOCKS
DEADLINE_S = 30


def run(*command, check=True, stdin=None):
    return subprocess.run(command, check=check, input=stdin, text=True, capture_output=True,
                          timeout=DEADLINE_S)


def owner_of(block):
    return NODES[block % len(NODES)]


class Net:
    """The bridge, the nodes and the client. Everything that it made goes in close()."""

    def __init__(self):
        self.prefix = f"wt-{os.getpid()}-"
        self.spaces = []
        self.processes = []

    def name(self, who):
        return self.prefix + who

    def exec(self, who, *command, check=True, stdin=None):
        return run("ip", "netns", "exec", self.name(who), *command, check=check, stdin=stdin)

    def ip(self, who, *words):
        return run("ip", "-n", self.name(who), *words)

    def add_space(self, who):
        run("ip", "netns", "add", self.name(who))
        self.spaces.append(who)
        self.ip(who, "link", "set", "lo", "up")

    def mac(self, node):
        return f"02:00:00:00:00:0{node[1]}"

    def plug(self, who, mac):
        self.ip(who, "link", "add", "e0", "address", mac, "type", "veth", "peer", "name", who,
                "netns", self.name("sw"))
        self.ip("sw", "link", "set", who, "master", "br0", "up")

    def open(self):
        self.add_space("sw")
        self.ip("sw", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay",
                "0", "mcast_snooping", "0")
        self.ip("sw", "link", "set", "br0", "up")
        self.add_space("c")
        self.plug("c", "02:00:00:00:00:64")
        self.ip("c", "link", "set", "e0", "up")
        self.ip("c", "addr", "add", "10.9.0.100/24", "dev", "e0")
        self.ip("c", "addr", "add", "fd09::100/64", "dev", "e0", "nodad")
        for node in NODES:
            self.add_space(node)
            self.plug(node, self.mac(node))
            self.set_up_node(node)

    def set_up_node(self, node):
        settings = ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
                    "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0",
                    "net.ipv4.icmp_ratelimit=0"]
        self.exec(node, "sysctl", "-qw", *settings)
        self.ip(node, "link", "add", "saru0", "link", "e0", "address", SHARED_MAC, "type",
                "macvlan", "mode", "bridge")
        self.ip(node, "link", "set", "saru0", "addrgenmode", "none")
        self.mask(node)
        self.exec(node, "nft", "-f", "-", stdin=self.ownership(node))
        number = node[1]
        self.ip(node, "link", "set", "e0", "up")
        self.ip(node, "addr", "add", f"10.9.0.1{number}/24", "dev", "e0")
        self.ip(node, "addr", "add", f"fd09::1{number}/64", "dev", "e0", "nodad")
        self.ip(node, "link", "set", "saru0", "up")
        self.ip(node, "addr", "add", f"{V4}/32", "dev", "saru0")
        self.ip(node, "addr", "add", f"{V6}/128", "dev", "saru0", "nodad")

    def mask(self, node, rule=None):
        rule = rule or f"ether saddr {SHARED_MAC} ether saddr set {self.mac(node)};"
        self.exec(node, "nft", "-f", "-", stdin=f"""table netdev mask {{
            chain a {{ type filter hook egress device saru0 priority 0; {rule} }}
            chain b {{ type filter hook egress device e0 priority 0; {rule} }}
        }}""")

    def forget_mac(self, node):
        """A switch that saw the shared MAC sends everything to that one port: undo it."""
        self.ip("sw", "link", "set", node, "type", "bridge_slave", "fdb_flush")

    def unmask(self, node):
        self.exec(node, "nft", "delete", "table", "netdev", "mask")

    def ownership(self, node):
        owned = ",".join(str(b * SIZE) for b in range(BLOCKS) if owner_of(b) == node)
        # The client's addresses end in 100 (block 0) and 0x100 (block 2).
        echo4 = "accept" if node == owner_of(0) else "drop"
        echo6 = "accept" if node == owner_of(2) else "drop"
        return f"""table inet owner {{
            set owned {{ type inet_service; elements = {{ {owned} }} }}
            chain pre {{ type filter hook prerouting priority -310;
                ip daddr != {V4} accept
                meta l4proto {{ tcp, udp }} th sport & 0xff80 @owned accept
                icmp type echo-request {echo4}
                meta l4proto {{ tcp, udp, icmp }} drop
            }}
            chain pre6 {{ type filter hook prerouting priority -309;
                ip6 daddr != {V6} accept
                meta l4proto {{ tcp, udp }} th sport & 0xff80 @owned accept
                icmpv6 type echo-request {echo6}
                meta l4proto {{ tcp, udp }} drop
            }}
        }}"""

    def change(self, node, verb, block):
        self.exec(node, "nft", verb, "element", "inet", "owner", "owned", f"{{ {block * SIZE} }}")

    def start(self, who, *command, **options):
        process = subprocess.Popen(["ip", "netns", "exec", self.name(who), *command], text=True,
                                   **options)
        self.processes.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.processes.remove(process)

    def close(self):
        for process in list(self.processes):
            self.stop(process)
        for who in self.spaces:
            run("ip", "netns", "del", self.name(who), check=False)


class Bench:
    """The net with its servers, and the tools under test."""

    def __init__(self, tools, folder):
        self.tool = lambda name: os.path.join(tools, name)
        self.folder = folder
        self.net = Net()
        self.servers = {}

    def open(self):
        self.net.open()
        for node in NODES:
            self.serve(node)
        deadline = time.monotonic() + DEADLINE_S
        # Also fills the client's neighbour tables.
        while self.http(V4, V6, seconds=0.2, check=False)["failed"] != 0:
            if time.monotonic() > deadline:
                raise RuntimeError("the servers do not answer")

    def serve(self, node):
        probe = self.tool("saru-probe")
        self.servers[node] = [
            self.net.start(node, probe, "respond", "--name", node, "--realtime", "2"),
            self.net.start(node, probe, "serve", "--name", node)]

    @contextlib.contextmanager
    def witness(self, *options, links=("c",) + NODES, settle=True):
        """Yields a Result that is filled when the block ends."""
        output = os.path.join(self.folder, "witness.jsonl")
        command = [self.tool("saru-witness"), "--address", V4, "--address", V6, "--shared-mac",
                   SHARED_MAC, "--output", output,
                   "--records", os.path.join(self.folder, "records")]
        for link in links:
            command += ["--link", f"{link}={self.net.name('sw')}:{link}"]
        for node in NODES:
            command += ["--mac-of", f"{node}={self.net.mac(node)}"]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)
        process = subprocess.Popen(command + list(options), stderr=subprocess.PIPE, text=True)
        result = Result()
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not (os.path.exists(output) and os.path.getsize(output) > 0):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the witness did not start: " + process.communicate()[1])
                time.sleep(0.01)
            yield result
            if settle:
                time.sleep(0.4)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                result.text = process.communicate(timeout=DEADLINE_S)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
        result.status = process.returncode
        with open(output, encoding="utf-8") as lines:
            result.lines = [json.loads(line) for line in lines]
        result.summary = result.lines[-1]

    def report(self, *options):
        done = run(self.tool("saru-witness"), "report", "--records",
                   os.path.join(self.folder, "records"), *options, check=False)
        if done.returncode == 3:
            raise RuntimeError(done.stderr)
        return done.returncode, json.loads(done.stdout)["events"]

    def probe(self, *options, seconds=1.0):
        return self.net.start("c", self.tool("saru-probe"), "send", "--seconds", str(seconds),
                              *options, stdout=subprocess.PIPE)

    def finish(self, process):
        out = process.communicate(timeout=DEADLINE_S)[0]
        self.net.processes.remove(process)
        return json.loads(out)

    def http(self, *addresses, seconds=1.0, blocks="all", rate=200, timeout=3, check=True):
        command = [self.tool("saru-probe"), "http", "--seconds", str(seconds), "--blocks", blocks,
                   "--timeout", str(timeout), "--connections-per-second", str(rate),
                   "--expect", ",".join(NODES), "--json"]
        for address in addresses:
            command += ["--address", address]
        result = json.loads(self.net.exec("c", *command, check=False).stdout)
        if check and result["failed"]:
            raise RuntimeError(f"HTTP failed: {result}")
        return result


class Result:
    status = None
    summary = {}
    lines = ()
    text = ""

    def kinds(self):
        return {line["kind"] for line in self.lines if line["type"] == "violation"}


def expect(condition, why):
    if not condition:
        raise AssertionError(why)


def expect_caught(result, kind):
    expect(result.status == 1, f"exit {result.status}, not 1: {result.text}")
    expect(kind in result.kinds(), f"no violation '{kind}' in {result.kinds()}")
