"""Benchmark of truth, not of speed: how far off are compute buffers of architectures that have no graph of their own?

Creates contexts of the first layers of every synth shape over a grid of parameters, and compares llama.cpp's printed
compute buffer with the prediction. Weights are a hole in a sparse file; caches are really allocated.

usage: python -m bench.estimate [--json] [--devices] [SHAPE ...]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench.estimate_devices import all_errors
from bench.running.program import run_program
from ggufphys import Params, UnsupportedError, open_gguf, predict_memory
from ggufphys.logs.lines import logged_buffers, logged_bytes
from ggufphys.report.inspection import dumps, table
from ggufphys.synth.catalogue import Shape, shape_named, shapes
from ggufphys.synth.plan import plan_file
from server.engine.llama.library import create_context, load_model
from server.engine.llama.log import LOG

N_LAYER: Final = 7
BASE: Final = Params(n_ctx=4096, use_extra_bufts=False)
GRID: Final = (
    BASE,
    replace(BASE, n_ctx=1000, n_ubatch=64),
    replace(BASE, n_ctx=8192, n_seq_max=4),
    replace(BASE, n_seq_max=4, kv_unified=True),
    replace(BASE, n_ctx=2048, type_k="q8_0", type_v="q8_0"),
    replace(BASE, n_ctx=2048, flash_attn="off", n_ubatch=128),
    replace(BASE, n_ctx=16384, n_batch=1024, n_ubatch=1024),
    replace(BASE, n_outputs_max=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeErrors:
    """Relative errors of one shape, one for each configuration that llama.cpp accepts."""

    shape: str
    architecture: str
    basis: str
    errors: tuple[float, ...]


def shape_errors(shape: Shape, folder: Path) -> ShapeErrors | None:
    """Compare one shape over the grid; None when its architecture has no rule yet."""
    plan = plan_file(shape.cut(min(N_LAYER, shape.n_layer)), "Q4_K_M")
    path = folder / f"{shape.name}.gguf"
    path.write_bytes(plan.header)
    os.truncate(path, plan.file_bytes)
    errors, basis = [], ""
    with open_gguf(path) as gguf, load_model(path, BASE) as model:
        for params in GRID:
            try:
                prediction = predict_memory(gguf, params)
            except UnsupportedError:
                return None
            except ValueError:
                continue  # llama.cpp refuses it too: tests/ggufphys/memory holds us to that
            basis = prediction.basis["compute"]
            mark = LOG.mark
            create_context(model, params).close()
            measured = logged_bytes(logged_buffers(line.text for line in LOG.since(mark)), "compute")
            assert measured is not None, f"{shape.name}: no compute buffer in llama.cpp's log"
            difference = prediction.compute_bytes - measured[0]
            errors.append(0.0 if abs(difference) <= measured[1] else difference / measured[0])
    path.unlink()
    return ShapeErrors(shape=shape.name, architecture=shape.architecture, basis=basis, errors=tuple(errors))


def main() -> int:
    """Print a row a shape, and the band over all that are estimates."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--devices", action="store_true", help="of devices instead: two RPC workers on loopback")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="shapes of `ggufphys synth` (default: all)")
    args = parser.parse_args()
    chosen = tuple(map(shape_named, args.shapes)) or tuple(shapes().values())
    if args.devices:
        return _devices(chosen, as_json=args.json)
    with tempfile.TemporaryDirectory() as folder:
        results = [r for shape in chosen if (r := shape_errors(shape, Path(folder))) is not None]
    if args.json:
        print(dumps([asdict(result) for result in results]))
        return 0
    rows = [
        (
            r.shape,
            r.architecture,
            r.basis,
            f"{sum(e == 0 for e in r.errors)}/{len(r.errors)}",
            f"{100 * min(r.errors):+.1f}",
            f"{100 * max(r.errors):+.1f}",
        )
        for r in results
    ]
    print("\n".join(table(("shape", "architecture", "basis", "exact", "min %", "max %"), rows, right=(3, 4, 5))))
    estimates = [abs(e) for r in results if r.basis == "estimate" for e in r.errors]
    within = sum(e <= 0.1 for e in estimates)
    if not estimates:
        print("\nno estimates: every shape's architecture has a graph of its own")
        return 0
    print(
        f"\nestimates: {sum(e == 0 for e in estimates)} of {len(estimates)} exact, {within} within 10 %, "
        f"median {100 * statistics.median(estimates):.2f} %, worst {100 * max(estimates):.1f} %"
    )
    return 0


def _devices(chosen: Sequence[Shape], *, as_json: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        results = list(all_errors(chosen, Path(folder)))
    if as_json:
        print(dumps([asdict(result) for result in results]))
        return 0
    rows = [
        (
            r.shape, r.architecture, r.basis, "allocated" if r.allocated else "reckoned", f"{r.n_exact}/{r.n_runs}",
            f"{100 * min(r.errors):+.1f}", f"{100 * max(r.errors):+.1f}",
        )
        for r in results
    ]  # fmt: skip
    header = ("shape", "architecture", "basis", "llama.cpp", "exact", "min %", "max %")
    print("\n".join(table(header, rows, right=(4, 5, 6))))
    return 0


if __name__ == "__main__":
    run_program(main)
