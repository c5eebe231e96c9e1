#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Starts the cluster software of a booted node: start-node.sh yes|no (with Pacemaker).
# "start-node.sh device" waits for Corosync and becomes the client of the quorum device.

# False when Corosync has ended, or does not answer within half a minute. In its first two seconds
# it may not have its name yet: the process between fork and exec is not called corosync.
corosync_answers() {
  local tries=0
  until corosync-cfgtool -s >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || { [ "$tries" -gt 40 ] && ! pidof -q corosync; }; then
      return 1
    fi
    sleep 0.05
  done
}

ulimit -c 0
if [ "$1" = device ]; then
  if ! corosync_answers; then
    echo "corosync does not answer: corosync-qdevice not started" >&2
    exit 1
  fi
  mkdir -p /run/corosync-qdevice
  exec corosync-qdevice -f
fi
if ! pidof -q corosync; then
  # A daemon of its own, below pid 1: Pacemaker does not wait for children that are not its own.
  setsid -f corosync -f </dev/null >>/var/log/corosync.out 2>&1
fi
# The client of the quorum device ends with its Corosync.
if grep -q 'model: net' /etc/corosync/corosync.conf && ! pidof -q corosync-qdevice; then
  setsid -f "$0" device </dev/null >>/var/log/qdevice.out 2>&1
fi
[ "$1" = yes ] || exit 0
if ! corosync_answers; then
  echo "corosync does not answer: Pacemaker not started" >&2
  exit 1
fi
export PCMK_cluster_type=corosync PCMK_logfile=/var/log/pacemaker/pacemaker.log \
  PCMK_logfacility=none HA_RSCTMP=/run/resource-agents
exec pacemakerd -f </dev/null >>/var/log/pacemakerd.out 2>&1
