"""Record all that a machine's report is made of, one command after the other, in place of what was recorded before.

`python -m bench.results.everything MODEL... [--large MODEL] [--llama-server PROGRAM]`; `make record` writes the report
then. What depends on a quiet machine comes first. The first model is served, and claims are tested on it; the large one
is run for its memory alone.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.results.records import HERE, KINDS, Record, kind_of, read_records, run_recorded
from bench.running.program import existing_program, run_program
from bench.serve_compare.servers import running
from ggufphys.machine.children import module_command

ALL: Final = tuple(KINDS.values())
PORT: Final = 18331
SERVED: Final = "-c 4096 -np 8"
LOAD: Final = "-c 1,2,4,8 -n 16 -p 128 -g 64"
CONTEXT: Final = "-c 4096 --as library"
ON_EMBEDDED: Final = "q4-quality,loss,q8-cache-quality"  # what is lost from floats, which published files are not
ON_MODEL: Final = (
    "h2,two-requests,h3,h4,h5-gpu,forgotten,threads,amx,p95-5-users,speed-q4,speed-twice,speed-8,speed-usable"
)
TYPES: Final = "F16 Q8_0 Q6_K Q5_K_M Q4_K_M Q3_K_M Q2_K IQ4_XS"
AGAIN: Final = "--quantize Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q3_K_M,Q2_K,IQ4_XS --cache-types q8_0,q4_0"
WINDOWS: Final = (40, 5)  # of the embedded model, of another: a few minutes together


@dataclass(frozen=True, slots=True)
class Step:
    """A command of ours, without `ggufphys` in front, and the server that it asks, as a command."""

    words: tuple[str, ...]
    server: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of the record that it leaves."""
        return kind_of(self.words)


def steps(models: Sequence[Path], large: Path | None, llama_server: Path | None) -> Iterator[Step]:
    """The commands whose results make a machine's report, in their order."""
    first, *_ = models
    yield _step("bench calibrate")
    for model in models:
        yield _step("measure", model, CONTEXT)
        yield _step("bench speed", model, "--threads 2")
        yield _step("inspect", model, f"{CONTEXT} --costs")
    if large is not None:
        yield _step("measure", large, f"{CONTEXT} -p 32 -n 4")
    ours = module_command("ggufphys", "serve", str(first))
    theirs = [] if llama_server is None else [str(llama_server), "-m", str(first)]
    for name, command in (("ggufphys serve", ours), ("llama-server", theirs)):
        if command:
            told = ("--label", f"{name} {SERVED}, {first.stem}", "--extra", '{"ignore_eos": true}')
            words = ("bench", "load", f"http://127.0.0.1:{PORT}", *LOAD.split(), *told)
            yield Step(words, (*command, *SERVED.split(), "--host", "127.0.0.1", "--port", str(PORT)))
    yield _step("bench hypotheses --only", ON_MODEL, "--model", first)
    yield _step("bench hypotheses --only", ON_EMBEDDED)
    yield _step("bench hypotheses --rules-only")
    yield _step("bench quality", TYPES, f"--chunks {WINDOWS[0]}")
    for model in models:
        yield _step("bench quality", model, AGAIN, f"--chunks {WINDOWS[1]}")


def _step(*parts: str | Path) -> Step:
    """Of words, and of paths that may have blanks."""
    return Step(tuple(word for part in parts for word in ([str(part)] if isinstance(part, Path) else part.split())))


def main(argv: Sequence[str] | None = None) -> int:
    """Record; 1 where a command left no record, and then what was recorded before stays."""
    parser = argparse.ArgumentParser(prog="python -m bench.results.everything", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--large", type=Path, metavar="MODEL", help="one whose memory and speed are measured alone")
    parser.add_argument("--llama-server", type=existing_program, metavar="PROGRAM", help="loaded beside ours")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results.jsonl", metavar="FILE.jsonl")
    parser.add_argument("--only", metavar="KIND,KIND", help=f"these alone, others stay as recorded: {', '.join(ALL)}")
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    args = parser.parse_args(argv)
    for path in (*args.models, *filter(None, (args.large,))):
        if not path.is_file():
            parser.error(f"{path}: no such file")
    only = tuple(args.only.split(",")) if args.only else ALL
    if wrong := [kind for kind in only if kind not in ALL]:
        parser.error(f"--only {wrong[0]}: expected {', '.join(ALL)}")
    found = [step for step in steps(args.models, args.large, args.llama_server) if step.kind in only]
    if args.list:
        print("\n".join(shlex.join(("ggufphys", *step.words)) for step in found))
        return 0
    kept = [run for run in read_records([args.output]) if run.kind not in only] if args.only else []
    return record(found, args.output, kept)


def record(found: Sequence[Step], output: Path, kept: Sequence[Record] = ()) -> int:
    """Run them, and write what they left behind what is kept; the file is there as a whole, or as it was."""
    lines, began = [], time.monotonic()
    for i, step in enumerate(found, 1):
        said = f"{i}/{len(found)} {time.monotonic() - began:4.0f} s  ggufphys {shlex.join(step.words)}"
        print(said, file=sys.stderr, flush=True)
        server: AbstractContextManager[object] = nullcontext()
        if step.server:
            server = running("server", step.server, f"http://127.0.0.1:{PORT}")
        try:
            with server:
                done = run_recorded(step.words)
        except (ValueError, RuntimeError) as error:
            print(f"ggufphys: error: {error}", file=sys.stderr)
            continue
        lines.append(done.to_json())
    print(f"{len(lines)} of {len(found)} commands left a record, in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if len(lines) < len(found):
        output = output.with_suffix(".partial.jsonl")
        print(f"ggufphys: error: not all is there, so it is kept in {output}", file=sys.stderr)
    output.write_text("".join(f"{line}\n" for line in (*(run.to_json() for run in kept), *lines)), encoding="utf-8")
    return int(len(lines) < len(found))


if __name__ == "__main__":
    run_program(main)
