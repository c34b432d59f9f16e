"""How long does a prediction for a model of 100 layers take? Of every architecture, the slowest; exit 1 above the bar.

usage: python -m scripts.time_deep [-n LAYERS] [--top N] [NAME ...]

The models are the small ones in `tests/data` with their middle layers repeated; those with layers that the trunk does
not run are left out. Seconds of processor time with the file open, the faster of two runs, the slowest of three
configurations.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.running.program import run_program
from ggufphys import GGUFError, Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.graph.models import MODELS
from ggufphys.report.inspection import table
from tests import archs

BAR_S: Final = 0.15
RUNS: Final = (
    Params(n_ctx=4096),
    Params(n_ctx=2048, n_ubatch=128, flash_attn="off"),
    Params(n_ctx=8192, n_seq_max=4, type_k="q8_0", type_v="q8_0"),
)


def main() -> int:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", type=archs.known_name, metavar="NAME", help="models of tests/data/archs.toml (default: all)"
    )
    parser.add_argument("-n", type=int, default=100, metavar="LAYERS", help="layers (default 100)")
    parser.add_argument(
        "--top", type=int, default=12, metavar="N", help="rows to print, the slowest first (default 12)"
    )
    args = parser.parse_args()
    names = args.names or [name for name, model in archs.models().items() if model.arch in MODELS]
    with tempfile.TemporaryDirectory() as folder:
        rows = sorted(timed(names, args.n, Path(folder) / "deep.gguf"), reverse=True)
    print("\n".join(table(("model", "ms"), [(name, f"{1e3 * s:.1f}") for s, name in rows[: args.top]], right=(1,))))
    print(f"\n{len(rows)} models of {args.n} layers; above {1e3 * BAR_S:g} ms: {sum(s > BAR_S for s, _ in rows)}")
    return 1 if any(s > BAR_S for s, _ in rows) else 0


def timed(names: list[str], n_layer: int, path: Path) -> Iterator[tuple[float, str]]:
    """Seconds and name of each model that can be repeated and is not refused."""
    for name in names:
        try:
            path.write_bytes(archs.deepened(name, n_layer))
        except ValueError:
            continue
        seconds = [s for params in RUNS if (s := fastest(path, params)) is not None]
        if seconds:
            yield max(seconds), name


def fastest(path: Path, params: Params) -> float | None:
    """Seconds of the faster of two predictions; None where it is refused."""
    found = []
    for _ in range(2):
        with open_gguf(path) as gguf:
            start = time.process_time()
            try:
                predict_memory(gguf, params)
            except (ValueError, UnsupportedError, GGUFError):  # layers that repeat need not make a model
                return None
            found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    run_program(main)
