# SPDX-License-Identifier: GPL-2.0-or-later
"""Other software on the node: what it changes on link and settings is put back without making the
link anew, and its chains, zones and reloads change nothing about who answers."""
import socket

import lab
from lab import BLOCK_SIZE, SHARED_MAC, V4, V6, drain, received
from nft_link_test import arp_answers, open_node

OWN, FOREIGN = 8 * BLOCK_SIZE, 9 * BLOCK_SIZE  # ports of an even and of an odd block


def index_of(node, name="saru1"):
    return node.ip("-o", "link", "show", name).split(":")[0]


def setting(node, family, link, key):
    path = f"/proc/sys/net/{family}/conf/{link}/{key}"
    return int(node.exec("cat", path))


def put_back(net, tap):
    """Each change of the link is named by verify() and put back by mend(), on the same link"""
    node, driver, _ = open_node(net, life=600)
    driver.must("apply all 600000")
    net.server(node, socket.SOCK_STREAM, V4)
    net.server(node, socket.SOCK_STREAM, V6)
    index = index_of(node)
    port = 5000

    def deed(command, verified, said):
        nonlocal port
        for one in command.split("; "):
            node.exec(*one.split())
        words = driver.must("verify-link")["value"]
        mended = driver.must("mend 600")
        after = driver.must("verify-link")["value"] + driver.must("verify")["value"]
        # Before Linux 6.16 a rename leaves the chain of the link alone; since then it comes back.
        good = (any(verified in one for one in words) and not after and not mended["lost"] and
                any(said in one for one in mended["done"]) and index_of(node) == index)
        tap.check(good, command, f"verify: {words}\nmend: {mended}\nafter: {after}")
        port += 1
        tap.check(net.tcp_answers("10.9.0.100", port, V4) and
                  net.tcp_answers("fd09::64", port, V6), "both addresses serve")

    if lab.kernel() >= (6, 3):
        deed("ip link set saru1 name other", "saru1 is gone",
             "had been renamed to other: renamed back")
    else:
        node.exec("ip", "link", "set", "saru1", "name", "other", check=False)
        words = driver.must("verify-link")["value"]
        tap.check(words == [], "before Linux 6.3 an interface that is up keeps its name", words)
    deed("ip link set saru1 down; ip link set saru1 name other; ip link set other up",
         "saru1 is gone", "had been renamed to other: renamed back")
    deed("ip link set saru1 address 02:00:00:00:77:77", "instead of " + SHARED_MAC,
         f"was 02:00:00:00:77:77: {SHARED_MAC} again")
    deed("ip link set saru1 down", "saru1 is down", "was down: set up again")
    deed("ip link set saru1 mtu 1280", "1280 instead of 1500", "1500 now, as that of e0")
    deed("ip link set e0 mtu 1400; ip link set e0 mtu 1500", "1400 instead of 1500", "as that of")
    deed(f"ip addr del {V4}/32 dev saru1", f"{V4} is not on saru1", f"{V4} was not on saru1: put")
    deed(f"ip addr del {V6}/128 dev saru1", f"{V6} is not on saru1", f"{V6} was not on saru1: put")
    deed("ip addr flush dev saru1", "is not on saru1", "was not on saru1: put back")
    deed("ip addr add 10.9.0.77/16 dev saru1", "10.9.0.77/16 is on saru1", "removed; put it on e0")
    deed("ip addr add fd09::77/64 dev saru1 nodad", "fd09::77/64 is on saru1", "removed")
    deed(f"ip addr add {V4}/16 dev saru1", f"{V4}/16 is on saru1", f"{V4}/16 was on saru1")
    node.ip("addr", "change", f"{V4}/32", "dev", "saru1", "valid_lft", "forever", "preferred_lft",
            "forever")
    driver.must("mend 600")
    tap.check("valid_lft forever" not in node.ip("-4", "addr", "show", "dev", "saru1"),
              "an address that was made eternal runs out again", node.ip("addr"))


