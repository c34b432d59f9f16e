"""One of several models behind one address: how it is run, and its application, which is there from the start."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ggufphys.context import ContextParams
from ggufphys.params import Params
from server.accounts.growth import growth_of
from server.app import create_app, service_of
from server.config import ServerConfig
from server.engine.checks import check_serves
from server.engine.counters import Counters
from server.engine.loop.threaded import BaseEngine
from server.engine.worker.crash import FileStamp
from server.fleet.fleet import LazyEngine
from server.fleet.room import Room
from server.journal import warn
from server.start.asked import Asked, asked_of, model_warnings
from server.start.beforehand import prediction
from server.start.opened import file_stamps, ledger_of, opened_engine
from server.start.planned import Planned, guesses


def filled(made: ContextParams) -> Counters:
    """What an engine has done at most, as far as memory goes."""
    return Counters(n_tokens_max=made.n_ctx, n_cells=made.n_ctx, n_batch_max=made.n_ubatch, n_chains_max=made.n_seq_max)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model with one of its adapters, by its name: a `Sibling`."""

    name: str
    engine: LazyEngine

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self.engine.is_loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one of the models is run, and what it needs.

    Args:
        args: flags as this model has them.
        nbytes: of its process, once its cache is full.
    """

    args: argparse.Namespace
    asked: Asked
    planned: Planned
    nbytes: int

    @classmethod
    def of(cls, name: str, path: Path, args: argparse.Namespace, params: Params) -> "Run":
        """By its flags. Warns of what is unwise. Raises as `serve_several`."""
        asked = asked_of(args, path, params, name=name)
        for warning in model_warnings(asked):
            warn(f"warning: {name}: {warning}")
        with guesses(args, asked, prefix=f"{name}: ") as (guessing, draft):
            check_serves(path)
            predicted = prediction(path, asked.params, None, asked.adapters, draft, asked.encoder)
        growth = growth_of(path, asked.params)
        most = 0 if isinstance(predicted, str) else predicted.process_bytes + growth(filled(asked.made))
        return cls(
            args=args,
            asked=asked,
            planned=Planned(guessing=guessing, predicted=predicted, growth=growth),
            nbytes=most or path.stat().st_size,
        )


class Member:
    """One of the models in the fleet: its application, over an engine that is there when it is asked for.

    `stamps` are of the files that the engine maps, as they were when it was started.
    """

    def __init__(self, run: Run, config: ServerConfig, room: Room) -> None:
        self.name = run.asked.name
        self.path = run.asked.path
        self.stamps: tuple[FileStamp, ...] = ()
        self._run = run
        self.engine = LazyEngine(self.name, run.nbytes, self._start, room)
        self.app = create_app(config, self.engine, ledger_of(run.planned, self.engine))
        self.service = service_of(self.app)
        self.engine.in_use = lambda: self.service.in_flight.count
        self.service.in_flight.ended = room.look_again
        self.variants = [Variant(f"{self.name}:{each.name}", self.engine) for each in run.asked.adapters if each.name]

    def _start(self) -> BaseEngine:
        run = self._run
        self.stamps = file_stamps(run.asked, run.planned)
        return opened_engine(run.args, run.asked, run.planned)
