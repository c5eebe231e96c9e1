# SPDX-License-Identifier: GPL-2.0-or-later
"""What the table lets in: TCP, UDP, ICMP, ICMP errors, fragments, over IPv4 and IPv6; how nft
lists it."""
import json
import os
import select
import socket
import struct
import time

import lab
from lab import SILENCE_S, V4, V6, drain, received

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = {V4: "10.9.0.100", V6: "fd09::64"}
READ_BACK_S = 10
OTHERS = {V4: "10.9.0.200", V6: "fd09::c8"}


def open_node(net, *options, lease_ms=60000, blocks="even"):
    node = net.node()
    driver = net.driver(node, *options)
    driver.must("open")
    driver.must("link 60")
    driver.must(f"apply {blocks} {lease_ms}")
    net.learn()
    return node, driver


def listing(net, tap):
    """nft lists the tables as in golden/"""
    node, driver = open_node(net, "--blocks", "16", blocks="0-2,15")
    for family in ("inet", "netdev"):
        text = lab.normalized(node.exec("nft", "list", "table", family, "saru_1"))
        path = os.path.join(HERE, "golden", f"{family}.txt")
        if os.environ.get("SARU_UPDATE_GOLDEN"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        with open(path, encoding="utf-8") as file:
            tap.check(file.read() == text, f"table {family} is listed as in golden/{family}.txt",
                      text)
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() finds no difference", words)


def names(net, tap):
    """Every name can be typed: nft does not take it for a word of its own"""
    services = "53/udp by src-addr-port,80 by src-addr"
    node, _ = open_node(net, "--selector", "src-port", "--services", services)
    found = []
    for family in ("inet", "netdev"):
        listed = json.loads(node.exec("nft", "-j", "list", "table", family, "saru_1"))
        for item in listed["nftables"]:
            for kind in ("chain", "set", "counter"):
                if kind in item:
                    found.append((kind, family, item[kind]["name"]))
    silent = [name for kind, family, name in found
              if f"{kind} {name} {{" not in
              node.exec("nft", "list", kind, family, "saru_1", name, check=False)]
    tap.check(silent == [] and len(found) > 30, f"nft lists each of {len(found)} by its name",
              silent)


def ports_of(block):
    return (block * lab.BLOCK_SIZE, block * lab.BLOCK_SIZE + lab.BLOCK_SIZE - 1)


def by_port(net, tap):
    """TCP and UDP: owned blocks answer at both ends of the block, foreign ones do not"""
    node, driver = open_node(net)
    for target in (V4, V6):
        server = net.server(node, socket.SOCK_DGRAM, target)
        net.server(node, socket.SOCK_STREAM, target)
        wrong = []
        for block in (8, 9, 10, 11, 254, 255, 256, 257, 510, 511):
            for port in ports_of(block):
                owned = block % 2 == 0
                net.udp_from(SOURCES[target], port, target).send(b"x")
                if (received(server, lab.ANSWER_S if owned else 0.03) is not None) != owned:
                    wrong.append(("udp", port))
                drain(server)
                if net.tcp_answers(SOURCES[target], port, target, None if owned else 0.1) != owned:
                    wrong.append(("tcp", port))
        tap.check(not wrong, f"TCP and UDP to {target}", wrong)
    counters = driver.must("counters")
    tap.check(counters["accepted"] >= 40 and counters["foreign"] >= 40 and counters["late"] == 0,
              "counters tell accepted from foreign", counters)


def echo(net, tap):
    """Echo requests: by the low 16 bits of the client's address"""
    open_node(net)
    for target, family, proto, request, reply in (
            (V4, socket.AF_INET, socket.IPPROTO_ICMP, 8, 0),
            (V6, socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129)):
        for source, owned in ((SOURCES[target], True), (OTHERS[target], False)):
            one = net.client.socket(family, socket.SOCK_RAW, proto, bind=(source, 0))
            net.sockets.append(one)
            message = struct.pack("!BBHHH", request, 0, 0, 77, 1)
            if family == socket.AF_INET:
                message = struct.pack("!BBHHH", request, 0, checksum(message), 77, 1)
            one.sendto(message, (target, 0))
            answered = False
            end = time.monotonic() + (lab.ANSWER_S if owned else SILENCE_S)
            while not answered and time.monotonic() < end:
                if select.select([one], [], [], max(0, end - time.monotonic()))[0]:
                    data = one.recv(2000)
                    answered = data[20 if family == socket.AF_INET else 0] == reply
            tap.check(answered == owned,
                      f"echo from {source} to {target} is {'' if owned else 'not '}answered")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def quoted4(port, proto=17, options=b"", fragment=0):
    header = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 1500, 1, fragment, 64,
                         proto, 0,
                         socket.inet_aton(V4), socket.inet_aton("10.9.5.5"))
    return header + options + struct.pack("!HHHH", 7, port, 1480, 0)


