"""`ggufphys bench speed FILES`: predicted and measured tokens a second, of reading and generating, side by side."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from bench.calibrate.clock import COUNTS
from bench.calibrate.command import calibrate
from bench.running.program import existing_program
from bench.speed.events import measured
from bench.speed.expected import Expected
from bench.speed.peers import bandwidth_over_bytes, llama_bench, llama_mdl
from bench.speed.rows import Row, as_json, as_text
from ggufphys.builds.asked import installed_build
from ggufphys.cli import exit_code, message
from ggufphys.errors import GGUFPhysError
from ggufphys.flags.installed import refuse_build
from ggufphys.flags.numbers import counts
from ggufphys.flags.parser import exclude
from ggufphys.gguf import GGUFFile, open_gguf
from ggufphys.gguf.lengths import kept_lengths
from ggufphys.gguf.locate import local_path
from ggufphys.params import Params
from ggufphys.speed import history, kept
from ggufphys.speed.rates import Machine, read_machine
from server.engine.checks import check_model_file
from server.engine.llama.library import require_library

DEPTHS: Final = (0, 1024, 4096)
PROMPTS: Final = (512,)
BATCHES: Final = (2, 4, 8)
N_CTX_BATCH: Final = 512  # of each sequence where several decode
N_DECODED: Final = 100  # tokens that there must be room for: bench.speed.child, MAX_STEPS and what warms up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILES, how they are run, what is asked, whom to compare with."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="GGUF files")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--threads", type=counts(1), default=(1,), metavar="N,...", help="numbers of threads (1)")
    parser.add_argument(
        "--repack", type=_switches, default=(True,), metavar="on,off",
        help="with repacked weights, without, or both (on)",
    )  # fmt: skip
    for flag, least, default, what in (
        ("--depths", 0, DEPTHS, "decode behind so many tokens"),
        ("--prompts", 1, PROMPTS, "prompts of so many tokens"),
        ("--batches", 1, BATCHES, "sequences that decode"),
    ):
        parser.add_argument(
            flag, type=counts(least, or_none=True), default=default, metavar="N,...",
            help=f"{what} ({','.join(map(str, default))}; '' for none)",
        )  # fmt: skip
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="rates of this machine (those that are kept)")
    parser.add_argument(
        "--calibrate", action="store_true",
        help="measure the rates of the types that the files have right before each file, instead",
    )  # fmt: skip
    parser.add_argument(
        "--llama-bench", type=existing_program, metavar="PROGRAM", help="llama-bench, to measure the same"
    )
    parser.add_argument("--mdl", type=existing_program, metavar="PROGRAM", help="mdl of llama-mdl, for its prediction")
    parser.add_argument("--rule", action="store_true", help="bandwidth over the file's bytes, for what it would say")
    refuse_build(parser)
    exclude(parser, "--calibrate", "--calibration")


def run(args: argparse.Namespace) -> int:
    """Measure, predict, print.

    A file that cannot be measured is told, its exit code is the command's (of several the largest), and the other
    files' figures are worth having.
    """
    if not (args.depths or args.prompts or args.batches):
        raise ValueError("--depths, --prompts and --batches are empty: nothing is asked")
    require_library()
    paths: list[Path] = []
    rows: list[Row] = []
    codes = [0]
    for file in args.files:  # all of them before a minute goes into this machine's rates, here or by `bench calibrate`
        with _told(codes):
            check_model_file(path := local_path(file), Params())
            paths.append(path)
    kept_machine = None if args.calibrate or not paths else _machine(args.calibration)
    for path in paths:
        with _told(codes):
            rows += _of_file(path, kept_machine, args)
    if rows or not any(codes):
        print(as_json(rows) if args.json else as_text(rows))
    return max(codes)


@contextmanager
def _told(codes: list[int]) -> Iterator[None]:
    """What goes wrong with one file is told, and its exit code noted."""
    try:
        with kept_lengths():
            yield
    except (GGUFPhysError, OSError, ValueError) as error:
        print(f"ggufphys: error: {message(error)}", file=sys.stderr)
        codes.append(exit_code(error))


def _of_file(path: Path, machine: Machine | None, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with open_gguf(path) as gguf:
        types = sorted({int(t.ggml_type) for t in gguf.tensors if len(t.ne) > 1})
        machine = machine or calibrate(sorted(args.threads), types=types)
        for n_threads in args.threads:
            for repacked in args.repack:
                rows += _rows(gguf, machine, n_threads, repacked, args)
    _keep(gguf, rows)
    return rows


def _keep(gguf: GGUFFile, rows: Sequence[Row]) -> None:
    calm = [(f"{r.quantity} {r.n}", r.predicted, r.measured) for r in rows if r.busy <= COUNTS]
    history.add(calm, model=f"{gguf.path.name}:{gguf.file_bytes}", build=installed_build())


def _machine(path: Path | None) -> Machine:
    machine = read_machine(path) if path is not None else kept.kept_machine()
    if machine is None:
        raise ValueError("this machine's rates are not known: run `ggufphys bench calibrate` first, or --calibrate")
    return machine


def _switches(text: str) -> tuple[bool, ...]:
    parts = tuple(dict.fromkeys(text.split(",")))
    if not set(parts) <= {"on", "off"}:
        raise argparse.ArgumentTypeError(f"{text!r}: expected on, off, or on,off")
    return tuple(part == "on" for part in parts)


def _within(lengths: Sequence[int], room: int, gguf: GGUFFile, what: str) -> list[int]:
    """The lengths that the model was trained for; a note says which others are left out."""
    if beyond := [n for n in lengths if n > room]:
        said = f"{what} of {', '.join(map(str, beyond))} tokens are left out: it was trained for {room:,} at most"
        print(f"ggufphys: {gguf.path.name}: {said}", file=sys.stderr)
    return [n for n in lengths if n <= room]


def _rows(gguf: GGUFFile, machine: Machine, n_threads: int, repacked: bool, args: argparse.Namespace) -> list[Row]:
    n_train = gguf.get_int(f"{gguf.architecture}.context_length", 1 << 20)
    depths = _within(args.depths, n_train - N_DECODED, gguf, "depths")
    prompts, batches = _within(args.prompts, n_train - 1, gguf, "prompts"), args.batches
    n_ctx = max([N_DECODED, *(depth + N_DECODED for depth in depths), *(n + 1 for n in prompts)])
    params = Params(n_ctx=n_ctx, n_threads=n_threads, use_extra_bufts=repacked, n_outputs_max=1)
    n_seqs = max(batches, default=1)
    batch_params = replace(params, n_ctx=n_seqs * N_CTX_BATCH, n_seq_max=n_seqs, n_outputs_max=n_seqs)
    questions = [
        *({"kind": "prefill", "n_tokens": n} for n in prompts),
        *({"kind": "decode", "depth": depth} for depth in depths),
        *({"kind": "batch", "n_seqs": n} for n in batches),
    ]
    config = {
        "path": os.fspath(Path(gguf.path).resolve()), "params": asdict(params), "batch_params": asdict(batch_params),
        "questions": questions,
    }  # fmt: skip
    others: dict[str, Mapping[str, float]] = {}
    if args.llama_bench:
        others["llama-bench"] = llama_bench(args.llama_bench, gguf.path, n_threads, repacked, depths, prompts)
    if args.mdl:
        others["llama-mdl"] = llama_mdl(args.mdl, gguf.path)
    if args.rule:
        others["bandwidth / bytes"] = bandwidth_over_bytes(gguf, machine, n_threads, depths)
    expected = Expected(gguf, machine, params, batch_params)
    gauge_s = machine.host(n_threads).gauge_s
    rows = []
    for event in measured(config):
        question = event["question"]
        kind = question["kind"]
        n = next(int(value) for name, value in question.items() if name != "kind")
        pace = event["gauge_s"] / gauge_s if gauge_s else 1.0
        depth = event["depth"]  # of the step in the middle: a small model makes a hundred, each behind one more token
        found, paced = (expected.speed(kind, n, depth, pace=each) for each in (1.0, pace))
        token_flops, token_bytes = expected.costs(kind, n, depth)
        key = f"{kind} {n}"
        peers = {name: figures[key] for name, figures in others.items() if key in figures}
        rows.append(
            Row(
                file=Path(gguf.path).name, n_threads=n_threads, repacked=repacked, quantity=kind, n=n,
                predicted=found.tok_per_s.value, low=found.tok_per_s.low, high=found.tok_per_s.high, limit=found.limit,
                pace=pace, paced=paced.tok_per_s.value, measured=event["tok_per_s"], busy=event["busy"],
                token_flops=token_flops, token_bytes=token_bytes, peers=peers,
            )
        )  # fmt: skip
    return rows
