#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fills a volume by /dev/cohost/NAME from a file, as a daemon does.

    source.py NAME FILE serve            only what is waited for, until nothing is absent
    source.py NAME FILE fill             that, and the rest in order; zeros by their ioctl, fsync now and then
    source.py NAME FILE push OFFSET      one granule
    source.py NAME FILE zero OFFSET LENGTH
    source.py NAME FILE refuse           refuses all that is waited for, until killed
    source.py NAME FILE info             prints granule_bytes and absent_bytes

Prints a line for each granule: "demand OFFSET" or "fill OFFSET".
"""
import errno
import fcntl
import os
import struct
import sys

SYNC_EACH = 16
WANT = struct.Struct("=QQQII")
INFO = struct.Struct("=QQII")
RANGE = struct.Struct("=QQiI")
IOC_INFO = 2 << 30 | INFO.size << 16 | ord("C") << 8 | 0x40
IOC_REFUSE = 1 << 30 | RANGE.size << 16 | ord("C") << 8 | 0x41
IOC_ZERO = 1 << 30 | RANGE.size << 16 | ord("C") << 8 | 0x42


def info(fd):
    return INFO.unpack(fcntl.ioctl(fd, IOC_INFO, bytes(INFO.size)))


def push(fd, data, offset, length, why):
    written = os.pwrite(fd, os.pread(data, length, offset), offset)
    assert written == length, (written, length)
    print(why, offset, flush=True)


def wants(fd, flags=0):
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    try:
        got = os.read(fd, 64 * WANT.size)
    except BlockingIOError:
        return None
    return [WANT.unpack_from(got, at) for at in range(0, len(got), WANT.size)]


def serve(fd, data):
    while True:
        got = wants(fd)
        if not got:
            return
        for offset, length, _, _, _ in got:
            push(fd, data, offset, length, "demand")


def fill_one(fd, data, offset, length):
    if any(os.pread(data, length, offset)):
        push(fd, data, offset, length, "fill")
        return
    fcntl.ioctl(fd, IOC_ZERO, RANGE.pack(offset, length, 0, 0))
    print("fill", offset, flush=True)


def fill(fd, data):
    size, _, granule, _ = info(fd)
    at = count = 0
    while True:
        for offset, length, _, _, _ in wants(fd, os.O_NONBLOCK) or []:
            push(fd, data, offset, length, "demand")
        try:
            at = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        fill_one(fd, data, at, min(granule, size - at))
        count += 1
        if count % SYNC_EACH == 0:
            os.fsync(fd)


def main():
    name, path, what = sys.argv[1:4]
    fd = os.open(f"/dev/cohost/{name}", os.O_RDWR)
    data = os.open(path, os.O_RDONLY)
    size, absent, granule, _ = info(fd)
    if what == "serve":
        serve(fd, data)
    elif what == "fill":
        fill(fd, data)
    elif what == "push":
        offset = int(sys.argv[4])
        push(fd, data, offset, min(granule, size - offset), "push")
    elif what == "zero":
        fcntl.ioctl(fd, IOC_ZERO, RANGE.pack(int(sys.argv[4]), int(sys.argv[5]), 0, 0))
    elif what == "refuse":
        print("ready", flush=True)
        while got := wants(fd):
            for offset, length, _, _, _ in got:
                fcntl.ioctl(fd, IOC_REFUSE, RANGE.pack(offset, length, -errno.EILSEQ, 0))
    else:
        print(f"granule_bytes={granule} absent_bytes={absent}")


main()
