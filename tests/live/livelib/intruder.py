#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of corosync that is not sarud. intruder.py ID SECONDS: joins saru's process group and
says what it has heard there once more: as it was, damaged, damaged with a right checksum, and as
bytes of chance. Prints how many messages it sent, or CPG's error when it is not let in."""
import ctypes
import os
import random
import struct
import sys
import time
import zlib

CS_OK, CS_ERR_TRY_AGAIN = 1, 6
CPG_TYPE_AGREED, ONE_NONBLOCKING = 2, 4
cpg = ctypes.CDLL("libcpg.so.4")


class Name(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint32), ("value", ctypes.c_char * 128)]


class Callbacks(ctypes.Structure):
    _fields_ = [("deliver", ctypes.CFUNCTYPE(
        None, ctypes.c_uint64, ctypes.POINTER(Name), ctypes.c_uint32, ctypes.c_uint32,
        ctypes.c_void_p, ctypes.c_size_t)), ("confchg", ctypes.c_void_p)]


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class Intruder:
    def __init__(self, cluster_id):
        self.heard = []
        self.sent = 0
        self.handle = ctypes.c_uint64()
        # Kept: libcpg calls it later.
        self.callbacks = Callbacks(Callbacks._fields_[0][1](self.deliver), None)
        self.error = cpg.cpg_initialize(ctypes.byref(self.handle), ctypes.byref(self.callbacks))
        if self.error == CS_OK:
            name = f"saru:{cluster_id}".encode()
            self.error = cpg.cpg_join(self.handle, ctypes.byref(Name(len(name), name)))

    def deliver(self, _handle, _group, _node, pid, data, size):
        if pid != os.getpid() and len(self.heard) < 500:
            self.heard.append(ctypes.string_at(data, size))

    def say(self, message):
        part = Iovec(message, len(message))
        if cpg.cpg_mcast_joined(self.handle, CPG_TYPE_AGREED, ctypes.byref(part), 1) == CS_OK:
            self.sent += 1

    def listen(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            cpg.cpg_dispatch(self.handle, ONE_NONBLOCKING)
            time.sleep(0.001)


def damaged(message, chance):
    wrong = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
    return bytes(wrong)


def sealed(message):
    return message[:-4] + struct.pack(">I", zlib.crc32(message[:-4]))


def main():
    cluster_id, seconds = sys.argv[1], float(sys.argv[2])
    intruder = Intruder(cluster_id)
    if intruder.error != CS_OK:
        print(f"refused {intruder.error}")
        return 1
    chance = random.Random(1)
    intruder.listen(1.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = chance.choice(intruder.heard) if intruder.heard else b"nothing"
        intruder.say(message)
        intruder.say(damaged(message, chance))
        intruder.say(sealed(damaged(message, chance)))
        intruder.say(chance.randbytes(chance.randrange(1, 400)))
        intruder.listen(0.02)
    print(f"sent {intruder.sent} after {len(intruder.heard)} heard")
    return 0 if intruder.sent > 20 and intruder.heard else 2


sys.exit(main())
