# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes in from a director's inside is decided mirrored: both directions of a connection are
of one block, and so are echoes and errors. Real packets, whose block is read off one bit at a time
as in nft_golden_test.py. See inside_lab.py.
"""
import ipaddress
import json
import random
import socket
import time

import golden_packets as made
import lab
from inside_lab import GATEWAY, HOST, SHARED, director, make_inside, plug, raw, INSIDE_MAC
from lab import ANSWER_S, SHARED_MAC
from reference import Selection, connection_value

BLOCKS, BITS = 512, 9
STRANGER = 65535  # the number of a packet that comes through last
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
PROTOCOLS = (made.TCP, made.UDP, made.SCTP, made.UDPLITE, made.DCCP)
NOBODY, EVERYBODY = "nobody", "everybody"


class Flow:
    """A connection of a client, and the packets that belong to it: {what: (side, IP packet)}."""

    def __init__(self, version, rng):
        self.version = version
        if version == 4:
            self.client = f"198.51.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        else:
            self.client = f"2001:db8::{rng.randrange(1, 65536):x}:{rng.randrange(1, 65536):x}"
        self.port, self.service = rng.randrange(1, 65536), rng.randrange(1, 65536)
        self.real_port = rng.randrange(1, 65536)
        self.protocol = rng.choice(PROTOCOLS)

    def _ports(self, source, target):
        return made.transport(self.protocol, source, target)

    def _icmp(self, source, target, kind, rest, more=b""):
        if self.version == 4:
            return (source, target, made.ICMP, made.icmp(kind, 0, rest, more))
        return (source, target, made.ICMPV6, made.icmp(kind, 0, rest, more))

    def _error(self, source, target, quoted):
        return self._icmp(source, target, 3 if self.version == 4 else 1, bytes(4), quoted)

    def by_selector(self):
        """Of the connection's block."""
        v, shared, host = self.version, SHARED[self.version], HOST[self.version]
        sent = (self.client, shared, self.protocol, self._ports(self.port, self.service))
        translated = (self.client, host, self.protocol, self._ports(self.port, self.real_port))
        back = (host, self.client, self.protocol, self._ports(self.real_port, self.port))
        masked = (shared, self.client, self.protocol, self._ports(self.service, self.port))
        return {
            "packet of the client": ("out", sent),
            "answer of the host inside": ("in", back),
            "packet of the client to the host itself": ("out", translated),
            "error from inside about the client's packet":
                ("in", self._error(host, self.client, made.ip(v, *translated))),
            "error from outside about the answer, as it left":
                ("out", self._error(self.client, shared, made.ip(v, *masked))),
            "error from outside about the answer, without NAT":
                ("out", self._error(self.client, host, made.ip(v, *back))),
        }

    def by_address(self):
        """Of the block of the client's address, whatever the selector."""
        shared, host = SHARED[self.version], HOST[self.version]
        ask, answer = (8, 0) if self.version == 4 else (128, 129)
        rest = b"\0\1\0\1"
        packets = {
            "echo request": ("out", self._icmp(self.client, shared, ask, rest)),
            "echo reply from inside": ("in", self._icmp(host, self.client, answer, rest)),
            "echo request from inside": ("in", self._icmp(host, self.client, ask, rest)),
            "echo reply to inside": ("out", self._icmp(self.client, shared, answer, rest)),
            "error from inside about an echo request":
                ("in", self._error(host, self.client,
                                   made.ip(self.version, *self._icmp(self.client, host, ask,
                                                                     rest)))),
        }
        if self.version == 4:
            packets["timestamp"] = ("out", self._icmp(self.client, shared, 13, rest + bytes(12)))
            packets["timestamp reply"] = ("in", self._icmp(host, self.client, 14,
                                                           rest + bytes(12)))
        return packets


