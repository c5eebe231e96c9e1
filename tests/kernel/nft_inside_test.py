# SPDX-License-Identifier: GPL-2.0-or-later
"""A director's inside: both directions of a connection are of one block, and of one node.

    client c, router ──► br0 (outside) ──► e0 + saru1     n1, n2: tables of their own
                                           e1 + saru1i ◄── br1 (inside) ◄── host h, whose gateway is
                                                                            the inside address
"""
import ipaddress
import json
import random
import select
import socket
import struct
import threading
import time

import golden_packets as made
import lab
from reference import Selection, connection_value
from lab import ANSWER_S, SHARED_MAC, V4, V6

INSIDE_MAC = "02:5a:72:01:00:01"
GATEWAY = {4: "10.2.0.1", 6: "fd02::1"}
HOST = {4: "10.2.0.10", 6: "fd02::a"}
SHARED = {4: V4, 6: V6}
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


def raw(mac):
    return bytes.fromhex(mac.replace(":", ""))


def plug(net, space, bridge, name, port, mac):
    """Another interface of this space, at a port of this bridge."""
    space.ip("link", "add", name, "address", mac, "type", "veth", "peer", "name", port, "netns",
             net.switch.name)
    net.switch.ip("link", "set", port, "master", bridge, "up")
    space.ip("link", "set", name, "up")


def make_inside(net):
    """The second LAN and the host on it."""
    net.switch.ip("link", "add", "br1", "type", "bridge")
    net.switch.ip("link", "set", "br1", "up")
    host = net.space("h")
    plug(net, host, "br1", "e0", "hi", "02:00:00:00:01:64")
    host.ip("addr", "add", f"{HOST[4]}/24", "dev", "e0")
    host.ip("addr", "add", f"{HOST[6]}/64", "dev", "e0", "nodad")
    host.ip("route", "add", "default", "via", GATEWAY[4])
    host.ip("route", "add", "default", "via", GATEWAY[6])
    return host


def director(net, number=1, *options, own_addresses=True):
    node = net.node(number, own_addresses)
    plug(net, node, "br1", "e1", f"i{number}", f"02:00:00:00:01:0{number}")
    if own_addresses:
        node.ip("addr", "add", f"10.2.0.2{number}/24", "dev", "e1")
        node.ip("addr", "add", f"fd02::2{number}/64", "dev", "e1", "nodad")
    driver = net.driver(node, "--inside-nic", "e1", "--inside-address", GATEWAY[4] + "/24",
                        "--inside-address", GATEWAY[6] + "/64", *options)
    driver.must("open")
    driver.must("link 600")
    driver.must("inside-link 600")
    if not own_addresses:  # the addresses outside have no prefix, so no way to their subnet either
        node.ip("route", "add", "10.9.0.0/16", "dev", "saru1")
        node.ip("route", "add", "fd09::/64", "dev", "saru1")
    return node, driver


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
    late = {number for number in bench.seen() if wanted[number] != EVERYBODY}
    tap.check(not late, "once the lease has run out, nothing of all that comes through", late)


NAT = """
table {family} nat {{
  chain pre {{
    type nat hook prerouting priority dstnat; policy accept;
    {family} daddr {shared} tcp dport 7 dnat to {host}:7007
    {family} daddr {shared} udp dport 7 dnat to {host}:7007
  }}
}}
"""
CLIENT = {4: ("10.9.0.100", "10.9.0.200"), 6: ("fd09::64", "fd09::c8")}
PORTS = [1024 + 1009 * i for i in range(60)]
DATA = bytes(range(256)) * 64


def directors(net, count, own_addresses=True):
    """Nodes that route between both networks and send what comes to port 7 to the host inside."""
    host, pairs = make_inside(net), []
    for number in range(1, count + 1):
        node, driver = director(net, number, own_addresses=own_addresses)
        for key in ("ipv4.conf.all.forwarding", "ipv6.conf.all.forwarding"):
            node.sysctl(f"net.{key}", 1)
        for version, family in ((4, "ip"), (6, "ip6")):
            real = HOST[version] if version == 4 else f"[{HOST[version]}]"
            node.exec("nft", "-f", "-",
                      text=NAT.format(family=family, shared=SHARED[version], host=real))
        pairs.append((node, driver))
    net.client.ip("route", "add", "10.2.0.0/24", "via", V4)
    net.client.ip("route", "add", "fd02::/64", "via", V6)
    return host, pairs


