# SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster of the rig as tests and the demo use it: commands inside nodes, every wait bounded."""
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
BUILD = os.path.realpath(os.environ.get("SARU_BUILD") or f"{REPO}/build")
RIG = f"{REPO}/tests/rig/rig"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"}
ADDRESS = "10.77.0.100"
CREATE = ["pcs", "resource", "create", "web", "ocf:saru:SharedIP", f"ip={ADDRESS}", "nic=eth0",
          "clone"]
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class LiveError(Exception):
    """Something did not happen in time, or a command failed: one sentence for the reader."""


def program(name):
    """Where this build has a program; tools of the rig and of the tests are not installed."""
    for folder in ("agent", "tests/rig", "tests/live", "tests/kernel"):
        path = f"{BUILD}/{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise LiveError(f"{name} is not built in {BUILD}: run ./check build-gcc, or ./demo")


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Deadline:
    """Counts down; expired() becomes true once the seconds are over."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.began = time.monotonic()

    def left(self):
        return self.seconds - (time.monotonic() - self.began)

    def expired(self):
        return self.left() <= 0


def await_that(condition, seconds, awaited, step=0.1, on_wait=None):
    """Polls until condition() is true and returns what it gave; raises once the time is over."""
    deadline = Deadline(seconds)
    while True:
        found = condition()
        if found:
            return found
        if deadline.expired():
            raise LiveError(f"waited {seconds:g} s in vain for {awaited}")
        if on_wait:
            on_wait(awaited, time.monotonic() - deadline.began)
        time.sleep(step)


def finish(argv, timeout, called, text=None):
    """A program outside of the machines that must end in time: a sentence when it does not."""
    try:
        return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout,
                              check=False)
    except subprocess.TimeoutExpired:
        raise LiveError(f"{called} did not end within {timeout} s") from None


class Cluster:
    """N real nodes and a client. `on_wait(what, seconds)` is called while something takes time."""

    def __init__(self, name, on_wait=None):
        self.name = name
        self.on_wait = on_wait or (lambda what, seconds: None)
        self.pids = {}
        self.children = []
        self.started = False
        self.qdevice, self.device_sync_s, self.device_lag_s = False, 0.0, 0.0

    # The rig.

    def rig(self, *words, timeout=90, check=True):
        argv = [RIG, "--name", self.name, *words]
        return self.finish(argv, timeout, check, "rig " + " ".join(words))

    def finish(self, argv, timeout, check, called):
        """Runs a command to its end, telling on_wait now and then."""
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
                              preexec_fn=die_with_parent) as process:
            deadline = Deadline(timeout)
            while True:
                try:
                    out, err = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if deadline.expired():
                        process.kill()
                        raise LiveError(f"'{called}' did not end within {timeout:g} s") from None
                    self.on_wait(called, deadline.seconds - deadline.left())
                except BaseException:
                    process.terminate()
                    raise
        if check and process.returncode != 0:
            said = (err or out).strip()
            raise LiveError(f"'{called}' failed ({process.returncode}): {said}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def up(self, nodes, token=None, consensus=None, pacemaker=True, ip_version=4, qdevice=False,
           two_node=False, servers=0, inside=False, stonith=False, packages=()):
        words = ["up", "--nodes", str(nodes)]
        words += (["--packages", *packages] if packages
                  else ["--bin", f"{BUILD}/agent", "--ocf", f"{REPO}/ocf"])
        words += ["--token", str(token)] if token else []
        words += ["--consensus", str(consensus)] if consensus else []
        words += [] if pacemaker else ["--no-pacemaker"]
        words += ["--ip-version", str(ip_version)]
        words += ["--qdevice"] if qdevice else []
        words += ["--two-node"] if two_node else []
        words += ["--stonith"] if two_node or stonith else []
        words += ["--servers", str(servers)] if servers else []
        words += ["--inside"] if inside else []
        self.qdevice = qdevice
        self.started = True
        limit = 60 + 10 * nodes
        self.rig(*words, "--timeout", str(limit), timeout=limit + 30)  # so that it can say why
        self.refresh()

    def down(self):
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        try:
            self.rig("down", timeout=60)
        finally:
            for child in self.children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=10)
        self.children = []
        self.started = False

    def status(self):
        return json.loads(self.rig("status", "--json").stdout)

    def refresh(self):
        """Reads pids and MACs anew: after each boot."""
        status = self.status()
        self.nodes = [node["name"] for node in status["nodes"]]
        self.token, self.consensus = status["token"], status["consensus"] or 1.2 * status["token"]
        self.device_sync_s = (status["device_sync_timeout"] or 0) / 1000
        self.device_lag_s = (status["device_timeout"] or 0) / 1000
        machines = status["nodes"] + status["servers"] + [status["client"]]
        self.pids = {one["name"]: one["pid"] for one in machines}
        self.macs = {one["name"]: one["mac"] for one in machines}
        self.servers = [one["name"] for one in status["servers"] if one["name"][0] == "s"]
        self.ids = {name: int(name[1:]) for name in self.nodes}

    def detection_s(self):
        """How long Corosync takes to notice that a node is dead."""
        return (self.token + self.consensus) / 1000

    def living(self):
        return [name for name in self.nodes if self.pids.get(name)]

    # Inside a machine.

    def inside(self, machine, argv, own_pids=True):
        """argv that runs in the machine. With own_pids=False our signals reach the command itself,
        but it outlives a crash of the machine."""
        pid = self.pids.get(machine)
        if not pid:
            raise LiveError(f"{machine} is down")
        flags = ["-m", "-u", "-i", "-n"] + (["-p"] if own_pids else [])
        return ["nsenter", "-t", str(pid), *flags, "--", *argv]

    def run(self, machine, *argv, timeout=30, check=True):
        called = f"{machine}: {' '.join(argv)}"
        return self.finish(self.inside(machine, argv), timeout, check, called)

    def start(self, argv, stdout, **kwargs):
        """A process in the background, ended by down() at the latest."""
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, env=ENVIRONMENT,
                                 preexec_fn=die_with_parent, **kwargs)
        self.children.append(child)
        return child

    @staticmethod
    def end_inside(child, number=signal.SIGTERM):
        """Ends what start() began behind nsenter, in the machine's own pid namespace."""
        with contextlib.suppress(OSError, ProcessLookupError):
            with open(f"/proc/{child.pid}/task/{child.pid}/children", encoding="utf-8") as file:
                inner = file.read().split()
            for pid in inner:
                os.kill(int(pid), number)

    def process_of(self, machine, comm):
        """Pid on the host of the machine's process of that name; None when there is none."""
        own = os.readlink(f"/proc/{self.pids[machine]}/ns/pid")
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                    if file.read().strip() != comm:
                        continue
                if os.readlink(f"/proc/{entry}/ns/pid") == own:
                    return int(entry)
        return None

    def wait(self, condition, seconds, awaited, step=0.1):
        return await_that(condition, seconds, awaited, step, self.on_wait)

    def wait_stable(self, seconds=90):
        self.rig("wait", "stable", "--timeout", str(seconds), timeout=seconds + 20)

    # The service.

    @staticmethod
    def create_words(*options):
        """What makes the clone."""
        return [*CREATE[:-1], *options, "clone"]

    def create_clone(self):
        self.run(self.living()[0], *self.create_words(), timeout=90)

    def saructl(self, machine, *words, check=True):
        return self.run(machine, "saructl", *words, timeout=20, check=check)

    def sarud_status(self, machine):
        """sarud's own view; for waiting and showing, never for measuring. None: it does not run."""
        done = self.saructl(machine, "status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None


@contextlib.contextmanager
def signals_as_errors():
    """SIGTERM and SIGHUP end the program as SIGINT does: through the clean-up."""
    def interrupt(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running_cluster(name, nodes, token=None, consensus=None, clone=True, on_wait=None,
                    **how):
    """A cluster with the clone of the README, taken away at the end whatever happens. `how`: what
    else up() takes."""
    cluster = Cluster(name, on_wait)
    with signals_as_errors():
        try:
            cluster.up(nodes, token, consensus, **how)
            if clone:
                cluster.create_clone()
            yield cluster
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            cluster.down()
