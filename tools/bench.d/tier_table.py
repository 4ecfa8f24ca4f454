# SPDX-License-Identifier: MIT
"""From what a session of tools/bench tier measured to its metrics, and to the table of them.

A metric is one figure of every stack, a goal, and whether cohost meets it. Figures are
medians over the repeats, kept with the smallest and the largest.
"""
import statistics

OURS = "cohost"
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
LINE = 32 << 10
ROUND_DIGITS = 2


def data_ios(device):
    """The kernel counts a flush as a write of no data as well: that is not one."""
    return device["reads"] + device["writes"] - device["flushes"]


# ---- figures: of one record, or of all records of a stack

def rate(record):
    return record["ops"] / record["seconds"]


def fast_kib(record):
    return record["fast"]["write_sectors"] / 2 / record["ops"]


def fast_flushes(record):
    return record["fast"]["flushes"] / record["ops"]


def slow_flushes(record):
    return record["slow"]["flushes"] / record["ops"]


def slow_ios(record):
    return data_ios(record["slow"])


def destage_seconds(record):
    """Some write back while they are written to: the slow device was busy then as well."""
    return max(record["seconds"], record["slow"]["busy_ms"] / 1000)


def seconds(record):
    return record["seconds"]


def fast_read_mib(record):
    return record["fast"]["read_sectors"] / 2 / KIB


def ram_dirty(record):
    """What the stack says it holds counts, where that is more than what was seen."""
    seen = record["slab_bytes"] + record["vmalloc_bytes"] + record["own_bytes"]
    return max(seen, record.get("declared_bytes", 0)) / record["dirty_blocks"]


