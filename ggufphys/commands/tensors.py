"""`ggufphys tensors MODEL`: the tensor table."""

import argparse

from ggufphys.commands.opening import opened
from ggufphys.flags.model import add_model_arguments
from ggufphys.report import tensors as report_tensors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, --json."""
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Print a row a tensor."""
    with opened(args.model, use_cache=args.use_cache) as gguf:
        print(report_tensors.tensors_json(gguf) if args.json else report_tensors.tensors_text(gguf))
    return 0