def settings(net, tap):
    """Kernel settings: ours are put back, those of the administrator are told and left alone"""
    node, driver, _ = open_node(net, life=600)
    wanted = [("ipv4", "saru1", "arp_ignore", 0, 1), ("ipv4", "saru1", "arp_announce", 0, 2),
              ("ipv4", "saru1", "arp_filter", 1, 0), ("ipv4", "saru1", "rp_filter", 1, 0),
              ("ipv4", "saru1", "medium_id", 0, -1), ("ipv4", "saru1", "proxy_arp_pvlan", 1, 0),
              ("ipv6", "saru1", "disable_ipv6", 1, 0), ("ipv6", "saru1", "addr_gen_mode", 0, 1),
              ("ipv6", "saru1", "accept_dad", 1, 0), ("ipv6", "saru1", "dad_transmits", 1, 0),
              ("ipv6", "saru1", "accept_ra", 2, 0), ("ipv6", "saru1", "autoconf", 1, 0),
              ("ipv4", "e0", "arp_ignore", 0, 1), ("ipv4", "e0", "arp_announce", 1, 2)]
    for family, link, key, bad, good in wanted:
        name = f"net.{family}.conf.{link}.{key}"
        was = setting(node, family, link, key)
        node.exec("sysctl", "-qw", f"{name}={bad}")
        words = driver.must("verify-link")["value"]
        mended = driver.must("mend 600")
        after = driver.must("verify-link")["value"]
        tap.check(was == good == setting(node, family, link, key) and not after and
                  any(f"{name} is {bad} instead of {good}" in one for one in words) and
                  any(f"{name} was {bad}: {good} again" in one for one in mended["done"]),
                  f"{name}={bad} is put back to {good}", f"{was} {words} {mended} {after}")
    tap.check("fe80" not in node.ip("addr", "show", "dev", "saru1"),
              "no link-local address is left of it", node.ip("addr", "show", "dev", "saru1"))
    driver.must("watch")
    node.sysctl("net.ipv4.conf.all.rp_filter", 1)
    news = driver.must("news 2000")["news"]
    tap.check(any(one["what"] == "settings" and "all interfaces" in one["text"] for one in news),
              "the kernel tells of rp_filter", news)
    driver.must("mend 600")
    tap.check(setting(node, "ipv4", "saru1", "rp_filter") == 2 and
              setting(node, "ipv4", "all", "rp_filter") == 1,
              "strict filtering for all: loose on the link, and nothing else changed")
    node.sysctl("net.ipv4.conf.saru1.rp_filter", 0)
    news = driver.must("news 2000")["news"]
    tap.check(any("settings of saru1" in one["text"] for one in news), "and which link", news)
    driver.must("mend 600")
    driver.must("news 100")
    for key, value, said in (
            ("net.ipv4.conf.all.arp_ignore", 8, "does not answer ARP"),
            ("net.ipv4.conf.all.arp_filter", 1, "may not answer ARP"),
            ("net.ipv6.conf.e0.disable_ipv6", 1, "no way out")):
        before = node.exec("sysctl", "-n", key).strip()
        node.sysctl(key, value)
        words = driver.must("hindrances")["value"]
        driver.must("mend 600")
        tap.check(len(words) == 1 and f"{key} is {value}" in words[0] and said in words[0] and
                  node.exec("sysctl", "-n", key).strip() == str(value),
                  f"{key}={value} is told and left alone", words)
        node.sysctl(key, before)
    node.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    mended = driver.must("mend 600")
    words = driver.must("verify-link")["value"]
    tap.check(words == [] and setting(node, "ipv6", "e0", "disable_ipv6") == 1,
              "IPv6 switched off everywhere: on again on the link alone", f"{words} {mended}")
    node.ip("addr", "add", f"{V4}/32", "dev", "e0")
    words = driver.must("hindrances")["value"]
    mended = driver.must("mend 600")
    tap.check(any(f"{V4} is also on e0" in one for one in words) and not mended["lost"] and
              V4 in node.ip("addr", "show", "dev", "e0"),
              "a shared address elsewhere is told and left alone", f"{words} {mended}")


