#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Single packets and short connections from chosen source ports.

    ask.py tcp ADDRESS PORT SOURCE…           asks the service of held.py; {source: who answered}
    ask.py udp ADDRESS PORT SOURCE…           a datagram from each, and no socket for answers
    ask.py flags ADDRESS PORT SOURCE FLAGS    one TCP segment with these flags (a number), of no
                                              connection; the flags of what comes back, or null
    ask.py protocol ADDRESS NUMBER SOURCE     a packet of that protocol that begins with SOURCE"""
import json
import socket
import struct
import sys
import time

sys.path.insert(0, sys.path[0].rpartition("/")[0])

from livelib.held import packed, unpacked  # noqa: E402

PATIENCE_S = 5


def ask_tcp(address, port, sources):
    found = {}
    for source in sources:
        try:
            with socket.socket() as peer:
                peer.settimeout(PATIENCE_S)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                peer.bind(("", source))
                peer.connect((address, port))
                peer.sendall(packed("who"))
                found[source] = unpacked(peer.makefile("rb").readline()).split()[0]
        except (OSError, ValueError) as error:
            found[source] = str(error)
    return found


def send_udp(address, port, sources):
    """From no socket: what comes back is refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        for source in sources:
            data = b"x" * 32
            raw.sendto(struct.pack("!HHHH", source, port, 8 + len(data), 0) + data, (address, 0))
    return len(sources)


def checksum(data):
    words = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def segment(own, address, port, source, flags):
    head = struct.pack("!HHIIBBHHH", source, port, 1000, 2000, 5 << 4, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(own) + socket.inet_aton(address) + struct.pack("!HH", 6, len(head))
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]


def own_address(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((address, 9))
        return one.getsockname()[0]


def send_flags(address, port, source, flags):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.settimeout(0.2)
        raw.sendto(segment(own_address(address), address, port, source, flags), (address, 0))
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                packet = raw.recv(2000)
            except TimeoutError:
                continue
            header = (packet[0] & 15) * 4
            ports = struct.unpack_from("!HH", packet, header)
            if packet[12:16] == socket.inet_aton(address) and ports == (port, source):
                return packet[header + 13]
    return None


def send_protocol(address, number, source):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, number) as raw:
        raw.sendto(struct.pack("!HHII", source, 9, 0, 0), (address, 0))
    return 1


def main():
    what, address, *rest = sys.argv[1:]
    numbers = [int(word) for word in rest]
    if what == "tcp":
        found = ask_tcp(address, numbers[0], numbers[1:])
    elif what == "udp":
        found = send_udp(address, numbers[0], numbers[1:])
    elif what == "flags":
        found = send_flags(address, *numbers)
    else:
        found = send_protocol(address, *numbers)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
