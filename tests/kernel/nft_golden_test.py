# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden packets: each is sent for real, and the table that accepts it must be that of the block
which an independent reference (reference.py) says, for every selector.

    sender ns ── veth ──► node ns: table saru_1 (4096 blocks), then an observer that notes who came
                          through: IPv4 by its identification, IPv6 by its flow label

A packet's block is read off one bit at a time: in round i the node owns the blocks whose number has
bit i, in another round all others. Exactly one of the two may accept it.
"""
import json
import os
import socket
import subprocess
import sys
import time

import golden_packets
import lab
from golden_packets import SELECTIONS, SERVERS
from reference import ALL, NOBODY

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS, BITS = 4096, 12
QUICK = 6  # the selection for slow machines: it uses every selector
STRANGER = 65535  # the number of a packet that is for nobody's address: it comes through last
OBSERVER = """
table inet observer {
  set seen4 { typeof ip id; size 65535; flags dynamic; }
  set seen6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
  chain look {
    type filter hook prerouting priority -299; policy accept;
    ip id 0 return
    ip version 4 add @seen4 { ip id }
    ip6 version 6 add @seen6 { ip6 flowlabel }
  }
}
"""


class Packet:
    def __init__(self, line):
        name, kind, answers, whole, frames = line.rstrip("\n").split("\t")
        self.number, self.name = int(name.split()[0]), name
        self.ip_input = kind == "ip"
        self.answers = [int(one) if one.isdigit() else one for one in answers.split(",")]
        self.whole = bytes.fromhex(whole)
        self.frames = [self.whole] if frames == "=" else [
            bytes.fromhex(one) for one in frames.split(",")]

    def version(self):
        return 6 if " v6 " in self.name else 4


def read_packets():
    with open(os.path.join(HERE, "golden", "packets.txt"), encoding="utf-8") as file:
        return [Packet(line) for line in file if not line.startswith("#")]


class Bench:
    """The node, the sender, and what came through."""

    def __init__(self, net, packets):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one CPU: frames keep their order
        self.node, self.sender = net.space("n1"), net.space("s")
        self.sender.ip("link", "add", "e0", "mtu", "9000", "type", "veth", "peer", "name", "e0",
                       "netns", self.node.name)
        mac = "02:00:00:00:00:01"
        self.node.ip("link", "set", "e0", "address", mac, "mtu", "9000", "up")
        self.sender.ip("link", "set", "e0", "up")
        self.node.exec("nft", "-f", "-", text=OBSERVER)
        head = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("02000000ff01")
        self.socket = self.sender.packet_socket("e0", 0)
        net.sockets.append(self.socket)
        stranger = golden_packets.ip4("192.0.2.1", "192.0.2.2", 17, bytes(8), STRANGER)
        self.frames = [head + (b"\x86\xdd" if one.version() == 6 else b"\x08\0") + frame
                       for one in packets for frame in one.frames]
        self.last = head + b"\x08\0" + stranger
        self.driver = lab.Driver(net, self.node, "--blocks", str(BLOCKS), *(
            word for pair in SERVERS.values() for one in pair for word in ("--address", one)))
        self.driver.must("open")

    def seen(self):
        listed = json.loads(self.node.exec("nft", "-j", "list", "table", "inet", "observer"))
        return {number if name == "set" else None
                for item in listed["nftables"] for name, made in item.items() if name == "set"
                for number in made.get("elem", [])}

    def came_through(self, blocks):
        """The numbers of the packets that this set of blocks accepts."""
        self.driver.must(f"apply {blocks} 60000")
        for frame in self.frames:
            self.socket.send(frame)
        self.socket.send(self.last)
        end = time.monotonic() + lab.ANSWER_S
        got = self.seen()
        while STRANGER not in got:
            if time.monotonic() > end:
                raise RuntimeError("the last packet does not come through")
            got = self.seen()
        self.node.exec("nft", "-f", "-",
                       text="flush set inet observer seen4\nflush set inet observer seen6\n")
        return got


def answers_of(bench, packets, tap):
    """number -> the block that accepts it, NOBODY, ALL, or what is wrong."""
    halves = []
    for bit in range(BITS):
        halves.append((bench.came_through(f"bit{bit}"), bench.came_through(f"bit{bit}-")))
        if lab.SLOW > 1:
            tap.note(f"bit {bit} of {BITS}")
    without, whole = bench.came_through("none"), bench.came_through("all")
    answers = {}
    for number in (one.number for one in packets):
        sides = [(number in yes, number in no) for yes, no in halves]
        if number in without:
            answers[number] = ALL if all(one == (True, True) for one in sides) else "sometimes"
        elif number not in whole:
            answers[number] = "sometimes" if any(sum(one) for one in sides) else NOBODY
        elif all(sum(one) == 1 for one in sides):
            answers[number] = sum(yes << bit for bit, (yes, _) in enumerate(sides))
        else:
            answers[number] = "two blocks" if all(sum(one) for one in sides) else "a block and not"
    return answers


def golden(net, tap):
    """Every packet is accepted by the block that the reference says, under every selection"""
    packets = read_packets()
    bench = Bench(net, packets)
    tap.check(len(packets) >= 500, f"there are {len(packets)} golden packets")
    began = time.monotonic()
    for i, selection in enumerate(SELECTIONS):
        if lab.SLOW > 1 and i != QUICK:
            continue
        services = f" --services {selection.text}" if selection.text else ""
        bench.driver.must(f"reconfigure none 60000 --selector {selection.selector} "
                          f"--seed {selection.seed}{services}")
        answers = answers_of(bench, packets, tap)
        wrong = []
        for one in packets:
            wanted = one.answers[i]
            wanted = wanted if isinstance(wanted, str) else wanted // (65536 // BLOCKS)
            if answers[one.number] != wanted:
                wrong.append(f"{one.name}: {answers[one.number]} instead of {wanted}")
        words = bench.driver.must("verify")["value"]
        tap.check(not wrong and not words,
                  f"{len(packets)} packets: {selection.selector}, seed {selection.seed}{services}",
                  "\n".join(words + [f"{len(wrong)} wrong"] + wrong[:20]))
    tap.note(f"took {time.monotonic() - began:.1f} s")


def recipe(_, tap):
    """golden/packets.txt is what golden_packets.py makes"""
    made = subprocess.run([sys.executable, os.path.join(HERE, "golden_packets.py")], text=True,
                          capture_output=True, timeout=60, check=True).stdout
    with open(os.path.join(HERE, "golden", "packets.txt"), encoding="utf-8") as file:
        tap.check(file.read() == made, "the file is up to date: python3 golden_packets.py > "
                                       "golden/packets.txt")


if __name__ == "__main__":
    socket.setdefaulttimeout(lab.ANSWER_S)
    lab.main(recipe, golden)
