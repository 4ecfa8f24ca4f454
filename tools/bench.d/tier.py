# SPDX-License-Identifier: MIT
"""tools/bench tier: cohost and its alternatives on the same throttled disks, in one VM session.

Prints the table of goals and writes build/bench/tier.json. Exits 0 when everything was
measured, whether the goals are met or not.
"""
import argparse
import json
import os
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "vm.d"))
sys.path.insert(0, HERE)
import peers  # noqa: E402  (found beside this file)
import tier_table  # noqa: E402
import vm  # noqa: E402

MIB = 1 << 20
STACKS = ["raw", "cohost", "dm-writecache", "bcache", "dm-cache", "dm-writeboost"]
ROWS = ["sync-qd1", "sync-8", "async", "async-free", "destage-64m", "destage-1g", "start", "ram"]
FAST_MIB, SLOW_MIB = 600, 1152
FAST_WRITE_IOPS, SLOW_IOPS = 400, 200
SESSION_TIMEOUT_S = 3600


def some_of(all_of_them):
    def parse(text):
        words = text.split(",")
        unknown = [word for word in words if word not in all_of_them]
        if unknown:
            raise argparse.ArgumentTypeError(f"no '{unknown[0]}': there are {', '.join(all_of_them)}")
        return [word for word in all_of_them if word in words]
    return parse


