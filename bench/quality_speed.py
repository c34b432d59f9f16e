"""What does `bench quality` cost beside llama-perplexity's own comparison with a base? Both in one run, in turn.

`python -m bench.quality_speed LLAMA_PERPLEXITY BASE OTHER [--chunks 16] [-c 512] [--runs 2] [--base-file FILE] [--keep
FILE]`

Both read OTHER and compare it with the same file of BASE's log-probabilities: whole processes, loading included. Exit
code 1 if ours takes more than 1.1 times as long. Which is first changes from pair to pair; `--base-file` keeps BASE's
figures for the next run of as many chunks, `--keep` each pair: a later run goes on behind them, and judges all, so that
100,000 tokens need not be one sitting. On a machine that is not quiet the processors' time (with
OMP_WAIT_POLICY=passive, so that none is spent waiting) tells more than the clock's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.quality.texts import text_of
from bench.running.program import existing_program, run_program
from ggufphys.machine.children import environment, module_command
from ggufphys.report.inspection import dumps

LIMIT: Final = 1.1
Cost = tuple[float, float]
"""Seconds on the clock, and of processors."""
Pair = tuple[Cost, Cost]
"""Ours and llama-perplexity's."""


def seconds(command: list[str]) -> Cost:
    """How long a command takes, and how long processors work for it."""
    began, worked = time.perf_counter(), _processor_s()
    done = subprocess.run(
        command, env=environment(), capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr[-800:]}")
    return time.perf_counter() - began, _processor_s() - worked


def kept_pairs(path: Path | None, n_tokens: int) -> list[Pair]:
    """Pairs of earlier runs of as many tokens; none without a file."""
    if path is None or not path.exists():
        return []
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(tuple(pair["ours"]), tuple(pair["theirs"])) for pair in found if pair["n_tokens"] == n_tokens]


def _processor_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> int:
    """Run both, in turn, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=existing_program)
    parser.add_argument("base")
    parser.add_argument("other")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("-c", type=int, default=512)
    parser.add_argument("-t", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--base-file", type=Path)
    parser.add_argument("--keep", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, kept = Path(folder) / "text", args.base_file or Path(folder) / "base"
        text.write_text(text_of(()), encoding="utf-8")
        shared = ["-c", str(args.c), "--chunks", str(args.chunks), "-t", str(args.t)]
        files = ["--text", str(text), "--base-file", str(kept)]
        ours = module_command("ggufphys", "bench", "quality", args.base, args.other, *files, *shared)
        theirs = [str(args.program), "-m", args.other, "--kl-divergence", "--kl-divergence-base", str(kept), *shared]
        if not kept.exists():
            seconds(ours)
        pairs = kept_pairs(args.keep, args.chunks * args.c)
        for _ in range(args.runs):
            order = 1 if len(pairs) % 2 == 0 else -1
            our, their = [seconds(command) for command in (ours, theirs)[::order]][::order]
            pairs.append((our, their))
            if args.keep:
                with args.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"n_tokens": args.chunks * args.c, "ours": our, "theirs": their}) + "\n")
            print(
                f"{args.chunks * args.c:,} tokens: {our[0]:.1f} s, llama-perplexity {their[0]:.1f} s "
                f"(of processors {our[1]:.1f} s and {their[1]:.1f} s)",
                file=sys.stderr,
            )
    if not pairs:
        raise SystemExit(f"{kept}: kept for the next run; no pair was asked for")
    ratio, worked = (median(our[i] / their[i] for our, their in pairs) for i in (0, 1))
    found = {
        "n_tokens": args.chunks * args.c * len(pairs), "pairs_s": pairs, "ratio": ratio, "processor_ratio": worked,
        "limit": LIMIT,
    }  # fmt: skip
    if args.json:
        print(dumps(found))
    else:
        print(
            f"{found['n_tokens']:,} tokens in {len(pairs)} pairs: ratio {ratio:.3f} (of processors {worked:.3f}), "
            f"at most {LIMIT}"
        )
    return int(ratio > LIMIT)


if __name__ == "__main__":
    run_program(main)
