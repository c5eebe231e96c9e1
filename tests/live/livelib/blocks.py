# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns which block, read from the nodes' kernels, and the least that had to move.

Nothing here asks sarud, and nothing here shares code with it."""
import json
import subprocess

from livelib.cluster import ENVIRONMENT, LiveError, finish, program

BLOCKS = 512
PORTS = 65536 // BLOCKS
TABLE = "saru_1"


def element_value(element):
    """An element of nft's JSON is a number, or a dictionary around it when it has attributes."""
    return element["elem"]["val"] if isinstance(element, dict) else element


def parse_owned(text):
    """The blocks in the answer of `nft -j list set`; None when there is no such set."""
    for part in json.loads(text)["nftables"] if text.strip() else []:
        if "set" in part:
            ports = [element_value(element) for element in part["set"].get("elem", [])]
            if any(port % PORTS for port in ports):
                raise LiveError(f"the set of a kernel has ports that begin no block: {ports}")
            return frozenset(port // PORTS for port in ports)
    return None


def read_kernels(cluster, nodes=None, table=TABLE):
    """{node: its blocks as its kernel holds them; None: no table} of the living nodes."""
    command = ["nft", "-j", "list", "set", "inet", table, "owned"]
    running = {
        node: subprocess.Popen(cluster.inside(node, command), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env=ENVIRONMENT)
        for node in nodes or cluster.living()}
    found = {}
    for node, process in running.items():
        try:
            said = process.communicate(timeout=20)[0]
            found[node] = parse_owned(said) if process.returncode == 0 else None
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LiveError(f"nft on {node} did not answer within 20 s") from None
    return found


def problem(kernels, expected):
    """Why these kernels are not yet a finished table of the expected nodes; None when they are."""
    owner = {}
    for node, blocks in kernels.items():
        for block in blocks or ():
            if block in owner:
                return f"block {block} is in the kernels of {owner[block]} and {node}"
            owner[block] = node
    if len(owner) != BLOCKS:
        return f"{BLOCKS - len(owner)} blocks are in no kernel"
    counts = {node: len(kernels.get(node) or ()) for node in expected}
    if sum(counts.values()) != BLOCKS:
        return "a node that should own nothing owns blocks"
    if max(counts.values()) - min(counts.values()) > 1:
        return f"not balanced: {counts}"
    return None


def wait_settled(cluster, expected, seconds, awaited):
    """The kernels, once those of the expected nodes hold every block once, evenly."""
    last = {}

    def settled():
        kernels = read_kernels(cluster)
        last["problem"] = problem(kernels, expected)
        return kernels if last["problem"] is None else None
    try:
        return cluster.wait(settled, seconds, awaited, step=0.25)
    except LiveError as error:
        raise LiveError(f"{error} ({last['problem']})") from None


def owners(kernels):
    """{block: node}"""
    return {block: node for node, blocks in kernels.items() for block in blocks or ()}


def moved(before, after):
    """The blocks whose owner differs."""
    was, now = owners(before), owners(after)
    return sorted(block for block in range(BLOCKS) if was.get(block) != now.get(block))


def minimum_moves(before, after):
    """The least number of blocks that must change hands between two balanced tables.

    `after` tells who takes part: everyone who owns something then. Each gets the floor, and any
    `extra` of them one block more. A node keeps at most what it has and at most its share, so the
    extra blocks do most where a node has more than the floor: what cannot be kept must move."""
    taking_part = [node for node, blocks in after.items() if blocks]
    floor, extra = divmod(BLOCKS, len(taking_part))
    had = [len(before.get(node) or ()) for node in taking_part]
    kept = sum(min(count, floor) for count in had)
    kept += min(extra, sum(1 for count in had if count > floor))
    return BLOCKS - kept


def forecast(cluster, kernels, members):
    """{block: node} that these members will agree on; only to know which blocks to probe."""
    text = f"{BLOCKS}\n"
    for node in members:
        blocks = sorted(kernels.get(node) or ())
        text += " ".join(str(number) for number in [cluster.ids[node], len(blocks), *blocks]) + "\n"
    done = finish([program("saru-forecast")], 20, "saru-forecast", text)
    if done.returncode != 0:
        raise LiveError(f"saru-forecast failed: {done.stderr.strip()}")
    names = {number: node for node, number in cluster.ids.items()}
    return {block: names.get(int(word)) for block, word in enumerate(done.stdout.split())}


def spread(candidates, count):
    """`count` of them, evenly spread over the range."""
    candidates = sorted(candidates)
    if len(candidates) <= count:
        return candidates
    return [candidates[i * len(candidates) // count] for i in range(count)]
