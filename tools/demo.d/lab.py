# SPDX-License-Identifier: MIT
"""The world around the appliance, in a network namespace of its own.

The lab side (10.77.0.1) holds what a team has elsewhere: an S3 cloud, an
origin web server, an encoder and the viewers. The appliance is 10.77.0.2.
Nothing touches the machine's own network, and the namespace takes all of it
away again.
"""
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vm.d"))
import vm  # noqa: E402  (found beside this folder)

TREE = vm.TREE
BUILD = vm.BUILD
LAB_ADDRESS = "10.77.0.1"
APPLIANCE_ADDRESS = "10.77.0.2"


class DemoError(Exception):
    """A step did not do what it should: what, and where to look."""


def wait_for(condition, timeout_s, failure):
    """Poll until condition() is true; its last value is returned."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise DemoError(failure() if callable(failure) else failure)
        time.sleep(0.1)


class Lab:
    def __init__(self, work):
        self.work = work
        self.namespace = f"cohost-demo-{os.getpid()}"
        self.processes = []
        self.s3 = {}

    def ip(self, *words):
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def create(self):
        self.ip("netns", "add", self.namespace)
        self.ip("-n", self.namespace, "link", "set", "lo", "up")

    def create_tap(self, name):
        self.ip("-n", self.namespace, "tuntap", "add", "dev", name, "mode", "tap", "multi_queue")
        self.ip("-n", self.namespace, "address", "add", f"{LAB_ADDRESS}/24", "dev", name)
        self.ip("-n", self.namespace, "link", "set", name, "up")

    def within(self, argv):
        # Not `ip netns exec`: its mount namespace of its own would keep the volume mounted.
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *argv]

    def run(self, argv, timeout=120, check=True, env=None):
        done = subprocess.run(self.within(argv), capture_output=True, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        if check and done.returncode:
            raise DemoError(f"{shlex.join(argv)}: exit {done.returncode}: "
                            f"{(done.stderr or done.stdout).decode(errors='replace').strip()[-600:]}")
        return done

    def spawn(self, argv, log):
        with open(os.path.join(self.work, log), "ab") as file:
            process = subprocess.Popen(self.within(argv), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                       start_new_session=True)
        self.processes.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start_s3(self):
        done = self.run([os.path.join(TREE, "tools/lab/s3"), "start", "--dir", self.work + "/s3",
                         "--address", LAB_ADDRESS])
        for line in done.stdout.decode().splitlines():
            key, _, value = line.partition("=")
            self.s3[key] = value.strip("'\"")

    def stop_s3(self):
        if self.s3:
            self.run([os.path.join(TREE, "tools/lab/s3"), "stop", "--dir", self.work + "/s3"], check=False)

    def bucket_bytes(self, bucket):
        """Every object of a bucket, fetched as anyone with the keys could."""
        host = urllib.parse.urlparse(self.s3["endpoint"]).netloc
        listing = self._s3_get(f"http://{host}/{bucket}?list-type=2").decode()
        names = [part.split("</Key>")[0] for part in listing.split("<Key>")[1:]]
        return {name: self._s3_get(f"http://{host}/{bucket}/{urllib.parse.quote(name)}") for name in names}

    def _s3_get(self, url):
        return self.run(["curl", "-sf", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user",
                         f"{self.s3['access']}:{self.s3['secret']}",
                         "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", url]).stdout

    def destroy(self):
        for process in self.processes:
            self.stop(process)
        self.stop_s3()
        listing = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        for pid in listing.stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)
