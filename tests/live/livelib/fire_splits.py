# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the network: splits of the switch and of the ring, and loss in one direction."""
import random
import time

from livelib import qdevice
from livelib.fire_faults import Fault, between


def splits(nodes):
    """Every way to cut these nodes in two parts or more; the part with the client comes first."""
    parts_of = [[]]
    for node in nodes:
        wider = []
        for parts in parts_of:
            wider.append([*parts, [node]])
            wider += [parts[:i] + [[*parts[i], node]] + parts[i + 1:] for i in range(len(parts))]
        parts_of = wider
    return [sorted(parts, key=lambda part: (-len(part), part)) for parts in parts_of
            if len(parts) > 1]


def deck(nodes, seed):
    """All splits in the order of their turns: those in two parts come first."""
    ways = splits(nodes)
    random.Random(seed).shuffle(ways)
    return sorted(ways, key=lambda parts: len(parts) > 2)


class Split(Fault):
    """The nodes are cut in parts. All splits have had their turn before one comes again."""

    def set_up(self, draw, turn):
        count = len(splits(self.nodes))
        self.parts = deck(self.nodes, f"{self.seed} {self.kind} deck {turn // count}")[turn % count]
        self.quorate = 2 * len(self.parts[0]) > len(self.nodes)
        self.halves = 2 * len(self.parts[0]) == len(self.nodes)  # a quorum device chooses
        self.brief = draw.random() < 0.5
        self.seconds = between(draw, 0.05, 1.5) if self.brief else between(draw, 0.5, 4)
        self.held = self.seconds
        self.split = " | ".join(" ".join(part) for part in self.parts)
        settles = not self.brief and (self.quorate or self.halves)
        self.text = f"{self.split}, {'settled + ' if settles else ''}{self.seconds} s"

    def cut(self, field):
        raise NotImplementedError

    def inject(self, field):
        began = time.monotonic()
        self.cut(field)
        if self.halves and field.cluster.qdevice:
            self.quorate = True
        if self.quorate and not self.brief:
            part = qdevice.chosen(field.cluster) if self.halves else self.parts[0]
            field.settled(part, f"{' '.join(part)} to own every block")
        field.hold(self.seconds)
        self.held = time.monotonic() - began

    def bound(self, bounds):
        if not self.quorate:
            return bounds.no_quorum(self.held)
        # Healed before the quorate part had taken the rest: all starts anew from there.
        return bounds.lost + (bounds.rejoined if self.brief else 0)


class Partition(Split):
    kind = "partition"
    about = "the switch breaks in parts (every split); the client stays with the largest"

    def cut(self, field):
        for part in self.parts[1:]:
            field.cluster.rig("cut", *part)

    def heal(self, field):
        field.cluster.rig("heal")


def ring_address(node):
    return f"10.77.0.{node[1:]}"


def from_to(nodes):
    """The two rules that cut the ring between this node and those."""
    addresses = ", ".join(ring_address(node) for node in nodes)
    return [("input", f"ip saddr {{ {addresses} }}"), ("output", f"ip daddr {{ {addresses} }}")]


class RingSplit(Split):
    kind = "ring-split"
    about = "the same for Corosync's packets alone: every node still hears every client"

    def cut(self, field):
        field.drop({node: from_to([other for other in self.nodes if other not in part])
                    for part in self.parts for node in part})

    def heal(self, field):
        field.pass_all(self.nodes)


class OneWayLoss(Fault):
    kind = "one-way-loss"
    about = "a node does not hear the ring, is not heard, does not hear one other, or loses a third"
    ways = ("deaf", "mute", "deaf to one", "loses a third")

    def set_up(self, draw, turn):
        self.way = self.ways[turn % len(self.ways)]
        self.other = draw.choice(self.others())
        self.seconds = between(draw, 0.2, 8)
        whom = f" ({self.other})" if self.way == "deaf to one" else ""
        self.text = f"{self.node} {self.way}{whom} for {self.seconds} s"

    def inject(self, field):
        rules = {"deaf": ("input", ""), "mute": ("output", ""),
                 "deaf to one": ("input", f"ip saddr {ring_address(self.other)}"),
                 "loses a third": ("input", "numgen random mod 3 == 0")}
        field.drop({self.node: [rules[self.way]]})
        field.hold(self.seconds)

    def heal(self, field):
        field.pass_all([self.node])

    def bound(self, bounds):
        # Totem finds no lasting ring while not everybody hears everybody whom somebody hears.
        return self.seconds + bounds.rejoined
