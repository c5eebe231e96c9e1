# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of our tables in a ruleset that somebody saves and loads again, as docs/kernels.md
says: nft refuses the file as it is; what can be loaded by force never opens an address longer."""
import os
import re
import signal
import socket
import subprocess
import time

import lab
from lab import V4, V6, drain, received

HERE = os.path.dirname(os.path.abspath(__file__))
ADMIN = """table inet firewall {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 22 accept
	}
}
"""
# The command of docs/kernels.md that saves what is not ours.
SAVE = r"nft list ruleset | sed '/^table [a-z0-9]* saru_/,/^}/d'"
SOURCES = {V4: "10.9.0.100", V6: "fd09::64"}
# A header's bytes without a type, looked up in a set that has one: nft prints this, and refuses it.
UNTYPED = re.compile(r"@(th|nh),\d+,\d+ [^@]*@\w+")


def load(space, text, *options, zone="UTC"):
    """nft's exit code and what it says."""
    done = subprocess.run(["ip", "netns", "exec", space.name, "env", f"TZ={zone}", "nft", *options,
                           "-f", "-"], input=text, text=True, capture_output=True, timeout=60)
    return done.returncode, done.stderr


def open_node(net, *options):
    node = net.node()
    driver = net.driver(node, *options)
    driver.must("open")
    driver.must("link 60")
    net.learn()
    return node, driver


def renamed(text):
    """nft takes no chain whose name is one of its words."""
    return re.sub(r"\b(goto|chain) (icmp|icmpv6)\b", r"\1 \2_", text)


def refused_lines(space, text):
    """The lines that nft refuses, found by leaving them out one group after the other."""
    lines, refused = renamed(text).splitlines(), set()
    for _ in range(30):
        code, said = load(space, "\n".join(lines) + "\n", "-c")
        if code == 0:
            return refused
        numbers = {int(number) - 1 for number in re.findall(r"/dev/stdin:(\d+):", said)}
        if not numbers:
            raise RuntimeError(f"nft refuses, but no line: {said}")
        refused |= {lines[number] for number in numbers}
        lines = [line for number, line in enumerate(lines) if number not in numbers]
    raise RuntimeError("nft goes on refusing")


def forced(text, refused):
    """A listing mended until nft loads it: other chain names, without refused lines and owner."""
    lines = [line for line in renamed(text).splitlines() if line not in refused]
    text = "\n".join(lines) + "\n"
    return re.sub(r" # progname .*\n\tflags owner", "", text)


def expires_s(listing):
    """What is left of the timed elements, by the listing."""
    found = re.search(r"expires ((?:\d+(?:ms|[dhms]))+)", listing)
    unit_s = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(number) * unit_s[unit]
               for number, unit in re.findall(r"(\d+)(ms|[dhms])", found[1])) if found else None


def comparable(listing):
    listing = re.sub(r"(timeout|expires) (\d+(ms|[dhms]))+", r"\1 D", listing)
    return [line for line in listing.splitlines() if line.strip()]


def as_it_is(net, tap):
    """A saved ruleset with our tables is refused whole; without them it loads"""
    node, driver = open_node(net)
    driver.must("apply even 60000")
    node.exec("nft", "-f", "-", text=ADMIN)
    saved = node.exec("nft", "list", "ruleset")
    empty = net.space("e")
    code, said = load(empty, saved)
    left = empty.exec("nft", "list", "ruleset")
    tap.check(code != 0 and left == "", "nft refuses the file, and loads nothing of it", left)
    lines = saved.splitlines()
    ours = [number for number in re.findall(r"/dev/stdin:(\d+):", said)
            if lines[int(number) - 1] not in ADMIN]
    tap.check(len(ours) > 0, "because of lines of our tables", said)
    code, said = load(node, "flush ruleset\n" + saved)
    words = driver.must("verify")["value"]
    tap.check(code != 0 and words == [] and "firewall" in node.exec("nft", "list", "tables"),
              "neither where sarud runs: nothing is flushed, ours stand as before", words)
    kept = node.exec("sh", "-c", SAVE)
    code, said = load(empty, kept)
    left = empty.exec("nft", "list", "ruleset")
    tap.check(code == 0 and left == ADMIN, "what the documented command saves can be loaded", left)
    with open(os.path.join(HERE, "..", "..", "docs", "kernels.md"), encoding="utf-8") as file:
        tap.check(SAVE in file.read(), "docs/kernels.md has that command", SAVE)