def quoted6(port, proto=17):
    header = struct.pack("!IHBB16s16s", 6 << 28, 1460, proto, 64,
                         socket.inet_pton(socket.AF_INET6, V6),
                         socket.inet_pton(socket.AF_INET6, "fd09::505"))
    return header + struct.pack("!HHHH", 7, port, 1460, 0)


def icmp_errors(net, tap):
    """ICMP errors: by the quoted packet; where that is not plain, by the sender's address"""
    _, driver = open_node(net)
    owned, foreign = 4 * lab.BLOCK_SIZE + 5, 5 * lab.BLOCK_SIZE + 5
    mine, other = SOURCES, OTHERS
    cases = [
        ("fragmentation needed, UDP, owned port", V4, other, 3, 4, quoted4(owned), True),
        ("fragmentation needed, UDP, foreign port", V4, mine, 3, 4, quoted4(foreign), False),
        ("time exceeded, TCP, owned port", V4, other, 11, 0, quoted4(owned, 6), True),
        ("parameter problem, TCP, foreign port", V4, mine, 12, 0, quoted4(foreign, 6), False),
        ("quoted with options: by address", V4, mine, 3, 4, quoted4(foreign, 17, b"\1\1\1\1"),
         True),
        ("quoted with options: by address", V4, other, 3, 4, quoted4(owned, 17, b"\1\1\1\1"),
         False),
        ("quoted later fragment: by address", V4, mine, 3, 4, quoted4(foreign, 17, b"", 5), True),
        ("quoted first fragment: by port", V4, mine, 3, 4, quoted4(foreign, 17, b"", 0x2000),
         False),
        ("quoted ICMP: by address", V4, other, 3, 1, quoted4(owned, 1), False),
        ("redirect: nobody", V4, mine, 5, 1, quoted4(owned), False),
        ("packet too big, UDP, owned port", V6, other, 2, 0, quoted6(owned), True),
        ("packet too big, UDP, foreign port", V6, mine, 2, 0, quoted6(foreign), False),
        ("time exceeded, TCP, owned port", V6, other, 3, 0, quoted6(owned, 6), True),
        ("unreachable, TCP, foreign port", V6, mine, 1, 0, quoted6(foreign, 6), False),
        ("parameter problem, UDP, owned port", V6, other, 4, 0, quoted6(owned), True),
        ("quoted with extension header: by address", V6, mine, 2, 0, quoted6(foreign, 44), True),
        ("quoted with extension header: by address", V6, other, 2, 0, quoted6(owned, 44), False),
    ]
    for what, target, source, kind, code, quoted, accepted in cases:
        v4 = target == V4
        one = net.client.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_RAW,
                                socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6,
                                bind=(source[target], 0))
        net.sockets.append(one)
        rest = struct.pack("!HH", 0, 1400) if v4 else struct.pack("!I", 1400)
        message = struct.pack("!BBH", kind, code, 0) + rest + quoted
        if v4:
            message = struct.pack("!BBH", kind, code, checksum(message)) + rest + quoted
        before = driver.must("counters")
        one.sendto(message, (target, 0))
        end = time.monotonic() + lab.ANSWER_S
        after = before
        while time.monotonic() < end and (after["accepted"], after["foreign"]) == (
                before["accepted"], before["foreign"]):
            after = driver.must("counters")
        got = after["accepted"] - before["accepted"], after["foreign"] - before["foreign"]
        tap.check(got == ((1, 0) if accepted else (0, 1)),
                  f"{what} ({'IPv4' if v4 else 'IPv6'}): {'accepted' if accepted else 'dropped'}",
                  got)


