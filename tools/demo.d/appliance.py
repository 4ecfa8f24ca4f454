# SPDX-License-Identifier: MIT
"""The appliance the demo drives: a VM by default, this very machine with --host.

Both offer the same few things: run a command as root, the block devices, the
interface viewers come in by, and a power cut.
"""
import json
import os
import shlex
import shutil
import subprocess

from lab import APPLIANCE_ADDRESS, BUILD, LAB_ADDRESS, TREE, DemoError
import vm

DISK = "demo-disk-"
PATH = f"{BUILD}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Appliance:
    """What both kinds share: commands on top of execute(argv) -> (status, out, err)."""

    def sh(self, script, timeout=300, check=True):
        status, out, err = self.execute(["/bin/bash", "-c", script], timeout)
        if check and status:
            raise DemoError(f"in the appliance: {script.strip()[:160]}: exit {status}: "
                            f"{(err or out).decode(errors='replace').strip()[-800:]}")
        return out.decode(errors="replace")

    def ctl(self, *words, timeout=300, check=True):
        """cohostctl -j: the last JSON document it prints."""
        status, out, err = self.execute(["cohostctl", "-j", *words], timeout)
        documents = [line for line in out.decode(errors="replace").splitlines() if line.strip()]
        try:
            answer = json.loads(out)
        except ValueError:
            try:
                answer = json.loads(documents[-1])
            except (ValueError, IndexError):
                answer = {}
        if check and status:
            raise DemoError(f"cohostctl {shlex.join(words)}: exit {status}: "
                            f"{json.dumps(answer.get('error', {})) or err.decode(errors='replace')[-600:]}")
        answer["exit"] = status
        return answer


class VmAppliance(Appliance):
    fast, slow, spare_fast, spare_slow = "/dev/vm/fast", "/dev/vm/slow", "/dev/vm/fast2", "/dev/vm/slow2"
    interface = "eth0"
    cuts_power = True

    def __init__(self, lab, kernel):
        lab.create_tap("tap0")
        self.lab = lab
        self.kernel = kernel
        self.machine = self._machine("a", ["name=fast,size=256M,cache=volatile", "name=slow,size=1G,cache=volatile"])
        self.description = f"VM, kernel {self.machine.kernel}, {vm.accelerator(self.machine.kernel)}"
        self.boots = 0

    def _machine(self, letter, disks):
        return vm.Machine(f"demo-{os.getpid()}-{letter}", kernel=self.kernel, disks=[vm.Disk(d) for d in disks],
                          net="tap0", namespace=self.lab.namespace, address=f"{APPLIANCE_ADDRESS}/24",
                          gateway=LAB_ADDRESS, memory_mib=2048)

    def replace(self):
        """Another appliance, empty, at the same address."""
        self.machine.stop()
        self.machine.forget()
        self.machine = self._machine("b", ["name=fast2,size=256M", "name=slow2,size=1G"])

    def boot(self):
        self.boots += 1
        self.machine.start(cut_seed=self.boots)

    def execute(self, argv, timeout):
        return self.machine.run(argv, env={"PATH": PATH}, timeout=timeout)

    def cut(self):
        self.machine.cut()

    def disk_log(self):
        with open(os.path.join(self.machine.state, "fast.log"), encoding="ascii") as file:
            return file.read().strip().splitlines()[-1:]

    def reach(self):
        return f"its sockets are {self.machine.sockets}/agent0-7, its disks {self.machine.state}"

    def destroy(self):
        self.machine.destroy()
        self.machine.forget()


