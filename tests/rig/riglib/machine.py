# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine of the rig: its namespaces with nsinit as pid 1. Nodes, servers and the client."""
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time

from riglib import switch
from riglib.state import Deadline, RigError, run

HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("net", "mnt", "uts", "ipc", "pid")
PR_SET_PDEATHSIG = 1


# Processes, as the host sees them.

def proc_state(pid):
    """(state letter, start time) of a process, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def machine_pid(rig, machine):
    """The pid of the machine's init, None when it does not run. Survives reuse of pids."""
    known = rig.read_json(f"{machine}/init.json", None)
    now = known and proc_state(known["pid"])
    if not now or now[0] in "ZX" or now[1] != known["start"]:
        return None
    return known["pid"]


def living_pid(rig, machine):
    if machine not in rig.machine_names():
        raise RigError(f"rig '{rig.name}' has no machine '{machine}'; it has "
                       + " ".join(rig.machine_names()))
    pid = machine_pid(rig, machine)
    if pid is None:
        raise RigError(f"{machine} is down: start it with 'rig boot {machine}'")
    return pid


def processes(pid):
    """{pid: comm} of everything in the pid namespace of this init, itself included."""
    found = {}
    own = os.readlink(f"/proc/{pid}/ns/pid")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/ns/pid") == own:
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                    found[int(entry)] = file.read().strip()
    return found


def ended(process, seconds, called):
    """The exit code of a process of ours that must end soon."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RigError(f"{called} did not end within {seconds} s") from None


# Life and death.

def build_init(rig):
    binary = f"{rig.dir}/nsinit"
    if not os.path.exists(binary):
        run(["gcc", "-O2", "-static", "-Wall", "-Wextra", "-o", binary, f"{HERE}/nsinit.c"])
    for script in ("boot-node.sh", "start-node.sh"):
        shutil.copy(f"{HERE}/{script}", f"{rig.share}/{script}")


class Booting:
    """A machine between the making of its namespaces and the end of its boot script."""

    def __init__(self, rig, machine, kind):
        self.rig, self.machine = rig, machine
        home = rig.machine_dir(machine)
        v4, v6, _ = switch.plan_in(rig, machine)
        inside = []
        if machine[0] == "n" and rig.config()["inside"]:
            inside4, inside6, _ = switch.inside_plan(machine)
            inside = [f"{inside4}/16", f"{inside6}/64"]
        self.console = f"{home}/console.log"
        with open(self.console, "ab") as console:
            self.process = subprocess.Popen(
                [f"{rig.dir}/nsinit", machine, f"{rig.share}/boot-node.sh", kind, machine, home,
                 rig.share, f"{v4}/16" if rig.config()["ip_version"] == 4 else "-", f"{v6}/64",
                 *inside],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, cwd="/",
                env={"PATH": PATH, "LANG": "C.UTF-8"}, start_new_session=True)
        self.pid = None

    def _answer(self, deadline, awaited):
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline.left()))
        if not ready:
            deadline.check(awaited, self.console)
        line = self.process.stdout.readline().decode().strip()
        if not line:
            with open(self.console, encoding="utf-8", errors="replace") as file:
                said = file.read().strip().splitlines()[-1:]
            raise RigError(f"{self.machine} did not boot: {' '.join(said)}; log: {self.console}")
        return line

    def await_namespaces(self, deadline):
        self.pid = int(self._answer(deadline, f"the namespaces of {self.machine}"))
        ended(self.process, 30, f"the starter of {self.machine}")
        self.rig.write_json(f"{self.machine}/init.json",
                            {"pid": self.pid, "start": proc_state(self.pid)[1]})

    def go(self):
        self.process.stdin.write(b"g")
        self.process.stdin.flush()

    def await_boot(self, deadline):
        self._answer(deadline, f"{self.machine} to boot")
        self.process.stdin.close()
        self.process.stdout.close()


def boot(rig, machines):
    """Boots machines side by side; their state directories exist already."""
    deadline = Deadline(60 + len(machines))
    booting = [Booting(rig, machine, "node" if machine[0] == "n" else "plain")
               for machine in machines]
    for one in booting:
        one.await_namespaces(deadline)
    switch.attach_many(rig, {one.machine: one.pid for one in booting})
    for one in booting:
        one.go()
    for one in booting:
        one.await_boot(deadline)
        if one.machine[0] != "n":
            run(["ip", "netns", "attach", f"{rig.name}-{one.machine}", str(one.pid)])


def kill(rig, machine):
    """SIGKILLs the whole pid namespace; returns once nothing of the machine runs any more."""
    pid = machine_pid(rig, machine)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = Deadline(10)
    while machine_pid(rig, machine) is not None:
        deadline.check(f"the death of {machine} (init {pid})")
        time.sleep(0.002)
    return True


def crash(rig, machine):
    """Power loss: first the line falls silent, so that no FIN or RST of a dying process gets out.

    Returns the CLOCK_MONOTONIC nanoseconds of that silence."""
    living_pid(rig, machine)
    with contextlib.suppress(RigError):
        switch.unplug(rig, machine)
    silent = time.monotonic_ns()
    kill(rig, machine)
    switch.remove_port(rig, machine)
    return silent


def signal_all(pid, number, comm=None):
    """Signals every process of the machine, or those of that name, until no new ones show up."""
    hit = set()
    for _ in range(20):
        found = {p: name for p, name in processes(pid).items()
                 if comm is None or name == comm[:15]}
        fresh = [p for p in found if p not in hit]
        if not fresh:
            break
        for victim in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, number)
        hit.update(fresh)
    return hit


# Entering.

def enter(pid):
    """Moves this process into the machine; its future children also into the pid namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    fds = []
    try:
        for kind in NAMESPACES:
            fds.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise RigError(f"the machine with init {pid} has just died") from None
    for fd in fds:
        if libc.setns(fd, 0) != 0:
            raise RigError(f"setns: {os.strerror(ctypes.get_errno())}; the rig needs root")
        os.close(fd)


