# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of docs/packet-cost.md."""
import statistics

from places import FOREIGN, OWNED

HEAD = """# What a packet costs

Taken by `tests/bench/packet-cost`, which writes this page, in namespaces of its own on one machine.
To take the figures again, in less than five minutes, best on a machine with nothing else to do:

    cmake --fresh --preset gcc && cmake --build --preset gcc
    tests/bench/packet-cost --output docs/packet-cost.md

How they are measured:

- The kernel itself makes copies of one TCP packet (40 bytes, IPv6 60) and lets them come in at a
  veth, through the receive path and prerouting (`tests/bench/packet_source.cpp`: BPF_PROG_RUN with
  live frames). It takes the time, without that in which another process had the processor.
- **foreign**: the packet is in a block of another node, and dropped. Beside it: an unconditional
  drop, the only rule, at the same place (prerouting, raw - 10).
- **owned**: the packet is in a block of this node, under a lease that lasts. The rules accept it,
  and a chain behind them (priority raw) counts and drops it. Beside it: that chain alone.
- Every figure is **what the rules add** to that drop, in nanoseconds per packet: the median over
  the rounds, and the middle half of the rounds in brackets. In each round, in a new random order,
  every rule set is measured right after the drop that it is compared with.
- saru's table is made by its own code (`tests/kernel/nft_driver`), as sarud has it made: 512
  blocks, of which every second is owned, forced defragmentation, counters; `connections=none`: with
  `stay` and `sync` conntrack comes on top, for all packets of the node.
- Before and after the rounds the counter of the last chain must say that owned packets come
  through and foreign ones do not.
"""

BESIDE = """## Beside others

All over IPv4, one address, and over the same two drops. Both others hash the client's address;
what is nearest to that here is `src-addr-port`, which hashes its address and port.

- **xt_cluster**: `-m cluster --cluster-total-nodes n --cluster-local-node 1 -j ACCEPT`, then a
  DROP, in mangle PREROUTING; it needs conntrack, whose cost is in the figures (without its
  checksums, which a NIC verifies). Owned packets are of a connection that conntrack knows, and
  the chain behind the rules is at mangle + 10; foreign ones are dropped before conntrack can keep
  theirs, so it begins anew with each.
- **jhash**: rules as the IPaddr2 clone uses them where CLUSTERIP is gone
  (ClusterLabs/resource-agents#2183), written from their description, not copied: for each bucket
  that the node holds `ip daddr A jhash ip saddr mod n seed S == bucket accept`, then a drop, at
  saru's place. With all nodes up each holds one bucket; eight of 16 is a node that serves for
  seven others too, and its owned packet is of the last one.

With one bucket those rules are the cheapest: one hash and nothing else. saru's line pays for what
they lack: a lease with two guards, other protocols and ICMP errors told apart first, fragments
joined, counters. Whether the block is this node's stays one lookup, however many nodes there are.
"""

SWITCH = """## Switching blocks

`tests/kernel/bench.sh`: one transaction that takes half of the blocks away and adds the other
half, and one renewal of the lease, each with the reading back of the answer, 500 times.
"""

FLUSH = """## A foreign flush

Somebody's `nft flush ruleset`, as `tests/kernel/nft_foreign_test.py` has it:

- tables with an owner that persist (Linux 6.9): {spared}.
- a table that the kernel does not protect (asked for by the test; older kernels have twins, see
  [kernels.md](kernels.md)): foreign packets came in for {median_ms:.2f} ms (median of 15 flushes),
  {max_ms:.2f} ms at most, until the watch had told of it and the table was written anew.

Packets answered twice in a real cluster while somebody flushes: the lines "flush" of
[figures.md](figures.md), column "twice".
"""


def cell(costs):
    """Median [middle half]"""
    low, middle, high = statistics.quantiles(costs, n=4)
    return f"{middle:+.0f} [{low:.0f} … {high:.0f}]"


def rows(lines):
    """A table in Markdown; the second line is the rule below the first."""
    lines = [lines[0], ["---"] * len(lines[0])] + lines[1:]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def own_table(costs):
    found = [what for what, whose in costs if what[0] == "saru" and whose == OWNED]
    counts = sorted({count for _, _, count in found})
    selectors = sorted({selector for _, selector, _ in found})
    lines = [["selector"] + [f"{whose}, {count} address{'es' * (count > 1)}"
                             for whose in (FOREIGN, OWNED) for count in counts]]
    for selector in selectors:
        lines.append([selector] + [cell(costs[("saru", selector, count), whose])
                                   for whose in (FOREIGN, OWNED) for count in counts])
    return rows(lines)


def beside_table(costs):
    lines = [["rules", "nodes", "foreign", "owned"]]
    for selector in ("src-port", "src-addr", "src-addr-port"):
        what = ("saru", selector, 1)
        lines.append([f"saru, {selector}", "any", cell(costs[what, FOREIGN]),
                      cell(costs[what, OWNED])])
    for what, whose in sorted(costs, key=lambda key: (key[0][0], str(key[0][1]), key[0][2])):
        kind, detail, nodes = what
        if kind == "saru" or whose != OWNED:
            continue
        name = (f"xt_cluster, {detail}" if kind == "xt_cluster" else
                f"jhash, {detail} bucket{'s' * (detail > 1)} held")
        lines.append([name, str(nodes), cell(costs[what, FOREIGN]), cell(costs[what, OWNED])])
    return rows(lines)


def switch_table(switches):
    lines = [["blocks", "switch of half: median ms", "p99 ms", "renewal: median ms", "p99 ms"]]
    for blocks, found in switches.items():
        lines.append([str(blocks)] + [f"{found[what][part] / 1000:.2f}"
                                      for what in ("switch_half", "renewal")
                                      for part in ("median_us", "p99_us")])
    return rows(lines)


def page(figures, switches, flush, facts):
    baselines = {whose: statistics.median(taken) for whose, taken in figures.baselines.items()}
    taken = f"""Taken {facts["when"]} at commit {facts["commit"]}, Linux {facts["kernel"]}, \
{facts["processors"]} processors ({facts["model"]}),
load average {facts["load_before"]} before and {facts["load_after"]} after; {facts["rounds"]} \
rounds, in each {facts["runs"]} runs of {facts["packets"]} packets
(their median) per figure; {facts["took_s"]} s in all.
"""
    own = f"""## saru's rules

ns per packet over the drop, which itself, with the way there, takes {baselines[FOREIGN]:.0f} ns \
(foreign) and
{baselines[OWNED]:.0f} ns (owned, with the counter):
"""
    spared = "changes nothing" if flush["spared"] else "this kernel has none"
    return "\n".join((
        HEAD, taken, own, own_table(figures.costs), BESIDE, beside_table(figures.costs), SWITCH,
        switch_table(switches), FLUSH.format(**{**flush, "spared": spared}).rstrip() + "\n"))
