"""Are the figures of `bench quality` those of llama-perplexity? Each of them, on the same text and files.

`python -m scripts.check_quality LLAMA_PERPLEXITY MODEL OTHER... --text FILE [-c N] [--chunks N] [--record FILE]`

Exit code 1 if a figure differs by more than 1 % (of KL divergences below 1e-5 nats: by more than 1e-7). Build
llama-perplexity from the sources of the pinned llama-cpp-python; a test compares with figures that `--record` wrote
on a processor with the same instructions: a quant's KL divergences are as small as what another order of adding up
makes (the largest of Q8_0 on the test's text is 0.007 with AVX-512 and 0.012 with AVX2).
"""

import argparse
import json
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.quality.command import judged_rows
from bench.quality.rows import Candidate
from bench.quality.texts import Setting
from bench.running.program import existing_file, run_program
from refengine.peers.simd import detected

TOLERANCE: Final = 0.01
ZERO: Final = 1e-7
FIGURES: Final[Mapping[str, tuple[str, float]]] = {
    "perplexity": (r"Mean PPL\(Q\) +: +([\d.]+)", 1.0),
    "perplexity_se": (r"Mean PPL\(Q\) +: +[\d.]+ ± +([\d.]+)", 1.0),
    "kl_mean": (r"Mean +KLD: +(-?[\d.]+)", 1.0),
    "kl_median": (r"Median +KLD: +(-?[\d.]+)", 1.0),
    "kl_p99": (r"99\.0% +KLD: +(-?[\d.]+)", 1.0),
    "kl_max": (r"Maximum KLD: +(-?[\d.]+)", 1.0),
    "rms_dp": (r"RMS Δp +: +([\d.]+)", 0.01),
    "top1": (r"Same top p: +([\d.]+)", 0.01),
}
"""Where a figure stands in what llama-perplexity prints, and in which unit."""
PERPLEXITY: Final = r"PPL = ([\d.]+)"
ATTEMPTS: Final = 3  # on a busy machine the last lines of what it prints are lost now and then


def theirs(program: Path, arguments: list[str], wanted: Sequence[str]) -> str:
    """What llama-perplexity prints, with all that is wanted of it."""
    for _ in range(ATTEMPTS):
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
        printed = done.stdout + done.stderr
        if done.returncode:
            raise SystemExit(f"{program} ended with {done.returncode}: {printed[-500:]}")
        if all(re.search(pattern, printed) for pattern in wanted):
            return printed
    raise SystemExit(f"{program} did not print all its figures in {ATTEMPTS} runs: {printed[-500:]}")


def figures(printed: str) -> dict[str, float]:
    """Every figure of a comparison with a base."""
    found = {name: re.search(pattern, printed) for name, (pattern, _) in FIGURES.items()}
    return {name: float(match[1]) * FIGURES[name][1] for name, match in found.items() if match}


def rows_of(program: Path, models: list[Path], text: Path, n_ctx: int, n_chunks: int, n_threads: int) -> Iterator[Any]:
    """llama-perplexity's figures, a row a model, the base first with its perplexity alone."""
    threads = ["-t", str(n_threads)] if n_threads else []
    chunks = ["--chunks", str(n_chunks)] if n_chunks else []
    with tempfile.TemporaryDirectory() as folder:
        shared = ["-f", str(text), "-c", str(n_ctx), "--kl-divergence-base", f"{folder}/base", *chunks, *threads]
        printed = theirs(program, ["-m", str(models[0]), *shared], [PERPLEXITY])
        yield {"perplexity": float(re.findall(PERPLEXITY, printed)[0])}
        for model in models[1:]:
            wanted = [pattern for pattern, _ in FIGURES.values()]
            yield figures(theirs(program, ["-m", str(model), *shared, "--kl-divergence"], wanted))


def instructions() -> str:
    """What llama.cpp adds up with here, in whose order."""
    simd = detected()
    return platform.machine() if simd is None else {16: "AVX-512", 8: "AVX2"}[simd.lanes]


def record(path: Path, n_ctx: int, rows: Sequence[Mapping[str, float]]) -> None:
    """Keep the rows beside those of other processors."""
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    path.write_text(json.dumps({"n_ctx": n_ctx, "rows": {**kept, instructions(): rows}}, indent=1) + "\n")


def off(ours: float, expected: float) -> bool:
    """Whether a figure is not llama-perplexity's: it prints six decimals."""
    return abs(ours - expected) > max(TOLERANCE * abs(expected), ZERO if expected < 1e-5 else 0)


def main() -> int:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=existing_file, help="llama-perplexity of the same llama.cpp")
    parser.add_argument("models", type=existing_file, nargs="+", help="the base first")
    parser.add_argument("--text", type=existing_file, required=True, help="the file to read")
    parser.add_argument("-c", type=int, default=512, help="tokens of a window (512)")
    parser.add_argument("--chunks", type=int, default=0, help="windows to read (0: all)")
    parser.add_argument("-t", type=int, default=0, help="threads (0: all physical cores)")
    parser.add_argument("--record", type=Path, help="keep llama-perplexity's figures there")
    args = parser.parse_args()

    expected = list(rows_of(args.program, args.models, args.text, args.c, args.chunks, args.t))
    if args.record:
        record(args.record, args.c, expected)
    setting = Setting(text=args.text.read_text(encoding="utf-8"), n_ctx=args.c, n_chunks=args.chunks, n_threads=args.t)
    found = judged_rows([Candidate(name=path.stem, path=path) for path in args.models], setting, forget=True)
    wrong = 0
    for row, figures_ in zip(found, expected, strict=True):
        for name, figure in figures_.items():
            is_off = off(row[name], figure)
            wrong += is_off
            print(f"{row['model']:40} {name:14} {row[name]:12.6f} {figure:12.6f} {'OFF' if is_off else ''}".rstrip())
    print(f"{wrong} figures differ" if wrong else "all figures agree")
    return int(wrong > 0)


if __name__ == "__main__":
    run_program(main)
