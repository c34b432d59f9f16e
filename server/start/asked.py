"""A model to serve, as flags ask for it: checked against its file before anything is loaded."""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggufphys import embedded
from ggufphys.builds.asked import installed_build
from ggufphys.context import ContextParams
from ggufphys.flags.environment import MODEL
from ggufphys.flags.run import params_from
from ggufphys.gguf.locate import local_path
from ggufphys.hparams.hparams import HParams
from ggufphys.memory.context import beyond_training
from ggufphys.params import Params
from server.accounts.footprint import find
from server.config import ServerConfig
from server.engine.checks import check_context, check_model_file, embeds_only, one_output_per_sequence
from server.engine.in_numpy.engine import check_params, without_effect
from server.engine.llama.adapters import check_adapter
from server.engine.media import Encoder
from server.engine.model_info import Adapter
from server.flags.adapters import adapters_of
from server.flags.guessing import named_draft, with_rows
from server.flags.hub import hub_reference
from server.flags.media import encoder_of
from server.flags.serve import overlooked
from server.journal import warn
from server.left_open.invariance import invariant
from server.left_open.slots import default_slots
from server.left_open.vectors import gives_vectors, refuse_guesses, vector_params
from server.left_open.weights import default_load
from server.start.beforehand import unwise

UNWATCHED = (
    "note: --in-process: nothing watches over grammars here, and one that is followed for hours holds all "
    "requests; without it the engine's process is ended after 10 s"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be served, and how.

    Args:
        name: the model's to clients; empty: as the file has it.
        made: the context as llama.cpp makes it of `params`.
        hparams: of the model.
        block: slots whose answers go together so that others change no bit of them; 0: as they come.
        in_numpy: by our own engine; else by llama.cpp, in a process of its own unless `in_process`.
    """

    name: str
    path: Path
    params: Params
    made: ContextParams
    hparams: HParams
    adapters: Sequence[Adapter]
    encoder: Encoder | None
    block: int
    in_numpy: bool
    in_process: bool

    @property
    def has_worker(self) -> bool:
        """Whether the engine is a process of its own."""
        return not (self.in_numpy or self.in_process)


def asked_model(args: argparse.Namespace) -> Asked:
    """The one model that flags ask for.

    Raises:
        GGUFPhysError, ValueError, OSError: the file can't be served, or not so.
    """
    path, params = model_path(args), asked_params(args)
    if args.engine != "numpy" and not args.in_process:  # there nothing is gathered into larger pages
        params = default_load(params, vars(args), path)
    return asked_of(args, path, params, name=next(iter(args.alias), ""))


def asked_params(args: argparse.Namespace) -> Params:
    """How flags have a model run, whichever it is. Raises ValueError: not on the devices that there are."""
    in_numpy = args.engine == "numpy"
    params = params_from(
        args, Params(llama_build=installed_build()), found=None if in_numpy else lambda: find().devices
    )
    return params if in_numpy else default_slots(params, vars(args))


def asked_of(args: argparse.Namespace, path: Path, params: Params, *, name: str) -> Asked:
    """How flags have one model run, by what its file says; raises as `asked_model`."""
    in_numpy = args.engine == "numpy"
    _, hparams = check_model_file(path)
    if gives_vectors(args, hparams):
        params = _vector_params(args, path, params, hparams)
    params, block = invariant(args, params, path)
    if not params.embeddings:
        params = one_output_per_sequence(with_rows(params, args))
    if not in_numpy:
        check_model_file(path, params)
    made = check_context(params, hparams)
    if in_numpy:
        check_params(params)
    _refuse_for_engine(args)
    encoder = encoder_of(args, path, vectors=params.embeddings)
    adapters = adapters_of(args)
    for adapter in adapters:
        check_adapter(adapter.path, path)
    return Asked(
        name=name, path=path, params=params, made=made, hparams=hparams, adapters=adapters, encoder=encoder,
        block=block, in_numpy=in_numpy, in_process=args.in_process,
    )  # fmt: skip


def _vector_params(args: argparse.Namespace, path: Path, params: Params, hparams: HParams) -> Params:
    """`params` for a model that gives vectors and no text."""
    refuse_guesses(args)
    given = vars(args)
    if args.engine == "numpy":
        if not embeds_only(hparams):
            raise ValueError("--embeddings, --rerank: the numpy engine runs encoders so alone; take --engine llama.cpp")
        if "n_seq_max" not in given:
            params, given = replace(params, n_seq_max=1), given | {"n_seq_max": 1}
    return vector_params(params, given, path)


def model_warnings(asked: Asked) -> Iterator[str]:
    """What a user should know of a model as it is asked for."""
    beyond = beyond_training(asked.params, asked.made.n_ctx_seq, asked.hparams.n_ctx_train)
    if beyond and not asked.params.embeddings:
        yield beyond
    if asked.in_numpy:
        yield from without_effect(asked.params)


def warn_of_flags(args: argparse.Namespace, config: ServerConfig) -> None:
    """Tell what a user should know of flags, whatever the model."""
    for each in (*unwise(args.host, config.api_keys), *overlooked(args)):
        warn(f"warning: {each}")
    if args.in_process and args.engine != "numpy":
        warn(UNWATCHED)


def _refuse_for_engine(args: argparse.Namespace) -> None:
    """Raises ValueError: a flag is not for the engine that is asked for."""
    if args.engine != "numpy":
        if args.hold:
            raise ValueError("--hold: llama.cpp holds weights in its own way; it is for --engine numpy")
        return
    if args.adapters:
        raise ValueError("--lora: not with the numpy engine; take --engine llama.cpp")
    if args.spec_type or named_draft(args):
        raise ValueError("--spec-type, --model-draft: not with the numpy engine; take --engine llama.cpp")


def model_path(args: argparse.Namespace) -> Path:
    """The model that is named, by the command line or else by the environment; the embedded one if none is.

    Raises:
        ValueError: several are.
    """
    # "" is a variable that was not set.
    given = [each for each in (args.model, *args.models, hub_reference(args)) if each is not None]
    named = given or [*filter(None, [os.environ.get(MODEL, "")])]
    if len(named) > 1:
        raise ValueError(f"several models are named ({', '.join(named)}): name one")
    return local_path(named[0]) if named else embedded.MODEL
