"""How far are the numpy engine's logits from llama.cpp's? A Markdown table of all architectures; exit 1 if any is far.

usage: python -m scripts.check_logits [NAME...]         all small models of tests/data, or those named

A row holds an architecture's worst NMSE over its small models, random F32 weights, a prompt of 64 tokens and 32 steps:
with a cache of F32, with one of F16 (both without flash attention), and with flash attention. Takes some minutes.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ggufphys.errors import GGUFPhysError
from tests.refengine import tiny
from tests.refengine.ways import WAYS, agreements, generating, opened

LIMITS: Final = {"F32": 1e-10, "F16": 1e-7, "flash": 1e-7}
TIMEOUT_S: Final = 60.0

Cells = dict[str, float | str | None]  # NMSE by way, or why there is none; None: not run that way


def main(names: Sequence[str]) -> int:
    """Compare and print."""
    found: dict[str, dict[str, Cells]] = {}
    for name in names or list(generating()):
        found.setdefault(name.partition("/")[0], {})[name] = _compare(name)
        print(f"{name}: {found[name.partition('/')[0]][name]}", file=sys.stderr, flush=True)
    print(f"| architecture | models | {' | '.join(WAYS)} |\n|---|--:|{'--:|' * len(WAYS)}")
    for arch, rows in found.items():
        print(f"| {arch} | {len(rows)} | {' | '.join(_worst(list(rows.values()), way) for way in WAYS)} |")
    complaints = [
        f"{name}, {way}: {cell if isinstance(cell, str) else f'NMSE {cell:.1e}, expected at most {LIMITS[way]:.0e}'}"
        for rows in found.values() for name, cells in rows.items() for way, cell in cells.items() if _is_bad(way, cell)
    ]  # fmt: skip
    n_ok = sum(not any(_is_bad(*item) for cells in rows.values() for item in cells.items()) for rows in found.values())
    print(f"\n{n_ok} of {len(found)} architectures within {', '.join(f'{v:.0e} ({k})' for k, v in LIMITS.items())}")
    for complaint in complaints:
        print(f"* {complaint}")
    return 1 if complaints else 0


def _compare(name: str) -> Cells:
    cells: Cells = {}
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.write(Path(folder) / "f32.gguf", name)
        for way, settings in WAYS.items():
            try:
                model = opened(path, way)
                if model.context.flash_attn != settings["flash_attn"]:
                    cells[way] = None
                    continue
                [agreement] = agreements([model], timeout_s=TIMEOUT_S)
                cells[way] = agreement.nmse
            except (GGUFPhysError, ValueError) as error:
                cells[way] = " ".join(str(error).removeprefix(f"{path}: ").split())[-300:]
    return cells


def _is_bad(way: str, cell: float | str | None) -> bool:
    return isinstance(cell, str) or (cell is not None and not cell <= LIMITS[way])


def _worst(rows: Sequence[Cells], way: str) -> str:
    numbers = [cell for cells in rows if isinstance(cell := cells[way], float)]
    return f"{max(numbers):.1e}" if numbers else "-"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
