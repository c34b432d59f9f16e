"""How good are guesses about architectures without a rule? Those that have one, under a name that nobody knows.

usage: python -m scripts.check_guesses [-v] [NAME...]       -v: each model; default: all

Compares contexts and compute buffers of the small models of `tests/data` with what the pinned llama.cpp says of them.
Needs no llama.cpp, and a minute.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.running.program import run_program
from ggufphys import GGUFError, open_gguf
from ggufphys.arch.guess import guess
from ggufphys.gguf.writer import encode_header
from ggufphys.memory.predict import Predictor
from tests import archs

NAME = "nobody-knows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of each row of one model: how far off are context and compute bytes, relative to llama.cpp's?"""

    context: tuple[float, ...]
    compute: tuple[float, ...]


def main() -> int:
    """Guess, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", action="store_true", dest="verbose", help="each model")
    parser.add_argument(
        "names",
        nargs="*",
        type=archs.known_name,
        metavar="NAME",
        help="small models of tests/data/archs.toml (default: all)",
    )
    args = parser.parse_args()
    found: dict[str, Errors] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or archs.records():
            try:
                errors = compare(name, Path(folder, "model.gguf"))
            except GGUFError as error:
                print(f"{name}: no guess: {str(error).partition(': ')[2]}")
                continue
            if errors.compute:
                found[name] = errors
                if args.verbose:
                    spread = f"{100 * min(errors.compute):+.0f} to {100 * max(errors.compute):+.0f} %"
                    print(f"{name}: context {_exact(errors.context)}, compute {spread}")
    contexts = [e for errors in found.values() for e in errors.context]
    middles = [statistics.median(map(abs, errors.compute)) for errors in found.values()]
    print(f"{len(found)} models: context {_exact(contexts)}")
    print(
        f"compute, a model's median error: median {100 * statistics.median(middles):.0f} %, "
        f"within 10 % for {sum(e <= 0.1 for e in middles)} models, within 25 % for {sum(e <= 0.25 for e in middles)}"
    )
    return 0


def renamed(name: str, path: Path) -> Path:
    """The recorded model's header, of an architecture that nobody knows."""
    model = archs.models()[name]
    own = f"{model.arch}."
    metadata = {f"{NAME}.{k.removeprefix(own)}" if k.startswith(own) else k: v for k, v in model.metadata.items()}
    path.write_bytes(encode_header({**metadata, "general.architecture": NAME}, archs.records()[name].tensors))
    return path


def compare(name: str, path: Path) -> Errors:
    """The errors of one model, over the rows that llama.cpp gives numbers for.

    Raises:
        GGUFError: nothing can be guessed.
    """
    context, compute = [], []
    with open_gguf(renamed(name, path)) as gguf:
        guessed = guess(gguf)
        predictor = Predictor(gguf, guessed=(guessed.row, guessed.h))
        for params, row in zip(archs.GRID, archs.records()[name].rows, strict=True):
            if isinstance(row, str) or params.ctx_type != "default":
                continue
            try:
                memory = predictor.predict(params)
            except ValueError:  # such types of cache do not go with what is guessed
                continue
            context.append(memory.context_bytes / row[1] - 1 if row[1] else float(memory.context_bytes > 0))
            compute.append(memory.compute_bytes / row[2] - 1)
    return Errors(context=tuple(context), compute=tuple(compute))


def _exact(errors: list[float] | tuple[float, ...]) -> str:
    return f"{sum(e == 0 for e in errors)} of {len(errors)} rows exact"


if __name__ == "__main__":
    run_program(main)
