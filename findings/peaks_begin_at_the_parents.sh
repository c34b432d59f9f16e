#!/bin/sh
# How much memory a program needs at most is what getrusage says of it when it has ended, ru_maxrss, as `time -v`, os.wait4 and each benchmark that starts
# programs by subprocess take it. On Linux this peak isn't begun anew by exec: it begins at the peak of the process that started the program. A benchmark that
# holds a model of 4 GB and measures `true` reports 4 GB, and goes on to report them for all that need less, after it has freed its own. VmHWM in
# /proc/PID/status, read while the program runs, is its own; so is ru_maxrss under a parent that holds nothing.
# Source: Linux fs/exec.c, exec_mmap (setmax_mm_hiwater_rss of the old memory); CPython Lib/subprocess.py (vfork).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'psutil==7.2.2'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import json
import platform
import subprocess
import sys

CHILD = """
import json, resource
import psutil
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([round(kib / 1024) for kib in (psutil.Process().memory_info().rss / 1024, int(own.split()[1]), peak)]))
"""


def measured():
    """MiB of a small program: what it holds, its peak by VmHWM, its peak by ru_maxrss."""
    return json.loads(subprocess.run([sys.executable, "-c", CHILD], capture_output=True, check=True).stdout)


before = measured()
model = bytearray(b"1") * (512 * 2**20)
beside = measured()
del model
after = measured()
print("version:   Linux", platform.release().split("-")[0] + ", Python", platform.python_version() + ", psutil", importlib.metadata.version("psutil"))
print("expected:  a program's peak is its own")
print("behaviour: by ru_maxrss it is at least the peak of whoever started it")
print(f"seen:      MiB that a small program holds, its peak by VmHWM and by ru_maxrss: {before}, started beside 512 MiB {beside}, after those were freed {after}")
sys.exit(not (max(before + beside[:2] + after[:2]) < 256 and min(beside[2], after[2]) >= 512))
PYTHON
