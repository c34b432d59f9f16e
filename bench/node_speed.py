"""Which nodes of a graph take as long as predicted, and which do not?

`python -m bench.node_speed MODEL [-t 2] [--batch N | --prompt N] [--depth D] [--rounds 12] [--json]`

llama.cpp computes a step node by node while its callback looks at the clock, and the prediction prices the same graph;
products are told apart by their matrix, all else by its operation. Every round also computes such a step that nobody
watches, and looks at the gauge: predictions are those at the pace that the machine had then. The last row is what a
step takes beside its nodes: measured as the rest of the unwatched one.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.running.program import existing_file, run_program
from bench.speed.events import events
from bench.speed.node_times import PRODUCTS, WARM_UP, product_key
from ggufphys import open_gguf
from ggufphys.gguf import GGUFFile
from ggufphys.graph.devices.runs import Runs
from ggufphys.graph.ir import Tensor
from ggufphys.params import Params
from ggufphys.report.inspection import table
from ggufphys.speed import kept
from ggufphys.speed.batches import decode_batch, prompt_batch, with_sequences
from ggufphys.speed.predict import Speeds
from ggufphys.speed.rates import Machine, read_machine

OUTSIDE: Final = "beside nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Nodes of one sort in a step: how many are in the graph that ran, and seconds of all together."""

    nodes: str
    n: int
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Predicted seconds over measured ones, less one."""
        return self.predicted_s / self.measured_s - 1 if self.measured_s > 0 else float("nan")


def key_of(node: Tensor) -> str:
    """As the measuring process tells nodes apart."""
    if node.op in PRODUCTS:
        return product_key(node.op, node.src[0].ne)
    return "RMS_NORM" if node.op == "MUL" and node.src[0].op == "RMS_NORM" else node.op


def predicted(gguf: GGUFFile, machine: Machine, args: argparse.Namespace) -> Mapping[str, float]:
    """Seconds by nodes."""
    speeds = Speeds(Runs(gguf).run(_params(args)), machine, args.threads)
    context = with_sequences(speeds.context, args.batch)
    if args.prompt > 1:
        depth, batch = args.depth, prompt_batch(args.prompt, args.depth, 1)
    else:  # each step is behind one more token
        depth = args.depth + WARM_UP + args.rounds // 2
        batch = decode_batch(context, args.batch, depth)
    found: dict[str, float] = {}
    parts = speeds.steps.priced(context, batch, depth)
    for part in parts:
        for node, seconds in part.seconds:
            found[key_of(node)] = found.get(key_of(node), 0.0) + part.times * seconds.total
    return {**found, OUTSIDE: speeds.steps.outside_s(parts, batch)}


def rows_of(rounds: Sequence[Mapping[str, Any]], predicted_s: Mapping[str, float]) -> list[Row]:
    """Medians over the rounds beside what was predicted, what takes most first."""
    keys = {key: n for event in rounds for key, (n, _) in event["nodes"].items()}
    rows = [
        Row(
            nodes=key, n=n, measured_s=median(event["nodes"][key][1] for event in rounds),
            predicted_s=predicted_s.get(key, 0.0),
        )
        for key, n in keys.items()
    ]  # fmt: skip
    rows += [
        Row(nodes=k, n=0, measured_s=0.0, predicted_s=s) for k, s in predicted_s.items() if k not in keys | {OUTSIDE: 0}
    ]
    rows.sort(key=lambda row: -max(row.measured_s, row.predicted_s))
    rest_s = median(event["plain_s"] for event in rounds) - sum(row.measured_s for row in rows)
    return [*rows, Row(nodes=OUTSIDE, n=0, measured_s=rest_s, predicted_s=predicted_s[OUTSIDE])]


def as_text(rows: Sequence[Row], pace: float) -> str:
    """The table; all nodes that take less than a five-hundredth of the step in one row."""
    total = Row(
        nodes="a step", n=0, measured_s=sum(row.measured_s for row in rows),
        predicted_s=sum(row.predicted_s for row in rows),
    )  # fmt: skip
    small = [row for row in rows[:-1] if max(row.measured_s, row.predicted_s) < total.measured_s / 500]
    shown = [row for row in rows[:-1] if row not in small]
    if small:
        shown.append(
            Row(
                nodes="other nodes", n=sum(row.n for row in small), measured_s=sum(row.measured_s for row in small),
                predicted_s=sum(row.predicted_s for row in small),
            )
        )  # fmt: skip
    cells = [
        (
            row.nodes,
            f"{row.n or ''}",
            f"{1e3 * row.measured_s:.3f}",
            f"{1e3 * row.predicted_s:.3f}",
            f"{100 * row.error:+.0f}",
        )
        for row in (*shown, rows[-1], total)
    ]
    lines = table(("nodes", "", "measured ms", "predicted ms", "%"), cells, right=(1, 2, 3, 4))
    return "\n".join([*lines, f"at the pace that the machine had: {pace:.2f} times as long as calibrated"])


def measured(gguf: GGUFFile, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the measuring process tells, round by round.

    Raises:
        GGUFPhysError: the measuring process failed.
    """
    config = {
        "path": os.fspath(Path(gguf.path).resolve()), "params": asdict(_params(args)), "n_seqs": args.batch,
        "n_tokens": args.prompt, "depth": args.depth, "rounds": args.rounds,
    }  # fmt: skip
    return (event for event in events("bench.speed.node_times", config) if "nodes" in event)


def _params(args: argparse.Namespace) -> Params:
    n_ctx = (args.depth + args.prompt + args.rounds + 16) * args.batch
    return Params(
        n_ctx=n_ctx, n_seq_max=args.batch, n_threads=args.threads, n_ubatch=max(512, args.prompt),
        n_batch=max(2048, args.prompt), n_outputs_max=args.batch, use_extra_bufts=not args.no_repack,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, predict, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.node_speed", description=__doc__)
    parser.add_argument("model", type=existing_file, metavar="MODEL")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="sequences that decode a token each")
    parser.add_argument("--prompt", type=int, default=1, metavar="N", help="tokens of one prompt, in one batch")
    parser.add_argument("--depth", type=int, default=0, metavar="D", help="tokens in the cache of one sequence")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-repack", action="store_true", help="weights as they are in the file")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="rates of this machine (those that are kept)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.batch > 1 and (args.prompt > 1 or args.depth):
        parser.error("--batch goes with neither --prompt nor --depth")
    machine = read_machine(args.calibration) if args.calibration else kept.kept_machine()
    if machine is None:
        parser.error("this machine's rates are not known: run `ggufphys bench calibrate` first")
    with open_gguf(args.model) as gguf:
        rounds = list(measured(gguf, args))
        host = machine.host(args.threads)
        pace = median(event["gauge_s"] for event in rounds) / host.gauge_s if host.gauge_s else 1.0
        rows = rows_of(rounds, predicted(gguf, machine.at_pace(pace, args.threads), args))
    print(json.dumps([asdict(row) for row in rows], indent=2) if args.json else as_text(rows, pace))
    return 0


if __name__ == "__main__":
    run_program(main)
