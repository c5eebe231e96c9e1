# SPDX-License-Identifier: GPL-2.0-or-later
"""A small network for the kernel tests, and TAP.

        client c ---+
                    |
    bridge (sw) ----+---- node n1   e0 + macvlan saru1 with the shared addresses
                    |
                    +---- node n2   (only where a test wants two)

All in namespaces named nk-<pid>-...; one process: it enters a namespace to make a socket there.
"""
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
V4, V6 = "10.9.0.1", "fd09::1"
BLOCKS, BLOCK_SIZE = 512, 128
SHARED_MAC = "02:5a:72:00:00:01"
# How many times longer things may take than on a plain machine: in a guest without KVM.
SLOW = float(os.environ.get("SARU_SLOW", "1"))
ANSWER_S = 5.0 * SLOW  # longest wait for something that must come
SILENCE_S = 0.15  # how long nothing may come that must not


def kernel():
    return tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])


def best_protection():
    """How this kernel can protect a table, as nft_driver says it."""
    return ("owner persist" if kernel() >= (6, 9) else
            "twins" if kernel() >= (5, 12) else "none")


def run(*words, check=True, text=None):
    done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=30)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    def __init__(self, name):
        self.name = f"nk-{os.getpid()}-{name}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words, check=True):
        return run("ip", "-n", self.name, *words, check=check)

    def exec(self, *words, check=True, text=None):
        return run("ip", "netns", "exec", self.name, *words, check=check, text=text)

    def sysctl(self, key, value):
        self.exec("sysctl", "-qw", f"{key}={value}")

    def inside(self, make):
        """Calls make() with this namespace as the process's own."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if LIBC.setns(there, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            return make()
        finally:
            LIBC.setns(here, CLONE_NEWNET)
            os.close(here)
            os.close(there)

    def socket(self, *args, bind=None, options=()):
        def make():
            made = socket.socket(*args)
            for option in options:
                made.setsockopt(*option)
            if bind is not None:
                made.bind(bind)
            return made
        return self.inside(make)

    def packet_socket(self, interface, ethertype=3):
        # Without a protocol it gets nothing until it is bound: else frames of other interfaces.
        made = self.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.inside(lambda: made.bind((interface, ethertype)))
        return made


class Driver:
    """nft_driver in a node: one question, one answer."""

    def __init__(self, lab, node, *options):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", node.name, lab.driver_path, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        lab.drivers.append(self)

    @property
    def pid(self):
        return self.process.pid

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self):
        if not select.select([self.process.stdout], [], [], 30)[0]:
            raise RuntimeError("nft_driver does not answer")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("nft_driver ended")
        return json.loads(line)

    def ask(self, command):
        self.tell(command)
        return self.answer()

    def must(self, command):
        answer = self.ask(command)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer

    def end(self, signal_number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass


class Lab:
    def __init__(self, driver_path):
        self.driver_path = os.path.abspath(driver_path)
        self.drivers, self.spaces, self.sockets = [], [], []
        self.number = 0

    def __enter__(self):
        self.switch = self.space("sw")
        self.switch.ip("link", "add", "br0", "type", "bridge")
        self.switch.ip("link", "set", "br0", "up")
        self.client = self.space("c")
        self.plug(self.client, "c", "02:00:00:00:00:64")
        # Low 16 bits of 10.9.0.100 and fd09::64: block 0. Those of .200 and ::c8: block 1.
        for address in ("10.9.0.100/16", "10.9.0.200/16", "fd09::64/64", "fd09::c8/64"):
            self.client.ip("addr", "add", address, "dev", "e0",
                           *(["nodad"] if ":" in address else []))
        return self

    def __exit__(self, *_):
        for driver in self.drivers:
            driver.end()
        for made in self.sockets:
            made.close()
        for space in self.spaces:
            run("ip", "netns", "del", space.name, check=False)

    def space(self, name):
        made = Namespace(name)
        self.spaces.append(made)
        return made

    def plug(self, space, port, mac):
        space.ip("link", "add", "e0", "address", mac, "type", "veth", "peer", "name", port, "netns",
                 self.switch.name)
        self.switch.ip("link", "set", port, "master", "br0", "up")
        space.ip("link", "set", "e0", "up")

    def node(self, number=1, own_addresses=True):
        space = self.space(f"n{number}")
        self.plug(space, f"n{number}", f"02:00:00:00:00:0{number}")
        if own_addresses:
            space.ip("addr", "add", f"10.9.0.1{number}/16", "dev", "e0")
            space.ip("addr", "add", f"fd09::1{number}/64", "dev", "e0", "nodad")
        return space

    def driver(self, node, *options):
        more = os.environ.get("NK_DRIVER_OPTIONS", "").split()  # such as --twins, by hand
        return Driver(self, node, "--address", V4, "--address", V6, *options, *more)

    def server(self, node, kind, address, port=7):
        """A listening socket on a shared address; the address may not be there yet."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # FREEBIND; SO_RCVBUFFORCE, because a packet that does not fit (768 bytes each, and nobody
        # reads before the end) must not look refused
        free = (socket.IPPROTO_IPV6, 78, 1) if family == socket.AF_INET6 else (socket.SOL_IP, 15, 1)
        made = node.socket(family, kind, bind=(address, port), options=[
            free, (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, 33, 64 << 20)])
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        self.sockets.append(made)
        return made

    def udp_from(self, source, port, target, target_port=7):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        made = self.client.socket(family, socket.SOCK_DGRAM, bind=(source, port), options=[
            (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)])
        made.connect((target, target_port))
        self.sockets.append(made)
        return made

    def learn(self):
        """Lets the client learn the shared MAC, so that tests do not wait for ARP."""
        for target in (V4, V6):
            source = "10.9.0.100" if target == V4 else "fd09::64"
            one = self.udp_from(source, 60000, target, 9)
            for _ in range(20):
                try:
                    one.send(b"?")
                except OSError:
                    pass
                if "lladdr " + SHARED_MAC in self.client.ip("neigh", "show", target):
                    break
                time.sleep(0.05)

    def tcp_answers(self, source, port, target, wait_s=None):
        """Whether a handshake from this client port succeeds."""
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        one = self.client.socket(family, socket.SOCK_STREAM, bind=(source, port), options=[
            (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")])
        try:
            one.settimeout(ANSWER_S if wait_s is None else wait_s)
            one.connect((target, 7))
            return True
        except (TimeoutError, OSError):
            return False
        finally:
            one.close()


def normalized(listing):
    """What nft lists, without what differs from run to run."""
    # A table with an owner is listed with it, and with an empty line more.
    listing = re.sub(r" # progname \S+\n\tflags owner", "", listing)
    listing = re.sub(r"\A(.*\n\tcomment .*\n)\n", r"\1", listing)
    listing = re.sub(r'time >= "[^"]*"', 'time >= "T"', listing)
    listing = re.sub(r"(timeout|expires) [0-9dhms]+", r"\1 D", listing)
    return re.sub(r"packets \d+ bytes \d+", "packets N bytes N", listing)


def received(server, wait_s):
    """The next datagram at a server, or None."""
    if not select.select([server], [], [], wait_s)[0]:
        return None
    return server.recv(65536)


def drain(server):
    while select.select([server], [], [], 0)[0]:
        server.recv(65536)


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def check(self, good, what, details=""):
        self.count += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.count} - {what}", flush=True)
        if details and not good:
            for line in str(details).splitlines():
                print(f"#   {line}", flush=True)
        return good

    def note(self, text):
        print(f"# {text}", flush=True)

    def skip(self, what, why):
        self.count += 1
        print(f"ok {self.count} - {what} # SKIP {why}", flush=True)


def main(*tests, tools=()):
    """Runs the tests, each in a network of its own; they need these tools besides."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} NFT_DRIVER")
    missing = [tool for tool in ("ip", "nft", "sysctl", *tools) if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        print(f"1..0 # SKIP {'not root' if os.geteuid() != 0 else 'no ' + ', '.join(missing)}")
        sys.exit(4)
    tap = Tap()
    wanted = sys.argv[2:]
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        tap.note(test.__doc__ or test.__name__)
        try:
            with Lab(sys.argv[1]) as lab:
                test(lab, tap)
        except (RuntimeError, OSError, subprocess.SubprocessError, AttributeError,
                KeyError) as error:
            tap.check(False, test.__name__, error)
    print(f"1..{tap.count}", flush=True)
    sys.exit(1 if tap.failed else 0)
