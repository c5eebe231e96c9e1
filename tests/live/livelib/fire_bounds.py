# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a block may go without an owner, by the formulas of ARCHITECTURE.md.

They hold on a machine that has time for its nodes; a run reports every figure beside its bound."""

DRIFT, GUARD_S = 0.01, 0.005  # guarded() of agent/core: what a wait is longer than the lease
# Two rounds of messages and three kernel writes for a new view, with a machine shared by all nodes.
VIEW_S = 0.5
# sarud looks once a second at what the kernel does not announce.
LOOK_S = 1.0
# knet needs two pongs at the rig's ping interval before it uses a link again; Totem looks for
# other rings every 200 ms (`merge`).
LINK_S = 0.5
# Pacemaker where it has to start instances again: election after dc-deadtime (2 s), join, probe,
# start, and sarud's own wait for the lease of its predecessor.
PACEMAKER_S = 15.0


def guarded(wait_s):
    return wait_s * (1 + DRIFT) + GUARD_S


class Bounds:
    """All in seconds, for the token, consensus and lease that are in force."""

    def __init__(self, detection_s, lease_s, sync_s=0.0, lag_s=0.0):
        """Of a quorum device, 0 where there is none: sync_s is how long a new ring waits for it,
        lag_s how long its vote may go on counting where it is lost (quorum.device.timeout)."""
        self.detection = detection_s
        self.lease = lease_s
        self.planned = VIEW_S
        self.mended = LOOK_S + VIEW_S
        # Of an owner that is gone: its lease runs out, the others have a new view by then.
        self.lost = max(detection_s, guarded(lease_s)) + VIEW_S
        self.device = sync_s > 0
        if self.device:
            # The half that is left is quorate only then, and that quorum must last so long.
            self.lost = detection_s + sync_s + guarded(1.5 * lease_s + lag_s) + VIEW_S
        # Rings that find each other again, and blocks that nobody had: quorate_since starts anew.
        self.rejoined = LINK_S + detection_s + self.lost
        self.pacemaker = PACEMAKER_S

    def slept(self, hold_s):
        """It woke before the others took its blocks, closed, and they wait once more. One node and
        a device take no blocks of a process that sleeps: it might be granted more elsewhere."""
        if self.device:
            return hold_s + self.lost
        return min(hold_s, self.lost) + self.lost

    def no_quorum(self, hold_s):
        """Nobody may serve while it lasts. Pacemaker has stopped the instances meanwhile."""
        return hold_s + self.rejoined + self.pacemaker
