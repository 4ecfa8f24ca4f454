# SPDX-License-Identifier: MIT
"""A volume that begins with nothing there, filled and used while the power goes.

Every block of it says which one it is and its version: 0 is the image from which the source fills,
each guest write is the next one. So what is read is right, older than what was acknowledged (lost), or
something that was never there (wrong).
"""
import mmap
import os
import random
import struct
import subprocess
import threading
import time

import dm
from targets import Cohost, CutError, run

BLOCK, STRIPE, GRANULE = 4096, 8, 64  # bytes; blocks
WRITERS = 3
HEAD = struct.Struct("<QQ")
TIMEOUT_S, WORK_S_MAX = 120, 8


def block_of(number, version):
    """Every fourth granule of the image is zeros."""
    if not version and number // GRANULE % 4 == 3:
        return bytes(BLOCK)
    return HEAD.pack(number, version) * (BLOCK // HEAD.size)


def version_of(data, number):
    """None: this was never there."""
    found = 0 if data == bytes(BLOCK) else HEAD.unpack_from(data)[1]
    return found if data == block_of(number, found) else None


class Direct:
    """O_DIRECT wants aligned memory: one buffer a thread."""

    def __init__(self, device, flags, blocks):
        self.memory = mmap.mmap(-1, blocks * BLOCK)
        self.handle = os.open(device, flags | os.O_DIRECT)

    def read(self, first, count):
        view = memoryview(self.memory)[:count * BLOCK]
        if os.preadv(self.handle, [view], first * BLOCK) != len(view):
            raise OSError("a short read")
        return bytes(view)

    def write(self, first, data):
        self.memory[:len(data)] = data
        if os.pwritev(self.handle, [memoryview(self.memory)[:len(data)]], first * BLOCK) != len(data):
            raise OSError("a short write")

    def close(self):
        os.close(self.handle)


class Model:
    """What may be read: of each block the last acknowledged version, and all that were begun since."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.acknowledged = [0] * blocks
        self.begun = [0] * blocks
        self.acks = self.lost = self.wrong = 0
        self.said = []

    def check(self, number, data, oldest):
        found = version_of(data, number)
        if found is not None and oldest <= found <= self.begun[number]:
            return
        kind = "wrong" if found is None or found > self.begun[number] else "lost"
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.said) < 20:
            self.said.append(f"block {number}: {kind}: found version {found} ({data[:16].hex()}), acknowledged "
                             f"{oldest}, begun {self.begun[number]}")


class Guests:
    """Writers, each with stripes of its own, and a reader, until their device fails."""

    def __init__(self, device, model, seed):
        self.model, self.is_cut = model, False
        # What is open before the cut is all that is ever opened.
        tasks = [(self.write, Direct(device, os.O_RDWR | (os.O_DSYNC if number % 2 == 0 else 0), STRIPE),
                  random.Random(f"{seed} {number}"), number) for number in range(WRITERS)]
        tasks.append((self.read, Direct(device, os.O_RDONLY, STRIPE), random.Random(f"{seed} reader"), 0))
        self.threads = [threading.Thread(target=self.life, args=task) for task in tasks]
        for thread in self.threads:
            thread.start()

    def life(self, step, direct, rng, number):
        try:
            while not self.is_cut:
                step(direct, rng, number)
        except OSError:
            pass
        finally:
            direct.close()

    def write(self, direct, rng, number):
        stripe = rng.randrange(self.model.blocks // STRIPE // WRITERS) * WRITERS + number
        count = rng.choice([1, 1, 2, STRIPE])
        first = stripe * STRIPE + rng.randrange(STRIPE - count + 1)
        version = [self.model.begun[first + i] + 1 for i in range(count)]
        for i in range(count):
            self.model.begun[first + i] = version[i]
        direct.write(first, b"".join(block_of(first + i, version[i]) for i in range(count)))
        if number % 2:  # without O_DSYNC: durable when it was asked for
            if rng.random() < 0.7:
                return
            os.fsync(direct.handle)
        # Who asks a dead machine gets no answer that counts.
        if self.is_cut:
            return
        for i in range(count):
            self.model.acknowledged[first + i] = version[i]
        self.model.acks += 1

    def read(self, direct, rng, _):
        first = rng.randrange(self.model.blocks - STRIPE)
        oldest = self.model.acknowledged[first:first + STRIPE]
        data = direct.read(first, STRIPE)
        for i in range(STRIPE):
            self.model.check(first + i, data[i * BLOCK:(i + 1) * BLOCK], oldest[i])

    def end(self):
        for thread in self.threads:
            thread.join(TIMEOUT_S)
        if any(thread.is_alive() for thread in self.threads):
            raise CutError(f"a guest still waits for the dead devices after {TIMEOUT_S} s")


class Filled:
    """The volume and its source; one life of it from a start to a cut, or to the end."""

    def __init__(self, power, tree, work, lie):
        self.power, self.lie = power, lie
        self.target = Cohost("fill", power.fast, power.slow)
        self.source_path = os.path.join(tree, "tests", "helpers", "source.py")
        self.image = os.path.join(work, "image")
        self.source = None

    def make(self):
        run("cohostctl", "-y", "volume", "create", self.target.volume, "fast", self.power.fast, "slow",
            self.power.slow, "absent", "yes")
        size = os.stat(self.image).st_size if os.path.exists(self.image) else 0
        blocks = int(run("blockdev", "--getsize64", self.target.device)) // BLOCK
        if size != blocks * BLOCK:
            with open(self.image, "wb") as file:
                for number in range(blocks):
                    file.write(block_of(number, 0))
        return blocks

    def is_absent(self):
        return os.path.exists(f"/dev/cohost/{self.target.volume}")

    def fill(self):
        """Nothing to do, when it was complete at its start."""
        if self.is_absent():
            self.source = subprocess.Popen(["python3", self.source_path, self.target.volume, self.image, "fill"],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)

    def source_end(self, kill):
        if not self.source:
            return
        if kill:
            self.source.kill()
        if self.source.wait(TIMEOUT_S) and not kill:
            raise CutError("the source failed while the power was on")
        self.source = None

    def stop(self):
        """Also when every write fails, and somebody waits for what nobody brings any more."""
        self.source_end(kill=True)
        if dm.status(self.target.dm) is not None:
            run("dmsetup", "suspend", "--noflush", "--nolockfs", self.target.dm)

    def remove(self):
        self.target.stop()


def life_until_cut(filled, model, rng, seed):
    """What the cut did to the disks."""
    filled.fill()
    guests = Guests(filled.target.device, model, seed)
    wanted, end = model.acks + rng.choice([0, 5, 20, 60, 150, 400]), time.monotonic() + WORK_S_MAX
    while model.acks < wanted and time.monotonic() < end:
        time.sleep(0.01)
    guests.is_cut = True
    filled.power.cut(seed)
    filled.stop()
    guests.end()
    filled.remove()
    fate = filled.power.fate()
    filled.power.restore()
    return fate


def verify(filled, model):
    """All of it, while the source brings what is absent still."""
    filled.fill()
    direct = Direct(filled.target.device, os.O_RDONLY, GRANULE)
    order = list(range(0, model.blocks, GRANULE))
    random.Random(model.acks).shuffle(order)
    for first in order:
        count = min(GRANULE, model.blocks - first)
        data = direct.read(first, count)
        for i in range(count):
            model.check(first + i, data[i * BLOCK:(i + 1) * BLOCK], model.acknowledged[first + i])
    direct.close()
    filled.source_end(kill=False)
    run("cohostctl", "volume", "flush", filled.target.volume)
    filled.remove()


def one_cut(filled, seed):
    """One volume, from nothing there to all of it, through one cut or more; its event."""
    rng, began = random.Random(seed), time.monotonic()
    event = {"event": "cut", "target": "cohost", "kind": "fill", "seed": seed, "fsck": None, "error": None, "gaps": 0,
             "acks": 0, "lost": 0, "wrong": 0, "said": "", "cut": {"waiting": 0, "lost": 0}}
    try:
        filled.power.create(rng, filled.lie)
        model = Model(filled.make())
        event["cuts"] = rng.choice([1, 1, 2, 3])
        for number in range(event["cuts"]):
            if number:
                filled.target.start()
            fate = life_until_cut(filled, model, rng, seed + number)
            event["cut"] = {key: event["cut"][key] + fate[key] for key in event["cut"]}
        filled.target.start()
        verify(filled, model)
        event.update(acks=model.acks, lost=model.lost, wrong=model.wrong, said="\n".join(model.said))
    except (CutError, OSError) as error:
        event["error"] = str(error)
    event["ms"] = int((time.monotonic() - began) * 1000)
    return event
