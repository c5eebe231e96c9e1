# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections move from one director to another: read by events on the one, carried as records,
made on the other, where nothing new is let through."""
import re
import socket
import threading
import time

import lab
from flows_lab import (Field, LABEL, MARK, OUT, Ping, SERVER, Store, UDP_LITE, ZONE, both_ways,
                       stream, talks)

STREAM = 1000  # times 50 kB


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
    there = {flow["key"]: flow for flow in field.dump("b")}
    for name in ("dnat", "snat", "mark", "scales", "tcp_state", "assured"):
        tap.check(all(key in there and there[key][name] == flow[name]
                      for key, flow in store.items()), f"b has them with their {name}", there)
    tap.check({flow["mark"] for flow in store.values()} == {MARK}
              and max(flow["scales"] for flow in store.values()) > [0, 0]
              and sum(flow["dnat"] is not None for flow in store.values()) >= 7,
              "which they have", list(store.values()))
    labels = [flow["labels"][0] for flow in field.dump("b")]
    tap.check(labels and all(one == 1 << LABEL for one in labels), "and with their labels", labels)
    zones = [flow["zone"] for flow in field.dump("b")]
    tap.check([1, ZONE] in zones and [0, 0] in zones, "and in their zones", zones)
    tap.note(f"bytes of a record: {sorted(flow['size'] for flow in store.values())}")


def what_is_left_behind_breaks_it(net, tap):
    """Without a record nothing goes on; with the entry of the first time, TCP does not come back"""
    field = Field(net)
    unknown, stale, replaced = (field.connect(4, OUT[4], 80) for _ in range(3))
    tap.check(all(both_ways(pair) for pair in (unknown, stale, replaced)), "TCP passes a")
    field.refuse_new()
    store = Store().take(field.events("a"))
    for one in unknown + stale:
        one.settimeout(2 * lab.SLOW)
    field.through("b")
    tap.check(not both_ways(unknown), "nothing goes on at b before it is told")
    field.drivers["b"].must("inject " + store.records())
    # A MB each way: beyond any window that a has seen.
    tap.check(all(both_ways(pair) for _ in range(20) for pair in (stale, replaced)),
              "it does when b is told, while a still has it")
    field.through("a")
    tap.check(not both_ways(stale), "a does not let it go on where it was left")
    store.take(field.events("b"))
    outcome = field.drivers["a"].must("inject " + store.records())
    tap.check(outcome["replaced"] >= 2 and outcome["done"] == len(store)
              and outcome["failed"] == 0, "a is told, in the place of what it has", outcome)
    tap.check(both_ways(replaced), "then it goes on")


def what_is_under_way_goes_on(net, tap):
    """Streams in both directions, of which much is on its way at each move"""
    field = Field(net)
    pairs = [field.connect(4, OUT[4], 80), field.connect(4, SERVER[4], 8080)]
    tap.check(all(both_ways(pair) for pair in pairs), "TCP passes a")
    field.refuse_new()
    store = Store().take(field.events("a"))
    arrived = []
    threads = [threading.Thread(target=lambda ends=ends: arrived.append(stream(*ends, STREAM)))
               for one, other in pairs for ends in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    moves, failed = 0, 0
    for source, target in (("a", "b"), ("b", "a")) * 10:
        if all(not thread.is_alive() for thread in threads):
            break
        failed += field.drivers[target].must("inject " + store.records())["failed"]
        field.through(target)
        field.drivers[source].must("remove " + " ".join(store))
        moves += 1
        time.sleep(0.05)
    for thread in threads:
        thread.join(60 * lab.SLOW)
    tap.check(failed == 0 and moves >= 3, f"moved {moves} times meanwhile", failed)
    tap.check(arrived == [True] * len(threads), "all of it arrives", arrived)


def one_zone_for_each_direction(net, tap):
    """A zone that only the original direction has"""
    field = Field(net)
    pair = field.connect(4, OUT[4], 80, 7008)
    begun = {"TCP with a zone of one direction": lambda: both_ways(pair)}
    field.refuse_new()
    store = Store()
    for source, target in (("a", "b"), ("b", "a")):
        for name, good in move(field, tap, begun, store, source, target).items():
            tap.check(good, f"{name} goes on from {source} to {target}")
    zones = [flow["zone"] for flow in store.values()]
    tap.check(zones == [[2, ZONE + 1]], "which the record has", zones)


def events_say_who(net, tap):
    """Events carry the port of the writer that caused them, or none"""
    field = Field(net)
    field.connect(4, OUT[4], 80)
    seen = field.events("a")
    tap.check([one["change"] for one in seen] == ["new", "update", "update"]
              and not any(one["port"] for one in seen), "packets have none", seen)
    tap.check(seen[-1]["tcp_state"] == 3 and seen[-1]["assured"] and seen[-1]["seen_reply"]
              and seen[-1]["dnat"] == [SERVER[4], 8080] and seen[-1]["snat"] is None,
              "they say what became of it", seen[-1])
    key, value = seen[-1]["key"], seen[-1]["value"]
    driver, port = field.drivers["b"], field.ports["b"]
    for command, changes, replaced in ((f"inject {key}:{value}", ["new"], 0),
                                       (f"inject {key}:{value}", ["gone", "new"], 1),
                                       (f"remove {key}", ["gone"], 0),
                                       (f"remove {key}", [], 0)):
        outcome = driver.must(command)
        tap.check(outcome == {"done": 1, "replaced": replaced, "failed": 0, "first_error": ""},
                  f"{command[:6]} succeeds", outcome)
        events = field.events("b")
        tap.check([one["change"] for one in events] == changes
                  and all(one["port"] == port and one["key"] == key for one in events),
                  f"and is told as {changes}, by its writer", events)
    tap.check(driver.must(f"current {key}")["flow"] is None, "there is none any more")
    driver.must(f"inject {key}:{value}")
    current = driver.must(f"current {key}")["flow"]
    tap.check(current["key"] == key and current["dnat"] == [SERVER[4], 8080]
              and current["assured"], "what was made can be read", current)


def what_the_kernel_refuses(net, tap):
    """What cannot be made is counted, and the rest is made"""
    field = Field(net)
    pair = field.connect(4, SERVER[4], 8080)
    flow = field.events("a")[-1]
    tap.check(flow["snat"] is not None and flow["snat"][0] == "10.8.0.1", "TCP with SNAT", flow)
    driver = field.drivers["b"]
    # The same translated source for another client's port: two tuples of replies would be one.
    other_key = flow["key"][:18] + f"{flow['source_port'] ^ 1:04x}" + flow["key"][22:]
    outcome = driver.must(f"inject {flow['key']}:{flow['value']} {other_key}:{flow['value']}")
    tap.check(outcome["done"] == 1 and outcome["failed"] == 1
              and "another connection has the tuple of its replies" in outcome["first_error"],
              "one of two with one tuple of replies is made", outcome)
    helped = f"{int(flow['value'][:2], 16) | 0x40:02x}" + flow["value"][2:] + "04" + b"none".hex()
    # The same without SNAT: its address and port are behind TCP's two bytes.
    helped_alone = f"{int(helped[:2], 16) & ~8:02x}" + helped[2:8] + helped[20:]
    outcome = driver.must(f"inject {flow['key']}:{helped}")
    tap.check(outcome["done"] == 1 and outcome["replaced"] == 1 and outcome["failed"] == 0
              and "no conntrack helper none" in outcome["first_error"],
              "without a helper that there is not", outcome)
    made = driver.must(f"current {flow['key']}")["flow"]
    tap.check(made["helper"] == "" and made["snat"] == flow["snat"], "but with all else", made)
    many = " ".join(f"{flow['key'][:18]}{port:04x}{flow['key'][22:]}:{helped_alone}"
                    for port in range(1000, 1300))
    outcome = driver.must(f"inject {many}")
    tap.check(outcome["done"] == 300 and outcome["failed"] == 0
              and "no conntrack helper none" in outcome["first_error"], "so are many", outcome)
    del pair


def what_is_missed_is_told(net, tap):
    """A receive buffer that is too small: the loss is reported, once"""
    field = Field(net, 4096)
    maker = lab.Driver(net, field.nodes["a"])
    maker.must("open")
    maker.must("make 2000")
    answer = field.drivers["a"].must("count-events 100")
    tap.check(answer["lost"] and 0 < answer["seen"] < 2000, "lost", answer)
    maker.must("unmake 1")
    answer = field.drivers["a"].must("count-events 100")
    tap.check(not answer["lost"] and answer["seen"] == 1, "and then no more", answer)
    answer = maker.must("count-events 100")
    tap.check(not answer["lost"] and answer["carried"] == 2001, "a large buffer has them all",
              answer)


def listed(text):
    """(protocol, source, destination, source port, destination port) of each line of conntrack."""
    found = set()
    for line in text.splitlines():
        if line.split()[0] == "unknown":
            continue
        one = dict(reversed(re.findall(r"(src|dst|sport|dport|id|type)=(\S+)", line)))
        port = int(one.get("sport", one.get("id", 0)))
        target = int(one["dport"]) if "dport" in one else int(one["type"]) << 8
        found.add((int(line.split()[1]), one["src"], one["dst"], port, target))
    return found


def a_dump_has_all(net, tap):
    """A dump has what conntrack lists, and nothing of other protocols"""
    field = Field(net)
    for goes_on in kinds(field).values():
        goes_on()
    raw = field.client.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    raw.sendto(b"unknown", (SERVER[4], 0))
    raw.close()
    node = field.nodes["a"]
    for version in (4, 6):
        text = node.exec("conntrack", "-L", "-f", f"ipv{version}")
        if version == 4:
            tap.check("unknown  253" in text, "conntrack lists one of an unknown protocol", text)
        there = {(one["protocol"], one["source"], one["destination"], one["source_port"],
                  one["destination_port"]) for one in field.dump("a")
                 if (":" in one["source"]) == (version == 6)}
        tap.check(there == listed(text) and len(there) >= 4, f"IPv{version}", (there, text))
    tap.check(not any(one["protocol"] == 253 for one in field.events("a")),
              "nor do events tell of it")
    driver = field.drivers["a"]
    driver.must("make 20000")
    answer = driver.must("count-dump")
    tap.check(answer["count"] == 20000 + len(field_flows(field)), "and of many", answer)


def field_flows(field):
    return [one for one in field.dump("a") if not one["source"].startswith("203.")]


def nothing_grows(net, tap):
    """Making, reading and removing many, over and over"""
    field = Field(net)
    driver, count = field.drivers["a"], 20000

    def round_of():
        made = driver.must(f"make {count}")
        again = driver.must(f"make {count}")
        events = driver.must("count-events 100")
        dumped = driver.must("count-dump")
        gone = driver.must(f"unmake {count}")
        driver.must("count-events 100")
        good = (made["done"] == again["replaced"] == gone["done"] == count
                and dumped["count"] == count and events["carried"] == 3 * count
                and not events["lost"])
        return good, made["ms"], again["ms"], gone["ms"], dumped["ms"], events["ms"] / 3

    rounds = [round_of(), round_of()]
    before = driver.must("memory")["kib"]
    rounds += [round_of() for _ in range(4)]
    after = driver.must("memory")["kib"]
    tap.check(all(one[0] for one in rounds), f"{count} flows each time", rounds)
    tap.check(after - before < 1024, "this process stays as large as it was", (before, after))
    best = [min(column) for column in list(zip(*rounds))[1:]]
    tap.note("per 100000 flows, with a listener: make {:.0f} ms, replace {:.0f}, remove {:.0f}, "
             "dump {:.0f}, events {:.0f}".format(*(ms * 100000 / count for ms in best)))


lab.main(connections_go_on, what_is_left_behind_breaks_it, what_is_under_way_goes_on,
         one_zone_for_each_direction, events_say_who, what_the_kernel_refuses,
         what_is_missed_is_told, a_dump_has_all, nothing_grows, tools=["conntrack"])