def ram_clean_gib(record):
    """cohost's lines are of 32 KiB. The peers keep the same entry for a clean block as for a dirty one."""
    if "bytes_per_line" in record:
        return record["bytes_per_line"] * (TIB // LINE) / GIB
    return ram_dirty(record) * (TIB // 4096) / GIB


# ---- goals: a text, and a test of (ours, raw, peers) -> (met, ratio)

def best(peers, pick):
    known = [value for value in peers.values() if value is not None]
    return pick(known) if known else None


def divided(a, b):
    return a / b if a is not None and b else None


class Share:
    """Ours over the raw device."""

    def __init__(self, least):
        self.text, self.least = f">= {least}x raw", least

    def judge(self, ours, raw, peers):
        ratio = divided(ours, raw)
        return ratio is not None and round(ratio, ROUND_DIGITS) >= self.least, ratio


class Most:
    """Ours alone."""

    def __init__(self, most, unit=""):
        self.text, self.most = f"<= {most:g}{unit}", most

    def judge(self, ours, raw, peers):
        return round(ours, ROUND_DIGITS) <= self.most, divided(ours, best(peers, min))


class Against:
    """More than one peer."""

    def __init__(self, peer, least):
        self.text, self.peer, self.least = f">= {least:g}x {peer}", peer, least

    def judge(self, ours, raw, peers):
        ratio = divided(ours, peers.get(self.peer))
        return ratio is not None and round(ratio, ROUND_DIGITS) >= self.least, ratio


class Fewer:
    """The best peer needs this many times as much."""

    def __init__(self, least, word):
        self.text, self.least = f">= {least:g}x {word} than the best", least

    def judge(self, ours, raw, peers):
        ratio = divided(best(peers, min), ours)
        return ratio is not None and round(ratio, ROUND_DIGITS) >= self.least, ratio


class Metric:
    def __init__(self, name, title, row, figure, goal):
        self.name, self.title, self.row, self.figure, self.goal = name, title, row, figure, goal

    def values(self, records, stack):
        return [self.figure(r) for r in records
                if r["stack"] == stack and r["row"] == self.row and "error" not in r]


def sync_metrics(row, name, title, share, kib, flushes):
    return [
        Metric(f"{name}_iops", f"{title}: IOPS", row, rate, Share(share)),
        Metric(f"{name}_fast_kib_per_op", f"{title}: SSD KiB per op", row, fast_kib, Most(kib)),
        Metric(f"{name}_fast_flushes_per_op", f"{title}: SSD flushes per op", row, fast_flushes, Most(flushes)),
        Metric(f"{name}_slow_flushes_per_op", f"{title}: HDD flushes per op", row, slow_flushes, Most(0)),
    ]


def destage_metrics(row, name, title, fewer, faster):
    return [
        Metric(f"{name}_slow_ios", f"{title}: HDD I/Os", row, slow_ios, Fewer(fewer, "fewer")),
        Metric(f"{name}_seconds", f"{title}: seconds", row, destage_seconds, Fewer(faster, "faster")),
    ]


METRICS = [
    *sync_metrics("sync-qd1", "sync_qd1", "sync 4K QD1", 0.95, 8, 1),
    *sync_metrics("sync-8", "sync_8", "sync 4K 8 threads", 2, 4.6, 0.2),
    Metric("async_iops_vs_writeboost", "async random 4K: IOPS", "async", rate, Against("dm-writeboost", 1)),
    Metric("async_iops_vs_writecache", "async random 4K: IOPS", "async", rate, Against("dm-writecache", 3)),
    Metric("async_free_iops_vs_writeboost", "the same, SSD without limit: IOPS", "async-free", rate,
           Against("dm-writeboost", 1)),
    Metric("async_free_iops_vs_writecache", "the same, SSD without limit: IOPS", "async-free", rate,
           Against("dm-writecache", 3)),
    *destage_metrics("destage-64m", "destage_6507_in_64m", "destage 6507 in 64 MiB", 10, 8),
    *destage_metrics("destage-1g", "destage_8048_in_1g", "destage 8048 in 1 GiB", 2.5, 2.5),
    Metric("start_full_seconds", "start, full cache: seconds", "start", seconds, Most(1)),
    # max(64 MiB, 0.02 %): of a cache of 600 MB it is the first.
    Metric("start_full_read_mib", "start, full cache: MiB read", "start", fast_read_mib, Most(64)),
    Metric("ram_bytes_per_dirty_block", "RAM per dirty 4 KiB: bytes", "ram", ram_dirty, Most(12)),
    Metric("ram_gib_per_clean_tib", "RAM per clean TiB: GiB", "ram", ram_clean_gib, Most(0.3)),
]
ELSEWHERE = [("power cuts survived", "sudo tools/powercut"),
             ("bit flips, stale and misdirected blocks", "sudo tools/check sim")]


def median(values):
    return statistics.median(values) if values else None


def spread(values):
    return [min(values), max(values)] if values else None


def metrics(records, stacks, rows):
    """Of the rows that were asked for; a stack without a figure has null and, below, its reason."""
    errors = {(r["stack"], r["row"]): r["error"] for r in records if "error" in r}
    for metric in (m for m in METRICS if m.row in rows):
        values = {stack: metric.values(records, stack) for stack in stacks}
        figures = {stack: median(values[stack]) for stack in stacks}
        ours, raw = figures.get(OURS), figures.get("raw")
        peers = {stack: figures[stack] for stack in stacks if stack not in (OURS, "raw")}
        met, ratio = metric.goal.judge(ours, raw, peers) if ours is not None else (False, None)
        why = {stack: errors.get((stack, metric.row)) or errors.get((stack, "load")) or "not measured"
               for stack in stacks if figures[stack] is None and stack != "raw"}
        yield {"name": metric.name, "title": metric.title, "ours": ours, "peers": peers, "raw": raw,
               "ratio": ratio, "goal": metric.goal.text, "met": met,
               "spread": {stack: spread(values[stack]) for stack in stacks}, "missing": why}


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(found, stacks):
    """The lines to print."""
    header = ["", *stacks, "ratio", "goal", "met"]
    lines = [header]
    for metric in found:
        figures = {**metric["peers"], OURS: metric["ours"], "raw": metric["raw"]}
        ratio = "-" if metric["ratio"] is None else number(metric["ratio"]) + "x"
        lines.append([metric["title"], *[number(figures[stack]) for stack in stacks], ratio, metric["goal"],
                      "yes" if metric["met"] else "NO"])
    for title, command in ELSEWHERE:
        lines.append([title, *["" for _ in stacks], "", "shown by " + command, ""])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = [f"{cell:<{width}}" if i in (0, len(line) - 2) else f"{cell:>{width}}"
                 for i, (cell, width) in enumerate(zip(line, widths))]
        yield "  ".join(cells).rstrip()
    yield "ratio: to what the goal names, else to the best of the peers"
    for stack, why in sorted({(s, w) for metric in found for s, w in metric["missing"].items()}):
        yield f"- {stack}: {why}"
