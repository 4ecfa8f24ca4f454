# SPDX-License-Identifier: MIT
"""Runs every stage of the proof and prints one TAP stream.

A stage is a function that yields results (name, ok, detail). Test programs are
found by folder, print TAP themselves and are counted test by test. All tests
are expected to run: one that skips has failed.
"""
import argparse
import glob
import json
import os
import re
import subprocess
import sys
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(TREE, "build")))
sys.path.insert(0, os.path.join(TREE, "tools", "vm.d"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lint  # noqa: E402  (found beside this file)
import vm  # noqa: E402  (found in the folder of tools/vm)

PROGRAM_TIMEOUT_S = 300
KSELFTEST_TIMEOUT_S = 1200
DEMO_TIMEOUT_S = 900
FUZZ_S = 8
# --kernel: what the module is tried on; none: what is installed here.
KERNELS = []
TAP_LINE = re.compile(r"^(not ok|ok)\b\s*\d*\s*-?\s*(.*)$")


def run(argv, timeout=PROGRAM_TIMEOUT_S, env=None):
    """(exit status, output); a program that hangs is killed with its children."""
    process = subprocess.Popen(argv, cwd=TREE, env={**os.environ, "BUILD": BUILD, **(env or {})},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output = process.communicate(timeout=timeout)[0]
        return process.returncode, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output = process.communicate()[0].decode(errors="replace")
        return 124, output + f"\nnot done after {timeout} s\n"


def tap_results(title, status, output):
    """The test points in a program's output, and one more for how it ended."""
    points = []
    planned = None
    for line in output.splitlines():
        plan = re.match(r"^1\.\.(\d+)", line)
        if plan:
            # cmocka prints a plan for each group: the plans of one program add up.
            planned = (planned or 0) + int(plan.group(1))
        match = TAP_LINE.match(line)
        if match:
            text = match.group(2)
            skipped = re.search(r"#\s*skip", text, re.I) is not None
            points.append((f"{title}: {text}", match.group(1) == "ok" and not skipped,
                           "skipped, but it is expected to run" if skipped else output))
    if status == 4:
        points.append((title, False, "skipped, but it is expected to run:\n" + output))
    elif not points:
        points.append((title, False, f"exit {status} and no test point in the output:\n{output}"))
    elif planned is not None and planned != len(points):
        points.append((f"{title}: plan", False, f"planned {planned}, ran {len(points)}:\n{output}"))
    elif status and all(ok for _, ok, _ in points):
        points.append((f"{title}: exit status", False, f"exit {status}:\n{output}"))
    return points


def programs(folder, pattern, env=None):
    found = sorted(glob.glob(os.path.join(folder, pattern)))
    if not found:
        yield (f"{os.path.relpath(folder, TREE)}/{pattern}", False, "no test found")
    for program in found:
        status, output = run([program], env=env)
        yield from tap_results(os.path.basename(program), status, output)


def make(title, *arguments):
    status, output = run(["make", f"-j{os.cpu_count()}", *arguments], timeout=1800)
    telling = re.compile(r"(error|warning): |Error \d|undefined reference|\*\*\*")
    tail = "\n".join(line for line in output.splitlines() if telling.search(line))
    return (title, status == 0, tail or output[-2000:])


def stage_build():
    yield make("gcc: everything, with all warnings as errors", f"BUILD={BUILD}", "all", "tests",
               "test-kmod")
    yield make("clang: userspace and tests", f"BUILD={BUILD}/clang", "CC=clang", "userspace", "tests")
    yield make("gcc with address and undefined-behaviour sanitizers", f"BUILD={BUILD}/asan",
               "SANITIZE=1", "userspace", "tests")
    yield make("clang: fuzzers", f"BUILD={BUILD}", "fuzz")
    root = os.path.join(BUILD, "install")
    yield make("make install", f"BUILD={BUILD}", f"DESTDIR={root}", "install")


def stage_lint():
    yield from lint.results(TREE, BUILD, run)


def stage_unit():
    yield from programs(os.path.join(BUILD, "asan", "tests", "unit"), "test_*",
                        {"CMOCKA_MESSAGE_OUTPUT": "TAP"})


def stage_sim():
    yield from programs(os.path.join(BUILD, "tests", "sim"), "sim_*")
    yield from programs(os.path.join(TREE, "tests", "sim"), "*.sh")
    yield from programs(os.path.join(TREE, "tests", "model"), "*.sh")


def stage_fuzz():
    found = sorted(glob.glob(os.path.join(TREE, "tests", "fuzz", "fuzz_*.c")))
    for source in found:
        name = os.path.basename(source)[:-2]
        corpus = os.path.join(TREE, "tests", "fuzz", "corpus", name[len("fuzz_"):])
        found_here = os.path.join(BUILD, "fuzz", name)
        os.makedirs(found_here, exist_ok=True)
        if not os.path.isdir(corpus) or not os.listdir(corpus):
            yield (name, False, f"no corpus in {corpus}")
            continue
        status, output = run([os.path.join(BUILD, "tests", "fuzz", name), f"-max_total_time={FUZZ_S}",
                              "-rss_limit_mb=1024", "-timeout=5", f"-artifact_prefix={found_here}/",
                              found_here, corpus])
        yield (f"{name}: {FUZZ_S} s from the committed corpus", status == 0, output[-3000:])


def stage_bpf():
    yield from programs(os.path.join(BUILD, "tests", "bpf"), "test_*", {"CMOCKA_MESSAGE_OUTPUT": "TAP"})


def stage_netns():
    yield from programs(os.path.join(TREE, "tests", "netns"), "[!_]*.sh")


def stage_e2e():
    yield from programs(os.path.join(TREE, "tests", "e2e"), "[!_]*.sh")


def stage_kselftest():
    """One VM for each kernel, all scripts in it."""
    scripts = sorted(glob.glob(os.path.join(TREE, "tests", "kselftest", "[!_]*.sh")))
    for kernel in KERNELS or vm.kernels_installed():
        machine = vm.Machine(f"check-{os.getpid()}", kernel=kernel,
                             disks=[vm.Disk("name=fast,size=256M"), vm.Disk("name=slow,size=1G")])
        try:
            machine.start()
            for script in scripts:
                output = []
                status = machine.run([script], env={"BUILD": BUILD}, timeout=KSELFTEST_TIMEOUT_S,
                                     on_output=lambda kind, data: output.append(data))[0]
                text = b"".join(output).decode(errors="replace")
                yield from tap_results(f"{kernel} {os.path.basename(script)}", status, text)
            machine.stop()
        except vm.VmError as error:
            yield (f"{kernel}: the VM", False, f"{error}\n{machine.console_tail()}")
        finally:
            machine.destroy()
            machine.forget()


def stage_demo():
    """The demo is a test as well: the daemon, the module, the packet path and the cloud together."""
    status, output = run([os.path.join(TREE, "tools", "demo")], timeout=DEMO_TIMEOUT_S)
    try:
        with open(os.path.join(BUILD, "demo", "report.json"), encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as error:
        yield ("report.json", False, f"{error}\n{output}")
        return
    for step in report["steps"]:
        yield (f"{step['id']} ({step['ms'] / 1000:.0f} s)", step["ok"], output)
    yield ("exit status and verdict agree", report["ok"] and status == 0, output)


STAGES = {name[len("stage_"):]: function for name, function in globals().items() if name.startswith("stage_")}


def kernel_named(wanted):
    try:
        return vm.kernel_pick(wanted)
    except vm.VmError:
        if subprocess.call([os.path.join(TREE, "tools", "kernel"), wanted]):
            sys.exit(1)
        return vm.kernel_pick(wanted)


def report(number, stage, result):
    name, ok, detail = result
    print(f"{'ok' if ok else 'not ok'} {number} - {stage}: {name}", flush=True)
    if not ok:
        for line in detail.splitlines()[-60:]:
            print(f"# {line}")


def main():
    parser = argparse.ArgumentParser(prog="tools/check", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    parser.add_argument("--kernel", metavar="VERSION", action="append", default=[],
                        help="the kernel stages run on this one, fetched if it is not here (see tools/kernel)")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)} (default: all)")
    options = parser.parse_args()
    if options.list:
        print("\n".join(STAGES))
        return 0
    for stage in options.stages:
        if stage not in STAGES:
            parser.error(f"no stage '{stage}': there are {', '.join(STAGES)}")
    for wanted in options.kernel:
        KERNELS.append(kernel_named(wanted))
    passed = failed = 0
    print("TAP version 13")
    for stage in options.stages or STAGES:
        began = time.monotonic()
        for result in STAGES[stage]():
            report(passed + failed + 1, stage, result)
            passed, failed = passed + (1 if result[1] else 0), failed + (0 if result[1] else 1)
        print(f"# {stage}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"1..{passed + failed}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
