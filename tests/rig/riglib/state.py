# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rig remembers: its directory on the host, its lock, deadlines, and errors for people."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

NAME_RULE = re.compile(r"[a-z][a-z0-9]{0,11}$")


class RigError(Exception):
    """Something that the user must hear: one sentence that says what to do or where to look."""


class Deadline:
    """Counts down from `seconds`; `check()` raises an error that names what was awaited."""

    def __init__(self, seconds):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self):
        return self._end - time.monotonic()

    def check(self, awaited, logs=""):
        if self.left() <= 0:
            where = f"; logs: {logs}" if logs else ""
            raise RigError(f"waited {self.seconds:g} s in vain for {awaited}{where}")


def run(argv, **kwargs):
    """Runs a tool that must succeed; its own words become the error."""
    kwargs.setdefault("timeout", 30)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, **kwargs)
    except subprocess.TimeoutExpired as error:
        raise RigError(f"{' '.join(argv)} did not end within {error.timeout:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RigError(f"{' '.join(argv)} failed ({done.returncode}): {said}")
    return done.stdout


class Rig:
    """The directory /run/saru-rig-NAME and the plain facts in it; no process is started here."""

    def __init__(self, name):
        if not NAME_RULE.match(name):
            raise RigError(f"--name '{name}': use 1 to 12 small letters and digits, letter first")
        self.name = name
        self.dir = f"/run/saru-rig-{name}"
        self.share = f"{self.dir}/share"
        self.switch = f"{name}-lan"

    # Facts.

    def exists(self):
        return os.path.exists(self.dir)

    def is_up(self):
        return os.path.exists(f"{self.dir}/rig.json")

    def config(self):
        try:
            with open(f"{self.dir}/rig.json", encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            option = "" if self.name == "rig" else f"--name {self.name} "
            raise RigError(f"rig '{self.name}' is not up: start it with 'rig {option}up'") from None

    def save_config(self, config):
        self.write_json("rig.json", config)

    def write_json(self, file_name, value):
        path = f"{self.dir}/{file_name}"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.rename(f"{path}.new", path)

    def read_json(self, file_name, default):
        try:
            with open(f"{self.dir}/{file_name}", encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return default

    def node_names(self):
        return [f"n{k}" for k in range(1, self.config()["nodes"] + 1)]

    def server_names(self):
        return [f"s{k}" for k in range(1, self.config()["servers"] + 1)]

    def machine_names(self):
        extra = ["arbiter"] if self.config()["qdevice"] else []
        return self.node_names() + self.server_names() + extra + ["client"]

    def machine_dir(self, machine):
        return f"{self.dir}/{machine}"

    # The directory itself: a tmpfs of its own, so that overlays work on it and `down` frees it.

    def make_dir(self):
        os.mkdir(self.dir, 0o700)
        run(["mount", "-t", "tmpfs", "-o", "mode=700", f"saru-rig-{self.name}", self.dir])
        run(["mount", "--make-private", self.dir])
        os.mkdir(self.share, 0o755)

    def remove_dir(self):
        while os.path.ismount(self.dir):
            run(["umount", "-l", self.dir])
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.dir)

    def save_logs(self):
        """Keeps what the machines said when `up` has failed, where `down` does not remove it."""
        kept = f"/tmp/saru-rig-{self.name}-failed"
        shutil.rmtree(kept, ignore_errors=True)
        os.mkdir(kept, 0o700)
        for entry in os.scandir(self.dir):
            for part in ("console.log", "log"):
                source = f"{entry.path}/{part}"
                if os.path.isdir(source):
                    shutil.copytree(source, f"{kept}/{entry.name}/log", dirs_exist_ok=True)
                elif os.path.exists(source):
                    os.makedirs(f"{kept}/{entry.name}", exist_ok=True)
                    shutil.copy(source, f"{kept}/{entry.name}/")
        return kept

    # One changing command at a time. An abstract socket is gone with its holder and is no file.

    @contextlib.contextmanager
    def lock(self, seconds=30, evict=False):
        """Holds the rig. `evict`: ends a holder that keeps it for longer than `seconds`."""
        address = f"\0saru-rig/{self.name}"
        deadline = Deadline(seconds)
        evicted = None
        with socket.socket(socket.AF_UNIX) as mutex:
            while True:
                try:
                    mutex.bind(address)
                    break
                except OSError:
                    pass
                holder = lock_holder(address)
                if deadline.left() <= 0 and evict and holder and evicted != signal.SIGKILL:
                    evicted = signal.SIGTERM if evicted is None else signal.SIGKILL
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(holder, evicted)
                    deadline = Deadline(10)
                deadline.check(f"another rig command (pid {holder}) that works on '{self.name}'")
                time.sleep(0.05)
            mutex.listen(8)
            yield


def lock_holder(address):
    """The pid of the process that listens on `address`, None when nobody does any more."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.setblocking(False)
        try:
            asker.connect(address)
        except OSError:
            return None
        credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack("3i", credentials)[0]
