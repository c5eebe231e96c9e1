# SPDX-License-Identifier: GPL-2.0-or-later
"""A control connection of FTP moves to another director, with the kernel's own helper: there the
data connections that it announces are let through, also where addresses of another length have
shifted its sequence numbers."""
import re
import socket

import lab
from flows_lab import CLIENT, Field, OUT, Store, both_ways

RULES = """
table inet ftp {{
  ct helper ftp {{ type "ftp" protocol tcp; }}
  chain help {{
    type filter hook prerouting priority mangle;
    tcp dport 21 ct helper set "ftp"
  }}
  chain to {{
    type nat hook prerouting priority dstnat - 1;
    ip daddr 10.9.0.1 tcp dport 21 dnat ip to {server}:21
  }}
}}
"""
SHORT_S = 1.5 * lab.SLOW  # how long what must not pass is waited for


class Ftp:
    """Both ends of a control connection, as far as passive data connections need them."""

    def __init__(self, field, server):
        self.field, self.address = field, server
        field.server.ip("addr", "add", server + "/16", "dev", "e0")
        for node in field.nodes.values():
            node.exec("nft", "-f", "-", text=RULES.format(server=server))
            node.ip("neigh", "replace", server, "lladdr", "02:00:00:00:01:64", "dev", "e1", "nud",
                    "permanent")
        listener = self.listen(21)
        self.client = self.connect((OUT[4], 21))
        self.server = self.accept(listener)
        # The helper begins to read behind the first whole line.
        self.server.sendall(b"220 ready\r\n")
        self.client.recv(100)
        field.refuse_new()

    def listen(self, port):
        made = self.field.server.socket(socket.AF_INET, socket.SOCK_STREAM,
                                        bind=(self.address, port))
        made.listen()
        made.settimeout(SHORT_S)
        self.field.net.sockets.append(made)
        return made

    def connect(self, where):
        made = self.field.client.socket(socket.AF_INET, socket.SOCK_STREAM, bind=(CLIENT[4], 0))
        self.field.net.sockets.append(made)
        made.settimeout(SHORT_S)
        made.connect(where)
        return made

    def accept(self, listener):
        made = listener.accept()[0]
        made.settimeout(SHORT_S)
        self.field.net.sockets.append(made)
        return made

    def asks(self, request, answer):
        """What arrives as the answer; b"" if anything is lost."""
        try:
            self.client.sendall(request)
            if self.server.recv(1000) != request:
                return b""
            self.server.sendall(answer)
            return self.client.recv(1000)
        except OSError:
            return b""

    def announce(self):
        """Where the server says that it awaits a data connection, as the client reads it."""
        self.data = self.listen(0)
        port = self.data.getsockname()[1]
        numbers = f"{self.address.replace('.', ',')},{port >> 8},{port & 255}"
        answer = self.asks(b"PASV\r\n", f"227 Entering Passive Mode ({numbers})\r\n".encode())
        found = re.search(rb"\((\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\)", answer)
        if found is None:
            return None
        *address, high, low = (int(one) for one in found.groups())
        return ".".join(str(one) for one in address), high * 256 + low

    def data_passes(self, where):
        if where is None:
            return False
        try:
            one = self.connect(where)
            return both_ways((one, self.accept(self.data)))
        except OSError:
            return False

    def move(self, store):
        driver = self.field.drivers
        outcome = driver["b"].must("inject " + store.records())
        self.field.through("b")
        driver["a"].must("remove " + " ".join(store))
        return outcome["failed"] == 0 and outcome["first_error"] == ""


def begun(net, tap, server):
    ftp = Ftp(Field(net), server)
    where = ftp.announce()
    tap.check(where is not None and where[0] == OUT[4], "the helper translates what is announced",
              where)
    tap.check(ftp.data_passes(where), "a data connection passes a")
    store = Store().take(ftp.field.events("a"))
    helped = [key for key, flow in store.items() if flow["helper"] == "ftp"]
    tap.check(len(helped) == 1, "events name the helper", list(store.values()))
    return ftp, store, helped[0]


def addresses_of_one_length(net, tap):
    """FTP whose announcements keep their length"""
    ftp, store, key = begun(net, tap, "10.8.0.8")
    early = ftp.announce()
    tap.check(ftp.move(store), "its flows are made at b")
    tap.check(not ftp.data_passes(early), "what was announced before the move is not let through")
    for _ in range(2):
        tap.check(ftp.data_passes(ftp.announce()), "what is announced after it is")
    helper = ftp.field.drivers["b"].must(f"current {key}")["flow"]["helper"]
    tap.check(helper == "ftp", "b has the helper too", helper)


def addresses_of_other_length(net, tap):
    """FTP whose announcements become shorter"""
    ftp, store, key = begun(net, tap, "10.8.0.199")
    now = ftp.field.drivers["a"].must(f"current {key}")["flow"]
    tap.check(now["shifts"][1] != [0, 0, 0], "the kernel says how far it has shifted", now)
    store[key] = now
    tap.check(ftp.move(store), "its flows are made at b")
    tap.check(ftp.asks(b"NOOP\r\n", b"200 Well\r\n") == b"200 Well\r\n", "it goes on at b")
    for _ in range(2):
        tap.check(ftp.data_passes(ftp.announce()), "and so do its announcements")


def without_shifts(net, tap):
    """The same, of what events say alone: they do not tell of shifts"""
    ftp, store, _ = begun(net, tap, "10.8.0.199")
    tap.check(ftp.move(store), "its flows are made at b")
    tap.check(ftp.asks(b"NOOP\r\n", b"200 Well\r\n") == b"", "it does not go on at b")


lab.main(addresses_of_one_length, addresses_of_other_length, without_shifts)
