# SPDX-License-Identifier: GPL-2.0-or-later
"""Two directors with an inside, each with tables of its own: what clients and hosts exchange
through them is forwarded once, by the node of its block, with NAT and without. See inside_lab.py.
"""
import select
import signal
import socket
import struct
import threading
import time

import lab
from inside_lab import GATEWAY, HOST, INSIDE_MAC, SHARED, director, make_inside
from lab import ANSWER_S, SHARED_MAC, V4, V6

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


def directors(net, count, own_addresses=True, options=()):
    """Nodes that route between both networks and send what comes to port 7 to the host inside."""
    host, pairs = make_inside(net), []
    for number in range(1, count + 1):
        node, driver = director(net, number, *options, own_addresses=own_addresses)
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


def renamed(net, tap):
    """A link that somebody calls otherwise lets nothing through that is another node's"""
    host, pairs = directors(net, 2)
    owning(pairs, "none", "all")
    node = pairs[0][0]
    sniffers = sniff(net, net.client), sniff(net, host)
    for link, name in (("saru1i", "in"), ("saru1", "out")):
        node.ip("link", "set", link, "down")
        node.ip("link", "set", link, "name", name)
        node.ip("link", "set", name, "up")
    for version in (4, 6):
        client = CLIENT[version][0]
        for sniffer, space, source, target, inside in (
                (sniffers[0], host, HOST[version], client, True),
                (sniffers[1], net.client, client, HOST[version], False)):
            owner, macs = f"02:00:00:00:0{int(not inside)}:02", set()
            end = time.monotonic() + ANSWER_S
            while owner not in macs and time.monotonic() < end:  # until the neighbours are known
                datagrams(space, version, source, target, inside)
                macs |= {mac for mac, ip, _ in heard(sniffer) if ip == source}
            datagrams(space, version, source, target, inside)
            macs |= {mac for mac, ip, _ in heard(sniffer) if ip == source}
            tap.check(macs == {owner},
                      f"IPv{version} from {'inside' if inside else 'outside'}: the owner's alone",
                      macs)


def abandoned(net, tap):
    """A dead daemon and no rules: once the addresses have run out, nothing is forwarded (IPv4)"""
    host, pairs = directors(net, 2, options=("--plain",))
    owning(pairs, "all", "none")
    node, driver = pairs[1]
    client_hears, host_hears = sniff(net, net.client), sniff(net, host)
    driver.must("renew 2")
    driver.must("inside-renew 2")
    driver.end(signal.SIGKILL)
    node.exec("nft", "delete", "table", "inet", "saru_1")

    def forwarders():
        datagrams(host, 4, HOST[4], CLIENT[4][0], True)
        datagrams(net.client, 4, CLIENT[4][0], HOST[4], False)
        return ({mac for mac, ip, _ in heard(client_hears) if ip == HOST[4]} |
                {mac for mac, ip, _ in heard(host_hears) if ip == CLIENT[4][0]})

    end = time.monotonic() + ANSWER_S
    while f"{V4}/32" in (there := node.ip("addr")) or f"{GATEWAY[4]}/32" in there:
        if time.monotonic() > end:
            raise RuntimeError("the addresses do not run out")
        time.sleep(0.1)
    forwarders()
    macs = forwarders()
    tap.check(macs == {"02:00:00:00:00:01", "02:00:00:00:01:01"}, "only the other node forwards",
              macs)


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
    lab.main(translated, routed, renamed, abandoned, hidden, hidden_without_own)
