# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that are planted: each breaks what the audit guards, so a run with one of them must fail.
tidy() mends what is left, once the audit has had its chance to notice."""
import signal

from livelib import blocks as blocks_of
from livelib.cluster import ADDRESS
from livelib.fire_faults import LINK, Fault


class Plant(Fault):
    def tidy(self, field):
        pass


class TwoOwners(Plant):
    kind = "plant-two-owners"
    about = "sarud dead, its rules gone, the address left open for good: must be seen twice"

    def inject(self, field):
        field.kill(self.node, "sarud")
        field.shell(self.node, f"nft delete table inet {blocks_of.TABLE}; ip addr change "
                    f"{ADDRESS}/32 dev {LINK} valid_lft forever preferred_lft forever")
        field.hold(1)


class Orphans(Plant):
    kind = "plant-orphans"
    about = "every node is drained and nothing is healed: blocks without an owner"
    recovery_s = 8

    def inject(self, field):
        for node in self.nodes:
            field.cluster.saructl(node, "drain")

    def tidy(self, field):
        for node in self.nodes:
            field.cluster.saructl(node, "undrain")


class Abort(Plant):
    kind = "plant-abort"
    about = "sarud ends by SIGABRT, as by a failed check, and Pacemaker hides it"

    def inject(self, field):
        field.kill(self.node, "sarud", signal.SIGABRT)
        # The kernel is open until its lease ends, so nothing is wrong yet; Pacemaker then hides it.
        field.cluster.wait(lambda: field.cluster.sarud_status(self.node), 60,
                           f"Pacemaker to start sarud on {self.node} again")


class Leak(Plant):
    kind = "plant-leak"
    about = "an interface stays behind"
    calm_s = 2

    def inject(self, field):
        field.shell(self.node, "ip link add left type veth peer name over")

    def tidy(self, field):
        field.shell(self.node, "ip link del left")