def fragments(net, tap):
    """Fragmented datagrams: the ports count, not what a later fragment has in their place"""
    node = net.node()
    driver = net.driver(node)
    if not driver.must("open")["defragments"]:
        return tap.skip("fragments", "this kernel has no tproxy expression")
    driver.must("link 60")
    driver.must("apply even 60000")
    net.learn()
    for target in (V4, V6):
        server = net.server(node, socket.SOCK_DGRAM, target)
        for block, owned in ((20, True), (21, False)):
            # Bytes that would be read as the port of the other kind of block.
            filler = struct.pack("!H", (41 - block) * lab.BLOCK_SIZE) * 2500
            net.udp_from(SOURCES[target], block * lab.BLOCK_SIZE, target).send(filler)
            got = received(server, lab.ANSWER_S if owned else SILENCE_S)
            tap.check((got == filler) if owned else got is None,
                      f"5000 bytes to {target} from {'an owned' if owned else 'a foreign'} block")
        before = driver.must("counters")
    return before


def others(net, tap):
    """What is not ours passes, what nobody serves is dropped, the node reaches its own addresses"""
    node, driver = open_node(net, blocks="none")
    own = net.server(node, socket.SOCK_DGRAM, "10.9.0.11")
    net.udp_from(SOURCES[V4], 3333, "10.9.0.11").send(b"x")
    tap.check(received(own, lab.ANSWER_S) is not None, "the node's own address is not touched")
    for target in (V4, V6):
        server = net.server(node, socket.SOCK_DGRAM, target)
        local = node.socket(socket.AF_INET6 if target == V6 else socket.AF_INET, socket.SOCK_DGRAM)
        net.sockets.append(local)
        local.sendto(b"x", (target, 7))
        tap.check(received(server, lab.ANSWER_S) is not None, f"the node itself reaches {target}")
    driver.must("apply all 60000")
    before = driver.must("counters")["foreign"]
    raw = net.client.socket(socket.AF_INET, socket.SOCK_RAW, 47)
    net.sockets.append(raw)
    raw.sendto(b"\0" * 16, (V4, 0))
    time.sleep(SILENCE_S)
    tap.check(driver.must("counters")["foreign"] == before + 1,
              "another protocol (GRE) is dropped, counted")


def read_back(net, tap):
    """What is read back is what was written, also while the kernel reshapes a set of many blocks"""
    node = net.node()
    driver = net.driver(node, "--blocks", "4096")
    driver.must("open")
    wrong, turn = [], 0
    end = time.monotonic() + READ_BACK_S
    while time.monotonic() < end:
        turn += 1
        bit, rest = turn // 2 % 12, "-" if turn % 2 else ""
        held = driver.must(f"apply bit{bit}{rest} 60000")
        if (held["count"], held["strange"]) != (2048, False):
            wrong.append((turn, held["count"]))
    tap.check(not wrong, f"2048 of 4096 blocks, exchanged {turn} times", wrong)
    tap.check(driver.must("verify")["value"] == [], "and the table is as it was written")


if __name__ == "__main__":
    lab.main(listing, names, by_port, echo, icmp_errors, fragments, others, read_back)
