"""Whose defaults: llama-server's, which most people run, or those of a bare call of the library? And its own flags.

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init; tools/server/server.cpp, llama_server.
"""

import argparse
from collections.abc import Collection
from typing import Final, get_args

from ggufphys.flags.numbers import count, integer
from ggufphys.flags.run import switch
from ggufphys.frozen import replace
from ggufphys.params import POOLING_TYPES, Params, RunAs, as_server

FIT_CTX: Final = 4096  # common/common.h, fit_params_min_ctx
FIT_TARGET_MIB: Final = 1024  # common/common.h, fit_params_target
# Those that commands without them take as flags that change nothing.
NAMES: Final = (
    "-fit", "--fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx", "--kv-unified-per-slot", "--embedding",
    "--embeddings", "--rerank", "--reranking", "--pooling",
)  # fmt: skip
_SERVERS_ALONE: Final = {
    "cache_ram_mib": "--cache-ram", "n_ctx_checkpoints": "--ctx-checkpoints", "n_ctx_each": "--kv-unified-per-slot",
}  # fmt: skip


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags; `run_as` and `served` read what they leave behind."""
    add_as_argument(parser)
    group = parser.add_argument_group("llama-server", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "-cram", "--cache-ram", dest="cache_ram_mib", type=integer, metavar="MiB",
        help="the prompt cache's limit (default 8192, -1: none, 0: no cache)",
    )  # fmt: skip
    group.add_argument(
        "-ctxcp", "--ctx-checkpoints", "--swa-checkpoints", dest="n_ctx_checkpoints", type=count, metavar="N",
        help="checkpoints a slot may have (default 32)",
    )  # fmt: skip


def add_context_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how long a context is when -c does not."""
    group = parser.add_argument_group("llama-server's context", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--kv-unified-per-slot", dest="n_ctx_each", type=count, metavar="N",
        help="without -c, a context of N tokens for each slot",
    )  # fmt: skip
    group.add_argument(
        "-fit", "--fit", dest="fit", type=switch, choices=("on", "off"),
        help="a context that nobody asked for is the trained one for each stream, shortened to fit into memory "
        "(default on)",
    )  # fmt: skip
    group.add_argument(
        "-fitc", "--fit-ctx", type=count, metavar="N", help=f"shortened to N at least (default {FIT_CTX})"
    )
    group.add_argument(
        "-fitt", "--fit-target", type=_margins, metavar="MiB,...",
        help=f"what --fit leaves free (default {FIT_TARGET_MIB})",
    )  # fmt: skip


def add_embedding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a server for embeddings."""
    group = parser.add_argument_group("llama-server's embeddings", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--embedding", "--embeddings", dest="embeddings", action="store_true",
        help="for embeddings alone: one physical batch, all of whose tokens are outputs",
    )  # fmt: skip
    group.add_argument(
        "--pooling", choices=POOLING_TYPES, help="how embeddings of a text become one (default: as the file says)"
    )
    group.add_argument("--rerank", "--reranking", action=_Rerank, nargs=0, help="the same, with --pooling rank")


class _Rerank(argparse.Action):
    """Asks for scores of texts."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        namespace.embeddings, namespace.pooling = True, "rank"


def add_as_argument(parser: argparse.ArgumentParser) -> None:
    """Add --as by itself."""
    group = parser.add_argument_group("whose defaults", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--as", dest="run_as_asked", choices=get_args(RunAs),
        help="server: as llama-server runs it, 4 slots with one cache unless -np says how many, an output for each "
        "(default); library: as llama-cpp-python and other bare calls do, one sequence, every row of logits",
    )  # fmt: skip
    group.add_argument(
        "--server", dest="run_as_asked", action="store_const", const="server", help=argparse.SUPPRESS
    )  # its older name


def run_as(args: argparse.Namespace) -> RunAs:
    """Whose defaults the flags ask for.

    Raises:
        ValueError: a flag of llama-server's with `--as library`.
    """
    asked: RunAs = getattr(args, "run_as_asked", "server")
    if asked == "library":
        for name, flag in _SERVERS_ALONE.items():
            if hasattr(args, name):
                raise ValueError(f"{flag} is llama-server's: --as library has none")
    return asked


def served(args: argparse.Namespace, params: Params, chosen: Collection[str] = (), *, n_draft: int = 0) -> Params:
    """The parameters as llama-server would have them, unless the library's are asked for.

    `chosen` fields are not its to choose.

    Raises:
        ValueError: see `run_as`.
    """
    if run_as(args) == "library":
        return params
    n_parallel_given = slots_given(args) or "n_seq_max" in chosen
    params = as_server(
        params, n_parallel_given=n_parallel_given, n_draft=n_draft, fit_params=getattr(args, "fit", "on") != "off"
    )
    if not hasattr(args, "n_ctx") and "n_ctx" not in chosen and hasattr(args, "n_ctx_each"):
        params = replace(params, n_ctx=params.n_seq_max * args.n_ctx_each)
    return params


def slots_given(args: argparse.Namespace) -> bool:
    """Do flags say how many sequences there are?"""
    return hasattr(args, "n_seq_max")


def _margins(text: str) -> tuple[int, ...]:
    """Bytes, of MiB with commas or slashes between them."""
    parts = text.replace("/", ",").split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected MiB, such as 1024,512")
    return tuple(int(part) << 20 for part in parts)
