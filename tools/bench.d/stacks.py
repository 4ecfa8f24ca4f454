# SPDX-License-Identifier: MIT
"""The block stacks that tools/bench compares, as they are run inside the VM.

Each puts a fast device in front of a slow one and is used the same way: create()
makes it anew and starts it, start() takes it up again from what is on the disks,
stop() takes it down in order and keeps dirty data, drain() brings all of it to the
slow device and returns when it is there. Settings are the defaults, but for what
would blur a measurement: said where it is set.
"""
import glob
import json
import os
import re
import subprocess
import time

MIB = 1 << 20
SECTOR = 512
DRAIN_TIMEOUT_S = 180


class StackError(Exception):
    """This stack cannot do what it is asked for: why."""


def run(*argv, text=None):
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise StackError(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise StackError(f"{' '.join(argv[:4])}: {said[-1]}")
    return done.stdout


def read_file(path):
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def write_file(path, text):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(text))
    except OSError as error:
        raise StackError(f"{path}: {error.strerror}") from None


def wait_for(condition, what, timeout_s=30, pause_s=0.02):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not after {timeout_s} s")
        time.sleep(pause_s)


def wipe(device, mib=1):
    """Whatever was on the device is not found again."""
    with open(device, "r+b") as file:
        file.write(bytes(mib * MIB))
        file.flush()
        os.fsync(file.fileno())


def is_free(device):
    """Nobody has claimed the block device."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        return True
    except OSError:
        return False


def sectors(device):
    return int(read_file(f"/sys/class/block/{os.path.basename(os.path.realpath(device))}/size"))


class Stack:
    modules = ()
    is_cache = True
    # The share of the fast device that can hold dirty blocks, to be filled for the full start.
    fill_share = 0.93

    def __init__(self, fast, slow):
        self.fast, self.slow = fast, slow

    def load(self):
        for module in self.modules:
            run("modprobe", module)

    def fill_blocks(self):
        return int(sectors(self.fast) * SECTOR * self.fill_share) // 4096

    def hold(self):
        """Write nothing back before it is asked for."""

    def memory_bytes(self):
        """What it holds outside of slab and vmalloc, or says by itself."""
        return 0


class Raw(Stack):
    """The fast device alone: what there is to reach."""
    is_cache = False

    @property
    def device(self):
        return self.fast

    def create(self):
        pass

    def stop(self):
        pass


LINE_BYTES = 32 << 10
SMALL_BYTES = 200 << 20


class Cohost(Stack):
    device = "/dev/mapper/cohost-bench"

    def __init__(self, fast, slow):
        super().__init__(fast, slow)
        self.module = os.path.join(os.environ["BUILD"], "kmod", os.uname().release, "cohost.ko")

    def load(self):
        for needed in run("modinfo", "-F", "depends", self.module).strip().split(","):
            run("modprobe", needed)
        if not os.path.exists("/sys/module/cohost"):
            run("insmod", self.module)

    def create(self, *log):
        run("cohostctl", "-y", "volume", "create", "bench", "fast", self.fast, "slow", self.slow, *log)

    def bytes_per_line(self):
        """What a line of the read tier costs in RAM: of two volumes with the same log, one has more."""
        whole, small = self.fast, "bench-small"
        run("dmsetup", "create", small, "--table", f"0 {SMALL_BYTES // SECTOR} linear {whole} 0")
        try:
            self.fast = "/dev/mapper/" + small
            few = self._with_lines()
        finally:
            self.fast = whole
            run("dmsetup", "remove", "--retry", small)
        many = self._with_lines()
        lines = (many["line_bytes_total"] - few["line_bytes_total"]) / LINE_BYTES
        return (many["memory_bytes"] - few["memory_bytes"]) / lines

    def _with_lines(self):
        self.create("log", "64M")
        volume = self._volume()
        self.stop()
        return volume

    def start(self):
        run("cohostctl", "volume", "start", "bench", "fast", self.fast, "slow", self.slow)

    def stop(self):
        run("cohostctl", "volume", "stop", "bench")

    def drain(self):
        run("cohostctl", "volume", "flush", "bench")

    def show(self):
        return json.loads(run("cohostctl", "-j", "volume", "show", "bench"))

    def dirty_blocks(self):
        return self._volume()["dirty_bytes"] // 4096

    def declared_bytes(self):
        return self._volume()["memory_bytes"]

    def _volume(self):
        shown = self.show()
        return shown.get("volume") or shown["volumes"][0]


class DmStack(Stack):
    """A device-mapper target of the kernel's own."""
    name = device = None

    def table(self):
        raise NotImplementedError

    def start(self):
        run("dmsetup", "create", self.name, "--table", self.table())

    def stop(self):
        run("dmsetup", "remove", "--retry", self.name)

    def status(self):
        return run("dmsetup", "status", self.name).split()

    def message(self, *words):
        run("dmsetup", "message", self.name, "0", *words)


