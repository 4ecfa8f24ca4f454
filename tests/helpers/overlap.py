#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes and reads over each other, against a model of what may be read.

    overlap.py DEVICE ROUNDS SEED

Threads write and zero ranges that overlap, and read such, at the same time. Each write has a version of its own, and
the model knows when it began and ended. Of a block, a read may give any version that was begun before the read
ended, unless another write of the block came wholly between the two. After each round, when nothing is under
way, all is read and counts as one more read. Prints "writes=N reads=N wrong=N".
"""
import fcntl
import itertools
import mmap
import os
import random
import struct
import sys
import threading

BLOCK, BLOCKS, RUN_MAX = 4096, 256, 32
WRITERS, READERS, STEPS = 4, 2, 60
HEAD = struct.Struct("<QQ")
ZEROOUT = 0x127f  # _IO(0x12, 127)

device, rounds, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
lock = threading.Lock()
clock = itertools.count(1)
versions = itertools.count(1)
total = {"writes": 0, "reads": 0, "wrong": 0}
# Of each block: [version, began, ended]; version 0 are zeros, ended None while it is under way.
history = []


class Direct:
    """O_DIRECT wants aligned memory: one buffer a thread."""

    def __init__(self):
        self.memory = memoryview(mmap.mmap(-1, RUN_MAX * BLOCK))
        self.handle = os.open(device, os.O_RDWR | os.O_DIRECT)

    def write(self, first, count, version):
        if not version:
            fcntl.ioctl(self.handle, ZEROOUT, struct.pack("=QQ", first * BLOCK, count * BLOCK))
            return
        for i in range(count):
            self.memory[i * BLOCK:(i + 1) * BLOCK] = HEAD.pack(first + i, version) * (BLOCK // HEAD.size)
        assert os.pwritev(self.handle, [self.memory[:count * BLOCK]], first * BLOCK) == count * BLOCK

    def read(self, first, count):
        assert os.preadv(self.handle, [self.memory[:count * BLOCK]], first * BLOCK) == count * BLOCK
        return bytes(self.memory[:count * BLOCK])


def version_in(data, number):
    """None: this was never written there."""
    if data == bytes(BLOCK):
        return 0
    found, version = HEAD.unpack_from(data)
    return version if found == number and data == HEAD.pack(number, version) * (BLOCK // HEAD.size) else None


def may_be(number, version, began, ended):
    writes = history[number]
    for own in writes:
        if own[0] != version or own[1] > ended:
            continue
        if own[2] is None or not any(w[2] is not None and w[1] > own[2] and w[2] < began for w in writes):
            return True
    return False


def write(direct, rng):
    count = rng.choice([1, 1, 2, 3, 8, RUN_MAX])
    first = rng.randrange(BLOCKS - count + 1)
    with lock:
        version = 0 if rng.random() < 0.1 else next(versions)
        now = next(clock)
        own = [[version, now, None] for _ in range(count)]
        for i in range(count):
            history[first + i].append(own[i])
    direct.write(first, count, version)
    with lock:
        now = next(clock)
        for entry in own:
            entry[2] = now
        total["writes"] += 1


def check(direct, first, count):
    with lock:
        began = next(clock)
    data = direct.read(first, count)
    with lock:
        ended = next(clock)
        total["reads"] += 1
        found = [version_in(data[i * BLOCK:(i + 1) * BLOCK], first + i) for i in range(count)]
        for i, version in enumerate(found):
            if version is None or not may_be(first + i, version, began, ended):
                total["wrong"] += 1
                print(f"block {first + i}: version {version}, read from {began} to {ended}: {history[first + i]}",
                      file=sys.stderr)
    return found


def read(direct, rng):
    count = rng.choice([1, 4, RUN_MAX])
    check(direct, rng.randrange(BLOCKS - count + 1), count)


def life(step, direct, rng):
    for _ in range(STEPS):
        step(direct, rng)


def one_round(number, directs):
    steps = [write] * WRITERS + [read] * READERS
    threads = [threading.Thread(target=life, args=(step, direct, random.Random(f"{seed} {number} {n}")))
               for n, (step, direct) in enumerate(zip(steps, directs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first in range(0, BLOCKS, RUN_MAX):
        found = check(directs[0], first, RUN_MAX)
        for i, version in enumerate(found):
            history[first + i] = [[version, 0, 0]]


def main():
    directs = [Direct() for _ in range(WRITERS + READERS)]
    for first in range(0, BLOCKS, RUN_MAX):
        directs[0].write(first, RUN_MAX, 0)
    history.extend([[0, 0, 0]] for _ in range(BLOCKS))
    for number in range(rounds):
        one_round(number, directs)
    print(" ".join(f"{key}={value}" for key, value in total.items()))


main()
