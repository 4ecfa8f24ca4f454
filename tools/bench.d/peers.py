# SPDX-License-Identifier: MIT
"""Fetches what the other stacks need, and builds it, all below build/bench."""
import glob
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


class PeerError(Exception):
    """What could not be had, and why."""


def _run(argv, log, cwd=None):
    with open(log, "ab") as file:
        status = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                check=False).returncode
    if status:
        raise PeerError(f"{' '.join(argv[:4])}: exit {status} (whole log: {log})")


def packages():
    with open(os.path.join(HERE, "packages"), encoding="ascii") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def fetch(folder):
    """Unpacks the packages into folder/root, once. Returns what is in the way, or None."""
    root = os.path.join(folder, "root")
    log = os.path.join(folder, "fetch.log")
    os.makedirs(root, exist_ok=True)
    for package in packages():
        stamp = os.path.join(folder, package + ".fetched")
        if os.path.exists(stamp):
            continue
        try:
            try:
                _run(["apt-get", "download", package], log, cwd=folder)
            except PeerError:
                _run(["apt-get", "update"], log)
                _run(["apt-get", "download", package], log, cwd=folder)
            archive, = glob.glob(os.path.join(folder, f"{package}_*.deb"))
            _run(["dpkg", "-x", archive, root], log)
        except PeerError as error:
            return f"package {package}: {error}"
        with open(stamp, "w", encoding="ascii"):
            pass
    return None


def build_writeboost(folder, target, kernel):
    """The module for this kernel in target/KERNEL. Returns what is in the way, or None."""
    work = os.path.join(target, kernel)
    if os.path.exists(os.path.join(work, "dm-writeboost.ko")):
        return None
    sources = glob.glob(os.path.join(folder, "root", "usr", "src", "dm-writeboost-*"))
    if not sources:
        return "the source of dm-writeboost was not fetched"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sources[0], work)
    try:
        _run(["make", "-C", f"/lib/modules/{kernel}/build", f"M={work}", "modules"], os.path.join(work, "make.log"))
    except PeerError as error:
        return f"dm-writeboost does not build for kernel {kernel}: {error}"
    return None


def build_load(target):
    """The load generator; it runs on this machine's root inside the VM."""
    source = os.path.join(HERE, "load.c")
    program = os.path.join(target, "load")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        _run(["gcc", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-o", program, source,
              "-luring", "-lpthread"], os.path.join(target, "load.log"))
    return program
