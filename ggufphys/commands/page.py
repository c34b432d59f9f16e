"""`ggufphys inspect MODEL --html [FILE]`: the report as one page, with a slider over lengths of context."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ggufphys.commands.attached import predicting, with_server
from ggufphys.commands.devices import params_here
from ggufphys.errors import UnsupportedError
from ggufphys.machine.output import write_whole
from ggufphys.memory.predict import Predictor
from ggufphys.params import Params
from ggufphys.plan.contexts import context_points
from ggufphys.plan.explain import layer_rows
from ggufphys.plan.fits import memory_limit
from ggufphys.plan.layer_weights import layer_bytes
from ggufphys.report.inspection import Inspection
from ggufphys.report.page.document import Run, page
from ggufphys.units import format_bytes

STDOUT: Final = "-"
SUFFIXES: Final = (".html", ".htm", ".xhtml")


def shower(args: argparse.Namespace) -> Callable[[Inspection], str]:
    """What shows a report as --html asks: the page, or a line that says where it was written.

    Raises:
        ValueError: both --html and --json, or FILE has another name than a page's (a model's, say).
    """
    if args.json:
        raise ValueError("--html and --json: stdout holds one of them")
    path = None if args.html == STDOUT else Path(args.html)
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--html {path}: expected a name ending in .html (the model's name goes before --html)")

    def show(found: Inspection) -> str:
        text = page(found, _run(args, found), command=_command(args.words))
        if path is None:
            return text
        write_whole(path, text)
        return f"{path}: {found.gguf.name}, {format_bytes(len(text.encode()))}"

    return show


def _run(args: argparse.Namespace, found: Inspection) -> Run | None:
    """How it lies in memory: at each length of context, layer by layer. None where nothing is predicted by a rule."""
    if found.prediction is None or found.params is None:
        return None
    params, _ = params_here(args)
    limit = None if args.assert_fits is None else memory_limit(args.assert_fits)
    try:
        predictor = Predictor(found.gguf, force=args.force)
    except UnsupportedError:  # what is predicted is a guess from tensors, of which no lengths are asked
        return None

    def served(params: Params) -> Params:
        return with_server(args, params, ("n_ctx",))

    with predicting(args, predictor) as predict:
        points = context_points(
            lambda p: predict(served(p)), params, found.prediction,
            n_ctx_train=predictor.h.n_ctx_train, limit_bytes=limit,
        )  # fmt: skip
        kept = layer_rows(predictor, found.params, found.prediction.context)
    return Run(points=points, layers=layer_bytes(predictor, found.params, kept))


def _command(words: Sequence[str]) -> str:
    """The command line that prints the page's numbers: the one that was given, with --json in place of --html."""
    kept, waits = ["ggufphys"], False
    for word in words:
        if waits and word.lower().endswith(SUFFIXES):
            waits = False
            continue
        name, _, _ = word.partition("=")
        waits = word == "--html"
        if name != "--html":
            kept.append(word)
    return shlex.join([*kept, "--json"])
