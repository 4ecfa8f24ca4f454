#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Damages the fast device of a running volume, and reads all that was written to it.

    flips.py DEVICE IMAGE VOLUME COUNT SEED

IMAGE is the file below the fast device. COUNT blocks of it, a hundred at a time and most of them such as
hold what is to be read, get another bit, what they held some time ago, or what another block holds. Each block of the volume says which one it is and its
version, so that a read is right, an error, or wrong. Between two times everything is overwritten.
Prints "injected=N read=N errors=N wrong=N unchanged=N".
"""
import errno
import mmap
import os
import random
import struct
import subprocess
import sys

BLOCK, RUN, BATCH = 4096, 16, 100
BLOCKS = 1024  # of the volume that are used
HEADERS = 2  # blocks of the image that a running volume does not read
HEAD = struct.Struct("<QQ")

device, image, volume = sys.argv[1:4]
count, rng = int(sys.argv[4]), random.Random(int(sys.argv[5]))
versions = [0] * BLOCKS
total = dict.fromkeys(("injected", "read", "errors", "wrong", "unchanged"), 0)
disk = os.open(device, os.O_RDWR | os.O_DIRECT)
below = os.open(image, os.O_RDWR)
below_blocks = os.fstat(below).st_size // BLOCK
memory = memoryview(mmap.mmap(-1, RUN * BLOCK))


def block_of(number):
    return HEAD.pack(number, versions[number]) * (BLOCK // HEAD.size)


def write(runs):
    for first in runs:
        for i in range(RUN):
            versions[first + i] += 1
            memory[i * BLOCK:(i + 1) * BLOCK] = block_of(first + i)
        assert os.pwritev(disk, [memory], first * BLOCK) == RUN * BLOCK
    os.fsync(disk)


def read(number):
    """None: an error."""
    try:
        assert os.preadv(disk, [memory[:BLOCK]], number * BLOCK) == BLOCK
    except OSError as error:
        assert error.errno in (errno.EIO, errno.EILSEQ), error
        return None
    return bytes(memory[:BLOCK])


def in_use():
    """Blocks of the image that hold the newest of a block of the volume."""
    found = []
    for at in range(HEADERS, below_blocks):
        number, version = HEAD.unpack(os.pread(below, HEAD.size, at * BLOCK))
        if number < BLOCKS and version == versions[number]:
            found.append(at)
    return found


def inject(old, used):
    at = rng.choice(used) if used and rng.random() < 0.7 else rng.randrange(HEADERS, below_blocks)
    is_now = os.pread(below, BLOCK, at * BLOCK)
    how = rng.choice(["flip", "stale", "elsewhere"])
    if how == "flip":
        bit = rng.randrange(8 * BLOCK)
        new = bytearray(is_now)
        new[bit // 8] ^= 1 << bit % 8
    elif how == "stale":
        new = old[at * BLOCK:(at + 1) * BLOCK]
    else:
        new = os.pread(below, BLOCK, rng.randrange(HEADERS, below_blocks) * BLOCK)
    os.pwrite(below, new, at * BLOCK)
    total["injected"] += 1
    total["unchanged"] += bytes(new) == is_now


def read_all():
    for number in rng.sample(range(BLOCKS), BLOCKS):
        data = read(number)
        total["read"] += 1
        total["errors"] += data is None
        if data is not None and data != block_of(number):
            total["wrong"] += 1
            print(f"block {number} version {versions[number]}: {data[:16].hex()}", file=sys.stderr)


def main():
    runs = list(range(0, BLOCKS, RUN))
    while total["injected"] < count:
        old = os.pread(below, below_blocks * BLOCK, 0)
        rng.shuffle(runs)
        write(runs)
        if rng.random() < 0.5:
            # Then what is read twice goes to the read tier.
            subprocess.run(["cohostctl", "volume", "flush", volume], check=True, capture_output=True, timeout=120)
            for _ in range(2):
                for number in range(BLOCKS):
                    assert read(number) == block_of(number)
            write(runs[:len(runs) // 4])
        used = in_use()
        for _ in range(BATCH):
            inject(old, used)
        read_all()
    print(" ".join(f"{key}={value}" for key, value in total.items()))


main()
