"""Run as a child, `python -m server.engine.list_devices`: the devices that the installed llama.cpp finds, as JSON."""

import json
import sys
from dataclasses import asdict

from server.engine.devices import available_devices
from server.engine.library import load_library

if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(device) for device in available_devices(load_library())]) + "\n")
