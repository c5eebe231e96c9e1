# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule sets that packet-cost compares: each in a network namespace of its own, with one
interface e0 where the packets come in, and a chain behind the rules that counts and drops what
they let pass."""
import os
import select
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "kernel"))

import lab  # noqa: E402  (the namespaces and the driver of the kernel tests)

MAC = "02:00:00:00:00:01"
CLIENT_MAC = "02:00:00:00:00:64"
SHARED4, SHARED6 = "10.9.0.1", "fd09::1"
CLIENT4, CLIENT6 = "10.9.4.7", "fd09::407"
SEED = "0xdeadbeef"
OWNED, FOREIGN = "owned", "foreign"
LEASE_MS = 3_600_000
PROBES = 200  # sources to try before giving up: with 16 nodes one of 16 hits


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def frame(source=CLIENT4, target=SHARED4):
    """A TCP packet of a running connection, 40 or 60 bytes long, in hex, with its Ethernet
    header."""
    v6 = ":" in source
    tcp = struct.pack("!HHIIBBHHH", 40123, 443, 1, 1, 0x50, 0x10, 1000, 0, 0)
    if v6:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        ip = struct.pack("!IHBB", 0x60000000, len(tcp), socket.IPPROTO_TCP, 64) + ends
    else:
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + ends
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    right = checksum(ends + struct.pack("!II", len(tcp), socket.IPPROTO_TCP) + tcp)
    tcp = tcp[:16] + struct.pack("!H", right) + tcp[18:]
    macs = bytes.fromhex((MAC + CLIENT_MAC).replace(":", ""))
    return (macs + (b"\x86\xdd" if v6 else b"\x08\x00") + ip + tcp).hex()


class Source:
    """packet_source: lets packets come in, and says how long each took."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)

    def send(self, space, frame_hex, packets, runs=1):
        """Nanoseconds per packet, of each run."""
        self.process.stdin.write(f"{space.name} e0 {packets} {runs} {frame_hex}\n")
        if not select.select([self.process.stdout], [], [], 60)[0]:
            raise RuntimeError(f"{space.name}: {packets} packets are not through after 60 s")
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("error"):
            raise RuntimeError(f"packet_source: {answer or 'ended'}")
        return [int(word) for word in answer.split()]

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


class Network(lab.Lab):
    """Only a keeper of namespaces and drivers: there is no switch and no client."""

    def __enter__(self):
        return self


class Place:
    """A namespace with one set of rules; frames[OWNED] and frames[FOREIGN] are what comes in."""

    def __init__(self, net, source, name):
        self.source, self.name = source, name
        self.space = net.space(name)
        self.space.ip("link", "add", "e0", "address", MAC, "type", "veth", "peer", "name", "e1")
        for interface in ("e0", "e1"):
            self.space.ip("link", "set", interface, "addrgenmode", "none")
            self.space.ip("link", "set", interface, "up")
        self.frames = {}

    def nft(self, text):
        self.space.exec("nft", "-f", "-", text=text)

    def add_last(self, priority, drop=True):
        """The chain behind the rules: what comes here was accepted."""
        self.nft(f"""table inet last {{
            counter passed {{ }}
            chain last {{
                type filter hook prerouting priority {priority}; policy accept;
                counter name passed {"drop" if drop else ""}
            }}
        }}
        """)

    def passed(self):
        words = self.space.exec("nft", "list", "counter", "inet", "last", "passed").split()
        return int(words[words.index("packets") + 1])

    def lets_pass(self, frame_hex):
        before = self.passed()
        self.source.send(self.space, frame_hex, 4)
        return self.passed() - before >= 4

    def find(self, owned):
        """A frame that these rules accept (or do not), by its source address."""
        for number in range(1, PROBES):
            candidate = frame(f"10.9.5.{number}")
            if self.lets_pass(candidate) == owned:
                return candidate
        raise RuntimeError(f"{self.name}: no source address is {OWNED if owned else FOREIGN}")

    def become(self, whose):
        """Makes the rules treat its frame as OWNED or FOREIGN."""

    def measure(self, whose, packets, runs):
        self.become(whose)
        return self.source.send(self.space, self.frames[whose], packets, runs)

    def check(self, whose, packets=1000):
        """That the packets go the way that is measured."""
        before = self.passed()
        self.measure(whose, packets, 1)
        passed = self.passed() - before
        if (passed >= packets) != (whose == OWNED):
            raise RuntimeError(f"{self.name}: of {packets} {whose} packets {passed} were accepted")


