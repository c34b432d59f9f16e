"""Record what llama.cpp accounts for the small models of `tests/data/archs.toml` on devices that exist on paper.

usage: python -m scripts.record_paper FOLDER [DEVICE...]       which `python -m scripts.build_paper FOLDER` has filled

Buffers are really allocated, nothing is computed; a device takes two minutes or three.
"""

import argparse
import tempfile
from pathlib import Path

from scripts.build_paper import PAPERS, Paper
from tests import archs, device_rows, paper


def record(name: str, device: Paper, folder: Path) -> list[device_rows.Row]:
    """The rows of a small model."""
    with tempfile.TemporaryDirectory() as own:
        path = Path(own, "model.gguf")
        archs.write(path, name, archs.records()[name].tensors)
        environment = paper.environment(device, folder)
        return list(device_rows.asked(path, paper.grid(device), environment, no_alloc=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where scripts.build_paper has left them")
    names = [device.name for device in PAPERS]
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help=f"of {', '.join(names)} (default: all)")
    args = parser.parse_args()
    for device in PAPERS:
        if args.devices and device.name not in args.devices:
            continue
        path = paper.path_of(device)
        device_rows.write(path, {name: record(name, device, args.folder) for name in archs.records()})
        print(f"{path}: {path.stat().st_size:,} bytes")
