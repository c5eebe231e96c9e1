# SPDX-License-Identifier: GPL-2.0-or-later
"""Which selector value has a packet? The second opinion.

Written from the words of the design alone (ARCHITECTURE.md, "The block of a packet") and from the
RFCs; shares no line with kmod/saru_block.h, whose answers the tests hold against these.

    value(packet, selection) -> 0..65535, "nobody" or "all"
"""
import ipaddress
import struct

NOBODY, ALL = "nobody", "all"
PORTED = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}


def jhash(data, seed):
    """Bob Jenkins' lookup3 (hashlittle), with the start value that Linux uses: 0xdeadbeef."""
    mask = 0xffffffff

    def rol(x, n):
        return ((x << n) | (x >> (32 - n))) & mask

    a = b = c = (0xdeadbeef + len(data) + seed) & mask
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for n, which in zip((4, 6, 8, 16, 19, 4), "abcabc"):
            if which == "a":
                a = ((a - c) & mask) ^ rol(c, n)
                c = (c + b) & mask
            elif which == "b":
                b = ((b - a) & mask) ^ rol(a, n)
                a = (a + c) & mask
            else:
                c = ((c - b) & mask) ^ rol(b, n)
                b = (b + a) & mask
        data = data[12:]
    x, y, z = struct.unpack("<III", data + bytes(12 - len(data)))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for n, which in zip((14, 11, 25, 16, 4, 14, 24), "cabcabc"):
        if which == "c":
            c = ((c ^ b) - rol(b, n)) & mask
        elif which == "a":
            a = ((a ^ c) - rol(c, n)) & mask
        else:
            b = ((b ^ a) - rol(a, n)) & mask
    return c


class Selection:
    """selector, seed, and services in the words of the option `services`."""

    def __init__(self, selector, seed=0, services=""):
        self.selector, self.seed, self.text = selector, seed, services
        self.services = []
        for part in filter(None, (one.strip() for one in services.split(","))):
            where, by = part.split(" by ")
            where, _, protocol = where.partition("/")
            address, _, port = where.rpartition(":")
            self.services.append((ipaddress.ip_address(address.strip("[]")) if address else None,
                                  PORTED.get(protocol), int(port), by))
        # An address is more special than a protocol, and that than a port alone.
        self.services.sort(key=lambda one: (one[0] is None, one[1] is None))

    def selector_for(self, protocol, server, server_port):
        for address, only, port, by in self.services:
            if (address in (None, server) and only in (None, protocol) and
                    port == server_port is not None):
                return by
        return self.selector


def part(data, at, size):
    """Some bytes as a number; None where there are none."""
    return int.from_bytes(data[at:at + size], "big") if len(data) >= at + size else None


def address(data, at, size):
    return ipaddress.ip_address(data[at:at + size]) if len(data) >= at + size else None


def connection_value(selection, protocol, client, client_port, server, server_port):
    by = selection.selector_for(protocol, server, server_port)
    low = {"src-addr": client, "dst-addr": server}
    if by in low:
        return NOBODY if low[by] is None else int(low[by]) & 0xffff
    if by == "src-addr-port":
        if client is None or client_port is None:
            return NOBODY
        return jhash(client.packed + struct.pack("!HH", client_port, 0), selection.seed) >> 16
    port = {"src-port": client_port, "dst-port": server_port}[by]
    return NOBODY if port is None else port


def quoted_value(quoted, version, selection):
    """By the packet that an error quotes; None where that does not count."""
    if version == 4:
        head, size, places = 20, 4, (12, 16)
        fragment, protocol = part(quoted, 6, 2), part(quoted, 9, 1)
        if part(quoted, 0, 1) != 0x45 or fragment is None or fragment & 0x1fff:
            return None
    else:
        head, size, places = 40, 16, (8, 24)
        protocol = part(quoted, 6, 1)
        if (part(quoted, 0, 1) or 0) >> 4 != 6:
            return None
    if protocol not in PORTED.values():
        return None
    # We sent it: its source is the service, its destination the client.
    server, client = (address(quoted, at, size) for at in places)
    return connection_value(selection, protocol, client, part(quoted, head + 2, 2), server,
                            part(quoted, head, 2))


def behind_extensions(packet):
    """Next header and place of what comes behind an IPv6 header's extensions."""
    protocol, at = packet[6], 40
    while protocol in (0, 43, 44, 60):
        if len(packet) < at + (4 if protocol in (43, 44) else 2):
            return None, at
        if protocol == 44 and part(packet, at + 2, 2) >> 3:
            return None, at  # a later fragment
        length = 8 if protocol == 44 else 8 + 8 * packet[at + 1]
        protocol, at = packet[at], at + length
    return protocol, at


def value(packet, selection):
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        head, length = (packet[0] & 15) * 4, part(packet, 2, 2)
        if head < 20 or length < head or length > len(packet) or part(packet, 6, 2) & 0x1fff:
            return NOBODY
        packet = packet[:length]
        source, target = address(packet, 12, 4), address(packet, 16, 4)
        protocol, at = packet[9], head
        icmp, queries, errors, everywhere = 1, (0, 8, 13, 14), (3, 11, 12), ()
    elif version == 6 and len(packet) >= 40:
        if 40 + part(packet, 4, 2) > len(packet):
            return NOBODY
        if packet[4:7] != b"\0\0\0":  # else hop-by-hop options without a length: a jumbogram
            packet = packet[:40 + part(packet, 4, 2)]
        source, target = address(packet, 8, 16), address(packet, 24, 16)
        protocol, at = behind_extensions(packet)
        icmp, queries, errors, everywhere = 58, (128, 129), (1, 2, 3, 4), (135, 136)
    else:
        return NOBODY
    if protocol in PORTED.values():
        return connection_value(selection, protocol, source, part(packet, at, 2), target,
                                part(packet, at + 2, 2))
    kind = part(packet, at, 1)
    if protocol != icmp or kind is None:
        return NOBODY
    if kind in everywhere:
        return ALL
    if kind not in queries + errors:
        return NOBODY
    by_quoted = quoted_value(packet[at + 8:], version, selection) if kind in errors else None
    return int(source) & 0xffff if by_quoted is None else by_quoted