def survives(net, tap):
    """Loaded by force: which parts come back and which do not"""
    node, driver = open_node(net, "--blocks", "16")
    end_s = driver.must("apply 0-2,15 90000")["deadline_ns"] / 1e9
    net.udp_from("10.9.0.100", 100, V4).send(b"x")
    saved = node.exec("env", "TZ=UTC", "nft", "list", "table", "inet", "saru_1")
    empty = net.space("e")
    refused = refused_lines(empty, saved)
    tap.check(len(refused) > 0 and all(UNTYPED.search(line) for line in refused),
              f"{len(refused)} rules are refused: they look up untyped bytes of a header", refused)
    owned = "flags owner" in saved
    tap.check(owned == (lab.best_protection() == "owner persist"),
              "nft prints an owner where there is one, and does not know 'persist'", saved)
    if owned:
        code, said = load(empty, "\n".join(line for line in renamed(saved).splitlines()
                                           if line not in refused) + "\n")
        left = empty.exec("nft", "list", "ruleset")
        tap.check(code == 0 and left == "", "with 'flags owner': gone when that nft ends",
                  f"{said}\n{left}")
    time.sleep(2 * lab.SLOW)
    text = forced(saved, refused)
    code, said = load(empty, text)
    again = empty.exec("env", "TZ=UTC", "nft", "list", "table", "inet", "saru_1")
    tap.check(code == 0 and comparable(again) == comparable(text),
              "all other lines come back: sets, comments, counters, the tproxy rule",
              f"{said}\n{again}")
    tap.check("counter accepted {\n\t\tpackets 1 " in again, "with the counters' old values", again)
    found = re.search(r'meta time >= "([^"]*)"', again)
    told = time.strptime(found[1], "%Y-%m-%d %H:%M:%S") if found else None
    told_s = time.mktime(told) - time.timezone if told else 0
    tap.check(end_s - 1 - 0.1 * lab.SLOW < told_s <= end_s,
              "the end of the lease comes back, cut to a whole second", (found and found[1], end_s))
    before, after = expires_s(saved), expires_s(again)
    tap.check(before and after and before - lab.SLOW < after <= before,
              "the timed elements start again: they end later than they would have",
              (before, after))
    empty.exec("nft", "flush", "ruleset")
    tap.check(empty.exec("nft", "list", "tables") == "", "it has no owner: anybody can flush it")


def masks(net, tap):
    """The table that hides the shared MAC: comes back where the interfaces are"""
    node, _ = open_node(net)
    saved = node.exec("nft", "list", "table", "netdev", "saru_1")
    text = forced(saved, ())
    second = net.node(2)
    code, said = load(second, text)
    if lab.kernel() >= (6, 16):
        tap.check(code == 0, "it loads without the interface saru1 (Linux 6.16)", said)
        second.exec("nft", "flush", "ruleset")
    else:
        tap.check(code != 0 and second.exec("nft", "list", "tables") == "",
                  "without the interface saru1 the whole file is refused (before Linux 6.16)", said)
    second.ip("link", "add", "saru1", "link", "e0", "type", "macvlan")
    code, said = load(second, text)
    again = second.exec("nft", "list", "table", "netdev", "saru_1")
    tap.check(code == 0 and comparable(again) == comparable(text), "with it, line by line", again)


def reach(net, servers, ports):
    """Which datagrams come in, of one from each port to each address."""
    got = set()
    for target, server in servers.items():
        drain(server)
        for port in ports:
            net.udp_from(SOURCES[target], port, target).send(str(port).encode())
        while (data := received(server, lab.SILENCE_S)) is not None:
            got.add((target, int(data)))
    return got