def lost(net, tap):
    """What cannot be put back: said, and the link is to be made anew"""
    node, driver, _ = open_node(net, life=600)
    node.ip("link", "del", "saru1")
    mended = driver.must("mend 600")
    tap.check(mended["lost"], "deleted", mended)
    driver.must("link 600")
    node.ip("link", "del", "saru1")
    node.ip("link", "add", "link", "e0", "saru1", "type", "macvlan", "mode", "bridge")
    mended = driver.must("mend 600")
    tap.check(mended["lost"], "another one of that name", mended)
    driver.must("link 600")
    node.ip("link", "set", "saru1", "down")
    node.ip("link", "set", "saru1", "name", "other")
    node.ip("link", "add", "saru1", "type", "veth", "peer", "name", "peer")
    mended = driver.must("mend 600")
    tap.check(mended["lost"] and "its name is taken" in mended["done"][0], "name taken", mended)
    answer = driver.ask("link 600")
    tap.check("taken by an interface that is no macvlan" in answer.get("error", "") and
              f"{V4}/" not in node.ip("addr"), "refused, and the address is closed", answer)
    node.ip("link", "del", "saru1")
    driver.must("link 600")
    node.ip("link", "set", "e0", "address", "02:00:00:00:00:55")
    words = driver.must("verify-link")["value"]
    mended = driver.must("mend 600")
    tap.check(any("the MAC of e0 is 02:00:00:00:00:55 now" in one for one in words) and
              not mended["lost"], "another MAC of the NIC is told", f"{words} {mended}")


def proxy_arp(net, tap):
    """With proxy_arp and forwarding for all interfaces the macvlan answers for its own alone"""
    node, _, _ = open_node(net, life=600)
    node.sysctl("net.ipv4.ip_forward", 1)
    node.sysctl("net.ipv4.conf.all.proxy_arp", 1)
    node.sysctl("net.ipv4.neigh.saru1.proxy_delay", 0)
    got = arp_answers(net, "10.9.0.77")
    tap.check(not any(inside == SHARED_MAC for _, inside in got),
              "nobody learns the shared MAC for an address of the subnet", got)
    got = arp_answers(net, V4)
    tap.check(got == {("02:00:00:00:00:01", SHARED_MAC)}, "the shared address is answered", got)
    node.sysctl("net.ipv4.conf.saru1.medium_id", 0)
    got = arp_answers(net, "10.9.0.77")
    tap.check(any(inside == SHARED_MAC for _, inside in got),
              "(control: without the setting it would)", got)


FOREIGN_CHAINS = {
    "earlier, accepts": "type filter hook prerouting priority -400; accept",
    "at our priority, accepts": "type filter hook prerouting priority -310; accept",
    "just before us, accepts": "type filter hook prerouting priority -311; policy accept; accept",
    "earlier, no connection tracking": "type filter hook prerouting priority -400; notrack",
    "later, no connection tracking": "type filter hook prerouting priority raw; notrack",
    "zone of its own for our packets":
        "type filter hook prerouting priority raw; ip daddr 10.9.0.1 ct zone set 7",
    "zone by interface": "type filter hook prerouting priority raw; iifname saru1 ct zone set 8",
    "marks everything": "type filter hook prerouting priority -400; meta mark set 0x29a",
    "stateful firewall": "type filter hook input priority filter; "
                         "ct state invalid drop; ct state new,established accept; drop",
}


def chains(net, tap):
    """Chains of others, before and after ours: the same packets come in"""
    node, driver, _ = open_node(net, life=600)
    driver.must("apply even 600000")
    net.learn()
    server = net.server(node, socket.SOCK_DGRAM, V4)
    ours = net.udp_from("10.9.0.100", OWN, V4)
    foreign = net.udp_from("10.9.0.100", FOREIGN, V4)

    def arrived():
        drain(server)
        foreign.send(b"foreign")
        ours.send(b"ours")
        first = received(server, lab.ANSWER_S)
        return [first, received(server, 0.05)]

    def with_chain(text):
        node.exec("nft", f"table inet other {{ chain c {{ {text}; }}; }}")

    for name, text in FOREIGN_CHAINS.items():
        with_chain(text)
        got = arrived()
        tap.check(got == [b"ours", None], name, got)
        node.exec("nft", "delete", "table", "inet", "other")
    with_chain("type filter hook prerouting priority -400; udp dport 7 drop")
    drain(server)
    ours.send(b"ours")
    tap.check(received(server, lab.SILENCE_S) is None, "one that drops earlier drops")
    node.exec("nft", "delete", "table", "inet", "other")
    before = driver.must("counters")["accepted"]
    with_chain("type filter hook input priority filter; udp dport 7 drop")
    ours.send(b"ours")
    tap.check(received(server, lab.SILENCE_S) is None and
              driver.must("counters")["accepted"] == before + 1,
              "one that drops later drops: our counter says that we had accepted")
    node.exec("nft", "delete", "table", "inet", "other")
    got = arrived()
    words = driver.must("verify")["value"]
    tap.check(got == [b"ours", None] and not words, "and nothing of it is left", f"{got} {words}")


