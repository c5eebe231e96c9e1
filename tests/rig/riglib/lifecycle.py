# SPDX-License-Identifier: GPL-2.0-or-later
"""Bringing a whole rig up, and taking everything of it away again."""
import contextlib
import os
import re
import shutil
import signal
import time

from riglib import arbiter, cluster, machine, power, switch
from riglib.state import Deadline, RigError, run

REPO = os.path.dirname(os.path.dirname(machine.HERE))
TOOLS = ("corosync", "corosync-quorumtool", "pacemakerd", "crm_mon", "ip", "nsenter", "gcc")
# Places where every node has files of its own: what lies there on the host is not seen inside.
HIDDEN = ("/run/", "/var/run/", "/dev/shm/", "/proc/", "/sys/", "/var/log/")


class Interrupted(RigError):
    """A signal asked this command to stop."""


@contextlib.contextmanager
def signals_as_errors():
    """SIGINT, SIGTERM and SIGHUP raise, so that `up` can take away what it has begun."""
    def interrupt(number, _frame):
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def default_token(nodes):
    """Many real-time Corosyncs on a few cores: with a short token they never form a ring."""
    for limit, token in ((6, 500), (10, 2000), (16, 5000)):
        if nodes <= limit:
            return token
    return 10000


def check_host(options):
    path = machine.PATH.split(":")
    missing = [tool for tool in TOOLS if not any(os.access(f"{d}/{tool}", os.X_OK) for d in path)]
    if missing:
        raise RigError(f"not installed: {' '.join(missing)} (Debian packages: corosync pacemaker "
                       "pacemaker-cli-utils iproute2 util-linux gcc libc6-dev)")
    if not 1 <= options.nodes <= 32:
        raise RigError(f"--nodes {options.nodes}: from 1 to 32")
    if not 0 <= options.servers <= 32:
        raise RigError(f"--servers {options.servers}: from 0 to 32")
    if options.two_node and options.nodes != 2:
        raise RigError("--two-node goes with --nodes 2 only")
    if options.two_node and options.qdevice:
        raise RigError("--two-node: not with --qdevice")
    if options.qdevice and not all(shutil.which(tool, path=machine.PATH)
                                   for tool in ("corosync-qdevice", "corosync-qnetd")):
        raise RigError("--qdevice: needs the Debian packages corosync-qdevice corosync-qnetd")
    if options.token is None:
        options.token = default_token(options.nodes)
    if options.token < 50:
        raise RigError(f"--token {options.token}: 50 ms or more")


def visible_directory(option, given, default):
    """The absolute path behind --bin or --ocf; the default need not exist yet."""
    path = os.path.realpath(given or default)
    if given and not os.path.isdir(path):
        raise RigError(f"{option} {given}: no such directory")
    if (path + "/").startswith(HIDDEN):
        raise RigError(f"{option} {given}: nodes have their own {path.split('/')[1]}, "
                       "use a directory elsewhere")
    return path


def visible_file(option, given):
    path = os.path.realpath(given)
    if not os.path.isfile(path):
        raise RigError(f"{option} {given}: no such file")
    visible_directory(option, os.path.dirname(path), None)
    return path


def binaries(given):
    """Where the nodes find sarud and saructl; None: those installed on the host."""
    given = given or os.environ.get("SARU_BIN")
    default = f"{REPO}/build/agent"
    if not given and not os.path.isdir(default) and os.path.exists("/usr/sbin/sarud"):
        return None
    return visible_directory("--bin", given, default)


def agents(given):
    """Where the nodes find ocf:saru:*; None: those installed on the host."""
    given = given or os.environ.get("SARU_OCF")
    default = f"{REPO}/ocf"
    if not given and not os.path.isdir(default):
        return None
    return visible_directory("--ocf", given, default)


def make_config(rig, options):
    return {"name": rig.name, "nodes": options.nodes, "servers": options.servers,
            "inside": options.inside,
            "token": options.token, "consensus": options.consensus, "crypto": options.crypto,
            "two_node": options.two_node, "qdevice": options.qdevice, "stonith": options.stonith,
            "ip_version": options.ip_version,
            "pacemaker": options.pacemaker,
            "real_time": options.nodes <= cluster.CROWD and cluster.may_use_real_time(),
            "packages": [visible_file("--packages", file) for file in options.packages],
            "bin": None if options.packages else binaries(options.bin),
            "ocf": None if options.packages else agents(options.ocf),
            "authkey": os.urandom(256).hex()}


def living(rig):
    """Machines of this rig that run, also when `up` never came to its end."""
    names = os.listdir(rig.dir) if rig.exists() else []
    return sorted(name for name in names if machine.machine_pid(rig, name))


def up(rig, options, say):
    """Builds the whole rig, or leaves nothing behind."""
    check_host(options)
    config = make_config(rig, options)
    if rig.exists():
        running = living(rig)
        if running:
            raise RigError(f"rig '{rig.name}' is up already ({' '.join(running)}); "
                           f"'rig --name {rig.name} down' first, or use another --name")
        say("taking away what is left of an earlier rig")
        tear_down(rig)
    if not config["real_time"]:
        why = ("so many nodes" if options.nodes > cluster.CROWD
               else "this machine grants no real-time priority")
        say(f"note: {why}: Corosync runs without real-time priority")
    try:
        with signals_as_errors():
            return build(rig, config, options, say)
    except BaseException as error:
        ignore_signals()
        kept = rig.save_logs() if rig.exists() else "none"
        tear_down(rig)
        if isinstance(error, RigError):
            raise type(error)(f"{error}\nrig '{rig.name}' is taken away again; "
                              f"its logs are kept in {kept}") from error
        raise