class HostAppliance(Appliance):
    """This machine's kernel, loop devices below device-mapper, and a veth pair into the lab.

    There is no plug to pull: the cut makes both disks fail at one moment below a running
    workload, so nothing is sealed or flushed any more, and gives them back afterwards.
    """
    interface = "cohost-demo0"
    cuts_power = False

    def __init__(self, lab, kernel):
        self.work = lab.work
        self.description = f"this machine, kernel {os.uname().release}"
        self.loops = []
        self.disks = {}
        lab.ip("link", "add", self.interface, "type", "veth", "peer", "name", "lab0", "netns", lab.namespace)
        lab.ip("address", "add", f"{APPLIANCE_ADDRESS}/24", "dev", self.interface)
        lab.ip("link", "set", self.interface, "up")
        lab.ip("-n", lab.namespace, "address", "add", f"{LAB_ADDRESS}/24", "dev", "lab0")
        lab.ip("-n", lab.namespace, "link", "set", "lab0", "up")
        subprocess.run(["modprobe", "-qa", "loop", "dm_mod"], check=False)
        self.fast, self.slow = self._disk("fast", 256), self._disk("slow", 1024)
        self.spare_fast, self.spare_slow = self._disk("fast2", 256), self._disk("slow2", 1024)

    def _disk(self, name, mib):
        table = f"0 {mib << 11} linear {self._loop(name, mib)} 0"
        self.disks[name] = table
        self.sh(f"dmsetup create {DISK}{name} --table '{table}' && dmsetup mknodes")
        return f"/dev/mapper/{DISK}{name}"

    def _loop(self, name, mib):
        image = os.path.join(self.work, name + ".img")
        with open(image, "wb") as file:
            file.truncate(mib << 20)
        done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"no loop device: {done.stderr.strip()}")
        self.loops.append(done.stdout.strip())
        return self.loops[-1]

    def boot(self):
        ko = os.path.join(BUILD, "kmod", os.uname().release, "cohost.ko")
        if not os.path.exists(ko):
            raise DemoError(f"no module for this kernel: install linux-headers-{os.uname().release} and run "
                            "tools/setup, or leave --host away to use a VM")
        script = "modprobe -a dm_mod libcrc32c; lsmod | grep -q '^cohost ' || insmod " + shlex.quote(ko)
        self.sh(script)

    def execute(self, argv, timeout):
        done = subprocess.run(argv, cwd=TREE, env={**os.environ, "PATH": PATH}, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        return done.returncode, done.stdout, done.stderr

    def _become(self, name, table):
        self.sh(f"dmsetup suspend --noflush --nolockfs {DISK}{name} && "
                f"dmsetup reload {DISK}{name} --table '{table}' && dmsetup resume {DISK}{name}")

    def cut(self):
        for name in ("fast", "slow"):
            self._become(name, self.disks[name].split(" linear", 1)[0] + " error")
        # The machine's processes die with it; cohostd leads a session of its own.
        self.sh("""pkill -9 -s "$(cat /run/cohost/cohostd.pid)"
            umount -l /srv/media
            for try in $(seq 150); do
                dmsetup remove cohost-media 2>/dev/null || dmsetup info cohost-media >/dev/null 2>&1 || exit 0
                sleep 0.2
            done
            echo 'volume media is still in use' >&2; exit 1""")
        for name in ("fast", "slow"):
            self._become(name, self.disks[name])

    def replace(self):
        """The next one is empty: daemon and volume of the first are gone."""
        self._stop_all()

    def disk_log(self):
        return []

    def reach(self):
        return "it is this machine: cohostctl status"

    def _stop_all(self):
        self.sh("[ ! -S /run/cohost/admin.sock ] || kill $(cohostctl -j status | jq -r .daemon.pid); umount /srv/media; "
                "cohostctl -y volume stop media", check=False)

    def destroy(self):
        self._stop_all()
        self.sh("rmmod cohost", check=False)
        for name in self.disks:
            self.sh(f"dmsetup remove --retry {DISK}{name}", check=False)
        for device in self.loops:
            subprocess.run(["losetup", "-d", device], check=False)
        for name in ("fast", "slow", "fast2", "slow2"):
            if os.path.exists(os.path.join(self.work, name + ".img")):
                os.unlink(os.path.join(self.work, name + ".img"))
        shutil.rmtree("/run/cohost", ignore_errors=True)