def execute(rig, machine, argv, env=None):
    """Runs a command inside and returns its exit code, as a shell would (128 + signal).

    The command dies with this process, and gets the signals that this process gets."""
    pid = living_pid(rig, machine)
    cwd = os.getcwd()
    enter(pid)
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for directory in (cwd, "/"):
            with contextlib.suppress(OSError):
                os.chdir(directory)
                break
        environment = dict(os.environ, PATH=PATH, **(env or {}))
        try:
            os.execvpe(argv[0], argv, environment)
        except OSError as error:
            os.write(2, f"rig: {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda got, _frame: os.kill(child, got))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def popen(pid, argv, **kwargs):
    """A command inside as a subprocess of ours: for short queries."""
    command = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "--", *argv]
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.DEVNULL)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, cwd="/",
                            env={"PATH": PATH, "LANG": "C.UTF-8"}, **kwargs)


def query(pid, argv, seconds=5):
    """(exit code, standard output) of a short command inside; (None, "") when it takes too long."""
    process = popen(pid, argv)
    try:
        out, _ = process.communicate(timeout=seconds)
        return process.returncode, out
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, ""


def install(rig, machines, packages):
    """Installs these Debian packages with dpkg, on all machines side by side."""
    running = {name: popen(living_pid(rig, name), ["dpkg", "--install", *packages],
                           stderr=subprocess.STDOUT) for name in machines}
    for name, process in running.items():
        try:
            said, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RigError(f"{name}: dpkg did not end within 120 s") from None
        if process.returncode != 0:
            raise RigError(f"{name}: dpkg --install failed:\n{said}")


def start_cluster(rig, machine, pacemaker):
    """Starts Corosync, and Pacemaker once that answers, in the background of the node."""
    pid = living_pid(rig, machine)
    command = ["setsid", "-f", "/run/saru-rig/start-node.sh", "yes" if pacemaker else "no"]
    with open(f"{rig.machine_dir(machine)}/console.log", "ab") as console:
        process = popen(pid, command, stdout=console, stderr=console)
        if ended(process, 30, f"{machine}: start-node.sh") != 0:
            raise RigError(f"{machine}: start-node.sh could not be started; log: {console.name}")


def describe(rig, machine):
    """What other tools need to enter the machine."""
    pid = machine_pid(rig, machine)
    v4, v6, mac = switch.plan_in(rig, machine)
    return {"name": machine, "pid": pid, "addresses": [v4, v6], "mac": mac,
            "netns": f"/proc/{pid}/ns/net" if pid else None}


def dumps(value):
    return json.dumps(value, indent=2)
