#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Starts the cluster software of a booted node: start-node.sh yes|no (with Pacemaker).
ulimit -c 0
if ! pidof -q corosync; then
  # A daemon of its own, below pid 1: Pacemaker does not wait for children that are not its own.
  setsid -f corosync -f </dev/null >>/var/log/corosync.out 2>&1
fi
# The client of the quorum device ends with its Corosync.
if grep -q 'model: net' /etc/corosync/corosync.conf && ! pidof -q corosync-qdevice; then
  setsid -f sh -c 'until corosync-cfgtool -s; do pidof -q corosync || exit; sleep 0.05; done
    mkdir -p /run/corosync-qdevice; exec corosync-qdevice -f' </dev/null >>/var/log/qdevice.out 2>&1
fi
[ "$1" = yes ] || exit 0
tries=0
until corosync-cfgtool -s >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 600 ] || { [ "$tries" -gt 40 ] && ! pidof -q corosync; }; then
    echo "corosync does not answer: Pacemaker not started" >&2
    exit 1
  fi
  sleep 0.05
done
export PCMK_cluster_type=corosync PCMK_logfile=/var/log/pacemaker/pacemaker.log \
  PCMK_logfacility=none HA_RSCTMP=/run/resource-agents
exec pacemakerd -f </dev/null >>/var/log/pacemakerd.out 2>&1