def owning(pairs, *blocks):
    for (_, driver), owned in zip(pairs, blocks):
        driver.must(f"apply {owned} 60000")


class EchoServer:
    """On the host inside: sends back what comes, TCP and UDP, both families, port 7007."""

    def __init__(self, net, host):
        self.sockets = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for address in HOST.values():
                self.sockets.append(net.server(host, kind, address, 7007))
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while not self.ends.is_set():
            for one in select.select(self.sockets, [], [], 0.1)[0]:
                if one.type == socket.SOCK_DGRAM:
                    data, source = one.recvfrom(2048)
                    one.sendto(data, source)
                else:
                    threading.Thread(target=self._echo, args=(one.accept()[0],)).start()

    @staticmethod
    def _echo(connection):
        with connection:
            connection.settimeout(ANSWER_S)
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def end(self):
        self.ends.set()
        self.thread.join()


def sniff(net, space):
    sniffer = space.packet_socket("e0")
    sniffer.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
    net.sockets.append(sniffer)
    return sniffer


def heard(sniffer):
    """(Ethernet source, source address, ports) of each packet that has come with ports."""
    packets = []
    while select.select([sniffer], [], [], lab.SILENCE_S)[0]:
        frame, (_, _, kind, _, _) = sniffer.recvfrom(65536)
        if kind == 4:  # PACKET_OUTGOING
            continue
        if frame[12:14] == b"\x08\0" and frame[23] in (6, 17):
            packets.append((frame[6:12].hex(":"), socket.inet_ntop(socket.AF_INET, frame[26:30]),
                            struct.unpack("!HH", frame[34:38])))
        elif frame[12:14] == b"\x86\xdd" and frame[20] in (6, 17):
            packets.append((frame[6:12].hex(":"), socket.inet_ntop(socket.AF_INET6, frame[22:38]),
                            struct.unpack("!HH", frame[54:58])))
        else:
            packets.append((frame[6:12].hex(":"), "", (0, 0)))
    return packets


def transfer(net, version, port):
    """Whether the data come back whole that this client port sends to the shared address."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    one = net.client.socket(family, socket.SOCK_STREAM, bind=(CLIENT[version][0], port), options=[
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")])
    with one:
        one.settimeout(ANSWER_S)
        try:
            one.connect((SHARED[version], 7))
            one.sendall(DATA)
            back = b""
            while len(back) < len(DATA) and (more := one.recv(65536)):
                back += more
            return back == DATA
        except OSError:
            return False


def transfers(net, tap, host_hears, client_hears, owner_of):
    """Transfers from all ports, each through the director that `owner_of` says, both ways."""
    failed = [(version, port) for version in (4, 6) for port in PORTS
              if not transfer(net, version, port)]
    tap.check(not failed, f"{2 * len(PORTS)} transfers, none without its answer", failed)
    wrong, counted = [], 0
    for hears, inside, what in ((host_hears, 1, "to the host"), (client_hears, 0, "to the client")):
        for mac, _, ports in heard(hears):
            port = ports[0] if inside else ports[1]
            if port not in PORTS:
                continue
            counted += 1
            owner = f"02:00:00:00:0{inside}:0{owner_of(port)}"
            if mac != owner:
                wrong.append(f"{what}, client port {port}: from {mac}, not from {owner}")
    tap.check(not wrong and counted > 8 * 2 * len(PORTS),
              f"{counted} packets, each from the node of its block alone", "\n".join(wrong[:20]))


def translated(net, tap):
    """NAT to a host inside, through one node and through two that own half each"""
    host, pairs = directors(net, 2)
    server = EchoServer(net, host)
    try:
        host_hears, client_hears = sniff(net, host), sniff(net, net.client)
        owning(pairs, "all", "none")
        transfers(net, tap, host_hears, client_hears, lambda port: 1)
        owning(pairs, "even", "odd")
        transfers(net, tap, host_hears, client_hears, lambda port: 1 + port // 128 % 2)
        owning(pairs, "none", "all")
        transfers(net, tap, host_hears, client_hears, lambda port: 2)
        owning(pairs, "even", "none")
        good = [port for port in PORTS[:12] if port // 128 % 2 == 0]
        tap.check(all(transfer(net, version, port) for version in (4, 6) for port in good),
                  "blocks that have an owner are served")
        bad = [port for port in PORTS[:12] if port // 128 % 2 == 1][:2]
        tap.check(bad and not any(net.tcp_answers(CLIENT[4][0], port, V4, 0.5) for port in bad),
                  "those of nobody are not")
    finally:
        server.end()


def datagrams(space, version, source, target, inside):
    """One datagram of every client port to the other side, one of every port back."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for port in PORTS:
        with space.socket(family, socket.SOCK_DGRAM, bind=(source, 0 if inside else port)) as one:
            one.sendto(b"x", (target, port if inside else 9))


