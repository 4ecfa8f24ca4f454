# SPDX-License-Identifier: MIT
"""The steps of the demo, in order. Each returns (one line for people, details for the report)."""
import hashlib
import json
import os
import re
import shlex
import subprocess
import threading
import time

from lab import APPLIANCE_ADDRESS, LAB_ADDRESS, TREE, DemoError, wait_for
import vm

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 8080
BASE = f"http://{APPLIANCE_ADDRESS}:{PORT}"
BUCKET = "cohost-media"
MARKER = "COHOST-MARKER-no-cloud-may-read-this"
LIVE_S = 24
OUTAGE_S = 30
CALM_S = 4
STALL_MS = 1000
RTO_BUDGET_S = 300

CONFIG = """\
version: 1
edge:
  interfaces: [{interface}]
  fastpath: auto
  bpf_pin_dir: /sys/fs/bpf/cohost
  cgroup: {cgroup}
  workers: 1
  cache_dir: /srv/media/.cache
sites:
  - name: live
    listen: 0.0.0.0:{port}
    hosts: [{address}]
    ingest: /srv/media/live
  - name: vod
    listen: 0.0.0.0:{port}
    hosts: [vod.example]
    origin: http://{lab}:8081
    ttl_s: 2
    stale_if_error_s: 3600
    connect_timeout_ms: 300
    first_byte_timeout_ms: 700
remotes:
  - name: rgw
    endpoint: {endpoint}
    region: us-east-1
    bucket: {bucket}
    access_key: {access}
    secret_key_file: /etc/cohost/rgw.secret
volumes:
  - name: media
    remote: rgw
    key_file: /etc/cohost/media.key
"""


def mib(size):
    return f"{size / (1 << 20):.1f} MiB"


def expect(condition, text):
    if not condition:
        raise DemoError(text)


# -- the appliance as a person would set it up

def start_daemon(context):
    """Configuration, secrets and cohostd; the key is the team's, kept outside the appliance."""
    a, s3 = context.appliance, context.lab.s3
    key = context.facts.setdefault("key", os.urandom(32).hex())
    cgroup = a.sh("findmnt -nt cgroup2 -o TARGET | head -1").strip()
    config = CONFIG.format(interface=a.interface, cgroup=cgroup, port=PORT, address=APPLIANCE_ADDRESS, lab=LAB_ADDRESS,
                           endpoint=s3["endpoint"], bucket=BUCKET, access=s3["access"])
    a.sh(f"""set -e
        mkdir -p /etc/cohost /srv/media/live /srv/media/.cache
        umask 077
        echo {key} >/etc/cohost/media.key
        echo {shlex.quote(s3['secret'])} >/etc/cohost/rgw.secret
        cat >/etc/cohost/cohost.yaml <<'CONFIG'\n{config}CONFIG
        user=nobody; ! id cohost >/dev/null 2>&1 || user=cohost
        chown "$user" /srv/media/live /srv/media/.cache
        setsid cohostd -c /etc/cohost/cohost.yaml >>/var/log/cohostd.log 2>&1 </dev/null &""")

    def last_words():
        return "cohostd did not come up: " + a.sh("tail -n 5 /var/log/cohostd.log")
    wait_for(lambda: a.ctl("status", check=False)["exit"] == 0, 60, last_words)


def make_volume(context, fast, slow, *words):
    a = context.appliance
    a.sh("modprobe cohost 2>/dev/null || lsmod | grep -q '^cohost '")
    a.ctl("-y", "volume", "create", "media", "fast", fast, "slow", slow, *words)


# -- steps

def step_boot(context):
    context.appliance.boot()
    kernel = context.appliance.sh("uname -r").strip()
    return f"kernel {kernel} is up", {"kernel": kernel}


