"""`ggufphys metadata MODEL`: the keys of its header, and what each says."""

import argparse

from ggufphys.commands.opening import opened
from ggufphys.flags.model import add_model_arguments
from ggufphys.flags.parser import alike
from ggufphys.report import metadata as report_metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, --key, --json."""
    add_model_arguments(parser)
    parser.add_argument("--key", metavar="KEY", help="the whole value of this key alone, as it is: a template, a list")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Print a row a key, or one key's value.

    Raises:
        ValueError: there is no such key; the message names those that look alike.
    """
    with opened(args.model, use_cache=args.use_cache) as gguf:
        if args.key is not None and args.key not in gguf.metadata:
            hint = alike(args.key, gguf.metadata).rstrip("\n")
            raise ValueError(f"{gguf.location} has no key {args.key!r}{f': {hint}' if hint else ''}")
        if args.json:
            print(report_metadata.metadata_json(gguf, args.key))
        elif args.key is not None:
            print(report_metadata.whole_text(gguf, args.key))
        else:
            print(report_metadata.metadata_text(gguf))
    return 0
