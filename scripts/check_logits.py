"""How far are the numpy engine's logits from llama.cpp's? A Markdown table of all architectures; exit 1 if any is far.

usage: python -m scripts.check_logits [NAME...]         all small models of tests/data, or those named

A row holds an architecture's worst NMSE over its small models, random F32 weights, a prompt of 64 tokens and 32 steps:
with a cache of F32, with one of F16 (both without flash attention), and with flash attention. Takes some minutes.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.running.program import run_program
from ggufphys.errors import GGUFPhysError
from refengine.peers.llama_logits import LlamaError
from tests import archs
from tests.refengine import tiny
from tests.refengine.ways import (
    ABORTS,
    AMPLIFIES,
    LLAMA_DOES_NOT,
    WAYS,
    agreements,
    arch_of,
    generating,
    opened,
    ways_of,
)

LIMITS: Final = {"F32": 1e-10, "F16": 1e-7, "flash": 1e-7}
TIMEOUT_S: Final = 60.0

Cell = float | GGUFPhysError | ValueError | None  # NMSE, or why there is none; None: not run that way
Cells = dict[str, Cell]  # by way


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", type=archs.known_name, metavar="NAME", help="small models of tests/data (default: all)"
    )
    names: list[str] = parser.parse_args().names
    found: dict[str, dict[str, Cells]] = {}
    for name in names or list(generating()):
        found.setdefault(arch_of(name), {})[name] = _compare(name)
        print(f"{name}: {found[arch_of(name)][name]}", file=sys.stderr, flush=True)
    print(f"| architecture | models | {' | '.join(WAYS)} |\n|---|--:|{'--:|' * len(WAYS)}")
    for arch, rows in found.items():
        print(f"| {arch} | {len(rows)} | {' | '.join(_worst(list(rows.values()), way) for way in WAYS)} |")
    cells = [(name, way, cell) for rows in found.values() for name, row in rows.items() for way, cell in row.items()]
    wrong = {name: f"{name}, {way}: {_said(way, cell)}" for name, way, cell in cells if _is_wrong(way, cell)}
    n_ok = sum(not wrong.keys() & rows.keys() for rows in found.values())
    print(f"\n{n_ok} of {len(found)} architectures within {', '.join(f'{v:.0e} ({k})' for k, v in LIMITS.items())}")
    for line in wrong.values():
        print(f"* {line}")
    print("\nLeft out, since llama.cpp does not compute them:")
    for name, why in LLAMA_DOES_NOT.items():
        print(f"* {name}: {why}")
    for name, way in ABORTS.items():
        print(f"* {name}, {way}: llama_decode aborts")
    for name, way, cell in cells:
        if isinstance(cell, LlamaError):
            print(f"* {name}, {way}: {_said(way, cell)}")
    return 1 if wrong else 0


def _compare(name: str) -> Cells:
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.write(Path(folder) / "f32.gguf", name)
        cells: Cells = dict.fromkeys(WAYS)
        ways = [way for way in ways_of(name) if opened(path, way).context.flash_attn == WAYS[way]["flash_attn"]]
        for together in (ways, *([way] for way in ways)):  # one by one if a way ends llama.cpp, or takes too long
            try:
                models = [opened(path, way, emulate=arch_of(name) in AMPLIFIES) for way in together]
                found = agreements(models, timeout_s=TIMEOUT_S)
            except (GGUFPhysError, ValueError) as error:
                cells.update(dict.fromkeys(together, error))
                continue
            cells.update(zip(together, (row.nmse for row in found), strict=True))
            if together is ways:
                break
        return cells


def _is_wrong(way: str, cell: Cell) -> bool:
    if isinstance(cell, float):
        return not cell <= LIMITS[way]
    return isinstance(cell, Exception) and not isinstance(cell, LlamaError)


def _said(way: str, cell: Cell) -> str:
    if isinstance(cell, float):
        return f"NMSE {cell:.1e}, expected at most {LIMITS[way]:.0e}"
    return " ".join(str(cell).split(": ", 1)[-1].split())[-200:]


def _worst(rows: Sequence[Cells], way: str) -> str:
    numbers = [cell for cells in rows if isinstance(cell := cells[way], float)]
    return f"{max(numbers):.1e}" if numbers else "-"


if __name__ == "__main__":
    run_program(main)
