#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A slow S3 server over a folder, for machines on which radosgw is too much (the test VM).

    s3_dir.py DIR PORT

Objects of the one bucket are files of DIR/objects, named as their keys with / as %2F. It knows what
the sync worker uses: PUT (If-None-Match: *), GET (ranges), HEAD, DELETE, list-type=2. It believes every
signature. An answer to a GET of a pack waits as many milliseconds as DIR/delay_ms says.
DIR/got has a line for each GET of a pack.
"""

import http.server
import os
import pathlib
import re
import sys
import time
import urllib.parse
import xml.sax.saxutils

root = pathlib.Path(sys.argv[1])
objects = root / "objects"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that was killed


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def key(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        return path.lstrip("/").partition("/")[2]

    def file(self):
        return objects / urllib.parse.quote(self.key(), safe="")

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.key():
            self.answer(200)
            return
        if self.headers.get("If-None-Match") == "*" and self.file().exists():
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        part = self.file().with_name(f"{self.file().name}~{id(self)}")
        part.write_bytes(body)
        part.rename(self.file())
        self.answer(200)

    def do_DELETE(self):
        self.file().unlink(missing_ok=True)
        self.answer(204)

    def do_HEAD(self):
        if not self.file().exists():
            self.missing()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.file().stat().st_size))
        self.end_headers()

    def listing(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        prefix = query.get("prefix", [""])[0]
        keys = (urllib.parse.unquote(name) for name in os.listdir(objects) if "~" not in name)
        entries = "".join(f"<Contents><Key>{xml.sax.saxutils.escape(key)}</Key></Contents>"
                          for key in sorted(keys) if key.startswith(prefix))
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self.answer(200, body.encode(), [("Content-Type", "application/xml")])

    def do_GET(self):
        if not self.key():
            self.listing()
            return
        if self.key().startswith("p/"):
            with open(root / "got", "a", encoding="ascii") as got:
                got.write(f"{self.key()} {self.headers.get('Range', '')}\n")
            time.sleep(int((root / "delay_ms").read_text()) / 1000)
        if not self.file().exists():
            self.missing()
            return
        data = self.file().read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not part:
            self.answer(200, data)
            return
        first, last = int(part[1]), min(int(part[2]), len(data) - 1)
        if first > last:
            self.answer(416)
            return
        self.answer(206, data[first:last + 1], [("Content-Range", f"bytes {first}-{last}/{len(data)}")])


objects.mkdir(parents=True, exist_ok=True)
Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
