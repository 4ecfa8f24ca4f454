#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Cuts the power of block devices again and again, inside one kernel, and verifies.

Runs as root where modules can be loaded (tools/powercut boots a VM for it):

  guest.py cuts [--target T] [--cuts N] [--seed S] [--kind K] [--until-lost] [--lie]
  guest.py fill [--cuts N] [--seed S] [--lie]     of a volume that is being filled, see fill.py
  guest.py work   --target T --kind K --seed S [--make]      for cuts of the whole machine:
  guest.py verify --target T --kind K --seed S --journal F   see tools/powercut

One JSON object a line on standard output. The exit status of `cuts` is 0 when nothing
was lost, or with --until-lost when something was.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fill  # noqa: E402  (found beside this file)
from bench import KINDS, Bench, Power, Worker  # noqa: E402  (found beside this file)
from targets import TARGETS, CutError, run  # noqa: E402

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(TREE, "build")))
FAST_MIB, SLOW_MIB = 40, 72
FILL_FAST_MIB, FILL_SLOW_MIB = 40, 40
# Cuts of one file system before a new one is made: logs go round, old data lies about.
CUTS_OF_ONE = 12
# In so many cuts some disk must have lost something.
CUTS_THAT_LOSE = 6
LOG_BAD = re.compile(r"BUG:|WARNING:|Oops|general protection|KASAN|refcount_t|blocked for more than")


def say(**event):
    print(json.dumps(event), flush=True)


def module_path(folder, name):
    path = os.path.join(BUILD, folder, os.uname().release, f"{name}.ko")
    if not os.path.exists(path):
        raise CutError(f"{path} is not there: run make kmod test-kmod")
    return path


def load(path):
    if os.path.exists(f"/sys/module/{os.path.basename(path)[:-3]}"):
        return
    for needed in run("modinfo", "-F", "depends", path).strip().split(","):
        if needed:
            run("modprobe", needed)
    run("insmod", path)


def load_modules(target):
    for name in ("dm-mod", "brd", "ext4", "xfs", *target.modules):
        words = [f"rd_nr={2 * len(KINDS)}", f"rd_size={SLOW_MIB << 10}"] if name == "brd" else []
        run("modprobe", name, *words)
    load(module_path("test-kmod", "powerfail"))
    if target.name == "cohost":
        load(module_path("kmod", "cohost"))


class KernelLog:
    """What the kernel says from now on, each line once."""

    def __init__(self):
        self.file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.file, 0, os.SEEK_END)

    def new(self):
        found = []
        while True:
            try:
                record = os.read(self.file, 8192).decode(errors="replace")
                found.append(record.partition(";")[2].splitlines()[0])
            except BlockingIOError:
                return found
            except BrokenPipeError:
                found.append("(some lines were overwritten before they could be read)")


class Room:
    """A bench in use: its disks, and how often their power was cut since they were made."""

    def __init__(self, kind, options, work):
        number = KINDS.index(kind)
        self.power = Power(kind, [f"/dev/ram{2 * number}", f"/dev/ram{2 * number + 1}"], FAST_MIB, SLOW_MIB)
        self.bench = Bench(kind, TARGETS[options.target](kind, self.power.fast, self.power.slow), work)
        self.lie = options.lie
        self.is_control = options.until_lost
        self.cuts = 0
        self.until = None

    def open(self, rng):
        """Ready for work: made anew now and then, else as the last cut left it."""
        if self.cuts % CUTS_OF_ONE == 0:
            self.close()
            self.power.create(rng, self.lie)
            self.bench.make()
        elif not self.bench.target.describe():
            self.bench.target.start()
        self.cuts += 1
        if self.is_control:
            # A block that the cache holds already is overwritten in place, and safe.
            self.bench.target.drain()
        self.bench.mount()

    def close(self):
        self.bench.down()
        self.power.remove()


