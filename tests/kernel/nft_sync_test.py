# SPDX-License-Identifier: GPL-2.0-or-later
"""connections=sync: which events conntrack tells of the connections that a node accepts."""
import os
import socket
import subprocess
import time

import lab
from lab import V4, V6

HERE = os.path.dirname(os.path.realpath(__file__))


def listing(net, tap):
    """nft lists the table as in golden/, and what others change in it is found"""
    node = net.node()
    driver = net.driver(node, "--blocks", "16", "--syncs", "--plain")
    driver.must("open")
    driver.must("apply 0-2,15 60000")
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() finds no difference", words)
    text = lab.normalized(node.exec("nft", "list", "table", "inet", "saru_1"))
    path = os.path.join(HERE, "golden", "inet_sync.txt")
    if os.environ.get("SARU_UPDATE_GOLDEN"):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    with open(path, encoding="utf-8") as file:
        tap.check(file.read() == text, "listed as in golden/inet_sync.txt", text)
    node.exec("nft", "flush", "chain", "inet", "saru_1", "told")
    tap.check(driver.must("verify")["value"], "a chain that somebody has emptied is noticed")


class Listener:
    """conntrack -E in a node; knows of each event its kind and its ports."""

    def __init__(self, node):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", node.name, "conntrack", "-E", "-o", "id"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(lab.ANSWER_S / 5)

    def end(self, port):
        """The kinds of the events of connections from or to this port, in order."""
        time.sleep(lab.ANSWER_S / 5)
        self.process.terminate()
        said = self.process.communicate(timeout=10)[0].splitlines()
        return [line.split("]")[0].strip(" [") for line in said
                if f"sport={port} " in line or f"dport={port} " in line]


def talk(net, listener, port, target):
    """A whole short connection from this port."""
    one = net.client.socket(socket.AF_INET if target == V4 else socket.AF_INET6, socket.SOCK_STREAM,
                            bind=("10.9.0.100" if target == V4 else "fd09::64", port),
                            options=[(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)])
    with one:
        one.settimeout(5)
        one.connect((target, 7))
        other = listener.accept()[0]
        one.sendall(b"x")
        other.recv(1)
        other.close()
        one.recv(1)


def told_with(net, option, port, target):
    """What conntrack tells of a connection where the table has this option."""
    node = net.node()
    driver = net.driver(node, option)
    for command in ("open", "link 60", "apply all 60000"):
        driver.must(command)
    net.learn()
    listener = net.server(node, socket.SOCK_STREAM, target)
    heard = Listener(node)
    talk(net, listener, port, target)
    told = heard.end(port)
    driver.end()
    return told


def events(net, tap, what, target):
    told = told_with(net, "--syncs", 40001, target)
    tap.check(told == ["UPDATE", "UPDATE"],
              f"{what}: that it is answered, that it is assured, and not each state", told)


def everything(net, tap):
    """Where the table does not choose"""
    told = told_with(net, "--stays", 40002, V4)
    tap.check(len(told) > 4 and told[0] == "NEW", "conntrack tells of each state", told)


def events_v4(net, tap):
    """Of a short TCP connection"""
    events(net, tap, "IPv4", V4)


def events_v6(net, tap):
    """The same over IPv6"""
    events(net, tap, "IPv6", V6)


if __name__ == "__main__":
    lab.main(listing, events_v4, events_v6, everything, tools=["conntrack"])
