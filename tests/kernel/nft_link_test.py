# SPDX-License-Identifier: GPL-2.0-or-later
"""The macvlan: the shared MAC is what neighbours learn and never a source; addresses run out; what
others do."""
import select
import signal
import socket
import struct
import time

import lab
from lab import SHARED_MAC, SILENCE_S, V4, V6, received

SHARED = bytes.fromhex(SHARED_MAC.replace(":", ""))
BROADCAST = b"\xff" * 6


def open_node(net, number=1, *options, life=60, own_addresses=True):
    node = net.node(number, own_addresses)
    driver = net.driver(node, "--node", f"n{number}", *options)
    driver.must("open")
    warnings = driver.must(f"link {life}")["warnings"]
    return node, driver, warnings


def frames(sniffer, wait_s=SILENCE_S):
    """What comes at a packet socket until nothing has come for a while (our own frames not)."""
    found = []
    while select.select([sniffer], [], [], wait_s)[0]:
        data, where = sniffer.recvfrom(4096)
        if where[2] != socket.PACKET_OUTGOING:
            found.append(data)
    return found


def arp_request(net, target):
    ask = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, bytes.fromhex("020000000064"),
                      socket.inet_aton("10.9.0.100"), b"\0" * 6, socket.inet_aton(target))
    return BROADCAST + bytes.fromhex("020000000064") + b"\x08\x06" + ask


def arp_answers(net, target):
    """{(Ethernet source, sender MAC in the ARP)} of all answers to one request."""
    sniffer = net.client.packet_socket("e0", 0x806)
    net.sockets.append(sniffer)
    sniffer.send(arp_request(net, target))
    return {(one[6:12].hex(":"), one[22:28].hex(":"))
            for one in frames(sniffer) if one[20:22] == b"\0\x02"}


def answers_arp(net, tap):
    """ARP and neighbour discovery: all nodes answer with the shared MAC, none with its NIC's"""
    nodes = [open_node(net, number) for number in (1, 2)]
    got = arp_answers(net, V4)
    tap.check(got == {("02:00:00:00:00:01", SHARED_MAC), ("02:00:00:00:00:02", SHARED_MAC)},
              "both nodes answer, shared MAC inside, own MAC outside", got)
    got = arp_answers(net, "10.9.0.12")
    tap.check(got == {("02:00:00:00:00:02", "02:00:00:00:00:02")},
              "a node's own address is its NIC's", got)
    target = socket.inet_pton(socket.AF_INET6, V6)
    sniffer = net.client.packet_socket("e0", 0x86dd)
    net.sockets.append(sniffer)
    one = net.udp_from("fd09::64", 4000, V6)
    one.send(b"x")
    adverts = [f for f in frames(sniffer) if f[20] == 58 and f[54] == 136 and f[62:78] == target]
    got = {(f[6:12].hex(":"), f[-6:].hex(":")) for f in adverts}
    tap.check(got == {("02:00:00:00:00:01", SHARED_MAC), ("02:00:00:00:00:02", SHARED_MAC)},
              "neighbour advertisements likewise", got)
    # The trap: with the default settings the NIC answers too.
    node, driver, warnings = nodes[0]
    tap.check(any("arp_ignore was 0 and is 1" in one for one in warnings),
              "the change of the NIC is told", warnings)
    node.sysctl("net.ipv4.conf.e0.arp_ignore", 0)
    tap.check(("02:00:00:00:00:01", "02:00:00:00:00:01") in arp_answers(net, V4),
              "(control: without the setting the NIC answers with its own MAC)")
    words = driver.must("verify-link")["value"]
    tap.check(any("net.ipv4.conf.e0.arp_ignore is 0" in one for one in words), "verify() says so",
              words)


