"""Run a command of ours and keep its result as a record.

`python -m bench.results.run [-o FILE.jsonl] COMMAND…`, such as `measure model.gguf -c 4096`
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.results.records import HERE, run_recorded
from bench.running.program import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run, append, say where; the command's own exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.results.run", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results.jsonl", metavar="FILE.jsonl")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND", help="without `ggufphys`, without --json"
    )
    args = parser.parse_args(argv)
    words = args.command[1:] if args.command[:1] == ["ggufphys"] else args.command
    if not words:
        parser.error("expected a command, such as: measure model.gguf")
    try:
        record = run_recorded(words)
    except ValueError as error:
        print(f"ggufphys: error: {error}", file=sys.stderr)
        return 2
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a", encoding="utf-8") as file:
        file.write(record.to_json() + "\n")
    print(f"{args.output}: {record.kind}, {record.command}, exit code {record.exit}")
    return record.exit


if __name__ == "__main__":
    run_program(main)
