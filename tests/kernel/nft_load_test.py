# SPDX-License-Identifier: GPL-2.0-or-later
"""New connections, counted by block: only those that this node accepts, whatever becomes of its
blocks."""
import struct
import time

import golden_packets
import lab
from golden_packets import CLIENTS, SCTP, SERVERS, TCP, UDP

MAC = "02:00:00:00:00:01"
SYN, SYN_ACK, ACK, FIN, RST = 0x02, 0x12, 0x10, 0x01, 0x04
INIT, COOKIE_ECHO = 1, 10


class Wire:
    """Raw packets to a node whose table stands; no address is on any interface."""

    def __init__(self, net, *options):
        self.node, self.sender = net.space("n1"), net.space("s")
        self.sender.ip("link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns",
                       self.node.name)
        self.node.ip("link", "set", "e0", "address", MAC, "up")
        self.sender.ip("link", "set", "e0", "up")
        self.socket = self.sender.packet_socket("e0", 0)
        net.sockets.append(self.socket)
        self.net, self.options = net, options
        self.driver = lab.Driver(net, self.node, *options, *(
            word for pair in SERVERS.values() for one in pair for word in ("--address", one)))
        self.driver.must("open")

    def send(self, version, protocol, payload, client=0, server=0):
        packet = golden_packets.ip(version, CLIENTS[version][client], SERVERS[version][server],
                                   protocol, payload)
        head = bytes.fromhex(MAC.replace(":", "")) + bytes.fromhex("02000000ff01")
        self.socket.send(head + (b"\x08\0" if version == 4 else b"\x86\xdd") + packet)

    def tcp(self, port, flags, version=4, **more):
        self.send(version, TCP, struct.pack("!HHIIBBHHH", port, 80, 1, 1, 0x50, flags, 1000, 0, 0),
                  **more)

    def sctp(self, port, chunk, version=4):
        self.send(version, SCTP, struct.pack("!HHIIBBH", port, 80, 0, 0, chunk, 0, 4))

    def loads(self, wanted):
        """{block: count} without the zeros; waits until it is as wanted, but not for ever."""
        end = time.monotonic() + lab.ANSWER_S / 5
        while True:
            counted = self.driver.must("loads")["value"]
            got = {block: count for block, count in enumerate(counted) if count}
            if got == wanted or time.monotonic() > end:
                return got
            time.sleep(0.02)


def counts(net, tap, *options):
    """SYN alone and INIT count for their block, and nothing else does"""
    wire = Wire(net, *options)
    wire.driver.must("apply even 60000")
    for version in (4, 6):
        for flags in (SYN, SYN | 0xc0, SYN_ACK, ACK, FIN | ACK, RST, SYN | FIN, SYN | RST, 0):
            wire.tcp(1000, flags, version)  # block 7: another node's
            wire.tcp(1024, flags, version)  # block 8
        wire.tcp(1024 + 127, SYN, version)
        wire.sctp(65408, COOKIE_ECHO, version)
        wire.sctp(65408 - 128, INIT, version)  # block 510
        wire.send(version, UDP, golden_packets.transport(UDP, 1024, 80))
    wanted = {8: 6, 510: 2}  # SYN with ECN is one, too
    got = wire.loads(wanted)
    tap.check(got == wanted, f"{wanted}", got)
    wire.driver.must("apply none")
    wire.tcp(1024, SYN)
    wire.driver.must("apply 8 1")
    time.sleep(0.05)
    wire.tcp(1024, SYN)
    time.sleep(lab.SILENCE_S)
    got = wire.loads(wanted)
    tap.check(got == wanted, "not while the address is closed, nor when the lease has run out", got)


def counts_twins(net, tap):
    """The same where a second copy of the tables protects them"""
    counts(net, tap, "--twins")


def survives(net, tap):
    """Moves, repairs and another address list go on counting; other blocks begin anew"""
    wire = Wire(net)
    wire.driver.must("apply 0-9 60000")
    for port in (0, 128, 129, 130):
        wire.tcp(port, SYN)
    wanted = {0: 1, 1: 3}
    tap.check(wire.loads(wanted) == wanted, "counted", wire.loads(wanted))
    wire.driver.must("apply 5-9 60000")
    wire.driver.must("apply 0-5 60000")
    wire.tcp(128, SYN)
    wanted[1] += 1
    got = wire.loads(wanted)
    tap.check(got == wanted, "blocks that went and came back go on", got)
    words = wire.driver.must("verify")["value"]
    tap.check(words == [], "counters are no disturbance", words)
    wire.driver.must("rebuild 0-5 60000")
    wire.driver.must(f"reconfigure 0-5 60000 --address {SERVERS[4][0]}")
    wire.tcp(130, SYN)
    wanted[1] += 1
    got = wire.loads(wanted)
    tap.check(got == wanted, "a rebuilt table goes on", got)
    listing = wire.node.exec("nft", "list", "set", "inet", "saru_1", "load")
    tap.check("128 counter packets 5 bytes" in listing, "nft shows them", listing[:300])
    wire.driver.must("reconfigure 0-5 60000 --selector src-addr")
    tap.check(wire.loads({}) == {}, "other selectors begin anew", wire.loads({}))


def flushed(net, tap):
    """After somebody's flush the count goes on from where it was last read"""
    wire = Wire(net, "--plain")
    wire.driver.must("apply 0-9 60000")
    wire.tcp(128, SYN)
    tap.check(wire.loads({1: 1}) == {1: 1}, "counted")
    wire.node.exec("nft", "flush", "ruleset")
    wire.driver.must("apply 0-9 60000")
    wire.tcp(128, SYN)
    got = wire.loads({1: 2})
    tap.check(got == {1: 2}, "goes on", got)


def selectors(net, tap):
    """Every selector counts where it decides"""
    for i, selection in enumerate(golden_packets.SELECTIONS[:5]):
        wire = Wire(net) if i == 0 else wire
        wire.driver.must(f"reconfigure all 60000 --selector {selection.selector} "
                         f"--seed {selection.seed}")
        wanted = {}
        for version in (4, 6):
            for client, server, port in ((0, 0, 40123), (1, 1, 99), (2, 0, 65535)):
                segment = struct.pack("!HHIIBBHHH", port, 80, 1, 1, 0x50, SYN, 1000, 0, 0)
                packet = golden_packets.ip(version, CLIENTS[version][client],
                                           SERVERS[version][server], TCP, segment)
                block = golden_packets.value(packet, selection) // lab.BLOCK_SIZE
                wanted[block] = wanted.get(block, 0) + 1
                wire.send(version, TCP, segment, client, server)
        got = wire.loads(wanted)
        tap.check(got == wanted, selection.selector, f"{got} instead of {wanted}")


if __name__ == "__main__":
    lab.main(counts, counts_twins, survives, flushed, selectors)
