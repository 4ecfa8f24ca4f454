# SPDX-License-Identifier: MIT
"""What the power is cut under: each way to make one block device of a fast and a slow one.

A target is made (what was on the devices is lost), started again after a cut, and
taken away; `device` is there in between. `prefix` says that it promises more than a
disk does: what is left is a state that was there at one moment, in whole writes.
"""
import os
import subprocess

import dm

os.environ["DM_DISABLE_UDEV"] = "1"  # a VM has no udev: dmsetup makes the nodes itself
COMMAND_TIMEOUT_S = 120


class CutError(Exception):
    """Something that should have worked: what, and what was said."""


def run(*argv, timeout=COMMAND_TIMEOUT_S, env=None):
    """Output of a command that must succeed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, check=False, env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired:
        raise CutError(f"{' '.join(argv)}: not done after {timeout} s") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise CutError(f"{' '.join(argv)}: exit {done.returncode}: {output.strip()}")
    return output


def sectors(device):
    return int(run("blockdev", "--getsz", device))


def wipe(device, size=4096):
    """No superblock is left that a target could take for its own."""
    with open(device, "r+b", buffering=0) as file:
        file.write(bytes(size))
        os.fsync(file.fileno())


def dm_create(name, *tables):
    text = "\n".join(tables)
    done = subprocess.run(["dmsetup", "create", name], input=text.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        raise CutError(f"dmsetup create {name}, table '{text}': {done.stdout.decode(errors='replace').strip()}")


def dm_remove(name):
    if os.path.exists(f"/dev/mapper/{name}"):
        run("dmsetup", "remove", "--retry", name)


class Target:
    """Made of one dm table over both devices; the kinds differ in the table."""

    name = ""
    modules = ()
    prefix = False

    def __init__(self, tag, fast, slow):
        self.dm = f"cut-{tag}"
        self.fast, self.slow = fast, slow
        self.device = f"/dev/mapper/{self.dm}"

    def make(self):
        self.start()

    def start(self):
        dm_create(self.dm, self.table())

    def stop(self):
        dm_remove(self.dm)

    def table(self):
        raise NotImplementedError

    def stir(self):
        """A command that makes it move data while the work goes on, or None."""
        return None

    def drain(self):
        """Nothing is left on the fast device alone."""
        command = self.stir()
        if command:
            run(*command)

    def describe(self):
        """What it says of itself; None: it is not started."""
        return dm.status(self.dm)


class Linear(Target):
    """The slow device by itself: it must lose nothing that was flushed."""

    name = "linear"

    def table(self):
        return f"0 {sectors(self.slow)} linear {self.slow} 0"


class Writecache(Target):
    """dm-writecache on an SSD. On Linux 6.1 it loses what was written with FUA alone, where the
    cache does not hold the block yet: what it holds is overwritten in place.
    """

    name = "dm-writecache"
    modules = ("dm-writecache",)

    def make(self):
        wipe(self.fast)
        self.start()

    def table(self):
        return f"0 {sectors(self.slow)} writecache s {self.slow} {self.fast} 4096 0"

    def stir(self):
        return ["dmsetup", "message", self.dm, "0", "flush"]


class DmCache(Target):
    """dm-cache in write-back mode, its metadata at the front of the fast device."""

    name = "dm-cache"
    modules = ("dm-cache", "dm-cache-smq")
    META = 8192  # sectors

    def _split(self):
        size = sectors(self.fast)
        dm_create(f"{self.dm}-meta", f"0 {self.META} linear {self.fast} 0")
        dm_create(f"{self.dm}-data", f"0 {size - self.META} linear {self.fast} {self.META}")

    def make(self):
        wipe(self.fast)
        self.start()

    def start(self):
        self._split()
        super().start()

    def stop(self):
        for name in (self.dm, f"{self.dm}-data", f"{self.dm}-meta"):
            dm_remove(name)

    def table(self):
        return (f"0 {sectors(self.slow)} cache /dev/mapper/{self.dm}-meta /dev/mapper/{self.dm}-data "
                f"{self.slow} 64 1 writeback smq 0")


class Cohost(Target):
    """A volume of this tree's module."""

    name = "cohost"
    prefix = True

    def __init__(self, tag, fast, slow):
        super().__init__(tag, fast, slow)
        self.volume = f"cut-{tag}"
        self.dm = f"cohost-{self.volume}"
        self.device = f"/dev/mapper/{self.dm}"

    def make(self):
        run("cohostctl", "-y", "volume", "create", self.volume, "fast", self.fast, "slow", self.slow)

    def start(self):
        run("cohostctl", "volume", "start", self.volume, "fast", self.fast, "slow", self.slow)

    def stir(self):
        return ["cohostctl", "volume", "flush", self.volume]


TARGETS = {target.name: target for target in (Cohost, Linear, Writecache, DmCache)}
