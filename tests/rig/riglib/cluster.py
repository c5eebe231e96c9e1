# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster software of the nodes: its files before the first boot, and how far it has come."""
import os
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree

from riglib import arbiter, machine, switch
from riglib.state import Deadline, RigError

# From here on, real-time Corosyncs would leave no time to Pacemaker on a machine with few cores.
CROWD = 10

# knet_ping_timeout: its default, token / 2, makes links flap on a loaded machine; Totem's own token
# still notices a dead node after token + consensus. It must be shorter than a cut that tests heal:
# if one end of a link never saw it fail and the other end was restarted meanwhile, libknet 1.25
# drops some packets as already seen, and the ring repeats "Retransmit List" for half a minute.
# knet_mtu: left to itself, libknet 1.25 measures the MTU every 30 s and brings a link whose MTU it
# does not know yet back only then, one link each time; ring follows ring until all are back.
COROSYNC_CONF = """\
totem {{
  version: 2
  cluster_name: {name}
  transport: knet
  ip_version: ipv{ip_version}
  crypto_cipher: {cipher}
  crypto_hash: {hash}
  token: {token}
  token_coefficient: 0
  knet_mtu: 1500
{consensus}  interface {{
    linknumber: 0
    knet_ping_interval: {ping}
    knet_ping_timeout: {ping_timeout}
    knet_pong_count: 2
  }}
}}
quorum {{
  provider: corosync_votequorum
{two_node}{device}}}
system {{
  sched_rr: {sched_rr}
  move_to_root_cgroup: no
}}
logging {{
  to_stderr: no
  to_syslog: no
  to_logfile: yes
  logfile: /var/log/corosync/corosync.log
  timestamp: hires
  debug: off
}}
nodelist {{
{nodes}}}
"""

# dc-deadtime: how long a node alone looks for a coordinator; its default is 20 s.
CIB = """\
<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" \
admin_epoch="0">
  <configuration>
    <crm_config><cluster_property_set id="cib-bootstrap-options">
      <nvpair id="cib-bootstrap-options-dc-deadtime" name="dc-deadtime" value="2s"/>
      <nvpair id="cib-bootstrap-options-stonith-enabled" name="stonith-enabled" value="{stonith}"/>
    </cluster_property_set></crm_config>
    <nodes/><resources>{fence}</resources><constraints/>
  </configuration><status/>
</cib>
"""
FENCE = """
      <primitive id="power" class="stonith" type="fence_rig">
        <instance_attributes id="power-instance_attributes">
          <nvpair id="power-hosts" name="pcmk_host_list" value="{hosts}"/>
          <nvpair id="power-check" name="pcmk_host_check" value="static-list"/>
        </instance_attributes>
        <operations><op id="power-monitor" name="monitor" interval="60s"/></operations>
      </primitive>
    """


def may_use_real_time():
    """Whether a process of ours gets the real-time class (a container may forbid it)."""
    child = os.fork()
    if child == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def corosync_conf(config):
    nodes = ""
    for k in range(1, config["nodes"] + 1):
        v4, v6, _ = switch.plan(f"n{k}")
        nodes += (f"  node {{\n    ring0_addr: {v4 if config['ip_version'] == 4 else v6}\n"
                  f"    name: n{k}\n    nodeid: {k}\n  }}\n")
    encrypted = config["crypto"] != "none"
    # Pings grow with the square of the nodes; nothing but the first link-up waits for them.
    ping, ping_timeout = (100, 2000) if config["nodes"] <= CROWD else (1000, 10000)
    return COROSYNC_CONF.format(
        name=config["name"], ip_version=config["ip_version"],
        cipher=config["crypto"], hash="sha256" if encrypted else "none",
        token=config["token"], ping=ping, ping_timeout=ping_timeout, nodes=nodes,
        sched_rr="yes" if config["real_time"] else "no",
        consensus=f"  consensus: {config['consensus']}\n" if config["consensus"] else "",
        two_node="  two_node: 1\n" if config["two_node"] else "", device=arbiter.conf(config))


