"""`ggufphys inspect MODEL`: its flags. Whoever asks for help alone needs nothing else."""

import argparse

from ggufphys.flags.attached import add_attachment_arguments
from ggufphys.flags.draft import NAMES as DRAFT_FLAGS
from ggufphys.flags.model import add_model_arguments
from ggufphys.flags.others import add_other_flags
from ggufphys.flags.questions import (
    add_costs_arguments,
    add_explain_arguments,
    add_quantize_arguments,
    add_sweep_arguments,
)
from ggufphys.flags.run import add_run_arguments
from ggufphys.flags.server import NAMES as SERVER_FLAGS
from ggufphys.flags.server import add_context_arguments, add_embedding_arguments, add_server_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL (none: all of this machine), --json, and how it is run."""
    add_model_arguments(parser, several=True, required=False)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--html", nargs="?", const="-", metavar="FILE",
        help="the report as one page with pictures, into FILE.html or on stdout; needs nothing beside itself",
    )  # fmt: skip
    parser.add_argument(
        "--assert-fits", metavar="SIZE", help="exit 1 unless the process fits into so much main memory (24GiB, 512MiB)"
    )
    parser.add_argument(
        "--log", metavar="FILE", help="compare the prediction with a log of llama-server or llama-cli (- for stdin)"
    )
    parser.add_argument(
        "--diff", metavar="MODEL", help="compare with another file: which keys, tensors and sizes differ"
    )
    parser.add_argument(
        "--template", action="store_true",
        help="try the file's chat template on conversations: what it renders, and what is wrong with it",
    )  # fmt: skip
    add_run_arguments(parser, builds=True)
    add_attachment_arguments(parser)
    add_server_arguments(parser)
    add_context_arguments(parser)
    add_embedding_arguments(parser)
    add_quantize_arguments(parser)
    add_explain_arguments(parser)
    add_sweep_arguments(parser)
    add_costs_arguments(parser)
    add_other_flags(parser, but=(*SERVER_FLAGS, *DRAFT_FLAGS))


def run(args: argparse.Namespace) -> int:
    """Answer; see `commands.inspected`."""
    from ggufphys.commands.inspected import run as answer  # most of what an answer takes

    return answer(args)
