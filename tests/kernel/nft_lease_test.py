# SPDX-License-Identifier: GPL-2.0-or-later
"""The dead man's switch: the address closes when the lease ends, whatever happens to the
process."""
import os
import re
import select
import signal
import socket
import struct
import threading
import time

import lab
from lab import V4, V6, drain, received

PORT = 8 * lab.BLOCK_SIZE  # of block 8
LATE_MS = 0.5  # the clocks of sender and receiver are one; this is for the reading of them
# the timed element ends at a jiffy (4 ms at 250 Hz), the deadline starts before the write
EARLY_MS = 9.0 * lab.SLOW


class Stream:
    """Datagrams every 0.2 ms from a client port; when did the last one get in? (CLOCK_REALTIME,
    kernel's stamp)"""

    def __init__(self, net, node, target):
        self.server = net.server(node, socket.SOCK_DGRAM, target)
        self.server.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        source = "10.9.0.100" if target == V4 else "fd09::64"
        self.client = net.udp_from(source, PORT, target)
        self.going = True
        self.sent_ns = []
        self.thread = threading.Thread(target=self.send)
        self.thread.start()

    def send(self):
        while self.going:
            self.sent_ns.append(time.time_ns())
            try:
                self.client.send(struct.pack("!Q", len(self.sent_ns) - 1))
            except OSError:
                pass
            time.sleep(0.0002)

    def first_ns(self, wait_s=lab.ANSWER_S):
        if not select.select([self.server], [], [], wait_s)[0]:
            return None
        return self.stamp()[1]

    def stamp(self):
        """Number of a packet, and when the kernel got it."""
        data, control, _, _ = self.server.recvmsg(64, 128)
        seconds, nanos = struct.unpack("qq", control[0][2][:16])
        return struct.unpack("!Q", data)[0], seconds * 10**9 + nanos

    def close_ns(self, silence_s=0.4, most_s=20):
        """When the last packet came in and when the first refused one was sent; None if none came
        in."""
        last, end = None, time.monotonic() + most_s
        while True:
            if time.monotonic() > end:
                raise RuntimeError("packets still come in long after the lease, or none is sent")
            if select.select([self.server], [], [], silence_s)[0]:
                last = self.stamp()
            elif last is None:
                return None
            else:
                later_ns = self.sent_ns[last[0] + 1:]
                # Silence proves nothing while the sender waits for a processor.
                if later_ns and later_ns[0] < time.time_ns() - 10**8:
                    return last[1], later_ns[0]

    def stop(self):
        self.going = False
        self.thread.join()


def open_node(net, *options):
    node = net.node()
    driver = net.driver(node, *options)
    driver.must("open")
    driver.must("link 60")
    driver.must("apply all 5000")
    net.learn()
    driver.must("apply none")
    return node, driver


def measure(tap, what, stream, end_ns, late_ms=LATE_MS):
    times = stream.close_ns()
    if times is None:
        return tap.check(False, what, "nothing came in at all")
    before, refused = ((end_ns - at) / 1e6 for at in times)
    tap.note(f"last packet in {before:.2f} ms, first one refused {refused:.2f} ms before the end")
    return tap.check(before >= -late_ms and refused <= EARLY_MS,
                     f"{what}: not late, at most {EARLY_MS} ms early")


def expiry(net, tap):
    """Both guards: closes at the end of the lease, IPv4 and IPv6"""
    node, driver = open_node(net)
    for target in (V4, V6):
        stream = Stream(net, node, target)
        try:
            for lease_ms in (250, 400, 700):
                answer = driver.must(f"apply all {lease_ms}")
                measure(tap, f"{lease_ms} ms to {target}", stream, answer["deadline_ns"])
        finally:
            stream.stop()
    tap.check(driver.must("counters")["late"] > 0, "late packets are counted")
    tap.check(driver.must("read")["lease_ms"] is None, "read() says closed")
    words = driver.must("verify")["value"]
    tap.check(words == [], "verify() does not mind an ended lease", words)