def routed(net, tap):
    """Without NAT each packet is forwarded once, by its owner, in both directions"""
    host, pairs = directors(net, 2)
    owning(pairs, "even", "odd")
    client = {version: one[0] for version, one in CLIENT.items()}
    for space, hears, source, target, inside in ((host, net.client, HOST, client, True),
                                                 (net.client, host, client, HOST, False)):
        sniffer = sniff(net, hears)
        for version in (4, 6):
            name = f"IPv{version} from {'inside' if inside else 'outside'}"
            end = time.monotonic() + ANSWER_S
            macs = set()
            while len(macs) < 2 and time.monotonic() < end:  # until the neighbours are known
                datagrams(space, version, source[version], target[version], inside)
                macs |= {mac for mac, ip, _ in heard(sniffer) if ip == source[version]}
            datagrams(space, version, source[version], target[version], inside)
            got = {}
            for mac, ip, ports in heard(sniffer):
                if ip == source[version]:
                    got.setdefault(ports[1 if inside else 0], []).append(mac)
            wrong = {port: got.get(port) for port in PORTS if got.get(port) !=
                     [f"02:00:00:00:0{int(not inside)}:0{1 + port // 128 % 2}"]}
            tap.check(not wrong, f"{name}: {len(PORTS)} datagrams, each forwarded once", wrong)


def hides_macs(net, tap, own_addresses, versions):
    host, pairs = directors(net, 2, own_addresses)
    owning(pairs, "even", "odd")
    host_hears, client_hears = sniff(net, host), sniff(net, net.client)
    server = EchoServer(net, host)
    try:
        done = [transfer(net, version, port) for version in versions for port in PORTS[:10]]
        for _, driver in pairs:
            driver.must("announce")
            driver.must("inside-announce")
    finally:
        server.end()
    tap.check(all(done), f"{len(done)} transfers", done)
    for hears, inside in ((host_hears, 1), (client_hears, 0)):
        sources = {mac for mac, _, _ in heard(hears)}
        own = {f"02:00:00:00:0{inside}:0{number}" for number in (1, 2)}
        tap.check(own <= sources and not sources & {SHARED_MAC, INSIDE_MAC},
                  f"{'inside' if inside else 'outside'}: the NICs' own MACs alone", sources)
    learned = [line for line in net.switch.exec("bridge", "fdb", "show").splitlines()
               if line.startswith((SHARED_MAC, INSIDE_MAC))]
    tap.check(not learned, "the switch learns neither", learned)


def hidden(net, tap):
    """Neither shared MAC is ever a source"""
    hides_macs(net, tap, True, (4, 6))


def hidden_without_own(net, tap):
    """The same of nodes that have no address of their own on either side"""
    # IPv4 alone: Linux solicits no neighbour for a packet that it forwards through an interface
    # without a link-local address (ndisc_send_ns(), net/ipv6/ndisc.c).
    hides_macs(net, tap, False, (4,))


if __name__ == "__main__":
    socket.setdefaulttimeout(ANSWER_S)
    lab.main(mirrored, for_all_or_none, translated, routed, hidden,
             hidden_without_own)
