# SPDX-License-Identifier: GPL-2.0-or-later
"""Directors: every node forwards, with NAT, between the outside (eth0) and servers inside (eth1).

    client 10.77.0.250 ──┬── eth0   n1 n2 n3   eth1 ──┬── s1 10.79.1.1
                         │   both addresses are       └── s2 10.79.1.2
       outside 10.77.0.100   shared by all nodes          default gateway 10.79.0.100, nothing else

NAT is the administrator's own nftables table, loaded at each boot as Debian would load it."""
import json
import os

from livelib.cluster import ADDRESS, LiveError

OUTSIDE, OUTSIDE6 = ADDRESS, "fd77::100"
INSIDE, INSIDE6 = "10.79.0.100", "fd79::100"
CLIENT, CLIENT6 = "10.77.0.250", "fd77::250"
HELD_PORT, STREAM_PORT, OUT_PORT = 7000, 7100, 7200

# A connection that conntrack does not know is never adopted: it would get another server.
SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.netfilter.nf_conntrack_tcp_loose": 0,
}

# The servers take turns. What is not to be forwarded, is not: neither side gets past a director
# by its own routing. Line by line in docs/director.md.
RULES = """
table inet director
delete table inet director
table inet director {
  chain services {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.77.0.100 tcp dport { 80, 7000, 7100 } \
      dnat ip to numgen inc mod 2 map { 0 : 10.79.1.1, 1 : 10.79.1.2 }
    ip daddr 10.77.0.100 udp dport 7 \
      dnat ip to numgen inc mod 2 map { 0 : 10.79.1.1, 1 : 10.79.1.2 }
    ip6 daddr fd77::100 tcp dport { 80, 7000 } \
      dnat ip6 to numgen inc mod 2 map { 0 : fd79::1:1, 1 : fd79::1:2 }
  }
  chain outgoing {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.79.0.0/16 ip daddr != 10.79.0.0/16 snat ip to 10.77.0.100
    ip6 saddr fd79::/64 ip6 daddr != fd79::/64 snat ip6 to fd77::100
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct status dnat ct state new accept
    ip saddr 10.79.0.0/16 ip daddr != 10.79.0.0/16 ct state new accept
    ip6 saddr fd79::/64 ip6 daddr != fd79::/64 ct state new accept
  }
}
"""

# Watches the switch: what a node sends for the client or for the servers, each node has a set.
# Whatever two nodes send alike within two seconds was forwarded twice; what TCP sends once more has
# another IP id.
JUDGE = "director_judge"


def put(cluster, machine, path, text, mode="0644"):
    """Writes a file inside a machine; it survives a crash as a disk does."""
    script = 'printf %s "$1" >"$2.new" && chmod "$3" "$2.new" && mv "$2.new" "$2" && sync -f "$2"'
    cluster.run(machine, "sh", "-c", script, "sh", text, path, mode)


def prepare(cluster, rules=RULES):
    """What the administrator sets up once, on all machines; then it is in force at each boot."""
    sysctls = "".join(f"sysctl -qw {key}={value}\n" for key, value in SYSCTLS.items())
    for node in cluster.nodes:
        put(cluster, node, "/etc/director.nft", rules)
        # The table first: it loads conntrack, whose sysctls exist only then.
        put(cluster, node, "/etc/rig-boot",
            f"#!/bin/sh\nset -e\nnft -f /etc/director.nft\n{sysctls}", "0755")
        cluster.run(node, "/etc/rig-boot")
    for server in cluster.servers:
        cluster.run(server, "ip", "route", "replace", "default", "via", INSIDE)
        cluster.run(server, "ip", "-6", "route", "replace", "default", "via", INSIDE6)


def create_words(connections="sync", *more):
    return ["pcs", "resource", "create", "web", "ocf:saru:SharedIP",
            f"ip={OUTSIDE},{OUTSIDE6}", "nic=eth0", f"inside_ip={INSIDE},{INSIDE6}",
            "inside_nic=eth1", f"connections={connections}", *more, "clone"]


def switch(cluster, *argv, check=True):
    """A command in the switch's network namespace."""
    return cluster.finish(["ip", "netns", "exec", f"{cluster.name}-lan", *argv], 20, check,
                          "switch: " + " ".join(argv))


