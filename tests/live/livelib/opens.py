#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens TCP connections at a steady rate and keeps all of them, to count who knows them.
    opens.py serve PORT                               accepts; ends what the client ends
    opens.py open ADDRESS PORT RATE SECONDS KEEP_S    a line of JSON when all are open, one more
                                                           KEEP_S later, when all are closed"""
import json
import resource
import select
import socket
import sys
import time

FIRST_PORT, LAST_PORT = 1024, 65535
STRIDE = 4099  # prime to the number of ports: neighbours in time are of different blocks
BACKLOG = 4096
PATIENCE_S = 5


def serve(port):
    listener = socket.create_server(("", port), backlog=BACKLOG)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    held = {}
    while True:
        for number, _ in poll.poll():
            if number != listener.fileno():
                poll.unregister(number)
                held.pop(number).close()
                continue
            try:
                while True:
                    one = listener.accept()[0]
                    held[one.fileno()] = one
                    poll.register(one, select.EPOLLIN)
            except BlockingIOError:
                pass


class Client:
    def __init__(self, target):
        self.target = target
        self.poll = select.epoll()
        self.waiting, self.held = {}, []
        self.begun = self.failed = self.next_port = 0

    def begin(self):
        """One more; a port that is taken is passed over."""
        while True:
            port = FIRST_PORT + self.next_port * STRIDE % (LAST_PORT - FIRST_PORT + 1)
            self.next_port += 1
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("", port))
                one.connect_ex(self.target)
                break
            except OSError:
                one.close()
        self.begun += 1
        self.waiting[one.fileno()] = one
        self.poll.register(one, select.EPOLLOUT)

    def look(self, seconds):
        for number, _ in self.poll.poll(seconds):
            self.poll.unregister(number)
            one = self.waiting.pop(number)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.failed += 1
                one.close()
            else:
                self.held.append(one)

    def open_all(self, rate, seconds):
        start = time.monotonic()
        while (now := time.monotonic() - start) < seconds:
            while self.begun < now * rate:
                self.begin()
            self.look(0.002)
        took_s = time.monotonic() - start
        end = time.monotonic() + PATIENCE_S
        while self.waiting and time.monotonic() < end:
            self.look(0.1)
        return {"opened": len(self.held), "failed": self.failed + len(self.waiting),
                "per_s": round(len(self.held) / took_s)}


def main(what, *words):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if what == "serve":
        serve(int(words[0]))
    address, port, rate, seconds, keep_s = words
    client = Client((address, int(port)))
    print(json.dumps(client.open_all(int(rate), float(seconds))), flush=True)
    time.sleep(float(keep_s))
    for one in client.held:
        one.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
