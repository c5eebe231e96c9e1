# SPDX-License-Identifier: GPL-2.0-or-later
"""Other software of the node, the real programs in a node's own namespaces: no systemd starts them.

A node has an /etc, a /var/lib and a /run of its own, so nothing of this touches the machine."""
import signal
import subprocess

from livelib.cluster import LiveError

REFUSED = "is not installed: run packaging/install-dependencies test"


class Neighbours:
    """dbus-daemon on a node, and whatever is started beside it, ended by stop() or the rig."""

    def __init__(self, cluster, node, folder):
        self.cluster, self.node, self.folder = cluster, node, folder
        self.running = {}
        # NetworkManager and systemd-networkd wait for udev as long as /sys can be written.
        self.shell("mkdir -p /run/dbus; mount -o remount,bind,ro /sys")
        self.start("dbus", "dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog")
        cluster.wait(lambda: self.shell("test -S /run/dbus/system_bus_socket", check=False), 10,
                     f"D-Bus of {node}")

    def shell(self, script, check=True):
        """Whether it succeeded; with check it must."""
        done = self.cluster.run(self.node, "sh", "-ec", script, check=check)
        return done.returncode == 0

    def output(self, *argv):
        return self.cluster.run(self.node, *argv).stdout

    def write(self, path, text):
        self.shell(f"mkdir -p $(dirname {path}); cat >{path} <<'END'\n{text}\nEND")

    def start(self, name, program, *argv):
        with open(f"{self.folder}/{name}.{self.node}", "a", encoding="utf-8") as log:
            command = self.cluster.inside(self.node, [program, *argv])
            self.running[name] = self.cluster.start(command, log, stderr=subprocess.STDOUT)

    def said(self, name):
        with open(f"{self.folder}/{name}.{self.node}", encoding="utf-8") as log:
            return log.read()[-2000:]

    def ready(self, name, condition, seconds=30):
        def alive_and_ready():
            if self.running[name].poll() is not None:
                raise LiveError(f"{name} of {self.node} has ended: {self.said(name)}")
            return condition()
        self.cluster.wait(alive_and_ready, seconds, f"{name} of {self.node}")

    def stop(self, name):
        child = self.running.pop(name)
        self.cluster.end_inside(child)
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            raise LiveError(f"{name} of {self.node} did not end") from None

    # The programs.

    def firewalld(self):
        """As its unit file starts it. Configure it before, with firewall-offline-cmd."""
        self.start("firewalld", "firewalld", "--nofork", "--nopid", "--log-target=console")
        self.ready("firewalld", lambda: self.shell("firewall-cmd -q --state", check=False))

    def network_manager(self):
        self.shell("mkdir -p /run/NetworkManager")
        self.start("NetworkManager", "NetworkManager", "--debug", "--log-level=INFO")
        self.ready("NetworkManager", lambda: self.shell(
            "nmcli -t -f STARTUP general | grep -qx started", check=False))

    def networkd(self):
        self.shell("mkdir -p /run/systemd/netif/links /run/systemd/netif/leases"
                   " /run/systemd/netif/lldp; chown -R systemd-network: /run/systemd/netif")
        self.start("networkd", "/lib/systemd/systemd-networkd")
        self.ready("networkd", lambda: "configured" in self.output("networkctl", "--no-pager",
                                                                   "--no-legend", "list", "eth0"))
