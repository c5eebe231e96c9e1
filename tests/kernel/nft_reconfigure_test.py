# SPDX-License-Identifier: GPL-2.0-or-later
"""From one configuration to another under traffic: every packet meets one of them, whole, and an
address is never open without its gate."""
import socket
import threading
import time

import lab
from lab import V4, V6, drain, received

MORE4, MORE6 = "10.9.0.2", "fd09::2"
SOURCES = {V4: "10.9.0.100", V6: "fd09::64", MORE4: "10.9.0.100", MORE6: "fd09::64"}
BOTH = f"{V4},{V6}"
CHANGES = 2 * int(30 / lab.SLOW)


class Sender:
    """Datagrams from client ports to an address, as fast as this thread can, until told to end."""

    def __init__(self, net, target, ports):
        self.clients = [net.udp_from(SOURCES[target], port, target) for port in ports]
        self.sent, self.going = 0, True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while self.going:
            for client in self.clients:
                try:
                    client.send(b"x")
                    self.sent += 1
                except OSError:
                    pass
            time.sleep(0.0002)

    def end(self):
        self.going = False
        self.thread.join()
        return self.sent


def neighbour(net, target):
    net.client.ip("neigh", "replace", target, "lladdr", lab.SHARED_MAC, "dev", "e0", "nud",
                  "permanent")


def start(net, *options):
    node = net.node()
    driver = net.driver(node, *options)
    driver.must("open")
    driver.must("link 60")
    for target in SOURCES:
        neighbour(net, target)
    return node, driver


def count(server):
    got = 0
    while received(server, lab.SILENCE_S) is not None:
        got += 1
    return got


def blocks_change(net, tap, *options):
    """512 blocks become 256 and back under traffic"""
    node, driver = start(net, *options)
    driver.must("apply 0-255 60000")
    servers = {target: net.server(node, socket.SOCK_DGRAM, target) for target in (V4, V6)}
    mine = [Sender(net, target, [2000]) for target in servers]
    other = [Sender(net, target, [40000]) for target in servers]
    for round_number in range(CHANGES):
        blocks = 256 if round_number % 2 == 0 else 512
        driver.must(f"reconfigure 0-{blocks // 2 - 1} 60000 --blocks {blocks}")
    sent = sum(one.end() for one in mine)
    foreign = sum(one.end() for one in other)
    got = sum(count(server) for server in servers.values())
    tap.check(got == sent > 100 and foreign > 100,
              f"{CHANGES} changes, all of {sent} packets of the owned half accepted, none of "
              f"{foreign} others", got)
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() finds no difference", words)


def blocks_change_twins(net, tap):
    """The same where a second copy of the tables protects them"""
    blocks_change(net, tap, "--twins")


def addresses_change(net, tap):
    """Addresses come and go under traffic: served with their gate, never open without"""
    node, driver = start(net)
    driver.must("apply 0-255 60000")
    driver.must("watch")
    servers = {target: net.server(node, socket.SOCK_DGRAM, target) for target in SOURCES}
    stays = Sender(net, V4, [2000])
    foreign = [Sender(net, target, [40000]) for target in (MORE4, MORE6)]
    news = []
    for _ in range(20):
        for more in (f",{MORE4},{MORE6}", ""):
            driver.must(f"reconfigure 0-255 60000 --address {BOTH}{more}")
            # Read as sarud reads; the notices of many changes are more than the socket holds.
            news += driver.must("news 5")["news"]
    sent = stays.end()
    others = sum(one.end() for one in foreign)
    got = count(servers[V4])
    tap.check(got == sent, f"all of {sent} packets to the address that stays are accepted", got)
    got = count(servers[MORE4]) + count(servers[MORE6])
    tap.check(got == 0 and others > 100, f"none of {others} foreign ones to those that come and go",
              got)
    news += driver.must("news 300")["news"]
    tap.check(news == [], "our own changes are no news", news)
    driver.must(f"reconfigure 0-255 60000 --address {MORE4},{MORE6}")
    for target in SOURCES:
        drain(servers[target])
        net.udp_from(SOURCES[target], 2001, target).send(b"x")
        there = received(servers[target], lab.SILENCE_S * 2) is not None
        tap.check(there == (target in (MORE4, MORE6)),
                  f"{target} is {'served' if target in (MORE4, MORE6) else 'gone'}")
    words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
    tap.check(words == [], "verify() finds no difference", words)


def subnets_change(net, tap):
    """The way to an address's subnet goes with the last address in it"""
    node, driver = start(net)

    def ways():
        return sorted(line.split()[0] for line in node.ip("route").splitlines() if "saru1" in line)

    for addresses, wanted in (
            ("10.77.0.1/24,10.77.0.2/24,10.78.0.1/24", ["10.77.0.0/24", "10.78.0.0/24"]),
            ("10.77.0.2/24,10.79.0.1/24", ["10.77.0.0/24", "10.79.0.0/24"]),
            ("fd09::1", [])):
        driver.must(f"reconfigure none 60000 --address {addresses}")
        tap.check(ways() == wanted, f"{addresses}: {wanted}", ways())


