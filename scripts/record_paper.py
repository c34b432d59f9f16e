"""Record what llama.cpp accounts for the small models of `tests/data/archs.toml` on devices that exist on paper.

usage: python -m scripts.record_paper FOLDER [DEVICE...]       which `python -m scripts.build_paper FOLDER` has filled

Buffers are really allocated, nothing is computed; a device takes two minutes or three.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.build_paper import PAPERS, Paper
from tests import archs, oracle, paper
from tests.vulkan import Row, row_of


def rows(path: Path, device: Paper, folder: Path) -> Iterator[Row]:
    """A row for each of the configurations of one file."""
    left = list(paper.grid(device).values())
    environment = paper.environment(device, folder)
    while left:
        answers, died = oracle.ask_until_death(path, left, environment, no_alloc=False)
        yield from (row_of(answer, params) for answer, params in zip(answers, left, strict=False))
        if died:
            yield row_of(None, left[len(answers)])
        left = left[len(answers) + died :]


def record(name: str, device: Paper, folder: Path) -> list[Row]:
    """The rows of a small model."""
    with tempfile.TemporaryDirectory() as own:
        path = Path(own, "model.gguf")
        archs.write(path, name, archs.records()[name].tensors)
        return list(rows(path, device, folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where scripts.build_paper has left them")
    names = [device.name for device in PAPERS]
    parser.add_argument("devices", nargs="*", metavar="DEVICE", help=f"of {', '.join(names)} (default: all)")
    args = parser.parse_args()
    for device in PAPERS:
        if args.devices and device.name not in args.devices:
            continue
        paper.write(device, {name: record(name, device, args.folder) for name in archs.records()})
        print(f"{paper.path_of(device)}: {paper.path_of(device).stat().st_size:,} bytes")
