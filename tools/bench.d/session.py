#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""One session of tools/bench tier, inside the VM: stacks in turn, rows, counters.

The argument is the plan as JSON (tier.py makes it). For everything measured, one JSON
line goes to stdout: stack, row, repeat, and figures or an error. What the devices did
is taken from /sys/block/X/stat before and after.
"""
import json
import mmap
import os
import sys
import time

from stacks import MIB, STACKS, StackError, read_file, run, write_file

FAST, SLOW = "/dev/vm/fast", "/dev/vm/slow"
# The same fast disk without its limit: for async-free, and to get it full in reasonable time.
FAST_FREE = "/dev/vm/fastfree"
# Fields of /sys/block/X/stat (Documentation/block/stat.rst of the kernel)
STAT = {"reads": 0, "read_sectors": 2, "writes": 4, "write_sectors": 6, "write_ms": 7, "busy_ms": 9,
        "flushes": 15, "flush_ms": 16}


def counters(stack):
    found = {}
    for kind, device in (("fast", stack.fast), ("slow", stack.slow)):
        fields = read_file(f"/sys/block/{os.path.basename(os.path.realpath(device))}/stat").split()
        found[kind] = {name: int(fields[place]) for name, place in STAT.items()}
    return found


def since(before, stack):
    return {kind: {name: value - before[kind][name] for name, value in now.items()}
            for kind, now in counters(stack).items()}


def kernel_memory():
    """Bytes of slab that cannot be given back, and of vmalloc: what a stack holds for its maps."""
    run("sync")
    write_file("/proc/sys/vm/drop_caches", 3)
    fields = dict(line.split(":") for line in read_file("/proc/meminfo").splitlines())
    return {ours: int(fields[theirs].split()[0]) * 1024
            for ours, theirs in (("slab_bytes", "SUnreclaim"), ("vmalloc_bytes", "VmallocUsed"))}


def read_block(device):
    """One direct read, as the first user of a started volume would do."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        if os.preadv(fd, [mmap.mmap(-1, 4096)], 0) != 4096:
            raise StackError(f"{device}: nothing to read")
    finally:
        os.close(fd)


class Session:
    def __init__(self, plan):
        self.plan = plan
        self.rows = plan["rows"]
        self.stacks = {name: STACKS[name] for name in plan["stacks"]}

    def say(self, stack, row, repeat, **figures):
        print(json.dumps({"stack": stack, "row": row, "repeat": repeat, **figures}), flush=True)

    def load(self, kind, stack, *words):
        return json.loads(run(self.plan["load"], kind, stack.device, *[str(w) for w in words]))

    def load_modules(self):
        """All of them first, so that none counts as memory of a stack."""
        for name in list(self.stacks):
            try:
                self.stacks[name](FAST, SLOW).load()
            except StackError as error:
                self.say(name, "load", 0, error=str(error))
                self.stacks.pop(name)

    def abandon(self, stack, name, row, repeat, error):
        """It failed in a row: say so, and make room for the next."""
        self.say(name, row, repeat, error=str(error))
        for take_down in (stack.stop, lambda: run("dmsetup", "remove_all", "--force")):
            try:
                take_down()
            except (StackError, OSError) as second:
                print(f"{name}: taken down after an error: {second}", file=sys.stderr)

    # -- rows

    def sync(self, stack, row, repeat):
        before = counters(stack)
        done = self.load("sync", stack, self.plan["span_bytes"], {"sync-qd1": 1, "sync-8": 8}[row],
                         self.plan["seconds"], repeat)
        return {**done, **since(before, stack)}

    def write_async(self, stack, row, repeat):
        before = counters(stack)
        done = self.load("async", stack, self.plan["span_bytes"], self.plan["depth"], self.plan["seconds"], repeat)
        return {**done, **since(before, stack)}

    def destage(self, stack, row, repeat):
        span, blocks = {"destage-64m": (64 * MIB, 6507), "destage-1g": (1024 * MIB, 8048)}[row]
        before = counters(stack)
        written = self.load("fill", stack, span, self.plan["depth"], blocks, repeat)
        dirty = stack.dirty_blocks()
        began = time.monotonic()
        stack.drain()
        seconds = time.monotonic() - began
        return {"ops": blocks, "write_seconds": written["seconds"], "dirty_blocks": dirty,
                "seconds": seconds, **since(before, stack)}

    # -- groups: rows that share one life of a stack

    ROWS = {"sync-qd1": sync, "sync-8": sync, "async": write_async,
            "async-free": write_async, "destage-64m": destage, "destage-1g": destage}

    def group(self, name, fast, rows, repeat):
        rows = [row for row in rows if row in self.rows]
        if not rows:
            return
        stack, row = self.stacks[name](fast, SLOW), rows[0]
        try:
            stack.create()
            for row in rows:
                self.say(name, row, repeat, **self.ROWS[row](self, stack, row, repeat))
            stack.stop()
        except StackError as error:
            self.abandon(stack, name, row, repeat, error)

    def full(self, name):
        """A cache as full as it gets: its memory, then taken down and started again."""
        stack = self.stacks[name](FAST_FREE, SLOW)
        try:
            stack.hold()
            # Once before, so that what stays of any first use does not count.
            stack.create()
            stack.stop()
            line = {"bytes_per_line": stack.bytes_per_line()} if name == "cohost" else {}
            memory = kernel_memory()
            stack.create()
            blocks = stack.fill_blocks()
            filled = self.load("fill", stack, self.plan["full_span_bytes"], self.plan["depth"], blocks, 1) \
                if blocks else {}
            dirty = stack.dirty_blocks()
            figures = {name: value - memory[name] for name, value in kernel_memory().items()}
            figures.update({"own_bytes": stack.memory_bytes(), "dirty_blocks": dirty,
                            "fill_seconds": filled.get("seconds"), **line})
            if name == "cohost":
                figures["declared_bytes"] = stack.declared_bytes()
            self.say(name, "ram", 0, **figures)
            for repeat in range(self.plan["repeat"]) if "start" in self.rows else ():
                stack.stop()
                stack.fast = FAST
                write_file("/proc/sys/vm/drop_caches", 3)
                before = counters(stack)
                began = time.monotonic()
                stack.start()
                read_block(stack.device)
                seconds = time.monotonic() - began
                self.say(name, "start", repeat, seconds=seconds, dirty_blocks=dirty, **since(before, stack))
            stack.stop()
        except StackError as error:
            self.abandon(stack, name, "start", 0, error)

    def run(self):
        self.load_modules()
        caches = [name for name, stack in self.stacks.items() if stack.is_cache]
        for repeat in range(self.plan["repeat"]):
            for name in self.stacks:
                self.group(name, FAST, ("sync-qd1", "sync-8", "async"), repeat)
                self.group(name, FAST_FREE, ("async-free",), repeat)
        for repeat in range(self.plan["repeat"]):
            for name in caches:
                if name == "cohost" or repeat < self.plan["repeat_slow"]:
                    self.group(name, FAST, ("destage-64m", "destage-1g"), repeat)
        if "start" in self.rows or "ram" in self.rows:
            for name in caches:
                self.full(name)


def main():
    os.environ["DM_DISABLE_UDEV"] = "1"
    Session(json.loads(sys.argv[1])).run()


main()
