# SPDX-License-Identifier: MIT
"""Cuts the power of block devices under work that asks for durability all the time, lets
them recover, and verifies that all is there that was acknowledged.

  --cuts N       cuts of the devices alone, inside one VM: a test-only disk (powerfail,
                 tests/kmod) loses any subset of the sectors that were not flushed
  --fill N       the same of a volume that begins with nothing there, and is filled while it is used
  --whole-vm N   cuts of the whole VM, whose disks do the same

Each cut has a seed of its own, S, S+1, ...: it decides what the disks lose, the kind of file
system (ext4, xfs, raw in turn) and what the work does. `--seed S --cuts 1` repeats these
for one cut; the timing of threads and interrupts is never the same, so a loss that depends
on it may take several tries.

The run ends with controls that must lose data, or the rig is blind: a disk that lies about
flushes, and on Linux 6.1 dm-writecache, which loses what was written with FUA alone.
"""
import argparse
import json
import os
import re
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "vm.d"))
sys.path.insert(0, HERE)
import vm  # noqa: E402  (found in the folder beside this one)
from bench import KINDS  # noqa: E402
from targets import TARGETS  # noqa: E402

GUEST = os.path.join(HERE, "guest.py")
GUEST_TIMEOUT_S = 86400
CONTROL_CUTS_MAX = 15
RECORD_BYTES = 24
# A whole machine keeps its file system for so many cuts.
CUTS_OF_ONE = 3
WHOLE_TIMEOUT_S = 300


class Lines:
    """The JSON lines of a command in the VM, as they come."""

    def __init__(self, on_event):
        self.on_event = on_event
        self.rest = b""
        self.errors = b""

    def __call__(self, kind, data):
        if kind == b"e":
            self.errors += data
            return
        self.rest += data
        while b"\n" in self.rest:
            line, self.rest = self.rest.split(b"\n", 1)
            self.on_event(json.loads(line))


def wrong_with(event):
    """What is wrong with a cut, in words; empty: nothing."""
    words = [f"{event[key]} {key}" for key in ("lost", "wrong", "gaps") if event[key]]
    words += ["fsck"] if event["fsck"] else []
    return ", ".join(words + ([event["error"].strip()] if event["error"] else []))


class Tally:
    """All cuts of one part of the run."""

    COUNTS = ("acks", "lost", "wrong", "gaps")

    def __init__(self, title, total, again="--cuts 1 --no-control", is_control=False):
        self.title, self.total, self.again, self.is_control = title, total, again, is_control
        self.cuts, self.bad_seeds, self.sectors_lost = [], [], 0
        self.counts = dict.fromkeys(self.COUNTS, 0)
        self.fsck_errors = self.errors = 0
        self.end = {}

    def add(self, event):
        """One line of guest.py."""
        if event["event"] == "end":
            self.end = event
        elif event["event"] == "note":
            print(f"  # {event['text']}", flush=True)
        else:
            self.count(event)
            self.show(event)

    def count(self, event):
        self.cuts.append(event)
        for key in self.COUNTS:
            self.counts[key] += event[key]
        self.fsck_errors += bool(event["fsck"])
        self.errors += bool(event["error"])
        self.sectors_lost += event.get("cut", {}).get("lost", 0)
        if wrong_with(event):
            self.bad_seeds.append(event["seed"])

    def show(self, event):
        wrong, cut = wrong_with(event), event.get("cut")
        fate = f", of {cut['waiting']} sectors not flushed lost {cut['lost']}" if cut else ""
        mark = "--" if self.is_control else "NO" if wrong else "ok"
        print(f"  {mark} {len(self.cuts)}/{self.total} {event['target']} {event['kind']} "
              f"seed {event['seed']}: {wrong or str(event['acks']) + ' acknowledged'}{fate} "
              f"({event['ms'] / 1000:.1f} s)", flush=True)
        for line in event.get("said", "").splitlines() if wrong and not self.is_control else []:
            print(f"     {line}")

    def report(self):
        return {"title": self.title, "cuts": len(self.cuts), **self.counts, "fsck_errors": self.fsck_errors,
                "errors": self.errors, "sectors_lost": self.sectors_lost, "bad_seeds": self.bad_seeds,
                "kernel_log": self.end.get("kernel_log", []), "ms": sum(c["ms"] for c in self.cuts),
                "each": self.cuts}

    def is_good(self):
        return (len(self.cuts) == self.total and not self.bad_seeds and not self.end.get("kernel_log")
                and not self.end.get("blind"))

    def is_caught(self):
        return bool(self.cuts) and any(c["lost"] or c["wrong"] or c["fsck"] for c in self.cuts)


