"""Run as a child, `python -m server.engine.worker.look`: llama.cpp's devices, and what a worker takes without a model.

It imports what the worker does, so what is resident here is what a worker begins with. Linux tells it by its backing.
"""

import importlib
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

from server.engine.llama.devices import available_devices
from server.engine.llama.library import load_library


def resident_kib() -> dict[str, int]:
    """RssAnon and RssFile of this process; empty where the system does not tell."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {name: int(value) for name, value in re.findall(r"^Rss(Anon|File):\s+(\d+) kB$", text, re.MULTILINE)}


if __name__ == "__main__":
    importlib.import_module("server.engine.worker.process")
    devices = [asdict(device) for device in available_devices(load_library())]
    sys.stdout.write(json.dumps({"devices": devices, "resident_kib": resident_kib()}) + "\n")
