"""How much faster are decodes when weights lie in huge pages?

`python -m bench.pages MODEL [--rounds 8] [--threads N] [--no-mmap]`. Each round is a process of its own, since where
its memory happens to lie alone makes some per cent: it decodes token by token before and after it has huge pages. With
`--no-mmap` it is two, both of which have such pages where they can: one that maps the file, and one that reads it into
memory of its own. The ratio is of median steps; with the median over the rounds come the two quartiles. Linux.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.running.program import existing_file, run_program
from bench.running.telling import answer
from ggufphys.embedded import MODEL
from ggufphys.machine.children import environment, module_command

N_STEPS: Final = 400
N_WARM: Final = 50


def child(path: Path, n_threads: int, *, use_mmap: bool) -> None:
    """Print the median step before and after, seconds, and how many bytes are in huge pages then."""
    from ggufphys.params import Params
    from server.engine.llama.batch import Batch
    from server.engine.llama.huge_pages import gather
    from server.engine.llama.library import create_context, load_model

    params = Params(n_ctx=512, n_batch=64, n_ubatch=64, n_threads=n_threads, n_outputs_max=1, use_mmap=use_mmap)
    with load_model(path, params) as model, create_context(model, params) as context, Batch(context, 64) as batch:

        def decode(n: int) -> float:
            """Each time from an empty memory on."""
            context.clear()
            seconds = []
            for at in range(n):
                batch.clear()
                batch.add((at + 1,), seq_id=0, start=at, logits_of_last=True)
                began = time.perf_counter()
                batch.decode(context)
                seconds.append(time.perf_counter() - began)
            return median(seconds)

        decode(N_WARM)
        before, n_bytes, _ = decode(N_STEPS), gather(), decode(N_WARM)
        sys.stdout.write(json.dumps((before, decode(N_STEPS), n_bytes)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("model", nargs="?", type=existing_file, default=MODEL, metavar="MODEL", help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=8, metavar="R", help="processes (8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="llama.cpp's threads")
    parser.add_argument("--no-mmap", action="store_true", help="beside a mapped file: weights in memory of their own")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.model, args.threads, use_mmap=not args.no_mmap)
        return 0
    command = module_command("bench.pages", "--child", str(args.model), "--threads", str(args.threads))
    found = [one_round(command, number, no_mmap=args.no_mmap) for number in range(args.rounds)]
    before, after, n_bytes = (median(column) for column in zip(*found, strict=True))
    ratios = [small / huge for small, huge, _ in found]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    mapped = " from the mapped file" if args.no_mmap else ""
    sys.stdout.write(
        f"{args.model.name}, {args.threads} threads: {before * 1e3:.2f} ms a token{mapped}, with "
        f"{n_bytes / 2**20:.0f} MiB in huge pages {after * 1e3:.2f}: {median(ratios):.3f} times as fast (quartiles "
        f"{low:.3f}, {high:.3f})\n"
    )
    return 0


def one_round(command: Sequence[str], number: int, *, no_mmap: bool) -> tuple[float, float, int]:
    """Seconds a token without and with huge pages, and the bytes in these; of two processes who is first alternates."""
    if not no_mmap:
        before_s, after_s, n_bytes = answer(command, environment(spinning=True))
        return before_s, after_s, n_bytes
    ways: list[list[str]] = [[], ["--no-mmap"]]
    found = {
        len(way): answer([*command, *way], environment(spinning=True))
        for way in (ways if number % 2 == 0 else ways[::-1])
    }
    return found[0][1], found[1][1], found[1][2]


if __name__ == "__main__":
    run_program(main)
