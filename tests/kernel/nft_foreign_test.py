# SPDX-License-Identifier: GPL-2.0-or-later
"""What others do to the tables: refused or spared where the kernel can, else noticed and
repaired."""
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time

import lab
from lab import V4, received


def handle_of(node, chain, comment, family="inet"):
    for line in node.exec("nft", "-a", "list", "chain", family, "saru_1", chain).splitlines():
        if comment in line and "# handle " in line:
            return line.rsplit("# handle ", 1)[1].strip()
    raise RuntimeError(f"no rule with comment {comment} in {chain}")


def open_node(net, *options):
    node = net.node()
    driver = net.driver(node, *options)
    opened = driver.must("open")
    driver.must("link 60")
    driver.must("watch")
    driver.must("apply even 60000")
    net.learn()
    return node, driver, opened


def spared(net, tap):
    """With owner and persist: a foreign flush spares the tables, a foreign change is refused"""
    node, driver, opened = open_node(net)
    best = lab.best_protection()
    tap.check(opened["protection"] == best,
              f"this kernel's tables are protected as well as it can: {best}", opened)
    if best != "owner persist":
        return  # twins() tells what it does instead
    node.exec("nft", "flush", "ruleset", check=False)
    words = driver.must("verify")["value"]
    tap.check(words == [], "'nft flush ruleset' changes nothing", words)
    for command in ("delete table inet saru_1", "flush chain inet saru_1 shared",
                    "add element inet saru_1 owned { 128 }", "flush set inet saru_1 address4",
                    "delete table netdev saru_1"):
        node.exec("nft", *command.split(), check=False)
        words = driver.must("verify")["value"]
        tap.check(words == [], f"'nft {command}' changes nothing", words)
    other = net.driver(node)
    answer = other.ask("open")
    tap.check("process" in answer.get("error", "") and "nft_driver" in answer.get("error", "") and
              answer.get("kind") == 3, "a second process of the id is told who has it", answer)
    answer = other.ask("cleanup")
    tap.check("alive" in answer.get("error", ""), "cleanup() refuses while the owner lives", answer)
    words = driver.must("verify")["value"]
    tap.check(words == [], "and neither has changed anything", words)


def twins(net, tap):
    """With twins (Linux 5.12 to 6.8): a flush leaves one gate standing, a death the other"""
    node, driver, opened = open_node(net, "--twins")
    tap.check(opened["protection"] == "twins", "this kernel has owned tables", opened)
    server = net.server(node, socket.SOCK_DGRAM, V4)
    ours = net.udp_from("10.9.0.100", 8 * lab.BLOCK_SIZE, V4)
    foreign = net.udp_from("10.9.0.100", 9 * lab.BLOCK_SIZE, V4)
    for _ in range(3):
        node.exec("nft", "flush", "ruleset")
        left = node.exec("nft", "list", "tables")
        tap.check("inet saru_1_live" in left and "netdev saru_1_live" in left and
                  "inet saru_1\n" not in left, "the twins are left after a flush", left)
        foreign.send(b"foreign")
        ours.send(b"ours")
        got = received(server, lab.ANSWER_S)
        tap.check(got == b"ours", "foreign packets stay out, ours come in", got)
        words = driver.must("verify")["value"]
        tap.check(len(words) == 2 and all("saru_1 is missing" in one for one in words),
                  "verify() names what is gone", words)
        driver.must("repair 2000 even 60000")
        words = driver.must("verify")["value"]
        tap.check(words == [], "repaired", words)
    driver.must("apply odd 60000")
    foreign.send(b"now ours")
    tap.check(received(server, lab.ANSWER_S) == b"now ours", "both follow a switch")
    other = net.driver(node, "--twins").ask("open")
    tap.check("nft_driver" in other.get("error", ""), "a second process is told who has it", other)
    driver.must("apply odd 400")
    driver.end(signal.SIGKILL)
    time.sleep(0.5)
    left = node.exec("nft", "list", "tables")
    tap.check("saru_1\n" in left and "live" not in left,
              "the other ones are left after a death", left)
    foreign.send(b"late")
    tap.check(received(server, lab.SILENCE_S) is None, "and are closed after the lease")
    again = net.driver(node, "--twins")
    again.must("open")
    again.must("link 60")
    again.must("remove-link")
    again.must("remove")
    tap.check("saru" not in node.exec("nft", "list", "ruleset"), "removed without a trace")


def orphaned(net, tap):
    """With owner and persist: the tables of a killed process can be cleaned up, address first"""
    node, driver, _ = open_node(net)
    driver.end(signal.SIGKILL)
    other = net.driver(node)
    removed = other.must("cleanup")["value"]
    tap.check(len(removed) == 3 and removed[0].startswith("interface saru1"), "all is removed",
              removed)
    tap.check("saru" not in node.exec("nft", "list", "ruleset") + node.ip("link"),
              "nothing is left")
    tap.check(other.must("cleanup")["value"] == [], "again: nothing to do")


