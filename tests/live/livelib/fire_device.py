# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the quorum device; drawn only where the rig has one. All nodes together are quorate
without it, so none of these may interrupt anything."""
from livelib import qdevice
from livelib.fire_faults import Fault, between


class DeviceFault(Fault):
    needs_device = True

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 15)
        self.text = f"for {self.seconds} s"

    def bound(self, bounds):
        return bounds.planned

    @staticmethod
    def votes_again(field):
        qdevice.await_votes(field.cluster, len(field.cluster.nodes) + 1)


class DeviceDies(DeviceFault):
    kind = "device-dies"
    about = "kill -9 of corosync-qnetd; started again after 50 ms to 15 s"

    def inject(self, field):
        qdevice.kill_qnetd(field.cluster)
        field.hold(self.seconds)

    def heal(self, field):
        qdevice.start_qnetd(field.cluster)
        self.votes_again(field)


class DeviceLost(DeviceFault):
    kind = "device-lost"
    about = "a node and the quorum device do not hear each other for 50 ms to 15 s"

    def set_up(self, draw, turn):
        super().set_up(draw, turn)
        self.text = f"{self.node} {self.text}"

    def inject(self, field):
        qdevice.part(field.cluster, [self.node], [qdevice.ARBITER])
        field.hold(self.seconds)

    def heal(self, field):
        qdevice.join(field.cluster)
        self.votes_again(field)
