# SPDX-License-Identifier: GPL-2.0-or-later
"""Two directors between a client and a server, for the tests of connections that move.

    client ---- directors a, b ---- server     Both have the same addresses; the client's and the
      10.9.0.0/16         10.8.0.0/16          server's neighbour entries say by which they go.
      fd09::/64           fd08::/64
"""
import hashlib
import os
import socket
import struct
import threading
import time

import lab

OUT, IN = {4: "10.9.0.1", 6: "fd09::1"}, {4: "10.8.0.1", 6: "fd08::1"}
SERVER, CLIENT = {4: "10.8.0.9", 6: "fd08::9"}, {4: "10.9.0.100", 6: "fd09::64"}
DIRECTORS = ("a", "b")
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
UDP_LITE = 136
CARRIED = 50_000  # bytes each way after each move
QUIET_MS = 150  # how long nothing happens before all events have been read
MARK, LABEL, ZONE = 42, 5, 7
RULES = f"""
table inet moved {{
  chain gate {{
    type filter hook prerouting priority raw - 10;
  }}
  chain early {{
    type filter hook prerouting priority raw;
    tcp sport 7007 ct zone set {ZONE}
    tcp dport 7007 ct zone set {ZONE}
    tcp sport 7008 iifname e0 ct original zone set {ZONE + 1}
    tcp dport 7008 iifname e1 ct original zone set {ZONE + 1}
    ip saddr 10.9.0.100 tcp sport 7009 notrack
  }}
  chain to {{
    type nat hook prerouting priority dstnat;
    ip daddr 10.9.0.1 tcp dport {{ 80, 21 }} dnat ip to 10.8.0.9:8080
    ip6 daddr fd09::1 tcp dport 80 dnat ip6 to [fd08::9]:8080
    ip daddr 10.9.0.1 meta l4proto {{ udp, udplite }} dnat ip to 10.8.0.9:5353
    ip6 daddr fd09::1 udp dport 53 dnat ip6 to [fd08::9]:5353
    ip daddr 10.9.0.1 icmp type echo-request dnat ip to 10.8.0.9
    ip6 daddr fd09::1 icmpv6 type echo-request dnat ip6 to fd08::9
  }}
  chain from {{
    type nat hook postrouting priority srcnat;
    ip daddr 10.8.0.9 ct status & dnat == 0 tcp dport 8080 snat ip to 10.8.0.1:30000-30999
    ip6 daddr fd08::9 ct status & dnat == 0 tcp dport 8080 snat ip6 to [fd08::1]:30000-30999
  }}
  chain through {{
    type filter hook forward priority filter;
    ct state invalid counter drop
    ct state new ct mark set {MARK} ct label set {LABEL}
  }}
}}
"""


