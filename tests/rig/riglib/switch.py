# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch: a namespace NAME-lan with a Linux bridge, one veth port per machine.

A partition is a second bridge: the ports of the nodes that are cut off move there, links stay up,
and nothing joins the two bridges. That is what the failure of a line between two switches looks
like: frames vanish, no node loses its carrier, and each side goes on as a working network.

With `up --inside` there is a third kind of bridge, `inside`: eth1 of every node, and eth0 of the
servers, which are plugged in nowhere else. A cut does not touch it, a crash does.
"""
import contextlib
import os

from riglib.state import RigError, run

NODE_NET = "10.77.0"
SERVER_NET = "10.77.1"
INSIDE_NET = "10.79"
INSIDE_BRIDGE = "inside"
CLIENT_HOST = 250
ARBITER_HOST = 251


def plan(machine):
    """(IPv4, IPv6, MAC) of a machine. The digits are the same in all three: n12 is fd77::12."""
    if machine == "client":
        host, v4_net, v6_net, group = CLIENT_HOST, NODE_NET, "fd77::", 2
    elif machine == "arbiter":
        host, v4_net, v6_net, group = ARBITER_HOST, NODE_NET, "fd77::", 2
    elif machine.startswith("s"):
        host, v4_net, v6_net, group = int(machine[1:]), SERVER_NET, "fd77::1:", 1
    else:
        host, v4_net, v6_net, group = int(machine[1:]), NODE_NET, "fd77::", 0
    return f"{v4_net}.{host}", f"{v6_net}{host}", f"02:77:00:00:{group:02x}:{host:02x}"


def inside_plan(machine):
    """(IPv4, IPv6, MAC) on the inside: n1 is 10.79.0.1 and fd79::1, s1 10.79.1.1 and fd79::1:1."""
    group = 1 if machine[0] == "s" else 0
    host = int(machine[1:])
    v6 = f"fd79::1:{host}" if group else f"fd79::{host}"
    return f"{INSIDE_NET}.{group}.{host}", v6, f"02:79:00:00:{group:02x}:{host:02x}"


def inside_port(machine):
    """The switch's end of what the machine has on the inside."""
    return machine if machine[0] == "s" else f"{machine}i"


def plan_in(rig, machine):
    """The plan of the machine's eth0 in this rig."""
    if machine[0] == "s" and rig.config()["inside"]:
        return inside_plan(machine)
    return plan(machine)


def batch(namespace, commands):
    """Several `ip` commands in one process; any that fails is an error."""
    try:
        run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands) + "\n")
    except RigError as error:
        raise RigError(f"switch {namespace}: {error} (of: {'; '.join(commands)})") from None


def bridge_commands(bridge):
    return [f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {bridge} up"]


def create(rig):
    run(["ip", "netns", "add", rig.switch])
    quiet = "for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done"
    run(["ip", "netns", "exec", rig.switch, "sh", "-c", quiet])
    inside = bridge_commands(INSIDE_BRIDGE) if rig.config()["inside"] else []
    batch(rig.switch, ["link set lo up"] + bridge_commands("br0") + inside)


def attach_many(rig, pids):
    """Gives each machine with this init its NICs, and plugs the other ends in on its side."""
    commands = []
    sides = rig.read_json("sides.json", {})
    inside = rig.config()["inside"]

    def nic(port, name, mac, pid, bridge):
        return [f"link add {port} type veth peer name {name} address {mac} netns {pid}",
                f"link set {port} master {bridge} up"]
    for machine, pid in pids.items():
        bridge = f"br{sides.get(machine, 0)}"
        if inside and machine[0] == "s":
            bridge = INSIDE_BRIDGE
        commands += nic(machine, "eth0", plan_in(rig, machine)[2], pid, bridge)
        if inside and machine[0] == "n":
            commands += nic(inside_port(machine), "eth1", inside_plan(machine)[2], pid,
                            INSIDE_BRIDGE)
    batch(rig.switch, commands)


def ports_of(rig, machine):
    """Its ports on the switch; one of them may be gone."""
    both = rig.config()["inside"] and machine[0] == "n"
    return [machine, inside_port(machine)] if both else [machine]


def unplug(rig, machine):
    """Takes the ports off their bridges: frames vanish at once, and the carrier stays."""
    batch(rig.switch, [f"link set {port} nomaster" for port in ports_of(rig, machine)])


def remove_port(rig, machine):
    """Removes the ports still there; the kernel also does so once the namespace is gone."""
    for port in ports_of(rig, machine):
        with contextlib.suppress(RigError):
            run(["ip", "-n", rig.switch, "link", "del", port])


def ports(rig):
    out = run(["ip", "-n", rig.switch, "-o", "link", "show", "type", "veth"])
    return {line.split(":")[1].strip().split("@")[0] for line in out.splitlines()}


def cut(rig, machines):
    """Moves the ports to a bridge of their own; a machine that is down boots there later."""
    stays = [machine for machine in machines if machine[0] == "s" and rig.config()["inside"]]
    if stays:
        raise RigError(f"cut {' '.join(stays)}: servers of a rig with --inside stay there")
    sides = rig.read_json("sides.json", {})
    side = max(sides.values(), default=0) + 1
    present = ports(rig)
    batch(rig.switch, bridge_commands(f"br{side}")
          + [f"link set {machine} master br{side}" for machine in machines if machine in present])
    sides.update({machine: side for machine in machines})
    rig.write_json("sides.json", sides)


def heal(rig):
    sides = rig.read_json("sides.json", {})
    present = ports(rig)
    moves = [f"link set {machine} master br0" for machine in sides if machine in present]
    if moves:
        batch(rig.switch, moves)
    rig.write_json("sides.json", {})
    out = run(["ip", "-n", rig.switch, "-o", "link", "show", "type", "bridge"])
    extra = [line.split(":")[1].strip() for line in out.splitlines()]
    gone = [f"link del {bridge}" for bridge in extra if bridge not in ("br0", INSIDE_BRIDGE)]
    if gone:
        batch(rig.switch, gone)


def destroy(rig):
    if os.path.exists(f"/run/netns/{rig.switch}"):
        run(["ip", "netns", "del", rig.switch])
