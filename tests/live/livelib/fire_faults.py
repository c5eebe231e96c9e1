# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of one node: one small class per kind, with all that is random about it drawn when it is
made, so that a seed gives the same faults whatever the cluster does. inject() brings it about and
holds it, heal() takes away what does not end by itself; bound() says how long a block may be
without an owner meanwhile."""
import math
import random
import signal

from livelib import blocks as blocks_of
from livelib.cluster import ADDRESS, CREATE, LiveError
from livelib.fire_field import RECOVERY_S, STACK

RESOURCE = CREATE[3]
LINK = "saru1"


def between(draw, low, high):
    """A duration, short ones as likely as long ones; in whole ms, to be read and typed."""
    return round(math.exp(draw.uniform(math.log(low), math.log(high))), 3)


class Fault:
    kind = ""
    about = ""
    needs_device = False

    recovery_s = RECOVERY_S
    calm_s = 20  # until the short-lived children of Pacemaker's monitors have ended

    def __init__(self, seed, nodes, turn, node=None):
        """turn: how many of this kind came before; they do not depend on other kinds."""
        self.seed, self.nodes = seed, nodes
        draw = random.Random(f"{seed} {self.kind} {turn}")
        self.node = node or draw.choice(nodes)
        self.text = self.node
        self.set_up(draw, turn)

    def set_up(self, draw, turn):
        pass

    def others(self):
        return [node for node in self.nodes if node != self.node]

    def inject(self, field):
        raise NotImplementedError

    def heal(self, field):
        pass

    def bound(self, bounds):
        return bounds.lost


class CrashAndBoot(Fault):
    kind = "crash"
    about = "power loss of a node; it boots again"

    def inject(self, field):
        field.crash(self.node)
        field.settled(self.others(), f"the others to take the blocks of {self.node}")

    def heal(self, field):
        field.boot(self.node)


class Reset(Fault):
    kind = "reset"
    about = "power loss of a node that is booting again before the others have noticed"

    def inject(self, field):
        field.crash(self.node)

    def heal(self, field):
        field.boot(self.node)

    def bound(self, bounds):
        return 2 * bounds.lost


class Sleep(Fault):
    """SIGSTOP, and SIGCONT later, as if nothing had happened."""
    processes = ()

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 10)
        self.text = f"{self.node} for {self.seconds} s"

    def inject(self, field):
        field.send_signal(self.node, signal.SIGSTOP, *self.processes)
        field.hold(self.seconds)

    def heal(self, field):
        field.send_signal(self.node, signal.SIGCONT, *self.processes)

    def bound(self, bounds):
        return bounds.slept(self.seconds)


class SarudSleeps(Sleep):
    kind = "pause-sarud"
    about = "sarud stops for 50 ms to 10 s, its Corosync does not"
    processes = ("sarud",)


class CorosyncSleeps(Sleep):
    kind = "pause-corosync"
    about = "Corosync stops for 50 ms to 10 s, sarud does not"
    processes = ("corosync",)


class BothSleep(Sleep):
    kind = "pause-both"
    about = "sarud and Corosync stop for 50 ms to 10 s, Pacemaker does not"
    processes = ("corosync", "sarud")


class NodeSleeps(Sleep):
    kind = "pause-node"
    about = "every process of a node stops for 50 ms to 10 s; its kernel goes on"


class SarudDies(Fault):
    kind = "kill-sarud"
    about = "kill -9 of sarud; Pacemaker starts it again"

    def inject(self, field):
        field.kill(self.node, "sarud")


class CorosyncDies(Fault):
    kind = "kill-corosync"
    about = "kill -9 of Corosync, every second time of Pacemaker too; what died is started again"

    def set_up(self, draw, turn):
        self.pacemaker = turn % 2 == 1
        self.seconds = between(draw, 0.05, 5)
        self.text = (f"{self.node}{' and Pacemaker' * self.pacemaker}, started again "
                     f"{self.seconds} s after the others have its blocks")

    def inject(self, field):
        field.kill(self.node, "corosync")
        if self.pacemaker:
            field.send_signal(self.node, signal.SIGKILL, *STACK)
        field.settled(self.others(), f"the others to take the blocks of {self.node}")
        field.hold(self.seconds)

    def heal(self, field):
        # pacemakerd looks for a Corosync once a second, and starts its daemons anew.
        field.start_stack(self.node, "yes" if self.pacemaker else "no")


class CorosyncStops(Fault):
    kind = "corosync-stop"
    about = "Pacemaker and Corosync of a node are stopped in order, and started again"

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 5)
        self.text = f"{self.node}, started again after {self.seconds} s"

    def inject(self, field):
        field.stop_stack(self.node)
        field.hold(self.seconds)

    def heal(self, field):
        field.start_stack(self.node)

    def bound(self, bounds):
        return bounds.planned


class RollingRestart(Fault):
    kind = "rolling-restart"
    about = "corosync-stop of all nodes, one after the other"

    def set_up(self, draw, turn):
        self.order = draw.sample(self.nodes, len(self.nodes))
        self.text = " ".join(self.order)

    def inject(self, field):
        for node in self.order:
            field.stop_stack(node)
            field.settled([one for one in self.nodes if one != node],
                          f"the others to have the blocks of {node}")
            field.start_stack(node)
            field.settled(self.nodes, f"{node} to get its share again")

    def bound(self, bounds):
        return bounds.planned


class Flush(Fault):
    kind = "flush"
    about = "nft flush ruleset"

    def inject(self, field):
        field.shell(self.node, "nft flush ruleset")  # which spares what another process owns
        field.hold(1)

    def bound(self, bounds):
        return bounds.mended


class RulesDeleted(Fault):
    kind = "rules"
    about = "up to five single rules and elements of our table are deleted, or it is refused"

    def set_up(self, draw, turn):
        self.picks = [draw.random() for _ in range(draw.randint(1, 5))]
        self.text = f"{self.node}, {len(self.picks)} of them"

    def inject(self, field):
        listed = field.shell(self.node, f"nft -a list table inet {blocks_of.TABLE}").stdout
        rules, chain = [], None
        for line in listed.splitlines():
            words = line.split()
            if words[:1] == ["chain"]:
                chain = words[1]
            elif chain and "# handle" in line:
                rules.append(f"rule inet {blocks_of.TABLE} {chain} handle {words[-1]}")
        owned = sorted(blocks_of.read_kernels(field.cluster, [self.node])[self.node] or ())
        rules += [f"element inet {blocks_of.TABLE} owned {{ {block * blocks_of.PORTS} }}"
                  for block in owned[:len(rules)]]
        if not rules:
            raise LiveError(f"{self.node} has no rules to delete")
        refused = 0
        for pick in self.picks:
            words = f"nft 'delete {rules[int(pick * len(rules))]}'"
            done = field.shell(self.node, words, check=False)
            refused += "Operation not permitted" in done.stderr
            known = ("Operation not permitted", "No such file")  # ours alone; picked twice
            if done.returncode != 0 and not any(one in done.stderr for one in known):
                raise LiveError(f"{words} on {self.node}: {done.stderr.strip()}")
        self.text += f", {refused} refused by the kernel"
        field.hold(1)

    def bound(self, bounds):
        return bounds.mended


class LinkBroken(Fault):
    """What others do to our interface."""
    script = ""

    def inject(self, field):
        field.shell(self.node, self.script)
        field.hold(1)

    def bound(self, bounds):
        return bounds.mended


class AddressDeleted(LinkBroken):
    kind = "address"
    about = "the shared address is deleted from its interface"
    script = f"ip addr del {ADDRESS}/32 dev {LINK}"


class MacvlanDeleted(LinkBroken):
    kind = "macvlan"
    about = "the macvlan is deleted"
    script = f"ip link del {LINK}"


class MacvlanDown(LinkBroken):
    kind = "macvlan-down"
    about = "the macvlan is set down"
    script = f"ip link set {LINK} down"


class NicDown(Fault):
    kind = "nic-down"
    about = "ip link set eth0 down, and up after 50 ms to 6 s; the ring and the service are on it"

    def set_up(self, draw, turn):
        self.seconds = between(draw, 0.05, 6)
        self.text = f"{self.node} for {self.seconds} s"

    def inject(self, field):
        field.shell(self.node, "ip link set eth0 down")
        field.hold(self.seconds)

    def heal(self, field):
        field.shell(self.node, "ip link set eth0 up")

    def bound(self, bounds):
        return bounds.slept(self.seconds)


class CarrierLost(NicDown):
    kind = "carrier"
    about = "the switch port of a node is down for 50 ms to 6 s"

    def inject(self, field):
        field.switch("link", "set", self.node, "down")
        field.hold(self.seconds)

    def heal(self, field):
        field.switch("link", "set", self.node, "up")


class Hogs(Fault):
    kind = "hogs"
    about = "four processes that only compute, for 2 to 8 s"
    COUNT = 4

    def set_up(self, draw, turn):
        self.seconds = between(draw, 2, 8)
        self.text = f"{self.node} for {self.seconds} s"

    def inject(self, field):
        loop = f"timeout {self.seconds} sh -c 'while :; do :; done' & "
        field.shell(self.node, self.COUNT * loop + "wait")

    def bound(self, bounds):
        return bounds.planned


class FullRun(Fault):
    kind = "full-run"
    about = "no room in /run of a node; every second time sarud is killed meanwhile"

    def set_up(self, draw, turn):
        self.kills = turn % 2 == 1
        self.seconds = between(draw, 1, 12)
        self.text = f"{self.node} for {self.seconds} s{', and kill -9 of sarud' * self.kills}"

    def inject(self, field):
        field.shell(self.node, """
            used=$(df --output=used -k /run | tail -n 1)
            mount -o remount,size=$((used + 64))k /run
            cat /dev/zero >/run/filler 2>/dev/null || true
            test "$(df --output=avail -k /run | tail -n 1)" -eq 0""")
        if self.kills:
            field.kill(self.node, "sarud")
        field.hold(self.seconds)

    def heal(self, field):
        field.shell(self.node, "rm -f /run/filler; mount -o remount,size=50% /run")
        if self.kills:
            # sarud cannot start without room in /run, and Pacemaker tries once.
            field.hold(2)
            field.cluster.run(self.node, "pcs", "resource", "cleanup", RESOURCE, timeout=60)

    def bound(self, bounds):
        return bounds.lost if self.kills else bounds.planned