def closed(net, tap):
    """Loaded by force on a node whose sarud has died: closed when the lease would have ended"""
    node, driver = open_node(net)
    servers = {target: net.server(node, socket.SOCK_DGRAM, target) for target in (V4, V6)}
    ours, foreign = 8 * lab.BLOCK_SIZE, 9 * lab.BLOCK_SIZE
    empty = net.space("e")
    driver.must("apply even 60000")
    refused = refused_lines(empty, node.exec("nft", "list", "table", "inet", "saru_1"))
    end_s = driver.must(f"apply even {int(3000 * lab.SLOW)}")["deadline_ns"] / 1e9
    text = forced(node.exec("env", "TZ=UTC", "nft", "list", "table", "inet", "saru_1"), refused)
    driver.end(signal.SIGKILL)
    node.exec("nft", "flush", "ruleset")
    tap.check("saru" not in node.exec("nft", "list", "tables"),
              "the tables of a dead process can be flushed by anybody")
    got = reach(net, servers, (ours, foreign))
    tap.check(len(got) == 4, "(control: then the addresses are open until they run out)", got)
    code, said = load(node, text)
    now_s = time.time()
    got = reach(net, servers, (ours, foreign))
    tap.check(code == 0 and not any(port == foreign for _, port in got),
              f"loaded {end_s - now_s:.1f} s before its end: other nodes' blocks stay out",
              f"{said} {got}")
    time.sleep(max(0.0, end_s - time.time()))
    got = reach(net, servers, (ours, foreign))
    tap.check(not got, "closed when the lease ends, though the timed elements would go on", got)
    load(node, "flush ruleset\n" + text)
    got = reach(net, servers, (ours, foreign))
    left_s = expires_s(node.exec("nft", "list", "table", "inet", "saru_1"))
    tap.check(not got and left_s, "loaded after that: closed from the start, by the rule alone",
              (got, left_s))
    # nft reads times as those of the zone that it runs in; here the rule's end is hours away.
    load(node, "flush ruleset\n" + text, zone="Etc/GMT+5")
    began_s = time.time()
    time.sleep(max(0.0, began_s + expires_s(text) - time.time()))
    got = reach(net, servers, (ours, foreign))
    tap.check(not got, "loaded in another time zone: closed by the timed elements alone", got)
    again = net.driver(node)
    again.must("open")
    again.must("link 60")
    words = again.must("verify")["value"]
    tap.check(words == [] and not reach(net, servers, (ours, foreign)),
              "the next sarud replaces it, closed", words)


def into_running(net, tap):
    """Loaded by force where sarud runs: refused where the tables have an owner that persists; the
    twin keeps packets out where they have not"""
    node, driver = open_node(net)
    driver.must("apply even 60000")
    server = {V4: net.server(node, socket.SOCK_DGRAM, V4)}
    given_up, ours = 8 * lab.BLOCK_SIZE, 9 * lab.BLOCK_SIZE
    text = node.exec("nft", "list", "table", "inet", "saru_1")
    text = forced(text, refused_lines(net.space("e"), text))
    driver.must("apply odd 60000")
    code, said = load(node, "flush ruleset\n" + text)
    got = reach(net, server, (given_up, ours))
    tap.check((V4, given_up) not in got, "it opens no block that the node has given up", got)
    words = driver.must("verify")["value"]
    if lab.best_protection() == "owner persist":
        tap.check(code != 0 and "Operation not permitted" in said and words == [],
                  "the kernel refuses it whole", f"{said} {words}")
    else:
        tap.check(code == 0 and any("saru_1" in word for word in words),
                  "it is taken for the table without an owner, and verify() says so",
                  f"{said} {words}")
    driver.must("rebuild odd 60000")
    words = driver.must("verify")["value"]
    tap.check(words == [] and reach(net, server, (given_up, ours)) == {(V4, ours)},
              "rebuild() puts it right", words)


if __name__ == "__main__":
    lab.main(as_it_is, survives, masks, closed, into_running)
