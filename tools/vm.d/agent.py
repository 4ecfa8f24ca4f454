#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs commands inside the VM for tools/vm.

Each virtio port named cohost.N serves one command at a time. The host sends a
frame (u32 length, JSON {id, argv, cwd, env}); the answer is a row of frames (u8
kind, u32 id, u32 length, payload): o and e for the outputs, x for the exit status.
When the host closes its end, the command and its children are killed. The id
tells the host's next client that a frame is not its own. A port is never closed
here: that would throw away a request which has already arrived.
"""
import glob
import json
import os
import select
import signal
import struct
import subprocess
import threading
import time

OUTPUT_BYTES_MAX = 65536
# How long a port must look hung up before its host counts as gone: the word that
# the last client has left can arrive after the next one's request.
GONE_S = 2


def read_exactly(fd, size):
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            return None
        data += part
    return data


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def send(fd, kind, identifier, payload):
    write_all(fd, kind + struct.pack("<II", identifier, len(payload)) + payload)


def pump(port, identifier, process):
    """Forward both outputs until they end; False if the host went away."""
    poll = select.poll()
    kinds = {process.stdout.fileno(): b"o", process.stderr.fileno(): b"e"}
    for fd in kinds:
        poll.register(fd, select.POLLIN)
    exited = False
    seen = time.monotonic()
    while kinds:
        events = poll.poll(200)
        for fd, _ in events:
            data = os.read(fd, OUTPUT_BYTES_MAX)
            if data:
                send(port, kinds[fd], identifier, data)
            else:
                poll.unregister(fd)
                del kinds[fd]
        if host_is_there(port):
            seen = time.monotonic()
        elif time.monotonic() - seen > GONE_S:
            return False
        # A daemon left in the background may keep the pipes open: the
        # command is over when it has exited and nothing more is waiting.
        if not events and exited:
            return True
        exited = process.poll() is not None
    return True


def host_is_there(port):
    poll = select.poll()
    poll.register(port, 0)
    return not poll.poll(0)


def serve_one(port):
    head = read_exactly(port, 4)
    if head is None:
        return False
    body = read_exactly(port, struct.unpack("<I", head)[0])
    if body is None:
        return False
    request = json.loads(body)
    identifier = request["id"]
    try:
        process = subprocess.Popen(
            request["argv"], cwd=request["cwd"], env={**os.environ, **request.get("env", {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
    except OSError as error:
        send(port, b"e", identifier, f"{request['argv'][0]}: {error.strerror}\n".encode())
        send(port, b"x", identifier, struct.pack("<i", 127))
        return True
    if not pump(port, identifier, process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    status = process.wait()
    send(port, b"x", identifier, struct.pack("<i", status if status >= 0 else 128 - status))
    return True


def serve(port, idle):
    """Run what arrives on a port until the host closes its end; then it is idle again."""
    try:
        while serve_one(port):
            pass
    finally:
        idle.add(port)


def dispatch(paths):
    """Hand each port that has something to say to a thread of its own.

    A port whose host end is closed always polls as hung up, so this looks ten
    times a second: a thread for each port that did so would load the machine.
    """
    idle = {os.open(path, os.O_RDWR) for path in paths}
    pause = threading.Event()
    while True:
        poll = select.poll()
        for port in list(idle):
            poll.register(port, select.POLLIN)
        for port, event in poll.poll(1000):
            if event & select.POLLIN:
                idle.remove(port)
                threading.Thread(target=serve, args=(port, idle), daemon=True).start()
        pause.wait(0.1)


def main():
    paths = []
    for name_file in glob.glob("/sys/class/virtio-ports/*/name"):
        with open(name_file, encoding="ascii") as file:
            if file.read().startswith("cohost."):
                paths.append("/dev/" + name_file.split("/")[-2])
    with open("/dev/ttyS1", "w", encoding="ascii") as verdict:
        print("ready", file=verdict, flush=True)
    dispatch(paths)


main()
