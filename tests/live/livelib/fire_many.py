# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of several nodes at once: what no quorum survives, or what may meet by chance."""
import signal
import threading
import time

from livelib.cluster import LiveError
from livelib.fire_faults import (CorosyncSleeps, Fault, Flush, MacvlanDeleted, NicDown, NodeSleeps,
                                 SarudDies, SarudSleeps, between)
from livelib.fire_splits import OneWayLoss


class AllSleep(Fault):
    kind = "pause-all"
    about = "every process of every node stops for 50 ms to 10 s; they wake one by one"

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 10)
        self.order = draw.sample(self.nodes, len(self.nodes))
        self.text = f"for {self.seconds} s, awake in the order {' '.join(self.order)}"

    def inject(self, field):
        for node in self.nodes:
            field.send_signal(node, signal.SIGSTOP)
        field.hold(self.seconds)

    def heal(self, field):
        for node in self.order:
            field.send_signal(node, signal.SIGCONT)

    def bound(self, bounds):
        return bounds.no_quorum(self.seconds)


class Blackout(Fault):
    kind = "blackout"
    about = "power loss of all nodes; they boot again together"

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 3)
        self.text = f"for {self.seconds} s"
        self.held = 0.0

    def inject(self, field):
        began = time.monotonic()
        field.crash(*self.nodes)
        field.hold(self.seconds)
        self.held = time.monotonic() - began

    def heal(self, field):
        began = time.monotonic()
        field.boot(*self.nodes)
        self.held += time.monotonic() - began

    def bound(self, bounds):
        return bounds.no_quorum(self.held)


class TwoAtOnce(Fault):
    kind = "two-at-once"
    about = "two of the other faults on two nodes, one within 3 s of the other"
    ones = (SarudSleeps, CorosyncSleeps, NodeSleeps, SarudDies, NicDown, OneWayLoss, Flush,
            MacvlanDeleted)

    def set_up(self, draw, turn):
        nodes = draw.sample(self.nodes, 2)
        self.parts = [draw.choice(self.ones)(f"{self.seed} {turn}", self.nodes, draw.randrange(8),
                                             node) for node in nodes]
        self.delay_s = between(draw, 0.01, 3)
        self.text = (f"{self.parts[0].kind} {self.parts[0].text}; {self.delay_s} s later "
                     f"{self.parts[1].kind} {self.parts[1].text}")
        self.held = 0.0

    def inject(self, field):
        began = time.monotonic()
        errors = []

        def act(part, delay_s):
            try:
                field.hold(delay_s)
                try:
                    part.inject(field)
                finally:
                    part.heal(field)
            except LiveError as error:
                errors.append(error)
        second = threading.Thread(target=act, args=(self.parts[1], self.delay_s))
        second.start()
        act(self.parts[0], 0)
        second.join()
        self.held = time.monotonic() - began
        if errors:
            raise errors[0]

    def bound(self, bounds):
        return bounds.no_quorum(self.held)
