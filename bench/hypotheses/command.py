"""`ggufphys bench hypotheses [FILE.toml]`: claims about local inference, each with what was found here and why."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.hypotheses.experiment import SHIPPED, Experiment, read_experiments
from bench.hypotheses.finding import Finding
from bench.hypotheses.quantities import QUANTITIES
from bench.hypotheses.verdict import counted, row
from ggufphys.errors import GGUFPhysError
from ggufphys.gguf import open_gguf
from ggufphys.report.inspection import dumps
from ggufphys.report.progress import Steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` reads."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.toml", help="experiments (default: those shipped)")
    parser.add_argument(
        "--model", action="append", type=Path, default=[], metavar="GGUF",
        help="what is measured is measured on this, too, beside the embedded model; may be given several times",
    )  # fmt: skip
    parser.add_argument("--only", metavar="ID,ID", help="these experiments alone; a beginning will do")
    parser.add_argument("--rules-only", action="store_true", help="only what needs no measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Test all experiments and print their outcomes; 0, whatever the verdicts are."""
    experiments = read_experiments(args.file or SHIPPED)
    if args.only:
        wanted = tuple(args.only.split(","))
        experiments = [e for e in experiments if e.id.startswith(wanted)]
        if not experiments:
            raise ValueError(f"--only {args.only}: no experiment's id begins so")
    if args.rules_only:
        experiments = [e for e in experiments if not QUANTITIES[e.quantity].measured]
    for model in args.model:
        open_gguf(model).close()
    rows = list(outcomes(experiments, args.model))
    sys.stdout.write((dumps(rows) if args.json else as_text(rows)) + "\n")
    return 0


def outcomes(experiments: Sequence[Experiment], models: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Each experiment's outcome; one that measures has one for each model, too."""
    runs = [
        (experiment, model)
        for experiment in experiments
        for model in ((None, *models) if QUANTITIES[experiment.quantity].measured else (None,))
    ]
    with Steps("testing", total=len(runs), unit="experiments", ticks=True) as steps:
        for experiment, model in runs:
            quantity = QUANTITIES[experiment.quantity]
            try:
                found = quantity.find(experiment.setup, model)
            except GGUFPhysError as error:  # of one experiment: the others go on
                found = Finding(value=None, explanation=str(error))
            except ValueError as error:
                raise ValueError(f"experiment {experiment.id}: {error}") from error
            outcome = row(experiment, found, measured=quantity.measured, unit=quantity.unit)
            if model is not None:
                outcome |= {"id": f"{experiment.id}@{model.stem}", "model": model.name}
            yield outcome
            steps.advance()


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A paragraph an experiment, and how many hold."""
    lines = []
    for outcome in rows:
        off = "" if not outcome["deviation"] else f", off by {outcome['deviation']:+.0%}"
        unit = f" {outcome['unit']}" if outcome["unit"] else ""
        lines += [
            f"{outcome['verdict'].upper():18}{outcome['id']}",
            f"  {outcome['claim']} ({outcome['source']})",
            f"  predicted {_said(outcome['predicted'])}, found {_said(outcome['measured'])}{unit}{off}",
            f"  {outcome['explanation']}",
            "",
        ]
    claims = f"{len(rows)} claim{'s' * (len(rows) != 1)}"
    return "\n".join(lines) + f"\n{claims}: {counted(outcome['verdict'] for outcome in rows)}"


def _said(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case float():
            return f"{value:.4g}"
        case [low, high]:
            return f"{low:g} to {high:g}"
        case {**ends} if ends:
            return " ".join(f"{end} {number:g}" for end, number in ends.items())
        case _:
            return str(value)
