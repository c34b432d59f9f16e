"""Run as a child, `python -m server.engine.llama.list_devices`: the devices that llama.cpp finds, as JSON."""

import json
import sys
from dataclasses import asdict

from server.engine.llama.devices import available_devices
from server.engine.llama.library import load_library

if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(device) for device in available_devices(load_library())]) + "\n")
