#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One long download: random bytes at an even pace, and at the end the sender's count and checksum.

    stream.py serve PORT                     the service
    stream.py fetch ADDRESS PORT FILE        the client; SIGTERM asks for the end

FILE, about once a second: {"bytes", "longest_s": between two pieces, "ended": null, or "whole" or
what is wrong}"""
import contextlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import zlib

PIECE = 32768
PAUSE_S = 0.02
PATIENCE_S = 20
TRAILER = 64  # the sender's last words, padded


def wait_for_end(peer, asked):
    """The client shuts down its side; it never says anything else."""
    with contextlib.suppress(OSError):
        peer.recv(1)
    asked.set()


def send_all(peer):
    asked = threading.Event()
    threading.Thread(target=wait_for_end, args=(peer, asked), daemon=True).start()
    source, count, checksum = random.Random(1), 0, 0
    with peer, contextlib.suppress(OSError):
        while not asked.is_set():
            data = source.randbytes(PIECE)
            peer.sendall(data)
            count, checksum = count + len(data), zlib.crc32(data, checksum)
            asked.wait(PAUSE_S)
        peer.sendall(f"{count} {checksum:08x}".ljust(TRAILER).encode())


def serve(port):
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=send_all, args=(peer,), daemon=True).start()


class Fetch:
    def __init__(self, address, port, path):
        self.path = path
        self.count, self.checksum, self.last, self.longest_s = 0, 0, b"", 0.0
        self.told_at = 0.0
        self.socket = socket.create_connection((address, port), PATIENCE_S)
        signal.signal(signal.SIGTERM, lambda *_: self.socket.shutdown(socket.SHUT_WR))

    def take(self, data):
        """All but the last TRAILER bytes count as data."""
        data = self.last + data
        self.last, data = data[-TRAILER:], data[:-TRAILER]
        self.count, self.checksum = self.count + len(data), zlib.crc32(data, self.checksum)

    def tell(self, ended):
        if ended is None and time.monotonic() - self.told_at < 1:
            return
        self.told_at = time.monotonic()
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"bytes": self.count, "longest_s": round(self.longest_s, 3),
                       "ended": ended}, file)
        os.replace(self.path + ".new", self.path)

    def run(self):
        """What became of it."""
        while True:
            at = time.monotonic()
            try:
                data = self.socket.recv(1 << 16)
            except OSError as error:
                return str(error) or type(error).__name__
            if not data:
                own = f"{self.count} {self.checksum:08x}".ljust(TRAILER).encode()
                said = self.last.decode(errors="replace").strip()
                return "whole" if self.last == own else f"{own.decode().strip()}, sent: {said}"
            self.longest_s = max(self.longest_s, time.monotonic() - at)
            self.take(data)
            self.tell(None)


def main():
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        fetch = Fetch(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        fetch.tell(fetch.run())


if __name__ == "__main__":
    main()