def build(rig, config, options, say):
    began = time.monotonic()
    timings = {}

    def reached(what, key):
        timings[key] = round(time.monotonic() - began, 2)
        say(f"{timings[key]:6.2f} s  {what}")

    rig.make_dir()
    rig.save_config(config)
    machine.build_init(rig)
    switch.create(rig)
    names = rig.machine_names()
    for name in names:
        cluster.prepare_machine(rig, name, config)
    power.start(rig)
    machine.boot(rig, names)
    reached(f"{len(names)} machines on the switch", "machines_s")
    nodes = rig.node_names()
    if config["packages"]:
        machine.install(rig, nodes, config["packages"])
        reached(f"{len(config['packages'])} packages installed on every node", "installed_s")
    crowd = len(nodes) > cluster.CROWD
    if config["qdevice"]:
        arbiter.start(rig)
    for name in nodes:
        machine.start_cluster(rig, name, config["pacemaker"] and not crowd)
    deadline = Deadline(options.timeout or 90 + 5 * len(nodes))
    cluster.wait_until(rig, deadline.left(), f"Corosync on {len(nodes)} nodes to agree",
                       lambda: members_problem(rig, nodes))
    reached(f"Corosync: {len(nodes)} members on every node", "corosync_s")
    if config["qdevice"]:
        cluster.wait_until(rig, max(1, deadline.left()), "the quorum device to vote",
                           lambda: arbiter.problem(rig, nodes))
        reached("the quorum device votes", "qdevice_s")
    if config["pacemaker"]:
        for name in nodes if crowd else []:  # one storm after the other
            machine.start_cluster(rig, name, True)
        cluster.wait_online(rig, nodes, max(1, deadline.left()))
        reached(f"Pacemaker: {len(nodes)} nodes online", "online_s")
    return timings


def members_problem(rig, nodes):
    for name in nodes:
        _, text = machine.query(machine.living_pid(rig, name), ["corosync-quorumtool", "-s"])
        view = cluster.parse_quorumtool(text)
        if len(view["members"]) != len(nodes) or not view["quorate"]:
            return f"{name} has {len(view['members'])} of {len(nodes)} members"
    return None


def prepare_boot(rig, name):
    """What must be gone before a machine may start again."""
    if machine.machine_pid(rig, name):
        raise RigError(f"{name} runs already")
    switch.remove_port(rig, name)
    drop_netns(f"{rig.name}-{name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{rig.machine_dir(name)}/halted.json")


def boot_again(rig, names):
    """Boots machines that are down, and starts the cluster software of the nodes among them."""
    for name in names:
        prepare_boot(rig, name)
    machine.boot(rig, names)
    for name in names:
        if name == arbiter.NAME:
            arbiter.start(rig)
        if name in rig.node_names():
            machine.start_cluster(rig, name, rig.config()["pacemaker"])


def drop_netns(name):
    """A named network namespace would outlive its machine."""
    if os.path.exists(f"/run/netns/{name}"):
        run(["ip", "netns", "del", name])


# Taking away.

def namespace_id(path):
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except OSError:
        return None


def netns_names(rig):
    pattern = re.compile(re.escape(rig.name) + r"-(lan|client|arbiter|s\d+)$")
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    return sorted(name for name in names if pattern.match(name))


def inhabitants(namespaces):
    """Processes in one of these network namespaces."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and namespace_id(f"/proc/{entry}/ns/net") in namespaces:
            found.append(int(entry))
    return found


def end_inhabitants(namespaces):
    """Ends what somebody has started in the rig's namespaces: it would keep them alive."""
    for number, seconds in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        victims = inhabitants(namespaces)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = Deadline(seconds)
        while victims and deadline.left() > 0:
            victims = [p for p in victims if (machine.proc_state(p) or "Z")[0] not in "ZX"]
            time.sleep(0.01)


def tear_down(rig):
    """Takes away whatever exists of the rig; one thing that resists does not save the others."""
    troubles = []

    def attempt(step, *arguments):
        try:
            step(*arguments)
        except RigError as error:
            troubles.append(str(error))

    attempt(power.stop, rig)
    pids = {name: pid for name in living(rig) if (pid := machine.machine_pid(rig, name))}
    namespaces = {namespace_id(f"/proc/{pid}/ns/net") for pid in pids.values()}
    namespaces |= {namespace_id(f"/run/netns/{name}") for name in netns_names(rig)}
    namespaces -= {None, namespace_id("/proc/self/ns/net")}
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for name in pids:
        attempt(machine.kill, rig, name)
    end_inhabitants(namespaces)
    for name in netns_names(rig):
        attempt(drop_netns, name)
    attempt(rig.remove_dir)
    if troubles:
        raise RigError("; ".join(troubles))
