"""`ggufphys inspect MODEL --sweep NAME=VALUES,...`: how does memory change with the way it is run?"""

import argparse
import importlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, cast

from ggufphys.builds.proven import require_known
from ggufphys.commands.attached import predicting, with_server
from ggufphys.commands.devices import params_here
from ggufphys.commands.opening import opened
from ggufphys.memory.predict import Predictor

if TYPE_CHECKING:
    from pathlib import Path

    from ggufphys.plan.sweep import Axis, Point


class Plotter(Protocol):
    """The module that draws, which another room has (`ggufphys.cli`, COMMANDS)."""

    def check_plot(self, path: "Path") -> None:
        """Refuse beforehand what cannot be drawn."""

    def plot_sweep(self, path: "Path", title: str, axes: "Sequence[Axis]", points: "Sequence[Point]") -> None:
        """Draw the points into a file."""


def run_sweep(args: argparse.Namespace) -> int:
    """Print the table; exit code 2 when llama.cpp would refuse every point."""
    from ggufphys.plan.sweep import parse_sweep, sweep
    from ggufphys.report import sweep as report_sweep  # what other questions do not need

    axes = parse_sweep(",".join(args.sweep))
    plotter = None
    if args.plot is not None:
        from pathlib import Path

        picture = Path(args.plot)
        plotter = cast("Plotter", importlib.import_module(args.plotter))
        plotter.check_plot(picture)
    swept = frozenset(axis.name for axis in axes)
    params, notes = params_here(args)
    with ExitStack() as stack:
        gguf = stack.enter_context(opened(args.models[0], use_cache=args.use_cache))
        require_known(gguf.architecture, params.llama_build)
        predict = stack.enter_context(predicting(args, Predictor(gguf, force=args.force)))
        points = list(sweep(predict, params, axes, lambda p: with_server(args, p, swept)))
        if all(point.refused for point in points):
            raise ValueError(points[0].refused)
        try:  # the picture first: a reader of the table who has seen enough ends this
            if plotter is not None:
                plotter.plot_sweep(picture, gguf.name, axes, points)
        finally:
            if args.csv:
                print(report_sweep.sweep_csv(axes, points))
            elif args.json:
                print(report_sweep.sweep_json(gguf, axes, points, notes))
            else:
                print(report_sweep.sweep_text(gguf, axes, points, notes))
    return 0