def parse(argv):
    parser = argparse.ArgumentParser(prog="tools/bench tier", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=some_of(ROWS), default=ROWS, metavar="ROW,...",
                        help=f"only these of {', '.join(ROWS)}")
    parser.add_argument("--stacks", type=some_of(STACKS), default=STACKS, metavar="STACK,...",
                        help=f"only these of {', '.join(STACKS)}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="of each row (default 3)")
    parser.add_argument("--repeat-destage", type=int, default=2, metavar="N",
                        help="of the destage rows of the peers, two minutes each (default 2)")
    parser.add_argument("--seconds", type=int, default=3, metavar="S", help="of each timed row (default 3)")
    parser.add_argument("--kernel", metavar="VERSION", help="a kernel of /boot for the VM (default: the first there)")
    options = parser.parse_args(argv)
    if min(options.repeat, options.repeat_destage, options.seconds) < 1:
        parser.error("--repeat, --repeat-destage and --seconds are 1 or more")
    return options


def write_images(state, memory):
    """The disks' images, in the host's memory: nobody else's work on its disk is measured.

    Written once, so that no write pays for the allocation of its page.
    """
    os.makedirs(state, exist_ok=True)
    for name, size_mib in (("fast", FAST_MIB), ("slow", SLOW_MIB)):
        image = os.path.join(memory, name + ".img")
        try:
            with open(image, "wb") as file:
                for _ in range(size_mib):
                    file.write(bytes(MIB))
        except OSError as error:
            raise vm.VmError(f"{image}: {error.strerror}: the disks need {FAST_MIB + SLOW_MIB} MiB of memory "
                             "in /dev/shm, make room there") from None
        os.symlink(image, os.path.join(state, name + ".img"))


class Progress:
    """JSON lines of the session, kept, and said in short."""

    def __init__(self):
        self.records = []
        self.rest = b""
        self.began = time.monotonic()

    def elapsed(self):
        return time.monotonic() - self.began

    def feed(self, kind, data):
        if kind != b"o":
            sys.stderr.write(data.decode(errors="replace"))
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.records.append(json.loads(line))
            self.say(self.records[-1])

    def say(self, record):
        text = record.get("error")
        if not text and record["row"] == "ram":
            text = (f"slab {record['slab_bytes'] / MIB:.1f} MiB, vmalloc {record['vmalloc_bytes'] / MIB:.1f} MiB, "
                    f"{record['dirty_blocks']} blocks dirty")
        elif not text and record["row"] == "start":
            text = f"{record['seconds']:.2f} s, fast {record['fast']['read_sectors'] // 2} KiB read"
        elif not text:
            text = (f"{record['ops']} ops, {record['seconds']:.2f} s, fast {record['fast']['writes']} writes "
                    f"{record['fast']['flushes']} flushes, slow {record['slow']['writes']} writes "
                    f"{record['slow']['flushes']} flushes")
        print(f"  {self.elapsed():6.0f} s  {record['stack']:<14}{record['row']:<12} {text}", flush=True)


def run_session(machine, folder, plan, progress):
    absent = peers.fetch(folder + "/peers") or \
        peers.build_writeboost(folder + "/peers", folder + "/writeboost", machine.kernel)
    if absent:
        print(f"tools/bench: a stack will be missing: {absent}", file=sys.stderr)
    path = f"{vm.BUILD}/bin:{folder}/peers/root/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    with tempfile.TemporaryDirectory(prefix="cohost-bench-", dir="/dev/shm") as memory:
        try:
            write_images(machine.state, memory)
            machine.start()
            print(f"tools/bench tier: kernel {machine.kernel}, {vm.accelerator(machine.kernel)}; "
                  f"fast {FAST_MIB} MiB, {FAST_WRITE_IOPS} writes/s; slow {SLOW_MIB} MiB, {SLOW_IOPS} I/Os/s",
                  flush=True)
            status = machine.run(["/usr/bin/python3", os.path.join(HERE, "session.py"), json.dumps(plan)],
                                 env={"PATH": path, "BUILD": vm.BUILD, "BENCH": folder},
                                 on_output=progress.feed, timeout=SESSION_TIMEOUT_S)[0]
            if status:
                raise vm.VmError(f"the session in the VM ended with {status}: its words are above")
            machine.stop()
        finally:
            # A second Ctrl-C must not leave half of it behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            machine.destroy()
            machine.forget()


def report(options, folder, machine, progress, complete):
    """What there is, also of a session that was cut short."""
    setting = {"complete": complete, "kernel": machine.kernel, "accelerator": vm.accelerator(machine.kernel),
               "repeat": options.repeat, "repeat_destage_of_peers": options.repeat_destage,
               "seconds_per_row": options.seconds, "fast_mib": FAST_MIB, "fast_writes_per_s": FAST_WRITE_IOPS,
               "slow_mib": SLOW_MIB, "slow_ios_per_s": SLOW_IOPS, "session_s": round(progress.elapsed())}
    found = list(tier_table.metrics(progress.records, options.stacks, options.rows))
    print("\n" + "\n".join(tier_table.table(found, options.stacks)))
    write_report(folder + "/tier.json",
                 {"bench": "tier", "setting": setting, "metrics": found, "records": progress.records})
    print(f"\n{sum(m['met'] for m in found)} of {len(found)} goals met; all figures: "
          f"{os.path.relpath(folder)}/tier.json")


def write_report(path, content):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    os.rename(path + ".tmp", path)


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = os.path.join(vm.BUILD, "bench")
    os.makedirs(folder + "/writeboost", exist_ok=True)
    plan = {"stacks": options.stacks, "rows": options.rows, "repeat": options.repeat,
            "repeat_slow": options.repeat_destage, "seconds": options.seconds,
            "load": peers.build_load(folder), "span_bytes": 256 * MIB, "full_span_bytes": 1024 * MIB, "depth": 32}
    machine = vm.Machine(f"bench-{os.getpid()}", kernel=options.kernel, memory_mib=1536, disks=[
        vm.Disk(f"name=fast,wiops={FAST_WRITE_IOPS}"), vm.Disk(f"name=slow,iops={SLOW_IOPS}"),
        vm.Disk("name=fastfree,twin=fast")])
    progress, complete = Progress(), False
    try:
        run_session(machine, folder, plan, progress)
        complete = True
    finally:
        if progress.records:
            report(options, folder, machine, progress, complete)
    return 1 if any("error" in record for record in progress.records) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (peers.PeerError, vm.VmError) as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ntools/bench: interrupted; everything is cleaned up", file=sys.stderr)
        sys.exit(130)
