# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `rig`: arguments in, one function per command, errors as one plain sentence."""
import argparse
import json
import os
import signal
import sys
import time

from riglib import arbiter, cluster, lifecycle, machine, power, switch
from riglib.state import Rig, RigError

ABOUT = """A real Corosync/Pacemaker cluster of N nodes on this one machine.

Every node nK has its own network, mounts, processes and host name, real Corosync (knet) and real
Pacemaker; its eth0 (10.77.0.K/16, fd77::K/64) is plugged into a switch, as is the client's
(10.77.0.250, fd77::250). A node keeps its own /etc, /var/lib, /usr and /var/log from boot to
boot, has a fresh /run and /dev/shm, and shares all else with the host, also /tmp. The rig is kept
below /run/saru-rig-NAME; several run side by side with --name."""
CUT_ABOUT = """split the network: the named machines keep each other and lose all the rest
Their links stay up. The client and the servers stay with the rest unless they are named. A second
cut makes a third side; a machine named again moves there. 'rig heal' joins all sides."""
PAUSE_ABOUT = """stop (SIGSTOP) everything on the node, or the processes of that name
The node's kernel goes on: it answers ARP and pings, and packets still pass its rules."""


def make_parser():
    parser = argparse.ArgumentParser(
        prog="rig", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="rig", metavar="PREFIX",
                        help="which rig (default: rig); prefix of its namespaces")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, about, **kwargs):
        return commands.add_parser(name, help=about.partition("\n")[0], description=about, **kwargs)

    add_up(command("up", "start a rig; returns when all nodes are online"))
    command("down", "take everything of the rig away; fine when there is nothing")
    status = command("status", "what runs, and in which state")
    status.add_argument("--json", action="store_true", help="for tools: pids, addresses, netns")
    command("exec", "run a command in a machine: rig exec n1 -- crm_mon -1").add_argument("machine")
    command("client", "run a command in the client: rig client -- ping -c1 n1")
    command("shell", "an interactive shell in a machine").add_argument("machine")
    for name, about in (("crash", "power loss: the link falls silent, then SIGKILL to everything"),
                        ("halt", "shut the node down cleanly, then power off"),
                        ("boot", "start it again, with its disks as they were")):
        one = command(name, about)
        one.add_argument("machine", nargs="+")
        one.add_argument("--json", action="store_true", help="print when it happened")
    for name in ("pause", "resume"):
        about = PAUSE_ABOUT if name == "pause" else "undo 'pause' (SIGCONT)"
        one = command(name, about)
        one.add_argument("machine")
        one.add_argument("process", nargs="?")
        one.add_argument("--json", action="store_true", help="print when it happened")
    one = command("cut", CUT_ABOUT)
    one.add_argument("machine", nargs="+")
    one.add_argument("--json", action="store_true", help="print when it happened")
    one = command("heal", "end all cuts")
    one.add_argument("--json", action="store_true", help="print when it happened")
    wait = command("wait", "until nodes are online, or offline for the others, or all is stable")
    wait.add_argument("what", choices=("online", "offline", "stable"))
    wait.add_argument("machine", nargs="*")
    wait.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds (60)")
    commands.add_parser("_power")
    return parser


