#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients of the fast path test: what they get is checked byte by byte.

fastpath_client.py HOST PORT CASE...   prints TAP lines without numbers, exits 1
if one failed. Uses ordinary sockets and http.client; nothing here knows of BPF
but by the header X-By, which tells who answered.
"""
import http.client
import random
import re
import socket
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
NAME = "fp.test"


def body(path):
    n = len(path)
    size = 300 + (n * 37 + ord(path[-1]) * 11) % 800
    unit = path + "\n"
    return (unit * (size // len(unit) + 1))[:size].encode()


def connect():
    s = socket.create_connection((HOST, PORT), timeout=20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def request(path, extra="", method="GET"):
    return (f"{method} {path} HTTP/1.1\r\nHost: {NAME}:{PORT}\r\n"
            f"User-Agent: t\r\nAccept: */*\r\n{extra}\r\n").encode()


class Reader:
    def __init__(self, s):
        self.s, self.buf = s, b""

    def response(self, head_only=False):
        while b"\r\n\r\n" not in self.buf:
            d = self.s.recv(65536)
            assert d, "closed in head"
            self.buf += d
        head, _, rest = self.buf.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        size = int(re.search(rb"Content-Length: (\d+)", head)[1])
        by = re.search(rb"X-By: (\w+)", head)[1].decode()
        if head_only:
            self.buf = rest
            return by, b"", head, size
        while len(rest) < size:
            d = self.s.recv(65536)
            assert d, "closed in body"
            rest += d
        self.buf = rest[size:]
        return by, rest[:size], head, size


def get(s, r, path, extra="", want=None):
    s.sendall(request(path, extra))
    by, b, head, _ = r.response()
    assert b == body(path), f"wrong bytes for {path}"
    assert want is None or by == want, f"{path} by {by}, expected {want}"
    return by, head


def settle():
    """The worker declares a connection idle just after its answer left."""
    time.sleep(0.1)


def case_alternate():
    s = connect()
    r = Reader(s)
    for i in range(12):
        get(s, r, f"/hot/{i % 8}", want="bpf")
        get(s, r, f"/cold/{i}", want="kernel")
        settle()
        get(s, r, f"/hot/{(i + 3) % 8}", want="bpf")
        get(s, r, f"/hot/{(i + 5) % 8}", want="bpf")
        get(s, r, f"/pieces/{i % 2}", want="kernel")
        settle()
    s.close()


def case_head_age():
    s = connect()
    r = Reader(s)
    s.sendall(request("/hot/1", method="HEAD"))
    by, _, head, size = r.response(head_only=True)
    assert by == "bpf" and size == len(body("/hot/1"))
    assert re.search(rb"Age: 0*(7|8|9|\d\d+)$", head, re.M), head
    _, head = get(s, r, "/hot/1", want="bpf")
    first = int(re.search(rb"Age: (\d{6})", head)[1])
    time.sleep(2.1)
    _, head = get(s, r, "/hot/1", want="bpf")
    assert 2 <= int(re.search(rb"Age: (\d{6})", head)[1]) - first <= 3
    s.close()


def case_gate():
    for extra in ("Range: bytes=0-9\r\n", "range: bytes=0-9\r\n", "If-None-Match: \"x\"\r\n",
                  "Authorization: Basic eA==\r\n", "Cookie: a=b\r\n", "Cache-Control: no-cache\r\n",
                  "Pragma: no-cache\r\n", "Upgrade: h2c\r\n", "Expect: 100-continue\r\n",
                  "TE: trailers\r\n", "Content-Length: 0\r\n", "Connection: Upgrade\r\n",
                  "X-A: b\r\n folded\r\n", "X-A : b\r\n", "Host: other\r\n", "X-A: \x01\r\n",
                  "X-B: " + "y" * 1500 + "\r\n"):
        s = connect()
        get(s, Reader(s), "/hot/2", extra, want="kernel")
        s.close()
    for extra in ("Connection: keep-alive\r\n", "X-Requested-With: x\r\n", "Accept-Encoding: gzip\r\n",
                  "Upgrade-Insecure-Requests: 1\r\n", "Ranger: x\r\n", "X-C: " + "y" * 700 + "\r\n"):
        s = connect()
        get(s, Reader(s), "/hot/2", extra, want="bpf")
        s.close()
    for path in ("/hot/2?x=1", "/hot/22", "/hot/", "/hot/2/", "/" + "a" * 180):
        s = connect()
        get(s, Reader(s), path, want="kernel")
        s.close()


def case_pipeline():
    rnd = random.Random(7)
    for _ in range(60):
        s = connect()
        r = Reader(s)
        paths = [rnd.choice(["/hot/%d", "/hot/%d", "/cold/%d", "/pieces/%d"]) % rnd.randrange(8)
                 for _ in range(rnd.randrange(2, 7))]
        for p in paths:
            if rnd.random() < 0.5:
                s.sendall(request(p))
                if rnd.random() < 0.5:
                    time.sleep(rnd.random() * 0.01)
            else:
                q = request(p)
                cut = rnd.randrange(1, len(q))
                s.sendall(q[:cut])
                time.sleep(rnd.random() * 0.004)
                s.sendall(q[cut:])
        for p in paths:
            _, b, _, _ = r.response()
            assert b == body(p), f"order or bytes: {p} in {paths}"
        s.close()
    for _ in range(20):
        s = connect()
        r = Reader(s)
        paths = ["/hot/1", "/cold/2", "/hot/3", "/hot/4"]
        s.sendall(b"".join(request(p) for p in paths))
        for p in paths:
            assert r.response()[1] == body(p), "several in one segment"
        s.close()


def case_fin():
    for path in ("/hot/1", "/cold/1"):
        for _ in range(10):
            s = connect()
            r = Reader(s)
            get(s, r, "/hot/3", want="bpf")
            s.sendall(request(path))
            s.shutdown(socket.SHUT_WR)
            assert r.response()[1] == body(path)
            assert s.recv(10) == b""
            s.close()
    for _ in range(10):
        s = connect()
        r = Reader(s)
        get(s, r, "/hot/1", want="bpf")
        get(s, r, "/cold/1")
        settle()
        get(s, r, "/hot/2", want="bpf")
        s.sendall(request("/hot/2"))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        s = connect()
        r = Reader(s)
        get(s, r, "/hot/1", want="bpf")
        get(s, r, "/cold/9", "Connection: close\r\n", want="kernel")
        assert s.recv(10) == b""
        s.close()


def case_http_client():
    c = http.client.HTTPConnection(HOST, PORT, timeout=20)
    for i in range(300):
        p = f"/hot/{i % 8}" if i % 5 else f"/cold/{i}"
        c.request("GET", p, headers={"Host": NAME})
        r = c.getresponse()
        assert r.status == 200 and r.read() == body(p)
    c.close()


def case_churn(n=400):
    """A request that comes in one batch with the ACK that ends the handshake is seen too early."""
    by = {"bpf": 0, "kernel": 0}
    for i in range(n):
        s = connect()
        by[get(s, Reader(s), f"/hot/{i % 8}")[0]] += 1
        if i % 3 == 0:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
    print(f"# {by}")
    assert by["bpf"] > n * 0.95, by


def case_mixed(n=250, conns=4):
    """Mixed requests, whoever answers: used with packets being lost."""
    rnd = random.Random(11)
    ss = [(lambda s: (s, Reader(s)))(connect()) for _ in range(conns)]
    by = {"bpf": 0, "kernel": 0}
    for i in range(n):
        s, r = rnd.choice(ss)
        p = f"/hot/{rnd.randrange(8)}" if rnd.random() < .7 else f"/cold/{rnd.randrange(100)}"
        if rnd.random() < .1:
            q = f"/hot/{rnd.randrange(8)}"
            s.sendall(request(p))
            s.sendall(request(q))
            for x in (p, q):
                assert r.response()[1] == body(x), x
            continue
        by[get(s, r, p)[0]] += 1
    print(f"# {by}")
    assert by["bpf"] > n / 10, by


def case_stale():
    """Run with /hot/short past its second of freshness, the site's upstream up, then down."""
    s = connect()
    get(s, Reader(s), "/hot/short", want="kernel")
    s.close()


def case_stale_down():
    s = connect()
    get(s, Reader(s), "/hot/short", want="bpf")
    s.close()


failed = 0
for name in sys.argv[3:]:
    try:
        globals()["case_" + name]()
        print(f"ok {name}")
    except Exception as e:  # a test harness reports whatever goes wrong
        failed = 1
        print(f"not ok {name}: {type(e).__name__}: {e}")
    sys.stdout.flush()
sys.exit(failed)