def each_guard_alone(net, tap):
    """Either guard alone closes: the absolute rule, the timed elements"""
    node, driver = open_node(net)
    stream = Stream(net, node, V4)
    try:
        # The rule ends 500 ms from now, the elements live 5 s.
        driver.must("skew-realtime -4500")
        answer = driver.must("apply all 5000")
        measure(tap, "absolute rule alone", stream, answer["deadline_ns"] - 4_500_000_000)
        tap.check(driver.must("read")["lease_ms"] > 1000, "the timed elements were still there")
        # The rule ends in an hour.
        driver.must("skew-realtime 3600000")
        answer = driver.must("apply all 500")
        # They count from when the kernel is told.
        measure(tap, "timed elements alone", stream, answer["deadline_ns"],
                LATE_MS + answer["took_us"] / 1000)
    finally:
        stream.stop()


def pause_before_write(net, tap):
    """Stopped between reading the clocks and writing: the lease does not grow by the pause"""
    node, driver = open_node(net)
    stream = Stream(net, node, V4)
    try:
        for pause_s, lease_ms in ((0.3, 800), (1.0, 600)):
            drain(stream.server)
            driver.must("stop-before-write")
            driver.tell(f"apply all {lease_ms}")
            begin = time.time_ns()
            os.waitid(os.P_PID, driver.pid, os.WSTOPPED | os.WNOWAIT)
            time.sleep(pause_s)
            os.kill(driver.pid, signal.SIGCONT)
            answer = driver.answer()
            end = answer["deadline_ns"]
            if pause_s * 1000 < lease_ms:
                measure(tap, f"paused {pause_s} s in a lease of {lease_ms} ms", stream, end)
            else:
                got = stream.first_ns(0.3)
                tap.check(got is None,
                          f"paused {pause_s} s in a lease of {lease_ms} ms: never opens",
                          f"a packet came in {(got or 0) - end} ns after the end, {begin}")
            tap.check(answer["lease_ms"] is not None,
                      "the timed elements alone would have opened it")
            driver.must("apply none")
    finally:
        stream.stop()


def pause_between_clocks(net, tap):
    """Stopped after the reading of one of the clocks: closes too early perhaps, never too late"""
    node, driver = open_node(net)
    stream = Stream(net, node, V4)
    try:
        # Of three readings; the last case is one that a whole lease does not outlast.
        for reading, pause_s, lease_ms in ((1, 0.3, 800), (2, 0.3, 800), (3, 0.3, 800),
                                           (1, 1.0, 600)):
            drain(stream.server)
            driver.must(f"stop-after-reading {reading}")
            driver.tell(f"apply all {lease_ms}")
            os.waitid(os.P_PID, driver.pid, os.WSTOPPED | os.WNOWAIT)
            time.sleep(pause_s)
            os.kill(driver.pid, signal.SIGCONT)
            answer = driver.answer()
            what = f"paused {pause_s} s after reading {reading} in a lease of {lease_ms} ms"
            if pause_s * 1000 > lease_ms:
                tap.check(stream.first_ns(0.3) is None, f"{what}: never opens")
            else:
                got = stream.close_ns()
                tap.check(got and got[0] <= answer["deadline_ns"], f"{what}: closed by its end",
                          (got, answer["deadline_ns"]))
                # What is paused after the last one is known by the absolute rule alone.
                most = lease_ms if reading == 3 else lease_ms - pause_s * 1000
                left = answer["lease_ms"]
                tap.check(left is not None and left <= most, f"{what}: the timed elements too",
                          left)
            driver.must("apply none")
    finally:
        stream.stop()


