#!/bin/sh
# psutil's `uss` is "the memory which is unique to a process and which would be freed if the process was terminated right now", and so the one to
# compare servers by, rather than `rss`, which counts shared pages. Of a model that is mapped, as llama.cpp and safetensors do, it counts every page that
# the process has read, though those are the page cache's and stay when it ends. And it counts them only as long as no other process maps the file: with
# a second server, or with `cat`'s like that maps it, the first one's gigabytes are gone from `uss` without its having done anything. `pss` is halved.
# Source: psutil 7.2.2 psutil/_pslinux.py, Process.memory_full_info (Private_ of /proc/PID/smaps); Linux, Documentation/filesystems/proc.rst
# (Private_Clean: pages mapped by one process).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'psutil==7.2.2'
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.metadata
import mmap
import os
import subprocess
import sys

import psutil

SIZE = 256 * 2**20
READ = """
import mmap
with open({path!r}, "rb") as file:
    model = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(model[place] for place in range(0, len(model), mmap.PAGESIZE))
"""
path = f"{sys.argv[1]}/model"
with open(path, "wb") as file:
    for _ in range(SIZE // 2**20):
        file.write(os.urandom(2**20))
read = READ.format(path=path)


def megabytes():
    found = psutil.Process().memory_full_info()
    return {name: round(getattr(found, name) / 1e6) for name in ("rss", "uss", "pss")}


exec(read)
alone = megabytes()
with subprocess.Popen([sys.executable, "-c", read + "print(flush=True)\ninput()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
    other.stdout.readline()
    beside = megabytes()
    other.communicate(b"\n")
print("version:   psutil", importlib.metadata.version("psutil"))
print("expected:  what is unique to a process doesn't depend on what others read, and a mapped file's pages are no process' own")
print("behaviour: they are unique memory until another process maps the file")
print(f"seen:      MB with a file of {SIZE / 1e6:.0f} mapped and read: {alone}, with another process that reads it, too: {beside}")
sys.exit(not (alone["uss"] > SIZE / 1e6 > 4 * beside["uss"] and beside["rss"] == alone["rss"]))
PYTHON
