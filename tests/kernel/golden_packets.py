# SPDX-License-Identifier: GPL-2.0-or-later
"""The golden packets, made from a fixed recipe: ordinary ones, odd ones, hostile ones.

    python3 golden_packets.py > golden/packets.txt

One line per packet, fields separated by tabs:
  name      its number (IPv4 identification, IPv6 flow label) and what it is
  input     "ip" when the kernel's IP input refuses it before anyone is asked; else "-"
  answers   by selection (SELECTIONS, in this order): a selector value, "nobody" or "all"
  packet    the whole IP packet, hexadecimal
  frames    what is sent, where that is something else: fragments, or bytes behind the packet's end
"""
import itertools
import random
import socket
import struct
import sys

from reference import NOBODY, Selection, value

# At most 4 shared addresses: two of each family.
SERVERS = {4: ("10.9.0.1", "10.9.7.2"), 6: ("fd09::1", "fd09::7:2")}
CLIENTS = {4: ("10.9.0.100", "198.51.100.7", "203.0.113.255", "192.0.2.128"),
           6: ("fd09::64", "2001:db8::ffff:fffe", "2001:db8:1:2:3:4:5:6", "2001:db8::80")}
SELECTIONS = (
    Selection("src-port"),
    Selection("dst-port"),
    Selection("src-addr"),
    Selection("dst-addr"),
    Selection("src-addr-port", 0),
    Selection("src-addr-port", 0xfedcba98),
    Selection("src-port", 7, "443 by src-addr, 53/udp by src-addr-port, 10.9.0.1:80 by dst-addr, "
                             "[fd09::1]:80/tcp by dst-port"),
    Selection("src-addr-port", 4294967295, "443/tcp by dst-port, [fd09::7:2]:443 by src-addr, "
                                           "10.9.7.2:5000/sctp by src-port, 80 by src-addr"),
)
TCP, UDP, UDPLITE, DCCP, SCTP, ICMP, ICMPV6 = 6, 17, 136, 33, 132, 1, 58
NAMES = {TCP: "tcp", UDP: "udp", UDPLITE: "udplite", DCCP: "dccp", SCTP: "sctp"}
HOPS, ROUTING, FRAGMENT, AUTH, DEST = 0, 43, 44, 51, 60
VERSIONS = (4, 6)
PORTS = ((0, 80), (1, 65535), (127, 443), (128, 443), (40123, 53), (65535, 80), (61440, 5000))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ip4(source, target, protocol, payload, ident=0, options=b"", fragment=0, length=None,
        first=None, bad_sum=0):
    head = struct.pack("!BBHHHBBH4s4s", first or 0x45 + len(options) // 4, 0,
                       20 + len(options) + len(payload) if length is None else length, ident,
                       fragment, 64, protocol, 0, packed(source), packed(target)) + options
    return head[:10] + struct.pack("!H", checksum(head) ^ bad_sum) + head[12:] + payload


def ip6(source, target, protocol, payload, ident=0, length=None, first=6):
    return struct.pack("!IHBB16s16s", first << 28 | ident,
                       len(payload) if length is None else length, protocol, 64, packed(source),
                       packed(target)) + payload


def ip(version, source, target, protocol, payload, ident=0):
    return (ip4 if version == 4 else ip6)(source, target, protocol, payload, ident)


def transport(protocol, source, target, more=b"data"):
    ports = struct.pack("!HH", source, target)
    if protocol == TCP:
        return ports + struct.pack("!IIBBHHH", 1, 1, 0x50, 0x10, 1000, 0, 0) + more
    if protocol in (UDP, UDPLITE):
        return ports + struct.pack("!HH", 8 + len(more), 0) + more
    if protocol == SCTP:  # a COOKIE ECHO
        return ports + struct.pack("!IIBBH", 77, 0, 10, 0, 8) + b"cook" + more
    return ports + struct.pack("!BBHII", 4, 0, 0, 0, 1) + more