def step_volume(context):
    a = context.appliance
    make_volume(context, a.fast, a.slow)
    context.say("mkfs.xfs, then files")
    a.sh("mkfs.xfs -q /dev/mapper/cohost-media && mkdir -p /srv/media && mount /dev/mapper/cohost-media /srv/media")
    a.sh("setsid cohostctl -j monitor >/run/cohost-events.jsonl 2>/dev/null </dev/null &")
    a.sh(f"""set -e
        mkdir -p /srv/media/project
        for i in $(seq 400); do echo "{MARKER} line $i"; done >/srv/media/project/notes.txt
        for i in 1 2 3 4; do head -c 3000000 /dev/urandom >/srv/media/project/take$i.raw; done
        sync""")
    listed = a.ctl("volume", "list")["volumes"]
    status = a.sh("dmsetup status cohost-media").strip()
    expect(len(listed) == 1 and listed[0]["name"] == "media", f"volume list shows {listed}")
    dirty = listed[0]["dirty_bytes"]
    context.say(f"{mib(dirty)} wait in the log; moving them to the slow device")
    a.ctl("volume", "flush", "media")
    shown = a.ctl("volume", "show", "media")["volume"]
    left = shown["dirty_bytes"]
    expect(left == 0 or left < dirty, f"flush left {left} of {dirty} bytes")
    return (f"XFS on /dev/mapper/cohost-media; {mib(dirty)} landed in the log, flush left {mib(left)} of it",
            {"dirty_bytes": dirty, "after_flush_bytes": left, "dmsetup_status": status})


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def fetch(context, path, host=APPLIANCE_ADDRESS, timeout=20):
    """(status, body, seconds) by curl."""
    done = context.lab.run(["curl", "-s", "-m", str(timeout), "-H", f"Host: {host}", "-o", "-",
                            "-w", "\n%{http_code} %{time_total}", BASE + path], check=False)
    body, _, tail = done.stdout.rpartition(b"\n")
    status, seconds = tail.split()
    return int(status), body, float(seconds)


def watch_live(context, encoder, reference):
    """Follow the playlist as a player does; every segment must be what the encoder made."""
    seen = {}
    while encoder.poll() is None:
        status, playlist, _ = fetch(context, "/show/index.m3u8")
        if status == 200:
            for name in re.findall(rb"^[^#\n]+\.ts$", playlist, re.M):
                name = name.decode()
                if name not in seen:
                    status, body, _ = fetch(context, f"/show/{name}")
                    expect(status == 200, f"{name} is in the playlist and answers {status}")
                    seen[name] = sha256(body)
            context.say(f"{len(seen)} segments watched")
        time.sleep(0.5)
    for name, digest in seen.items():
        with open(os.path.join(reference, name), "rb") as file:
            expect(sha256(file.read()) == digest, f"{name} is not byte-identical to what the encoder made")
    return seen


def step_live(context):
    a, lab = context.appliance, context.lab
    lab.start_s3()
    start_daemon(context)
    reference = os.path.join(context.work, "encoder")
    encoder = lab.spawn([os.path.join(TREE, "tools/lab/live"), f"{BASE}/show/index.m3u8", "--seconds", str(LIVE_S),
                         "--segment", "2", "--copy", reference], "encoder.log")
    wait_for(lambda: fetch(context, "/show/index.m3u8")[0] == 200, 40,
             lambda: "no playlist came: " + a.sh("tail -n 5 /var/log/cohostd.log"))
    load = lab.spawn(["wrk", "-t1", "-c8", f"-d{LIVE_S - 10}s", f"{BASE}/show/index.m3u8"], "wrk.log")
    seen = watch_live(context, encoder, reference)
    expect(len(seen) >= 5, f"only {len(seen)} segments were seen")
    load.wait(60)
    with open(os.path.join(context.work, "wrk.log"), encoding="utf-8") as file:
        wrk = file.read()
    expect("Non-2xx" not in wrk and "Socket errors" not in wrk, f"viewers saw errors: {wrk}")
    probe = lab.run(["ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0",
                     f"{BASE}/show/index.m3u8"], timeout=60).stdout.decode().split()
    expect({"h264", "aac"} <= set(probe), f"ffprobe reads {probe}")
    stored = a.sh("sha256sum /srv/media/live/show/index.m3u8").split()[0]
    expect(sha256(fetch(context, "/show/index.m3u8")[1]) == stored, "the playlist served is not the one stored")
    share = packet_share(context)
    return (f"{len(seen)} segments byte-identical; {share['packet_hits']} of {share['requests']} playlist requests "
            f"answered in the packet path ({share['percent']:.1f} %)",
            {"segments": len(seen), "codecs": probe, "wrk": wrk.splitlines()[-2:], **share})


