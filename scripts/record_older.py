"""Record what builds before b8840 say of the small models that they do not load as recorded.

usage: python -m scripts.record_older N... [--c-library FOLDER] [--wheels FOLDER]

As `scripts.record_build`, for models without biases, or without all that may be missing; rows go into
`tests/data/older.json.gz`. FOLDER may have the wheels unpacked already, as bN. Five processor seconds a build.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.running.program import existing_folder, run_program
from ggufphys.gguf.writer import data_bytes
from scripts.record_build import add_c_library, ask_about, fetch
from tests import builds, older


def main() -> int:
    """Fetch, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", type=int, nargs="+", metavar="N", help="builds that have a record")
    add_c_library(parser)
    parser.add_argument("--wheels", type=existing_folder, metavar="FOLDER", help="a folder with them, unpacked already")
    args = parser.parse_args()
    for build in args.builds:
        with tempfile.TemporaryDirectory() as folder:
            wheel = args.wheels / f"b{build}" if args.wheels else fetch(build, Path(folder))
            found: dict[str, tuple[str, tuple[builds.Row, ...]]] = {}
            for form in older.FORMS:
                left = [name for name in older.refused(build) if name not in found]
                found |= {name: (form, rows) for name, rows in _ask(left, form, wheel, args.c_library).items()}
        older.write({**older.records(), build: found})
        older.records.cache_clear()
        print(f"b{build}: {len(found)} models of {len(older.refused(build))} that are refused as recorded", flush=True)
    return 0


def _ask(names: Iterable[str], form: str, wheel: Path, c_library: Path | None) -> builds.Rows:
    """Rows of the models that are loaded in this form."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, name in enumerate(names):
            files[name], start = Path(folder, f"{number}.gguf"), older.header(name, form)
            with files[name].open("wb") as file:
                file.write(start)
                file.truncate(len(start) + data_bytes(older.tensors(name, form)))
        rows = ask_about(files, wheel, c_library)
    return {name: own for name, own in rows.items() if not all(isinstance(row, str) for row in own)}


if __name__ == "__main__":
    run_program(main)