def hides_mac(net, tap):
    """The shared MAC is never a source, whatever is sent; the switch never learns it"""
    node, driver, _ = open_node(net)
    plain_node, plain, _ = open_node(net, 2, "--plain")
    sniffer = net.switch.packet_socket("n1")
    second = net.switch.packet_socket("n2")
    net.sockets += [sniffer, second]
    for one in (driver, plain):
        one.must("apply all 60000")
        one.must("announce")
    net.learn()
    server = net.server(node, socket.SOCK_DGRAM, V4)
    net.server(node, socket.SOCK_STREAM, V4)
    net.server(node, socket.SOCK_STREAM, V6)
    net.tcp_answers("10.9.0.100", 5000, V4)
    net.tcp_answers("fd09::64", 5000, V6)
    net.udp_from("10.9.0.100", 5001, V4).send(b"x")
    tap.check(received(server, lab.ANSWER_S) is not None, "there is traffic")
    # From the macvlan itself, as a program bound to it would send.
    out = node.socket(socket.AF_INET, socket.SOCK_DGRAM,
                      options=[(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"saru1")])
    net.sockets.append(out)
    try:
        out.sendto(b"x", ("10.9.0.100", 99))
    except OSError:
        pass
    raw = node.packet_socket("saru1")
    net.sockets.append(raw)
    raw.send(BROADCAST + SHARED + b"\x88\xb5" + b"raw from the macvlan".ljust(46))
    raw_nic = node.packet_socket("e0")
    net.sockets.append(raw_nic)
    raw_nic.send(BROADCAST + SHARED + b"\x88\xb5" + b"raw from the NIC".ljust(46))
    seen = frames(sniffer, 0.3)
    sources = {one[6:12].hex(":") for one in seen}
    tap.check(any(b"raw from the macvlan" in one for one in seen) and
              any(b"raw from the NIC" in one for one in seen),
              "frames made by hand got through")
    tap.check(sources == {"02:00:00:00:00:01"}, "only the NIC's own MAC is a source", sources)
    fdb = net.switch.exec("bridge", "fdb", "show")
    tap.check(SHARED_MAC not in fdb, "the switch has not learned the shared MAC", fdb)
    # Can the witness see it at all?
    plain_node.exec("nft", "delete", "table", "netdev", "saru_1")
    frames(second, 0.05)
    raw = plain_node.packet_socket("saru1")
    net.sockets.append(raw)
    raw.send(BROADCAST + SHARED + b"\x88\xb5" + b"unmasked".ljust(46))
    tap.check(SHARED in {one[6:12] for one in frames(second, 0.2)},
              "(control: without the table it is seen)")


def announces(net, tap):
    """Gratuitous ARP and unsolicited neighbour advertisements are right, and believed"""
    _, driver, _ = open_node(net)
    net.client.ip("neigh", "replace", V4, "lladdr", "02:00:00:00:00:99", "dev", "e0", "nud",
                  "stale")
    net.client.ip("neigh", "replace", V6, "lladdr", "02:00:00:00:00:99", "dev", "e0", "nud",
                  "stale")
    sniffer = net.client.packet_socket("e0")
    net.sockets.append(sniffer)
    time.sleep(1.1)  # the kernel believes a change only after locktime (1 s)
    driver.must("announce")
    seen = frames(sniffer)
    arps = [one for one in seen if one[12:14] == b"\x08\x06" and one[22:28] == SHARED]
    adverts = [one for one in seen if one[12:14] == b"\x86\xdd" and one[54] == 136]
    tap.check(len(arps) == 2 and len(adverts) == 1 and all(
        one[6:12].hex(":") == "02:00:00:00:00:01" for one in arps + adverts),
        "three frames, own MAC outside",
              (len(arps), len(adverts)))
    for target in (V4, V6):
        line = net.client.ip("neigh", "show", target)
        tap.check(SHARED_MAC in line, f"the client believes it for {target}", line)


