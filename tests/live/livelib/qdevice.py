# SPDX-License-Identifier: GPL-2.0-or-later
"""The quorum device of a rig as tests see and disturb it: `rig up --qdevice`."""
from livelib.cluster import LiveError

ARBITER = "arbiter"
TABLE = "part"
QNETD = "corosync-qnetd"
CLIENT = "corosync-qdevice"
START = (f"rm -f /run/{QNETD}/*; setsid -f {QNETD} -f -s off </dev/null >>/var/log/qnetd.out 2>&1")


def part(cluster, here, there):
    """The switch loses every frame between these machines and those; all else goes on."""
    rules = " ".join(f'add rule bridge {TABLE} forward iifname "{one}" oifname "{other}" drop;'
                     for a in here for b in there for one, other in ((a, b), (b, a)))
    switch(cluster, f"add table bridge {TABLE}; add chain bridge {TABLE} forward "
           f"{{ type filter hook forward priority 0; }}; {rules}")


def join(cluster):
    """Ends what part() began, all of it."""
    switch(cluster, f"delete table bridge {TABLE}")


def switch(cluster, script):
    cluster.finish(["ip", "netns", "exec", f"{cluster.name}-lan", "nft", script], 20, True,
                   f"switch: nft {script}")


def kill_qnetd(cluster):
    cluster.run(ARBITER, "pkill", "-KILL", "-x", QNETD)


def start_qnetd(cluster):
    cluster.run(ARBITER, "sh", "-c", START)


def kill_client(cluster, node):
    """The corosync-qdevice of this node: its corosync counts the last vote for `timeout` more."""
    cluster.run(node, "pkill", "-KILL", "-x", CLIENT[:15])  # as the kernel names it


def start_client(cluster, node):
    cluster.run(node, "/run/saru-rig/start-node.sh", "no")  # starts what does not run


def votes(cluster, node):
    """{"quorate": bool, "votes": int, "expected": int} as this node's Corosync counts; None."""
    done = cluster.run(node, "corosync-quorumtool", "-s", timeout=20, check=False)
    said = {line.partition(":")[0]: line.partition(":")[2].split()
            for line in done.stdout.splitlines()}
    try:
        return {"quorate": said["Quorate"] == ["Yes"], "votes": int(said["Total votes"][0]),
                "expected": int(said["Expected votes"][0])}
    except (KeyError, IndexError, ValueError):
        return None


def await_votes(cluster, count, seconds=60):
    """Until every node counts so many."""
    def agreed():
        return all((votes(cluster, node) or {}).get("votes") == count for node in cluster.nodes)
    cluster.wait(agreed, seconds, f"every node to count {count} votes")


def chosen(cluster, seconds=60):
    """The nodes that are quorate, once that is exactly one side of the two."""
    def decided():
        said = {node: votes(cluster, node) for node in cluster.nodes}
        if None in said.values():
            return None
        sides = [node for node, one in said.items() if one["quorate"]]
        return sides if 0 < len(sides) < len(cluster.nodes) else None
    found = cluster.wait(decided, seconds, "the quorum device to choose one side")
    if not found:
        raise LiveError("the quorum device chose nobody")
    return found