def cut_under_load(room, rng, seed, journal):
    """The power goes in the middle of the work, and perhaps while the target moves data."""
    worker, stirring = Worker(room.bench, seed, journal), None
    goes_on = worker.wait_for(rng.choice([10, 30, 100, 200, 400]), rng.uniform(0.3, 1.5))
    command = room.bench.target.stir()
    if goes_on and command and rng.random() < 0.5:
        stirring = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        goes_on = worker.wait_for(worker.records() + rng.choice([20, 100, 200]), rng.uniform(0.1, 0.6))
    # Who asks a dead machine gets no answer that counts, but what it says may reach the journal.
    room.until = worker.records()
    room.power.cut(seed)
    said = worker.end()
    if stirring:
        stirring.wait(60)
    if not goes_on:
        raise CutError(f"the work ended before the power was cut: {said}")


def cut_at_rest(room, rng, seed, journal):
    """The power goes soon after the last promise: no later flush makes it true by chance."""
    worker = Worker(room.bench, seed, journal, operations=rng.choice([3, 10, 30]))
    said = worker.end()
    if said:
        raise CutError(f"the work failed while the power was on: {said}")
    if not room.is_control:
        time.sleep(rng.choice([0, 0, 0.1, 0.3]))
    room.power.cut(seed)


def work_and_cut(room, rng, seed, journal):
    """What the cut did to the disks."""
    room.bench.prepare(seed)
    room.until = None
    at_rest = rng.random() < (1 if room.is_control else 0.3)
    (cut_at_rest if at_rest else cut_under_load)(room, rng, seed, journal)
    room.bench.down()
    return {"at_rest": at_rest, **room.power.fate()}


def recover(room, rng, seed):
    """Start and mount after a cut; sometimes the power goes again meanwhile. How often it did."""
    again = rng.choice([0, 0, 0, 1, 2])
    for number in range(again + 1):
        room.power.restore()
        if number < again:
            room.power.plan_cut(seed + number, rng.choice([1, 2, 3, 5, 8, 13, 30]))
        try:
            room.bench.target.start()
            room.bench.mount()
        except CutError:
            if number == again or not room.power.is_cut():
                raise
        room.power.cancel()
        if not room.power.is_cut():
            return number
        room.bench.down()
    return again


def one_cut(room, seed, journal, log):
    rng = random.Random(seed)
    began = time.monotonic()
    bench = room.bench
    ms = {}

    def done(phase):
        ms[phase] = int((time.monotonic() - began) * 1000) - sum(ms.values())
    event = {"event": "cut", "target": bench.target.name, "kind": bench.kind, "seed": seed, "acks": 0, "lost": 0,
             "wrong": 0, "gaps": 0, "fsck": None, "error": None}
    try:
        room.open(rng)
        done("open")
        event["cut"] = work_and_cut(room, rng, seed, journal)
        done("work")
        try:
            event["recoveries_cut"] = recover(room, rng, seed)
        except CutError as error:
            # All that was on it is lost.
            event["fsck"] = f"it does not come back: {error}"
            raise
        done("recover")
        event.update(bench.verify(seed, journal, until=room.until))
        done("verify")
        bench.unmount()
        event["fsck"] = bench.fsck()
        event["status"] = bench.target.describe()
        # Mostly the target goes on; an orderly stop must be survived as well.
        if rng.random() < 0.3:
            bench.down()
        done("fsck")
    except CutError as error:
        event["error"] = str(error)
    said = log.new()
    event["kernel_log"] = said[-40:] if is_bad(event) else []
    event["log_bad"] = [line for line in said if LOG_BAD.search(line)]
    if is_bad(event):
        abandon(room)
    event["ms"], event["ms_of"] = int((time.monotonic() - began) * 1000), ms
    return event


def is_bad(event):
    return bool(event["lost"] or event["wrong"] or event["gaps"] or event["fsck"] or event["error"])


def abandon(room):
    """After a failure the next cut starts from nothing."""
    room.cuts = 0
    try:
        room.power.restore()
        room.close()
    except CutError as error:
        say(event="note", text=f"cannot clean up: {error}")


def clean_up(rooms, work):
    for room in rooms.values():
        room.close()
    run("umount", work)
    os.rmdir(work)
    run("modprobe", "-r", "brd")
    run("rmmod", "powerfail")