def guest(machine, tally, *words):
    """A command of guest.py whose lines go to the tally; its exit status."""
    lines = Lines(tally.add)
    status = machine.run([GUEST, *words], env={"BUILD": vm.BUILD}, on_output=lines, timeout=GUEST_TIMEOUT_S)[0]
    if status and not tally.end:
        raise vm.VmError(f"guest.py {' '.join(words)}: exit {status}: {lines.errors.decode(errors='replace')}")
    return status


def device_cuts(machine, options, tally):
    print(f"{options.cuts} cuts of the devices of {options.target}, from seed {options.seed}", flush=True)
    words = ["--kind", options.kind] if options.kind else []
    guest(machine, tally, "cuts", "--target", options.target, "--cuts", str(options.cuts),
          "--seed", str(options.seed), *words)


def fill_cuts(machine, options, tally):
    print(f"{options.fill} volumes that are being filled, their power cut once or more, from seed {options.seed}",
          flush=True)
    guest(machine, tally, "fill", "--cuts", str(options.fill), "--seed", str(options.seed))


def controls_of(kernel):
    """Targets that must lose data, and how guest.py calls them."""
    yield "disks that lie about flushes", ["--target", "linear", "--lie"]
    if kernel.startswith("6.1."):
        yield "dm-writecache on Linux 6.1", ["--target", "dm-writecache"]


def control(machine, options, tally, words):
    print(f"control: {tally.title} must lose data within {CONTROL_CUTS_MAX} cuts", flush=True)
    guest(machine, tally, "cuts", *words, "--kind", "ext4", "--cuts", str(CONTROL_CUTS_MAX), "--seed",
          str(options.seed), "--until-lost")
    print(f"  {'caught' if tally.is_caught() else 'NOT CAUGHT: the rig is blind'}", flush=True)


# ---- the whole machine ----

class PlugPulled(Exception):
    pass


class Journal:
    """What the work writes to its standard output, kept where the VM's death does not reach."""

    def __init__(self, path, records):
        self.path, self.wanted = path, records
        self.file = open(path, "wb")
        self.size = 0
        self.errors = b""

    def __call__(self, kind, data):
        if kind == b"e":
            self.errors += data
            return
        self.file.write(data)
        self.size += len(data)
        if self.size >= self.wanted * RECORD_BYTES:
            self.file.close()
            raise PlugPulled


def disks_fate(machine):
    """What the cut did to the disks, in sectors: the last words of their servers."""
    total = {"waiting": 0, "lost": 0}
    for disk in machine.disks:
        with open(os.path.join(machine.state, disk.name + ".log"), encoding="ascii") as file:
            words = re.findall(r"cut: (\d+) sectors waited, \d+ reached the medium, (\d+) lost", file.read())
        total["waiting"] += int(words[-1][0])
        total["lost"] += int(words[-1][1])
    return total


def whole_work(machine, options, event, make, journal_path):
    """Work until the journal is long enough, then pull the plug."""
    seed = event["seed"]
    words = ["--target", options.target, "--kind", event["kind"], "--seed", str(seed)] + (["--make"] if make else [])
    # The first record says that the work has begun.
    journal = Journal(journal_path, 1 + (20, 60, 200, 500)[seed % 4])
    try:
        machine.run([GUEST, "work", *words], env={"BUILD": vm.BUILD}, on_output=journal, timeout=WHOLE_TIMEOUT_S)
    except PlugPulled:
        machine.cut()
        event["cut"] = disks_fate(machine)
        return
    raise vm.VmError(f"the work ended before the power was cut: {journal.errors.decode(errors='replace')}")


def whole_verify(machine, options, event, journal_path):
    found = {}
    lines = Lines(found.update)
    machine.run([GUEST, "verify", "--target", options.target, "--kind", event["kind"], "--seed", str(event["seed"]),
                 "--journal", journal_path], env={"BUILD": vm.BUILD}, on_output=lines, timeout=WHOLE_TIMEOUT_S)
    if not found:
        raise vm.VmError(lines.errors.decode(errors="replace"))
    event.update(found, event="cut")


