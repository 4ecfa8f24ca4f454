#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tools/bench drain: is it true how long a volume says that emptying its log will take? And how long does a
seal take, before the power goes?

In a VM with a slow disk of few I/Os per second: random writes, a stream, random writes again, a flush of
each; what the volume says in between against what it then took. Then seals under random writes of eight
threads. Writes build/bench/drain.json.
"""
import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(TREE, "build")))
DEVICE, VOLUME = "/dev/mapper/cohost-drain", "drain"
LOADS = [("random", ["write_load", DEVICE, "direct", "48", "10"]),
         ("stream", ["dd", "if=/dev/zero", f"of={DEVICE}", "bs=1M", "count=300", "oflag=direct"]),
         ("random again", ["write_load", DEVICE, "direct", "48", "9"])]
GOAL_PERCENT = 20
SEALS = 20


def run(*argv):
    return subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT).stdout.decode()


def volume():
    return json.loads(run("cohostctl", "-j", "volume", "show", VOLUME))["volume"]


def measure(name, load):
    """One line a half second of the flush: when, what is dirty, what was said."""
    run(*load)
    flush = subprocess.Popen(["cohostctl", "volume", "flush", VOLUME], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    began, said = time.monotonic(), []
    while flush.poll() is None:
        now = volume()
        said.append({"ms": int((time.monotonic() - began) * 1000), "dirty_bytes": now["dirty_bytes"],
                     "drain_ms": now["drain_ms"]})
        time.sleep(0.5)
    return {"load": name, "took_ms": int((time.monotonic() - began) * 1000), "said": said}


def seals():
    """Microseconds of each, in order of their size."""
    load = subprocess.Popen(["write_load", DEVICE, "direct", "8", "20"], stdout=subprocess.DEVNULL)
    took = []
    for _ in range(SEALS):
        time.sleep(0.5)
        took.append(int(run("volume_api", "seal", VOLUME)))
    load.terminate()
    load.wait()
    return sorted(took)


def guest():
    module = os.path.join(BUILD, "kmod", os.uname().release, "cohost.ko")
    os.environ["PATH"] = f"{BUILD}/bin:{BUILD}/tests/helpers:{os.environ['PATH']}:/usr/sbin:/sbin"
    for needed in run("modinfo", "-F", "depends", module).strip().split(","):
        run("modprobe", needed)
    run("insmod", module)
    run("cohostctl", "volume", "create", VOLUME, "fast", "/dev/vm/fast", "slow", "/dev/vm/slow")
    drains = [measure(name, load) for name, load in LOADS]
    print(json.dumps({"drains": drains, "seals_us": seals()}))


def show(result):
    """A line for each batch: the first word after it, and how far off that was."""
    print(f"{result['load']}: {result['said'][0]['dirty_bytes'] >> 20} MiB dirty, flushed in "
          f"{result['took_ms'] / 1000:.1f} s")
    dirty = None
    for word in result["said"]:
        left = result["took_ms"] - word["ms"]
        if word["dirty_bytes"] == dirty or left <= 0:
            continue
        dirty = word["dirty_bytes"]
        off = (word["drain_ms"] - left) * 100 // left
        met = "" if not word["drain_ms"] else "met" if abs(off) <= GOAL_PERCENT else "not met"
        text = f"{word['drain_ms'] / 1000:5.1f} s said, {off:+d} % {met}" if word["drain_ms"] else "not known yet"
        print(f"  {dirty >> 20:4} MiB left: {left / 1000:5.1f} s, {text}")


def main():
    if sys.argv[1:] == ["guest"]:
        guest()
        return
    argparse.ArgumentParser(prog="tools/bench drain", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    done = subprocess.run([os.path.join(TREE, "tools", "vm"), "run", "--disk", "name=fast,size=512M", "--disk",
                           "name=slow,size=1G,iops=300,bps=100M", "--", os.path.abspath(__file__), "guest"],
                          stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"tools/bench drain: {done.stdout.decode(errors='replace')}")
    results = json.loads(done.stdout.splitlines()[-1])
    os.makedirs(os.path.join(BUILD, "bench"), exist_ok=True)
    with open(os.path.join(BUILD, "bench", "drain.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    for result in results["drains"]:
        show(result)
    seals_us = results["seals_us"]
    print(f"{len(seals_us)} seals under random writes: median {seals_us[len(seals_us) // 2] / 1000:.1f} ms, longest "
          f"{seals_us[-1] / 1000:.1f} ms")


if __name__ == "__main__":
    main()
