"""`ggufphys inspect MODEL`: how fast will it be? `--costs`: what does it compute, and how many bytes does it move?"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ggufphys.errors import UnsupportedError
from ggufphys.frozen import replace
from ggufphys.gguf import GGUFFile
from ggufphys.params import Params
from ggufphys.report.inspection import Section
from ggufphys.report.unknown_speed import NO_CALIBRATION, unknown_section

if TYPE_CHECKING:
    from ggufphys.speed.predict import Speeds
    from ggufphys.speed.rates import Machine


def costs_sections(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> tuple[Section, ...]:
    """The answer to --costs; none when it was not asked.

    Raises:
        ValueError: tokens that do not fit into the context.
    """
    if not args.costs:
        return ()
    from ggufphys.report.costs import costs_section  # what other questions do not need
    from ggufphys.speed.costs import predict_costs

    return (costs_section(predict_costs(gguf, params, **lengths_asked(args))),)


def speed_sections(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> tuple[Section, ...]:
    """How fast it will run here; a line that says how to find out where the machine's rates are not known.

    Raises:
        ValueError: tokens that were asked for and do not fit into the context, or a budget that is none.
    """
    from ggufphys.speed import kept

    budget = None
    if args.budget is not None:
        from ggufphys.plan.budget import parse_budget

        budget = parse_budget(args.budget)
    if args.on is None and not kept.is_calibrated():
        return (unknown_section(NO_CALIBRATION),)
    from ggufphys.graph.devices.runs import Runs
    from ggufphys.report.speed import speed_section  # what is not needed without rates
    from ggufphys.speed.history import errors
    from ggufphys.speed.predict import Speeds
    from ggufphys.speed.rates import CalibrationError

    try:
        machine = machine_asked(args)
        assert machine is not None, "there is a calibration, or a machine was named"
        known = None if args.on is not None else errors()
        runs = Runs(gguf)
        speeds = Speeds(runs.run(params), machine, params.n_threads)
        predicted = speeds.predict(**lengths_asked(args))
        if args.on is None:
            predicted = replace(predicted, notes=(*predicted.notes, *_too_large(speeds)))
        sections = [speed_section(predicted, errors=known)]
        if args.explain:
            from ggufphys.plan.faster import explain_speed
            from ggufphys.report.faster import explained_speed_section

            sections.append(explained_speed_section(explain_speed(runs, params, machine, **lengths_asked(args))))
        if budget is not None:
            from ggufphys.plan.budget import judge
            from ggufphys.report.faster import budget_section

            sections.append(budget_section(judge(speeds, budget)))
        return tuple(sections)
    except (CalibrationError, UnsupportedError) as error:
        return (unknown_section(str(error)),)


def _too_large(speeds: "Speeds") -> Iterator[str]:
    """Where this machine's memory cannot hold the weights: rates are those of weights that stay there."""
    from ggufphys.machine import host
    from ggufphys.params import HOST
    from ggufphys.units import format_bytes

    weights = speeds.run.placed.weights.items()
    nbytes = sum(t.nbytes or 0 for buffer, tensors in weights if buffer.device == HOST for t in tensors)
    memory = host.main_memory().total_bytes
    if memory and nbytes > memory:
        yield (
            f"weights take {format_bytes(nbytes)} and this machine has {format_bytes(memory)}: they would be read from "
            "the disk again and again, and be far slower than this"
        )


def machine_asked(args: argparse.Namespace) -> "Machine | None":
    """The machine of --on, or this one as it was calibrated; None where it never was.

    Raises:
        ValueError: no machine of that name is known.
        CalibrationError: the calibration cannot be used.
    """
    if args.on is None:
        from ggufphys.speed.kept import kept_machine

        return kept_machine()
    from ggufphys.speed.published import data_sheet, published_machine

    return data_sheet(published_machine(args.on))


def lengths_asked(args: argparse.Namespace) -> dict[str, int]:
    """--prefill, --depth and --batch, as far as they were given."""
    return {name: getattr(args, name) for name in ("prefill", "depth", "batch") if getattr(args, name) is not None}
