# SPDX-License-Identifier: GPL-2.0-or-later
"""./demo: a real cluster that shares one address, shown and measured. See `demo --help`."""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from livelib import demo_director, measure
from livelib.cluster import (ADDRESS, BUILD, CREATE, REPO, Cluster, LiveError, signals_as_errors)
from livelib.story import Story, table, trimmed_ruleset

NAME = "demo"
TARGETS = ["sarud", "saructl", "saru-witness", "saru-probe", "saru-cpgwatch", "saru-forecast"]
NEEDS = {"return": "crash", "unstandby": "standby"}
ABOUT = f"""Starts a real Corosync/Pacemaker cluster on this machine, in namespaces of its own,
lets all nodes serve {ADDRESS} at once, and shows under live HTTP traffic what happens when a
node crashes and comes back, rests and returns, or when somebody flushes its nftables rules.
Installs the Debian packages that are missing and builds first. Ends with a table of what was
measured in this run."""
ENDING = "Exit code: 0 all as promised, 1 something was not, 2 the demo could not run."


class NoDemo(Exception):
    """The demo cannot run here: says why and what to do."""


def parse(argv):
    parser = argparse.ArgumentParser(prog="demo", description=ABOUT, epilog=ENDING,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="3 to 9 nodes (3)")
    parser.add_argument("--director", action="store_true",
                        help="directors with NAT in front of two real servers: connections go on")
    parser.add_argument("--keep", action="store_true",
                        help="leave the cluster up, and say how to look around")
    parser.add_argument("--json", metavar="FILE", help="write the measured figures there")
    parser.add_argument("--token", type=int, metavar="MS",
                        help="Corosync's token timeout (500; 2000 from 7 nodes on)")
    parser.add_argument("--consensus", type=int, metavar="MS", help="(1.2 x token)")
    parser.add_argument("--events", default=",".join(measure.EVENTS), metavar="LIST",
                        help="which of %(default)s, in this order")
    parser.add_argument("--name", default=NAME, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.events = [word for word in options.events.split(",") if word]
    unknown = [word for word in options.events if word not in measure.EVENTS + ("kill",)]
    if unknown:
        parser.error(f"--events: there is no {', '.join(unknown)}; there are "
                     + ", ".join(measure.EVENTS))
    for i, event in enumerate(options.events):
        needed = NEEDS.get(event)
        if needed and needed not in options.events[:i]:
            parser.error(f"--events: '{event}' needs a '{needed}' before it")
    if not 3 <= options.nodes <= 9:
        parser.error(f"--nodes {options.nodes}: from 3 to 9 (a crash must leave a majority)")
    if options.json and not os.path.isdir(os.path.dirname(os.path.abspath(options.json))):
        parser.error(f"--json {options.json}: there is no such folder")
    return options


# Before the cluster: packages and programs.

def follow(story, argv, doing):
    """Runs a command; its newest line of output is the progress. Raises with its last words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with subprocess.Popen(argv, cwd=REPO, stdin=subprocess.DEVNULL, stdout=output,
                              stderr=subprocess.STDOUT) as process:
            began = time.monotonic()
            try:
                while process.poll() is None:
                    time.sleep(0.5)
                    said = last_words(output, 1)
                    progress = re.search(r"^\[\d+/\d+\]", said)
                    story.waits(f"{doing} {progress.group() if progress else said[:60]}",
                                time.monotonic() - began)
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            raise NoDemo(f"{doing} failed:\n{last_words(output, 15)}")


def last_words(output, count):
    place = os.fstat(output.fileno()).st_size
    text = os.pread(output.fileno(), 4000, max(0, place - 4000)).decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-count:])


def prepare(story):
    if os.geteuid() != 0:
        raise NoDemo("run me as root: the cluster needs namespaces, mounts and real daemons")
    if os.environ.get("SARU_BUILD"):
        story.say(f"Using the programs in {BUILD} ($SARU_BUILD).")
        return
    story.step("Packages and programs")
    follow(story, ["packaging/install-dependencies", "build", "run"], "installing packages")
    ccache = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    follow(story, ["cmake", "--preset", "gcc", *ccache], "configuring")
    build = ["cmake", "--build", "--preset", "gcc", "--target", *TARGETS]
    follow(story, build, "compiling")
    story.say(f"All packages are there; sarud and the tools are built in {BUILD}.")


# The events, told.

def tell_crash(story, run):
    story.step(f"{run.victim} loses its power")
    story.say("Its link falls silent and all its processes are gone in an instant. The others",
              "must find out (Corosync), be sure that its kernel's lease has ended, and take its",
              "blocks.")
    figures = run.crash()
    gap = figures["gap_ms"]
    story.say(f"Corosync knew after {figures['corosync_ms']:.0f} ms. Each of {run.victim}'s blocks "
              f"answered again after {gap['p50']:.0f} ms (p50),",
              f"{gap['max']:.0f} ms at most. Blocks of the others: longest gap "
              f"{figures['gap_of_others_ms']['max']:.1f} ms.")
    return figures


def tell_return(story, run):
    story.step(f"{run.victim} is switched on again")
    story.say("It boots, Corosync lets it in, Pacemaker starts its instance of the clone; then the",
              "others release its share of the blocks, one by one, and it takes them.")
    figures = run.come_back()
    tell_planned(story, figures)
    return figures


def tell_standby(story, run):
    story.step(f"Planned: pcs node standby {run.resting}")
    figures = run.standby()
    tell_planned(story, figures)
    return figures


def tell_unstandby(story, run):
    story.step(f"Planned: pcs node unstandby {run.resting}")
    figures = run.unstandby()
    tell_planned(story, figures)
    return figures


def tell_planned(story, figures):
    gap = figures["gap_ms"]
    story.say(f"{figures['blocks_moved']} blocks moved; the least possible is "
              f"{figures['blocks_minimum']}. From the last packet answered by the old owner",
              f"to the first one by the new owner: p50 {gap['p50']:.1f} ms, "
              f"max {gap['max']:.1f} ms",
              f"({figures['blocks_measured']} moving blocks, each probed 1000 times a second).")


def tell_flush(story, run):
    story.step(f"Somebody runs 'nft flush ruleset' on {run.flushed}")
    figures = run.flush()
    gap = figures["gap_ms"]["max"]
    story.say(f"{run.flushed}'s blocks: longest gap {gap:.1f} ms; the table stands, "
              f"{figures['answered_twice']} packets were answered twice.")
    return figures


def tell_kill(story, run):
    story.step(f"kill -9 of sarud on {run.resting}")
    figures = run.kill_sarud()
    gap = figures["gap_ms"]
    story.say(f"Gap of its blocks: p50 {gap['p50']:.1f} ms, max {gap['max']:.1f} ms.")
    return figures


TELL = {"crash": tell_crash, "return": tell_return, "standby": tell_standby,
        "unstandby": tell_unstandby, "flush": tell_flush, "kill": tell_kill}


def look_around(story, cluster):
    """What an administrator would look at."""
    first = cluster.nodes[0]
    story.show(f"[{first}] crm_mon -A1", cluster.run(first, "crm_mon", "-A1").stdout)
    story.show(f"[{first}] saructl map", cluster.saructl(first, "map").stdout)
    rules = trimmed_ruleset(cluster.run(first, "nft", "list", "ruleset").stdout)
    story.show(f"[{first}] nft list ruleset   (saru's own tables, long lists shortened)", rules)


def first_requests(story, run):
    """Lets the load run for a moment and tells who answered."""
    began = time.time_ns()
    run.cluster.wait(lambda: len(run.http.requests(began)) >= 300, 30, "300 HTTP requests")
    found = run.http.requests(began)
    answered = {}
    for one in found:
        answered[one["node"] or "nobody"] = answered.get(one["node"] or "nobody", 0) + 1
    story.say(f"{len(found)} fresh HTTP connections to {ADDRESS}, answered by: "
              + ", ".join(f"{node} {answered[node]}" for node in sorted(answered)))
    seen = run.witness.judge("start", began, 0, (time.time_ns() - began) / 1e6)
    story.say(f"Watching every frame on the switch: {seen['answered']} questions answered, "
              f"{seen['answered_twice']} of them by two nodes.")


def perform(story, cluster, options, folder):
    story.step(f"{options.nodes} real nodes on one switch: Corosync, Pacemaker, and a client")
    cluster.up(options.nodes, options.token, options.consensus)
    story.say(f"All online; token {cluster.token} ms: Corosync notices a dead node after about "
              f"{cluster.detection_s() * 1000:.0f} ms.")
    story.step("The shared address: one command on one node")
    story.say("$ " + " ".join(CREATE))
    cluster.create_clone()
    run = measure.Run(cluster, folder)
    run.start()
    first_requests(story, run)
    look_around(story, cluster)
    for event in options.events:
        TELL[event](story, run)
    story.step("The end of the load, and what was measured in this run")
    totals = run.stop()
    report(story, totals)
    return totals


def report(story, totals):
    load = os.getloadavg()[0]
    story.say("", *table(totals["events"]), "",
              f"requests {totals['requests']}, failed {totals['failed']} "
              f"({measure.excused(totals)}), answered twice {totals['answered_twice']}",
              "answered by " + ", ".join(f"{n}: {c}" for n, c in totals["answers"].items())
              + f"; load average of this machine {load:.1f} on {os.cpu_count()} processors",
              "gap: last to first answered probe of a block, by the frames on the switch; Corosync:"
              " from the",
              "event to the membership callback on a survivor; minimum: the fewest blocks that had "
              "to move")
    for sentence in measure.shortcomings(totals):
        story.say(f"WRONG: {sentence}")


def say_goodbye(story, cluster):
    rig = f"{os.path.relpath(REPO)}/tests/rig/rig --name {cluster.name}".removeprefix("./")
    probe = f"{BUILD}/tests/rig/saru-probe"
    story.say("", "The cluster stays up. Look around:",
              f"  {rig} status", f"  {rig} exec n1 -- saructl map",
              f"  {rig} exec n1 -- crm_mon -A1", f"  {rig} shell n2",
              f"  {rig} client -- {probe} http --address {ADDRESS} --seconds 3",
              f"  {rig} crash n3        {rig} boot n3",
              "Take it down:", f"  {rig} down")


def clean_up(story, cluster, folder, keep):
    """Whatever happened: nothing stays behind, unless the user asked for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    shutil.rmtree(folder, ignore_errors=True)
    if keep:
        say_goodbye(story, cluster)
    elif cluster.started:
        story.waits("taking the cluster away", 0)
        cluster.down()
        story.clear()


def write_json(path, totals):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(totals, file, indent=2)
        file.write("\n")


def main(argv):
    options = parse(argv)
    story = Story()
    cluster = Cluster(options.name, story.waits)
    folder = tempfile.mkdtemp(prefix="saru-demo-")
    keep = False
    with signals_as_errors():
        try:
            prepare(story)
            if os.path.exists(f"/run/saru-rig-{options.name}"):
                raise NoDemo("a cluster of an earlier './demo --keep' is up; take it down first: "
                             f"{REPO}/tests/rig/rig --name {options.name} down")
            show = demo_director.perform if options.director else perform
            totals = show(story, cluster, options, folder)
            keep = options.keep
            if options.json:
                write_json(options.json, totals)
            wrong = measure.shortcomings(totals)
            wrong += demo_director.shortcomings(totals) if options.director else []
            return 1 if wrong else 0
        except NoDemo as error:
            story.write(f"demo: {error}")
            return 2
        except LiveError as error:
            story.write(f"demo: {error}")
            return 1
        except KeyboardInterrupt:
            story.write("demo: interrupted")
            return 130
        finally:
            clean_up(story, cluster, folder, keep)
