"""Is our server as fast as llama-server, and does it bear what it should?

`python -m bench.serve_compare MODEL --against BINARY-or-URL [-c 1,8,32] [--intruder 3000] [--prefix 1000] [--flood 200]
[--soak 2000] [--equal 24] [--busy 2 [--duty 0.5]] [--json]`

`--against` is a llama-server binary, which is started here, or the address of an OpenAI-compatible server that runs
already. Both serve the model with the same context, slots and threads, each with its own best settings otherwise;
rounds are short and interleaved, every prompt is distinct, figures are medians over the rounds, of which `rounds` has
the least and the largest ratio. Each round starts both anew, since where a process's memory comes to lie alone makes
some per cent. How OpenMP's threads wait and how busy others kept the machine is printed, since these move the ratios
most. Exit code 1 with `--check` when a bar is not met.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Final

from bench.running.program import existing_file, existing_program, numbers, run_program
from bench.serve_compare.crowds import equal, flood, intruder, prefix
from bench.serve_compare.rows import HEAD, Row
from bench.serve_compare.servers import Pair
from bench.serve_compare.soak import soak
from bench.serve_compare.speed import Load, speed
from bench.waiting import neighbours, share

OURS_WAIT: Final = "switched by measurement"
THEIRS_WAIT: Final = "libgomp's default (spinning for a while)"


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """All that was asked for, part by part."""
    pair = Pair(model=args.model, against=args.against, threads=args.threads, port=args.port, more=args.ours)
    load = Load(n_prompt=args.prompt, n_predict=args.predict, n_requests=args.requests)
    if args.clients:
        yield from speed(pair, args.clients, load, rounds=args.rounds, busy=args.busy if args.duty == 1 else 0)
    if args.intruder:
        yield from intruder(pair, args.intruder, rounds=args.rounds)
    for part, number in ((prefix, args.prefix), (flood, args.flood), (equal, args.equal), (soak, args.soak)):
        if number:
            yield from part(pair, number)


def program_or_url(text: str) -> str:
    """A program that is there, or an address, which is asked later. Raises ArgumentTypeError as `existing_program`."""
    return text if text.startswith("http") else str(existing_program(text))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.serve_compare", description=__doc__)
    add = made.add_argument
    add("model", type=existing_file, metavar="MODEL")
    add(
        "--against",
        required=True,
        type=program_or_url,
        metavar="BINARY|URL",
        help="llama-server, or an address",
    )
    add("-c", "--clients", type=numbers, default=[1, 8, 32], metavar="N,N", help='at once; "": none (default 1,8,32)')
    add("--intruder", type=int, default=0, metavar="N", help="a prompt of N tokens arrives among eight readers")
    add("--prefix", type=int, default=0, metavar="N", help="sixteen prompts share their first N tokens")
    add("--flood", type=int, default=0, metavar="N", help="N streams at once on eight slots")
    add("--equal", type=int, default=0, metavar="N", help="N greedy answers at once beside each alone (F32 weights)")
    add("--soak", type=int, default=0, metavar="N", help="memory after N requests beside that after 100")
    add("--busy", type=int, default=0, metavar="K", help="beside K processes that are busy")
    add("--duty", type=share, default=1.0, metavar="SHARE", help="of their time that they are (1)")
    add("--rounds", type=int, default=3, help="starts of both servers (3)")
    add("--requests", type=int, default=8, help="a round at least (and two a client)")
    add("--prompt", type=int, default=64, help="tokens of a prompt")
    add("--predict", type=int, default=64, help="tokens of an answer")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add(
        "--ours",
        type=shlex.split,
        default=[],
        metavar="FLAGS",
        help="what ours alone is told, such as --ours=--no-mmap",
    )
    add("--port", type=int, default=18080, help="ours; theirs is the next one")
    add("--check", action="store_true", help="exit with 1 when a bar is not met")
    add("--json", action="store_true")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Start what is to be started, compare, print."""
    args = parser().parse_args(argv)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    theirs_wait = "as it was started" if args.against.startswith("http") else THEIRS_WAIT
    found: list[Row] = []
    with ExitStack() as stack:
        stack.enter_context(neighbours(args.busy, args.duty))
        if not args.json:
            beside = f", beside {args.busy} busy processes ({args.duty:.0%} of their time)" if args.busy else ""
            sys.stdout.write(f"{args.model.name}, {args.threads} threads{beside}; load {load:.1f} before\n")
            sys.stdout.write(f"threads wait: ours {OURS_WAIT}, theirs {theirs_wait}\n")
            sys.stdout.write(f"ours alone with {shlex.join(args.ours)}\n{HEAD}\n" if args.ours else f"{HEAD}\n")
        for row in rows(args):
            found.append(row)
            if not args.json:
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
    if args.json:
        document = {
            "schema_version": 3, "model": args.model.name, "threads": args.threads, "load": load,
            "busy": args.busy, "duty": args.duty,
            "ours_waits": OURS_WAIT, "theirs_waits": theirs_wait, "ours_alone": args.ours,
            "rows": [asdict(row) | {"ratio": row.ratio, "is_met": row.is_met} for row in found],
        }  # fmt: skip
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 1 if args.check and not all(row.is_met for row in found) else 0


if __name__ == "__main__":
    run_program(main)