class Writecache(DmStack):
    name, device, modules = "bench-writecache", "/dev/mapper/bench-writecache", ("dm-writecache",)
    fill_share = 0.98

    def __init__(self, fast, slow):
        super().__init__(fast, slow)
        self.marks = ""

    def table(self):
        return f"0 {sectors(self.slow)} writecache s {self.slow} {self.fast} 4096 {self.marks or '0'}"

    def create(self):
        wipe(self.fast)
        self.start()

    def hold(self):
        # By default it begins to write back when half full.
        self.marks = "4 high_watermark 100 low_watermark 100"

    def drain(self):
        self.message("flush")
        wait_for(lambda: self.dirty_blocks() == 0, "writecache: written back", DRAIN_TIMEOUT_S)

    def dirty_blocks(self):
        # start length writecache ERROR BLOCKS FREE WRITEBACK ...
        status = self.status()
        return int(status[4]) - int(status[5])


class Writeboost(DmStack):
    name, device, modules = "bench-writeboost", "/dev/mapper/bench-writeboost", ()

    def load(self):
        module = os.path.join(os.environ["BENCH"], "writeboost", os.uname().release, "dm-writeboost.ko")
        if not os.path.exists(module):
            raise StackError(f"dm-writeboost does not build for kernel {os.uname().release}")
        for needed in run("modinfo", "-F", "depends", module).strip().split(","):
            if needed:
                run("modprobe", needed)
        if not os.path.exists("/sys/module/dm_writeboost"):
            run("insmod", module)

    def table(self):
        return f"0 {sectors(self.slow)} writeboost {self.slow} {self.fast}"

    def create(self):
        wipe(self.fast)
        self.start()

    def drain(self):
        self.message("drop_caches")

    def dirty_blocks(self):
        # start length writeboost CURSOR CACHES SEGMENTS ID FLUSHED WRITTEN-BACK DIRTY ...
        return int(self.status()[9])


class Dmcache(DmStack):
    """dm-cache at its best: its map is made so that it begins with all it can hold.

    Left alone, it would send the first writes of every block to the slow device.
    """
    name, device = "bench-cache", "/dev/mapper/bench-cache"
    modules = ("dm-cache", "dm-cache-smq")
    META_SECTORS = 16 * MIB // SECTOR
    BLOCK_SECTORS = 128
    meta, data = "/dev/mapper/bench-meta", "/dev/mapper/bench-data"

    def __init__(self, fast, slow):
        super().__init__(fast, slow)
        self.dirty_from_start = False

    def blocks(self):
        return (sectors(self.fast) - self.META_SECTORS) // self.BLOCK_SECTORS

    def fill_blocks(self):
        return 0

    def hold(self):
        self.dirty_from_start = True

    def table(self, policy="smq"):
        return (f"0 {sectors(self.slow)} cache {self.meta} {self.data} {self.slow} {self.BLOCK_SECTORS} "
                f"2 metadata2 writeback {policy} 0")

    def _split(self):
        size = self.blocks() * self.BLOCK_SECTORS
        run("dmsetup", "create", "bench-meta", "--table", f"0 {self.META_SECTORS} linear {self.fast} 0")
        run("dmsetup", "create", "bench-data", "--table", f"0 {size} linear {self.fast} {self.META_SECTORS}")

    def create(self):
        dirty = "true" if self.dirty_from_start else "false"
        maps = "\n".join(f'<mapping cache_block="{i}" origin_block="{i}" dirty="{dirty}"/>'
                         for i in range(self.blocks()))
        self._split()
        wipe(self.meta, 16)
        xml = "/tmp/bench-cache.xml"
        write_file(xml, f'<superblock uuid="" block_size="{self.BLOCK_SECTORS}" '
                        f'nr_cache_blocks="{self.blocks()}" policy="smq" hint_width="4">\n'
                        f"<mappings>\n{maps}\n</mappings>\n<hints>\n</hints>\n</superblock>\n")
        run("cache_restore", "--metadata-version", "2", "-q", "-i", xml, "-o", self.meta)
        super().start()

    def start(self):
        self._split()
        super().start()

    def stop(self):
        for name in (self.name, "bench-data", "bench-meta"):
            run("dmsetup", "remove", "--retry", name)

    def _policy(self, name):
        run("dmsetup", "suspend", self.name)
        run("dmsetup", "reload", self.name, "--table", self.table(name))
        run("dmsetup", "resume", self.name)

    def drain(self):
        self._policy("cleaner")
        wait_for(lambda: self.dirty_blocks() == 0, "dm-cache: clean", DRAIN_TIMEOUT_S)
        self._policy("smq")

    def dirty_blocks(self):
        # start length cache 8 USED/TOTAL BLOCK USED/TOTAL hits misses ... DIRTY: in cache blocks
        return int(self.status()[13]) * self.BLOCK_SECTORS // 8


