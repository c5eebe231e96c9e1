# SPDX-License-Identifier: GPL-2.0-or-later
"""The network of lab.py with a second LAN behind it, for a director's inside.

    client c ──► br0 (outside) ──► e0 + saru1   n1, n2: directors
                                   e1 + saru1i ◄── br1 (inside) ◄── host h, whose gateway is the
                                                                    inside address
"""
from lab import V4, V6

INSIDE_MAC = "02:5a:72:01:00:01"
GATEWAY = {4: "10.2.0.1", 6: "fd02::1"}
HOST = {4: "10.2.0.10", 6: "fd02::a"}
SHARED = {4: V4, 6: V6}


def raw(mac):
    return bytes.fromhex(mac.replace(":", ""))


def plug(net, space, bridge, name, port, mac):
    """Another interface of this space, at a port of this bridge."""
    space.ip("link", "add", name, "address", mac, "type", "veth", "peer", "name", port, "netns",
             net.switch.name)
    net.switch.ip("link", "set", port, "master", bridge, "up")
    space.ip("link", "set", name, "up")


def make_inside(net):
    """The second LAN and the host on it."""
    net.switch.ip("link", "add", "br1", "type", "bridge")
    net.switch.ip("link", "set", "br1", "up")
    host = net.space("h")
    plug(net, host, "br1", "e0", "hi", "02:00:00:00:01:64")
    host.ip("addr", "add", f"{HOST[4]}/24", "dev", "e0")
    host.ip("addr", "add", f"{HOST[6]}/64", "dev", "e0", "nodad")
    host.ip("route", "add", "default", "via", GATEWAY[4])
    host.ip("route", "add", "default", "via", GATEWAY[6])
    return host


def director(net, number=1, *options, own_addresses=True):
    node = net.node(number, own_addresses)
    plug(net, node, "br1", "e1", f"i{number}", f"02:00:00:00:01:0{number}")
    if own_addresses:
        node.ip("addr", "add", f"10.2.0.2{number}/24", "dev", "e1")
        node.ip("addr", "add", f"fd02::2{number}/64", "dev", "e1", "nodad")
    driver = net.driver(node, "--inside-nic", "e1", "--inside-address", GATEWAY[4] + "/24",
                        "--inside-address", GATEWAY[6] + "/64", *options)
    driver.must("open")
    driver.must("link 600")
    driver.must("inside-link 600")
    if not own_addresses:  # the addresses outside have no prefix, so no way to their subnet either
        node.ip("route", "add", "10.9.0.0/16", "dev", "saru1")
        node.ip("route", "add", "fd09::/64", "dev", "saru1")
    return node, driver
