"""llama-server's flags of speculative decoding, of which the lookup in the text is had (ngram-simple).

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init; common/speculative.cpp, common_speculative_types.
"""

import argparse
from dataclasses import replace
from typing import Final

from ggufphys.params import Params
from server.engine.scheduler.lookup import Lookups

TYPE: Final = "ngram-simple"
LENGTH_MAX: Final = 1024
DEFAULTS: Final = Lookups()


def add_guess_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `lookups_of` reads them."""
    group.add_argument(
        "--spec-type", type=_types, default=(), metavar="TYPE",
        help=f"{TYPE}: guess what followed the last tokens when they last stood in the text, and check all guesses in "
        "one step; answers are the same (default none)",
    )  # fmt: skip
    for name, default, what in (
        ("size-n", DEFAULTS.n_match, "tokens that must be alike"),
        ("size-m", DEFAULTS.n_max, "tokens guessed at a time, at most; each takes a row of logits of every slot"),
        ("min-hits", DEFAULTS.min_hits, "times that they must have stood there"),
    ):
        group.add_argument(
            f"--spec-ngram-simple-{name}", type=_length, default=default, metavar="N",
            help=f"{what} (default %(default)s)",
        )  # fmt: skip


def lookups_of(args: argparse.Namespace) -> Lookups | None:
    """How tokens are guessed, as the flags have it; None: they are not."""
    if TYPE not in args.spec_type:
        return None
    return Lookups(
        n_match=args.spec_ngram_simple_size_n,
        n_max=args.spec_ngram_simple_size_m,
        min_hits=args.spec_ngram_simple_min_hits,
    )


def with_rows(params: Params, lookups: Lookups | None) -> Params:
    """`params` with rows of logits for guesses, in each slot, unless their number was given."""
    if lookups is None or params.n_outputs_max:
        return params
    return replace(params, n_outputs_max=min(params.n_seq_max * (1 + lookups.n_max), params.n_batch))


def _types(text: str) -> tuple[str, ...]:
    types = tuple(each for each in text.split(",") if each and each != "none")
    for each in types:
        if each != TYPE:
            raise argparse.ArgumentTypeError(f"{each!r} is not done here (expected none or {TYPE})")
    return types


def _length(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LENGTH_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {LENGTH_MAX}")
    return int(text)