class Field:
    """The network above, and a flows_driver in each director."""

    def __init__(self, net, buffer=""):
        self.net = net
        net.driver_path = os.path.join(os.path.dirname(net.driver_path), "flows_driver")
        net.switch.ip("link", "add", "br1", "type", "bridge")
        net.switch.ip("link", "set", "br1", "up")
        self.server = net.space("s")
        self.plug(self.server, "e0", "s", "br1", "02:00:00:00:01:64", SERVER)
        self.client = net.client
        self.nodes, self.drivers, self.ports = {}, {}, {}
        for number, name in enumerate(DIRECTORS, 1):
            self.nodes[name] = self.director(name, number)
            self.drivers[name] = lab.Driver(net, self.nodes[name])
            self.ports[name] = self.drivers[name].must(f"open {buffer}")["port"]
        for space, gateways in ((self.client, OUT), (self.server, IN)):
            space.ip("route", "add", "default", "via", gateways[4])
            space.ip("-6", "route", "add", "default", "via", gateways[6])
        self.through("a")

    def plug(self, space, interface, port, bridge, mac, addresses):
        space.ip("link", "add", interface, "address", mac, "type", "veth", "peer", "name", port,
                 "netns", self.net.switch.name)
        self.net.switch.ip("link", "set", port, "master", bridge, "up")
        space.ip("link", "set", interface, "up")
        space.ip("addr", "add", addresses[4] + "/16", "dev", interface)
        space.ip("addr", "add", addresses[6] + "/64", "dev", interface, "nodad")

    def director(self, name, number):
        node = self.net.space(name)
        node.sysctl("net.ipv4.ip_forward", 1)
        node.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.plug(node, "e0", name + "0", "br0", f"02:00:00:00:00:0{number}", OUT)
        self.plug(node, "e1", name + "1", "br1", f"02:00:00:00:01:0{number}", IN)
        for key in ("net.ipv4.conf.all.send_redirects", "net.ipv4.conf.default.send_redirects",
                    "net.netfilter.nf_conntrack_tcp_loose",
                    # Which takes UDP-Lite's for UDP's and finds all of them wrong (Linux 6.18).
                    "net.netfilter.nf_conntrack_checksum"):
            node.sysctl(key, 0)
        # Neither answers for the other, so that only neighbour entries decide.
        for interface in ("e0", "e1"):
            node.ip("link", "set", interface, "arp", "off")
        for number_of_net, interface, hosts in ((0, "e0", CLIENT), (1, "e1", SERVER)):
            for host in hosts.values():
                node.ip("neigh", "replace", host, "lladdr", f"02:00:00:00:0{number_of_net}:64",
                        "dev", interface, "nud", "permanent")
        node.exec("nft", "-f", "-", text=RULES)
        return node

    def through(self, name):
        """All packets go through this director from now on. The other drops what still comes: its
        own TCP would reset the connection to which a late packet belongs."""
        for each, node in self.nodes.items():
            node.exec("nft", "flush chain inet moved gate" +
                      ("" if each == name else "; add rule inet moved gate drop"))
        number = DIRECTORS.index(name) + 1
        for space, side, gateways in ((self.client, 0, OUT), (self.server, 1, IN)):
            for gateway in gateways.values():
                space.ip("neigh", "replace", gateway, "lladdr", f"02:00:00:00:0{side}:0{number}",
                         "dev", "e0", "nud", "permanent")

    def refuse_new(self):
        """Nothing passes that is not of a connection known already."""
        for node in self.nodes.values():
            node.exec("nft", "insert", "rule", "inet", "moved", "through", "ct", "state", "new",
                      "drop")

    def connect(self, version, address, port, source_port=0):
        listener = self.server.socket(FAMILY[version], socket.SOCK_STREAM,
                                      bind=(SERVER[version], 8080),
                                      options=[(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)])
        listener.listen(1)
        listener.settimeout(lab.ANSWER_S)
        one = self.client.socket(FAMILY[version], socket.SOCK_STREAM,
                                 bind=(CLIENT[version], source_port))
        one.settimeout(lab.ANSWER_S)
        one.connect((address, port))
        other = listener.accept()[0]
        other.settimeout(lab.ANSWER_S)
        listener.close()
        self.net.sockets += [one, other]
        return one, other

    def udp(self, version, port=53, protocol=0):
        """A client's socket, and what the server has of it: its socket and where to answer."""
        server = self.server.socket(FAMILY[version], socket.SOCK_DGRAM, protocol,
                                    bind=(SERVER[version], 5353))
        one = self.client.socket(FAMILY[version], socket.SOCK_DGRAM, protocol,
                                 bind=(CLIENT[version], 0))
        for each in (one, server):
            each.settimeout(lab.ANSWER_S)
        one.connect((OUT[version], port))
        self.net.sockets += [one, server]
        return one, server

    def events(self, name):
        answer = self.drivers[name].must(f"events {QUIET_MS}")
        if answer["lost"]:
            raise RuntimeError("events were lost")
        return answer["flows"]

    def dump(self, name):
        return self.drivers[name].must("dump")["flows"]


class Store(dict):
    """What the events of a director say, as records: {key: value}, and the flow beside it."""

    def take(self, events):
        for flow in events:
            if flow["change"] == "gone":
                self.pop(flow["key"], None)
            else:
                self[flow["key"]] = flow
        return self

    def records(self):
        return " ".join(f"{key}:{flow['value']}" for key, flow in self.items())


def stream(source, sink, times=1):
    """Sends random bytes, all of them so many times; whether the very same arrive."""
    sent = os.urandom(CARRIED) * times
    sender = threading.Thread(target=lambda: quiet(lambda: source.sendall(sent)))
    sender.start()
    got = hashlib.sha256()
    left = len(sent)
    try:
        while left > 0:
            piece = sink.recv(min(left, 65536))
            if not piece:
                break
            got.update(piece)
            left -= len(piece)
    except OSError:
        pass
    sender.join(lab.ANSWER_S)
    return left == 0 and got.digest() == hashlib.sha256(sent).digest()


def quiet(action):
    try:
        action()
    except OSError:
        pass


def both_ways(pair):
    return stream(pair[0], pair[1]) and stream(pair[1], pair[0])


def talks(pair):
    """Whether a datagram goes there and its answer comes back."""
    one, server = pair
    try:
        one.send(b"question")
        data, where = server.recvfrom(100)
        server.sendto(data + b" answered", where)
        return one.recv(100) == b"question answered"
    except OSError:
        return False


class Ping:
    def __init__(self, field, version):
        self.version = version
        self.socket = field.client.socket(FAMILY[version], socket.SOCK_RAW, ICMP[version],
                                          bind=(CLIENT[version], 0))
        self.socket.settimeout(lab.ANSWER_S)
        self.number = 0
        field.net.sockets.append(self.socket)

    def answered(self):
        self.number += 1
        request, reply = (8, 0) if self.version == 4 else (128, 129)
        head = struct.pack("!BBHHH", request, 0, 0, 777, self.number)
        if self.version == 4:
            total = sum(struct.unpack("!4H", head))
            head = struct.pack("!BBHHH", request, 0, ~((total & 0xffff) + (total >> 16)) & 0xffff,
                               777, self.number)
        wanted = struct.pack("!HH", 777, self.number)
        end = time.monotonic() + lab.ANSWER_S / 2
        try:
            self.socket.sendto(head, (OUT[self.version], 0))
            while time.monotonic() < end:
                data, where = self.socket.recvfrom(200)
                data = data[20:] if self.version == 4 else data
                if data[0] == reply and data[4:8] == wanted:
                    return where[0] == OUT[self.version]
        except OSError:
            pass
        return False
