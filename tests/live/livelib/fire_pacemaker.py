# SPDX-License-Identifier: GPL-2.0-or-later
"""A fault of Pacemaker, not of the cluster under test: it loses the result of a stop.

A part without quorum stops its instances. When it finds the others again just then, the node sends
its history to their coordinator while its stop still runs; that history is written after the stop's
result (seen with 2.1.5). Pacemaker then takes an instance for started that it has itself stopped,
and whose monitor it has cancelled: nobody starts it before somebody says `crm_resource --refresh`.
The others serve all blocks meanwhile."""
import re

from livelib.fire_faults import RESOURCE

RESULT = re.compile(rf"Result of (\w+) operation for {RESOURCE} on \w+: (\w+)")


def last_result(lines):
    """(operation, its outcome) that a node's own log of Pacemaker names last; None."""
    found = [RESULT.search(line) for line in lines]
    found = [one.groups() for one in found if one]
    return found[-1] if found else None


def lost_stops(field):
    """The nodes without a sarud that Pacemaker has stopped and takes for started."""
    cluster = field.cluster
    folders = {node["name"]: node["log_dir"] for node in cluster.status()["nodes"]}
    said = cluster.run(cluster.nodes[0], "crm_resource", "--resource", RESOURCE, "--locate").stdout
    started = {line.split()[-1] for line in said.splitlines() if "is running on" in line}
    found = []
    for node in cluster.living():
        if node not in started or field.processes(node, ["sarud"]):
            continue
        with open(f"{folders[node]}/pacemaker/pacemaker.log", encoding="utf-8",
                  errors="replace") as file:
            if last_result(file) == ("stop", "ok"):
                found.append(node)
    return found


def refresh(cluster, node):
    """Makes Pacemaker look at what runs there."""
    cluster.run(cluster.nodes[0], "crm_resource", "--refresh", "--resource", RESOURCE,
                "--node", node, timeout=60)