def lifetimes(net, tap):
    """Addresses live on while renewed, and run out without a process"""
    node, driver, _ = open_node(net, life=2)
    for _ in range(4):
        time.sleep(0.8)
        driver.must("renew 2")
    words = driver.must("verify-link")["value"]
    tap.check(words == [], "renewed addresses stay", words)
    driver.must("watch")
    driver.end(signal.SIGKILL)
    end = time.monotonic() + 6

    def there():
        listed = node.ip("addr", "show", "dev", "saru1")
        return V4 in listed or V6 in listed

    while time.monotonic() < end and there():
        time.sleep(0.05)
    took = 6 - (end - time.monotonic())
    tap.note(f"gone {took:.1f} s after the death, lifetime 2 s")
    tap.check(not there(), "they run out without a process")
    again = net.driver(node)
    again.must("open")
    again.must("link 1")
    again.must("watch")
    news = []
    while len([one for one in news if one["what"] == "address"]) < 2:
        more = again.must("news 4000")["news"]
        if not more:
            break
        news += more
    tap.check({one["what"] for one in news} == {"address"} and len(news) == 2,
              "running out is noticed", news)
    again.must("renew 60")
    words = again.must("verify-link")["value"]
    tap.check(words == [], "renew() brings them back", words)


def routes(net, tap):
    """Answers find their way: by the node's own route, or over the macvlan where it has none"""
    node, driver, _ = open_node(net, 1, "--address", "10.77.0.1/24", own_addresses=False)
    other, second, _ = open_node(net, 2)
    del node, other
    net.client.ip("addr", "add", "10.77.0.100/24", "dev", "e0")
    for one in (driver,):
        one.must("apply all 60000")
    second.must("apply none")
    server = net.server(net.spaces[2], socket.SOCK_STREAM, "10.77.0.1")
    tap.check(net.tcp_answers("10.77.0.100", 5000, "10.77.0.1"),
              "a node without an address in the subnet answers", server)
    net.server(net.spaces[3], socket.SOCK_STREAM, V4)
    driver.must("apply none")
    second.must("apply all 60000")
    tap.check(net.tcp_answers("10.9.0.100", 5001, V4), "a node with one answers too")


def strict(net, tap):
    """Strict reverse path filtering and ARP settings for all interfaces"""
    node = net.node()
    node.sysctl("net.ipv4.conf.all.rp_filter", 1)
    node.sysctl("net.ipv4.conf.default.rp_filter", 1)
    driver = net.driver(node)
    driver.must("open")
    driver.must("link 60")
    driver.must("apply all 60000")
    net.server(node, socket.SOCK_STREAM, V4)
    tap.check(net.tcp_answers("10.9.0.100", 5000, V4), "works with rp_filter=1 for all interfaces")
    node.sysctl("net.ipv4.conf.all.arp_ignore", 8)
    words = driver.must("hindrances")["value"]
    tap.check(any("set it to 0 or 1" in one for one in words),
              "hindrances() names what stops ARP answers", words)


