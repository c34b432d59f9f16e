"""Record what llama.cpp accounts for the small models of `tests/data/archs.toml` on devices that exist on paper.

usage: python -m scripts.record_paper FOLDER [DEVICE...]       which `python -m scripts.build_paper FOLDER` has filled

Buffers are really allocated, nothing is computed; a device takes two minutes or three.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Final

from bench.running.program import run_program
from scripts.build_paper import PAPERS, Paper, library_of
from tests import archs, device_rows, paper

_NAMES: Final = tuple(device.name for device in PAPERS)


def record(name: str, device: Paper, folder: Path) -> list[device_rows.Row]:
    """The rows of a small model."""
    with tempfile.TemporaryDirectory() as own:
        path = Path(own, "model.gguf")
        archs.write(path, name, archs.records()[name].tensors)
        environment = paper.environment(device, folder)
        return list(device_rows.asked(path, paper.grid(device), environment, no_alloc=False))


def _known(text: str) -> Paper:
    if text not in _NAMES:
        raise argparse.ArgumentTypeError(f"no device on paper is named {text!r}: there are {', '.join(_NAMES)}")
    return PAPERS[_NAMES.index(text)]


def main() -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where scripts.build_paper has left them")
    parser.add_argument(
        "devices", nargs="*", type=_known, metavar="DEVICE", help=f"of {', '.join(_NAMES)} (default: all)"
    )
    args = parser.parse_args()
    devices = args.devices or PAPERS
    for device in devices:
        if not (library := library_of(device, args.folder)).is_file():
            raise FileNotFoundError(f"{library}: not there; `python -m scripts.build_paper {args.folder}` makes it")
    for device in devices:
        path = paper.path_of(device)
        device_rows.write(path, {name: record(name, device, args.folder) for name in archs.records()})
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_program(main)