def icmp(kind, code=0, rest=b"\0\0\0\1", more=b"", zero=0):
    message = struct.pack("!BBH", kind, code, zero) + rest + more
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def extension(following, kind=1, blocks=0, body=None):
    """One IPv6 extension header of 8 * (blocks + 1) bytes: padding, unless given."""
    size = 8 * (blocks + 1) - 2
    body = bytes([kind, size - 2]) + bytes(size - 2) if body is None else body
    return bytes([following, blocks]) + body


class Maker:
    """Collects packets; every one has its number inside."""

    def __init__(self):
        self.lines, self.random = [], random.Random(3)

    def add(self, name, make, frames=None, ip_input=False, fate=None):
        """make(number) -> packet; frames(packet, number) -> what is sent. `fate`: the answer of
        all selections, where the packet never comes together."""
        number = len(self.lines) + 1
        packet = make(number)
        sent = frames(packet, number) if frames else [packet]
        answers = [fate or str(value(packet, selection)) for selection in SELECTIONS]
        if ip_input:
            answers = [NOBODY] * len(SELECTIONS)
        self.lines.append("\t".join((
            f"{number} {name}", "ip" if ip_input else "-", ",".join(answers), packet.hex(),
            "=" if sent == [packet] else ",".join(one.hex() for one in sent))))

    def plain(self, name, version, protocol, payload, source=None, target=None, **more):
        source = source or CLIENTS[version][0]
        target = target or SERVERS[version][0]
        self.add(f"v{version} {name}",
                 lambda n: ip(version, source, target, protocol, payload, n), **more)


def ordinary(m):
    """Every protocol with ports, every edge of ports and addresses."""
    for version, (protocol, name) in itertools.product(VERSIONS, NAMES.items()):
        for i, (source_port, port) in enumerate(PORTS):
            for server in SERVERS[version]:
                client = CLIENTS[version][i % 4]
                m.plain(f"{name} {client} {source_port} > {server} {port}", version, protocol,
                        transport(protocol, source_port, port), client, server)
    for version, flags in itertools.product(VERSIONS, (0x02, 0x12, 0x11, 0x14, 0x00, 0xff, 0xc2)):
        segment = struct.pack("!HHIIBBHHH", 2000 + flags, 80, 1, 1, 0x50, flags, 1000, 0, 0)
        m.plain(f"tcp flags {flags:#x}", version, TCP, segment)


def queries(m):
    for version, kinds, protocol in ((4, (0, 8, 13, 14), ICMP), (6, (128, 129), ICMPV6)):
        for kind, client in itertools.product(kinds, CLIENTS[version]):
            m.plain(f"icmp query {kind} from {client}", version, protocol, icmp(kind), client,
                    SERVERS[version][kind % 2])
    for kind in (1, 2, 4, 5, 6, 7, 9, 10, 15, 16, 17, 18, 30, 40, 42, 43, 128, 129, 255):
        m.plain(f"icmp {kind}: nobody", 4, ICMP, icmp(kind))
    for kind in (0, 5, 100, 127, 130, 131, 132, 133, 134, 137, 138, 139, 140, 143, 160, 200, 255):
        m.plain(f"icmpv6 {kind}: nobody", 6, ICMPV6, icmp(kind))
    for kind in (135, 136):
        m.plain(f"neighbour {kind}: every node", 6, ICMPV6, icmp(kind, more=packed("fd09::1")))
    m.plain("icmpv6 in IPv4: nobody", 4, ICMPV6, icmp(128))
    m.plain("icmp in IPv6: nobody", 6, ICMP, icmp(8))


def quote(version, protocol, source_port, port, server=0, client=1, **more):
    """A packet that we sent to a client, as an error quotes it."""
    make = ip4 if version == 4 else ip6
    return make(SERVERS[version][server], CLIENTS[version][client], protocol,
                transport(protocol, source_port, port, b"")[:8], **more)


