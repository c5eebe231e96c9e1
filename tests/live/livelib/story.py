# SPDX-License-Identifier: GPL-2.0-or-later
"""How the demo talks: steps, progress while it waits, excerpts, and the table at the end."""
import sys
import time

WIDTH = 96
TELL_EVERY_S = 10


class Story:
    """Plain text; on a terminal the line that tells of a wait is overwritten."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.live = out.isatty()
        self.bold = ("\033[1m", "\033[0m") if self.live else ("", "")
        self.began = time.monotonic()
        self.told = 0.0
        self.waiting = False

    def write(self, text):
        self.clear()
        self.out.write(text + "\n")
        self.out.flush()

    def clear(self):
        if self.waiting and self.live:
            self.out.write("\r\033[K")
        self.waiting = False

    def step(self, text):
        seconds = time.monotonic() - self.began
        self.write(f"\n{self.bold[0]}[{seconds:5.1f} s] {text}{self.bold[1]}")

    def say(self, *lines):
        for line in lines:
            self.write(f"  {line}")

    def show(self, command, text, keep=None):
        """A command and what it printed; of a long text the first lines, and how many are left."""
        self.write(f"\n  $ {command}")
        lines = text.rstrip().splitlines()
        for line in lines[:keep]:
            self.write(f"    {line}".rstrip())
        if keep and len(lines) > keep:
            self.write(f"    … {len(lines) - keep} more lines")
        self.write("")

    def waits(self, what, seconds):
        """Called every fraction of a second while `what` takes its time."""
        if self.live:
            self.out.write(f"\r\033[K  … {seconds:4.0f} s  {what}"[:WIDTH + 4])
            self.out.flush()
            self.waiting = True
        elif seconds >= TELL_EVERY_S and time.monotonic() - self.told >= TELL_EVERY_S:
            self.told = time.monotonic()
            self.write(f"  … {seconds:4.0f} s  {what}")


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def table(events):
    """The measured events as lines of text."""
    heads = ["event", "Corosync ms", "gap p50", "p99", "max ms", "failed", "twice", "SYN again",
             "moved", "minimum"]
    rows = [[one["event"], number(one["corosync_ms"]), number(one["gap_ms"]["p50"]),
             number(one["gap_ms"]["p99"]), number(one["gap_ms"]["max"]), str(one["failed"]),
             str(one["answered_twice"]), str(one["syn_retransmits"]), str(one["blocks_moved"]),
             str(one["blocks_minimum"])] for one in events]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(row):
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        return "  ".join(cells)
    return [line(heads), line(["-" * width for width in widths]), *map(line, rows)]


def trimmed_ruleset(text):
    """Our tables out of `nft list ruleset`; of a long list of elements only the first two lines."""
    lines, ours, skipped = [], False, None
    for line in text.splitlines():
        if line.startswith("table "):
            ours = " saru_" in line
        if not ours:
            continue
        if skipped is not None:
            skipped += 1
            if skipped == 1 or "}" not in line:
                lines += [line] if skipped == 1 else []
            else:
                lines.append(f"\t\t\t     … {skipped - 1} more lines }}" if skipped > 2 else line)
            skipped = None if "}" in line else skipped
            continue
        lines.append(line)
        skipped = 0 if "elements = {" in line and "}" not in line else None
    return "\n".join(lines).replace("\t", "  ")