def add_up(up):
    up.add_argument("--nodes", type=int, default=3, metavar="N", help="1 to 32 (3)")
    up.add_argument("--token", type=int, metavar="MS",
                    help="Totem token timeout (500; from 7 nodes 2000, 11: 5000, 17: 10000)")
    up.add_argument("--consensus", type=int, metavar="MS", help="(Corosync's own: 1.2 x token)")
    up.add_argument("--crypto", default="aes256", choices=("aes256", "aes128", "none"),
                    help="knet encryption (aes256, with sha256)")
    up.add_argument("--two-node", action="store_true", help="votequorum two_node, with --nodes 2")
    up.add_argument("--qdevice", action="store_true",
                    help="a machine 'arbiter' with corosync-qnetd gives one more vote (ffsplit)")
    up.add_argument("--stonith", action="store_true",
                    help="real fencing: device 'power' (fence_rig) kills and boots nodes")
    up.add_argument("--ip-version", type=int, default=4, choices=(4, 6),
                    help="of Corosync's ring (4); 6: no machine has an IPv4 address at all")
    up.add_argument("--servers", type=int, default=0, metavar="K",
                    help="plain machines sK with 10.77.1.K")
    up.add_argument("--inside", action="store_true",
                    help="nodes have an eth1 (10.79.0.K) on a second switch; the servers are there "
                    "only (10.79.1.K)")
    up.add_argument("--no-pacemaker", dest="pacemaker", action="store_false", help="Corosync only")
    up.add_argument("--bin", metavar="DIR",
                    help="where sarud and saructl are built ($SARU_BIN, or build/agent)")
    up.add_argument("--ocf", metavar="DIR", help="resource agents ocf:saru:* ($SARU_OCF, or ocf)")
    up.add_argument("--packages", nargs="+", default=[], metavar="FILE",
                    help="Debian packages that dpkg installs on every node; no --bin, --ocf then")
    up.add_argument("--timeout", type=float, metavar="S",
                    help="seconds until all must be online (90 + 5 per node)")
    up.add_argument("--json", action="store_true", help="print the status at the end, for tools")


# What is.

def node_status(rig, name, view):
    about = machine.describe(rig, name)
    side = cluster.side_of(rig, name)
    about.update(side=side, paused=[], members=[], quorate=False, online=False,
                 log_dir=f"{rig.machine_dir(name)}/log", state="up")
    if about["pid"] is None:
        about["state"] = "down" if rig.read_json(f"{name}/halted.json", False) else "crashed"
        return about
    about["paused"] = cluster.stopped(about["pid"])
    if view:
        about.update(members=[f"n{k}" for k in view["members"]], quorate=view["quorate"],
                     online=name in view["online"])
    if about["paused"]:
        about["state"] = "paused"
    elif side:
        about["state"] = "cut"
    elif about["online"]:
        about["state"] = "online"
    return about


def plain_status(rig, name):
    about = machine.describe(rig, name)
    about.update(state="up" if about["pid"] else "crashed", side=cluster.side_of(rig, name),
                 log_dir=f"{rig.machine_dir(name)}/log")
    return about


def status(rig):
    config = rig.config()
    nodes = rig.node_names()
    said = cluster.views(rig, nodes)
    ports = switch.ports(rig)
    return {"name": rig.name, "dir": rig.dir, "token": config["token"],
            "consensus": config["consensus"], "stonith": config["stonith"],
            "device_sync_timeout": arbiter.SYNC_TIMEOUT_MS if config["qdevice"] else None,
            "device_timeout": arbiter.TIMEOUT_MS if config["qdevice"] else None,
            "real_time": config["real_time"], "bin": config["bin"], "ocf": config["ocf"],
            "nodes": [node_status(rig, name, said.get(name)) for name in nodes],
            "client": plain_status(rig, "client"),
            "servers": [plain_status(rig, name) for name in rig.machine_names()
                        if name not in rig.node_names() + ["client"]],
            "switch": {"name": rig.switch, "netns": f"/run/netns/{rig.switch}",
                       "ports": {name: name for name in rig.machine_names() if name in ports}}}


def print_status(found):
    print(f"rig '{found['name']}': token {found['token']} ms, logs below {found['dir']}")
    for one in found["nodes"] + found["servers"] + [found["client"]]:
        notes = []
        if one.get("paused"):
            notes.append("stopped: " + " ".join(one["paused"]))
        if one["side"]:
            notes.append(f"side {one['side']}")
        if one.get("members"):
            quorate = "quorate" if one["quorate"] else "no quorum"
            notes.append(f"sees {' '.join(one['members'])} ({quorate})")
        pid = one["pid"] or "-"
        print(f"  {one['name']:<7}{one['state']:<8} {one['addresses'][0]:<12} pid {pid:<8} "
              f"{', '.join(notes)}".rstrip())