def error(m, version, name, quoted, kind=None, source=2, server=0):
    kind = kind or (3 if version == 4 else 2)
    m.plain(f"error {kind} {name}", version, ICMP if version == 4 else ICMPV6,
            icmp(kind, 4 if kind == 3 else 0, b"\0\0\5\xdc", quoted), CLIENTS[version][source],
            SERVERS[version][server])


def errors(m):
    for version in VERSIONS:
        kinds = (3, 11, 12) if version == 4 else (1, 2, 3, 4)
        for i, (protocol, (port, source_port)) in enumerate(itertools.product(NAMES, PORTS)):
            error(m, version, f"quotes {NAMES[protocol]} {source_port} > {port}",
                  quote(version, protocol, source_port, port, i % 2, i % 4),
                  kinds[i % len(kinds)], (i + 1) % 4, i % 2)
        for protocol in (1, 2, 47, 50, 51, 58, 89):
            error(m, version, f"quotes protocol {protocol}: by its sender",
                  quote(version, protocol, 80, 4711))
        error(m, version, "quotes another version: by its sender",
              quote(10 - version, TCP, 80, 4711))
        error(m, version, "quotes a packet that we never sent",
              quote(version, TCP, 80, 4711)[:20 if version == 4 else 8] +
              quote(version, TCP, 443, 4711)[20 if version == 4 else 8:])
        head = 20 if version == 4 else 40
        for size in (0, 1, 6, 7, 8, 9, 10, 12, 15, 16, 19, head, head + 1, head + 2, head + 3,
                     head + 4, head + 7):
            error(m, version, f"quotes {size} bytes only", quote(version, TCP, 443, 4711)[:size])
    for options in (b"\1\1\1\1", b"\x94\4\0\0", b"\7\x27\4" + bytes(37)):
        error(m, 4, "quotes IPv4 options: by its sender",
              quote(4, UDP, 443, 4711, options=options))
    for fragment in (0x100, 0x1fff, 0x3000, 0xa001):
        error(m, 4, "quotes a later fragment: by its sender",
              quote(4, UDP, 443, 4711, fragment=fragment))
    for fragment in (0x2000, 0x4000, 0x8000):
        error(m, 4, "quotes a first fragment, or one not to fragment",
              quote(4, UDP, 443, 4711, fragment=fragment))
    error(m, 4, "quotes a header of 16 bytes: by its sender", quote(4, TCP, 443, 4711, first=0x44))
    for following in (HOPS, ROUTING, FRAGMENT, AUTH, DEST):
        error(m, 6, f"quotes extension {following}: by its sender",
              ip6(SERVERS[6][0], CLIENTS[6][1], following,
                  extension(UDP) + transport(UDP, 443, 4711)))


def protocols(m):
    for protocol in (0, 2, 3, 4, 41, 46, 47, 50, 51, 89, 94, 103, 108, 112, 115, 137, 142, 253,
                     255):
        m.plain(f"protocol {protocol}: nobody", 4, protocol, transport(UDP, 4711, 443))
    for protocol in (2, 4, 41, 47, 50, 59, 89, 103, 112, 135, 137, 139, 140, 142, 253, 255):
        m.plain(f"next header {protocol}: nobody", 6, protocol, transport(UDP, 4711, 443))
    for version in VERSIONS:
        m.plain("authentication header: nobody", version, AUTH,
                struct.pack("!BBHII", TCP, 1, 0, 1, 1) + transport(TCP, 4711, 443))


def options(m):
    for what in (b"\1" * 4, b"\1" * 40, b"\x94\4\0\0", b"\7\x27\4" + bytes(37),
                 b"\x44\x0c\5\0" + bytes(8), b"\0" * 8, b"\x83\7\4\xc0\0\2\1\1",
                 b"\x07\xff\x00\x01", b"\xff\x00\x00\x00"):
        for protocol in (TCP, UDP, SCTP):
            m.add(f"v4 {NAMES[protocol]} with options {what[:4].hex()}..",
                  lambda n, o=what, p=protocol: ip4(CLIENTS[4][1], SERVERS[4][1], p,
                                                    transport(p, 4711, 443), n, o))
    m.add("v4 icmp query with options", lambda n: ip4(CLIENTS[4][1], SERVERS[4][1], ICMP, icmp(8),
                                                      n, b"\1\1\1\1"))
    m.add("v4 icmp error with options",
          lambda n: ip4(CLIENTS[4][2], SERVERS[4][0], ICMP,
                        icmp(3, 1, more=quote(4, TCP, 443, 4711)), n, b"\1\1\1\1"))