class Judge:
    """Counts packets that two nodes forwarded. It knows ports by name: a boot changes nothing."""

    # Not by whom it is sent to: two directors may choose two servers. UDP often has the id 0; the
    # first 8 bytes of data are the number of the probe. IPv6 has no id; TCP's clock tells as well.
    KINDS = {
        "tcp": ("ip protocol tcp", "ip saddr . ip id . tcp sport . tcp sequence . tcp ackseq"),
        "udp": ("ip protocol udp", "ip saddr . udp sport . udp dport . @th,64,64"),
        "icmp": ("ip protocol icmp", "ip saddr . ip id . icmp type . icmp sequence"),
        "tcp6": ("ip6 nexthdr tcp", "ip6 saddr . tcp sport . tcp sequence . tcp ackseq . "
                 "tcp option timestamp tsval"),
    }

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.totals = {kind: [0, 0] for kind in self.KINDS}
        path = os.path.join(folder, "judge.nft")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.ruleset())
        switch(cluster, "nft", "-f", path)

    def ruleset(self):
        """One set per node and kind. Looked at is what comes from a shared address for the client,
        and what goes to a server: both have passed a director."""
        nodes = self.cluster.nodes
        sets, chains = "", ""
        for node in nodes:
            chains += f"  chain {node} {{\n"
            for kind, (match, key) in self.KINDS.items():
                sets += (f"  set {kind}_{node} {{ typeof {key}; flags dynamic,timeout; "
                         "size 262144; timeout 2s; }\n")
                chains += f"    {match} counter name {kind}_seen\n"
                for other in nodes:
                    if other != node:
                        chains += f"    {match} {key} @{kind}_{other} counter name {kind}_twice\n"
                chains += f"    {match} update @{kind}_{node} {{ {key} }}\n"
            chains += "  }\n"
        for kind in self.KINDS:
            sets += f"  counter {kind}_seen {{ }}\n  counter {kind}_twice {{ }}\n"
        verdicts = ", ".join(f"{node} : goto {node}, {node}i : goto {node}" for node in nodes)
        return (f"table bridge {JUDGE} {{\n{sets}{chains}  chain ports {{\n"
                f"    iifname vmap {{ {verdicts} }}\n  }}\n"
                "  chain watch {\n    type filter hook prerouting priority 0; policy accept;\n"
                f"    ip saddr {OUTSIDE} ip daddr {CLIENT} goto ports\n"
                "    ip daddr 10.79.1.0/24 goto ports\n"
                f"    ip6 saddr {OUTSIDE6} ip6 daddr {CLIENT6} goto ports\n"
                "    ip6 daddr fd79::1:0/112 goto ports\n  }\n}\n")

    def counted(self):
        """{kind: (forwarded, forwarded twice)} since the beginning. Read by `reset`: of a table
        whose sets are full, nft 1.0.6 cannot list anything."""
        said = json.loads(switch(self.cluster, "nft", "-j", "reset", "counters", "table", "bridge",
                                 JUDGE).stdout)
        for one in said["nftables"]:
            if "counter" in one:
                kind, _, what = one["counter"]["name"].partition("_")
                self.totals[kind][what == "twice"] += one["counter"]["packets"]
        return {kind: tuple(both) for kind, both in self.totals.items()}

    def problem(self):
        """Why it is not content; None when something was forwarded, and nothing twice."""
        counted = self.counted()
        if any(twice for _, twice in counted.values()):
            return f"forwarded twice: {counted}"
        return None if counted["tcp"][0] else f"nothing was forwarded: {counted}"


# One director without saru: the topology itself.

def plain(cluster, node, add):
    """The shared addresses as plain ones of that node, or no longer."""
    verb = "add" if add else "del"
    for nic, address, address6 in (("eth0", OUTSIDE, OUTSIDE6), ("eth1", INSIDE, INSIDE6)):
        cluster.run(node, "ip", "addr", verb, f"{address}/16", "dev", nic)
        cluster.run(node, "ip", "addr", verb, f"{address6}/64", "dev", nic,
                    *(["nodad"] if add else []))


def both(cluster, nodes):
    """Plants the fault that saru prevents: these nodes have the addresses with one MAC, the switch
    hands each of them every packet, and all forward."""
    for nic, mac, address, asking in (("eth0", "02:0b:00:00:00:01", OUTSIDE, ["client"]),
                                      ("eth1", "02:0b:00:00:00:02", INSIDE, cluster.servers)):
        for node in nodes:
            port = node if nic == "eth0" else f"{node}i"
            switch(cluster, "bridge", "link", "set", "dev", port, "learning", "off")
            for words in (f"link add both-{nic} link {nic} address {mac} type macvlan mode bridge",
                          f"link set both-{nic} up", f"addr add {address}/32 dev both-{nic}"):
                cluster.run(node, "ip", *words.split())
        for machine in asking:
            cluster.run(machine, "ip", "neigh", "replace", address, "lladdr", mac, "dev", "eth0")


def no_longer_both(cluster, nodes):
    for nic, address, asking in (("eth0", OUTSIDE, ["client"]), ("eth1", INSIDE, cluster.servers)):
        for node in nodes:
            cluster.run(node, "ip", "link", "del", f"both-{nic}")
            port = node if nic == "eth0" else f"{node}i"
            switch(cluster, "bridge", "link", "set", "dev", port, "learning", "on")
        for machine in asking:
            cluster.run(machine, "ip", "neigh", "del", address, "dev", "eth0")


def director_of(cluster, kernels, port):
    """The node that forwards connections of this client's port."""
    block = port // 128
    for node, blocks in kernels.items():
        if blocks and block in blocks:
            return node
    raise LiveError(f"block {block} is in no kernel")
