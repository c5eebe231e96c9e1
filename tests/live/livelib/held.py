#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP sessions that are held open, each carrying numbered data with a checksum, time and again.

    held.py serve NODE PORT                         the service on a node
    held.py hold ADDRESS PORT COUNT FILE            the client; writes FILE once a second

FILE: {"began", "answering": {node: sessions}, "broken": [[source port, node, why, when]],
"turned": sessions that another node answered at last, "longest_s": between two answers}"""
import asyncio
import json
import os
import sys
import time
import zlib

INTERVAL_S = 0.25
PATIENCE_S = 20


def packed(text):
    data = text.encode()
    return data + b" %08x\n" % zlib.crc32(data)


def unpacked(line):
    data, _, checksum = line.rstrip(b"\n").rpartition(b" ")
    if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(data):
        raise ValueError("damaged")
    return data.decode()


async def serve(node, port):
    async def one(reader, writer):
        try:
            while line := await reader.readline():
                writer.write(packed(f"{node} {unpacked(line)}"))
                await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()
    server = await asyncio.start_server(one, port=port, backlog=2000)
    async with server:
        await server.serve_forever()


class Sessions:
    def __init__(self):
        self.answering, self.broken = {}, []
        self.began, self.turned, self.longest_s = 0, 0, 0.0

    async def hold(self, address, port, number):
        source, node = None, None
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port),
                                                    PATIENCE_S)
            source = writer.get_extra_info("sockname")[1]
            self.began += 1
            for turn in range(10**9):
                asked = f"{source} {number} {turn}"
                at = time.monotonic()
                writer.write(packed(asked))
                line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
                if not line:
                    raise OSError("closed by the other side")
                who, said = unpacked(line).split(" ", 1)
                if said != asked:
                    raise ValueError(f"asked {asked}, got {said}")
                self.turned += node not in (None, who)
                node = self.answering[source] = who
                self.longest_s = max(self.longest_s, time.monotonic() - at)
                await asyncio.sleep(INTERVAL_S)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            self.answering.pop(source, None)
            why = str(error) or type(error).__name__
            self.broken.append([source, node, why, time.time()])

    def told(self):
        nodes = {}
        for node in self.answering.values():
            nodes[node] = nodes.get(node, 0) + 1
        return {"began": self.began, "answering": nodes, "broken": self.broken,
                "turned": self.turned, "longest_s": round(self.longest_s, 3)}

    async def tell(self, path):
        while True:
            with open(path + ".new", "w", encoding="utf-8") as file:
                json.dump(self.told(), file)
            os.replace(path + ".new", path)
            await asyncio.sleep(1)


async def hold(address, port, count, path):
    sessions = Sessions()
    await asyncio.gather(sessions.tell(path),
                         *(sessions.hold(address, port, number) for number in range(count)))


def main():
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(hold(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))


if __name__ == "__main__":
    main()
