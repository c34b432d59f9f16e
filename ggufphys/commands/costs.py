"""`ggufphys inspect MODEL --costs`: what do a prompt and a decode step compute, and how many bytes do they move?"""

import argparse

from ggufphys.flags.run import count
from ggufphys.gguf import GGUFFile
from ggufphys.params import Params
from ggufphys.report.inspection import Section


def add_costs_arguments(parser: argparse.ArgumentParser) -> None:
    """--costs, and of what."""
    group = parser.add_argument_group("costs")
    group.add_argument(
        "--costs", action="store_true", help="FLOPs and bytes moved, by what they are for, in prefill and decode"
    )
    group.add_argument(
        "--prefill", type=count, metavar="N", help="costs of a prompt of N tokens (512, or as many as fit)"
    )
    group.add_argument("--depth", type=count, metavar="N", help="N tokens are in the cache beforehand (0)")
    group.add_argument("--batch", type=count, metavar="N", help="N sequences decode together (1)")


def costs_sections(args: argparse.Namespace, gguf: GGUFFile, params: Params) -> tuple[Section, ...]:
    """The answer to --costs; none when it was not asked.

    Raises:
        ValueError: a question about costs without --costs, or tokens that do not fit into the context.
    """
    if not args.costs:
        if (args.prefill, args.depth, args.batch) != (None, None, None):
            raise ValueError("--prefill, --depth and --batch are for --costs: ask for it too")
        return ()
    from ggufphys.report.costs import costs_section  # what other questions do not need
    from ggufphys.speed.costs import predict_costs

    asked = {name: getattr(args, name) for name in ("prefill", "depth", "batch") if getattr(args, name) is not None}
    return (costs_section(predict_costs(gguf, params, **asked)),)