def cuts(options):
    load_modules(TARGETS[options.target])
    work = tempfile.mkdtemp(prefix="powercut-")
    run("mount", "-t", "tmpfs", "-o", "size=64M", "powercut", work)
    journal, rooms = os.path.join(work, "journal"), {}
    log, log_bad, caught, bad, lost_sectors = KernelLog(), [], False, 0, 0
    for seed in range(options.seed, options.seed + options.cuts):
        kind = options.kind or KINDS[seed % len(KINDS)]
        if kind not in rooms:
            rooms[kind] = Room(kind, options, work)
        event = one_cut(rooms[kind], seed, journal, log)
        bad += is_bad(event)
        log_bad += event["log_bad"]
        lost_sectors += event.get("cut", {}).get("lost", 0)
        say(**event)
        caught = bool(event["lost"] or event["wrong"] or event["fsck"])
        if options.until_lost and caught:
            break
    try:
        clean_up(rooms, work)
    except CutError as error:
        say(event="note", text=f"cannot clean up: {error}")
        bad += 1
    log_bad += [line for line in log.new() if LOG_BAD.search(line)]
    # A rig whose disks never lose anything proves nothing.
    blind = not lost_sectors and options.cuts >= CUTS_THAT_LOSE
    say(event="end", bad=bad, caught=caught, lost_sectors=lost_sectors, blind=blind, kernel_log=log_bad)
    if options.until_lost:
        return 0 if caught else 1
    return 1 if bad or log_bad or blind else 0


def fill_cuts(options):
    """As cuts(), each of a volume of its own."""
    load_modules(TARGETS["cohost"])
    work = tempfile.mkdtemp(prefix="powercut-")
    run("mount", "-t", "tmpfs", "-o", "size=64M", "powercut", work)
    log, log_bad, bad, lost_sectors = KernelLog(), [], 0, 0
    filled = fill.Filled(Power("fill", ["/dev/ram0", "/dev/ram1"], FILL_FAST_MIB, FILL_SLOW_MIB), TREE, work,
                         options.lie)
    for seed in range(options.seed, options.seed + options.cuts):
        event = fill.one_cut(filled, seed)
        said = log.new()
        event["kernel_log"] = said[-40:] if is_bad(event) else []
        log_bad += [line for line in said if LOG_BAD.search(line)]
        bad += is_bad(event)
        lost_sectors += event["cut"]["lost"]
        say(**event)
        if event["error"]:
            break
    if not bad:
        filled.power.remove()
        run("umount", work)
        os.rmdir(work)
    blind = not lost_sectors and options.cuts >= CUTS_THAT_LOSE
    say(event="end", bad=bad, caught=False, lost_sectors=lost_sectors, blind=blind, kernel_log=log_bad)
    return 1 if bad or log_bad or blind else 0


def machine_bench(options):
    load_modules(TARGETS[options.target])
    return Bench(options.kind, TARGETS[options.target](options.kind, "/dev/vm/fast", "/dev/vm/slow"), "/tmp")


def work(options):
    """Until the machine is gone; the journal goes to standard output."""
    bench = machine_bench(options)
    if options.make:
        bench.make()
    else:
        bench.target.start()
    bench.mount()
    bench.prepare(options.seed)
    worker = Worker(bench, options.seed, "-")
    command = bench.target.stir()
    while worker.process.poll() is None:
        time.sleep(0.3)
        if command:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           check=False)
    raise CutError(f"the work ended while the power was on: {worker.end()}")


def verify(options):
    """After the machine is back: the same as one_cut() does."""
    bench = machine_bench(options)
    bench.target.start()
    bench.mount()
    event = bench.verify(options.seed, options.journal, tail=True)
    bench.unmount()
    event["fsck"] = bench.fsck()
    bench.down()
    say(event="verified", **event)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["cuts", "fill", "work", "verify"])
    parser.add_argument("--target", choices=TARGETS, default="cohost")
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--until-lost", action="store_true")
    parser.add_argument("--lie", action="store_true", help="disks that acknowledge flushes and do none")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--journal")
    options = parser.parse_args()
    os.environ["PATH"] = f"{BUILD}/bin:{BUILD}/tests/helpers:{os.environ['PATH']}:/usr/sbin:/sbin"
    return {"cuts": cuts, "fill": fill_cuts, "work": work, "verify": verify}[options.verb](options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CutError as failure:
        print(f"powercut: {failure}", file=sys.stderr)
        sys.exit(1)