def packet_share(context):
    """From cohostctl, and from the pinned maps themselves."""
    a = context.appliance
    listed = a.ctl("cache", "list")
    rows = [o for o in listed["objects"] if o["path"].endswith("index.m3u8") and o.get("site") == "live"]
    expect(rows, f"cache list does not show the playlist: {listed}")
    packet, worker = rows[0].get("packet_hits", 0), rows[0].get("worker_hits", 0)
    expect(packet > 0, "no request was answered in the packet path: " + json.dumps(listed)[:600])
    dump = json.loads(a.sh("bpftool -j map dump pinned /sys/fs/bpf/cohost/stats"))
    expect(dump, "bpftool shows no statistics")
    return {"packet_hits": packet, "requests": packet + worker, "percent": 100 * packet / (packet + worker)}


def spawn_viewer(context, seconds):
    paths = ["/hot/index.m3u8", "/hot/thumb.jpg", "/long/page.html", "/hot/seg0.ts"]
    return subprocess.Popen(context.lab.within(["/usr/bin/python3", os.path.join(HERE, "viewer.py"), BASE, "vod.example",
                                                str(seconds), "8", *paths]),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def viewer_result(viewer):
    out, err = viewer.communicate(timeout=120)
    expect(viewer.returncode == 0, f"the viewer failed: {err.decode()[-400:]}")
    result = json.loads(out)
    expect(result["error_count"] == 0, f"viewers saw errors: {result['errors']}")
    return result


def cold_key(context, name, limit_ms):
    status, _, seconds = fetch(context, f"/cold/{name}", host="vod.example")
    expect(status == 504, f"a cold key during the outage answered {status}, not 504")
    expect(seconds * 1000 < limit_ms, f"a cold key during the outage took {seconds:.2f} s")
    return seconds


def step_outage(context):
    a, lab = context.appliance, context.lab
    origin = [os.path.join(TREE, "tools/lab/origin"), "--dir", context.work + "/origin", "--address", LAB_ADDRESS]
    lab.run([origin[0], "start", *origin[1:]])
    for path in ("/hot/index.m3u8", "/hot/thumb.jpg", "/long/page.html", "/hot/seg0.ts"):
        status, body, _ = fetch(context, path, host="vod.example")
        with open(f"{context.work}/origin/www{path}", "rb") as file:
            expect(status == 200 and body == file.read(), f"{path} is not what the origin has ({status})")
    # A busy machine makes viewers wait without any outage: what counts is what the outage adds.
    before = viewer_result(spawn_viewer(context, CALM_S))
    limit_ms = max(STALL_MS, 3 * before["latency_ms_max"])
    viewer = spawn_viewer(context, OUTAGE_S + 2)
    time.sleep(1)
    context.say("the origin hangs (SIGSTOP)")
    lab.run([origin[0], "pause", *origin[1:]])
    time.sleep(OUTAGE_S / 4)
    cold_ms = [cold_key(context, "hung.html", limit_ms)]
    time.sleep(OUTAGE_S / 4)
    context.say("the origin is killed")
    lab.run([origin[0], "kill", *origin[1:]])
    time.sleep(OUTAGE_S / 4)
    cold_ms.append(cold_key(context, "dead.html", limit_ms))
    shown = a.ctl("status", check=False)
    expect(shown["exit"] == 3, f"status does not call the outage a finding: {shown}")
    result = viewer_result(viewer)
    expect(result["latency_ms_max"] < limit_ms,
           f"a viewer waited {result['latency_ms_max']} ms, {before['latency_ms_max']} ms before the outage")
    upstreams = [u for u in shown.get("upstreams", []) if u["site"] == "vod"]
    expect(upstreams and upstreams[0]["state"] == "down", f"status does not show the outage: {upstreams}")
    lab.run([origin[0], "start", *origin[1:]])
    wait_for(lambda: fetch(context, "/vary/lang.html", host="vod.example")[0] == 200, 15,
             "the origin is back and new objects are not served")
    lab.run([origin[0], "stop", *origin[1:]])
    return (f"{OUTAGE_S} s without origin: {result['requests']} requests, 0 errors, slowest {result['latency_ms_max']} ms "
            f"({before['latency_ms_max']} ms before); cold keys 504 after {max(cold_ms) * 1000:.0f} ms", {**result, "before": before, "cold_s": cold_ms, "upstream": upstreams[0]})


def file_hashes(context):
    return context.appliance.sh("cd /srv/media && find . -path ./.cache -prune -o -type f -print0 | sort -z | "
                                "xargs -0 sha256sum")


def step_sync(context):
    a, lab = context.appliance, context.lab
    a.ctl("remote", "check", "rgw", "create", "yes")
    first = a.ctl("checkpoint", "create", "media")
    context.say(f"first checkpoint: {mib(first['uploaded_bytes'])} uploaded")
    a.sh("head -c 500000 /dev/urandom >/srv/media/project/late.raw; sync")
    context.facts["hashes"] = file_hashes(context)
    second = a.ctl("checkpoint", "create", "media")
    expect(second["uploaded_bytes"] < first["uploaded_bytes"] / 2,
           f"the second checkpoint uploaded {second['uploaded_bytes']} bytes, the first {first['uploaded_bytes']}")
    objects = lab.bucket_bytes(BUCKET)
    expect(len(objects) >= 3, f"the bucket holds {sorted(objects)}")
    leaks = [name for name, data in objects.items() if MARKER.encode() in data]
    expect(not leaks, f"plaintext in {leaks}")
    a.sh("head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >/run/wrong.key")
    wrong = a.ctl("checkpoint", "verify", "media", "key", "/run/wrong.key", check=False)
    message = wrong.get("error", {}).get("message", "")
    expect(wrong["exit"] and "key" in message, f"a wrong key was not refused clearly: {wrong}")
    stored = sum(len(data) for data in objects.values())
    return (f"first {mib(first['uploaded_bytes'])}, second {mib(second['uploaded_bytes'])}; {len(objects)} objects, "
            f"no plaintext; a wrong key: \"{message}\"",
            {"first_bytes": first["uploaded_bytes"], "second_bytes": second["uploaded_bytes"],
             "objects": len(objects), "stored_bytes": stored, "wrong_key": message})


def step_telemetry(context):
    a = context.appliance
    a.sh("""set -e
        cd /sys/kernel/tracing && echo 1 >events/cohost/enable
        head -c 100000 /dev/urandom >/srv/media/project/traced.raw; sync""")
    traced = set(re.findall(r"\b(cohost_\w+|tier_\w+):", a.sh("cat /sys/kernel/tracing/trace; "
                                                            "echo 0 >/sys/kernel/tracing/events/cohost/enable")))
    points = a.sh("ls /sys/kernel/tracing/events/cohost").split()
    points = [p for p in points if p not in ("enable", "filter")]
    expect(traced, "no tracepoint fired")
    events = [json.loads(line) for line in a.sh("cat /run/cohost-events.jsonl").splitlines() if line.strip()]
    expect(events, "cohostctl monitor received no event")
    metrics = a.sh("curl -sf --unix-socket /run/cohost/admin.sock http://localhost/metrics")
    families = re.findall(r"^# TYPE (\S+)", metrics, re.M)
    expect(metrics.rstrip().endswith("# EOF"), "the metrics do not end with # EOF")
    for family in ("cohost_volume_dirty_bytes", "cohost_edge_requests"):
        expect(any(f.startswith(family) for f in families), f"no {family} in the metrics")
    maps = a.sh("ls /sys/fs/bpf/cohost").split()
    btf = a.sh("bpftool map dump pinned /sys/fs/bpf/cohost/config | head -c 2000")
    expect('"' in btf, f"the config map is not readable through BTF: {btf[:200]}")
    return (f"{len(events)} kernel events, {len(points)} tracepoints, {len(families)} metric families, {len(maps)} pins",
            {"events": len(events), "tracepoints": points, "metric_families": len(families), "pins": maps})


WRITER = r"""
import hashlib, os
n = 0
while True:
    data = os.urandom(4096 * (1 + n % 9) + n % 700)
    fd = os.open(f"/srv/media/acked/{n}", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    print(n, hashlib.sha256(data).hexdigest(), flush=True)
    n += 1
"""


def write_until_cut(context):
    """Files written with fsync; what was acknowledged is known out here before the plug is pulled."""
    a = context.appliance
    lines = bytearray()

    def work():
        try:
            a.machine.run(["/usr/bin/python3", "-c", WRITER], on_output=lambda kind, data: lines.extend(data))
        except (vm.VmError, OSError):
            pass
    a.sh("mkdir -p /srv/media/acked && sync")
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(lambda: lines.count(b"\n") >= 100, 90, "the writer does not get on")
    context.say("power off")
    a.cut()
    thread.join(30)
    complete = bytes(lines).decode().rsplit("\n", 1)[0]
    return dict(line.split() for line in complete.splitlines())


def write_then_crash(context):
    """On the host there is no plug: the volume is taken away under the writer."""
    a = context.appliance
    a.sh("mkdir -p /srv/media/acked && sync")
    out = a.sh(f"timeout 5 /usr/bin/python3 -c {shlex.quote(WRITER)} || [ $? = 124 ]")
    a.cut()
    return dict(line.split() for line in out.splitlines())


def step_loss(context):
    a = context.appliance
    acked = write_until_cut(context) if a.cuts_power else write_then_crash(context)
    fate = a.disk_log()
    context.say(f"{len(acked)} acknowledged files; starting again")
    a.boot()
    began = time.monotonic()
    a.sh("modprobe cohost 2>/dev/null || lsmod | grep -q '^cohost '")
    a.ctl("volume", "start", "media", "fast", a.fast, "slow", a.slow)
    recovery_ms = int((time.monotonic() - began) * 1000)
    a.sh("mkdir -p /srv/media && mount /dev/mapper/cohost-media /srv/media")
    found = dict(reversed(line.split(maxsplit=1)) for line in
                 a.sh("cd /srv/media/acked && find . -type f -printf '%P\\0' | xargs -0 sha256sum").splitlines())
    lost = [name for name, digest in acked.items() if found.get(name) != digest]
    expect(not lost, f"{len(lost)} of {len(acked)} acknowledged files are lost or damaged: {lost[:5]}")
    return (f"{len(acked)} files were acknowledged before the cut, all are there; the log was recovered in {recovery_ms} ms",
            {"acknowledged": len(acked), "lost": 0, "recovery_ms": recovery_ms, "disk": fate})


def read_first_file(context, began):
    """Mounts what is being filled; how long after `began` a file of it could be read, its hash right."""
    a = context.appliance
    digest, name = context.facts["hashes"].splitlines()[0].split(maxsplit=1)
    a.sh("mount /dev/mapper/cohost-media /srv/media")
    found = a.sh(f"cd /srv/media && sha256sum {shlex.quote(name)}").split()[0]
    expect(found == digest, f"{name} is not what it was when the checkpoint was taken")
    return int((time.monotonic() - began) * 1000)


def step_restore(context):
    a = context.appliance
    a.replace()
    began = time.monotonic()
    a.boot()
    make_volume(context, a.spare_fast, a.spare_slow, "absent", "yes")
    a.sh("mkdir -p /srv/media")
    start_daemon(context)
    asked = time.monotonic()
    a.ctl("-y", "restore", "run", "media", "from", "rgw", "background", "yes")
    first_ms = read_first_file(context, asked)
    context.say(f"the first file was read {first_ms} ms after the command; it goes on being filled")

    def absent():
        return a.ctl("volume", "show", "media")["volume"]["absent_bytes"]
    left = absent()
    wait_for(lambda: absent() == 0, RTO_BUDGET_S, lambda: "it is not filled: " + a.sh("cohostctl job list"))
    filled_ms = int((time.monotonic() - asked) * 1000)
    context.say("comparing every file")
    same = file_hashes(context) == context.facts["hashes"]
    seconds = time.monotonic() - began
    expect(same, "files differ from those of the checkpoint")
    expect(seconds < RTO_BUDGET_S, f"it took {seconds:.0f} s of a budget of {RTO_BUDGET_S} s")
    count = context.facts["hashes"].count("\n")
    return (f"from an empty appliance to {count} verified files in {seconds:.1f} s of the {RTO_BUDGET_S} s budget; "
            f"the first file could be read {first_ms} ms after the command, when {mib(left)} were absent, all after "
            f"{filled_ms / 1000:.1f} s",
            {"files": count, "total_ms": int(seconds * 1000), "first_file_ms": first_ms, "restore_ms": filled_ms,
             "absent_bytes_then": left, "budget_ms": RTO_BUDGET_S * 1000})


STEPS = [
    ("boot", "the appliance boots", step_boot),
    ("volume", "NAS volume", step_volume),
    ("live", "live event", step_live),
    ("outage", "upstream outage", step_outage),
    ("sync", "encrypted sync", step_sync),
    ("telemetry", "telemetry", step_telemetry),
    ("loss", "power cut", step_loss),
    ("restore", "loss and restore", step_restore),
]
