# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that a document shows: taken out of it, loaded on the nodes, and their counters read."""
import json
import re

from livelib.cluster import REPO, LiveError


def listing(document, name):
    """The text between "```nft NAME" and the next fence of docs/DOCUMENT."""
    with open(f"{REPO}/docs/{document}", encoding="utf-8") as file:
        found = re.findall(rf"^```nft {name}\n(.*?)^```$", file.read(), re.M | re.S)
    if len(found) != 1:
        raise LiveError(f"docs/{document} has {len(found)} listings called '{name}'")
    return found[0]


def load(cluster, text, nodes=None):
    """Loads the rules as an administrator's file would be."""
    for node in nodes or cluster.living():
        cluster.run(node, "sh", "-c", 'printf %s "$1" >/etc/site.nft && nft -f /etc/site.nft', "sh",
                    text)


def unload(cluster, *tables):
    for node in cluster.living():
        for table in tables:
            cluster.run(node, "nft", "delete", "table", "inet", table)


def counted(cluster, chain, first, table="site"):
    """{line: {node: packets}}; the chain's first rule is line `first`."""
    found = {}
    for node in cluster.living():
        said = json.loads(cluster.run(node, "nft", "-j", "list", "chain", "inet", table,
                                      chain).stdout)["nftables"]
        rules = [one["rule"]["expr"] for one in said if "rule" in one]
        for i, rule in enumerate(rules):
            packets = next(part["counter"]["packets"] for part in rule if "counter" in part)
            found.setdefault(i + first, {})[node] = packets
    return found


def grown(before, after, line):
    """By how much each node's counter of that line grew; nodes where it did not are left out."""
    return {node: count - before[line][node] for node, count in after[line].items()
            if count != before[line][node]}