def whole_cut(machine, options, seed, make):
    """One cut of the running machine, which runs again afterwards; its event."""
    began, journal = time.monotonic(), os.path.join(vm.BUILD, "powercut", "journal")
    kind = options.kind or KINDS[seed // CUTS_OF_ONE % len(KINDS)]
    event = {"event": "cut", "target": options.target, "kind": kind, "seed": seed, "fsck": None, "error": None,
             **dict.fromkeys(Tally.COUNTS, 0)}
    try:
        whole_work(machine, options, event, make, journal)
        # The next life of the disks draws from the next seed.
        machine.start(seed + 1)
        whole_verify(machine, options, event, journal)
    except vm.VmError as error:
        event["error"] = str(error)
        keep_console(machine)
        machine.destroy()
        machine.start(seed + 1)
    event["ms"] = int((time.monotonic() - began) * 1000)
    return event


def whole_cuts(options, tally):
    print(f"{options.whole_vm} cuts of a whole VM with {options.target}, from seed {options.seed}", flush=True)
    disks = [vm.Disk("name=fast,size=40M,cache=volatile"), vm.Disk("name=slow,size=72M,cache=volatile")]
    machine = vm.Machine(f"powercut-{os.getpid()}", kernel=options.kernel, disks=disks)
    try:
        machine.start(options.seed)
        make = True
        for seed in range(options.seed, options.seed + options.whole_vm):
            make = make or seed % CUTS_OF_ONE == 0
            event = whole_cut(machine, options, seed, make)
            tally.add(event)
            # What failed is not built upon.
            make = bool(tally.bad_seeds and tally.bad_seeds[-1] == seed)
        machine.stop()
    finally:
        machine.destroy()
        machine.forget()


def in_vm(options, tallies, caught):
    machine = vm.Machine(f"powercut-{os.getpid()}", kernel=options.kernel)
    try:
        machine.start(options.seed)
        if options.cuts:
            tallies.append(Tally(f"{options.target}, devices", options.cuts))
            device_cuts(machine, options, tallies[-1])
        if options.fill:
            tallies.append(Tally("cohost, while it is filled", options.fill, "--cuts 0 --fill 1 --no-control"))
            fill_cuts(machine, options, tallies[-1])
        for title, words in controls_of(machine.kernel) if options.control else []:
            caught.append(Tally(title, CONTROL_CUTS_MAX, is_control=True))
            control(machine, options, caught[-1], words)
        machine.stop()
    except vm.VmError:
        keep_console(machine)
        raise
    finally:
        machine.destroy()
        machine.forget()


def keep_console(machine):
    """What the kernel said last, when the VM is gone."""
    console = os.path.join(machine.state, "console.log")
    if os.path.exists(console):
        shutil.copy(console, os.path.join(vm.BUILD, "powercut"))


def write_report(options, tallies, caught, broken):
    good = not broken and all(t.is_good() for t in tallies) and all(t.is_caught() for t in caught)
    report = {"ok": good, "seed": options.seed, "target": options.target, "broken": broken,
              "runs": [t.report() for t in tallies],
              "controls": [{"caught": t.is_caught(), **t.report()} for t in caught]}
    path = os.path.join(vm.BUILD, "powercut", "report.json")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.rename(path + ".tmp", path)
    return good, path


def summarize(options, tallies, caught):
    for tally in tallies:
        counts = tally.counts
        print(f"{tally.title}: {len(tally.cuts)} of {tally.total} cuts, {counts['acks']} acknowledgements verified, "
              f"{counts['lost']} lost, {counts['wrong']} wrong, {counts['gaps']} out of order, "
              f"{tally.fsck_errors} fsck errors, {tally.errors} failures; the disks lost {tally.sectors_lost} sectors")
        for line in tally.end.get("kernel_log", []):
            print(f"  the kernel's log: {line}")
        if tally.end.get("blind"):
            print("  the disks lost no sector in any cut: the rig proves nothing")
        for seed in tally.bad_seeds:
            print(f"  again: tools/powercut --target {options.target} --seed {seed} {tally.again}"
                  + (f" --kind {options.kind}" if options.kind else ""))
    for tally in caught:
        print(f"control, {tally.title}: {'caught' if tally.is_caught() else 'NOT caught'} after {len(tally.cuts)} cuts")


def parse():
    parser = argparse.ArgumentParser(prog="tools/powercut", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=30, metavar="N", help="default 30")
    parser.add_argument("--fill", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--whole-vm", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default 1")
    parser.add_argument("--target", choices=TARGETS, default="cohost", help="default cohost")
    parser.add_argument("--kind", choices=KINDS, help="only this (default: in turn)")
    parser.add_argument("--kernel", metavar="VERSION", help="a kernel of /boot (or how its version begins)")
    parser.add_argument("--no-control", dest="control", action="store_false", help="without the controls")
    options = parser.parse_args()
    if options.cuts < 0 or options.fill < 0 or options.whole_vm < 0 or options.seed < 0:
        parser.error("numbers of cuts and the seed are 0 or more")
    return options


def main():
    options = parse()
    os.makedirs(os.path.join(vm.BUILD, "powercut"), exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tallies, caught, broken = [], [], None
    try:
        if options.cuts or options.fill or options.control:
            in_vm(options, tallies, caught)
        if options.whole_vm:
            tallies.append(Tally(f"{options.target}, whole VM", options.whole_vm, "--cuts 0 --whole-vm 1 --no-control"))
            whole_cuts(options, tallies[-1])
    except vm.VmError as error:
        broken = str(error)
        print(f"tools/powercut: {broken}", file=sys.stderr)
    good, path = write_report(options, tallies, caught, broken)
    summarize(options, tallies, caught)
    print(f"{'All is well' if good else 'NOT well'}; the report: {os.path.relpath(path)}")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