def chain(kinds, last, payload, blocks=0):
    """Extension headers in this order, then the payload."""
    following = list(kinds[1:]) + [last]
    made = b""
    for kind, after in zip(kinds, following):
        body = bytes([4 if kind == ROUTING else 1, 8 * (blocks + 1) - 4]) + bytes(
            8 * (blocks + 1) - 4)
        if kind == ROUTING:  # type 4, no segments left
            body = bytes([4, 0]) + bytes(8 * (blocks + 1) - 4)
        if kind == FRAGMENT:  # the whole packet in one fragment
            made += bytes([after, 0, 0, 0]) + b"\0\0\0\7"
        else:
            made += extension(after, 1, blocks, body)
    return (kinds[0] if kinds else last), made + payload


def extensions(m):
    client, server = CLIENTS[6][2], SERVERS[6][1]
    chains = ([HOPS], [DEST], [ROUTING], [HOPS, DEST], [HOPS, DEST, ROUTING], [ROUTING, DEST],
              [DEST, DEST, DEST], [HOPS] + [DEST] * 9, [FRAGMENT], [HOPS, FRAGMENT],
              [FRAGMENT, DEST], [DEST, FRAGMENT, DEST])
    for kinds, protocol in itertools.product(chains, (TCP, UDP, SCTP)):
        first, payload = chain(kinds, protocol, transport(protocol, 4711, 443))
        m.add(f"v6 {NAMES[protocol]} behind {kinds}",
              lambda n, f=first, p=payload: ip6(client, server, f, p, n))
    for kinds in ([HOPS], [DEST, ROUTING], [FRAGMENT]):
        for what, message in (("query", icmp(128)), ("neighbour", icmp(135)),
                              ("error", icmp(2, 0, b"\0\0\5\0", quote(6, UDP, 443, 4711)))):
            first, payload = chain(kinds, ICMPV6, message)
            m.add(f"v6 icmpv6 {what} behind {kinds}",
                  lambda n, f=first, p=payload: ip6(client, server, f, p, n))
    first, payload = chain([DEST], UDP, transport(UDP, 4711, 443), 30)
    m.add("v6 udp behind 248 bytes of options", lambda n: ip6(client, server, first, payload, n))
    for last in (59, AUTH, 50, 253):
        first, payload = chain([DEST], last, transport(UDP, 4711, 443))
        m.add(f"v6 {last} behind an extension: nobody",
              lambda n, f=first, p=payload: ip6(client, server, f, p, n))
    for kind, size in itertools.product((DEST, ROUTING, FRAGMENT), (0, 1, 2, 3, 4, 6, 7, 8, 10)):
        first, payload = chain([kind], UDP, transport(UDP, 4711, 443))
        m.add(f"v6 extension {kind} and udp, of which {size} bytes are there",
              lambda n, f=first, p=payload, s=size: ip6(client, server, f, p[:s], n))
    m.add("v6 extension longer than the packet",
          lambda n: ip6(client, server, DEST, bytes([UDP, 200]) + bytes(6), n))
    first, payload = chain([HOPS], UDP, transport(UDP, 4711, 443))
    m.add("v6 hop-by-hop without a length",
          lambda n: ip6(client, server, first, payload, n, length=0))
    m.add("v6 udp without a length",
          lambda n: ip6(client, server, UDP, transport(UDP, 4711, 443), n, length=0))


