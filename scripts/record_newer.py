"""Record what newer builds of llama.cpp say of architectures that the pinned one does not know.

usage: python -m scripts.record_newer N... [--c-library FOLDER] [--wheels FOLDER]

As `scripts.record_build`, for the small models of `tests/data/newer.toml`; all rows go into `tests/data/newer.json`.
FOLDER may have the wheels unpacked already, as bN.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from bench.running.program import existing_folder, run_program
from scripts.record_build import add_c_library, ask_about, fetch
from tests import newer


def main() -> int:
    """Fetch, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", type=int, nargs="+", metavar="N", help="builds that PyPI has wheels of")
    add_c_library(parser)
    parser.add_argument("--wheels", type=existing_folder, metavar="FOLDER", help="a folder with them, unpacked already")
    args = parser.parse_args()
    found = json.loads(newer.RECORDS.read_text()) if newer.RECORDS.exists() else {}
    for build in args.builds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wheel = args.wheels / f"b{build}" if args.wheels else fetch(build, folder)
            files = {}
            for number, model in enumerate(newer.models()):
                files[model] = folder / f"{number}.gguf"
                newer.write(files[model], model)
            found[str(build)] = ask_about(files, wheel, args.c_library)
            print(
                f"b{build}: {sum(not isinstance(row, str) for rows in found[str(build)].values() for row in rows)} rows"
            )
    lines = [
        f'"{build}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(rows)}' for name, rows in found[build].items())
        + "\n}"
        for build in sorted(found, key=int)
    ]
    newer.RECORDS.write_text("{" + ",\n".join(lines) + "}" + os.linesep)
    return 0


if __name__ == "__main__":
    run_program(main)
