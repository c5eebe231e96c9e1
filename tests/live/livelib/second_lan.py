# SPDX-License-Identifier: GPL-2.0-or-later
"""A second LAN: eth1 of every node and of the client. The service is there, Corosync on eth0, so
that the one can fail without the other."""

NIC = "eth1"
BRIDGE = "second"
CLIENT = 250
ADDRESS = "10.78.0.100"
CREATE = ["pcs", "resource", "create", "web", "ocf:saru:SharedIP", f"ip={ADDRESS}", f"nic={NIC}",
          "op", "monitor", "interval=2s", "clone"]


def port(node):
    """The switch's end of the node's second NIC."""
    return f"{node}b"


def switch(cluster, *words):
    argv = ["ip", "-n", f"{cluster.name}-lan", *words]
    return cluster.finish(argv, 20, True, "switch: ip " + " ".join(words))


def plug(cluster, node, make=0):
    """Gives the machine its second NIC; the MAC is the same each time, unless `make` differs."""
    number = cluster.ids.get(node, CLIENT)
    switch(cluster, "link", "add", port(node), "type", "veth", "peer", "name", NIC, "address",
           f"02:78:00:00:{make:02x}:{number:02x}", "netns", str(cluster.pids[node]))
    switch(cluster, "link", "set", port(node), "master", BRIDGE, "up")
    for words in (["addr", "add", f"10.78.0.{number}/24", "dev", NIC], ["link", "set", NIC, "up"]):
        cluster.run(node, "ip", *words)


def plug_all(cluster):
    switch(cluster, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0",
           "mcast_snooping", "0")
    switch(cluster, "link", "set", BRIDGE, "up")
    for machine in [*cluster.nodes, "client"]:
        plug(cluster, machine)


def cable(cluster, node, state):
    """"down": the node's NIC loses its carrier; "up": it is back."""
    switch(cluster, "link", "set", port(node), state)


def unplug(cluster, node):
    """The NIC is gone, as a USB or a virtual one would be."""
    switch(cluster, "link", "del", port(node))
