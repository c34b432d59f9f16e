"""`ggufphys tensors MODEL`: the tensor table."""

import argparse
from pathlib import Path

from ggufphys import report
from ggufphys.gguf import open_gguf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, --json."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a GGUF file; of a split model any shard")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Print a row a tensor."""
    with open_gguf(args.model) as gguf:
        print(report.tensors_json(gguf) if args.json else report.tensors_text(gguf))
    return 0