def disturbed(net, tap):
    """Somebody changes link, addresses, settings or NIC: noticed and named"""
    node, driver, _ = open_node(net)
    driver.must("watch")

    def deed(command, what, words_wanted, verified=None):
        node.exec(*command.split())
        news = driver.must("news 3000")["news"]
        words = driver.must("verify-link")["value"] + driver.must("hindrances")["value"]
        tap.check(any(one["what"] == what and words_wanted in one["text"] for one in news) and
                  any((verified or words_wanted) in one for one in words), command,
                  f"{news}\n{words}")

    deed(f"ip addr del {V4}/32 dev saru1", "address", f"address {V4} is gone",
         f"{V4} is not on saru1")
    deed(f"ip addr del {V6}/128 dev saru1", "address", f"address {V6} is gone",
         f"{V6} is not on saru1")
    driver.must("renew 60")
    deed(f"ip addr add {V4}/32 dev e0", "address", "on another interface", f"{V4} is also on e0")
    node.ip("addr", "del", f"{V4}/32", "dev", "e0")
    deed("ip link set saru1 down", "link", "was set down", "saru1 is down")
    node.ip("link", "set", "saru1", "up")
    driver.must("renew 60")
    driver.must("resync")
    deed("ip link set saru1 address 02:00:00:00:77:77", "link", "MAC of saru1",
         "instead of " + SHARED_MAC)
    node.ip("link", "set", "saru1", "address", SHARED_MAC)
    driver.must("resync")
    net.switch.ip("link", "set", "n1", "down")
    news = driver.must("news 3000")["news"]
    tap.check(any(one["what"] == "carrier lost" for one in news) and
              driver.must("carrier")["value"] is False,
              "carrier lost", news)
    net.switch.ip("link", "set", "n1", "up")
    news = driver.must("news 3000")["news"]
    tap.check(any(one["what"] == "carrier back" for one in news) and
              driver.must("carrier")["value"] is True,
              "carrier back", news)
    deed("ip link del saru1", "link", "interface saru1 is gone")
    words = driver.must("verify")["value"]
    tap.check(words == [], "the tables stand without it", words)
    driver.must("link 60")
    driver.must("resync")
    words = driver.must("verify-link")["value"] + driver.must("verify")["value"]
    tap.check(words == [], "made anew", words)
    driver.must("remove-link")
    driver.must("remove")
    tap.check("saru" not in node.exec("nft", "list", "ruleset") + node.ip("link"),
              "removed without a trace")


def refusals(net, tap):
    """Bad input: one clear sentence, and nothing left behind"""
    node = net.node()

    def refused(options, commands, words_wanted):
        driver = lab.Driver(net, node, *options)
        said = {}
        for command in commands:
            said = driver.ask(command) if command else driver.answer()
            if "error" in said:
                break
        driver.end(signal.SIGKILL)
        tap.check(words_wanted in said.get("error", ""),
                  f"{' '.join(options)}: {said.get('error', said)}", words_wanted)
        tap.check("saru" not in node.ip("link"), "no interface is left")

    good = ("--address", V4)
    refused(("--address", "10.9.0.300"), [None], "is not an address")
    refused(("--address", "10.9.0.1/33"), [None], "has a bad prefix length")
    refused(("--address", "fe80::1"), [None], "is a link-local address")
    refused(("--address", "224.0.0.1"), [None], "is a multicast address")
    refused(good + ("--nic", "eth9"), ["open"], 'no network interface "eth9"')
    refused(good + ("--nic", "lo"), ["open"], "has no MAC address")
    refused(good + ("--id", "0"), ["open"], "cluster id 0 does not exist")
    refused(good + ("--blocks", "500"), ["open"], "cannot be cut in 500 blocks")
    refused(good + good, ["open"], "given twice")
    refused(good + ("--mac", "01:00:5e:00:00:01"), ["open"], "no MAC address of one interface")
    refused(good + ("--mac", "02:00:00:00:00:01"), ["open"], "is the NIC's own")
    node.ip("addr", "add", "10.9.0.44/16", "dev", "e0")
    refused(("--address", "10.9.0.44"), ["open", "link 9"], "is on e0 of this node")
    node.ip("link", "add", "saru1", "type", "veth", "peer", "name", "other")
    said = net.driver(node)
    said.must("open")
    answer = said.ask("link 9")
    tap.check("taken by an interface that is no macvlan (veth)" in answer.get("error", ""),
              "name taken", answer)
    node.ip("link", "del", "saru1")
    node.ip("link", "set", "e0", "down")
    answer = said.ask("link 9")
    tap.check('"e0" is down' in answer.get("error", ""), "NIC down", answer)
    node.ip("link", "set", "e0", "up")
    said.end()
    nobody = ["setpriv", "--reuid", "65534", "--clear-groups", net.driver_path, *good]
    answer = node.exec(*nobody, text="open\n")
    tap.check("run as root or with CAP_NET_ADMIN" in answer and '"kind":1' in answer,
              "no permission", answer)


if __name__ == "__main__":
    lab.main(answers_arp, hides_mac, announces, lifetimes, routes, strict, disturbed, refusals)
