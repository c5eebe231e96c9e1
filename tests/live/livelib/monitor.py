#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows the set `owned` of this network namespace: a line "REALTIME_NS add|del BLOCK" per change.

Listens to the kernel's own announcements (NFNLGRP_NFTABLES), as `nft monitor` does, with times."""
import os
import socket
import struct
import sys
import time

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NFNLGRP_NFTABLES = 7
SO_RCVBUFFORCE = 33
SUBSYSTEM_NFTABLES = 10
NEW_ELEMENTS, DELETED_ELEMENTS, DELETED_TABLE = 12, 14, 2
# Attribute numbers of linux/netfilter/nf_tables.h.
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT_KEY = 1
DATA_VALUE = 1
TABLE_NAME = 1


def attributes(data):
    """(number, payload) of each netlink attribute."""
    at = 0
    while at + 4 <= len(data):
        length, number = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield number & 0x3fff, data[at + 4:at + length]
        at += (length + 3) & ~3


def text(data):
    return data.rstrip(b"\0").decode()


def keys(data):
    for _, element in attributes(data):
        for number, key in attributes(element):
            if number == ELEMENT_KEY:
                for kind, value in attributes(key):
                    if kind == DATA_VALUE:
                        yield int.from_bytes(value[:2], "big")


def lines(datagram, table, ports, now):
    at = 0
    while at + 20 <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, at)
        if length < 16:
            return
        message, fields = kind & 0xff, dict(attributes(datagram[at + 20:at + length]))
        at += (length + 3) & ~3
        if kind >> 8 != SUBSYSTEM_NFTABLES:
            continue
        if message == DELETED_TABLE and text(fields.get(TABLE_NAME, b"")) == table:
            yield f"{now} gone -1"
        if message not in (NEW_ELEMENTS, DELETED_ELEMENTS):
            continue
        if text(fields.get(LIST_TABLE, b"")) != table or text(fields.get(LIST_SET, b"")) != "owned":
            continue
        verb = "add" if message == NEW_ELEMENTS else "del"
        for port in keys(fields.get(LIST_ELEMENTS, b"")):
            yield f"{now} {verb} {port // ports}"


def main(table, ports):
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(30))
    except OSError:
        pass  # the times become coarser, not wrong
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as listener:
        listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        listener.bind((0, 0))
        listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        print(f"{time.time_ns()} ready -1", flush=True)
        while True:
            try:
                datagram = listener.recv(1 << 20)
            except OSError as error:
                print(f"{time.time_ns()} lost -1", flush=True)  # ENOBUFS: something was missed
                print(f"monitor: {error}", file=sys.stderr, flush=True)
                continue
            said = list(lines(datagram, table, ports, time.time_ns()))
            if said:
                print("\n".join(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
