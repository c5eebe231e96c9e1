# SPDX-License-Identifier: GPL-2.0-or-later
"""The quorum device: a machine `arbiter` that runs corosync-qnetd, and its client on every node.

Without TLS: what is tested here is whom it lets serve, not who may ask it. Its address is on the
nodes' network, so that a cut node loses it too."""
from riglib import machine, switch
from riglib.state import RigError

NAME = "arbiter"
# How long a node waits for the arbiter: while the ring is whole, and while it forms anew (nothing
# is delivered meanwhile). Corosync's own are 10 s and 30 s. The first is long enough for a vote
# that has gone to count for longer than two leases.
TIMEOUT_MS, SYNC_TIMEOUT_MS = 8000, 10000
START = ("rm -f /run/corosync-qnetd/*; mkdir -p /run/corosync-qnetd; "
         "setsid -f corosync-qnetd -f -s off </dev/null >>/var/log/qnetd.out 2>&1")

# ffsplit: of two halves exactly one gets the vote.
CONF = """\
  device {{
    model: net
    votes: 1
    timeout: {timeout}
    sync_timeout: {sync_timeout}
    net {{
      host: {host}
      algorithm: ffsplit
      tie_breaker: lowest
      tls: off
    }}
  }}
"""


def conf(config):
    """What corosync.conf says of it in the section quorum."""
    if not config["qdevice"]:
        return ""
    v4, v6, _ = switch.plan(NAME)
    return CONF.format(timeout=TIMEOUT_MS, sync_timeout=SYNC_TIMEOUT_MS,
                       host=v4 if config["ip_version"] == 4 else v6)


def start(rig):
    """Starts corosync-qnetd; returns once it listens."""
    pid = machine.living_pid(rig, NAME)
    code, _ = machine.query(pid, ["sh", "-c", START], 20)
    if code != 0:
        raise RigError(f"corosync-qnetd could not be started; log: {rig.dir}/{NAME}/log/qnetd.out")


def problem(rig, nodes):
    """Why the device does not vote on each of these nodes yet; None when it does."""
    for name in nodes:
        _, text = machine.query(machine.living_pid(rig, name), ["corosync-quorumtool", "-s"])
        said = {line.partition(":")[0]: line.partition(":")[2].split()
                for line in text.splitlines()}
        if "Qdevice" not in said.get("Flags", []):
            return f"{name} has no quorum device"
        if said.get("Total votes") != said.get("Expected votes"):
            return f"the quorum device does not vote on {name}"
    return None
