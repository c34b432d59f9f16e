"""How fast does the numpy engine generate beside llama.cpp?

`python -m bench.engine [MODEL ...] [--against CHECKOUT] [--json]`, the embedded model by default. Both get the same
tokens and the same number of threads, OpenBLAS by its environment variable: a prompt that warms up, a prompt that is
timed behind it, then steps of one token. They take turns; rates are medians over repetitions. Weights are held as F32.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

import refengine
from bench.running.against import in_turn
from bench.running.program import existing_checkout, existing_file, run_program
from ggufphys.embedded import MODEL
from refengine.batch import Tokens
from refengine.peers.llama_logits import LlamaRequest, llama_logits

BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"
N_PROMPT: Final = 256
N_DECODE: Final = 64
REPETITIONS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpeed:
    """Tokens a second of one model, ours and llama.cpp's."""

    model: str
    n_threads: int
    prefill_tok_per_s: float
    llama_prefill_tok_per_s: float
    decode_tok_per_s: float
    llama_decode_tok_per_s: float

    @property
    def prefill_ratio(self) -> float:
        """Ours over llama.cpp's."""
        return self.prefill_tok_per_s / self.llama_prefill_tok_per_s

    @property
    def decode_ratio(self) -> float:
        """Ours over llama.cpp's."""
        return self.decode_tok_per_s / self.llama_decode_tok_per_s


def measure(path: Path, n_threads: int, repetitions: int = REPETITIONS) -> EngineSpeed:
    """Measure one model. Raises as `refengine.load` and `llama_logits` do."""
    model = refengine.load(path, n_ctx=2 * N_PROMPT + N_DECODE, n_threads=n_threads)
    batches = _batches(model.h.n_vocab)
    request = LlamaRequest(path=path, context=model.context, batches=batches, n_threads=n_threads)
    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(_seconds(model, batches))
        [run] = llama_logits([request])
        theirs.append(run.seconds)
    rates = [
        (N_PROMPT / median(run[1] for run in runs), 1 / median(median(run[2:]) for run in runs))
        for runs in (ours, theirs)
    ]
    return EngineSpeed(
        model=path.stem,
        n_threads=n_threads,
        prefill_tok_per_s=rates[0][0],
        llama_prefill_tok_per_s=rates[1][0],
        decode_tok_per_s=rates[0][1],
        llama_decode_tok_per_s=rates[1][1],
    )


def _batches(n_vocab: int) -> list[Tokens]:
    sizes = [N_PROMPT, N_PROMPT, *[1] * N_DECODE]
    ids = np.random.default_rng(0).integers(0, n_vocab, sum(sizes))
    bounds = [0, *accumulate(sizes)]
    return [
        Tokens(
            ids=ids[a:b], positions=np.arange(a, b), sequences=np.zeros(b - a, np.int64), wanted=np.array([b - a - 1])
        )
        for a, b in pairwise(bounds)
    ]


def _seconds(model: refengine.Model, batches: Sequence[Tokens]) -> tuple[float, ...]:
    model.reset()
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        model.decode(batch)
        seconds.append(time.perf_counter() - start)
    return tuple(seconds)


def as_text(speeds: Sequence[EngineSpeed]) -> str:
    """The results as a table."""
    lines = [f"{'tokens/s':28}{'prefill':>10}{'llama.cpp':>11}{'ratio':>8}{'decode':>10}{'llama.cpp':>11}{'ratio':>8}"]
    for s in speeds:
        lines.append(
            f"{s.model[:27]:28}{s.prefill_tok_per_s:10.1f}{s.llama_prefill_tok_per_s:11.1f}{s.prefill_ratio:8.2f}"
            f"{s.decode_tok_per_s:10.1f}{s.llama_decode_tok_per_s:11.1f}{s.decode_ratio:8.2f}"
        )
    lines.append(f"{speeds[0].n_threads} threads, prompts of {N_PROMPT} tokens, {N_DECODE} steps, weights held as F32")
    return "\n".join(lines)


def _against(checkout: Path, models: Sequence[Path], n_threads: int, repetitions: int) -> int:
    """Print each model's rates there and here: the best of all runs, which other processes only slow down."""
    arguments = [*map(str, models), "--repetitions", "1", "--threads", str(n_threads)]
    found = [
        [{row["model"]: row for row in document["rows"]} for document in both]
        for both in in_turn("bench.engine", arguments, checkout, repetitions)
    ]
    print(f"{'tokens/s':28}{'prefill there':>14}{'here':>10}{'ratio':>8}{'decode there':>14}{'here':>10}{'ratio':>8}")
    for model in found[0][0]:
        line = f"{model[:27]:28}"
        for phase in ("prefill_tok_per_s", "decode_tok_per_s"):
            there, here = (max(both[i][model][phase] for both in found) for i in (0, 1))
            line += f"{there:14.1f}{here:10.1f}{here / there:8.2f}"
        print(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each model, print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("models", nargs="*", type=existing_file, default=[MODEL], metavar="MODEL", help="GGUF files")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="R", help="of each measurement (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="default: one a core")
    parser.add_argument(
        "--against", type=existing_checkout, metavar="CHECKOUT", help="another checkout, in turn with this one"
    )
    args = parser.parse_args(argv)
    if args.against is not None:
        return _against(args.against, args.models, args.threads, max(1, args.repetitions))
    if os.environ.get(BLAS_THREADS) != str(args.threads):  # read when numpy is loaded: start again with it
        command = [sys.executable, "-m", "bench.engine", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(command, env={**os.environ, BLAS_THREADS: str(args.threads)}, check=False).returncode
    speeds = [measure(path, args.threads, max(1, args.repetitions)) for path in args.models]
    rows = [asdict(s) | {"prefill_ratio": s.prefill_ratio, "decode_ratio": s.decode_ratio} for s in speeds]
    sys.stdout.write(
        (json.dumps({"schema_version": 1, "rows": rows}, indent=2) if args.json else as_text(speeds)) + "\n"
    )
    return 0


if __name__ == "__main__":
    run_program(main)
