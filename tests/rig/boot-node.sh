#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Boots one machine of the rig. Runs inside its new namespaces, as a child of its pid 1, before
# anybody else lives there.   boot-node.sh KIND NAME STATE SHARE ADDRESS4 ADDRESS6 [INSIDE4 INSIDE6]
#   KIND   node (cluster software) or plain (client, server)
#   STATE  the machine's directory: overlay layers and logs, kept from boot to boot
#   SHARE  the rig's directory that all machines see, as /run/saru-rig (socket of the fence device)
#   INSIDE4, INSIDE6  addresses of eth1, when it has one
set -eu
kind=$1 name=$2 state=$3 share=$4 address4=$5 address6=$6

layer() {  # layer DIRECTORY NAME: what the machine changes under DIRECTORY stays in its own state
  mount -t overlay -o "lowerdir=$1,upperdir=$state/$2,workdir=$state/$2.work" overlay "$1"
}

mount -t proc -o nosuid,nodev,noexec proc /proc
# /proc/sys is the host's for all that is not per namespace, and a panicking Pacemaker writes here:
if [ -e /proc/sysrq-trigger ]; then mount --bind /dev/null /proc/sysrq-trigger; fi
mount -t sysfs sysfs /sys

layer /etc etc
if [ "$kind" = node ]; then
  layer /var/lib var-lib
  layer /usr usr
fi
# The user that a package creates, where the programs are links to a build.
if [ -L /usr/sbin/sarud ] && ! id saru >/dev/null 2>&1; then
  useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin saru
fi
mount --bind "$state/log" /var/log
mount -t tmpfs -o mode=1777 shm /dev/shm

# A fresh /run. The mounts of others below the host's /run would be kept alive by this copy of them
# (namespaces, other rigs), so they go first.
run=$state/run
mkdir -p "$run"
mount -t tmpfs -o mode=755 run "$run"
mkdir -p "$run/lock" "$run/corosync" "$run/resource-agents" "$run/crm" "$run/user" "$run/shm" \
  "$run/saru-rig"
chmod 1777 "$run/lock" "$run/resource-agents"
if [ "$kind" = node ]; then
  chown hacluster:haclient "$run/crm"
  chmod 750 "$run/crm"
fi
mount --bind "$share" "$run/saru-rig"
awk -v own="$run" '$2 ~ "^/run/" && index($2, own) != 1 { print $2 }' /proc/mounts | tac |
  while read -r point; do
    case $state in "$point"/*) ;; *) umount -l "$point" ;; esac
  done
mount -n --move "$run" /run

nic() {  # nic NAME ADDRESS4 ADDRESS6
  echo 0 >"/proc/sys/net/ipv6/conf/$1/accept_dad"
  echo 0 >"/proc/sys/net/ipv6/conf/$1/accept_ra"
  if [ "$2" != - ]; then ip addr add "$2" dev "$1"; fi
  ip addr add "$3" dev "$1" nodad
  ip link set "$1" up
}

ip link set lo up
nic eth0 "$address4" "$address6"
if [ $# -ge 8 ]; then nic eth1 "$7" "$8"; fi
# What an administrator lets the machine do at each boot, before the cluster software starts.
if [ -x /etc/rig-boot ]; then /etc/rig-boot; fi
echo "$name booted"
