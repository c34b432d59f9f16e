"""llama-server's flags of speculative decoding: by a draft model (draft-simple), by looking back (ngram-simple).

Source: llama.cpp 0c1e570 common/arg.cpp, common_params_parser_init; common/speculative.cpp, common_speculative_types.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ggufphys import UnsupportedError, open_gguf
from ggufphys.arch import read_hparams
from ggufphys.arch.table import LATER, RULES
from ggufphys.context import ContextParams
from ggufphys.flags.draft import MODEL, add_draft_arguments, draft_fields
from ggufphys.gguf.locate import local_path
from ggufphys.memory.attachments import Draft
from ggufphys.memory.attachments.predict import draft_params
from ggufphys.memory.context import beyond_training
from ggufphys.params import Device, Params
from server.engine.checks import check_context, check_model_file
from server.engine.guessing import DraftFile, Guessing
from server.engine.scheduler.drafts import Drafting
from server.engine.scheduler.lookup import Lookups
from server.flags.values import amount

DRAFT: Final = "draft-simple"
LOOKUP: Final = "ngram-simple"
LENGTH_MAX: Final = 1024
DEFAULTS: Final = Lookups()
DRAFTING: Final = Drafting()


def add_guess_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the flags; `with_rows` and `guessing_of` read them."""
    add_draft_arguments(group)
    group.add_argument(
        "--spec-draft-n-min", type=amount, default=DRAFTING.n_min, metavar="N",
        help="and fewer are not tried (default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--spec-draft-p-min", "--draft-p-min", type=_share, default=DRAFTING.p_min, metavar="P",
        help="a draft ends before a token that it finds less likely (default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "-td", "--threads-draft", "--spec-draft-threads", type=amount, default=0, metavar="N",
        help="threads of the draft (default: as the model)",
    )  # fmt: skip
    group.add_argument(
        "--spec-type", type=_types, default=None, metavar="TYPE,...",
        help=f"{DRAFT}: a draft model guesses tokens, and all guesses are checked in one step (so it is with -md); "
        f"{LOOKUP}: guess what followed the last tokens when they last stood in the text; none. Answers are the same",
    )  # fmt: skip
    group.add_argument(
        "--spec-always", action="store_true",
        help="guess also where answers come slower by it, as llama-server does (default: both ways are tried now and "
        "then, and the faster one is taken)",
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


def named_draft(args: argparse.Namespace) -> Path | None:
    """The draft model, if there is one to load.

    Raises:
        ValueError: a draft is asked for, and no file is named.
    """
    named: str | None = getattr(args, MODEL, None)
    if args.spec_type is not None and DRAFT in args.spec_type and not named:
        raise ValueError(f"--spec-type {DRAFT}: name the draft model with --model-draft")
    return local_path(named) if named and args.spec_type != () else None


def with_rows(params: Params, args: argparse.Namespace) -> Params:
    """`params` with rows of logits for guesses, in each slot, unless their number was given."""
    lookups, n_draft = lookups_of(args), getattr(args, "draft_n_max", DRAFTING.n_max) if named_draft(args) else 0
    n_max = max(lookups.n_max if lookups else 0, n_draft)
    if not n_max or params.n_outputs_max:
        return params
    return replace(params, n_outputs_max=min(params.n_seq_max * (1 + n_max), params.n_batch))


@contextmanager
def draft_opened(args: argparse.Namespace, found: Callable[[], Sequence[Device]]) -> Iterator[Draft | None]:
    """The draft model that flags name, its file open while the block runs; `found` are this machine's devices.

    Raises:
        GGUFPhysError, OSError, ValueError: it cannot be one.
    """
    path = named_draft(args)
    if path is None:
        yield None
        return
    with open_gguf(path) as gguf:
        rule = RULES.get(gguf.architecture) or LATER.get(gguf.architecture)
        if gguf.kind == "model" and rule is not None and rule.is_draft:
            raise UnsupportedError(
                f"{path} ({gguf.architecture}) goes on from what the model it was made for has computed, which is not "
                f"done here: take a model that runs by itself ({DRAFT})"
            )
        check_model_file(path)
        yield Draft(gguf=gguf, n_threads=args.threads_draft, **draft_fields(args, found))


def guessing_of(args: argparse.Namespace, draft: Draft | None, params: Params, made: ContextParams) -> Guessing:
    """How tokens are guessed, as the flags have it, for a model that is run with `params`.

    Raises:
        ValueError: llama.cpp would not create the draft's context.
    """
    file = None if draft is None else _file(args, draft, params, made)
    return Guessing(lookups=lookups_of(args), draft=file, always=args.spec_always)


def drafts_warnings(guessing: Guessing, draft: Draft | None, made: ContextParams) -> Iterator[str]:
    """What a user should know of the draft."""
    if guessing.draft is None or draft is None:
        return
    n_ctx_train = read_hparams(draft.gguf).n_ctx_train
    if beyond_training(guessing.draft.params, made.n_ctx_seq, n_ctx_train):
        yield (
            f"the draft model was trained on {n_ctx_train:,} tokens, a sequence may have {made.n_ctx_seq:,}: behind "
            "those its guesses are worth little"
        )


def lookups_of(args: argparse.Namespace) -> Lookups | None:
    """How tokens are looked up; None: they are not."""
    if args.spec_type is None or LOOKUP not in args.spec_type:
        return None
    return Lookups(
        n_match=args.spec_ngram_simple_size_n,
        n_max=args.spec_ngram_simple_size_m,
        min_hits=args.spec_ngram_simple_min_hits,
    )


def _file(args: argparse.Namespace, draft: Draft, params: Params, made: ContextParams) -> DraftFile:
    path, hparams = check_model_file(draft.gguf.path)
    own = draft_params(draft, params, made)
    check_context(own, hparams)
    drafting = Drafting(n_max=draft.n_max, n_min=args.spec_draft_n_min, p_min=args.spec_draft_p_min)
    return DraftFile(path=str(path), params=own, drafting=drafting)


def _types(text: str) -> tuple[str, ...]:
    types = tuple(each for each in text.split(",") if each and each != "none")
    for each in types:
        if each not in (DRAFT, LOOKUP):
            raise argparse.ArgumentTypeError(f"{each!r} is not done here (expected none, {DRAFT} or {LOOKUP})")
    return types


def _length(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= LENGTH_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {LENGTH_MAX}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
