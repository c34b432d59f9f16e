"""Record what llama.cpp's Vulkan backend accounts for the small models of `tests/data/archs.toml`, on lavapipe.

usage: python -m scripts.record_vulkan LIBRARY [NAME...]     all models, or those named; the others keep their records

LIBRARY is what `python -m scripts.build_vulkan FOLDER` printed. Nothing is allocated; a model takes a second or two.
"""

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.running.program import existing_file, run_program
from tests import archs, device_rows, vulkan


def record(library: Path, name: str) -> list[device_rows.Row]:
    """A row for each of `vulkan.GRID`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        archs.write(path, name, archs.records()[name].tensors)
        return list(device_rows.asked(path, vulkan.GRID, vulkan.environment(library, as_discrete=True)))


def main() -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=existing_file, metavar="LIBRARY", help="what scripts.build_vulkan printed")
    parser.add_argument("names", nargs="*", type=archs.known_name, metavar="NAME", help="small models (default: all)")
    args = parser.parse_args()
    known = {name: list(rows.values()) for name, rows in vulkan.records().items()} if args.names else {}
    wanted = args.names or list(archs.records())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, rows in zip(wanted, pool.map(lambda n: record(args.library, n), wanted), strict=True):
            print(name, *(row if isinstance(row, str) else "ok" for row in rows), flush=True)
            known[name] = rows
    ordered = {name: known[name] for name in archs.records() if name in known}
    device_rows.write(vulkan.RECORDS, ordered, device="lavapipe, Mesa 22.3.6")


if __name__ == "__main__":
    run_program(main)