def families_change(net, tap):
    """The first address of a family comes and the last one goes: no other address with them"""
    node = net.node()
    driver = lab.Driver(net, node, "--address", V4)
    driver.must("open")
    driver.must("link 60")
    for target in (V4, V6):
        neighbour(net, target)
    for addresses in (BOTH, V6, BOTH, V4, BOTH):
        driver.must(f"reconfigure all 60000 --address {addresses}")
        words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
        listed = node.ip("-o", "addr", "show", "dev", "saru1").splitlines()
        tap.check(words == [] and len(listed) == len(addresses.split(",")), addresses,
                  "\n".join(words + listed))
    for target in (V4, V6):
        server = net.server(node, socket.SOCK_DGRAM, target)
        net.udp_from(SOURCES[target], 2001, target).send(b"x")
        tap.check(received(server, lab.ANSWER_S) is not None, f"{target} is served")


def refusals(net, tap):
    """What cannot be: a sentence, and the old configuration stays in force"""
    _, driver = start(net)
    driver.must("apply 0-255 60000")
    for options, words in (("--blocks 500", "cannot be cut in 500 blocks"),
                           (f"--address {V4},{V4}", "an address is given twice"),
                           (f"--address {V4},10.9.0.11", "10.9.0.11 is on e0 of this node")):
        answer = driver.ask(f"reconfigure 0-3 60000 {options}")
        tap.check(words in answer.get("error", ""), f"{options}: {words}", answer)
    words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
    tap.check(words == [] and driver.must("read")["count"] == 256, "goes on as before", words)


def undoing_refused(net, tap):
    """A change that fails half way, and whose undoing the kernel refuses: written anew later on"""
    node, driver = start(net)
    driver.must("apply 0-255 60000")
    driver.must("before-write ip link delete saru1")
    driver.must("refuse-from-write 2")
    answer = driver.ask(f"reconfigure 0-127 60000 --blocks 256 --address {V4},{MORE6}")
    tap.check("error" in answer, "the link is gone before it has its new address", answer)
    words = driver.ask("apply 0-255 60000")
    tap.check("not permitted" in words.get("error", ""), "the kernel refuses everything", words)
    driver.must("refuse-no-more")
    tap.check(driver.must("apply 0-255 60000")["count"] == 256, "the old number of blocks is held")
    driver.must("link 60")
    words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
    rules = node.exec("nft", "list", "table", "inet", "saru_1")
    tap.check(words == [] and V6 in rules, "with the old addresses", "\n".join(words + [rules]))
    server = net.server(node, socket.SOCK_DGRAM, V6)
    net.udp_from(SOURCES[V6], 2001, V6).send(b"x")
    tap.check(received(server, lab.ANSWER_S) is not None, f"{V6} is served")


def undoing_refused_by_rules_alone(net, tap):
    """The table cannot be put back, the addresses could: none comes back without its gate"""
    node, driver = start(net, "--plain")  # so that the name of the twin is free
    driver.must("apply 0-255 60000")
    # Once the new table is in force, its new address is found to be taken, and somebody else has a
    # table that is in the way of building ours anew.
    taken = f"ip address add {MORE4}/32 dev lo"
    table = "add table inet saru_1_live { flags owner; }"
    holder = f"(echo '{table}'; sleep 3) | nft -i >/dev/null 2>&1 &"
    driver.must(f"before-write {taken}; {holder} sleep 0.5")
    answer = driver.ask(f"reconfigure 0-255 60000 --address {V4},{MORE4}")
    tap.check(f"{MORE4} is on lo" in answer.get("error", ""), "the change fails", answer)
    rules = node.exec("nft", "list", "table", "inet", "saru_1")
    listed = node.ip("-o", "addr", "show", "dev", "saru1")
    tap.check(MORE4 in rules and V6 not in rules, "the kernel still has the new table", rules)
    tap.check(V6 not in listed and V4 in listed, f"{V6}, which it does not guard, stays away",
              listed)
    time.sleep(3)
    node.ip("address", "del", f"{MORE4}/32", "dev", "lo")
    tap.check(driver.must("apply 0-255 60000")["count"] == 256, "the old table is back")
    driver.must("mend 60")
    words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
    listed = node.ip("-o", "addr", "show", "dev", "saru1")
    tap.check(words == [] and V6 in listed, "and then the old addresses",
              "\n".join(words + [listed]))


if __name__ == "__main__":
    lab.main(blocks_change, blocks_change_twins, addresses_change, subnets_change, families_change,
             refusals, undoing_refused, undoing_refused_by_rules_alone)