class Bcache(Stack):
    device, modules = "/dev/bcache0", ("bcache",)
    # It caches no writes above a share in use, 40 % by default and 70 % at most.
    fill_share = 0.62

    def load(self):
        run("modprobe", "bcache", "bch_cutoff_writeback=70", "bch_cutoff_writeback_sync=90")

    def create(self):
        for device in (self.fast, self.slow):
            wipe(device)
        run("make-bcache", "--writeback", "-w", "4096", "-C", self.fast, "-B", self.slow)
        self.start()

    def start(self):
        for device in (self.fast, self.slow):
            write_file("/sys/fs/bcache/register", os.path.realpath(device))
        wait_for(lambda: os.path.exists(self.device) and self._attr("state") != "no cache", "bcache: attached")
        # Small random writes only, on an emulated machine: nothing is bypassed for being slow.
        self._set("sequential_cutoff", 0)
        for name in ("congested_read_threshold_us", "congested_write_threshold_us"):
            write_file(os.path.join(self._set_folder(), name), 0)
        # What is written back, and when, is what drain() measures.
        self._set("writeback_running", 0)

    def stop(self):
        folder = self._set_folder()
        self._set("stop", 1)
        wait_for(lambda: not os.path.exists("/sys/block/bcache0"), "bcache: stopped")
        write_file(os.path.join(folder, "stop"), 1)
        # The last of it goes away after its folder.
        wait_for(lambda: not os.path.exists(folder) and is_free(self.fast) and is_free(self.slow),
                 "bcache: cache stopped")

    def drain(self):
        self._set("writeback_percent", 0)
        self._set("writeback_delay", 0)
        self._set("writeback_running", 1)
        wait_for(lambda: self._attr("state") == "clean", "bcache: clean", DRAIN_TIMEOUT_S)
        self._set("writeback_running", 0)

    def dirty_blocks(self):
        match = re.fullmatch(r"([0-9.]+)([kMG]?)", self._attr("dirty_data"))
        return int(float(match[1]) * {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]]) // 4096

    def memory_bytes(self):
        # Its B-tree nodes are bare pages, in neither slab nor vmalloc.
        match = re.fullmatch(r"([0-9.]+)([kMG]?)", read_file(os.path.join(self._set_folder(), "btree_cache_size")))
        return int(float(match[1]) * {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]])

    def _set_folder(self):
        folders = glob.glob("/sys/fs/bcache/*-*-*-*-*")
        if not folders:
            raise StackError("bcache: no cache set is registered")
        return folders[0]

    def _attr(self, name):
        return read_file(f"/sys/block/bcache0/bcache/{name}")

    def _set(self, name, value):
        write_file(f"/sys/block/bcache0/bcache/{name}", value)


STACKS = {"raw": Raw, "cohost": Cohost, "dm-writecache": Writecache, "bcache": Bcache, "dm-cache": Dmcache,
          "dm-writeboost": Writeboost}
