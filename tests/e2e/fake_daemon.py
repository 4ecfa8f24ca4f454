#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A daemon for tests of cohostctl's client: answers on a unix socket in the way that
the file 'way' beside the socket names (none: rightly). One connection at a time."""
import json
import os
import socket
import sys
import time

JOBS = {"jobs": [{"id": 7, "kind": "checkpoint", "volume": "media", "remote": "rgw",
                  "state": "running", "phase": "upload", "done_bytes": 1 << 20,
                  "total_bytes": 4 << 20, "age_s": 3}]}
REFUSAL = {"error": {"code": "conflict", "message": "the volume is in use",
                     "hint": "stop what uses it", "exit": 5}}


def head(length, status="200 OK", extra=""):
    return (f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {length}\r\nConnection: close\r\n\r\n").encode()


def plain(doc, status="200 OK"):
    body = json.dumps(doc).encode() + b"\n"
    return [head(len(body), status) + body]


def chunked(doc):
    body = json.dumps(doc).encode() + b"\n"
    out = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" \
          b"Transfer-Encoding: chunked\r\n\r\n"
    for i in range(0, len(body), 7):
        part = body[i:i + 7]
        out += b"%x\r\n%s\r\n" % (len(part), part)
    return [out + b"0\r\n\r\n"]


def work(end):
    """A job: progress, then the end (None: it never ends)."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
    for done in (0, 1 << 20, 2 << 20):
        yield json.dumps({"progress": {"done_bytes": done, "total_bytes": 4 << 20,
                                       "phase": "upload"}}).encode() + b"\n"
        time.sleep(0.6)
    while end is None:
        time.sleep(0.1)
        yield b'{"progress":{"done_bytes":2097152,"total_bytes":4194304,"phase":"upload"}}\n'
    yield json.dumps(end).encode() + b"\n"


def answer(way):
    good = plain(JOBS)[0]
    return {
        "refuse": lambda: plain(REFUSAL, "409 Conflict"),
        "garbage": lambda: [b"hello\nworld\n\n"],
        "two-lengths": lambda: [head(5, extra="Content-Length: 6\r\n") + b"{\"a\":1}"],
        "cut": lambda: [good[:-20]],
        "not-json": lambda: [head(9) + b"{\"jobs\": "],
        "empty": lambda: [],
        "oops": lambda: plain({}, "500 Internal Server Error"),
        "chunked": lambda: chunked(JOBS),
        "work": lambda: work({"result": {"checkpoint": "c1", "uploaded_bytes": 4 << 20}}),
        "work-fails": lambda: work(REFUSAL),
        "work-for-ever": lambda: work(None),
        "slow": lambda: [good[i:i + 40] for i in range(0, len(good), 40)],
    }.get(way, lambda: [good])()


def request(conn):
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(4096)
        if not more:
            return
        data += more
    start, _, body = data.partition(b"\r\n\r\n")
    length = [int(line.split(b":")[1]) for line in start.split(b"\r\n")
              if line.lower().startswith(b"content-length:")]
    while length and len(body) < length[0]:
        more = conn.recv(4096)
        if not more:
            return
        body += more


def main():
    path = sys.argv[1]
    way_file = os.path.join(os.path.dirname(path), "way")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(16)
    os.chmod(path, 0o666)
    while True:
        conn, _ = server.accept()
        with conn:
            request(conn)
            way = ""
            if os.path.exists(way_file):
                with open(way_file, encoding="ascii") as f:
                    way = f.read().strip()
            try:
                for piece in answer(way):
                    conn.sendall(piece)
                    if way == "slow":
                        time.sleep(0.02)
            except (BrokenPipeError, ConnectionResetError):
                pass


main()