RESTORE = """*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -i saru1 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A INPUT -m conntrack --ctstate INVALID -j DROP
COMMIT
"""


def iptables(net, tap):
    """iptables, both kinds, as Docker and others use them: restored, flushed, listed"""
    node, driver, _ = open_node(net, life=600)
    driver.must("apply even 600000")
    net.learn()
    server = net.server(node, socket.SOCK_DGRAM, V4)
    ours = net.udp_from("10.9.0.100", OWN, V4)
    foreign = net.udp_from("10.9.0.100", FOREIGN, V4)
    for kind in ("nft", "legacy"):
        for step, commands in (("restored", [[f"iptables-{kind}-restore"]]),
                               ("flushed", [[f"iptables-{kind}", "-t", table, what]
                                            for table in ("raw", "nat", "filter")
                                            for what in ("-F", "-X")])):
            for command in commands:
                text = RESTORE if command[0].endswith("restore") else None
                node.exec(*command, text=text)
            drain(server)
            foreign.send(b"foreign")
            ours.send(b"ours")
            got = [received(server, lab.ANSWER_S), received(server, 0.05)]
            words = driver.must("verify")["value"]
            tap.check(got == [b"ours", None] and not words, f"iptables-{kind}: {step}",
                      f"{got} {words}")
        saved = node.exec(f"iptables-{kind}-save", check=False)
        tap.check("saru" not in saved, f"iptables-{kind}-save does not save our rules", saved)


def bridge(net, tap):
    """The NIC is a bridge, and bridged packets pass iptables too (bridge-nf-call-iptables)"""
    node = net.node(own_addresses=False)
    node.ip("link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
    node.ip("link", "set", "e0", "master", "br0")
    node.ip("link", "set", "br0", "up")
    node.ip("addr", "add", "10.9.0.11/16", "dev", "br0")
    driver = net.driver(node, "--nic", "br0")
    driver.must("open")
    driver.must("link 600")
    driver.must("apply even 600000")
    # A second member behind the first one's bridge, as a virtual machine on it would be.
    guest = net.space("g")
    guest.ip("link", "add", "e0", "address", "02:00:00:00:00:05", "type", "veth", "peer", "name",
             "tap", "netns", node.name)
    node.ip("link", "set", "tap", "master", "br0", "up")
    guest.ip("link", "set", "e0", "up")
    guest.ip("addr", "add", "10.9.0.15/16", "dev", "e0")
    second = net.driver(guest)
    second.must("open")
    second.must("link 600")
    second.must("apply odd 600000")
    servers = [net.server(node, socket.SOCK_DGRAM, V4), net.server(guest, socket.SOCK_DGRAM, V4)]
    even = net.udp_from("10.9.0.100", OWN, V4)
    odd = net.udp_from("10.9.0.100", FOREIGN, V4)
    # A module in Debian's kernels, built in elsewhere.
    lab.run("modprobe", "br_netfilter", check=False)
    node.sysctl("net.bridge.bridge-nf-call-iptables", 0)
    net.learn()

    def arrived(wait_s):
        for server in servers:
            drain(server)
        even.send(b"even")
        odd.send(b"odd")
        return [received(servers[0], lab.ANSWER_S), received(servers[1], wait_s)]

    got = arrived(lab.ANSWER_S)
    tap.check(got == [b"even", b"odd"], "each member gets its own packets", got)
    node.sysctl("net.bridge.bridge-nf-call-iptables", 1)
    got = arrived(2 * lab.SILENCE_S)
    tap.check(got[0] == b"even", "with bridge-nf the member that is the bridge does, too", got)
    tap.check(got[1] is None, "a member behind it does not (docs/neighbours.md says what to do)",
              got)
    sources = net.switch.exec("bridge", "fdb", "show")
    tap.check(SHARED_MAC not in sources, "the shared MAC stays hidden", sources)


if __name__ == "__main__":
    lab.main(put_back, settings, lost, proxy_arp, chains, iptables, bridge)
