# SPDX-License-Identifier: MIT
"""The demo: one appliance, eight things it must do, each on real input.

Each step is a function of steps.py; this file runs them in order, says what
happens as it happens, and writes build/demo/report.json.
"""
import argparse
import json
import os
import shutil
import signal
import sys
import time

from appliance import HostAppliance, VmAppliance
from lab import BUILD, DemoError, Lab
import steps
import vm

PLAIN_PROGRESS_S = 5


class Progress:
    """One line a step: rewritten while it runs on a terminal, a line now and then elsewhere."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.title = ""
        self.said = 0

    def begin(self, title):
        self.title = title
        if self.terminal:
            print(f"  ..  {title}", end="", flush=True)

    def say(self, text):
        if self.terminal:
            print(f"\r\033[K  ..  {self.title}: {text}", end="", flush=True)
        elif time.monotonic() - self.said > PLAIN_PROGRESS_S:
            self.said = time.monotonic()
            print(f"      {self.title}: {text}", flush=True)

    def end(self, ok, text, ms):
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}  {'ok' if ok else 'NO'}  {self.title} ({ms / 1000:.1f} s): {text}", flush=True)


class Context:
    """What the steps share."""

    def __init__(self, lab, appliance, work, progress):
        self.lab = lab
        self.appliance = appliance
        self.work = work
        self.say = progress.say
        self.facts = {}


def run_step(context, progress, identifier, title, function):
    began = time.monotonic()
    progress.begin(title)
    detail, ok, text = {}, False, ""
    try:
        text, detail = function(context)
        ok = True
    except (DemoError, vm.VmError) as error:
        text = str(error)
    except Exception as error:  # a bug of the demo itself is a failed step with its place
        place = sys.exc_info()[2]
        while place.tb_next:
            place = place.tb_next
        text = f"{type(error).__name__}: {error} ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})"
    ms = int((time.monotonic() - began) * 1000)
    progress.end(ok, text, ms)
    return {"id": identifier, "ok": ok, "ms": ms, "detail": {**detail, "text": text}}


def print_table(results, total_ms):
    print(f"\n  {'step':<12} {'result':<7} {'time':>8}")
    for result in results:
        print(f"  {result['id']:<12} {'ok' if result['ok'] else 'FAILED':<7} {result['ms'] / 1000:>6.1f} s")
    print(f"  {'all':<12} {'ok' if all(r['ok'] for r in results) else 'FAILED':<7} {total_ms / 1000:>6.1f} s")


def write_report(results):
    path = os.path.join(BUILD, "demo", "report.json")
    report = {"ok": len(results) == len(steps.STEPS) + 1 and all(r["ok"] for r in results), "steps": results}
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.rename(path + ".tmp", path)
    return report["ok"], path


def keep_running(context):
    lab = context.lab
    print(f"\n  Kept running ({context.appliance.reach()}). In another terminal:\n"
          f"    sudo ip netns exec {lab.namespace} curl http://10.77.0.2:8080/live/index.m3u8\n"
          f"    S3 at {lab.s3.get('endpoint')}, access key {lab.s3.get('access')}, in the same namespace\n"
          "  Ctrl-C ends it and cleans up.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def parse():
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", action="store_true", help="use this machine's kernel and loop devices, no VM")
    parser.add_argument("--keep", action="store_true", help="leave it running and say how to reach it")
    parser.add_argument("--kernel", metavar="VERSION", help="kernel of the VM")
    return parser.parse_args()


def main():
    options = parse()
    began_ms = int(os.environ.get("COHOST_DEMO_BEGAN", time.time() * 1000))
    work = os.path.join(BUILD, "demo")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    os.chmod(work, 0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress, results, lab, appliance = Progress(), [], Lab(work), None
    try:
        lab.create()
        appliance = (HostAppliance if options.host else VmAppliance)(lab, options.kernel)
        context = Context(lab, appliance, work, progress)
        setup_ms = int(time.time() * 1000) - began_ms
        print(f"cohost demo: {appliance.description}")
        progress.begin("set-up: packages, build")
        progress.end(True, "cohost.ko, the BPF object, cohostd and cohostctl are built", setup_ms)
        results.append({"id": "setup", "ok": True, "ms": setup_ms, "detail": {}})
        for identifier, title, function in steps.STEPS:
            results.append(run_step(context, progress, identifier, title, function))
            if not results[-1]["ok"]:
                break
        print_table(results, int(time.time() * 1000) - began_ms)
        ok, path = write_report(results)
        print(f"\n  {'All is well' if ok else 'NOT well'}; the report: {os.path.relpath(path)}")
        if options.keep:
            keep_running(context)
        return 0 if ok else 1
    finally:
        # A second Ctrl-C must not leave half of it behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if appliance:
            appliance.destroy()
        lab.destroy()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (DemoError, vm.VmError) as error:
        print(f"tools/demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ntools/demo: interrupted; everything is cleaned up", file=sys.stderr)
        sys.exit(130)
