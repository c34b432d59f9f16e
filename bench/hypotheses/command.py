"""`ggufphys bench hypotheses [FILE.toml]`: claims about local inference, each with what was found here and why."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.hypotheses.experiment import SHIPPED, Experiment, read_experiments
from bench.hypotheses.finding import Finding
from bench.hypotheses.quantities import QUANTITIES
from bench.hypotheses.verdict import counted, row
from ggufphys.errors import GGUFPhysError
from ggufphys.flags.installed import refuse_build
from ggufphys.flags.parser import exclude
from ggufphys.report.inspection import dumps
from ggufphys.report.progress import Steps
from server.engine.checks import check_model_file
from server.engine.llama.library import require_library

LEAST_SAID: Final = 0.005  # a deviation that is a percent when it is rounded


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
    refuse_build(parser)
    exclude(parser, "--rules-only", "--model")


def run(args: argparse.Namespace) -> int:
    """Test all experiments and print their outcomes; 0, whatever the verdicts are."""
    experiments = read_experiments(args.file or SHIPPED)
    if args.only is not None:
        wanted = tuple(word.strip() for word in args.only.split(","))
        for word in wanted:
            if not word or not any(e.id.startswith(word) for e in experiments):
                raise ValueError(f"--only {args.only}: no experiment's id begins with {word!r}")
        experiments = [e for e in experiments if e.id.startswith(wanted)]
    if args.rules_only:
        experiments = [e for e in experiments if not QUANTITIES[e.quantity].measured]
    elif any(QUANTITIES[e.quantity].measured for e in experiments):
        require_library("--rules-only goes without it")
    for i, model in enumerate(args.model):
        check_model_file(model)  # before others are measured for minutes
        if model.stem in (other.stem for other in args.model[:i]):
            raise ValueError(f"--model {model}: another one has this name, and outcomes are told apart by it")
    rows = outcomes(experiments, args.model)
    sys.stdout.write((dumps(rows) if args.json else as_text(rows)) + "\n")
    return 0


def outcomes(experiments: Sequence[Experiment], models: Sequence[Path]) -> list[dict[str, Any]]:
    """Each experiment's outcome, in their order; one that measures has one for each model, too.

    Those by rules are found first: what is wrong with one is told before anything is measured.

    Raises:
        ValueError: nothing can be found for a setup: of which experiment, and why.
    """
    runs = [
        (experiment, model)
        for experiment in experiments
        for model in ((None, *models) if _asks_a_model(experiment) else (None,))
    ]
    rows: dict[int, dict[str, Any]] = {}
    with Steps("testing", total=len(runs), unit="experiments", ticks=True) as steps:
        for i in sorted(range(len(runs)), key=lambda i: QUANTITIES[runs[i][0].quantity].measured):
            rows[i] = _outcome(*runs[i])
            steps.advance()
    return [rows[i] for i in range(len(runs))]


def _asks_a_model(experiment: Experiment) -> bool:
    """Is it asked of each model anew? Not what is predicted, nor what names its own files."""
    quantity = QUANTITIES[experiment.quantity]
    parts = [experiment.setup[part] for part in quantity.parts] or [experiment.setup]
    return quantity.measured and not all("file" in part for part in parts)


def _outcome(experiment: Experiment, model: Path | None) -> dict[str, Any]:
    quantity = QUANTITIES[experiment.quantity]
    try:
        found = quantity.find(experiment.setup, model)
    except GGUFPhysError as error:  # of one experiment: the others go on
        found = Finding(value=None, explanation=str(error))
    except OSError as error:
        found = Finding(value=None, explanation=f"{error.filename}: {error.strerror}")
    except ValueError as error:
        raise ValueError(f"experiment {experiment.id}: {error}") from error
    outcome = row(experiment, found, measured=quantity.measured, unit=quantity.unit)
    return outcome if model is None else outcome | {"id": f"{experiment.id}@{model.stem}", "model": model.name}


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A paragraph an experiment, and how many hold."""
    lines = []
    for outcome in rows:
        deviation = outcome["deviation"] or 0.0
        off = f", off by {deviation:+.0%}" if abs(deviation) >= LEAST_SAID else ""
        unit = f" {outcome['unit']}" if outcome["unit"] and outcome["measured"] is not None else ""
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
