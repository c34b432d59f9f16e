"""The engine of a model that was asked for and planned, its account of memory, and its files as they are now."""

import argparse
from typing import Any

from server.accounts.ledger import Ledger, Pids
from server.engine.in_numpy.engine import NumpyEngine
from server.engine.llama.engine import LlamaEngine
from server.engine.loop.threaded import BaseEngine
from server.engine.worker.crash import FileStamp
from server.engine.worker.supervised import SupervisedEngine
from server.flags.serve import stall_bounds
from server.journal import warn
from server.start.asked import Asked
from server.start.beforehand import resident_bytes
from server.start.planned import Planned


def opened_engine(args: argparse.Namespace, asked: Asked, planned: Planned) -> BaseEngine:
    """The engine that flags ask for: of a model in numpy, or of a file in llama.cpp, here or in a worker process."""
    options: dict[str, Any] = {"name": asked.name, "max_waiting": args.max_queue, "warn": warn}
    if planned.model is not None:
        pooling = asked.params.pooling
        return NumpyEngine(planned.model, pooling=None if pooling == "model" else pooling, **options)
    options |= {
        "target_s": args.target_itl / 1000, "adapters": asked.adapters, "guessing": planned.guessing,
        "block": asked.block,
    }  # fmt: skip
    options["encoder"] = asked.encoder
    if asked.in_process:
        return LlamaEngine(asked.path, asked.params, **options)
    return SupervisedEngine(asked.path, asked.params, verbose=args.verbose, bounds=stall_bounds(args), **options)


def file_stamps(asked: Asked, planned: Planned) -> tuple[FileStamp, ...]:
    """The files that are mapped while it runs, as they are now: take them just before the engine is opened."""
    draft = planned.guessing.draft
    return tuple(map(FileStamp.of, (str(asked.path), *([draft.path] if draft else []))))


def ledger_of(planned: Planned, engine: object) -> Ledger:
    """The account of its memory, predicted and measured."""
    return Ledger(predicted=planned.predicted, base_bytes=resident_bytes(), pids=Pids(engine), growth=planned.growth)