class Bench:
    """A node, a sender on both sides that is no part of any address, and who comes through."""

    def __init__(self, net, *options):
        make_inside(net)
        self.node, self.driver = director(net, 1, *options)
        for key in ("ipv4.conf.all.forwarding", "ipv6.conf.all.forwarding"):
            self.node.sysctl(f"net.{key}", 0)
        self.node.exec("nft", "-f", "-", text=OBSERVER)
        router = net.space("r")
        net.plug(router, "r", "02:00:00:00:ff:01")
        plug(net, router, "br1", "e1", "ri", "02:00:00:00:ff:02")
        for name in ("e0", "e1"):
            router.ip("link", "set", name, "arp", "off")
        self.sides = {"out": (router.packet_socket("e0", 0), raw(SHARED_MAC)),
                      "in": (router.packet_socket("e1", 0), raw(INSIDE_MAC))}
        net.sockets += [one for one, _ in self.sides.values()]
        self.frames, self.names = [], {}

    def add(self, name, side, packet, mac=None):
        number = len(self.names) + 1
        version = 6 if ":" in packet[0] else 4
        self.names[number] = name
        self.put(side, version, made.ip(version, *packet, number), mac)
        return number

    def put(self, side, version, packet, mac=None):
        sender, target = self.sides[side]
        kind = b"\x86\xdd" if version == 6 else b"\x08\0"
        self.frames.append((sender, (mac or target) + raw("02:00:00:00:ff:01") + kind + packet))

    def seen(self):
        listed = json.loads(self.node.exec("nft", "-j", "list", "table", "inet", "observer"))
        return {number for item in listed["nftables"] for name, one in item.items()
                if name == "set" for number in one.get("elem", [])}

    def came_through(self, blocks):
        self.driver.must(f"apply {blocks} 60000")
        stranger = made.ip4("192.0.2.1", "192.0.2.2", 17, bytes(8), STRANGER)
        for sender, frame in self.frames:
            sender.send(frame)
        own = raw("02:00:00:00:00:01"), raw("02:00:00:00:01:01")
        for (sender, _), mac in zip(self.sides.values(), own):
            time.sleep(0.02)
            sender.send(mac + raw("02:00:00:00:ff:01") + b"\x08\0" + stranger)
        end = time.monotonic() + ANSWER_S
        while STRANGER not in (got := self.seen()):
            if time.monotonic() > end:
                raise RuntimeError("the last packet does not come through")
        time.sleep(0.05)
        got = self.seen()
        self.node.exec("nft", "-f", "-",
                       text="flush set inet observer seen4\nflush set inet observer seen6\n")
        return got

    def blocks(self):
        """number -> its block, NOBODY, EVERYBODY, or a set of what is wrong."""
        halves = [(self.came_through(f"bit{bit}"), self.came_through(f"bit{bit}-"))
                  for bit in range(BITS)]
        without, whole = self.came_through("none"), self.came_through("all")
        answers = {}
        for number in self.names:
            sides = [(number in yes, number in no) for yes, no in halves]
            if number in without:
                always = number in whole and all(one == (True, True) for one in sides)
                answers[number] = EVERYBODY if always else "sometimes"
            elif number not in whole:
                answers[number] = "sometimes" if any(sum(one) for one in sides) else NOBODY
            elif all(sum(one) == 1 for one in sides):
                answers[number] = sum(yes << bit for bit, (yes, _) in enumerate(sides))
            else:
                answers[number] = "two nodes" if all(sum(one) for one in sides) else "a gap"
        return answers


def expected(flow, selector, seed):
    client = ipaddress.ip_address(flow.client)
    value = connection_value(Selection(selector, seed), flow.protocol, client, flow.port,
                             ipaddress.ip_address(SHARED[flow.version]), flow.service)
    return value * BLOCKS // 65536, (int(client) & 0xffff) * BLOCKS // 65536


