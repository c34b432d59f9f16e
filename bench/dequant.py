"""How fast is refengine's dequantisation beside gguf's numpy code and ggml's C functions on one thread?

`python -m bench.dequant [--json]`. Times include the allocation of the F32 result and its page faults, as a caller sees
them, except in "into out=", where ours writes into one array again and again, as an engine does. They are seconds of
processor time, of which all three take one thread's, so that other programs disturb little. All take turns within each
repetition; medians of the repetitions, ratios of medians.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import thread_time
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from bench.running.program import run_program
from ggufphys.errors import UnsupportedError
from ggufphys.gguf import SIZES, GGMLType
from refengine import dequantize
from refengine.blocks import BLOCKS, F32, U8
from refengine.dequant.table import FORMATS
from refengine.peers import ggml, gguf_py

N_WEIGHTS: Final = 1 << 24
ROW_WEIGHTS: Final = 4096  # of the tensor: gguf works on 16 rows at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One type's rates in bytes of F32 written a second; gguf's is None where it has no code for the type."""

    type: str
    ours_bytes_per_s: float
    out_bytes_per_s: float
    gguf_bytes_per_s: float | None
    ggml_bytes_per_s: float

    @property
    def ours_over_gguf(self) -> float | None:
        """How many times as fast as gguf."""
        return self.ours_bytes_per_s / self.gguf_bytes_per_s if self.gguf_bytes_per_s else None

    @property
    def out_over_gguf(self) -> float | None:
        """How many times as fast as gguf our code is where it writes into an `out=` that is there."""
        return self.out_bytes_per_s / self.gguf_bytes_per_s if self.gguf_bytes_per_s else None

    @property
    def ours_over_ggml(self) -> float:
        """How many times as fast as C on one thread."""
        return self.ours_bytes_per_s / self.ggml_bytes_per_s


def plausible_blocks(ggml_type: GGMLType, n_weights: int) -> U8:
    """Random blocks with scales like a model's (normal, sd 0.02): NaNs and subnormals have their own speed."""
    size = SIZES[ggml_type]
    rng = np.random.default_rng(0)
    blocks = np.frombuffer(rng.bytes(n_weights // size.block_size * size.type_size), BLOCKS[ggml_type]).copy()
    scales = (rng.standard_normal(len(blocks)) * 0.02).astype(np.float32)
    if ggml_type is GGMLType.BF16:
        blocks["w"] = scales.view(np.uint32) >> 16
    for name in blocks.dtype.names or ():
        if blocks.dtype[name].base.kind == "f":
            blocks[name] = scales.reshape(-1, *[1] * (blocks[name].ndim - 1))
    return blocks.view(np.uint8)


def measure(ggml_type: GGMLType, n_weights: int, repetitions: int) -> Speed:
    """Time them on the same blocks, in turns."""
    raw = plausible_blocks(ggml_type, n_weights)
    rows = raw.reshape(n_weights // ROW_WEIGHTS, -1)
    to_float = ggml.to_float(ggml_type)
    out = np.zeros(n_weights, np.float32)

    def c_function() -> None:
        w = np.empty(n_weights, np.float32)
        to_float(raw.ctypes.data, w.ctypes.data, w.size)

    def gguf() -> F32:
        weights = gguf_py.dequantize(ggml_type, rows)
        return weights.copy() if ggml_type is GGMLType.F32 else weights  # a view of F32 is no conversion

    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: dequantize(ggml_type, raw),
        "out": lambda: dequantize(ggml_type, raw, out=out),
        "ggml": c_function,
    }
    try:
        gguf()
        calls["gguf"] = gguf
    except UnsupportedError:
        pass
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            start = thread_time()
            call()
            times[name].append(thread_time() - start)
    rates = {name: 4 * n_weights / median(seconds) for name, seconds in times.items()}
    return Speed(
        type=ggml_type.name,
        ours_bytes_per_s=rates["ours"],
        out_bytes_per_s=rates["out"],
        gguf_bytes_per_s=rates.get("gguf"),
        ggml_bytes_per_s=rates["ggml"],
    )


def as_json(speeds: Sequence[Speed], n_weights: int) -> dict[str, Any]:
    """The results as JSON's types."""
    return {
        "schema_version": 1,
        "n_weights": n_weights,
        "versions": versions(),
        "median_ours_over_gguf": middle(s.ours_over_gguf for s in speeds),
        "median_out_over_gguf": middle(s.out_over_gguf for s in speeds),
        "rows": [
            asdict(s)
            | {
                "ours_over_gguf": s.ours_over_gguf,
                "out_over_gguf": s.out_over_gguf,
                "ours_over_ggml": s.ours_over_ggml,
            }
            for s in speeds
        ],
    }


def as_text(speeds: Sequence[Speed], n_weights: int) -> str:
    """The results as a table."""

    def cell(value: float | None, unit: float = 1.0) -> str:
        return "-" if value is None else f"{value / unit:.2f}"

    lines = [
        f"{n_weights:,} weights of each type; GB/s of F32 written; " + ", ".join(map(" ".join, versions().items()))
    ]
    header = ("type", "ours", "into out=", "gguf", "ggml C", "ours/gguf", "out=/gguf", "ours/C")
    lines.append(f"{header[0]:8}" + "".join(f"{h:>11}" for h in header[1:]))
    for s in speeds:
        rates = (s.ours_bytes_per_s, s.out_bytes_per_s, s.gguf_bytes_per_s, s.ggml_bytes_per_s)
        ratios = (s.ours_over_gguf, s.out_over_gguf, s.ours_over_ggml)
        cells = [cell(rate, 1e9) for rate in rates] + [cell(ratio) for ratio in ratios]
        lines.append(f"{s.type:8}" + "".join(f"{c:>11}" for c in cells))
    medians = middle(s.ours_over_gguf for s in speeds), middle(s.out_over_gguf for s in speeds)
    lines.append(f"{'median':52}" + "".join(f"{cell(m):>11}" for m in medians))
    return "\n".join(lines)


def middle(ratios: Iterable[float | None]) -> float | None:
    """The median of those that exist."""
    known = [ratio for ratio in ratios if ratio is not None]
    return median(known) if known else None


def versions() -> dict[str, str]:
    """What was measured."""
    return {"llama_cpp": ggml.version(), "gguf": gguf_py.version(), "numpy": np.__version__}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every type, print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.dequant", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--weights", type=int, default=N_WEIGHTS, metavar="N", help="weights of each type (2^24)")
    parser.add_argument("--repetitions", type=int, default=9, metavar="R", help="of each measurement (9)")
    args = parser.parse_args(argv)
    n_weights = max(ROW_WEIGHTS, args.weights // ROW_WEIGHTS * ROW_WEIGHTS)
    bar = tqdm(FORMATS, unit="type", leave=False, disable=None)
    speeds = [measure(t, n_weights, max(1, args.repetitions)) for t in bar]
    text = json.dumps(as_json(speeds, n_weights), indent=2) if args.json else as_text(speeds, n_weights)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    run_program(main)
