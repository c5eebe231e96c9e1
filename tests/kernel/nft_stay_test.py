# SPDX-License-Identifier: GPL-2.0-or-later
"""Established TCP stays where it is while its block moves: two nodes, their real conntrack, one
client. "Before" n1 owns the block; "after" it lingers there and is contested at n2."""
import json
import os
import socket
import struct
import threading
import time

import lab
from lab import V4, V6, received

CLIENTS = {V4: "10.9.0.100", V6: "fd09::64"}
BLOCK, PORT = 80, 80 * lab.BLOCK_SIZE + 5  # by src-port
FIN, SYN, RST, ACK = 1, 2, 4, 16
HERE = os.path.dirname(os.path.realpath(__file__))


class Echo:
    """Answers each piece of data with the name of its node and the data."""

    def __init__(self, net, node, target):
        self.node = node
        self.listener = net.server(node, socket.SOCK_STREAM, target)
        self.taken = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                one = self.listener.accept()[0]
            except OSError:
                return
            self.taken.append(one)
            threading.Thread(target=self.serve, args=(one,), daemon=True).start()

    def serve(self, one):
        try:
            while data := one.recv(65536):
                one.sendall(self.node.name[-2:].encode() + b" " + data)
            one.close()
        except OSError:
            pass

    def close(self):
        """From the server's side, so that TIME_WAIT is there."""
        for one in self.taken:
            one.shutdown(socket.SHUT_WR)


class Pair:
    """Two nodes with the same addresses, and what moves between them."""

    def __init__(self, net, *options, target=V4, loose=1):
        self.net, self.target = net, target
        self.nodes = [net.node(1), net.node(2)]
        self.drivers = [net.driver(node, "--stays", *options) for node in self.nodes]
        for node, driver in zip(self.nodes, self.drivers):
            driver.must("open")
            driver.must("link 60")
            node.sysctl("net.netfilter.nf_conntrack_tcp_loose", loose)
        self.echoes = [Echo(net, node, target) for node in self.nodes]
        net.client.ip("neigh", "replace", target, "lladdr", lab.SHARED_MAC, "dev", "e0", "nud",
                      "permanent")

    def before(self):
        self.drivers[1].must("apply none 60000")
        self.drivers[0].must("apply all 60000")

    def move(self, contested=True, lingers=True):
        """The order of a planned move: release, then acquire."""
        self.drivers[0].must(f"apply none 60000 {'all' if lingers else 'none'}")
        self.drivers[1].must(f"apply all 60000 none {'all' if contested else 'none'}")

    def connect(self, port=PORT, wait_s=lab.ANSWER_S):
        family = socket.AF_INET6 if ":" in self.target else socket.AF_INET
        one = self.net.client.socket(family, socket.SOCK_STREAM, bind=(CLIENTS[self.target], port),
                                     options=[(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)])
        self.net.sockets.append(one)
        one.settimeout(wait_s)
        one.connect((self.target, 7))
        return one

    def known(self):
        """What conntrack knows at n1 and n2: {block: number of connections}."""
        return [driver.must("connections")["connections"] for driver in self.drivers]


def who(connection, text=b"x"):
    """The node that answers on this connection; None: nobody, or it is broken."""
    try:
        connection.sendall(text)
        answer = connection.recv(65536)
        while answer and not answer.endswith(text):  # what was asked before comes first
            answer += connection.recv(65536)
        return answer.split()[0].decode() if answer else None
    except OSError:
        return None


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


class Wire:
    """TCP segments to and from V4 that no socket of the client knows of, and its kernel does not
    reset."""

    def __init__(self, net):
        self.net = net
        self.packets = net.client.packet_socket("e0")
        net.sockets.append(self.packets)
        net.client.exec("nft", "add table inet raw; add chain inet raw out "
                        "{ type filter hook output priority 0; }; "
                        "add rule inet raw out tcp dport 7 tcp flags rst drop")

    def send(self, flags, seq=1, ack=1):
        source, target = socket.inet_aton(CLIENTS[V4]), socket.inet_aton(V4)
        tcp = struct.pack("!HHIIBBHHH", PORT, 7, seq, ack, 5 << 4, flags, 1000, 0, 0)
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, source, target)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        mac = bytes.fromhex(lab.SHARED_MAC.replace(":", "") + "020000000064") + b"\x08\x00"
        self.packets.send(mac + ip + tcp)

    def answers(self, wait_s, count=0):
        """[(number of the node, flags, sequence)] of what comes back; of `count`, no more."""
        found, end = [], time.monotonic() + wait_s
        while (left := end - time.monotonic()) > 0 and (len(found) < count or count == 0):
            frame = received(self.packets, left)
            if frame is None:
                break
            is_tcp = frame[12:14] == b"\x08\x00" and frame[23] == 6
            if not is_tcp or frame[26:30] != socket.inet_aton(V4):
                continue
            port, sequence = struct.unpack("!HI", frame[36:42])
            if port == PORT:
                found.append((frame[11], frame[47] & 0x17, sequence))
        return found

    def told(self, wait_s):
        """{(number of the node, flags)}"""
        return {one[:2] for one in self.answers(wait_s)}