def write(path, text, mode=0o644, owner=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    if owner:
        shutil.chown(path, *owner)


def private_dir(path):
    """A directory of an overlay that hides what the host has in the same place."""
    os.makedirs(path, exist_ok=True)
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def prepare_machine(rig, name, config):
    """The directories that a machine keeps from boot to boot."""
    home = rig.machine_dir(name)
    layers = ["etc", "var-lib", "usr"] if name[0] == "n" else ["etc"]
    for layer in layers:
        os.makedirs(f"{home}/{layer}")
        os.makedirs(f"{home}/{layer}.work")
    os.makedirs(f"{home}/log")
    hosts = "127.0.0.1 localhost\n::1 localhost\n"
    for other in rig.machine_names():
        v4, v6, _ = switch.plan_in(rig, other)
        hosts += f"{v4} {other}\n" if config["ip_version"] == 4 else ""
        hosts += f"{v6} {other}\n"
    write(f"{home}/etc/hosts", hosts)
    write(f"{home}/etc/hostname", f"{name}\n")
    if name[0] == "n":
        prepare_node(home, config)


def prepare_node(home, config):
    cluster_owner = ("hacluster", "haclient")
    for path in ("etc/corosync", "etc/pacemaker", "var-lib/corosync", "var-lib/pacemaker",
                 "var-lib/pcsd"):
        private_dir(f"{home}/{path}")
    os.makedirs(f"{home}/etc/corosync/uidgid.d")
    write(f"{home}/etc/corosync/corosync.conf", corosync_conf(config))
    write(f"{home}/etc/corosync/authkey", bytes.fromhex(config["authkey"]), 0o400)
    for path in ("blackbox", "cib", "cores", "pengine"):
        os.makedirs(f"{home}/var-lib/pacemaker/{path}", 0o750)
        shutil.chown(f"{home}/var-lib/pacemaker/{path}", *cluster_owner)
    hosts = " ".join(f"n{k}" for k in range(1, config["nodes"] + 1))
    stonith = config["stonith"]
    write(f"{home}/var-lib/pacemaker/cib/cib.xml",
          CIB.format(stonith=str(stonith).lower(),
                     fence=FENCE.format(hosts=hosts) if stonith else ""), 0o600, cluster_owner)
    for path in ("corosync", "pacemaker/bundles", "crmsh", "pcsd"):
        os.makedirs(f"{home}/log/{path}")
    for path in ("pacemaker", "pacemaker/bundles", "crmsh"):
        shutil.chown(f"{home}/log/{path}", *cluster_owner)
        os.chmod(f"{home}/log/{path}", 0o770)
    # Links, not mounts: a rebuilt file is seen at once.
    os.makedirs(f"{home}/usr/sbin")
    shutil.copy(f"{machine.HERE}/fence_rig", f"{home}/usr/sbin/fence_rig")
    for binary in ("sarud", "saructl"):
        if config["bin"]:
            os.symlink(f"{config['bin']}/{binary}", f"{home}/usr/sbin/{binary}")
    if config["ocf"]:
        os.makedirs(f"{home}/usr/lib/ocf/resource.d")
        os.symlink(config["ocf"], f"{home}/usr/lib/ocf/resource.d/saru")


# What the nodes say.

def parse_quorumtool(text):
    """Members are nodes; the quorum device is listed among them as node 0."""
    view = {"quorate": False, "members": []}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("Quorate:"):
            view["quorate"] = words[1] == "Yes"
        elif len(words) >= 3 and words[0].isdigit() and words[1].isdigit() and words[0] != "0":
            view["members"].append(int(words[0]))
    return view


def parse_crm_mon(text):
    view = {"online": [], "dc": None}
    try:
        root = xml.etree.ElementTree.fromstring(text)
    except xml.etree.ElementTree.ParseError:
        return view
    for node in root.iterfind("./nodes/node"):
        if node.get("online") == "true" and node.get("pending") == "false":
            view["online"].append(node.get("name"))
    dc = root.find("./summary/current_dc")
    view["dc"] = dc.get("name") if dc is not None else None
    return view


def views(rig, names, seconds=5):
    """{node: what Corosync and Pacemaker on it say}; nodes that do not answer are left out."""
    asked = {}
    pacemaker = rig.config()["pacemaker"]
    for name in names:
        pid = machine.machine_pid(rig, name)
        if pid is None or stopped(pid):
            continue
        asked[name] = [machine.popen(pid, ["corosync-quorumtool", "-s"])]
        if pacemaker:
            asked[name].append(machine.popen(
                pid, ["crm_mon", "-1", "--output-as=xml", "--include=none,nodes,summary"]))
    deadline = Deadline(seconds)
    said = {}
    for name, processes in asked.items():
        texts = []
        for process in processes:
            try:
                texts.append(process.communicate(timeout=max(0.01, deadline.left()))[0])
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                texts.append("")
        said[name] = parse_quorumtool(texts[0])
        said[name].update(parse_crm_mon(texts[1]) if pacemaker else
                          {"online": [f"n{k}" for k in said[name]["members"]], "dc": None})
    return said


def stopped(pid):
    """Names of the processes of the machine that are stopped by a signal."""
    return sorted(name for p, name in machine.processes(pid).items()
                  if (machine.proc_state(p) or "-")[0] == "T")


def awake(rig):
    """Nodes that run and are not paused."""
    pids = {name: machine.machine_pid(rig, name) for name in rig.node_names()}
    return [name for name, pid in pids.items() if pid and not stopped(pid)]


def side_of(rig, name):
    return rig.read_json("sides.json", {}).get(name, 0)


# Waiting.

def logs(rig):
    return f"{rig.dir}/n*/log and {rig.dir}/n*/console.log"


def wait_until(rig, seconds, awaited, problem):
    """Asks `problem()` until it returns None; what it returned last goes into the error."""
    deadline = Deadline(seconds)
    while True:
        last = problem()
        if last is None:
            return
        deadline.check(f"{awaited}; at the end: {last}", logs(rig))
        time.sleep(0.1)


def membership_problem(rig, expected_in, expected_out, watchers):
    """Why the watchers do not all see these nodes in, or out; None when they do.

    One is asked first: while the cluster forms, that spares the others the questions."""
    for group in (watchers[:1], watchers[1:]):
        said = views(rig, group)
        for name in group:
            if name not in said:
                return f"{name} does not answer"
            found = view_problem(name, said[name], expected_in, expected_out)
            if found:
                return found
    return None


def view_problem(name, view, expected_in, expected_out):
    ids = [f"n{k}" for k in view["members"]]
    for other in expected_in:
        if other not in ids:
            return f"Corosync on {name} has members {' '.join(ids) or 'none'}"
        if other not in view["online"]:
            return f"Pacemaker on {name} has online {' '.join(view['online']) or 'none'}"
    for other in expected_out:
        if other in ids or other in view["online"]:
            return f"{name} still counts {other} in"
    return None


def wait_online(rig, names, seconds):
    """Until every awake node on the side of each of these counts it in, itself included."""
    def problem():
        everyone = awake(rig)
        missing = [name for name in names if name not in everyone]
        if missing:
            return f"{' '.join(missing)} is down or paused"
        for side in sorted({side_of(rig, name) for name in names}):
            found = membership_problem(rig, [n for n in names if side_of(rig, n) == side], [],
                                       [n for n in everyone if side_of(rig, n) == side])
            if found:
                return found
        return None
    wait_until(rig, seconds, f"{' '.join(names)} to be online", problem)


def wait_offline(rig, names, seconds):
    """Until all awake nodes that these are not together with see them gone."""
    def problem():
        others = [n for n in awake(rig) if n not in names]
        cut_off = {side_of(rig, n) for n in names if machine.machine_pid(rig, n)}
        watchers = [n for n in others if side_of(rig, n) not in cut_off] or others
        if not watchers:
            return "no node is left that could say so"
        return membership_problem(rig, [], names, watchers)
    wait_until(rig, seconds, f"the others to see {' '.join(names)} gone", problem)


def wait_stable(rig, seconds):
    """Until, on each side, the awake nodes agree on exactly themselves and Pacemaker is idle."""
    deadline = Deadline(seconds)

    def problem():
        everyone = awake(rig)
        for side in sorted({side_of(rig, n) for n in everyone}):
            here = [n for n in everyone if side_of(rig, n) == side]
            outside = [n for n in rig.node_names() if n not in here]
            found = membership_problem(rig, here, outside, here)
            if found is None and rig.config()["pacemaker"]:
                found = busy(rig, here)
            if found:
                return found
        return None
    wait_until(rig, seconds, "a stable cluster", problem)
    if rig.config()["pacemaker"]:
        settle(rig, max(1, int(deadline.left())))


def busy(rig, names):
    """Why Pacemaker's coordinator among these nodes is not idle; None when it is."""
    dc = views(rig, names[:1]).get(names[0], {}).get("dc")
    if dc not in names:
        return f"{names[0]} knows no coordinator"
    _, text = machine.query(machine.living_pid(rig, dc), ["crmadmin", "-S", dc])
    return None if "S_IDLE" in text else f"coordinator {dc}: {text.strip() or 'no answer'}"


def settle(rig, seconds):
    """Until Pacemaker has nothing left to do, where it may do anything (with quorum)."""
    for name, view in views(rig, awake(rig)).items():
        if view["quorate"]:
            code, _ = machine.query(machine.living_pid(rig, name),
                                    ["crm_resource", "--wait", f"--timeout={seconds}s"],
                                    seconds + 5)
            if code != 0:
                raise RigError(f"waited {seconds} s in vain for Pacemaker's pending actions; see "
                               f"'rig exec {name} -- crm_mon -1'; logs: {logs(rig)}")
            return


def halt(rig, name, seconds):
    """A clean shutdown: Pacemaker stops its resources and leaves, then Corosync leaves."""
    pid = machine.living_pid(rig, name)
    deadline = Deadline(seconds)
    for daemon in ("pacemakerd", "corosync"):
        while machine.signal_all(pid, 0, daemon):
            machine.signal_all(pid, signal.SIGTERM, daemon)
            for _ in range(50):
                if not machine.signal_all(pid, 0, daemon):
                    break
                deadline.check(f"{daemon} on {name} to end", logs(rig))
                time.sleep(0.05)
    rig.write_json(f"{name}/halted.json", True)
    machine.crash(rig, name)
