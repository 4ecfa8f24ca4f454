# SPDX-License-Identifier: MIT
"""One target with one kind of use (a file system or none), through work, cut and recovery.

Every method may be called with the devices in any state a power cut can leave, and
raises CutError when what must work does not.
"""
import ctypes
import glob
import json
import os
import shutil
import subprocess
import time

import dm
from targets import CutError, dm_create, dm_remove, run

KINDS = ("ext4", "xfs", "raw")
THREADS, SLOTS, SLOTS_RAW = 4, 48, 192
WORKER_TIMEOUT_S = 60
READY_TIMEOUT_S = 60
# mkfs.xfs makes no file system below 300 MB, but for its own test suite, which has these.
SMALL_XFS = {"TEST_DIR": "/", "TEST_DEV": "/", "QA_CHECK_FS": "1"}


def _libc(call, *arguments):
    """As dm.py: without a process."""
    if getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments):
        raise CutError(f"{call} {arguments[0].decode()}: {os.strerror(ctypes.get_errno())}")


class Power:
    """Two disks of one power supply: powerfail targets over RAM."""

    def __init__(self, tag, rams, fast_mib, slow_mib):
        self.names = [f"power-{tag}-fast", f"power-{tag}-slow"]
        self.rams = rams
        self.sizes = [fast_mib * 2048, slow_mib * 2048]
        self.fast, self.slow = (f"/dev/mapper/{name}" for name in self.names)

    def create(self, rng, lie=False):
        """The delays differ from one making to the next: that is what reorders."""
        self.remove()
        latency_us, seek_us = rng.choice([(0, 0), (200, 0), (500, 0), (0, 1000), (200, 2000)])
        for number, name in enumerate(self.names):
            words = ["group", self.names[0], "seed", str(rng.getrandbits(32)), "latency_us", str(latency_us),
                     "seek_us", str(seek_us if number else 0)] + (["lie"] if lie else [])
            dm_create(name, f"0 {self.sizes[number]} powerfail {self.rams[number]} {len(words)} {' '.join(words)}")

    def remove(self):
        for name in self.names:
            dm_remove(name)

    def _tell(self, *words):
        try:
            dm.message(self.names[0], " ".join(words))
        except OSError as error:
            raise CutError(f"powerfail refuses '{' '.join(words)}': {error.strerror}") from None

    def cut(self, seed):
        self._tell("cut", str(seed))

    def plan_cut(self, seed, after):
        """Before the write or flush of that number from now."""
        self._tell("cut", str(seed), "any", str(after))

    def cancel(self):
        self._tell("cancel")

    def restore(self):
        self._tell("restore")

    def is_cut(self):
        return dm.status(self.names[0]).split()[0] == "cut"

    def fate(self):
        """What the last cut did to both disks, in sectors."""
        total = {"waiting": 0, "newest": 0, "older": 0, "lost": 0}
        how = []
        for name in self.names:
            words = dm.status(name).split()
            how.append(words[6])
            for key, value in zip(total, words[7:11]):
                total[key] += int(value)
        return {"how": "+".join(how), **total}


class Worker:
    """cut_work, and how far it is. With a number of operations, each thread stops after so many."""

    def __init__(self, bench, seed, journal, operations=0):
        self.journal = journal
        if os.path.exists(journal):
            os.unlink(journal)
        stdout = None if journal == "-" else subprocess.DEVNULL
        self.process = subprocess.Popen(["cut_work", *bench.place(seed), journal, str(operations)],
                                        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)

    def records(self):
        return os.path.getsize(self.journal) // 24 if os.path.exists(self.journal) else 0

    def wait_for(self, records, seconds):
        """Until the journal has that many records, or it is late; True when the work goes on."""
        end = time.monotonic() + READY_TIMEOUT_S
        while self.records() == 0 and time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        end = time.monotonic() + seconds
        while self.records() < records and time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return self.records() > 0

    def end(self):
        """It ends by itself when the power is gone; what it said."""
        try:
            said = self.process.communicate(timeout=WORKER_TIMEOUT_S)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise CutError(f"the work still waits for the dead devices after {WORKER_TIMEOUT_S} s") from None
        if self.process.returncode:
            raise CutError(f"cut_work: exit {self.process.returncode}: {said}")
        return said


class Bench:
    def __init__(self, kind, target, work):
        self.kind, self.target = kind, target
        self.mount_point = os.path.join(work, f"mnt-{kind}")
        self.slots = SLOTS_RAW if kind == "raw" else SLOTS
        os.makedirs(self.mount_point, exist_ok=True)

    def make(self):
        """A new target and an empty file system."""
        self.target.make()
        if self.kind == "ext4":
            run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-J", "size=4", self.target.device)
        elif self.kind == "xfs":
            run("mkfs.xfs", "-q", "-f", "-K", "-l", "size=6m", "-d", "agcount=2", self.target.device, env=SMALL_XFS)

    def mount(self):
        if self.kind != "raw":
            _libc("mount", self.target.device.encode(), self.mount_point.encode(), self.kind.encode(), 0, None)

    def unmount(self):
        """Also when every write fails."""
        # Not by os.path.ismount(): the root of a file system that has shut down gives EIO.
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounted = any(line.split()[1] == self.mount_point for line in file)
        if mounted:
            _libc("umount2", self.mount_point.encode(), 0)

    def down(self):
        self.unmount()
        self.target.stop()

    def place(self, seed):
        """Where the work of a seed lives, as cut_work and cut_verify want it."""
        path = self.target.device if self.kind == "raw" else os.path.join(self.mount_point, f"run-{seed}")
        return ["device" if self.kind == "raw" else "dir", path, str(seed), str(THREADS), str(self.slots)]

    def prepare(self, seed):
        """An empty directory that is durable; those of earlier cuts go."""
        if self.kind == "raw":
            return
        for old in glob.glob(os.path.join(self.mount_point, "run-*")):
            shutil.rmtree(old)
        os.mkdir(self.place(seed)[1])
        handle = os.open(self.mount_point, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def verify(self, seed, journal, tail=False, until=None):
        """{acks, late, changes, lost, wrong, gaps, said}; until: records before the power went, None: all."""
        words = (["prefix"] if self.kind == "raw" and self.target.prefix else []) + (["tail"] if tail else [])
        words += [f"until={until}"] if until is not None else []
        done = subprocess.run(["cut_verify", *self.place(seed), journal, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=300, check=False)
        said = done.stderr.decode(errors="replace")
        if done.returncode > 1:
            raise CutError(f"cut_verify: {said}")
        return {**json.loads(done.stdout), "said": said}

    def fsck(self):
        """What is wrong with the file system, which is not mounted; None: nothing."""
        commands = {"ext4": ["e2fsck", "-f", "-n"], "xfs": ["xfs_repair", "-n"]}
        if self.kind == "raw":
            return None
        try:
            run(*commands[self.kind], self.target.device)
        except CutError as error:
            return str(error)
        return None