def bent_clock(net, tap):
    """Where a time daemon slows the clock that the kernel closes by, it is given less of it"""
    node, driver = open_node(net)
    for ppm, most in ((0, 60000), (83333, 55000), (100000, 54000)):
        driver.must(f"slow-clock {ppm}")
        before = time.time()
        left = driver.must("apply all 60000")["lease_ms"]
        after = time.time()
        rules = node.exec("nft", "-j", "list", "chain", "inet", "saru_1", "open")
        took_ms = (after - before) * 1000
        tap.check(most - took_ms - 20 < left <= most,
                  f"{ppm} ppm slow: timed elements of {most} ms", (left, took_ms))
        ends = [time.mktime(time.strptime(one, "%Y-%m-%d %H:%M:%S"))  # whole seconds
                for one in re.findall(r'{"key": "time"}}, "right": "([^"]*)"', rules)]
        told = [one for one in ends
                if before + most / 1000 - 1 <= one <= after + most / 1000]
        tap.check(len(ends) == 1 and told == ends, f"{ppm} ppm slow: the absolute rule too",
                  (before, after, ends, rules))


def deadline_passed(net, tap):
    """A deadline that has passed, or no deadline, writes closed"""
    _, driver = open_node(net)
    for command in ("apply all 0", "apply all", "apply none 5000", "rebuild all 0"):
        answer = driver.must(command)
        leased = command == "apply none 5000"
        closed = answer["count"] == 0 and (leased or answer["lease_ms"] is None)
        tap.check(closed, f"'{command}' leaves nothing owned", answer)
    answer = driver.must("apply even 3000")
    tap.check(answer["count"] == 256 and 2900 < answer["lease_ms"] <= 3000, "opens again", answer)


def killed(net, tap):
    """kill -9: closed after the lease, and stays; the next process takes over, closed"""
    node, driver = open_node(net)
    stream = Stream(net, node, V4)
    try:
        answer = driver.must("apply all 600")
        driver.end(signal.SIGKILL)
        measure(tap, "killed", stream, answer["deadline_ns"])
        tap.check("saru_1" in node.exec("nft", "list", "tables"), "the table is still there")
        second = net.driver(node)
        opened = second.ask("open")
        tap.check("error" not in opened, "another process takes the table over", opened)
        tap.check(second.must("read")["count"] == 0, "it starts with nothing owned")
        tap.check(stream.first_ns(0.2) is None, "and closed")
        second.must("link 60")
        second.must("apply all 2000")
        tap.check(stream.first_ns() is not None, "and can open it")
    finally:
        stream.stop()


def switches(net, tap):
    """Switching between two halves under load: every packet is seen by one of them, whole"""
    node, driver = open_node(net)
    server = net.server(node, socket.SOCK_DGRAM, V4)
    senders = [net.udp_from("10.9.0.100", block * lab.BLOCK_SIZE, V4) for block in (8, 9)]
    going = True
    sent = 0

    def flood():
        nonlocal sent
        while going:
            senders[sent & 1].send(struct.pack("!Q", sent))
            sent += 1

    numbers = []

    def collect():
        while True:
            data = received(server, 0.5)
            if data is None:
                return
            numbers.append(struct.unpack("!Q", data)[0])

    driver.must("apply even 60000")
    threads = [threading.Thread(target=flood), threading.Thread(target=collect)]
    for thread in threads:
        thread.start()
    count, end = 0, time.monotonic() + 4
    while time.monotonic() < end + (4 * lab.SLOW if count < 30 else 0):
        driver.must(f"apply {'odd' if count % 2 == 0 else 'even'} 60000")
        count += 1
        time.sleep(0.01)
    going = False
    for thread in threads:
        thread.join()
    # Neighbours in the stream are of different halves. Inside one half every second packet comes:
    # distance
    # 2. At a switch two in a row come (1) or none of two (3). Anything else was seen by both or by
    # none.
    steps = [b - a for a, b in zip(numbers, numbers[1:])]
    changes = sum(step in (1, 3) for step in steps)
    wrong = [step for step in steps if step not in (1, 2, 3)]
    tap.note(f"{sent} packets, {count} switches, {changes} seen in the stream")
    tap.check(count > 20 and changes > 20, "there were switches under load", (count, changes))
    tap.check(not wrong and changes <= count, "no packet saw a half-made set",
              (wrong[:20], changes, count))


if __name__ == "__main__":
    lab.main(expiry, each_guard_alone, pause_before_write, pause_between_clocks,
             bent_clock, deadline_passed, killed, switches)
