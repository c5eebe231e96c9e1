# SPDX-License-Identifier: GPL-2.0-or-later
"""What group_live_test is built from: the rig, probes, and strangers in somebody's group."""
import os
import re
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
RIG = [os.path.join(HERE, "..", "rig", "rig"), "--name", f"cpg{os.getpid()}"]

# Programs for Stranger. Each says "ready" on a line of its own, and ends when it has read one.
LIBCPG = """
import ctypes, os, signal, sys, threading, time
lib = ctypes.CDLL("libcpg.so.4")
class Name(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint32), ("value", ctypes.c_char * 128)]
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
TRY_AGAIN = 6
handle = ctypes.c_uint64()
name = Name(len(sys.argv[1]), sys.argv[1].encode())
callbacks = (ctypes.c_void_p * 2)()
def again(call, *args):
    while (error := call(*args)) == TRY_AGAIN:
        time.sleep(0.01)
    if error != 1:
        sys.exit("libcpg: error %d" % error)
def join():
    again(lib.cpg_initialize, ctypes.byref(handle), callbacks)
    again(lib.cpg_join, handle, ctypes.byref(name))
def mcast(data):
    part = Part(data, len(data))
    return lib.cpg_mcast_joined(handle, 2, ctypes.byref(part), 1)
"""
# GROUP HEX...: sends these bytes to the group.
SPEAKER = LIBCPG + """
join()
time.sleep(0.2)
for text in sys.argv[2:]:
    again(mcast, bytes.fromhex(text))
time.sleep(0.2)
print("ready", flush=True)
sys.stdin.readline()
"""
# GROUP: gives corosync as much as it takes.
FLOOD = LIBCPG + """
join()
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
print("ready", flush=True)
while not ended.is_set():
    if mcast(b"x" * 60000) != 1:
        time.sleep(0.0002)
"""
# GROUP COUNT: so many processes join the group.
CROWD = LIBCPG + """
children = []
for k in range(int(sys.argv[2])):
    ready, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        join()
        os.write(say, b"y")
        while True:
            signal.pause()
    children.append(child)
    os.close(say)
    if os.read(ready, 1) != b"y":
        sys.exit("one could not join")
    os.close(ready)
print("ready", flush=True)
sys.stdin.readline()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


class Failure(Exception):
    pass


def require(promise, text):
    if not promise:
        raise Failure(text)


def wait_until(condition, text, seconds=15):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        require(time.monotonic() < end, f"waited {seconds} s for: {text}")
        time.sleep(0.02)


def rig(*argv, check=True, seconds=60):
    ran = subprocess.run([*RIG, *argv], capture_output=True, text=True, timeout=seconds,
                         check=False)
    if check and ran.returncode != 0:
        raise Failure(f"rig {' '.join(argv)}: {ran.stdout}{ran.stderr}")
    return ran.stdout


def restart_corosync(node):
    wait_until(lambda: not rig("exec", node, "--", "pidof", "corosync", check=False),
               f"corosync to be gone on {node}")
    rig("exec", node, "--", "sh", "-c", "corosync -f </dev/null >/var/log/corosync.out 2>&1 &")


class Stranger:
    """A program of above, running on a node."""

    def __init__(self, node, program, *argv):
        self.process = subprocess.Popen(
            [*RIG, "exec", node, "--", "python3", "-c", program, *argv], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        first = self.process.stdout.readline()
        if first != "ready\n":
            self.end()
            raise Failure(f"the stranger on {node} failed: {first}")

    def end(self):
        try:
            self.process.communicate("\n", timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class Probe:
    """A running group_probe on a node, and what it has printed: a time and a line each."""

    def __init__(self, program, node, cluster_id):
        self.node = node
        self.lines = []
        self.times = []
        self.process = subprocess.Popen(
            [*RIG, "exec", node, "--", program, str(cluster_id)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            stamp, _, text = line.rstrip("\n").partition(" ")
            if re.fullmatch(r"\d+\.\d{6}", stamp):
                self.times.append(float(stamp))
                self.lines.append(text)
            else:  # a sanitizer's report, or an error of the rig
                self.times.append(0.0)
                self.lines.append(line.rstrip("\n"))

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def find(self, pattern, since=0):
        """The last match in the lines from `since` on."""
        for line in reversed(self.lines[since:]):
            match = re.search(pattern, line)
            if match:
                return match
        return None

    def time_of(self, pattern, since=0):
        """When, on the node's clock, the first such line was printed."""
        for at in range(since, len(self.lines)):
            if re.search(pattern, self.lines[at]):
                return self.times[at]
        raise Failure(f"no '{pattern}' on {self.node}")

    def count(self, pattern, since=0):
        return sum(1 for line in self.lines[since:] if re.search(pattern, line))

    def wait(self, pattern, since=0, seconds=15):
        end = time.monotonic() + seconds
        while not (match := self.find(pattern, since)):
            require(time.monotonic() < end, f"waited {seconds} s for '{pattern}' on {self.node}; "
                    f"last lines: {self.lines[-5:]}")
            time.sleep(0.02)
        return match

    def counters(self):
        since = len(self.lines)
        self.say("counters")
        line = self.wait("counters (.*)", since).group(1)
        return {key: int(value) for key, value in (pair.split("=") for pair in line.split())}

    def member(self):
        return self.find(r"joined (\d+/\d+) nonce").group(1)

    def place(self):
        """The last it was told of its ring and its group: two lines, None before there is one."""
        found = self.find(r"^quorum .*"), self.find(r"^group \[.*?\]")
        return [match and match.group(0) for match in found]

    def pid(self):
        """In the node's pid namespace."""
        return self.member().partition("/")[2]

    def messages(self, since=0):
        return [line for line in self.lines[since:] if line.startswith("message ")]

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
