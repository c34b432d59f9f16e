"""A model to serve, predicted: what it will take, told, and refused where it can't be had."""

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ggufphys import GGUFPhysError, MemoryPrediction
from ggufphys.memory.attachments import Draft
from ggufphys.params import Params
from server.accounts.footprint import find, http_bytes
from server.accounts.growth import Growth, growth_of, nothing
from server.engine.checks import check_serves
from server.engine.guessing import Guessing
from server.engine.in_numpy.engine import Hold, Load, NumpyModel, Predict, load_options
from server.engine.llama.devices import probe
from server.flags.guessing import draft_opened, drafts_warnings, guessing_of
from server.journal import say, warn
from server.start.asked import Asked
from server.start.beforehand import (
    device_lines,
    fits,
    host_memory,
    prediction,
    prediction_line,
    resident_bytes,
    too_large,
)

HOLD: Final[Hold] = "f32"  # as fast as numpy gets


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """How tokens are guessed, what memory is predicted (or why none is), and the model itself where it is numpy's.

    `growth` says how much more it holds behind what was asked of it.
    """

    guessing: Guessing
    predicted: MemoryPrediction | str
    growth: Growth
    model: NumpyModel | None = None


def planned_model(args: argparse.Namespace, asked: Asked) -> Planned:
    """Predict the one model that is asked for and tell it.

    Raises:
        GGUFPhysError, ValueError, OSError: it does not fit, or can't be served.
    """
    path, params = asked.path, asked.params
    with guesses(args, asked) as (guessing, draft):
        model: NumpyModel | None = None
        predicted: MemoryPrediction | str
        if asked.in_numpy:
            model, predicted = _open_numpy(args, path, params)
        else:
            predicted = prediction(
                path, params, find() if asked.has_worker else None, asked.adapters, draft, asked.encoder
            )
        tell(args, prediction_line(predicted, _http_side_bytes(params.n_seq_max) if asked.has_worker else 0))
        for line in device_lines(predicted):
            tell(args, line)
        for device in params.devices:
            if device.endpoint:
                probe(device.endpoint)  # llama.cpp would end its process
        if not isinstance(predicted, str):
            _refuse_unfit(args, asked, predicted, draft)
        check_serves(path)
    growth = nothing if asked.in_numpy else growth_of(path, params)
    return Planned(guessing=guessing, predicted=predicted, growth=growth, model=model)


@contextmanager
def guesses(args: argparse.Namespace, asked: Asked, *, prefix: str = "") -> Iterator[tuple[Guessing, Draft | None]]:
    """How tokens are guessed, and the draft model, its file open while the block runs; raises as `draft_opened`.

    What a user should know of them is told, with `prefix` in front.
    """
    with draft_opened(args, lambda: find().devices) as draft:
        guessing = guessing_of(args, draft, asked.params, asked.made)
        for warning in drafts_warnings(guessing, draft, asked.made):
            warn(f"warning: {prefix}{warning}")
        yield guessing, draft


def tell(args: argparse.Namespace, line: str) -> None:
    """A line for the user, on stderr where stdout is for a document."""
    (warn if args.json else say)(line)


def _refuse_unfit(args: argparse.Namespace, asked: Asked, predicted: MemoryPrediction, draft: Draft | None) -> None:
    """Raises GGUFPhysError: this machine has too little memory for it. What is tight is told."""
    refusal, tight = fits(predicted, host_memory())
    if not refusal and not asked.in_numpy and not args.oversized:
        refusal = too_large(asked.path, asked.params, predicted, asked.adapters, draft, asked.encoder)
    if refusal:
        raise GGUFPhysError(refusal)
    if tight:
        warn(f"warning: {tight}")


def _http_side_bytes(n_streams: int) -> int:
    """What this process will hold while it serves so many answers at once: it, its threads, and their requests."""
    return resident_bytes() + http_bytes(n_streams, n_streams)


def _open_numpy(args: argparse.Namespace, path: Path, params: Params) -> tuple[NumpyModel, MemoryPrediction]:
    """The model in numpy, nothing of it computed yet, and its memory after a prompt of one physical batch.

    Raises as `refengine.load`, or as its tokenizer does.
    """
    room = importlib.import_module(args.numpy_room)  # beside this one: the console script names it
    load: Load = room.load
    predict: Predict = room.predict_footprint
    base_bytes = resident_bytes()
    model = load(path, **load_options(params, args.hold or HOLD))
    assert model.tokenizer  # what cannot be tokenised is told before anybody connects
    n_prompt = max(1, min(model.context.n_ubatch, model.context.n_ctx_seq - 1))
    return model, predict(model, n_prompt=n_prompt, base_bytes=base_bytes)
