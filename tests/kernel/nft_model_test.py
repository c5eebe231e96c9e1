# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulator's kernel (tests/sim/kernel_model.h) and the real one: the same random transactions
must succeed or fail alike, and leave the same behind. SARU_MODEL_SEED repeats a run."""
import json
import os
import random
import subprocess
import time

import lab

STEPS = 150
LONG_MS = 60000  # never runs out in this test
SHORT_MS = 60
SETS = ("owned", "lingering", "contested")
KEYS = {"ipv4": 2, "ipv6": 10}  # NFPROTO_IPV4, NFPROTO_IPV6


class Model:
    def __init__(self, driver_path):
        path = os.environ.get("SARU_MODEL", os.path.join(os.path.dirname(driver_path),
                                                         "../sim/saru-kernel-model"))
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)

    def ask(self, command, rest=""):
        self.process.stdin.write(f"{command} {time.monotonic_ns()} {rest}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=5)
        self.process.stdout.close()


def ranges(blocks):
    return ",".join(str(block) for block in sorted(blocks)) or "none"


def random_batch(dice, leased):
    """The same operations for the model and as a script for nft. A live timed element is never
    added again: kernels before 6.12 keep its old end, later ones do not."""
    model, script = [], []
    for _ in range(dice.randint(1, 5)):
        verb = dice.choice(("add", "add", "delete", "delete", "flush", "flush-lease", "lease"))
        block = dice.randint(0, 15)
        port = block * lab.BLOCK_SIZE
        blocks = dice.choice(SETS)
        if verb in ("add", "delete"):
            model.append(f"{verb}={blocks}:{block}")
            script.append(f"{verb} element inet saru_1 {blocks} {{ {port} }}")
        elif verb == "flush":
            model.append(f"flush={blocks}")
            script.append(f"flush set inet saru_1 {blocks}")
        elif verb == "flush-lease" or leased:
            model.append("flush=lease")
            script.append("flush set inet saru_1 lease")
            leased = False
        else:
            for name, key in KEYS.items():
                model.append(f"add=lease:{key}:{LONG_MS}")
                script.append(f"add element inet saru_1 lease {{ {name} timeout {LONG_MS}ms }}")
            leased = True
    return model, script


def run_batch(node, script):
    done = subprocess.run(["ip", "netns", "exec", node.name, "nft", "-f", "-"],
                          input="\n".join(script) + "\n", text=True, capture_output=True,
                          timeout=30)
    return done.returncode == 0


def differ(real, model):
    if ("error" in real) != ("error" in model):
        return True
    if "error" in real:
        return False
    return (any(real[blocks] != model[blocks] for blocks in SETS) or
            (real["lease_ms"] is not None) != model["leased"])


class Pair:
    def __init__(self, net, seed):
        self.dice = random.Random(seed)
        self.node = net.node()
        # Everybody may change these tables: else no other program could.
        self.driver = net.driver(self.node, "--plain", "--stays")
        self.driver.must("open")
        self.model = Model(net.driver_path)
        self.model.ask("rebuild", "none")
        self.log, self.failed_batches = [], 0

    def both(self):
        return self.driver.ask("read"), self.model.ask("read")

    def step(self):
        """One random thing; returns what differs, or nothing."""
        real, model = self.both()
        what = self.dice.choice(("apply", "apply", "rebuild", "batch", "batch", "batch", "expire",
                                 "close", "drop"))
        if what == "batch" and "error" not in real:
            operations, script = random_batch(self.dice, real["lease_ms"] is not None)
            self.log.append(" ".join(operations))
            succeeded = run_batch(self.node, script)
            self.failed_batches += not succeeded
            if succeeded != self.model.ask("batch", " ".join(operations))["done"]:
                return f"nft {'takes' if succeeded else 'refuses'} the batch"
        elif what == "drop" and "error" not in real:
            self.log.append("drop-table")
            run_batch(self.node, ["delete table inet saru_1"])
            self.model.ask("batch", "drop-table")
        else:
            command = "rebuild" if what == "rebuild" else "apply"
            blocks, *others = (ranges(self.dice.sample(range(16), self.dice.randint(0, 16)))
                               for _ in SETS)
            span = {"expire": SHORT_MS, "close": None}.get(what, LONG_MS)
            words = blocks if span is None else " ".join([blocks, str(span), *others])
            self.log.append(f"{command} {words}")
            self.driver.must(f"{command} {words}")
            self.model.ask(command, words)
            if what == "expire":
                time.sleep((SHORT_MS + 100) / 1000 * lab.SLOW)
        real, model = self.both()
        return f"real {real}, model {model}" if differ(real, model) else None


def same_transactions(net, tap):
    """The same random transactions in real nft and in the model"""
    seed = int(os.environ.get("SARU_MODEL_SEED", str(time.time_ns() % 10**6)))
    pair = Pair(net, seed)
    try:
        wrong = None
        for _ in range(STEPS):
            wrong = pair.step()
            if wrong:
                break
    finally:
        pair.model.end()
    tap.check(wrong is None, f"{STEPS} random steps agree (SARU_MODEL_SEED={seed})",
              "\n".join(pair.log[-5:] + [str(wrong)]))
    tap.check(pair.failed_batches > 5, "some of the batches failed as a whole",
              f"{pair.failed_batches} failed")


lab.main(same_transactions)