def truncated(m):
    """Packets that end within a header."""
    for version, protocol in itertools.product(VERSIONS, NAMES):
        for size in (0, 1, 2, 3, 4, 5, 8, 12, 13):
            m.plain(f"{NAMES[protocol]} of {size} bytes", version, protocol,
                    transport(protocol, 4711, 443)[:size], CLIENTS[version][1])
        # What follows the packet in its frame is no part of it, even if it would make good ports.
        for size in (0, 2):
            def padded(packet, _):
                return [packet + transport(UDP, 443, 443) + bytes(20)]
            m.plain(f"{NAMES[protocol]} of {size} bytes, then padding", version, protocol,
                    transport(protocol, 4711, 443)[:size], CLIENTS[version][1], frames=padded)
    for version, protocol in ((4, ICMP), (6, ICMPV6)):
        kind = 8 if version == 4 else 128
        for size in (0, 1, 4, 7):
            m.plain(f"query of {size} bytes", version, protocol, icmp(kind)[:size])
            m.plain(f"error of {size} bytes", version, protocol, icmp(3)[:size])


def refused(m):
    """What never comes as far as the rules."""
    c4, s4, c6, s6 = CLIENTS[4][0], SERVERS[4][0], CLIENTS[6][0], SERVERS[6][0]
    udp = transport(UDP, 4711, 443)
    for name, make in (
            ("v4 bad checksum", lambda n: ip4(c4, s4, UDP, udp, n, bad_sum=1)),
            ("v4 longer than the frame", lambda n: ip4(c4, s4, UDP, udp, n, length=1500)),
            ("v4 length within the header", lambda n: ip4(c4, s4, UDP, udp, n, length=16)),
            ("v4 header of 16 bytes", lambda n: ip4(c4, s4, UDP, udp, n, first=0x44)),
            ("v4 header longer than the packet",
             lambda n: ip4(c4, s4, UDP, udp, n, first=0x4f)),
            ("v4 that says version 6", lambda n: ip4(c4, s4, UDP, udp, n, first=0x65)),
            ("v6 longer than the frame", lambda n: ip6(c6, s6, UDP, udp, n, length=1400)),
            ("v6 from a multicast address", lambda n: ip6("ff02::1", s6, UDP, udp, n)),
            ("v6 from the loopback address", lambda n: ip6("::1", s6, UDP, udp, n)),
            ("v6 hop-by-hop option to refuse",
             lambda n: ip6(c6, s6, HOPS, extension(UDP, body=b"\xc2\4\0\0\0\0") + udp, n)),
            ("v6 hop-by-hop option beyond its header",
             lambda n: ip6(c6, s6, HOPS, extension(UDP, body=b"\1\x20\0\0\0\0") + udp, n))):
        m.add(name, make, ip_input=True)


# ---- Fragments -----------------------------------------------------------------------------------

