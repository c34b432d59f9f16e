"""Benchmark: how long does `ggufphys inspect` take beside an empty Python? Whole processes in turn, ratios by round.

Where the time goes: two more import what the first model's `inspect` does and end there, of Python's library or all.

usage: python -m bench.start [MODEL ...] [--runs N] [--against CHECKOUT] [--json]
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.running.against import HERE, compile_code, inspecting
from bench.running.processes import ProcessRun, run_process
from bench.running.program import existing_checkout, existing_file, run_program
from ggufphys.embedded import MODEL
from ggufphys.report.inspection import dumps, table
from ggufphys.units import format_bytes

EMPTY: Final = "python -c pass"
LIBRARY: Final = "imports of Python's library"
IMPORTS: Final = "all its imports"
HELP: Final = "inspect --help"
# As `ggufphys` itself does, which collects nothing while it imports.
_IMPORT: Final = "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv.pop(1)); import {}"


def main() -> int:
    """Print for each command the medians of its seconds, and of its ratio to the empty Python of the same round."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("models", nargs="*", type=existing_file, default=[MODEL], metavar="MODEL", help="GGUF files")
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="rounds (default 15)")
    parser.add_argument(
        "--against", type=existing_checkout, metavar="CHECKOUT", help="another checkout, in turn with this one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args()
    compile_code(HERE)
    first = inspecting(HERE, "inspect", str(args.models[0]))
    empty = [sys.executable, "-c", "pass"]
    in_any = set(_imported(empty))
    modules = [name for name in _imported(first) if name not in in_any]
    library = [name for name in modules if name.partition(".")[0] != "ggufphys"]
    commands = {
        EMPTY: empty,
        f"{LIBRARY} ({len(library)})": _importing(library),
        f"{IMPORTS} ({len(modules)})": _importing(modules),
    }
    for checkout in (HERE, *([args.against] if args.against else ())):
        compile_code(checkout)
        there = "" if checkout == HERE else ", the other"
        commands[HELP + there] = inspecting(checkout, "inspect", "--help")
        commands.update({f"inspect {m.name}{there}": inspecting(checkout, "inspect", str(m)) for m in args.models})
    rounds = [{name: run_process(command) for name, command in commands.items()} for _ in range(args.runs + 1)][1:]
    rows = [_row(name, rounds) for name in commands]
    if args.json:
        print(dumps(rows))
        return 0
    cells = [
        (
            row["name"],
            f"{row['wall_s']:.3f}",
            f"{row['cpu_s']:.3f}",
            f"{row['ratio']:.1f}",
            format_bytes(row["peak_rss_bytes"]),
        )
        for row in rows
    ]
    print(f"medians of {args.runs} rounds\n")
    print("\n".join(table(("process", "wall s", "CPU s", "x empty", "peak RSS"), cells, right=(1, 2, 3, 4))))
    return 0


def _imported(command: Sequence[str]) -> list[str]:
    """The modules that a process of Python imports, in the order in which they are done."""
    python, *arguments = command
    asked = [python, "-X", "importtime", *arguments]
    said = subprocess.run(asked, check=True, capture_output=True, encoding="utf-8", errors="replace").stderr
    lines = [line for line in said.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines[1:]]  # behind the head of the table


def _importing(modules: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", _IMPORT.format(", ".join(modules)), str(HERE)]


def _row(name: str, rounds: Sequence[Mapping[str, ProcessRun]]) -> dict[str, Any]:
    return {
        "name": name,
        "wall_s": statistics.median(r[name].wall_s for r in rounds),
        "cpu_s": statistics.median(r[name].cpu_s for r in rounds),
        "ratio": statistics.median(r[name].wall_s / r[EMPTY].wall_s for r in rounds),
        "peak_rss_bytes": max(r[name].peak_rss_bytes for r in rounds),
    }


if __name__ == "__main__":
    run_program(main)
