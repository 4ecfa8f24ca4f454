# SPDX-License-Identifier: MIT
"""The appliance in a virtual machine that boots from the host's own root.

A Machine is one QEMU process: the host's root by 9p, read only, under a tmpfs
(nothing to build, nothing changed outside), disks that outlive it in its state
directory, and an agent that runs commands over virtio ports. The kernel's
console goes to a file and decides nothing; "ready" arrives by a second serial
port and verdicts by the agent.
"""
import fcntl
import glob
import gzip
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(TREE, "build")))
PORT_COUNT = 8
BOOT_TIMEOUT_S = 180
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "9p", "9pnet_virtio", "overlay", "virtio_rng"]
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class VmError(Exception):
    """Something a person can mend: what, why, what to do next."""


def size_bytes(text):
    try:
        unit = UNITS.get(text[-1:].upper(), 1)
        return int(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        raise VmError(f"'{text}' is not a size: use a number with K, M or G, such as 256M") from None


def _kernels(root):
    modules = os.path.join(root, "lib", "modules")
    return [v for v in sorted(os.listdir(modules)) if os.path.exists(f"{root}/boot/vmlinuz-{v}")] \
        if os.path.isdir(modules) else []


def kernels_installed():
    """Kernels of this machine that can be booted: an image in /boot and modules beside it."""
    return _kernels("/")


def kernels_fetched():
    """Those that tools/kernel unpacked, each below a root of its own."""
    return [v for root in sorted(glob.glob(os.path.join(BUILD, "kernels", "*"))) for v in _kernels(root)]


def kernel_path(version, *parts):
    """A path of this kernel: below / when it is installed, else where it was unpacked."""
    root = "/" if version in kernels_installed() else os.path.join(BUILD, "kernels", version)
    return os.path.join(root, *parts)


def kernel_image(version):
    return kernel_path(version, "boot", f"vmlinuz-{version}")


def kernel_modules(version):
    return kernel_path(version, "lib", "modules", version)


def kernel_pick(wanted):
    """The first kernel that is wanted, or whose version begins so: 6.1 does not begin 6.12."""
    versions = kernels_installed() + kernels_fetched()
    matching = [v for v in versions if not wanted or re.match(re.escape(wanted) + r"(?![0-9])", v)]
    if not matching:
        raise VmError(f"no kernel {wanted or ''} here (there: {', '.join(versions) or 'none'}): run tools/setup "
                      f"or tools/kernel {wanted or ''}, or name one of these with --kernel")
    return matching[0]


def _run(argv, **options):
    return subprocess.run(argv, check=True, capture_output=True, text=True, **options).stdout


def _module_order(version):
    order = []
    for module in MODULES:
        listing = _run(["/sbin/modprobe", "-d", kernel_path(version), "-S", version, "--show-depends", module])
        for line in listing.splitlines():
            if line.startswith("insmod ") and line.split()[1] not in order:
                order.append(line.split()[1])
    return order


def _locked(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file = open(path + ".lock", "w", encoding="ascii")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def initramfs(version):
    """Path of the initramfs for a kernel; made once for each kernel and init script."""
    target = os.path.join(BUILD, "vm", f"initramfs-{version}.cpio.gz")
    script = os.path.join(HERE, "guest-initramfs-init")
    with _locked(target):
        newest = max(os.path.getmtime(p) for p in (script, __file__, kernel_image(version)))
        if os.path.exists(target) and os.path.getmtime(target) >= newest:
            return target
        root = target + ".root"
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root + "/bin")
        os.makedirs(root + "/modules")
        shutil.copy("/bin/busybox", root + "/bin/busybox")
        shutil.copy(script, root + "/init")
        os.symlink("busybox", root + "/bin/sh")
        names = []
        for path in _module_order(version):
            shutil.copy(path, root + "/modules")
            names.append(os.path.basename(path))
        with open(root + "/modules/order", "w", encoding="ascii") as file:
            file.write("\n".join(names) + "\n")
        archive = subprocess.run("find . | cpio -o -H newc --quiet", shell=True, cwd=root,
                                 check=True, stdout=subprocess.PIPE).stdout
        with gzip.open(target + ".tmp", "wb", compresslevel=1) as file:
            file.write(archive)
        os.rename(target + ".tmp", target)
        shutil.rmtree(root)
    return target


def module_index(version):
    """Directory with this tree's modules and indexes that know them, or None if none is built."""
    ko = os.path.join(BUILD, "kmod", version, "cohost.ko")
    if not os.path.exists(ko):
        return None
    target = os.path.join(BUILD, "vm", f"modules-{version}")
    with _locked(target):
        if os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(ko):
            return target
        shutil.rmtree(target, ignore_errors=True)
        root = os.path.join(target, "lib", "modules", version)
        os.makedirs(os.path.join(root, "extra"))
        source = kernel_modules(version)
        for name in os.listdir(source):
            if name == "kernel":
                os.symlink(os.path.join(source, name), os.path.join(root, name))
            elif name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                shutil.copy(os.path.join(source, name), root)
        shutil.copy(ko, os.path.join(root, "extra"))
        _run(["/sbin/depmod", "-b", target, version])
        for name in os.listdir(root):
            if name == "extra" or name.startswith("modules."):
                shutil.move(os.path.join(root, name), target)
        shutil.rmtree(os.path.join(target, "lib"))
        os.utime(target)
    return target


def _probe_boots(accel, version):
    """Whether this accelerator boots the kernel: the only test that counts."""
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", accel, "-cpu", "host", "-m", "512",
               "-nodefaults", "-display", "none", "-no-reboot", "-serial", "null",
               "-serial", "stdio", "-kernel", kernel_image(version),
               "-initrd", initramfs(version), "-append", "console=ttyS0 panic=-1 chvm.probe=1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
        return b"alive" in done.stdout
    except subprocess.TimeoutExpired:
        return False


def accelerator(version):
    """kvm if it boots a kernel here, else tcg. Asked once for each boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    cache = os.path.join(BUILD, "vm", "accelerator")
    with _locked(cache):
        try:
            with open(cache, encoding="ascii") as file:
                known_boot, name = file.read().split()
            if known_boot == boot:
                return name
        except (OSError, ValueError):
            pass
        name = "kvm" if os.path.exists("/dev/kvm") and _probe_boots("kvm", version) else "tcg"
        with open(cache, "w", encoding="ascii") as file:
            file.write(f"{boot} {name}\n")
    return name


class Disk:
    """One --disk: name=NAME,size=SIZE[,iops=N][,wiops=N][,bps=SIZE][,cache=volatile|writeback].

    twin=OTHER instead of a size: the image of disk OTHER, seen a second time with its own limits.
    """

    KEYS = ("name", "size", "iops", "wiops", "bps", "cache", "twin")
    THROTTLES = {"iops": "iops-total", "wiops": "iops-write", "bps": "bps-total"}

    def __init__(self, text):
        fields = {}
        for part in text.split(","):
            key, _, value = part.partition("=")
            if key not in self.KEYS or not value:
                raise VmError(f"--disk {text}: '{part}' is not one of {', '.join(k + '=' for k in self.KEYS)}")
            fields[key] = value
        if "name" not in fields or not fields["name"].isalnum() or len(fields["name"]) > 20:
            raise VmError(f"--disk {text}: name= is needed, up to 20 letters and digits")
        self.name = fields["name"]
        self.size = size_bytes(fields.get("size", "256M"))
        self.limits = {name: size_bytes(fields[key]) for key, name in self.THROTTLES.items() if key in fields}
        self.image = fields.get("twin", self.name) + ".img"
        self.cache = fields.get("cache", "writeback")
        if self.cache not in ("volatile", "writeback"):
            raise VmError(f"--disk {text}: cache= is 'volatile' (loses unflushed writes in a cut) or 'writeback'")

    def throttle(self):
        return "".join(f",throttling.{name}={limit}" for name, limit in self.limits.items())


class Machine:
    def __init__(self, name, kernel=None, disks=(), net="none", memory_mib=1536, cpus=2,
                 namespace=None, address=None, gateway=None):
        self.name = name
        self.state = os.path.join(BUILD, "vm", "machines", name)
        # Unix socket paths are at most 107 bytes, whatever the tree's depth.
        self.sockets = f"/run/cohost-vm/{name}.{os.getpid()}"
        self.kernel = kernel_pick(kernel)
        self.disks = list(disks)
        self.net = net
        self.namespace = namespace
        self.address = address
        self.gateway = gateway
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.process = None
        self.servers = []
        self.ports = []
        self.cut_seed = 1

    # -- starting

    def _net_arguments(self):
        if self.net == "none":
            return ["-nic", "none"]
        if self.net == "user":
            return ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"]
        # Offloads that XDP on virtio_net cannot have, off; queues for XDP_TX.
        return ["-netdev", f"tap,id=n0,ifname={self.net},script=no,downscript=no,queues=4",
                "-device", "virtio-net-pci,netdev=n0,mq=on,vectors=10,mrg_rxbuf=on,guest_tso4=off,"
                           "guest_tso6=off,guest_ecn=off,guest_ufo=off"]

    def _disk_arguments(self):
        arguments = []
        for number, disk in enumerate(self.disks):
            image = os.path.join(self.state, disk.image)
            if not os.path.exists(image):
                with open(image, "wb") as file:
                    file.truncate(disk.size)
            if disk.cache == "volatile":
                drive = f"driver=nbd,server.type=unix,server.path={self._serve_volatile(disk, image)},cache.direct=on"
            else:
                # Through the host's page cache, so that twins see the same.
                locking = "off" if sum(disk.image == other.image for other in self.disks) > 1 else "auto"
                drive = f"driver=raw,file.filename={image},file.locking={locking},cache.direct=off"
            arguments += ["-drive", f"if=none,id=d{number},{drive}{disk.throttle()}",
                          "-device", f"virtio-blk-pci,drive=d{number},serial={disk.name}"]
        return arguments

    def _serve_volatile(self, disk, image):
        program = volatile_disk()
        path = os.path.join(self.sockets, f"disk-{disk.name}")
        log = open(os.path.join(self.state, disk.name + ".log"), "ab")
        self.servers.append(subprocess.Popen([program, path, image, str(self.cut_seed)],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True))
        _wait_for(lambda: os.path.exists(path), 10, "the disk server did not start")
        return path

    def _port_arguments(self):
        arguments = ["-device", "virtio-serial-pci"]
        for port in range(PORT_COUNT):
            arguments += ["-chardev", f"socket,id=a{port},path={self.sockets}/agent{port},server=on,wait=off",
                          "-device", f"virtserialport,chardev=a{port},name=cohost.{port}"]
        return arguments

    def _append(self, extra):
        words = {"init": os.path.join(HERE, "guest-init"), "name": self.name, "tree": TREE,
                 "kernel": kernel_modules(self.kernel), "modules": module_index(self.kernel), "address": self.address, "gateway": self.gateway}
        words.update(extra)
        line = "console=ttyS0 panic=-1 oops=panic quiet mitigations=off "
        return line + " ".join(f"chvm.{k}={v}" for k, v in words.items() if v)

    def command(self, console, extra):
        accel = accelerator(self.kernel)
        command = ["qemu-system-x86_64", "-name", self.name, "-M", "q35",
                   "-accel", "kvm" if accel == "kvm" else "tcg,thread=multi",
                   "-cpu", "host" if accel == "kvm" else "max", "-smp", str(self.cpus),
                   "-m", str(self.memory_mib), "-nodefaults", "-display", "none", "-no-reboot",
                   "-serial", console, "-serial", f"file:{self.state}/verdict",
                   "-device", "virtio-rng-pci",
                   "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                   "-device", "virtio-9p-pci,fsdev=root,mount_tag=host",
                   "-kernel", kernel_image(self.kernel), "-initrd", initramfs(self.kernel),
                   "-append", self._append(extra)]
        command += self._net_arguments() + self._disk_arguments() + self._port_arguments()
        if self.namespace:
            command = ["ip", "netns", "exec", self.namespace] + command
        return command

    def start(self, cut_seed=1):
        os.makedirs(self.state, exist_ok=True)
        os.makedirs(self.sockets, exist_ok=True)
        self.cut_seed = cut_seed
        verdict = os.path.join(self.state, "verdict")
        with open(verdict, "wb"):
            pass
        console = os.path.join(self.state, "console.log")
        log = open(os.path.join(self.state, "qemu.log"), "ab")
        self.process = subprocess.Popen(self.command(f"file:{console}", {}), stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, start_new_session=True)

        def ready():
            if self.process.poll() is not None:
                raise VmError(f"the VM stopped while booting: see {console} and {log.name}")
            with open(verdict, "rb") as file:
                return b"ready" in file.read()
        try:
            _wait_for(ready, BOOT_TIMEOUT_S, f"the VM did not boot in {BOOT_TIMEOUT_S} s: see {console}")
        except BaseException:
            self.destroy()
            raise

    # -- using

    def run(self, argv, cwd=TREE, env=None, on_output=None, timeout=None):
        """Run a command; (status, stdout, stderr), or the outputs go to on_output(kind, bytes)."""
        port = self.ports.pop() if self.ports else self._claim_port()
        outputs = {b"o": b"", b"e": b""}
        identifier = int.from_bytes(os.urandom(4), "little")
        try:
            body = json.dumps({"id": identifier, "argv": argv, "cwd": cwd, "env": env or {}}).encode()
            port.settimeout(timeout)
            port.sendall(struct.pack("<I", len(body)) + body)
            while True:
                kind, frame_id, payload = _read_frame(port)
                if frame_id != identifier:
                    continue
                if kind == b"x":
                    self.ports.append(port)
                    return struct.unpack("<i", payload)[0], outputs[b"o"], outputs[b"e"]
                if on_output:
                    on_output(kind, payload)
                else:
                    outputs[kind] += payload
        except socket.timeout:
            port.close()
            raise VmError(f"{argv[0]}: not done after {timeout} s") from None
        except ConnectionError:
            port.close()
            raise VmError(f"the VM went away while it ran {argv[0]}: see {self.state}/console.log") from None
        except BaseException:
            port.close()
            raise

    def _claim_port(self):
        for port in range(PORT_COUNT):
            lock = open(os.path.join(self.sockets, f"agent{port}.lock"), "w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            connection = _Port(lock)
            connection.connect(os.path.join(self.sockets, f"agent{port}"))
            return connection
        raise VmError(f"all {PORT_COUNT} command ports of the VM are in use")

    # -- ending

    def stop(self, timeout=60):
        """An orderly power-off: everything written is kept."""
        if not self.process:
            return
        if self.process.poll() is None:
            try:
                self.run(["/bin/sh", "-c", "sync; (sleep 0.2; echo o >/proc/sysrq-trigger) & "], cwd="/", timeout=30)
                self.process.wait(timeout)
            except (VmError, subprocess.TimeoutExpired, OSError):
                pass
        self.destroy()

    def cut(self):
        """Pull the plug: volatile disks lose a seeded share of what was not flushed."""
        # `ip netns exec` becomes the program it runs: the pid is QEMU's own.
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for server in self.servers:
            server.wait(30)
        self.destroy()

    def destroy(self):
        while self.ports:
            self.ports.pop().close()
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for server in self.servers:
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        self.servers = []
        self.process = None
        shutil.rmtree(self.sockets, ignore_errors=True)

    def console_tail(self, lines=40):
        """What the kernel said last, for when it died."""
        try:
            with open(os.path.join(self.state, "console.log"), encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except OSError:
            return ""

    def forget(self):
        """The disks too."""
        shutil.rmtree(self.state, ignore_errors=True)


class _Port(socket.socket):
    """A command port that stays claimed as long as it is open."""

    def __init__(self, lock):
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock = lock

    def close(self):
        super().close()
        self._lock.close()


def _read_exactly(port, size):
    data = b""
    while len(data) < size:
        part = port.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _read_frame(port):
    kind, identifier, length = struct.unpack("<cII", _read_exactly(port, 9))
    return kind, identifier, _read_exactly(port, length)


def _wait_for(condition, timeout_s, failure):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise VmError(failure)
        select.select([], [], [], 0.05)


def volatile_disk():
    """The disk server, built where it is not yet."""
    program = os.path.join(BUILD, "vm", "volatile-disk")
    source = os.path.join(HERE, "volatile-disk.c")
    with _locked(program):
        if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
            _run(["cc", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-o", program, source])
    return program


def print_output(kind, payload):
    stream = sys.stdout if kind == b"o" else sys.stderr
    stream.buffer.write(payload)
    stream.buffer.flush()