def listing(net, tap):
    """nft lists the table as in golden/"""
    node = net.node()
    driver = net.driver(node, "--blocks", "16", "--stays")
    driver.must("open")
    driver.must("apply 0-2,15 60000 3-4 2")
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() finds no difference", words)
    read = driver.must("read")
    held = {name: read[name] for name in ("owned", "lingering", "contested")}
    tap.check(held == {"owned": "0-2,15", "lingering": "3-4", "contested": "2"}, "read back", held)
    text = lab.normalized(node.exec("nft", "list", "table", "inet", "saru_1"))
    path = os.path.join(HERE, "golden", "inet_stay.txt")
    if os.environ.get("SARU_UPDATE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        tap.check(file.read() == text, "listed as in golden/inet_stay.txt", text)


def stays(net, tap, what, *options, target=V4, port=PORT, other=PORT + 1):
    pair = Pair(net, *options, target=target)
    pair.before()
    held = pair.connect(port)
    tap.check(who(held) == "n1", f"{what}: n1 answers before")
    pair.move()
    answers = {who(held) for _ in range(20)}
    tap.check(answers == {"n1"}, f"{what}: what is established stays at n1", answers)
    tap.check(who(pair.connect(other)) == "n2", f"{what}: what begins is n2's")
    pair.drivers[1].must("apply none 60000 all")
    pair.drivers[0].must("apply all 60000 none all")
    tap.check(who(held) == "n1" and who(pair.connect(other + 1)) == "n1",
              f"{what}: back again, what is established and what begins are n1's")


def established_v4(net, tap):
    """A connection goes on at n1, new ones begin at n2; and back"""
    stays(net, tap, "src-port")


def established_v6(net, tap):
    """The same over IPv6"""
    stays(net, tap, "IPv6", target=V6)


def established_by_address(net, tap):
    """The same where a client's address decides"""
    stays(net, tap, "src-addr", "--selector", "src-addr")


def established_by_hash(net, tap):
    """The same by a hash, over IPv6, of one service"""
    stays(net, tap, "service", "--services", "7/tcp by src-addr-port", target=V6)


def twins(net, tap):
    """The same where a second copy of the tables protects them"""
    stays(net, tap, "twins", "--twins")


def own_access(net, tap):
    """The node's own access to its address, while everything lingers"""
    pair = Pair(net)
    pair.before()
    pair.move()
    one = pair.nodes[0].socket(socket.AF_INET, socket.SOCK_STREAM)
    net.sockets.append(one)
    one.settimeout(lab.ANSWER_S)
    one.connect((V4, 7))
    tap.check(who(one) == "n1", "n1 itself reaches its service")
    tap.check(pair.known() == [{}, {}], "which holds no block", pair.known())


def aborted(net, tap):
    """A server that is gone: the client is told so, though its block lingers"""
    pair = Pair(net)
    pair.before()
    held = pair.connect()
    who(held)
    pair.move()
    server = pair.echoes[0].taken[0]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    time.sleep(0.2)
    told = None
    for _ in range(5):
        try:
            held.sendall(b"more")
            time.sleep(0.2)
        except OSError as error:
            told = error
            break
    tap.check(isinstance(told, (ConnectionResetError, BrokenPipeError)), "it is reset", told)


def half_open(net, tap):
    """A SYN-ACK that was lost: after the move n2 answers the next SYN, n1 nothing more"""
    pair = Pair(net)
    pair.before()
    wire = Wire(net)
    wire.send(SYN)
    tap.check(wire.told(0.3) == {(1, SYN | ACK)}, "n1 has begun with it")
    pair.move()
    wire.send(SYN)
    got = wire.told(3.5)  # n1 would repeat its own after 1 s and 3 s
    tap.check(got == {(2, SYN | ACK)}, "only n2 answers SYN with SYN-ACK, time and again", got)


def strays(net, tap, loose=1):
    """ACKs that belong to nobody: no RST while contested, one RST after, no connection of them"""
    pair = Pair(net, loose=loose)
    pair.before()
    pair.move()
    wire = Wire(net)
    wire.send(ACK)
    got = wire.told(0.5)
    tap.check(got == set(), f"tcp_loose={loose}: contested, a stray gets no answer", got)
    tap.check(pair.known() == [{}, {}], f"tcp_loose={loose}: and becomes no connection",
              pair.known())
    pair.move(contested=False, lingers=False)
    wire.send(ACK)
    got = wire.told(0.5)
    tap.check(got == {(2, RST)}, f"tcp_loose={loose}: uncontested, n2 answers it with RST", got)


def strays_strictly(net, tap):
    """The same where conntrack picks nothing up"""
    strays(net, tap, loose=0)


def reused_port(net, tap):
    """What n1 has of a closed connection does not take the next one of the same port for its own"""
    pair = Pair(net)
    for node in pair.nodes:  # else sequence numbers tell the two apart
        node.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", 1)
    pair.before()
    wire = Wire(net)
    wire.send(SYN, 1000)
    first = wire.answers(1, 1)[0][2]
    wire.send(ACK, 1001, first + 1)
    time.sleep(0.2)
    pair.echoes[0].close()
    got = wire.told(0.3)
    tap.check(got == {(1, FIN | ACK)}, "n1 closes", got)
    wire.send(FIN | ACK, 1001, first + 2)
    wire.answers(0.2)
    pair.move()
    wire.send(SYN, 1010)  # in what n1 takes for the window of the first one
    begun = wire.answers(1, 1)
    tap.check([one[:2] for one in begun] == [(2, SYN | ACK)], "the next one is n2's", begun)
    wire.send(ACK, 1011, begun[0][2] + 1)
    got = wire.told(0.5)
    tap.check(1 not in {one[0] for one in got}, "n1 says nothing to it", got)


def counted(net, tap, *options, target=V4, block=BLOCK):
    """How many connections hold a block"""
    pair = Pair(net, *options, target=target)
    pair.before()
    held = [pair.connect(PORT + i) for i in range(3)]
    for one in held:
        who(one)
    tap.check(pair.known() == [{str(block): 3}, {}], "three hold their block at n1", pair.known())
    for one in held:
        one.close()
    time.sleep(0.3)
    tap.check(pair.known() == [{}, {}], "closed ones hold nothing", pair.known())


def counted_by_address(net, tap):
    """The same over IPv6, by the client's address"""
    counted(net, tap, "--selector", "src-addr", target=V6, block=100 // lab.BLOCK_SIZE)


def other_protocols(net, tap):
    """UDP moves at once"""
    pair = Pair(net)
    servers = [net.server(node, socket.SOCK_DGRAM, V4) for node in pair.nodes]
    pair.before()
    client = net.udp_from(CLIENTS[V4], PORT, V4)
    client.send(b"x")
    tap.check(received(servers[0], lab.ANSWER_S) is not None, "n1 has it before")
    pair.move()
    client.send(b"y")
    got = [received(server, lab.SILENCE_S) for server in servers]
    tap.check(got == [None, b"y"], "n2 alone has it after", got)


def errors(net, tap):
    """An ICMP error reaches the node whose connection it is about, and no other"""
    pair = Pair(net)
    pair.before()
    held = pair.connect()
    who(held)
    pair.move()
    source, target = socket.inet_aton(V4), socket.inet_aton(CLIENTS[V4])
    raw = net.client.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    net.sockets.append(raw)

    for port in (PORT, PORT + 1):
        quoted = struct.pack("!BBHHHBBH4s4sHHI", 0x45, 0, 1500, 0, 0x4000, 64, 6, 0, source, target,
                             7, port, 0)
        icmp = struct.pack("!BBHHH", 3, 4, 0, 0, 1000) + quoted
        icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
        before = [strays_at(node) for node in pair.nodes]
        raw.sendto(icmp, (V4, 0))
        time.sleep(0.1)
        dropped = [strays_at(node) - was for node, was in zip(pair.nodes, before)]
        wanted = [0, 1] if port == PORT else [1, 1]
        tap.check(dropped == wanted, f"about port {port}: dropped by n1, n2: {wanted}", dropped)


def strays_at(node):
    """Dropped by the table, or by its twin where there is one: what one drops the other never
    sees."""
    listed = json.loads(node.exec("nft", "-j", "list", "counters"))
    found = [item["counter"] for item in listed["nftables"] if "counter" in item]
    return sum(one["packets"] for one in found if one["name"] == "stray")


def lease_ends(net, tap):
    """What lingers ends with the lease"""
    pair = Pair(net)
    pair.before()
    held = pair.connect()
    who(held)
    pair.drivers[0].must("apply none 600 all")
    tap.check(who(held) == "n1", "under the lease it goes on")
    time.sleep(0.8)
    held.settimeout(0.5)
    tap.check(who(held) is None, "after it nothing comes through")
    pair.drivers[0].must("apply none 60000 all")
    held.settimeout(5)
    tap.check(who(held, b"again") == "n1", "under the next one it goes on")


if __name__ == "__main__":
    lab.main(listing, established_v4, established_v6, established_by_address, established_by_hash,
             twins, own_access, aborted, half_open, strays, strays_strictly, reused_port, counted,
             counted_by_address, other_protocols, errors, lease_ends)