def mirrored(net, tap):
    """Both directions, echoes and errors of a connection are of one block, of one node"""
    seed = int(time.time())
    tap.note(f"seed {seed}")
    rng = random.Random(seed)
    bench = Bench(net)
    flows = [Flow(version, rng) for version in (4, 6) for _ in range(30)]
    wanted = {}
    for flow in flows:
        for i, packets in enumerate((flow.by_selector(), flow.by_address())):
            for name, (side, packet) in packets.items():
                where = f"{name}: {flow.client} {flow.port} {flow.protocol}"
                wanted[bench.add(where, side, packet)] = (flow, i)
    for selector, hash_seed in (("src-port", 0), ("src-addr", 0), ("src-addr-port", 7)):
        bench.driver.must(f"reconfigure none 60000 --selector {selector} --seed {hash_seed}")
        answers = bench.blocks()
        wrong = [f"{bench.names[number]}: {answers[number]} instead of "
                 f"{expected(flow, selector, hash_seed)[i]}"
                 for number, (flow, i) in wanted.items()
                 if answers[number] != expected(flow, selector, hash_seed)[i]]
        used = {answers[number] for number, (_, i) in wanted.items() if i == 0}
        tap.check(not wrong and len(used) > 30,
                  f"{selector}: {len(wanted)} packets of {len(flows)} connections",
                  "\n".join([f"{len(wrong)} wrong"] + wrong[:20]))
        words = bench.driver.must("verify")["value"]
        tap.check(not words, f"{selector}: the kernel holds what is planned", words)


def for_all_or_none(net, tap):
    """Neighbour discovery is for every node; what nobody can place is for nobody"""
    bench = Bench(net)
    client = {4: "198.51.100.7", 6: "2001:db8::7"}
    target = made.packed(GATEWAY[6])
    wanted = {}
    for kind in (135, 136):
        wanted[bench.add(f"neighbour discovery, type {kind}", "in",
                         (HOST[6], GATEWAY[6], 58, made.icmp(kind, 0, bytes(4), target)))] = \
            EVERYBODY
    for version in (4, 6):
        host, away = HOST[version], client[version]
        for protocol, name in ((50, "ESP"), (47, "GRE"), (132 + 100, "of a protocol without name")):
            wanted[bench.add(f"{name} from inside", "in",
                             (host, away, protocol, bytes(40)))] = NOBODY
            wanted[bench.add(f"{name} through the outside", "out",
                             (away, host, protocol, bytes(40)))] = NOBODY
        wanted[bench.add("a segment that ends before its ports", "in",
                         (host, away, 6, b"\0\1"))] = NOBODY
        kind = 5 if version == 4 else 137
        wanted[bench.add("redirect from inside", "in",
                         (host, away, 1 if version == 4 else 58,
                          made.icmp(kind, 0, bytes(4), bytes(40))))] = NOBODY
        # An inside address, however the packet came: mirrored inside, as every other one outside.
        wanted[bench.add("to the inside address, from inside", "in",
                         (host, GATEWAY[version], 6, made.transport(6, 7000, 443)))] = 443 // 128
        wanted[bench.add("to the inside address, from outside", "out",
                         (away, GATEWAY[version], 6, made.transport(6, 7000, 443)))] = 7000 // 128
        # A node's own MAC takes past the link, but not past the addresses.
        wanted[bench.add("to the inside address by the NIC's own MAC", "in",
                         (host, GATEWAY[version], 6, made.transport(6, 7000, 443)),
                         raw("02:00:00:00:01:01"))] = 7000 // 128
    # One in two pieces is put together first.
    whole = made.ip4(HOST[4], client[4], 17, made.transport(17, 53, 40000, bytes(1000)),
                     len(bench.names) + 1)
    bench.names[len(bench.names) + 1] = "in two fragments, from inside"
    for piece in made.cut4(whole, len(bench.names), 512):
        bench.put("in", 4, piece)
    wanted[len(bench.names)] = 40000 // 128
    answers = bench.blocks()
    for number, block in wanted.items():
        tap.check(answers[number] == block, f"{bench.names[number]}: {block}", answers[number])
    bench.driver.must("apply all 100")
    time.sleep(0.3)
    for sender, frame in bench.frames:
        sender.send(frame)
    time.sleep(0.3)
    late = {number for number in bench.seen() if wanted.get(number, EVERYBODY) != EVERYBODY}
    tap.check(not late, "once the lease has run out, nothing of all that comes through", late)


if __name__ == "__main__":
    socket.setdefaulttimeout(ANSWER_S)
    lab.main(mirrored, for_all_or_none)