# What changes it.

def need_machines(rig, names):
    for name in names:
        if name not in rig.machine_names():
            raise RigError(f"rig '{rig.name}' has no machine '{name}'; it has "
                           + " ".join(rig.machine_names()))


def change(rig, options):
    """The short commands that do something to machines; returns what to report of it."""
    names = getattr(options, "machine", [])
    names = [names] if isinstance(names, str) else names
    need_machines(rig, names)
    what = options.command
    report = {"done": " ".join([what, *names, getattr(options, "process", None) or ""]).strip()}
    if what == "crash":
        report["silent_monotonic_ns"] = {}
        for name in names:
            report["silent_monotonic_ns"][name] = machine.crash(rig, name)
            lifecycle.drop_netns(f"{rig.name}-{name}")
    elif what == "halt":
        for name in names:
            cluster.halt(rig, name, 60)
    elif what == "boot":
        lifecycle.boot_again(rig, names)
    elif what in ("pause", "resume"):
        number = signal.SIGSTOP if what == "pause" else signal.SIGCONT
        pid = machine.living_pid(rig, names[0])
        if not machine.signal_all(pid, number, options.process):
            raise RigError(f"no process '{options.process}' runs on {names[0]}")
    elif what == "cut":
        switch.cut(rig, names)
    else:
        switch.heal(rig)
    return report


def run_change(rig, options):
    rig.config()
    with rig.lock():
        began = {"realtime_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns()}
        report = change(rig, options)
    if options.json:
        took_ms = (time.monotonic_ns() - began["monotonic_ns"]) / 1e6
        print(json.dumps({**report, **began, "took_ms": round(took_ms, 3)}))
    return 0


def run_up(rig, options):
    def say(line):
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    with rig.lock(2):
        timings = lifecycle.up(rig, options, say)
    if options.json:
        print(machine.dumps({**status(rig), "timings": timings}))
    else:
        option = "" if rig.name == "rig" else f"--name {rig.name} "
        say(f"rig '{rig.name}' is up: rig {option}exec n1 -- crm_mon -A1    rig {option}down")
    return 0


def run_wait(rig, options):
    rig.config()
    if options.what == "stable":
        if options.machine:
            raise RigError("'wait stable' takes no node")
        cluster.wait_stable(rig, options.timeout)
        return 0
    if not options.machine:
        raise RigError(f"'wait {options.what}' needs a node")
    for name in options.machine:
        if name not in rig.node_names():
            raise RigError(f"rig '{rig.name}' has no node '{name}'")
    waiter = cluster.wait_online if options.what == "online" else cluster.wait_offline
    waiter(rig, options.machine, options.timeout)
    return 0


def run_status(rig, options):
    found = status(rig)
    if options.json:
        print(machine.dumps(found))
    else:
        print_status(found)
    return 0


def dispatch(rig, options, words):
    command = options.command
    if command in ("exec", "client"):
        if not words:
            raise RigError(f"'rig {command}' needs -- and a command")
        rig.config()
        return machine.execute(rig, getattr(options, "machine", "client"), words)
    if command == "shell":
        prompt = {"PS1": f"[{options.machine}] \\w \\$ "}
        return machine.execute(rig, options.machine, ["bash", "--norc"], prompt)
    if command == "down":
        with rig.lock(5, evict=True):
            lifecycle.tear_down(rig)
        return 0
    if command == "_power":
        power.serve(rig)
        return 0
    special = {"up": run_up, "wait": run_wait, "status": run_status}
    return special.get(command, run_change)(rig, options)


def main(argv):
    words = []
    if "--" in argv:
        words = argv[argv.index("--") + 1:]
        argv = argv[:argv.index("--")]
    options = make_parser().parse_args(argv)
    if os.geteuid() != 0:
        print("rig: needs root: namespaces, mounts and real daemons", file=sys.stderr)
        return 1
    try:
        return dispatch(Rig(options.name), options, words)
    except RigError as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
