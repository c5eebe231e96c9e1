# SPDX-License-Identifier: GPL-2.0-or-later
"""The power controller: a process outside of all nodes that `fence_rig` asks over a socket.

One line in (`status n2`, `off n2`, `on n2`, `reboot n2`, `list`, `monitor`), one answer out. It
answers `ok` to off and reboot only when nothing of the node runs any more.
"""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from riglib import machine
from riglib.state import Deadline, RigError

# A machine that is reset needs time for its firmware; Pacemaker sees the node gone in between.
RESET_SECONDS = 1.0


def socket_path(rig):
    return f"{rig.share}/power.sock"


def start(rig):
    """Starts the controller in the background and returns when it listens."""
    with open(f"{rig.dir}/power.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, f"{machine.HERE}/rig", "--name", rig.name, "_power"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True)
    rig.write_json("power.json", {"pid": process.pid,
                                  "start": machine.proc_state(process.pid)[1]})
    deadline = Deadline(10)
    while not os.path.exists(socket_path(rig)):
        if process.poll() is not None:
            raise RigError(f"the power controller ended at once; log: {rig.dir}/power.log")
        deadline.check("the power controller", f"{rig.dir}/power.log")
        time.sleep(0.02)


def stop(rig):
    known = rig.read_json("power.json", None)
    state = known and machine.proc_state(known["pid"])
    if not state or state[1] != known["start"]:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(known["pid"], signal.SIGKILL)
    deadline = Deadline(5)
    while (machine.proc_state(known["pid"]) or "Z")[0] not in "ZX":
        deadline.check("the end of the power controller")
        time.sleep(0.005)


def boot_later(rig, node, seconds, boots=[]):
    """Starts the boot in the background; `boots` holds those that have not been reaped yet."""
    boots[:] = [process for process in boots if process.poll() is None]
    script = f'sleep {seconds}; exec "$0" "$1" --name "$2" boot "$3"'
    boots.append(subprocess.Popen(
        ["sh", "-c", script, sys.executable, f"{machine.HERE}/rig", rig.name, node],
        stdin=subprocess.DEVNULL, start_new_session=True))


def act(rig, words):
    action, node = words[0], words[1] if len(words) > 1 else None
    if action == "monitor":
        return "ok"
    if action == "list":
        return "\n".join(f"{name}," for name in rig.node_names())
    if node not in rig.node_names():
        return f"no node '{node}'"
    runs = machine.machine_pid(rig, node) is not None
    if action == "status":
        return "on" if runs else "off"
    if action == "on":
        if not runs:
            boot_later(rig, node, 0)
        return "ok"
    if action in ("off", "reboot"):
        if runs:
            machine.crash(rig, node)
        if action == "reboot":
            boot_later(rig, node, RESET_SECONDS)
        return "ok"
    return f"no action '{action}'"


def serve(rig):
    """Until `rig down` ends this process, or the rig's directory is gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path(rig))
        listener.listen(64)
        listener.settimeout(2)
        while rig.is_up() or os.path.ismount(rig.dir):
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                continue
            with peer, contextlib.suppress(OSError):
                peer.settimeout(5)
                words = peer.recv(256).decode(errors="replace").split()
                began = time.monotonic()
                try:
                    answer = act(rig, words) if words else "nothing asked"
                except RigError as error:
                    answer = str(error)
                spent = (time.monotonic() - began) * 1000
                first = answer.partition("\n")[0]
                print(f"{time.time():.6f} {' '.join(words)} -> {first} ({spent:.1f} ms)",
                      flush=True)
                peer.sendall(answer.encode())
