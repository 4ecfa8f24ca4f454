# SPDX-License-Identifier: MIT
"""What the eye should not have to look for: style, sparse, shellcheck, generated files."""
import os
import re
import subprocess

import vm

LINE_COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 80
FILE_LINES_MAX = 900
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def _tracked(tree, *patterns):
    listing = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", *patterns],
                             cwd=tree, check=True, capture_output=True, text=True).stdout
    return [p for p in listing.splitlines() if os.path.isfile(os.path.join(tree, p))]


def _text(tree, path):
    with open(os.path.join(tree, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def _columns(line):
    return len(line.expandtabs(8))


def _style_of_c(path, lines):
    if "SPDX-License-Identifier:" not in lines[0]:
        yield f"{path}:1: no SPDX line"
    if len(lines) > FILE_LINES_MAX:
        yield f"{path}: {len(lines)} lines: more than one noun lives here"
    began = None
    for number, line in enumerate(lines, 1):
        if _columns(line) > LINE_COLUMNS_MAX:
            yield f"{path}:{number}: {_columns(line)} columns, {LINE_COLUMNS_MAX} are the limit"
        if re.match(r"^ {8,}", line) and not line.endswith("\\"):
            yield f"{path}:{number}: indented by spaces"
        if re.match(r"^\s*//", line) and "SPDX" not in line:
            yield f"{path}:{number}: a // comment"
        if re.search(r"\b(if|for|while|switch)\(", line):
            yield f"{path}:{number}: no space before the parenthesis of a keyword"
        if line == "{":
            began = number
        elif line == "}" and began:
            if number - began > FUNCTION_LINES_MAX:
                yield f"{path}:{began}: a function of {number - began} lines"
            began = None


def _style(tree):
    for path in _tracked(tree):
        if not re.search(r"\.(c|h|py|sh|yaml|md)$|^tools/|^\.ci/|^Makefile$|^Kbuild$", path):
            continue
        if "/corpus/" in path:
            continue
        lines = _text(tree, path).splitlines()
        for number, line in enumerate(lines, 1):
            if line != line.rstrip():
                yield f"{path}:{number}: trailing space"
            if UNFINISHED.search(line) and "check.d/lint.py" not in path:
                yield f"{path}:{number}: a mark of unfinished work"
        generated = any("netlink-gen" in line for line in lines[:4])
        if re.search(r"\.[ch]$", path) and lines and not generated:
            yield from _style_of_c(path, lines)


def _shell_scripts(tree):
    for path in _tracked(tree):
        with open(os.path.join(tree, path), "rb") as file:
            first = file.readline()
        if re.match(rb"#!.*\b(ba)?sh\b", first) and b"busybox" not in first:
            yield path


def _sparse(build, run):
    """Sparse over the modules as built for each kernel: types of the wire and the disk."""
    for kind in ("kmod", "test-kmod"):
        folder = os.path.join(build, kind)
        for version in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            tree = os.path.join(folder, version)
            status, output = run(["make", "-C", os.path.join(vm.kernel_modules(version), "build"), f"M={tree}",
                                  "C=2", "CF=-D__CHECK_ENDIAN__", "modules"], timeout=900)
            ours = [line for line in output.splitlines()
                    if re.search(r"(powerfail|kmod/\S+|include/(uapi/)?cohost/\S+)(\.[ch])?:\d+:\d+: (warning|error)", line)]
            yield (f"sparse, {kind}, kernel {version}", status == 0 and not ours, "\n".join(ours) or output[-2000:])


def results(tree, build, run):
    findings = list(_style(tree))
    yield ("style: line lengths, indentation, SPDX, function and file sizes", not findings, "\n".join(findings))
    status, output = run(["shellcheck", "-x", "-P", "SCRIPTDIR", "-S", "warning", *sorted(_shell_scripts(tree))])
    yield ("shellcheck", status == 0, output)
    status, output = run([os.path.join(tree, "tools", "netlink-gen"), "--check"])
    yield ("generated netlink code is what its spec says", status == 0, output)
    yield from _sparse(build, run)