DEEDS = [
    ("delete rule inet saru_1 shared handle {shared:TCP first}", "rule 2"),
    ("delete rule inet saru_1 prerouting handle {prerouting:shared}", "chain prerouting: rule 1"),
    ("delete rule inet saru_1 open handle {open:this time}", "chain open: rule 1"),
    ("insert rule inet saru_1 shared accept", "chain shared: rule 1"),
    ("add rule inet saru_1 open drop", "more than we put there"),
    ("add element inet saru_1 owned {{ 128 }}", "set owned: 1 element added"),
    ("delete element inet saru_1 owned {{ 256 }}", "set owned: 1 element missing"),
    ("flush set inet saru_1 owned", "set owned: 256 elements missing"),
    ("delete element inet saru_1 lease {{ ipv4 }}", "set lease: 1 element missing"),
    ("add element inet saru_1 address4 {{ 10.9.0.77 }}", "set address4: 1 element added"),
    ("flush chain inet saru_1 prerouting", "chain prerouting: rule 1"),
    ("add chain inet saru_1 more", "chain more was added by somebody"),
    ("add table inet saru_1 {{ flags dormant; }}", "dormant"),
    ("delete table inet saru_1", "table inet saru_1 is missing"),
    ("delete table netdev saru_1", "table netdev saru_1 is missing"),
    ("flush chain netdev saru_1 nic", "chain nic: rule 1"),
    ("delete chain netdev saru_1 link", "chain link is missing"),
]


def noticed(net, tap):
    """Without protection: every deed is noticed, named by verify(), and repaired by rebuild()"""
    node, driver, _ = open_node(net, "--plain")
    for deed, words_wanted in DEEDS:
        command = deed
        while "{" in command.replace("{{", "").replace("}}", "") and ":" in command:
            begin, end = command.index("{"), command.index("}")
            chain, comment = command[begin + 1:end].split(":")
            command = command[:begin] + handle_of(node, chain, comment) + command[end + 1:]
        command = command.replace("{{", "{").replace("}}", "}")
        node.exec("nft", command)
        news = driver.must("news 2000")["news"]
        said = [one["text"] for one in news if one["what"] == "table"]
        words = driver.must("verify")["value"]
        tap.check(any("(nft)" in text for text in said) and
                  any(words_wanted in word for word in words),
                  f"nft {command}", f"watch: {said}\nverify: {words}")
        driver.must("rebuild even 60000")
        words = driver.must("verify")["value"]
        if words:
            tap.check(False, "repaired", words)
    tap.check(driver.must("news 50")["news"] == [], "our own changes are not noticed")
    node.exec("nft", "flush", "ruleset")
    driver.must("apply odd 60000")
    words = driver.must("verify")["value"]
    tap.check(words == [], "apply() after a flush writes the whole table", words)


def flush_gap(net, tap):
    """Without protection: how long a foreign flush stays unrepaired"""
    node, driver, _ = open_node(net, "--plain")
    server = net.server(node, socket.SOCK_DGRAM, V4)
    foreign = net.udp_from("10.9.0.100", 9 * lab.BLOCK_SIZE, V4)
    going = True

    def flood():
        while going:
            foreign.send(struct.pack("!Q", time.time_ns()))
            time.sleep(0.0001)

    def flush():
        """Flushes, has it repaired, and returns the milliseconds for which the address was open."""
        driver.tell("repair 20000 even 60000")
        time.sleep(0.02)
        began_ns = time.time_ns()
        with subprocess.Popen(["ip", "netns", "exec", node.name, "nft", "flush", "ruleset"]):
            driver.answer()
        # Notices that have come after the repair may tell of a flush that came after it.
        while driver.must("news 20")["news"]:
            driver.must("rebuild even 60000")
        times, end = [], time.monotonic() + 2 * lab.SLOW
        while (data := received(server, 0.02 * lab.SLOW)) and time.monotonic() < end:
            sent_ns = struct.unpack("!Q", data)[0]
            if sent_ns > began_ns:
                times.append(sent_ns)
        return (times[-1] - times[0]) / 1e6 if times else 0.0

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        gaps = [flush() for _ in range(15)]
    finally:
        going = False
        thread.join()
    tap.note(f"foreign packets came in for {statistics.median(gaps):.2f} ms (median), "
             f"{max(gaps):.2f} ms (most)")
    tap.check(statistics.median(gaps) < 250 * lab.SLOW and max(gaps) < 1000 * lab.SLOW,
              "the gap is short", gaps)
    words = driver.must("verify")["value"]
    tap.check(words == [], "all is as before", words)


if __name__ == "__main__":
    lab.main(spared, twins, orphaned, noticed, flush_gap)
