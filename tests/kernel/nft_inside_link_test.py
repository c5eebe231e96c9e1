# SPDX-License-Identifier: GPL-2.0-or-later
"""The link to a director's inside is looked after like the first one, under the same tables."""
import json
import os
import signal
import time

import lab
from inside_lab import GATEWAY, HOST, director, make_inside
from lab import V4

HERE = os.path.dirname(os.path.abspath(__file__))
OPTIONS = {"best": (), "twins": ("--twins",), "none": ("--plain",)}


def listed(net, tap):
    """nft lists a director's tables as in golden/"""
    make_inside(net)
    node, driver = director(net, 1, "--blocks", "16")
    driver.must("apply 0-2,15 60000")
    for family in ("inet", "netdev"):
        text = lab.normalized(node.exec("nft", "list", "table", family, "saru_1"))
        path = os.path.join(HERE, "golden", f"{family}_inside.txt")
        if os.environ.get("SARU_UPDATE_GOLDEN"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        with open(path, encoding="utf-8") as file:
            tap.check(file.read() == text, f"listed as in golden/{family}_inside.txt", text)
    words = driver.must("verify")["value"]
    tap.check(not words, "verify() finds no difference", words)


def problems(driver):
    return driver.must("verify")["value"] + driver.must("inside-verify")["value"]


def tended(net, tap):
    """What others change on it is told and put back; nothing of that touches the other link"""
    make_inside(net)
    node, driver = director(net)
    driver.must("apply all 60000")
    tap.check(not problems(driver), "well", problems(driver))
    for what, change in {
            "down": ("link", "set", "saru1i", "down"),
            "another MAC": ("link", "set", "saru1i", "address", "02:00:00:00:00:77"),
            "an address gone": ("addr", "del", GATEWAY[4] + "/32", "dev", "saru1i"),
            "an address too many": ("addr", "add", "10.2.0.99/32", "dev", "saru1i"),
            "an address of the other side": ("addr", "add", V4 + "/32", "dev", "saru1i"),
            "another name": ("link", "set", "saru1i", "name", "mine")}.items():
        if change[3] == "name" and lab.kernel() < (6, 2):  # not while it is up
            node.ip("link", "set", "saru1i", "down")
        node.ip(*change)
        seen = problems(driver)
        mended = driver.must("inside-mend 600")
        tap.check(seen and mended["done"] and not mended["lost"] and not problems(driver),
                  f"{what}: told and mended", (seen, mended, problems(driver)))
        left = driver.must("verify-link")["value"]
        tap.check(not left, f"{what}: the link outside is untouched", left)
    for key in ("ipv4.conf.saru1i.arp_ignore", "ipv4.conf.e1.arp_ignore"):
        node.sysctl(f"net.{key}", 0)
        seen = problems(driver)
        driver.must("inside-mend 600")
        tap.check(seen and not problems(driver), f"{key}: told and mended",
                  (seen, problems(driver)))
    node.ip("link", "del", "saru1i")
    tap.check(any("saru1i is gone" in one for one in problems(driver)), "gone", problems(driver))
    tap.check(driver.must("inside-mend 600")["lost"], "it is to be made anew")
    driver.must("inside-link 600")
    tap.check(not problems(driver), "made anew, and hidden as before", problems(driver))
    driver.must("remove-link")
    words = driver.must("inside-verify")["value"]
    tap.check(not words, "taking the other one away does nothing to it", words)


def watched(net, tap):
    """Notices come of both sides, each of its own"""
    make_inside(net)
    node, driver = director(net)
    driver.must("watch")

    def news():
        return driver.must("news 3000")["news"]

    for change, what, text in (
            (("link", "set", "saru1i", "down"), "link", "saru1i was set down"),
            (("link", "set", "saru1i", "address", "02:00:00:00:00:77"), "link", "MAC of saru1i"),
            (("addr", "add", GATEWAY[4] + "/32", "dev", "e0"), "address", "another interface too"),
            (("addr", "add", "10.2.0.99/32", "dev", "saru1i"), "address", "was put on saru1i")):
        node.ip(*change)
        seen = news()
        tap.check(any(one["what"] == what and text in one["text"] for one in seen),
                  f"{what}: {text}", seen)
    net.switch.ip("link", "set", "i1", "down")
    seen = news()
    tap.check(any(one["what"] == "carrier lost" and "e1" in one["text"] for one in seen),
              "carrier lost on e1", seen)
    tap.check(driver.must("inside-carrier")["value"] is False and
              driver.must("carrier")["value"] is True, "the other NIC has its own")
    net.switch.ip("link", "set", "i1", "up")
    seen = news()
    tap.check(any(one["what"] == "carrier back" and "e1" in one["text"] for one in seen),
              "carrier back on e1", seen)


def ends(net, tap):
    """Addresses run out by themselves; what a dead process leaves is taken away, on both sides"""
    make_inside(net)
    for name, options in OPTIONS.items():
        number = 1 + list(OPTIONS).index(name)
        node, driver = director(net, number, *options)
        driver.must("apply all 60000")
        words = problems(driver)
        tap.check(not words, f"{name}: both tables hold what is planned", words)
        driver.must("inside-renew 2")
        driver.end(signal.SIGKILL)
        deadline = time.monotonic() + lab.ANSWER_S
        # IPv4 and IPv6 are cleared away by a timer each.
        while any(one in (left := node.ip("addr", "show", "dev", "saru1i"))
                  for one in GATEWAY.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        tap.check(not any(one in left for one in GATEWAY.values()),
                  f"{name}: the inside addresses have run out", left)
        there = "saru1i" in node.ip("link")
        removed = net.driver(node, "--nic", "e0").must("cleanup")["value"]
        rest = node.ip("link") + node.exec("nft", "list", "tables")
        tap.check(there and "saru" not in rest, f"{name}: cleaned up: {', '.join(removed)}", rest)


def refused(net, tap):
    """What cannot be is refused, and nothing is left behind"""
    make_inside(net)
    node, driver = director(net)
    driver.must("inside-remove")
    node.ip("addr", "add", GATEWAY[4] + "/32", "dev", "lo")
    answer = driver.ask("inside-link 600")
    tap.check(f"address {GATEWAY[4]} is on lo" in answer.get("error", ""), "an address elsewhere",
              answer)
    tap.check("saru1i" not in node.ip("link"), "no link is left")
    node.ip("addr", "del", GATEWAY[4] + "/32", "dev", "lo")
    node.ip("link", "set", "e1", "down")
    answer = driver.ask("inside-link 600")
    tap.check('interface "e1" is down' in answer.get("error", ""), "its NIC is down", answer)
    node.ip("link", "set", "e1", "up")
    driver.must("inside-link 600")
    for nic, text in (("e7", '"e7"'), ("e0", "cannot be an interface of both sides")):
        other = net.driver(node, "--id", "2", "--inside-nic", nic, "--inside-address", HOST[4])
        answer = other.ask("open")
        tap.check(text in answer.get("error", ""), f"NIC {nic} inside", answer)
    other = net.driver(node, "--id", "2")
    other.must("open")
    answer = other.ask("inside-link 600")
    tap.check("has no inside" in answer.get("error", ""), "no inside, no link to it", answer)
    for key in ("ipv4.conf.saru1i.forwarding", "ipv6.conf.all.forwarding"):
        words = driver.must("inside-hindrances")["value"]
        node.sysctl(f"net.{key}", 1)
        after = driver.must("inside-hindrances")["value"]
        tap.check(any(one.startswith(f"net.{key} is 0") for one in words) and
                  not any(key in one for one in after), f"told while net.{key} is 0", words)


def changed(net, tap):
    """The addresses outside change under way; the inside stays as it is"""
    make_inside(net)
    node, driver = director(net)
    driver.must("apply even 60000")
    answer = driver.must("reconfigure even 60000 --address 10.9.0.2/16,fd09::1 --blocks 256")
    tap.check(answer["count"] == 128, "the new blocks are held", answer)
    words = problems(driver) + driver.must("verify-link")["value"]
    tap.check(not words, "both links and the tables are as planned", words)
    sets = json.loads(node.exec("nft", "-j", "list", "set", "inet", "saru_1", "address4"))
    held = [one for item in sets["nftables"] for one in item.get("set", {}).get("elem", [])]
    tap.check(sorted(held) == ["10.2.0.1", "10.9.0.2"], "the addresses of both sides", held)
    answer = driver.ask("reconfigure even 60000 --selector dst-port")
    tap.check("which NAT changes" in answer.get("error", ""), "a selector that NAT changes", answer)
    words = problems(driver)
    tap.check(not words, "the old configuration is in force", words)


if __name__ == "__main__":
    lab.main(listed, tended, watched, ends, refused, changed)