def cut4(packet, number, size, more_last=False):
    """IPv4 fragments of so many payload bytes."""
    head = (packet[0] & 15) * 4
    source, target = (socket.inet_ntoa(packet[at:at + 4]) for at in (12, 16))
    payload, made = packet[head:], []
    for at in range(0, len(payload), size):
        last = at + size >= len(payload) and not more_last
        made.append(ip4(source, target, packet[9], payload[at:at + size], number, packet[20:head],
                        at // 8 | (0 if last else 0x2000)))
    return made


def cut6(packet, number, size, more_last=False, before=0):
    """IPv6 fragments; `before`: bytes of extension headers that each of them keeps."""
    source, target = (socket.inet_ntop(socket.AF_INET6, packet[at:at + 16]) for at in (8, 24))
    kept, payload, made = packet[40:40 + before], packet[40 + before:], []
    following = kept[0] if kept else packet[6]
    if kept:
        kept = bytes([FRAGMENT]) + kept[1:]
    for at in range(0, len(payload), size):
        last = at + size >= len(payload) and not more_last
        head = struct.pack("!BBHI", following, 0, at | (0 if last else 1), number)
        made.append(ip6(source, target, packet[6] if kept else FRAGMENT,
                        kept + head + payload[at:at + size], number))
    return made


def fragments(m):
    filler = b"\x12\x67" * 300  # would be read as a port in the place of one
    orders = {"in order": lambda f: f, "backwards": lambda f: f[::-1],
              "mixed": lambda f: m.random.sample(f, len(f)),
              "each twice": lambda f: [one for one in f for _ in (1, 2)]}
    for version, (order, arrange) in itertools.product(VERSIONS, orders.items()):
        cut = cut4 if version == 4 else cut6
        for protocol, size in itertools.product((TCP, UDP, SCTP), (64, 480)):
            m.plain(f"{NAMES[protocol]} in fragments of {size}, {order}", version, protocol,
                    transport(protocol, 4711, 443, filler), CLIENTS[version][1],
                    frames=lambda p, n, c=cut, s=size, a=arrange: a(c(p, n, s)))
        message = icmp(8 if version == 4 else 128, more=filler)
        m.plain(f"icmp query in fragments, {order}", version, ICMP if version == 4 else ICMPV6,
                message, CLIENTS[version][1], frames=lambda p, n, c=cut, a=arrange: a(c(p, n, 256)))
    for version in VERSIONS:
        cut = cut4 if version == 4 else cut6
        m.plain("udp in fragments of 8", version, UDP, transport(UDP, 4711, 443, bytes(24)),
                frames=lambda p, n, c=cut: c(p, n, 8))
        m.plain("icmp error in fragments", version, ICMP if version == 4 else ICMPV6,
                icmp(3, more=quote(version, UDP, 443, 4711) + filler),
                frames=lambda p, n, c=cut: c(p, n, 80))
        for name, pick in (("first only", slice(0, 1)), ("later only", slice(1, 2)),
                           ("no first", slice(1, None)), ("no last", slice(0, -1)),
                           ("one missing", slice(0, None, 2))):
            m.plain(f"udp fragments: {name}", version, UDP,
                    transport(UDP, 4711, 443, filler), fate=NOBODY,
                    frames=lambda p, n, c=cut, s=pick: c(p, n, 104)[s])
        m.plain("udp fragments that never end", version, UDP, transport(UDP, 4711, 443, filler),
                fate=NOBODY, frames=lambda p, n, c=cut: c(p, n, 104, more_last=True))

        def overlapping(packet, number, c=cut):
            made = c(packet, number, 104)
            other = c(packet[:-600] + b"\xff" * 600, number, 208)
            return made[:-1] + other[:1]
        m.plain("udp fragments that overlap", version, UDP, transport(UDP, 4711, 443, filler),
                fate=NOBODY, frames=overlapping)
    m.add("v4 udp with options in fragments",
          lambda n: ip4(CLIENTS[4][1], SERVERS[4][0], UDP, transport(UDP, 4711, 443, filler), n,
                        b"\x94\4\0\0"), frames=lambda p, n: cut4(p, n, 400))
    for kinds in ([HOPS], [DEST]):
        first, payload = chain(kinds, UDP, transport(UDP, 4711, 443, filler))
        m.add(f"v6 udp behind {kinds} in fragments",
              lambda n, f=first, p=payload: ip6(CLIENTS[6][1], SERVERS[6][0], f, p, n),
              frames=lambda p, n: cut6(p, n, 400, before=8))
    first, payload = chain([DEST], UDP, transport(UDP, 4711, 443, filler))
    m.add("v6 udp in fragments with an extension inside",
          lambda n: ip6(CLIENTS[6][1], SERVERS[6][0], first, payload, n),
          frames=lambda p, n: cut6(p, n, 400))


def main():
    m = Maker()
    for part in (ordinary, queries, errors, protocols, options, extensions, truncated, refused,
                 fragments):
        part(m)
    for number, one in enumerate(SELECTIONS):
        print(f"# {number}: --selector {one.selector} --seed {one.seed}"
              + (f" --services {one.text}" if one.text else ""))
    print("\n".join(m.lines))


if __name__ == "__main__":
    sys.exit(main())
