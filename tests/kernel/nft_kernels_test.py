# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between the kernels that administrators run, and what we make of it: the lines of
docs/kernels.md."""
import os
import re
import signal
import socket
import time

import lab
from lab import V4, received

TRACING = "/sys/kernel/tracing"


def left_s(listing, element):
    """What is left of a timed element, by nft's listing."""
    found = re.search(rf"\b{element} timeout \S+ expires ((?:\d+(?:ms|[dhms]))+)", listing)
    unit_s = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(number) * unit_s[unit]
               for number, unit in re.findall(r"(\d+)(ms|[dhms])", found[1])) if found else None


def timed_elements(net, tap):
    """A timed element that is added again: a new end since Linux 6.12, the old one before"""
    space = net.space("t")

    def nft(*lines):
        space.exec("nft", "-f", "-", text="\n".join(lines) + "\n")
        return left_s(space.exec("nft", "list", "set", "inet", "t", "s"), 1)

    element = "element inet t s { 1 %s }"
    nft("add table inet t", "add set inet t s { type inet_service; flags timeout; }")
    left = nft("add " + element % "timeout 100s")
    tap.check(left and 90 < left <= 100, "(control: nft tells what is left)", left)
    left = nft("add " + element % "timeout 1000s")
    if lab.kernel() >= (6, 12):
        tap.check(left and 990 < left <= 1000, "added again: the new end (Linux 6.12)", left)
    else:
        tap.check(left and left <= 100, "added again: still the old end (before Linux 6.12)", left)
    left = nft("delete " + element % "", "add " + element % "timeout 2000s")
    tap.check(left and 1990 < left <= 2000,
              "deleted and added in one transaction, as ours are: the new end", left)


def renewed(net, tap):
    """Our renewals lengthen and shorten the lease"""
    node = net.node()
    driver = net.driver(node)
    driver.must("open")
    for lease_ms in (60000, 90000, 30000):
        driver.must(f"apply even {lease_ms}")
        left = driver.must("read")["lease_ms"]
        tap.check(lease_ms - 3000 < left <= lease_ms, f"{lease_ms} ms", left)


def gone_interface(net, tap):
    """A chain of an interface that goes: goes with it before Linux 6.4, stays since"""
    node = net.node()
    driver = net.driver(node)
    driver.must("open")
    driver.must("link 60")
    node.ip("link", "del", "saru1")
    there = "chain link" in node.exec("nft", "list", "table", "netdev", "saru_1")
    stays = lab.kernel() >= (6, 4)
    tap.check(there == stays, f"it {'stays' if stays else 'goes'}", there)
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() minds neither: the link's own check names what is gone", words)
    driver.must("link 60")
    words = driver.must("verify")["value"] + driver.must("verify-link")["value"]
    tap.check(words == [], "made anew with its chain", words)


def inserts(net, blocks):
    """Which of the kernel's kinds of set took the blocks, by the kernel's own trace."""
    traced = f"{TRACING}/instances/{net.switch.name}"

    def write(name, words):
        with open(f"{traced}/{name}", "w", encoding="ascii") as file:
            file.write(words)

    lab.run("mkdir", traced)
    try:
        node = net.node()
        driver = net.driver(node, "--plain", "--blocks", str(blocks))
        driver.must("open")
        write("set_ftrace_filter", "nft_bitmap_insert nft_hash_insert nft_rhash_insert")
        write("set_ftrace_pid", str(driver.pid))
        write("current_tracer", "function")
        driver.must("apply all 60000")
        write("tracing_on", "0")
        with open(f"{traced}/trace", encoding="ascii") as file:
            calls = re.findall(r": (nft_\w+_insert) ", file.read())
    finally:
        lab.run("rmdir", traced)
    kinds = {kind: calls.count(kind) for kind in sorted(set(calls))}
    kinds["nft_rhash_insert"] = kinds.get("nft_rhash_insert", 0) - 2  # the lease, of two families
    return {kind: number for kind, number in kinds.items() if number > 0}


def set_kinds(net, tap):
    """The kernel's choice for the blocks: a bitmap of few, a hash that can grow of many"""
    if "SARU_TRACE" not in os.environ:
        return tap.note("asked in guests only: a kernel may be locked against tracing")
    for blocks, kind in ((16, "nft_bitmap_insert"), (64, "nft_bitmap_insert"),
                         (128, "nft_rhash_insert"), (512, "nft_rhash_insert")):
        got = inserts(net, blocks)
        tap.check(got == {kind: blocks}, f"{blocks} blocks: {kind.split('_')[1]}", got)
        for space in net.spaces[2:]:
            space.ip("link", "del", "e0")
            lab.run("ip", "netns", "del", space.name)
        del net.spaces[2:]
    return None


def flushed_after_death(net, tap):
    """A dead process's tables: left closed; after a foreign flush the addresses run out"""
    node = net.node()
    driver = net.driver(node)
    driver.must("open")
    driver.must("link 2")
    net.learn()
    driver.must("apply even 60000")
    server = net.server(node, socket.SOCK_DGRAM, V4)
    driver.end(signal.SIGKILL)
    left = node.exec("nft", "list", "tables")
    tap.check("table inet saru_1\n" in left and "live" not in left, "one of each is left", left)
    node.exec("nft", "flush", "ruleset")
    tap.check(node.exec("nft", "list", "tables") == "", "they can be flushed")
    end = time.monotonic() + 3 + lab.SLOW
    while time.monotonic() < end and V4 in node.ip("addr", "show", "dev", "saru1"):
        time.sleep(0.05)
    net.udp_from("10.9.0.100", 9 * lab.BLOCK_SIZE, V4).send(b"x")
    tap.check(received(server, lab.SILENCE_S) is None, "after that no packet comes in any more")


if __name__ == "__main__":
    lab.main(timed_elements, renewed, gone_interface, set_kinds, flushed_after_death)
