# SPDX-License-Identifier: GPL-2.0-or-later
"""A second NIC, eth1, on every node: the service there, Corosync on eth0, so that the one can fail
without the other. Both are plugged into the same switch."""

NIC = "eth1"
ADDRESS = "10.78.0.100"
CREATE = ["pcs", "resource", "create", "web", "ocf:saru:SharedIP", f"ip={ADDRESS}", f"nic={NIC}",
          "op", "monitor", "interval=2s", "clone"]


def port(node):
    """The switch's end of the node's second NIC."""
    return f"{node}b"


def switch(cluster, *words):
    argv = ["ip", "-n", f"{cluster.name}-lan", *words]
    return cluster.finish(argv, 20, True, "switch: ip " + " ".join(words))


def plug(cluster, node):
    """Gives the node a second NIC, with the same MAC each time."""
    number = cluster.ids[node]
    switch(cluster, "link", "add", port(node), "type", "veth", "peer", "name", NIC, "address",
           f"02:78:00:00:00:{number:02x}", "netns", str(cluster.pids[node]))
    switch(cluster, "link", "set", port(node), "master", "br0", "up")
    for words in (["addr", "add", f"10.78.0.{number}/24", "dev", NIC], ["link", "set", NIC, "up"]):
        cluster.run(node, "ip", *words)


def plug_all(cluster):
    for node in cluster.nodes:
        plug(cluster, node)
    cluster.run("client", "ip", "addr", "add", "10.78.0.250/24", "dev", "eth0")


def cable(cluster, node, state):
    """"down": the node's NIC loses its carrier; "up": it is back."""
    switch(cluster, "link", "set", port(node), state)


def unplug(cluster, node):
    """The NIC is gone, as a USB or a virtual one would be."""
    switch(cluster, "link", "del", port(node))
