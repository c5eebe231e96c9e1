# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections move from one director to another: read by events on the one, carried as records, made
on the other, where nothing new is let through."""
import lab
from flows_lab import (Field, LABEL, MARK, OUT, Ping, SERVER, Store, UDP_LITE, ZONE, both_ways,
                       talks)


def kinds(field):
    """{name: (connections, whether it goes on)}: one of each kind, begun through a."""
    begun = {}

    def tcp(name, *where):
        pair = field.connect(*where)
        begun[name] = lambda: both_ways(pair)

    for version in (4, 6):
        tcp(f"IPv{version} TCP with DNAT", version, OUT[version], 80)
        tcp(f"IPv{version} TCP with SNAT", version, SERVER[version], 8080)
        datagrams = field.udp(version)
        begun[f"IPv{version} UDP with DNAT"] = lambda it=datagrams: talks(it)
        ping = Ping(field, version)
        begun[f"IPv{version} ICMP echo with DNAT"] = ping.answered
    tcp("TCP in a zone", 4, OUT[4], 80, 7007)
    lite = field.udp(4, 54, UDP_LITE)
    begun["UDP-Lite with DNAT"] = lambda: talks(lite)
    return begun


def move(field, tap, begun, store, source, target, remove=True, inject=True):
    """What a planned move does: events to the end, records made there, then the packets, then away
    with it here."""
    store.take(field.events(source))
    if inject:
        outcome = field.drivers[target].must("inject " + store.records())
        tap.check(outcome["failed"] == 0 and outcome["done"] == len(store)
                  and outcome["first_error"] == "", f"{len(store)} flows are made at {target}",
                  outcome)
    field.through(target)
    if remove:
        outcome = field.drivers[source].must("remove " + " ".join(store))
        tap.check(outcome["done"] == len(store) and outcome["failed"] == 0,
                  f"and removed from {source}", outcome)
    return {name: goes_on() for name, goes_on in begun.items()}


def connections_go_on(net, tap):
    """Every kind of connection goes on from a to b and back, with what rules have put on it"""
    field = Field(net)
    begun = kinds(field)
    for name, goes_on in begun.items():
        tap.check(goes_on(), f"{name} passes a")
    field.refuse_new()
    store = Store()
    for source, target in (("a", "b"), ("b", "a"), ("a", "b")):
        gone_on = move(field, tap, begun, store, source, target)
        for name, good in gone_on.items():
            tap.check(good, f"{name} goes on from {source} to {target}")
    carried = {(flow["key"], flow["dnat"] and tuple(flow["dnat"]), flow["mark"])
               for flow in field.dump("b")}
    tap.check(all((key, flow["dnat"] and tuple(flow["dnat"]), MARK) in carried
                  for key, flow in store.items()), "b has them with NAT and mark", carried)
    labels = [flow["labels"][0] for flow in field.dump("b")]
    tap.check(labels and all(one == 1 << LABEL for one in labels), "and with their labels", labels)
    zones = [flow["zone"] for flow in field.dump("b")]
    tap.check([1, ZONE] in zones and [0, 0] in zones, "and in their zones", zones)
    tap.note(f"bytes of a record: {sorted(flow['size'] for flow in store.values())}")


def main():
    lab.main(connections_go_on)


main()
