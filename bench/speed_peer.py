"""Does `bench speed` measure what llama-bench measures, on the same model in the same minutes?

`python -m bench.speed_peer MODEL --llama-bench PROGRAM [-t 1,2] [-p 512] [-n 96] [--rounds 16] [--json]`

Each round runs both, a whole process each, the first in turn: prompts of so many tokens, and as many tokens generated
from an empty cache. A machine whose pace drifts moves either figure far more than they differ, so what is compared is
the median over the rounds of ours by theirs, with the interval that the rounds give it. Exit code 1 when a median is
off by over 3 %. `bench speed` gives the median of its repetitions; llama-bench gives a mean, and so does this.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final

from bench.running.program import existing_program, run_program
from bench.speed.events import measured
from bench.speed.peers import llama_bench
from ggufphys import open_gguf
from ggufphys.params import Params

TOLERANCE: Final = 0.03
N_RESAMPLES: Final = 2_000
REPETITIONS: Final = 4  # llama-bench's in a round; behind one that does not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A quantity by both, tokens a second: medians over the rounds, the median ratio and its 95 % interval."""

    threads: int
    quantity: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Do they agree?"""
        return abs(self.ratio - 1) <= TOLERANCE


def row_of(threads: int, quantity: str, rounds: Sequence[tuple[float, float]]) -> Row:
    """What the rounds, ours and theirs of each, say together."""
    ratios = [ours / theirs for ours, theirs in rounds]
    draw = random.Random(1)
    medians = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(N_RESAMPLES))
    return Row(
        threads=threads, quantity=quantity, ours=median(r[0] for r in rounds), theirs=median(r[1] for r in rounds),
        ratio=median(ratios), low=medians[N_RESAMPLES // 40], high=medians[-N_RESAMPLES // 40],
    )  # fmt: skip


def compare(args: argparse.Namespace) -> Iterator[Row]:
    """Interleaved rounds with each number of threads.

    Raises:
        GGUFPhysError: one of them failed.
    """
    with open_gguf(args.model) as gguf:
        path = os.fspath(Path(gguf.path).resolve())
    prompt, tokens = f"prefill {args.prompt}", "decode 0"
    questions = [{"kind": "prefill", "n_tokens": args.prompt}, {"kind": "decode", "depth": 0}]
    for threads in args.threads:
        params = asdict(Params(n_ctx=max(args.prompt, 2 * args.tokens) + 64, n_threads=threads, n_outputs_max=1))
        config = {"path": path, "params": params, "questions": questions}
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        for i in range(args.rounds):
            figures: dict[bool, dict[str, float]] = {}
            for is_ours in (True, False) if i % 2 else (False, True):
                if is_ours:
                    means = [fmean(event["seconds"]) for event in measured(config)]
                    figures[True] = {prompt: args.prompt / means[0], tokens: 1 / means[1]}
                else:
                    figures[False] = dict(
                        llama_bench(
                            args.llama_bench,
                            path,
                            threads,
                            True,
                            [0],
                            [args.prompt],
                            args.tokens,
                            repetitions=REPETITIONS,
                        )
                    )
            rounds.append((figures[True], figures[False]))
        for quantity in (prompt, tokens):
            yield row_of(threads, quantity, [(ours[quantity], theirs[quantity]) for ours, theirs in rounds])


def as_text(rows: Sequence[Row]) -> str:
    """The table."""
    lines = [f"{'threads':9}{'':14}{'bench speed':>12}{'llama-bench':>13}{'ratio':>8}  95 %"]
    lines += [
        f"{r.threads:<9}{r.quantity:14}{r.ours:12.2f}{r.theirs:13.2f}{r.ratio:8.3f}  {r.low:.3f} to {r.high:.3f}"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed_peer", description=__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--llama-bench", required=True, type=existing_program, metavar="PROGRAM")
    parser.add_argument("-t", "--threads", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2])
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of a prompt (512)")
    parser.add_argument("-n", "--tokens", type=int, default=96, help="tokens generated (96)")
    parser.add_argument("--rounds", type=int, default=16, help="of both (16)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    rows = list(compare(args))
    if args.json:
        document = {"schema_version": 1, "rows": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(as_text(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    run_program(main)