class DropAtOnce(Place):
    """What a foreign packet costs at least: one rule, without a condition, at saru's place."""

    def __init__(self, net, source):
        super().__init__(net, source, "drop")
        self.nft("""table inet first {
            chain first {
                type filter hook prerouting priority raw - 10; policy accept;
                drop
            }
        }
        """)


class DropLast(Place):
    """What an owned packet costs at least: no rules but the last chain."""

    def __init__(self, net, source):
        super().__init__(net, source, "last")
        self.add_last("raw")


class Saru(Place):
    """The table that sarud installs, by the same code. The frame stays the same: the blocks
    change."""

    def __init__(self, net, source, selector, addresses, v6=False):
        super().__init__(net, source, f"{selector}-{addresses}-{'6' if v6 else '4'}")
        shared = [f"fd09::{n:x}" if v6 else f"10.9.0.{n}" for n in range(1, addresses + 1)]
        options = [word for address in shared for word in ("--address", address)]
        self.driver = lab.Driver(net, self.space, "--selector", selector, *options)
        self.driver.must("open")
        self.add_last("raw")
        packet = frame(CLIENT6, SHARED6) if v6 else frame()
        self.frames = {OWNED: packet, FOREIGN: packet}
        self.blocks = {OWNED: "even", FOREIGN: "odd"}
        self.become(OWNED)
        if not self.lets_pass(packet):
            self.blocks = {OWNED: "odd", FOREIGN: "even"}

    def become(self, whose):
        self.driver.must(f"apply {self.blocks[whose]} {LEASE_MS}")


class Cluster(Place):
    """xt_cluster as its manual page has it. Owned packets are of a connection that conntrack
    knows; foreign ones are dropped before it can get to know theirs."""

    def __init__(self, net, source, iptables, nodes):
        super().__init__(net, source, f"{iptables}-{nodes}")
        # As behind a NIC that checks checksums; the same packet again and again is no offence.
        for key, value in (("nf_conntrack_checksum", 0), ("nf_conntrack_tcp_be_liberal", 1)):
            self.space.sysctl(f"net.netfilter.{key}", value)
        self.space.ip("addr", "add", f"{SHARED4}/16", "dev", "e0")
        chain = (iptables, "-w", "-t", "mangle", "-A", "PREROUTING", "-d", SHARED4)
        self.space.exec(*chain, "-m", "cluster", "--cluster-total-nodes", str(nodes),
                        "--cluster-local-node", "1", "--cluster-hash-seed", SEED, "-j", "ACCEPT")
        self.space.exec(*chain, "-j", "DROP")
        # The answers to the first packets, resets, would end the connections.
        self.nft("""table inet silent {
            chain silent {
                type filter hook output priority raw - 10; policy drop;
            }
        }
        """)
        self.add_last("mangle + 10", drop=False)
        self.frames = {OWNED: self.find(True), FOREIGN: self.find(False)}
        self.space.exec("nft", "add", "rule", "inet", "last", "last", "drop")


class Jhash(Place):
    """One rule for each bucket that this node holds, then a drop; owned packets are of the last
    bucket."""

    def __init__(self, net, source, nodes, held):
        super().__init__(net, source, f"jhash-{nodes}-{held}")
        self.add_last("raw")
        rule = f"ip daddr {SHARED4} jhash ip saddr mod {nodes} seed {SEED}"
        self.nft(f"""table ip buckets {{
            chain buckets {{
                type filter hook prerouting priority raw - 10; policy accept;
                {rule} {held - 1} accept
                ip daddr {SHARED4} drop
            }}
        }}
        """)
        owned = self.find(True)
        for bucket in range(held - 1):
            self.space.exec("nft", "insert", "rule", "ip", "buckets", "buckets", *rule.split(),
                            str(bucket), "accept")
        self.frames = {OWNED: owned, FOREIGN: self.find(False)}
